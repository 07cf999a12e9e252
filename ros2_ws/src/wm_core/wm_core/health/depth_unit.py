"""A guess at the unit of a depth image whose meters are implausible.

One depth image has no absolute scale: a table top in units four times too small is a room. What can be judged is how
likely its meters are, from two quantities, as logarithms of likelihoods (nats):

- the median depth. In the RGB-D recordings that this was made with (tables, bins, desks, rooms; Kinect, RealSense,
  structured light, Gazebo) it is 0.7 to 2.4 m: Student's t with 3 degrees of freedom, so that halls are allowed, about
  ln 1.2 m with a width of 0.65.
- the largest level surface: how far below the camera (0.15 to 1.8 m for a camera that a person or a robot carries over
  a floor or a table), and where in the world (0 to 1.5 m over a floor at z = 0; right at 0 supports the unit).

Units are usually right, which counts for 2 nats, unless no depth camera measures such meters. Not detectable: a
factor of 4 where the result is still a plausible room, a factor of 10 of a scene nearer than 0.5 m without a level
surface in view, and the difference of 4 and 5.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wm_core.camera import Camera
from wm_core.health.findings import Finding, Severity

FACTORS = (0.001, 0.1, 0.25, 4.0, 10.0, 1000.0)
"""Factors that meters may have to be multiplied by: units of 1 mm in floats, 0.1 mm and 0.25 mm in 16 bits, and the
reverse."""

# The likelihoods of the module's docstring, from the recordings named there.
_TYPICAL_M, _SPREAD = 1.2, 0.65
"""Center [m] of the likelihood of the median depth, and its width as a natural logarithm. A larger width accepts scenes
that are nearer and farther."""
_BELOW_M, _BELOW_SPREAD_M = (0.15, 1.8), 0.25
"""How far [m] a level surface lies below the camera at no cost, and distance [m] outside of that which costs 1 nat."""
_WORLD_M, _WORLD_COST = (-0.15, 1.5), 1.6
"""World z [m] at which a level surface lies at no cost, and cost [nats] elsewhere: one world in five does not have its
floor at z = 0."""
_FLOOR_M, _FLOOR_GAIN = 0.1, 1.5
"""A level surface so close [m] to world z = 0 is the floor, and gains so much [nats]. Larger trusts the world's height
more."""
_MOST_BELOW_COST = 3.0
"""Largest cost [nats] of a level surface's distance below the camera, so that it alone does not decide."""
_USUALLY_RIGHT, _SAID_BY_USER = 2.0, 8.0
"""Prior of the unit in use [nats], and of one that the user has set. Larger doubts fewer units."""
_MEASURABLE_M = (0.05, 100.0)
"""No depth camera sees a scene whose median depth [m] is outside of this: the nearest begin at 7 cm (RealSense D405),
the farthest end at some tens of meters. There the unit is wrong, also where the user has set it."""
_LARGEST_UNIT_M = 1.0
"""Maximum of the nodes' parameter depth_scale [m per unit]."""
_SENT_BY = {0.25: " (RealSense L515)", 0.1: " (RealSense D405, D410)"}
_MARGIN, _AS_GOOD = 0.7, 1.0
"""Gain [nats] from which a factor is preferred, and distance from the best within which others are named, too. Larger
reports fewer images, and names more factors."""
_COLUMNS = 96
"""Columns at which depth is examined, about. Larger is slower."""
_LEAST_VALID = 0.05
"""Share of pixels with depth below which nothing is guessed."""
_LEAST_LEVEL = 0.06
"""Share of the points below which a level surface does not count. Larger finds fewer."""
_UPRIGHT_COSINE = 0.94
"""Cosine of the angle to the vertical (20 degrees) up to which a surface is level."""
_BIN_OF_MEDIAN, _FARTHEST_OF_MEDIAN = 0.015, 100.0
"""Height of a bin, and largest drop below the camera, as parts of the median depth."""
_AGREE = 3
"""Images in a row that must agree. Larger decides later."""
_LOOK_FIRST_S, _LOOK_AGAIN_S = 0.2, 2.0
"""Time between images examined [s] while they disagree, and after they have agreed: each takes some milliseconds."""


