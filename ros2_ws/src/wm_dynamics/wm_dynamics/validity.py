"""Validity of imagined futures: finite, and within the speed and energy that the scene and the interventions allow.

A solver that diverges gives numbers, too, so the futures of every backend are checked here. The limits are wide (they
catch what is impossible, not what is inaccurate) and follow from the scene and the interventions:

* Energy. What moves now was in motion before, has fallen, or was given it. Kinetic energy is a square of a norm, so
  impulses add by the triangle inequality: sqrt(E) <= sqrt(E before) + sqrt(E of the impulse alone).
* Speed. A collision gives a light object at most twice the speed of the heavy object that strikes it, and one passed
  on by a third object at most three times.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from wm_core.constants import GRAVITY_M_S2
from wm_core.interventions import Hypothesis, Intervention, InterventionKind, Property
from wm_core.rollout import ANGULAR_VELOCITY, LINEAR_VELOCITY, POSITION
from wm_core.rotations import quaternion_to_matrix
from wm_core.scene_graph import SceneGraph
from wm_dynamics.base import States, targets

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]

FLOOR_BELOW_M = 1.0
"""Depth below the lowest object of the scene to which objects may fall [m]: backends put a floor 0.75 m below the
supports."""
# Limits above what a request may contain (50 m/s, 500 rad/s, poses of 1 km; ``wm_core.intervention_checks``), with room
# for small objects that are given large impulses. Larger ones accept more of what a diverging solver returns.
FASTEST_M_S = 1000.0
"""Largest linear speed [m/s]."""
FASTEST_RAD_S = 2000.0
"""Largest angular speed [rad/s]."""
FARTHEST_M = 4000.0
"""Largest distance [m] beyond the farthest object of the scene, as the origin of a map may be far away."""
BLOWS = 3.0
"""Factor on the largest speed that is given: that of a collision passed on by a third object, see above."""
SLACK_M_S = 2.0
"""Speed that overlapping objects may leave one another with [m/s]: backends bound theirs to 1 m/s."""
MOST_NAMED = 3
"""Objects that a reason names; of more, their number."""


@dataclass(frozen=True)
class Validity:
    """The validity of K futures.

    Attributes:
        valid: (K,) bool.
        reasons: K strings, why a future is not valid; empty where it is.
    """

    valid: Flags
    reasons: tuple[str, ...]


def check_futures(
    scenes: Sequence[SceneGraph],
    hypotheses: Sequence[Hypothesis],
    times: Array,
    states: States,
    object_ids: NDArray[np.int64],
    doubts: Sequence[str] = (),
    completed: int | None = None,
    joined: Sequence[Sequence[int]] = (),
) -> Validity:
    """Check futures.

    Args:
        scenes: S belief samples, the first the mean.
        hypotheses: K.
        times: (T,) [s]; states: (K, S, T, M, 13); object_ids: (M,).
        doubts: K reasons of the backend not to trust a future, empty strings where it does; empty: it trusts all.
        completed: futures that were computed, the first of the K; the others are not checked. None: all.
        joined: ids of the objects that were one body, for each such body (``Dynamics.joined``).
    """
    count, samples = states.shape[:2]
    completed = count if completed is None else completed
    reasons = list(doubts) if len(doubts) else [""] * count
    if states.shape[3] and completed:
        # What the scene alone allows every hypothesis allows, so few futures need limits of their own.
        bodies = _Bodies(scenes, states.shape[3], joined)
        usual = _limits(scenes, Hypothesis(""), bodies)
        suspects = np.flatnonzero(_may_be_beyond(usual, states[:completed]))
        suspects = suspects[_beyond([usual], states[suspects]).any(axis=1)]
        own = [_limits(scenes, hypotheses[k], bodies) for k in suspects.tolist()]
        beyond = _beyond(own, states[suspects]) if own else np.zeros((0, samples), dtype=bool)
        for k, limits, which_samples in zip(suspects.tolist(), own, beyond, strict=True):
            bad = np.flatnonzero(which_samples)
            if not len(bad):
                continue
            said = _described(limits, states[k, bad[0]], times, object_ids, scenes[0], int(bad[0]))
            which = f"{len(bad)} of {samples} samples: " if samples > 1 else ""
            reasons[k] = "; ".join(r for r in (reasons[k], which + said) if r)
    return Validity(np.array([not r for r in reasons], dtype=bool), tuple(reasons))


@dataclass(frozen=True)
class Limits:
    """What the scene and one hypothesis allow for M bodies in S samples.

    Attributes:
        mass: (S, M) least masses [kg] that objects have during the future; 0: static, or on a path.
        inertia: (S, M) a lower bound of their moments [kg m^2].
        height: (M,) from which each can fall [m].
        energy: (S,) most energy above that of rest at ``height`` [J].
        speed: most speed of anything that is free [m/s].
        reach: largest coordinate of anything [m].
    """

    mass: Array
    inertia: Array
    height: Array
    energy: Array
    speed: float
    reach: float


def limits_of(scenes: Sequence[SceneGraph], hypothesis: Hypothesis, slots: int) -> Limits:
    """The limits of a hypothesis; ``slots``: M, bodies of the scene and those that hypotheses create."""
    return _limits(scenes, hypothesis, _Bodies(scenes, slots))


def _limits(scenes: Sequence[SceneGraph], hypothesis: Hypothesis, scene_bodies: _Bodies) -> Limits:
    """As ``limits_of``, from the ranges that the scene alone gives."""
    bodies = scene_bodies.copy()
    actions = targets(scenes[0], hypothesis)
    for m, do in actions:
        bodies.apply(m, do)
    most = bodies.most * bodies.free
    mass = bodies.least * bodies.free
    size = np.sort(bodies.smallest, axis=1)
    # A ball of that diameter has a tenth of m d^2; nothing that fills its extents has less about any axis.
    inertia = mass * 0.05 * (size[:, 0] ** 2 + size[:, 1] ** 2)
    reach = 0.5 * np.sqrt((bodies.largest**2).sum(axis=1))
    drop = np.maximum(bodies.height - (bodies.lowest - FLOOR_BELOW_M), 0.0)
    total = most.sum(axis=1)
    linear = bodies.linear * bodies.free
    # A ball that was seen to move is set rolling, whether its spin was seen or not.
    spin = np.maximum(bodies.spin * bodies.free * reach, linear)
    root = np.sqrt(GRAVITY_M_S2 * most @ drop + 0.5 * (most * (linear**2 + spin**2)).sum(axis=1))
    speed = math.sqrt(2.0 * GRAVITY_M_S2 * float(drop[bodies.free].max(initial=0.0)))
    speed = max(speed, float((linear + spin).max(initial=0.0)))
    for m, do in actions:
        far = scene_bodies.spans[m] + float(reach[m])
        energy, faster = _given(do, most[:, bodies.one_with(m)].sum(axis=1), mass[:, m], inertia[:, m], total, far)
        root += np.sqrt(energy)
        speed += faster
    root += np.sqrt(0.5 * total) * SLACK_M_S
    for _, do in actions:
        if do.kind == InterventionKind.FOLLOW_PATH and len(do.path_positions):
            # What rests on an object whose path rises is lifted with it.
            root = np.sqrt(root**2 + total * GRAVITY_M_S2 * float(np.ptp(do.path_positions[:, 2])))
    reach_m = FARTHEST_M + float(np.abs(scenes[0].positions).max(initial=0.0))
    return Limits(mass, inertia, bodies.height, root**2, min(BLOWS * speed + SLACK_M_S, FASTEST_M_S), reach_m)


class _Bodies:
    """Ranges of the properties of M bodies during a future, as interventions change them.

    Attributes:
        least, most: (S, M) masses [kg].
        smallest, largest: (M, 3) extents [m].
        height: (M,) greatest heights that they are put to [m].
        free: (M,) bool, neither static nor on a path.
        lowest: bottom of the lowest [m].
        linear, spin: (S, M) speeds [m/s, rad/s] with which they begin.
        spans: (M,) largest size of the body of several objects that each is one of [m]; 0: it is one by itself.
    """

    def __init__(self, scenes: Sequence[SceneGraph], slots: int, joined: Sequence[Sequence[int]] = ()) -> None:
        mean, n = scenes[0], len(scenes[0])
        self.least = np.zeros((len(scenes), slots))
        self.least[:, :n] = np.clip(np.exp([scene.log_mass for scene in scenes]), 1e-6, 1e5)
        self.most = self.least.copy()
        self.smallest = np.zeros((slots, 3))
        self.smallest[:n] = mean.extents
        self.largest = self.smallest.copy()
        self.free = np.zeros(slots, dtype=bool)
        self.free[:n] = ~mean.is_static
        self.height = np.zeros(slots)
        self.lowest = 0.0
        if n:
            heights = np.stack([scene.positions[:, 2] for scene in scenes])
            self.height[:n] = heights.max(axis=0)
            upright = np.abs(quaternion_to_matrix(mean.quaternions)[:, 2])  # (N, 3), the vertical in their axes
            self.lowest = float((heights - 0.5 * (upright * mean.extents).sum(axis=1)).min())
        self._groups = [[mean.index(i) for i in ids] for ids in joined]
        self.spans = np.zeros(slots)
        for rows in self._groups:
            sizes = np.linalg.norm(mean.extents[rows], axis=1)
            self.spans[rows] = np.linalg.norm(np.ptp(mean.positions[rows], axis=0)) + sizes.max()
        self.linear, self.spin = np.zeros((2, len(scenes), slots))
        self.linear[:, :n] = [np.linalg.norm(scene.linear_velocities, axis=1) for scene in scenes]
        self.spin[:, :n] = [np.linalg.norm(scene.angular_velocities, axis=1) for scene in scenes]

    def copy(self) -> _Bodies:
        """One to change."""
        result = copy.copy(self)
        for name in ("least", "most", "smallest", "largest", "free", "height"):
            setattr(result, name, getattr(self, name).copy())
        return result

    def one_with(self, m: int) -> list[int]:
        """Body m, then those that are one body with it."""
        return [m] + [n for rows in self._groups if m in rows for n in rows if n != m]

    def apply(self, m: int, do: Intervention) -> None:
        """Widen the ranges of body m, and of what is one body with it, by an intervention."""
        if do.kind in (InterventionKind.SET_POSE, InterventionKind.FOLLOW_PATH):
            heights = do.path_positions[:, 2] if do.kind == InterventionKind.FOLLOW_PATH else do.position[2:3]
            for n in self.one_with(m)[1:]:
                self.height[n] = max(self.height[n], float(heights.max(initial=self.height[n])) + self.spans[m])
                # What follows a path with the body has no mass that falls, as that body has none.
                self.free[n] &= do.kind != InterventionKind.FOLLOW_PATH
        if do.creates_body and do.body is not None:
            self.smallest[m] = self.largest[m] = do.body.extents
            self.least[:, m] = self.most[:, m] = do.body.effective_mass
            self.free[m], self.height[m] = True, do.body.position[2]
        if do.kind == InterventionKind.SET_POSE:
            self.height[m] = max(self.height[m], do.position[2])
        elif do.kind == InterventionKind.FOLLOW_PATH:
            self.free[m] = False
            self.height[m] = max(self.height[m], do.path_positions[:, 2].max(initial=self.height[m]))
        elif do.kind == InterventionKind.SET_PROPERTY and do.property == Property.MASS:
            new = self.most[:, m] * do.value if do.value_is_factor else np.full(len(self.most), do.value)
            self.least[:, m] = np.minimum(self.least[:, m], new)
            self.most[:, m] = np.maximum(self.most[:, m], new)
        elif do.kind == InterventionKind.MORPH:
            volume = float(np.prod(do.scale))
            self.least[:, m] *= min(volume, 1.0)
            self.most[:, m] *= max(volume, 1.0)
            self.smallest[m] *= np.minimum(do.scale, 1.0)
            self.largest[m] *= np.maximum(do.scale, 1.0)
            self.height[m] += float(np.linalg.norm(self.largest[m]))
        self.lowest = min(self.lowest, float(self.height[m] - 0.5 * np.linalg.norm(self.largest[m])))


def _given(
    do: Intervention, most: Array, mass: Array, inertia: Array, total: Array, reach: float
) -> tuple[Array, float]:
    """Energy [J] (S,) that an intervention gives to a body at rest, and speed [m/s]; ``total``: mass of all (S,)."""
    if do.kind == InterventionKind.APPLY_IMPULSE and mass.min() > 0.0:
        size = math.hypot(*do.impulse.tolist())
        # The point is relative to the origin of the body; its center of mass may be off that by part of its size.
        (ax, ay, az), (bx, by, bz) = do.point.tolist(), do.impulse.tolist()
        turn = math.hypot(ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx) + 0.5 * reach * size
        inertia = np.maximum(inertia, 1e-12)
        return 0.5 * size**2 / mass + 0.5 * turn**2 / inertia, float((size / mass + turn / inertia * reach).max())
    if do.kind in (InterventionKind.ADD, InterventionKind.SET_VELOCITY):
        source = do.body if do.kind == InterventionKind.ADD and do.body is not None else do
        speed, spin = float(np.linalg.norm(source.linear_velocity)), float(np.linalg.norm(source.angular_velocity))
        return 0.5 * most * (speed**2 + (spin * reach) ** 2), speed + spin * reach
    if do.kind == InterventionKind.FOLLOW_PATH and len(do.path_times) > 1:
        steps, q = np.diff(do.path_times), do.path_quaternions
        speeds = np.linalg.norm(np.diff(do.path_positions, axis=0), axis=1)
        if len(q) == len(do.path_times):
            speeds = speeds + 2.0 * reach * np.arccos(np.clip(np.abs((q[1:] * q[:-1]).sum(axis=1)), 0.0, 1.0))
        speed = float((speeds / np.maximum(steps, 1e-6)).max())
        # It gives twice its speed to what it strikes, and may strike again what comes back.
        return 0.5 * total * (4.0 * speed) ** 2, 2.0 * speed
    return np.zeros_like(total), 0.0


def _may_be_beyond(limits: Limits, states: States) -> Flags:
    """(K,) futures that need a full check, by the largest values of each of their bodies at any time, in two passes.

    Few do: objects are hardly ever all at their fastest at once.
    """
    count, samples, steps, slots, size = states.shape
    rows = states.reshape(count, samples * steps, slots * size)
    with np.errstate(over="ignore", invalid="ignore"):
        low, high = (f(rows, axis=1).reshape(count, slots, size).astype(np.float64) for f in (np.min, np.max))
        most = np.maximum(-low, high)  # (K, M, 13)
        square = (most[..., LINEAR_VELOCITY] ** 2).sum(axis=-1)  # (K, M)
        turning = (most[..., ANGULAR_VELOCITY] ** 2).sum(axis=-1)
        mass, inertia = limits.mass.max(axis=0), limits.inertia.max(axis=0)
        lifted = np.maximum(high[..., 2] - limits.height, 0.0)
        energy = 0.5 * (square @ mass + turning @ inertia) + GRAVITY_M_S2 * lifted @ mass
        within = ((square <= limits.speed**2) | (mass == 0.0)).all(axis=1) & (energy <= limits.energy.min())
        within &= (turning <= FASTEST_RAD_S**2).all(axis=1)
        within &= (most[..., POSITION] <= limits.reach).all(axis=(1, 2)) & np.isfinite(most).all(axis=(1, 2))
    return np.asarray(~within)


def _beyond(limits: Sequence[Limits], states: States) -> Flags:
    """(K, S) futures of states (K, S, T, M, 13) that are not finite, or beyond their limits: K, or one for all."""
    mass = np.stack([own.mass for own in limits])  # (K, S, M)
    speed = np.array([own.speed for own in limits])[:, None, None]
    energies = np.stack([own.energy for own in limits])
    with np.errstate(over="ignore", invalid="ignore"):
        finite = np.isfinite(states.sum(axis=-1)).all(axis=(2, 3))
        linear, angular = states[..., LINEAR_VELOCITY], states[..., ANGULAR_VELOCITY]
        square = np.einsum("kstmi,kstmi->kstm", linear, linear)
        turning = np.einsum("kstmi,kstmi->kstm", angular, angular)
        # Static objects and those on paths may have any speed.
        fast = (square > np.where(mass > 0.0, speed**2, np.inf)[:, :, None].astype(np.float32)).any(axis=(2, 3))
        fast |= (turning > np.float32(FASTEST_RAD_S**2)).any(axis=(2, 3))
        # All hypotheses begin from one scene.
        fast |= (np.abs(states[..., POSITION]) > limits[0].reach).any(axis=(2, 3, 4))
        rich = (_energy(limits, states, square, turning) > energies[..., None]).any(axis=2)
    return ~finite | fast | rich


def _energy(limits: Sequence[Limits], states: States, square: States, turning: States) -> States:
    """(K, S, T) [J] above that of rest at ``limits.height``, at least; limits: K, or the same one for all."""
    mass, inertia = (
        np.stack(rows).astype(np.float32) for rows in zip(*((o.mass, o.inertia) for o in limits), strict=True)
    )
    above = states[..., 2] - np.stack([own.height for own in limits]).astype(np.float32)[:, None, None]
    # What lies lower than it began gives its energy to the others, but no lower than the floor.
    kinetic = np.einsum("kstm,ksm->kst", square, 0.5 * mass) + np.einsum("kstm,ksm->kst", turning, 0.5 * inertia)
    lifted = np.einsum("kstm,ksm->kst", np.maximum(above, 0.0), mass * np.float32(GRAVITY_M_S2))
    energy: States = kinetic + lifted
    return energy


def _described(
    limits: Limits, states: States, times: Array, ids: NDArray[np.int64], scene: SceneGraph, sample: int
) -> str:
    """What is wrong with a future's states (T, M, 13) first: which objects, when, what was found and expected."""

    def names(rows: NDArray[np.int64]) -> str:
        known = [
            f"{ids[m]} {scene.class_names[m]}" if m < len(scene) else f"{ids[m]}" for m in rows[:MOST_NAMED].tolist()
        ]
        return ", ".join(known) + (f" and {len(rows) - MOST_NAMED} more" if len(rows) > MOST_NAMED else "")

    with np.errstate(over="ignore", invalid="ignore"):
        finite: Flags = np.asarray(np.isfinite(states).all(axis=-1))  # (T, M)
        if not finite.all():
            t = int(np.argmin(np.asarray(finite.all(axis=1))))
            return f"not finite from {times[t]:.2f} s on: {names(np.flatnonzero(~finite[t]))}"
        wide = states.astype(np.float64)
        speed = np.linalg.norm(wide[..., LINEAR_VELOCITY], axis=-1)
        spin = np.linalg.norm(wide[..., ANGULAR_VELOCITY], axis=-1)
        reach = np.abs(wide[..., POSITION]).max(axis=-1)
        free = limits.mass[sample] > 0.0
        for values, limit, unit, rows in (
            (speed * free, limits.speed, "m/s", speed * free > limits.speed),
            (spin, FASTEST_RAD_S, "rad/s", spin > FASTEST_RAD_S),
            (reach, limits.reach, "m from the origin", reach > limits.reach),
        ):
            if rows.any():
                t = int(np.argmax(rows.any(axis=1)))
                return (
                    f"{names(np.flatnonzero(rows[t]))}: {values[t].max():.3g} {unit} after {times[t]:.2f} s, "
                    f"expected at most {limit:.3g}"
                )
        square, turning = speed.astype(np.float32)[None] ** 2, spin.astype(np.float32)[None] ** 2
        one = slice(sample, sample + 1)
        own = replace(limits, mass=limits.mass[one], inertia=limits.inertia[one], energy=limits.energy[one])
        energy = _energy([own], states[None, None], square[:, None], turning[:, None])[0, 0]
        t = int(np.argmax(energy > own.energy[0]))
        most = int(np.argmax(limits.mass[sample] * speed[t] ** 2))
        return (
            f"{energy[t]:.3g} J after {times[t]:.2f} s, most of it in {names(np.array([most]))}, "
            f"expected at most {own.energy[0]:.3g} J of what is there and what is given"
        )
