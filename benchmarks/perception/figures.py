"""The figures of a split from the records of its clips."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.perception import masks
from benchmarks.perception.run import (
    MOVING_S,
    VELOCITY_BAND_M_S,
    ClipRecord,
    Counts,
    ReasoningCounts,
    WorstPicture,
)
from benchmarks.perception.tables import KEYS
from training.reasoner.metrics import (
    add_counts,
    coverage,
    f1,
    macro_f1,
    micro_f1,
    spearman,
)
from wm_perception.evaluation import score_tracks


def _quantile(values: Sequence[float], q: float) -> float | None:
    return float(np.quantile(values, q)) if len(values) else None


def _finite(value: float | None) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None


def figures(records: Sequence[ClipRecord]) -> tuple[dict[str, float | None], dict[str, Any]]:
    """The figures of a split by key (those of latency None), and further ones for the details."""
    result: dict[str, float | None] = dict.fromkeys(KEYS)
    more: dict[str, Any] = {"clips": len(records)}
    if masks.available():
        ground_truths, predictions = (
            [m for r in records for m in r.ground_truths],
            [m for r in records for m in r.predictions],
        )
        result["mask_ap50"], result["mask_ap"] = masks.average_precision(ground_truths, predictions)
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
    frames = sum(len(r.tracks) for r in records)
    result["found_share"] = 1.0 - tracks.misses / tracks.object_frames if tracks.object_frames else None
    result["phantoms_per_frame"] = tracks.false_positives / frames if frames else None
    result["idf1"], result["mota"] = _finite(tracks.idf1), _finite(tracks.mota)
    result["id_switches_per_1000"] = _finite(tracks.id_switches_per_1000)
    # An object that was not found before it was hidden counts as a miss there, and has no id to return to.
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
    """The main figures of one clip, to find the clips that stand out."""
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
    """Keys of relations, events, properties and causes; None where the ground truth has none."""
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


def worst_pictures(records: dict[str, dict[str, list[ClipRecord]]], count: int) -> list[WorstPicture]:
    """The worst frames of the learned pipeline (else of the other), spread over as many clips as possible."""
    by_split = records.get("learned") or records["untrained"]
    ranked = [
        (rank, p.quality, p)
        for clips in by_split.values()
        for r in clips
        for rank, p in enumerate(sorted(r.worst, key=lambda w: w.quality))
    ]
    chosen_ones = sorted(ranked, key=lambda item: item[:2])[:count]
    return [p for _, _, p in sorted(chosen_ones, key=lambda item: item[1])]
