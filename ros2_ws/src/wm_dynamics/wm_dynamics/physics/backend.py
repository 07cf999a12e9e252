"""The ``physics`` dynamics backend: MuJoCo on the reconstructed scene."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError  # the builtin one from Python 3.11 on

import numpy as np
from numpy.typing import NDArray

from wm_core.interventions import Hypothesis
from wm_dynamics.base import (
    Contact,
    DynamicsResult,
    FutureWarned,
    RolloutCall,
    default_threads,
    empty_result,
)
from wm_dynamics.joining.dynamics import JoiningDynamics
from wm_dynamics.mujoco.batch import BatchSimulator
from wm_dynamics.mujoco.trajectory import Trajectory
from wm_dynamics.physics.job import PhysicsJob, WorldCache
from wm_dynamics.settling.preparation import ScenePreparation

log = logging.getLogger(__name__)
Array = NDArray[np.float64]

MAX_TIMESTEP_S = 1.0 / 480.0
"""Contacts last 30 ms. At 1/240 s a block that is hit on its edge leaves with up to half as much speed again as it
should; from about 1/400 s on, shorter steps change nothing any more."""
BATCH_S = 0.2
"""Wanted time of a batch of futures [s]: longer, and progress and stops are late; shorter, and the overhead of a batch
counts, on a busy machine above all."""
_OVERFLOWS = ("CONTACTFULL", "CNSTRFULL")
"""MuJoCo's warnings that contacts were left out, after which states are wrong without being unstable."""
MOST_IN_BATCH = 16
"""Futures of one batch at most: as many as scratch data is kept for (``mujoco.native``)."""


