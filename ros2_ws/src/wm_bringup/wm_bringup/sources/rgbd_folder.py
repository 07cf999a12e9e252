"""Plays a folder of RGB-D frames on the camera topics; the module ``layouts`` describes the folders.

REP-103 requires a world whose z axis points up, and few such recordings have one. Where the poses do not give the up
direction, the player estimates it and rotates the world before it publishes.
"""

from __future__ import annotations

if __name__ == "__main__":
    from wm_ros.nodes.startup import end_quietly

    end_quietly()

import argparse
import sys
import time
from collections.abc import Sequence
from typing import Any

from sensor_msgs.msg import CameraInfo, Image

from wm_bringup.sources.depth_unit_check import depth_unit_warning
from wm_bringup.sources.layouts import open_folder
from wm_bringup.sources.lockstep import LockStep, add_lock_step
from wm_bringup.sources.playback import DISCOVERY_S, Player, Progress, SourceError
from wm_bringup.sources.recording import MODES, RecordedFrame, Recording
from wm_ros import qos
from wm_ros.images.camera_info import camera_to_info
from wm_ros.images.pixels import depth_to_image, rgb_to_image
from wm_ros.stamps import NANOSECONDS
from wm_ros.transforms import RosTransformBroadcaster, transform_to_msg

__all__ = ["RecordedFrame", "Recording", "main", "open_folder", "play", "prepared"]


def prepared(recording: Recording, register: str = "auto", level: str = "auto") -> Recording:
    """The recording with color mapped to depth and the world's z up, by modes ``auto``, ``on`` or ``off``.

    The ``notes`` of the result say what was changed.

    Raises:
        SourceError: see ``Recording.registered`` and ``Recording.leveled``.
    """
    return recording.registered(register).leveled(level)


def play(recording: Recording, options: argparse.Namespace, ros_arguments: list[str]) -> None:
    """Publish a recording until its end, without end with ``options.loop``, or until SIGINT or SIGTERM.

    Args:
        recording: the recording.
        options: the command line as ``parser`` reads it.
        ros_arguments: arguments for rclpy, from ``--ros-args`` on.

    Raises:
        SourceError: an image cannot be loaded, or lock-step fails.
    """
    with Player("rgbd_folder", ros_arguments, options.speed, options.clock) as player:
        node = player.node
        color_out = node.create_publisher(Image, options.color_topic, qos.SENSOR)
        depth_out = node.create_publisher(Image, options.depth_topic, qos.SENSOR)
        info_out = node.create_publisher(CameraInfo, options.camera_info_topic, qos.SENSOR)
        transforms = RosTransformBroadcaster(node)
        steps = LockStep(player, options.lock_step) if options.lock_step else None
        if steps is not None:
            heard = {
                options.color_topic: color_out,
                options.depth_topic: depth_out,
                options.camera_info_topic: info_out,
            }
            steps.wait_for_perception(heard, color_out, options.subscribers)
        elif options.wait > 0.0:
            print(f"waiting up to {options.wait:g} s for a subscriber of {options.color_topic}", file=sys.stderr)
            if player.wait_for(lambda: color_out.get_subscription_count() > 0, options.wait):
                player.sleep(DISCOVERY_S)
        start_ns = time.time_ns() if options.start_time is None else round(options.start_time * NANOSECONDS)
        step_ns = round(recording.duration_s * NANOSECONDS / max(len(recording.frames) - 1, 1)) or NANOSECONDS // 30
        progress = Progress(recording.folder.name, recording.duration_s)
        published = 0
        while not player.stopped:
            for index, recorded in enumerate(recording.frames):
                color, depth = recording.load(index)
                stamp_ns = start_ns + recorded.time_ns
                if not player.wait_until(stamp_ns):
                    break
                pose = transform_to_msg(options.world_frame, options.camera_frame, stamp_ns, recorded.world_T_camera)
                info = camera_to_info(recording.camera_of(index), stamp_ns, options.camera_frame)
                pair = (
                    rgb_to_image(color, stamp_ns, options.camera_frame),
                    depth_to_image(depth, stamp_ns, options.camera_frame, "16UC1"),
                )

                def send(pose: Any = pose, info: Any = info, pair: Any = pair) -> None:
                    transforms.send(pose)
                    info_out.publish(info)
                    color_out.publish(pair[0])
                    depth_out.publish(pair[1])

                send()
                published += 1
                if steps is not None and not steps.wait(stamp_ns, send):
                    break
                progress.show(recorded.time_ns / NANOSECONDS, f"frame {published}")
            if not options.loop:
                break
            # Stamps keep ascending from round to round, so that perception keeps its tracks.
            start_ns += recording.frames[-1].time_ns - recording.frames[0].time_ns + step_ns
        player.sleep(0.3)  # the middleware still delivers the last frame
        done = f"{published} frames published"
        progress.show(recording.duration_s, f"{done}; {steps.summary()}" if steps is not None else done, final=True)
        if steps is not None:
            steps.check()


def parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    result = argparse.ArgumentParser(
        prog="python -m wm_bringup.sources.rgbd_folder",
        description="Plays a folder of RGB-D frames on the camera topics, with tf and /clock.",
        epilog="Further arguments go to ROS: --ros-args ...",
    )
    result.add_argument("folder", help="of 7-Scenes, ScanNet, TUM or BOP, or one frame; poses or not")
    result.add_argument("--rate", type=float, metavar="HZ", help="frames per second; default: the times recorded")
    result.add_argument("--speed", type=float, default=1.0, help="times as fast as recorded, 0.01 to 100; default 1")
    result.add_argument("--loop", action="store_true", help="start again at the end; stamps go on")
    result.add_argument("--wait", type=float, default=10.0, metavar="S", help="for a subscriber at most; default 10")
    result.add_argument("--start-time", type=float, metavar="S", help="stamp of the first frame; default: now")
    result.add_argument("--no-clock", dest="clock", action="store_false", help="do not publish /clock")
    result.add_argument(
        "--level", choices=MODES, default="auto", help="turn the world z-up; auto: where the poses do not say (default)"
    )
    result.add_argument("--no-level", dest="level", action="store_const", const="off", help="as --level off")
    result.add_argument(
        "--register", choices=MODES, default="auto", help="bring color onto depth; auto: where that is clear (default)"
    )
    result.add_argument("--no-register", dest="register", action="store_const", const="off", help="as --register off")
    result.add_argument(
        "--depth-scale", type=float, metavar="M", help="meters per unit of depth; default: as the layout has it"
    )
    result.add_argument("--world-frame", default="map", help="default map")
    result.add_argument("--camera-frame", default="camera_color_optical_frame", help="default %(default)s")
    add_lock_step(result)
    result.add_argument("--check", action="store_true", help="read every file, say what is there, play nothing")
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Play a folder. Returns the exit status: 0: played, or ended by a signal; 1: failed, with one line on stderr."""
    options, ros_arguments = parser().parse_known_args(arguments)
    if ros_arguments and ros_arguments[0] != "--ros-args":
        parser().error(f"unknown argument {ros_arguments[0]}")
    try:
        recording = open_folder(options.folder, options.rate)
        if options.depth_scale is not None:
            if not 0.0 < options.depth_scale <= 1.0:
                raise SourceError(f"--depth-scale: got {options.depth_scale:g}, expected meters per unit, over 0 to 1")
            recording = recording.with_depth_unit(options.depth_scale)
        if options.check:
            for index in range(len(recording.frames)):
                recording.load(index)
        recording = prepared(recording, options.register, options.level)
        camera = recording.camera
        left_out = f", {recording.left_out} left out for want of a pose" if recording.left_out else ""
        print(
            f"{recording.folder}: {recording.layout}, {len(recording.frames)} frames{left_out}, "
            f"{recording.duration_s:.1f} s, {camera.width}x{camera.height}, fx {camera.fx:g}",
            file=sys.stderr,
        )
        for note in recording.notes:
            print(f"note: {note}", file=sys.stderr)
        if options.depth_scale is None:
            wrong = depth_unit_warning(recording.frame, len(recording.frames), 1.0 / recording.depth_scale)
            if wrong:
                print(f"warning: {recording.folder}: {wrong}", file=sys.stderr)
        if not options.check:
            play(recording, options, ros_arguments)
    except SourceError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
