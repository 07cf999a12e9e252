"""Seen poses and simulated ones: backends begin from settled scenes, answers are of the poses that were seen."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from wm_core.geometry import pose_matrix
from wm_core.interventions import Hypothesis, Intervention, InterventionKind
from wm_core.rollout import POSITION, QUATERNION
from wm_core.rotations import normalize_quaternion, rotation_distance
from wm_core.scene_graph import SceneGraph, Shape
from wm_dynamics.base import DynamicsResult, targets
from wm_dynamics.belief import center_offsets, move_centers, moving_objects
from wm_imagination.rendering.primitives import Body


def move_back_centers(result: DynamicsResult, scenes: Sequence[SceneGraph]) -> None:
    """Positions of bodies to those of the objects' centers, in place; each backend has starts of its own."""
    if not result.factual:
        move_centers(result.states, center_offsets(scenes, result.states[0, :, 0]))
        return
    for name, (states, _) in result.factual.items():
        offsets = center_offsets(scenes, states[:, 0])
        for k in np.flatnonzero([backend == name for backend in result.backends]).tolist():
            move_centers(result.states[k], offsets)


# What the factual future moves by less, though it was seen at rest, has only settled: perception and physics disagree
# by so much on where things touch.
SETTLE_DISTANCE_M = 0.025
SETTLE_ANGLE_RAD = 0.25


def states_as_seen(
    scene: SceneGraph, states: NDArray[np.float32], factual: NDArray[np.float32] | None
) -> NDArray[np.float32]:
    """States (T, M, 13) to draw: those of things seen at rest without the settling of the first moments.

    Dynamics shifts a thing that was seen floating or sunk by some millimeters until it touches. A picture of that would
    show a jump that nobody imagined. So a thing that the factual future leaves where it was seen, but for settling, is
    drawn at its perceived pose, moved as its state differs from the factual state of the same time.

    Args:
        states, factual: (T, M, 13) of one hypothesis and of the factual future; None: states are drawn as they are.
    """
    count = len(scene)
    if factual is None or not count:
        return states
    seen_p, seen_q = scene.positions, normalize_quaternion(scene.quaternions)
    drift = np.linalg.norm(factual[:, :count, POSITION] - seen_p, axis=-1).max(axis=0)
    turned = rotation_distance(factual[:, :count, QUATERNION], np.broadcast_to(seen_q, (len(factual), count, 4)))
    settles = (drift < SETTLE_DISTANCE_M) & (turned.max(axis=0) < SETTLE_ANGLE_RAD) & ~moving_objects(scene)[0]
    drawn = states.copy()
    for m in np.flatnonzero(~scene.is_static):
        # Of other things only the first correction (out of what they were seen to overlap) is left out.
        reference = factual[:, m] if settles[m] else np.broadcast_to(factual[0, m], factual[:, m].shape)
        turn = Rotation.from_quat(states[:, m, QUATERNION]) * Rotation.from_quat(reference[:, QUATERNION]).inv()
        # The thing as seen, carried by the rigid motion that takes its reference pose to its pose in this future.
        offset = seen_p[m] - reference[:, POSITION]
        drawn[:, m, POSITION] = states[:, m, POSITION] + turn.apply(offset)
        drawn[:, m, QUATERNION] = (turn * Rotation.from_quat(seen_q[m])).as_quat()
    return drawn


def bodies_at(
    scene: SceneGraph,
    hypothesis: Hypothesis,
    object_ids: NDArray[np.int64],
    states: NDArray[np.float32],
    present: NDArray[np.bool_],
    time_s: float,
) -> list[Body]:
    """What a renderer draws of one imagined state: poses, and looks as changed by interventions so far.

    Args:
        states: (M, 13) at ``time_s``; present: (M,); object_ids: (M,), as in ``Rollout``.
    """
    scales: dict[int, NDArray[np.float64]] = {}
    styles: dict[int, NDArray[np.float64]] = {}
    created: dict[int, Intervention] = {}
    for m, intervention in targets(scene, hypothesis):
        if intervention.creates_body:
            created[m] = intervention
        if intervention.time_offset > time_s + 1e-9:
            continue
        if intervention.kind == InterventionKind.MORPH:
            scales[m] = scales.get(m, np.ones(3)) * intervention.scale
        elif intervention.kind == InterventionKind.RESTYLE:
            styles[m] = intervention.color
    # How a ball is turned cannot be perceived, so its looks are remembered, and drawn, in the graph's orientation.
    balls = np.flatnonzero(scene.shapes == Shape.SPHERE)
    quaternions = states[:, QUATERNION].astype(np.float64)
    quaternions[balls] = scene.quaternions[balls]
    poses = pose_matrix(states[:, POSITION], quaternions)
    bodies = []
    for m in np.flatnonzero(present):
        if m < len(scene):
            if scene.is_static[m]:
                continue
            bodies.append(
                Body(
                    int(object_ids[m]),
                    poses[m],
                    int(scene.shapes[m]),
                    scene.extents[m],
                    scene.colors[m],
                    scales.get(int(m), np.ones(3)),
                    styles.get(int(m)),
                    scene.hulls[m] if len(scene.hulls[m]) else None,
                )
            )
        elif int(m) in created:
            body = created[int(m)].body
            assert body is not None
            bodies.append(Body(int(object_ids[m]), poses[m], int(body.shape), body.extents, body.color))
    return bodies
