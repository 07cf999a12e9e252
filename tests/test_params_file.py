"""Names in a parameters file that no node reads are found, with the nearest right ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from wm_bringup.params_file import PACKAGES, ParamsFileError, complaints, known_parameters, matches, value_of
from wm_ros.parameters import specs, to_yaml

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
    from wm_bringup.live import unread_names

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
    assert value_of(file, "/wm/perception", "world_frame") == "b"
    assert value_of(file, "/wm/other", "world_frame") == "a"
    assert value_of(file, "/wm/perception", "color_topic") is None


@pytest.mark.parametrize("node", PACKAGES)
def test_files_with_defaults_are_those_of_the_nodes(node):
    """They are what `python -m wm_ros.parameters` writes today, so that no parameter is taken for unknown."""
    from wm_bringup.lifecycle_manager import LifecycleManagerParameters
    from wm_imagination.node import ImaginationParameters
    from wm_perception.node import PerceptionParameters
    from wm_sim.node import SimCameraParameters

    classes = {
        "perception": PerceptionParameters,
        "imagination": ImaginationParameters,
        "sim_camera_node": SimCameraParameters,
        "lifecycle_manager": LifecycleManagerParameters,
    }
    assert {spec.name for spec in specs(classes[node])} <= known_parameters(node)
    file = Path(__file__).resolve().parents[1] / "ros2_ws/src" / PACKAGES[node] / f"config/{node}.yaml"
    _, command, text = file.read_text().split("\n", 2)
    assert command.startswith("# python -m wm_ros.parameters ") and command.endswith(
        f":{classes[node].__name__} {node}"
    )
    assert text == to_yaml(classes[node], node), f"{file} is out of date, run: {command.strip('# ')}"
