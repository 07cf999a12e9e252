"""The parameters of a dataclass (``wm_core.parameters``) on a node: declared, read, and validated when they are set.

parameters = NodeParameters(node, CameraParameters)
parameters.value.rate_hz
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    ParameterType,
    SetParametersResult,
)
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException

from wm_core.parameters import ParameterError, ParameterSpec, build, specs

T = TypeVar("T")


class NodeParameters(Generic[T]):
    """Declares the parameters of a dataclass on a node and keeps the frozen object up to date.

    Args:
        node: on which they are declared. parameters: their dataclass.
        on_change: called with the new object before a change is accepted; it may raise ValueError to refuse it.

    Attributes:
        value: the current, frozen object.

    Raises:
        ParameterError: a value given at start (YAML, command line) is refused.
    """

    def __init__(self, node: Any, parameters: type[T], on_change: Callable[[T], None] | None = None) -> None:
        self._node = node
        self._type = parameters
        self._specs = {s.name: s for s in specs(parameters)}
        self._on_change = on_change
        values: dict[str, Any] = {}
        for spec in self._specs.values():
            try:
                declared = node.declare_parameter(spec.name, _default_for(spec), _descriptor(spec))
            except (InvalidParameterTypeException, InvalidParameterValueException) as error:
                given = getattr(node, "_parameter_overrides", {}).get(spec.name)
                found = given.value if given is not None else error
                hint = "; write a decimal point" if spec.element is float and isinstance(found, int) else ""
                raise ParameterError(f"parameter {spec.name}: got {found!r}, expected {spec.expected}{hint}") from error
            values[spec.name] = declared.value if declared.value is not None else spec.default
        self.value: T = build(parameters, values)
        node.add_on_set_parameters_callback(self._on_set)

    def _on_set(self, changes: Sequence[Any]) -> Any:
        own = {p.name: p.value for p in changes if p.name in self._specs}
        if not own:
            return SetParametersResult(successful=True)
        current = {name: _lookup(self.value, name) for name in self._specs}
        try:
            value = build(self._type, current | own)
            if self._on_change is not None:
                self._on_change(value)
        except ValueError as error:
            return SetParametersResult(successful=False, reason=str(error))
        self.value = value
        return SetParametersResult(successful=True)


def _lookup(value: Any, dotted: str) -> Any:
    for part in dotted.split("."):
        value = getattr(value, part)
    return value


def _default_for(spec: ParameterSpec) -> Any:
    return list(spec.default) if spec.is_sequence else spec.default


def _descriptor(spec: ParameterSpec) -> Any:
    types: dict[tuple[type, bool], int] = {
        (bool, False): ParameterType.PARAMETER_BOOL,
        (int, False): ParameterType.PARAMETER_INTEGER,
        (float, False): ParameterType.PARAMETER_DOUBLE,
        (str, False): ParameterType.PARAMETER_STRING,
        (bool, True): ParameterType.PARAMETER_BOOL_ARRAY,
        (int, True): ParameterType.PARAMETER_INTEGER_ARRAY,
        (float, True): ParameterType.PARAMETER_DOUBLE_ARRAY,
        (str, True): ParameterType.PARAMETER_STRING_ARRAY,
    }
    descriptor = ParameterDescriptor(
        name=spec.name,
        type=types[(spec.element, spec.is_sequence)],
        description=spec.description + (f" [{spec.unit}]" if spec.unit else ""),
        additional_constraints=spec.limit,
        read_only=spec.read_only,
    )
    if not spec.is_sequence and (spec.minimum is not None or spec.maximum is not None):
        if spec.element is float:
            low = spec.minimum if spec.minimum is not None else -1.7e308
            high = spec.maximum if spec.maximum is not None else 1.7e308
            descriptor.floating_point_range = [FloatingPointRange(from_value=float(low), to_value=float(high))]
        elif spec.element is int:
            low = spec.minimum if spec.minimum is not None else -(2**62)
            high = spec.maximum if spec.maximum is not None else 2**62
            descriptor.integer_range = [IntegerRange(from_value=int(low), to_value=int(high), step=1)]
    return descriptor
