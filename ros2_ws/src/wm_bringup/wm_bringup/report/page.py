"""The report of a demonstration, as one HTML file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from wm_bringup.demo.scenarios import object_name
from wm_bringup.report.html_parts import page, picture_html, svg_of, table, tiles, video_html
from wm_bringup.report.results import BASELINES, LABELS, DemoResults, Future, dynamics_facts

_HEX = {"imagined": "#d97706", "straight": "#3b6fd4", "still": "#7b8494"}


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
        axis.set_xlabel("s after the request", fontsize=9, color="#5b6775")
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
    texts = []
    for e in rollout.events:
        if e.hypothesis != future.index or e.sample != 0 or e.time_s <= 0.0 or e.b in static:
            continue
        other = f" and {_who(results, e.b)}" if e.b else ""
        texts.append(f"{e.time_s:.2f} s {e.kind.name.lower()}: {_who(results, e.a)}{other}")
    if not texts:
        return ""
    more = f"; and {len(texts) - 8} more" if len(texts) > 8 else ""
    return f'<p class="note">Imagined to happen: {escape("; ".join(texts[:8]))}{more}.</p>'


def _who(results: DemoResults, object_id: int) -> str:
    return object_name(results.graph, object_id) if object_id in results.graph.ids else f"pusher #{object_id}"


def _effects(results: DemoResults, future: Future) -> str:
    """What the intervention changes, as imagined."""
    if not future.scenario.hypothesis.interventions:
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
            rows.append([escape(future.scenario.name), "", *["–"] * (len(headings) - 2)])
            continue
        row = [f"<b>{escape(future.scenario.name)}</b>", "yes" if e.contacts else "no"]
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
    headings = ["perceived", "true class", "x y z [m]", "size [cm]", "speed [m/s]"]
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
        results, metrics: of the demonstration.
        stills: pictures by name, as ``video.make_stills`` gives them.
        video: the MP4.
    """
    horizon = float(results.rollouts["imagined"].times[-1])
    scored = [f.errors for f in results.futures if f.errors is not None]
    contact = [e for e in scored if e.contacts]
    ours = float(np.mean([e.average("imagined") for e in contact or scored])) if scored else float("nan")
    straight = float(np.mean([e.average("straight") for e in contact or scored])) if scored else float("nan")
    p = results.perception
    facts = results.machine | dynamics_facts(results.rollouts["imagined"].answered_by)
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
        "turns its images into a scene graph, and imagination computes futures of that graph under interventions: it "
        "moves the objects by physics and draws them from what the camera has seen. It knows neither the simulator's "
        "objects nor their masses. The ground truth beside each future comes from the simulator: restored to the "
        "instant of the request, changed in the same way, simulated and rendered again.</p>",
        "<p>ADE is the distance between imagined and true position, averaged over objects and time; FDE that at the "
        f"end, {horizon:g} s ahead. <b>Straight lines</b> lets everything go on at its velocity, <b>nothing moves</b> "
        "leaves it where it is; both start from the same perceived state.</p>",
        "<h2>Imagined against true</h2>",
        '<p class="dim">Millimeters; mean over all movable objects that perception and ground truth share.</p>',
        _hypothesis_table(results),
        "<h2>What was seen</h2>",
    ]
    if "perceiving" in stills:
        body.append(picture_html(stills["perceiving"], "The camera and the scene graph at the instant of the request."))
    body += [_scene_table(results), "<h2>The futures</h2>"]
    if "overview" in stills:
        body.append(picture_html(stills["overview"], f"All of them, {horizon:g} s after the request."))
    for future in results.futures:
        q = future.scenario
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
        table(["", ""], [[escape(k), escape(v)] for k, v in facts.items()], left=(0, 1)),
        f'<p class="note">Scene {escape(results.scene_name)}, seed {results.seed}; '
        f"{sum(results.topics.values())} messages of {len(results.topics)} topics recorded; "
        f"{metrics.get('seconds_total', 0):.0f} s in all.</p>",
    ]
    lead = (
        "A world model that a robot can ask “what if”: from camera to imagined futures, each beside the ground truth."
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page("wm: imagined futures", lead, [part for part in body if part]))
