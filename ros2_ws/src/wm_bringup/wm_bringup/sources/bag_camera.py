"""Estimates a camera pose for bags that have none.

The camera is assumed not to move. The direction of gravity comes from an IMU at rest or from the largest level surface
in the first images.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.serialization import deserialize_message

from wm_bringup.environment import message_class
from wm_bringup.sources.bag import Bag
from wm_bringup.sources.playback import SourceError
from wm_bringup.sources.recording import check_mode
from wm_core.health.depth_unit import agreed_guess, guess_depth_unit
from wm_core.rotations import rotation_between
from wm_perception.lifting.gravity import find_up
from wm_perception.types import Frame
from wm_ros.images.camera_input import CameraInput, CameraInputError, applies_guess
from wm_ros.stamps import ApproximateSynchronizer, stamp_to_ns
from wm_ros.transforms import TransformBuffer, TransformError, transform_to_msg

_IMU = "sensor_msgs/msg/Imu"
_FRAMES = 12
"""Number of frames from the start of the bag that are searched for level surfaces. More frames cost time in proportion
and make the estimate less dependent on the noise of one frame."""
_LEAST_IMU, _MOST_IMU = 20, 1000
"""Number of accelerometer samples: with fewer than the first the mean is not used, and reading stops at the second
(0.1 s and 5 s at 200 Hz)."""
_GRAVITY_M_S2 = (8.8, 10.8)
"""Range of the mean acceleration [m/s^2] that counts as gravity: 9.81 plus or minus the bias of a low-cost sensor,
1 m/s^2. A wider range accepts accelerometers that move or are not calibrated."""
_STEADY_M_S2 = 0.6
"""Largest norm of the per-axis standard deviations [m/s^2] of an accelerometer that counts as at rest. A larger value
accepts the vibration of a running robot, and in the end motion."""
_OPTICAL = "optical_frame"
"""Ending of the names of optical frames (REP-103: x right, y down, z forward)."""


@dataclass(frozen=True)
class Inputs:
    """The topics of a bag that perception reads, and the parameters that it reads them with.

    Attributes:
        color, depth, camera_info: topic names in the bag, before remapping.
        color_compressed, depth_compressed: whether the topic has sensor_msgs/CompressedImage.
        world_frame: fixed frame of the scene graph.
        camera_frame: name of the optical frame; empty: the frame_id of the color images.
        max_difference_ns: largest difference of the stamps of a color and a depth image that make a pair [ns].
        resize_depth, rectify, depth_scale, depth_scale_guess: perception's parameters of these names; depth_scale is in
            meters per unit, 0: given by the encoding.
    """

    color: str
    depth: str
    camera_info: str
    color_compressed: bool = False
    depth_compressed: bool = False
    world_frame: str = "map"
    camera_frame: str = ""
    max_difference_ns: int = 15_000_000
    resize_depth: bool = True
    rectify: str = "auto"
    depth_scale: float = 0.0
    depth_scale_guess: str = "warn"

    @property
    def color_transport(self) -> str:
        """Value of perception's parameter ``color_transport``."""
        return "compressed" if self.color_compressed else "raw"

    @property
    def depth_transport(self) -> str:
        """Value of perception's parameter ``depth_transport``; the format of each message names its compression."""
        return "compressedDepth" if self.depth_compressed else "raw"

    @property
    def camera_info_topic(self) -> str:
        """Topic of the intrinsics in the bag."""
        return self.camera_info

    @property
    def color_source(self) -> str:
        """Topic of the color images in the bag."""
        return self.color

    @property
    def depth_source(self) -> str:
        """Topic of the depth images in the bag."""
        return self.depth


@dataclass(frozen=True)
class StillCamera:
    """A pose assumed for a camera that has none.

    Attributes:
        transform: geometry_msgs/TransformStamped from the world frame to the optical frame, for /tf_static.
        note: a sentence that says how the pose was chosen.
    """

    transform: Any
    note: str


def still_camera(bag: Bag, inputs: Inputs, level: str = "auto", remap: Mapping[str, str] | None = None) -> Any:
    """A ``StillCamera`` where the bag's transforms do not contain the camera; None where they do.

    The up direction comes from an IMU at rest whose rotation to the camera is known. Where there is no such IMU it is
    the normal of the largest support in the first frames.

    Args:
        bag: the bag.
        inputs: the topics that perception reads, by their names in the bag.
        level: ``off``: the world has the camera's own axes, z forward; ``auto`` and ``on``: z points up.
        remap: recorded topic name to the name that perception subscribes to.

    Raises:
        SourceError: the transforms contain the camera but no path from the world frame to it, or neither an IMU nor a
            surface gives the up direction.
    """
    check_mode("--level", level)
    renamed = remap or {}
    of = {renamed.get(name, name): name for name in bag.topics}
    # Whether an image is rectified already is read from the topic names that perception subscribes to.
    camera = CameraInput(*(renamed.get(name, name) for name in (inputs.color, inputs.depth)))
    frames = _first_frames(bag, inputs, camera)
    if not frames:
        return None
    camera_frame = inputs.camera_frame or frames[0][1]
    if not camera_frame:
        return None  # perception reports the missing frame_id
    transforms = _transforms(bag, [of[t] for t in ("/tf", "/tf_static") if t in of], inputs.world_frame)
    known = transforms.frames
    if inputs.world_frame in known:
        return None  # there are poses; perception reports a camera that is not among them
    if camera_frame in known:
        raise SourceError(
            f"{bag.path}: its transforms lead to the camera {camera_frame!r}, but not from {inputs.world_frame!r}; "
            f"they know {', '.join(known)}; set world_frame in a parameters file"
        )
    up, why = None, "level off: its own axes, z forward"
    if level != "off":
        up, why = _imu_up(bag, camera_frame, transforms)
        if up is None:
            try:
                found = find_up([frame for frame, _ in frames])
            except ValueError as error:
                raise SourceError(
                    f"{bag.path}: no transform of the camera, no IMU, and {error}; --level off"
                ) from error
            up = found.level_T_world[2, :3]
            imu = f" ({why})" if why else ""
            why = f"gravity from the largest support that is seen ({100.0 * found.share:.0f} % of it{imu})"
    world_T_camera = np.eye(4)
    if up is not None:
        world_T_camera[:3, :3] = rotation_between(up, [0.0, 0.0, 1.0])
    note = f"no transform of {camera_frame} in the bag: a camera that stands still is assumed; {why}"
    return StillCamera(transform_to_msg(inputs.world_frame, camera_frame, 0, world_T_camera), note)


