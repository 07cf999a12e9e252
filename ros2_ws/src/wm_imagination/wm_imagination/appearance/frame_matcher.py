"""Which messages belong to one camera frame."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

from wm_core.scene_graph import SceneGraph


@dataclass
class _Parts:
    """Parts of one camera frame that have come, by the stamp of its color image; None: not yet."""

    color: Any = None
    instances: Any = None
    scene: SceneGraph | None = None


@dataclass(frozen=True)
class MatchedFrame:
    """All parts of one camera frame.

    Attributes:
        stamp_ns: of color, graph and instances [ns].
        color, depth, info, instances: the messages as they came.
        scene: the graph.
    """

    stamp_ns: int
    color: Any
    depth: Any
    info: Any
    instances: Any
    scene: SceneGraph


@dataclass
class FrameMatcher:
    """Brings together graph, instances and color of one stamp, and depth and camera info that go with them.

    Items are kept as they came, unconverted. Not thread-safe.

    Attributes:
        tolerance_ns: color and depth may differ by this.
        capacity: stamps that are kept; more bridge a slower perception, and keep more images.
        dropped: incomplete frames that fell out of the buffer although a scene graph had come for them.
    """

    tolerance_ns: int
    capacity: int = 45
    dropped: int = 0
    _parts: OrderedDict[int, _Parts] = field(default_factory=OrderedDict)
    _depths: OrderedDict[int, Any] = field(default_factory=OrderedDict)
    _newest_ns: int = -1

    def add(self, name: str, stamp_ns: int, item: Any) -> None:
        """Add a color, instances or scene item."""
        if stamp_ns < self._newest_ns - 2_000_000_000:  # time was set back: what is held will never be matched
            self._parts.clear()
            self._depths.clear()
            self._newest_ns = -1
        self._newest_ns = max(self._newest_ns, stamp_ns)
        parts = self._parts.setdefault(stamp_ns, _Parts())
        setattr(parts, name, item)
        while len(self._parts) > self.capacity:
            _, old = self._parts.popitem(last=False)
            self.dropped += old.scene is not None

    def add_depth(self, stamp_ns: int, item: Any) -> None:
        """Add a depth item."""
        self._depths[stamp_ns] = item
        while len(self._depths) > self.capacity:
            self._depths.popitem(last=False)

    def missing(self) -> str:
        """What the newest frame that has a scene graph lacks, for people."""
        newest = max((s for s, p in self._parts.items() if p.scene is not None), default=None)
        if newest is None:
            return "a scene graph"
        parts = self._parts[newest]
        lacks = [n for n in ("color", "instances") if getattr(parts, n) is None]
        return ", ".join(lacks + ([] if self._nearest_depth(newest) is not None else ["depth"]))

    def _nearest_depth(self, stamp_ns: int) -> int | None:
        best = min(self._depths, key=lambda s: abs(s - stamp_ns), default=None)
        return best if best is not None and abs(best - stamp_ns) <= self.tolerance_ns else None

    def take(self, info: Any) -> MatchedFrame | None:
        """The newest complete frame, if there is one; it and all that is older is let go."""
        if info is None:
            return None
        for stamp_ns in sorted(self._parts, reverse=True):
            p = self._parts[stamp_ns]
            if p.color is None or p.instances is None or p.scene is None:
                continue
            depth_stamp = self._nearest_depth(stamp_ns)
            if depth_stamp is None:
                continue
            frame = MatchedFrame(stamp_ns, p.color, self._depths[depth_stamp], info, p.instances, p.scene)
            for old in [s for s in self._parts if s <= stamp_ns]:
                del self._parts[old]
            for old in [s for s in self._depths if s < depth_stamp]:
                del self._depths[old]
            return frame
        return None
