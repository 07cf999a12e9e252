"""Names in a parameters file that no node reads are found, with the nearest right ones."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from wm_bringup.doctor.parameters import read_parameters
from wm_bringup.run.inputs import perception_inputs
from wm_bringup.run.node_command import ros_arguments
from wm_bringup.run.params_file import (
    PARAMETERS,
    ParamsFileError,
    complaints,
    matches,
    node_parameters,
    value_of,
)
from wm_bringup.run.players import Playing, player_command
from wm_bringup.run.private_graph import graph_environment
from wm_core.parameters import build, to_markdown, to_yaml

NODES = {
    "/wm/perception": "perception",
    "/wm/imagination": "imagination",
    "/sim_camera_node": "sim_camera_node",
    "/wm/lifecycle_manager": "lifecycle_manager",
}


@pytest.fixture
def said(tmp_path):
    """said(text) -> what is complained of, without the file's name."""

    def read(text: str, nodes=NODES) -> list[str]:
        file = tmp_path / "robot.yaml"
        file.write_text(text)
        lines = list(complaints(file, nodes))
        assert all(line.startswith(f"{file}: ") and "\n" not in line for line in lines)
        return [line.removeprefix(f"{file}: ") for line in lines]

    return read


def one(node: str, parameter: str) -> str:
    return f"{node}:\n  ros__parameters:\n    {parameter}\n"


@pytest.mark.parametrize(
    ("parameter", "nearest"),
    [
        ("world_fram: odom", "world_frame"),
        ("color_topics: /rgb", "color_topic"),
        ("tf_timeout: 0.5", "tf_timeout_s"),
        ("segmenter: geometric", "pipeline.segmenter"),  # without its group
        ("pipeline: {segmentr: geometric}", "pipeline.segmenter"),
        ("pipelines: {stride: 2}", "pipeline.stride"),
    ],
)
def test_a_typo_has_a_nearest_right_name(said, parameter, nearest):
    (line,) = said(one("/**/perception", parameter))
    assert "/**/perception has no parameter" in line and line.endswith(f"did you mean {nearest!r}?")


def test_what_is_like_nothing_has_none(said):
    (line,) = said(one("/**/perception", "zzzzqqq: 1"))
    assert line == "/**/perception has no parameter 'zzzzqqq', nothing reads it"


@pytest.mark.parametrize(
    ("node", "nearest"),
    [
        ("/**/percepton", "did you mean /**/perception (here /wm/perception)?"),
        ("perception", "did you mean /**/perception (here /wm/perception)?"),  # it has a namespace
        ("/wn/imagination", "did you mean /**/imagination (here /wm/imagination)?"),
        ("/**/sim_camera", "did you mean /**/sim_camera_node (here /sim_camera_node)?"),
        ("/amcl", "here are /sim_camera_node, /wm/imagination, /wm/lifecycle_manager, /wm/perception"),
    ],
)
def test_a_node_that_is_not_there(said, node, nearest):
    (line,) = said(one(node, "use_sim_time: true"))
    assert "is no node of this graph, nothing reads it" in line and line.endswith(nearest)


@pytest.mark.parametrize(
    "text",
    [
        one("/**", "use_sim_time: true"),
        one("/**", "world_frame: odom"),  # one of them has it
        one("/**/perception", "pipeline.stride: 2"),
        one("/wm/*", "autostart: false"),
        one("/**/imagination", "heartbeat_period_s: 0.2"),
        one("/**/sim_camera_node", "scene: demo"),
        one("/**/perception", "qos_overrides: {/tf: {subscription: {depth: 10}}}"),
        "wm:\n  perception:\n    ros__parameters:\n      world_frame: odom\n",
        "/**/perception:\n  ros__parameters:\n",
        "",
    ],
)
def test_what_is_read_is_no_matter(said, text):
    assert said(text) == []


def test_others_parameters_are_not_judged(said):
    nodes = {**NODES, "/wm/lifecycle_manager": ""}
    assert said(one("/**/lifecycle_manager", "bond_respawn_max_duration: 5.0"), nodes) == []
    assert len(said(one("/**/lifecycle_manager", "bond_respawn_max_duration: 5.0"))) == 1


@pytest.mark.parametrize("text", ["perception: 3\n", "a: [1]\n", "/**/p: {ros__parameters: 7}\n", "a: {b: c: d}\n"])
def test_what_is_no_parameters_file(said, text):
    with pytest.raises(ParamsFileError, match="expected NODE: ros__parameters: NAME: VALUE"):
        said(text)


def test_wm_run_warns_too(tmp_path):
    from wm_bringup.run.inputs import unread_names

    file = tmp_path / "robot.yaml"
    file.write_text(one("/**/perception", "world_fram: odom") + one("/**/lifecycle_manager", "max_attempts: 1"))
    (line,) = unread_names([file])
    assert "world_fram" in line and "did you mean 'world_frame'?" in line


