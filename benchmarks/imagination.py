"""Imagined futures on worlds never seen in training, beside the aims, physics, straight lines, and the oracle.

Held-out seeds and held-out shape families, from the true and from the perceived state; speed beside MuJoCo's own
threaded rollouts; the ROS service; the planner. docs/imagination_bench.md says what each figure means. Prints tables;
writes out/bench/imagination.json, imagination.md and imagination_worst.png.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.markup import escape  # noqa: E402
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: E402
from rich.table import Table  # noqa: E402
from rich.text import Text  # noqa: E402

from benchmarks.imagining import speed  # noqa: E402
from benchmarks.imagining.accuracy import Scores, by_horizon, summary  # noqa: E402
from benchmarks.imagining.metrics import HORIZONS_S  # noqa: E402
from benchmarks.imagining.run import (  # noqa: E402
    FROM,
    METHODS,
    Outcome,
    backend,
    run_worlds,
    unavailable,
    worst_of,
)
from benchmarks.imagining.worlds import FIRST_SEED, world_seeds  # noqa: E402

SPLITS = ("seeds", "families")
ROWS = ("accuracy", "speed", "service", "planner", "drawing")
STATES = tuple(f"{state}_state" for state in FROM)
PLANNER_METHODS = ("learned", "physics", "straight")
MUJOCO = "mujoco 1/240 s"
SPEED_UP_AT = "1024"

# Key, words, unit factor and unit, decimals, lower and upper bound of the aim, and which states it is for.
AIMS: tuple[tuple[str, str, float, str, int, float | None, float | None, tuple[str, ...]], ...] = (
    ("ade_ratio_to_physics", "ADE at 1 s, ratio to physics", 1.0, "", 2, None, 1.5, ("perceived_state",)),
    ("fde_ratio_to_physics", "FDE at 1 s, ratio to physics", 1.0, "", 2, None, 1.5, ("perceived_state",)),
    ("ade_ratio_to_straight", "with contacts: ADE at 1 s, ratio to straight", 1.0, "", 2, None, 1.0 / 3.0, STATES),
    ("fde_ratio_to_straight", "with contacts: FDE at 1 s, ratio to straight", 1.0, "", 2, None, 1.0 / 3.0, STATES),
    ("effect_f1", "who is affected, F1", 1.0, "", 3, 0.9, None, STATES),
    ("effect_error_ratio_to_straight", "effect vector, ratio to straight", 1.0, "", 2, None, 1.0 / 3.0, STATES),
    ("events_f1", "events up to 1 s, F1 within 0.1 s", 1.0, "", 3, 0.85, None, STATES),
    ("penetration_fraction", "deeper than 5 mm in something", 1e2, "%", 2, None, 0.005, STATES),
    ("through_table", "things through the table", 1.0, "", 0, None, 0.0, STATES),
    ("energy_created", "futures that create energy", 1.0, "", 0, None, 0.0, STATES),
    ("coverage_90", "90 % regions hold", 1e2, "%", 0, 0.85, 0.95, ("perceived_state",)),
)


def numbers(outcome: Outcome, state: str, method: str) -> dict[str, Any] | None:
    """The figures of a method from a state; None where it was not measured."""
    scores = outcome.scores.get((state, method))
    if scores is None or not scores.questions:
        return None
    found = summary(scores)
    calibration = outcome.calibration.get(method)
    if state == "perceived" and calibration is not None:
        names = ("all", "moved", "rest")
        found["coverage_90"] = calibration.share("all")
        found["coverage_90_groups"] = {n: calibration.share(n) for n in names}
        found["coverage_90_by_rank"] = {n: calibration.share(f"{n} by rank") for n in names}
    return found


def ratio(first: float | None, second: float | None) -> float | None:
    """None where it cannot be said."""
    return first / second if first is not None and second else None


def judged(outcome: Outcome, state: str, method: str = "learned") -> dict[str, float | None]:
    """The keys of ``AIMS`` for a method."""
    own = numbers(outcome, state, method)
    result: dict[str, float | None] = dict.fromkeys(row[0] for row in AIMS)
    if own is None:
        return result
    beside = {name: numbers(outcome, state, name) or {} for name in ("physics", "straight")}

    def at(values: dict[str, Any], key: str) -> float | None:
        return (values.get(key) or {}).get("1.0")

    for name in ("ade", "fde"):
        result[f"{name}_ratio_to_physics"] = ratio(at(own, f"{name}_m"), at(beside["physics"], f"{name}_m"))
        key = f"{name}_contacts_m"
        result[f"{name}_ratio_to_straight"] = ratio(at(own, key), at(beside["straight"], key))
    result["effect_error_ratio_to_straight"] = ratio(own["effect_error_m"], beside["straight"].get("effect_error_m"))
    for key in ("effect_f1", "events_f1", "penetration_fraction", "through_table", "energy_created", "coverage_90"):
        result[key] = own.get(key)
    return result


def merged(outcomes: dict[str, Outcome]) -> Outcome:
    """Both splits together."""
    total = Outcome()
    for outcome in outcomes.values():
        total.merge(outcome)
    return total


def accuracy_document(outcomes: dict[str, Outcome]) -> dict[str, Any]:
    """The issue's keys that come from worlds, then more."""
    both = merged(outcomes)
    document: dict[str, Any] = {}
    for state in FROM:
        document[f"{state}_state"] = {method: numbers(both, state, method) for method in METHODS}
    true, perceived = judged(both, "true"), judged(both, "perceived")
    for key in ("effect_f1", "effect_error_ratio_to_straight", "events_f1", "penetration_fraction"):
        document[key] = true[key]
        document[f"{key}_perceived"] = perceived[key]
    document["coverage_90"] = perceived["coverage_90"]
    document["aimed"] = {
        state: {split: judged(outcome, state.removesuffix("_state")) for split, outcome in outcomes.items()}
        for state in STATES
    }
    document["aimed_physics"] = {
        state: {split: judged(outcome, state.removesuffix("_state"), "physics") for split, outcome in outcomes.items()}
        for state in STATES
    }
    document["by_split"] = {
        split: {f"{state}_state": {method: numbers(outcome, state, method) for method in METHODS} for state in FROM}
        for split, outcome in outcomes.items()
    }
    document["by_intervention_fde_1s_m"] = {
        f"{state}_state": {
            method: {
                kind: scores.errors.mean(f"fde|{kind}|1.0")
                for kind in sorted({n.split("|")[1] for n in scores.errors.sums if n.startswith("fde|")})
            }
            for method in METHODS
            if (scores := both.scores.get((state, method))) is not None
        }
        for state in FROM
    }
    truth = both.truth
    document["truth"] = {
        "penetration_fraction": ratio(truth.deep_steps, truth.steps),
        "through_table": truth.through_table,
        "energy_created": truth.energy_created,
        "energy_checked": truth.energy_checked,
    }
    document["perception"] = {
        "worlds": both.worlds,
        "found_share": ratio(both.found, both.things),
        "position_error_median_m": float(np.median(both.position_errors_m)) if both.position_errors_m else None,
    }
    return document


