"""The trained dynamics as ONNX file and as weights.

``python -m training.dynamics.exporting``: the ONNX file anew from the weights beside it, after the formulas of the step
were changed (``wm_dynamics.contact_step.formulas``). The facts in its metadata are kept.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path

import onnx
import torch
from safetensors.torch import load_file
from torch import Tensor

from training.common.exporting import export_onnx
from training.dynamics.model import DynamicsStep
from training.dynamics.options import MODELS
from wm_dynamics.contact_step.body_tables import HULL_POINTS, PARAMETER_ROWS, PLANE_ROWS, ROWS, VERSION
from wm_dynamics.contact_step.network import INPUTS, OUTPUTS
from wm_perception.models.files import sha256

EXPORTED_AGAIN = (
    "The file was exported anew with changed formulas of contacts after these figures were taken; "
    "benchmarks.imagination has those of the present one."
)
"""Note in the card of weights whose step was changed after training."""


class _Exported(torch.nn.Module):
    """The step with a tuple for an answer, and the calibrated deviations."""

    def __init__(self, network: DynamicsStep, factor: float) -> None:
        super().__init__()
        self.network, self.factor = network, factor

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        r = self.network(*inputs)
        return (r.position, r.quaternion, r.linear, r.angular, r.plane_impulse, r.pair_impulse,
                self.factor * r.deviation, r.plane_gap, r.pair_gap)  # fmt: skip


def example_inputs(bodies: int = 5, pairs: int = 4, hulls: int = 2) -> tuple[Tensor, ...]:
    """Inputs of the right shapes and plausible values: objects at rest on a surface."""
    generator = torch.Generator().manual_seed(0)
    parameters = torch.rand(PARAMETER_ROWS, bodies, generator=generator) * 0.1 + 0.05
    parameters[1:19] = torch.eye(3).reshape(9, 1).repeat(2, bodies)
    parameters[0], parameters[-1] = 2.0, 1.0
    parameters[ROWS["cylinder"]] = (torch.arange(bodies) % 2).float()
    position = torch.randn(3, bodies, generator=generator)
    quaternion = torch.zeros(4, bodies)
    quaternion[3] = 1.0
    plane = torch.zeros(PLANE_ROWS, bodies)
    plane[3], plane[5:] = 1.0, 1.0
    ends = torch.arange(pairs) % bodies
    return (
        position, quaternion, torch.zeros(3, bodies), torch.zeros(3, bodies), parameters, plane, ends,
        (ends + 1) % bodies, torch.arange(hulls), torch.randn(3, HULL_POINTS, hulls, generator=generator) * 0.05,
        torch.zeros(bodies), torch.zeros(pairs),
    )  # fmt: skip


def export(network: DynamicsStep, path: Path, facts: dict[str, str], factor: float = 1.0) -> None:
    """Writes the ONNX file, for any number of bodies, pairs and hulls; ``facts`` go into its metadata."""
    axes: dict[str, dict[int, str]] = {name: {1: "bodies"} for name in INPUTS[:6]}
    axes |= {"pair_a": {0: "pairs"}, "pair_b": {0: "pairs"}, "hull_row": {0: "hulls"}, "hull_points": {2: "hulls"},
             "plane_slack": {0: "bodies"}, "pair_slack": {0: "pairs"}}  # fmt: skip
    axes |= {name: {1: "bodies"} for name in OUTPUTS[:4]}
    axes |= {"plane_impulse": {0: "bodies"}, "pair_impulse": {0: "pairs"}, "deviation": {1: "bodies"},
             "plane_gap": {0: "bodies"}, "pair_gap": {0: "pairs"}}  # fmt: skip
    metadata = {
        "task": "wm_dynamics",
        "version": str(VERSION),
        "step_s": repr(network.step_s),
        "sweeps": str(network.sweeps),
        "units": "SI; world axes, z up; bodies last; frames at the center of mass",
        **facts,
    }
    wrapped = _Exported(network.eval(), factor)
    export_onnx(wrapped, path, example_inputs(), INPUTS, OUTPUTS, axes, metadata)


def load_weights(path: Path) -> DynamicsStep:
    """The network of a weights file."""
    network = DynamicsStep()
    network.load_state_dict(load_file(path))
    return network.eval()


def export_again(folder: Path) -> None:
    """Write ``dynamics.onnx`` of a folder anew from ``dynamics.safetensors`` there, with the old file's facts."""
    path = folder / "dynamics.onnx"
    facts = {p.key: p.value for p in onnx.load(path).metadata_props}
    made_here = ("task", "version", "step_s", "sweeps", "units")
    kept = {key: value for key, value in facts.items() if key not in made_here}
    export(load_weights(folder / "dynamics.safetensors"), path, kept, float(facts["scatter_factor"]))
    _state_in_card(folder, path)


def _state_in_card(folder: Path, path: Path) -> None:
    """Name the new file in the card, and say that its figures are of the one before."""
    card, page = folder / "dynamics.json", folder / "dynamics.md"
    facts = json.loads(card.read_text())
    after, size = sha256(path), path.stat().st_size
    before = facts["files"][path.name]["sha256"]
    facts["files"][path.name] = {"bytes": size, "sha256": after}
    row = f"| `{path.name}` | {size / 2**20:.2f} MiB | `{after}` |"
    text = re.sub(rf"\| `{path.name}` \| [^|]* \| `[0-9a-f]+` \|", row, page.read_text())
    if EXPORTED_AGAIN not in facts["notes"] and after != before:
        facts["notes"].append(EXPORTED_AGAIN)
        last = facts["notes"][-2]
        text = text.replace(f"- {last}\n", f"- {last}\n- {EXPORTED_AGAIN}\n")
    card.write_text(json.dumps(facts, indent=1) + "\n")
    page.write_text(text)


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, default=MODELS, help="folder of the files (default: %(default)s)")
    export_again(parser.parse_args().models)
    return 0


if __name__ == "__main__":
    sys.exit(main())
