"""Pictures of the demonstration's video: title, what is perceived, a future beside its ground truth, the errors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wm_bringup.demo.scenarios import object_name
from wm_bringup.report.drawing import (
    DIM,
    IMAGINED,
    LINE,
    PANEL,
    STILL,
    STRAIGHT,
    TEXT,
    TRUE,
    Color,
    Drawing,
    Picture,
    fit,
    shorten,
    text_width,
)
from wm_bringup.report.results import LABELS, DemoResults, Future
from wm_core.scene_graph import SceneGraph

SIZE = (1280, 720)
COLORS: dict[str, Color] = {"imagined": IMAGINED, "straight": STRAIGHT, "still": STILL}
_LEFT, _TOP, _PANEL_WIDTH, _PANEL_HEIGHT, _GAP = 40, 112, 592, 444, 16
_FOOT = _TOP + _PANEL_HEIGHT + 18


@dataclass(frozen=True)
class LiveFrame:
    """A camera picture with the newest overlay and scene graph of that instant.

    Attributes:
        stamp_ns: of the camera picture.
        color: (H, W, 3); overlay: (H, W, 3), None: none came yet.
        graph: None: none came yet.
    """

    stamp_ns: int
    color: Picture
    overlay: Picture | None
    graph: SceneGraph | None


def _header(drawing: Drawing, title: str, subtitle: str) -> None:
    drawing.text(_LEFT, 26, title, 32, TEXT, True)
    drawing.text(_LEFT, 72, subtitle, 18, DIM)


def _panels() -> tuple[tuple[int, int], tuple[int, int]]:
    return (_LEFT, _TOP), (_LEFT + _PANEL_WIDTH + _GAP, _TOP)


def _label(drawing: Drawing, x: int, y: int, text: str, color: Color) -> None:
    width = text_width(text, 16, True) + 20
    drawing.box(x, y, width, 28, (12, 15, 20))
    drawing.box(x, y, 4, 28, color)
    drawing.text(x + 12, y + 14, text, 16, color, True, anchor="lm")


def title_card(results: DemoResults, picture: Picture | None) -> Picture:
    """The first picture."""
    drawing = Drawing(*SIZE)
    if picture is not None:
        width, height = fit(picture, 560, 420)
        drawing.image(SIZE[0] - width - 60, 150, picture, width, height)
        drawing.frame(SIZE[0] - width - 60, 150, width, height, LINE)
    drawing.text(60, 150, "wm", 84, IMAGINED, True)
    drawing.text(60, 262, "a world model", 34, TEXT, True)
    drawing.text(60, 306, "that a robot can ask “what if”", 34, TEXT, True)
    horizon = float(results.frame_times[-1])
    lines = [
        "camera  →  3D scene graph  →  imagined futures",
        "on a live ROS 2 graph, in separate processes",
        "",
        f"computed by this run, on {results.machine.get('cores', '?')} cores, with no GPU",
        f"{len(results.futures)} futures of {horizon:.0f} s, each beside the ground truth",
    ]
    for i, line in enumerate(lines):
        drawing.text(60, 384 + 30 * i, line, 18, DIM)
    return drawing.pixels


def live_picture(frame: LiveFrame, query_ns: int) -> Picture:
    """Camera and scene graph side by side, and a list of what is perceived."""
    drawing = Drawing(*SIZE)
    _header(
        drawing,
        "Perceiving",
        "what the RGB-D camera publishes, and the scene graph made of it: objects that keep their ids",
    )
    left, right = _panels()
    drawing.image(*left, frame.color, _PANEL_WIDTH, _PANEL_HEIGHT)
    if frame.overlay is not None:
        drawing.image(*right, frame.overlay, _PANEL_WIDTH, _PANEL_HEIGHT)
    else:
        drawing.box(*right, _PANEL_WIDTH, _PANEL_HEIGHT)
    _label(drawing, *left, "camera", TRUE)
    _label(drawing, *right, "/wm/scene_graph", IMAGINED)
    seconds = (frame.stamp_ns - query_ns) * 1e-9
    when = "now: what if?" if seconds > -0.02 else f"{-seconds:.1f} s before the request"
    drawing.text(SIZE[0] - 40, 46, when, 22, IMAGINED if seconds > -0.02 else TEXT, True, anchor="rm")
    if frame.graph is not None:
        _object_list(drawing, frame.graph)
    return drawing.pixels


def _object_list(drawing: Drawing, graph: SceneGraph) -> None:
    movable = [i for i in range(len(graph)) if not graph.is_static[i]][:12]
    columns, row_height = 3, 26
    width = (SIZE[0] - 2 * _LEFT) // columns
    for n, i in enumerate(movable):
        x, y = _LEFT + (n % columns) * width, _FOOT + 8 + (n // columns) * row_height
        color = tuple(int(255 * c) for c in graph.colors[i])
        drawing.dot(x + 7, y + 10, color, 6)  # type: ignore[arg-type]
        speed = float(np.linalg.norm(graph.linear_velocities[i]))
        moving = speed > 0.05
        drawing.text(x + 22, y, object_name(graph, int(graph.ids[i])), 16, TEXT, moving)
        size = " × ".join(f"{100 * v:.0f}" for v in graph.extents[i])
        what = f"{speed:.2f} m/s" if moving else f"{size} cm"
        drawing.text(x + 196, y, what, 16, IMAGINED if moving else DIM)


@dataclass(frozen=True)
class _Plot:
    """Where a plot is on the drawing: corner and size [pixels], length of the time axis [s], top of the scale [m]."""

    x: int
    y: int
    width: int
    height: int
    horizon: float
    top: float

    def points(self, times: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.float64]:
        """(T, 2) pixels; NaN where a value is beyond the scale."""
        heights = np.where(values <= self.top, values / self.top, np.nan)
        return np.stack([self.x + self.width * times / self.horizon, self.y + self.height * (1.0 - heights)], axis=-1)


def _shown_error(future: Future, backend: str) -> tuple[NDArray[np.float64], bool]:
    """Mean error over time [m] of the objects that move, or of all where none does."""
    assert future.errors is not None
    moved = any(o.moved for o in future.errors.objects)
    return future.errors.mean_error(backend, moved_only=moved), moved


def future_base(results: DemoResults, future: Future) -> tuple[Picture, _Plot | None]:
    """The part of a future's picture that is the same at all times, and where its plot is."""
    drawing = Drawing(*SIZE)
    number = future.index + 1
    _header(
        drawing,
        future.scenario.title,
        f"future {number} of {len(results.futures)} · {future.scenario.name}: {future.scenario.detail}",
    )
    if future.errors is None:
        drawing.text(_LEFT, _FOOT + 14, "not compared: the object matches no true one", 18, DIM)
        return drawing.pixels, None
    errors = future.errors
    plot_x, plot_y, plot_width, plot_height = SIZE[0] - 470, _FOOT + 26, 416, 70
    series = {b: _shown_error(future, b) for b in ("straight", "still", "imagined")}
    # Straight lines soon leave any scale on which the others can be told apart.
    values = [np.nanmax(series[b][0], initial=0.0) for b in ("imagined", "still") if np.isfinite(series[b][0]).any()]
    top = max(0.02, 1.3 * float(max(values, default=0.0)))
    plot = _Plot(plot_x, plot_y, plot_width, plot_height, float(errors.times[-1]), top)
    moved = series["imagined"][1]
    drawing.text(plot_x, _FOOT - 2, f"mean error of {'what moves' if moved else 'all objects'} [cm]", 14, DIM)
    drawing.box(plot_x, plot_y, plot_width, plot_height)
    drawing.box(plot_x, plot_y + plot_height, plot_width, 1, LINE)
    drawing.text(plot_x - 8, plot_y, f"{100 * top:.0f}", 13, DIM, anchor="rt")
    drawing.text(plot_x - 8, plot_y + plot_height, "0", 13, DIM, anchor="rs")
    drawing.text(plot_x + plot_width, plot_y + plot_height + 6, f"{errors.times[-1]:g} s", 13, DIM, anchor="ra")
    for backend, (values_m, _) in series.items():
        faded = tuple(int(0.45 * c + 0.55 * b) for c, b in zip(COLORS[backend], PANEL, strict=True))
        drawing.curve(plot.points(errors.times, values_m), faded, 1)  # type: ignore[arg-type]
    return drawing.pixels, plot


