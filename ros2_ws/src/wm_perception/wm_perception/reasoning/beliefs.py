"""Beliefs about mass, friction and restitution: priors and the network's evidence, added as precisions.

The prior of mass is the scene's own, from class and parts, which the network does not see; those of friction and
restitution are the network's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wm_core.scene_graph import SceneGraph
from wm_perception.reasoning.evidence import log_mass_prior
from wm_perception.types import Array

_COLUMNS = ("log_mass", "log_mass_std", "friction", "friction_std", "restitution", "restitution_std")
_LEAST_STD = 1e-3
"""Least standard deviation of a prior's log mass: a scene may state masses exactly."""


@dataclass
class _Belief:
    """Sum of precisions (3,) and of means times precisions (3,) of all evidence; count of contacts."""

    weighted: Array = field(default_factory=lambda: np.zeros(3))
    precision: Array = field(default_factory=lambda: np.zeros(3))
    contacts: int = 0


class PropertyBeliefs:
    """Gaussian beliefs (log mass [kg], friction, restitution) of every object, by id.

    Args:
        scales: (3,) by which the network's standard deviations have to be widened (its calibration).
    """

    def __init__(self, scales: Sequence[float]) -> None:
        self.scales = np.asarray(scales, dtype=np.float64)
        self._beliefs: dict[int, _Belief] = {}
        self._priors: dict[int, Array] = {}

    def add_evidence(self, who: int, said: NDArray[np.float32]) -> None:
        """Add means and precisions (6,) from one contact or slide."""
        belief = self._beliefs.setdefault(who, _Belief())
        precision = said[3:].astype(np.float64)
        belief.weighted += precision * said[:3]
        belief.precision += precision

    def set_prior(self, who: int, prior: NDArray[np.float32]) -> None:
        """Means and precisions (6,) without evidence."""
        self._priors[who] = prior.astype(np.float64)

    def count_contact(self, who: int) -> None:
        """Another contact of an object was seen."""
        self._beliefs.setdefault(who, _Belief()).contacts += 1

    def contacts_of(self, who: int) -> int:
        """How many contacts of an object have been seen."""
        return self._beliefs.get(who, _Belief()).contacts

    def apply(self, scene: SceneGraph) -> SceneGraph:
        """The scene with beliefs of objects that have been seen long enough; the others keep their priors."""
        columns: dict[str, Any] = {name: np.array(getattr(scene, name)) for name in _COLUMNS}
        for row, who in enumerate(scene.ids.tolist()):
            prior = self._priors.get(who)
            if prior is None or scene.is_static[row]:
                continue
            belief = self._beliefs.get(who, _Belief())
            # The network's evidence of mass is relative to that by volume.
            by_volume = log_mass_prior(int(scene.shapes[row]), scene.extents[row])
            own = (prior[3:] / self.scales**2).copy()
            own[0] = 1.0 / max(float(scene.log_mass_std[row]), _LEAST_STD) ** 2
            known = prior[:3].copy()
            known[0] = scene.log_mass[row] - by_volume
            precision = own + belief.precision / self.scales**2
            mean = (known * own + belief.weighted / self.scales**2) / precision
            std = 1.0 / np.sqrt(precision)
            mean[0] += by_volume
            mean[1] = np.clip(mean[1], 0.02, 1.5)
            mean[2] = np.clip(mean[2], 0.0, 1.0)
            for n, name in enumerate(("log_mass", "friction", "restitution")):
                columns[name][row], columns[f"{name}_std"][row] = mean[n], std[n]
        return replace(scene, **columns)
