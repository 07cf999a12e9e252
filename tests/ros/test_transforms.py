"""Transforms over time: the buffer, and tf2_ros in its place."""

from __future__ import annotations

import sys
import threading
import time
import types

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from wm_core.geometry import pose_matrix
from wm_core.rotations import matrix_to_quaternion, rotation_distance
from wm_ros.transforms import (
    NotConnectedError,
    RosTransforms,
    TooNewError,
    TooOldError,
    TransformBuffer,
    UnknownFrameError,
)

S = 1_000_000_000
random_arrays = settings(max_examples=40, deadline=None)


poses = st.tuples(
    hnp.arrays(np.float64, 3, elements=st.floats(-5, 5)),
    hnp.arrays(np.float64, 4, elements=st.floats(-1, 1)).filter(lambda q: np.linalg.norm(q) > 0.1),
)


@random_arrays
@given(poses, poses, poses, poses)
def test_transforms_compose_and_invert(a, b, c, d):
    buffer = TransformBuffer()
    buffer.set("map", "odom", 5 * S, *a)
    buffer.set("odom", "base", 5 * S, *b)
    buffer.set("base", "camera", 0, *c, static=True)
    buffer.set("odom", "cup", 5 * S, *d)
    map_T_camera = pose_matrix(*a) @ pose_matrix(*b) @ pose_matrix(*c)
    np.testing.assert_allclose(buffer.lookup("map", "camera", 5 * S), map_T_camera, atol=1e-9)
    np.testing.assert_allclose(buffer.lookup("camera", "map", 5 * S), np.linalg.inv(map_T_camera), atol=1e-9)
    cup_T_camera = np.linalg.inv(pose_matrix(*d)) @ pose_matrix(*b) @ pose_matrix(*c)
    np.testing.assert_allclose(buffer.lookup("/cup", "/camera", 5 * S), cup_T_camera, atol=1e-9)
    np.testing.assert_allclose(buffer.lookup("cup", "camera"), cup_T_camera, atol=1e-9)
    assert buffer.frames == ["base", "camera", "cup", "map", "odom"]
    np.testing.assert_array_equal(buffer.lookup("x", "x", 7), np.eye(4))


@random_arrays
@given(poses, poses, st.integers(0, 1000), st.integers(0, 2**30))
def test_transforms_are_interpolated_between_neighbors(a, b, thousandth, start_s):
    buffer = TransformBuffer()
    start = start_s * S
    buffer.set("map", "base", start, *a)
    buffer.set("map", "base", start + S, *b)
    found = buffer.lookup("map", "base", start + thousandth * 1_000_000) if start + thousandth else None
    if found is None:
        return
    share = thousandth / 1000.0
    np.testing.assert_allclose(found[:3, 3], (1 - share) * a[0] + share * b[0], atol=1e-9)
    turn = rotation_distance(a[1], b[1])
    done = rotation_distance(a[1], matrix_to_quaternion(found[:3, :3]))
    np.testing.assert_allclose(done, share * turn, atol=1e-6)


def test_lookup_errors_say_why_and_by_how_much():
    buffer = TransformBuffer(extrapolation_s=0.05)
    with pytest.raises(UnknownFrameError, match="nothing came on /tf"):
        buffer.lookup("map", "camera", S)
    identity = ([0, 0, 0], [0, 0, 0, 1])
    buffer.set("map", "base", 10 * S, *identity)
    buffer.set("world", "cup", 10 * S, *identity)
    with pytest.raises(UnknownFrameError, match="'camera' is not known; known frames: base, cup, map, world"):
        buffer.lookup("map", "camera", S)
    with pytest.raises(NotConnectedError, match=r"'map'.*'world'"):
        buffer.lookup("base", "cup", 10 * S)
    with pytest.raises(TooOldError, match=r"'map' to 'base': asked for 1\.500 s before") as old:
        buffer.lookup("map", "base", 8_500_000_000)
    assert old.value.by_ns == 1_500_000_000
    buffer.lookup("map", "base", 10 * S + 50_000_000)
    with pytest.raises(TooNewError, match=r"0\.200 s after") as new:
        buffer.lookup("map", "base", 10 * S + 200_000_000)
    assert new.value.by_ns == 200_000_000
    buffer.set("base", "map", 10 * S, *identity)
    with pytest.raises(NotConnectedError, match="loop"):
        buffer.lookup("base", "cup", 10 * S)


