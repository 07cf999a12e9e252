"""The wm command: help, errors in one line, doctor, and a run on a live graph that leaves no process."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from model_files import learned_model
from wm_bringup import imagine_cli
from wm_bringup.cli import fold_vectors, main
from wm_bringup.doctor import graph, installation, models, picture
from wm_bringup.doctor.parameters import read_parameters
from wm_bringup.doctor.seen import Seen
from wm_bringup.run import players
from wm_bringup.run.inputs import perception_inputs
from wm_bringup.run.view import View
from wm_core.rollout import EventAnswer, EventQuestion, Rollout, RolloutEvent
from wm_core.scene_graph import EventKind, SceneGraph

COMMANDS = ("demo", "run", "sim", "doctor", "imagine", "bench", "record", "replay", "compare")
ROOT = Path(__file__).resolve().parents[2]


def wm(*arguments: str, **kwargs) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "wm_bringup.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, **kwargs)


def test_help_answers_at_once():
    begin = time.monotonic()
    done = wm("--help")
    seconds = time.monotonic() - begin
    assert done.returncode == 0 and all(f"  {name} " in done.stdout for name in COMMANDS)
    assert seconds < 10.0  # 0.4 s on an idle machine
    slow = ("rclpy", "mujoco", "onnxruntime", "numpy")
    code = f"import sys, wm_bringup.cli; print([m for m in {slow} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_commands(name, capsys):
    assert main([name, "--help"]) == 0
    assert f"wm {name}" in capsys.readouterr().out


def test_version_is_that_of_the_changelog(capsys):
    assert main(["--version"]) == 0
    newest = re.search(r"^## (\d\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert capsys.readouterr().out == f"wm {newest[1]}\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("run", "--bag", "/no/such.mcap"), "/no/such.mcap is not there"),
        (("run", "--rgbd", "a", "--bag", "b"), "got both"),
        (("run", "--remap", "/a=/b"), "expected /OLD:=/NEW"),
        (("imagine", "--push", "3", "0.1"), "expected ID X Y Z"),
        (("imagine", "--mass", "3", "heavy"), "--mass"),
        (("bench", "nothing"), "nothing"),
        (("run", "--segmenter-model", "/no/such.onnx"), "/no/such.onnx is not a file"),
        (("demo", "--reasoner-model", "/no/such.onnx"), "/no/such.onnx is not a file"),
        (("doctor", "--pose-source", "gps"), "expected tf, odometry or fixed"),
    ],
)
def test_errors_are_one_line(arguments, said, capsys):
    assert main(list(arguments)) in (1, 2)
    error = capsys.readouterr().err
    assert said in error and "Traceback" not in error


@pytest.mark.slow
def test_debug_says_where():
    done = wm("run", "--bag", "/no/such.mcap", "--debug")
    assert done.returncode == 1 and "Traceback" in done.stderr and "/no/such.mcap is not there" in done.stderr


def test_vectors_are_folded():
    words = ["imagine", "--push", "3", "0", "-0.5", "1e-1", "--remove", "2", "--mass", "1", "2", "--seed", "4"]
    assert fold_vectors(words) == [
        *["imagine", "--push=3 0 -0.5 1e-1", "--remove", "2", "--mass=1 2", "--seed", "4"],
    ]
    assert fold_vectors(["--push"]) == ["--push"]
    assert fold_vectors(["--why", "fall", "3", "--seed", "4"]) == ["--why=fall 3", "--seed", "4"]


def test_hypotheses_of_options():
    found = imagine_cli.hypotheses_of(["3"], ["3 0 0.5 0", "3,0,0.5,0"], ["2 2.0"], ["4 1 0 0"])
    assert [h.name for h in found] == [
        *["as it is", "without 3", "push 3 by (0, 0.5, 0) N s", "push 3 by (0, 0.5, 0) N s #2"],
        *["mass of 2 x 2", "4 at (1, 0, 0) m/s"],
    ]
    assert found[2].interventions[0].impulse.tolist() == [0.0, 0.5, 0.0]
    for bad in ("", "1 2", "x 0 0 0", "1.5 0 0 0", "1 nan 0 0"):
        with pytest.raises(imagine_cli.ImagineError, match="--push: got"):
            imagine_cli.hypotheses_of(push=[bad])


def test_questions_of_options():
    (fall,) = imagine_cli.questions_of(["fall 3"])
    assert (fall.kind, fall.a, fall.b, fall.hypothesis) == (EventKind.FALL, 3, 0, 0)
    both = imagine_cli.questions_of(["contact 3,4"], hypotheses=2)
    assert [(q.kind, q.a, q.b, q.hypothesis) for q in both] == [(EventKind.CONTACT, 3, 4, k) for k in range(2)]
    for bad in ("", "fall", "fall x", "fall 3 4", "enter 3", "3 fall", "contact 1 2 3"):
        with pytest.raises(imagine_cli.ImagineError, match="--why: got"):
            imagine_cli.questions_of([bad])


def two_things() -> SceneGraph:
    return SceneGraph.build(
        [1, 2], [[0, 0, 0.7], [0, 0, 0.8]], [[1, 1, 0.04], [0.1, 0.1, 0.1]], is_static=[True, False]
    )


def test_default_hypotheses_touch_only_what_moves():
    found = imagine_cli.default_hypotheses(two_things())
    assert [h.name for h in found] == ["as it is", "without 2", "push 2 away"]


def test_answer_as_a_table():
    states = np.zeros((2, 1, 3, 2, 13), np.float32)
    states[..., 6] = 1.0
    states[1, 0, :, 1, 0] = (0.0, 0.1, 0.25)
    rollout = Rollout(
        stamp_ns=0,
        frame_id="map",
        hypotheses=("as it is", "push [2]"),
        times=np.array([0.0, 0.5, 1.0]),
        object_ids=np.array([1, 2]),
        states=states,
        present=np.ones((2, 3, 2), bool),
        backend="physics",
        position_std=np.full((2, 3, 2), 0.004, np.float32),
        events=(RolloutEvent(1, 0, EventKind.FALL, 2, 0, 0.75),),
        effect=np.array([[0, 0], [0, 0.25]], np.float32),
    )
    out = io.StringIO()
    imagine_cli.print_answer(imagine_cli.Answer(two_things(), rollout, 0.012, 0.015), Console(file=out, width=160))
    text = out.getvalue()
    assert "+0.250 +0.000 +0.000" in text and "push [2]" in text and "effect [m]" in text
    assert "1 at rest and unaffected" in text and "0.75 s  fall: 2" in text and "12 ms in the node" in text


def test_a_future_that_is_not_valid_is_said_and_not_shown():
    states = np.full((2, 2, 3, 2, 13), np.nan, np.float32)
    states[0] = 0.0
    states[0, ..., 6] = 1.0
    rollout = Rollout(
        stamp_ns=0,
        frame_id="map",
        hypotheses=("as it is", "push [2]"),
        times=np.array([0.0, 0.5, 1.0]),
        object_ids=np.array([1, 2]),
        states=states,
        present=np.ones((2, 3, 2), bool),
        backend="learned",
        position_std=np.full((2, 3, 2), 0.004, np.float32),
        events=(RolloutEvent(1, 0, EventKind.FALL, 2, 0, 0.75),),
        effect=np.array([[0, 0], [np.nan, np.nan]], np.float32),
        computed=np.ones(2, bool),
        valid=np.array([True, False]),
        invalid_reasons=("", "unsure: the learned backend leaves 3.20 m open"),
        warnings=("valid: 1 of 2 futures are not",),
        answers=(
            EventAnswer(
                EventQuestion(EventKind.FALL, 2, hypothesis=1),
                float("nan"), np.zeros(0, np.int64), np.zeros(0), np.zeros(0),
            ),
        ),
    )  # fmt: skip
    out = io.StringIO()
    answer = imagine_cli.Answer(two_things(), rollout, 0.012, 0.015)
    imagine_cli.print_answer(answer, Console(file=out, width=160))
    imagine_cli.print_reasons(answer, Console(file=out, width=160))
    text = out.getvalue()
    assert "push [2]" in text and "not valid" in text and "1 of 2 futures are not" in text
    assert text.count("unsure: the learned backend leaves 3.20 m open") == 2
    assert "nan" not in text and "fall: 2" not in text


def test_view_says_what_is_wrong():
    view = View(scene=two_things())
    view.latency.begin(1, 10.0)
    view.latency.end(1, 10.05)
    view.latency.end(2, 11.0)
    view.statuses["perception: color input"] = (2, "nothing yet", {"rate_hz": "0.0", "age_s": "3.0", "total": "0"})
    view.statuses["perception: scene graph"] = (0, "15 Hz", {"rate_hz": "15.0", "age_s": "0.05", "total": "9"})
    out = io.StringIO()
    Console(file=out, width=160).print(view.render())
    assert "median 50 ms" in out.getvalue() and "15.0" in out.getvalue() and "speed [m/s]" in out.getvalue()
    assert "perception: color input: nothing yet" in out.getvalue()
    assert view.line().startswith("1 object (0 moving)") and "nothing yet" in view.line()


def test_what_a_recording_does_not_say_again():
    names = ["/camera/color/image_raw", "/tf", "/clock", "/diagnostics", "/wm/scene_graph", "/wm2/x"]
    assert players.replayed_topics(names, "/wm") == ["/camera/color/image_raw", "/tf", "/wm2/x"]
    with pytest.raises(ValueError, match="bag"):
        players.player_command(None, Path(__file__), players.Playing(), (), "/wm")


def test_camera_info_of_parameters_and_remaps(tmp_path):
    robot = ROOT / "ros2_ws/src/wm_bringup/config/robot.yaml"
    assert perception_inputs([], {}).camera_info == "/camera/color/camera_info"
    assert perception_inputs([robot], {}).camera_info == "/camera/camera/color/camera_info"
    assert perception_inputs([], {"/camera/color/camera_info": "/info"}).camera_info == "/info"
    bad = tmp_path / "bad.yaml"
    bad.write_text("perception: 3\n")
    with pytest.raises(ValueError, match="expected NODE: ros__parameters"):
        perception_inputs([bad], {})


def test_doctor_reads_stamps_of_serialized_messages():
    from rclpy.serialization import serialize_message
    from sensor_msgs.msg import CameraInfo

    msg = CameraInfo()
    msg.header.stamp.sec, msg.header.stamp.nanosec = 1_700_000_000, 123_456_789
    assert graph.stamp_of(bytes(serialize_message(msg))) == 1_700_000_000_123_456_789
    assert graph.stamp_of(b"") == 0


def test_doctor_takes_the_parameters_that_launch_would(tmp_path):
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    first.write_text(
        "/**/perception:\n  ros__parameters:\n    color_topic: /a\n"
        "/**:\n  ros__parameters:\n    world_frame: odom\n    backend: physics\n"
    )
    second.write_text(
        "/**/perception:\n  ros__parameters:\n    color_topic: /b\n    use_sim_time: true\n    color: 1\n"
    )
    found, sim_time, said = read_parameters([first, second], "/wm", {"depth_topic": "/d", "camera_frame": None})
    assert (found.world_frame, found.color_topic, found.depth_topic, found.camera_frame) == ("odom", "/b", "/d", "")
    assert sim_time is True and [f.found for f in said] == [
        f"{second}: /**/perception has no parameter 'color', nothing reads it"
    ]
    with pytest.raises(ValueError, match="No such file"):
        read_parameters([tmp_path / "none.yaml"], "/wm", {})
    second.write_text("- 1\n")
    with pytest.raises(ValueError, match="expected NODE: ros__parameters"):
        read_parameters([second], "/wm", {})


def test_doctor_draws_depth(tmp_path):
    depth = np.full((48, 64), 1.0, np.float32)
    depth[:, :16], depth[:, 16:32] = 0.0, 9.0
    depth[:, 48:] = 2.0
    drawn = picture.depth_picture(depth, 4.0)
    assert (drawn[:, :16] == 0).all() and len(np.unique(drawn[:, 16:32])) == 1
    assert drawn[0, 40, 2] > drawn[0, 60, 2]  # near is redder
    missing = picture.draw_picture(tmp_path / "a.png", Seen(), 4.0, [])
    assert missing.level == "warning" and not (tmp_path / "a.png").exists()
    bad = picture.draw_picture(tmp_path / "a.nothing", Seen(depth_m=depth), 4.0, [])
    assert bad.level == "warning" and ".png" in bad.advice
    assert picture.draw_picture(tmp_path / "b.png", Seen(depth_m=depth), 4.0, []).found.endswith("b.png")


def test_doctor_checks_caches(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "numba"))
    monkeypatch.setenv("WM_ENGINE_CACHE", str(tmp_path / "engines"))
    assert [f.level for f in models.check_caches()] == ["ok", "ok"] and not list(tmp_path.iterdir())
    (tmp_path / "engines").mkdir()
    (tmp_path / "engines").chmod(0o777)
    found = models.check_caches()[1]
    assert found.level == "warning" and "lets others write" in found.found and "chmod go-w" in found.advice


@pytest.mark.slow
def test_doctor_loads_the_dynamics_model(tmp_path, monkeypatch):
    (found,) = models.check_dynamics_model()
    assert found.level == "ok" and found.values["loads"] and found.values["sha256"] in found.found
    broken = tmp_path / "dynamics.onnx"
    monkeypatch.setattr("wm_dynamics.contact_step.network.default_model", lambda: broken)
    assert models.check_dynamics_model()[0].level == "note"
    broken.write_bytes(b"no model")
    (found,) = models.check_dynamics_model()
    assert found.level == "error" and str(broken) in found.found


def test_doctor_knows_a_profile_that_loses_images(tmp_path):
    config = ROOT / "ros2_ws/src/wm_bringup/config/fastdds.xml"
    assert installation.check_fastdds_profile(str(config))[0].values["segment_bytes"] == 64 * 2**20
    small = tmp_path / "small.xml"
    small.write_text(config.read_text().replace("67108864", "524288"))
    assert "images will be lost" in installation.check_fastdds_profile(str(small))[0].advice
    assert installation.check_fastdds_profile("")[0].level == "warning"
    assert installation.check_fastdds_profile(str(tmp_path / "none.xml"))[0].level == "error"


@pytest.mark.smoke
@pytest.mark.ros
def test_doctor_hears_a_camera(node_process, wait_for, tmp_path):
    code = (
        "import rclpy; from rclpy.node import Node; from sensor_msgs.msg import CameraInfo\n"
        "from std_msgs.msg import String\n"
        "from tf2_msgs.msg import TFMessage; from wm_ros import qos\n"
        "rclpy.init(); node = Node('camera')\n"
        "info = node.create_publisher(CameraInfo, '/camera/color/camera_info', qos.SENSOR)\n"
        "wrong = node.create_publisher(String, '/camera/color/image_raw', qos.SENSOR)\n"
        "tf = node.create_publisher(TFMessage, '/tf', qos.SENSOR)\n"
        "node.create_timer(0.05, lambda: info.publish(CameraInfo())); print('ready', flush=True); rclpy.spin(node)\n"
    )
    (tmp_path / "camera_talk.py").write_text(code)
    env = {"PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"}
    camera = node_process("camera_talk", env=env)
    wait_for(lambda: "ready" in camera.output)
    done = wm("doctor", "--json", "--wait", "6")  # discovery takes a second or two on a busy machine
    report = json.loads(done.stdout)
    found = {f["name"]: f for f in report["findings"]}
    assert done.returncode == 1 and report["ok"] is False
    assert found["/camera/color/camera_info"]["level"] == "ok"
    assert found["/camera/color/camera_info"]["values"]["rate_hz"] == pytest.approx(20.0, rel=0.5)
    assert "std_msgs/msg/String" in found["wrong_type.color"]["found"]
    assert "best effort offered" in found["qos.tf"]["found"] and found["qos.tf"]["level"] == "error"
    assert "missing.depth" in found and found["missing.depth"]["advice"], sorted(found)
    assert found["wm_msgs"]["level"] == "ok" and found["interpreter"]["level"] == "ok"
    assert any(f["values"].get("in_use") for f in report["findings"] if f["section"] == "inference")
    assert found["rendering"]["section"] == "graphics"


@pytest.mark.slow
def test_doctor_finds_an_installation_that_is_not_there(tmp_path):
    env = {**os.environ, "AMENT_PREFIX_PATH": str(tmp_path), "MUJOCO_GL": "nonsense"}
    done = wm("doctor", "--json", "--wait", "0.1", env=env)
    report = json.loads(done.stdout)
    wrong = {f["name"] for f in report["findings"] if f["level"] == "error"}
    assert done.returncode == 1 and {"wm_msgs", "wm_sim", "rendering"} <= wrong
    assert all(f["advice"] for f in report["findings"] if f["level"] == "error")


@pytest.mark.ros
def test_nobody_answers():
    done = wm("imagine", "--remove", "3", "--timeout", "0.5")
    assert done.returncode == 1 and "no service /wm/get_scene_graph" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.ros
def test_run_says_at_once_that_a_model_is_bad(tmp_path):
    bad = learned_model(tmp_path / "bad.onnx", rename={"centre": "center"})
    done = wm("run", "--segmenter", "learned", "--segmenter-model", str(bad), "--duration", "50")
    assert done.returncode == 1
    said = done.stderr.strip().splitlines()
    assert len(said) == 1 and f"perception refused its configuration: {bad}: output 'centre' is missing" in said[0]


def living(token: str) -> list[int]:
    """Ids of processes whose environment holds this token."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and token.encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue
    return found


