"""The players: what they refuse and how they say it, and what arrives on the graph."""

from __future__ import annotations

import io
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from hypothesis import given
from hypothesis import strategies as st
from rclpy.executors import SingleThreadedExecutor
from rclpy.serialization import serialize_message
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import String
from tf2_msgs.msg import TFMessage

from wm_bringup.sources import bag_player, rgbd_folder
from wm_bringup.sources.lockstep import images_behind
from wm_bringup.sources.playback import Player, Progress, SourceError
from wm_core.geometry import pose_matrix
from wm_ros import qos
from wm_ros.images.camera_info import info_to_camera
from wm_ros.images.pixels import image_to_depth, image_to_rgb, rgb_to_image
from wm_ros.stamps import ns_to_stamp, stamp_to_ns

S = 1_000_000_000
WIDTH, HEIGHT, FRAMES = 32, 24, 6


def write_folder(folder: Path, numbers: list[int] | None = None) -> Path:
    folder.mkdir(parents=True)
    for number in numbers or [4 * i for i in range(FRAMES)]:
        color = np.full((HEIGHT, WIDTH, 3), (10, 20, 30 + number), np.uint8)  # blue, green, red
        depth = np.full((HEIGHT, WIDTH), 1000 + number, np.uint16)
        depth[0, :2] = 0, 65535
        cv2.imwrite(str(folder / f"frame-{number:06d}.color.png"), color)
        cv2.imwrite(str(folder / f"frame-{number:06d}.depth.png"), depth)
        pose = pose_matrix([0.1 * number, 0.0, 1.0], [-0.5, 0.5, -0.5, 0.5])
        np.savetxt(folder / f"frame-{number:06d}.pose.txt", pose)
    np.savetxt(folder / "camera-intrinsics.txt", [[30.0, 0, 15.5], [0, 31.0, 11.5], [0, 0, 1]])
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "clip")


# Folders.


def test_a_folder_is_read(folder: Path):
    recording = rgbd_folder.open_folder(folder)
    assert len(recording.frames) == FRAMES and recording.duration_s == pytest.approx(20 / 30.0)
    assert (recording.camera.fx, recording.camera.fy, recording.camera.width) == (30.0, 31.0, WIDTH)
    color, depth = recording.load(2)
    assert color[0, 0].tolist() == [38, 20, 10] and depth[5, 5] == pytest.approx(1.008)
    assert depth[0, :2].tolist() == [0.0, 0.0]
    np.testing.assert_allclose(recording.frames[2].world_T_camera[:3, 3], [0.8, 0.0, 1.0])
    assert rgbd_folder.open_folder(folder, rate_hz=10.0).duration_s == pytest.approx(0.5)


def test_frames_without_a_pose_are_left_out(folder: Path):
    np.savetxt(folder / "frame-000008.pose.txt", np.full((4, 4), -np.inf))
    recording = rgbd_folder.open_folder(folder)
    assert len(recording.frames) == FRAMES - 1 and recording.left_out == 1


def break_depth_size(folder: Path) -> None:
    cv2.imwrite(str(folder / "frame-000000.depth.png"), np.ones((12, 16), np.uint16))


def break_depth_type(folder: Path) -> None:
    cv2.imwrite(str(folder / "frame-000000.depth.png"), np.ones((HEIGHT, WIDTH), np.uint8))