@pytest.mark.parametrize(
    ("parent", "child", "position"), [("", "a", [0, 0, 0]), ("a", "a", [0, 0, 0]), ("a", "b", [0, np.nan, 0])]
)
def test_impossible_transforms_are_refused(parent, child, position):
    with pytest.raises(ValueError, match="transform from"):
        TransformBuffer().set(parent, child, S, position, [0, 0, 0, 1])


def test_buffer_is_bounded_sorts_and_starts_anew():
    buffer = TransformBuffer(cache_s=2.0)
    for k in range(100):
        buffer.set("map", "base", k * S // 10, [k, 0, 0], [0, 0, 0, 1])
    assert len(buffer._edges["base"].stamps) == 21
    buffer.set("map", "base", 9_450_000_000 + 400_000_000, [98.5, 0, 0], [0, 0, 0, 1])  # late, but in the cache
    assert buffer.lookup("map", "base", 9_850_000_000)[0, 3] == pytest.approx(98.5)
    buffer.set("map", "base", S, [7, 0, 0], [0, 0, 0, 1])  # time was set back
    assert buffer.lookup("map", "base")[0, 3] == 7
    buffer.set("map", "other", 50 * S, [1, 0, 0], [0, 0, 0, 1])
    buffer.clear(after_ns=2 * S)
    assert buffer.frames == ["base", "map"]


def test_waiting_ends_when_the_transform_comes_or_the_time_is_up():
    buffer = TransformBuffer()
    buffer.set("map", "base", S, [0, 0, 0], [0, 0, 0, 1])
    timer = threading.Timer(0.1, buffer.set, ("map", "base", 2 * S, [4, 0, 0], [0, 0, 0, 1]))
    timer.start()
    assert buffer.wait("map", "base", 2 * S, 5.0)[0, 3] == 4
    started = time.monotonic()
    with pytest.raises(TooNewError):
        buffer.wait("map", "base", 9 * S, 0.1)
    assert 0.08 < time.monotonic() - started < 2.0
    started = time.monotonic()
    with pytest.raises(TooOldError):  # waiting cannot help
        buffer.wait("map", "base", 0 + 1, 5.0)
    assert time.monotonic() - started < 1.0


def test_tf2_ros_is_used_where_it_imports(monkeypatch):
    """tf2_ros is not on PyPI: a stand-in shows that its exceptions and poses are translated."""
    tf2 = types.ModuleType("tf2_ros")
    for name in ("TransformException", "LookupException", "ConnectivityException", "ExtrapolationException"):
        base = Exception if name == "TransformException" else tf2.TransformException
        setattr(tf2, name, type(name, (base,), {}))

    class Buffer:
        def __init__(self, cache_time):
            self.failures = []
            self.cleared = 0

        def clear(self):
            self.cleared += 1

        def lookup_transform(self, target, source, when):
            if self.failures:
                raise self.failures.pop()
            from geometry_msgs.msg import TransformStamped

            msg = TransformStamped()
            msg.transform.translation.x = when.nanoseconds / S
            return msg

    tf2.Buffer = Buffer
    tf2.TransformListener = lambda buffer, node: object()
    monkeypatch.setitem(sys.modules, "tf2_ros", tf2)
    transforms = RosTransforms(node=None)
    assert transforms.backend == "tf2_ros"
    assert transforms.wait("a", "b", 3 * S, 0.0)[0, 3] == 3.0
    for failure, expected in (
        (tf2.LookupException("who"), UnknownFrameError),
        (tf2.ConnectivityException("apart"), NotConnectedError),
        (tf2.ExtrapolationException("extrapolation into the past"), TooOldError),
        (tf2.ExtrapolationException("extrapolation into the future"), TooNewError),
    ):
        transforms._buffer.failures = [failure]
        with pytest.raises(expected):
            transforms.wait("a", "b", S, 0.0)
    transforms._buffer.failures = [tf2.ExtrapolationException("into the future")]
    assert transforms.wait("a", "b", S, 1.0)[0, 3] == 1.0  # the second try finds it
    transforms.clear(S)
    assert transforms._buffer.cleared == 1
