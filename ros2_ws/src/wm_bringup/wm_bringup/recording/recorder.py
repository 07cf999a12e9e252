"""Records every topic of the graph into an MCAP file, and how long each camera frame took to become a scene graph.

    python -m wm_bringup.recording.recorder --out run.mcap [--latency latency.json] [--exclude REGEX ...]

The file opens in Foxglove, with ``ros2 bag``, and with ``rosbags``: profile ros2, CDR messages as they came off the
wire, ros2msg schemas, the publishers' QoS. Topics are found while it runs. ``log_time`` is the wall clock at arrival
in this process's middleware, ``publish_time`` the stamp in the message's header (arrival where it has none).
SIGINT and SIGTERM finish the file. In it as its last metadata record: what was lost, by topic.
"""

from __future__ import annotations

if __name__ == "__main__":
    from wm_ros.nodes.startup import end_quietly

    end_quietly()

import argparse
import contextlib
import json
import queue
import re
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import rclpy
from mcap.well_known import SchemaEncoding
from mcap.writer import CompressionType, Writer
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions

from wm_bringup.environment import message_class, message_definition, share_folder
from wm_bringup.recording.latency_log import LatencyLog
from wm_bringup.recording.topic_format import matching_qos, qos_metadata, stamp_reader

DISCOVERY_S = 0.25
_DEPTH = 200
_IMAGE_DEPTH = 60  # two seconds at 30 Hz: what a busy machine may make this process wait
_QUEUE_BYTES = 512 * 1024 * 1024
_COMPRESSION = {"none": CompressionType.NONE, "lz4": CompressionType.LZ4, "zstd": CompressionType.ZSTD}


@dataclass
class _Topic:
    name: str
    type_name: str
    qos: QoSProfile
    subscription: Any = None
    channel: int = 0
    sequence: int = 0


