"""Plays a bag onto the graph: an MCAP or SQLite file, or a rosbag2 folder with metadata.yaml.

The player publishes the recorded bytes and decodes no message. This ROS installation must have the message types,
because publishers need them.
"""

from __future__ import annotations

if __name__ == "__main__":
    from wm_ros.nodes.startup import end_quietly

    end_quietly()

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any

from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

from wm_bringup.recording.topic_format import stamp_reader
from wm_bringup.sources.bag import Bag, BagTopic, message_class, parse_remap
from wm_bringup.sources.lockstep import LEAD_S, LockStep, add_lock_step, images_behind
from wm_bringup.sources.playback import DISCOVERY_S, Player, Progress, SourceError
from wm_bringup.sources.recording import MODES
from wm_ros import qos
from wm_ros.stamps import NANOSECONDS, ApproximateSynchronizer, seconds_to_ns
from wm_ros.transforms import RosTransformBroadcaster


def _profile(topic: BagTopic) -> QoSProfile:
    if topic.name == "/tf_static":
        return qos.TF_STATIC
    if topic.name == "/tf":
        return qos.TF
    durability = DurabilityPolicy.TRANSIENT_LOCAL if topic.latched else DurabilityPolicy.VOLATILE
    # A reliable publisher matches reliable and best-effort subscribers.
    return QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE, durability=durability)


def play(bag: Bag, options: argparse.Namespace, ros_arguments: list[str]) -> None:
    """Publish a bag until its end, without end with ``options.loop``, or until SIGINT or SIGTERM.

    Args:
        bag: the open bag.
        options: the command line as ``parser`` reads it.
        ros_arguments: arguments for rclpy, from ``--ros-args`` on.

    Raises:
        SourceError: a topic or type does not exist, or the file is damaged.
    """
    remap = parse_remap(options.remap)
    bag.choose(list(remap))
    chosen = [t for t in bag.choose(options.topics) if not (options.clock and remap.get(t.name, t.name) == "/clock")]
    begin_ns = bag.start_ns + seconds_to_ns(options.start)
    end_ns = begin_ns + seconds_to_ns(options.duration) if options.duration else None
    if options.start >= bag.duration_s and options.start > 0.0:
        raise SourceError(f"--start {options.start:g}: {bag.path} lasts {bag.duration_s:.2f} s")
    with Player("bag_player", ros_arguments, options.speed, options.clock) as player:
        publishers: dict[str, Any] = {}
        for topic in chosen:
            try:
                kind = message_class(topic.type)
            except SourceError as error:
                if options.topics:
                    raise
                print(f"warning: topic {topic.name} is left out: {error}", file=sys.stderr)
                continue
            name = remap.get(topic.name, topic.name)
            publishers[topic.name] = player.node.create_publisher(kind, name, _profile(topic))
        if not publishers:
            raise SourceError(f"{bag.path}: nothing to play; it has {', '.join(sorted(bag.topics)) or 'no topics'}")
        frames = _Frames(player, bag, publishers, remap, options) if options.lock_step else None
        if frames is not None:
            if options.still_camera:
                frames.stand_still(options)
            frames.wait_for_perception()
        elif options.wait > 0.0:
            print(f"waiting up to {options.wait:g} s for a subscriber", file=sys.stderr)
            if player.wait_for(lambda: any(p.get_subscription_count() for p in publishers.values()), options.wait):
                player.sleep(DISCOVERY_S)
        total_s = options.duration or max(bag.duration_s - options.start, 0.0)
        progress = Progress(bag.path.name, total_s)
        counts: Counter[str] = Counter()
        first_round = True
        lead_ns = seconds_to_ns(LEAD_S) if frames is not None else 0
        while not player.stopped:
            player.restart()
            messages = bag.messages(list(publishers))
            for name, stamp_ns, data in messages if frames is None else images_behind(messages, frames.images, lead_ns):
                if stamp_ns < begin_ns:
                    # Latched messages from before the start still apply; all others are skipped.
                    if bag.topics[name].latched and first_round:
                        publishers[name].publish(data)
                        counts[name] += 1
                    continue
                if end_ns is not None and stamp_ns > end_ns:
                    if frames is None:
                        break
                    continue  # images from before the end may still be held back in ``images_behind``
                ahead = frames is not None and name not in frames.images
                if not player.wait_until(max(stamp_ns - lead_ns, begin_ns) if ahead else stamp_ns):
                    break
                publishers[name].publish(data)
                counts[name] += 1
                if frames is not None and not frames.published(name, data):
                    break
                progress.show((stamp_ns - begin_ns) / NANOSECONDS, f"{counts.total()} messages")
            first_round = False
            if not options.loop:
                break
        player.sleep(0.3)  # the middleware still delivers the last message
        done = f"{counts.total()} messages on {len(counts)} topics"
        progress.show(total_s, f"{done}; {frames.steps.summary()}" if frames is not None else done, final=True)
        if frames is not None:
            frames.steps.check()


