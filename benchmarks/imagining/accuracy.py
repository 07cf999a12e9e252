"""Imagined futures against true ones: positions, rotations, effects, events, calibration, what physics forbids.

To measure a dynamics backend from a Python prompt in the repository's root (environment: ``source tools/env.sh``)::

    >>> from benchmarks.imagining.accuracy import evaluate
    >>> from benchmarks.imagining.worlds import world_seeds
    >>> from wm_dynamics.factory import make_dynamics
    >>> evaluate(make_dynamics("physics"), "seeds", world_seeds("seeds", 6))

The truth is simulated once (2 s a world) and kept under out/bench/cache; so is what perception makes of a world.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import mujoco
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from benchmarks.imagining.metrics import (
    HORIZONS_S,
    PENETRATION_M,
    Array,
    Errors,
    Mask,
    Occurrence,
    crosses_table,
    displacement,
    effects,
    energy_rise,
    f1,
    held_once_gone,
    in_rank,
    in_region,
    match_events,
    moved,
    row_at,
)
from benchmarks.imagining.shapes import (
    Worlds,
    created_bodies,
    put,
    rows_of,
    scene_stretches,
    stretches,
    surface_distances,
)
from benchmarks.imagining.worlds import Case, load_cases
from training.reasoner.events import APART_M, true_events
from training.worlds.simulate import Clip
from training.worlds.worlds import Split
from wm_core.geometry import quaternion_to_matrix
from wm_core.interventions import Hypothesis, Intervention, InterventionKind
from wm_core.rollout import ANGULAR_VELOCITY, LINEAR_VELOCITY, POSITION, QUATERNION
from wm_core.scene_graph import EventKind, SceneGraph, Shape
from wm_dynamics.base import Dynamics, DynamicsResult, targets
from wm_dynamics.belief import centre_offsets, move_centres, sample_belief, scene_body
from wm_dynamics.factory import make_dynamics
from wm_dynamics.mujoco.bodies import BodyDef, GeomDef
from wm_dynamics.mujoco.world import GRAVITY_M_S2
from wm_perception.evaluation import rotation_error_deg

From = Literal["true", "perceived"]
Pair = tuple[int, int]
Touching = tuple[float, int, int, bool]
"""Time [s], true id a < true id b, began."""
KINDS = (EventKind.CONTACT, EventKind.SEPARATION, EventKind.FALL, EventKind.TOPPLE, EventKind.LEAVE)
EVENTS_UNTIL_S = 1.0
EFFECT_AT_S = 1.0
CALIBRATION_TIMES_S = (0.5, 1.0)
CALIBRATION_QUESTIONS = 3
MEASURED_WORST = 12

_ENERGY_OF_KINETIC = 0.05
_ENERGY_HEIGHT_M = 0.005
_ENERGY_NOISE_J = 1e-4
_OVERLAP_AT_START_M = 0.0025
_STEP_OF_INTERVENTIONS_S = 0.5 / 60.0 + 1e-3

_WORLDS = Worlds()


@dataclass(frozen=True)
class Start:
    """What rollouts start from.

    Attributes:
        scene: true or perceived scene graph.
        row_of: true id -> row of the scene, of movable things that were found.
    """

    scene: SceneGraph
    row_of: dict[int, int]


@dataclass(frozen=True)
class Aligned:
    """Imagined futures in the layout of the truth: K hypotheses, T times, M objects.

    Attributes:
        states: (K, T, M, 13) float64; present: (K, T, M), False for what is not known.
        asked: (K,) whether the question could be asked (its object was found).
        solids: M of (shape, extents (3,), hull (P, 3)), as known where it was imagined; None: not known.
        bodies: what the things of the scene are in the world of this future (of the truth: with all their parts), in
            the order of the truth's scene; None: not known.
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
    """The question asked of the scene that it starts from; None: its object was not found.

    Where a thing is put in a new orientation, it is turned as the true one would be: how the axes of a perceived thing
    are named is its own affair.
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
    """An answer in the layout of the truth (the first belief sample)."""
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


def imagine(dynamics: Dynamics, case: Case, start: Start) -> Aligned:
    """All questions of a case, answered by a backend from the mean of the belief."""
    asked = [translated(h, case, start) for h in case.hypotheses]
    result = dynamics.rollout([start.scene], [h for h in asked if h is not None], case.times)
    return align(case, start, asked, result)


def truth_of(case: Case) -> Aligned:
    """The truth in the same dress, so that it can be measured like an answer."""
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


def compared(case: Case) -> Mask:
    """(K, M) what is scored: movable, no pusher, on the table at the start (or created)."""
    count, objects = len(case.hypotheses), len(case.object_ids)
    known = len(case.scene)
    scored = np.zeros((count, objects), dtype=bool)
    scored[:, :known] = ~case.scene.is_static & (case.scene.positions[:, 2] > case.table_top_m - 0.02)
    for k, hypothesis in enumerate(case.hypotheses):
        created = [i for i in hypothesis.interventions if i.creates_body]
        for j, do in enumerate(created):
            scored[k, known + j] = do.kind == InterventionKind.ADD
    return scored


def positions_of(case: Case, future: Aligned) -> Array:
    """(K, T, M, 3) [m], held once a thing has left the table."""
    return held_once_gone(future.states[..., POSITION], case.table_top_m)


# -- events


def clip_of(case: Case, future: Aligned, k: int) -> Clip:
    """A future as a clip, from which events are read by the rules of ``training.reasoner.events``."""
    objects = len(case.object_ids)
    empty = (int(Shape.BOX), np.full(3, 0.05), np.zeros((0, 3)))
    solids = [s or empty for s in future.solids]
    known = len(case.scene)
    created = [i for i in case.hypotheses[k].interventions if i.creates_body]
    for j, do in enumerate(created):
        assert do.body is not None
        solids[known + j] = (int(do.body.shape), np.asarray(do.body.extents, float), np.zeros((0, 3)))
    kinematic = np.zeros(objects, dtype=bool)
    for j, do in enumerate(created):
        kinematic[known + j] = do.kind == InterventionKind.FOLLOW_PATH
    static = np.zeros(objects, dtype=bool)
    static[:known] = case.scene.is_static
    return Clip(
        times=case.times,
        ids=case.object_ids,
        class_names=("object",) * objects,
        states=future.states[k],
        present=future.present[k],
        touches=future.touches[k],
        extents=np.array([s[1] for s in solids]),
        shapes=np.array([s[0] for s in solids]),
        hulls=tuple(s[2] for s in solids),
        is_static=static,
        log_mass=np.zeros(objects),
        friction=np.zeros(objects),
        restitution=np.zeros(objects),
        kinematic=kinematic,
        scheduled=(),
        stable=True,
    )


def distances_of(case: Case, future: Aligned, k: int, pairs: Iterable[Pair], rows: int) -> dict[Pair, Array]:
    """How far apart the surfaces of pairs of things (columns) are at the first times, (rows,) [m] each.

    Of the shapes in the world of that future, after what was done to them: of the truth all parts of a thing, of what
    was imagined the primitive or hull that stands for it. Up to ``shapes.FAR_M``; NaN while one of them is absent.
    """
    hypothesis = case.hypotheses[k]
    nothing = BodyDef((GeomDef(Shape.SPHERE, np.full(3, 0.01)),))
    bodies = [b or nothing for b in future.bodies] + created_bodies(hypothesis)
    known = np.array([b is not None for b in future.bodies] + [True] * (len(bodies) - len(future.bodies)))
    count = len(bodies)
    parts = stretches(bodies, targets(case.scene, hypothesis))
    states, present = future.states[k, :rows, :count], future.present[k, :rows, :count] & known
    return surface_distances(_WORLDS, parts, case.times[:rows], states, present, pairs)


def movable_pairs(clip: Clip) -> list[Pair]:
    """Columns i < j of movable things that exist at some time."""
    there = [m for m in range(len(clip.ids)) if not clip.is_static[m] and clip.present[:, m].any()]
    return list(itertools.combinations(there, 2))


def seen_touches(clip: Clip, distances: dict[Pair, Array]) -> tuple[Touching, ...]:
    """Touches of movable things read from where they are: surfaces meet between two states (straight in between).

    For backends that know no contacts.
    """
    found: list[Touching] = []
    for (i, j), gap in distances.items():
        inside = np.nan_to_num(gap, nan=np.inf) <= 0.0
        a, b = sorted((int(clip.ids[i]), int(clip.ids[j])))
        if inside[0]:
            found.append((0.0, a, b, True))
        for row in np.flatnonzero(inside[1:] != inside[:-1]) + 1:
            before, after = gap[row - 1], gap[row]
            part = before / (before - after) if np.isfinite(before) and np.isfinite(after) else 1.0
            when = float(clip.times[row - 1] + part * (clip.times[row] - clip.times[row - 1]))
            found.append((when, a, b, bool(inside[row])))
    return tuple(sorted(found))


def meetings(clip: Clip, distances: dict[Pair, Array]) -> list[Occurrence]:
    """Contacts and separations of movable things, by the rule of ``training.reasoner.events``.

    Two things are in contact from the instant when they touch until they have come apart by more than ``APART_M``; what
    was never that far apart before its first touch was in contact from the start. A separation is dated to the end of
    the last touch.

    Args:
        clip: with touches; distances: (T,) [m] of the surfaces of all pairs that touch, by columns.
    """
    found: list[Occurrence] = []
    end_s = float(clip.times[-1])
    for (i, j), distance in distances.items():
        who = (min(int(clip.ids[i]), int(clip.ids[j])), max(int(clip.ids[i]), int(clip.ids[j])))
        begins = [t for t, a, b, began in clip.touches if (a, b) == who and began]
        ends = [t for t, a, b, began in clip.touches if (a, b) == who and not began]
        apart = clip.times[np.nan_to_num(distance) > APART_M]
        touching = not begins or not (apart <= begins[0]).any()
        for begin, end, until in zip(begins, [*ends, end_s], [*begins[1:], end_s], strict=False):
            if not touching:
                found.append((int(EventKind.CONTACT), who, begin))
            touching = end >= end_s or not ((apart >= end) & (apart <= until)).any()
            if not touching:
                found.append((int(EventKind.SEPARATION), who, end))
    return found


def events_of(case: Case, future: Aligned, k: int, from_places: bool) -> list[Occurrence]:
    """Contacts, separations, falls, topples and departures, up to a little over a second.

    Args:
        from_places: read touches from where things are (for backends that report none).
    """
    clip = clip_of(case, future, k)
    last = row_at(case.times, EVENTS_UNTIL_S + 0.5) + 1
    clip = replace(clip, times=clip.times[:last], states=clip.states[:last], present=clip.present[:last])
    pairs = movable_pairs(clip)
    if from_places:
        distances = distances_of(case, future, k, pairs, last)
        clip = replace(clip, touches=seen_touches(clip, distances))
    else:
        clip = replace(clip, touches=tuple(t for t in clip.touches if t[0] <= float(clip.times[-1])))
        touching = {(a, b) for _, a, b, _ in clip.touches}
        met = [(i, j) for i, j in pairs if tuple(sorted((int(clip.ids[i]), int(clip.ids[j])))) in touching]
        distances = distances_of(case, future, k, met, last)
    removed = {do.object_id for do in case.hypotheses[k].interventions if do.kind == InterventionKind.REMOVE}
    found = meetings(clip, distances)
    found += [
        (int(e.kind), e.who, e.time)
        for e in true_events(clip)
        if e.kind in (EventKind.FALL, EventKind.TOPPLE, EventKind.LEAVE)
        and not (e.kind == EventKind.LEAVE and e.a in removed)
    ]
    # What is told to touch from the start, but was apart, touches in the first step; all else at the start was before.
    kept = [e for e in found if e[2] > 0.0 or e[0] == int(EventKind.CONTACT)]
    return sorted(kept, key=lambda e: (e[2], e[0], e[1]))


# -- what physics forbids


def penetrations(
    worlds: Worlds, scene: SceneGraph, hypothesis: Hypothesis, times: Array, states: Array, present: Mask
) -> Array:
    """(T, M) how deep [m] each thing is in others, by MuJoCo's collision of the known shapes.

    Pairs that overlap by more than 2.5 mm at the start, and pushers in what is static, are left out.
    """
    result = np.zeros(present.shape)
    kinematic = {m for m, i in targets(scene, hypothesis) if i.kind == InterventionKind.FOLLOW_PATH}
    skipped: set[tuple[int, int]] = set()
    for part, rows in rows_of(scene_stretches(scene, hypothesis), times):
        world, data = worlds.get(part.bodies)
        model = world.model
        index_of = np.full(model.nbody, -1)
        index_of[world.body_ids] = np.arange(len(part.bodies))
        for t in rows:
            put(world, data, states[t], present[t])
            mujoco.mj_comPos(model, data)
            mujoco.mj_collision(model, data)
            if not data.ncon:
                continue
            depth = -np.array(data.contact.dist)
            pairs = np.sort(index_of[model.geom_bodyid[np.array(data.contact.geom)]], axis=1)
            for c in np.flatnonzero(depth > _OVERLAP_AT_START_M):
                a, b = int(pairs[c, 0]), int(pairs[c, 1])
                if a < 0 or (a, b) in skipped:
                    continue
                if (a in kinematic and not world.movable[b]) or (b in kinematic and not world.movable[a]):
                    continue
                if t == 0:
                    skipped.add((a, b))
                    continue
                for i in (a, b):
                    if world.movable[i]:
                        result[t, i] = max(result[t, i], depth[c])
    return result


def created_energy(
    worlds: Worlds, scene: SceneGraph, hypothesis: Hypothesis, times: Array, states: Array, present: Mask
) -> float | None:
    """The largest rise [J] of the free bodies' energy beyond a tolerance, between interventions; None with a pusher.

    Tolerance: 5 % of the largest kinetic energy, and what lifts all that moves by 5 mm, and 0.1 mJ. Bodies that stay
    within a millimetre are left out. Backends carry interventions out at the nearest of their steps, so states within
    half of such a step of one are left out; what it gives may be in the spring of a contact for 30 ms.
    """
    if any(do.kind == InterventionKind.FOLLOW_PATH for do in hypothesis.interventions):
        return None
    edges = sorted({0.0, *(do.time_offset for do in hypothesis.interventions)})
    parts = scene_stretches(scene, hypothesis)
    worst = 0.0
    for n, begin in enumerate(edges):
        end = edges[n + 1] if n + 1 < len(edges) else np.inf
        since = begin + _STEP_OF_INTERVENTIONS_S if begin > 0.0 else -1e-9
        rows = np.flatnonzero((times >= since) & (times < end - _STEP_OF_INTERVENTIONS_S))
        if len(rows) < 2:
            continue
        bodies = [p for p in parts if p.from_s <= begin + 1e-9][-1].bodies
        world, _ = worlds.get(bodies)
        model = world.model
        there = np.asarray(present[rows].all(axis=0))
        free = [i for i in range(len(bodies)) if world.movable[i] and there[i]]
        kinetic, potential, moving = np.zeros(len(rows)), np.zeros(len(rows)), 0.0
        for i in free:
            body = world.body_ids[i]
            own = states[rows, i].astype(np.float64)
            # Heavy things that settle by a hair are left out.
            if np.linalg.norm(own[:, POSITION] - own[0, POSITION], axis=1).max() < 1e-3:
                continue
            rotation = quaternion_to_matrix(own[:, QUATERNION])
            arm = rotation @ model.body_ipos[body]
            velocity = own[:, LINEAR_VELOCITY] + np.cross(own[:, ANGULAR_VELOCITY], arm)
            axes = rotation @ quaternion_to_matrix(np.roll(model.body_iquat[body], -1))
            turn = np.einsum("tij,ti->tj", axes, own[:, ANGULAR_VELOCITY])
            mass = float(model.body_mass[body])
            kinetic += 0.5 * mass * (velocity**2).sum(axis=1) + 0.5 * (turn**2 @ model.body_inertia[body])
            potential += mass * GRAVITY_M_S2 * (own[:, 2] + arm[:, 2])
            moving += mass
        allowed = _ENERGY_OF_KINETIC * float(kinetic.max()) + _ENERGY_HEIGHT_M * GRAVITY_M_S2 * moving
        allowed += _ENERGY_NOISE_J
        energy = kinetic + potential
        energy[0] = energy[:2].max()
        worst = max(worst, energy_rise(energy) - allowed)
    return worst


# -- scores of a method


@dataclass
class Worst:
    """A future that was imagined badly."""

    error_m: float
    split: str
    seed: int
    question: int
    method: str
    kind: str


@dataclass
class Scores:
    """What a method made of worlds; adds up.

    Attributes:
        errors: sums by name: ``ade|all|1.0`` and the like; groups all, moved, contacts, and the kind of intervention.
        effect: hits, false alarms, misses; effect_others: of things not acted upon themselves.
        events: by kind hits, false alarms, misses.
        steps, deep_steps: states looked at, and those with anything deeper than 5 mm in something.
        energy_checked, energy_created: futures; through_table: things; questions, unasked: how many.
        seconds: spent in rollouts.
    """

    errors: Errors = field(default_factory=Errors)
    effect: NDArray[np.int64] = field(default_factory=lambda: np.zeros(3, np.int64))
    effect_others: NDArray[np.int64] = field(default_factory=lambda: np.zeros(3, np.int64))
    events: dict[int, NDArray[np.int64]] = field(default_factory=dict)
    steps: int = 0
    deep_steps: int = 0
    object_steps: int = 0
    deep_object_steps: int = 0
    energy_checked: int = 0
    energy_created: int = 0
    energy_worst_j: float = 0.0
    through_table: int = 0
    questions: int = 0
    unasked: int = 0
    seconds: float = 0.0
    worst: list[Worst] = field(default_factory=list)

    def merge(self, other: Scores) -> None:
        """Add another's."""
        self.errors.merge(other.errors)
        self.effect = self.effect + other.effect
        self.effect_others = self.effect_others + other.effect_others
        for kind, counts in other.events.items():
            self.events[kind] = self.events.get(kind, np.zeros(3, np.int64)) + counts
        for name in (
            *("steps", "deep_steps", "object_steps", "deep_object_steps", "energy_checked", "energy_created"),
            *("through_table", "questions", "unasked", "seconds"),
        ):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.energy_worst_j = max(self.energy_worst_j, other.energy_worst_j)
        self.worst = sorted([*self.worst, *other.worst], key=lambda w: -w.error_m)[: 4 * MEASURED_WORST]


