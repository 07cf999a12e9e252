"""YAML as rcl reads it in parameters files. PyYAML reads some otherwise: 1e3 is a number, 1:30 and 2020-01-01 are text.

The rules are those of rcl_yaml_param_parser (``get_value`` in parse.c): a plain scalar is a boolean of YAML 1.1,
else an integer of C's strtol with base 0, else a number of C's strtod, else text; quoted ones are text.
"""

from __future__ import annotations

import math
import re
from typing import Any

import yaml

_TRUE = frozenset(("Y", "y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"))
_FALSE = frozenset(("N", "n", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"))
_INTEGER = re.compile(r"[+-]?(0[xX][0-9a-fA-F]+|0[0-7]*|[1-9][0-9]*)")
_DECIMAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_HEXADECIMAL = re.compile(r"[+-]?0[xX]([0-9a-fA-F]+\.?[0-9a-fA-F]*|\.[0-9a-fA-F]+)([pP][+-]?[0-9]+)?")
_NO_NUMBER = re.compile(r"[+-]?\.?(inf|nan)|[+-]?infinity", re.IGNORECASE)
_LARGEST = 2**63
_PLAIN = "!plain"


class _Loader(yaml.SafeLoader):
    """PyYAML's, with a rule of its own for plain scalars."""

    yaml_implicit_resolvers: dict[Any, Any] = {}  # noqa: RUF012 (PyYAML's own form)


def scalar(text: str) -> bool | int | float | str | None:
    """What a plain scalar is; None: nothing, which rcl refuses as a value."""
    if text == "":
        return None
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    if _INTEGER.fullmatch(text):
        digits = text.lstrip("+-")
        base = 16 if digits[:2] in ("0x", "0X") else 8 if digits[0] == "0" else 10
        number = int(text, base)
        return number if -_LARGEST <= number < _LARGEST else float(number)
    if _NO_NUMBER.fullmatch(text):
        return float(text.replace(".", "", 1))
    if _DECIMAL.fullmatch(text) or _HEXADECIMAL.fullmatch(text):
        try:
            value = float(text) if _DECIMAL.fullmatch(text) else float.fromhex(text)
        except OverflowError:
            return text
        return text if math.isinf(value) else value
    return text


def load(text: str) -> Any:
    """A YAML document of dicts, lists and scalars.

    Raises:
        yaml.YAMLError: it is none.
    """
    return yaml.load(text, Loader=_Loader)


def _construct(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> bool | int | float | str | None:
    return scalar(str(loader.construct_scalar(node)))


_Loader.add_implicit_resolver(_PLAIN, re.compile(r"(?s).*"), None)
_Loader.add_constructor(_PLAIN, _construct)
