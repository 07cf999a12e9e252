"""Coordinate transforms over time: wm's own buffer, or tf2_ros's where that is installed.

``TransformBuffer`` is plain Python and thread-safe. ``RosTransforms`` feeds it (or tf2_ros) from /tf and
/tf_static. A matrix ``target_T_source`` maps coordinates in ``source`` to coordinates in ``target``.
"""

from __future__ import annotations

import bisect
import threading
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wm_core.geometry import interpolate_pose, invert_transform, pose_matrix
from wm_core.rotations import normalize_quaternion
from wm_ros import qos
from wm_ros.stamps import NANOSECONDS, ns_to_seconds, stamp_to_ns

Array = NDArray[np.float64]

LATEST = 0
"""As a stamp: the latest instant that every transform on the way is known for."""


class TransformError(LookupError):
    """A transform that is not known; the message says why."""


class UnknownFrameError(TransformError):
    """A frame that no transform names."""


class NotConnectedError(TransformError):
    """Two frames with no path between them."""


class TooOldError(TransformError):
    """The stamp lies before those kept, by ``by_ns`` [ns]."""

    def __init__(self, message: str, by_ns: int) -> None:
        super().__init__(message)
        self.by_ns = by_ns


class TooNewError(TransformError):
    """The stamp lies after the newest transform, by ``by_ns`` [ns]; one may still come."""

    def __init__(self, message: str, by_ns: int) -> None:
        super().__init__(message)
        self.by_ns = by_ns


@dataclass
class _Edge:
    """Transforms parent_T_child over time; stamps ascending. A static edge has one, for all times."""

    parent: str
    static: bool
    stamps: list[int] = field(default_factory=list)
    positions: list[Array] = field(default_factory=list)
    quaternions: list[Array] = field(default_factory=list)