@pytest.mark.parametrize(
    ("damage", "texts"),
    [
        (lambda f: shutil.rmtree(f), ("clip: no such folder",)),
        (lambda f: (shutil.rmtree(f), f.write_text("")), ("clip: is a file, expected a folder",)),
        (lambda f: [p.unlink() for p in f.glob("*.color.png")], ("clip", "expected frame-N.color.jpg")),
        (lambda f: (f / "frame-000004.depth.png").unlink(), ("frame-000004.depth.png: no such file",)),
        (lambda f: (f / "frame-000004.pose.txt").write_text("1 2 3"), ("frame-000004.pose.txt: 3 numbers", "16")),
        (lambda f: (f / "frame-000004.pose.txt").write_text("a " * 16), ("frame-000004.pose.txt", "'a'", "4x4")),
        (lambda f: np.savetxt(f / "frame-000004.pose.txt", 2 * np.eye(4)), ("frame-000004.pose.txt: not a rigid",)),
        (lambda f: (f / "camera-intrinsics.txt").unlink(), ("camera-intrinsics.txt: no such file",)),
        (lambda f: np.savetxt(f / "camera-intrinsics.txt", np.zeros((3, 3))), ("camera-intrinsics.txt", "fx")),
        (lambda f: (f / "frame-000000.color.png").write_bytes(b"x"), ("frame-000000.color.png: does not decode",)),
        (lambda f: (f / "frame-000000.depth.png").write_bytes(b"x"), ("frame-000000.depth.png: does not decode",)),
        (break_depth_size, ("frame-000020.depth.png: 32x24, expected 16x12",)),
        (break_depth_type, ("frame-000000.depth.png: is uint8", "16-bit")),
        (lambda f: [p.write_text("nan " * 16) for p in f.glob("*.pose.txt")], ("6 frames and none",)),
        (lambda f: (f / "camera.yaml").write_text("fx: 3"), ("camera.yaml", "fy")),
        (
            lambda f: (f / "camera.yaml").write_text("{fx: 3, fy: 3, cx: 1, cy: 1, depth_scale: -1}"),
            ("depth_scale -1",),
        ),
    ],
)
def test_a_bad_folder_is_refused_by_file(
    folder: Path, damage: Callable[[Path], Any], texts: tuple[str, ...], capsys: pytest.CaptureFixture[str]
):
    damage(folder)
    with pytest.raises(SourceError) as caught:
        rgbd_folder.open_folder(folder)
    assert all(t in str(caught.value) for t in texts), caught.value
    assert rgbd_folder.main([str(folder), "--check"]) == 1
    printed = capsys.readouterr().err
    assert printed.startswith("error: ") and printed.count("\n") == 1


def test_a_late_bad_file_is_found_by_check_and_rates_are_bounded(folder: Path, capsys: pytest.CaptureFixture[str]):
    (folder / "frame-000016.color.png").write_bytes(b"x")
    assert rgbd_folder.main([str(folder), "--check", "--no-level"]) == 1
    assert "frame-000016.color.png" in capsys.readouterr().err
    with pytest.raises(SourceError, match="got 0 Hz"):
        rgbd_folder.open_folder(folder, rate_hz=0.0)
    with pytest.raises(SourceError, match="speed: got 0"):
        Player("p", [], speed=0.0)
    with pytest.raises(SystemExit):
        rgbd_folder.main([str(folder), "--nonsense"])


def test_too_little_to_level_says_what_to_do(folder: Path):
    for path in folder.glob("*.depth.png"):
        cv2.imwrite(str(path), np.zeros((HEIGHT, WIDTH), np.uint16))
    recording = rgbd_folder.open_folder(folder)
    with pytest.raises(SourceError, match=r"is depth missing.*--level off"):
        recording.leveled("on")
    # Given poses are believed.
    assert "taken as they are" in recording.leveled().notes[0]
    for path in folder.glob("*.pose.txt"):
        path.unlink()
    with pytest.raises(SourceError, match="--level off"):
        rgbd_folder.open_folder(folder).leveled()


