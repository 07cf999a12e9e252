"""The interface between planner and imagination: paths in, futures out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wm_core.interventions import BodySpec, path_batch
from wm_core.rollout import ImagineRequest, Imagines
from wm_core.scene_graph import SceneGraph
from wm_planning.paths import PushPaths


@dataclass(frozen=True)
class Futures:
    """The futures of K paths.

    Attributes:
        states: (K, S, T, N, 13) float32 of N objects, layout of ``wm_core.rollout``; those of the scene come first, in
            its order.
        done: (K,) bool, false where there was no time to compute a future, or it is not valid.
        reasons: K strings, why a future is not done, or none.
    """

    states: NDArray[np.float32]
    done: NDArray[np.bool_]
    reasons: tuple[str, ...] = ()


Imagine = Callable[[SceneGraph, BodySpec, PushPaths, float, float], Futures]
"""(scene without the paddle, the paddle, K paths, horizon [s], step of the states [s]) -> futures."""


def push_request(
    body: BodySpec, paths: PushPaths, horizon_s: float, step_s: float, backend: str, samples: int = 1, seed: int = 0
) -> ImagineRequest:
    """The request of one planning round: K paths of one paddle, states every ``step_s`` [s]."""
    batch = path_batch(paths.positions, paths.times, body, quaternions=paths.quaternions, name="push")
    return ImagineRequest(
        (),
        horizon_s=horizon_s,
        step_s=step_s,
        samples=samples,
        seed=seed,
        backend=backend,
        batches=(batch,),
        want_events=False,
    )


def in_process(imagination: Imagines, backend: str, samples: int = 1, seed: int = 0) -> Imagine:
    """``Imagine`` by an imagination in this process (``wm_imagination.engine.Imagination``), with a backend of it."""

    def imagine(scene: SceneGraph, body: BodySpec, paths: PushPaths, horizon_s: float, step_s: float) -> Futures:
        rollout = imagination.imagine(push_request(body, paths, horizon_s, step_s, backend, samples, seed), scene)
        return Futures(rollout.states, rollout.usable, rollout.invalid_reasons)

    return imagine
