"""Features of contacts, slides and shapes, from which the network estimates mass, friction and restitution."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wm_core.constants import GRAVITY_M_S2
from wm_core.scene_graph import Shape, shape_volume
from wm_perception.reasoning.features import CONTACT_LAG, MOVING_M_S, SHAPE_ORDER, STEP_LAG, STEP_S
from wm_perception.reasoning.history import MotionHistory
from wm_perception.types import Array

_ROUND = (Shape.SPHERE, Shape.CYLINDER, Shape.CAPSULE)


def log_mass_prior(shape: int, extents: Array) -> float:
    """Logarithm of the mass [kg] by volume alone, at 400 kg/m^3: the prior density of household objects (wm_core)."""
    return float(np.log(max(shape_volume(shape, extents), 1e-7) * 400.0))


def shape_row(shape: int, extents: Array) -> NDArray[np.float32]:
    """``SHAPE_FEATURES`` of an object."""
    sizes = np.sort(np.asarray(extents, dtype=np.float64))[::-1]
    kinds = [float(shape == s) for s in SHAPE_ORDER]
    return np.array([*np.log(sizes / 0.08), 0.5 * (log_mass_prior(shape, extents) + 1.5), *kinds], dtype=np.float32)


def contact_row(history: MotionHistory, own: int, other: int, step: int) -> NDArray[np.float32] | None:
    """``CONTACT_FEATURES`` of a contact within a grid step, for one of the two objects; None: one is no longer known.

    The ratio of the changes of velocity along the contact normal is the inverse ratio of the masses; the speeds after
    and before give restitution.
    """
    if own not in history.slot or other not in history.slot:
        return None
    s, t = history.slot[own], history.slot[other]
    rows = history.rows_about(step, 2, CONTACT_LAG)
    n = history.normal[rows[2], s, t]
    if not n.any():
        n = history.position[rows[2], t] - history.position[rows[2], s]
        n = n / max(float(np.linalg.norm(n)), 1e-6)
    v, u = history.velocity[rows, s], history.velocity[rows, t]
    a, b = v @ n, u @ n
    # Step 2 holds the contact: before it steps 0 and 1, after it 3 to 5.
    dv, du = v[3] - v[1], u[3] - u[1]
    own_kick, other_kick = float(np.linalg.norm(dv)), float(np.linalg.norm(du))
    closing = a[1] - b[1]
    log_kicks = float(np.log((abs(b[3] - b[1]) + 0.03) / (abs(a[3] - a[1]) + 0.03)))
    # Friction slows both down within a step: speeds are extrapolated to the instant of the contact.
    a_before, b_before = (x[1] + 0.75 * float(np.clip(min(x[1] - x[0], 0.0), -0.4, 0.0)) for x in (a, b))
    a_after, b_after = (x[3] + float(np.clip(x[3] - x[4], -0.5, 0.5)) for x in (a, b))
    log_kicks_then = float(np.log((abs(b_after - b_before) + 0.05) / (abs(a_after - a_before) + 0.05)))
    way_own, way_other = (float((history.position[rows[-1], w] - history.position[rows[1], w]) @ n) for w in (s, t))
    shape_own, shape_other = history.shape[own], history.shape[other]
    prior = log_mass_prior(*shape_other) - log_mass_prior(*shape_own)
    row = [
        0.5 * (log_kicks + prior),
        log_kicks,
        0.5 * prior,
        float(np.clip((b[3] - a[3]) / max(closing, 0.1), -1.0, 1.5)),
        closing,
        own_kick,
        other_kick,
        a[1],
        b[1],
        a[3],
        b[3],
        a[4],
        b[4],
        float(np.linalg.norm(v[1] - a[1] * n)),
        float(np.linalg.norm(u[1] - b[1] * n)),
        np.log(shape_own[1].max() / 0.1),
        np.log(shape_other[1].max() / 0.1),
        float(shape_own[0] in _ROUND),
        float(shape_other[0] in _ROUND),
        abs(n[2]),
        history.seen[rows, s].min() * history.seen[rows, t].min(),
        10.0 * min(history.gap[rows[2], s, t], 0.2),
        0.5 * (log_kicks_then + prior),
        log_kicks_then,
        float(np.clip((b_after - a_after) / max(a_before - b_before, 0.1), -1.0, 1.5)),
        5.0 * way_own,
        5.0 * way_other,
        0.5 * float(np.log((abs(way_other) + 0.004) / (abs(way_own) + 0.004))),
    ]
    return np.clip(row, -4.0, 4.0).astype(np.float32)


def step_row(history: MotionHistory, who: int, step: int) -> NDArray[np.float32] | None:
    """``STEP_FEATURES`` of an object in motion about a step, ``STEP_LAG`` steps later; None: it moves too little.

    An object that slides to rest from speed v over a distance d has friction v^2 / 2 g d.
    """
    s = history.slot.get(who)
    if s is None or step - 1 <= history._born[s] or step + STEP_LAG >= history.count:
        return None
    rows = history.rows_about(step, 1, STEP_LAG)
    if not history.here[rows[:4], s].all():
        return None
    v = history.velocity[rows, s]
    speeds = np.hypot(v[:, 0], v[:, 1])
    if speeds[1] < MOVING_M_S or speeds[2] < 0.2 * MOVING_M_S:
        return None
    along = v[1, :2] / speeds[1]
    change = (v[2, :2] - v[1, :2]) / STEP_S
    shape, extents = history.shape[who]
    gaps = np.where(history.here[rows], history.gap[rows, s], np.inf).min(axis=1)
    slow = np.flatnonzero((speeds[2:] < 0.04) | ~history.here[rows[2:], s])
    end = int(slow[0]) + 2 if len(slow) else len(rows) - 1
    rests = bool(len(slow)) and bool(history.here[rows[end], s])
    # From the middle of the step on.
    way = STEP_S * (0.5 * speeds[1] + float(speeds[2 : end + 1].sum()))
    spent = STEP_S * max(end - 1, 1)
    row = [
        -float(change @ along) / GRAVITY_M_S2,
        *speeds[:4],
        float(abs(change[0] * along[1] - change[1] * along[0])) / GRAVITY_M_S2,
        10.0 * min(float(gaps[:4].min()), 0.2),
        0.2 * history.turning[rows[:4], s].max(),
        float(shape in _ROUND),
        2.0 * v[0, 2],
        2.0 * v[1, 2],
        2.0 * v[2, 2],
        20.0 * history.clearance[rows[1], s],
        float(history.seen[rows, s].min()),
        np.log(extents.max() / 0.1),
        float(np.linalg.norm(history.kick[rows[1], s])),
        float(v[2, :2] @ along) / max(float(speeds[2]), 1e-3),
        float(speeds[1] ** 2) / (2.0 * GRAVITY_M_S2 * max(way, 1e-3)) if rests else 0.0,
        float(rests),
        float(speeds[1] - speeds[end]) / (GRAVITY_M_S2 * spent),
        0.2 * end,
        4.0 * float(np.diff(speeds[1 : end + 1]).max(initial=0.0)),
        0.2 * float(history.turning[rows[1 : end + 1], s].max()),
        10.0 * min(float(gaps[: end + 1].min()), 0.2),
    ]
    return np.clip(row, -4.0, 4.0).astype(np.float32)
