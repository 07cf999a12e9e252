"""The contact step's formulas over NumPy, the oracle: what the shipped network and the compiled step say."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file

from wm_dynamics.contact_step import numbers
from wm_dynamics.contact_step.array_step import Hulls, Stepped, StepWeights, step
from wm_dynamics.contact_step.compiled import CompiledStep, check_feeds
from wm_dynamics.contact_step.network import INPUTS, OUTPUTS, DynamicsNetwork, default_model
from wm_dynamics.contact_step.records import BODY, PAIR, TABLE

TOLERANCE = dict.fromkeys(OUTPUTS, 2e-6) | {"position_next": 2e-8, "angular_next": 1e-4}
"""Of float32 that is added up in another order [m, m/s, rad/s, N s]; a hull that turns at 3 rad/s differs by up to
6e-5, as its lowest points lie within the rounding of one another, all else by less than 1e-5.
"""


@pytest.fixture(scope="module")
def network() -> DynamicsNetwork:
    return DynamicsNetwork(default_model(), quick=True)


def oracle(feeds: dict[str, NDArray[Any]], scatter: float) -> Stepped:
    weights = load_file(default_model().with_suffix(".safetensors"))
    learned = StepWeights(
        SimpleNamespace(**{k.removeprefix("network."): v for k, v in weights.items() if k.startswith("network.")}),
        np.exp(weights["sweep_weights"]), np.exp(weights["deviation_floor"]), scatter,
    )  # fmt: skip
    number = np.zeros(feeds["position"].shape[1], int)
    number[feeds["hull_row"]] = 1 + np.arange(len(feeds["hull_row"]))
    return step(
        [feeds[name] for name in ("position", "quaternion", "linear", "angular")],
        feeds["parameters"], feeds["plane"], feeds["pair_a"], feeds["pair_b"],
        Hulls(feeds["hull_row"], number, feeds["hull_points"]),
        (feeds["plane_slack"], feeds["pair_slack"]), learned,
    )  # fmt: skip


@pytest.mark.parametrize("hulls", [True, False])
@pytest.mark.parametrize("pairs", [True, False])
def test_the_oracle_says_what_the_shipped_network_and_the_compiled_step_say(
    network: DynamicsNetwork, hulls: bool, pairs: bool
) -> None:
    feeds = check_feeds()
    if not hulls:
        feeds |= {"hull_row": feeds["hull_row"][:0], "hull_points": feeds["hull_points"][:, :, :0]}
    if not pairs:
        feeds |= {name: feeds[name][:0] for name in ("pair_a", "pair_b", "pair_slack")}
    r = oracle(feeds, float(network.metadata["scatter_factor"]))
    expected = (r.position, r.quaternion, r.linear, r.angular, r.plane_impulse, r.pair_impulse, r.deviation,
                r.plane_gap, r.pair_gap)  # fmt: skip
    compiled = CompiledStep(network)
    for name, want, onnx, ours in zip(OUTPUTS, expected, network.run(feeds), compiled.run(feeds), strict=True):
        assert want.shape == onnx.shape == ours.shape and want.dtype == np.float32
        np.testing.assert_allclose(onnx, want, rtol=2e-5, atol=TOLERANCE[name], err_msg=f"ONNX: {name}")
        np.testing.assert_allclose(ours, want, rtol=2e-5, atol=TOLERANCE[name], err_msg=f"compiled: {name}")


def test_torch_says_what_the_oracle_says(network: DynamicsNetwork) -> None:
    torch = pytest.importorskip("torch", reason="training needs torch: make test WITH=training")
    from training.dynamics.exporting import load_weights

    feeds = check_feeds()
    with torch.no_grad():
        found = load_weights(default_model().with_suffix(".safetensors"))(
            *(torch.as_tensor(np.ascontiguousarray(feeds[name])) for name in INPUTS)
        )
    expected = oracle(feeds, 1.0)
    for name in ("position", "quaternion", "linear", "angular", "pair_impulse", "deviation", "pair_gap"):
        np.testing.assert_allclose(
            getattr(found, name).numpy(), getattr(expected, name), rtol=2e-5, atol=1e-4, err_msg=name
        )


def test_what_pairs_read_of_a_body_comes_first() -> None:
    assert max(getattr(BODY, name) for name in PAIR.shapes["a"].shapes) < TABLE == PAIR.b  # type: ignore[union-attr]
    with pytest.raises(AttributeError, match="speed"):
        BODY.speed  # noqa: B018


def test_a_type_that_is_not_known_is_named() -> None:
    with pytest.raises(TypeError, match="tanh: no operation for str"):
        numbers.tanh("0.5")
