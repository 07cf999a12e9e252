"""Errors of a captured demonstration: of its futures and of its scene graphs, against the true ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from wm_bringup.client import decode_frames
from wm_bringup.demo.ground_truth import GroundTruth
from wm_bringup.demo.scenarios import with_true_ids
from wm_bringup.recording.recordings import counts, read
from wm_bringup.report.comparison import compare, match_ids
from wm_bringup.report.metrics import split_latency
from wm_bringup.report.results import BASELINES, DemoResults, Future, machine_facts
from wm_core.scene_graph import SceneGraph
from wm_perception.evaluation import score_sequence
from wm_ros.conversions.scene_graph import scene_graph_from_msg
from wm_sim.simulator import Simulator

if TYPE_CHECKING:
    from wm_bringup.demo.capture import Capture

SETTLE_S = 0.5
"""Tracking confirms an object after four frames; graphs of the first half second [s] are not scored."""
VISIBLE_PIXELS = 60
"""Of a 320x240 image: a true object that shows fewer pixels does not count as missed. Larger: fewer misses."""

Update = Callable[[str], None]


def assess(capture: Capture, scene: str, seed: int, update: Update = lambda note: None) -> DemoResults:
    """The true futures of the scenarios, and the errors of the imagined ones; perception is not scored yet.

    Args:
        capture: of a run of the graph.
        scene, seed: that the simulated camera ran.
        update: called with the name of the scenario that is being simulated.

    Raises:
        wm_bringup.demo.ground_truth.GroundTruthError: the simulator, run again, is not in the published state.
    """
    rollouts = {"imagined": capture.answer.rollout, **{n: a.rollout for n, a in capture.baselines.items()}}
    imagined = rollouts["imagined"]
    times, frame_times, camera = imagined.times, imagined.frame_times, imagined.camera
    if camera is None or len(times) < 2:
        raise ValueError("rollout: got one without frames or times, expected both")
    true_ids = match_ids(capture.perceived, capture.published)
    true_hypotheses = [with_true_ids(q.hypothesis, true_ids) for q in capture.scenarios]
    notes = [
        f"“{q.title}” is not compared: object {q.subject} matches no true one within reach"
        for q, h in zip(capture.scenarios, true_hypotheses, strict=True)
        if h is None
    ]
    for k, scenario in enumerate(capture.scenarios):
        bad = [name for name, rollout in rollouts.items() if not rollout.usable[k]]
        if bad:
            # The error of a future that is not usable would distort the means.
            notes.append(f"“{scenario.title}” is not compared with {', '.join(bad)}: not valid, or not computed")
    known = [h for h in true_hypotheses if h is not None]
    rows_of = [known.index(h) if h is not None else None for h in true_hypotheses]
    color, depth = decode_frames(capture.answer)
    count = len(frame_times)
    rows = [int(np.argmin(np.abs(times - t))) for t in frame_times]
    futures = []
    with (
        GroundTruth(scene, seed, capture.stamp_ns, capture.published) as ground_truth,
        Simulator(scene, seed, camera.width, camera.height) as painter,
    ):
        # The message has the times in float32.
        rollout = ground_truth.imagine(known, np.arange(len(times)) * (float(times[-1]) / (len(times) - 1)))
        for k, (scenario, j) in enumerate(zip(capture.scenarios, rows_of, strict=True)):
            update(scenario.name)
            future = Future(scenario, k, color[k * count : (k + 1) * count], depth[k * count : (k + 1) * count])
            if j is not None:
                errors = compare(
                    scenario.name,
                    {name: (r, k) for name, r in rollouts.items()},
                    true_ids,
                    rollout.object_ids,
                    rollout.states[j],
                    rollout.present[j],
                    ground_truth.has_contacts(rollout, j),
                )
                true, true_depth = painter.render_ground_truth(rollout, j, rows, capture.perceived.world_T_camera)
                future = replace(future, true=list(true), true_depth=list(true_depth), errors=errors)
            futures.append(future)
        difference_m = ground_truth.difference_m
    update(
        f"run again to {1e-9 * capture.stamp_ns:.2f} s: {1e3 * difference_m:.0g} mm off what was published; "
        f"{len(known)} futures, {len(known) * count} pictures"
    )
    unknown = np.full(rollout.states.shape[1:], np.nan, np.float32), np.zeros(rollout.present.shape[1:], bool)
    latency = split_latency(json.loads(capture.latency.read_text()), capture.query_wall_ns)
    factor = latency["real_time_factor"]
    return DemoResults(
        scene_name=scene,
        seed=seed,
        graph=capture.perceived,
        ground_truth=capture.published,
        true_ids=true_ids,
        futures=futures,
        rollouts=rollouts,
        true_states=np.stack([unknown[0] if j is None else rollout.states[j] for j in rows_of]),
        true_present=np.stack([unknown[1] if j is None else rollout.present[j] for j in rows_of]),
        true_object_ids=rollout.object_ids,
        frame_times=frame_times,
        camera=camera,
        perception={},
        latency=latency,
        timings={
            **{f"rollouts_{n}_s": s for n, s in capture.timings_s.items()},
            "action_s": capture.answer.round_trip_s,
            "action_first_feedback_s": capture.answer.first_feedback_s or float("nan"),
            **{f"cores used by {name}": s for name, s in capture.cores_used.items()},
        },
        real_time_factor=factor if factor is not None else float("nan"),
        notes=notes,
        machine=machine_facts(),
        topics=counts(capture.recording),
    )


def recorded_graphs(mcap: Path, graph_topic: str, ground_truth_topic: str) -> list[tuple[SceneGraph, SceneGraph]]:
    """(perceived, true) scene graphs of equal stamps, in order of time, from a recording."""
    found: dict[str, dict[int, Any]] = {graph_topic: {}, ground_truth_topic: {}}
    for item in read(mcap, list(found)):
        found[item.topic][item.stamp_ns] = item
    perceived, true = found[graph_topic], found[ground_truth_topic]
    return [
        (scene_graph_from_msg(perceived[s].message()), scene_graph_from_msg(true[s].message()))
        for s in sorted(perceived.keys() & true.keys())
    ]


def score_perception(mcap: Path, scene: str, seed: int, graph_topic: str, ground_truth_topic: str) -> dict[str, Any]:
    """Counts and errors of perception over a recorded run; empty where nothing can be compared.

    A true object that the camera cannot see in a frame does not count as missed in it.
    """
    pairs = recorded_graphs(mcap, graph_topic, ground_truth_topic)
    if not pairs:
        return {}
    first_ns = pairs[0][1].stamp_ns
    pairs = [pair for pair in pairs if pair[1].stamp_ns >= first_ns + round(SETTLE_S * 1e9)]
    if not pairs:
        return {}
    visible = []
    with Simulator(scene, seed, 320, 240) as simulator:
        for _, ground_truth in pairs:
            simulator.advance_to(ground_truth.stamp_ns * 1e-9 + 1e-4)
            pixels = np.bincount(simulator.instances().ravel(), minlength=int(ground_truth.ids.max(initial=0)) + 1)
            visible.append({int(i) for i in ground_truth.ids[~ground_truth.is_static] if pixels[i] >= VISIBLE_PIXELS})
    return score_sequence(pairs, visible).as_dict()


def write_files(out: Path, results: DemoResults, seconds_total: float) -> dict[str, Any]:
    """metrics.json, details.json, rollouts.npz, rollouts.json; returns the metrics."""
    metrics = results.metrics(seconds_total)
    (out / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n")
    (out / "details.json").write_text(json.dumps(results.details(), indent=1) + "\n")
    imagined = results.rollouts["imagined"]
    arrays: dict[str, Any] = {
        "times": imagined.times,
        "object_ids": imagined.object_ids,
        "present": imagined.present,
        "position_std": imagined.position_std,
        "effect": imagined.effect,
        "true_object_ids": results.true_object_ids,
        "true_states": results.true_states,
        "true_present": results.true_present,
        **{f"states_{name}": rollout.states for name, rollout in results.rollouts.items()},
    }
    np.savez_compressed(out / "rollouts.npz", **arrays)
    described = {
        "hypotheses": [
            {"name": f.scenario.name, "question": f.scenario.title, "detail": f.scenario.detail}
            for f in results.futures
        ],
        "frame_id": imagined.frame_id,
        "stamp_ns": imagined.stamp_ns,
        "true_ids": {str(k): v for k, v in results.true_ids.items()},
        "arrays": {
            "times": "(T,) s after stamp_ns",
            "object_ids": "(N,) perceived ids, then created bodies",
            "states_*": "(K, S, T, N, 13) x y z [m], qx qy qz qw, vx vy vz [m/s], wx wy wz [rad/s], by backend",
            "present": "(K, T, N) whether the object exists then",
            "position_std": "(K, T, N) m",
            "effect": "(K, N) m, largest distance from the factual future",
            "true_object_ids": "(M,)",
            "true_states": "(K, T, M, 13), NaN where the ground truth is not known",
            "true_present": "(K, T, M)",
        },
        "events": [
            {
                "hypothesis": imagined.hypotheses[e.hypothesis],
                "kind": e.kind.name.lower(),
                "a": e.a,
                "b": e.b,
                "time_s": round(float(e.time_s), 4),
            }
            for e in imagined.events
        ],
    }
    (out / "rollouts.json").write_text(json.dumps(described, indent=1) + "\n")
    return metrics


def _millimeters(value: float | None) -> str:
    return "-" if value is None or not np.isfinite(value) else f"{1e3 * value:.1f}"


def _milliseconds(value: float | None) -> str:
    return "-" if value is None else f"{1e3 * value:.0f} ms"


def print_results(results: DemoResults, metrics: dict[str, Any], console: Console) -> None:
    """Errors and latencies as tables."""
    title = "Imagined against true positions [mm]: mean over objects, over 2 s (ADE) and at the end (FDE)"
    table = Table(title=escape(title))
    table.title_justify = "left"
    table.add_column("future")
    table.add_column("contacts")
    for heading in ("imagined\nADE", "\nFDE", "straight lines\nADE", "\nFDE", "nothing moves\nADE", "\nFDE"):
        table.add_column(heading, justify="right")
    table.add_column("moved objects: ADE\nimagined / straight", justify="right")
    for future in results.futures:
        e = future.errors
        if e is None:
            table.add_row(future.scenario.name, "", "not compared")
            continue
        row = [_millimeters(f(b)) for b in ("imagined", *BASELINES) for f in (e.average, e.final)]
        moved = " / ".join(_millimeters(e.average(b, moved_only=True)) for b in ("imagined", "straight"))
        table.add_row(future.scenario.name, "yes" if e.contacts else "no", *row, moved)
    console.print()
    console.print(table)
    p, latency = metrics["perception"], metrics["latency"]
    if results.perception:
        console.print(
            f"Perception, {results.perception['frames']} scene graphs: {p['found']} of {p['objects_true']} objects "
            f"found, {p['missed']} missed, {p['phantom']} phantom, {p['id_switches']} id switches, "
            f"position error {_millimeters(p['position_error_median_m'])} mm (median)"
        )
    rate = "-" if latency["rate_hz"] is None else f"{latency['rate_hz']:.1f}"
    console.print(
        f"Camera to scene graph: {_milliseconds(latency['camera_to_graph_median_s'])} median, "
        f"{_milliseconds(latency['camera_to_graph_p95_s'])} at 95 %, {rate} graphs per second of wall clock "
        f"(everything on {results.machine['cores']} cores, the camera at {results.real_time_factor:.2f} x real time)"
    )
    console.print(
        f"Futures of 1 s through the service, meanwhile: 64 in {_milliseconds(latency['rollouts_64_s'])}, "
        f"256 in {_milliseconds(latency['rollouts_256_s'])}"
    )
    for note in results.notes:
        console.print(f"[yellow]note:[/] {escape(note)}")
