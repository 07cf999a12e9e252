"""Imagined futures on worlds never seen in training, beside the aims, physics, straight lines, and the oracle.

Held-out seeds and held-out shape families, from the true and from the perceived state; speed beside MuJoCo's own
threaded rollouts; the ROS service; the planner. docs/imagination_bench.md says what each figure means. Prints tables;
writes out/bench/imagination.json, imagination.md and imagination_worst.png.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import traceback
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from benchmarks.imagination import speed
from benchmarks.imagination.document import AIMS, EMPTY, SPLITS
from benchmarks.imagination.run import FROM, unavailable
from benchmarks.imagination.steps import STEPS
from benchmarks.imagination.tables import markdown, tables
from benchmarks.imagination.worlds import FIRST_SEED
from wm_bringup.report.results import machine_facts

ROOT = Path(__file__).resolve().parents[2]
ROWS = ("accuracy", "speed", "service", "planner", "drawing")


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Arguments, checked."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.imagination",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--only",
        default=",".join(ROWS),
        metavar="ROW,...",
        help=f"of {', '.join(ROWS)} (default: all); figures of the others are kept from the last run",
    )
    parser.add_argument("--worlds", type=int, default=20, help="of each split (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=FIRST_SEED, help="of the first world (default: %(default)s)")
    parser.add_argument("--splits", nargs="+", choices=SPLITS, default=list(SPLITS))
    parser.add_argument(
        "--states",
        nargs="+",
        choices=FROM,
        default=list(FROM),
        help="that futures begin with; true alone needs no images, and takes some 15 s a world (default: both)",
    )
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


def run(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Everything asked for; the document that is written."""
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
        console.print(
            "[red]error:[/] a process that scores worlds ended without an answer: out of memory (try --processes 1), "
            "or a crash (PYTHONFAULTHANDLER=1 shows where)"
        )
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


if __name__ == "__main__":
    sys.exit(main())