def test_node_names_with_wildcards():
    assert matches("/**", "/a/b") and matches("/**/b", "/b") and matches("/**/b", "/x/a/b")
    assert matches("/*/b", "/a/b") and not matches("/*/b", "/b") and not matches("/*/b", "/x/a/b")
    assert matches("/a/b", "/a/b") and not matches("/a/b", "/a/bc") and not matches("/b", "/a/b")


def test_the_last_value_counts(tmp_path):
    file = tmp_path / "robot.yaml"
    file.write_text(one("/**", "world_frame: a") + one("/**/perception", "world_frame: b"))
    assert value_of(file, "/wm/other", "world_frame") == "a"
    assert value_of(file, "/wm/perception", "color_topic") is None
    # The file of defaults comes first, and with it the place of /**/perception: see READ.
    assert value_of(file, "/wm/perception", "world_frame") == "a"
    file.write_text(one("/**", "world_frame: a") + one("/wm/perception", "world_frame: b"))
    assert value_of(file, "/wm/perception", "world_frame") == "b"


def topic(node: str, name: str) -> str:
    return one(f'"{node}"', f"color_topic: {name}")


USUAL = "/camera/color/image_raw"
READ = {
    "nothing": ([""], USUAL),
    "nested namespaces": (["wm:\n  perception:\n    ros__parameters: {color_topic: /rgb}\n"], "/rgb"),
    "nested below a slash": (["/wm:\n  perception:\n    ros__parameters: {color_topic: /rgb}\n"], "/rgb"),
    "the full name": ([topic("/wm/perception", "/rgb")], "/rgb"),
    "without the first slash": ([topic("wm/perception", "/rgb")], "/rgb"),
    "without its namespace": ([topic("perception", "/rgb")], USUAL),
    "another robot's": ([topic("/robot2/perception", "/rgb")], USUAL),
    "another robot's, nested": (["robot2:\n  perception:\n    ros__parameters: {color_topic: /rgb}\n"], USUAL),
    "any node of the namespace": ([topic("/wm/*", "/rgb")], "/rgb"),
    "any namespace": ([topic("/*/perception", "/rgb")], "/rgb"),
    "any namespace or none": ([topic("/**/perception", "/rgb")], "/rgb"),
    "any node": ([topic("/**", "/rgb")], "/rgb"),
    "any node, without the slash": ([topic("**", "/rgb")], "/rgb"),
    "any node of no namespace": ([topic("/*", "/rgb")], USUAL),
    "from general to particular": ([topic("/**", "/a") + topic("/wm/perception", "/b")], "/b"),
    "from particular to general": ([topic("/wm/perception", "/a") + topic("/**", "/b")], "/b"),
    "a name keeps its place": ([topic("/**", "/a") + topic("/wm/perception", "/b"), topic("/**", "/c")], "/b"),
    "as the file of defaults does": ([topic("/**", "/a") + topic("/**/perception", "/b")], "/a"),
    "two spellings": ([topic("/wm/perception", "/a") + topic("/**", "/b") + topic("wm/perception", "/c")], "/c"),
    "two files": ([topic("/**/perception", "/a"), topic("/**/perception", "/b")], "/b"),
}
"""Files, and perception's color_topic in the namespace wm when it has read them."""


def of_a_node(files: list[Path], names: Sequence[str] = ("color_topic",)) -> Any:
    """As the node itself gets it, from rcl; of several names, a list."""
    import rclpy
    from rclpy.node import Node
    from rclpy.signals import SignalHandlerOptions

    defaults = Path(__file__).resolve().parents[2] / "ros2_ws/src/wm_perception/config/perception.yaml"
    context = rclpy.Context()
    rclpy.init(
        context=context,
        args=ros_arguments("/wm", params_files=[defaults, *files]),
        domain_id=int(graph_environment()["ROS_DOMAIN_ID"]),
        signal_handler_options=SignalHandlerOptions.NO,
    )
    try:
        node = Node(
            "perception",
            context=context,
            start_parameter_services=False,
            automatically_declare_parameters_from_overrides=True,
        )
        found = [node.get_parameter(name).value for name in names]
        node.destroy_node()
    finally:
        rclpy.try_shutdown(context=context)
    return found if len(names) > 1 else found[0]


SCALARS = """
1e3 1E3 1_000 2020-01-01 0x1F -0x10 010 08 0b11 0o17 1:30 '1:30' '1e3' .5 5. +7 +.5E+2 1.5e-3 inf nan .inf -.INF .NaN
Infinity 1e400 99999999999999999999 0x1p3 off Y oN TrUe true no ~ null NULL [1e3,2.0] [1,0x10] [a,'1'] [on,false] a.b
"""


@pytest.mark.ros
def test_scalars_are_read_as_rcl_does(tmp_path):
    file = tmp_path / "robot.yaml"
    file.write_text(one("/**", "\n    ".join(f"p{n}: {text}" for n, text in enumerate(SCALARS.split()))))
    names = [f"p{n}" for n in range(len(SCALARS.split()))]
    expected, found = of_a_node([file], names), node_parameters([file], "/wm/perception")
    for text, name, value in zip(SCALARS.split(), names, expected, strict=True):
        assert repr(found[name]) == repr(list(value) if isinstance(value, (list, array)) else value), text


