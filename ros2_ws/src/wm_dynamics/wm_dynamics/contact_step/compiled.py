"""The dynamics network compiled for this processor: weights, compilation (once, kept on disk) and a check.

The ONNX file stays the one definition of the network. The weights come from the safetensors file that it was exported
from, and the compiled step must give the results of ONNX Runtime before it is used.
"""

from __future__ import annotations

import importlib
import logging
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from wm_core.inference.base import InferenceError
from wm_dynamics.contact_step import compile_cache
from wm_dynamics.contact_step.body_tables import FLOOR_HALF_M, HULL_POINTS, PARAMETER_ROWS, PLANE_ROWS, ROWS
from wm_dynamics.contact_step.network import OUTPUTS, DynamicsNetwork, default_model
from wm_dynamics.contact_step.rollout_tables import (
    BodyTable,
    Floats,
    OutputTable,
    PairTable,
    PartTable,
    PathTable,
    Span,
    SurfaceTable,
    no_parts,
)

log = logging.getLogger(__name__)

CHECK_TOLERANCE = 2e-3
"""Largest difference to ONNX Runtime, relative to 1 plus the size of a number: above the rounding of ill-conditioned
contacts in float32, far below any error of the formulas."""


class CompiledStep:
    """The compiled network and its weights.

    Args:
        network: the network as ONNX Runtime runs it; the weights are beside its file.

    Attributes:
        weights: flat, as ``read_weights`` orders them.
        kernel: the compiled module ``rollout_kernel``.

    Raises:
        InferenceError: no Numba, no weights beside the ONNX file, or results that differ from those of ONNX Runtime.
            Says which.
    """

    def __init__(self, network: DynamicsNetwork) -> None:
        self.weights = read_weights(network.path.with_suffix(".safetensors"), network.metadata)
        self.kernel = load_kernel()
        self._check(network)

    def advance(
        self,
        span: Span,
        bodies: BodyTable,
        pairs: PairTable,
        parts: PartTable,
        surfaces: SurfaceTable,
        hulls: Floats,
        paths: PathTable,
        noise: Floats,
        outputs: OutputTable,
    ) -> None:
        """Make steps of all futures, in place; see ``rollout_kernel.advance``."""
        self.kernel.advance(self.weights, span, bodies, pairs, parts, surfaces, hulls, paths, noise, outputs)

    def run(self, feeds: Mapping[str, NDArray[Any]], parts: PartTable | None = None) -> list[Floats]:
        """The outputs of ``DynamicsNetwork.run``, in its order.

        Args:
            feeds: as of the network; and where parts collide, ``pair_part_a`` and ``pair_part_b``, their rows in
                ``parts`` (P,) int64, -1 for whole bodies. Hulls of parts are among ``hull_points``, behind those of
                bodies.
        """
        bodies, pairs = feeds["position"].shape[1], len(feeds["pair_a"])
        hull_of = np.full(bodies, -1, dtype=np.int64)
        hull_of[feeds["hull_row"]] = np.arange(len(feeds["hull_row"]))
        hulls = np.ascontiguousarray(feeds["hull_points"].transpose(2, 0, 1), dtype=np.float32)
        state = np.zeros((13, bodies), dtype=np.float32)
        plane_out, pair_out = np.zeros((4, bodies), dtype=np.float32), np.zeros((2, pairs), dtype=np.float32)
        names = ("position", "quaternion", "linear", "angular", "parameters", "plane")
        self.kernel.run_step(
            self.weights,
            *(np.ascontiguousarray(feeds[name], dtype=np.float32) for name in names),
            np.ascontiguousarray(feeds["pair_a"], dtype=np.int64),
            np.ascontiguousarray(feeds["pair_b"], dtype=np.int64),
            *(feeds.get(name, np.full(pairs, -1, dtype=np.int64)) for name in ("pair_part_a", "pair_part_b")),
            parts or no_parts(bodies),
            hulls,
            hull_of,
            np.ascontiguousarray(feeds["plane_slack"], dtype=np.float32),
            np.ascontiguousarray(feeds["pair_slack"], dtype=np.float32),
            state,
            plane_out,
            pair_out,
        )
        return [
            state[:3], state[3:7], state[7:10], state[10:],
            plane_out[0], pair_out[0], plane_out[1:3], plane_out[3], pair_out[1],
        ]  # fmt: skip

    def _check(self, network: DynamicsNetwork) -> None:
        feeds = check_feeds()
        for name, expected, found in zip(OUTPUTS, network.run(feeds), self.run(feeds), strict=True):
            if not np.allclose(found, expected, rtol=CHECK_TOLERANCE, atol=CHECK_TOLERANCE):
                worst = float(np.abs(found - expected).max())
                raise InferenceError(
                    f"{network.path}: the compiled step differs from ONNX Runtime's by {worst:.2g} in {name!r},"
                    f" expected no more than {CHECK_TOLERANCE:g}"
                )


