"""The recorder: what real publishers say in other processes comes back from the file, byte for byte."""

from __future__ import annotations

import json
import os
import signal
import struct
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from wm_bringup.environment import message_definition, referenced_types
from wm_bringup.recording.latency_log import LatencyLog
from wm_bringup.recording.topic_format import matching_qos, stamp_reader

FRAMES = 25
WIDTH, HEIGHT = 640, 480


def talk(go: Path) -> None:
    """What a camera, a perception node and a robot would say: FRAMES frames at 15 Hz."""
    import rclpy
    from geometry_msgs.msg import TransformStamped
    from rclpy.node import Node
    from rosgraph_msgs.msg import Clock
    from sensor_msgs.msg import CameraInfo, Image
    from std_msgs.msg import String
    from tf2_msgs.msg import TFMessage
    from wm_msgs.msg import SceneGraph, SceneObject

    from wm_ros import qos
    from wm_ros.images.pixels import rgb_to_image

    rclpy.init()
    node = Node("talker")
    color = node.create_publisher(Image, "/camera/color/image_raw", qos.SENSOR)
    info = node.create_publisher(CameraInfo, "/camera/color/camera_info", qos.SENSOR)
    graph = node.create_publisher(SceneGraph, "/wm/scene_graph", qos.SCENE_GRAPH)
    static = node.create_publisher(TFMessage, "/tf_static", qos.TF_STATIC)
    moving = node.create_publisher(TFMessage, "/tf", qos.TF)
    clock = node.create_publisher(Clock, "/clock", 10)
    hidden = node.create_publisher(String, "/_hidden", 10)
    left_out = node.create_publisher(String, "/noise/chatter", 10)
    transform = TransformStamped()
    transform.header.frame_id, transform.child_frame_id = "base_link", "camera"
    static.publish(TFMessage(transforms=[transform]))
    while not (go.exists() and graph.get_subscription_count() and color.get_subscription_count()):
        rclpy.spin_once(node, timeout_sec=0.05)
    for i in range(FRAMES):
        stamp_ns = 1_000_000_000 + i * 66_000_000
        image = rgb_to_image(np.full((HEIGHT, WIDTH, 3), i, np.uint8), stamp_ns, "camera_optical")
        color.publish(image)
        info.publish(CameraInfo(header=image.header, width=WIDTH, height=HEIGHT))
        clock.publish(Clock(clock=image.header.stamp))
        transform.header.stamp = image.header.stamp
        moving.publish(TFMessage(transforms=[transform]))
        hidden.publish(String(data="x"))
        left_out.publish(String(data="x"))
        time.sleep(0.02)  # perception at work
        message = SceneGraph(header=image.header, class_names=["object", "mug"])
        message.header.frame_id = "map"
        thing = SceneObject(id=i + 1, class_name="mug", class_probabilities=[0.25, 0.75], hull_points=[0.5] * 9)
        thing.pose.pose.position.x = 0.1 * i
        message.objects = [thing]
        graph.publish(message)
        time.sleep(1 / 15 - 0.02)
    print("said", flush=True)
    rclpy.spin(node)


@pytest.fixture
def talker(node_process, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=":")
    return node_process("test_recorder", str(tmp_path / "go"))


