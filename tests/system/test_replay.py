"""Recordings as evidence: replay and comparison, short and unfinished bags, cameras without a pose."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from mcap.writer import Writer
from rclpy.serialization import serialize_message

from tabletop_bag import COLOR, OPTICAL, SHORT, S, write_bag
from tabletop_images import CAMERA, look_down, render
from wm_bringup.recording.graph_file import ReplayError
from wm_bringup.recording.mcap_file import McapFile, McapFileError
from wm_bringup.recording.replay import GRAPHS_FILE, SUMMARY_FILE, replay
from wm_bringup.recording.run_comparison import compare
from wm_bringup.sources.playback import SourceError
from wm_ros.conversions.scene_graph import scene_graph_from_msg
from wm_ros.images.pixels import depth_to_millimeters

pytestmark = [pytest.mark.ros, pytest.mark.slow]

GEOMETRIC = {"pipeline.segmenter": "geometric", "pipeline.reasoner": "geometric"}


def wm(*arguments: str, timeout: float = 240.0, **kwargs) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "wm_bringup.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False, **kwargs)


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bag(tmp_path_factory.mktemp("bags") / "short.mcap")


@pytest.fixture(scope="module")
def replayed(bag: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("replayed")
    done = wm("replay", str(bag), "--out", str(out), env={**os.environ, "PYTHONHASHSEED": "1"})
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{SHORT} frames, {SHORT} scene graphs" in done.stdout
    return out


def graphs(path: Path) -> list:
    from rclpy.serialization import deserialize_message
    from wm_msgs.msg import SceneGraph

    with McapFile(path) as file:
        found = [deserialize_message(m.data, SceneGraph) for m in file.messages(["/wm/scene_graph"])]
    return [scene_graph_from_msg(m) for m in found]


# Replay.


def test_two_replays_are_the_same_file_at_any_speed(bag: Path, replayed: Path, tmp_path: Path):
    env = {**os.environ, "PYTHONHASHSEED": "2"}
    done = wm("replay", str(bag), "--out", str(tmp_path), "--rate", "1", env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / GRAPHS_FILE).read_bytes() == (replayed / GRAPHS_FILE).read_bytes()
    assert (tmp_path / SUMMARY_FILE).read_bytes() == (replayed / SUMMARY_FILE).read_bytes()
    facts = json.loads((replayed / SUMMARY_FILE).read_text())
    assert facts["scene_graphs"] == SHORT and facts["refused"] == {} and facts["versions"]["onnxruntime"]
    assert facts["scene_graphs_sha256"] in done.stdout
    done = wm("compare", str(replayed), str(tmp_path))
    assert done.returncode == 0 and f"identical: every field of {SHORT} scene graphs" in done.stdout
    found = graphs(replayed / GRAPHS_FILE)
    assert [g.stamp_ns for g in found] == [100 * S + i * S // 15 for i in range(SHORT)]
    assert (~found[-1].is_static).any() and found[-1].is_static.any()


def test_a_replay_says_what_it_lacks(bag: Path, tmp_path: Path):
    done = wm("replay", str(bag), "--out", str(tmp_path), "--remap", f"{COLOR}:=/elsewhere")
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert f"no color on {COLOR}" in done.stderr and "--remap /ITS_NAME:=" in done.stderr
    with pytest.raises(ReplayError, match=r"perception refused its configuration: .*no/such"):
        replay(bag, tmp_path, perception={"pipeline.reasoner_model": "/no/such.onnx"})
    with pytest.raises(SourceError, match="not from 'odom'; they know camera_color_optical_frame, map"):
        replay(bag, tmp_path, perception={**GEOMETRIC, "world_frame": "odom"})


def test_frames_that_perception_refuses_are_counted_with_the_reason(bag: Path, tmp_path: Path):
    with pytest.raises(ReplayError, match=r"11 frames and no scene graph; 11 refused, tf_missing: .*'nowhere'"):
        replay(bag, tmp_path, perception={**GEOMETRIC, "camera_frame": "nowhere"})


def test_a_unit_that_is_guessed_is_guessed_from_the_recording_alone(bag: Path, tmp_path: Path):
    given = {**GEOMETRIC, "depth_scale_guess": "apply"}
    for name, rate in (("fast", 0.0), ("slow", 1.0)):
        replay(bag, tmp_path / name, perception=given, rate=rate)
    # Until three images agree nothing is made of them.
    assert len(graphs(tmp_path / "fast" / GRAPHS_FILE)) == SHORT - 2
    assert (tmp_path / "fast" / GRAPHS_FILE).read_bytes() == (tmp_path / "slow" / GRAPHS_FILE).read_bytes()


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_damage_inside_a_finished_bag_is_said_by_file(bag: Path, tmp_path: Path, share: float):
    data = bytearray(bag.read_bytes())
    begin = int(share * len(data))
    data[begin : begin + 64] = bytes(255 - b for b in data[begin : begin + 64])
    damaged = tmp_path / "damaged.mcap"
    damaged.write_bytes(data)
    with McapFile(damaged) as file, pytest.raises(McapFileError, match=r"damaged\.mcap: damaged"):
        list(file.messages())
    with pytest.raises(SourceError, match=r"damaged\.mcap"):
        replay(damaged, tmp_path / "out", perception=GEOMETRIC)


def test_a_full_disk_is_said(bag: Path, tmp_path: Path):
    (tmp_path / GRAPHS_FILE).symlink_to("/dev/full")
    with pytest.raises(ReplayError, match=r"cannot write .*scene_graphs.mcap: .*No space left"):
        replay(bag, tmp_path, perception=GEOMETRIC)


@pytest.mark.parametrize("keep", [0.75, 0.5])
def test_an_unfinished_bag_is_replayed_up_to_where_it_ends(bag: Path, replayed: Path, tmp_path: Path, keep: float):
    cut = tmp_path / "cut.mcap"
    data = bag.read_bytes()
    cut.write_bytes(data[: int(keep * len(data))])
    done = wm("replay", str(cut), "--out", str(tmp_path / "out"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "was not finished" in done.stderr and "read up to where it ends" in done.stderr
    frames = len(graphs(tmp_path / "out" / GRAPHS_FILE))
    assert keep * SHORT - 3 <= frames < SHORT
    # What is there is what the whole bag gives.
    found, _ = compare(replayed, tmp_path / "out")
    assert found.common == frames == found.identical_bytes and found.first is not None
    assert found.first.name == "frame" and found.first.frame == frames


@pytest.mark.parametrize("chunk", [1, 1 << 20])
def test_every_cut_of_a_bag_gives_a_beginning_of_it(tmp_path: Path, chunk: int):
    bag = write_bag(tmp_path / "bag.mcap", 2, chunk=chunk)
    data = bag.read_bytes()
    with McapFile(bag) as file:
        assert not file.warning
        every = [(m.topic, m.log_ns, m.data) for m in file.messages()]
    counts = []
    for cut in np.linspace(60, len(data) - 1, 25).astype(int):
        (tmp_path / "cut.mcap").write_bytes(data[:cut])
        with McapFile(tmp_path / "cut.mcap") as file:
            assert "was not finished" in file.warning
            found = [(m.topic, m.log_ns, m.data) for m in file.messages()]
        assert found == every[: len(found)]
        counts.append(len(found))
    assert counts == sorted(counts) and counts[-1] == len(every)
    # A disk that was full leaves blocks that were never written.
    (tmp_path / "zeros.mcap").write_bytes(data[: len(data) // 2] + bytes(4096))
    with McapFile(tmp_path / "zeros.mcap") as file:
        assert "was not finished" in file.warning
        found = [(m.topic, m.log_ns, m.data) for m in file.messages()]
    assert found == every[: len(found)] and (found or chunk > 1)


# Cameras without a pose.


@pytest.mark.parametrize(
    ("pitch", "imu"),
    [(90.0, ""), (40.0, "camera_gyro_optical_frame"), (70.0, "imu_link")],
    ids=["none", "imu", "unknown"],
)
def test_a_bag_without_transforms_is_of_a_camera_that_stands_still(tmp_path: Path, pitch: float, imu: str):
    bag = write_bag(tmp_path / "still.mcap", tf=False, pitch=pitch, imu=imu)
    result = replay(bag, tmp_path / "out", perception=GEOMETRIC)
    assert result.graphs == SHORT and result.objects >= 1 and result.supports >= 1
    assert "stands still" in result.notes[0]
    assert ("gravity from /imu" in result.notes[0]) is ("optical" in imu)
    assert ("relation to the camera is not in the bag" in result.notes[0]) is (imu == "imu_link")
    pose = graphs(tmp_path / "out" / GRAPHS_FILE)[-1].world_T_camera
    assert np.degrees(np.arccos(np.clip(pose[2, :3] @ look_down(pitch)[2, :3], -1.0, 1.0))) < 1.0


@pytest.mark.parametrize("tf", [True, False], ids=["tf", "no tf"])
def test_frames_of_a_robot_among_several_have_its_prefix(tmp_path: Path, tf: bool):
    bag = write_bag(tmp_path / "robot1.mcap", 6, tf=tf, prefix="robot1/")
    given = {**GEOMETRIC, "frame_prefix": "robot1/", "camera_frame": OPTICAL}
    result = replay(bag, tmp_path / "out", perception=given)
    assert result.graphs == 6 and not result.refused and result.objects >= 1
    assert [f"no transform of robot1/{OPTICAL} in the bag" in note for note in result.notes] == ([] if tf else [True])
    assert {graph.frame_id for graph in graphs(tmp_path / "out" / GRAPHS_FILE)} == {"robot1/map"}


def test_an_empty_result_is_no_success(tmp_path: Path):
    bag = write_bag(tmp_path / "still.mcap", tf=False, pitch=40.0)
    done = wm("replay", str(bag), "--out", str(tmp_path / "out"), "--level", "off")
    assert done.returncode == 1
    assert "an empty result: 11 scene graphs" in done.stderr and "is the world frame z-up?" in done.stderr


# Comparison.


def test_compare_says_where_two_runs_part(replayed: Path, tmp_path: Path):
    from rclpy.serialization import deserialize_message
    from wm_msgs.msg import SceneGraph

    def changed(path: Path, change) -> Path:
        """A copy of the run with one message changed."""
        with McapFile(replayed / GRAPHS_FILE) as file, path.open("wb") as out:
            writer = Writer(out)
            writer.start(profile="ros2")
            schema = writer.register_schema("wm_msgs/msg/SceneGraph", "ros2msg", b"")
            channel = writer.register_channel("/wm/scene_graph", "cdr", schema)
            for n, m in enumerate(file.messages(["/wm/scene_graph"])):
                message = deserialize_message(m.data, SceneGraph)
                if change(n, message) is not False:
                    writer.add_message(channel, m.log_ns, serialize_message(message), m.publish_ns)
            writer.finish()
        return path

    def move(n, message):
        if n >= 7:
            message.objects[-1].pose.pose.position.y += 0.25

    moved = changed(tmp_path / "moved.mcap", move)
    done = wm("compare", str(replayed), str(moved))
    assert done.returncode == 1 and "frame 7 (stamp 100.466667 s), object" in done.stdout
    assert "pose.pose.position.y" in done.stdout and "by 0.25" in done.stdout and "4 frames differ" in done.stdout
    assert wm("compare", str(replayed), str(moved), "--tolerance", "0.3").returncode == 0
    done = wm("compare", str(replayed), str(moved), "--json")
    facts = json.loads(done.stdout)
    assert done.returncode == 1 and facts["first"]["frame"] == 7 and facts["first"]["by"] == pytest.approx(0.25)
    assert list(facts["fields"]) == ["pose.pose.position.y"]

    gone = changed(tmp_path / "gone.mcap", lambda n, m: n != 4)
    found, _ = compare(replayed, gone)
    assert (found.first.frame, found.first.name, found.counts) == (4, "frame", (SHORT, SHORT - 1))

    def forget(n, message):
        if n == 9:
            del message.objects[-1]

    found, _ = compare(replayed, changed(tmp_path / "less.mcap", forget))
    assert (found.first.frame, found.first.name, found.first.values) == (9, "objects", ("there", "-"))
    # The sign of a zero is a bit, too.
    zero, minus = (
        changed(tmp_path / f"{v}.mcap", lambda n, m, v=v: setattr(m.camera_pose.position, "x", v)) for v in (0.0, -0.0)
    )
    assert compare(zero, minus)[0].first.name == "camera_pose.position.x"
    for arguments, text in (
        ([str(replayed), "/no/such"], "/no/such: no such file"),
        ([str(replayed), str(tmp_path)], "expected one MCAP file"),
        ([str(replayed), str(moved), "--topic", "/a"], "no scene graphs on /a; it has /wm/scene_graph"),
        ([str(replayed), __file__], "cannot be read as an MCAP file"),
    ):
        done = wm("compare", *arguments)
        assert done.returncode == 2 and text in done.stderr and done.stderr.count("\n") == 1, done.stderr


# The live graph.


def test_a_short_bag_comes_whole_through_the_live_graph_as_through_replay(bag: Path, replayed: Path, tmp_path: Path):
    done = wm("run", "--bag", str(bag), "--out", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    player = (tmp_path / "logs" / "player.log").read_text()
    assert f"{SHORT} frames, {SHORT} scene graphs" in player, player
    found, _ = compare(replayed, tmp_path)
    assert found.identical, found.first.text()
    assert found.counts == (SHORT, SHORT)


def test_one_frame_without_a_pose_is_a_clip_of_a_still_camera(tmp_path: Path):
    import cv2

    rgb, depth = render(look_down(55.0))
    folder = tmp_path / "frame"
    folder.mkdir()
    cv2.imwrite(str(folder / "color.png"), rgb[:, :, ::-1])
    cv2.imwrite(str(folder / "depth.png"), depth_to_millimeters(depth))
    c = CAMERA
    np.savetxt(folder / "camera-intrinsics.txt", [[c.fx, 0, c.cx], [0, c.fy, c.cy], [0, 0, 1]])
    done = wm("run", "--rgbd", str(folder), "--out", str(tmp_path / "out"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "a camera that stands still is assumed" in done.stdout and "one frame: shown 45 times" in done.stdout
    facts = json.loads((tmp_path / "out" / "run.json").read_text())
    assert facts["scene_graphs"] == 45 and facts["frames"] == 45
    assert sum(not o["static"] for o in facts["objects"]) >= 1
    # A few of them, and no level surface: that is no success.
    few = tmp_path / "few"
    few.mkdir()
    for i in range(6):
        shutil.copyfile(folder / "color.png", few / f"frame-{i:06d}.color.png")
        shutil.copyfile(folder / "depth.png", few / f"frame-{i:06d}.depth.png")
    shutil.copyfile(folder / "camera-intrinsics.txt", few / "camera-intrinsics.txt")
    done = wm("run", "--rgbd", str(few), "--level", "off", "--out", str(tmp_path / "off"))
    assert done.returncode == 1 and "an empty result: 6 scene graphs" in done.stderr, done.stdout + done.stderr
    assert "is the world frame z-up?" in done.stderr


def test_a_recording_that_perception_refuses_says_why(bag: Path, tmp_path: Path):
    params = tmp_path / "robot.yaml"
    params.write_text("/**:\n  ros__parameters:\n    camera_frame: nowhere\n    tf_timeout_s: 0.05\n")
    done = wm("run", "--bag", str(bag), "--params-file", str(params), "--out", str(tmp_path / "out"))
    assert done.returncode == 1
    assert "perception made no scene graph" in done.stderr and "tf_missing" in done.stderr, done.stderr


def test_a_killed_recorder_leaves_what_it_had_written(tmp_path: Path, node_process, wait_for):
    bag = write_bag(tmp_path / "long.mcap", 60)
    out = tmp_path / "killed.mcap"
    recorder = node_process("wm_bringup.recording.recorder", "--out", str(out), "--compression", "none")
    player = node_process("wm_bringup.sources.bag_player", str(bag), "--wait", "20")
    wait_for(lambda: out.exists() and out.stat().st_size > 9 << 20, 60.0, "two chunks on the disk")
    recorder.signal_group(signal.SIGKILL)
    recorder.process.wait(10.0)
    player.stop()
    done = wm("replay", str(out), "--out", str(tmp_path / "replayed"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "was not finished" in done.stderr
    with McapFile(bag) as whole, McapFile(out) as cut:
        known = {m.data for m in whole.messages([COLOR])}
        found = [m.data for m in cut.messages([COLOR])]
    assert len(found) >= 5 and set(found) <= known
