"""Perception seen through the live graph: clips played to the perception node over Fast DDS, its messages scored.

`python -m benchmarks.perception.live` renders clips (household by default), plays them as color, depth, camera info and
/tf to the perception node in a process of its own, and compares the scene graphs and object ids that it publishes with
the ground truth, by the scoring of `python -m benchmarks.perception`. Each frame is sent when the node has reported on
the one before, so that a slow machine drops none; with --speed the frames come at a multiple of the clip's rate, and
those that the node passes over are counted and not scored. Prints a table; writes out/bench/perception_live.json, and
perception_live.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from benchmarks.perception import masks
from benchmarks.perception.clip_pool import draw_clip
from benchmarks.perception.figures import figures
from benchmarks.perception.live_graph import Answers, LiveError, LiveGraph, as_sent
from benchmarks.perception.run import ClipRecord, ClipScorer, run_clip
from benchmarks.perception.tables import ROWS, SPLITS, mark
from training.reasoner.metrics import ClipGroundTruth, clip_ground_truth
from training.reasoner.rendered_clips import FIRST_SEED, ClipPlan, RenderedClip, plan_clips
from training.worlds.household.catalogue import missing
from training.worlds.splits import SPLITS as WORLDS
from wm_bringup.report.results import machine_facts
from wm_bringup.run.processes import NodeRefused, ProcessDied
from wm_perception.models.choice import chosen
from wm_perception.models.files import ModelError
from wm_perception.types import PerceptionConfig

ROOT = Path(__file__).resolve().parents[2]
_MOST_FAILURES = 3
"""Clips that fail before any succeeds, after which the run ends: the graph is broken, and each takes minutes."""


def configuration(arguments: argparse.Namespace) -> PerceptionConfig:
    """The pipeline of the node, and of the one in process."""
    return PerceptionConfig(
        segmenter="learned" if arguments.segmenter_model else arguments.segmenter,
        segmenter_model=arguments.segmenter_model,
        reasoner="learned" if arguments.reasoner_model else arguments.reasoner,
        reasoner_model=arguments.reasoner_model,
        inference_threads=arguments.threads,
    )


def node_parameters(config: PerceptionConfig) -> dict[str, Any]:
    """Parameters of the perception node that make its pipeline this one."""
    keys = ("segmenter", "segmenter_model", "reasoner", "reasoner_model", "inference_threads")
    return {f"pipeline.{key}": getattr(config, key) for key in keys}


def score(clip: RenderedClip, answers: Answers, ground_truth: ClipGroundTruth) -> ClipRecord:
    """What was published for a clip, compared with the ground truth by the scoring of the pipeline in process."""
    scorer = ClipScorer(clip)
    for number, scene in sorted(answers.scenes.items()):
        scorer.add(number, scene, answers.latencies_s[number], answers.masks.get(number))
    return scorer.finish(ground_truth)


def live_figures(records: Sequence[ClipRecord], answers: Sequence[Answers]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The figures by key, those of latency and rate included, and further ones: frames played, dropped and refused."""
    values, more = figures(records)
    latencies = [s for a in answers for s in a.latencies_s.values()]
    seconds = sum(a.seconds for a in answers)
    values["latency_median_s"] = float(np.median(latencies)) if latencies else None
    values["latency_p95_s"] = float(np.quantile(latencies, 0.95)) if latencies else None
    values["rate_hz"] = len(latencies) / seconds if seconds > 0.0 else None
    played = sum(a.published for a in answers)
    more |= {
        "frames_played": played,
        "frames_dropped": sum(a.dropped for a in answers),
        "frames_refused": sum(len(a.refused) for a in answers),
        "refused": dict(Counter(reason for a in answers for reason in a.refused.values())),
        "frames_without_masks": sum(len(set(a.scenes) - set(a.masks)) for a in answers),
    }
    # Those of the pipeline in process: here it is the latency that was measured.
    more.pop("pipeline_seconds_median"), more.pop("pipeline_seconds_p95")
    return values, more


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.perception.live",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--split", choices=WORLDS, default="household", help="of the worlds (default: %(default)s)")
    parser.add_argument("--clips", type=int, default=20, help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=4.0, help="of a random clip (default: %(default)s)")
    parser.add_argument("--rate", type=float, default=15.0, metavar="HZ", help="of frames (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=FIRST_SEED, help="of the first clip (default: %(default)s)")
    parser.add_argument(
        "--speed",
        type=float,
        metavar="FACTOR",
        help="play at so many times the clip's rate; what the node passes over is dropped (default: lock-step, in "
        "which a frame waits for the report on the one before, and none is dropped)",
    )
    parser.add_argument(
        "--without-masks", action="store_true", help="do not subscribe to the object ids: mask AP is not measured"
    )
    parser.add_argument(
        "--in-process", action="store_true", help="also run the pipeline in this process on the same frames, beside it"
    )
    parser.add_argument("--segmenter", choices=("auto", "learned", "geometric"), default="auto")
    parser.add_argument("--segmenter-model", default="", metavar="FILE", help="in place of the shipped weights")
    parser.add_argument("--reasoner", choices=("auto", "learned", "geometric"), default="auto")
    parser.add_argument("--reasoner-model", default="", metavar="FILE", help="in place of the shipped weights")
    parser.add_argument("--threads", type=int, default=2, help="of each network (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=ROOT / "out/bench", help="folder (default: %(default)s)")
    arguments = parser.parse_args(argv)
    for name, low, high in (
        ("clips", 1, 1000),
        ("seconds", 1.0, 60.0),
        ("rate", 1.0, 60.0),
        ("speed", 0.01, 100.0),
        ("threads", 1, 32),
    ):
        value = getattr(arguments, name)
        if value is not None and not low <= value <= high:
            parser.error(f"--{name}: got {value:g}, expected {low:g} to {high:g}")
    for name in ("segmenter_model", "reasoner_model"):
        path = getattr(arguments, name)
        if path and not Path(path).is_file():
            parser.error(f"--{name.replace('_', '-')}: {path} is not a file, expected an ONNX file")
        setattr(arguments, name, str(Path(path).resolve()) if path else "")
    if arguments.split == "household" and (lacking := missing()) is not None:
        parser.error(f"--split household: {lacking}")
    return arguments


def run(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Play all clips and score them; returns the document that is written.

    Raises:
        LiveError, ProcessDied, NodeRefused: the graph does not start, or no clip was measured.
        ModelError: weights were named that cannot be used.
    """
    config = configuration(arguments)
    models = {name: str(chosen(name, config)) for name in ("segmenter", "reasoner")}
    plans = plan_clips(arguments.split, arguments.clips, arguments.seconds, arguments.rate, arguments.seed)
    pace = "in lock-step" if arguments.speed is None else f"at {arguments.speed:g} times their rate"
    length_s = sum(p.seconds for p in plans)
    console.print(f"{len(plans)} clips of {arguments.split}, {length_s:.0f} s at {arguments.rate:g} Hz, {pace}")
    live: list[ClipRecord] = []
    beside: list[ClipRecord] = []
    answers: list[Answers] = []
    failures: list[str] = []
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:.0f} %"),
        TimeElapsedColumn(),
    )
    logs = arguments.out / "logs" / "live"
    with (
        Progress(*columns, console=console, disable=not console.is_terminal) as progress,
        LiveGraph(node_parameters(config), logs, arguments.speed, not arguments.without_masks) as graph,
    ):
        bar = progress.add_task("clips", total=sum(round(p.seconds * p.rate_hz) for p in plans))
        for done, plan in enumerate(plans, start=1):
            progress.update(bar, description=f"draw {plan.name}")
            frames = round(plan.seconds * plan.rate_hz)
            try:
                record, given, pipeline = _clip(plan, graph, arguments, config, lambda: progress.advance(bar))
            except (LiveError, ProcessDied, ValueError) as error:  # the other clips stand without it; the run fails
                failures.append(f"failed, left out: clip {plan.name}: {type(error).__name__}: {error}")
                console.print(f"[red]{escape(failures[-1])}[/]")
                if isinstance(error, ProcessDied) or (len(failures) >= _MOST_FAILURES and not live):
                    break
                continue
            live.append(record)
            answers.append(given)
            beside += pipeline
            progress.update(bar, completed=done * frames)
            if not console.is_terminal:
                console.print(f"  {done}/{len(plans)} {plan.name}: {given.dropped} of {given.published} frames dropped")
    if not live:
        raise LiveError(f"no clip was measured; {failures[-1]}")
    values, more = live_figures(live, answers)
    document: dict[str, Any] = {
        "live": values,
        "in_process": figures(beside)[0] if beside else None,
        "split": arguments.split,
        "details": more,
        "setting": {
            **{k: v for k, v in vars(arguments).items() if v is None or isinstance(v, (int, float, str))},
            "pace": pace,
            **models,
            "clips_drawn": [asdict(r.plan) for r in live],
        },
        "machine": machine_facts(),
        "failures": len(failures),
    }
    document["notes"] = [*failures, *_notes(document)]
    return document


def _clip(
    plan: ClipPlan, graph: LiveGraph, arguments: argparse.Namespace, config: PerceptionConfig, on_frame: Any
) -> tuple[ClipRecord, Answers, list[ClipRecord]]:
    """The record of a clip, what was published, and the record of the pipeline in process where that is asked for."""
    clip = as_sent(draw_clip(plan))
    ground_truth = clip_ground_truth(clip.world, clip.ground_truth)
    answers = graph.run(clip, lambda number: on_frame())
    beside = [run_clip(clip, config, ground_truth)] if arguments.in_process else []
    return score(clip, answers, ground_truth), answers, beside


def _notes(document: dict[str, Any]) -> list[str]:
    """What must be known to read the figures."""
    more, setting = document["details"], document["setting"]
    notes = [
        f"frames: {more['frames_played']} played {setting['pace']}, {more['frames_dropped']} dropped (of which the "
        f"node refused {more['frames_refused']}); those dropped are not scored",
        *(f"refused: {reason} ({count} frames)" for reason, count in more["refused"].items()),
    ]
    if setting["without_masks"]:
        notes.append("mask AP is not measured: --without-masks")
    elif not masks.available():
        notes.append("pycocotools is not installed (make setup WITH=training): mask AP is not measured")
    else:
        notes.append(
            "mask AP is that of the object ids that the node publishes, scored by their probability of existence; in "
            "process it is that of the segmenter's instances with the segmenter's scores, before tracking"
        )
        if more["frames_without_masks"]:
            notes.append(f"{more['frames_without_masks']} scored frames have no masks: their object ids did not arrive")
    if setting["speed"] is None:
        notes.append("camera to graph in lock-step: no frame waits for another; graphs per second are the node's most")
    return notes


def live_table(document: dict[str, Any]) -> Table:
    """Figures of the live graph, aims of the split, and the pipeline in process where it was run."""
    beside, split = document["in_process"], document["split"]
    table = Table(title=f"Perception through the live graph, {split}", pad_edge=False)
    for head in ("what", "", "live", "aim", *(["in process"] if beside else [])):
        table.add_column(head, justify="left" if head in ("what", "") else "right")

    def cell(values: dict[str, Any], key: str, factor: float, decimals: int) -> str:
        value = values.get(key)
        return "-" if value is None else f"{factor * value:.{decimals}f}"

    for key, words, factor, unit, decimals, aims, more in ROWS:
        aim = aims[SPLITS.index(split)] if split in SPLITS else None
        text = cell(document["live"], key, factor, decimals)
        style = mark(document["live"].get(key), aim, more, key)
        table.add_row(
            words,
            unit,
            f"[{style}]{text}[/]" if style else text,
            "" if aim is None else f"{'≥' if more else '≤'} {factor * aim:.{decimals}f}",
            *([cell(beside, key, factor, decimals)] if beside else []),
        )
    table.add_row("frames dropped", "", str(document["details"]["frames_dropped"]), "", *(["0"] if beside else []))
    return table


def markdown(document: dict[str, Any]) -> str:
    """The table and the notes as Markdown."""
    table = live_table(document)
    cells = [[Text.from_markup(str(c)).plain for c in column.cells] for column in table.columns]
    header = [str(column.header) for column in table.columns]
    rows = [header, ["---"] * len(header), *zip(*cells, strict=True)]
    text = f"**{table.title}**\n\n" + "\n".join("| " + " | ".join(row) + " |" for row in rows)
    return text + "\n\n" + "\n".join(f"- {note}" for note in document["notes"]) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    arguments = parse(argv)
    # Wide enough for the table where the output is no terminal.
    console = Console() if sys.stdout.isatty() else Console(width=150)
    begin = time.monotonic()
    try:
        document = run(arguments, console)
    except (LiveError, ModelError, NodeRefused, ProcessDied) as error:
        console.print(f"[red]error:[/] {escape(str(error))}")
        return 1
    except KeyboardInterrupt:
        console.print("[red]stopped[/]")
        return 130
    document["seconds"] = time.monotonic() - begin
    console.print(live_table(document))
    for note in document["notes"]:
        console.print(f"note: {escape(note)}")
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / "perception_live.json"
    path.write_text(json.dumps(document, indent=1, default=str) + "\n", encoding="utf-8")
    (arguments.out / "perception_live.md").write_text(markdown(document), encoding="utf-8")
    console.print(f"written: {path}")
    return 1 if document["failures"] else 0


if __name__ == "__main__":
    sys.exit(main())