def future_picture(results: DemoResults, future: Future, row: int, base: tuple[Picture, _Plot | None]) -> Picture:
    """One moment of a future: imagined beside true, errors so far."""
    drawing = Drawing.of(base[0])
    plot = base[1]
    left, right = _panels()
    time_s = float(results.frame_times[row])
    drawing.image(*left, future.imagined[row], _PANEL_WIDTH, _PANEL_HEIGHT)
    if future.true:
        drawing.image(*right, future.true[row], _PANEL_WIDTH, _PANEL_HEIGHT)
    else:
        drawing.box(*right, _PANEL_WIDTH, _PANEL_HEIGHT)
    _label(drawing, *left, "imagined, from what was seen", IMAGINED)
    _label(drawing, *right, "ground truth, simulated again", TRUE)
    drawing.text(SIZE[0] - 40, 46, f"+{time_s:.2f} s", 26, TEXT, True, anchor="rm")
    horizon = float(results.frame_times[-1])
    width = 2 * _PANEL_WIDTH + _GAP
    drawing.box(_LEFT, _TOP + _PANEL_HEIGHT + 6, width, 4, LINE)
    drawing.box(_LEFT, _TOP + _PANEL_HEIGHT + 6, max(1, round(width * time_s / horizon)), 4, IMAGINED)
    if plot is None or future.errors is None:
        return drawing.pixels
    errors = future.errors
    t = int(np.argmin(np.abs(errors.times - time_s)))
    for backend in ("straight", "still", "imagined"):
        values, _ = _shown_error(future, backend)
        points = plot.points(errors.times[: t + 1], values[: t + 1])
        drawing.curve(points, COLORS[backend], 3 if backend == "imagined" else 2)
        if np.isfinite(points[-1]).all():
            drawing.dot(float(points[-1, 0]), float(points[-1, 1]), COLORS[backend], 4)
    _error_table(drawing, results, future, t)
    return drawing.pixels