@pytest.mark.smoke
@pytest.mark.ros
@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_round_trip(tmp_path, talker, node_process, wait_for, ending):
    from mcap.reader import make_reader
    from mcap_ros2.decoder import DecoderFactory
    from rosbags.highlevel import AnyReader

    out = tmp_path / "bag" / "run.mcap"
    compression = "zstd" if ending == signal.SIGINT else "lz4"
    recorder = node_process(
        "wm_bringup.recording.recorder", "--out", str(out), "--exclude", "^/noise/", "--compression", compression
    )
    wait_for(lambda: "recording to" in recorder.output, what="the recorder")
    (tmp_path / "go").touch()
    wait_for(lambda: "said" in talker.output, 30.0, "the talker to finish")
    time.sleep(0.3)
    recorder.signal_group(ending)
    assert recorder.process.wait(30.0) == 0, recorder.output

    with out.open("rb") as file:
        reader = make_reader(file, decoder_factories=[DecoderFactory()])
        assert reader.get_header().profile == "ros2"
        summary = reader.get_summary()
        channels = {channel.topic: channel for channel in summary.channels.values()}
        graphs = [message for _, _, _, message in reader.iter_decoded_messages(topics=["/wm/scene_graph"])]
        clocks = [m for _, _, m in reader.iter_messages(topics=["/clock"])]
        assert all(m.publish_time < 10_000_000_000 for m in clocks)
        assert all(abs(m.log_time - time.time_ns()) < 120e9 for m in clocks)
        lost = next(m for m in reader.iter_metadata() if m.name == "wm_recorder").metadata["lost"]
    topics = {"/camera/color/image_raw", "/camera/color/camera_info", "/wm/scene_graph", "/tf", "/tf_static", "/clock"}
    assert topics <= channels.keys()
    assert "/_hidden" not in channels and "/noise/chatter" not in channels
    assert lost == "{}"
    assert {channel.message_encoding for channel in channels.values()} == {"cdr"}
    assert {schema.encoding for schema in summary.schemas.values()} == {"ros2msg"}
    assert [graph.objects[0].id for graph in graphs] == list(range(graphs[0].objects[0].id, FRAMES + 1))
    assert len(graphs) >= FRAMES - 5
    assert graphs[-1].objects[0].class_name == "mug" and graphs[-1].class_names == ["object", "mug"]
    assert graphs[-1].objects[0].pose.pose.position.x == pytest.approx(0.1 * (FRAMES - 1))

    with AnyReader([out]) as bag:
        found = {connection.topic: connection for connection in bag.connections}
        assert found["/wm/scene_graph"].msgtype == "wm_msgs/msg/SceneGraph"
        assert found["/camera/color/image_raw"].msgcount >= FRAMES - 5
        assert found["/tf_static"].msgcount == 1  # said before the recorder was there
        qos = found["/wm/scene_graph"].ext.offered_qos_profiles[0]
        assert (qos.reliability.name, qos.durability.name) == ("RELIABLE", "TRANSIENT_LOCAL")
        qos = found["/camera/color/image_raw"].ext.offered_qos_profiles[0]
        assert qos.reliability.name == "BEST_EFFORT"
        last = [
            bag.deserialize(data, connection.msgtype)
            for connection, _, data in bag.messages([found["/camera/color/image_raw"]])
        ][-1]
        assert (last.width, last.height, last.encoding) == (WIDTH, HEIGHT, "rgb8")
        assert (last.data == FRAMES - 1).all() and last.data.size == WIDTH * HEIGHT * 3

    latency = json.loads((tmp_path / "bag" / "latency.json").read_text())
    assert latency["count_matched"] >= FRAMES - 5
    assert 0.015 < latency["median_s"] <= latency["p95_s"] < 1.0
    assert 3.0 < latency["rate_to_hz"] < 16.0


@pytest.mark.ros
def test_a_later_publisher_that_offers_less(tmp_path, node_process, wait_for):
    """A best-effort publisher joins a topic that is recorded reliably."""
    from mcap.reader import make_reader

    out = tmp_path / "run.mcap"
    recorder = node_process("wm_bringup.recording.recorder", "--out", str(out))
    wait_for(lambda: "recording to" in recorder.output, what="the recorder")
    code = (
        "import rclpy, sys; from rclpy.node import Node; from std_msgs.msg import String; from wm_ros import qos\n"
        "rclpy.init(); node = Node(sys.argv[1]); profile = getattr(qos, sys.argv[2])\n"
        "out = node.create_publisher(String, '/word', profile)\n"
        "while not out.get_subscription_count(): rclpy.spin_once(node, timeout_sec=0.05)\n"
        "for i in range(200):\n"
        "    out.publish(String(data=sys.argv[1])); rclpy.spin_once(node, timeout_sec=0.05)\n"
        "    if i == 10: print('heard', flush=True)\n"
    )
    (tmp_path / "speak.py").write_text(code)
    env = {"PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"}
    first = node_process("speak", "first", "COMMAND", env=env)
    wait_for(lambda: "heard" in first.output)
    second = node_process("speak", "second", "SENSOR", env=env)
    wait_for(lambda: "heard" in second.output)
    recorder.stop()
    assert first.alive
    with out.open("rb") as file:
        words = [message.data for _, _, message in make_reader(file).iter_messages(topics=["/word"])]
    assert any(b"first" in word for word in words) and any(b"second" in word for word in words)