def test_tum_folders_are_read(tmp_path: Path):
    folder = tmp_path / "tum"
    (folder / "rgb").mkdir(parents=True)
    (folder / "depth").mkdir()
    lists: dict[str, list[str]] = {"rgb": ["# color"], "depth": [], "groundtruth": ["# stamp tx ty tz qx qy qz qw"]}
    for i in range(5):
        stamp = 100.0 + i / 30.0
        cv2.imwrite(str(folder / f"rgb/{i}.png"), np.full((HEIGHT, WIDTH, 3), 50, np.uint8))
        cv2.imwrite(str(folder / f"depth/{i}.png"), np.full((HEIGHT, WIDTH), 5000, np.uint16))
        lists["rgb"].append(f"{stamp:.4f} rgb/{i}.png")
        lists["depth"].append(f"{stamp + 0.005:.4f} depth/{i}.png")
        if i != 3:
            lists["groundtruth"].append(f"{stamp + 0.002:.4f} {i} 0 0 0 0 0 1")
    for name, rows in lists.items():
        (folder / f"{name}.txt").write_text("\n".join(rows))
    # The benchmark's intrinsics are for its own size.
    with pytest.raises(SourceError, match=r"camera-intrinsics.txt: no such file.*32x24.*640x480"):
        rgbd_folder.open_folder(folder)
    np.savetxt(folder / "camera-intrinsics.txt", [[525.0, 0, 15.5], [0, 525.0, 11.5], [0, 0, 1]])
    recording = rgbd_folder.open_folder(folder)
    assert len(recording.frames) == 4 and recording.left_out == 1
    assert recording.load(0)[1][3, 3] == pytest.approx(1.0) and recording.camera.fx == 525.0
    assert recording.frames[3].world_T_camera[0, 3] == 4.0
    assert recording.frames[3].time_ns == pytest.approx(4 / 30.0 * S, abs=1e6)
    (folder / "camera.yaml").write_text("{fx: 500, fy: 501, cx: 16, cy: 12, depth_scale: 1000}")
    recording = rgbd_folder.open_folder(folder)
    assert recording.camera.fy == 501.0 and recording.load(0)[1][3, 3] == pytest.approx(5.0)
    (folder / "groundtruth.txt").write_text("100.0 1 2\n")
    with pytest.raises(SourceError, match=r"groundtruth.txt:1: '100.0 1 2', expected 8 columns"):
        rgbd_folder.open_folder(folder)
    (folder / "groundtruth.txt").write_text("# nothing\n")
    with pytest.raises(SourceError, match=r"groundtruth.txt: no rows"):
        rgbd_folder.open_folder(folder)


@pytest.mark.slow
def test_the_real_clip_is_turned_upright(shared_data: Path):
    recording = rgbd_folder.open_folder(shared_data / "real_rgbd")
    assert len(recording.frames) == 60 and recording.camera.width == 640
    level = recording.leveled()
    turned = level.frames[0].world_T_camera @ np.linalg.inv(recording.frames[0].world_T_camera)
    for before, after in zip(recording.frames, level.frames, strict=True):
        np.testing.assert_allclose(after.world_T_camera, turned @ before.world_T_camera, atol=1e-9)
        # A hand-held camera: its image's upward direction, -y, points up.
        assert -after.world_T_camera[2, 1] > 0.5


def test_progress_is_a_line_each_five_seconds_without_a_terminal():
    stream = io.StringIO()
    progress = Progress("clip", 10.0, stream)
    for second in range(5):
        progress.show(second)
    progress.show(10.0, "done", final=True)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 2 and lines[1] == "clip [####################] 10.0/10.0 s done"


# The graph.


class Listener:
    """Collects what the players publish."""

    def __init__(self) -> None:
        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        self.node = rclpy.create_node("listener", context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.received: dict[str, list[Any]] = {}

    def listen(self, kind: Any, topic: str, profile: Any) -> list[Any]:
        messages = self.received.setdefault(topic, [])
        self.node.create_subscription(kind, topic, messages.append, profile)
        return messages

    def spin_until(self, condition: Callable[[], Any], what: str, timeout_s: float = 20.0) -> Any:
        deadline = time.monotonic() + timeout_s
        while not (value := condition()):
            assert time.monotonic() < deadline, f"waited {timeout_s:g} s in vain for {what}"
            self.executor.spin_once(timeout_sec=0.02)
        return value

    def close(self) -> None:
        self.executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)


@pytest.fixture
def listener() -> Iterator[Listener]:
    listener = Listener()
    yield listener
    listener.close()


