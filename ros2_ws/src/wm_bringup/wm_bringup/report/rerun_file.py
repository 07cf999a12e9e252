"""A Rerun recording of a demonstration: camera, depth and scene graph over time, and every future in its own time.

Timelines: ``scene`` is the time of the simulated world; ``ahead`` is the time after the request, on which the
imagined and the true futures lie side by side.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import rerun as rr
from numpy.typing import NDArray

from wm_bringup.demo.scenarios import object_name
from wm_bringup.recording.recordings import read
from wm_bringup.report.results import DemoResults
from wm_core.camera import Camera
from wm_core.rollout import POSITION, QUATERNION
from wm_core.scene_graph import SceneGraph

SECONDS = 3.5
"""Length of the live part [s], as in the video; longer makes the file larger."""
_IMAGE_EVERY_NS = 66_000_000
"""Images are thinned to 15 Hz, half the camera's rate, for the size of the file."""
_JPEG_QUALITY = 80
_IMAGINED, _TRUE = (255, 176, 59), (84, 204, 140)


def write_demo(path: Path, results: DemoResults, mcap: Path) -> None:
    """Write the recording.

    Args:
        path: of the .rrd file.
        results: of the demonstration.
        mcap: of the live graph.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    stream = rr.RecordingStream("wm_demo", make_default=False, make_thread_default=False)
    stream.save(path)
    stream.log("world", rr.ViewCoordinates.RIGHT_HAND_Z_UP, static=True)
    _log_live(stream, results, mcap)
    for future in results.futures:
        _log_future(stream, results, future.index)
    stream.log("about", rr.TextDocument(_about(results), media_type="text/markdown"), static=True)
    stream.flush()
    stream.disconnect()


def _about(results: DemoResults) -> str:
    lines = ["# wm: imagined futures beside the ground truth", ""]
    lines += [f"- **{f.scenario.name}**: {f.scenario.title} ({f.scenario.detail})" for f in results.futures]
    lines += ["", "Timeline `scene`: the live graph until the request. Timeline `ahead`: seconds after the request."]
    lines += ["", "`world/futures/NAME/imagined` and `.../true`: boxes and paths; `pictures/NAME/...`: images."]
    return "\n".join(lines)


def _camera(stream: rr.RecordingStream, entity: str, camera: Camera, world_T_camera: NDArray[np.float64]) -> None:
    pose = rr.Transform3D(translation=world_T_camera[:3, 3], mat3x3=world_T_camera[:3, :3])
    stream.log(entity, pose)
    stream.log(
        f"{entity}/image",
        rr.Pinhole(
            image_from_camera=camera.matrix,
            resolution=[camera.width, camera.height],
            camera_xyz=rr.ViewCoordinates.RDF,
            image_plane_distance=0.25,
        ),
    )


def _jpeg(picture: NDArray[np.uint8]) -> rr.EncodedImage:
    ok, data = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    if not ok:
        raise ValueError(f"image of shape {picture.shape}: cannot be encoded as jpeg")
    return rr.EncodedImage(contents=data.tobytes(), media_type="image/jpeg")


def _colors(graph: SceneGraph, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
    return (255.0 * np.clip(graph.colors[rows], 0.0, 1.0)).astype(np.uint8)


def _log_graph(stream: rr.RecordingStream, entity: str, graph: SceneGraph) -> None:
    movable = np.flatnonzero(~graph.is_static)
    stream.log(
        f"{entity}/objects",
        rr.Boxes3D(
            centers=graph.positions[movable],
            half_sizes=0.5 * graph.extents[movable],
            quaternions=graph.quaternions[movable],
            colors=_colors(graph, movable),
            labels=[object_name(graph, int(graph.ids[i])) for i in movable],
        ),
    )
    static = np.flatnonzero(graph.is_static)
    stream.log(
        f"{entity}/supports",
        rr.Boxes3D(
            centers=graph.positions[static],
            half_sizes=0.5 * graph.extents[static],
            quaternions=graph.quaternions[static],
            colors=np.full((len(static), 3), 110, np.uint8),
        ),
    )
    moving = movable[np.linalg.norm(graph.linear_velocities[movable], axis=1) > 0.05]
    stream.log(
        f"{entity}/velocities",
        rr.Arrows3D(
            origins=graph.positions[moving],
            vectors=0.3 * graph.linear_velocities[moving],
            colors=np.tile(_IMAGINED, (len(moving), 1)),
        ),
    )


def _log_live(stream: rr.RecordingStream, results: DemoResults, mcap: Path) -> None:
    from wm_ros.conversions.basics import camera_from_msg
    from wm_ros.conversions.scene_graph import scene_graph_from_msg
    from wm_ros.images.pixels import image_to_depth, image_to_rgb

    color_topic, depth_topic, overlay_topic = "/camera/color/image_raw", "/camera/depth/image_raw", "/wm/overlay"
    info_topic, graph_topic, ground_truth_topic = "/camera/color/camera_info", "/wm/scene_graph", "/sim/scene_graph"
    until_ns = results.graph.stamp_ns
    last: dict[str, int] = {}
    camera: Camera | None = None
    topics = [color_topic, depth_topic, overlay_topic, info_topic, graph_topic, ground_truth_topic]
    for item in read(mcap, topics):
        stamp_ns = item.stamp_ns
        if not until_ns - SECONDS * 1e9 <= stamp_ns <= until_ns:
            continue
        is_graph = item.topic == graph_topic
        if not is_graph and stamp_ns - last.get(item.topic, -_IMAGE_EVERY_NS) < _IMAGE_EVERY_NS:
            continue
        last[item.topic] = stamp_ns
        stream.set_time("scene", duration=1e-9 * stamp_ns)
        if item.topic == color_topic:
            stream.log("world/camera/image/color", _jpeg(image_to_rgb(item.message())))
        elif item.topic == depth_topic:
            depth = np.nan_to_num(image_to_depth(item.message()))[::2, ::2]
            millimeters = np.clip(1e3 * depth, 0.0, 65535.0).astype(np.uint16)
            stream.log("depth", rr.DepthImage(np.ascontiguousarray(millimeters), meter=1000.0))
        elif item.topic == overlay_topic:
            stream.log("overlay", _jpeg(image_to_rgb(item.message())))
        elif item.topic == info_topic and camera is None:
            camera = camera_from_msg(item.message())
        elif is_graph:
            graph = scene_graph_from_msg(item.message())
            _log_graph(stream, "world/scene_graph", graph)
            if camera is not None:
                _camera(stream, "world/camera", camera, graph.world_T_camera)
        elif item.topic == ground_truth_topic:
            _log_graph(stream, "world/truth", scene_graph_from_msg(item.message()))


def _log_future(stream: rr.RecordingStream, results: DemoResults, k: int) -> None:
    future = results.futures[k]
    name, imagined = future.scenario.name, results.rollouts["imagined"]
    ids = imagined.object_ids.tolist()
    graph = results.graph
    extents = {int(i): graph.extents[n] for n, i in enumerate(graph.ids)}
    for intervention in future.scenario.hypothesis.interventions:
        if intervention.creates_body and intervention.body is not None:
            new = [i for i in ids if i not in extents]
            if new:
                extents[new[0]] = intervention.body.extents
    static = set(graph.ids[graph.is_static].tolist())
    shown = [n for n, i in enumerate(ids) if i in extents and i not in static]
    column = {int(i): m for m, i in enumerate(results.true_object_ids)}
    entity = f"world/futures/{name}"
    for row, time_s in enumerate(imagined.times):
        stream.set_time("ahead", duration=float(time_s))
        there = [n for n in shown if imagined.present[k, row, n]]
        states = imagined.states[k, 0, row, there]
        _log_boxes(stream, f"{entity}/imagined", states, [extents[ids[n]] for n in there], _IMAGINED)
        if future.errors is None:
            continue
        pairs = [(n, column[results.true_ids[ids[n]]]) for n in shown if results.true_ids.get(ids[n]) in column]
        pairs = [(n, m) for n, m in pairs if results.true_present[k, row, m]]
        states = results.true_states[k, row, [m for _, m in pairs]]
        sizes = [_true_extents(results, int(results.true_object_ids[m])) for _, m in pairs]
        _log_boxes(stream, f"{entity}/true", states, sizes, _TRUE)
        for backend in results.rollouts:
            error = future.errors.mean_error(backend)[row]
            if np.isfinite(error):
                stream.log(f"errors/{name}/{backend}", rr.Scalars(1e3 * float(error)))
    for f, time_s in enumerate(results.frame_times):
        stream.set_time("ahead", duration=float(time_s))
        stream.log(f"pictures/{name}/imagined", _jpeg(future.imagined[f]))
        if future.true:
            stream.log(f"pictures/{name}/true", _jpeg(future.true[f]))
    stream.reset_time()
    for which, color, paths in (
        ("imagined", _IMAGINED, [imagined.states[k, 0, imagined.present[k, :, n], n, POSITION] for n in shown]),
        ("true", _TRUE, _true_paths(results, k)),
    ):
        moving = [p for p in paths if len(p) > 1 and np.ptp(p, axis=0).max() > 0.005]
        stream.log(f"{entity}/{which}_paths", rr.LineStrips3D(moving, colors=color, radii=0.003), static=True)


def _true_paths(results: DemoResults, k: int) -> list[NDArray[np.float32]]:
    present = results.true_present[k]
    return [results.true_states[k, present[:, m], m, POSITION] for m in range(present.shape[1])]


def _true_extents(results: DemoResults, true_id: int) -> NDArray[np.float64]:
    row = np.flatnonzero(results.ground_truth.ids == true_id)
    return results.ground_truth.extents[row[0]] if len(row) else np.full(3, 0.05)


def _log_boxes(
    stream: rr.RecordingStream, entity: str, states: NDArray[Any], extents: list[NDArray[np.float64]], color: Any
) -> None:
    stream.log(
        entity,
        rr.Boxes3D(
            centers=states[:, POSITION],
            half_sizes=0.5 * np.asarray(extents).reshape(-1, 3),
            quaternions=states[:, QUATERNION],
            colors=np.tile(color, (len(states), 1)),
        ),
    )
