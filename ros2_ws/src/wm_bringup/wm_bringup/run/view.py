"""What a running graph makes of its input, as tables and as one line: the newest scene graph, rates, complaints."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np

_KEEP_STAMPS = 600
_RATE_WINDOW = 60


@dataclass
class Latency:
    """Wall-clock seconds between two arrivals of the same stamp, over the last few hundred."""

    seconds: deque[float] = field(default_factory=lambda: deque(maxlen=300))
    _begun: dict[int, float] = field(default_factory=dict)

    def begin(self, stamp_ns: int, now_s: float) -> None:
        """The first of the two came."""
        self._begun[stamp_ns] = now_s
        while len(self._begun) > _KEEP_STAMPS:
            del self._begun[next(iter(self._begun))]

    def end(self, stamp_ns: int, now_s: float) -> None:
        """The second came."""
        begun = self._begun.pop(stamp_ns, None)
        if begun is not None:
            self.seconds.append(now_s - begun)

    def text(self) -> str:
        """Median and 95th percentile, for people."""
        if not self.seconds:
            return "not measured yet"
        median, p95 = np.percentile(self.seconds, [50, 95])
        return f"median {1e3 * median:.0f} ms, 95 % below {1e3 * p95:.0f} ms"


@dataclass
class View:
    """What is shown: the newest scene graph, arrivals, the nodes' diagnostics by name.

    ``ended`` is set when a recording is over: that input ceases is then no news. ``graphs``: scene graphs so far;
    ``most_objects``, ``most_supports``: in one of them.
    """

    scene: Any = None
    graph_times: deque[float] = field(default_factory=lambda: deque(maxlen=_RATE_WINDOW))
    latency: Latency = field(default_factory=Latency)
    statuses: dict[str, tuple[int, str, dict[str, str]]] = field(default_factory=dict)
    ended: bool = False
    graphs: int = 0
    most_objects: int = 0
    most_supports: int = 0

    def add(self, scene: Any) -> None:
        """A new scene graph."""
        self.scene = scene
        self.graphs += 1
        supports = int(scene.is_static.sum())
        self.most_supports = max(self.most_supports, supports)
        self.most_objects = max(self.most_objects, len(scene) - supports)

    def graph_rate_hz(self) -> float:
        """Scene graphs per second, lately."""
        times = self.graph_times
        return (len(times) - 1) / (times[-1] - times[0]) if len(times) > 1 and times[-1] > times[0] else 0.0

    def rates(self) -> list[tuple[str, str, str, int]]:
        """(name, rate, age, level) of what the nodes measure rates of."""
        return [
            (name, f"{float(values['rate_hz']):.1f}", f"{float(values['age_s']):.2f}", level)
            for name, (level, _, values) in sorted(self.statuses.items())
            if "rate_hz" in values and "age_s" in values and float(values.get("total", "1")) > 0
        ]

    def complaints(self) -> list[tuple[str, str, int]]:
        """(name, message, level) of what is not in order."""
        return [(name, text, level) for name, (level, text, _) in sorted(self.statuses.items()) if level > 0]

    def line(self) -> str:
        """One line, for a log; supports, such as tables, are no objects."""
        count = moving = 0
        if self.scene is not None:
            movable = ~self.scene.is_static
            count = int(movable.sum())
            moving = int((np.linalg.norm(self.scene.linear_velocities[movable], axis=1) > 0.02).sum())
        things = "object" if count == 1 else "objects"
        text = f"{count} {things} ({moving} moving), {self.graph_rate_hz():.1f} graphs/s, latency {self.latency.text()}"
        worst = max(self.complaints(), key=lambda c: c[2], default=None)
        return f"{text}; {worst[0]}: {worst[1]}" if worst else text

    def render(self) -> Any:
        """The tables as a rich renderable."""
        from rich.console import Group
        from rich.markup import escape
        from rich.table import Table
        from rich.text import Text

        parts: list[Any] = []
        topics = Table(box=None, pad_edge=False)
        for heading in ("stream", "rate [Hz]", "age [s]"):
            topics.add_column(escape(heading), justify="left" if heading == "stream" else "right")
        for name, rate, age, level in self.rates():
            style = "red" if level > 1 else "yellow" if level else ""
            topics.add_row(escape(name), rate, age, style=style)
        parts.append(topics)
        scene = self.scene
        if scene is not None:
            objects = Table(box=None, pad_edge=False)
            for heading in ("id", "class", "x y z [m]", "speed [m/s]", "size [m]", "seen", "sure"):
                objects.add_column(escape(heading), justify="left" if heading == "class" else "right")
            for i in range(len(scene)):
                objects.add_row(
                    str(scene.ids[i]),
                    escape(scene.class_names[i]),
                    " ".join(f"{v:+.3f}" for v in scene.positions[i]),
                    "static" if scene.is_static[i] else f"{np.linalg.norm(scene.linear_velocities[i]):.2f}",
                    " ".join(f"{v:.2f}" for v in scene.extents[i]),
                    f"{scene.visibilities[i]:.0%}",
                    f"{scene.existence_probabilities[i]:.0%}",
                )
            parts += [Text(), objects]
        parts += [Text(), Text(f"camera to scene graph: {self.latency.text()}; {self.graph_rate_hz():.1f} graphs/s")]
        parts += [
            Text(f"{name}: {text}", style="red" if level > 1 else "yellow") for name, text, level in self.complaints()
        ]
        return Group(*parts)
