"""The counting behind the findings, with a graph and a clock of the test's own."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from traced_scene import CAMERA, FRONT, make_scene, trace
from wm_core.health.depth_unit import depth_unit_finding, guess_depth_unit
from wm_core.health.findings import Finding, Severity
from wm_perception.inspection import FrameInspector, inspect_frame
from wm_perception.types import Frame, PerceptionConfig
from wm_ros import qos
from wm_ros.health.inputs import FrameLog, InputHealth, qos_mismatch, topics_of_type

IMAGE = "sensor_msgs/msg/Image"
S = 1_000_000_000


class Graph:
    """Stands in for a node: its clock and what it knows of the graph."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.simulated = False
        self.published: dict[str, list[tuple[str, Any]]] = {}
        self.subscribed: dict[str, str] = {}

    def time(self) -> float:
        return self.now_s

    def get_namespace(self) -> str:
        return "/wm"

    def resolve_topic_name(self, name: str) -> str:
        return name if name.startswith("/") else f"/wm/{name}"

    def get_clock(self) -> Any:
        now = SimpleNamespace(nanoseconds=round(self.now_s * S))
        return SimpleNamespace(now=lambda: now, ros_time_is_active=self.simulated)

    def get_publishers_info_by_topic(self, topic: str) -> list[Any]:
        return [
            SimpleNamespace(node_namespace="/", node_name="camera", topic_type=kind, qos_profile=profile)
            for kind, profile in self.published.get(topic, [])
        ]

    def get_topic_names_and_types(self) -> list[tuple[str, list[str]]]:
        types: dict[str, list[str]] = {}
        for topic, publishers in self.published.items():
            types.setdefault(topic, []).extend(kind for kind, _ in publishers)
        for topic, kind in self.subscribed.items():
            types.setdefault(topic, []).append(kind)
        return list(types.items())

    def count_publishers(self, topic: str) -> int:
        return len(self.published.get(topic, []))


def health_of(graph: Graph) -> InputHealth:
    health = InputHealth(graph, clock=graph.time)
    health.listen("color", "color images", "/color", IMAGE, "color_topic")
    return health


def test_a_stream_from_missing_to_fine_to_stopped():
    graph = Graph()
    health = health_of(graph)
    assert health.findings() == []
    graph.now_s += 3.0
    assert [f.cause for f in health.findings()] == ["missing.color"]
    graph.published["/head/image"] = [(IMAGE, qos.SENSOR)]
    graph.published["/wm/overlay"] = graph.published["/robot2/overlay"] = [(IMAGE, qos.SENSOR)]
    graph.subscribed["/color"] = graph.subscribed["/nobody"] = IMAGE
    (finding,) = health.findings()
    assert finding.cause == "wrong_topic.color" and "/head/image;" in finding.text
    graph.published["/color"] = [(IMAGE, qos.SENSOR)]
    assert [f.cause for f in health.findings()] == ["silent.color"]
    health.arrived("color", round(graph.now_s * S))
    assert health.findings() == [] and health.stamps_ns("color") == [round(graph.now_s * S)]
    graph.now_s += 10.0
    assert health.stamps_ns("color") == [] and [f.cause for f in health.findings()] == ["silent.color"]
    del graph.published["/color"]
    assert [f.cause for f in health.findings()] == ["stopped.color"]
    health.arrived("nothing", 0)  # not followed: no matter
    health.clear()
    assert health.findings() == []


def test_a_topic_that_is_only_subscribed_to_is_no_candidate():
    graph = Graph()
    graph.published["/color"] = [("std_msgs/msg/String", qos.SENSOR)]
    graph.subscribed["/color"] = IMAGE
    assert topics_of_type(graph, IMAGE) == []
    assert topics_of_type(graph, "std_msgs/msg/String") == ["/color"]
    assert topics_of_type(graph, "std_msgs/msg/String", without="/color") == ["/color"]  # it is no namespace


def test_an_output_of_another_node_is_sought_by_its_name():
    graph = Graph()
    health = InputHealth(graph, clock=graph.time)
    health.listen("instances", "object ids per pixel", "instances", IMAGE)
    graph.published["/color"] = [(IMAGE, qos.SENSOR)]
    graph.now_s += 3.0
    assert [f.cause for f in health.findings()] == ["missing.instances"]
    graph.published["/robot2/instances"] = [(IMAGE, qos.SENSOR)]
    assert "/robot2/instances" in health.findings()[0].found