class _Frames:
    """Pairs the color and depth images of a bag as perception does, and waits for perception after each pair."""

    def __init__(
        self, player: Player, bag: Bag, publishers: dict[str, Any], remap: dict[str, str], options: argparse.Namespace
    ) -> None:
        recorded = {remap.get(name, name): name for name in publishers}
        wanted = {"color": options.color_topic, "depth": options.depth_topic}
        for what, topic in wanted.items():
            if topic not in recorded:
                raise SourceError(
                    f"{bag.path}: no {what} images on {topic}; it has {', '.join(sorted(recorded))}; "
                    f"play another topic as this one with --remap /ITS_NAME:={topic}"
                )
        self._color, self._depth = recorded[options.color_topic], recorded[options.depth_topic]
        self.images = (self._color, self._depth)
        self._publishers, self._player, self._bag, self._recorded = publishers, player, bag, recorded
        self._remap, self._subscribers = remap, options.subscribers
        self._stamp = {name: stamp_reader(message_class(bag.topics[name].type)) for name in self.images}
        self._pairs = ApproximateSynchronizer(seconds_to_ns(options.max_stamp_difference))
        self.steps = LockStep(player, options.lock_step)
        names = [*wanted.values(), options.camera_info_topic]
        self._heard = {name: publishers[recorded[name]] for name in names if name in recorded}

    def stand_still(self, options: argparse.Namespace) -> None:
        """Publish a static pose of the camera where the bag has none; see ``still_camera`` for the SourceError."""
        from wm_bringup.sources.bag_camera import Inputs, still_camera

        info = self._recorded.get(options.camera_info_topic)
        if info is None:
            return
        names = Inputs(
            self._color,
            self._depth,
            info,
            self._bag.topics[self._color].type.endswith("CompressedImage"),
            self._bag.topics[self._depth].type.endswith("CompressedImage"),
            world_frame=options.world_frame,
            max_difference_ns=seconds_to_ns(options.max_stamp_difference),
        )
        found = still_camera(self._bag, names, options.level, self._remap)
        if found is not None:
            print(f"note: {found.note}", file=sys.stderr)
            self._transforms = RosTransformBroadcaster(self._player.node, static=True)
            self._transforms.send(found.transform)

    def wait_for_perception(self) -> None:
        """Wait until perception subscribes to the camera's topics; see ``LockStep.wait_for_perception``."""
        self.steps.wait_for_perception(self._heard, self._publishers[self._color], self._subscribers)

    def published(self, name: str, data: bytes) -> bool:
        """Register a published message and wait for the report on the pair that it completes; False: a signal came."""
        if name not in self.images:
            return True
        stamp_ns = self._stamp[name](data)
        add = self._pairs.add_color if name == self._color else self._pairs.add_depth
        pair = add(stamp_ns, data)
        if pair is None:
            return True

        def resend() -> None:
            self._publishers[self._color].publish(pair.color)
            self._publishers[self._depth].publish(pair.depth)

        return self.steps.wait(pair.stamp_ns, resend)


def parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    result = argparse.ArgumentParser(
        prog="python -m wm_bringup.sources.bag_player",
        description="Plays an MCAP or rosbag2 bag onto the graph, with /clock from the times of recording.",
        epilog="Further arguments go to ROS: --ros-args ...",
    )
    result.add_argument("bag", help=".mcap or .db3 file, or a rosbag2 folder")
    result.add_argument("--topics", nargs="+", default=[], metavar="TOPIC", help="play only these; default: all")
    result.add_argument(
        "--remap", action="append", default=[], metavar="/FROM:=/TO", help="publish under another name; repeatable"
    )
    result.add_argument("--speed", "--rate", type=float, default=1.0, help="times as fast as recorded; default 1")
    result.add_argument("--start", type=float, default=0.0, metavar="S", help="begin so far in; latched ones come too")
    result.add_argument("--duration", type=float, default=0.0, metavar="S", help="play so long; default: to the end")
    result.add_argument("--loop", action="store_true", help="start again at the end; time goes back, as in ros2 bag")
    result.add_argument("--wait", type=float, default=10.0, metavar="S", help="for a subscriber at most; default 10")
    result.add_argument("--no-clock", dest="clock", action="store_false", help="do not publish /clock")
    add_lock_step(result)
    result.add_argument(
        "--still-camera", action="store_true", help="with --lock-step: a bag without a pose of the camera gets one"
    )
    result.add_argument(
        "--level", choices=MODES, default="auto", help="its gravity: from an IMU or what is seen; off: its own axes"
    )
    result.add_argument("--world-frame", default="map", help="of that pose; default map")
    result.add_argument("--info", action="store_true", help="list topics, types and counts; play nothing")
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Play a bag. Returns the exit status: 0: played, or ended by a signal; 1: failed, with one line on stderr."""
    options, ros_arguments = parser().parse_known_args(arguments)
    if ros_arguments and ros_arguments[0] != "--ros-args":
        parser().error(f"unknown argument {ros_arguments[0]}")
    try:
        if options.start < 0.0 or options.duration < 0.0:
            raise SourceError(f"--start {options.start:g}, --duration {options.duration:g}: expected >= 0")
        with Bag(options.bag) as bag:
            for warning in bag.warnings:
                print(f"warning: {warning}", file=sys.stderr)
            if options.info:
                print(f"{bag.path}: {bag.duration_s:.2f} s")
                for topic in bag.choose([]):
                    latched = ", latched" if topic.latched else ""
                    print(f"  {topic.name}: {topic.type}, {topic.count} messages{latched}")
            else:
                play(bag, options, ros_arguments)
    except SourceError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
