"""``wm run --rgbd FOLDER``: a recorded clip through the live graph, and futures of an object in it.

The player, perception, imagination and the recorder run as processes of their own. Afterwards: a video of the overlay,
a report of which object was there in which frame, and on request the imagined removal and fall of one of them.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.markup import escape as escape_markup

from wm_bringup.client import ClientError, GraphClient, decode_frames
from wm_bringup.demo.capture import CAMERA_TOPICS, NAMESPACE, environment
from wm_bringup.demo.clip_choice import choose_object, clip_scenarios, in_view
from wm_bringup.demo.clip_report import ClipFrame, ImaginedClip, presence, write_clip_report
from wm_bringup.demo.clip_video import VIDEO_RATE_HZ, write_clip_video
from wm_bringup.demo.scenarios import object_name
from wm_bringup.environment import make_console
from wm_bringup.progress import ProgressLog
from wm_bringup.recording.empty_result import empty_text
from wm_bringup.recording.recordings import read
from wm_bringup.run.node_command import node_command
from wm_bringup.run.nodes import START_S, start_nodes
from wm_bringup.run.players import WAITING, Playing, player_command, player_notes
from wm_bringup.run.private_graph import graph_environment
from wm_bringup.run.processes import NodeRefused, ProcessDied, ProcessGroup, check_nodes
from wm_bringup.sources.layouts import open_folder
from wm_bringup.sources.playback import SourceError
from wm_bringup.sources.recording import Recording
from wm_bringup.sources.rgbd_folder import prepared
from wm_core.rollout import POSITION, ImageRequest, ImagineRequest
from wm_core.scene_graph import SceneGraph

HORIZON_S = 2.0
"""Of the futures: enough for an object to slide over the edge and to fall."""
ROOM = 0.1
"""Distance from the object to the border of the picture, as a fraction of its half size, beyond which frames are
equally good. Larger: the object is nearer to the middle, in an earlier frame."""


class EmptyResult(RuntimeError):
    """A clip in which nothing was found; says why."""


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
        perception: further parameters of perception, e.g. of ``wm_bringup.run.nodes.model_parameters``.
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
    imagined: ImaginedClip | None = None
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
        write_clip_video(out / "run.mp4", frames, imagined)
        write_clip_report(out, recording, frames, object_id, imagined)
    _print(progress.console, graphs, object_id, len(frames))
    if imagine and object_id is None:
        progress.console.print("[yellow]note:[/] nothing compact stands on a surface, so nothing was imagined")
    progress.console.print(f"{out / 'report.html'}, {out / 'run.mp4'}, {out / 'run.mcap'}")
    if not any((~g.is_static).any() for g in graphs):
        supports = max(int(g.is_static.sum()) for g in graphs)
        frame = prepared(recording, playing.register, playing.level).frame(len(recording.frames) // 2)
        raise EmptyResult(f"{recording.folder}: {empty_text(len(graphs), supports, frame)}")


def _imagine(
    client: GraphClient, recording: Recording, graphs: list[SceneGraph], object_id: int, stage: Any
) -> ImaginedClip:
    camera = recording.camera
    # The latest frame in which the object is wholly in view: imagination has seen most by then.
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
    scenarios = clip_scenarios(graph, object_id, camera)
    images = ImageRequest(
        video=True, rate_hz=VIDEO_RATE_HZ, camera=camera, world_T_camera=np.asarray(graph.world_T_camera)
    )
    request = ImagineRequest(tuple(q[0] for q in scenarios), HORIZON_S, images=images)

    def show(feedback: Any) -> None:
        stage.detail(f"{feedback.progress:4.0%} {scenarios[feedback.hypothesis][0].name}")

    answer = client.imagine_streaming(request, graph, show)
    colors, _ = decode_frames(answer)
    rollout = answer.rollout
    count = len(rollout.frame_times)
    column = int(np.flatnonzero(rollout.object_ids == object_id)[0])
    stage.detail(f"{len(scenarios)} futures, {len(colors)} pictures in {answer.round_trip_s:.1f} s")
    # In a future that is not valid the object stays where it is; the warning says so.
    for text in rollout.warnings:
        stage.detail(text)
    paths = rollout.states[:, 0, :, column, POSITION]
    paths = np.where(rollout.usable[:, None, None], paths, paths[:, :1])
    paths = np.where(rollout.present[:, :, column, None], paths, np.nan)
    return ImaginedClip(
        object_id,
        graph,
        camera,
        scenarios,
        [colors[k * count : (k + 1) * count] for k in range(len(scenarios))],
        rollout.frame_times,
        paths,
        answer.round_trip_s,
        rollout.answered_by,
    )


def _frames(mcap: Path, graphs: dict[int, SceneGraph]) -> list[ClipFrame]:
    """The camera's frames with the overlay and the scene graph of the same stamp."""
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