@pytest.mark.ros
@pytest.mark.parametrize(
    ("text", "said"), [("p:", "p of /\\*\\* has no value"), ("p: [1, 2.5]", "expected values of one type")]
)
def test_what_rcl_refuses_is_refused(tmp_path, text, said):
    file = tmp_path / "robot.yaml"
    file.write_text(one("/**", text))
    with pytest.raises(ParamsFileError, match=said):
        node_parameters([file], "/wm/perception")
    with pytest.raises(Exception, match="parse params file"):
        of_a_node([file])


READERS = {
    "rcl": of_a_node,
    "params_file": lambda files: node_parameters(files, "/wm/perception").get("color_topic", USUAL),
    "launch": lambda files: value_of(files[0], "/wm/perception", "color_topic") or USUAL,
    "doctor": lambda files: read_parameters(files, "/wm", {})[0].color_topic,
    "run": lambda files: perception_inputs(files, {}, "/wm").color,
}


@pytest.mark.ros
@pytest.mark.parametrize("case", READ)
def test_every_reader_takes_what_the_node_does(tmp_path, case):
    contents, expected = READ[case]
    files = [tmp_path / f"{i}.yaml" for i in range(len(contents))]
    for file, text in zip(files, contents, strict=True):
        file.write_text(text)
    found = {name: reader(files) for name, reader in READERS.items()}
    if len(files) > 1:
        del found["launch"]  # takes one file
    assert found == dict.fromkeys(found, expected)


@pytest.mark.parametrize("text", ["perception: 3\n", "- 1\n", "/**/p: {ros__parameters: 7}\n", "a: {b: c: d}\n"])
@pytest.mark.parametrize("reader", ["params_file", "launch", "doctor", "run"])
def test_every_reader_refuses_what_is_no_parameters_file(tmp_path, reader, text):
    file = tmp_path / "robot.yaml"
    file.write_text(text)
    with pytest.raises(ParamsFileError, match="expected NODE: ros__parameters: NAME: VALUE"):
        READERS[reader]([file])


def test_doctor_tells_unknown_parameters_from_unknown_nodes(tmp_path):
    file = tmp_path / "robot.yaml"
    text = "autostart: true\n    heartbeat_period_s: 0.2\n    diagnostics_period_s: 1.0"
    file.write_text(one("/**/perception", text))
    assert read_parameters([file], "/wm", {})[2] == []
    file.write_text(one("/**/perception", "world_fram: odom") + one("perception", "world_frame: odom"))
    note, warning = read_parameters([file], "/wm", {})[2]
    assert note.level == "note" and warning.level == "warning"
    assert note.found.endswith(
        "perception is no node of this graph, nothing reads it; did you mean /**/perception (here /wm/perception)?"
    )
    assert "no parameter 'world_fram'" in warning.found and warning.advice == "did you mean 'world_frame'?"


def test_wm_run_reads_frames_with_their_prefix(tmp_path):
    file = tmp_path / "robot.yaml"
    file.write_text(one("/**/perception", "frame_prefix: robot1/\n    camera_frame: cam"))
    inputs = perception_inputs([file], {})
    assert (inputs.world_frame, inputs.camera_frame) == ("robot1/map", "robot1/cam")
    words = player_command(tmp_path, None, Playing(), (), "/wm", inputs) or []
    assert words[words.index("--world-frame") + 1] == "robot1/map"
    assert words[words.index("--camera-frame") + 1] == "robot1/cam"
    file.write_text(one("/**/perception", "frame_prefix: robot1/\n    world_frame: /map"))
    inputs = perception_inputs([file], {})
    assert (inputs.world_frame, inputs.camera_frame) == ("map", "")
    words = player_command(tmp_path, None, Playing(), (), "/wm", inputs) or []
    assert words and "--camera-frame" not in words


@pytest.mark.parametrize("node", PARAMETERS)
def test_files_with_defaults_and_the_documentation_are_those_of_the_nodes(node):
    """They are what `python -m wm_core.parameters` writes today."""
    parameters = PARAMETERS[node]
    root = Path(__file__).resolve().parents[2]
    file = root / "ros2_ws/src" / parameters.__module__.split(".")[0] / f"config/{node}.yaml"
    _, comment, text = file.read_text().split("\n", 2)
    command = f"python -m wm_core.parameters {parameters.__module__}:{parameters.__name__} {node}"
    assert comment == f"# {command}"
    assert text == to_yaml(parameters, node), f"{file} is out of date, run: {command}"
    assert build(parameters, node_parameters([file], f"/wm/{node}")) == parameters()
    documentation = (root / "docs/parameters.md").read_text()
    assert to_markdown(parameters, node) in documentation, f"docs/parameters.md is out of date: {command} --markdown"