def has_contact(case: Case, k: int, until_s: float = 1.0) -> bool:
    """Whether movable things begin to touch in the true future."""
    return any(e[0] == int(EventKind.CONTACT) and e[2] <= until_s for e in true_happenings(case)[k])


_HAPPENINGS: dict[tuple[str, int], list[list[Occurrence]]] = {}


def true_happenings(case: Case) -> list[list[Occurrence]]:
    """The true events of every future of a case."""
    key = (case.split, case.seed)
    if key not in _HAPPENINGS:
        truth = truth_of(case)
        _HAPPENINGS[key] = [events_of(case, truth, k, False) for k in range(len(case.hypotheses))]
    return _HAPPENINGS[key]


def score_positions(scores: Scores, case: Case, future: Aligned, method: str) -> None:
    """Displacement and rotation errors, and effects."""
    scored = compared(case)
    true, said = positions_of(case, truth_of(case)), positions_of(case, future)
    valid = case.present & future.present & scored[:, None] & future.asked[:, None, None]
    errors = np.where(valid, np.linalg.norm(true - said, axis=-1), np.nan)
    # How far from the true way, whatever the error at the start was.
    begin = (case.present & future.present).argmax(axis=1)[:, None, :, None]
    off = said - true
    way = np.where(valid, np.linalg.norm(off - np.take_along_axis(off, begin, axis=1), axis=-1), np.nan)
    contacts = np.array([has_contact(case, k) for k in range(len(case.hypotheses))])
    for horizon in HORIZONS_S:
        ade, fde = displacement(errors, case.times, horizon)
        going = moved(true, case.present, case.times, horizon)
        for name, values in (("ade", ade), ("fde", fde)):
            scores.errors.add(f"{name}|all|{horizon}", values)
            scores.errors.add(f"{name}|moved|{horizon}", values[going])
            scores.errors.add(f"{name}|contacts|{horizon}", values[contacts])
            scores.errors.add(f"{name}|contacts moved|{horizon}", values[contacts[:, None] & going])
            for k, kind in enumerate(case.kinds):
                scores.errors.add(f"{name}|{kind}|{horizon}", values[k])
        scores.errors.add(f"way|all|{horizon}", displacement(way, case.times, horizon)[1])
        scores.errors.add(f"way|moved|{horizon}", displacement(way, case.times, horizon)[1][going])
        last = row_at(case.times, horizon)
        turned = np.full(fde.shape, np.nan)
        for k, m in zip(*np.nonzero(np.isfinite(fde)), strict=True):
            solid, true_solid = future.solids[m], truth_of_solid(case, int(k), int(m))
            if solid is None or true_solid is None:
                continue
            angle = rotation_error_deg(
                future.states[k, last, m, QUATERNION],
                solid[1],
                case.states[k, last, m, QUATERNION].astype(np.float64),
                true_solid[1],
                true_solid[0],
                true_solid[2],
            )
            turned[k, m] = np.nan if angle is None else angle
        scores.errors.add(f"rotation|all|{horizon}", turned)
        scores.errors.add(f"rotation|moved|{horizon}", turned[going])
        if horizon == 1.0:
            for k in np.flatnonzero(future.asked):
                if np.isfinite(fde[k]).any():
                    worst = float(np.nanmax(fde[k]))
                    scores.worst.append(Worst(worst, case.split, case.seed, int(k), method, case.kinds[k]))
    scores.worst = sorted(scores.worst, key=lambda w: -w.error_m)[:MEASURED_WORST]
    last = row_at(case.times, EFFECT_AT_S)
    true_there = case.present & scored[:, None]
    affected, vector, both = effects(true, true_there, last)
    said_affected, said_vector, said_both = effects(said, valid, last)
    # What is compared exists in both futures, of the truth and of the imagination.
    there = (case.present & case.present[:1] & valid & valid[:1])[1:, : last + 1].any(axis=1)
    acted = np.zeros_like(there)
    for k, hypothesis in enumerate(case.hypotheses[1:]):
        for m, _ in targets(case.scene, hypothesis):
            acted[k, m] = True
    for counts, mask in ((scores.effect, there), (scores.effect_others, there & ~acted)):
        counts += np.array(
            [
                (affected & said_affected & mask).sum(),
                (~affected & said_affected & mask).sum(),
                (affected & ~said_affected & mask).sum(),
            ]
        )
    wrong = np.where(both & said_both, np.linalg.norm(vector - said_vector, axis=-1), np.nan)
    scores.errors.add("effect|all", wrong)
    scores.errors.add("effect|affected", wrong[affected])
    scores.errors.add("effect|others", wrong[~acted])


