"""Smallest distances between objects of imagined futures."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import mujoco
import numpy as np
from numpy.typing import ArrayLike, NDArray

from wm_core.interventions import Hypothesis, InterventionKind
from wm_core.rotations import quaternion_to_matrix
from wm_core.scene_graph import SceneGraph
from wm_dynamics.base import Array, DynamicsResult, States, targets
from wm_dynamics.belief import hypothesis_bodies, scene_body
from wm_dynamics.mujoco.bodies import scaled_body
from wm_dynamics.mujoco.world import World


def surface_separation(
    scene: SceneGraph,
    hypotheses: Sequence[Hypothesis],
    times: ArrayLike,
    result: DynamicsResult,
    pairs: Sequence[tuple[int, int]],
) -> NDArray[np.float32]:
    """Smallest surface distance of pairs over all times.

    Args:
        scene: the mean scene that the rollouts started from (its shapes count; morphs are followed).
        hypotheses: K, as rolled out; times: (T,) [s].
        pairs: P pairs of ids out of ``result.object_ids``.

    Returns:
        (K, S, P) [m], negative by the depth of penetration; NaN where the two are never there together, or
        the hypothesis was not done. Distances are exact between the bodies' shapes (MuJoCo
        ``mj_geomDistance``) at the times given; touches between two of those times are in
        ``result.contacts``.

    Raises:
        ValueError: an id that is not in the result.
    """
    t = np.asarray(times, dtype=np.float64)
    column = {int(i): m for m, i in enumerate(result.object_ids)}
    for a, b in pairs:
        if a not in column or b not in column:
            raise ValueError(f"pairs: got ({a}, {b}), expected ids out of {sorted(column)}")
    samples = result.states.shape[1]
    separation = np.full((len(hypotheses), samples, len(pairs)), np.nan, dtype=np.float32)
    base = [scene_body(scene, i) for i in range(len(scene))]
    # Hypotheses whose bodies have the same shapes at the same times are evaluated together.
    groups: dict[object, list[int]] = {}
    for k in range(min(result.completed, len(hypotheses))):
        groups.setdefault(_shape_changes(hypotheses[k]), []).append(k)
    worlds: dict[object, tuple[World, mujoco.MjData]] = {}
    for members in groups.values():
        hypothesis, rows_k = hypotheses[members[0]], np.array(members)
        bodies = list(hypothesis_bodies(scene, hypothesis, base))
        morphs = sorted(
            ((i.time_offset, m, i) for m, i in targets(scene, hypothesis) if i.kind == InterventionKind.MORPH),
            key=lambda item: item[0],
        )
        edges = [0.0, *(m[0] for m in morphs), np.inf]
        for part in range(len(edges) - 1):
            if part:
                _, index, do = morphs[part - 1]
                bodies[index] = scaled_body(bodies[index], do.scale)
            rows = np.flatnonzero((t >= edges[part] - 1e-9) & (t < edges[part + 1] - 1e-9))
            if not len(rows):
                continue
            key = tuple(b.shape_key() for b in bodies)
            if key not in worlds:
                world = World(bodies, None, 0.004, touch_sensors=False)
                worlds[key] = (world, mujoco.MjData(world.model))
            world, data = worlds[key]
            for p, (a, b) in enumerate(pairs):
                ma, mb = column[a], column[b]
                if ma >= len(bodies) or mb >= len(bodies):
                    continue
                together = result.present[rows_k][:, rows, ma] & result.present[rows_k][:, rows, mb]  # (G, R)
                at = np.ix_(rows_k, np.arange(samples), rows)
                found = _least_distances(
                    world, data, ma, mb, result.states[..., ma, :][at], result.states[..., mb, :][at], together
                )
                separation[rows_k, :, p] = np.fmin(separation[rows_k, :, p], found)
    return separation


def _shape_changes(hypothesis: Hypothesis) -> tuple[object, ...]:
    """Equal for hypotheses that bring in the same shapes, and scale the same objects at the same times."""
    changes: list[object] = []
    for i in hypothesis.interventions:
        if i.creates_body and i.body is not None:
            changes.append((int(i.body.shape), np.asarray(i.body.extents).tobytes()))
        elif i.kind == InterventionKind.MORPH:
            changes.append((i.object_id, i.time_offset, np.asarray(i.scale).tobytes()))
    return tuple(changes)


def _least_distances(
    world: World, data: mujoco.MjData, a: int, b: int, states_a: States, states_b: States, together: NDArray[np.bool_]
) -> Array:
    """Smallest distances (G, S) [m] of two bodies over states (G, S, R, 13), where ``together`` (G, R); else NaN."""
    shape = states_a.shape[:2]
    model = world.model
    best = np.full(states_a.shape[0] * states_a.shape[1], np.inf)
    g, s, r = np.nonzero(np.broadcast_to(together[:, None], states_a.shape[:3]))
    poses = np.concatenate([states_a[g, s, r, :7], states_b[g, s, r, :7]], axis=1)
    owner = g * shape[1] + s
    # What stands still relative to the time before is as far away as then.
    fresh = np.ones(len(owner), dtype=bool)
    fresh[1:] = (owner[1:] != owner[:-1]) | (poses[1:] != poses[:-1]).any(axis=1)
    poses, owner = poses[fresh], owner[fresh]
    for ga, gb in itertools.product(world.geom_ids[a], world.geom_ids[b]):
        pa, pb = _geom_centers(model, ga, poses[:, :7]), _geom_centers(model, gb, poses[:, 7:])
        # Distance between the bounding spheres.
        bound = np.linalg.norm(pa - pb, axis=1) - model.geom_rbound[ga] - model.geom_rbound[gb]
        order = np.lexsort((bound, owner))
        nearest = np.ones(len(order), dtype=bool)
        nearest[1:] = owner[order[1:]] != owner[order[:-1]]
        xpos_a, xpos_b = data.geom_xpos[ga], data.geom_xpos[gb]
        xmat_a, xmat_b = data.geom_xmat[ga], data.geom_xmat[gb]
        # First the most promising state of each, then those that may still be nearer.
        for rows in (order[nearest], order[~nearest]):
            rows = rows[bound[rows] < best[owner[rows]]]
            ra, rb = _geom_rotations(model, ga, poses[rows, 3:7]), _geom_rotations(model, gb, poses[rows, 10:14])
            for n, (row, who, low) in enumerate(
                zip(rows.tolist(), owner[rows].tolist(), bound[rows].tolist(), strict=True)
            ):
                if low < best[who]:
                    xpos_a[:], xpos_b[:], xmat_a[:], xmat_b[:] = pa[row], pb[row], ra[n], rb[n]
                    distance = mujoco.mj_geomDistance(model, data, ga, gb, 1e3, None)
                    best[who] = min(best[who], distance)
    return np.where(np.isinf(best), np.nan, best).reshape(shape)


def _geom_centers(model: mujoco.MjModel, geom: int, poses: States) -> Array:
    """(n, 3) centers [m] of a geom of a body at poses (n, 7)."""
    local = model.geom_pos[geom]
    position = poses[:, :3].astype(np.float64)
    return position + quaternion_to_matrix(poses[:, 3:]) @ local if local.any() else position


def _geom_rotations(model: mujoco.MjModel, geom: int, quaternions: States) -> Array:
    """(n, 9) rotation matrices of a geom of a body at quaternions (n, 4)."""
    local = quaternion_to_matrix(np.roll(model.geom_quat[geom], -1))
    return (quaternion_to_matrix(quaternions) @ local).reshape(-1, 9)