@pytest.mark.smoke
@pytest.mark.ros
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_run_ends_with_all_its_nodes(tmp_path, wait_for, number):
    token = f"WM_TEST_TOKEN={tmp_path}"
    env = {**os.environ, **dict([token.split("=", 1)])}
    command = [sys.executable, "-m", "wm_bringup.cli", "run", "--out", str(tmp_path / "out")]
    process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        log = tmp_path / "out" / "logs" / "perception.log"
        wait_for(lambda: log.exists() and "pose from" in log.read_text(), 90.0, "perception to be active")
        assert len(living(token)) >= 4  # this one, recorder, perception, imagination
        process.send_signal(number)
        output, _ = process.communicate(timeout=40)
    finally:
        process.kill()
    assert process.returncode == 0 and "stopping" in output, output
    wait_for(lambda: not living(token), 15.0, "all processes to end")
    assert (tmp_path / "out" / "run.mcap").stat().st_size > 0


INTERRUPTED = """
import os, signal, sys, time
from wm_ros.nodes.startup import end_as_usual
end_as_usual()
from wm_bringup import cli
from wm_bringup.run.processes import ProcessGroup

@cli.app.command()
def start(number: int, log: str, kind: str) -> None:
    with ProcessGroup(log):
        try:
            os.kill(os.getpid(), number)
            time.sleep(10.0)
        except KeyboardInterrupt:
            if kind == "import":
                raise ImportError("initialization failed") from None  # what pybind11 makes of it
    raise OSError("no space left to write what was recorded")

sys.exit(cli.main(["start", *sys.argv[1:]]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_became_of_an_interrupt_is_no_error_and_what_came_after_it_is(tmp_path, number):
    for kind, expected in (
        ("import", (130, "interrupted")),
        ("write", (1, "error: no space left to write what was recorded")),
    ):
        command = [sys.executable, "-c", INTERRUPTED, str(int(number)), str(tmp_path), kind]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert (ended.returncode, ended.stderr.strip()) == expected, ended.stderr