@dataclass(frozen=True)
class DepthUnitGuess:
    """The guess from one depth image.

    Attributes:
        factor: by which its meters most likely have to be multiplied; 1: they are plausible.
        others: further factors that are nearly as likely.
        median_m: median depth [m].
        below_m: how far the largest level surface is below the camera [m], NaN where there is none.
        world_z_m: height of that surface in the world [m].
    """

    factor: float
    others: tuple[float, ...]
    median_m: float
    below_m: float
    world_z_m: float

    @property
    def evidence(self) -> str:
        """The quantities found, as text."""
        text = f"median depth {self.median_m:.3g} m"
        if np.isfinite(self.below_m):
            text += (
                f", largest level surface {self.below_m:.3g} m below the camera (at z = {self.world_z_m:.3g} m of the "
                "world)"
            )
        return text

    @property
    def factors(self) -> tuple[float, ...]:
        """The most likely factor and those nearly as likely."""
        return (self.factor, *self.others)

    def advice(self, scale: float) -> str:
        """Values of depth_scale [m per unit] to try, where the one in use is ``scale``."""
        return " or ".join(f"{scale * f:.3g}" for f in self.factors)

    def units(self, scale: float) -> str:
        """Names of the units that the depth is likely in, where it was read as ``scale`` meters per unit."""
        return " or ".join(_unit_name(scale, f) for f in self.factors)


