"""The shapes that the scene graph, its messages and simulated bodies share."""

from __future__ import annotations

from enum import IntEnum


class Shape(IntEnum):
    """Shape families; the meaning of extents is stated in wm_msgs/SceneObject."""

    BOX = 0
    SPHERE = 1
    CYLINDER = 2
    CAPSULE = 3
    CONVEX = 4
