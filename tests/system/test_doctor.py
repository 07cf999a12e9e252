"""``wm doctor`` on a live graph: broken robots, each named and ended with status 1, and a healthy one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import pytest
import rclpy
from rclpy.signals import SignalHandlerOptions

from broken_robot import COLOR, DEPTH, FAULTS, HEALTHY, INFO, BrokenRobot
from conftest import wait_until
from wm_bringup.cli import main
from wm_bringup.run.private_graph import graph_environment

pytestmark = pytest.mark.ros


@pytest.fixture(scope="module")
def robot() -> Iterator[BrokenRobot]:
    robot = BrokenRobot()
    yield robot
    robot.close()


def doctor(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any], str]:
    """Exit status, findings by name, and the same as a text."""
    status = main(["doctor", "--topics-only", "--wait", "2.5", "--json", *arguments])
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] == (status == 0)
    text = "\n".join(f"{f['level']} {f['name']}: {f['found']}; {f['advice']}" for f in report["findings"])
    return status, {f["name"]: f for f in report["findings"]}, text


@pytest.mark.parametrize(
    ("fault", "status", "cause", "texts"),
    [
        ("no_camera", 1, "no_camera", (COLOR, DEPTH, INFO, "start the camera driver")),
        ("wrong_topic", 1, "wrong_topic.color", ("/head/rgb/image, /head/depth/image", "set color_topic")),
        ("unsynchronized", 1, "unsynchronized", ("26.4 ms apart", "max_stamp_difference_s 0.015")),
        ("uncalibrated", 1, "intrinsics", (INFO, "fx", "calibrate")),
        ("body_frame", 1, "frame_not_optical", ("'camera_link'", "z forward")),
        ("tf_best_effort", 1, "qos.tf", ("/robot: best effort offered",)),
        ("depth_mm_in_float", 1, "depth_unit", ("mm, sent as if meters", "depth_scale")),
        ("depth_size", 1, "size_mismatch", ("160x60", "320x240")),
        ("info_of_another_size", 1, "camera_info_size", ("640x480", "320x240")),
        ("clocks_apart", 0, "clocks_apart", ("apart by 100.", "chrony")),
        ("static_tf", 0, "camera pose", ("camera_color_optical_frame in map at (-0.90, 0.00, 0.60) m", "31 degrees")),
    ],
)
def test_what_is_wrong_is_named(
    robot: BrokenRobot,
    capsys: pytest.CaptureFixture[str],
    fault: str,
    status: int,
    cause: str,
    texts: tuple[str, ...],
) -> None:
    robot.setup = FAULTS[fault]
    # The graph forgets the publishers of the set-up before.
    wait_until(lambda: robot.published is robot.setup, 5.0, "the robot to change")
    found_status, findings, text = doctor(capsys)
    assert cause in findings, text
    finding = findings[cause]
    said = f"{finding['found']}; {finding['advice']}"
    assert all(part in said for part in texts), said
    assert found_status == status, text
    assert fault == "static_tf" or finding["level"] == ("error" if status else "warning")
    if fault == "static_tf":  # a chain that stands in /tf_static alone is whole
        assert not [f for f in findings.values() if f["level"] in ("warning", "error")], text


def test_a_healthy_robot_of_a_namespace_and_a_parameters_file(
    robot: BrokenRobot, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command itself, installation and all: status 0, a picture, and figures that are those of the scene."""
    robot.setup = FAULTS["wrong_topic"]
    file = tmp_path / "robot.yaml"
    file.write_text(
        "robot1/perception:\n  ros__parameters:\n    color_topic: /head/rgb/image\n    depth_topic: /head/depth/image\n"
        "    camera_info_topic: /head/rgb/camera_info\n    pipeline:\n      max_depth: 3.0\n"
        "other/perception:\n  ros__parameters:\n    color_topic: /nowhere\n"
    )
    picture = tmp_path / "seen.png"
    command = [sys.executable, "-m", "wm_bringup.cli", "doctor", "--json", "--wait", "4", "--namespace", "robot1"]
    command += ["--params-file", str(file), "--picture", str(picture)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=dict(os.environ))
    report = json.loads(done.stdout)
    found = {f["name"]: f for f in report["findings"]}
    assert done.returncode == 0 and report["ok"], [f for f in report["findings"] if f["level"] == "error"]
    assert found["/head/rgb/image"]["values"]["rate_hz"] == pytest.approx(15.0, rel=0.5)
    assert found["color image"]["values"]["encoding"] == "rgb8"
    assert found["depth values"]["values"]["median_m"] == pytest.approx(1.24, abs=0.05)
    assert found["camera pose"]["values"]["level_share"] > 0.5
    assert found["perceived"]["values"]["supports"] >= 1 and found["perceived"]["values"]["objects"] == 2
    assert "no parameter 'pipeline.max_depth'" in found["parameters"]["found"]
    assert "pipeline.max_depth_m" in found["parameters"]["advice"]
    assert found["/robot1/perception"]["level"] == "note" and found["dynamics"]["values"]["loads"]
    assert {"compiled step", "middleware", "rendering"} <= set(found)
    image = cv2.imread(str(picture))
    assert image is not None and image.shape[1] == 1280 and image.std() > 20.0
    robot.setup = HEALTHY


