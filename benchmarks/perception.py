"""Perception on worlds never seen in training, beside the aims and the pipeline without training.

Held-out seeds (other worlds of the families of shapes and textures of training) and held-out families (shapes and
textures that training never saw); docs/perception_bench.md says what each figure means. Latency is measured on a live
graph, and a recorded clip is looked at where there is one. Prints a table; writes out/bench/perception.json and
out/bench/perception_worst.png.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import math
import multiprocessing
import os
import sys
import traceback
from collections.abc import Sequence
from dataclasses import asdict, replace
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

from benchmarks.perceiving import masks  # noqa: E402
from benchmarks.perceiving.clips import (  # noqa: E402
    FIRST_SEED,
    ClipPlan,
    RenderedClip,
    plan_clips,
    render_clip,
)
from benchmarks.perceiving.run import (  # noqa: E402
    MOVING_S,
    VELOCITY_BAND_M_S,
    ClipRecord,
    Counts,
    ReasoningCounts,
    WorstPicture,
    run_clip,
)
from benchmarks.perceiving.sizes import measure_sizes, sizes_table  # noqa: E402
from training.reasoner.metrics import (  # noqa: E402
    add_counts,
    clip_truth,
    coverage,
    f1,
    macro_f1,
    micro_f1,
    spearman,
)
from wm_perception.evaluation import score_tracks  # noqa: E402
from wm_perception.models.choice import chosen  # noqa: E402
from wm_perception.models.files import ModelError  # noqa: E402
from wm_perception.types import PerceptionConfig  # noqa: E402

SPLITS = ("seeds", "families")
PIPELINES = ("learned", "untrained")

# Key, words, unit factor and unit, decimals, aim on seeds, aim on families, whether more is better.
ROWS: tuple[tuple[str, str, float, str, int, float | None, float | None, bool], ...] = (
    ("mask_ap50", "mask AP50", 1.0, "", 3, 0.92, 0.85, True),
    ("mask_ap", "mask AP", 1.0, "", 3, 0.75, 0.60, True),
    ("position_error_median_m", "position error, median", 1e3, "mm", 1, 0.008, 0.008, False),
    ("position_error_p90_m", "position error, p90", 1e3, "mm", 1, 0.020, 0.020, False),
    ("extents_error_median", "extents error, median", 1e2, "%", 1, 0.08, 0.08, False),
    ("rotation_error_median_deg", "rotation error, median", 1.0, "deg", 1, 10.0, 10.0, False),
    ("velocity_error_m_s", "velocity error at 0.5 m/s", 1.0, "m/s", 3, 0.05, 0.05, False),
    ("idf1", "IDF1", 1.0, "", 3, 0.95, 0.95, True),
    ("mota", "MOTA", 1.0, "", 3, 0.93, 0.93, True),
    ("id_switches_per_1000", "id switches per 1000", 1.0, "", 2, 1.0, 1.0, False),
    ("reid_after_2s", "same id after 2 s hidden", 1e2, "%", 0, 0.95, 0.95, True),
    ("relations_macro_f1", "relations, macro F1", 1.0, "", 3, 0.92, 0.92, True),
    ("events_f1", "events, F1 within 0.1 s", 1.0, "", 3, 0.90, 0.90, True),
    ("property_spearman", "properties, Spearman", 1.0, "", 2, 0.70, 0.70, True),
    ("property_coverage_90", "properties, 90 % interval", 1e2, "%", 0, 0.85, 0.85, True),
    ("caused_f1", "caused, F1", 1.0, "", 3, 0.85, 0.85, True),
    ("caused_f1_baseline", "... any earlier contact", 1.0, "", 3, None, None, True),
    ("latency_median_s", "camera to graph, median", 1e3, "ms", 0, 0.060, 0.060, False),
    ("latency_p95_s", "camera to graph, p95", 1e3, "ms", 0, 0.100, 0.100, False),
    ("rate_hz", "scene graphs per second", 1.0, "Hz", 1, 15.0, 15.0, True),
)
REAL_ROWS: tuple[tuple[str, str, float, str, int, float, bool], ...] = (
    ("mug_present", "mug present as one id", 1e2, "%", 1, 0.98, True),
    ("phantoms_per_frame", "phantoms per frame", 1.0, "", 2, 0.5, False),
    ("table_tilt_deg", "table plane tilt", 1.0, "deg", 2, 2.0, False),
)
COVERAGE_AT_MOST = 0.95
KEYS = tuple(row[0] for row in ROWS)
_RETRY_SEEDS = 1000


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


def job(plan: ClipPlan, configs: dict[str, PerceptionConfig]) -> tuple[ClipPlan, dict[str, ClipRecord]]:
    """Draw a clip once and show it to every pipeline. A world whose physics diverges gives way to another."""
    for attempt in range(5):
        tried = replace(plan, seed=plan.seed + attempt * _RETRY_SEEDS)
        try:
            clip = render_clip(tried)
        except ValueError:
            if attempt == 4:
                raise
            continue
        break
    truth = clip_truth(clip.world, clip.truth)
    return tried, {name: run_clip(clip, config, truth) for name, config in configs.items()}


def run_clips(
    plans: Sequence[ClipPlan], configs: dict[str, PerceptionConfig], processes: int, console: Console
) -> tuple[dict[str, dict[str, list[ClipRecord]]], list[str]]:
    """Records by pipeline and split, and what went wrong with clips that are therefore left out."""
    failures: list[str] = []
    records: dict[str, dict[str, list[ClipRecord]]] = {name: {s: [] for s in SPLITS} for name in configs}
    context = multiprocessing.get_context("spawn")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with (
        Progress(*columns, console=console, disable=not console.is_terminal) as progress,
        concurrent.futures.ProcessPoolExecutor(processes, mp_context=context) as pool,
    ):
        bar = progress.add_task("clips", total=len(plans))
        waiting = {pool.submit(job, plan, configs): plan for plan in plans}
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


def _quantile(values: Sequence[float], q: float) -> float | None:
    return float(np.quantile(values, q)) if len(values) else None


def _finite(value: float | None) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None


def figures(records: Sequence[ClipRecord]) -> tuple[dict[str, float | None], dict[str, Any]]:
    """All keys of a split but those of latency (None), and what else is worth knowing."""
    result: dict[str, float | None] = dict.fromkeys(KEYS)
    more: dict[str, Any] = {"clips": len(records)}
    if masks.available():
        truths, predictions = [m for r in records for m in r.truths], [m for r in records for m in r.predictions]
        result["mask_ap50"], result["mask_ap"] = masks.average_precision(truths, predictions)
    matches = [m for r in records for m in r.matches]
    positions = [m.position_m for m in matches]
    result["position_error_median_m"] = _quantile(positions, 0.5)
    result["position_error_p90_m"] = _quantile(positions, 0.9)
    result["extents_error_median"] = _quantile([m.extents for m in matches], 0.5)
    result["rotation_error_median_deg"] = _quantile(
        [m.rotation_deg for m in matches if m.rotation_deg is not None], 0.5
    )
    low, high = VELOCITY_BAND_M_S
    moving = [m.velocity_error_m_s for m in matches if low <= m.speed_m_s <= high and m.moving_s >= MOVING_S]
    knocked = [m.velocity_error_m_s for m in matches if low <= m.speed_m_s <= high and m.moving_s < MOVING_S]
    result["velocity_error_m_s"] = _quantile(moving, 0.5)
    tracks = score_tracks([r.tracks for r in records])
    result["idf1"], result["mota"] = _finite(tracks.idf1), _finite(tracks.mota)
    result["id_switches_per_1000"] = _finite(tracks.id_switches_per_1000)
    # What was never found before it was hidden counts as a miss there, and has no id to come back to.
    returns = [x for r in records for x in r.returns if x.before is not None]
    result["reid_after_2s"] = float(np.mean([x.same for x in returns])) if returns else None
    reasoning = [r.reasoning for r in records if r.reasoning is not None]
    reasoned, reasoned_more = reasoning_figures(reasoning)
    result |= reasoned
    more |= reasoned_more
    well = [m.position_m for m in matches if m.seen >= 0.5]
    more |= {
        "by_clip": [clip_summary(r) for r in records],
        "object_frames": tracks.object_frames,
        "misses": tracks.misses,
        "false_positives": tracks.false_positives,
        "id_switches": tracks.id_switches,
        "matches": len(matches),
        "velocity_samples": len(moving),
        "velocity_samples_just_knocked": len(knocked),
        "velocity_error_just_knocked_m_s": _quantile(knocked, 0.5),
        "velocity_error_faster_m_s": _quantile([m.velocity_error_m_s for m in matches if m.speed_m_s > high], 0.5),
        "speed_of_resting_things_m_s": _quantile([m.velocity_error_m_s for m in matches if m.speed_m_s < 0.01], 0.9),
        "position_error_half_seen_median_m": _quantile(well, 0.5),
        "position_error_half_seen_p90_m": _quantile(well, 0.9),
        "position_chi_square_90": float(np.mean([m.normalized_squared < 6.251 for m in matches])) if matches else None,
        "hidden_and_back": len(returns),
        "hidden_never_found": sum(x.before is None for r in records for x in r.returns),
        "pipeline_seconds_median": _quantile([s for r in records for s in r.seconds], 0.5),
        "pipeline_seconds_p95": _quantile([s for r in records for s in r.seconds], 0.95),
    }
    return result, more


def clip_summary(record: ClipRecord) -> dict[str, Any]:
    """Where a clip stands among the others: what was missed, invented, mixed up, misplaced, badly outlined."""
    tracks = score_tracks([record.tracks])
    return {
        "clip": record.plan.name,
        "object_frames": tracks.object_frames,
        "misses": tracks.misses,
        "false_positives": tracks.false_positives,
        "id_switches": tracks.id_switches,
        "idf1": _finite(tracks.idf1),
        "position_error_p90_m": _quantile([m.position_m for m in record.matches], 0.9),
        "mean_iou": float(np.mean(record.quality)) if record.quality else None,
        "hidden": [[x.true_id, round(x.hidden_s, 2), x.before, x.after] for x in record.returns],
    }


def reasoning_figures(clips: Sequence[ReasoningCounts]) -> tuple[dict[str, float | None], dict[str, Any]]:
    """Keys of relations, events, properties and causes; None where nothing true was there to be said."""
    relations: Counts = {}
    events: Counts = {}
    causes: Counts = {}
    for clip in clips:
        add_counts(relations, clip.relations)
        add_counts(events, clip.events)
        add_counts(causes, clip.causes)
    rows = np.concatenate([c.properties for c in clips]) if clips else np.zeros((0, 3, 3))

    def some(counts: Counts) -> bool:
        return any(c[0] + c[2] > 0 for c in counts.values())

    correlations = spearman(rows) if len(rows) > 2 else {}
    result = {
        "relations_macro_f1": _finite(macro_f1(relations)) if some(relations) else None,
        "events_f1": _finite(micro_f1(events)) if some(events) else None,
        "property_spearman": _finite(correlations.get("mean")),
        "property_coverage_90": _finite(coverage(rows)) if len(rows) else None,
        "caused_f1": _finite(f1(causes["reasoner"])) if some(causes) else None,
        "caused_f1_baseline": _finite(f1(causes["baseline"])) if some(causes) else None,
    }
    more = {
        "relations": {k: [int(x) for x in v] for k, v in sorted(relations.items())},
        "events": {k: [int(x) for x in v] for k, v in sorted(events.items())},
        "causes": {k: [int(x) for x in v] for k, v in sorted(causes.items())},
        "property_things": len(rows),
        "property_spearman_each": {k: _finite(v) for k, v in correlations.items()},
    }
    return result, more


def latency_clip(split: str, arguments: argparse.Namespace) -> RenderedClip:
    """A random world of the split with six to nine things, 3 s at the camera's rate."""
    from training.worlds.worlds import random_scene

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
    from benchmarks.perceiving.latency import measure

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