class Recorder(Node):
    """Node ``recorder``: subscribes to all topics that have publishers and writes what comes.

    Messages go through a queue to a writer thread, so that compressing does not hold up their arrival. ``close`` writes
    what is left and finishes the file.

    Attributes:
        counts: messages by topic that were taken; lost: those that the queue had no room for.
        latency: arrivals of the camera info and of the scene graph.
    """

    def __init__(
        self,
        out: Path,
        *,
        exclude: Iterable[str] = (),
        compression: str = "zstd",
        latency_topics: tuple[str, str] = ("/camera/color/camera_info", "/wm/scene_graph"),
        **kwargs: Any,
    ) -> None:
        super().__init__("recorder", start_parameter_services=False, **kwargs)
        self._exclude = [re.compile(pattern) for pattern in exclude]
        self.latency = LatencyLog(*latency_topics)
        self.counts: Counter[str] = Counter()
        self.lost: Counter[str] = Counter()
        self._topics: dict[str, _Topic] = {}
        self._refused: set[tuple[str, str]] = set()
        self._schemas: dict[str, int] = {}
        self.out = Path(out)
        self.out.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.out.open("wb")
        self._writer = Writer(self._file, chunk_size=4 * 1024 * 1024, compression=_COMPRESSION[compression])
        self._writer.start(profile="ros2", library="wm recorder")
        self._writing = threading.Lock()
        self._queue: queue.Queue[tuple[_Topic, bytes, int, int, int] | None] = queue.Queue()
        self._queued_bytes = 0
        self._queue_lock = threading.Lock()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._write, name="mcap", daemon=True)
        self._thread.start()
        self.create_timer(DISCOVERY_S, self.discover)
        self.discover()

    def discover(self) -> None:
        """Subscribe to new topics, and anew where a publisher came that the subscription cannot hear."""
        for name, types in self.get_topic_names_and_types():
            if any(part.startswith("_") for part in name.split("/")) or any(p.search(name) for p in self._exclude):
                continue
            publishers = self.get_publishers_info_by_topic(name)
            if not publishers:
                continue
            if len(types) != 1:
                self._refuse(name, ", ".join(types), f"has publishers of different types: {', '.join(types)}")
                continue
            qos = matching_qos([info.qos_profile for info in publishers], _depth_of(types[0]))
            known = self._topics.get(name)
            if known is None:
                self._subscribe(name, types[0], qos, publishers)
            elif known.subscription is not None and _weaker(qos, known.qos):
                self.destroy_subscription(known.subscription)
                known.qos = qos
                self._listen(known)

    def _refuse(self, name: str, type_name: str, why: str) -> None:
        if (name, type_name) not in self._refused:
            self._refused.add((name, type_name))
            self.get_logger().warning(f"{name} is not recorded: it {why}")

    def _subscribe(self, name: str, type_name: str, qos: QoSProfile, publishers: Sequence[Any]) -> None:
        if (name, type_name) in self._refused:
            return None
        try:
            message_class(type_name)
            definition = message_definition(type_name)
        except LookupError as error:
            return self._refuse(name, type_name, f"is of type {type_name}, which is not here ({error})")
        topic = _Topic(name, type_name, qos)
        with self._writing:
            if type_name not in self._schemas:
                self._schemas[type_name] = self._writer.register_schema(
                    type_name, SchemaEncoding.ROS2, definition.encode()
                )
            topic.channel = self._writer.register_channel(
                name,
                "cdr",
                self._schemas[type_name],
                {"offered_qos_profiles": qos_metadata(info.qos_profile for info in publishers)},
            )
        self._topics[name] = topic
        return self._listen(topic)

    def _listen(self, topic: _Topic) -> None:
        message_type = message_class(topic.type_name)
        read_stamp = stamp_reader(message_type)

        def on_message(data: bytes, info: Any) -> None:
            # The middleware's own time of reception: not delayed by what this process is busy with.
            arrival_ns = int(info.get("received_timestamp", 0) if isinstance(info, dict) else 0) or time.time_ns()
            stamp_ns = read_stamp(data)
            self.latency.add(topic.name, stamp_ns, arrival_ns)
            topic.sequence += 1
            with self._queue_lock:
                if self._queued_bytes + len(data) > _QUEUE_BYTES:
                    self.lost[topic.name] += 1
                    return
                self._queued_bytes += len(data)
            self.counts[topic.name] += 1
            self._queue.put((topic, data, arrival_ns, stamp_ns or arrival_ns, topic.sequence))

        topic.subscription = self.create_subscription(message_type, topic.name, on_message, topic.qos, raw=True)

    def _write(self) -> None:
        while (item := self._queue.get()) is not None:
            topic, data, arrival_ns, publish_ns, sequence = item
            with self._queue_lock:
                self._queued_bytes -= len(data)
            if self._failure is not None:
                continue
            try:
                with self._writing:
                    self._writer.add_message(topic.channel, arrival_ns, data, publish_ns, sequence & 0xFFFFFFFF)
            except Exception as error:  # a full disk: said at once and at the end
                self._failure = error
                self.get_logger().error(f"cannot write {self.out}: {error}")

    def close(self) -> None:
        """Write what is queued, finish the file.

        Raises:
            OSError: writing failed; the file holds what was written before.
        """
        if self._file.closed:
            return
        self._queue.put(None)
        self._thread.join()
        with self._writing, contextlib.closing(self._file):
            self._writer.add_metadata(
                "wm_recorder",
                {
                    "messages": json.dumps(dict(sorted(self.counts.items()))),
                    "lost": json.dumps(dict(sorted(self.lost.items()))),
                },
            )
            self._writer.finish()
        if self._failure is not None:
            raise OSError(f"cannot write {self.out}: {self._failure}")


def _depth_of(type_name: str) -> int:
    return _IMAGE_DEPTH if type_name in ("sensor_msgs/msg/Image", "sensor_msgs/msg/PointCloud2") else _DEPTH