def truth_of_solid(case: Case, k: int, m: int) -> tuple[int, Array, Array] | None:
    """The true thing in column m of hypothesis k."""
    known = len(case.scene)
    if m < known:
        return int(case.scene.shapes[m]), case.scene.extents[m], case.scene.hulls[m]
    return solid_of(case.hypotheses[k : k + 1], m - known)


def score_events(scores: Scores, case: Case, future: Aligned, from_places: bool) -> None:
    """Events up to a second ahead, of things that were found."""
    known = {int(i) for m, i in enumerate(case.object_ids) if future.solids[m] is not None}
    for k in np.flatnonzero(future.asked):
        true = [e for e in true_happenings(case)[k] if set(e[1]) <= known]
        said = [e for e in events_of(case, future, int(k), from_places) if set(e[1]) <= known]
        for kind, counts in match_events(true, said, EVENTS_UNTIL_S).items():
            scores.events[kind] = scores.events.get(kind, np.zeros(3, np.int64)) + np.array(counts)


def score_physics(scores: Scores, worlds: Worlds, case: Case, start: Start, future: Aligned) -> None:
    """Penetration, falling through the table, energy from nothing."""
    raw = future.raw
    table = int(np.flatnonzero(start.scene.is_static)[0]) if start.scene.is_static.any() else None
    for k, hypothesis in enumerate(future.hypotheses[: raw.completed]):
        count = len(start.scene) + sum(i.creates_body for i in hypothesis.interventions)
        states, present = raw.states[k, 0, :, :count].astype(np.float64), raw.present[k, :, :count]
        depths = penetrations(worlds, start.scene, hypothesis, case.times, states, present)
        deep = depths > PENETRATION_M
        movable = np.array([not start.scene.is_static[m] if m < len(start.scene) else True for m in range(count)])
        scores.steps += len(case.times)
        scores.deep_steps += int(deep.any(axis=1).sum())
        scores.object_steps += int(present[:, movable].sum())
        scores.deep_object_steps += int(deep.sum())
        risen = created_energy(worlds, start.scene, hypothesis, case.times, states, present)
        if risen is not None:
            scores.energy_checked += 1
            scores.energy_created += int(risen > 0.0)
            scores.energy_worst_j = max(scores.energy_worst_j, risen)
        if table is not None:
            centre = start.scene.positions[table]
            rotation = quaternion_to_matrix(start.scene.quaternions[table])
            extents = start.scene.extents[table]
            through = crosses_table(states[..., POSITION], present, centre, rotation, extents)
            scores.through_table += int((through & movable).sum())


