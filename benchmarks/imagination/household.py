"""What-ifs on household objects: `python -m benchmarks.imagination.household --help`.

Table-tops of the household split at rest, perceived from rendered images; then an object is pushed by a block, shoved,
or taken away from beneath another, and 2 s are imagined by each backend from the perceived state. Compared with the
simulator, which knows the true shapes: the error at 2 s of the objects that moved there, over the error of "nothing
moves" (aim: a third). Prints tables; writes out/bench/household_whatifs.json. Cases and perceived states are kept under
out/bench/cache.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import multiprocessing
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks.imagination.accuracy import compared, imagine
from benchmarks.imagination.metrics import MOVED_M, moved, row_at
from benchmarks.imagination.perceived import perceive
from benchmarks.imagination.run import backend, unavailable
from benchmarks.imagination.scenarios import pushes_and_removals
from benchmarks.imagination.starts import Aligned, ground_truth_of, true_start
from benchmarks.imagination.steps import Bar
from benchmarks.imagination.store import ROOT, cached, fingerprint
from benchmarks.imagination.touching import positions_of
from benchmarks.imagination.worlds import CASE_SOURCES, FIRST_SEED, LEAST_OBJECTS, Case, case_of
from training.worlds.household.catalogue import missing
from training.worlds.household.scenes import household_scene
from training.worlds.splits import SPLITS
from wm_core.rollout import QUATERNION
from wm_dynamics.mujoco.bodies import lowest_point
from wm_sim.scenes import BuiltScene

Array = NDArray[np.float64]

AT_S = 2.0
"""Time [s] at which errors are compared."""
START_S = 1.0
"""Instant [s] of a case: perception has seen the table for so long."""
KINDS = ("push", "shove", "remove")
"""Kinds of intervention that the aim is set for, and that "all" is of."""
MORE_KINDS = ("knock",)
"""Impulses: how far they carry follows from the mass, which is not seen; reported apart."""
METHODS = ("learned", "physics")
STACKED_M = 0.008
"""Height [m] over the table from which an object's underside is on another: the thinnest dish is 17 mm high, and what
leans is lower."""
AIM = 1.0 / 3.0
"""Error over that of "nothing moves"."""


@dataclass
class Errors:
    """Errors [m] at 2 s of objects of what-ifs; those of several worlds are joined.

    Attributes:
        kinds: (E,) of the intervention; worlds: (E,) seeds; objects: (E,) true ids; moves: (E,) whether it moved.
        own: (E,) of the backend; still: (E,) of "nothing moves", from the same perceived state.
    """

    kinds: list[str] = field(default_factory=list)
    worlds: list[int] = field(default_factory=list)
    objects: list[int] = field(default_factory=list)
    moves: list[bool] = field(default_factory=list)
    own: list[float] = field(default_factory=list)
    still: list[float] = field(default_factory=list)

    def join(self, other: Errors) -> None:
        """Add those of another world."""
        for name in ("kinds", "worlds", "objects", "moves", "own", "still"):
            getattr(self, name).extend(getattr(other, name))

    def figures(self, kind: str | None = None) -> dict[str, float | int | None]:
        """Ratios and errors of a kind of intervention; None: of all of ``KINDS``.

        Keys: objects (that move), ratio_of_means, ratio_of_medians (to "nothing moves"), mean_m, median_m,
        still_mean_m, still_median_m, share_better (0..1, of the objects that move); resting, resting_p90_m (objects
        that do not move), resting_moved_share (of them, imagined to be further than a centimeter from where they are).
        """
        chosen = np.array([k == kind if kind is not None else k in KINDS for k in self.kinds], dtype=bool)
        moves = np.array(self.moves, dtype=bool)
        own, still = np.array(self.own), np.array(self.still)
        going, resting = chosen & moves, chosen & ~moves
        found: dict[str, float | int | None] = {"objects": int(going.sum()), "resting": int(resting.sum())}
        means = [float(e[going].mean()) if going.any() else None for e in (own, still)]
        medians = [float(np.median(e[going])) if going.any() else None for e in (own, still)]
        found |= {"mean_m": means[0], "still_mean_m": means[1], "median_m": medians[0], "still_median_m": medians[1]}
        found["ratio_of_means"] = means[0] / means[1] if means[0] is not None and means[1] else None
        found["ratio_of_medians"] = medians[0] / medians[1] if medians[0] is not None and medians[1] else None
        found["share_better"] = float((own[going] < still[going]).mean()) if going.any() else None
        # What rests is where it was perceived if it is left alone: the rest is motion out of nothing.
        extra = own[resting] - still[resting]
        found["resting_p90_m"] = float(np.quantile(own[resting], 0.9)) if resting.any() else None
        found["resting_moved_share"] = float((extra > MOVED_M).mean()) if resting.any() else None
        return found


def whatif_case(seed: int) -> Case | None:
    """The what-ifs of a table-top at rest (an even seed), from the disk where they were made before.

    None: fewer than three objects, or its physics diverges.
    """
    key = fingerprint((*CASE_SOURCES, Path(__file__)))
    return cached(f"whatif-household-{seed}", key, lambda: _made(seed))


def _made(seed: int) -> Case | None:
    scene = household_scene(seed)
    if len(scene.ids) - 1 < LEAST_OBJECTS or scene.schedule:
        return None
    rng = np.random.default_rng([SPLITS.index("household"), seed, 37])
    return case_of(scene, "household", seed, START_S, pushes_and_removals, rng)


def seeds_of(count: int, first: int) -> list[int]:
    """``count`` even seeds, whose table-tops are at rest: half of them the first on which an object carries another.

    The other half are the first on which none does.
    """
    key = fingerprint((*CASE_SOURCES, Path(__file__)))
    return cached(f"whatif-household-seeds-{count}-{first}", key, lambda: _seeds_of(count, first))


def _seeds_of(count: int, first: int) -> list[int]:
    found: dict[bool, list[int]] = {True: [], False: []}
    wanted = {True: (count + 1) // 2, False: count // 2}
    seed = first + first % 2
    while any(len(found[k]) < wanted[k] for k in found):
        scene = household_scene(seed)
        stacked = has_stack(scene)
        if len(scene.ids) - 1 >= LEAST_OBJECTS and len(found[stacked]) < wanted[stacked]:
            found[stacked].append(seed)
        seed += 2
    return sorted(found[True] + found[False])


def has_stack(scene: BuiltScene) -> bool:
    """Whether an object begins on or in another: its lowest point is more than ``STACKED_M`` above the table."""
    bottoms = [s[2] + lowest_point(b, s[QUATERNION]) for b, s in zip(scene.bodies[1:], scene.states[1:], strict=True)]
    return any(bottom > scene.table_top_z + STACKED_M for bottom in bottoms)


def errors_of(case: Case, future: Aligned, still: Aligned) -> Errors:
    """Errors at 2 s of a future and of "nothing moves", of the objects that exist in both and in truth.

    Futures without intervention, hypotheses whose object was not found, and objects that were not found do not count.
    """
    last = row_at(case.times, AT_S)
    true = positions_of(case, ground_truth_of(case))
    said, stays = positions_of(case, future), positions_of(case, still)
    going = moved(true, case.present, case.times, AT_S)
    there = case.present[:, last] & future.present[:, last] & still.present[:, last] & compared(case)
    found = Errors()
    for k, kind in enumerate(case.kinds):
        if kind == "factual" or not (future.asked[k] and still.asked[k]):
            continue
        for m in np.flatnonzero(there[k]):
            found.kinds.append(kind)
            found.worlds.append(case.seed)
            found.objects.append(int(case.object_ids[m]))
            found.moves.append(bool(going[k, m]))
            found.own.append(float(np.linalg.norm(said[k, last, m] - true[k, last, m])))
            found.still.append(float(np.linalg.norm(stays[k, last, m] - true[k, last, m])))
    return found


@dataclass
class World:
    """Results of a table-top.

    Attributes:
        errors: by method. objects, found: true objects, and how many of them were perceived.
        asked: by kind (what-ifs, those of them whose object was perceived, so that they could be asked).
    """

    errors: dict[str, Errors]
    objects: int
    found: int
    asked: dict[str, tuple[int, int]] = field(default_factory=dict)


def asked_of(case: Case, future: Aligned | None) -> dict[str, tuple[int, int]]:
    """By kind: what-ifs, and those that were rolled out; None: nothing was perceived."""
    asked = np.zeros(len(case.kinds), dtype=bool) if future is None else future.asked
    return {
        kind: (case.kinds.count(kind), int(sum(a for k, a in zip(case.kinds, asked, strict=True) if k == kind)))
        for kind in (*KINDS, *MORE_KINDS)
    }


def run_world(seed: int, methods: Sequence[str], from_truth: bool) -> World | None:
    """All methods on one table-top; None: it is not used."""
    case = whatif_case(seed)
    if case is None:
        return None
    start = true_start(case) if from_truth else perceive(case)
    objects = int((~case.scene.is_static).sum())
    if start is None:
        return World({name: Errors() for name in methods}, objects, 0, asked_of(case, None))
    still = imagine(backend("still", 1), case, start)
    errors = {name: errors_of(case, imagine(backend(name, 1), case, start), still) for name in methods}
    return World(errors, objects, len(start.row_of), asked_of(case, still))


def document_of(worlds: Iterable[World], methods: Sequence[str]) -> dict[str, Any]:
    """The figures of all worlds together, by method and kind ("all" first), with the worst objects."""
    joined = {name: Errors() for name in methods}
    asked = dict.fromkeys((*KINDS, *MORE_KINDS), (0, 0))
    objects = found = count = 0
    for world in worlds:
        count, objects, found = count + 1, objects + world.objects, found + world.found
        for name in methods:
            joined[name].join(world.errors[name])
        for kind, (whole, part) in world.asked.items():
            asked[kind] = (asked[kind][0] + whole, asked[kind][1] + part)
    result: dict[str, Any] = {
        "worlds": count,
        "objects": objects,
        "found_share": found / objects if objects else None,
        "aim": AIM,
        "what_ifs": {kind: {"drawn": whole, "asked": part} for kind, (whole, part) in asked.items()},
    }
    for name, errors in joined.items():
        order = np.argsort(-np.array(errors.own))[:20]
        result[name] = {
            **{kind or "all": errors.figures(kind) for kind in (None, *KINDS, *MORE_KINDS)},
            "worst": [
                [e.worlds[k], e.kinds[k], e.objects[k], round(e.own[k], 3), round(e.still[k], 3)]
                for e, k in ((errors, int(n)) for n in order)
            ],
        }
    return result


def figures_table(document: dict[str, Any], methods: Sequence[str]) -> Table:
    """By method and kind."""
    table = Table(title=f"Household what-ifs: error at {AT_S:g} s of what moves (aim: ratio 0.33)", pad_edge=False)
    heads = ("what", "objects", "mean mm", "still", "ratio", "median mm", "still", "ratio", "better %")
    for head in (*heads, "resting that move %"):
        table.add_column(head, justify="left" if head == "what" else "right")

    def cell(value: float | None, factor: float, decimals: int) -> str:
        return "-" if value is None else f"{factor * value:.{decimals}f}"

    for name in methods:
        for kind in ("all", *KINDS, *MORE_KINDS):
            row = document[name][kind]
            table.add_row(
                f"{name}: {kind}",
                str(row["objects"]),
                cell(row["mean_m"], 1e3, 0),
                cell(row["still_mean_m"], 1e3, 0),
                cell(row["ratio_of_means"], 1.0, 2),
                cell(row["median_m"], 1e3, 0),
                cell(row["still_median_m"], 1e3, 0),
                cell(row["ratio_of_medians"], 1.0, 2),
                cell(row["share_better"], 1e2, 0),
                cell(row["resting_moved_share"], 1e2, 1),
            )
    return table


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.imagination.household",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--worlds", type=int, default=20, help="table-tops (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=FIRST_SEED, help="of the first one (default: %(default)s)")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--from-truth", action="store_true", help="start from the true state in place of the perceived")
    parser.add_argument("--processes", type=int, default=2, help="worlds at the same time (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=ROOT / "out/bench", help="folder (default: %(default)s)")
    arguments = parser.parse_args(argv)
    for name, low, high in (("worlds", 1, 1000), ("seed", 0, 10**9), ("processes", 1, 64)):
        value = getattr(arguments, name)
        if not low <= value <= high:
            parser.error(f"--{name}: got {value}, expected {low} to {high}")
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    arguments = parse(argv)
    console = Console() if sys.stdout.isatty() else Console(width=130)
    reason = missing()
    if reason is not None:
        console.print(f"[red]error:[/] {reason}")
        return 1
    methods, notes = [], []
    for name in arguments.methods:
        why = unavailable(name)
        if why is None:
            methods.append(name)
        else:
            notes.append(f"{name}: not available: {why}")
    seeds = seeds_of(arguments.worlds, arguments.seed)
    worlds: list[World] = []
    context = multiprocessing.get_context("spawn")
    with (
        Bar(console, "table-tops", len(seeds)) as bar,
        concurrent.futures.ProcessPoolExecutor(arguments.processes, mp_context=context) as pool,
    ):
        waiting = {pool.submit(run_world, seed, tuple(methods), arguments.from_truth): seed for seed in seeds}
        for future in concurrent.futures.as_completed(waiting):
            seed = waiting[future]
            try:
                world = future.result()
            except BrokenProcessPool:
                console.print("[red]error:[/] a process ended without an answer: out of memory (try --processes 1)")
                return 1
            except Exception as error:  # the others stand without it; the run fails at its end
                notes.append(f"failed, left out: table-top {seed}: {type(error).__name__}: {error}")
                world = None
            if world is not None:
                worlds.append(world)
            bar(str(seed))
    document = document_of(worlds, methods)
    document |= {"notes": notes, "from": "true" if arguments.from_truth else "perceived", "seeds": seeds}
    console.print(figures_table(document, methods))
    console.print(f"{document['worlds']} table-tops, objects found: {100 * (document['found_share'] or 0.0):.1f} %")
    drawn = ", ".join(f"{kind} {row['asked']} of {row['drawn']}" for kind, row in document["what_ifs"].items())
    console.print(f"what-ifs whose object was perceived: {drawn}")
    for note in notes:
        console.print(f"note: {note}")
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / ("household_whatifs_true.json" if arguments.from_truth else "household_whatifs.json")
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    console.print(f"written: {path}")
    return 1 if any(note.startswith("failed") for note in notes) else 0


if __name__ == "__main__":
    sys.exit(main())
