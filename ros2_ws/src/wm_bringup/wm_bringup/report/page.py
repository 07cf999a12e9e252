"""Reports as one HTML file each: pictures and video inside, nothing is loaded from elsewhere."""

from __future__ import annotations

import base64
import io
import os
import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from wm_bringup.demo.scenarios import object_name
from wm_bringup.report.drawing import Picture
from wm_bringup.report.results import BASELINES, LABELS, DemoResults, Future

MAX_EMBEDDED_VIDEO_BYTES = 24_000_000
_HEX = {"imagined": "#d97706", "straight": "#3b6fd4", "still": "#7b8494"}

_STYLE = """
:root { color-scheme: light; --ink: #17202b; --dim: #5b6775; --line: #dfe4ea; --accent: #d97706; --true: #16875a; }
* { box-sizing: border-box; }
body { margin: 0; font: 16px/1.55 system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; color: var(--ink);
  background: #fff; }
header { background: #0e1218; color: #e9edf2; padding: 44px 0 36px; }
header p { color: #aeb8c4; max-width: 760px; margin: 8px 0 0; }
main, header > div, footer { max-width: 1120px; margin: 0 auto; padding: 0 28px; }
h1 { font-size: 34px; line-height: 1.2; margin: 0; }
h2 { font-size: 24px; margin: 52px 0 10px; }
h3 { font-size: 19px; margin: 36px 0 4px; }
h3 small { font-weight: 400; color: var(--dim); font-size: 15px; }
p.note, figcaption, .dim { color: var(--dim); }
table { border-collapse: collapse; width: 100%; margin: 14px 0; font-variant-numeric: tabular-nums; font-size: 15px; }
th, td { padding: 7px 10px; border-bottom: 1px solid var(--line); text-align: right; vertical-align: bottom; }
th { font-weight: 600; color: var(--dim); font-size: 13.5px; }
th:first-child, td:first-child { text-align: left; }
td.best { font-weight: 700; color: var(--accent); }
td.left, th.left { text-align: left; }
td { white-space: nowrap; }
td.left { white-space: normal; }
td.left:first-child { white-space: nowrap; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(190px, 1fr)); gap: 14px; margin: 26px 0 8px; }
.tile { border: 1px solid var(--line); border-radius: 10px; padding: 14px 16px; }
.tile b { display: block; font-size: 26px; line-height: 1.2; }
.tile span { color: var(--dim); font-size: 14px; }
figure { margin: 14px 0; }
img, video { max-width: 100%; height: auto; display: block; border-radius: 6px; }
video { width: 100%; background: #0e1218; }
svg { width: 100%; height: auto; }
.narrow table { max-width: 620px; }
code { font: 14px/1.4 ui-monospace, "DejaVu Sans Mono", monospace; background: #f1f4f7; padding: 1px 5px;
  border-radius: 4px; }
.warn { border-left: 4px solid #d97706; background: #fff7ec; padding: 8px 14px; margin: 10px 0; }
.scroll { overflow-x: auto; }
footer { color: var(--dim); padding-top: 30px; padding-bottom: 60px; font-size: 14px; }
"""


def page(title: str, lead: str, body: Sequence[str]) -> str:
    """A whole HTML document; ``title`` and ``lead`` are plain text, ``body`` is HTML."""
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_STYLE}</style></head><body>"
        f"<header><div><h1>{escape(title)}</h1><p>{escape(lead)}</p></div></header><main>\n"
        + "\n".join(body)
        + "\n</main></body></html>\n"
    )


def table(headings: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[int] = (0,)) -> str:
    """A table of HTML cells; ``left`` columns are flush left. A cell that starts with * is the one to look at."""
    head = "".join(f'<th class="{"left" if n in left else ""}">{cell}</th>' for n, cell in enumerate(headings))
    lines = []
    for row in rows:
        cells = ""
        for n, cell in enumerate(row):
            classes = ["left"] if n in left else []
            if cell.startswith("*"):
                classes.append("best")
                cell = cell[1:]
            cells += f'<td class="{" ".join(classes)}">{cell}</td>'
        lines.append(f"<tr>{cells}</tr>")
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'


