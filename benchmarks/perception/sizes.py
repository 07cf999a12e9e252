"""Latency of perception for cameras of several sizes, at its working width and at others beside it.

`python -m benchmarks.perception.sizes` draws a clip, measures all rows one after the other on the live graph, and
prints them. The larger images are the clip's middle, enlarged: what is measured is time. With `--found CLIPS` a second
table says what is found in that many clips of 1280x720 at each working width, in process. As those are enlarged from
640x360, working at full size gains nothing there; what it says is what is lost by working at fewer pixels than 640.
`--also overlap_frames=always` measures every row once more with other settings of the node, right after the usual ones.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml
from rich.console import Console
from rich.progress import track
from rich.table import Table

from wm_core.camera import Camera

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Size:
    """A camera whose latency is measured, made from a clip of 640x480 at 30 Hz.

    Attributes:
        factor: enlargement of the clip's images in each direction.
        rows: rows of the clip's images that are used, about the middle, before they are enlarged.
        rate_hz: images a second [Hz].
        aim_p95_s: aim for the 95th percentile of latency [s]; None: no aim.
    """

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
    clip: Any,
    parameters: dict[str, Any],
    seconds: float,
    logs: Path,
    console: Console,
    sizes: Sequence[Size] = SIZES,
    others: Sequence[int] = (0,),
    also: Sequence[Mapping[str, Any]] = (),
) -> list[dict[str, Any]]:
    """Rows of figures: each size at the default working width, those larger than it at ``others`` (0: full) as well.

    Args:
        also: further settings of the node; each row is measured with each of them, too.
    """
    from benchmarks.perception.latency import measure
    from wm_perception.lifting.working_size import reduction
    from wm_perception.types import PerceptionConfig

    default = PerceptionConfig().working_width
    rows = []
    for size in sizes:
        drawn = enlarged_clip(clip, size)
        width, height = drawn.camera.width, drawn.camera.height
        name = f"{width}x{height}"
        for working in (default, *others) if reduction(width, default) > 1 else (default,):
            for number, other in enumerate(({}, *also)):
                console.print(f"... latency, {name} at {size.rate_hz:g} Hz, working width {working} {said(other)}")
                given = {**parameters, **other, "pipeline.working_width": working}
                figures = measure(drawn, given, size.rate_hz, seconds, logs / f"{name}_{working}_{number}")
                rows.append(
                    {
                        "size": name,
                        "camera_hz": size.rate_hz,
                        "working_width": working,
                        "settings": said(other),
                        "aim_p95_s": size.aim_p95_s,
                        **figures,
                    }
                )
    return rows


def said(settings: Mapping[str, Any]) -> str:
    """Settings in words, without the names' groups."""
    return ", ".join(f"{name.rpartition('.')[2]} {str(value).lower()}" for name, value in settings.items())


def settings_of(text: str) -> dict[str, Any]:
    """``NAME=VALUE,NAME=VALUE`` as parameters of the node.

    Raises:
        argparse.ArgumentTypeError: a part is no such pair.
    """
    found: dict[str, Any] = {}
    for part in text.split(","):
        name, equals, value = part.partition("=")
        if not (name and equals and value):
            raise argparse.ArgumentTypeError(f"got {part!r}, expected NAME=VALUE")
        found[name] = yaml.safe_load(value)
    return found


def sizes_table(rows: Sequence[dict[str, Any]]) -> Table:
    """The rows for people."""
    table = Table(title="Sizes of camera, learned pipeline", pad_edge=False)
    settings = any(r["settings"] for r in rows)
    for head in ("camera", "Hz", "working width", "median ms", "p95 ms", "aim ms", "graphs/s"):
        table.add_column(head, justify="left" if head == "camera" else "right")
    if settings:
        table.add_column("settings")
    for r in rows:
        milliseconds = ["-" if r[k] is None else f"{1e3 * r[k]:.0f}" for k in ("latency_median_s", "latency_p95_s")]
        table.add_row(
            r["size"],
            f"{r['camera_hz']:g}",
            str(r["working_width"] or "full"),
            *milliseconds,
            "" if r["aim_p95_s"] is None else f"≤ {1e3 * r['aim_p95_s']:.0f}",
            "-" if r["rate_hz"] is None else f"{r['rate_hz']:.1f}",
            *([r["settings"]] if settings else []),
        )
    return table


@dataclass
class Found:
    """What a pipeline found in some clips, over frames after the warm-up.

    Attributes:
        working_width: of the pipeline. asked: visible true objects; found: of these; phantoms: perceived objects that
            are in view and none of the true ones; frames: how many. errors_m: of positions. seconds: of each frame;
            network_s: of these in the segmenter's network.
    """

    working_width: int
    asked: int = 0
    found: int = 0
    phantoms: int = 0
    frames: int = 0
    errors_m: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    network_s: list[float] = field(default_factory=list)


