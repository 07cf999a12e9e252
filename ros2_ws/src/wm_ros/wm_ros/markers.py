"""The scene graph as RViz markers."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np
from geometry_msgs.msg import Point
from scipy.spatial import ConvexHull, QhullError
from std_msgs.msg import ColorRGBA
from visualization_msgs.msg import Marker, MarkerArray

from wm_core.colors import object_color
from wm_core.convex_parts import ConvexPart
from wm_core.geometry import pose_matrix, transform_points
from wm_core.scene_graph import SceneGraph, Shape
from wm_ros.conversions.basics import pose_to_msg, vector_to_msg
from wm_ros.stamps import ns_to_stamp

_MARKER_OF_SHAPE = {
    Shape.BOX: Marker.CUBE,
    Shape.SPHERE: Marker.SPHERE,
    Shape.CYLINDER: Marker.CYLINDER,
    Shape.CAPSULE: Marker.CYLINDER,
    Shape.CONVEX: Marker.CUBE,
}
_KEPT_PARTS = 128
"""Sets of parts whose triangles are kept. Larger takes memory; smaller makes them anew in scenes of more objects."""
_MOVING_M_S = 0.02
"""Speed [m/s] above which an arrow is shown."""
_ARROW_S = 0.5
"""An arrow ends where the object will be after this time [s]."""
_LABEL_HEIGHT_M = 0.03
"""Height of the letters, and of their gap over the object [m]."""


class MarkerBuilder:
    """Makes a MarkerArray of each scene graph, with a DELETE for each marker of the one before that is gone.

    Namespaces: ``objects`` (shapes; of objects of several parts the triangles of these), ``labels``, ``velocities``
    (arrows to the place in half a second), ``supports`` (outlines). Objects not seen now are drawn paler.
    """

    def __init__(self) -> None:
        self._shown: set[tuple[str, int]] = set()
        self._triangles = _Triangles()

    def build(self, scene: SceneGraph) -> MarkerArray:
        """visualization_msgs/MarkerArray in the graph's frame and at its stamp."""
        markers: list[Marker] = []
        for i, object_id in enumerate(scene.ids.tolist()):
            markers += self._object(scene, i, int(object_id))
        shown = {(m.ns, m.id) for m in markers}
        for namespace, marker_id in sorted(self._shown - shown):
            markers.append(self._marker(scene, namespace, marker_id, Marker.CUBE, action=Marker.DELETE))
        self._shown = shown
        return MarkerArray(markers=markers)

    def clear(self) -> MarkerArray:
        """A MarkerArray that removes everything."""
        self._shown = set()
        return MarkerArray(markers=[Marker(action=Marker.DELETEALL)])

    def _marker(self, scene: SceneGraph, namespace: str, marker_id: int, kind: int, action: int = Marker.ADD) -> Marker:
        marker = Marker(ns=namespace, id=marker_id, type=kind, action=action)
        marker.header.frame_id = scene.frame_id
        marker.header.stamp = ns_to_stamp(max(scene.stamp_ns, 0))
        marker.pose.orientation.w = 1.0
        return marker

    def _object(self, scene: SceneGraph, i: int, object_id: int) -> list[Marker]:
        r, g, b = (value / 255.0 for value in object_color(object_id))
        is_support = scene.class_names[i] == "support"
        alpha = 0.2 if is_support else 0.75 if scene.visibilities[i] > 0.0 else 0.3
        color = ColorRGBA(r=r, g=g, b=b, a=alpha)
        body = self._marker(scene, "objects", object_id, _MARKER_OF_SHAPE[Shape(int(scene.shapes[i]))])
        body.pose = pose_to_msg(scene.positions[i], scene.quaternions[i])
        body.scale = vector_to_msg(scene.extents[i])
        body.color = color
        if scene.parts[i]:
            body.type, body.points = Marker.TRIANGLE_LIST, self._triangles.of(scene.parts[i])
            body.scale = vector_to_msg(np.ones(3))
        label = self._marker(scene, "labels", object_id, Marker.TEXT_VIEW_FACING)
        world_T_object = pose_matrix(scene.positions[i], scene.quaternions[i])
        # Half the height of the turned box along the frame's z.
        top = 0.5 * float(np.abs(world_T_object[2, :3]) @ scene.extents[i])
        label.pose.position.x, label.pose.position.y, label.pose.position.z = (
            float(v) for v in scene.positions[i] + [0.0, 0.0, top + _LABEL_HEIGHT_M]
        )
        label.scale.z = _LABEL_HEIGHT_M
        label.color = ColorRGBA(r=1.0, g=1.0, b=1.0, a=1.0 if scene.visibilities[i] > 0.0 else 0.5)
        label.text = f"{object_id} {scene.class_names[i]}"
        markers = [body, label]
        if float(np.linalg.norm(scene.linear_velocities[i])) > _MOVING_M_S:
            arrow = self._marker(scene, "velocities", object_id, Marker.ARROW)
            arrow.points = _points(
                np.stack([scene.positions[i], scene.positions[i] + _ARROW_S * scene.linear_velocities[i]])
            )
            arrow.scale.x, arrow.scale.y, arrow.scale.z = 0.008, 0.016, 0.02
            arrow.color = ColorRGBA(r=r, g=g, b=b, a=1.0)
            markers.append(arrow)
        if is_support and len(scene.hulls[i]) >= 3:
            outline = self._marker(scene, "supports", object_id, Marker.LINE_STRIP)
            corners = transform_points(world_T_object, scene.hulls[i])
            outline.points = _points(np.vstack([corners, corners[:1]]))
            outline.scale.x = 0.005
            outline.color = ColorRGBA(r=r, g=g, b=b, a=1.0)
            markers.append(outline)
        return markers


class _Triangles:
    """The surfaces of sets of parts as triangles, made once for each."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[int, ...], tuple[Sequence[ConvexPart], list[Point]]] = OrderedDict()

    def of(self, parts: Sequence[ConvexPart]) -> list[Point]:
        """Three points of each triangle, in the object's frame, turning counterclockwise seen from outside."""
        # The parts are kept here, so that none of another identity gets theirs.
        key = tuple(id(part) for part in parts)
        if key not in self._known:
            self._known[key] = parts, _points(np.concatenate([_hull_triangles(part.points()) for part in parts]))
            while len(self._known) > _KEPT_PARTS:
                self._known.popitem(last=False)
        return self._known[key][1]


def _hull_triangles(points: Any) -> Any:
    """(3 T, 3) corners of the triangles of the convex hull of points (P, 3); none where they span no volume."""
    try:
        hull = ConvexHull(points)
    except (QhullError, ValueError):
        return np.zeros((0, 3))
    corners = points[hull.simplices]
    turning = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    inward = np.einsum("ij,ij->i", turning, hull.equations[:, :3]) < 0.0
    corners[inward] = corners[inward][:, ::-1]
    return corners.reshape(-1, 3)


def _points(values: Any) -> list[Point]:
    return [Point(x=float(x), y=float(y), z=float(z)) for x, y, z in values]
