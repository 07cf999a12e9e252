"""Perception on worlds never seen in training, beside the aims and the pipeline without training.

Held-out seeds (other worlds of the families of shapes and textures of training), held-out families (shapes and
textures that training never saw), and household objects where they are installed; docs/perception_bench.md says what
each figure means. Latency is measured on a live
graph, and a recorded clip is looked at where there is one. Prints a table; writes out/bench/perception.json and
out/bench/perception_worst.png.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import os
import sys
import traceback
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from benchmarks.perception import masks
from benchmarks.perception.clip_pool import run_clips
from benchmarks.perception.figures import figures, worst_pictures
from benchmarks.perception.latency import measure
from benchmarks.perception.pictures import draw_worst_frames
from benchmarks.perception.real import run_real_clip
from benchmarks.perception.sizes import measure_sizes, sizes_table
from benchmarks.perception.tables import (
    KEYS,
    REAL_ROWS,
    ROWS,
    SPLITS,
    UNTRAINED,
    acceptance_table,
    markdown,
    real_table,
)
from training.reasoner.rendered_clips import FIRST_SEED, ClipPlan, RenderedClip, plan_clips, render_clip
from training.worlds.household.catalogue import missing
from training.worlds.worlds import random_scene
from wm_bringup.report.results import machine_facts
from wm_perception.models.choice import chosen
from wm_perception.models.files import ModelError
from wm_perception.types import PerceptionConfig

ROOT = Path(__file__).resolve().parents[2]
PIPELINES = ("learned", "untrained")


def configurations(arguments: argparse.Namespace) -> dict[str, PerceptionConfig | None]:
    """The two pipelines; None for the learned one where there are no weights.

    Raises:
        ModelError: weights were named that are not there.
    """
    threads = arguments.threads
    untrained = PerceptionConfig(segmenter="geometric", reasoner="geometric", inference_threads=threads)
    wanted = PerceptionConfig(
        segmenter="learned" if arguments.segmenter_model else "auto",
        segmenter_model=arguments.segmenter_model,
        reasoner="learned" if arguments.reasoner_model else "auto",
        reasoner_model=arguments.reasoner_model,
        inference_threads=threads,
    )
    kinds = [chosen(name, wanted).kind for name in ("segmenter", "reasoner")]
    learned = None if kinds == ["geometric", "geometric"] else replace(wanted, segmenter=kinds[0], reasoner=kinds[1])
    return {"learned": learned, "untrained": untrained}


def latency_clip(split: str, arguments: argparse.Namespace) -> RenderedClip:
    """A random world of the split with six to nine objects, 3 s at the camera's rate."""
    for seed in range(arguments.seed, arguments.seed + 200):
        if 6 <= len(random_scene(seed, split).ids) - 1 <= 9:  # type: ignore[arg-type]
            break
    return render_clip(ClipPlan(split, seed, "random", 3.0, arguments.camera_rate))  # type: ignore[arg-type]


def node_parameters(config: PerceptionConfig) -> dict[str, Any]:
    """Of the perception node, for a pipeline."""
    keys = ("segmenter", "segmenter_model", "reasoner", "reasoner_model")
    return {f"pipeline.{key}": getattr(config, key) for key in keys}


def latencies(
    configs: dict[str, PerceptionConfig], splits: Sequence[str], arguments: argparse.Namespace, console: Console
) -> dict[tuple[str, str], dict[str, Any]]:
    """Figures by pipeline and split; a measurement that failed is left out and said."""
    found = {}
    for split in splits:
        clip = latency_clip(split, arguments)
        for name, config in configs.items():
            parameters = node_parameters(config)
            console.print(
                f"... latency, {split}, {name}: {arguments.latency_seconds:g} s at {arguments.camera_rate:g} Hz"
            )
            try:
                found[name, split] = measure(
                    clip, parameters, arguments.camera_rate, arguments.latency_seconds, arguments.out / "logs" / name
                )
            except Exception as error:  # the other figures stand without it
                console.print(f"[red]latency of {name} on {split} not measured: {escape(str(error))}[/]")
    return found


