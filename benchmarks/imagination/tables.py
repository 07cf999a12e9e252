"""The tables that people read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rich.table import Table
from rich.text import Text

from benchmarks.imagination import speed
from benchmarks.imagination.document import AIMS, SPLITS, STATES
from benchmarks.imagination.metrics import HORIZONS_S
from benchmarks.imagination.run import METHODS


def cell(value: float | None, factor: float, decimals: int) -> str:
    """A figure for a table."""
    return "-" if value is None else f"{factor * value:.{decimals}f}"


def styled(value: float | None, text: str, low: float | None, high: float | None) -> str:
    """Green where an aim is reached, red where not."""
    if value is None or (low is None and high is None):
        return text
    reached = (low is None or value >= low) and (high is None or value <= high + 1e-12)
    return f"[{'green' if reached else 'red'}]{text}[/]"


def aim_text(low: float | None, high: float | None, factor: float, decimals: int) -> str:
    """An aim for a table."""
    if low is not None and high is not None:
        return f"{factor * low:.{decimals}f} to {factor * high:.{decimals}f}"
    if low is not None:
        return f"≥ {factor * low:.{decimals}f}"
    return "" if high is None else f"≤ {factor * high:.{decimals}f}"


def acceptance_table(document: dict[str, Any]) -> Table:
    """The learned backend beside the aims, and the physics backend."""
    table = Table(title="Imagined futures: learned, beside the aims", pad_edge=False)
    table.add_column("what")
    table.add_column("")
    table.add_column("aim", justify="right")
    for state in STATES:
        for split in SPLITS:
            table.add_column(f"{state.replace('_', ' ')}, {split}", justify="right")
    table.add_column("physics, perceived", justify="right")
    for key, words, factor, unit, decimals, low, high, states in AIMS:
        row = [words, unit, aim_text(low, high, factor, decimals)]
        for state in STATES:
            for split in SPLITS:
                value = document.get("aimed", {}).get(state, {}).get(split, {}).get(key)
                text = cell(value, factor, decimals)
                bounds = (low, high) if state in states else (None, None)
                row.append(styled(value, text, *bounds))
        physics = document.get("aimed_physics", {}).get("perceived_state", {})
        row.append(" / ".join(cell(physics.get(split, {}).get(key), factor, decimals) for split in SPLITS))
        table.add_row(*row)
    blank = ["", "", "", ""]
    faster = document.get("speed_ratio_to_mujoco")
    speed_row = styled(faster, cell(faster, 1.0, 2), 5.0, None)
    table.add_row("rollouts per second at K = 1024, ratio to MuJoCo", "", "≥ 5.00", speed_row, *blank)
    seconds = document.get("service_1024_s")
    table.add_row(
        "1024 rollouts through the service", "s", "≤ 1.50", styled(seconds, cell(seconds, 1.0, 2), None, 1.5), *blank
    )
    planner = (document.get("planner") or {}).get("learned") or {}
    success, plan = planner.get("success"), planner.get("plan_median_s")
    table.add_row("planner: success", "%", "≥ 90", styled(success, cell(success, 1e2, 0), 0.9, None), *blank)
    table.add_row("planner: median planning time", "ms", "≤ 200", styled(plan, cell(plan, 1e3, 0), None, 0.2), *blank)
    return table


def two(values: dict[str, Any], keys: tuple[str, str], factor: float, decimals: int) -> str:
    """Two figures in a cell; of those by horizon the one at 1 s."""
    found = [values.get(key) for key in keys]
    return " / ".join(cell(v["1.0"] if isinstance(v, dict) else v, factor, decimals) for v in found)


def forbidden(values: dict[str, Any]) -> str:
    """Objects that went through the table, and futures that create energy."""
    if "through_table" not in values:
        return "-"
    return f"{values['through_table']}; {values['energy_created']} of {values['energy_checked']}"


def covered(values: dict[str, Any]) -> str:
    """Coverage of all and of what moves."""
    groups = values.get("coverage_90_groups") or {}
    return " / ".join(cell(groups.get(k), 1e2, 0) for k in ("all", "moved")) if groups else "-"


MORE_ERRORS: tuple[tuple[str, Callable[[dict[str, Any]], str]], ...] = (
    ("with contacts: FDE at 1 s, mm", lambda v: two(v, ("fde_contacts_m", "fde_contacts_moved_m"), 1e3, 1)),
    ("FDE at 1 s less that at the start, mm", lambda v: two(v, ("fde_from_start_m", "fde_from_start_moved_m"), 1e3, 1)),
    ("rotation at 1 s, deg", lambda v: two(v, ("rotation_deg", "rotation_moved_deg"), 1.0, 1)),
    ("who is affected, F1 (all / not acted upon)", lambda v: two(v, ("effect_f1", "effect_f1_others"), 1.0, 2)),
    (
        "effect vector at 1 s, mm (all / affected)",
        lambda v: two(v, ("effect_error_m", "effect_error_affected_m"), 1e3, 1),
    ),
    ("events, F1", lambda v: cell(v["events_f1"], 1.0, 2)),
    ("deeper than 5 mm, % of steps", lambda v: cell(v.get("penetration_fraction"), 1e2, 2)),
    ("through the table; creating energy", forbidden),
    ("90 % regions hold, % (all / moved)", covered),
)


def errors_table(document: dict[str, Any]) -> Table:
    """Errors of all methods, both splits together."""
    table = Table(title="Errors, both splits together (all objects / those that move)", pad_edge=False)
    table.add_column("what")
    for method in METHODS:
        table.add_column(method, justify="right")
    for state in STATES:
        for name, words, factor, decimals in (("ade", "ADE", 1e3, 1), ("fde", "FDE", 1e3, 1)):
            for horizon in HORIZONS_S:
                row = [f"{state.replace('_', ' ')}: {words} at {horizon:g} s, mm"]
                for method in METHODS:
                    values = document.get(state, {}).get(method) or {}
                    pair = [(values.get(f"{name}{g}_m") or {}).get(f"{horizon:.1f}") for g in ("", "_moved")]
                    row.append(" / ".join(cell(v, factor, decimals) for v in pair) if values else "-")
                table.add_row(*row)
        for words, text in MORE_ERRORS:
            row = [f"{state.replace('_', ' ')}: {words}"]
            for method in METHODS:
                values = document.get(state, {}).get(method)
                row.append(text(values) if values else "-")
            table.add_row(*row)
    return table


def speed_table(document: dict[str, Any]) -> Table:
    """Rollouts per second."""
    table = Table(title="Rollouts of 1 s with 8 objects per second", pad_edge=False)
    table.add_column("what")
    for count in speed.COUNTS:
        table.add_column(f"K = {count}", justify="right")
    for kind, rows in (document.get("speed") or {}).items():
        for method, rates in rows.items():
            table.add_row(
                f"{kind.replace('_', ' ')}: {method}", *(cell(rates.get(str(c)), 1.0, 0) for c in speed.COUNTS)
            )
    for method, rows in (document.get("service") or {}).items():
        for request, seconds in rows.items():
            words = f"service, {method}, {request.replace('_', ' ')} [s]"
            table.add_row(words, "", "", cell(seconds, 1.0, 2))
    for method, row in (document.get("planner") or {}).items():
        if row:
            words = f"planner, {method}: {row['episodes']} episodes"
            table.add_row(words, f"{cell(row['success'], 1e2, 0)} %", "", f"{cell(row['plan_median_s'], 1e3, 0)} ms")
    return table


def tables(document: dict[str, Any]) -> list[Table]:
    """Aims, errors and speed."""
    return [acceptance_table(document), errors_table(document), speed_table(document)]


def markdown(document: dict[str, Any]) -> str:
    """The tables and the notes for documents."""
    parts = []
    for table in tables(document):
        cells = [[Text.from_markup(str(c)).plain for c in column.cells] for column in table.columns]
        header = [str(column.header) for column in table.columns]
        rows = [header, ["---"] * len(header), *zip(*cells, strict=True)]
        parts.append(f"**{table.title}**\n\n" + "\n".join("| " + " | ".join(row) + " |" for row in rows))
    parts += [f"- {note}" for note in document["notes"]]
    return "\n\n".join(parts) + "\n"