class PhysicsDynamics(JoiningDynamics):
    """Rigid-body futures by MuJoCo, on a pool of threads (native calls release the interpreter lock).

    Args:
        floor_z: height of the floor [m]; None: 0.75 m below the lowest support (``ScenePreparation``).
        threads: workers; None: the processors of this process.
        max_timestep_s: largest physics step; the one used divides the step of the requested times.
    """

    name = "physics"

    def __init__(
        self, floor_z: float | None = None, threads: int | None = None, max_timestep_s: float = MAX_TIMESTEP_S
    ) -> None:
        self.floor_z = floor_z
        self.threads = threads or default_threads()
        self.max_timestep_s = max_timestep_s
        self._local = threading.local()
        self._worlds = WorldCache()
        self._future_s = 0.25 * BATCH_S
        self._pool = ThreadPoolExecutor(self.threads, thread_name_prefix="wm_physics")

    def close(self) -> None:
        """Ends the worker threads."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def timestep(self, times: Array) -> float:
        """Physics step [s] that divides the step of ``times`` (at most ``max_timestep_s``, at least 0.5
        ms).
        """
        if len(times) < 2:
            return self.max_timestep_s
        step = float(np.min(np.diff(times)))
        return max(step / np.ceil(step / self.max_timestep_s - 1e-6), 5e-4)

    def answer(self, call: RolloutCall) -> DynamicsResult:
        """See ``wm_dynamics.base.Dynamics.answer``.

        The states at time 0 are those after ``ScenePreparation``: up to some millimeters from those of the
        scene.
        """
        scenes, hypotheses, t, ids = call.scenes, call.hypotheses, call.times, call.object_ids
        preparation = ScenePreparation(scenes[0], self.floor_z, self.timestep(t), self._worlds.get)
        starts = list(preparation.starts(scenes, ended=call.ended))
        states, present = empty_result(starts, len(hypotheses), len(t), len(ids))
        contacts: list[Contact] = []
        warnings: list[FutureWarned] = []
        job = PhysicsJob(preparation, scenes, starts, t, hypotheses, self._worlds)
        named = ids.tolist()
        tasks = [(k, s) for k in range(len(hypotheses)) for s in range(len(scenes))]
        queue: deque[tuple[list[tuple[int, int]], Future[list[Trajectory] | None]]] = deque()
        completed, begun, stopped = 0, 0, False
        unstable = np.zeros(len(hypotheses), dtype=np.int64)
        try:
            while not stopped and not call.ended():
                # Few batches wait in the pool at any time, so that an end is quick.
                while begun < len(tasks) and len(queue) < 2 * self.threads:
                    batch = tasks[begun : begun + self._batch_size(len(tasks) - begun, call.deadline)]
                    begun += len(batch)
                    batch_futures = [(hypotheses[k], s) for k, s in batch]
                    queue.append((batch, self._pool.submit(self._run, job, batch_futures)))
                if not queue or call.late:
                    break
                batch, future = queue.popleft()
                trajectories = self._await(future, job, call.deadline)
                if trajectories is None:
                    break
                for (k, s), trajectory in zip(batch, trajectories, strict=True):
                    if call.stopped:
                        stopped = True
                        break
                    count = trajectory.states.shape[1]
                    states[k, s, :, :count] = trajectory.states
                    if s == 0:
                        present[k, :, :count] = trajectory.present
                    unstable[k] += not trajectory.stable
                    warnings.extend(FutureWarned(k, s, w.time_s, w.kind) for w in trajectory.warnings)
                    for touch in trajectory.touches:
                        a, b = named[touch.a], named[touch.b]
                        contacts.append(Contact(k, s, touch.time_s, min(a, b), max(a, b), touch.began))
                    if s == len(scenes) - 1:
                        completed = k + 1
                        if call.on_hypothesis is not None and not unstable[k]:
                            call.on_hypothesis(k, states[k], present[k])
        finally:
            job.stop()
            for _, future in queue:
                future.cancel()
            for _, future in queue:
                if not future.cancelled():
                    future.exception()  # what has begun is let end, so that the next request finds idle workers
            job.close()
        if unstable.any():
            log.warning(
                "physics: %d of %d rollouts diverged and were held at their last finite state",
                int(unstable.sum()),
                completed * len(scenes),
            )
        present[completed:] = False
        kept = tuple(c for c in contacts if c.hypothesis < completed)
        warned = tuple(w for w in warnings if w.hypothesis < completed)
        doubts = [f"{n} of {len(scenes)} samples: MuJoCo diverged" if n else "" for n in unstable.tolist()]
        for w in warned:
            if w.kind in _OVERFLOWS and not doubts[w.hypothesis]:
                doubts[w.hypothesis] = (
                    f"sample {w.sample}: MuJoCo had no room for all contacts ({w.kind}) from {w.time_s:.2f} s on"
                )
        return DynamicsResult(ids, states, present, kept, completed, self.name, doubts=tuple(doubts), warnings=warned)

    @staticmethod
    def _await(
        future: Future[list[Trajectory] | None], job: PhysicsJob, deadline: float | None
    ) -> list[Trajectory] | None:
        """A batch's trajectories; at the deadline the job is stopped, which may give the batch up."""
        try:
            return future.result(None if deadline is None else max(deadline - time.monotonic(), 0.0))
        except FutureTimeoutError:
            job.stop()
            return future.result()

    def _batch_size(self, left: int, deadline: float | None) -> int:
        """Futures of the next batch: as many as take ``BATCH_S``, few enough that all workers get their share, and ever
        fewer towards the deadline, at which an unfinished batch is lost.
        """
        share = max(1, -(-left // (2 * self.threads)))
        time_s = BATCH_S if deadline is None else min(BATCH_S, 0.25 * (deadline - time.monotonic()))
        return min(MOST_IN_BATCH, share, max(1, int(time_s / self._future_s)))

    def _run(self, job: PhysicsJob, batch_futures: Sequence[tuple[Hypothesis, int]]) -> list[Trajectory] | None:
        simulator = getattr(self._local, "simulator", None)
        if simulator is None:
            simulator = self._local.simulator = BatchSimulator()
        begin = time.monotonic()
        found = job.run(simulator, batch_futures)
        if found is not None:
            self._future_s += 0.3 * ((time.monotonic() - begin) / len(batch_futures) - self._future_s)
        return found