@dataclass
class Calibration:
    """How often the truth was in the 90 % region of the samples; counts add up."""

    counts: dict[str, NDArray[np.int64]] = field(default_factory=dict)

    def add(self, name: str, inside: Mask) -> None:
        """Count."""
        self.counts[name] = self.counts.get(name, np.zeros(2, np.int64)) + np.array([inside.sum(), inside.size])

    def merge(self, other: Calibration) -> None:
        """Add another's."""
        for name, counts in other.counts.items():
            self.counts[name] = self.counts.get(name, np.zeros(2, np.int64)) + counts

    def share(self, name: str) -> float | None:
        """0..1; None where nothing was counted."""
        inside, total = self.counts.get(name, (0, 0))
        return float(inside / total) if total else None


def calibrate(dynamics: Dynamics, case: Case, start: Start, samples: int) -> Calibration:
    """The first questions of a case from samples of the belief, up to 1 s."""
    found = Calibration()
    asked = [translated(h, case, start) if k < CALIBRATION_QUESTIONS else None for k, h in enumerate(case.hypotheses)]
    rows = [k for k, h in enumerate(asked) if h is not None]
    last = row_at(case.times, max(CALIBRATION_TIMES_S))
    scenes = sample_belief(start.scene, samples, case.seed)
    result = dynamics.rollout(scenes, [h for h in asked if h is not None], case.times[: last + 1])
    move_centres(result.states, centre_offsets(scenes, result.states[0, :, 0]))  # the first question: nothing is done
    scored = compared(case)
    true = positions_of(case, truth_of(case))
    going = moved(true, case.present, case.times, max(CALIBRATION_TIMES_S))
    said = held_once_gone(result.states[..., POSITION].astype(np.float64), case.table_top_m)  # (K, S, T, M, 3)
    known = len(case.scene)
    for place, k in enumerate(rows[: result.completed]):
        for m in np.flatnonzero(scored[k]):
            column = start.row_of.get(int(case.object_ids[m])) if m < known else len(start.scene) + m - known
            if column is None or column >= said.shape[3]:
                continue
            for when in CALIBRATION_TIMES_S:
                t = row_at(case.times, when)
                if not (case.present[k, t, m] and result.present[place, t, column]):
                    continue
                cloud, truth = said[place, :, t, column], true[k, t, m]
                inside, ranked = in_region(cloud, truth), in_rank(cloud, truth)
                for group in ("all", "moved" if going[k, m] else "rest"):
                    found.add(group, inside)
                    found.add(f"{group} by rank", ranked)
    return found