class TransformBuffer:
    """Keeps ``cache_s`` seconds of every moving transform and interpolates between them.

    Between two transforms positions are linear and orientations slerped. After the newest one, up to
    ``extrapolation_s``, the newest is held; later stamps, and stamps before the oldest, are refused. Thread-safe.
    """

    def __init__(self, cache_s: float = 10.0, extrapolation_s: float = 0.0) -> None:
        self._cache_ns = round(cache_s * NANOSECONDS)
        self._restart_ns = min(self._cache_ns, NANOSECONDS)
        self._extrapolation_ns = round(extrapolation_s * NANOSECONDS)
        self._edges: dict[str, _Edge] = {}
        self._changed = threading.Condition()

    def clear(self, after_ns: int = 0) -> None:
        """Forget the moving transforms whose newest stamp is later than ``after_ns``; static ones stay.

        After time was set back, the new time as ``after_ns`` keeps those transforms that have already started
        anew.
        """
        with self._changed:
            self._edges = {c: e for c, e in self._edges.items() if e.static or e.stamps[-1] <= after_ns}

    @property
    def frames(self) -> list[str]:
        """Names of all frames."""
        with self._changed:
            return self._frames()

    def _frames(self) -> list[str]:
        return sorted(set(self._edges) | {e.parent for e in self._edges.values()})

    def set(
        self,
        parent: str,
        child: str,
        stamp_ns: int,
        position: ArrayLike,
        quaternion_xyzw: ArrayLike,
        static: bool = False,
    ) -> None:
        """Add parent_T_child: position (3,) [m], quaternion (4,) x, y, z, w.

        A stamp more than a second (or the cache, if shorter) before the newest means that time was set back: this
        transform's history starts anew.

        Raises:
            ValueError: a name is empty, both are the same, or a number is not finite.
        """
        parent, child = parent.lstrip("/"), child.lstrip("/")
        p = np.asarray(position, dtype=np.float64)
        q = normalize_quaternion(quaternion_xyzw)
        if not parent or not child or parent == child:
            raise ValueError(f"transform from {parent!r} to {child!r}: expected two different frame names")
        if p.shape != (3,) or not np.isfinite(p).all():
            raise ValueError(
                f"transform from {parent!r} to {child!r}: position {p.tolist()}, expected 3 finite numbers"
            )
        with self._changed:
            edge = self._edges.get(child)
            replaced = edge is None or static or edge.static or edge.parent != parent
            if edge is None or replaced or stamp_ns < edge.stamps[-1] - self._restart_ns:
                edge = self._edges[child] = _Edge(parent, static)
            at = bisect.bisect_left(edge.stamps, stamp_ns)
            if at < len(edge.stamps) and edge.stamps[at] == stamp_ns:
                edge.positions[at], edge.quaternions[at] = p, q
            else:
                edge.stamps.insert(at, stamp_ns)
                edge.positions.insert(at, p)
                edge.quaternions.insert(at, q)
            keep_from = bisect.bisect_left(edge.stamps, edge.stamps[-1] - self._cache_ns)
            if keep_from:
                del edge.stamps[:keep_from], edge.positions[:keep_from], edge.quaternions[:keep_from]
            self._changed.notify_all()

    def lookup(self, target: str, source: str, stamp_ns: int = LATEST) -> Array:
        """target_T_source (4, 4) at a stamp [ns]; ``LATEST``: the newest instant known for the whole way.

        Raises:
            UnknownFrameError: a frame is not known; lists those that are.
            NotConnectedError: there is no path between the two.
            TooOldError, TooNewError: the stamp lies outside what is known; says by how much.
        """
        with self._changed:
            return self._lookup(target.lstrip("/"), source.lstrip("/"), stamp_ns)

    def wait(self, target: str, source: str, stamp_ns: int, timeout_s: float) -> Array:
        """As ``lookup``, but waits up to ``timeout_s`` wall-clock seconds for transforms that may still come.

        Raises:
            TransformError: as ``lookup``; at once for ``TooOldError``, where waiting cannot help.
        """
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while True:
                try:
                    return self._lookup(target.lstrip("/"), source.lstrip("/"), stamp_ns)
                except TooOldError:
                    raise
                except TransformError:
                    left = deadline - time.monotonic()
                    if left <= 0.0 or not self._changed.wait(left):
                        return self._lookup(target.lstrip("/"), source.lstrip("/"), stamp_ns)

    def _lookup(self, target: str, source: str, stamp_ns: int) -> Array:
        if target == source:
            return np.eye(4)
        known = self._frames()
        for frame in (target, source):
            if frame not in known:
                listed = ", ".join(known) or "none, nothing came on /tf"
                raise UnknownFrameError(f"frame {frame!r} is not known; known frames: {listed}")
        up_target, up_source = self._to_root(target), self._to_root(source)
        common = next((frame for frame in up_source if frame in up_target), None)
        if common is None:
            raise NotConnectedError(
                f"frames {target!r} and {source!r} are not connected: {target!r} belongs to the tree of "
                f"{up_target[-1]!r}, {source!r} to that of {up_source[-1]!r}"
            )
        down = up_source[: up_source.index(common)]
        up = up_target[: up_target.index(common)]
        if stamp_ns == LATEST:
            newest = [self._edges[c].stamps[-1] for c in (*down, *up) if not self._edges[c].static]
            stamp_ns = min(newest) if newest else LATEST
        common_T_source = np.eye(4)
        for child in down:
            common_T_source = self._at(child, stamp_ns) @ common_T_source
        common_T_target = np.eye(4)
        for child in up:
            common_T_target = self._at(child, stamp_ns) @ common_T_target
        return invert_transform(common_T_target) @ common_T_source

    def _to_root(self, frame: str) -> list[str]:
        path = [frame]
        while path[-1] in self._edges:
            parent = self._edges[path[-1]].parent
            if parent in path:
                raise NotConnectedError(f"frames form a loop: {' -> '.join([*path, parent])}")
            path.append(parent)
        return path

    def _at(self, child: str, stamp_ns: int) -> Array:
        edge = self._edges[child]
        if edge.static:
            return pose_matrix(edge.positions[0], edge.quaternions[0])
        oldest, newest = edge.stamps[0], edge.stamps[-1]
        name = f"transform {edge.parent!r} to {child!r}"
        if stamp_ns < oldest:
            by = oldest - stamp_ns
            raise TooOldError(f"{name}: asked for {ns_to_seconds(by):.3f} s before the oldest one kept", by)
        if stamp_ns > newest + self._extrapolation_ns:
            by = stamp_ns - newest
            raise TooNewError(f"{name}: asked for {ns_to_seconds(by):.3f} s after the newest one", by)
        after = bisect.bisect_left(edge.stamps, stamp_ns)
        if after == len(edge.stamps) or edge.stamps[after] == stamp_ns:
            at = min(after, len(edge.stamps) - 1)
            return pose_matrix(edge.positions[at], edge.quaternions[at])
        pair = slice(after - 1, after + 1)
        # Relative stamps: seconds since 1970 in float64 resolve only 0.2 microseconds.
        times = np.array(edge.stamps[pair]) - edge.stamps[after - 1]
        positions, quaternions = interpolate_pose(
            times, edge.positions[pair], edge.quaternions[pair], [stamp_ns - edge.stamps[after - 1]]
        )
        return pose_matrix(positions[0], quaternions[0])