@pytest.mark.ros
def test_a_folder_arrives_as_a_camera_would_send_it(folder: Path, listener: Listener, node_process):
    colors = listener.listen(Image, "/camera/color/image_raw", qos.SENSOR)
    depths = listener.listen(Image, "/camera/depth/image_raw", qos.SENSOR)
    infos = listener.listen(CameraInfo, "/camera/color/camera_info", qos.SENSOR)
    transforms = listener.listen(TFMessage, "/tf", qos.TF)
    clocks = listener.listen(Clock, "/clock", qos.CLOCK)
    process = node_process(
        "wm_bringup.sources.rgbd_folder", str(folder), "--no-level", "--start-time", "50", "--speed", "0.5"
    )
    listener.spin_until(lambda: not process.alive, "the end of the recording")
    listener.spin_until(lambda: len(colors) >= FRAMES - 1, "the frames", 2.0)
    assert process.process.returncode == 0
    # Best effort: a frame may be lost on a busy machine.
    expected = {50 * S + round(4 * i / 30 * S) for i in range(FRAMES)}
    for messages in (depths, infos, [m.transforms[0] for m in transforms]):
        assert len(messages) >= FRAMES - 3
        assert {stamp_to_ns(m.header.stamp) for m in messages} <= expected
    assert image_to_rgb(colors[-1])[0, 0].tolist() == [50, 20, 10]
    assert image_to_depth(depths[-1])[5, 5] == pytest.approx(1.02)
    assert depths[-1].encoding == "16UC1" and colors[-1].header.frame_id == infos[-1].header.frame_id
    assert info_to_camera(infos[-1]).fx == 30.0
    transform = transforms[-1].transforms[0]
    assert (transform.header.frame_id, transform.child_frame_id) == ("map", colors[-1].header.frame_id)
    assert transform.transform.translation.x == pytest.approx(2.0)
    ticks = [stamp_to_ns(c.clock) for c in clocks]
    assert ticks == sorted(ticks) and ticks[-1] == 50 * S + round(20 / 30 * S)
    assert len(ticks) > 40  # between the frames too
    assert "6 frames published" in process.output


@pytest.mark.ros
def test_a_looping_folder_goes_on_in_time_and_ends_on_a_signal(folder: Path, listener: Listener, node_process):
    colors = listener.listen(Image, "/camera/color/image_raw", qos.SENSOR)
    process = node_process(
        "wm_bringup.sources.rgbd_folder", str(folder), "--no-level", "--loop", "--speed", "10", "--no-clock"
    )
    listener.spin_until(lambda: len(colors) > 3 * FRAMES, "three rounds")
    stamps = [stamp_to_ns(c.header.stamp) for c in colors]
    assert stamps == sorted(set(stamps))
    started = time.monotonic()
    process.signal_group(signal.SIGINT)
    assert process.process.wait(5.0) == 0 and time.monotonic() - started < 4.0
    assert "Traceback" not in process.output


# Lock-step.


@pytest.mark.ros
@pytest.mark.parametrize("last", ["/camera/color/camera_info", "/camera/depth/image_raw"])
def test_a_recording_begins_when_perception_hears_each_of_its_publishers(
    last: str, folder: Path, listener: Listener, node_process
):
    topics = {
        "/camera/color/image_raw": Image,
        "/camera/depth/image_raw": Image,
        "/camera/color/camera_info": CameraInfo,
    }
    heard = {topic: listener.listen(kind, topic, qos.SENSOR) for topic, kind in topics.items()}
    reports = listener.node.create_publisher(DiagnosticArray, "/wm/frame_reports", qos.FRAME_REPORTS)
    matched = listener.node.create_publisher(DiagnosticArray, "/wm/matched_inputs", qos.MATCHED_INPUTS)

    def tell(unheard: str = "") -> None:
        values = [KeyValue(key=topic, value=str(int(topic != unheard))) for topic in topics]
        matched.publish(DiagnosticArray(status=[DiagnosticStatus(name="matched_inputs", values=values)]))

    tell(unheard=last)
    process = node_process("wm_bringup.sources.rgbd_folder", str(folder), "--no-level", "--lock-step", "/wm")
    node = listener.node
    listener.spin_until(lambda: all(map(node.count_publishers, topics)), "the player's publishers")
    silent_until = time.monotonic() + 1.5
    listener.spin_until(lambda: time.monotonic() > silent_until, "a while")
    assert process.alive and not any(heard.values())
    tell()
    answered: set[int] = set()

    def ended() -> bool:
        for msg in heard["/camera/depth/image_raw"]:  # published last of its frame
            stamp_ns = stamp_to_ns(msg.header.stamp)
            if stamp_ns not in answered:
                answered.add(stamp_ns)
                report = DiagnosticArray(status=[DiagnosticStatus(level=DiagnosticStatus.OK, name="scene_graph")])
                report.header.stamp = ns_to_stamp(stamp_ns)
                reports.publish(report)
        return not process.alive

    listener.spin_until(ended, "the end of the recording")
    assert process.process.returncode == 0, process.output
    assert f"{FRAMES} frames, {FRAMES} scene graphs" in process.output
    assert len({stamp_to_ns(m.header.stamp) for m in heard["/camera/color/camera_info"]}) == FRAMES


