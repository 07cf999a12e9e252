"""Events of imagined futures: contacts, falls, topples, leaving the workspace, coming to rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wm_core.constants import (
    IMAGINED_FALL_DROP_M,
    IMAGINED_FALL_SPEED_M_S,
    IMAGINED_REST_DURATION_S,
    IMAGINED_REST_SPEED_M_S,
    TOPPLE_ANGLE_RAD,
    WORKSPACE_MARGIN_M,
)
from wm_core.interventions import Hypothesis, InterventionKind
from wm_core.rollout import ANGULAR_VELOCITY, LINEAR_VELOCITY, POSITION, QUATERNION, RolloutEvent
from wm_core.rotations import quaternion_to_matrix, world_up
from wm_core.scene_graph import EventKind, SceneGraph, Shape
from wm_dynamics.base import Array, DynamicsResult, States
from wm_dynamics.mujoco.bodies import BodyDef, body_from_spec


def workspace_bounds(scene: SceneGraph) -> Array | None:
    """(2, 3) lower and upper corner [m] of the space over the scene's supports; None where it has none."""
    tops = np.flatnonzero(scene.is_static)
    if not len(tops):
        return None
    rotation = np.abs(quaternion_to_matrix(scene.quaternions[tops]))
    half = 0.5 * np.einsum("nij,nj->ni", rotation, scene.extents[tops])
    lower = (scene.positions[tops] - half).min(axis=0) - WORKSPACE_MARGIN_M
    upper = (scene.positions[tops] + half).max(axis=0) + WORKSPACE_MARGIN_M
    lower[2] = float((scene.positions[tops] + half)[:, 2].min()) - WORKSPACE_MARGIN_M
    upper[2] = np.inf
    return np.stack([lower, upper])


@dataclass(frozen=True)
class EventTable:
    """E events as arrays, in order of hypothesis, sample, time.

    Attributes:
        hypothesis, sample, kind, a, b: (E,) int64; ``a`` and ``b`` are object ids, ``b`` 0: none.
        time_s: (E,) [s].
    """

    hypothesis: NDArray[np.int64]
    sample: NDArray[np.int64]
    kind: NDArray[np.int64]
    a: NDArray[np.int64]
    b: NDArray[np.int64]
    time_s: Array

    def __len__(self) -> int:
        return len(self.hypothesis)

    def events(self) -> tuple[RolloutEvent, ...]:
        """The same, one by one."""
        columns = (self.hypothesis, self.sample, self.kind, self.a, self.b, self.time_s)
        rows = zip(*(c.tolist() for c in columns), strict=True)
        return tuple(RolloutEvent(k, s, EventKind(kind), a, b, time_s) for k, s, kind, a, b, time_s in rows)


def derive_events(
    scene: SceneGraph,
    hypotheses: Sequence[Hypothesis],
    times: ArrayLike,
    result: DynamicsResult,
    workspace: ArrayLike | None = None,
) -> tuple[RolloutEvent, ...]:
    """Events of imagined futures, in order of hypothesis, sample, time.

    CONTACT and SEPARATION from the contacts (those that hold at the start are none); of movable bodies that follow no
    path: FALL (the lowest point has dropped by 2 cm below its highest so far, at more than 0.3 m/s), TOPPLE (turned by
    more than 45 degrees from the orientation at the start, or in which it was placed; of cylinders and capsules the
    axis counts, spheres do not topple), LEAVE (the center leaves the workspace), STOP (at rest, below 0.03 m/s for the
    last 0.1 s or more, after having moved).

    Args:
        scene: the mean scene; hypotheses: K; times: (T,) [s].
        workspace: (2, 3) lower and upper corner [m]; None: over the supports, 5 cm wider
            (``workspace_bounds``).
    """
    return event_table(scene, hypotheses, times, result, workspace).events()