def check_feeds() -> dict[str, NDArray[Any]]:
    """A small world with each kind of contact: bodies that slide, roll, strike one another, stand on one another."""
    rng = np.random.default_rng(5)
    bodies = 24
    parameters = np.zeros((PARAMETER_ROWS, bodies), dtype=np.float32)
    half = rng.uniform(0.03, 0.06, (3, bodies))
    kind = np.arange(bodies) % 4  # box, cylinder, ball, hull
    half[1, kind == 1] = half[0, kind == 1]
    half[:, kind == 2] = 0.0
    rounding = np.where(kind == 2, 0.04, 0.0)
    mass = rng.uniform(0.1, 1.0, bodies)
    inertia = mass * 2e-3 * rng.uniform(0.8, 1.2, (3, bodies))
    for i in range(3):
        parameters[ROWS["inertia"].start + 4 * i] = inertia[i]
        parameters[ROWS["inverse_inertia"].start + 4 * i] = 1.0 / inertia[i]
    parameters[ROWS["inverse_mass"]] = 1.0 / mass
    parameters[ROWS["half"]] = half
    parameters[ROWS["rounding"]] = rounding
    parameters[ROWS["cylinder"]] = kind == 1
    parameters[ROWS["rims"]] = [half[0], -half[2], half[0], half[2]]
    parameters[ROWS["friction"]] = rng.uniform(0.2, 0.8, bodies)
    parameters[ROWS["restitution"]] = rng.uniform(0.0, 0.6, bodies)
    parameters[ROWS["rolling"]] = 1e-4 * (kind == 2)
    parameters[ROWS["torsion"]] = 1e-3 * (kind > 0)
    parameters[ROWS["falls"]] = 1.0
    # Every second one stands beside, or upon, the one before it.
    position = np.zeros((3, bodies), dtype=np.float32)
    position[0] = 0.4 * (np.arange(bodies) // 2)
    position[2] = half[2] + rounding - 5e-4
    reach = (half + rounding)[:, 0::2] + (half + rounding)[:, 1::2] - 5e-4
    upon = np.arange(bodies // 2) % 3 == 0
    position[0, 1::2] += np.where(upon, 0.002, reach[0])
    position[2, 1::2] += np.where(upon, 2.0 * (half + rounding)[2, 0::2], 0.0)
    yaw = rng.uniform(-0.05, 0.05, bodies)
    hulls = np.flatnonzero(kind == 3)
    plane = np.zeros((PLANE_ROWS, bodies), dtype=np.float32)
    plane[3], plane[5:] = 1.0, FLOOR_HALF_M
    return {
        "position": position,
        "quaternion": np.stack([0.0 * yaw, 0.01 * yaw, np.sin(yaw / 2), np.cos(yaw / 2)]).astype(np.float32),
        "linear": rng.normal(0.0, 0.3, (3, bodies)).astype(np.float32),
        "angular": rng.normal(0.0, 1.0, (3, bodies)).astype(np.float32),
        "parameters": parameters,
        "plane": plane,
        "pair_a": np.arange(0, bodies, 2),
        "pair_b": np.arange(1, bodies, 2),
        "hull_row": hulls,
        "hull_points": (half[:, None, hulls] * rng.choice([-1.0, 1.0], (3, HULL_POINTS, len(hulls)))).astype(
            np.float32
        ),
        "plane_slack": np.zeros(bodies, dtype=np.float32),
        "pair_slack": np.zeros(bodies // 2, dtype=np.float32),
    }


def read_weights(path: Path, metadata: Mapping[str, str]) -> Floats:
    """The weights in the order that the compiled step reads them.

    Args:
        path: safetensors file. metadata: of the ONNX file.

    Raises:
        InferenceError: no such file, or not these weights.
    """
    if not path.is_file():
        raise InferenceError(f"{path}: no such file, expected the weights beside the ONNX file")
    try:
        tensors = load_file(path)

        def tensor(name: str, *shape: int) -> Floats:
            found = tensors[name]
            if found.dtype != np.float32 or found.shape != shape:
                raise InferenceError(f"{path}: {name} is {found.dtype} {found.shape}, expected float32 {shape}")
            return found.ravel()

        parts = [
            tensor("network.first", 16, 10), tensor("network.first_bias", 16, 1), tensor("network.second", 16, 16),
            tensor("network.second_bias", 16, 1), tensor("network.last", 8, 16), tensor("network.last_bias", 8, 1),
            np.exp(tensor("sweep_weights", 8, 4)), np.exp(tensor("deviation_floor", 2)),
        ]  # fmt: skip
    except (SafetensorError, KeyError) as error:
        raise InferenceError(f"{path}: not the dynamics network's weights ({error})") from error
    scatter = np.array([float(metadata.get("scatter_factor", "1"))], dtype=np.float32)
    return np.concatenate([*parts, scatter])


_loading = threading.Lock()


def load_kernel() -> ModuleType:
    """The compiled module, compiled now if it never was on this machine.

    Raises:
        InferenceError: Numba is not there, or fails.
    """
    with _loading:
        return _load_kernel()


def _load_kernel() -> ModuleType:
    name = "wm_dynamics.contact_step.rollout_kernel"
    if name in sys.modules:
        return sys.modules[name]
    begin = time.perf_counter()
    try:
        with compile_cache.opened():
            kernel = importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise InferenceError(f"Numba cannot be imported: {error}") from error
    except Exception as error:  # Numba and LLVM raise types of their own for what they cannot compile
        sys.modules.pop(name, None)
        raise InferenceError(f"the contact step cannot be compiled: {type(error).__name__}: {error}") from error
    log.debug("the contact step was there after %.1f s", time.perf_counter() - begin)
    return kernel


def main() -> int:
    """Compile the step for this processor, if it is not yet, and log how long that took: for set-up."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    begin = time.perf_counter()
    try:
        CompiledStep(DynamicsNetwork(default_model()))
    except InferenceError as error:
        log.error("%s", error)
        return 1
    log.warning(
        "the contact step is there after %.1f s (%s)", time.perf_counter() - begin, compile_cache.cache_folder()
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
