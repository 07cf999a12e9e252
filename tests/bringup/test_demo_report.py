"""The video, the report and the Rerun recording of a demonstration, made of a small one that nobody ran."""

from __future__ import annotations

import base64
import re
from dataclasses import replace

import numpy as np
import pytest
from mcap.well_known import SchemaEncoding
from mcap.writer import Writer
from rclpy.serialization import serialize_message

from wm_bringup.demo.scenarios import choose_scenarios, color_word, object_name
from wm_bringup.environment import message_definition
from wm_bringup.recording import recordings
from wm_bringup.report import drawing, html_parts, page, rerun_file, video, video_pictures
from wm_bringup.report.comparison import HypothesisErrors, ObjectErrors
from wm_bringup.report.results import DemoResults, Future
from wm_core.camera import Camera
from wm_core.rollout import Rollout
from wm_core.scene_graph import SceneGraph, Shape
from wm_ros.conversions.scene_graph import scene_graph_to_msg
from wm_ros.images.camera_info import camera_to_info
from wm_ros.images.pixels import depth_to_image, rgb_to_image

CAMERA = Camera(96, 72, 90.0, 90.0, 47.5, 35.5)
STAMP_NS = 5_000_000_000
SLOPES = {"imagined": 0.01, "straight": 0.1, "still": 0.05}


def scene(stamp_ns: int = STAMP_NS) -> SceneGraph:
    """A table, a ball that rolls towards a can, and a box and a mug that stand aside."""
    return SceneGraph.build(
        [1, 2, 3, 4, 5],
        [(0.0, 0.0, 0.73), (0.0, 0.3, 0.79), (0.0, 0.0, 0.80), (0.2, 0.3, 0.80), (0.2, -0.3, 0.8)],
        [(0.8, 1.3, 0.04), (0.08,) * 3, (0.07, 0.07, 0.1), (0.1,) * 3, (0.1,) * 3],
        shapes=[Shape.BOX, Shape.SPHERE, Shape.CYLINDER, Shape.BOX, Shape.BOX],
        class_names=["support", "ball", "cylinder", "box", "<b>mug</b>"],
        linear_velocities=[(0.0,) * 3, (0.0, -0.7, 0.0), (0.0,) * 3, (0.0,) * 3, (0.0,) * 3],
        colors=[(0.5, 0.4, 0.3), (0.9, 0.5, 0.1), (0.8, 0.8, 0.1), (0.1, 0.2, 0.8), (0.0, 0.5, 0.5)],
        is_static=[True, False, False, False, False],
        stamp_ns=stamp_ns,
    )


@pytest.fixture
def results() -> DemoResults:
    graph = scene()
    scenarios = choose_scenarios(graph)
    times, count = np.arange(7) / 3.0, len(scenarios)
    ids = np.array([*graph.ids, 6])
    states = np.zeros((count, 1, len(times), len(ids), 13), np.float32)
    states[..., 6] = 1.0
    states[:, :, :, :5, :3] = graph.positions
    states[:, 0, :, 1, 1] -= 0.1 * times[None].astype(np.float32)
    present = np.ones((count, len(times), len(ids)), bool)
    present[:, :, 5] = False
    rollout = Rollout(
        STAMP_NS,
        "map",
        tuple(q.name for q in scenarios),
        times,
        ids,
        states,
        present,
        "physics",
        position_std=np.zeros(present.shape, np.float32),
        effect=np.full((count, len(ids)), 0.02, np.float32),
    )
    picture = np.tile(np.arange(96, dtype=np.uint8)[None, :, None], (72, 1, 3))
    futures = []
    for k, question in enumerate(scenarios):
        errors = HypothesisErrors(
            question.name,
            times,
            True,
            tuple(
                ObjectErrors(i, i, i < 4, {b: slope * times for b, slope in SLOPES.items()})
                for i in (2, 3, 4, 5)
            ),
        )  # fmt: skip
        pictures = [picture] * 3
        depth = [np.ones((72, 96), np.float32)] * 3
        futures.append(Future(question, k, pictures, depth, pictures, depth, errors))
    futures[1] = replace(futures[1], true=[], true_depth=[], errors=None)
    return DemoResults(
        scene_name="demo",
        seed=0,
        graph=graph,
        ground_truth=graph,
        true_ids={2: 2, 3: 3, 4: 4, 5: 5},
        futures=futures,
        rollouts={"imagined": rollout, "straight": rollout, "still": rollout},
        true_states=states[:, 0],
        true_present=present,
        true_object_ids=ids,
        frame_times=np.array([0.0, 1.0, 2.0]),
        camera=CAMERA,
        perception={
            "objects_true": 4, "found": 4, "missed": 0, "phantom": 0, "id_switches": 0,
            "position_error_median_m": 0.002, "position_error_p90_m": 0.004, "frames": 10,
        },
        latency={"median_s": 0.05, "p95_s": 0.1, "rate_to_hz": 12.0, "stamps": []},
        timings={"rollouts_64_s": 0.5, "rollouts_256_s": 1.9},
        real_time_factor=0.5,
        notes=["a <note>"],
        machine={"cores": "2", "processor": "x"},
        topics={"/wm/scene_graph": 10},
    )  # fmt: skip


