"""Perception's parameters as launch would make them, for ``wm doctor``."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wm_bringup.findings import WARNING, Finding
from wm_perception.node import PerceptionParameters


def read_parameters(
    files: Sequence[Path], namespace: str, given: Mapping[str, Any]
) -> tuple[PerceptionParameters, bool | None, list[Finding]]:
    """Perception's parameters as launch would make them: defaults, then files in order, then what is given.

    Returns:
        The parameters, ``use_sim_time`` where a file sets it, and a warning for each key that no node has.

    Raises:
        ValueError: a file that is no parameters file, or a value that perception refuses.
    """
    import yaml

    from wm_ros.parameters import build, specs

    known = {s.name for s in specs(PerceptionParameters)}
    of_every_node = {"use_sim_time", "autostart", "diagnostics_period_s"}
    values: dict[str, Any] = {}
    sim_time: bool | None = None
    findings: list[Finding] = []
    own = namespace.strip("/")
    for file in files:
        try:
            content = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
            sections = [(str(node), _flat(section["ros__parameters"] or {})) for node, section in content.items()]
        except OSError as error:
            raise ValueError(f"{file}: {error.strerror}") from error
        except (yaml.YAMLError, AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"{file}: expected NODE: ros__parameters: NAME: VALUE ({type(error).__name__})") from error
        for node, section in sections:
            if node.strip("/") not in ("**", "perception", "**/perception", f"{own}/perception"):
                continue
            for name, value in section.items():
                if name == "use_sim_time":
                    sim_time = bool(value)
                elif name in known:
                    values[name] = value
                elif node.strip("/") != "**" and name not in of_every_node and not name.startswith("qos_overrides"):
                    near = difflib.get_close_matches(name, known | of_every_node, 1)
                    advice = f"did you mean {near[0]}?" if near else "see config/perception.yaml for those it has"
                    found = f"{file}: {node} has no parameter {name}"
                    findings.append(Finding("topics", "parameters", WARNING, found, advice))
    values.update({name: value for name, value in given.items() if value is not None})
    return build(PerceptionParameters, values), sim_time, findings


def _flat(group: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in group.items():
        flat.update(_flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + str(name): value})
    return flat