def mark(value: float | None, aim: float | None, more: bool, key: str) -> str:
    """Style of a figure: green where the aim is met."""
    if value is None or aim is None:
        return ""
    if key == "property_coverage_90":
        return "green" if aim <= value <= COVERAGE_AT_MOST else "red"
    return "green" if (value >= aim if more else value <= aim) else "red"


def acceptance_table(document: dict[str, Any]) -> Table:
    """The table of the issue: figure, aim, untrained, on both splits."""
    table = Table(title="Perception on worlds never seen in training", pad_edge=False)
    table.add_column("what")
    table.add_column("")
    for split in SPLITS:
        for head in (f"held-out {split}", "aim", "untrained"):
            table.add_column(head, justify="right")

    def cell(values: dict[str, Any] | None, key: str, factor: float, decimals: int) -> str:
        value = None if not values else values.get(key)
        return "-" if value is None else f"{factor * value:.{decimals}f}"

    for key, words, factor, unit, decimals, aim_seeds, aim_families, more in ROWS:
        row = [words, unit]
        for split, aim in zip(SPLITS, (aim_seeds, aim_families), strict=True):
            values = document[split]
            beside = document["untrained" if split == "seeds" else "untrained_families"]
            text = cell(values, key, factor, decimals)
            style = mark(None if not values else values.get(key), aim, more, key)
            sign = "" if aim is None else ("≥ " if more else "≤ ")
            row.append(f"[{style}]{text}[/]" if style else text)
            row.append("" if aim is None else f"{sign}{factor * aim:.{decimals}f}")
            row.append(cell(beside, key, factor, decimals))
        table.add_row(*row)
    return table