# -- tables


def cell(value: float | None, factor: float, decimals: int) -> str:
    """A figure for a table."""
    return "-" if value is None else f"{factor * value:.{decimals}f}"


def styled(value: float | None, text: str, low: float | None, high: float | None) -> str:
    """Green where an aim is met, red where not."""
    if value is None or (low is None and high is None):
        return text
    met = (low is None or value >= low) and (high is None or value <= high + 1e-12)
    return f"[{'green' if met else 'red'}]{text}[/]"


def aim_text(low: float | None, high: float | None, factor: float, decimals: int) -> str:
    """An aim for a table."""
    if low is not None and high is not None:
        return f"{factor * low:.{decimals}f} to {factor * high:.{decimals}f}"
    if low is not None:
        return f"≥ {factor * low:.{decimals}f}"
    return "" if high is None else f"≤ {factor * high:.{decimals}f}"


def acceptance_table(document: dict[str, Any]) -> Table:
    """The table of the issue: the learned backend beside the aims, and the physics backend."""
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
    """Two figures in a cell; of figures by horizon that at 1 s."""
    found = [values.get(key) for key in keys]
    return " / ".join(cell(v["1.0"] if isinstance(v, dict) else v, factor, decimals) for v in found)


def forbidden(values: dict[str, Any]) -> str:
    """Things through the table, and futures that create energy."""
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
    table = Table(title="Errors, both splits together (all things / those that move)", pad_edge=False)
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
        for question, seconds in rows.items():
            words = f"service, {method}, {question.replace('_', ' ')} [s]"
            table.add_row(words, "", "", cell(seconds, 1.0, 2))
    for method, row in (document.get("planner") or {}).items():
        if row:
            words = f"planner, {method}: {row['episodes']} episodes"
            table.add_row(words, f"{cell(row['success'], 1e2, 0)} %", "", f"{cell(row['plan_median_s'], 1e3, 0)} ms")
    return table


