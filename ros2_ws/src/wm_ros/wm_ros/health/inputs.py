"""The health of a node's inputs: messages and publishers of each topic, and their faults.

The checks are in ``wm_core.health.inputs``; here are the graph, the clock and the counts. Used by the nodes and by
``wm doctor``, so that both report the same.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

from wm_core.health.findings import Finding
from wm_core.health.inputs import (
    SILENT_S,
    Publisher,
    Stream,
    check_clock,
    check_stamps,
    check_streams,
    check_synchronization,
    rank_candidates,
)
from wm_ros import qos

_KEPT = 150
"""Stamps kept of each stream: five seconds at 30 Hz."""
_OUTPUTS = ("/instances", "/overlay", "/imagined/image")
"""Images that wm publishes itself, in any namespace: no camera's."""
_LATEST = 10
"""Stamps of a stream that are checked, the latest. Larger notices a change of clocks later."""
_RECENT_S = 5.0
"""Age [s] up to which stamps are compared between streams."""


def qos_mismatch(offered: Any, wanted: Any) -> str:
    """Why a subscription with the QoS ``wanted`` does not match a publisher with ``offered``; empty: it does."""
    reasons = []
    if offered.reliability == ReliabilityPolicy.BEST_EFFORT and wanted.reliability == ReliabilityPolicy.RELIABLE:
        reasons.append("best effort offered, reliable wanted")
    if offered.durability == DurabilityPolicy.VOLATILE and wanted.durability == DurabilityPolicy.TRANSIENT_LOCAL:
        reasons.append("volatile offered, transient local wanted")
    return ", ".join(reasons)


def publishers_of(node: Any, topic: str, wanted: QoSProfile) -> tuple[Publisher, ...]:
    """The publishers of a topic (its name after remapping), and whether a subscription with ``wanted`` matches each."""
    return tuple(
        Publisher(
            f"{info.node_namespace.rstrip('/')}/{info.node_name}",
            info.topic_type,
            qos_mismatch(info.qos_profile, wanted),
        )
        for info in node.get_publishers_info_by_topic(topic)
    )


def topics_of_type(node: Any, type_name: str, without: str = "") -> list[str]:
    """Topics of a type that somebody publishes, but for those under the namespace ``without``."""
    inside = f"{without.rstrip('/')}/" if without.strip("/") else ""
    named = [name for name, types in node.get_topic_names_and_types() if type_name in types]
    return [
        name
        for name in named
        if not (inside and name.startswith(inside))
        # A topic has the types of its subscribers, too.
        and any(info.topic_type == type_name for info in node.get_publishers_info_by_topic(name))
    ]


@dataclass
class _Input:
    """One stream that is listened to; each stamp [ns] with the node's time [ns] and the clock's [s] at its arrival."""

    stream: Stream
    wanted: QoSProfile
    since_s: float
    total: int = 0
    last_s: float = 0.0
    stamps: deque[tuple[int, int, float]] = field(default_factory=lambda: deque(maxlen=_KEPT))


