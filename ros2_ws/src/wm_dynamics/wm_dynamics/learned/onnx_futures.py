"""Futures that the dynamics network in ONNX Runtime steps together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wm_core.interventions import Hypothesis
from wm_dynamics.contact_step.body_tables import HOVER_M, MAX_SLACK_M, ROWS, SLOW_START_M_S, STEP_S, surfaces_beneath
from wm_dynamics.contact_step.network import DynamicsNetwork
from wm_dynamics.contact_step.rollout_tables import Flags, Floats, Integers
from wm_dynamics.contact_step.sleeping import SCATTER_SHARE, SLACK_RETURN_M, TOUCH_N_S, WAKE_ROUNDS
from wm_dynamics.learned.broad_phase import Participants, broad_phase
from wm_dynamics.learned.futures import FutureBatch
from wm_dynamics.learned.overlaps import part_overlaps
from wm_dynamics.learned.scene import Array, PreparedScene
from wm_dynamics.learned.waking import wake_touched


def scatter_limit(was: Floats, now: Floats) -> Floats:
    """(B,) largest speed [m/s] after scatter, of bodies whose speeds (B,) a step changed from ``was`` to ``now``.

    Scatter must not add energy: added at every step to bodies that overlap, it would accelerate them to hundreds of
    meters a second. So it makes nothing faster than before the step, except for what a collision has just accelerated:
    its share of the gain is uncertain (``SCATTER_SHARE``).
    """
    limit: Floats = np.maximum(was, now + SCATTER_SHARE * np.maximum(now - was, 0.0)).astype(np.float32)
    return limit


def limited(velocity: Floats, speed: Floats) -> Floats:
    """Velocities (3, B), those faster than a speed (B,) shortened to it."""
    own = np.linalg.norm(velocity, axis=0)
    shortened: Floats = velocity * np.where(own > speed, speed / np.maximum(own, np.float32(1e-12)), np.float32(1.0))
    return shortened


class OnnxFutureBatch(FutureBatch):
    """A ``FutureBatch`` that makes one step of all that is awake in one run of the network.

    Args:
        network: of one step; the others as of ``FutureBatch``.
    """

    def __init__(
        self, prepared: PreparedScene, hypotheses: Sequence[Hypothesis], times: Array, network: DynamicsNetwork
    ) -> None:
        super().__init__(prepared, hypotheses, times)
        self._network = network
        self._tables_key: tuple[int, bytes, bytes] | None = None
        self._tables: tuple[Floats, Integers, Floats]

    def portion(self) -> int:
        """One step."""
        return 1

    def advance(self) -> None:
        """One step, the interventions that are due after it, and the answer's times until then."""
        self.make_steps(1)
        self._apply_due()
        self._write()

    def make_steps(self, count: int) -> None:
        """Steps without interventions and outputs."""
        state, outputs = self.state, self.outputs
        for _ in range(count):
            state.paths.set_velocities(self.now, state.bodies)
            expected = np.zeros_like(state.bodies.linear)
            for _ in range(WAKE_ROUNDS):
                active = broad_phase(state.bodies, state.pairs, state.surfaces)
                if not len(active.columns):
                    break
                feeds, which = self._feeds(active)
                if not wake_touched(feeds, active, state.bodies, state.pairs, expected):
                    break
            if len(active.columns):
                self._step(active, feeds, which)
            outputs.pair_touch[self.now] = state.pairs.touching
            outputs.surface_touch[self.now] = state.surfaces.on_surface
            self.now += 1
            state.paths.set_poses(self.now, state.bodies)

    def _feeds(self, active: Participants) -> tuple[dict[str, NDArray[Any]], NDArray[np.int16]]:
        """What the network is given of a step, but for the slack, and the row of the surface beneath each body (B,)."""
        bodies, surfaces = self.state.bodies, self.state.surfaces
        row = active.columns // self.state.slots
        plane, which = surfaces_beneath(
            bodies.position[:, active.columns], bodies.bounds[active.columns], surfaces.rows[row], surfaces.floor_z
        )
        parameters, hull_row, hulls = self._tables_of(active)
        for source, name in ((surfaces.friction, "friction"), (surfaces.restitution, "restitution")):
            own = np.where(which >= 0, source[row, np.maximum(which, 0)], np.nan)
            set_ = ~np.isnan(own)
            if set_.any():
                parameters = parameters.copy()
                parameters[ROWS[name], set_] = own[set_]
        feeds: dict[str, NDArray[Any]] = {
            "position": bodies.position[:, active.columns],
            "quaternion": bodies.quaternion[:, active.columns],
            "linear": bodies.linear[:, active.columns],
            "angular": bodies.angular[:, active.columns],
            "parameters": parameters,
            "plane": plane,
            "pair_a": active.pair_a,
            "pair_b": active.pair_b,
            "hull_row": hull_row,
            "hull_points": hulls,
        }
        return feeds, which

    def _step(self, active: Participants, feeds: dict[str, NDArray[Any]], which: NDArray[np.int16]) -> None:
        """One step of the network, its scatter, and what touches afterwards."""
        bodies, pairs, surfaces = self.state.bodies, self.state.pairs, self.state.surfaces
        row, m = np.divmod(active.columns, self.state.slots)
        position, quaternion, linear, angular, plane_impulse, pair_impulse, deviation = self._run(feeds, active)
        free = ~active.held & ~bodies.kinematic[active.columns]
        struck = plane_impulse.copy()
        np.maximum.at(struck, active.pair_a, pair_impulse)
        np.maximum.at(struck, active.pair_b, pair_impulse)
        columns = active.columns[free]
        self._scatter(columns, linear[:, free], angular[:, free], deviation[:, free], struck[free] > TOUCH_N_S)
        bodies.position[:, columns], bodies.quaternion[:, columns] = position[:, free], quaternion[:, free]
        # A pair that is not computed, since both its bodies sleep, keeps its touch.
        awake = np.zeros((self.state.rows, self.state.slots), dtype=bool)
        awake[row[~active.held], m[~active.held]] = True
        pairs.touching[:] &= ~(awake[:, pairs.first] | awake[:, pairs.second])
        touched = pair_impulse > TOUCH_N_S
        pairs.touching[active.pair_row[touched], active.pair_number[touched]] = True
        stands = (plane_impulse > TOUCH_N_S) & free
        surfaces.on_surface[row[free], m[free]] = -1
        surfaces.on_surface[row[stands], m[stands]] = which[stands]

    def _tables_of(self, active: Participants) -> tuple[Floats, Integers, Floats]:
        """Parameters (PARAMETER_ROWS, B), bodies with a hull (H,) and their points (3, HULL_POINTS, H); those of the
        step before where the same bodies are computed.
        """
        key = (self.state.edits, active.columns.tobytes(), active.held.tobytes())
        if key == self._tables_key:
            return self._tables
        bodies = self.state.bodies
        parameters = bodies.parameters[:, active.columns]
        for name in ("inverse_mass", "inverse_inertia", "falls"):
            parameters[ROWS[name], active.held] = 0.0
        hull = bodies.hull[active.columns]
        hull_row = np.flatnonzero(hull >= 0)
        hulls = np.ascontiguousarray(self.state.hulls[hull[hull_row]].transpose(1, 2, 0))
        self._tables_key, self._tables = key, (parameters, hull_row, hulls)
        return self._tables

    def _run(self, feeds: dict[str, NDArray[Any]], active: Participants) -> list[Floats]:
        """The network's outputs but for the gaps, with what is deep moved apart.

        The overlaps of bodies and pairs that are computed for the first time are measured, and the step is repeated.
        """
        bodies, pair_slack = self.state.bodies, self.state.pairs.slack
        new_body = np.isnan(bodies.plane_slack[active.columns]) & ~active.held & ~bodies.kinematic[active.columns]
        # The network has whole bodies alone, so of a pair's parts the first slack counts.
        column = self.state.pairs.begin[active.pair_number]
        new_pair = np.isnan(pair_slack[active.pair_row, column])
        feeds["plane_slack"] = np.nan_to_num(bodies.plane_slack[active.columns])
        feeds["pair_slack"] = np.nan_to_num(pair_slack[active.pair_row, column])
        *out, plane_gap, pair_gap = self._network.run(feeds)
        if not (new_body.any() or new_pair.any()):
            self._part_overlaps(feeds, active, out, plane_gap, pair_gap)
            self._lose_slack(active, pair_gap)
            return out
        columns, gap = active.columns[new_body], plane_gap[new_body]
        speed = np.linalg.norm(bodies.linear[:, columns], axis=0)
        speed += bodies.bounds[columns] * np.linalg.norm(bodies.angular[:, columns], axis=0)
        hovers = (speed < SLOW_START_M_S) & (gap > 0.0) & (gap < HOVER_M)
        of_bodies = np.where(hovers, -gap, np.clip(-gap, 0.0, MAX_SLACK_M))
        # A pair that comes near through the air is measured before it touches, so its overlap is zero.
        of_pairs = np.clip(-pair_gap[new_pair], 0.0, MAX_SLACK_M)
        bodies.plane_slack[columns] = of_bodies
        pair_slack[active.pair_row[new_pair], column[new_pair]] = of_pairs
        if (np.abs(of_bodies) > 1e-5).any() or (of_pairs > 1e-5).any():
            feeds["plane_slack"] = np.nan_to_num(bodies.plane_slack[active.columns])
            feeds["pair_slack"] = pair_slack[active.pair_row, column]
            out = self._network.run(feeds)[:7]
        feeds["pair_slack"] = np.nan_to_num(pair_slack[active.pair_row, column])
        self._part_overlaps(feeds, active, out, plane_gap, pair_gap)
        self._lose_slack(active, pair_gap)
        return out

    def _part_overlaps(
        self,
        feeds: dict[str, NDArray[Any]],
        active: Participants,
        out: list[Floats],
        plane_gap: Floats,
        pair_gap: Floats,
    ) -> None:
        """``part_overlaps`` of the network's outputs, in place."""
        rows, bounds = active.columns // self.state.slots, self.state.bodies.bounds[active.columns]
        part_overlaps(feeds, active, rows, bounds, (plane_gap, pair_gap), (out[0], out[1], out[2], out[3]))

    def _lose_slack(self, active: Participants, gap: Floats) -> None:
        """Let pairs lose what they overlapped at the start, as they move apart; ``gap``: (P,) before the step [m]."""
        pairs = self.state.pairs
        slack, at = pairs.slack, (active.pair_row, pairs.begin[active.pair_number])
        slack[at] = np.minimum(slack[at], np.where(slack[at] > 0.0, np.maximum(-gap, 0.0) + SLACK_RETURN_M, np.inf))

    def _scatter(self, columns: Integers, linear: Floats, angular: Floats, deviation: Floats, struck: Flags) -> None:
        """Set the velocities (3, B) after a step, scattered by deviations (2, B) where there are several samples, and
        what is left open of velocities and positions; ``struck``: (B,) what touched something.
        """
        bodies, prepared = self.state.bodies, self.state.prepared
        was, now = np.linalg.norm(bodies.linear[:, columns], axis=0), np.linalg.norm(linear, axis=0)
        fastest = scatter_limit(was, now)
        if prepared.samples > 1:
            noise = prepared.noise_at(self.now)
            row, m = np.divmod(columns, self.state.slots)
            drawn = noise[:, row % prepared.samples, m]
            spin = scatter_limit(np.linalg.norm(bodies.angular[:, columns], axis=0), np.linalg.norm(angular, axis=0))
            linear = limited(linear + drawn[:3] * deviation[0], fastest)
            angular = limited(angular + drawn[3:] * deviation[1], spin)
        bodies.linear[:, columns], bodies.angular[:, columns] = linear, angular
        # A body that contacts slow down loses the same share of its velocity's deviation.
        kept = np.where(struck, np.minimum(now / np.maximum(was, np.float32(1e-6)), np.float32(1.0)), np.float32(1.0))
        drift = np.sqrt((kept * bodies.drift[columns]) ** 2 + np.minimum(deviation[0], fastest) ** 2)
        bodies.drift[columns] = drift
        bodies.left_open[columns] += np.float32(STEP_S) * drift