def event_table(
    scene: SceneGraph,
    hypotheses: Sequence[Hypothesis],
    times: ArrayLike,
    result: DynamicsResult,
    workspace: ArrayLike | None = None,
) -> EventTable:
    """As ``derive_events``, as arrays: counting events needs no object per event."""
    t = np.asarray(times, dtype=np.float64)
    bounds = workspace_bounds(scene) if workspace is None else np.asarray(workspace, dtype=np.float64)
    done, count = min(result.completed, len(hypotheses)), len(scene)
    row_of = {int(i): m for m, i in enumerate(scene.ids)}
    kinematic = np.zeros((done, len(result.object_ids)), dtype=bool)
    placed: dict[tuple[int, int], list[float]] = {}
    added: dict[tuple[int, object], tuple[BodyDef, list[int]]] = {}
    for k in range(done):
        free_slot = count
        for i in hypotheses[k].interventions:
            if i.creates_body:
                m, free_slot = free_slot, free_slot + 1
                if i.kind == InterventionKind.ADD and i.body is not None:
                    key = (m, (int(i.body.shape), np.asarray(i.body.extents).tobytes()))
                    if key not in added:
                        added[key] = (body_from_spec(i.body), [])
                    added[key][1].append(k)
            elif i.kind in (InterventionKind.FOLLOW_PATH, InterventionKind.SET_POSE):
                m = row_of[i.object_id]
            if i.kind == InterventionKind.FOLLOW_PATH:
                kinematic[k, m] = True
            elif i.kind == InterventionKind.SET_POSE:
                placed.setdefault((k, m), []).append(i.time_offset)
    outlines: list[tuple[int, Shape, Array, NDArray[np.int64]]] = [
        (int(m), *_outline(scene, int(m)), np.arange(done)) for m in np.flatnonzero(~scene.is_static)
    ]
    outlines += [
        (key[0], body.geoms[0].shape, body.geoms[0].extents, np.array(members))
        for key, (body, members) in added.items()
    ]
    found = [_contact_columns(result)]
    for m, shape, extents, members in outlines:
        members = members[result.present[members, :, m].any(axis=1) & ~kinematic[members, m]]
        if not len(members):
            continue
        exists = result.present[members, :, m]
        reference = np.repeat(np.argmax(exists, axis=1)[:, None], len(t), axis=1)
        for g, k in enumerate(members.tolist() if placed else ()):
            for at in sorted(placed.get((k, m), ())):
                reference[g, t >= at - 1e-9] = min(int(np.searchsorted(t, at - 1e-9)), len(t) - 1)
        g, s, kind, row = _motion_events(shape, extents, result.states[members, :, :, m], exists, reference, t, bounds)
        a = np.full(len(g), result.object_ids[m])
        found.append((members[g], s, kind, a, np.zeros_like(a), t[row]))
    columns = [np.concatenate(parts) for parts in zip(*found, strict=True)]
    hypothesis, sample, kinds, first, second, when = columns
    order = np.lexsort((second, first, kinds, when, sample, hypothesis))

    def whole(column: NDArray[Any]) -> NDArray[np.int64]:
        return column[order].astype(np.int64)

    return EventTable(whole(hypothesis), whole(sample), whole(kinds), whole(first), whole(second), when[order])


def _outline(scene: SceneGraph, index: int) -> tuple[Shape, Array]:
    """Shape and extents (3,) [m] of an object, of all its parts together; a sphere has one diameter."""
    shape, extents = Shape(int(scene.shapes[index])), np.asarray(scene.extents[index], dtype=np.float64)
    return shape, np.full(3, extents.mean()) if shape == Shape.SPHERE else extents


def _contact_columns(result: DynamicsResult) -> tuple[NDArray[Any], ...]:
    """Contacts that begin or end after the start, as columns of an ``EventTable``."""
    began, ended = int(EventKind.CONTACT), int(EventKind.SEPARATION)
    rows = [(c.hypothesis, c.sample, began if c.began else ended, c.a, c.b) for c in result.contacts if c.time_s > 0.0]
    numbers = np.array(rows, dtype=np.int64).reshape(-1, 5)
    return (*numbers.T, np.array([c.time_s for c in result.contacts if c.time_s > 0.0], dtype=np.float64))


