"""The dynamics as an exportable model: its tensors and example inputs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from export.model import DYNAMICS_MODELS, Axis, Model, Tensor

if TYPE_CHECKING:
    import onnx
    from torch import nn


def _dynamics_network(weights: Path) -> nn.Module:
    from training.dynamics.exporting import _Exported, load_weights

    # The factor that widens deviations is calibrated after training; it is stored in the metadata, not as a weight.
    return _Exported(load_weights(weights), float(_dynamics_said(weights).get("scatter_factor", "1"))).eval()


def _dynamics_said(weights: Path) -> dict[str, str]:
    from wm_core.inference.base import onnx_metadata

    shipped = weights.with_suffix(".onnx")
    return onnx_metadata(shipped) if shipped.is_file() else {}


def _dynamics_facts(network: nn.Module) -> dict[str, str]:
    from wm_dynamics.contact_step.body_tables import VERSION

    said = _dynamics_said(DYNAMICS_MODELS / "dynamics.safetensors")
    step: Any = network.network
    return {
        "version": str(VERSION),
        "step_s": repr(step.step_s),
        "sweeps": str(step.sweeps),
        **{k: said[k] for k in ("units", "training", "scatter_factor") if k in said},
    }


def _dynamics_example(rng: np.random.Generator, sizes: Mapping[str, int]) -> dict[str, NDArray[Any]]:
    """Objects near rest (0.3 m/s and 1 rad/s standard deviation), with valid indices of pairs and hulls."""
    from training.dynamics.exporting import example_inputs
    from wm_dynamics.contact_step.network import INPUTS

    bodies, hulls = sizes["bodies"], min(sizes["hulls"], sizes["bodies"])
    values = example_inputs(bodies, sizes["pairs"], hulls)
    feeds = {name: value.numpy().copy() for name, value in zip(INPUTS, values, strict=True)}
    for name, scale in (("position", 0.5), ("linear", 0.3), ("angular", 1.0)):
        feeds[name] += (scale * rng.normal(size=feeds[name].shape)).astype(np.float32)
    feeds["quaternion"] += (0.3 * rng.normal(size=feeds["quaternion"].shape)).astype(np.float32)
    feeds["quaternion"] /= np.linalg.norm(feeds["quaternion"], axis=0)
    return feeds


def _dynamics_tensors() -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    from training.dynamics.exporting import example_inputs
    from wm_dynamics.contact_step.body_tables import HULL_POINTS
    from wm_dynamics.contact_step.network import INPUTS, OUTPUTS

    si = "SI; wm_dynamics/contact_step/body_tables.py"
    inputs = []
    for name, value in zip(INPUTS, example_inputs(5, 4, 2), strict=True):
        axes = {5: "bodies", 4: "pairs", 2: "hulls"}
        last = "pairs" if name.startswith("pair_") else "hulls" if name.startswith("hull_") else "bodies"
        assert axes[value.shape[-1]] == last or value.shape[-1] == HULL_POINTS
        shape: tuple[int | str, ...] = (*(int(s) for s in value.shape[:-1]), last)
        inputs.append(Tensor(name, shape, si, str(value.dtype).removeprefix("torch.")))
    rows = {"position_next": 3, "quaternion_next": 4, "linear_next": 3, "angular_next": 3, "deviation": 2}
    outputs = []
    for name in OUTPUTS:
        last = "pairs" if name.startswith("pair_") else "bodies"
        outputs.append(Tensor(name, (rows[name], last) if name in rows else (last,), si))
    return tuple(inputs), tuple(outputs)


def _without_scattered_sums(graph: onnx.ModelProto) -> onnx.ModelProto:
    from export.graph import without_scattered_sums

    return without_scattered_sums(graph)


def make_dynamics() -> Model:
    """The dynamics; it has no real inputs and no metric here (``make bench-imagination`` measures it)."""
    inputs, outputs = _dynamics_tensors()
    return Model(
        name="dynamics",
        task="wm_dynamics",
        folder=DYNAMICS_MODELS,
        network=_dynamics_network,
        inputs=inputs,
        outputs=outputs,
        axes={"bodies": Axis(1, 8, 8192), "pairs": Axis(0, 8, 8192), "hulls": Axis(0, 2, 4096)},
        facts=_dynamics_facts,
        real=lambda split, count: iter(()),
        metric=lambda run: {},
        metric_key="",
        example=_dynamics_example,
        gpu=False,
        loads={"batch 1": {}, "1024 futures": {"bodies": 8192, "pairs": 8192, "hulls": 1024}},
        for_engines=_without_scattered_sums,
        # Half precision cannot hold positions of some meters to a tenth of a millimeter.
        precisions=("fp32",),
    )