def _error_table(drawing: Drawing, results: DemoResults, future: Future, t: int) -> None:
    """Errors of the objects that move (or of all) at a time, by backend, in millimeters."""
    errors = future.errors
    assert errors is not None
    columns = (("imagined", 300), ("straight", 450), ("still", 600))
    drawing.text(_LEFT, _FOOT, "error [mm]", 14, DIM)
    for backend, x in columns:
        drawing.text(_LEFT + x, _FOOT, LABELS[backend], 14, COLORS[backend], True, anchor="ra")
    moved = [o for o in errors.objects if o.moved][:3]
    rows: list[tuple[str, dict[str, float]]] = [
        (object_name(results.graph, o.object_id), {b: float(o.error_m[b][t]) for b, _ in columns}) for o in moved
    ]
    rows.append(("mean of all objects", {b: float(errors.mean_error(b)[t]) for b, _ in columns}))
    for n, (name, values) in enumerate(rows):
        y = _FOOT + 22 + 22 * n
        last = n == len(rows) - 1
        drawing.text(_LEFT, y, name, 16, TEXT if not last else DIM)
        for backend, x in columns:
            value = values[backend]
            text = f"{1e3 * value:.0f}" if np.isfinite(value) else "-"
            drawing.text(_LEFT + x, y, text, 16, COLORS[backend] if backend == "imagined" else TEXT, anchor="ra")


