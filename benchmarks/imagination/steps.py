"""The parts of the benchmark (``--only``), each of which adds its figures to the document."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from dataclasses import astuple
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.imagination import drawing, planner, service, speed
from benchmarks.imagination.document import accuracy_document, ratio
from benchmarks.imagination.pictures import draw_worst
from benchmarks.imagination.run import FROM, Outcome, backend, run_worlds, worst_of
from benchmarks.imagination.worlds import world_seeds

PLANNER_METHODS = ("learned", "physics", "straight")
MUJOCO = "mujoco 1/240 s"
SPEED_UP_AT = "1024"
"""The row and the column of the speed table that the aim is set for."""
WORST_KEYS = ("error_m", "split", "seed", "question", "method", "kind")
"""Keys of the fields of ``Worst`` in the document."""


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
        """Advance by one, which was ``what``."""
        self.done += 1
        self.progress.update(self.task, advance=1, description=f"{self.title}, last: {what}")
        if not self.console.is_terminal:
            self.console.print(f"  {self.title} {self.done}/{self.total} {what}")


def run_accuracy(
    arguments: argparse.Namespace, methods: Sequence[str], document: dict[str, Any], console: Console
) -> None:
    """Worlds, errors, effects, events, calibration, and the picture."""
    seeds: dict[Any, list[int]] = {s: world_seeds(s, arguments.worlds, arguments.seed) for s in arguments.splits}
    with Bar(console, "worlds", sum(map(len, seeds.values()))) as bar:
        found, failures = run_worlds(seeds, methods, arguments.samples, arguments.processes, arguments.states, bar)
    outcomes: dict[str, Outcome] = {str(split): outcome for split, outcome in found.items()}
    document |= accuracy_document(outcomes)
    document["worlds"] = {split: {"seeds": seeds[split], "used": outcomes[split].worlds} for split in seeds}
    document["failures"] += failures
    method = "learned" if "learned" in methods else "physics"
    chosen = [(state, w) for state in FROM for w in worst_of(found, method, state, 6)]
    path = arguments.out / "imagination_worst.png"
    document["worst"] = [{"state": state, **dict(zip(WORST_KEYS, astuple(w), strict=True))} for state, w in chosen]
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
    """Seconds of 1024 futures through the ROS service."""
    if not service.available():
        document["notes"].append("service: not measured: no ROS here (source tools/env.sh)")
        return
    asked = tuple(name for name in ("learned", "physics") if name in methods)
    log = arguments.out / "logs" / "imagination_node.log"
    with Bar(console, "service", len(asked) * len(service.REQUESTS)) as bar:
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
    """Success and planning time of the push planner, in closed loop."""
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
    document["drawing"] = drawing.measure(1 if arguments.quick else 5)
    console.print(
        "drawing: " + ", ".join(f"{k.removesuffix('_s')} {1e3 * v:.1f} ms" for k, v in document["drawing"].items())
    )


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


STEPS: dict[str, Callable[[argparse.Namespace, Sequence[str], dict[str, Any], Console], None]] = {
    "accuracy": run_accuracy,
    "speed": run_speed,
    "service": run_service,
    "planner": run_planner,
    "drawing": run_drawing,
}
