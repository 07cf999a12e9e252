"""The report of a recorded clip: which object was there in which frame, and the futures of one of them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wm_bringup.demo.clip_choice import in_view
from wm_bringup.demo.scenarios import object_name
from wm_bringup.report import drawing
from wm_bringup.report.drawing import Drawing, Picture, save_png, sheet
from wm_bringup.report.html_parts import page, picture_html, table, tiles, video_html
from wm_bringup.report.results import dynamics_facts, machine_facts
from wm_bringup.sources.recording import Recording
from wm_core.camera import Camera
from wm_core.interventions import Hypothesis
from wm_core.scene_graph import SceneGraph

CERTAIN = 0.5
"""Existence probability above which an object counts as known: more likely there than not."""


@dataclass(frozen=True)
class Presence:
    """In which of F frames one object was there.

    Attributes:
        object_id: of the object; name: for people; is_static: whether it is a support.
        exists: (F,) whether its existence probability is above ``CERTAIN``.
        seen: (F,) whether it was seen in that frame.
        extents: (3,) latest full sizes [m].
    """

    object_id: int
    name: str
    is_static: bool
    exists: NDArray[np.bool_]
    seen: NDArray[np.bool_]
    extents: NDArray[np.float64]


@dataclass(frozen=True)
class ClipFrame:
    """One stamp of the recording.

    Attributes:
        stamp_ns: of it.
        color: as published, (H, W, 3).
        overlay: the scene graph drawn over it; None: perception left this frame out.
        graph: of that stamp; None as for overlay."""

    stamp_ns: int
    color: Picture
    overlay: Picture | None
    graph: SceneGraph | None


def presence(graphs: list[SceneGraph]) -> list[Presence]:
    """One for every object of a sequence of graphs: movable ones first, those seen most often before others."""
    found: dict[int, Presence] = {}
    for f, graph in enumerate(graphs):
        for i, object_id in enumerate(graph.ids.tolist()):
            p = found.get(object_id)
            exists = p.exists if p is not None else np.zeros(len(graphs), bool)
            seen = p.seen if p is not None else np.zeros(len(graphs), bool)
            exists[f] = graph.existence_probabilities[i] > CERTAIN
            seen[f] = graph.last_seen_ns[i] == graph.stamp_ns
            found[object_id] = Presence(
                object_id, object_name(graph, object_id), bool(graph.is_static[i]), exists, seen, graph.extents[i]
            )
    return sorted(found.values(), key=lambda p: (p.is_static, -int(p.seen.sum()), p.object_id))


@dataclass(frozen=True)
class ImaginedClip:
    """Futures of the chosen object, K of them.

    Attributes:
        object_id, graph: of the object, and the scene graph that was asked about.
        camera: of the pictures.
        scenarios: K (hypothesis, title, what is changed).
        pictures: K lists of P pictures (H, W, 3).
        times: (P,) of the pictures [s] after the graph's stamp.
        paths: (K, T, 3) of the object's center [m], NaN where it is absent.
        round_trip_s: from the request to its answer.
        backends: K names of the dynamics that answered."""

    object_id: int
    graph: SceneGraph
    camera: Camera
    scenarios: list[tuple[Hypothesis, str, str]]
    pictures: list[list[Picture]]
    times: NDArray[np.float64]
    paths: NDArray[np.float32]
    round_trip_s: float
    backends: tuple[str, ...]


def presence_picture(rows: list[Presence], object_id: int | None, width: int = 1120) -> Picture:
    """Objects by frames: bright where seen, dim where remembered."""
    label, height, top = 210, 24, 34
    count = len(rows[0].exists) if rows else 0
    picture = Drawing(width, top + len(rows) * height + 12)
    cell = (width - label - 90) / max(count, 1)
    picture.text(label, top - 10, "frame 1", 13, drawing.DIM, anchor="ls")
    picture.text(round(label + cell * count), top - 10, f"{count}", 13, drawing.DIM, anchor="rs")
    picture.text(width - 12, top - 10, "seen", 13, drawing.DIM, anchor="rs")
    for r, row in enumerate(rows):
        y = top + r * height
        chosen = row.object_id == object_id
        picture.text(12, y + height // 2, row.name, 15, drawing.IMAGINED if chosen else drawing.TEXT, chosen, "lm")
        for f in range(count):
            x0, x1 = round(label + f * cell), round(label + (f + 1) * cell)
            color = drawing.PANEL
            if row.seen[f]:
                color = drawing.IMAGINED if chosen else drawing.STRAIGHT if not row.is_static else drawing.TRUE
            elif row.exists[f]:
                color = drawing.LINE
            picture.box(x0, y + 3, max(1, x1 - x0 - 1), height - 6, color)
        picture.text(width - 12, y + height // 2, f"{int(row.seen.sum())} / {count}", 14, drawing.DIM, anchor="rm")
    return picture.pixels


def write_clip_report(
    out: Path, recording: Recording, frames: list[ClipFrame], object_id: int | None, imagined: ImaginedClip | None
) -> None:
    """report.html, run.json and the stills of a clip; shows the video run.mp4 that lies beside them.

    Args:
        out: folder.
        recording: that was played.
        frames: what was published of it, in order of time.
        object_id: of the object that was chosen; None: none was.
        imagined: its futures; None: none were asked for."""
    graphs = [f.graph for f in frames if f.graph is not None]
    rows = presence(graphs)
    shown = [r for r in rows if r.seen.sum() >= 3][:24]
    stills = out / "stills"
    name = next((r.name for r in rows if r.object_id == object_id), "")
    strips: dict[str, Path] = {}
    save_png(stills / "presence.png", presence_picture(shown, object_id))
    with_overlay = [f for f in frames if f.overlay is not None]
    drawn = with_overlay[len(with_overlay) // 2] if with_overlay else None
    if imagined is not None:
        drawn = next((f for f in with_overlay if f.stamp_ns == imagined.graph.stamp_ns), drawn)
    if drawn is not None:
        save_png(stills / "overlay.png", drawn.overlay)  # type: ignore[arg-type]
    if imagined is not None:
        for k, (hypothesis, _, _) in enumerate(imagined.scenarios):
            chosen = sorted({int(i) for i in np.linspace(0, _last_worth_showing(imagined, k), 5).round()})
            headings = [f"+{imagined.times[c]:.2f} s" for c in chosen]
            strip = sheet([(hypothesis.name, [imagined.pictures[k][c] for c in chosen])], headings, 280)
            strips[hypothesis.name] = save_png(stills / f"{hypothesis.name}.png", strip)
    _data(out / "run.json", recording, graphs, rows, object_id, imagined, len(frames))
    p = next((r for r in rows if r.object_id == object_id), None)
    lead = "A recorded RGB-D clip, played on a live ROS 2 graph: the objects found in it, and futures of one."
    figures = [(str(len(frames)), "frames played"), (str(len(graphs)), "scene graphs")]
    if p is not None:
        figures.append((f"{int(p.exists.sum())} / {len(graphs)}", f"frames with {p.name} as one id"))
        figures.append((f"{int(p.seen.sum())} / {len(graphs)}", f"frames in which {p.name} is seen"))
    body = [tiles(figures), video_html(out / "run.mp4", out)]
    body += ["<h2>What was found</h2>"]
    body.append(
        '<p class="dim">One row per object: bright in the frames in which it is seen, dim where it is out of view or '
        "hidden and remembered. Supports (tables, the floor) are green.</p>"
    )
    body += [picture_html(stills / "presence.png"), _object_table(graphs[-1], rows)]
    if drawn is not None:
        number = next(n for n, frame in enumerate(frames, start=1) if frame is drawn)
        which = f"frame {number} of {len(frames)}"
        body.append(picture_html(stills / "overlay.png", f"The scene graph drawn over the camera's picture, {which}."))
    if imagined is not None:
        body.append("<h2>What if?</h2>")
        body.append(
            f"<p>Futures of {escape(name)}, {1e-9 * (imagined.graph.stamp_ns - frames[0].stamp_ns):.1f} s into it. "
            "There is no ground truth here; the pictures are drawn from what the camera has seen in all frames before, "
            "so what stood behind the object comes from other views.</p>"
        )
        for hypothesis, title, detail in imagined.scenarios:
            body.append(f"<h3>{escape(title)} <small>{escape(detail)}</small></h3>")
            body.append(picture_html(strips[hypothesis.name]))
    body.append("<h2>Where this was run</h2>")
    facts = machine_facts()
    if imagined is not None:
        facts |= dynamics_facts(imagined.backends)
    body.append(table(["", ""], [[escape(k), escape(v)] for k, v in facts.items()], left=(0, 1)))
    (out / "report.html").write_text(page(f"wm: {recording.folder.name}", lead, [part for part in body if part]))


def _last_worth_showing(imagined: ImaginedClip, k: int) -> int:
    """Index of the first picture in which the object is at rest or out of view; else of the last."""
    last = len(imagined.times) - 1
    path = imagined.paths[k].astype(np.float64)
    steps = np.linspace(0, len(path) - 1, last + 1).round().astype(int)
    if np.linalg.norm(path[steps[-1]] - path[0]) < 0.02:
        return last
    for n in range(4, last):
        left = in_view(imagined.graph.world_T_camera, path[steps[n]], 0.0, imagined.camera) < 0.0
        rests = np.linalg.norm(path[steps[n] :] - path[steps[-1]], axis=1).max() < 0.02
        if left or rests:
            return n
    return last


def _object_table(graph: SceneGraph, rows: list[Presence]) -> str:
    cells = []
    for p in rows:
        if p.seen.sum() < 3:
            continue
        place = ""
        if p.object_id in graph.ids:
            place = " ".join(f"{v:+.2f}" for v in graph.positions[graph.index(p.object_id)])
        size = " × ".join(f"{100 * v:.0f}" for v in p.extents)
        first = int(np.flatnonzero(p.exists | p.seen)[0]) + 1
        cells.append([escape(p.name), str(int(p.seen.sum())), str(int(p.exists.sum())), str(first), size, place])
    return table(["object", "seen in", "known in", "first in frame", "size [cm]", "place at the end [m]"], cells)


def _data(
    path: Path,
    recording: Recording,
    graphs: list[SceneGraph],
    rows: list[Presence],
    object_id: int | None,
    imagined: ImaginedClip | None,
    played: int,
) -> None:
    found: dict[str, Any] = {
        "folder": recording.folder.name,
        "frames": played,
        "scene_graphs": len(graphs),
        "thing": object_id,
        "objects": [
            {
                "id": p.object_id,
                "name": p.name,
                "static": p.is_static,
                "frames_seen": int(p.seen.sum()),
                "frames_known": int(p.exists.sum()),
                "extents_m": [round(float(v), 4) for v in p.extents],
            }
            for p in rows
        ],
    }
    if imagined is not None:
        found["imagined"] = {
            q[0].name: {
                "question": q[1],
                "detail": q[2],
                "backend": imagined.backends[k],
                "path_m": [
                    [round(float(v), 4) for v in point] if np.isfinite(point).all() else None
                    for point in imagined.paths[k][::3]
                ],
            }
            for k, q in enumerate(imagined.scenarios)
        }
        found["imagined_s"] = round(imagined.round_trip_s, 3)
    path.write_text(json.dumps(found, indent=1) + "\n")
