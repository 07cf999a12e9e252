"""Settings of the push planner."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from wm_core.interventions import BodySpec
from wm_core.scene_graph import Shape

KNOTS = 3
"""Knots of a push; more describe curvier pushes, and need more draws."""
RAMP_S = 0.2
"""Time between the knots of a push, which starts and ends at rest [s]; larger, and a push is longer."""


class PlanError(ValueError):
    """A task that cannot be planned for; the message names the field, what was found and what was expected."""


@dataclass(frozen=True)
class PushCosts:
    """Weights of the costs of a future, in meters of way left for the target. The larger a weight, the longer the way
    that is gone to avoid its effect.

    Attributes:
        tilt_free_rad: tilt of an object that costs nothing [rad]: about what an imagined object at rest tilts by.
        tilt_per_rad: of any object, per radian beyond that.
        toppled: of any object that turns by more than 45 degrees [m].
        moved_tall, moved_other: per meter that a tall or another object is shifted.
        clearance_m, clearance: the paddle and the target keep this distance [m] from tall objects; per meter short.
        edge_m, edge: objects keep this distance [m] from the table's edge; per meter short.
        speed: per m/s that objects still move with at the end.
        behind: of the paddle being on the wrong side of the target at the end, per meter left.
        carry: of carrying the paddle elsewhere, per meter left; at most ``carry_most_m`` [m].
    """

    tilt_free_rad: float = 0.08
    tilt_per_rad: float = 1.0
    toppled: float = 5.0
    moved_tall: float = 4.0
    moved_other: float = 0.4
    clearance_m: float = 0.015
    clearance: float = 3.0
    edge_m: float = 0.03
    edge: float = 10.0
    speed: float = 0.3
    behind: float = 0.3
    carry: float = 0.2
    carry_most_m: float = 0.03


@dataclass(frozen=True)
class PushPlannerConfig:
    """Settings of the planner.

    Attributes:
        rollouts, rounds, elite: K per round, rounds, and how many of K the distribution is fitted to.
        horizon_s: imagined [s]; the paddle moves for the first 0.8 s of it.
        execute_s: how much of a push is carried out before the next is planned [s].
        step_s: of the imagined states [s].
        max_speed_m_s, max_turn_rad_s: of the paddle while it pushes [m/s, rad/s]; carry_speed_m_s: while it is
            carried [m/s].
        enough_m: no further round when a future costs less than this [m].
        done_m: the target is there when its center is this close to the goal [m]; done_rad: and, where the goal has an
            orientation, when it lacks less than this turn [rad].
        tall_ratio: an object is tall that is so many times higher than its smaller width.
        near_m: objects farther than this from the target are not imagined [m].
        paddle: full size [m]: thickness (its face points along +x), width, height.
        paddle_friction: of its face.
        ground_gap_m: between the support and the paddle [m].
        costs: weights.
    """

    rollouts: int = 32
    rounds: int = 2
    elite: int = 6
    horizon_s: float = 1.0
    execute_s: float = 0.8
    step_s: float = 0.1
    max_speed_m_s: float = 0.30
    max_turn_rad_s: float = 1.2
    carry_speed_m_s: float = 0.8
    enough_m: float = 0.006
    done_m: float = 0.012
    done_rad: float = 0.07
    tall_ratio: float = 2.2
    near_m: float = 0.40
    paddle: tuple[float, float, float] = (0.02, 0.10, 0.10)
    paddle_friction: float = 0.4
    ground_gap_m: float = 0.006
    costs: PushCosts = field(default_factory=PushCosts)

    def __post_init__(self) -> None:
        if not 4 <= self.elite <= self.rollouts:
            raise PlanError(f"elite: got {self.elite}, expected 4 to rollouts ({self.rollouts})")
        if self.rounds < 1:
            raise PlanError(f"rounds: got {self.rounds}, expected at least 1")
        if not 0.0 < self.execute_s <= self.horizon_s or self.horizon_s < (KNOTS + 1) * RAMP_S:
            raise PlanError(
                f"horizon_s, execute_s: got {self.horizon_s:g}, {self.execute_s:g}, "
                f"expected {(KNOTS + 1) * RAMP_S:g} s or more, and 0 to horizon_s"
            )

    @classmethod
    def for_poses(cls) -> PushPlannerConfig:
        """For goals with an orientation: a narrow paddle, which turns what it pushes beside its center, and more draws,
        as a push can err in the turn as well.
        """
        return cls(rollouts=96, rounds=3, elite=8, enough_m=0.003, done_m=0.01, paddle=(0.02, 0.04, 0.10))

    @property
    def body(self) -> BodySpec:
        """The paddle as a body."""
        return BodySpec(Shape.BOX, np.array(self.paddle), friction=self.paddle_friction)
