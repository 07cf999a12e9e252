"""Times at which each object was seen first and last, and at which one that falls past an edge has left."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from wm_core.constants import SEEN_FALL_SPEED_M_S
from wm_core.rotations import quaternion_to_matrix
from wm_core.scene_graph import SceneGraph
from wm_perception.reasoning.events import left_after

_SOON_S = 0.25
"""An object that will be beyond all supports so soon [s] falls over the edge. Chosen by hand; larger means that objects
which only come near an edge are taken to fall."""


@dataclass(frozen=True)
class Sighting:
    """The first and the last sight of an object.

    Attributes:
        first_ns, stamp_ns: stamps of the first and of the last sight [ns].
        falls_s: time after the last sight at which it has left, if it was falling past an edge; else 0 [s].
    """

    first_ns: int
    stamp_ns: int
    falls_s: float = 0.0

    @property
    def seen_for_s(self) -> float:
        """Time [s] between the first and the last sight."""
        return (self.stamp_ns - self.first_ns) * 1e-9

    @property
    def left_ns(self) -> int:
        """Stamp [ns] at which it has left."""
        return self.stamp_ns + round(self.falls_s * 1e9)


def update_sightings(scene: SceneGraph, before: Mapping[int, Sighting]) -> dict[int, Sighting]:
    """The last sight of all objects by id; how a hidden object fell is known from when it was seen last."""
    found: dict[int, Sighting] = {}
    supports = np.flatnonzero(scene.is_static)
    tops = scene.positions[supports, 2] + 0.5 * scene.extents[supports, 2]
    soon = scene.positions + _SOON_S * scene.linear_velocities
    held = np.zeros(len(scene), dtype=bool)
    for k in supports:
        local = (soon - scene.positions[k]) @ quaternion_to_matrix(scene.quaternions[k])
        held |= (np.abs(local[:, :2]) < 0.5 * scene.extents[k, :2]).all(axis=1)
    falling = ~held | (scene.linear_velocities[:, 2] < -SEEN_FALL_SPEED_M_S)
    for row, who in enumerate(scene.ids.tolist()):
        stamp = int(scene.last_seen_ns[row])
        known = before.get(who)
        if known is not None and known.stamp_ns == stamp:
            found[who] = known
            continue
        falls_s = 0.0
        if len(tops) and falling[row]:
            falls_s = left_after(float(scene.positions[row, 2] - tops.max()), float(scene.linear_velocities[row, 2]))
        found[who] = Sighting(int(scene.first_seen_ns[row]), stamp, falls_s)
    return found
