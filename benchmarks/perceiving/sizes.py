"""Latency of perception for cameras of several sizes, at its working width and at the full size beside it.

`python -m benchmarks.perceiving.sizes` draws a clip, measures all rows one after the other on the live graph, and
prints them. The larger images are the clip's middle, enlarged: what is measured is time, not what is found.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

import cv2  # noqa: E402
import numpy as np  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

from wm_core.camera import Camera  # noqa: E402


@dataclass(frozen=True)
class Size:
    """A kind of camera: how many times the clip's pixels, how many of its rows, images per second, aim for p95 [s]."""

    factor: int
    rows: int
    rate_hz: float
    aim_p95_s: float | None = None


SIZES = (Size(1, 480, 30.0, 0.066), Size(2, 360, 15.0), Size(3, 360, 10.0))
"""640x480 at 30 Hz, 1280x720 at 15 Hz, 1920x1080 at 10 Hz."""


def enlarged_clip(clip: Any, size: Size) -> Any:
    """A ``RenderedClip`` of 640x480 at 30 Hz as a camera of another size sees it, at that camera's rate."""
    k, top = size.factor, (clip.camera.height - size.rows) // 2
    step = max(1, round(clip.plan.rate_hz / size.rate_hz))
    c = clip.camera
    camera = Camera(
        c.width * k,
        size.rows * k,
        c.fx * k,
        c.fy * k,
        (c.cx + 0.5) * k - 0.5,
        (c.cy - top + 0.5) * k - 0.5,
    )
    frames = tuple(
        replace(
            f,
            rgb=_enlarged(f.rgb[top : top + size.rows], k, cv2.INTER_CUBIC),
            depth=_enlarged(f.depth[top : top + size.rows], k, cv2.INTER_NEAREST),
        )
        for f in clip.frames[::step]
    )
    return replace(clip, camera=camera, frames=frames)


def _enlarged(image: Any, factor: int, interpolation: int) -> Any:
    if factor == 1:
        return np.ascontiguousarray(image)
    return cv2.resize(image, None, fx=factor, fy=factor, interpolation=interpolation)


def measure_sizes(
    clip: Any, parameters: dict[str, Any], seconds: float, logs: Path, console: Console, sizes: Sequence[Size] = SIZES
) -> list[dict[str, Any]]:
    """Rows of figures: each size at the default working width, and those larger than it at their full size as well."""
    from benchmarks.perceiving.latency import measure
    from wm_perception.types import PerceptionConfig
    from wm_perception.working_size import reduction

    default = PerceptionConfig().working_width
    rows = []
    for size in sizes:
        drawn = enlarged_clip(clip, size)
        width, height = drawn.camera.width, drawn.camera.height
        for working in (default, 0) if reduction(width, default) > 1 else (default,):
            name = f"{width}x{height}"
            console.print(f"... latency, {name} at {size.rate_hz:g} Hz, working width {working}")
            given = {**parameters, "pipeline.working_width": working}
            figures = measure(drawn, given, size.rate_hz, seconds, logs / f"{name}_{working}")
            rows.append(
                {
                    "size": name,
                    "camera_hz": size.rate_hz,
                    "working_width": working,
                    "aim_p95_s": size.aim_p95_s,
                    **figures,
                }
            )
    return rows


def sizes_table(rows: Sequence[dict[str, Any]]) -> Table:
    """The rows for people."""
    table = Table(title="Sizes of camera, learned pipeline", pad_edge=False)
    for head in ("camera", "Hz", "working width", "median ms", "p95 ms", "aim ms", "graphs/s"):
        table.add_column(head, justify="left" if head == "camera" else "right")
    for r in rows:
        milliseconds = ["-" if r[k] is None else f"{1e3 * r[k]:.0f}" for k in ("latency_median_s", "latency_p95_s")]
        table.add_row(
            r["size"],
            f"{r['camera_hz']:g}",
            str(r["working_width"] or "full"),
            *milliseconds,
            "" if r["aim_p95_s"] is None else f"≤ {1e3 * r['aim_p95_s']:.0f}",
            "-" if r["rate_hz"] is None else f"{r['rate_hz']:.1f}",
        )
    return table


def main() -> int:
    """Entry point."""
    from benchmarks.perceiving.clips import FIRST_SEED, ClipPlan, render_clip

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each row (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=FIRST_SEED + 3, help="of the world (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=ROOT / "out/bench", help="folder of logs (default: %(default)s)")
    arguments = parser.parse_args()
    console = Console() if sys.stdout.isatty() else Console(width=110)
    clip = render_clip(ClipPlan("seeds", arguments.seed, "random", 3.0, 30.0))
    rows = measure_sizes(clip, {}, arguments.seconds, arguments.out / "logs" / "sizes", console)
    console.print(sizes_table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