def test_stamps_are_held_against_the_clock():
    graph = Graph()
    health = health_of(graph)
    for _ in range(5):
        graph.now_s += 0.1
        health.arrived("color", round((graph.now_s - 50.0) * S))
    assert [f.cause for f in health.findings()] == ["clocks_apart"]
    # A burst after a pause is late; as soon as one fits, the clocks are one.
    health.arrived("color", round(graph.now_s * S))
    assert health.findings() == []
    for _ in range(20):
        health.arrived("color", 0)
    assert [f.cause for f in health.findings()] == ["stamp_zero.color"]


def test_simulated_time_that_stands_is_said_when_nothing_comes():
    graph = Graph()
    graph.simulated, graph.now_s = True, 0.0
    mono = [0.0]
    health = InputHealth(graph, clock=lambda: mono[0])
    health.listen("color", "color images", "/color", IMAGE, "color_topic")
    mono[0] = 5.0
    assert {f.cause for f in health.findings()} == {"missing.color", "no_clock"}


def test_qos():
    assert qos_mismatch(qos.SENSOR, qos.SENSOR) == "" and qos_mismatch(qos.TF, qos.SENSOR) == ""
    assert "best effort offered" in qos_mismatch(qos.SENSOR, qos.TF)
    assert "volatile offered" in qos_mismatch(qos.TF, qos.TF_STATIC)


@given(st.lists(st.sampled_from(["good", "a", "b"]), max_size=200))
def test_a_frame_log_says_what_takes_a_tenth_of_the_frames(frames: list[str]):
    now = [0.0]
    log = FrameLog(window_s=5.0, clock=lambda: now[0])
    for frame in frames:
        now[0] += 0.02
        if frame == "good":
            log.good()
        else:
            log.bad(Finding(frame, Severity.ERROR, f"at {now[0]:.2f}"))
    said = {f.cause: f for f in log.findings()}
    for cause in ("a", "b"):
        count = frames.count(cause)
        assert (cause in said) == (count >= max(2, 0.1 * len(frames)))
    now[0] += 6.0
    assert log.findings() == []


def test_a_frame_is_inspected_twice_a_second_once_it_has_settled():
    scene = make_scene()
    color, depth, _ = trace(scene)
    now = [0.0]
    inspector = FrameInspector("/d", "map", PerceptionConfig(), 0.02, clock=lambda: now[0])
    blind = Frame(1, color, np.zeros_like(depth), CAMERA, FRONT)
    for _ in range(4):
        inspector.look(blind, scene, "optical")
    assert inspector.findings() == []  # a support takes some frames
    inspector.look(blind, scene, "optical")
    assert [f.cause for f in inspector.findings()] == ["empty_depth"]
    now[0] = 0.2
    inspector.look(Frame(2, color, depth, CAMERA, FRONT), scene, "optical")
    assert inspector.findings()  # not yet time
    now[0] = 1.0
    inspector.look(Frame(3, color, depth, CAMERA, FRONT), scene, "optical")
    assert inspector.findings() == []
    inspector.look(blind, scene, "optical")
    now[0] = 20.0
    assert inspector.findings() == []  # long ago


def test_one_finding_explains_a_frame():
    """No support under a wrong pose or unit is not said beside what explains it."""
    scene = make_scene()
    color, depth, _ = trace(scene)
    none = scene.select(~scene.is_static)

    def said(frame: Frame, graph: Any) -> list[Finding]:
        guess = guess_depth_unit(frame.depth_m, frame.camera, frame.world_T_camera)
        unit = depth_unit_finding("/d", guess, 1.0) if guess is not None else None
        return inspect_frame(frame, graph, "/d", "optical", "map", PerceptionConfig(), 0.02, unit)

    def causes(frame: Frame, graph: Any) -> list[str]:
        return [f.cause for f in said(frame, graph)]

    assert causes(Frame(1, color, depth, CAMERA, FRONT), scene) == []
    assert causes(Frame(1, color, depth, CAMERA, FRONT), none) == ["no_support"]
    assert causes(Frame(1, color, depth, CAMERA, FRONT), None) == []
    assert causes(Frame(1, color, 4.0 * depth, CAMERA, FRONT), none) == ["depth_unit"]
    assert causes(Frame(1, color, 1000.0 * depth, CAMERA, FRONT), none) == ["depth_unit"]
    assert causes(Frame(1, color, 0.001 * depth, CAMERA, FRONT), none) == ["depth_unit"]
    # An error where nothing is left to perceive.
    assert said(Frame(1, color, 1000.0 * depth, CAMERA, FRONT), none)[0].severity == Severity.ERROR
