"""Parameters files (YAML): the values that they give to a node, and the names in them that no node reads.

ROS ignores without a message a parameter that no node declares and a node name that no node has; ``unread`` finds both.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from wm_bringup.run import rcl_yaml
from wm_bringup.run.manager_parameters import LifecycleManagerParameters
from wm_core.parameters import specs
from wm_imagination.parameters import ImaginationParameters
from wm_perception.parameters import PerceptionParameters
from wm_ros.nodes.managed_parameters import ManagedNodeParameters
from wm_sim.parameters import SimCameraParameters

PARAMETERS: dict[str, type] = {
    "perception": PerceptionParameters,
    "imagination": ImaginationParameters,
    "sim_camera_node": SimCameraParameters,
    "lifecycle_manager": LifecycleManagerParameters,
}
"""The nodes of wm and their parameter classes. The package of each node has its defaults in config/NODE.yaml."""

_EVERY_NODE = ("use_sim_time", "start_type_description_service")
"""Parameters that rclpy declares in every node."""
_MANAGED_NODES = ("perception", "imagination")
"""Lifecycle nodes, which also have ``ManagedNodeParameters``."""
_FREE_GROUPS = ("qos_overrides",)
"""Groups of parameters with names that depend on the topics; any name in them counts as read."""


class ParamsFileError(ValueError):
    """A file cannot be read as a parameters file; the message names the file."""


@dataclass(frozen=True)
class Unread:
    """A name in a parameters file that no node reads.

    Attributes:
        found: a sentence about the name, without the file's path.
        advice: the name that may have been meant, as a question; may be empty.
        is_section: True: the name of a node, which another graph may have; False: the name of a parameter.
    """

    found: str
    advice: str
    is_section: bool


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one with dotted names: {"a": {"b": 1}} becomes {"a.b": 1}."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def read(path: Path) -> dict[str, dict[str, Any]]:
    """The content of a parameters file: {node name as written, with its wildcards: {parameter: value}}.

    Namespaces may be levels of the file or parts of the name. ``/a/b`` and ``a/b`` match the same node but are two
    names, as in rcl.

    Raises:
        ParamsFileError: the file cannot be read, or has another form.
    """
    expected = "expected NODE: ros__parameters: NAME: VALUE"
    try:
        content = rcl_yaml.load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ParamsFileError(f"{path}: {' '.join(str(error).split())}; {expected}") from error
    found: dict[str, dict[str, Any]] = {}

    def walk(tree: Any, name: str) -> None:
        if not isinstance(tree, Mapping):
            raise ParamsFileError(f"{path}: {name or 'the file'} is {tree!r}; {expected}")
        for key, value in tree.items():
            if key != "ros__parameters":
                walk(value, f"{name}/{str(key).strip('/')}" if name else str(key))
            elif value is not None and not isinstance(value, Mapping):
                raise ParamsFileError(f"{path}: ros__parameters of {name} is {value!r}; {expected}")
            else:
                given = flatten(value or {})
                for parameter, one in given.items():
                    _check_value(f"{path}: {parameter} of {name}", one)
                found.setdefault(name, {}).update(given)

    walk({} if content is None else content, "")
    return found


def _check_value(what: str, value: Any) -> None:
    """Refuse values that rcl refuses: they would end every node that reads the file."""
    if value is None:
        raise ParamsFileError(f"{what} has no value; expected NODE: ros__parameters: NAME: VALUE")
    if isinstance(value, list) and len({type(one) for one in value}) > 1:
        raise ParamsFileError(f"{what} is {value!r}; expected values of one type (1.0, not 1, among numbers like 2.5)")


def matches(pattern: str, node: str) -> bool:
    """Whether a node name of a parameters file, with wildcards * and **, matches the node of this full name."""
    parts = [part for part in pattern.split("/") if part]
    expression = "".join(r"(/\w+)*" if p == "**" else r"/\w+" if p == "*" else f"/{re.escape(p)}" for p in parts)
    return re.fullmatch(expression, node) is not None


def known_parameters(node: str) -> set[str]:
    """Names of all parameters of a node of wm."""
    classes = (PARAMETERS[node], *((ManagedNodeParameters,) if node in _MANAGED_NODES else ()))
    return {*_EVERY_NODE, *(spec.name for parameters in classes for spec in specs(parameters))}


def node_parameters(files: Iterable[Path], node: str) -> dict[str, Any]:
    """The parameters that files, read one after the other, give to the node of this full name.

    The precedence is that of rcl. A node name keeps the position of its first occurrence in the files, and later values
    under the same name replace earlier ones. Where several names match the node, the last one has precedence. The nodes
    of wm read their package's defaults before these files; so ``/**/perception`` comes first, and ``/**`` has
    precedence over it at any place in these files.

    Raises:
        ParamsFileError: a file cannot be read as a parameters file.
    """
    own = node.rsplit("/", 1)[-1]
    sections: dict[str, dict[str, Any]] = {f"/**/{own}": {}} if own in PARAMETERS else {}
    for file in files:
        for pattern, values in read(file).items():
            sections.setdefault(pattern, {}).update(values)
    merged: dict[str, Any] = {}
    for pattern, values in sections.items():
        if matches(pattern, node):
            merged |= values
    return merged


def graph_nodes(namespace: str) -> dict[str, str]:
    """The nodes of wm in this namespace, and the simulated camera: full name to name, as ``unread`` expects them."""
    own = ("perception", "imagination", "lifecycle_manager")
    return {**{full_name(namespace, name): name for name in own}, "/sim_camera_node": "sim_camera_node"}


def full_name(namespace: str, node: str) -> str:
    """The full name of a node in a namespace, which may be empty."""
    space = namespace.strip("/")
    return f"/{space}/{node}" if space else f"/{node}"


def complaints(path: Path, nodes: Mapping[str, str]) -> Iterator[str]:
    """One line for each result of ``unread``, with the file's path."""
    for name in unread(path, nodes):
        yield f"{path}: {name.found}{'; ' if name.advice else ''}{name.advice}"