def _motion_events(
    shape: Shape,
    extents: Array,
    states: States,
    exists: NDArray[np.bool_],
    reference: NDArray[np.int64],
    times: Array,
    bounds: Array | None,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """FALL, TOPPLE, LEAVE and STOP of one object in G futures.

    Args:
        shape, extents: of its outline; extents (3,) [m].
        states: (G, S, T, 13); exists: (G, T).
        reference: (G, T) row of the time from which on uprightness and height count.
        times: (T,) [s]; bounds: (2, 3) of the workspace [m], or None.

    Returns:
        Future 0..G-1, sample, kind and time row of each event, (E,) each.
    """
    count = states.shape[2]
    half = 0.5 * extents
    found: list[tuple[NDArray[np.int64], ...]] = []

    def first(kind: EventKind, happens: NDArray[np.bool_], g: NDArray[np.int64], s: NDArray[np.int64]) -> None:
        """Where something happens (n, T) in futures and samples (n,): the first time."""
        rows = np.flatnonzero(happens.any(axis=1))
        found.append((g[rows], s[rows], np.full(len(rows), int(kind)), np.argmax(happens[rows], axis=1)))

    if bounds is not None:
        position = states[..., POSITION]
        outside = ((position < bounds[0]) | (position > bounds[1])).any(axis=-1)  # (G, S, T)
        gs, ss = np.nonzero(outside.any(axis=2))
        out = outside[gs, ss]
        start = out[np.arange(len(gs)), np.argmax(exists, axis=1)[gs]]
        first(EventKind.LEAVE, exists[gs] & out & ~start[:, None], gs, ss)
    linear, angular = states[..., LINEAR_VELOCITY], states[..., ANGULAR_VELOCITY]
    speed = np.sqrt(np.einsum("gstj,gstj->gst", linear, linear))
    spin = np.sqrt(np.einsum("gstj,gstj->gst", angular, angular))
    gs, ss = np.nonzero(((speed > IMAGINED_REST_SPEED_M_S) | (spin > IMAGINED_REST_SPEED_M_S)).any(axis=2))
    if len(gs):
        own, there, since = states[gs, ss].astype(np.float64), exists[gs], reference[gs]  # (n, T, 13), (n, T), (n, T)
        up = world_up(own[..., QUATERNION])
        if shape == Shape.SPHERE:
            reach = np.full(up.shape[:2], half[0])
        elif shape in (Shape.CYLINDER, Shape.CAPSULE):
            reach = half[0] * np.sqrt(np.clip(1.0 - up[..., 2] ** 2, 0.0, 1.0)) + half[2] * np.abs(up[..., 2])
        else:
            reach = np.abs(up) @ half
        bottom = np.where(there, own[..., 2] - reach, -np.inf)
        highest = np.maximum.accumulate(bottom, axis=1)
        # Placing an object lower is no fall: the greatest height is reset there.
        for n in np.flatnonzero((since != since[:, :1]).any(axis=1)):
            for begin in np.unique(since[n]):
                rows = since[n] == begin
                highest[n, rows] = np.maximum.accumulate(bottom[n, rows])
        drops = (bottom < highest - IMAGINED_FALL_DROP_M) & (
            own[..., LINEAR_VELOCITY][..., 2] < -IMAGINED_FALL_SPEED_M_S
        )
        first(EventKind.FALL, there & drops, gs, ss)
        if shape in (Shape.CYLINDER, Shape.CAPSULE):
            upright = np.abs(up[..., 2]) > np.cos(TOPPLE_ANGLE_RAD)
            first(EventKind.TOPPLE, there & np.take_along_axis(upright, since, axis=1) & ~upright, gs, ss)
        elif shape != Shape.SPHERE:
            # World z of the vertical at the reference, carried along with the body: R(t) R(ref)^T z.
            tilt = np.einsum("ntj,ntj->nt", up, np.take_along_axis(up, since[..., None], axis=1))
            first(EventKind.TOPPLE, there & (tilt < np.cos(TOPPLE_ANGLE_RAD)), gs, ss)
        moving = (speed[gs, ss] > IMAGINED_REST_SPEED_M_S) | (spin[gs, ss] * half.max() > IMAGINED_REST_SPEED_M_S)
        stop = count - np.argmax(moving[:, ::-1], axis=1)  # the row after the last that moves
        rests = there[:, -1] & moving.any(axis=1) & ~moving[:, -1]
        rests[rests] = times[-1] - times[stop[rests]] >= IMAGINED_REST_DURATION_S - 1e-9
        found.append((gs[rests], ss[rests], np.full(int(rests.sum()), int(EventKind.STOP)), stop[rests]))
    if not found:
        empty = np.zeros(0, dtype=np.int64)
        return empty, empty, empty, empty
    future, sample, kind, row = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return future, sample, kind, row
