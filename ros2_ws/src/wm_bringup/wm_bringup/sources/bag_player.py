"""Plays a bag (MCAP or rosbag2 SQLite: a file, or the folder with metadata.yaml) onto the graph.

Messages are republished as the bytes that were recorded: nothing is decoded on the way. Types must be known to this
ROS installation, as their publishers need them.
"""

from __future__ import annotations

if __name__ == "__main__":
    from wm_ros.startup import end_quietly

    end_quietly()

import argparse
import importlib
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

from wm_bringup.sources.playback import DISCOVERY_S, Player, Progress, SourceError
from wm_ros import qos
from wm_ros.stamps import NANOSECONDS, seconds_to_ns

_LATCHED_TYPES = {"/tf_static", "/robot_description"}


@dataclass(frozen=True)
class BagTopic:
    """A topic of a bag: name, type (``sensor_msgs/msg/Image``), number of messages, latched or not."""

    name: str
    type: str
    count: int
    latched: bool


def message_class(type_name: str) -> Any:
    """The Python class of a message type.

    Raises:
        SourceError: this ROS installation does not have it.
    """
    match = re.fullmatch(r"(\w+)/msg/(\w+)", type_name)
    if match is None:
        raise SourceError(f"message type {type_name!r}: expected PACKAGE/msg/NAME")
    try:
        return getattr(importlib.import_module(f"{match[1]}.msg"), match[2])
    except (ImportError, AttributeError) as error:
        raise SourceError(f"message type {type_name}: not installed here; install ROS package {match[1]}") from error


def parse_remap(texts: Sequence[str]) -> dict[str, str]:
    """``/from:=/to`` texts as a dictionary.

    Raises:
        SourceError: another form, or a name twice.
    """
    result: dict[str, str] = {}
    for text in texts:
        match = re.fullmatch(r"(/[\w/]+):=(/[\w/]+)", text)
        if match is None:
            raise SourceError(f"--remap {text}: expected /from:=/to")
        if match[1] in result:
            raise SourceError(f"--remap {text}: {match[1]} is remapped twice")
        result[match[1]] = match[2]
    return result


class Bag:
    """An open bag, as a context manager.

    Raises:
        SourceError: no such file, or not a bag.
    """

    def __init__(self, path: str | Path) -> None:
        from rosbags.rosbag2 import Reader, ReaderError

        self.path = Path(path)
        if not self.path.exists():
            raise SourceError(f"{self.path}: no such file or folder")
        try:
            self._reader = Reader(self.path)
            self._reader.open()
        except (ReaderError, OSError, ValueError, KeyError) as error:
            expected = "expected an .mcap or .db3 file, or a rosbag2 folder with metadata.yaml"
            raise SourceError(f"{self.path}: {error}; {expected}") from error
        except Exception as error:  # damaged files raise what their storage library raises
            raise SourceError(f"{self.path}: cannot be read as a bag: {error}") from error
        self.topics: dict[str, BagTopic] = {}
        for connection in self._reader.connections:
            before = self.topics.get(connection.topic)
            if before is not None and before.type != connection.msgtype:
                raise SourceError(
                    f"{self.path}: topic {connection.topic} has types {before.type} and {connection.msgtype}"
                )
            latched = connection.topic in _LATCHED_TYPES or _offers_transient_local(connection)
            count = connection.msgcount + (before.count if before else 0)
            self.topics[connection.topic] = BagTopic(connection.topic, connection.msgtype, count, latched)

    def __enter__(self) -> Bag:
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.close()

    @property
    def start_ns(self) -> int:
        """Time of the first message [ns]."""
        return int(self._reader.start_time)

    @property
    def duration_s(self) -> float:
        """From the first message to the last [s]."""
        return max(int(self._reader.duration), 0) / NANOSECONDS

    def choose(self, names: Sequence[str]) -> list[BagTopic]:
        """The topics of these names; all where none is given.

        Raises:
            SourceError: no such topic; lists those there are.
        """
        for name in names:
            if name not in self.topics:
                raise SourceError(f"{self.path}: no topic {name}; it has {', '.join(sorted(self.topics)) or 'none'}")
        return [self.topics[name] for name in names] if names else sorted(self.topics.values(), key=lambda t: t.name)

    def messages(self, names: Sequence[str]) -> Iterator[tuple[str, int, bytes]]:
        """Topic, time [ns] and serialised message, in order of time.

        Raises:
            SourceError: the file is damaged.
        """
        connections = [c for c in self._reader.connections if c.topic in set(names)]
        if not connections:
            return
        try:
            for connection, stamp_ns, data in self._reader.messages(connections):
                yield connection.topic, int(stamp_ns), bytes(data)
        except (OSError, ValueError, RuntimeError) as error:
            raise SourceError(f"{self.path}: damaged: {error}") from error


def _offers_transient_local(connection: Any) -> bool:
    offered = getattr(connection.ext, "offered_qos_profiles", None) or []
    return any("TRANSIENT_LOCAL" in str(getattr(profile, "durability", profile)).upper() for profile in offered)


def _profile(topic: BagTopic) -> QoSProfile:
    if topic.name == "/tf_static":
        return qos.TF_STATIC
    if topic.name == "/tf":
        return qos.TF
    durability = DurabilityPolicy.TRANSIENT_LOCAL if topic.latched else DurabilityPolicy.VOLATILE
    # Reliable: serves subscribers of both kinds.
    return QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE, durability=durability)


def play(bag: Bag, options: argparse.Namespace, ros_arguments: list[str]) -> None:
    """Publish a bag until its end, or for ever with ``options.loop``, or until a signal.

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
        if options.wait > 0.0:
            print(f"waiting up to {options.wait:g} s for a subscriber", file=sys.stderr)
            if player.wait_for(lambda: any(p.get_subscription_count() for p in publishers.values()), options.wait):
                player.sleep(DISCOVERY_S)
        total_s = options.duration or max(bag.duration_s - options.start, 0.0)
        progress = Progress(bag.path.name, total_s)
        counts: Counter[str] = Counter()
        first_round = True
        while not player.stopped:
            player.restart()
            for name, stamp_ns, data in bag.messages(list(publishers)):
                if stamp_ns < begin_ns:
                    # What is latched holds from then on; the rest is past.
                    if bag.topics[name].latched and first_round:
                        publishers[name].publish(data)
                        counts[name] += 1
                    continue
                if (end_ns is not None and stamp_ns > end_ns) or not player.wait_until(stamp_ns):
                    break
                publishers[name].publish(data)
                counts[name] += 1
                progress.show((stamp_ns - begin_ns) / NANOSECONDS, f"{counts.total()} messages")
            first_round = False
            if not options.loop:
                break
        player.sleep(0.3)  # the last message is still under way in the middleware
        progress.show(total_s, f"{counts.total()} messages on {len(counts)} topics", final=True)


def parser() -> argparse.ArgumentParser:
    """The command line."""
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
    result.add_argument("--info", action="store_true", help="list topics, types and counts; play nothing")
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Play a bag; returns the exit status: 0 played or ended by a signal, 1 with one line on what is wrong."""
    options, ros_arguments = parser().parse_known_args(arguments)
    if ros_arguments and ros_arguments[0] != "--ros-args":
        parser().error(f"unknown argument {ros_arguments[0]}")
    try:
        if options.start < 0.0 or options.duration < 0.0:
            raise SourceError(f"--start {options.start:g}, --duration {options.duration:g}: expected >= 0")
        with Bag(options.bag) as bag:
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
