"""``wm run --rgbd FOLDER``: a recorded clip through the live graph, and what could be done to an object in it.

The player, perception, imagination and the recorder run as processes of their own. Afterwards: a video of the overlay,
a report of which object was there in which frame, and on request the imagined removal and fall of one of them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.markup import escape as escape_markup

from wm_bringup.client import ClientError, GraphClient, decode_frames
from wm_bringup.demo.capture import CAMERA_TOPICS, NAMESPACE, environment
from wm_bringup.demo.scenarios import clearance, distance_to_edge, object_name, radius_xy, support_of
from wm_bringup.environment import make_console
from wm_bringup.progress import ProgressLog
from wm_bringup.recording.empty_result import empty_text
from wm_bringup.recording.recordings import read
from wm_bringup.report import drawing
from wm_bringup.report.drawing import Drawing, Picture, VideoWriter, save_png, sheet
from wm_bringup.report.page import page, picture_html, table, tiles, video_html
from wm_bringup.report.results import machine_facts
from wm_bringup.run.node_command import node_command
from wm_bringup.run.nodes import START_S, start_nodes
from wm_bringup.run.players import WAITING, Playing, player_command, player_notes
from wm_bringup.run.private_graph import graph_environment
from wm_bringup.run.processes import NodeRefused, ProcessDied, ProcessGroup, check_nodes
from wm_bringup.sources.layouts import open_folder
from wm_bringup.sources.playback import SourceError
from wm_bringup.sources.recording import Recording
from wm_bringup.sources.rgbd_folder import prepared
from wm_core import interventions as do
from wm_core.camera import Camera
from wm_core.constants import GRAVITY_M_S2
from wm_core.geometry import invert_transform
from wm_core.interventions import Hypothesis
from wm_core.rollout import POSITION, ImageRequest, ImagineRequest
from wm_core.scene_graph import PRIOR_FRICTION, SceneGraph

HORIZON_S = 2.0
VIDEO_RATE_HZ = 15.0
COMPACT_M = (0.04, 0.25)
"""Smallest and largest side of an object that one would push about."""
CERTAIN = 0.5
FALLS_BEYOND_M = 0.15
"""Where a pushed object is in the air, about: so far beyond the edge, and so far below it."""
ROOM = 0.1
"""To the border of the picture, as a fraction of its half size; more is no better."""
_DIRECTIONS = 72


class EmptyResult(RuntimeError):
    """A clip in which nothing was found; says why."""


@dataclass(frozen=True)
class Presence:
    """Where and when one object was there.

    Attributes:
        object_id: of it; name: for people; is_static: a support.
        exists: (F,) whether it is in the graph of a frame; seen: (F,) whether it is seen in that frame.
        extents: last known [m].
    """

    object_id: int
    name: str
    is_static: bool
    exists: NDArray[np.bool_]
    seen: NDArray[np.bool_]
    extents: NDArray[np.float64]


@dataclass(frozen=True)
class ClipFrame:
    """Of one stamp: what was published and what was made of it; overlay and graph None where it was left out."""

    stamp_ns: int
    color: Picture
    overlay: Picture | None
    graph: SceneGraph | None


def presence(graphs: list[SceneGraph]) -> list[Presence]:
    """Of every object of a sequence of graphs, those seen most often first."""
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


def in_view(world_T_camera: NDArray[np.float64], point: NDArray[np.float64], radius_m: float, camera: Camera) -> float:
    """How far [fraction of the image's half size] a ball is from the nearest border; negative: not wholly in view."""
    x, y, z = (invert_transform(world_T_camera) @ np.append(point, 1.0))[:3]
    if z <= 0.1:
        return -1.0
    right, down = camera.fx * radius_m / z, camera.fy * radius_m / z
    u, v = camera.fx * x / z + camera.cx, camera.fy * y / z + camera.cy
    across = min(u - right, camera.width - u - right) / (0.5 * camera.width)
    along = min(v - down, camera.height - v - down) / (0.5 * camera.height)
    return float(max(min(across, along), -1.0))


def choose_object(graphs: list[SceneGraph]) -> int | None:
    """Id of the compact object on a large surface that was seen most often; None: there is none.

    Compact by its latest size: an object that is first seen in part may turn out to be a chair.
    """
    areas: dict[int, float] = {}
    latest = {int(i): np.sort(e) for graph in graphs for i, e in zip(graph.ids, graph.extents, strict=True)}
    votes: dict[int, float] = {}
    for graph in graphs:
        for row in np.flatnonzero(~graph.is_static).tolist():
            extents = latest[int(graph.ids[row])]
            if extents[0] < COMPACT_M[0] or extents[2] > COMPACT_M[1]:
                continue
            support = support_of(graph, row)
            if support is None or graph.last_seen_ns[row] != graph.stamp_ns:
                continue
            object_id = int(graph.ids[row])
            areas[object_id] = float(np.prod(graph.extents[support][:2]))
            votes[object_id] = votes.get(object_id, 0.0) + float(graph.visibilities[row])
    if not votes:
        return None
    largest = max(areas.values())
    return max(votes, key=lambda i: votes[i] * (1.0 if areas[i] > 0.25 * largest else 0.1))


def way_off(
    graph: SceneGraph, row: int, cost_of: Callable[[NDArray[np.float64]], float] = lambda fallen: 0.0
) -> tuple[NDArray[np.float64], float]:
    """Unit direction (2,) of the shortest free way over the edge of what an object stands on, and its length [m].

    Args:
        cost_of: meters that a way counts as longer, by the place (3,) where it leads to, in the air beside the edge.
    """
    best: tuple[float, NDArray[np.float64], float] | None = None
    for k in range(_DIRECTIONS):
        angle = 2.0 * np.pi * k / _DIRECTIONS
        direction = np.array([np.cos(angle), np.sin(angle)])
        edge = distance_to_edge(graph, row, direction)
        if not np.isfinite(edge):
            continue
        free = clearance(graph, row, direction, radius_xy(graph, row))
        fallen = graph.positions[row] + np.array([*((edge + FALLS_BEYOND_M) * direction), -FALLS_BEYOND_M])
        # A way that is blocked counts as much longer.
        cost = edge + (0.5 if free < edge - 1e-6 else 0.0) + cost_of(fallen)
        if best is None or cost < best[0]:
            best = (cost, direction, edge)
    if best is None:
        return np.array([1.0, 0.0]), 0.3
    return best[1], best[2]


def _scenarios(graph: SceneGraph, object_id: int, camera: Camera) -> list[tuple[Hypothesis, str, str]]:
    """(hypothesis, question, what is changed)."""
    row = graph.index(object_id)
    who = object_name(graph, object_id)

    def out_of_view(fallen: NDArray[np.float64]) -> float:
        return 0.3 if in_view(graph.world_T_camera, fallen, radius_xy(graph, row), camera) < 0.0 else 0.0

    direction, distance = way_off(graph, row, out_of_view)
    # Sliding to a stop takes v^2 / (2 mu g); beyond the edge it shall still be going.
    speed = float(np.sqrt(2.0 * PRIOR_FRICTION * GRAVITY_M_S2 * (distance + radius_xy(graph, row)))) + 0.3
    velocity = speed * np.array([*direction, 0.0])
    return [
        (Hypothesis("factual"), "What will happen?", "nothing is changed"),
        (Hypothesis("remove", (do.remove(object_id),)), f"What if {who} were not there?", "it is removed"),
        (
            Hypothesis("push", (do.set_velocity(object_id, velocity.tolist()),)),
            f"What if {who} were pushed off the table?",
            f"it gets {speed:.1f} m/s towards an edge {100 * distance:.0f} cm away",
        ),
    ]


def run_clip(
    folder: Path,
    out: Path,
    imagine: bool,
    perception: Mapping[str, Any] | None = None,
    playing: Playing | None = None,
) -> int:
    """Play a folder through the graph and report; the exit status.

    Args:
        folder: of color, depth and pose files.
        out: folder for what it writes.
        imagine: also imagine an object removed, and pushed off the table.
        perception: further parameters of perception, e.g. of ``live.model_parameters``.
        playing: how the recording is played.
    """
    console = make_console()
    try:
        recording = open_folder(folder)
        out.mkdir(parents=True, exist_ok=True)
        _run(recording, out, imagine, ProgressLog(console), perception, playing or Playing())
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except (SourceError, ProcessDied, NodeRefused, ClientError, EmptyResult, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _run(
    recording: Recording,
    out: Path,
    imagine: bool,
    progress: ProgressLog,
    perception: Mapping[str, Any] | None,
    playing: Playing,
) -> None:
    environ = graph_environment()
    mcap = out / "run.mcap"
    imagined: _Imagined | None = None
    with (
        environment(environ),
        ProcessGroup(out / "logs", environ) as processes,
        GraphClient("wm_clip", NAMESPACE, lambda: check_nodes(processes)) as client,
    ):
        with progress.stage("start perception, imagination and the recorder"):
            arguments = ["--out", str(mcap), "--latency", str(out / "latency.json")]
            processes.start("recorder", node_command("wm_bringup.recording.recorder", arguments=arguments))
            given = {**WAITING, **(perception or {})}
            start_nodes(processes, namespace=NAMESPACE, parameters={"use_sim_time": True}, perception=given)
            client.wait_for(
                lambda: client.ready() and min(map(client.node.count_subscribers, CAMERA_TOPICS)) >= 2,
                START_S,
                "the nodes to start",
            )
        with progress.stage(f"play {len(recording.frames)} frames of {recording.folder.name}") as stage:
            command = player_command(recording.folder, None, playing, (), NAMESPACE, subscribers=3)
            assert command is not None
            player = processes.start("player", command, may_end=True)
            while player.alive:
                client.spin(0.1)
                stage.detail(f"{len(client.graphs)} scene graphs")
            client.spin(1.0)
            processes.check()
            stage.detail(f"{len(client.graphs)} scene graphs")
        for note in player_notes(player):
            progress.console.print(escape_markup(note))
        graphs = [client.scene(stamp_ns) for stamp_ns in client.graphs]
        if not graphs:
            raise ClientError(f"no scene graph came; run: wm doctor; logs: {processes.log_folder}")
        object_id = choose_object(graphs)
        if imagine and object_id is not None:
            with progress.stage(
                f"imagine {object_name(graphs[-1], object_id)} removed, and pushed off the table"
            ) as stage:
                imagined = _imagine(client, recording, graphs, object_id, stage)
        with progress.stage("stop the graph"):
            processes.stop()
    with progress.stage("write the video, the pictures and the report"):
        frames = _frames(mcap, {g.stamp_ns: g for g in graphs})
        _write(out, recording, frames, object_id, imagined)
    _print(progress.console, graphs, object_id, len(frames))
    if imagine and object_id is None:
        progress.console.print("[yellow]note:[/] nothing compact stands on a surface, so nothing was imagined")
    progress.console.print(f"{out / 'report.html'}, {out / 'run.mp4'}, {out / 'run.mcap'}")
    if not any((~g.is_static).any() for g in graphs):
        supports = max(int(g.is_static.sum()) for g in graphs)
        frame = prepared(recording, playing.register, playing.level).frame(len(recording.frames) // 2)
        raise EmptyResult(f"{recording.folder}: {empty_text(len(graphs), supports, frame)}")


@dataclass(frozen=True)
class _Imagined:
    """Futures of the object: questions, pictures by future, times of the pictures [s], its paths (K, T, 3) [m]."""

    object_id: int
    graph: SceneGraph
    camera: Camera
    scenarios: list[tuple[Hypothesis, str, str]]
    pictures: list[list[Picture]]
    times: NDArray[np.float64]
    paths: NDArray[np.float32]
    round_trip_s: float


def _imagine(
    client: GraphClient, recording: Recording, graphs: list[SceneGraph], object_id: int, stage: Any
) -> _Imagined:
    camera = recording.camera
    # The latest frame is the one best remembered; but it has to be in it.
    best = None
    for graph in graphs:
        if object_id not in graph.ids:
            continue
        row = graph.index(object_id)
        if graph.last_seen_ns[row] != graph.stamp_ns:
            continue
        radius = 0.5 * float(graph.extents[row].max())
        room = min(in_view(graph.world_T_camera, graph.positions[row], radius, camera), ROOM)
        if best is None or room >= best[0] - 1e-9:
            best = (room, graph)
    assert best is not None
    graph = best[1]
    scenarios = _scenarios(graph, object_id, camera)
    images = ImageRequest(
        video=True, rate_hz=VIDEO_RATE_HZ, camera=camera, world_T_camera=np.asarray(graph.world_T_camera)
    )
    request = ImagineRequest(tuple(q[0] for q in scenarios), HORIZON_S, images=images)

    def show(feedback: Any) -> None:
        stage.detail(f"{feedback.progress:4.0%} {scenarios[feedback.hypothesis][0].name}")

    answer = client.ask_streaming(request, graph, show)
    colors, _ = decode_frames(answer)
    rollout = answer.rollout
    count = len(rollout.frame_times)
    column = int(np.flatnonzero(rollout.object_ids == object_id)[0])
    stage.detail(f"{len(scenarios)} futures, {len(colors)} pictures in {answer.round_trip_s:.1f} s")
    # A future that is not valid is drawn as nothing that happens, and said.
    for text in rollout.warnings:
        stage.detail(text)
    paths = rollout.states[:, 0, :, column, POSITION]
    paths = np.where(rollout.usable[:, None, None], paths, paths[:, :1])
    return _Imagined(
        object_id,
        graph,
        camera,
        scenarios,
        [colors[k * count : (k + 1) * count] for k in range(len(scenarios))],
        rollout.frame_times,
        paths,
        answer.round_trip_s,
    )


def _frames(mcap: Path, graphs: dict[int, SceneGraph]) -> list[ClipFrame]:
    """What was published, with what was made of it."""
    from wm_ros.images.pixels import image_to_rgb

    overlay_topic = f"{NAMESPACE}/overlay"
    colors: dict[int, Any] = {}
    overlays: dict[int, Any] = {}
    for item in read(mcap, [CAMERA_TOPICS[0], overlay_topic]):
        (colors if item.topic == CAMERA_TOPICS[0] else overlays)[item.stamp_ns] = item
    return [
        ClipFrame(
            stamp,
            image_to_rgb(colors[stamp].message()),
            image_to_rgb(overlays[stamp].message()) if stamp in overlays else None,
            graphs.get(stamp),
        )
        for stamp in sorted(colors)
    ]


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


def _write(
    out: Path, recording: Recording, frames: list[ClipFrame], object_id: int | None, imagined: _Imagined | None
) -> None:
    graphs = [f.graph for f in frames if f.graph is not None]
    rows = presence(graphs)
    shown = [r for r in rows if r.seen.sum() >= 3][:24]
    stills = out / "stills"
    name = next((r.name for r in rows if r.object_id == object_id), "")
    strips: dict[str, Path] = {}
    save_png(stills / "presence.png", presence_picture(shown, object_id))
    with_overlay = [f for f in frames if f.overlay is not None]
    if with_overlay:
        save_png(stills / "overlay.png", with_overlay[len(with_overlay) // 2].overlay)  # type: ignore[arg-type]
    if imagined is not None:
        for k, (hypothesis, _, _) in enumerate(imagined.scenarios):
            chosen = sorted({int(i) for i in np.linspace(0, _last_worth_showing(imagined, k), 5).round()})
            headings = [f"+{imagined.times[c]:.1f} s" for c in chosen]
            strip = sheet([(hypothesis.name, [imagined.pictures[k][c] for c in chosen])], headings, 280)
            strips[hypothesis.name] = save_png(stills / f"{hypothesis.name}.png", strip)
    _video(out / "run.mp4", frames, imagined)
    _data(out / "run.json", recording, graphs, rows, object_id, imagined, len(frames))
    p = next((r for r in rows if r.object_id == object_id), None)
    lead = "A recorded RGB-D clip, played on a live ROS 2 graph: what was found in it, and what could be done to it."
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
    if with_overlay:
        body.append(picture_html(stills / "overlay.png", "The scene graph drawn over the camera's picture."))
    if imagined is not None:
        body.append("<h2>What if?</h2>")
        body.append(
            f"<p>Asked of {escape(name)} at {1e-9 * (imagined.graph.stamp_ns - frames[0].stamp_ns):.1f} s of the clip. "
            "There is no ground truth here; the pictures are drawn from what the camera has seen in all frames before, "
            "so what stood behind the object comes from other views.</p>"
        )
        for hypothesis, question, detail in imagined.scenarios:
            body.append(f"<h3>{escape(question)} <small>{escape(detail)}</small></h3>")
            body.append(picture_html(strips[hypothesis.name]))
    body.append("<h2>Where this was run</h2>")
    body.append(table(["", ""], [[escape(k), escape(v)] for k, v in machine_facts().items()], left=(0, 1)))
    (out / "report.html").write_text(page(f"wm: {recording.folder.name}", lead, [part for part in body if part]))


def _last_worth_showing(imagined: _Imagined, k: int) -> int:
    """Index of the picture in which the object has come to rest, or has just left the view; else the last."""
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
    imagined: _Imagined | None,
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
                "path_m": [[round(float(v), 4) for v in point] for point in imagined.paths[k][::3]],
            }
            for k, q in enumerate(imagined.scenarios)
        }
        found["imagined_s"] = round(imagined.round_trip_s, 3)
    path.write_text(json.dumps(found, indent=1) + "\n")


_PANELS = ((40, 112), (648, 112))
_PANEL = (592, 444)


def _video(path: Path, frames: list[ClipFrame], imagined: _Imagined | None) -> None:
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
        for k, (_, question, detail) in enumerate(imagined.scenarios):
            for n, picture in enumerate(imagined.pictures[k]):
                shown = _page(
                    question,
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


def _print(console: Any, graphs: list[SceneGraph], object_id: int | None, played: int) -> None:
    from rich.markup import escape as rich_escape
    from rich.table import Table

    shown = Table(title=f"{played} frames played, {len(graphs)} scene graphs", title_justify="left")
    for heading in ("object", "seen in", "known in", "size [cm]"):
        shown.add_column(heading if "[" not in heading else rich_escape(heading), justify="right")
    shown.columns[0].justify = "left"
    for p in presence(graphs):
        if p.seen.sum() < 3:
            continue
        name = f"[bold]{p.name}[/]" if p.object_id == object_id else p.name
        size = " x ".join(f"{100 * v:.0f}" for v in p.extents)
        shown.add_row(name, str(int(p.seen.sum())), str(int(p.exists.sum())), size)
    console.print(shown)