class InputHealth:
    """Follows the streams that a node reads. Thread-safe.

    Args:
        node: of which the clock and the view of the graph are used.
        own_namespace: topics under it are no candidates for a topic that is missing; None: the node's.
    """

    def __init__(
        self, node: Any, own_namespace: str | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._node = node
        self._own = node.get_namespace() if own_namespace is None else own_namespace
        self._clock = clock
        self._lock = threading.Lock()
        self._inputs: dict[str, _Input] = {}

    def listen(
        self,
        name: str,
        role: str,
        topic: str,
        message: type | str,
        parameter: str = "",
        wanted: QoSProfile = qos.SENSOR,
        silent_s: float = SILENT_S,
    ) -> None:
        """Follow a stream from now on; ``topic`` before remapping, ``message`` its class or type name."""
        kind = message if isinstance(message, str) else _type_name(message)
        stream = Stream(name, role, self._node.resolve_topic_name(topic), kind, parameter, silent_s=silent_s)
        with self._lock:
            self._inputs[name] = _Input(stream, wanted, self._clock())

    def clear(self) -> None:
        """Follow nothing any more."""
        with self._lock:
            self._inputs.clear()

    def arrived(self, name: str, stamp_ns: int | None = None) -> None:
        """A message came; ``stamp_ns`` None: it has none."""
        with self._lock:
            one = self._inputs.get(name)
            if one is None:
                return
            one.total += 1
            one.last_s = self._clock()
            if stamp_ns is not None:
                one.stamps.append((stamp_ns, int(self._node.get_clock().now().nanoseconds), one.last_s))

    def stamps_ns(self, name: str) -> list[int]:
        """Stamps of the last seconds of a stream, in order of arrival."""
        with self._lock:
            one, since_s = self._inputs.get(name), self._clock() - _RECENT_S
            return [stamp for stamp, _, at_s in one.stamps if at_s >= since_s] if one is not None else []

    def streams(self, names: Iterable[str] | None = None, look_at_all: bool = False) -> list[Stream]:
        """The streams as they are now; the graph is queried for silent ones alone unless ``look_at_all``."""
        with self._lock:
            now = self._clock()
            chosen = [
                (one, one.total, now - (one.last_s if one.total else one.since_s))
                for name, one in self._inputs.items()
                if names is None or name in names
            ]
        result = []
        for one, total, age_s in chosen:
            s = one.stream
            silent = age_s > s.silent_s or not total
            publishers = publishers_of(self._node, s.topic, one.wanted) if silent or look_at_all else ()
            candidates: tuple[str, ...] = ()
            if silent and not publishers:
                names_of_type = topics_of_type(self._node, s.type_name, self._own)
                if not s.parameter:
                    # Another node's output under a name of its own: it can only be in another namespace.
                    names_of_type = [n for n in names_of_type if n.endswith(s.topic[s.topic.rfind("/") :])]
                else:
                    names_of_type = [n for n in names_of_type if not n.endswith(_OUTPUTS)]
                if not s.type_name.endswith("/CompressedImage"):
                    compressed = topics_of_type(self._node, "sensor_msgs/msg/CompressedImage", self._own)
                    names_of_type += [c for c in compressed if c.startswith(f"{s.topic}/")]
                candidates = rank_candidates(s.topic, s.role, names_of_type)
            result.append(
                Stream(
                    s.name, s.role, s.topic, s.type_name, s.parameter, publishers, candidates, total, age_s, s.silent_s
                )
            )
        return result

    def findings(self, names: Iterable[str] | None = None) -> list[Finding]:
        """Faults of the streams: missing, silent, of another QoS or type, or stamped wrongly."""
        streams = self.streams(names)
        result = check_streams(streams)
        clock: Finding | None = None
        for s in streams:
            with self._lock:
                one = self._inputs.get(s.name)
                stamps = list(one.stamps) if one is not None else []
            if s.is_silent or not stamps:
                continue
            wrong = check_stamps(s.name, s.role, s.topic, [stamp for stamp, _, _ in stamps[-_LATEST:]])
            if wrong is not None:
                result.append(wrong)
            elif clock is None:
                # The stamp nearest to its arrival: a burst after a pause is late, though the clocks agree.
                stamp_ns, now_ns, _ = min(stamps[-_LATEST:], key=lambda pair: abs(pair[1] - pair[0]))
                clock = check_clock(s.topic, stamp_ns, now_ns, self._simulated, self._clock_published())
        if clock is None and streams and all(s.is_silent for s in streams):
            clock = self._clock_alone()
        return result + ([clock] if clock is not None else [])

    def synchronization(self, color: str, depth: str, max_difference_s: float) -> Finding | None:
        """As ``check_synchronization`` for two of the streams, where both come and both have stamps."""
        of = {s.name: s for s in self.streams((color, depth))}
        stamps = {name: self.stamps_ns(name) for name in of}
        if len(of) < 2 or any(s.is_silent or not any(stamps[s.name]) for s in of.values()):
            return None
        return check_synchronization(of[color].topic, stamps[color], of[depth].topic, stamps[depth], max_difference_s)

    @property
    def _simulated(self) -> bool:
        return bool(self._node.get_clock().ros_time_is_active)

    def _clock_published(self) -> bool:
        return bool(self._node.count_publishers("/clock"))

    def _clock_alone(self) -> Finding | None:
        """The finding where simulated time stands at 0 while no stream comes either."""
        now_ns = int(self._node.get_clock().now().nanoseconds)
        if not self._simulated or now_ns:
            return None
        return check_clock("", 0, now_ns, True, self._clock_published())


class FrameLog:
    """Frames that were processed, and those that could not be, over the last seconds. Thread-safe.

    One bad frame among many is counted elsewhere and no finding; a cause of a tenth of the frames is one.
    """

    def __init__(self, window_s: float = 5.0, share: float = 0.1, clock: Callable[[], float] = time.monotonic) -> None:
        self._window_s, self._share, self._clock = window_s, share, clock
        self._lock = threading.Lock()
        self._good: deque[float] = deque(maxlen=1000)
        self._bad: deque[tuple[float, Finding]] = deque(maxlen=1000)

    def good(self) -> None:
        """A frame was processed."""
        with self._lock:
            self._good.append(self._clock())

    def bad(self, finding: Finding) -> None:
        """A frame could not be used, or only in part, because of this."""
        with self._lock:
            self._bad.append((self._clock(), finding))

    def clear(self) -> None:
        """Forget all frames."""
        with self._lock:
            self._good.clear()
            self._bad.clear()

    def findings(self) -> list[Finding]:
        """The latest finding of each cause that holds for two frames and a tenth of them, while frames come."""
        with self._lock:
            since = self._clock() - self._window_s
            recent = [finding for at, finding in self._bad if at >= since]
            frames = len(recent) + sum(at >= since for at in self._good)
        latest = {finding.cause: finding for finding in recent}
        counts = {cause: sum(f.cause == cause for f in recent) for cause in latest}
        return [f for cause, f in latest.items() if counts[cause] >= max(2.0, self._share * frames)]


def _type_name(message: type) -> str:
    package, kind = message.__module__.split(".")[:2]
    return f"{package}/{kind}/{message.__name__}"