def picture_html(picture: Picture | Path, caption: str = "", quality: int = 86) -> str:
    """A figure with a picture inside (as JPEG)."""
    if isinstance(picture, Path):
        loaded = cv2.imread(str(picture), cv2.IMREAD_COLOR)
        if loaded is None:
            return ""
        picture = loaded[..., ::-1]
    ok, data = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not ok:
        return ""
    text = base64.b64encode(data.tobytes()).decode()
    below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return (
        f'<figure><img alt="{escape(caption or "picture")}" width="{picture.shape[1]}" height="{picture.shape[0]}" '
        f'src="data:image/jpeg;base64,{text}">{below}</figure>'
    )


def video_html(video: Path, page_folder: Path) -> str:
    """A player with the video inside, or beside the page where it is large."""
    if not video.exists():
        return ""
    if video.stat().st_size <= MAX_EMBEDDED_VIDEO_BYTES:
        source = "data:video/mp4;base64," + base64.b64encode(video.read_bytes()).decode()
    else:
        source = escape(os.path.relpath(video, page_folder))
    return f'<figure><video controls muted playsinline preload="metadata" src="{source}"></video></figure>'


def tiles(values: Sequence[tuple[str, str]]) -> str:
    """Figures to see first: (figure, what it is)."""
    inner = "".join(f'<div class="tile"><b>{escape(v)}</b><span>{escape(what)}</span></div>' for v, what in values)
    return f'<div class="tiles">{inner}</div>'


