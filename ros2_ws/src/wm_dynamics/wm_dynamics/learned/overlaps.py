"""Overlaps that the sweeps leave, in NumPy: for the futures of ONNX Runtime.

The same compiled: ``wm_dynamics.contact_step.overlaps_kernel``; ``wm_dynamics.contact_step.overlaps`` has the rules.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from wm_dynamics.contact_step.array_step import Hulls, geometry
from wm_dynamics.contact_step.body_tables import ROWS, STEP_S
from wm_dynamics.contact_step.overlaps import DEEP_M, NEAR_M, Touching, closing, separate
from wm_dynamics.contact_step.rollout_tables import Flags, Floats, Integers
from wm_dynamics.learned.broad_phase import Participants


def part_overlaps(
    feeds: dict[str, NDArray[Any]],
    active: Participants,
    rows: Integers,
    bounds: Floats,
    gaps: tuple[Floats, Floats],
    after: tuple[Floats, Floats, Floats, Floats],
) -> None:
    """Change the states after the step of futures that have deep contacts.

    Args:
        feeds: what the network was given. rows: (B,) futures of the bodies. bounds: (B,) their bounding radii [m].
        gaps: (B,) and (P,) smallest gaps before the step [m], slack not counted.
        after: position (3, B), quaternion (4, B), linear and angular velocity (3, B); changed.
    """
    chosen = _fast_and_near(feeds, active, rows, bounds, gaps, after)
    for row in np.flatnonzero(chosen):
        _separate_future(feeds, active, np.flatnonzero(rows == row), np.flatnonzero(active.pair_row == row), after)


def _fast_and_near(
    feeds: dict[str, NDArray[Any]],
    active: Participants,
    rows: Integers,
    bounds: Floats,
    gaps: tuple[Floats, Floats],
    after: tuple[Floats, Floats, Floats, Floats],
) -> Flags:
    """(R,) futures in which something is fast enough that it may be deep after the step."""
    way = STEP_S * (np.linalg.norm(after[2], axis=0) + bounds * np.linalg.norm(after[3], axis=0))
    found: Flags = np.zeros(int(rows.max()) + 1, dtype=bool)
    found[rows[gaps[0] + feeds["plane_slack"] - way < -DEEP_M]] = True
    a, b = active.pair_a, active.pair_b
    found[active.pair_row[gaps[1] + feeds["pair_slack"] - way[a] - way[b] < -DEEP_M]] = True
    return found


def _separate_future(
    feeds: dict[str, NDArray[Any]],
    active: Participants,
    own: Integers,
    own_pairs: Integers,
    after: tuple[Floats, Floats, Floats, Floats],
) -> None:
    """Of bodies ``own`` and pairs ``own_pairs`` of one future."""
    number = np.searchsorted(own, np.stack([active.pair_a, active.pair_b])[:, own_pairs])
    hull = np.zeros(len(active.columns), dtype=np.int64)
    hull[feeds["hull_row"]] = 1 + np.arange(len(feeds["hull_row"]))
    mine = np.isin(feeds["hull_row"], own)
    order = np.zeros(len(own), dtype=np.int64)
    order[np.searchsorted(own, feeds["hull_row"][mine])] = 1 + np.arange(int(mine.sum()))
    hulls = Hulls(np.searchsorted(own, feeds["hull_row"][mine]), order, feeds["hull_points"][..., mine])
    state = [feeds[name][:, own] for name in ("position", "quaternion", "linear", "angular")]
    body, pair = geometry(state, feeds["parameters"][:, own], feeds["plane"][:, own], number[0], number[1], hulls)
    inverse_mass = feeds["parameters"][ROWS["inverse_mass"], own][0]
    count = len(own)
    ground_gap = body.gap + feeds["plane_slack"][own]  # (4, B)
    pair_gap = pair.gap + feeds["pair_slack"][own_pairs]  # (4, P)
    of_pair = np.flatnonzero((pair_gap < NEAR_M).any(axis=0))
    of_body = np.flatnonzero(inverse_mass > 0.0)
    up = np.zeros((3, 4, len(of_body)), dtype=np.float32)
    up[2] = 1.0

    def listed(pairs: Any, bodies: Any) -> NDArray[Any]:
        """Of pairs (..., 4, P) and of bodies (..., 4, B) one row for each contact, those of a pair together."""
        both = [np.moveaxis(v, (-1, -2), (0, 1)).reshape(4 * v.shape[-1], *v.shape[:-2]) for v in (pairs, bodies)]
        return np.ascontiguousarray(np.concatenate(both))

    def each(values: NDArray[Any]) -> NDArray[Any]:
        return np.broadcast_to(values, (4, len(values)))

    normal = np.broadcast_to(pair.normal, pair.arm_a.shape)
    touching = Touching(
        listed(each(number[0][of_pair]), each(np.full(len(of_body), -1))),
        listed(each(number[1][of_pair]), each(of_body)),
        listed(normal[..., of_pair], up),
        listed(pair.arm_a[..., of_pair], 0.0 * up),
        listed(pair.arm_b[..., of_pair], body.arm[..., of_body]),
        listed(pair_gap[:, of_pair], ground_gap[:, of_body]),
        np.zeros(4 * (len(of_pair) + len(of_body)), dtype=np.float32),
    )
    twist = np.concatenate([after[2][:, own], after[3][:, own]]).T.copy()
    gap = np.array([g + STEP_S * closing(c, touching, twist) for c, g in enumerate(touching.gap)])
    a = touching.a
    moves = (inverse_mass[touching.b] > 0.0) | ((a >= 0) & (inverse_mass[a] > 0.0))
    if not (gap[moves] < -DEEP_M).any():
        return
    near = gap <= NEAR_M
    touching = Touching(*(np.ascontiguousarray(v[near]) for v in touching))
    inverse = np.ascontiguousarray(body.inverse[:, :, 0].reshape(9, count).T) * (inverse_mass > 0.0)[:, None]
    shift = np.zeros((count, 6), dtype=np.float32)
    before = twist.copy()
    separate(len(touching.gap), touching, inverse_mass, inverse, twist, shift)
    shift += np.float32(STEP_S) * (twist - before)
    free = np.flatnonzero(inverse_mass > 0.0)
    columns = own[free]
    position, quaternion, linear, angular = after
    position[:, columns] += shift[free, :3].T
    turned = Rotation.from_rotvec(shift[free, 3:]) * Rotation.from_quat(quaternion[:, columns].T)
    quaternion[:, columns] = turned.as_quat().T
    linear[:, columns], angular[:, columns] = twist[free, :3].T, twist[free, 3:].T