@pytest.fixture
def recording(tmp_path):
    """Ten camera frames, every other with overlay and scene graph."""
    path = tmp_path / "demo.mcap"
    with path.open("wb") as file:
        writer = Writer(file)
        writer.start(profile="ros2")
        channels = {}
        for topic, kind in (
            ("/camera/color/image_raw", "sensor_msgs/msg/Image"),
            ("/camera/depth/image_raw", "sensor_msgs/msg/Image"),
            ("/camera/color/camera_info", "sensor_msgs/msg/CameraInfo"),
            ("/wm/overlay", "sensor_msgs/msg/Image"),
            ("/wm/scene_graph", "wm_msgs/msg/SceneGraph"),
        ):
            schema = writer.register_schema(kind, SchemaEncoding.ROS2, message_definition(kind).encode())
            channels[topic] = writer.register_channel(topic, "cdr", schema)
        for n in range(10):
            stamp_ns = STAMP_NS - (9 - n) * 33_333_333
            color = np.full((72, 96, 3), 20 * n, np.uint8)
            said = {
                "/camera/color/image_raw": rgb_to_image(color, stamp_ns),
                "/camera/depth/image_raw": depth_to_image(np.ones((72, 96), np.float32), stamp_ns),
                "/camera/color/camera_info": camera_to_info(CAMERA, stamp_ns),
            }
            if n % 2:
                said["/wm/overlay"] = rgb_to_image(255 - color, stamp_ns)
                said["/wm/scene_graph"] = scene_graph_to_msg(scene(stamp_ns))
            for topic, message in said.items():
                writer.add_message(channels[topic], n, serialize_message(message), stamp_ns)
        writer.finish()
    return path


