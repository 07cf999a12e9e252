"""True futures: the simulator run again to the instant of a request, intervened on, simulated and rendered.

The simulation is deterministic, so no state needs to be transferred: the same scene and seed, stepped to the same
stamp, are the same world. This is checked against the true scene graph that was published at that stamp.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wm_bringup.report.comparison import largest_difference
from wm_core.interventions import Hypothesis
from wm_core.scene_graph import SceneGraph
from wm_sim.counterfactuals import GroundTruthRollout
from wm_sim.simulator import NANOSECONDS, Simulator

MAX_REPLAY_DIFFERENCE_M = 1e-6
"""Rounding of the message format; a larger difference means another world."""


class GroundTruthError(RuntimeError):
    """The ground truth is not known; the message says why."""


class GroundTruth:
    """The simulated world at the instant of a request. A context manager (it holds a rendering context).

    Args:
        scene, seed: those of the simulated camera.
        stamp_ns: of the request.
        published: the true scene graph of that stamp.

    Raises:
        GroundTruthError: the simulator, run again, is not in the published state.

    Attributes:
        difference_m: largest distance of an object from its published position.
    """

    def __init__(self, scene: str, seed: int, stamp_ns: int, published: SceneGraph) -> None:
        self.simulator = Simulator(scene, seed)
        # Half a frame later: stamps are whole frames, rounded to nanoseconds.
        self.simulator.advance_to(stamp_ns / NANOSECONDS + 1e-4)
        self.difference_m = largest_difference(published, self.simulator.ground_truth())
        if not self.difference_m <= MAX_REPLAY_DIFFERENCE_M:
            self.simulator.close()
            raise GroundTruthError(
                f"scene {scene!r} (seed {seed}) run again to {stamp_ns / NANOSECONDS:.3f} s is {self.difference_m:g} m "
                f"off the published ground truth, expected at most {MAX_REPLAY_DIFFERENCE_M:g} m"
            )

    def __enter__(self) -> GroundTruth:
        return self

    def __exit__(self, *details: object) -> None:
        self.simulator.close()

    def imagine(self, hypotheses: Sequence[Hypothesis], times: ArrayLike) -> GroundTruthRollout:
        """True futures of hypotheses on true ids, at times (T,) [s] after the request."""
        return self.simulator.ground_truth_rollout(hypotheses, times)

    def pictures(
        self, rollout: GroundTruthRollout, hypothesis: int, times: ArrayLike
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """True color (F, H, W, 3) and depth (F, H, W) [m] nearest to the times (F,) [s], from the camera's pose."""
        rows = [int(np.argmin(np.abs(rollout.times - t))) for t in np.asarray(times, dtype=np.float64)]
        return self.simulator.render_ground_truth(rollout, hypothesis, rows)

    def has_contacts(self, rollout: GroundTruthRollout, hypothesis: int) -> bool:
        """Whether two objects that can move (or a pusher and one) come to touch after the start."""
        graph = self.simulator.ground_truth()
        static = set(graph.ids[graph.is_static].tolist())
        standing = {frozenset((r.subject, r.object)) for r in graph.relations}
        return any(
            touch.began
            and touch.time_s > 0.0
            and touch.a not in static
            and touch.b not in static
            and frozenset((touch.a, touch.b)) not in standing
            for touch in rollout.touches[hypothesis]
        )