@given(
    st.lists(st.tuples(st.sampled_from(["color", "depth", "tf", "info"]), st.integers(0, 40)), max_size=60),
    st.integers(0, 30),
)
def test_images_come_behind_what_they_need(messages: list[tuple[str, int]], lead: int):
    messages = sorted(messages, key=lambda m: m[1])
    given_in = [(topic, time_ns, f"{n}".encode()) for n, (topic, time_ns) in enumerate(messages)]
    out = list(images_behind(given_in, ("color", "depth"), lead))
    is_image = [m[0] in ("color", "depth") for m in out]
    assert sorted(out) == sorted(given_in)
    for kind in (True, False):
        chosen = [m for m in out if (m[0] in ("color", "depth")) is kind]
        assert chosen == [m for m in given_in if (m[0] in ("color", "depth")) is kind]
    for n, image in enumerate(out):
        if is_image[n]:
            # Nothing that is up to the lead later is still to come, and no image waits for longer than that.
            assert all(later[1] > image[1] + lead for later, i in zip(out[n:], is_image[n:], strict=True) if not i)
            assert all(before[1] <= image[1] + lead for before, i in zip(out[:n], is_image[:n], strict=True) if i)


# Bags.

MESSAGES = 20


def write_bag(path: Path, plugin: StoragePlugin) -> Path:
    store = get_typestore(Stores.ROS2_JAZZY)
    store.register(get_types_from_msg("int32 x", "nowhere_msgs/msg/Odd"))
    with Writer(path, version=9, storage_plugin=plugin) as writer:
        text = writer.add_connection("/text", "std_msgs/msg/String", typestore=store)
        image = writer.add_connection("/robot/rgb", "sensor_msgs/msg/Image", typestore=store)
        static = writer.add_connection("/tf_static", "tf2_msgs/msg/TFMessage", typestore=store)
        odd = writer.add_connection("/odd", "nowhere_msgs/msg/Odd", typestore=store)
        writer.write(static, 10 * S, serialize_message(TFMessage()))
        for i in range(MESSAGES):
            stamp = 10 * S + (i + 1) * S // 20
            writer.write(text, stamp, serialize_message(String(data=f"{i}")))
            rgb = np.full((4, 5, 3), i, np.uint8)
            writer.write(image, stamp, serialize_message(rgb_to_image(rgb, stamp, "cam")))
            writer.write(odd, stamp, b"\x00\x01\x00\x00\x01\x00\x00\x00")
    return path