def what_is_found(clips: Sequence[Any], working_width: int, size: Size = SIZES[1]) -> Found:
    """The learned pipeline in process, on ``RenderedClip``s as a camera of another size sees them."""
    from benchmarks.perception.run import WARM_UP_S
    from training.reasoner.rendered_clips import MIN_VISIBLE_PX
    from wm_perception.evaluation import match
    from wm_perception.pipeline import PerceptionPipeline
    from wm_perception.types import Frame, PerceptionConfig

    result = Found(working_width)
    for clip in clips:
        drawn = enlarged_clip(clip, size)
        pipeline = PerceptionPipeline(PerceptionConfig(working_width=working_width))
        top = (clip.camera.height - size.rows) // 2
        first_ns = drawn.frames[0].stamp_ns
        for frame in drawn.frames:
            begin = time.perf_counter()
            perceived = pipeline.process(
                Frame(frame.stamp_ns, frame.rgb, frame.depth, drawn.camera, frame.scene.world_T_camera)
            )
            scene = perceived.scene
            result.seconds.append(time.perf_counter() - begin)
            result.network_s.append(perceived.timings_s.get("network", np.nan))
            if 1e-9 * (frame.stamp_ns - first_ns) < WARM_UP_S:
                continue
            ids, pixels = np.unique(frame.ids[top : top + size.rows], return_counts=True)
            asked = set(ids[pixels >= MIN_VISIBLE_PX].tolist()) & set(frame.scene.ids[~frame.scene.is_static].tolist())
            pairs = match(scene, frame.scene)
            of_asked = [distance for _, t, distance in pairs if int(frame.scene.ids[t]) in asked]
            in_view = set(np.flatnonzero(~scene.is_static & (scene.visibilities > 0.5)).tolist())
            result.asked += len(asked)
            result.found += len(of_asked)
            result.phantoms += len(in_view - {p for p, _, _ in pairs})
            result.frames += 1
            result.errors_m += of_asked
    return result


def found_table(rows: Sequence[Found]) -> Table:
    """The rows for people."""
    table = Table(title="Found in clips of 1280x720, learned pipeline in process", pad_edge=False)
    for head in (
        "working width",
        "objects found",
        "phantoms a frame",
        "position median mm",
        "p90 mm",
        "ms a frame",
        "network ms",
    ):
        table.add_column(head, justify="right")
    for r in rows:
        median, late = np.percentile(r.errors_m, [50, 90]) if r.errors_m else (np.nan, np.nan)
        table.add_row(
            str(r.working_width or "full"),
            f"{r.found} of {r.asked} ({100.0 * r.found / max(r.asked, 1):.1f} %)",
            f"{r.phantoms / max(r.frames, 1):.2f}",
            f"{1e3 * median:.1f}",
            f"{1e3 * late:.1f}",
            f"{1e3 * np.median(r.seconds):.0f}",
            f"{1e3 * np.median(r.network_s):.0f}",
        )
    return table


def main() -> int:
    """Entry point."""
    from training.reasoner.rendered_clips import FIRST_SEED, ClipPlan, render_clip
    from wm_perception.types import PerceptionConfig

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each row (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=FIRST_SEED + 3, help="of the world (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=ROOT / "out/bench", help="folder of logs (default: %(default)s)")
    parser.add_argument(
        "--working",
        type=int,
        nargs="*",
        default=[0],
        metavar="WIDTH",
        help="further working widths for cameras that are larger than the usual one; 0: full size (default: 0)",
    )
    parser.add_argument(
        "--found", type=int, default=0, metavar="CLIPS", help="also say what is found in so many (default: %(default)s)"
    )
    parser.add_argument(
        "--also",
        type=settings_of,
        action="append",
        default=[],
        metavar="NAME=VALUE[,NAME=VALUE]",
        help="measure each row with these settings of the node, too (may be given several times)",
    )
    arguments = parser.parse_args()
    console = Console() if sys.stdout.isatty() else Console(width=110)
    clip = render_clip(ClipPlan("seeds", arguments.seed, "random", 3.0, 30.0))
    logs = arguments.out / "logs" / "sizes"
    rows = measure_sizes(clip, {}, arguments.seconds, logs, console, others=arguments.working, also=arguments.also)
    console.print(sizes_table(rows))
    if arguments.found > 0:
        drawn = [
            render_clip(ClipPlan("seeds", FIRST_SEED + n, "random", 3.0, 30.0))
            for n in track(range(arguments.found), "draw clips", console=console)
        ]
        widths = [PerceptionConfig().working_width, *arguments.working]
        console.print(found_table([what_is_found(drawn, w) for w in track(widths, "perceive", console=console)]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