def unread(path: Path, nodes: Mapping[str, str]) -> Iterator[Unread]:
    """Yield each name in the file that no node reads.

    Args:
        path: the parameters file.
        nodes: the nodes of the graph: full name to the key in ``PARAMETERS``; "": a node with unknown parameters.

    Raises:
        ParamsFileError: the file cannot be read as a parameters file.
    """
    for pattern, values in read(path).items():
        meant = [node for node in nodes if matches(pattern, node)]
        if not meant:
            found = f"{pattern} is no node of this graph, nothing reads it"
            yield Unread(found, _nearest_node(pattern, nodes), is_section=True)
            continue
        if any(not nodes[node] for node in meant):
            continue
        known = set().union(*(known_parameters(nodes[node]) for node in meant))
        for name in values:
            if name in known or name.split(".")[0] in _FREE_GROUPS:
                continue
            found = f"{pattern} has no parameter {name!r}, nothing reads it"
            yield Unread(found, _nearest(name, known), is_section=False)


def value_of(path: Path, node: str, parameter: str) -> Any:
    """The value that a file gives to a parameter of the node of this full name; None: it gives none.

    Raises:
        ParamsFileError: the file cannot be read as a parameters file.
    """
    return node_parameters([path], node).get(parameter)


def _nearest(name: str, known: set[str]) -> str:
    # The name may lack its group, or have a wrong group.
    leaf = name.rsplit(".", 1)[-1]
    same_leaf = sorted(k for k in known if k.rsplit(".", 1)[-1] == leaf)
    near = same_leaf[:1] or difflib.get_close_matches(name, sorted(known), 1)
    if not near:
        leaves = {k.rsplit(".", 1)[-1]: k for k in sorted(known)}
        near = [leaves[k] for k in difflib.get_close_matches(leaf, sorted(leaves), 1)]
    return f"did you mean {near[0]!r}?" if near else ""


def _nearest_node(pattern: str, nodes: Mapping[str, str]) -> str:
    by_name = {node.rsplit("/", 1)[-1]: node for node in nodes}
    near = difflib.get_close_matches(pattern.rsplit("/", 1)[-1], sorted(by_name), 1)
    return f"did you mean /**/{near[0]} (here {by_name[near[0]]})?" if near else f"here are {', '.join(sorted(nodes))}"