class RosTransforms:
    """/tf and /tf_static of a node. Uses tf2_ros's Buffer where it imports, else ``TransformBuffer``.

    Attributes:
        backend: ``tf2_ros`` or ``wm_ros``.
    """

    def __init__(
        self,
        node: Any,
        cache_s: float = 10.0,
        callback_group: Any = None,
        prefer_tf2: bool = True,
    ) -> None:
        self._node = node
        self._buffer: Any = None
        self.backend = "wm_ros"
        self._subscriptions: list[Any] = []
        self._listener: Any = None
        if prefer_tf2:
            try:
                import tf2_ros
                from rclpy.duration import Duration

                self._buffer = tf2_ros.Buffer(cache_time=Duration(seconds=cache_s))
                self._listener = tf2_ros.TransformListener(self._buffer, node)
                self.backend = "tf2_ros"
            except ImportError:
                pass
        self.buffer = TransformBuffer(cache_s)
        if self.backend == "wm_ros":
            from tf2_msgs.msg import TFMessage

            self._subscriptions = [
                node.create_subscription(TFMessage, topic, callback, profile, callback_group=callback_group)
                for topic, callback, profile in (
                    ("/tf", self._on_moving, qos.TF),
                    ("/tf_static", self._on_static, qos.TF_STATIC),
                )
            ]

    def destroy(self) -> None:
        """Unsubscribe."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions = []
        if self._listener is not None and hasattr(self._listener, "unregister"):
            self._listener.unregister()
        self._listener = None

    def _on_moving(self, msg: Any) -> None:
        self._add(msg, static=False)

    def _on_static(self, msg: Any) -> None:
        self._add(msg, static=True)

    def _add(self, msg: Any, static: bool) -> None:
        for t in msg.transforms:
            p, q = t.transform.translation, t.transform.rotation
            try:
                self.buffer.set(
                    t.header.frame_id,
                    t.child_frame_id,
                    stamp_to_ns(t.header.stamp),
                    [p.x, p.y, p.z],
                    [q.x, q.y, q.z, q.w],
                    static,
                )
            except ValueError as error:
                if hasattr(self._node, "warn"):
                    self._node.warn("bad_transform", str(error), "its publisher sends it so")
                else:
                    self._node.get_logger().warning(str(error))

    def wait(self, target: str, source: str, stamp_ns: int, timeout_s: float) -> Array:
        """target_T_source (4, 4) at a stamp [ns], waiting up to ``timeout_s`` wall-clock seconds for it.

        Call it from a thread other than the one that spins the node.

        Raises:
            TransformError: see ``TransformBuffer.lookup``.
        """
        if self._buffer is None:
            return self.buffer.wait(target, source, stamp_ns, timeout_s)
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                return self._tf2_lookup(target, source, stamp_ns)
            except TooOldError:
                raise
            except TransformError:
                # tf2_ros's own waiting counts in the node's clock, which may stand still.
                if time.monotonic() >= deadline:
                    raise
                time.sleep(0.005)

    def clear(self, after_ns: int = 0) -> None:
        """As ``TransformBuffer.clear``; tf2_ros's buffer, which refuses earlier stamps, forgets all that move."""
        if self._buffer is None:
            self.buffer.clear(after_ns)
        else:
            self._buffer.clear()

    def _tf2_lookup(self, target: str, source: str, stamp_ns: int) -> Array:
        import tf2_ros
        from rclpy.time import Time

        try:
            found = self._buffer.lookup_transform(target, source, Time(nanoseconds=stamp_ns))
        except tf2_ros.LookupException as error:
            raise UnknownFrameError(str(error)) from error
        except tf2_ros.ConnectivityException as error:
            raise NotConnectedError(str(error)) from error
        except tf2_ros.ExtrapolationException as error:
            if "past" in str(error):
                raise TooOldError(str(error), 0) from error
            raise TooNewError(str(error), 0) from error
        except tf2_ros.TransformException as error:
            raise TransformError(str(error)) from error
        p, q = found.transform.translation, found.transform.rotation
        return pose_matrix([p.x, p.y, p.z], [q.x, q.y, q.z, q.w])


def transform_to_msg(parent: str, child: str, stamp_ns: int, parent_T_child: ArrayLike) -> Any:
    """geometry_msgs/TransformStamped of a 4x4 transform."""
    from geometry_msgs.msg import TransformStamped

    from wm_ros.conversions.basics import transform_to_pose_msg, vector_to_msg
    from wm_ros.stamps import ns_to_stamp

    matrix = np.asarray(parent_T_child, dtype=np.float64)
    msg = TransformStamped()
    msg.header.stamp = ns_to_stamp(stamp_ns)
    msg.header.frame_id = parent
    msg.child_frame_id = child
    msg.transform.translation = vector_to_msg(matrix[:3, 3])
    msg.transform.rotation = transform_to_pose_msg(matrix).orientation
    return msg


class RosTransformBroadcaster:
    """Publishes transforms on /tf or, ``static``, latched on /tf_static (all those given so far)."""

    def __init__(self, node: Any, static: bool = False) -> None:
        from tf2_msgs.msg import TFMessage

        self._message = TFMessage
        self._static = static
        self._latched: dict[str, Any] = {}
        self._publisher = node.create_publisher(
            TFMessage, "/tf_static" if static else "/tf", qos.TF_STATIC if static else qos.TF
        )

    def send(self, *transforms: Any) -> None:
        """Publish geometry_msgs/TransformStamped messages."""
        if self._static:
            self._latched.update({t.child_frame_id: t for t in transforms})
            transforms = tuple(self._latched.values())
        self._publisher.publish(self._message(transforms=list(transforms)))