def summary_card(results: DemoResults) -> Picture:
    """The last picture: the table."""
    drawing = Drawing(*SIZE)
    _header(
        drawing,
        "Errors",
        "mean distance from the ground truth over 2 s [mm]: of all objects, and of those that move",
    )
    headings = (("imagined", 700), ("straight", 850), ("still", 1010))
    y = 118
    drawing.text(_LEFT, y, "future", 16, DIM)
    drawing.text(_LEFT + 190, y, "imagined and true end", 16, DIM)
    drawing.text(560, y, "contacts", 16, DIM, anchor="ra")
    for backend, x in headings:
        drawing.text(x, y, LABELS[backend], 16, COLORS[backend], True, anchor="ra")
    drawing.text(1240, y, "moved: imagined / straight", 16, DIM, anchor="ra")
    height = min(72, 440 // max(len(results.futures), 1))
    for n, future in enumerate(results.futures):
        y = 150 + (height + 6) * n
        middle = y + height // 2
        drawing.box(_LEFT - 12, y, SIZE[0] - 2 * _LEFT + 24, height, PANEL)
        drawing.text(_LEFT, middle, future.scenario.name, 20, TEXT, True, anchor="lm")
        for m, pictures in enumerate((future.imagined, future.true)):
            if pictures:
                width, _ = fit(pictures[-1], 200, height - 4)
                drawing.image(_LEFT + 190 + m * (width + 6), y + 2, pictures[-1], width, height - 4)
        e = future.errors
        if e is None:
            drawing.text(700, middle, "not compared", 18, DIM, anchor="rm")
            continue
        drawing.text(560, middle, "yes" if e.contacts else "no", 18, TEXT if e.contacts else DIM, anchor="rm")
        for backend, x in headings:
            value = 1e3 * e.average(backend)
            text = f"{value:.1f}" if np.isfinite(value) else "-"
            best = backend == "imagined"
            drawing.text(x, middle, text, 20, IMAGINED if best else TEXT, best, anchor="rm")
        moved = [1e3 * e.average(b, moved_only=True) for b in ("imagined", "straight")]
        text = " / ".join(f"{v:.1f}" if np.isfinite(v) else "-" for v in moved)
        drawing.text(1240, middle, text, 18, TEXT, anchor="rm")
    y = 160 + (height + 6) * len(results.futures)
    p, latency = results.perception, results.latency
    lines = []
    if p:
        lines.append(
            f"perception: {p['found']} of {p['objects_true']} objects found, {p['phantom']} phantom, "
            f"{p['id_switches']} id switches, median position error {1e3 * p['position_error_median_m']:.1f} mm"
        )
    if latency.get("median_s") is not None:
        lines.append(
            f"camera to scene graph: {1e3 * latency['median_s']:.0f} ms median, {latency['rate_to_hz']:.1f} graphs/s "
            f"with everything on {results.machine.get('cores')} cores"
        )
    if "rollouts_64_s" in results.timings:
        lines.append(
            f"rollouts of 1 s through the service: 64 in {results.timings['rollouts_64_s']:.2f} s, "
            f"256 in {results.timings['rollouts_256_s']:.2f} s"
        )
    for line in lines:
        drawing.text(_LEFT, y, line, 18, DIM)
        y += 28
    return drawing.pixels


def overview_picture(results: DemoResults, width: int = 380) -> Picture:
    """All futures at their ends in one picture: imagined left, true right, two futures a row."""
    shown = [future for future in results.futures if future.true]
    if not shown:
        return summary_card(results)
    height = round(shown[0].imagined[-1].shape[0] * width / shown[0].imagined[-1].shape[1])
    gap, title, margin, columns = 4, 40, 16, 2
    cell_width, cell_height = 2 * width + gap, title + height + margin
    rows = -(-len(shown) // columns)
    drawing = Drawing(columns * cell_width + (columns + 1) * margin, rows * cell_height + margin)
    for n, future in enumerate(shown):
        x, y = margin + (n % columns) * (cell_width + margin), 8 + (n // columns) * cell_height
        drawing.text(
            x, y + title // 2, shorten(future.scenario.title, cell_width, 20, True), 20, TEXT, True, anchor="lm"
        )
        for m, (pictures, name, color) in enumerate(
            ((future.imagined, "imagined", IMAGINED), (future.true, "ground truth", TRUE))
        ):
            left = x + m * (width + gap)
            drawing.image(left, y + title, pictures[-1], width, height)
            _label(drawing, left, y + title, name, color)
    return drawing.pixels