# -- from a prompt


def perceived_start(case: Case) -> Start | None:
    """From what perception makes of the world; None where nothing was found."""
    from benchmarks.imagining.perceived import perceive

    return perceive(case)


def starts_of(cases: Sequence[Case], from_: From) -> list[tuple[Case, Start]]:
    """Cases with what rollouts start from."""
    found = []
    for case in cases:
        start = true_start(case) if from_ == "true" else perceived_start(case)
        if start is not None:
            found.append((case, start))
    return found


def score(dynamics: Dynamics, case: Case, start: Start, method: str, worlds: Worlds | None = None) -> Scores:
    """Everything but calibration, of one case; ``worlds`` None: without penetration and energy."""
    scores = Scores()
    begin = time.perf_counter()
    future = imagine(dynamics, case, start)
    scores.seconds = time.perf_counter() - begin
    scores.questions, scores.unasked = len(case.hypotheses), int((~future.asked).sum())
    score_positions(scores, case, future, method)
    score_events(scores, case, future, method in ("straight", "still"))
    if worlds is not None:
        score_physics(scores, worlds, case, start, future)
    return scores


def by_horizon(scores: Scores, name: str, group: str = "all") -> dict[str, float | None]:
    """A mean error by horizon, as in the benchmark's document."""
    return {f"{h:.1f}": scores.errors.mean(f"{name}|{group}|{h}") for h in HORIZONS_S}


