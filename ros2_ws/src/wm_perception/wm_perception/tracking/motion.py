"""How an object's center moves: an interacting multiple model filter over steady motion, maneuvers and knocks.

Equations: Blom and Bar-Shalom, The Interacting Multiple Model Algorithm for Systems with Markovian Switching
Coefficients, IEEE TAC 1988; the maneuvering mode's acceleration is first-order Markov (Singer, Estimating Optimal
Tracking Filter Performance for Manned Maneuvering Targets, IEEE TAES 1970).
"""

from __future__ import annotations

import copy

import numpy as np

from wm_perception.types import Array

STEADY_ACCELERATION_M_S2 = 0.7
"""Standard deviation of the white acceleration of objects that roll or are carried evenly [m/s^2], constant over
``_WHITE_STEP_S``. All constants of this filter were chosen by hand; tests/perception/test_perception_tracking.py
bounds its normalized errors for rolling, sliding and knocked objects. Larger means noisier velocities."""
MANEUVER_ACCELERATION_M_S2 = 4.0
"""Standard deviation of the acceleration of objects that slide to rest, fall or are pushed [m/s^2] ..."""
MANEUVER_TIME_S = 0.4
"""... and its time constant [s]. Larger means that accelerations are carried on for longer."""
KNOCK_M_S = 0.6
"""Standard deviation of the change of velocity in a collision [m/s]. Larger means that velocities follow faster, and
are noisier, after a knock."""
STEADY, MANEUVER, KNOCK = range(3)
_RATES = np.array([[0.0, 1.0, 0.7], [1.2, 0.0, 0.7], [0.0, 0.0, 0.0]])
"""Changes of mode per second, from row to column. Larger means that a mode is left on weaker evidence."""
_AFTER_KNOCK = np.array([0.4, 0.58, 0.02])
"""Probabilities of the modes one step after a knock."""
_WHITE_STEP_S = 1.0 / 30.0
"""Correlation time of the white acceleration [s]: a frame at 30 Hz."""
_FIRST_WEIGHTS = np.array([0.45, 0.5, 0.05])
"""Probabilities of the modes of a new filter."""
_PLACE = np.eye(3, 9)
"""(3, 9) from the state to its position."""
_MOST_PERIODS = 64
"""Frame periods whose matrices are kept: cameras whose stamps jitter have a new one in each frame."""


class MotionModels:
    """Transitions and process noise of the three modes, kept for the frame periods that recur.

    Stamps are whole nanoseconds, so the periods of a steady camera differ by one or two. Periods that are equal to
    10 us share the matrices of the first of them.
    """

    def __init__(self) -> None:
        self._known: dict[float, tuple[Array, Array]] = {}

    def over(self, dt: float) -> tuple[Array, Array]:
        """Transitions and process noise, both (3, 9, 9), of steady motion, maneuver and knock over ``dt`` [s]."""
        key = round(dt, 5)
        if key not in self._known:
            if len(self._known) > _MOST_PERIODS:
                self._known.clear()
            self._known[key] = _matrices(dt)
        return self._known[key]


