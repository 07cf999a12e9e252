"""``wm demo``: the whole system on a simulated table, and its errors.

Camera, perception, imagination and recorder run as processes of their own. At one instant a client requests the factual
future and counterfactual ones; then the simulator computes the ground truth of each of them.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from wm_bringup.client import ClientError
from wm_bringup.demo.assessment import assess, print_results, score_perception, write_files
from wm_bringup.demo.capture import CAMERA_TOPICS, GROUND_TRUTH_TOPIC, NAMESPACE, Plan, capture
from wm_bringup.demo.ground_truth import GroundTruthError
from wm_bringup.environment import make_console
from wm_bringup.progress import ProgressLog
from wm_bringup.report import page, rerun_file, video
from wm_bringup.run.processes import NodeRefused, ProcessDied


def run_demo(
    out: Path,
    scene: str = "demo",
    seed: int = 0,
    quick: bool = False,
    perception: Mapping[str, Any] | None = None,
) -> int:
    """Run the demonstration; the exit status.

    Args:
        out: folder for what it writes.
        scene: name of a scene of wm_sim, or a scene file; seed: of it.
        quick: fewer and smaller frames.
        perception: further parameters of perception, e.g. of ``wm_bringup.run.nodes.model_parameters``.
    """
    console = make_console()
    progress = ProgressLog(console)
    plan = Plan.quick() if quick else Plan()
    try:
        out.mkdir(parents=True, exist_ok=True)
        _demonstrate(out, scene, seed, plan, progress, perception)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except (ProcessDied, NodeRefused, ClientError, GroundTruthError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _demonstrate(
    out: Path, scene: str, seed: int, plan: Plan, progress: ProgressLog, perception: Mapping[str, Any] | None
) -> None:
    captured = capture(out, scene, seed, plan, progress, perception)
    with progress.stage("simulate and render the ground truth of every scenario") as stage:
        results = assess(captured, scene, seed, stage.detail)
    with progress.stage("score perception over the whole run") as stage:
        perception = score_perception(captured.recording, scene, seed, f"{NAMESPACE}/scene_graph", GROUND_TRUTH_TOPIC)
        seconds = {f"stage: {name}": s for name, s in progress.seconds.items()}
        results = replace(results, perception=perception, timings={**results.timings, **seconds})
        stage.detail(f"{perception.get('frames', 0)} scene graphs")
    with progress.stage("write the video and the stills") as stage:
        live = video.live_frames(
            captured.recording, CAMERA_TOPICS[0], f"{NAMESPACE}/overlay", captured.stamp_ns, whole=not plan.is_quick
        )
        video.make_video(
            out / "demo.mp4",
            results,
            live,
            lambda done, text: stage.detail(f"{done or 0.0:4.0%} {text or ''}"),
            whole=not plan.is_quick,
        )
        stills = video.make_stills(out / "stills", results, live)
    with progress.stage("write the Rerun recording"):
        rerun_file.write_demo(out / "demo.rrd", results, captured.recording)
    with progress.stage("write the data and the report"):
        metrics = write_files(out, results, progress.total_s)
        page.write_demo_report(out / "report.html", results, metrics, stills, out / "demo.mp4")
    metrics = write_files(out, results, progress.total_s)
    print_results(results, metrics, progress.console)
    progress.console.print(
        f"\n{progress.total_s:.0f} s in all. {out / 'report.html'} is the report, {out / 'demo.mp4'} the video."
    )