def evaluate(
    dynamics: Dynamics, split: Split, seeds: Sequence[int], from_: From = "true", physics: bool = False
) -> dict[str, Any]:
    """Measure a dynamics backend on worlds of a split, beside straight lines and nothing moves.

    Args:
        dynamics: anything with ``Dynamics.rollout`` (``make_dynamics("physics")``, a ``LearnedDynamics`` with weights
            of one's own, ...).
        split: ``seeds``, ``families`` (or ``train``); seeds: which worlds, for example ``world_seeds(split, 10)``;
            those that cannot be used (under three things, a pusher under way) are left out.
        from_: ``true`` (true scene graph without covariance) or ``perceived`` (perception on rendered images; slow at
            the first call of a world, then from the disk).
        physics: also measure penetration, things through the table, energy.

    Returns:
        ``{"method": name, "worlds": n, name: {...}, "straight": {...}, "still": {...}}``, each with ``ade_m``,
        ``fde_m``, ``ade_moved_m``, ``fde_moved_m``, ``ade_contacts_m``, ``fde_contacts_m``, ``rotation_deg`` (all
        ``{"0.5": .., "1.0": .., "2.0": ..}``), ``effect_f1``, ``effect_error_m``, ``events_f1``, ``ms_per_question``
        and more; means over objects and futures. ``fde_from_start_m`` leaves out the error of the start. ``moved``:
        things that the truth moves by more than 1 cm; ``contacts``: futures in which movable things come to touch.
    """
    pairs = starts_of(load_cases(split, seeds), from_)
    result: dict[str, Any] = {"method": dynamics.name, "worlds": len(pairs), "split": split, "from": from_}
    for method, backend in ((dynamics.name, dynamics), *((n, make_dynamics(n)) for n in ("straight", "still"))):
        total, worlds = Scores(), Worlds() if physics and backend is dynamics else None
        for case, start in pairs:
            total.merge(score(backend, case, start, method, worlds))
        result[method] = summary(total)
    return result


