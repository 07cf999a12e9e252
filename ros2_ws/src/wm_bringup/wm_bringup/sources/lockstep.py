"""Lock-step: a recording waits for perception, frame by frame, so that what is processed depends on stamps alone.

Images are given in the order of the recording, everything else (transforms, odometry, intrinsics) up to ``LEAD_S``
before them: where a recording has the transform of an image behind the image, perception would wait for it while the
player waits for perception. Color and depth are paired by the node's own rule; after each pair the player waits for
perception's report on it.
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
"""Transforms come up to this much before the images of the same time; tf keeps ten times as much."""
_RESEND_S = 5.0
_GIVE_UP_S = 90.0
"""The first frame of a cold start compiles and loads; a loaded machine is slow."""
_START_S = 60.0
_OTHERS_S = 5.0
_POLL_S = 0.002
_FRUITLESS = 20
"""Frames without one scene graph, after which no better ones are waited for."""

Item = tuple[str, int, bytes]


def images_behind(messages: Iterable[Item], images: Collection[str], lead_ns: int) -> Iterator[Item]:
    """The same messages (topic, time, bytes), those on ``images`` behind all others up to ``lead_ns`` later.

    The order among images, and among the others, stays.
    """
    held: deque[Item] = deque()
    for item in messages:
        # In order of time: whatever is as old as this has come.
        while held and held[0][1] + lead_ns < item[1]:
            yield held.popleft()
        if item[0] in images:
            held.append(item)
        else:
            yield item
    yield from held


def add_lock_step(parser: argparse.ArgumentParser) -> None:
    """Options of a player that may wait for perception, and the topics that perception reads."""
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
        player: inside its block.
        namespace: of the perception node.

    Attributes:
        reports: ``scene_graph``, or why a frame gave none, by number of frames.
        reasons: by the same names, the last reason in words.
    """

    def __init__(self, player: Player, namespace: str) -> None:
        self._player = player
        self.topic = f"/{namespace.strip('/')}/frame_reports"
        self._status: dict[int, Any] = {}
        self.reports: Counter[str] = Counter()
        self.reasons: dict[str, str] = {}
        player.node.create_subscription(DiagnosticArray, self.topic, self._take, qos.FRAME_REPORTS)

    def _take(self, msg: Any) -> None:
        self._status[stamp_to_ns(msg.header.stamp)] = msg.status[0]

    def wait_for_perception(self, publishers: dict[str, Any], color: Any, subscribers: int) -> None:
        """Until perception hears these topics (name to publisher) and says what becomes of frames.

        Then, for a few seconds, until as many others hear the color images as are said to come.

        Raises:
            SourceError: it does not within a minute.
        """
        player = self._player

        def deaf() -> list[str]:
            return [name for name, out in publishers.items() if not out.get_subscription_count()]

        if player.wait_for(lambda: not deaf() and player.node.count_publishers(self.topic) > 0, _START_S):
            player.wait_for(lambda: color.get_subscription_count() >= subscribers, _OTHERS_S)
            return
        if player.stopped:
            return
        missing = f"nobody listens to {', '.join(deaf())}" if deaf() else f"nobody publishes {self.topic}"
        raise SourceError(f"lock-step: {missing} after {_START_S:g} s; is perception running (ros2 node list)?")

    def wait(self, stamp_ns: int, resend: Callable[[], None]) -> bool:
        """Until perception reports on the frame of this stamp; False when a signal came first.

        Args:
            resend: publishes the frame's images again: sensor QoS may lose them.

        Raises:
            SourceError: no report within ``_GIVE_UP_S``.
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
        """In words."""
        refused = {name: count for name, count in self.reports.items() if name != "scene_graph"}
        text = f"{self.reports.total()} frames, {self.reports['scene_graph']} scene graphs"
        return text + "".join(f"; {n} refused, {name}: {self.reasons.get(name, '')}" for name, n in refused.items())

    def check(self) -> None:
        """Raises SourceError where there were frames, and none gave a scene graph, or where there were none."""
        if self._player.stopped or self.reports["scene_graph"]:
            return
        if not self.reports:
            raise SourceError("no pair of color and depth images in it: no scene graph was made")
        raise SourceError(f"perception made no scene graph: {self.summary()}")
