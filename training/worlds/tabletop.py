"""Where things may stand on a table, and on each other."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull
from scipy.spatial.transform import Rotation

from training.worlds.outlines import inside, overlap
from wm_dynamics.mujoco.bodies import BodyDef, body_points, lowest_point, rest_state

Array = NDArray[np.float64]

_STACKED = 0.75
"""How likely a thing is put onto another one by ``Tabletop.stack``, where one can carry it."""
_LEAST_FOOT = 0.4
"""Smallest width of what carries, as a share of that of what it carries: a wider one hides it from above."""
_OVER = 0.3
"""Largest offset of what is carried, as a share of the narrower half width. It stays on what carries it."""


@dataclass(frozen=True)
class Thing:
    """A thing to be put down: its body, how it is held but for its turn about the vertical, and its use as a base.

    Attributes:
        lying: on its side; carries: another may stand on it.
    """

    body: BodyDef
    turn: Rotation
    lying: bool
    carries: bool


@dataclass(frozen=True)
class _Held:
    """A thing as it is held: quaternion (4,), outline from above (P, 2), lowest and highest point [m]."""

    quaternion: Array
    outline: Array
    low: float
    high: float


@dataclass(frozen=True)
class _Placed:
    """A thing on the table from above: outline (P, 2), center (2,) and top [m], whether it may carry another."""

    outline: Array
    center: Array
    top: float
    carries: bool


class Tabletop:
    """What stands on a table already.

    Args:
        area: (2,) half sizes of where things may stand, about the origin [m]; top: height of the table [m].
    """

    def __init__(self, area: Array, top: float) -> None:
        self.area, self.top = area, top
        self._placed: list[_Placed] = []

    def put(self, thing: Thing, rng: np.random.Generator) -> Array | None:
        """The state (13,) at a free place on the table, or in the middle of a wider thing. None: no room."""
        for attempt in range(25):
            held = _turned(thing, rng)
            carriers = self._carriers()
            if carriers and attempt < 3 and rng.uniform() < 0.25:
                base = carriers[int(rng.integers(len(carriers)))]
                shifted = held.outline + base.center
                others = [p for p in self._placed if p is not base]
                if inside(base.outline, shifted) and not any(overlap(p.outline, shifted) for p in others):
                    return self._stand(thing, held, base.center, base.top, base)
            else:
                center = rng.uniform(-self.area, self.area)
                if not any(overlap(p.outline, held.outline + center) for p in self._placed):
                    return self._stand(thing, held, center, self.top)
        return None

    def stack(self, thing: Thing, rng: np.random.Generator) -> Array | None:
        """As ``put``, but onto another thing more often than not: turned, shifted, wider than it or narrower."""
        for _ in range(6):
            carriers = self._carriers()
            if not carriers or thing.lying or rng.uniform() > _STACKED:
                break
            base = carriers[int(rng.integers(len(carriers)))]
            held = _turned(thing, rng)
            own, below = (0.5 * float(np.ptp(o, axis=0).min()) for o in (held.outline, base.outline))
            if below < _LEAST_FOOT * own:
                continue
            bearing = rng.uniform(-np.pi, np.pi)
            offset = _OVER * min(own, below) * float(rng.uniform()) * np.array([np.cos(bearing), np.sin(bearing)])
            center = base.center + offset
            higher = [p for p in self._placed if p is not base and p.top > base.top + 0.001]
            if not any(overlap(p.outline, held.outline + center) for p in higher):
                return self._stand(thing, held, center, base.top, base)
        return self.put(thing, rng)

    def _carriers(self) -> list[_Placed]:
        return [p for p in self._placed if p.carries]

    def _stand(self, thing: Thing, held: _Held, center: Array, level: float, base: _Placed | None = None) -> Array:
        """Put a thing at a center (2,) on a height [m]; what carries it carries nothing else. Returns its state."""
        self._placed = [replace(p, carries=False) if p is base else p for p in self._placed]
        z = level - held.low
        self._placed.append(_Placed(held.outline + center, center, z + held.high, thing.carries))
        return rest_state((center[0], center[1], z), held.quaternion)


def _turned(thing: Thing, rng: np.random.Generator) -> _Held:
    """A thing, turned about the vertical at random."""
    rotation = Rotation.from_euler("z", rng.uniform(-np.pi, np.pi)) * thing.turn
    points = rotation.apply(body_points(thing.body))
    outline = points[:, :2][ConvexHull(points[:, :2]).vertices]
    quaternion = rotation.as_quat()
    return _Held(quaternion, outline, lowest_point(thing.body, quaternion), float(points[:, 2].max()))