def default_clip() -> Path:
    """Folder of the recorded clip."""
    return Path(os.environ.get("WM_SHARED_DATA", ROOT.parent / "shared")) / "real_rgbd"


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.perception",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--clips", type=int, default=16, help="of seeds and of families (default: %(default)s)")
    parser.add_argument("--household-clips", type=int, default=20, help="of household (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=4.0, help="of a random clip (default: %(default)s)")
    parser.add_argument("--rate", type=float, default=15.0, metavar="HZ", help="of frames (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=FIRST_SEED, help="of the first clip (default: %(default)s)")
    parser.add_argument("--splits", nargs="+", choices=SPLITS, help="default: those that can be measured here")
    parser.add_argument("--segmenter-model", default="", metavar="FILE", help="in place of the shipped weights")
    parser.add_argument("--reasoner-model", default="", metavar="FILE", help="in place of the shipped weights")
    parser.add_argument("--processes", type=int, default=2, help="clips at the same time (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="of each network while scoring (default: %(default)s)")
    parser.add_argument("--camera-rate", type=float, default=30.0, metavar="HZ", help="live (default: %(default)s)")
    parser.add_argument("--latency-seconds", type=float, default=12.0, help="of each measurement; 0: none")
    parser.add_argument("--real-clip", type=Path, default=default_clip(), help="folder (default: %(default)s)")
    parser.add_argument(
        "--oracle-masks",
        action="store_true",
        help="the true masks and classes in place of the segmenters: what is left is not theirs; no latencies",
    )
    parser.add_argument("--quick", action="store_true", help="about a minute: 4 short clips, few figures mean much")
    parser.add_argument("--out", type=Path, default=ROOT / "out/bench", help="folder (default: %(default)s)")
    arguments = parser.parse_args(argv)
    if arguments.quick:
        arguments.clips, arguments.seconds = min(arguments.clips, 2), min(arguments.seconds, 2.0)
        arguments.household_clips = min(arguments.household_clips, 2)
        arguments.latency_seconds = min(arguments.latency_seconds, 4.0)
    for name, low, high in (
        ("clips", 1, 1000),
        ("household_clips", 1, 1000),
        ("seconds", 1.0, 60.0),
        ("rate", 1.0, 60.0),
        ("processes", 1, 64),
        ("threads", 1, 32),
        ("camera_rate", 1.0, 120.0),
        ("latency_seconds", 0.0, 600.0),
    ):
        value = getattr(arguments, name)
        if not low <= value <= high:
            parser.error(f"--{name.replace('_', '-')}: got {value:g}, expected {low:g} to {high:g}")
    if arguments.oracle_masks:
        arguments.latency_seconds = 0.0
    arguments.left_out = missing()
    if arguments.splits is None:
        arguments.splits = [s for s in SPLITS if s != "household" or arguments.left_out is None]
    elif "household" in arguments.splits and arguments.left_out is not None:
        parser.error(f"--splits household: {arguments.left_out}")
    return arguments


def run(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Run all measurements; returns the document that is written."""

    every = configurations(arguments)
    configs = {name: config for name, config in every.items() if config is not None}
    notes: list[str] = []
    if every["learned"] is None:
        notes.append("no trained weights are installed (make train-segmenter): only the untrained pipeline is measured")
    if not masks.available():
        notes.append("pycocotools is not installed (make setup WITH=training): masks are not measured")
    if arguments.oracle_masks:
        notes.append("with the true masks and classes in place of the segmenters, but for the recorded clip")
    if arguments.left_out is not None:
        notes.append(f"household is not measured: {arguments.left_out}")
    plans = [
        plan
        for split in arguments.splits
        for plan in plan_clips(
            split,
            arguments.household_clips if split == "household" else arguments.clips,
            arguments.seconds,
            arguments.rate,
            arguments.seed,
        )
    ]
    # The long ones first, so that no process waits at the end.
    plans.sort(key=lambda p: -p.seconds)
    console.print(f"{len(plans)} clips, {sum(p.seconds for p in plans):.0f} s at {arguments.rate:g} Hz")
    records, failures = run_clips(plans, configs, arguments.processes, console, arguments.oracle_masks)
    notes += failures
    values: dict[tuple[str, str], dict[str, float | None]] = {}
    details: dict[str, Any] = {}
    for name in configs:
        for split in arguments.splits:
            values[name, split], details[f"{name}_{split}"] = figures(records[name][split])
    if arguments.latency_seconds > 0.0:
        for (name, split), found in latencies(configs, arguments.splits, arguments, console).items():
            values[name, split] |= {k: found[k] for k in ("latency_median_s", "latency_p95_s", "rate_hz")}
            details[f"{name}_{split}"]["graphs_timed"] = found["graphs"]
    sizes: list[dict[str, Any]] = []
    if arguments.latency_seconds > 0.0 and "learned" in configs:
        try:
            sizes = measure_sizes(
                latency_clip(arguments.splits[0], arguments),
                node_parameters(configs["learned"]),
                arguments.latency_seconds,
                arguments.out / "logs" / "sizes",
                console,
            )
        except Exception as error:  # the other figures stand without it
            console.print(f"[red]latency of other sizes not measured: {escape(str(error))}[/]")
    real: dict[str, dict[str, Any]] = {name: {row[0]: None for row in REAL_ROWS} for name in PIPELINES}
    if arguments.real_clip.is_dir():
        for name, config in configs.items():
            console.print(f"... recorded clip, {name}")
            real[name] = run_real_clip(arguments.real_clip, config)
    else:
        notes.append(f"no recorded clip in {arguments.real_clip}: its figures are not measured")
    empty: dict[str, float | None] = dict.fromkeys(KEYS)
    document: dict[str, Any] = {
        **{split: values.get(("learned", split), empty if split in arguments.splits else None) for split in SPLITS},
        **{UNTRAINED[split]: values.get(("untrained", split)) for split in SPLITS},
        "sizes": sizes,
        "real_clip": {row[0]: real["learned"][row[0]] for row in REAL_ROWS},
        "untrained_real_clip": {row[0]: real["untrained"][row[0]] for row in REAL_ROWS},
        "details": {**details, "real_clip": real},
        "aims": {split: {row[0]: row[5][k] for row in ROWS if row[5][k] is not None} for k, split in enumerate(SPLITS)},
        "setting": {
            **{k: v for k, v in vars(arguments).items() if isinstance(v, (int, float, str, list))},
            "segmenters": {name: str(chosen("segmenter", config)) for name, config in configs.items()},
            "reasoners": {name: str(chosen("reasoner", config)) for name, config in configs.items()},
            "clips_drawn": [asdict(r.plan) for by in list(records.values())[:1] for rs in by.values() for r in rs],
        },
        "machine": machine_facts(),
        "notes": notes,
        "failures": len(failures),
    }
    for split in arguments.splits:
        lacking = [k for k in KEYS if document[split][k] is None]
        if lacking and every["learned"] is not None:
            notes.append(f"{split}: not measured: {', '.join(lacking)}")
    arguments.out.mkdir(parents=True, exist_ok=True)
    pictures = worst_pictures(records, 10)
    if pictures:
        draw_worst_frames(arguments.out / "perception_worst.png", pictures)
    return document


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    arguments = parse(argv)
    # Wide enough for the table where the output is no terminal.
    console = Console() if sys.stdout.isatty() else Console(width=150)
    try:
        document = run(arguments, console)
    except ModelError as error:
        console.print(f"[red]error:[/] {escape(str(error))}")
        return 1
    except KeyboardInterrupt:
        console.print("[red]stopped[/]")
        return 130
    except concurrent.futures.process.BrokenProcessPool:
        traceback.print_exc()
        console.print(
            "[red]error:[/] a process that scores clips ended without an answer: out of memory (try --processes 1), "
            "or a crash (PYTHONFAULTHANDLER=1 shows where)"
        )
        return 1
    console.print(acceptance_table(document))
    if document["sizes"]:
        console.print(sizes_table(document["sizes"]))
    console.print(real_table(document))
    for note in document["notes"]:
        console.print(f"note: {escape(note)}")
    path = arguments.out / "perception.json"
    path.write_text(json.dumps(document, indent=1, default=str) + "\n", encoding="utf-8")
    (arguments.out / "perception.md").write_text(markdown(document), encoding="utf-8")
    console.print(f"written: {path}, {arguments.out / 'perception_worst.png'}")
    return 1 if document["failures"] else 0


if __name__ == "__main__":
    sys.exit(main())
