"""Parameters, declared once: fields of a frozen dataclass with default, range, choices, unit and description.

    @dataclass(frozen=True)
    class CameraParameters:
        rate_hz: float = parameter(30.0, "frames per second", unit="Hz", minimum=1.0, maximum=120.0)

    build(CameraParameters, {"rate_hz": 500.0})   # ParameterError: parameter rate_hz: got 500.0, expected 1 to 120 Hz

The parameters of a node (``wm_ros.nodes.parameters``), its file of defaults (``to_yaml``), the names that a parameters
file may have, the table in docs/parameters.md (``to_markdown``) and every refusal follow from it. Types: bool, int,
float, str, and tuples of one of them (``tuple[float, ...]``). A field that is itself a dataclass becomes a group:
``name.field`` (see ``group``).
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import importlib
import math
import textwrap
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")

_SCALARS = {bool: "bool", int: "int", float: "double", str: "string"}


class ParameterError(ValueError):
    """A refused parameter; the message names it, the value and the limit."""


def parameter(
    default: Any,
    description: str,
    *,
    unit: str = "",
    minimum: float | None = None,
    maximum: float | None = None,
    choices: Sequence[Any] | None = None,
    length: int | None = None,
    read_only: bool = False,
) -> Any:
    """A dataclass field that is a parameter.

    Args:
        minimum, maximum: inclusive limits, of every element of a tuple.
        length: of a tuple.
        read_only: it can be set at start only.
    """
    metadata = {
        "description": description,
        "unit": unit,
        "minimum": minimum,
        "maximum": maximum,
        "choices": tuple(choices) if choices is not None else None,
        "length": length,
        "read_only": read_only,
    }
    return dataclasses.field(default=default, metadata=metadata)


def group(parameters: type, *, exclude: Sequence[str] = (), read_only: bool = False) -> Any:
    """A dataclass field that is a group of parameters, the fields of another dataclass.

    ``exclude``: fields that are no parameters and keep their defaults. Combinations that the dataclass's
    ``__post_init__`` refuses are refused as parameters, too.
    """
    metadata = {"exclude": tuple(exclude), "read_only": read_only}
    return dataclasses.field(default_factory=parameters, metadata=metadata)


@dataclass(frozen=True)
class ParameterSpec:
    """One parameter.

    Attributes:
        name: dotted, with its groups.
        element: bool, int, float or str; is_sequence: whether the value is a tuple of those.
        default: value of an object without arguments.
        description, unit: for people; either may be empty.
        minimum, maximum: inclusive; None: no limit.
        choices: allowed values; None: any. length: of a tuple; None: any.
        read_only: it can be set at start only.
    """

    name: str
    element: type
    is_sequence: bool
    default: Any
    description: str
    unit: str
    minimum: float | None
    maximum: float | None
    choices: tuple[Any, ...] | None
    length: int | None
    read_only: bool

    @property
    def type_name(self) -> str:
        """As ROS calls it: bool, int, double, string, or one of these with ``[]``."""
        return _SCALARS[self.element] + ("[]" if self.is_sequence else "")

    @property
    def limit(self) -> str:
        """The allowed values in words; empty where any value of the type is allowed."""
        unit = f" {self.unit}" if self.unit else ""
        parts = []
        if self.choices is not None:
            parts.append("one of " + ", ".join(str(c) for c in self.choices))
        if self.minimum is not None and self.maximum is not None:
            parts.append(f"{self.minimum:g} to {self.maximum:g}{unit}")
        elif self.minimum is not None:
            parts.append(f"at least {self.minimum:g}{unit}")
        elif self.maximum is not None:
            parts.append(f"at most {self.maximum:g}{unit}")
        if self.length is not None:
            parts.append(f"{self.length} numbers")
        return ", ".join(parts)

    @property
    def expected(self) -> str:
        """Limit and type, for refusals."""
        return f"{self.limit} ({self.type_name})" if self.limit else f"a {self.type_name}"

    def check(self, value: Any) -> Any:
        """The value in the dataclass's own type (lists become tuples, whole numbers floats where the
        type is float).

        Raises:
            ParameterError: of another type, or outside the limits.
        """
        if self.is_sequence:
            if isinstance(value, (str, bytes)) or not hasattr(value, "__iter__"):
                raise ParameterError(f"parameter {self.name}: got {value!r}, expected {self.expected}")
            items = tuple(self._check_one(v) for v in value)
            if self.length is not None and len(items) != self.length:
                raise ParameterError(
                    f"parameter {self.name}: got {list(items)} ({len(items)} values), expected {self.length} values"
                )
            return items
        return self._check_one(value)

    def _check_one(self, given: Any) -> Any:
        value: Any = given.item() if hasattr(given, "item") else given
        wrong = ParameterError(f"parameter {self.name}: got {value!r}, expected {self.expected}")
        if self.element is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        kind = type(value)  # not isinstance: True is no number here
        if kind is not self.element:
            raise wrong
        if self.element is float and not math.isfinite(value):
            raise wrong
        if self.minimum is not None and value < self.minimum:
            raise wrong
        if self.maximum is not None and value > self.maximum:
            raise wrong
        if self.choices is not None and value not in self.choices:
            raise wrong
        return value


def specs(
    parameters: type, prefix: str = "", exclude: Sequence[str] = (), read_only: bool = False
) -> Iterator[ParameterSpec]:
    """The parameters of a dataclass, depth first, in order.

    Raises:
        TypeError: a field has no default or a type that no parameter can have.
    """
    hints = typing.get_type_hints(parameters)
    for f in dataclasses.fields(parameters):
        if not f.init or f.name in exclude:
            continue
        hint, name = hints[f.name], prefix + f.name
        if f.default is not dataclasses.MISSING:
            default = f.default
        elif f.default_factory is not dataclasses.MISSING:
            default = f.default_factory()
        else:
            raise TypeError(f"{parameters.__name__}.{f.name}: a parameter needs a default")
        if dataclasses.is_dataclass(hint):
            fixed = read_only or bool(f.metadata.get("read_only"))
            yield from specs(typing.cast(type, hint), f"{name}.", f.metadata.get("exclude", ()), fixed)
            continue
        arguments = typing.get_args(hint)
        is_sequence = typing.get_origin(hint) in (tuple, list)
        element = arguments[0] if is_sequence else hint
        if element not in _SCALARS or (is_sequence and any(a not in (element, Ellipsis) for a in arguments)):
            raise TypeError(
                f"{parameters.__name__}.{f.name}: type {hint}, expected bool, int, float, str or a tuple of one"
            )
        m = f.metadata
        yield ParameterSpec(
            name=name,
            element=element,
            is_sequence=is_sequence,
            default=tuple(default) if is_sequence else element(default),
            description=str(m.get("description", "")),
            unit=str(m.get("unit", "")),
            minimum=m.get("minimum"),
            maximum=m.get("maximum"),
            choices=m.get("choices"),
            length=m.get("length", len(arguments) if is_sequence and Ellipsis not in arguments else None),
            read_only=read_only or bool(m.get("read_only", False)),
        )


def check_fields(value: Any) -> None:
    """Check a dataclass's own fields, without its groups, against their declarations; for its ``__post_init__``.

    Raises:
        ParameterError: names the field, the value and the limit.
    """
    parameters: Any = type(value)  # to mypy no type of a class is hashable
    for spec in _own_specs(parameters):
        spec.check(getattr(value, spec.name))


@functools.cache
def _own_specs(parameters: type) -> tuple[ParameterSpec, ...]:
    return tuple(spec for spec in specs(parameters) if "." not in spec.name)


def build(parameters: type[T], values: Mapping[str, Any], prefix: str = "") -> T:
    """The frozen object of dotted names; those absent take their defaults.

    Raises:
        ParameterError: a value is refused, or the dataclass refuses the combination.
    """
    if not prefix:
        by_name = {s.name: s for s in specs(parameters)}
        unknown = sorted(set(values) - set(by_name))
        if unknown:
            raise ParameterError(f"parameter {unknown[0]}: no such parameter, expected one of {', '.join(by_name)}")
        values = {name: by_name[name].check(value) for name, value in values.items()}
    hints = typing.get_type_hints(parameters)
    arguments: dict[str, Any] = {}
    for f in dataclasses.fields(parameters):  # type: ignore[arg-type]
        name = prefix + f.name
        if f.init and dataclasses.is_dataclass(hints[f.name]):
            arguments[f.name] = build(typing.cast(type, hints[f.name]), values, f"{name}.")
        elif f.init and name in values:
            arguments[f.name] = values[name]
    try:
        return parameters(**arguments)
    except ParameterError:
        raise
    except ValueError as error:
        raise ParameterError(f"parameters of {parameters.__name__}: {error}") from error


def _yaml_scalar(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        mantissa, _, exponent = repr(value).partition("e")
        # YAML 1.1 reads 1e5 as a string: a number needs the point and the exponent's sign.
        mantissa = mantissa if "." in mantissa else f"{mantissa}.0"
        return mantissa + (f"e{int(exponent):+03d}" if exponent else "")
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return str(value)


def _yaml_value(spec: ParameterSpec) -> str:
    """The default."""
    if spec.is_sequence:
        return "[" + ", ".join(_yaml_scalar(v) for v in spec.default) + "]"
    return _yaml_scalar(spec.default)


def to_yaml(parameters: type, node_name: str, header: str = "") -> str:
    """The parameters file of a node in any namespace: defaults, with their descriptions as comments."""
    lines = [f"# {line}".rstrip() for line in header.splitlines()]
    lines += [f"/**/{node_name}:", "  ros__parameters:"]
    open_groups: list[str] = []
    for spec in specs(parameters):
        *groups, leaf = spec.name.split(".")
        shared = 0
        while shared < min(len(groups), len(open_groups)) and groups[shared] == open_groups[shared]:
            shared += 1
        for depth in range(shared, len(groups)):
            lines.append("    " + "  " * depth + f"{groups[depth]}:")
        open_groups = groups
        indent = "    " + "  " * len(groups)
        about = (spec.description, spec.limit, "fixed at start" if spec.read_only else "")
        lines += textwrap.wrap(
            "; ".join(text for text in about if text),
            100,
            initial_indent=f"{indent}# ",
            subsequent_indent=f"{indent}# ",
        )
        lines.append(f"{indent}{leaf}: {_yaml_value(spec)}")
    return "\n".join(lines) + "\n"


def to_markdown(parameters: type, node_name: str) -> str:
    """A section of the documentation: a table of the parameters of a node."""
    lines = [
        f"## {node_name}",
        "",
        "| parameter | type | default | allowed | meaning |",
        "| --- | --- | --- | --- | --- |",
    ]
    for spec in specs(parameters):
        about = spec.description + ("; fixed at start" if spec.read_only else "")
        lines.append(f"| `{spec.name}` | {spec.type_name} | `{_yaml_value(spec)}` | {spec.limit} | {about} |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the parameters file of a dataclass, or its section of docs/parameters.md."""
    program = "python -m wm_core.parameters"
    parser = argparse.ArgumentParser(prog=program, description="Print a node's parameters file.")
    parser.add_argument("dataclass", help="MODULE:CLASS")
    parser.add_argument("node", help="name of the node")
    parser.add_argument("--markdown", action="store_true", help="a table for docs/parameters.md instead")
    chosen = parser.parse_args(arguments)
    module, _, name = chosen.dataclass.partition(":")
    parameters = getattr(importlib.import_module(module), name)
    header = f"Defaults of the {chosen.node} node, written by:\n{program} {chosen.dataclass} {chosen.node}"
    print(to_markdown(parameters, chosen.node) if chosen.markdown else to_yaml(parameters, chosen.node, header), end="")


if __name__ == "__main__":
    main()
