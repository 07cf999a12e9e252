"""The dynamics network as a file: one step of all bodies of all futures, run by ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wm_core.inference.base import InferenceError
from wm_dynamics.contact_step.body_tables import PARAMETER_ROWS, PLANE_ROWS, VERSION

Floats = NDArray[np.float32]

INPUTS = (
    "position",
    "quaternion",
    "linear",
    "angular",
    "parameters",
    "plane",
    "pair_a",
    "pair_b",
    "hull_row",
    "hull_points",
    "plane_slack",
    "pair_slack",
)
"""Names of the inputs, see ``array_step.step`` and ``body_tables``."""
OUTPUTS = (
    "position_next",
    "quaternion_next",
    "linear_next",
    "angular_next",
    "plane_impulse",
    "pair_impulse",
    "deviation",
    "plane_gap",
    "pair_gap",
)
"""Names of the outputs, see ``array_step.Stepped``."""


def default_model() -> Path:
    """The shipped model: beside this package's sources, or where colcon installs it."""
    beside = Path(__file__).resolve().parents[2] / "models" / "dynamics.onnx"
    if beside.is_file():
        return beside
    try:
        from ament_index_python.packages import get_package_share_directory

        return Path(get_package_share_directory("wm_dynamics")) / "models" / "dynamics.onnx"
    except (ImportError, LookupError):
        return beside


class DynamicsNetwork:
    """The network of one step; safe to run from several threads at once.

    Args:
        path: ONNX file.
        quick: for few steps: loaded in a quarter of the time (1.1 s, not 4.4 s, without planning which of its 5,000
            tensors share memory), but each step needs more memory.

    Attributes:
        path, quick: as given.
        metadata: of the file.

    Raises:
        InferenceError: no file, no ONNX model, or one that is not this network (names the file and the tensor).
    """

    def __init__(self, path: Path, quick: bool = False) -> None:
        self.path, self.quick = path, quick
        if not path.is_file():
            raise InferenceError(f"{path}: no such file, expected the dynamics model; make train-dynamics makes one")
        import onnxruntime

        options = onnxruntime.SessionOptions()
        # One thread a call: the workers run side by side on futures of their own, which scales better.
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.enable_mem_reuse = not quick
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime raises types of its own C++ module for a bad file
            raise InferenceError(f"{path}: ONNX Runtime refuses it: {error}") from error
        for what, expected, found in (
            ("input", INPUTS, self._session.get_inputs()),
            ("output", OUTPUTS, self._session.get_outputs()),
        ):
            names = {v.name for v in found}
            for name in expected:
                if name not in names:
                    raise InferenceError(f"{path}: {what} {name!r} is missing; found {sorted(names)}")
        sizes = {v.name: v.shape for v in self._session.get_inputs()}
        for name, rows in (("parameters", PARAMETER_ROWS), ("plane", PLANE_ROWS)):
            if sizes[name][0] != rows:
                raise InferenceError(f"{path}: input {name!r} has shape {sizes[name]}, expected {rows} rows")
        self.metadata: dict[str, str] = dict(self._session.get_modelmeta().custom_metadata_map)
        version = self.metadata.get("version")
        if version != str(VERSION):
            raise InferenceError(f"{path}: made for tables of version {version}, expected {VERSION}")

    def run(self, feeds: dict[str, NDArray[np.generic]]) -> list[Floats]:
        """The outputs in the order of ``OUTPUTS``."""
        values: list[Floats] = self._session.run(list(OUTPUTS), feeds)
        return values
