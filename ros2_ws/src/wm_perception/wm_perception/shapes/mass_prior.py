"""What an object weighs, before anything was seen to push it: from its class, its outline and its parts.

A class tells how much of an outline is filled, and of what: a mug is mostly air. Of an object of no known class the
parts tell hollow from solid. The spread is that of the materials within a class, between the classes that an object may
be of, and of perceived sizes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import ConvexHull, QhullError

from wm_core.convex_parts import ConvexPart
from wm_core.part_solids import solid_of
from wm_core.scene_graph import SceneGraph, Shape, shape_volume

UNKNOWN = "object"
"""The class of what is of no class."""


@dataclass(frozen=True)
class LogDensity:
    """Mean and standard deviation of the natural logarithm of mass over volume [kg/m^3]."""

    mean: float
    std: float


OUTLINE_DENSITIES: dict[str, LogDensity] = {
    "box": LogDensity(6.03, 0.64),
    "ball": LogDensity(6.01, 0.74),
    "can": LogDensity(6.06, 0.70),
    "cylinder": LogDensity(6.06, 0.70),
    "capsule": LogDensity(6.12, 0.67),
    "mug": LogDensity(5.29, 0.67),
    "bowl": LogDensity(5.08, 0.68),
    "plate": LogDensity(5.54, 0.65),
    "bottle": LogDensity(6.32, 0.67),
    "tool": LogDensity(6.02, 0.96),
    "cup": LogDensity(5.09, 0.59),
    "pan": LogDensity(5.05, 0.58),
    "basket": LogDensity(4.61, 0.69),
    "tray": LogDensity(4.16, 0.72),
    UNKNOWN: LogDensity(5.84, 0.85),
}
"""Of mass over the volume of the outline, by class: ``python -m training.worlds.masses --worlds 300`` prints them
("cylinder" is the name of a can where nothing classifies). They are the even mixture of what objects of the training
worlds weigh and of the published masses of everyday objects, where there are three or more of a class
(training/worlds/published_masses.py). A larger mean makes objects heavier that were not yet seen to push or be pushed;
a larger spread lets the first contact count for more."""
PARTS_DENSITY = LogDensity(6.30, 0.90)
"""The same of mass over the volume of the parts, of an object of no known class."""
LOG_VOLUME_STD = 0.6
"""Standard deviation of the logarithm of a perceived outline's volume over the true one: 0.5 on seeds, 0.7 on families
that training never sees (``python -m training.worlds.masses --perceived 30``); half of the objects are within 0.1 and
0.22, the rest are objects that come out as a part of themselves or with what they touch. Larger widens all spreads."""
CLASS_TRUST = 0.7
"""How far the perceived probabilities of classes are believed; the rest counts as of no class. The likeliest class is
right of 78 % on seeds; of what is of no class it often is sure as well. Larger narrows spreads."""
_LEAST_VOLUME_M3 = 1e-7
"""Smaller outlines count as this, a cube of 5 mm."""
_LEAST_SHARE = 0.02
"""Classes less probable than this are left out. Chosen by hand; larger is faster."""
_CACHED = 256
"""Outline volumes that are kept. Larger takes memory."""
_VOLUMES: OrderedDict[bytes, float] = OrderedDict()


def outline_volume(shape: int, extents: ArrayLike, hull: ArrayLike, parts: Sequence[ConvexPart] = ()) -> float:
    """Volume [m^3] of an object's outline: of the hull of its parts or points, where there are any, else of its shape.

    Args:
        shape, extents: as in wm_msgs/SceneObject; extents (3,) [m]. hull: (P, 3) [m], or (0, 3).
    """
    points = np.concatenate([p.points() for p in parts]) if parts else np.asarray(hull, dtype=np.float64)
    if not parts and (shape != Shape.CONVEX or len(points) < 4):
        return shape_volume(shape, extents)
    key = points.tobytes()
    if key not in _VOLUMES:
        try:
            _VOLUMES[key] = float(ConvexHull(points).volume)
        except (QhullError, ValueError):
            _VOLUMES[key] = shape_volume(shape, extents)
        while len(_VOLUMES) > _CACHED:
            _VOLUMES.popitem(last=False)
    return _VOLUMES[key]


def log_mass_prior(
    classes: Mapping[str, float],
    shape: int,
    extents: ArrayLike,
    hull: ArrayLike,
    parts: Sequence[ConvexPart] = (),
    log_volume_std: float = LOG_VOLUME_STD,
) -> tuple[float, float]:
    """Mean and standard deviation of the logarithm of an object's mass [kg].

    Of each class the mass is log-normal; the mixture over the classes has their common mean, and the variance within
    the classes plus that between them.

    Args:
        classes: probability of each class; what is missing to 1, and names without a density, count as of no class.
        shape, extents, hull, parts: as in ``SceneGraph``.
        log_volume_std: of the outline, 0 where it is exactly known.
    """
    log_outline = float(np.log(max(outline_volume(shape, extents, hull, parts), _LEAST_VOLUME_M3)))
    known = {name: p for name, p in classes.items() if name in OUTLINE_DENSITIES and p >= _LEAST_SHARE}
    unknown = max(1.0 - sum(p for name, p in known.items() if name != UNKNOWN), 0.0)
    known[UNKNOWN] = unknown
    total = sum(known.values())
    mean, square = 0.0, 0.0
    for name, p in known.items():
        if p < _LEAST_SHARE:
            continue
        density, volume = OUTLINE_DENSITIES[name], log_outline
        if name == UNKNOWN and parts:
            density, volume = PARTS_DENSITY, float(np.log(max(solid_of(parts).volume, _LEAST_VOLUME_M3)))
        own = volume + density.mean
        mean += p / total * own
        square += p / total * (own**2 + density.std**2)
    return mean, float(np.sqrt(max(square - mean**2, 0.0) + log_volume_std**2))


def with_mass_priors(scene: SceneGraph) -> SceneGraph:
    """The scene with the prior masses of its movable objects."""
    log_mass, std = scene.log_mass.copy(), scene.log_mass_std.copy()
    for row in np.flatnonzero(~scene.is_static):
        log_mass[row], std[row] = log_mass_prior(
            _classes(scene, int(row)), int(scene.shapes[row]), scene.extents[row], scene.hulls[row], scene.parts[row]
        )
    return replace(scene, log_mass=log_mass, log_mass_std=std)


def _classes(scene: SceneGraph, row: int) -> dict[str, float]:
    """Probability of each class, as far as it is believed; the name alone where none were estimated."""
    given: NDArray[np.float64] = scene.class_probabilities[row]
    if given.size and given.sum() > 0.0:
        return dict(zip(scene.class_vocabulary, (CLASS_TRUST * given).tolist(), strict=True))
    return {scene.class_names[row]: 1.0}