def guess_depth_unit(
    depth_m: NDArray[np.float32], camera: Camera, world_T_camera: NDArray[np.float64], said: bool = False
) -> DepthUnitGuess | None:
    """Whether the meters of a depth image are plausible, and by which of ``FACTORS`` they are most likely wrong.

    Args:
        depth_m: (H, W) [m], 0 or NaN where unknown. world_T_camera: (4, 4), z up.
        said: the user has set the unit, which then needs more evidence to be doubted.

    Returns:
        None where too little was measured.
    """
    stride = max(1, depth_m.shape[1] // _COLUMNS)
    points = camera.back_project(depth_m, stride)
    known = np.isfinite(points[..., 2])
    if float(known.mean()) < _LEAST_VALID:
        return None
    median = float(np.median(points[..., 2][known]))
    below = level_surface_below(points, median, world_T_camera)
    height = float(world_T_camera[2, 3])
    scores = {f: _plausible(median * f, below * f, height) for f in (1.0, *FACTORS)}
    measurable = _MEASURABLE_M[0] <= median <= _MEASURABLE_M[1]
    doubt = _SAID_BY_USER if said else _USUALLY_RIGHT
    wrong = {f: scores[f] - doubt for f in FACTORS}
    best = max(wrong, key=lambda f: wrong[f])
    if measurable and wrong[best] - scores[1.0] < _MARGIN:
        best = 1.0
    others = () if best == 1.0 else tuple(f for f in FACTORS if f != best and wrong[f] > wrong[best] - _AS_GOOD)
    return DepthUnitGuess(best, others, median, below, height - below)


def depth_unit_finding(topic: str, guess: DepthUnitGuess, unit_m: float) -> Finding | None:
    """The finding on depth that seems to be in another unit; None where its meters are plausible.

    Args:
        topic: of the depth images. unit_m: meters per unit that they were read with.
    """
    if guess.factor == 1.0:
        return None
    if unit_m * guess.factor > _LARGEST_UNIT_M:
        run = f"mend the driver, whose meters are {guess.factor:g} times too small, or set depth_scale to {unit_m:g} "
        run += "if that is right"
    else:
        run = f"set depth_scale to {guess.advice(unit_m)} (meters per unit), or to {unit_m:g} if that is right"
    return Finding(
        "depth_unit",
        Severity.WARN,
        f"depth on {topic}, read as {1000.0 * unit_m:g} mm a unit, looks wrong: {guess.evidence}; its unit is likely "
        f"{guess.units(unit_m)}",
        run=run,
    )


def agreed_guess(guesses: Sequence[DepthUnitGuess | None]) -> DepthUnitGuess | None:
    """The last of some guesses, where all of them have one factor."""
    last = guesses[-1] if guesses else None
    return last if last is not None and all(g is not None and g.factor == last.factor for g in guesses) else None


def _unit_name(read_m: float, factor: float) -> str:
    """The unit of depth that was read as ``read_m`` meters per unit and is to be multiplied by ``factor``."""
    if read_m == 1.0:  # floats, which a driver made of the sensor's integers
        if factor == 0.001:
            return "mm, sent as if meters"
        if factor == 1000.0:
            return "meters, scaled as if mm"
        return f"{factor:g} mm{_SENT_BY.get(factor, '')}, scaled as if mm"
    unit_mm = 1000.0 * read_m * factor
    if abs(unit_mm - 1000.0) < 1.0:
        return "meters, sent as if mm"
    return f"{unit_mm:g} mm{_SENT_BY.get(round(unit_mm, 6), '')}"


def _plausible(median_m: float, below_m: float, camera_z_m: float) -> float:
    """Logarithm of the likelihood of a scene, up to a constant."""
    off = np.log(median_m / _TYPICAL_M) / _SPREAD
    score = -2.0 * float(np.log1p(off * off / 3.0))
    if np.isfinite(below_m):
        z = camera_z_m - below_m
        if abs(z) < _FLOOR_M:
            return score + _FLOOR_GAIN
        beyond = max(_BELOW_M[0] - below_m, below_m - _BELOW_M[1], 0.0)
        score -= min(beyond / _BELOW_SPREAD_M, _MOST_BELOW_COST)
        score -= 0.0 if _WORLD_M[0] <= z <= _WORLD_M[1] else _WORLD_COST
    return score


def level_surface_below(points: NDArray[np.float32], median_m: float, world_T_camera: NDArray[np.float64]) -> float:
    """How far [m] the largest level surface lies below the camera; NaN where none is a fair part of the view.

    Free of scale: steps and bins are parts of the median depth.

    Args:
        points: (h, w, 3) [m, optical frame], NaN where unknown.
    """
    rotation = world_T_camera[:3, :3]
    across = points[1:-1, 2:] - points[1:-1, :-2]
    down = points[2:, 1:-1] - points[:-2, 1:-1]
    middle = points[1:-1, 1:-1]
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        normals = np.cross(across, down)
        normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
        normals *= -np.sign(np.einsum("hwi,hwi->hw", normals, middle))[..., None]
        edge = np.maximum(np.abs(across[..., 2]), np.abs(down[..., 2])) > 0.3 * middle[..., 2]
        level = (normals @ rotation[2] > _UPRIGHT_COSINE) & ~edge
    drops = -(middle[level] @ rotation[2])
    weights = np.square(middle[level][:, 2])
    # Some drivers send a huge number where depth is out of range; bins up to there would need all memory.
    near = (drops > 0.0) & (drops < _FARTHEST_OF_MEDIAN * median_m)
    weights, drops = weights[near], drops[near]
    if len(drops) < _LEAST_LEVEL * int(np.isfinite(middle[..., 2]).sum()) or not len(drops):
        return float("nan")
    bins = np.floor(drops / (_BIN_OF_MEDIAN * median_m)).astype(np.int64)
    counts = np.convolve(np.bincount(bins), np.ones(3), mode="same")
    areas = np.convolve(np.bincount(bins, weights=weights), np.ones(3), mode="same")
    peak = int(areas.argmax())
    if counts[peak] < _LEAST_LEVEL * int(np.isfinite(middle[..., 2]).sum()):
        return float("nan")
    return float(np.median(drops[np.abs(bins - peak) <= 1]))


class DepthUnitWatch:
    """Accepts a guess once three images in a row agree on it.

    Attributes:
        factor: accepted; depth is to be multiplied by it.
        decided: whether three images in a row have agreed on a factor. From then on it stays: a camera whose unit was
            plausible once does not change it, but may see an unusual scene.
    """

    def __init__(self) -> None:
        self._settings: object = None
        self._clear()

    def _clear(self) -> None:
        self.factor = 1.0
        self.decided = False
        self._last: deque[DepthUnitGuess] = deque(maxlen=_AGREE)
        self._looked_s = -np.inf
        self._just_decided = False

    def begin(self, stamp_s: float, settings: object = None) -> None:
        """To be called before the image of a stamp [s] is read: starts over where stamps went backwards (another
        recording) or where the user's settings of the unit have changed.
        """
        if stamp_s < self._looked_s or settings != self._settings:
            self._clear()
            self._settings = settings

    def due(self, stamp_s: float) -> bool:
        """Whether to examine the image of a stamp [s]: each until the first agree, every 0.2 s while the last do not,
        else every 2 s. By stamps and not by a clock, so that a recording gives the same each time.
        """
        pause_s = 0.0 if not self.decided else _LOOK_FIRST_S if self._agreed() is None else _LOOK_AGAIN_S
        if self._looked_s <= stamp_s < self._looked_s + pause_s:
            return False
        self._looked_s = stamp_s
        return True

    def _agreed(self) -> DepthUnitGuess | None:
        return agreed_guess(self._last) if len(self._last) == _AGREE else None

    def look(
        self, depth_m: NDArray[np.float32], camera: Camera, world_T_camera: NDArray[np.float64], said: bool = False
    ) -> DepthUnitGuess | None:
        """The guess that the last three images agree on, or None; arguments as for ``guess_depth_unit``."""
        guess = guess_depth_unit(depth_m, camera, world_T_camera, said)
        if guess is None:
            return None
        self._last.append(guess)
        agreed = self._agreed()
        self._just_decided = agreed is not None and not self.decided
        self.decided |= agreed is not None
        return agreed

    def take(self, guess: DepthUnitGuess) -> bool:
        """Apply the guess that was just decided on, where only one factor fits; whether it was applied."""
        if guess.factor == 1.0 or guess.others or not self._just_decided:
            return False
        self.factor *= guess.factor
        self._last.clear()
        return True
