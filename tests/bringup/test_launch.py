"""The launch file is executed: against the real `launch` where it is installed, and always against a strict double."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
import yaml

from launch_double import (
    BRINGUP,
    INSTALLED,
    ROOT,
    Context,
    DeclareLaunchArgument,
    IncludeLaunchDescription,
    LaunchDescription,
    Node,
    ProcessExited,
    Shutdown,
    check,
    double,
    load,
    nodes,
)
from viewer_topics import rviz_topics
from wm_bringup.environment import message_class
from wm_perception.parameters import PerceptionParameters


@pytest.fixture
def launch(monkeypatch):
    """launch(**arguments) -> everything that would be started; ``installed``: of the packages that are not ours."""

    def execute(installed: set[str] = INSTALLED, **arguments: str) -> list[Any]:
        for name, module in double(installed).items():
            monkeypatch.setitem(sys.modules, name, module)
        description = load().generate_launch_description()
        assert isinstance(description, LaunchDescription)
        context = Context()
        context.launch_configurations.update(arguments)
        declared = {e.name for e in description.entities if isinstance(e, DeclareLaunchArgument)}
        assert set(arguments) <= declared, f"not declared: {set(arguments) - declared}"
        started: list[Any] = []
        for entity in description.entities:
            result = entity.execute(context)
            started += result or []
        return started

    return execute


def test_camera_alone(launch):
    started = launch()
    check(started)
    found = nodes(started)
    assert set(found) == {"perception", "imagination", "lifecycle_manager"}
    assert all(node["namespace"] == "wm" for node in found.values())
    # Nothing given: nothing may cover the parameters files. The manager starts the nodes.
    assert found["perception"].given == {"use_sim_time": False, "autostart": False}
    assert found["lifecycle_manager"].given == {"use_sim_time": False, "autostart": True}


def test_topics_of_a_robot(launch, tmp_path):
    own = tmp_path / "robot.yaml"
    own.write_text("/**/perception:\n  ros__parameters:\n    tf_timeout_s: 0.5\n")
    started = launch(
        namespace="/robot/wm/",
        params_file=str(own),
        color_topic="/rgb",
        depth_topic="/depth",
        camera_info_topic="/info",
        odometry_topic="/wheel_odom",
        pose_source="odometry",
        segmenter="onnx",
        segmenter_model="/own.onnx",
        autostart="false",
        use_sim_time="true",
    )
    check(started)
    perception, imagination = nodes(started)["perception"], nodes(started)["imagination"]
    assert perception["namespace"] == "robot/wm"
    assert perception.files[-1] == str(own)
    topics = {"color_topic": "/rgb", "depth_topic": "/depth", "camera_info_topic": "/info"}
    common = {"use_sim_time": True, "autostart": False}
    assert imagination.given == {**topics, **common}
    pose = {"odometry_topic": "/wheel_odom", "pose_source": "odometry"}
    models = {"pipeline.segmenter": "onnx", "pipeline.segmenter_model": "/own.onnx"}
    assert perception.given == {**topics, **common, **pose, **models}


def test_example_parameters_are_the_nodes_own():
    example = yaml.safe_load((BRINGUP / "config/robot.yaml").read_text())
    for name in ("perception", "imagination"):
        defaults = yaml.safe_load((ROOT / f"ros2_ws/src/wm_{name}/config/{name}.yaml").read_text())
        own, known = example[f"/**/{name}"]["ros__parameters"], defaults[f"/**/{name}"]["ros__parameters"]
        assert set(own) <= set(known) and all(type(own[key]) is type(known[key]) for key in own)


def test_mujoco(launch):
    started = launch(sim="mujoco", scene="demo", seed="7", rviz="true")
    check(started)
    found = nodes(started)
    assert found["sim_camera_node"].given == {"scene": "demo", "seed": 7}
    assert "use_sim_time" not in found["sim_camera_node"].given  # it makes the time
    assert found["perception"].given["use_sim_time"] is True
    assert Path(found["rviz2"]["arguments"][1]).is_file() and found["rviz2"]["remappings"] == []


def test_mujoco_parameters_exist(launch):
    from dataclasses import fields

    from wm_sim.parameters import SimCameraParameters

    node = nodes(launch(sim="mujoco"))["sim_camera_node"]
    assert set(node.given) <= {f.name for f in fields(SimCameraParameters)}


def test_rviz_follows_the_namespace(launch):
    remappings = dict(nodes(launch(namespace="left", rviz="true", color_topic="/rgb"))["rviz2"]["remappings"])
    assert remappings["/wm/markers"] == "/left/markers" and remappings["/camera/color/image_raw"] == "/rgb"
    shown = {t for t in rviz_topics() if t.startswith("/wm/")}
    assert shown <= set(remappings)


def test_rviz_has_the_frame_of_the_scene_graph(launch, tmp_path):
    def fixed_frame(**arguments: str) -> str:
        words = nodes(launch(rviz="true", **arguments))["rviz2"]["arguments"]
        return words[words.index("-f") + 1]

    file = tmp_path / "robot.yaml"
    file.write_text("/**/perception:\n  ros__parameters:\n    world_frame: odom\n    frame_prefix: a/\n")
    assert fixed_frame() == "map"
    assert fixed_frame(world_frame="odom", frame_prefix="robot1/") == "robot1/odom"
    assert fixed_frame(world_frame="/map", frame_prefix="robot1/") == "map"
    assert fixed_frame(params_file=str(file)) == "a/odom"
    assert fixed_frame(params_file=str(file), world_frame="world") == "a/world"


def test_cameras_of_another_kind(launch):
    given = {
        "camera_frame": "head_optical",
        "color_transport": "compressed",
        "depth_transport": "compressedDepth",
        "frame_prefix": "robot1/",
        "rectify": "off",
        "depth_scale": "1",
        "depth_scale_guess": "apply",
    }
    started = launch(log_level="debug", **given)
    check(started)
    found = nodes(started)
    read = {**given, "depth_scale": 1.0}
    assert read.items() <= found["perception"].given.items()
    # A whole number for a parameter that is declared as a double is refused by rclpy.
    assert isinstance(found["imagination"].given["depth_scale"], float)
    images = {key: value for key, value in read.items() if "frame" not in key}
    assert images.items() <= found["imagination"].given.items() and "camera_frame" not in found["imagination"].given
    assert all(node["ros_arguments"] == ["--log-level", "debug"] for node in found.values())


@pytest.mark.parametrize("text", ["1", "on", "no", "1e3", "a: b", "/models/seg #2.onnx", "null"])
def test_text_stays_text(launch, text):
    names = ("color_topic", "world_frame", "camera_frame", "frame_prefix", "segmenter_model")
    found = nodes(launch(sim="mujoco", scene=text, **dict.fromkeys(names, text)))
    for name in names[:4]:
        assert found["perception"].given[name] == text
    assert found["perception"].given["pipeline.segmenter_model"] == text
    assert found["sim_camera_node"].given["scene"] == found["sim_camera_node"].given["frame_prefix"] == text


def test_a_depth_scale_that_is_no_number_is_refused(launch):
    with pytest.raises(RuntimeError, match=r"depth_scale: got 'mm', expected meters per unit, e\.g\. 0\.001"):
        launch(depth_scale="mm")


def test_who_brings_the_nodes_up(launch):
    def started_by(**arguments: str) -> tuple[Any, set[Any]]:
        started = launch(**arguments)
        check(started)
        found = nodes(started)
        manager = found.get("lifecycle_manager")
        return manager, {found[name].given["autostart"] for name in ("perception", "imagination")}

    manager, self_started = started_by(autostart="false")
    assert manager["package"] == "wm_bringup" and manager.given["autostart"] is False and self_started == {False}
    assert started_by(lifecycle_manager="none") == (None, {True})
    assert started_by(lifecycle_manager="none", autostart="false") == (None, {False})
    manager, self_started = started_by(lifecycle_manager="nav2")
    assert manager["package"] == "nav2_lifecycle_manager" and self_started == {False}
    # nav2 takes no default for these: names in order, and no bond, which our nodes do not offer.
    assert manager.given["node_names"] == ["perception", "imagination"] and manager.given["bond_timeout"] == 0.0


def test_one_process_for_both(launch):
    started = launch(container="true", color_topic="/rgb", world_frame="odom")
    check(started)
    found = nodes(started)
    assert set(found) == {"container", "lifecycle_manager"}
    # A name would be given to both nodes, and make them one.
    assert "name" not in found["container"].keywords and found["container"]["namespace"] == "wm"
    assert {Path(file).name for file in found["container"].files} == {"perception.yaml", "imagination.yaml"}
    assert found["container"].given["world_frame"] == "odom" and found["container"].given["color_topic"] == "/rgb"


def test_a_dead_node_ends_the_launch_with_an_error(launch):
    started = launch(sim="mujoco")
    on_exit = nodes(started)["perception"]["on_exit"]
    context = Context()
    for code in (0, 1, -11):
        with pytest.raises(RuntimeError, match=rf"perception-1 ended by itself \(exit code {code}\).*respawn:=true"):
            on_exit(ProcessExited("perception-1", code), context)
    # A simulation of limited duration has done what it was asked for.
    assert isinstance(on_exit(ProcessExited("sim_camera_node-4", 0), context)[0], Shutdown)
    with pytest.raises(RuntimeError):
        on_exit(ProcessExited("sim_camera_node-4", 1), context)
    context.is_shutdown = True
    assert on_exit(ProcessExited("perception-1", -2), context) is None


def test_respawn(launch):
    started = launch(respawn="true", respawn_delay="0.5", sim="mujoco", rviz="true")
    check(started)
    found = nodes(started)
    for name in ("perception", "imagination", "lifecycle_manager", "sim_camera_node"):
        assert found[name]["respawn"] is True and found[name]["respawn_delay"] == 0.5
    assert not {"respawn", "on_exit"} & set(found["rviz2"].keywords)  # a window may be closed


def test_two_robots(launch):
    def robot(name: str, **arguments: str) -> dict[str, Node]:
        started = launch(
            namespace=f"{name}/wm", frame_prefix=f"{name}/", sim="mujoco", sim_namespace=name, rviz="true", **arguments
        )
        check(started)
        return nodes(started)

    one, two = robot("robot1"), robot("robot2", sim_clock="follow")
    assert "clock" not in one["sim_camera_node"].given and two["sim_camera_node"].given["clock"] == "follow"
    for name, found in (("robot1", one), ("robot2", two)):
        sim = found["sim_camera_node"]
        assert sim["namespace"] == name and sim.given["frame_prefix"] == f"{name}/"
        assert sim.given["lead_topic"] == f"/{name}/wm/scene_graph"
        assert found["perception"].given["frame_prefix"] == f"{name}/"
        for node in ("perception", "imagination"):
            assert found[node]["namespace"] == f"{name}/wm"
            assert found[node].given["depth_topic"] == f"/{name}/camera/depth/image_raw"
        assert dict(found["rviz2"]["remappings"])["/camera/color/image_raw"] == f"/{name}/camera/color/image_raw"
        assert found["rviz2"]["arguments"][-1] == f"{name}/map"
    # What is given wins.
    assert robot("robot1", color_topic="/rgb")["perception"].given["color_topic"] == "/rgb"


@pytest.mark.parametrize(
    ("arguments", "installed", "missing"),
    [
        ({"rviz": "true"}, set(), "rviz:=true needs rviz2; run: sudo apt install ros-kilted-rviz2"),
        (
            {"sim": "gazebo"},
            {"tf2_ros"},
            "sim:=gazebo needs ros_gz_sim, ros_gz_bridge; run: sudo apt install ros-kilted-ros-gz-sim "
            "ros-kilted-ros-gz-bridge",
        ),
        (
            {"lifecycle_manager": "nav2"},
            set(),
            "lifecycle_manager:=nav2 needs nav2_lifecycle_manager; "
            "run: sudo apt install ros-kilted-nav2-lifecycle-manager",
        ),
    ],
)
def test_a_missing_package_is_said_in_one_line(launch, monkeypatch, arguments, installed, missing):
    monkeypatch.setenv("ROS_DISTRO", "kilted")
    with pytest.raises(RuntimeError) as error:
        launch(installed=installed, **arguments)
    assert str(error.value) == missing


def test_names_that_nothing_reads_are_warned_of(launch, tmp_path, caplog):
    file = tmp_path / "robot.yaml"
    file.write_text("/**/percepton:\n  ros__parameters:\n    world_frame: odom\n")
    launch(params_file=str(file))
    (record,) = caplog.records
    assert record.levelname == "WARNING" and "did you mean /**/perception (here /wm/perception)?" in record.message
    caplog.clear()
    launch(params_file=str(BRINGUP / "config/robot.yaml"))
    assert not caplog.records


@pytest.mark.parametrize("headless", ["true", "false"])
def test_gazebo(launch, headless):
    started = launch(sim="gazebo", headless=headless)
    check(started)
    found = nodes(started)
    include = next(e for e in started if isinstance(e, IncludeLaunchDescription))
    flags, world = include.arguments["gz_args"].rsplit(" ", 1)
    assert ElementTree.parse(world).getroot().tag == "sdf"
    assert ("--headless-rendering" in flags.split()) == (headless == "true") and "-r" in flags.split()
    bridge = yaml.safe_load(Path(found["gz_bridge"].given["config_file"]).read_text())
    bridged = {f"/{row['ros_topic_name'].lstrip('/')}": row["ros_type_name"] for row in bridge}
    read = PerceptionParameters()
    for topic, kind in (
        (read.color_topic, "Image"),
        (read.depth_topic, "Image"),
        (read.camera_info_topic, "CameraInfo"),
    ):
        assert bridged[topic] == f"sensor_msgs/msg/{kind}"
    for row in bridge:
        assert set(row) <= {
            *("ros_topic_name", "gz_topic_name", "topic_name", "ros_type_name", "gz_type_name", "direction"),
            *("publisher_queue", "subscriber_queue", "lazy", "qos_profile"),
        }
        message_class(row["ros_type_name"])
        assert row["direction"] in ("GZ_TO_ROS", "ROS_TO_GZ", "BIDIRECTIONAL")
    frames = {node["arguments"][-1]: node["arguments"][-3] for node in found.values() if node["package"] == "tf2_ros"}
    frame = "camera_color_optical_frame"
    while frame in frames:
        frame = frames[frame]
    assert frame == "map"


@pytest.mark.parametrize(
    "arguments",
    [{"sim": "isaac"}, {"pose_source": "gps"}, {"rviz": "perhaps"}, {"params_file": "/no/such.yaml"}],
)
def test_refusals(launch, arguments):
    with pytest.raises(RuntimeError):
        launch(**arguments)


def test_is_installed():
    text = (BRINGUP / "setup.py").read_text()
    for folder in ("launch", "config", "rviz", "foxglove", "deploy"):
        assert f'("share/wm_bringup/{folder}", files("{folder}/*"))' in text


def test_with_the_real_launch():
    """Where ROS 2 is sourced: the real library accepts the description and its own check of the arguments."""
    pytest.importorskip("launch_ros.actions", reason="launch_ros is not installed (no ROS 2 sourced)")
    import launch as launch_module

    description = load().generate_launch_description()
    context = launch_module.LaunchContext()
    for argument in description.get_launch_arguments():
        argument.execute(context)
    context.launch_configurations["sim"] = "mujoco"
    opaque = next(e for e in description.entities if type(e).__name__ == "OpaqueFunction")
    started = opaque.execute(context)
    assert len(started) == 4
