"""Hollow and forked objects: six scenes, imagined with their convex parts and as one outline each.

``python -m benchmarks.imagination.compounds``: each scene is drawn several times; every dynamics backend imagines it
from the true state and from what perception makes of rendered images, with the objects' parts and without them (the
outline: one primitive or one convex hull). Prints the ADE at 1 s, against the simulator with the true shapes, of what
moves or is put elsewhere. The aim: a third of the outline's error.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.imagination.metrics import displacement, moved
from benchmarks.imagination.six_scenes import SCENES, Scene
from benchmarks.imagination.starts import Start
from benchmarks.imagination.worlds import CAMERA_RATE_HZ, bare
from wm_core.interventions import Hypothesis, InterventionKind
from wm_core.rollout import POSITION
from wm_core.scene_graph import SceneGraph
from wm_dynamics.base import Dynamics
from wm_dynamics.factory import make_dynamics
from wm_perception.evaluation import match
from wm_sim.simulator import Simulator

Array = NDArray[np.float64]

HORIZON_S, STEP_S = 1.0, 1.0 / 30.0
BACKENDS = ("learned", "physics")
_SEEN_S = 1.5
"""Time that perception looks at a scene [s]: shapes have settled by then."""
_MIN_DRAWS, _MAX_DRAWS = 1, 100


def outlines(scene: SceneGraph) -> SceneGraph:
    """The scene as it was before objects had parts: each is its outline."""
    return replace(scene, parts=((),) * len(scene))


def ground_truth(scene: Scene) -> tuple[SceneGraph, Array, NDArray[np.bool_], Array]:
    """The true scene graph, states (T, M, 13), present (T, M) and times (T,) of the scene's future."""
    times = np.arange(round(HORIZON_S / STEP_S) + 1) * STEP_S
    with Simulator(bare(scene.built), 0, 64, 48, decorate=lambda _: None) as simulator:
        graph = simulator.ground_truth()
        future = simulator.ground_truth_rollout([scene.hypothesis], times)
    return graph, future.states[0].astype(np.float64), future.present[0], times


def perceived(scene: Scene, graph: SceneGraph) -> Start | None:
    """What the pipeline sees of a scene; None: not all of its objects."""
    from wm_perception.pipeline import PerceptionPipeline
    from wm_perception.types import Frame, PerceptionConfig

    pipeline = PerceptionPipeline(PerceptionConfig(inference_threads=1))
    with Simulator(scene.built, 0, 640, 480) as simulator:
        for number in range(round(_SEEN_S * CAMERA_RATE_HZ) + 1):
            simulator.advance_to(number / CAMERA_RATE_HZ)
            seen = simulator.render()
            frame = Frame(simulator.stamp_ns + 1, seen.rgb, seen.depth, simulator.camera, seen.world_T_camera)
            result = pipeline.process(frame)
    rows = {int(graph.ids[t]): p for p, t, _ in match(result.scene, graph)}
    return Start(result.scene, rows) if all(int(i) in rows for i in graph.ids[~graph.is_static]) else None


def _as_seen(hypothesis: Hypothesis, graph: SceneGraph, start: Start) -> Hypothesis:
    """The hypothesis with the ids that perception gave, and poses of the objects' perceived centers and axes.

    An object is put where its true shape goes: its perceived pose is moved by the same rigid motion.
    """
    from scipy.spatial.transform import Rotation

    done = []
    for action in hypothesis.interventions:
        if action.creates_body:
            done.append(action)
            continue
        row, true = start.row_of[action.object_id], graph.index(action.object_id)
        if action.kind == InterventionKind.SET_POSE:
            turn = Rotation.from_quat(action.quaternion) * Rotation.from_quat(graph.quaternions[true]).inv()
            offset = turn.apply(start.scene.positions[row] - graph.positions[true])
            action = replace(
                action,
                position=action.position + offset,
                quaternion=(turn * Rotation.from_quat(start.scene.quaternions[row])).as_quat(),
            )
        done.append(replace(action, object_id=int(start.scene.ids[row])))
    return Hypothesis(hypothesis.name, tuple(done))


