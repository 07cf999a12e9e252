"""The demonstration as a video and as stills: what the camera saw, what was perceived, each future and its
ground truth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wm_bringup.recording.recordings import read
from wm_bringup.report.drawing import (
    VideoWriter,
    save_png,
    sheet,
)
from wm_bringup.report.results import DemoResults
from wm_bringup.report.video_pictures import (
    SIZE,
    LiveFrame,
    future_base,
    future_picture,
    live_picture,
    overview_picture,
    summary_card,
    title_card,
)

RATE = 30
LIVE_S = 3.5
_SLOWER = 1.5

Update = Callable[[float | None, str | None], None]


def live_frames(
    mcap: Path, color_topic: str, overlay_topic: str, until_ns: int, whole: bool, graph_topic: str = "/wm/scene_graph"
) -> list[LiveFrame]:
    """The last seconds before the request, from the recording; ``whole`` False: every third frame of one second."""
    from wm_ros.conversions.scene_graph import scene_graph_from_msg
    from wm_ros.images.pixels import image_to_rgb

    begin_ns = until_ns - round((LIVE_S if whole else 1.0) * 1e9)
    colors: dict[int, Any] = {}
    overlays: dict[int, Any] = {}
    graphs: dict[int, Any] = {}
    kinds = {color_topic: colors, overlay_topic: overlays, graph_topic: graphs}
    for item in read(mcap, list(kinds)):
        # An overlay or a graph from before is shown until the first new one comes.
        if begin_ns - 1_000_000_000 <= item.stamp_ns <= until_ns:
            kinds[item.topic][item.stamp_ns] = item
    stamps = [s for s in sorted(colors) if s >= begin_ns]
    if not whole:
        stamps = stamps[::3]
    frames = []
    decoded: dict[int, Any] = {}

    def latest(items: dict[int, Any], stamp_ns: int, convert: Callable[[Any], Any]) -> Any:
        found = max((s for s in items if s <= stamp_ns), default=None)
        if found is None:
            return None
        key = id(items[found])
        if key not in decoded:
            decoded[key] = convert(items[found].message())
        return decoded[key]

    for stamp in stamps:
        frames.append(
            LiveFrame(
                stamp,
                image_to_rgb(colors[stamp].message()),
                latest(overlays, stamp, image_to_rgb),
                latest(graphs, stamp, scene_graph_from_msg),
            )
        )
    return frames


def make_video(path: Path, results: DemoResults, live: Sequence[LiveFrame], update: Update, whole: bool) -> None:
    """Write the MP4; ``whole`` False: a shorter one."""
    last = live[-1] if live else None
    hold = 1.2 if whole else 0.3
    steps = len(live) + len(results.futures)
    with VideoWriter(path, RATE, SIZE) as video:
        picture = last.overlay if last is not None else None
        video.add(title_card(results, picture), 2.0 if whole else 0.5)
        for n, frame in enumerate(live):
            shown = live_picture(frame, results.graph.stamp_ns)
            after = live[n + 1].stamp_ns if n + 1 < len(live) else frame.stamp_ns
            video.add(shown, max(1 / RATE, (after - frame.stamp_ns) * 1e-9) if frame is not last else hold)
            update((n + 1) / steps, "camera and scene graph")
        gaps = np.diff(results.frame_times, append=results.frame_times[-1])
        for n, future in enumerate(results.futures):
            base = future_base(results, future)
            for row in range(len(results.frame_times)):
                final = row == len(results.frame_times) - 1
                seconds = hold if final else _SLOWER * float(gaps[row]) + (0.6 if row == 0 and whole else 0.0)
                video.add(future_picture(results, future, row, base), seconds)
            update((len(live) + n + 1) / steps, future.scenario.name)
        video.add(summary_card(results), 4.0 if whole else 1.0)
        update(1.0, f"{video.seconds:.0f} s")


def make_stills(folder: Path, results: DemoResults, live: Sequence[LiveFrame]) -> dict[str, Path]:
    """PNG pictures by name: ``perceiving``, ``overview``, ``summary``, and of each future a sheet and its end."""
    stills: dict[str, Path] = {}
    if live:
        stills["perceiving"] = save_png(folder / "perceiving.png", live_picture(live[-1], results.graph.stamp_ns))
    columns = _sheet_rows(results.frame_times)
    headings = [f"+{results.frame_times[c]:.2f} s" for c in columns]
    for future in results.futures:
        name = future.scenario.name
        rows = [("imagined", [future.imagined[c] for c in columns])]
        if future.true:
            rows.append(("ground truth", [future.true[c] for c in columns]))
        stills[f"{name} sheet"] = save_png(folder / f"{name}_sheet.png", sheet(rows, headings, 280))
        base = future_base(results, future)
        end = future_picture(results, future, len(results.frame_times) - 1, base)
        stills[f"{name} end"] = save_png(folder / f"{name}_end.png", end)
    stills["overview"] = save_png(folder / "overview.png", overview_picture(results))
    stills["summary"] = save_png(folder / "summary.png", summary_card(results))
    return stills


def _sheet_rows(frame_times: NDArray[np.float64], count: int = 5) -> list[int]:
    """Rows of the frames that a sheet shows: evenly spaced, with the first and the last."""
    return sorted({int(i) for i in np.linspace(0, len(frame_times) - 1, min(count, len(frame_times))).round()})
