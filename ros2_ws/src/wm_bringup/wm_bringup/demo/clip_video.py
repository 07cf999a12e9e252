"""The video of a recorded clip: camera and overlay side by side, then the futures."""

from __future__ import annotations

from pathlib import Path

from wm_bringup.demo.clip_report import ClipFrame, ImaginedClip
from wm_bringup.demo.scenarios import object_name
from wm_bringup.report import drawing
from wm_bringup.report.drawing import Drawing, Picture, VideoWriter
from wm_core.scene_graph import SceneGraph

VIDEO_RATE_HZ = 15.0
"""Of imagined pictures; more takes longer in proportion."""
_PANELS = ((40, 112), (648, 112))
_PANEL = (592, 444)


def write_clip_video(path: Path, frames: list[ClipFrame], imagined: ImaginedClip | None) -> None:
    """The clip in its own time, then every future of ``imagined`` (None: there is none)."""
    with VideoWriter(path, 30, (1280, 720)) as video:
        overlay: Picture | None = None
        graph: SceneGraph | None = None
        for n, frame in enumerate(frames):
            overlay = frame.overlay if frame.overlay is not None else overlay
            graph = frame.graph if frame.graph is not None else graph
            after = frames[n + 1].stamp_ns if n + 1 < len(frames) else frame.stamp_ns + 400_000_000
            picture = _page(
                "A real clip, perceived",
                "a hand-held depth camera; every object keeps its id while the camera moves",
                (frame.color, "camera", drawing.TRUE),
                (overlay, "/wm/scene_graph", drawing.IMAGINED),
                f"{1e-9 * (frame.stamp_ns - frames[0].stamp_ns):.1f} s",
            )
            if graph is not None:
                names = [object_name(graph, int(i)) for i in graph.ids[~graph.is_static]]
                picture.text(40, 590, f"{len(names)} objects", 18, drawing.TEXT, True)
                width = 1200
                picture.text(40, 622, drawing.shorten(", ".join(names), width, 16), 16, drawing.DIM)
            video.add(picture.pixels, (after - frame.stamp_ns) * 1e-9)
        if imagined is None:
            return
        now = next((f.color for f in frames if f.stamp_ns == imagined.graph.stamp_ns), imagined.pictures[0][0])
        for k, (_, title, detail) in enumerate(imagined.scenarios):
            for n, picture in enumerate(imagined.pictures[k]):
                shown = _page(
                    title,
                    detail,
                    (now, "what the camera saw", drawing.TRUE),
                    (picture, "imagined", drawing.IMAGINED),
                    f"+{imagined.times[n]:.1f} s",
                )
                note = "drawn from what the camera saw in the frames before; there is no ground truth here"
                shown.text(40, 590, note, 16, drawing.DIM)
                last = n == len(imagined.pictures[k]) - 1
                video.add(shown.pixels, 1.2 if last else 0.7 if n == 0 else 1.5 / VIDEO_RATE_HZ)


def _page(
    title: str,
    subtitle: str,
    left: tuple[Picture, str, drawing.Color],
    right: tuple[Picture | None, str, drawing.Color],
    clock: str,
) -> Drawing:
    picture = Drawing(1280, 720)
    picture.text(40, 26, title, 32, drawing.TEXT, True)
    picture.text(40, 72, subtitle, 18, drawing.DIM)
    picture.text(1240, 46, clock, 26, drawing.TEXT, True, "rm")
    for (x, y), (shown, label, color) in zip(_PANELS, (left, right), strict=True):
        if shown is None:
            picture.box(x, y, *_PANEL)
        else:
            picture.image(x, y, shown, *_PANEL)
        width = drawing.text_width(label, 16, True) + 20
        picture.box(x, y, width, 28, (12, 15, 20))
        picture.box(x, y, 4, 28, color)
        picture.text(x + 12, y + 14, label, 16, color, True, "lm")
    return picture
