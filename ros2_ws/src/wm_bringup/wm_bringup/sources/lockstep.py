"""Lock-step: the player waits for perception after each frame, so that the result depends only on the stamps.

The player publishes images in the order of the recording. It publishes all other messages (transforms, odometry,
intrinsics) up to ``LEAD_S`` earlier. Many recordings have the transform of an image after the image; without the lead
perception would wait for the transform and the player for perception. The player pairs color and depth by the same rule
as perception, and after each pair it waits for perception's report on it.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus

from wm_bringup.sources.playback import Player, SourceError
from wm_ros import qos
from wm_ros.stamps import NANOSECONDS, stamp_to_ns

LEAD_S = 1.0
"""Time by which other messages precede the images of the same stamp [s]. It must exceed the delay with which a
recording has an image's transform, and stay below the 10 s that perception keeps of tf."""
_RESEND_S = 5.0
"""Time without a report after which the images are published again [s], since sensor QoS may lose them. A larger value
delays the recovery from a loss; a smaller one repeats images that perception still processes."""
_GIVE_UP_S = 90.0
"""Longest wait for the report on one frame [s]. The first frame compiles kernels and loads models, and a busy machine
is slow. A larger value delays only the error."""
_START_S = 60.0
"""Longest wait for perception's subscriptions and its report topic [s]; a larger value delays only the error."""
_OTHERS_S = 5.0
"""Longest wait for the other subscribers of the color images [s]; afterwards the player starts without them."""
_POLL_S = 0.002
"""Time between two checks for a report [s]: each frame waits this much longer at most."""
_FRUITLESS = 20
"""Number of frames without any scene graph after which the player stops with an error. A larger value tolerates a
longer start without usable poses."""

Item = tuple[str, int, bytes]
"""Topic, time of recording [ns] and serialized message."""


def images_behind(messages: Iterable[Item], images: Collection[str], lead_ns: int) -> Iterator[Item]:
    """Reorder messages so that an image comes after all other messages of up to ``lead_ns`` later.

    The order of the images among each other, and of the other messages, is kept.

    Args:
        messages: ordered by time.
        images: names of the image topics.
        lead_ns: the lead of the other messages [ns].
    """
    held: deque[Item] = deque()
    for item in messages:
        # Messages are ordered by time: all that may precede the held image have come.
        while held and held[0][1] + lead_ns < item[1]:
            yield held.popleft()
        if item[0] in images:
            held.append(item)
        else:
            yield item
    yield from held


def add_lock_step(parser: argparse.ArgumentParser) -> None:
    """Add the options of lock-step and of the topics that perception reads to a player's command line."""
    parser.add_argument(
        "--lock-step", metavar="NAMESPACE", default="", help="wait for the perception node in it after each frame"
    )
    parser.add_argument(
        "--subscribers", type=int, default=1, metavar="N", help="with --lock-step: begin when N nodes hear the camera"
    )
    parser.add_argument(
        "--max-stamp-difference", type=float, default=0.015, metavar="S", help="as perception's max_stamp_difference_s"
    )
    parser.add_argument("--color-topic", default="/camera/color/image_raw", help="default %(default)s")
    parser.add_argument("--depth-topic", default="/camera/depth/image_raw", help="default %(default)s")
    parser.add_argument("--camera-info-topic", default="/camera/color/camera_info", help="default %(default)s")


