"""Perception's parameters as launch would make them, for ``wm doctor``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wm_bringup.doctor.findings import NOTE, WARNING, Finding
from wm_bringup.run.params_file import full_name, graph_nodes, node_parameters, unread
from wm_core.parameters import build, specs
from wm_perception.parameters import PerceptionParameters


def read_parameters(
    files: Sequence[Path], namespace: str, given: Mapping[str, Any]
) -> tuple[PerceptionParameters, bool | None, list[Finding]]:
    """Perception's parameters as launch would make them: defaults, then files in order, then what is given.

    Returns:
        The parameters, ``use_sim_time`` where a file sets it, a note for each node name that no node here has, and a
        warning for each parameter that no node has.

    Raises:
        ValueError: a file that is no parameters file, or a value that perception refuses.
    """
    merged = node_parameters(files, full_name(namespace, "perception"))
    known = {s.name for s in specs(PerceptionParameters)}
    values = {name: value for name, value in merged.items() if name in known}
    values.update({name: value for name, value in given.items() if value is not None})
    sim_time = bool(merged["use_sim_time"]) if "use_sim_time" in merged else None
    return build(PerceptionParameters, values), sim_time, _unread_findings(files, namespace)


def _unread_findings(files: Sequence[Path], namespace: str) -> list[Finding]:
    nodes = graph_nodes(namespace)
    findings = []
    for file in files:
        for name in unread(file, nodes):
            if name.is_section:  # of another robot, perhaps
                text = f"{file}: {name.found}; {name.advice}"
                findings.append(Finding("topics", "parameters", NOTE, text))
            else:
                advice = name.advice or "see config/NODE.yaml for those it has"
                findings.append(Finding("topics", "parameters", WARNING, f"{file}: {name.found}", advice))
    return sorted(findings, key=lambda finding: finding.level != NOTE)
