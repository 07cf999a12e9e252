"""What objects weigh before anything pushed them: by class, by outline and by parts."""

import numpy as np
import pytest

from wm_core.convex_parts import ConvexPart
from wm_core.part_solids import solid_of
from wm_core.scene_graph import SceneGraph, Shape
from wm_perception.reasoning.beliefs import PropertyBeliefs
from wm_perception.reasoning.evidence import log_mass_prior as log_mass_by_volume
from wm_perception.shapes.mass_prior import (
    CLASS_TRUST,
    LOG_VOLUME_STD,
    OUTLINE_DENSITIES,
    PARTS_DENSITY,
    UNKNOWN,
    log_mass_prior,
    outline_volume,
    with_mass_priors,
)

NOTHING = np.zeros((0, 3))
CYLINDER = (int(Shape.CYLINDER), np.array([0.08, 0.08, 0.10]), NOTHING)


def open_box(size=0.1, wall=0.005):
    """A cube without a lid."""
    half = 0.5 * (size - wall)
    sides = [((s * half, 0.0, 0.0), (wall, size, size)) for s in (-1, 1)]
    sides += [((0.0, s * half, 0.0), (size, wall, size)) for s in (-1, 1)]
    sides += [((0.0, 0.0, -half), (size, size, wall))]
    return tuple(ConvexPart(Shape.BOX, np.array(e), np.array(p)) for p, e in sides)


@pytest.mark.parametrize("name", [*OUTLINE_DENSITIES, UNKNOWN])
def test_a_class_has_its_density_and_its_spread(name):
    mean, std = log_mass_prior({name: 1.0}, *CYLINDER)
    density = OUTLINE_DENSITIES[name]
    assert mean == pytest.approx(density.mean + np.log(np.pi / 4.0 * 0.08**2 * 0.10))
    assert std == pytest.approx(np.hypot(density.std, LOG_VOLUME_STD))


def test_an_empty_mug_is_lighter_than_a_can_of_its_size():
    mug, can = (log_mass_prior({name: 1.0}, *CYLINDER)[0] for name in ("mug", "can"))
    assert 0.3 < np.exp(mug - can) < 0.7


def test_in_doubt_between_classes_the_spread_is_larger():
    sure = log_mass_prior({"mug": 1.0}, *CYLINDER)
    doubtful = log_mass_prior({"mug": 0.5, "can": 0.5}, *CYLINDER)
    other = log_mass_prior({"can": 1.0}, *CYLINDER)
    assert sure[0] < doubtful[0] < other[0]
    assert doubtful[1] > 1.03 * max(sure[1], other[1])


def test_what_is_missing_to_one_is_of_no_class():
    whole = log_mass_prior({"mug": 0.4}, *CYLINDER)
    assert whole == pytest.approx(log_mass_prior({"mug": 0.4, UNKNOWN: 0.6}, *CYLINDER))
    strange, none = (log_mass_prior({name: 1.0}, *CYLINDER) for name in ("never heard of", UNKNOWN))
    assert strange == pytest.approx(none)


def test_of_no_class_the_parts_tell_hollow_from_solid():
    parts = open_box()
    box = (int(Shape.BOX), np.full(3, 0.1), NOTHING)
    hollow, solid = (log_mass_prior({UNKNOWN: 1.0}, *box, p)[0] for p in (parts, ()))
    assert outline_volume(*box, parts) == pytest.approx(1e-3, rel=1e-6)
    assert hollow == pytest.approx(PARTS_DENSITY.mean + np.log(solid_of(parts).volume))
    assert np.exp(hollow - solid) < 0.5


def test_a_class_that_is_known_counts_more_than_parts():
    """How thick walls are is guessed; how much of its outline a mug fills is known."""
    thick, thin = (log_mass_prior({"mug": 1.0}, *CYLINDER, open_box(wall=w)) for w in (0.02, 0.004))
    assert thick == pytest.approx(thin)


def test_a_scene_has_the_masses_of_its_classes_and_supports_keep_theirs():
    scene = SceneGraph.build(
        [1, 2, 3, 4],
        np.zeros((4, 3)),
        [[1.0, 1.0, 0.04], *[[0.08, 0.08, 0.10]] * 3],
        shapes=[Shape.BOX, *[Shape.CYLINDER] * 3],
        class_names=["support", "mug", "object", "can"],
        is_static=[True, False, False, False],
        class_vocabulary=("mug", "can"),
        class_probabilities=[[0.0, 0.0], [0.9, 0.1], [0.5, 0.5], [0.1, 0.9]],
    )
    found = with_mass_priors(scene)
    assert found.log_mass[0] == scene.log_mass[0] and found.log_mass_std[0] == scene.log_mass_std[0]
    assert (np.diff(found.log_mass[1:]) > 0.1).all()
    half = 0.5 * CLASS_TRUST
    assert found.log_mass[2] == pytest.approx(log_mass_prior({"mug": half, "can": half}, *CYLINDER)[0])
    assert found.positions is scene.positions


def test_evidence_of_contacts_is_added_to_the_prior_of_the_scene():
    """Without a contact the mass is the scene's; one that tells of twice the mass by volume, as surely, is halfway."""
    scene = with_mass_priors(
        SceneGraph.build([2], [[0.0, 0.0, 0.05]], [CYLINDER[1]], shapes=[Shape.CYLINDER], class_names=["mug"])
    )
    beliefs = PropertyBeliefs((1.3, 1.0, 1.0))
    beliefs.set_prior(2, np.array([3.0, 0.5, 0.1, 100.0, 10.0, 10.0], np.float32))
    before = beliefs.apply(scene)
    assert before.log_mass[0] == pytest.approx(scene.log_mass[0])
    assert before.log_mass_std[0] == pytest.approx(scene.log_mass_std[0])
    assert before.friction[0] == pytest.approx(0.5)
    told = np.log(2.0)
    beliefs.add_evidence(2, np.array([told, 0.5, 0.1, (1.3 / scene.log_mass_std[0]) ** 2, 0.0, 0.0], np.float32))
    after = beliefs.apply(scene)
    by_volume = log_mass_by_volume(int(Shape.CYLINDER), CYLINDER[1])
    assert after.log_mass[0] == pytest.approx(0.5 * (scene.log_mass[0] + by_volume + told), abs=1e-4)
    assert after.log_mass_std[0] == pytest.approx(scene.log_mass_std[0] / np.sqrt(2.0), abs=1e-4)
