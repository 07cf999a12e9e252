"""Times, arrays, points, poses, colors and cameras between plain values and messages.

Large arrays are sent as ``array.array``: rclpy copies those in one piece, and lists element by element (rclpy issue
763).
"""

from __future__ import annotations

import array

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Point, Pose, Quaternion, Twist, Vector3
from numpy.typing import ArrayLike, NDArray
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import ColorRGBA

from wm_core.camera import Camera
from wm_core.geometry import pose_matrix
from wm_core.rotations import matrix_to_quaternion

NANOSECONDS = 1_000_000_000
"""Nanoseconds in a second."""


def time_to_msg(stamp_ns: int) -> Time:
    """builtin_interfaces/Time of nanoseconds (negative stamps, which ROS cannot carry, become 0)."""
    seconds, nanoseconds = divmod(max(int(stamp_ns), 0), NANOSECONDS)
    return Time(sec=seconds, nanosec=nanoseconds)


def time_from_msg(msg: Time) -> int:
    """Nanoseconds of a builtin_interfaces/Time."""
    return int(msg.sec) * NANOSECONDS + int(msg.nanosec)


def float_array(values: ArrayLike) -> array.array:
    """A flat float32 ``array.array`` of any array (row-major)."""
    return array.array("f", np.ascontiguousarray(values, dtype=np.float32).tobytes())


def byte_array(values: ArrayLike) -> array.array:
    """A flat uint8 ``array.array`` of any array (row-major)."""
    return array.array("B", np.ascontiguousarray(values, dtype=np.uint8).tobytes())


def point_to_msg(values: ArrayLike) -> Point:
    """geometry_msgs/Point of (3,)."""
    x, y, z = (float(v) for v in np.asarray(values))
    return Point(x=x, y=y, z=z)


def vector_to_msg(values: ArrayLike) -> Vector3:
    """geometry_msgs/Vector3 of (3,)."""
    x, y, z = (float(v) for v in np.asarray(values))
    return Vector3(x=x, y=y, z=z)


def vector_from_msg(msg: Vector3 | Point) -> NDArray[np.float64]:
    """(3,) of a Vector3 or Point."""
    return np.array([msg.x, msg.y, msg.z], dtype=np.float64)


def quaternion_from_msg(msg: Quaternion) -> NDArray[np.float64]:
    """(4,) x, y, z, w as sent, not normalized."""
    return np.array([msg.x, msg.y, msg.z, msg.w], dtype=np.float64)


def pose_to_msg(position: ArrayLike, quaternion_xyzw: ArrayLike) -> Pose:
    """geometry_msgs/Pose of a position [m] and a quaternion."""
    x, y, z, w = (float(v) for v in np.asarray(quaternion_xyzw))
    return Pose(position=point_to_msg(position), orientation=Quaternion(x=x, y=y, z=z, w=w))


def transform_to_pose_msg(transform: NDArray[np.float64]) -> Pose:
    """geometry_msgs/Pose of a 4x4 transform."""
    return pose_to_msg(transform[:3, 3], matrix_to_quaternion(transform[:3, :3]))


def transform_from_pose_msg(msg: Pose) -> NDArray[np.float64]:
    """4x4 transform of a geometry_msgs/Pose; an all-zero quaternion is the identity."""
    return pose_matrix(vector_from_msg(msg.position), quaternion_from_msg(msg.orientation))


def twist_to_msg(linear: ArrayLike, angular: ArrayLike) -> Twist:
    """geometry_msgs/Twist of [m/s] and [rad/s]."""
    return Twist(linear=vector_to_msg(linear), angular=vector_to_msg(angular))


def color_to_msg(rgb: ArrayLike) -> ColorRGBA:
    """std_msgs/ColorRGBA, opaque, of (3,) in 0..1."""
    r, g, b = (float(v) for v in np.asarray(rgb))
    return ColorRGBA(r=r, g=g, b=b, a=1.0)


def color_from_msg(msg: ColorRGBA) -> NDArray[np.float64]:
    """(3,) in 0..1."""
    return np.array([msg.r, msg.g, msg.b], dtype=np.float64)


def camera_to_msg(camera: Camera) -> CameraInfo:
    """sensor_msgs/CameraInfo (no header) of a rectified pinhole camera."""
    msg = CameraInfo(width=camera.width, height=camera.height, distortion_model="plumb_bob", d=[0.0] * 5)
    msg.k = camera.matrix.ravel().tolist()
    msg.r = np.eye(3).ravel().tolist()
    msg.p = np.hstack([camera.matrix, np.zeros((3, 1))]).ravel().tolist()
    return msg


def camera_from_msg(msg: CameraInfo) -> Camera:
    """The pinhole camera of a sensor_msgs/CameraInfo.

    Raises:
        ValueError: a size or intrinsic is impossible (an uncalibrated camera publishes zeros).
    """
    k = np.asarray(msg.k, dtype=np.float64)
    return Camera(int(msg.width), int(msg.height), float(k[0]), float(k[4]), float(k[2]), float(k[5]))