def _transforms(bag: Bag, topics: list[str], until: str) -> TransformBuffer:
    """The bag's transforms. Reading stops at the first message with the frame ``until``, so a long bag costs little."""
    buffer = TransformBuffer(cache_s=1e9)
    for name, _, data in bag.messages(topics) if topics else ():
        if until in buffer.frames:
            break
        message = deserialize_message(data, message_class(bag.topics[name].type))
        for t in message.transforms:
            p, q = t.transform.translation, t.transform.rotation
            static = name.endswith("tf_static")
            try:
                buffer.set(
                    t.header.frame_id,
                    t.child_frame_id,
                    stamp_to_ns(t.header.stamp),
                    [p.x, p.y, p.z],
                    [q.x, q.y, q.z, q.w],
                    static,
                )
            except ValueError:
                continue  # perception counts and reports invalid transforms
    return buffer


def _first_frames(bag: Bag, inputs: Inputs, camera: CameraInput) -> list[tuple[Frame, str]]:
    """Up to ``_FRAMES`` frames from the start of a bag, read as perception reads them.

    Each comes with the frame_id of its color image. Their pose is the identity: the world has the camera's axes.
    """
    names = [inputs.color, inputs.depth, inputs.camera_info]
    kinds = {name: message_class(bag.topics[name].type) for name in names}
    pairs = ApproximateSynchronizer(inputs.max_difference_ns)
    info: Any = None
    waiting: list[Any] = []
    found: list[tuple[Frame, str]] = []
    for name, _, data in bag.messages(names):
        if name == inputs.camera_info:
            info = info or deserialize_message(data, kinds[name])
        else:
            message = deserialize_message(data, kinds[name])
            add = pairs.add_color if name == inputs.color else pairs.add_depth
            pair = add(stamp_to_ns(message.header.stamp), message)
            waiting += [pair] if pair is not None else []
        while info is not None and waiting:
            pair = waiting.pop(0)
            try:
                read = camera.read(pair.color, pair.depth, info, inputs)
            except CameraInputError:
                continue  # perception reports why the image cannot be used
            frame = Frame(pair.stamp_ns, read.color, read.depth_m, read.camera, np.eye(4))
            found.append((frame, pair.color.header.frame_id.lstrip("/")))
        if len(found) >= _FRAMES or len(waiting) > _FRAMES:
            break
    if found and applies_guess(inputs):
        # The up direction is not known yet, so only the median depth can show a wrong unit.
        guess = agreed_guess([guess_depth_unit(f.depth_m, f.camera, f.world_T_camera) for f, _ in found])
        if guess is not None and not guess.others:
            factor = np.float32(guess.factor)
            found = [(replace(f, depth_m=f.depth_m * factor), name) for f, name in found]
    return found


def _imu_up(bag: Bag, camera_frame: str, transforms: TransformBuffer) -> tuple[NDArray[np.float64] | None, str]:
    """The up direction (3,), unit length, in the camera's axes from an accelerometer at rest, and a note on its source.

    Returns:
        The direction and the note; without a usable IMU None and the reason, which is empty where the bag has no IMU.
    """
    why = ""
    for topic in bag.choose([]):
        if topic.type != _IMU or topic.count < _LEAST_IMU:
            continue
        samples: list[list[float]] = []
        frame = ""
        kind = message_class(topic.type)
        for _, _, data in bag.messages([topic.name]):
            message = deserialize_message(data, kind)
            a = message.linear_acceleration
            frame = message.header.frame_id.lstrip("/")
            # REP-145: a first covariance of -1 marks a quantity that the sensor does not measure.
            if message.linear_acceleration_covariance[0] >= 0.0 and np.isfinite([a.x, a.y, a.z]).all():
                samples.append([a.x, a.y, a.z])
            if len(samples) >= _MOST_IMU:
                break
        measured = np.array(samples).reshape(-1, 3)
        if len(measured) < _LEAST_IMU:
            continue
        mean, spread = measured.mean(axis=0), float(np.linalg.norm(measured.std(axis=0)))
        size = float(np.linalg.norm(mean))
        if not _GRAVITY_M_S2[0] < size < _GRAVITY_M_S2[1] or spread > _STEADY_M_S2:
            why = f"{topic.name} shows {size:.1f} +- {spread:.1f} m/s², not gravity at rest"
            continue
        try:
            camera_R_imu = transforms.lookup(camera_frame, frame)[:3, :3]
        except TransformError:
            if not (frame.endswith(_OPTICAL) and camera_frame.endswith(_OPTICAL)):
                why = f"{topic.name} is in frame {frame!r}, whose relation to the camera is not in the bag"
                continue
            camera_R_imu = np.eye(3)  # both are optical frames of one camera housing, and those are parallel
        # An accelerometer at rest measures the reaction to gravity, which points up.
        return camera_R_imu @ mean / size, f"gravity from {topic.name} ({frame}, {size:.2f} m/s²)"
    return None, why
