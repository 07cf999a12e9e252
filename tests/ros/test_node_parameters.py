"""Parameters of a dataclass: from YAML, refused, on a node."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import rclpy
import yaml
from hypothesis import given
from hypothesis import strategies as st

from wm_bringup.run.params_file import flatten
from wm_core.parameters import ParameterError, build, check_fields, group, parameter, specs, to_yaml
from wm_ros.nodes.parameters import NodeParameters


@dataclass(frozen=True)
class Inner:
    gain: float = parameter(0.5, "gain", minimum=0.0, maximum=1.0)
    names: tuple[str, ...] = parameter(("a", "b"), "names")


@dataclass(frozen=True)
class Example:
    rate_hz: float = parameter(30.0, "frames", unit="Hz", minimum=1.0, maximum=120.0)
    count: int = parameter(3, "how many", minimum=1)
    mode: str = parameter("fast", "mode", choices=("fast", "good"))
    debug: bool = parameter(False, "talk")
    pose: tuple[float, ...] = parameter((0.0, 1.0, 2.0), "pose", length=3)
    plain: float = 2.5
    inner: Inner = field(default_factory=Inner)

    def __post_init__(self) -> None:
        if self.mode == "good" and self.rate_hz > 60.0:
            raise ValueError(f"rate_hz: got {self.rate_hz:g} with mode good, expected at most 60")


def read(parameters, text):
    """The object of a file with one node in it."""
    (section,) = yaml.safe_load(text).values()
    return build(parameters, flatten(section["ros__parameters"]))


@given(
    rate=st.floats(1.0, 120.0).map(lambda v: round(v, 6)),
    count=st.integers(1, 2**40),
    debug=st.booleans(),
    pose=st.tuples(*[st.floats(allow_nan=False, allow_infinity=False)] * 3),
    text=st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), max_size=20),
)
def test_parameters_survive_the_yaml_file(rate, count, debug, pose, text):
    @dataclass(frozen=True)
    class Generated:
        rate_hz: float = parameter(rate, "frames", unit="Hz", minimum=1.0, maximum=120.0)
        count_of_things: int = parameter(count, "how many", minimum=1)
        debug_: bool = parameter(debug, "talk")
        pose_: tuple[float, ...] = parameter(pose, "pose", length=3)
        text_: str = parameter(text, "any text")

    Generated.__annotations__.update(
        rate_hz=float, count_of_things=int, debug_=bool, pose_=tuple[float, ...], text_=str
    )
    assert read(Generated, to_yaml(Generated, "node")) == Generated()


def test_groups_and_plain_fields():
    assert [s.name for s in specs(Example)] == [
        "rate_hz", "count", "mode", "debug", "pose", "plain", "inner.gain", "inner.names",
    ]  # fmt: skip
    built = build(Example, {"inner.gain": 1, "pose": [1, 2, 3], "plain": 7})
    assert built.inner.gain == 1.0 and built.pose == (1.0, 2.0, 3.0) and built.plain == 7.0
    assert read(Example, to_yaml(Example, "n")) == Example()
    assert "/**/n:" in to_yaml(Example, "n") and "1 to 120 Hz" in to_yaml(Example, "n")


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ({"rate_hz": 0.5}, ("rate_hz", "0.5", "1 to 120 Hz")),
        ({"rate_hz": float("nan")}, ("rate_hz", "nan")),
        ({"rate_hz": "3"}, ("rate_hz", "'3'", "double")),
        ({"count": 0}, ("count", "0", "at least 1")),
        ({"count": 1.5}, ("count", "1.5", "int")),
        ({"count": True}, ("count", "True")),
        ({"mode": "slow"}, ("mode", "'slow'", "fast, good")),
        ({"pose": [1.0]}, ("pose", "1 values", "3 values")),
        ({"pose": 1.0}, ("pose", "double[]")),
        ({"inner.gain": 2.0}, ("inner.gain", "2.0", "0 to 1")),
        ({"inner.names": [1]}, ("inner.names", "1", "string[]")),
        ({"mode": "good", "rate_hz": 61.0}, ("rate_hz", "61", "60")),
        ({"nosuch": 1}, ("nosuch", "no such parameter", "rate_hz")),
    ],
)
def test_a_refusal_names_parameter_value_and_limit(values, texts):
    with pytest.raises(ParameterError) as caught:
        build(Example, values)
    assert all(t in str(caught.value) for t in texts)


@dataclass(frozen=True)
class Checked:
    """Something that is made without a node, too."""

    speed: float = parameter(2.0, "how fast", unit="m/s", maximum=9.0)
    frame: str = "map"

    def __post_init__(self) -> None:
        check_fields(self)
        if self.frame == "moon":
            raise ValueError("frame: got 'moon', expected one on earth")


@dataclass(frozen=True)
class Grouped:
    engine: Checked = group(Checked, exclude=("frame",), read_only=True)  # noqa: RUF009


def test_a_group_has_the_limits_of_its_own_class_which_hold_without_a_node():
    (spec,) = specs(Grouped)
    assert (spec.name, spec.read_only) == ("engine.speed", True)
    assert (spec.description, spec.limit) == ("how fast", "at most 9 m/s")
    assert build(Grouped, {"engine.speed": 3}).engine == Checked(speed=3.0)
    with pytest.raises(ParameterError, match=r"parameter engine.speed: got 10.0, expected at most 9 m/s \(double\)"):
        build(Grouped, {"engine.speed": 10.0})
    with pytest.raises(ParameterError, match=r"parameter speed: got 10.0, expected at most 9 m/s \(double\)"):
        Checked(speed=10.0)
    with pytest.raises(ParameterError, match="no such parameter"):
        build(Grouped, {"engine.frame": "odom"})


def test_classes_that_cannot_be_parameters():
    @dataclass(frozen=True)
    class NoDefault:
        x: float

    @dataclass(frozen=True)
    class BadType:
        x: bytes = b""

    NoDefault.__annotations__["x"], BadType.__annotations__["x"] = float, bytes
    with pytest.raises(TypeError, match="needs a default"):
        list(specs(NoDefault))
    with pytest.raises(TypeError, match="bytes"):
        list(specs(BadType))


@pytest.mark.ros
@pytest.mark.smoke
def test_parameters_on_a_node(ros):
    from rclpy.parameter import Parameter

    seen = []

    def on_change(value: Example) -> None:
        if value.count == 13:
            raise ValueError("count: got 13, expected no unlucky number")
        seen.append(value)

    overrides = [Parameter("rate_hz", value=50.0), Parameter("inner.gain", value=0.25)]
    node = rclpy.create_node("p", context=ros, parameter_overrides=overrides)
    parameters = NodeParameters(node, Example, on_change)
    assert parameters.value.rate_hz == 50.0 and parameters.value.inner.gain == 0.25
    descriptor = node.describe_parameter("rate_hz")
    assert descriptor.floating_point_range[0].to_value == 120.0 and descriptor.description == "frames [Hz]"
    assert node.set_parameters([Parameter("count", value=5)])[0].successful and seen[-1].count == 5
    assert node.set_parameters([Parameter("pose", value=[3.0, 2.0, 1.0])])[0].successful
    assert parameters.value.pose == (3.0, 2.0, 1.0)
    for name, value, text in (
        ("rate_hz", 121.0, "rate_hz"),
        ("count", 13, "unlucky"),
        ("mode", "slow", "fast, good"),
        ("pose", [1.0], "3 values"),
        ("mode", "good", None),
    ):
        result = node.set_parameters([Parameter(name, value=value)])[0]
        assert result.successful == (text is None) and (text or "") in result.reason
    # A combination is refused as a whole, and the other value stays.
    assert "60" in node.set_parameters([Parameter("rate_hz", value=61.0)])[0].reason
    assert parameters.value.rate_hz == 50.0 and node.get_parameter("rate_hz").value == 50.0
    node.destroy_node()


@pytest.mark.ros
def test_a_whole_number_for_a_double_gets_a_hint(ros):
    from rclpy.parameter import Parameter

    node = rclpy.create_node("p", context=ros, parameter_overrides=[Parameter("rate_hz", value=50)])
    with pytest.raises(
        ParameterError, match=r"rate_hz: got 50, expected 1 to 120 Hz \(double\); write a decimal point"
    ):
        NodeParameters(node, Example)
    node.destroy_node()
