"""Clips scored by several processes at a time."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
from collections.abc import Sequence
from dataclasses import replace

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.perception.run import ClipRecord, run_clip
from benchmarks.perception.tables import SPLITS
from training.reasoner.metrics import clip_ground_truth
from training.reasoner.rendered_clips import ClipPlan, RenderedClip, render_clip
from wm_perception.types import PerceptionConfig

_RETRY_SEEDS = 1000
"""Added to the seed of a world whose physics diverges: further than any run has clips."""
_TRIES = 5
"""Worlds that are tried in place of one whose physics diverges, itself included."""


def draw_clip(plan: ClipPlan) -> RenderedClip:
    """Render a clip. A world whose physics diverges is replaced by another, which its plan says.

    Raises:
        ValueError: so do four others.
    """
    for attempt in range(_TRIES):
        try:
            return render_clip(replace(plan, seed=plan.seed + attempt * _RETRY_SEEDS))
        except ValueError:
            if attempt == _TRIES - 1:
                raise
    raise AssertionError("unreachable")


def job(
    plan: ClipPlan, configs: dict[str, PerceptionConfig], oracle_masks: bool = False
) -> tuple[ClipPlan, dict[str, ClipRecord]]:
    """Render a clip once and run every pipeline on it."""
    clip = draw_clip(plan)
    ground_truth = clip_ground_truth(clip.world, clip.ground_truth)
    return clip.plan, {name: run_clip(clip, config, ground_truth, oracle_masks) for name, config in configs.items()}


def run_clips(
    plans: Sequence[ClipPlan],
    configs: dict[str, PerceptionConfig],
    processes: int,
    console: Console,
    oracle_masks: bool = False,
) -> tuple[dict[str, dict[str, list[ClipRecord]]], list[str]]:
    """Records by pipeline and split, and a line for each clip that failed and is left out."""
    failures: list[str] = []
    records: dict[str, dict[str, list[ClipRecord]]] = {name: {s: [] for s in SPLITS} for name in configs}
    context = multiprocessing.get_context("spawn")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with (
        Progress(*columns, console=console, disable=not console.is_terminal) as progress,
        concurrent.futures.ProcessPoolExecutor(processes, mp_context=context) as pool,
    ):
        bar = progress.add_task("clips", total=len(plans))
        waiting = {pool.submit(job, plan, configs, oracle_masks): plan for plan in plans}
        for done, future in enumerate(concurrent.futures.as_completed(waiting), start=1):
            plan = waiting[future]
            try:
                plan, found = future.result()
            except concurrent.futures.process.BrokenProcessPool:
                raise
            except Exception as error:  # the other clips stand without it; the run fails at its end
                failures.append(f"failed, left out: clip {plan.name}: {type(error).__name__}: {error}")
                console.print(f"[red]{escape(failures[-1])}[/]")
                continue
            for name, record in found.items():
                records[name][plan.split].append(record)
            progress.update(bar, advance=1, description=f"clips, last: {plan.name}")
            if not console.is_terminal:
                console.print(f"  {done}/{len(plans)} {plan.name}")
    for by_split in records.values():
        for clips in by_split.values():
            clips.sort(key=lambda r: r.plan.seed)
    return records, failures