@pytest.mark.ros
def test_refusals(tmp_path, node_process, wait_for):
    bad = node_process("wm_bringup.recording.recorder", "--out", str(tmp_path / "a.mcap"), "--exclude", "(")
    wait_for(lambda: not bad.alive)
    assert bad.process.returncode == 2 and "expected a regular expression" in bad.output
    (tmp_path / "file").touch()
    blocked = node_process("wm_bringup.recording.recorder", "--out", str(tmp_path / "file" / "a.mcap"))
    wait_for(lambda: not blocked.alive)
    assert blocked.process.returncode == 1 and "error:" in blocked.output and "Traceback" not in blocked.output


def test_definitions():
    assert referenced_types(
        "Header h\nVector3[4] v # Foo bar\nfloat64 X=1\nstring<=5 s\na_msgs/B[<=3] b", "p_msgs"
    ) == [
        "std_msgs/msg/Header",
        "p_msgs/msg/Vector3",
        "a_msgs/msg/B",
    ]
    text = message_definition("wm_msgs/msg/SceneGraph")
    assert text.count("MSG: std_msgs/Header\n") == 1 and "MSG: builtin_interfaces/Time\n" in text
    with pytest.raises(LookupError, match="nowhere_msgs"):
        message_definition("nowhere_msgs/msg/Thing")


def test_stamps_of_serialized_messages():
    from rclpy.serialization import serialize_message
    from rosgraph_msgs.msg import Clock
    from std_msgs.msg import String
    from tf2_msgs.msg import TFMessage
    from wm_msgs.msg import SceneGraph

    graph = SceneGraph()
    graph.header.stamp.sec, graph.header.stamp.nanosec = 12, 345
    assert stamp_reader(SceneGraph)(serialize_message(graph)) == 12_000_000_345
    clock = Clock()
    clock.clock.sec = 7
    assert stamp_reader(Clock)(serialize_message(clock)) == 7_000_000_000
    assert stamp_reader(TFMessage)(serialize_message(TFMessage())) == 0
    assert stamp_reader(String)(serialize_message(String(data="a long enough text"))) == 0
    assert stamp_reader(SceneGraph)(b"\x00\x00\x00\x00" + struct.pack(">iI", 1, 2)) == 1_000_000_002


def test_matching_qos_is_the_weakest_offer():
    from wm_ros import qos

    assert matching_qos([qos.SCENE_GRAPH], 5).durability.name == "TRANSIENT_LOCAL"
    mixed = matching_qos([qos.SCENE_GRAPH, qos.SENSOR], 5)
    assert (mixed.reliability.name, mixed.durability.name, mixed.depth) == ("BEST_EFFORT", "VOLATILE", 5)


def test_latency_of_nothing_and_of_little():
    log = LatencyLog("/a", "/b")
    assert log.summary()["median_s"] is None and log.summary()["rate_to_hz"] is None
    log.add("/a", 1, 1_000_000_000)
    log.add("/b", 1, 1_100_000_000)
    log.add("/b", 2, 1_200_000_000)
    log.add("/c", 2, 0)
    summary = log.summary()
    assert summary["median_s"] == pytest.approx(0.1) and summary["rate_to_hz"] == pytest.approx(10.0)
    assert summary["count_matched"] == 1 and summary["stamps"][1]["from_ns"] is None
    assert json.dumps(summary)


if __name__ == "__main__":
    talk(Path(sys.argv[1]))
