"""What moves where nothing is done: futures of static scenes, as perception sees them.

    source tools/env.sh && python -m benchmarks.imagination.still [--backend learned physics] [--scenes 20]

Perceives scenes in which nothing moves (random worlds, the simulator's own scenes, and real frames where recordings
are there, see WM_SHARED_DATA), imagines two seconds in which nothing is done, and reports how far anything moved, and
how far the start of these futures is from what was perceived. Then removes each object of some of the scenes, and
counts the other objects that moved although they did not rest on it. Perceived scenes are kept in out/bench/cache.
Prints tables; writes still.json.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks.imagination.start_changes import StartChanges, changes_summary, changes_table, start_changes
from benchmarks.imagination.steps import Bar
from benchmarks.imagination.still_scenes import SOURCES, StaticScene, recordings_folder, scenes_of, static_scene
from benchmarks.imagination.store import ROOT
from wm_bringup.report.results import machine_facts
from wm_core.interventions import Hypothesis, remove
from wm_core.rollout import POSITION, QUATERNION
from wm_core.rotations import quaternion_to_matrix, rotation_distance
from wm_core.scene_graph import Predicate, SceneGraph
from wm_dynamics.base import Dynamics
from wm_dynamics.belief import moving_objects, scene_body
from wm_dynamics.factory import make_dynamics
from wm_dynamics.mujoco.bodies import body_points

TIMES = np.arange(61) / 30.0
"""Times of the states [s]."""
MOVED_M = 0.005
"""Distance [m] from which an object counts as moved: the aim for the worst of the scenes."""
AIMS_MM = {"median": 0.5, "worst": 5.0}
"""Largest movement in a scene [mm]."""
ALL, CALM = "all", "all seen at rest"
"""Rows of all scenes, and of those in which perception takes nothing to move."""
BACKENDS = ("learned", "learned-onnxruntime", "physics")


@dataclass
class Still:
    """A future of a scene in which nothing is done.

    Attributes:
        source, scene, objects: which scene, and how many objects in it can move.
        moved_mm, turned_deg: largest movement of a center, and largest rotation, from the first state.
        who: id of the object that moved farthest.
        start_mm: farthest that an object's first state is from where it was perceived.
        moving: ids of objects that perception takes to move.
        doubt: of the backend itself.
    """

    source: str
    scene: str
    objects: int
    moved_mm: float
    turned_deg: float
    who: int
    start_mm: float
    moving: list[int]
    doubt: str


@dataclass
class Removal:
    """A future in which an object is taken away.

    Attributes:
        source, scene, removed: which one.
        moved: ids of objects that did not rest on it and moved by more than ``MOVED_M``; farthest_mm: of these.
    """

    source: str
    scene: str
    removed: int
    moved: list[int] = field(default_factory=list)
    farthest_mm: float = 0.0


def resting_on(graph: SceneGraph) -> NDArray[np.bool_]:
    """(N, N) whether object i rests on object j, directly or through others.

    By the scene graph's relations, or since all of i is above the middle of j and their outlines from above overlap.
    """
    count = len(graph)
    low, high = np.zeros((count, 3)), np.zeros((count, 3))
    for i in range(count):
        points = body_points(scene_body(graph, i)) @ quaternion_to_matrix(graph.quaternions[i]).T + graph.positions[i]
        low[i], high[i] = points.min(axis=0), points.max(axis=0)
    over = (low[:, None, :2] < high[None, :, :2]).all(axis=2) & (low[None, :, :2] < high[:, None, :2]).all(axis=2)
    on = over & (low[:, None, 2] > graph.positions[None, :, 2])
    ids = graph.ids.tolist()
    for relation in graph.relations:
        known = relation.subject in ids and relation.object in ids
        if known and relation.predicate == Predicate.ON and relation.probability >= 0.5:
            on[ids.index(relation.subject), ids.index(relation.object)] = True
    np.fill_diagonal(on, False)
    for _ in range(count):
        more = on | ((on.astype(int) @ on.astype(int)) > 0)
        if (more == on).all():
            break
        on = more
    return on


def measure(dynamics: Dynamics, scene: StaticScene, removals: bool) -> tuple[Still, list[Removal]]:
    """The future in which nothing is done, and those in which each object is removed."""
    graph = scene.graph
    movable = np.flatnonzero(~graph.is_static)
    chosen = movable if removals else movable[:0]
    hypotheses = [
        Hypothesis("nothing"),
        *(Hypothesis(f"without {graph.ids[i]}", (remove(int(graph.ids[i])),)) for i in chosen),
    ]
    result = dynamics.rollout([graph], hypotheses, TIMES)
    states = result.states[:, 0].astype(np.float64)  # (K, T, M, 13)
    moved = np.linalg.norm(states[..., POSITION] - states[0, 0, :, POSITION], axis=-1).max(axis=1)  # (K, M)
    first = np.broadcast_to(states[0, :1, :, QUATERNION], states[0, :, :, QUATERNION].shape)
    turned = rotation_distance(states[0, :, :, QUATERNION], first).max(axis=0)
    who = int(movable[np.argmax(moved[0, movable])])
    start = np.linalg.norm(states[0, 0, movable, POSITION] - graph.positions[movable], axis=-1).max()
    still = Still(
        scene.source,
        scene.name,
        len(movable),
        1e3 * float(moved[0, movable].max()),
        float(np.degrees(turned[movable].max())),
        int(graph.ids[who]),
        1e3 * float(start),
        [int(i) for i in graph.ids[np.logical_or(*moving_objects(graph))]],
        result.doubts[0] if result.doubts else "",
    )
    begun = replace(
        graph, positions=states[0, 0, : len(graph), POSITION], quaternions=states[0, 0, : len(graph), QUATERNION]
    )
    on = resting_on(begun) if len(chosen) else None
    found = []
    for k, i in enumerate(chosen.tolist(), start=1):
        assert on is not None
        others = [m for m in movable.tolist() if m != i and not on[m, i] and moved[k, m] > MOVED_M]
        farthest = 1e3 * max((float(moved[k, m]) for m in others), default=0.0)
        found.append(
            Removal(scene.source, scene.name, int(graph.ids[i]), [int(graph.ids[m]) for m in others], farthest)
        )
    return still, found


def summary(stills: Sequence[Still], removals: Sequence[Removal]) -> dict[str, Any]:
    """Figures by source, and of all: see ``rows``."""
    figures: dict[str, Any] = {}
    calm = {s.scene for s in stills if not s.moving}
    for source in (*SOURCES, ALL, CALM):
        own = [s for s in stills if source in (s.source, ALL) or (source == CALM and s.scene in calm)]
        gone = [r for r in removals if source in (r.source, ALL) or (source == CALM and r.scene in calm)]
        if not own:
            continue
        moved = np.array([s.moved_mm for s in own])
        worst = own[int(np.argmax(moved))]
        figures[source] = {
            "scenes": len(own),
            "objects": sum(s.objects for s in own),
            "moved_median_mm": float(np.median(moved)),
            "moved_p90_mm": float(np.percentile(moved, 90)),
            "moved_worst_mm": float(moved.max()),
            "worst": f"{worst.scene}, object {worst.who}",
            "over_5_mm": int((moved > 1e3 * MOVED_M).sum()),
            "turned_worst_deg": max(s.turned_deg for s in own),
            "start_median_mm": float(np.median([s.start_mm for s in own])),
            "start_worst_mm": max(s.start_mm for s in own),
            "removals": len(gone),
            "removals_that_move_others": sum(bool(r.moved) for r in gone),
            "removals_farthest_mm": max((r.farthest_mm for r in gone), default=0.0),
        }
    return figures


def table(backend: str, figures: dict[str, Any]) -> Table:
    """The figures of one backend, for people."""
    result = Table(title=f"{backend}: nothing is done for 2 s (aim: median 0.5 mm, worst 5 mm)")
    for name in ("scenes of", "scenes", "median mm", "p90 mm", "worst mm", "over 5 mm", "the worst", "turned deg",
                 "start moved by mm, median / worst", "removals that move others"):  # fmt: skip
        result.add_column(name)
    for source, f in figures.items():
        result.add_row(
            source,
            str(f["scenes"]),
            f"{f['moved_median_mm']:.2f}",
            f"{f['moved_p90_mm']:.2f}",
            f"{f['moved_worst_mm']:.1f}",
            str(f["over_5_mm"]),
            escape(f["worst"]),
            f"{f['turned_worst_deg']:.1f}",
            f"{f['start_median_mm']:.1f} / {f['start_worst_mm']:.1f}",
            f"{f['removals_that_move_others']} of {f['removals']} ({f['removals_farthest_mm']:.0f} mm)",
        )
    return result


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Arguments, checked."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.imagination.still",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--backend", nargs="+", choices=BACKENDS, default=["learned", "physics"], metavar="NAME",
                        help=f"of {', '.join(BACKENDS)} (default: learned physics)")  # fmt: skip
    parser.add_argument("--scenes", type=int, default=180, help="tried of each source at most (default: %(default)s)")
    parser.add_argument("--sources", nargs="+", choices=SOURCES, default=list(SOURCES), metavar="SOURCE",
                        help=f"of {', '.join(SOURCES)} (default: all)")  # fmt: skip
    parser.add_argument(
        "--removals",
        type=int,
        default=12,
        help="scenes of each source whose objects are removed (default: %(default)s)",
    )
    parser.add_argument(
        "--recordings", type=Path, default=recordings_folder(), help="folder of real frames (default: %(default)s)"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "out/bench", help="folder (default: %(default)s)")
    given = parser.parse_args(argv)
    for name, low, high in (("scenes", 1, 1000), ("removals", 0, 1000)):
        if not low <= getattr(given, name) <= high:
            parser.error(f"--{name}: got {getattr(given, name)}, expected {low} to {high}")
    return given


def run(given: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Perceive, imagine, and measure; the document that is written."""
    document: dict[str, Any] = {"failures": [], "backends": {}, "scenes": {}, "removals": {}}
    made = [m for source in given.sources for m in scenes_of(source, given.scenes, given.recordings)]
    scenes: list[StaticScene] = []
    changes: dict[str, StartChanges] = {}
    with Bar(console, "perceived", len(made)) as bar:
        for one in made:
            try:
                scene = static_scene(one)
            except Exception as error:  # the others stand without it; the run fails at its end
                document["failures"].append(f"not perceived: {one[1]}: {type(error).__name__}: {error}")
                scene = None
            if scene is not None:
                scenes.append(scene)
                changes[scene.name] = start_changes(scene.graph)
            bar(one[1])
    if changes:
        document["starts"] = changes_summary(list(changes.values()))
        document["starts_by_scene"] = {name: asdict(c) for name, c in changes.items()}
        console.print(changes_table(document["starts"]))
    for name in given.backend:
        base, _, engine = name.partition("-")
        dynamics = make_dynamics(base, **({"engine": engine} if engine else {}))
        stills: list[Still] = []
        removals: list[Removal] = []
        seen: dict[str, int] = {}
        with Bar(console, name, len(scenes)) as bar:
            for scene in scenes:
                number = seen[scene.source] = seen.get(scene.source, 0) + 1
                still, gone = measure(dynamics, scene, number <= given.removals)
                stills.append(still)
                removals += gone
                bar(f"{scene.name}: {still.moved_mm:.1f} mm")
        figures = summary(stills, removals)
        document["backends"][name] = figures
        document["scenes"][name] = [asdict(s) for s in stills]
        document["removals"][name] = [asdict(r) for r in removals if r.moved]
        if figures:
            console.print(table(name, figures))
    return document


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    given = parse(argv)
    console = Console() if sys.stdout.isatty() else Console(width=200)
    begin = time.perf_counter()
    try:
        document = run(given, console)
    except KeyboardInterrupt:
        console.print("[red]stopped[/]")
        return 130
    document |= {
        "aims_mm": AIMS_MM,
        "seconds": round(time.perf_counter() - begin, 1),
        "load_average": list(os.getloadavg()),
        "machine": machine_facts(),
    }
    given.out.mkdir(parents=True, exist_ok=True)
    path = given.out / "still.json"
    path.write_text(json.dumps(document, indent=1, default=str) + "\n", encoding="utf-8")
    for line in document["failures"]:
        console.print(f"note: {escape(line)}")
    console.print(f"written: {path}")
    return 1 if document["failures"] else 0


if __name__ == "__main__":
    sys.exit(main())