def real_table(document: dict[str, Any]) -> Table:
    """The recorded clip."""
    table = Table(title="Recorded clip", pad_edge=False)
    for head in ("what", "", "measured", "aim", "untrained"):
        table.add_column(head, justify="left" if head in ("what", "") else "right")
    for key, words, factor, unit, decimals, aim, more in REAL_ROWS:
        value, beside = document["real_clip"].get(key), document["untrained_real_clip"].get(key)
        style = mark(value, aim, more, key)
        text = "-" if value is None else f"{factor * value:.{decimals}f}"
        table.add_row(
            words,
            unit,
            f"[{style}]{text}[/]" if style else text,
            f"{'≥' if more else '≤'} {factor * aim:.{decimals}f}",
            "-" if beside is None else f"{factor * beside:.{decimals}f}",
        )
    return table


def markdown(document: dict[str, Any]) -> str:
    """Both tables and the notes for documents."""
    parts = []
    sizes = [sizes_table(document["sizes"])] if document.get("sizes") else []
    for table in (acceptance_table(document), *sizes, real_table(document)):
        cells = [[Text.from_markup(str(c)).plain for c in column.cells] for column in table.columns]
        header = [str(column.header) for column in table.columns]
        rows = [header, ["---"] * len(header), *zip(*cells, strict=True)]
        parts.append(f"**{table.title}**\n\n" + "\n".join("| " + " | ".join(row) + " |" for row in rows))
    parts += [f"- {note}" for note in document["notes"]]
    return "\n\n".join(parts) + "\n"