@pytest.mark.parametrize("other", ["_ros2cli_daemon", "joystick"])
def test_a_robot_that_is_discovered_late_is_heard(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, other: str
) -> None:
    """On a domain of its own; the wait begins with the last needed stream, not with any other node."""
    monkeypatch.setattr("wm_bringup.doctor.graph.DISCOVERY_S", 60.0)  # of a busy machine
    monkeypatch.setenv("ROS_DOMAIN_ID", graph_environment()["ROS_DOMAIN_ID"])
    robots: list[BrokenRobot] = []
    timer = threading.Timer(4.0, lambda: robots.append(BrokenRobot()))
    timer.start()
    context = rclpy.Context()
    rclpy.init(context=context, signal_handler_options=SignalHandlerOptions.NO)
    early = rclpy.create_node(other, context=context)
    try:
        status, findings, text = doctor(capsys)
    finally:
        timer.join()
        early.destroy_node()
        context.try_shutdown()
        for late in robots:
            late.close()
    assert robots and status == 0 and findings[COLOR]["values"]["messages"] > 1, text


def test_frames_are_read_with_the_parameters_of_the_nodes(
    robot: BrokenRobot, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Distortion is removed unless that is off; depth in another unit is right once depth_scale says so."""

    def look(**values: Any) -> tuple[int, dict[str, Any], str]:
        wait_until(lambda: robot.published is robot.setup, 5.0, "the robot to change")
        file = tmp_path / "robot.yaml"
        file.write_text(json.dumps({"/**/perception": {"ros__parameters": values}}))
        return doctor(capsys, "--params-file", str(file))

    robot.setup = FAULTS["distorted"]
    status, findings, text = look()
    assert status == 0 and "distorted" not in findings, text
    assert "and is removed" in findings["intrinsics"]["found"] and findings["perceived"]["values"]["supports"] >= 1
    _, findings, text = look(rectify="off")
    assert findings["distorted"]["level"] == "warning" and "set rectify to auto" in findings["distorted"]["advice"], (
        text
    )
    robot.setup = FAULTS["depth_mm_in_float"]
    status, findings, text = look(depth_scale=0.001)
    assert status == 0 and "depth_unit" not in findings, text
    assert findings["depth values"]["values"]["median_m"] == pytest.approx(1.24, abs=0.05)
    assert findings["perceived"]["values"]["objects"] == 2
    status, findings, text = look(depth_scale_guess="apply")
    assert status == 0 and "depth_unit" not in findings, text
    assert "read as 1 mm a unit" in findings["depth unit"]["found"]
    assert findings["perceived"]["values"]["objects"] == 2
    robot.setup = HEALTHY


def test_a_parameters_file_that_perception_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text("/**/perception:\n  ros__parameters:\n    tf_timeout_s: 99.0\n")
    status, findings, _ = doctor(capsys, "--params-file", str(file))
    assert (
        status == 1 and "tf_timeout_s" in findings["parameters"]["found"] and "99.0" in findings["parameters"]["found"]
    )
