"""What tells scenes apart of which something is kept for the next request."""

from __future__ import annotations

import numpy as np

from wm_core.scene_graph import CARRIED_BY, SceneGraph


def scene_key(scene: SceneGraph) -> tuple[object, ...]:
    """Equal for scenes whose futures are the same: all that the preparation and the dynamics read of a scene."""
    arrays = (
        scene.ids, scene.positions, scene.quaternions, scene.linear_velocities, scene.angular_velocities,
        scene.extents, scene.shapes, scene.is_static, scene.pose_covariances, scene.twist_covariances, scene.log_mass,
        scene.friction, scene.restitution, *scene.hulls,
    )  # fmt: skip
    parts = tuple(
        (int(p.shape), p.extents.tobytes(), p.position.tobytes(), p.quaternion.tobytes(), p.hull.tobytes())
        for own in scene.parts
        for p in own
    )
    counts = tuple(len(own) for own in scene.parts)
    on = frozenset((r.subject, r.object) for r in scene.relations if r.predicate in CARRIED_BY and r.probability >= 0.5)
    return (scene.class_names, on, counts, parts, *(np.asarray(a).tobytes() for a in arrays))
