"""``wm doctor``: what is installed, what is used and why, and what to do about what is missing.

Each finding is ok, a note, a warning (something will not be as good as it could) or an error (something needed is
missing or wrong); errors and warnings say what to do. The checks of the installation (``installation``,
``models``) need no running graph; ``graph`` checks topics and frames.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict

from wm_bringup.doctor.findings import ERROR, NOTE, OK, WARNING, Finding
from wm_bringup.doctor.installation import SETUP, check_graphics, check_python, check_ros
from wm_bringup.doctor.models import check_caches, check_dynamics_model, check_engines, check_inference, check_models
from wm_bringup.environment import make_console


def examine(graph: Callable[[], list[Finding]] | None = None, installation: bool = True) -> list[Finding]:
    """All findings; ``graph`` listens to topics, where ROS is there. A check that fails is a finding."""
    findings: list[Finding] = []
    checks: list[tuple[str, Callable[[], list[Finding]]]] = [
        ("python", check_python),
        ("ros", check_ros),
        ("graphics", check_graphics),
        ("inference", check_inference),
        ("models", check_models),
        ("models", check_dynamics_model),
        ("engines", check_engines),
        ("caches", check_caches),
    ]
    if not installation:
        checks.clear()
    if graph is not None:
        checks.append(("topics", graph))
    for section, check in checks:
        if section == "topics" and any(f.section == "ros" and f.level == ERROR for f in findings):
            findings.append(Finding("topics", "all", NOTE, "not listened to: ROS does not work yet"))
            continue
        try:
            findings += check()
        except Exception as error:
            findings.append(Finding(section, "check", ERROR, f"failed: {type(error).__name__}: {error}", SETUP))
    return findings


def report_json(findings: Sequence[Finding]) -> str:
    """The findings as JSON, with ``ok``: no error among them."""
    return json.dumps(
        {"ok": all(f.level != ERROR for f in findings), "findings": [asdict(f) for f in findings]}, indent=1
    )


def print_report(findings: Sequence[Finding]) -> None:
    """The findings as a table, and then what to do."""
    from rich.markup import escape
    from rich.table import Table

    console = make_console()
    colors = {OK: "green", NOTE: "dim", WARNING: "yellow", ERROR: "bold red"}
    table = Table(box=None, pad_edge=False)
    for heading in ("", "what", "state", "found"):
        table.add_column(heading, overflow="fold")
    section = ""
    for f in findings:
        color = colors[f.level]
        table.add_row(
            escape(f.section if f.section != section else ""),
            escape(f.name),
            f"[{color}]{f.level}[/]",
            escape(f.found),
        )
        section = f.section
    console.print(table)
    todo = [f for f in findings if f.level in (WARNING, ERROR) and f.advice]
    if todo:
        console.print("\nWhat to do")
    for f in todo:
        console.print(
            f"[{colors[f.level]}]{f.level}[/] {escape(f.name)}: {escape(f.found)}\n        {escape(f.advice)}"
        )
    errors = sum(f.level == ERROR for f in findings)
    warnings = sum(f.level == WARNING for f in findings)
    console.print(f"\n{errors} errors, {warnings} warnings" if errors or warnings else "\nEverything is in order.")