def error_m(
    dynamics: Dynamics,
    hypothesis: Hypothesis,
    start: Start,
    graph: SceneGraph,
    future: tuple[Array, Any, Array],
    true_hypothesis: Hypothesis,
) -> float:
    """ADE at 1 s [m] of the objects that move in truth or are put elsewhere; it counts from where an object begins.

    Args:
        hypothesis: with the ids of ``start``; true_hypothesis: with those of ``graph``.
    """
    states, present, times = future
    result = dynamics.rollout([start.scene], [hypothesis], times)
    rows = [graph.index(i) for i in start.row_of]
    said = np.stack([result.states[0, 0, :, start.row_of[int(graph.ids[r])], POSITION] for r in rows], axis=1)
    true = states[:, rows, POSITION]
    # The perceived center is off the true one all along; the future is judged, not the perception.
    off = np.linalg.norm((said - true) - (said[:1] - true[:1]), axis=-1)[None]
    going = moved(true[None], present[None][:, :, rows], times, HORIZON_S)[0]
    # What was put somewhere may be meant to stay there, as a tower is.
    named = {i.object_id for i in true_hypothesis.interventions}
    going |= np.array([int(graph.ids[r]) in named for r in rows])
    ade, _ = displacement(off, times, HORIZON_S)
    return float(ade[0, going].mean())


def measure(backends: Sequence[str], draws: int, seed: int, perceive: bool, progress: Progress) -> dict[str, Any]:
    """Per scene and way of imagining it: the errors [m] of all draws."""
    dynamics = {name: make_dynamics(name) for name in backends}
    bar = progress.add_task("scenes", total=draws * len(SCENES))
    found: dict[str, dict[str, list[float]]] = {}
    unseen: dict[str, int] = {}
    for make in SCENES:
        for draw in range(draws):
            scene = make(np.random.default_rng([seed, draw]))
            graph, *future = ground_truth(scene)
            rows = {int(i): k for k, i in enumerate(graph.ids) if not graph.is_static[k]}
            starts = {"true": (Start(graph, rows), scene.hypothesis)}
            seen = perceived(scene, graph) if perceive else None
            if seen is not None:
                starts["perceived"] = (seen, _as_seen(scene.hypothesis, graph, seen))
            elif perceive:
                unseen[scene.name] = unseen.get(scene.name, 0) + 1
            errors = found.setdefault(scene.name, {})
            for source, (start, hypothesis) in starts.items():
                for kind, whole in (("parts", start), ("outline", replace(start, scene=outlines(start.scene)))):
                    for name, backend in dynamics.items():
                        value = error_m(
                            backend, hypothesis, whole, graph, (future[0], future[1], future[2]), scene.hypothesis
                        )
                        errors.setdefault(f"{source} {kind} {name}", []).append(value)
            progress.advance(bar)
    return {"errors_m": found, "not_seen_whole": unseen}


def table_of(found: dict[str, Any], source: str, backends: Sequence[str]) -> Table:
    """Mean ADE [mm] with parts beside that of outlines, a row for each scene."""
    table = Table(title=f"ADE at 1 s of what moves, from the {source} state, in mm; aim: a third of the outline's")
    table.add_column("scene")
    for name in backends:
        for column in ("parts", "outline", "share"):
            table.add_column(f"{name} {column}", justify="right")
    shares: dict[str, list[float]] = {name: [] for name in backends}
    for scene, errors in found["errors_m"].items():
        row = [scene]
        for name in backends:
            parts, outline = (
                float(np.mean(errors.get(f"{source} {k} {name}", [np.nan]))) for k in ("parts", "outline")
            )
            shares[name].append(parts / outline)
            row += [f"{1e3 * parts:.1f}", f"{1e3 * outline:.1f}", f"{parts / outline:.2f}"]
        table.add_row(*row)
    table.add_row("median", *(t for name in backends for t in ("", "", f"{np.nanmedian(shares[name]):.2f}")))
    return table


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=5, help="of each scene (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the first draw (default: %(default)s)")
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=list(BACKENDS))
    parser.add_argument("--no-perception", action="store_true", help="from the true states alone (quick)")
    parser.add_argument("--out", type=Path, default=Path("out/bench"), help="folder (default: %(default)s)")
    given = parser.parse_args(argv)
    if not _MIN_DRAWS <= given.draws <= _MAX_DRAWS:
        parser.error(f"--draws: got {given.draws}, expected {_MIN_DRAWS} to {_MAX_DRAWS}")
    console = Console() if sys.stdout.isatty() else Console(width=150)
    with Progress(console=console) as progress:
        found = measure(given.backends, given.draws, given.seed, not given.no_perception, progress)
    for source in ("true",) if given.no_perception else ("true", "perceived"):
        console.print(table_of(found, source, given.backends))
    for name, count in found["not_seen_whole"].items():
        console.print(f"{name}: in {count} of {given.draws} draws perception did not see all objects")
    given.out.mkdir(parents=True, exist_ok=True)
    path = given.out / "compounds.json"
    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    console.print(f"written: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
