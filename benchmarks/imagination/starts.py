"""Start states of rollouts: the true or the perceived scene, and which of its objects is which true one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy.spatial.transform import Rotation

from benchmarks.imagination.metrics import Array, Mask
from benchmarks.imagination.worlds import Case
from wm_core.interventions import Hypothesis, Intervention, InterventionKind
from wm_core.scene_graph import SceneGraph
from wm_dynamics.base import DynamicsResult
from wm_dynamics.belief import scene_body
from wm_dynamics.mujoco.bodies import BodyDef

From = Literal["true", "perceived"]
Pair = tuple[int, int]
Touching = tuple[float, int, int, bool]
"""Time [s], true id a < true id b, began."""


@dataclass(frozen=True)
class Start:
    """The start state of rollouts.

    Attributes:
        scene: true or perceived scene graph.
        row_of: true id -> row of the scene, of movable objects that were found.
    """

    scene: SceneGraph
    row_of: dict[int, int]


@dataclass(frozen=True)
class Aligned:
    """Imagined futures in the layout of the ground truth: K hypotheses, T times, M objects.

    Attributes:
        states: (K, T, M, 13) float64; present: (K, T, M), False for what is not known.
        asked: (K,) whether the hypothesis could be rolled out (its object was found).
        solids: M of (shape, extents (3,), hull (P, 3)), as known to the backend; None: not known.
        bodies: of the scene's objects in this future (of the ground truth with all their parts), in the order of
            the true scene; None: not known.
        touches: per hypothesis (time, true id a, true id b, began).
        raw: the answer itself; hypotheses: as asked.
    """

    states: Array
    present: Mask
    asked: Mask
    solids: tuple[tuple[int, Array, Array] | None, ...]
    bodies: tuple[BodyDef | None, ...]
    touches: tuple[tuple[Touching, ...], ...]
    raw: DynamicsResult
    hypotheses: tuple[Hypothesis, ...]


def true_start(case: Case) -> Start:
    """From the true scene graph."""
    rows = {int(i): k for k, i in enumerate(case.scene.ids) if not case.scene.is_static[k]}
    return Start(case.scene, rows)


def translated(hypothesis: Hypothesis, case: Case, start: Start) -> Hypothesis | None:
    """The hypothesis with the ids of the scene that it starts from; None: its object was not found.

    Where an object is put in a new orientation, it is rotated as the true one would be, because the axes of a
    perceived object may be named differently.
    """
    if start.scene is case.scene:
        return hypothesis
    done: list[Intervention] = []
    for do in hypothesis.interventions:
        if do.creates_body:
            done.append(do)
            continue
        row = start.row_of.get(do.object_id)
        if row is None:
            return None
        name = int(start.scene.ids[row])
        if do.kind == InterventionKind.SET_POSE:
            true = Rotation.from_quat(case.scene.quaternions[case.scene.index(do.object_id)])
            turn = Rotation.from_quat(do.quaternion) * true.inv()
            turned = (turn * Rotation.from_quat(start.scene.quaternions[row])).as_quat()
            done.append(replace(do, object_id=name, quaternion=turned))
        else:
            done.append(replace(do, object_id=name))
    return Hypothesis(hypothesis.name, tuple(done))


def solid_of(hypotheses: Sequence[Hypothesis], slot: int) -> tuple[int, Array, Array] | None:
    """The body in a slot of created bodies, of the first hypothesis that has one."""
    for hypothesis in hypotheses:
        created = [i for i in hypothesis.interventions if i.creates_body]
        if slot < len(created) and created[slot].body is not None:
            body = created[slot].body
            assert body is not None
            return int(body.shape), np.asarray(body.extents, float), np.zeros((0, 3))
    return None


def align(case: Case, start: Start, asked: Sequence[Hypothesis | None], result: DynamicsResult) -> Aligned:
    """An answer in the layout of the ground truth (the first belief sample)."""
    count, times, objects = case.present.shape
    known = len(case.scene)
    states = np.zeros((count, times, objects, 13))
    states[..., 6] = 1.0
    present = np.zeros((count, times, objects), dtype=bool)
    solids: list[tuple[int, Array, Array] | None] = [None] * objects
    bodies: list[BodyDef | None] = [None] * known
    columns: dict[int, int] = {}
    for m in range(objects):
        if m < known and case.scene.is_static[m]:
            states[:, :, m], present[:, :, m] = case.states[:, :, m], True
            solids[m] = (int(case.scene.shapes[m]), case.scene.extents[m], case.scene.hulls[m])
            bodies[m] = case.bodies[m]
            continue
        if m < known:
            row = start.row_of.get(int(case.object_ids[m]))
            if row is None:
                continue
            columns[m] = row
            solids[m] = (int(start.scene.shapes[row]), start.scene.extents[row], start.scene.hulls[row])
            bodies[m] = scene_body(start.scene, row)
        else:
            columns[m] = len(start.scene) + m - known
            solids[m] = solid_of(case.hypotheses, m - known)
    rows = [k for k, h in enumerate(asked) if h is not None]
    done = np.zeros(count, dtype=bool)
    names = {
        int(result.object_ids[c]): int(case.object_ids[m]) for m, c in columns.items() if c < len(result.object_ids)
    }
    supports = {int(i) for i in start.scene.ids[start.scene.is_static]}
    table = int(case.scene.ids[np.flatnonzero(case.scene.is_static)[0]])
    touches: list[list[tuple[float, int, int, bool]]] = [[] for _ in range(count)]
    for place, k in enumerate(rows):
        if place >= result.completed:
            break
        done[k] = True
        for m, c in columns.items():
            if c < result.states.shape[3]:
                states[k, :, m] = result.states[place, 0, :, c]
                present[k, :, m] = result.present[place, :, c]
    for contact in result.contacts:
        if contact.sample != 0:
            continue
        a, b = (table if i in supports else names.get(i, 0) for i in (contact.a, contact.b))
        if a and b and a != b:
            touches[rows[contact.hypothesis]].append((contact.time_s, min(a, b), max(a, b), contact.began))
    return Aligned(
        states,
        present,
        done,
        tuple(solids),
        tuple(bodies),
        tuple(tuple(sorted(t)) for t in touches),
        result,
        tuple(h for h in asked if h is not None),
    )


def ground_truth_of(case: Case) -> Aligned:
    """The ground truth in the layout of an answer, so that both are measured by the same code."""
    known = len(case.scene)
    solids: list[tuple[int, Array, Array] | None] = [
        (int(case.scene.shapes[m]), case.scene.extents[m], case.scene.hulls[m])
        if m < known
        else solid_of(case.hypotheses, m - known)
        for m in range(len(case.object_ids))
    ]
    raw = DynamicsResult(case.object_ids, case.states[:, None], case.present, (), len(case.hypotheses), "truth")
    return Aligned(
        case.states.astype(np.float64),
        case.present,
        np.ones(len(case.hypotheses), dtype=bool),
        tuple(solids),
        case.bodies,
        case.touches,
        raw,
        case.hypotheses,
    )