class LockStep:
    """Waits for perception's report on each frame.

    Args:
        player: entered, as its node receives the reports.
        namespace: namespace of the perception node.

    Attributes:
        topic: topic of perception's reports (diagnostic_msgs/DiagnosticArray).
        reports: number of frames by their result: ``scene_graph``, or the name of the reason why there was none.
        reasons: the last explanation, a sentence, by the name of the reason.
    """

    def __init__(self, player: Player, namespace: str) -> None:
        self._player = player
        self.topic = f"/{namespace.strip('/')}/frame_reports"
        self._matched_topic = f"/{namespace.strip('/')}/matched_inputs"
        self._matched: dict[str, int] = {}
        self._status: dict[int, Any] = {}
        self.reports: Counter[str] = Counter()
        self.reasons: dict[str, str] = {}
        player.node.create_subscription(DiagnosticArray, self.topic, self._take, qos.FRAME_REPORTS)
        player.node.create_subscription(DiagnosticArray, self._matched_topic, self._take_matched, qos.MATCHED_INPUTS)

    def _take(self, msg: Any) -> None:
        self._status[stamp_to_ns(msg.header.stamp)] = msg.status[0]

    def _take_matched(self, msg: Any) -> None:
        self._matched = {value.key: int(value.value) for value in msg.status[0].values}

    def wait_for_perception(self, publishers: dict[str, Any], color: Any, subscribers: int) -> None:
        """Wait until perception subscribes to the camera's topics, hears their publishers, and publishes its reports.

        The two sides of a subscription learn of each other at different times, and the one that learns last may be
        either: images and intrinsics go out best effort, and those sent in between are lost. Then wait up to
        ``_OTHERS_S`` for the other subscribers of the color images.

        Args:
            publishers: publishers of the topics that perception reads, by topic name.
            color: publisher of the color images.
            subscribers: expected number of subscribers of the color images.

        Raises:
            SourceError: a topic has no subscriber, or there are no reports, after ``_START_S``.
        """
        player = self._player

        def deaf() -> list[str]:
            names = [name for name, out in publishers.items() if not out.get_subscription_count()]
            # The topic is not there where perception's middleware does not tell.
            if player.node.count_publishers(self._matched_topic):
                names += [name for name, out in publishers.items() if not self._matched.get(out.topic_name)]
            return list(dict.fromkeys(names))

        if player.wait_for(lambda: not deaf() and player.node.count_publishers(self.topic) > 0, _START_S):
            player.wait_for(lambda: color.get_subscription_count() >= subscribers, _OTHERS_S)
            return
        if player.stopped:
            return
        missing = f"nobody listens to {', '.join(deaf())}" if deaf() else f"nobody publishes {self.topic}"
        raise SourceError(f"lock-step: {missing} after {_START_S:g} s; is perception running (ros2 node list)?")

    def wait(self, stamp_ns: int, resend: Callable[[], None]) -> bool:
        """Wait until perception reports on the frame of this stamp; False: a signal came first.

        Args:
            stamp_ns: stamp of the frame's color image [ns].
            resend: publishes the frame's images again.

        Raises:
            SourceError: no report came within ``_GIVE_UP_S``, or none of the first ``_FRUITLESS`` frames gave a scene
                graph.
        """
        begin = time.monotonic()
        due = begin + _RESEND_S
        while stamp_ns not in self._status:
            now = time.monotonic()
            if now - begin > _GIVE_UP_S:
                raise SourceError(
                    f"lock-step: perception has not reported on the frame of {stamp_ns / NANOSECONDS:.3f} s within "
                    f"{_GIVE_UP_S:g} s; run: wm doctor"
                )
            if now > due:
                resend()
                due = now + _RESEND_S
            if not self._player.sleep(_POLL_S):
                return False
        status = self._status.pop(stamp_ns)
        name = "scene_graph" if status.level == DiagnosticStatus.OK else status.name
        self.reports[name] += 1
        if status.message:
            self.reasons[name] = status.message
        if self.reports.total() >= _FRUITLESS and not self.reports["scene_graph"]:
            self.check()
        self._player.hold()
        return True

    def summary(self) -> str:
        """One sentence with the number of frames by result, and the reasons of those refused."""
        refused = {name: count for name, count in self.reports.items() if name != "scene_graph"}
        text = f"{self.reports.total()} frames, {self.reports['scene_graph']} scene graphs"
        return text + "".join(f"; {n} refused, {name}: {self.reasons.get(name, '')}" for name, n in refused.items())

    def check(self) -> None:
        """Check that at least one frame gave a scene graph; without effect after a signal.

        Raises:
            SourceError: there were no frames, or none gave a scene graph.
        """
        if self._player.stopped or self.reports["scene_graph"]:
            return
        if not self.reports:
            raise SourceError("no pair of color and depth images in it: no scene graph was made")
        raise SourceError(f"perception made no scene graph: {self.summary()}")
