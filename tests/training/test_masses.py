"""The prior of masses is that of the data, and its spread is honest on worlds that it was not made from."""

import numpy as np
import pytest

from training.worlds.families import VOCABULARY
from training.worlds.masses import density_table, drawn, mixed, normalized_errors, weighed
from training.worlds.published_masses import PUBLISHED, log_densities
from wm_perception.shapes.mass_prior import OUTLINE_DENSITIES, UNKNOWN

pytestmark = pytest.mark.slow


def test_the_constants_are_those_of_the_data():
    table = density_table(weighed(50))
    assert set(table) == set(OUTLINE_DENSITIES) - {"cylinder"} == {*VOCABULARY, UNKNOWN}
    for name, (count, _, _, (mean, std)) in table.items():
        density = OUTLINE_DENSITIES[name]
        # Three standard errors of so many draws.
        assert density.mean == pytest.approx(mean, abs=3.0 * std / np.sqrt(count)), name
        # Likewise, of a spread: of the classes of household things few are drawn.
        assert density.std == pytest.approx(std, rel=max(0.35, 3.0 / np.sqrt(2.0 * (count - 1)))), name


@pytest.mark.parametrize("with_parts", [True, False])
def test_the_spread_is_honest_on_families_that_training_never_sees(with_parts):
    errors, normalized = normalized_errors(list(drawn("families", 50)), with_class=False, with_parts=with_parts)
    assert len(errors) > 200
    assert 0.8 < np.sqrt((normalized**2).mean()) < 1.25
    assert (np.abs(normalized) < 2.0).mean() > 0.9


def test_published_masses_are_of_the_spread_that_is_stated():
    """Although half of each constant is of the training worlds."""
    densities = [OUTLINE_DENSITIES[p.class_name] for p in PUBLISHED]
    errors = [(p.log_density - d.mean) / d.std for p, d in zip(PUBLISHED, densities, strict=True)]
    assert np.sqrt(np.mean(np.square(errors))) < 1.3
    assert min(p.mass for p in PUBLISHED) > 0.0 and len(log_densities(UNKNOWN)) == len(PUBLISHED)


def test_a_mixture_has_the_spread_between_its_groups():
    assert mixed([0.0, 0.0], [2.0, 2.0, 2.0]) == pytest.approx((1.0, 1.0))
    assert mixed([0.0, 2.0], [9.0]) == pytest.approx((1.0, 1.0)), "one published object says nothing of a spread"