def worst_pictures(records: dict[str, dict[str, list[ClipRecord]]], count: int) -> list[WorstPicture]:
    """The worst frames of the learned pipeline (of the other where there is none), as few of a clip as will do."""
    by_split = records.get("learned") or records["untrained"]
    ranked = [
        (rank, p.quality, p)
        for clips in by_split.values()
        for r in clips
        for rank, p in enumerate(sorted(r.worst, key=lambda w: w.quality))
    ]
    chosen_ones = sorted(ranked, key=lambda item: item[:2])[:count]
    return [p for _, _, p in sorted(chosen_ones, key=lambda item: item[1])]


def default_clip() -> Path:
    """Folder of the recorded clip."""
    return Path(os.environ.get("WM_SHARED_DATA", ROOT.parent / "shared")) / "real_rgbd"


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=16, help="of each split (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=4.0, help="of a random clip (default: %(default)s)")
    parser.add_argument("--rate", type=float, default=15.0, metavar="HZ", help="of frames (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=FIRST_SEED, help="of the first clip (default: %(default)s)")
    parser.add_argument("--splits", nargs="+", choices=SPLITS, default=list(SPLITS))
    parser.add_argument("--segmenter-model", default="", metavar="FILE", help="in place of the shipped weights")
    parser.add_argument("--reasoner-model", default="", metavar="FILE", help="in place of the shipped weights")
    parser.add_argument("--processes", type=int, default=2, help="clips at the same time (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="of each network while scoring (default: %(default)s)")
    parser.add_argument("--camera-rate", type=float, default=30.0, metavar="HZ", help="live (default: %(default)s)")
    parser.add_argument("--latency-seconds", type=float, default=12.0, help="of each measurement; 0: none")
    parser.add_argument("--real-clip", type=Path, default=default_clip(), help="folder (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="about a minute: 4 short clips, few figures mean much")
    parser.add_argument("--out", type=Path, default=ROOT / "out/bench", help="folder (default: %(default)s)")
    arguments = parser.parse_args(argv)
    if arguments.quick:
        arguments.clips, arguments.seconds = min(arguments.clips, 2), min(arguments.seconds, 2.0)
        arguments.latency_seconds = min(arguments.latency_seconds, 4.0)
    for name, low, high in (
        ("clips", 1, 1000),
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
    return arguments


def run(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Everything; the document that is written."""
    from benchmarks.perceiving.pictures import draw_worst_frames
    from benchmarks.perceiving.real import run_real_clip
    from wm_bringup.report.results import machine_facts

    every = configurations(arguments)
    configs = {name: config for name, config in every.items() if config is not None}
    notes: list[str] = []
    if every["learned"] is None:
        notes.append("no trained weights are installed (make train-segmenter): only the untrained pipeline is measured")
    if not masks.available():
        notes.append("pycocotools is not installed (make setup WITH=training): masks are not measured")
    plans = [
        plan
        for split in arguments.splits
        for plan in plan_clips(split, arguments.clips, arguments.seconds, arguments.rate, arguments.seed)
    ]
    # The long ones first, so that no process waits at the end.
    plans.sort(key=lambda p: -p.seconds)
    console.print(f"{len(plans)} clips, {sum(p.seconds for p in plans):.0f} s at {arguments.rate:g} Hz")
    records, failures = run_clips(plans, configs, arguments.processes, console)
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
        "seeds": values.get(("learned", "seeds"), empty),
        "families": values.get(("learned", "families"), empty),
        "untrained": values.get(("untrained", "seeds"), empty),
        "untrained_families": values.get(("untrained", "families"), empty),
        "sizes": sizes,
        "real_clip": {row[0]: real["learned"][row[0]] for row in REAL_ROWS},
        "untrained_real_clip": {row[0]: real["untrained"][row[0]] for row in REAL_ROWS},
        "details": {**details, "real_clip": real},
        "aims": {
            split: {row[0]: row[5 + k] for row in ROWS if row[5 + k] is not None} for k, split in enumerate(SPLITS)
        },
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
    console = Console() if sys.stdout.isatty() else Console(width=130)
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
        console.print("[red]error:[/] a process that scores clips was killed (memory?); try --processes 1")
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
