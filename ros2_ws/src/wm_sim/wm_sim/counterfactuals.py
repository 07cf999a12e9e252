"""True futures: the simulated world continued from a snapshot under interventions, and drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from wm_core.interventions import Hypothesis, InterventionKind
from wm_dynamics.mujoco.bodies import BodyDef, body_from_spec, scaled_body
from wm_dynamics.mujoco.contacts import Touch
from wm_dynamics.mujoco.live_world import LiveWorld
from wm_dynamics.mujoco.trajectory import Action
from wm_sim.drawing import SceneDrawing
from wm_sim.scenes import BuiltScene

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Snapshot:
    """Everything that the simulation depends on at an instant; for ``Simulator.restore``.

    Attributes:
        frame: frames since the start of the scene.
        cursor: scheduled actions that have happened.
        live: the world's state.
    """

    frame: int
    cursor: int
    live: LiveWorld


@dataclass(frozen=True)
class GroundTruthRollout:
    """True futures of K hypotheses: T times, M objects. Created bodies come after the known ids.

    Attributes:
        object_ids: (M,) true ids.
        times: (T,) [s] after the snapshot.
        states: (K, T, M, 13) [m, m/s, rad/s], laid out as ``wm_core.rollout.Rollout.states``.
        present: (K, T, M) whether the object exists then.
        touches: of each hypothesis, with object ids in place of indices.
        hypotheses: K, on true ids.
        snapshot: the instant that they start from.
    """

    object_ids: NDArray[np.int64]
    times: Array
    states: NDArray[np.float32]
    present: NDArray[np.bool_]
    touches: tuple[tuple[Touch, ...], ...]
    hypotheses: tuple[Hypothesis, ...]
    snapshot: Snapshot


def simulate_futures(
    scene: BuiltScene, start: Snapshot, hypotheses: Sequence[Hypothesis], times: Array, max_stretch: int
) -> GroundTruthRollout:
    """Futures from a snapshot; hypotheses are on true ids and valid.

    Args:
        scene: of the snapshot.
        start: not changed.
        hypotheses: K.
        times: (T,) [s] after the snapshot, ascending, first 0.
        max_stretch: physics steps in one native call at most.
    """
    known = len(scene.ids)
    created = max((sum(i.creates_body for i in h.interventions) for h in hypotheses), default=0)
    top = max(scene.ids)
    ids = np.array([*scene.ids, *range(top + 1, top + 1 + created)], dtype=np.int64)
    states = np.zeros((len(hypotheses), len(times), len(ids), 13), dtype=np.float32)
    states[..., 6] = 1.0
    present = np.zeros(states.shape[:3], dtype=bool)
    touches = []
    index_of = {i: k for k, i in enumerate(scene.ids)}
    for k, hypothesis in enumerate(hypotheses):
        bodies: list[BodyDef] = []
        actions: list[Action] = []
        for intervention in hypothesis.interventions:
            if intervention.creates_body:
                actions.append(Action(known + len(bodies), intervention))
                bodies.append(body_from_spec(intervention.body))  # type: ignore[arg-type]
            else:
                actions.append(Action(index_of[intervention.object_id], intervention))
        live = start.live.branch(bodies)
        trajectory = live.execute(actions, times, max_stretch=max_stretch)
        count = known + len(bodies)
        states[k, :, :count] = trajectory.states
        present[k, :, :count] = trajectory.present
        touches.append(tuple(replace(c, a=int(ids[c.a]), b=int(ids[c.b])) for c in trajectory.touches))
    return GroundTruthRollout(ids, times, states, present, tuple(touches), tuple(hypotheses), start)


def draw_future(
    drawing: SceneDrawing,
    scene: BuiltScene,
    rollout: GroundTruthRollout,
    hypothesis: int,
    rows: Sequence[int] | None,
    world_T_camera: Array,
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Color (F, H, W, 3) and depth (F, H, W) [m] of a future at rows of its times (None: all), ascending."""
    chosen = range(len(rollout.times)) if rows is None else rows
    interventions = rollout.hypotheses[hypothesis].interventions
    bodies = list(rollout.snapshot.live.bodies)
    created = [body_from_spec(i.body) for i in interventions if i.creates_body and i.body is not None]
    bodies += created
    index_of = {i: k for k, i in enumerate(scene.ids)}
    changes = sorted(
        (i for i in interventions if i.kind in (InterventionKind.MORPH, InterventionKind.RESTYLE)),
        key=lambda i: i.time_offset,
    )
    colors, depths, applied = [], [], 0
    painted: dict[int, Array] = {}
    for row in chosen:
        while applied < len(changes) and changes[applied].time_offset <= rollout.times[row] + 1e-9:
            change, applied = changes[applied], applied + 1
            index = index_of[change.object_id]
            if change.kind == InterventionKind.RESTYLE:
                painted[index] = change.color
            else:
                bodies[index] = scaled_body(bodies[index], change.scale)
        states = rollout.states[hypothesis, row, : len(bodies)].astype(np.float64)
        present = rollout.present[hypothesis, row, : len(bodies)]
        rgb, depth = drawing.color_and_depth(bodies, states, present, world_T_camera, painted)
        colors.append(rgb)
        depths.append(depth)
    return np.stack(colors), np.stack(depths)