def event_f1(scores: Scores) -> float | None:
    """Over all kinds together."""
    total = sum(scores.events.values(), np.zeros(3, np.int64))
    return f1(*total.tolist())


def summary(scores: Scores) -> dict[str, Any]:
    """Plain numbers."""
    asked = scores.questions - scores.unasked
    result: dict[str, Any] = {}
    for name in ("ade", "fde"):
        for group in ("all", "moved", "contacts", "contacts moved"):
            key = f"{name}_m" if group == "all" else f"{name}_{group.replace(' ', '_')}_m"
            result[key] = by_horizon(scores, name, group)
    result |= {
        "fde_from_start_m": by_horizon(scores, "way"),
        "fde_from_start_moved_m": by_horizon(scores, "way", "moved"),
        "rotation_deg": by_horizon(scores, "rotation"),
        "rotation_moved_deg": by_horizon(scores, "rotation", "moved"),
        "effect_f1": f1(*scores.effect.tolist()),
        "effect_f1_others": f1(*scores.effect_others.tolist()),
        "effect_counts": scores.effect.tolist(),
        "effect_error_m": scores.errors.mean("effect|all"),
        "effect_error_affected_m": scores.errors.mean("effect|affected"),
        "effect_error_others_m": scores.errors.mean("effect|others"),
        "events_f1": event_f1(scores),
        "events": {EventKind(k).name: v.tolist() for k, v in sorted(scores.events.items())},
        "objects": scores.errors.count("fde|all|1.0"),
        "objects_moved": scores.errors.count("fde|moved|1.0"),
        "objects_contacts": scores.errors.count("fde|contacts|1.0"),
        "questions": scores.questions,
        "unasked": scores.unasked,
        "ms_per_question": 1e3 * scores.seconds / asked if asked else None,
    }
    if scores.steps:
        result |= {
            "penetration_fraction": scores.deep_steps / scores.steps,
            "penetration_fraction_of_object_steps": scores.deep_object_steps / max(scores.object_steps, 1),
            "through_table": scores.through_table,
            "energy_created": scores.energy_created,
            "energy_checked": scores.energy_checked,
            "energy_worst_j": scores.energy_worst_j,
        }
    return result