@pytest.mark.slow
def test_film_plays_and_lasts_as_long_as_it_should(tmp_path, results, recording):
    import av

    live = video.live_frames(recording, "/camera/color/image_raw", "/wm/overlay", STAMP_NS, whole=True)
    assert [frame.stamp_ns for frame in live] == sorted(frame.stamp_ns for frame in live) and len(live) == 10
    assert live[0].overlay is None and live[2].overlay is live[1].overlay and live[-1].graph.stamp_ns == STAMP_NS
    said = []
    video.make_video(
        tmp_path / "f" / "demo.mp4", results, live, lambda done, text: said.append((done, text)), whole=False
    )
    assert said[-1][0] == 1.0 and [d for d, _ in said] == sorted(d for d, _ in said)
    with av.open(str(tmp_path / "f" / "demo.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert (stream.width, stream.height) == video_pictures.SIZE
        frames = sum(1 for _ in container.decode(stream))
    # Title and end, 0.3 s of the camera, and of each future 2 s at two thirds of their speed and a hold.
    expected_s = 0.5 + 1.0 + 0.6 + len(results.futures) * (2.0 * 1.5 + 0.3)
    assert frames / video.RATE == pytest.approx(expected_s, abs=0.5)


def test_stills(tmp_path, results, recording):
    live = video.live_frames(recording, "/camera/color/image_raw", "/wm/overlay", STAMP_NS, whole=False)
    assert len(live) == 4
    stills = video.make_stills(tmp_path / "stills", results, live)
    names = {future.scenario.name for future in results.futures}
    of_futures = {f"{name} {what}" for name in names for what in ("end", "sheet")}
    assert stills.keys() == {"perceiving", "overview", "summary"} | of_futures
    assert all(path.stat().st_size > 1000 for path in stills.values())


@pytest.mark.slow
def test_report_holds_everything_it_shows(tmp_path, results, recording):
    stills = video.make_stills(tmp_path / "stills", results, [])
    (tmp_path / "demo.mp4").write_bytes(b"not really a video")
    page.write_demo_report(tmp_path / "report.html", results, results.metrics(60.0), stills, tmp_path / "demo.mp4")
    text = (tmp_path / "report.html").read_text()
    assert "dynamics of the futures" in text and "physics" in text
    sources = re.findall(r'src="([^"]{0,40})', text)
    assert len(sources) > len(results.futures) and all(source.startswith("data:") for source in sources)
    assert base64.b64encode(b"not really a video").decode() in text
    assert "http" not in re.sub(r'xmlns(:\w+)?="http://www\.w3\.org[^"]*"', "", text) and "<script" not in text
    assert "a &lt;note&gt;" in text and "<b>mug</b>" not in text
    for future in results.futures:
        assert future.scenario.name in text
    (tmp_path / "large.mp4").write_bytes(b"0" * 100)
    limit, html_parts.MAX_EMBEDDED_VIDEO_BYTES = html_parts.MAX_EMBEDDED_VIDEO_BYTES, 10
    try:
        assert 'src="large.mp4"' in html_parts.video_html(tmp_path / "large.mp4", tmp_path)
        assert html_parts.video_html(tmp_path / "none.mp4", tmp_path) == ""
    finally:
        html_parts.MAX_EMBEDDED_VIDEO_BYTES = limit


def test_rerun_recording_is_complete(tmp_path, results, recording):
    import subprocess
    import sys
    from pathlib import Path

    path = tmp_path / "demo.rrd"
    rerun_file.write_demo(path, results, recording)
    program = Path(sys.executable).with_name("rerun")
    done = subprocess.run([program, "rrd", "verify", path], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    data = path.read_bytes()
    assert len(data) > 10_000


def test_metrics_have_every_key_and_only_numbers(results):
    metrics = results.metrics(61.234)
    assert metrics["seconds_total"] == 61.23
    one = metrics["hypotheses"]["factual"]
    assert set(one) == {
        "ade_m", "fde_m", "ade_straight_m", "fde_straight_m", "ade_still_m", "fde_still_m", "contacts",
    }  # fmt: skip
    assert one["fde_m"] == pytest.approx(0.02) and one["ade_straight_m"] == pytest.approx(0.1)
    assert results.futures[1].scenario.name not in metrics["hypotheses"]
    assert set(metrics["perception"]) == {
        "objects_true", "found", "phantom", "missed", "id_switches", "position_error_median_m",
    }  # fmt: skip
    assert metrics["latency"]["rollouts_256_s"] == 1.9
    blind = replace(results, perception={}, latency={}, timings={}).metrics(1.0)
    assert set(blind["latency"].values()) == {None} and set(blind["perception"].values()) == {None}


def test_recordings_count_topics(recording):
    assert recordings.counts(recording)["/camera/color/image_raw"] == 10
    assert recordings.counts(recording)["/wm/scene_graph"] == 5


@pytest.mark.parametrize(
    ("color", "word"),
    [
        ((0.9, 0.1, 0.1), "red"),
        ((0.9, 0.5, 0.1), "orange"),
        ((0.47, 0.39, 0.27), "brown"),
        ((0.6, 0.55, 0.1), "yellow"),
        ((0.1, 0.3, 0.7), "blue"),
        ((0.9, 0.9, 0.88), "white"),
        ((0.5, 0.5, 0.5), "gray"),
        ((0.05, 0.05, 0.06), "black"),
        ((0.0, 0.0, 0.0), ""),
        ((0.5, 0.1, 0.6), "purple"),
    ],
)
def test_color_words(color, word):
    assert color_word(np.array(color)) == word


def test_names_for_people():
    graph = scene()
    assert object_name(graph, 2) == "orange ball #2"
    assert object_name(graph, 1) == "support #1"
    assert object_name(graph, 99) == "#99"


def test_canvas():
    page = drawing.Drawing(100, 60)
    page.text(5, 5, "wm", 20, drawing.TEXT, True)
    page.text(98, 58, "beyond the edge", 20)
    page.text(-500, 0, "out of sight", 20)
    assert page.pixels.max() > 200 and page.size == (100, 60)
    page.curve(np.array([[0.0, 0.0], [50.0, 30.0], [np.nan, 0.0], [90.0, 50.0], [99.0, 59.0]]), drawing.TRUE)
    assert (page.pixels[15, 25] > 60).any()
    assert drawing.fit(np.zeros((480, 640, 3), np.uint8), 592, 444) == (592, 444)
    assert drawing.shorten("a long line of text", 60, 16).endswith("…") and drawing.shorten("a", 60, 16) == "a"
    with pytest.raises(ValueError, match="even"):
        drawing.VideoWriter(None, 30, (101, 60))