@pytest.fixture(scope="module", params=["mcap file", "sqlite3"])
def bag(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    plugin = StoragePlugin.SQLITE3 if request.param == "sqlite3" else StoragePlugin.MCAP
    path = write_bag(tmp_path_factory.mktemp("bag") / "bag", plugin)
    return next(path.glob("*.mcap")) if request.param == "mcap file" else path


@pytest.mark.smoke
@pytest.mark.ros
def test_a_bag_arrives_remapped_with_clock_and_latched(bag: Path, listener: Listener, node_process):
    texts = listener.listen(String, "/text", qos.COMMAND)
    colors = listener.listen(Image, "/camera/color/image_raw", qos.SENSOR)
    statics = listener.listen(TFMessage, "/tf_static", qos.TF_STATIC)
    clocks = listener.listen(Clock, "/clock", qos.CLOCK)
    process = node_process(
        "wm_bringup.sources.bag_player", str(bag), "--remap", "/robot/rgb:=/camera/color/image_raw",
        "--start", "0.3", "--duration", "0.5",
    )  # fmt: skip
    listener.spin_until(lambda: not process.alive, "the end of the bag")
    assert process.process.returncode == 0, process.output
    listener.spin_until(lambda: texts and texts[-1].data == "15", "the last text", 2.0)
    numbers = [int(t.data) for t in texts]
    assert numbers == list(range(numbers[0], 16)) and 5 <= numbers[0] < 14
    assert [int(image_to_rgb(c)[0, 0, 0]) for c in colors][-1] == 15
    assert stamp_to_ns(colors[-1].header.stamp) == 10 * S + 16 * S // 20
    assert len(statics) == 1  # recorded before --start, and still holds
    ticks = [stamp_to_ns(c.clock) for c in clocks]
    assert ticks == sorted(ticks) and ticks[0] >= 10.3 * S and ticks[-1] <= 10.81 * S
    assert "topic /odd is left out" in process.output and "nowhere_msgs" in process.output


@pytest.mark.ros
def test_a_looping_bag_goes_back_in_time_and_ends_on_a_signal(tmp_path: Path, listener: Listener, node_process):
    bag = write_bag(tmp_path / "bag", StoragePlugin.MCAP)
    texts = listener.listen(String, "/text", qos.COMMAND)
    process = node_process("wm_bringup.sources.bag_player", str(bag), "--topics", "/text", "--loop", "--speed", "5")
    listener.spin_until(lambda: [t.data for t in texts].count("19") >= 2, "two rounds")
    process.signal_group(signal.SIGTERM)
    assert process.process.wait(5.0) == 0
    assert "Traceback" not in process.output


@pytest.mark.ros
@pytest.mark.parametrize(
    ("arguments", "texts"),
    [
        (["--topics", "/nosuch"], ("no topic /nosuch", "/odd, /robot/rgb, /text, /tf_static")),
        (["--remap", "/nosuch:=/a"], ("no topic /nosuch", "/robot/rgb")),
        (["--remap", "text"], ("--remap text", "/from:=/to")),
        (["--remap", "/text:=/a", "--remap", "/text:=/b"], ("/text is remapped twice",)),
        (["--topics", "/odd"], ("nowhere_msgs/msg/Odd", "install")),
        (["--start", "99"], ("--start 99", "lasts 1.0")),
        (["--start", "-1"], ("--start -1", "expected >= 0")),
        (["--speed", "0"], ("speed: got 0", "0.01 to 100")),
    ],
)
def test_a_bad_request_of_a_bag_is_one_line(
    bag: Path, arguments: list[str], texts: tuple[str, ...], capsys: pytest.CaptureFixture[str]
):
    assert bag_player.main([str(bag), "--wait", "0", *arguments]) == 1
    printed = capsys.readouterr().err
    assert printed.startswith("error: ") and printed.count("\n") == 1 and all(t in printed for t in texts), printed


def test_what_is_no_bag_is_refused(tmp_path: Path, bag: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "text.mcap").write_text("this is no bag")
    (tmp_path / "text.db3").write_text("this is no bag")
    (tmp_path / "image.png").write_text("this is no bag")
    for name, text in (
        ("nosuch.mcap", "no such file"),
        ("text.mcap", "text.mcap"),
        ("text.db3", "text.db3"),
        ("image.png", "expected an .mcap or .db3"),
        (".", "metadata.yaml"),
    ):
        assert bag_player.main([str(tmp_path / name)]) == 1
        printed = capsys.readouterr().err
        assert printed.startswith("error: ") and text in printed, printed
    assert bag_player.main([str(bag), "--info"]) == 0
    printed = capsys.readouterr().out
    assert "/robot/rgb: sensor_msgs/msg/Image, 20 messages" in printed and "1 messages, latched" in printed


def test_message_types_by_name():
    assert bag_player.message_class("std_msgs/msg/String") is String
    with pytest.raises(SourceError, match="PACKAGE/msg/NAME"):
        bag_player.message_class("std_msgs/String")
    with pytest.raises(SourceError, match="install ROS package std_msgs"):
        bag_player.message_class("std_msgs/msg/NoSuch")