def tables(document: dict[str, Any]) -> list[Table]:
    """All of them."""
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


# -- running


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Arguments, checked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only",
        default=",".join(ROWS),
        metavar="ROW,...",
        help=f"of {', '.join(ROWS)} (default: all); figures of the others are kept from the last run",
    )
    parser.add_argument("--worlds", type=int, default=20, help="of each split (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=FIRST_SEED, help="of the first world (default: %(default)s)")
    parser.add_argument("--splits", nargs="+", choices=SPLITS, default=list(SPLITS))
    parser.add_argument("--samples", type=int, default=20, help="of the belief, for the 90 %% regions; 0: none")
    parser.add_argument("--processes", type=int, default=2, help="worlds at the same time (default: %(default)s)")
    parser.add_argument("--episodes", type=int, default=50, help="of the planner, each method (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="under a minute: 1 world a split, K up to 64")
    parser.add_argument("--out", type=Path, default=ROOT / "out/bench", help="folder (default: %(default)s)")
    arguments = parser.parse_args(argv)
    arguments.rows = [row.strip() for row in arguments.only.split(",") if row.strip()]
    for row in arguments.rows:
        if row not in ROWS:
            parser.error(f"--only: got {row!r}, expected some of {', '.join(ROWS)}")
    arguments.counts = speed.COUNTS
    if arguments.quick:
        arguments.worlds, arguments.samples = min(arguments.worlds, 1), min(arguments.samples, 6)
        arguments.counts, arguments.episodes = (1, 64), min(arguments.episodes, 1)
    for name, low, high in (
        ("worlds", 1, 1000),
        ("seed", 0, 10**9),
        ("samples", 0, 256),
        ("processes", 1, 64),
        ("episodes", 0, 1000),
    ):
        value = getattr(arguments, name)
        if not low <= value <= high:
            parser.error(f"--{name}: got {value}, expected {low} to {high}")
    if 0 < arguments.samples < 5:
        parser.error(f"--samples: got {arguments.samples}, expected 0 (none) or at least 5")
    return arguments


class Bar:
    """A progress bar, or lines where the output is no terminal."""

    def __init__(self, console: Console, title: str, total: int) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self.console, self.title, self.total, self.done = console, title, total, 0
        self.progress = Progress(*columns, console=console, disable=not console.is_terminal)
        self.task = self.progress.add_task(title, total=total)

    def __enter__(self) -> Bar:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def __call__(self, what: str) -> None:
        """One more is done."""
        self.done += 1
        self.progress.update(self.task, advance=1, description=f"{self.title}, last: {what}")
        if not self.console.is_terminal:
            self.console.print(f"  {self.title} {self.done}/{self.total} {what}")


def run_accuracy(
    arguments: argparse.Namespace, methods: Sequence[str], document: dict[str, Any], console: Console
) -> None:
    """Worlds, errors, effects, events, calibration, and the picture."""
    from benchmarks.imagining.pictures import draw_worst

    seeds: dict[Any, list[int]] = {s: world_seeds(s, arguments.worlds, arguments.seed) for s in arguments.splits}
    with Bar(console, "worlds", sum(map(len, seeds.values()))) as bar:
        found, failures = run_worlds(seeds, methods, arguments.samples, arguments.processes, on_done=bar)
    outcomes: dict[str, Outcome] = {str(split): outcome for split, outcome in found.items()}
    document |= accuracy_document(outcomes)
    document["worlds"] = {split: {"seeds": seeds[split], "used": outcomes[split].worlds} for split in seeds}
    document["failures"] += failures
    method = "learned" if "learned" in methods else "physics"
    chosen = [(state, w) for state in FROM for w in worst_of(found, method, state, 6)]
    path = arguments.out / "imagination_worst.png"
    document["worst"] = [{"state": state, **vars(w)} for state, w in chosen]
    if draw_worst(path, backend(method, 2), chosen):
        console.print(f"written: {path}")


def run_speed(
    arguments: argparse.Namespace, methods: Sequence[str], document: dict[str, Any], console: Console
) -> None:
    """Rollouts per second beside MuJoCo."""
    threads = cores()
    backends = {name: backend(name, threads) for name in methods}
    with Bar(console, "speed", len(speed.KINDS) * len(arguments.counts)) as bar:
        found = speed.measure(backends, arguments.counts, threads, bar, arguments.quick)
    document["speed"] = found
    planner = found["planner"]
    empty: dict[str, float | None] = {str(c): None for c in speed.COUNTS}
    names = ("learned", "physics", "straight", "still")
    document["rollouts_per_s"] = {n: ({**empty, **planner[n]} if n in planner else dict(empty)) for n in names}
    document["rollouts_per_s"] |= {n: planner[n] for n in (*speed.MUJOCO_STEPS_S, speed.AS_PHYSICS)}
    document["rollouts_per_s"]["oracle"] = document["rollouts_per_s"]["physics"]
    last = str(arguments.counts[-1])
    ratios = {
        kind: {
            name: ratio(rows.get("learned", {}).get(last), rows.get(name, {}).get(last))
            for name in speed.MUJOCO_STEPS_S
        }
        for kind, rows in found.items()
    }
    document["speed_ratios_to_mujoco"] = {"K": int(last), **ratios}
    document["physics_ratios_to_mujoco"] = {
        kind: ratio(rows.get("physics", {}).get(last), rows.get(speed.AS_PHYSICS, {}).get(last))
        for kind, rows in found.items()
    }
    document["speed_ratio_to_mujoco"] = ratios["planner"][MUJOCO] if last == SPEED_UP_AT else None


def run_service(
    arguments: argparse.Namespace, methods: Sequence[str], document: dict[str, Any], console: Console
) -> None:
    """Through ROS."""
    from benchmarks.imagining import service

    if not service.available():
        document["notes"].append("service: not measured: no ROS here (source tools/env.sh)")
        return
    asked = tuple(name for name in ("learned", "physics") if name in methods)
    log = arguments.out / "logs" / "imagination_node.log"
    with Bar(console, "service", len(asked) * len(service.QUESTIONS)) as bar:
        try:
            found = service.measure(asked, 1 if arguments.quick else 3, log, arguments.counts[-1], bar)
        except RuntimeError as error:
            document["failures"].append(f"service: {error}")
            return
    document["service"] = found
    whole = arguments.counts[-1] == service.HYPOTHESES
    document["service_1024_s"] = found.get("learned", {}).get("planner") if whole else None
    document["service_1024_full_s"] = found.get("learned", {}).get("full") if whole else None


def run_planner(
    arguments: argparse.Namespace, methods: Sequence[str], document: dict[str, Any], console: Console
) -> None:
    """Episodes of pushing."""
    try:
        planner = importlib.import_module("benchmarks.imagining.planner")
    except ImportError as error:
        document["notes"].append(f"planner: not measured: {error}")
        return
    rows: dict[str, Any] = dict.fromkeys(PLANNER_METHODS)
    asked = [name for name in PLANNER_METHODS if name in methods]
    with Bar(console, "planner", len(asked) * arguments.episodes) as bar:
        for method in asked:
            successes: list[bool] = []
            seconds: list[float] = []
            for seed in range(arguments.episodes):
                try:
                    episode = planner.run_episode(method, seed)
                except Exception as error:  # the other episodes stand without it; it is no success
                    document["failures"].append(f"planner, {method}, episode {seed}: {type(error).__name__}: {error}")
                    successes.append(False)
                else:
                    successes.append(bool(episode.success))
                    seconds += [float(s) for s in episode.plan_seconds]
                bar(f"{method} {seed}")
            rows[method] = {
                "success": float(np.mean(successes)) if successes else None,
                "plan_median_s": float(np.median(seconds)) if seconds else None,
                "episodes": len(successes),
                "plans": len(seconds),
            }
    document["planner"] = rows


def run_drawing(
    arguments: argparse.Namespace, methods: Sequence[str], document: dict[str, Any], console: Console
) -> None:
    """Frames per second of the renderer."""
    from benchmarks.imagining import drawing

    document["drawing"] = drawing.measure(1 if arguments.quick else 5)
    console.print(
        "drawing: " + ", ".join(f"{k.removesuffix('_s')} {1e3 * v:.1f} ms" for k, v in document["drawing"].items())
    )


def cores() -> int:
    """Of this process."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


EMPTY: dict[str, Any] = {
    **{state: dict.fromkeys(METHODS) for state in STATES},
    **dict.fromkeys(("effect_f1", "effect_error_ratio_to_straight", "events_f1", "penetration_fraction")),
    "coverage_90": None,
    "rollouts_per_s": {},
    "service_1024_s": None,
    "planner": {},
}
STEPS: dict[str, Callable[[argparse.Namespace, Sequence[str], dict[str, Any], Console], None]] = {
    "accuracy": run_accuracy,
    "speed": run_speed,
    "service": run_service,
    "planner": run_planner,
    "drawing": run_drawing,
}


def run(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Everything asked for; the document that is written."""
    from wm_bringup.report.results import machine_facts

    document: dict[str, Any] = dict(EMPTY)
    path = arguments.out / "imagination.json"
    if set(arguments.rows) != set(ROWS) and path.is_file():
        document |= json.loads(path.read_text(encoding="utf-8"))
    document |= {"notes": [], "failures": []}
    methods = ["physics", "straight", "still"]
    reason = unavailable("learned")
    if reason is None:
        methods.insert(0, "learned")
    else:
        console.print(f"[yellow]learned: not available: {escape(reason)}[/]")
        document["notes"].append(f"learned: not available: {reason}")
    arguments.out.mkdir(parents=True, exist_ok=True)
    begin = time.perf_counter()
    document.setdefault("measured", {})
    for row in arguments.rows:
        began = time.perf_counter()
        try:
            STEPS[row](arguments, methods, document, console)
        except BrokenProcessPool:
            raise
        except Exception as error:  # the other rows stand without it; the run fails at its end
            traceback.print_exc()
            document["failures"].append(f"{row}: {type(error).__name__}: {error}")
        document["measured"][row] = {
            "load_average": list(os.getloadavg()),
            "seconds": round(time.perf_counter() - began, 1),
            "quick": arguments.quick,
        }
    document["seconds"] = round(time.perf_counter() - begin, 1)
    document["aims"] = {row[0]: [row[5], row[6]] for row in AIMS}
    document["setting"] = {k: v for k, v in vars(arguments).items() if isinstance(v, (int, float, str, list, tuple))}
    document["machine"] = machine_facts()
    return document


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    arguments = parse(argv)
    console = Console() if sys.stdout.isatty() else Console(width=150)
    try:
        document = run(arguments, console)
    except KeyboardInterrupt:
        console.print("[red]stopped[/]")
        return 130
    except BrokenProcessPool:
        traceback.print_exc()
        console.print("[red]error:[/] a process that scores worlds was killed (memory?); try --processes 1")
        return 1
    for table in tables(document):
        if table.row_count:
            console.print(table)
    for note in (*document["notes"], *document["failures"]):
        console.print(f"note: {escape(note)}")
    path = arguments.out / "imagination.json"
    path.write_text(json.dumps(document, indent=1, default=str) + "\n", encoding="utf-8")
    (arguments.out / "imagination.md").write_text(markdown(document), encoding="utf-8")
    console.print(f"written: {path}, {arguments.out / 'imagination.md'}")
    return 1 if document["failures"] else 0


__all__ = ["EMPTY", "Scores", "by_horizon", "main", "parse"]

if __name__ == "__main__":
    sys.exit(main())