def svg_of(figure: Any) -> str:
    """A matplotlib figure as an inline SVG."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", bbox_inches="tight")
    text = buffer.getvalue()
    # What matplotlib says of itself, with the time of day, is of no use in a page.
    return re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)


def _axes(width: float, height: float, columns: int = 1) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, columns)
    for axis in np.atleast_1d(axes):
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(True, color="#e6eaef", linewidth=0.8)
        axis.tick_params(labelsize=9, colors="#5b6775")
    return figure, axes


def _error_plot(future: Future) -> str:
    errors = future.errors
    if errors is None:
        return ""
    moved = any(o.moved for o in errors.objects)
    figure, axes = _axes(10.6, 2.5, 2)
    for axis, only, title in (
        (axes[0], False, "all objects"),
        (axes[1], True, "objects that truly move"),
    ):
        top = 0.0
        for backend in ("still", "straight", "imagined"):
            values = 1e3 * errors.mean_error(backend, moved_only=only)
            if np.isfinite(values).any():
                width = 2.4 if backend == "imagined" else 1.4
                axis.plot(errors.times, values, color=_HEX[backend], linewidth=width, label=LABELS[backend])
                # Straight lines soon leave any scale on which the others can be told apart.
                top = max(top, float(np.nanmax(values)) if backend != "straight" else 0.0)
        axis.set_title(title, fontsize=10, loc="left", color="#17202b")
        axis.set_xlabel("s after the question", fontsize=9, color="#5b6775")
        axis.set_xlim(0.0, float(errors.times[-1]))
        axis.set_ylim(0.0, max(1.6 * top, 5.0))
    axes[0].set_ylabel("mean error [mm]", fontsize=9, color="#5b6775")
    axes[0].legend(fontsize=9, frameon=False)
    if not moved:
        axes[1].text(0.5, 0.5, "nothing moves", transform=axes[1].transAxes, ha="center", color="#5b6775")
    return svg_of(figure)


def _latency_plot(latency: Mapping[str, Any]) -> str:
    stamps = latency.get("stamps") or []
    seconds = [(s["to_ns"] - s["from_ns"]) * 1e-6 for s in stamps if s.get("from_ns") and s.get("to_ns")]
    if len(seconds) < 3:
        return ""
    figure, axis = _axes(10.6, 2.0)
    axis.hist(seconds, bins=min(40, max(8, len(seconds) // 4)), color="#d97706")
    axis.set_xlabel("camera to scene graph [ms]", fontsize=9, color="#5b6775")
    axis.set_ylabel("graphs", fontsize=9, color="#5b6775")
    return svg_of(figure)


def _mm(value: float | None) -> str:
    return "–" if value is None or not np.isfinite(value) else f"{1e3 * value:.1f}"


def _ms(value: float | None) -> str:
    if value is None or not np.isfinite(value):
        return "–"
    return f"{1e3 * value:.0f} ms" if value < 1.0 else f"{value:.1f} s"


def _events(results: DemoResults, future: Future) -> str:
    rollout, graph = results.rollouts["imagined"], results.graph
    static = set(graph.ids[graph.is_static].tolist())
    said = []
    for e in rollout.events:
        if e.hypothesis != future.index or e.sample != 0 or e.time_s <= 0.0 or e.b in static:
            continue
        other = f" and {_who(results, e.b)}" if e.b else ""
        said.append(f"{e.time_s:.2f} s {e.kind.name.lower()}: {_who(results, e.a)}{other}")
    if not said:
        return ""
    more = f"; and {len(said) - 8} more" if len(said) > 8 else ""
    return f'<p class="note">Imagined to happen: {escape("; ".join(said[:8]))}{more}.</p>'


def _who(results: DemoResults, object_id: int) -> str:
    return object_name(results.graph, object_id) if object_id in results.graph.ids else f"pusher #{object_id}"


def _effects(results: DemoResults, future: Future) -> str:
    """What the intervention changes, as imagined."""
    if not future.question.hypothesis.interventions:
        return ""
    rollout = results.rollouts["imagined"]
    changes = []
    for n, object_id in enumerate(rollout.object_ids.tolist()):
        effect = float(rollout.effect[future.index, n])
        if np.isfinite(effect) and effect > 0.01:
            changes.append((effect, f"{_who(results, object_id)} by {100 * effect:.0f} cm"))
    changes.sort(reverse=True)
    text = ", ".join(c for _, c in changes) or "nothing by more than 1 cm"
    return f'<p class="note">Effect against the factual future, as imagined: {escape(text)}.</p>'


def _hypothesis_table(results: DemoResults) -> str:
    headings = ["future", "contacts", "imagined ADE", "FDE"]
    headings += [h for b in BASELINES for h in (f"{LABELS[b]} ADE", "FDE")]
    headings += ["what moves:<br>imagined ADE", "straight lines ADE"]
    rows = []
    for future in results.futures:
        e = future.errors
        if e is None:
            rows.append([escape(future.question.name), "", *["–"] * (len(headings) - 2)])
            continue
        row = [f"<b>{escape(future.question.name)}</b>", "yes" if e.contacts else "no"]
        row += [f"*{_mm(e.average('imagined'))}", f"*{_mm(e.final('imagined'))}"]
        row += [_mm(f(b)) for b in BASELINES for f in (e.average, e.final)]
        row += [f"*{_mm(e.average('imagined', moved_only=True))}", _mm(e.average("straight", moved_only=True))]
        rows.append(row)
    return table(headings, rows)


def _perception_table(results: DemoResults) -> str:
    p = results.perception
    if not p:
        return "<p>Not scored: the recording holds no pairs of perceived and true graphs.</p>"
    rows = [
        ("true movable objects", str(p["objects_true"])),
        ("found", str(p["found"])),
        ("missed", str(p["missed"])),
        ("phantom", str(p["phantom"])),
        ("id switches", str(p["id_switches"])),
        ("position error, median", f"{_mm(p['position_error_median_m'])} mm"),
        ("position error, 90 %", f"{_mm(p.get('position_error_p90_m'))} mm"),
        ("scene graphs compared", str(p.get("frames", "–"))),
    ]
    return table(["perception over the whole run", ""], [list(r) for r in rows])


def _speed_table(results: DemoResults) -> str:
    latency, timings = results.latency, results.timings
    rate = latency.get("rate_to_hz")
    rows = [
        ["camera stamp to scene graph, median", _ms(latency.get("median_s"))],
        ["camera stamp to scene graph, 95 %", _ms(latency.get("p95_s"))],
        ["scene graphs per second (wall clock)", "–" if rate is None else f"{rate:.1f}"],
        ["64 futures of 1 s, through the service", _ms(timings.get("rollouts_64_s"))],
        ["256 futures of 1 s, through the service", _ms(timings.get("rollouts_256_s"))],
    ]
    return table(["wall clock, everything running", ""], rows)


def _scene_table(results: DemoResults) -> str:
    graph, rows = results.graph, []
    ground_truth = {int(i): n for n, i in enumerate(results.ground_truth.ids)}
    for n in range(len(graph)):
        object_id = int(graph.ids[n])
        true = ground_truth.get(results.true_ids.get(object_id, -1))
        error = (
            ""
            if true is None
            else _mm(float(np.linalg.norm(graph.positions[n] - results.ground_truth.positions[true])))
        )
        speed = float(np.linalg.norm(graph.linear_velocities[n]))
        mass = float(np.exp(graph.log_mass[n]))
        rows.append(
            [
                escape(object_name(graph, object_id)),
                "" if true is None else escape(results.ground_truth.class_names[true]),
                " ".join(f"{v:+.3f}" for v in graph.positions[n]),
                " × ".join(f"{100 * v:.1f}" for v in graph.extents[n]),
                "static" if graph.is_static[n] else f"{speed:.2f}",
                "" if graph.is_static[n] else f"{1e3 * mass:.0f}",
                "" if true is None else f"{1e3 * float(np.exp(results.ground_truth.log_mass[true])):.0f}",
                error,
            ]
        )
    headings = ["perceived", "truly", "x y z [m]", "size [cm]", "speed [m/s]"]
    headings += ["believed mass [g]", "true mass [g]", "error [mm]"]
    return table(headings, rows, left=(0, 1))


def _files(folder: Path, present: Sequence[tuple[str, str]]) -> str:
    rows = []
    for name, what in present:
        path = folder / name
        if not path.exists():
            continue
        size = sum(f.stat().st_size for f in path.rglob("*")) if path.is_dir() else path.stat().st_size
        link = f'<a href="{escape(name)}{"/" if path.is_dir() else ""}"><code>{escape(name)}</code></a>'
        rows.append([link, escape(what), f"{size / 1e6:.1f} MB" if size > 5e5 else f"{size / 1e3:.0f} kB"])
    return table(["file", "what it is", ""], rows, left=(0, 1))


DEMO_FILES = (
    ("demo.mp4", "the video above"),
    ("metrics.json", "the figures for machines"),
    ("details.json", "more figures: by object, of moved objects alone, timings"),
    ("rollouts.npz", "all futures as arrays (rollouts.json says what is what)"),
    ("demo.mcap", "every topic of the live graph; opens in Foxglove and with rosbags"),
    ("demo.rrd", "the same and the futures for the Rerun viewer: rerun demo.rrd"),
    ("stills", "pictures"),
    ("logs", "what each process printed"),
)


def write_demo_report(
    path: Path, results: DemoResults, metrics: Mapping[str, Any], stills: Mapping[str, Path], video: Path
) -> None:
    """Write the report of a demonstration.

    Args:
        path: of the HTML file.
        results, metrics: what was found.
        stills: pictures by name, as ``video.make_stills`` gives them.
        video: the MP4.
    """
    horizon = float(results.rollouts["imagined"].times[-1])
    scored = [f.errors for f in results.futures if f.errors is not None]
    contact = [e for e in scored if e.contacts]
    ours = float(np.mean([e.average("imagined") for e in contact or scored])) if scored else float("nan")
    straight = float(np.mean([e.average("straight") for e in contact or scored])) if scored else float("nan")
    p = results.perception
    body = [
        tiles(
            [
                (f"{_mm(ours)} mm", f"mean error of imagined positions over {horizon:g} s, in futures with contacts"),
                (f"{_mm(straight)} mm", "the same for straight lines (constant velocity)"),
                (f"{p['found']} of {p['objects_true']}" if p else "–", "objects found by perception"),
                (_ms(results.latency.get("median_s")), "camera to scene graph, median"),
                (_ms(results.timings.get("rollouts_256_s")), "for 256 futures of 1 s, through the service"),
            ]
        ),
        video_html(video, path.parent),
    ]
    body += [f'<p class="warn">{escape(note)}</p>' for note in results.notes]
    body += [
        "<h2>What this is</h2>",
        "<p>A simulated RGB-D camera looks at a table. On a live ROS 2 graph, in processes of their own, perception "
        "turns its images into a scene graph, and imagination answers what-if questions about that graph: it moves "
        "the objects by physics and draws them from what the camera has seen. It knows neither the simulator's "
        "objects nor their masses. The ground truth beside each future comes from the simulator: restored to the "
        "instant of the question, changed in the same way, simulated and rendered again.</p>",
        "<p>ADE is the distance between imagined and true position, averaged over objects and time; FDE that at the "
        f"end, {horizon:g} s ahead. <b>Straight lines</b> lets everything go on at its velocity, <b>nothing moves</b> "
        "leaves it where it is; both start from the same perceived state.</p>",
        "<h2>Imagined against true</h2>",
        '<p class="dim">Millimeters; mean over all movable objects that perception and ground truth share.</p>',
        _hypothesis_table(results),
        "<h2>What was seen</h2>",
    ]
    if "perceiving" in stills:
        body.append(
            picture_html(stills["perceiving"], "The camera and the scene graph at the instant of the question.")
        )
    body += [_scene_table(results), "<h2>The futures</h2>"]
    if "overview" in stills:
        body.append(picture_html(stills["overview"], f"All of them, {horizon:g} s after the question."))
    for future in results.futures:
        q = future.question
        body.append(f"<h3>{escape(q.title)} <small>{escape(q.name)}: {escape(q.detail)}</small></h3>")
        if f"{q.name} sheet" in stills:
            body.append(picture_html(stills[f"{q.name} sheet"]))
        body += [_effects(results, future), _events(results, future), _error_plot(future)]
    body += [
        "<h2>Perception and speed</h2>",
        f'<div class="narrow">{_perception_table(results)}{_speed_table(results)}</div>',
        _latency_plot(results.latency),
        f'<p class="note">Simulator, perception, imagination, recorder and client shared '
        f"{escape(results.machine.get('cores', '?'))} cores. The camera makes 30 frames per simulated second, and the "
        f"simulated world waits for perception where the machine is slow: {results.real_time_factor:.2f} simulated "
        "seconds passed per second.</p>",
        "<h2>Files</h2>",
        _files(path.parent, DEMO_FILES),
        "<h2>Where this was run</h2>",
        table(["", ""], [[escape(k), escape(v)] for k, v in results.machine.items()], left=(0, 1)),
        f'<p class="note">Scene {escape(results.scene_name)}, seed {results.seed}; '
        f"{sum(results.topics.values())} messages of {len(results.topics)} topics recorded; "
        f"{metrics.get('seconds_total', 0):.0f} s in all.</p>",
    ]
    lead = (
        "A world model that a robot can ask “what if”: from camera to imagined futures, each beside what truly follows."
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page("wm: imagined futures", lead, [part for part in body if part]))