def _matrices(dt: float) -> tuple[Array, Array]:
    one = np.eye(3)
    f, q = np.zeros((3, 9, 9)), np.zeros((3, 9, 9))
    # Steady, and after the knock: constant velocity, and no memory of an acceleration.
    line = np.array([[1.0, dt, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    white = np.array([[dt**3 / 3.0, 0.5 * dt**2, 0.0], [0.5 * dt**2, dt, 0.0], [0.0, 0.0, 0.0]])
    white = white * STEADY_ACCELERATION_M_S2**2 * _WHITE_STEP_S
    white[2, 2] = 1.0
    # A collision at an unknown moment of the interval: its variance in position is dt^2 / 3.
    jump = KNOCK_M_S**2 * np.array([[dt**2 / 3.0, 0.5 * dt, 0.0], [0.5 * dt, 1.0, 0.0], [0.0, 0.0, 0.0]])
    jump[2, 2] = 0.5 * MANEUVER_ACCELERATION_M_S2**2
    f[STEADY] = f[KNOCK] = np.kron(line, one)
    q[STEADY], q[KNOCK] = np.kron(white, one), np.kron(jump, one)
    t = MANEUVER_TIME_S
    e = float(np.exp(-dt / t))
    singer = np.array([[1.0, dt, t * t * (dt / t - 1.0 + e)], [0.0, 1.0, t * (1.0 - e)], [0.0, 0.0, e]])
    f[MANEUVER] = np.kron(singer, one)
    # White jerk of density 2 s^2 / T, integrated; by quadrature, which is exact enough and short.
    steps = 16
    noise = np.zeros((3, 3))
    for k in range(steps):
        rest = dt * (k + 0.5) / steps
        r = float(np.exp(-rest / t))
        column = np.array([t * t * (rest / t - 1.0 + r), t * (1.0 - r), r])
        noise += np.outer(column, column) * dt / steps
    q[MANEUVER] = np.kron(noise * 2.0 * MANEUVER_ACCELERATION_M_S2**2 / t, one)
    return f, q


class MotionFilter:
    """Position, velocity and acceleration of a point in the three modes, and how likely each mode is.

    Args:
        position: (3,) world frame [m]; velocity: (3,) [m/s], zero by default; the acceleration starts at zero.
        position_std, velocity_std, acceleration_std: standard deviations per axis [m, m/s, m/s^2].

    Attributes:
        means: (3, 9) of the modes: position [m], velocity [m/s], acceleration [m/s^2].
        covariances: (3, 9, 9) of the modes; weights: (3,) probabilities of the modes.
        mean, covariance: (9,), (9, 9) of the mixture.
    """

    def __init__(
        self,
        position: Array,
        position_std: float,
        velocity_std: float,
        acceleration_std: float = 2.0,
        velocity: Array | None = None,
    ) -> None:
        start = np.concatenate([position, np.zeros(3) if velocity is None else velocity, np.zeros(3)])
        spread = np.repeat(np.square([position_std, velocity_std, acceleration_std]), 3)
        self.means = np.tile(start, (3, 1))
        self.covariances = np.tile(np.diag(spread), (3, 1, 1))
        self.weights = _FIRST_WEIGHTS.copy()
        self._collect()

    def copy(self) -> MotionFilter:
        """An independent filter with the same state."""
        return copy.deepcopy(self)

    @property
    def position(self) -> Array:
        """(3,) [m]."""
        return self.mean[:3]

    @property
    def velocity(self) -> Array:
        """(3,) [m/s]."""
        return self.mean[3:6]

    def _collect(self) -> None:
        """Mean (9,) and covariance (9, 9) of the mixture."""
        self.mean = self.weights @ self.means
        off = self.means - self.mean
        self.covariance = np.einsum("m,mij->ij", self.weights, self.covariances) + (off.T * self.weights) @ off

    def hold(self, position_std: float) -> None:
        """At rest: no velocity; the position becomes more uncertain by a standard deviation [m]."""
        mean, spread = self.mean.copy(), self.covariance[:3, :3] + np.eye(3) * position_std**2
        mean[3:] = 0.0
        covariance = np.diag(np.repeat([0.0, 1e-6, 1e-4], 3))
        covariance[:3, :3] = spread
        self._same(mean, covariance)

    def settle(self, position: Array, covariance: Array) -> None:
        """Update with a measured position (3,) with covariance (3, 3) of an object at rest."""
        p = self.covariance[:3, :3]
        gain = p @ np.linalg.inv(p + covariance)
        mean, spread = self.mean.copy(), self.covariance.copy()
        mean[:3] += gain @ (position - mean[:3])
        mean[3:] = 0.0
        keep = np.eye(3) - gain
        spread[:3, :3] = keep @ p @ keep.T + gain @ covariance @ gain.T
        self._same(mean, spread)

    def _same(self, mean: Array, covariance: Array) -> None:
        self.means, self.covariances = np.array([mean] * 3), np.array([covariance] * 3)
        self._collect()

    def shift(self, offset: Array) -> None:
        """Move the point that is followed, (3,) [m], without any motion."""
        self.means[:, :3] += offset
        self._collect()

    def forget_velocity(self, velocity_std: float) -> None:
        """Set the velocity to zero with a standard deviation [m/s]; the position stays as it is."""
        mean, covariance = self.mean.copy(), np.diag(np.repeat([0.0, velocity_std**2, 1.0], 3))
        mean[3:] = 0.0
        covariance[:3, :3] = self.covariance[:3, :3]
        self._same(mean, covariance)

    def coast(self, dt: float, slowing_per_s: float = 2.0) -> None:
        """Advance by ``dt`` [s] unseen, with decreasing speed: unseen objects more likely stop than go on."""
        kept = float(np.exp(-slowing_per_s * dt))
        moves = (1.0 - kept) / slowing_per_s if slowing_per_s > 0.0 else dt
        f = np.zeros((9, 9))
        f[:3, :3], f[:3, 3:6], f[3:6, 3:6] = np.eye(3), moves * np.eye(3), kept * np.eye(3)
        mean, covariance = f @ self.mean, f @ self.covariance @ f.T
        # The main uncertainty of a hidden object's motion is how soon it stops.
        covariance[:3, :3] += np.eye(3) * (0.25 * float(self.velocity @ self.velocity) * dt * dt + 1e-6)
        covariance[3:6, 3:6] += np.eye(3) * (1.0 * dt * _WHITE_STEP_S)
        covariance[6:, 6:] += np.eye(3)
        self._same(mean, covariance)

    def predict(self, dt: float, models: MotionModels) -> None:
        """Advance by ``dt`` [s]: the modes mix, each moves by its own model."""
        if dt <= 0.0:
            return
        stay = np.eye(3)
        for i in (STEADY, MANEUVER):
            leave = 1.0 - np.exp(-_RATES[i].sum() * dt)
            stay[i] = _RATES[i] / _RATES[i].sum() * leave
            stay[i, i] = 1.0 - leave
        stay[KNOCK] = _AFTER_KNOCK
        ahead = self.weights @ stay
        mixing = (stay * self.weights[:, None] / ahead).T
        means = mixing @ self.means
        off = self.means[None] - means[:, None]
        covariances = np.einsum("ji,iab->jab", mixing, self.covariances) + np.einsum(
            "ji,jia,jib->jab", mixing, off, off
        )
        f, q = models.over(dt)
        self.means = np.einsum("jab,jb->ja", f, means)
        self.covariances = f @ covariances @ f.transpose(0, 2, 1) + q
        self.weights = ahead
        self._collect()

    def distance(self, position: Array, covariance: Array) -> float:
        """Normalized innovation squared of a measured position (3,) with covariance (3, 3), for the mixture."""
        off = position - self.mean[:3]
        return float(off @ np.linalg.solve(self.covariance[:3, :3] + covariance, off))

    def update(self, position: Array, covariance: Array) -> float:
        """Update with a measured position (3,), covariance (3, 3); returns the normalized innovation squared before."""
        nis = self.distance(position, covariance)
        self._measured(_PLACE, position, covariance)
        return nis

    def update_place(self, position: Array, covariance: Array) -> None:
        """Update the position alone with a measured one (3,), covariance (3, 3), which may shift without motion."""
        p = self.covariance[:3, :3]
        gain = np.zeros((9, 3))
        gain[:3] = p @ np.linalg.inv(p + covariance)
        self.means = self.means + (position - self.means[:, :3]) @ gain.T
        keep = np.eye(9) - gain @ _PLACE
        self.covariances = keep @ self.covariances @ keep.T + gain @ covariance @ gain.T
        self._collect()

    def update_way(self, way: Array, covariance: Array, dt: float) -> None:
        """Update with the way (3,) [m] gone in the last ``dt`` [s], covariance (3, 3): that at the mean velocity."""
        seen = np.asarray(np.kron([[0.0, dt, -0.5 * dt**2]], np.eye(3)), np.float64)
        self._measured(seen, way, covariance)

    def _measured(self, seen: Array, value: Array, covariance: Array) -> None:
        """Update the modes and their probabilities with a measured value (3,) of ``seen`` (3, 9) times the state."""
        crossed = self.covariances @ seen.T
        s = seen @ crossed + covariance
        inverse = np.linalg.inv(s)
        off = value - self.means @ seen.T
        gain = crossed @ inverse
        self.means = self.means + np.einsum("mij,mj->mi", gain, off)
        keep = np.eye(9) - gain @ seen
        self.covariances = keep @ self.covariances @ keep.transpose(0, 2, 1) + gain @ covariance @ gain.transpose(
            0, 2, 1
        )
        logs = -0.5 * np.einsum("mi,mij,mj->m", off, inverse, off) - 0.5 * np.linalg.slogdet(s)[1]
        weights = self.weights * np.exp(logs - logs.max())
        self.weights = np.maximum(weights / weights.sum(), 1e-6)
        self.weights /= self.weights.sum()
        self._collect()
