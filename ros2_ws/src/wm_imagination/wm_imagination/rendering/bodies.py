"""What a renderer draws of one imagined state."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wm_core.geometry import pose_matrix
from wm_core.interventions import Hypothesis, Intervention, InterventionKind
from wm_core.rollout import POSITION, QUATERNION
from wm_core.scene_graph import SceneGraph, Shape
from wm_dynamics.base import targets
from wm_imagination.rendering.primitives import Body


def bodies_at(
    scene: SceneGraph,
    hypothesis: Hypothesis,
    object_ids: NDArray[np.int64],
    states: NDArray[np.float32],
    present: NDArray[np.bool_],
    time_s: float,
) -> list[Body]:
    """The bodies of one imagined state: poses, and appearance as changed by interventions so far.

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
    # How a ball is turned cannot be perceived, so its appearance is remembered, and drawn, in the graph's orientation.
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
                    scene.parts[m],
                )
            )
        elif int(m) in created:
            body = created[int(m)].body
            assert body is not None
            bodies.append(Body(int(object_ids[m]), poses[m], int(body.shape), body.extents, body.color))
    return bodies
