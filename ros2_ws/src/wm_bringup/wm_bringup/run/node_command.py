"""Command lines of nodes, with their ROS arguments."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterable, Mapping
from typing import Any


def parameter_text(value: Any) -> str:
    """A parameter's value as ``--ros-args -p NAME:=VALUE`` reads it, with its type kept ("3" stays a string)."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, float) and not math.isfinite(value):
        return ".nan" if math.isnan(value) else ".inf" if value > 0 else "-.inf"
    if isinstance(value, float):
        # YAML 1.1 reads 1e-07 as a string.
        text = repr(value)
        return text if "e" not in text or "." in text else text.replace("e", ".0e")
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(parameter_text(item) for item in value)}]"
    if isinstance(value, (bool, int, str)):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, os.PathLike):
        return json.dumps(os.fspath(value), ensure_ascii=False)
    raise TypeError(f"parameter value: got {type(value).__name__}, expected bool, int, float, str or a list of one")


def ros_arguments(
    namespace: str = "",
    parameters: Mapping[str, Any] | None = None,
    params_files: Iterable[str | os.PathLike[str]] = (),
    remaps: Mapping[str, str] | Iterable[str] = (),
) -> list[str]:
    """``--ros-args ...`` of a node; empty where there is nothing to say. Parameters win over the files."""
    arguments: list[str] = []
    if namespace:
        arguments += ["-r", f"__ns:=/{namespace.strip('/')}"]
    for file in params_files:
        arguments += ["--params-file", os.fspath(file)]
    for name, value in (parameters or {}).items():
        arguments += ["-p", f"{name}:={parameter_text(value)}"]
    rules = [f"{old}:={new}" for old, new in remaps.items()] if isinstance(remaps, Mapping) else list(remaps)
    for rule in rules:
        old, _, new = rule.partition(":=")
        if not old or not new:
            raise ValueError(f"remap: got {rule!r}, expected OLD:=NEW, e.g. /a:=/b")
        arguments += ["-r", rule]
    return ["--ros-args", *arguments] if arguments else []


def node_command(
    module: str,
    namespace: str = "",
    parameters: Mapping[str, Any] | None = None,
    params_files: Iterable[str | os.PathLike[str]] = (),
    remaps: Mapping[str, str] | Iterable[str] = (),
    arguments: Iterable[str] = (),
) -> list[str]:
    """Command line that runs a node module with this Python.

    Args:
        module: e.g. ``wm_sim.node``.
        namespace: e.g. ``/wm``; empty: the node's own.
        parameters: ROS parameters; mind that 5 is an integer and 5.0 a double.
        params_files: YAML files, read in this order, before ``parameters``.
        remaps: ``{"/a": "/b"}`` or ``["/a:=/b"]``.
        arguments: of the program itself, before ``--ros-args``.
    """
    return [
        sys.executable,
        "-m",
        module,
        *arguments,
        *ros_arguments(namespace, parameters, params_files, remaps),
    ]