def _weaker(qos: QoSProfile, than: QoSProfile) -> bool:
    """Whether a subscription with the profile ``than`` asks for more than ``qos``."""
    return (qos.reliability == ReliabilityPolicy.BEST_EFFORT and than.reliability == ReliabilityPolicy.RELIABLE) or (
        qos.durability == DurabilityPolicy.VOLATILE and than.durability == DurabilityPolicy.TRANSIENT_LOCAL
    )


def record(
    out: Path,
    *,
    latency: Path | None = None,
    exclude: Iterable[str] = (),
    compression: str = "zstd",
    duration_s: float = 0.0,
    latency_topics: tuple[str, str] = ("/camera/color/camera_info", "/wm/scene_graph"),
) -> int:
    """Record until SIGINT, SIGTERM, or for ``duration_s`` seconds (0: without end); returns the exit status."""
    stop = threading.Event()

    def ask_to_stop(number: int, frame: FrameType | None) -> None:
        stop.set()

    previous = {number: signal.signal(number, ask_to_stop) for number in (signal.SIGINT, signal.SIGTERM)}
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    recorder = None
    try:
        recorder = Recorder(out, exclude=exclude, compression=compression, latency_topics=latency_topics)
        executor = SingleThreadedExecutor()
        executor.add_node(recorder)
        print(f"recording to {out}", flush=True)
        deadline = time.monotonic() + duration_s if duration_s > 0 else float("inf")
        while not stop.is_set() and time.monotonic() < deadline:
            try:
                executor.spin_once(timeout_sec=0.1)
            except ExternalShutdownException:
                break
        executor.shutdown(timeout_sec=1.0)
        recorder.close()
        for topic, count in sorted(recorder.counts.items()):
            lost = f", {recorder.lost[topic]} lost" if recorder.lost[topic] else ""
            print(f"{count:8d}  {topic}{lost}")
        latency = latency if latency is not None else out.with_name("latency.json")
        summary = recorder.latency.summary()
        latency.parent.mkdir(parents=True, exist_ok=True)
        latency.write_text(json.dumps(summary, indent=1) + "\n")
        if summary["median_s"] is not None:
            print(
                f"{summary['from']} to {summary['to']}: median {1e3 * summary['median_s']:.0f} ms, "
                f"95 % below {1e3 * summary['p95_s']:.0f} ms ({summary['count_matched']} stamps)"
            )
        return 0
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    finally:
        if recorder is not None:
            with contextlib.suppress(OSError):
                recorder.close()
            recorder.destroy_node()
        rclpy.try_shutdown()
        for number, handler in previous.items():
            signal.signal(number, handler)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(
        prog="python -m wm_bringup.recording.recorder", description="Record every topic into an MCAP file."
    )
    parser.add_argument("--out", type=Path, required=True, help="the MCAP file")
    parser.add_argument("--latency", type=Path, help="JSON file of latencies (default: latency.json beside --out)")
    parser.add_argument("--latency-from", default="/camera/color/camera_info", help="topic that begins a measurement")
    parser.add_argument("--latency-to", default="/wm/scene_graph", help="topic that ends it, with the same stamp")
    parser.add_argument(
        "--exclude", action="append", default=[], metavar="REGEX", help="leave out topics that match; repeatable"
    )
    parser.add_argument("--compression", choices=sorted(_COMPRESSION), default="zstd", help="of chunks (default: zstd)")
    parser.add_argument("--duration", type=float, default=0.0, help="seconds; 0: until it is stopped")
    arguments = parser.parse_args(argv)
    for pattern in arguments.exclude:
        try:
            re.compile(pattern)
        except re.error as error:
            parser.error(f"--exclude: got {pattern!r}, expected a regular expression ({error})")
    if share_folder("std_msgs") is None:
        parser.error("no ROS packages in AMENT_PREFIX_PATH; source tools/env.sh first")
    return record(
        arguments.out,
        latency=arguments.latency,
        exclude=arguments.exclude,
        compression=arguments.compression,
        duration_s=arguments.duration,
        latency_topics=(arguments.latency_from, arguments.latency_to),
    )


if __name__ == "__main__":
    sys.exit(main())
