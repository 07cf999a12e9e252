"""The ``learned`` dynamics backend: a contact network (ONNX) that answers thousands of futures at once.

The network makes one fixed step of all bodies of all futures together (``training.dynamics.model`` says what it is).
Around it, here: which bodies are awake, which pairs are near, which surface is beneath, what interventions change, and
what comes out.

Every object at rest that nothing comes near is asleep: it costs nothing and keeps its place exactly, as in the
``physics`` backend. Belief samples start from the same preparation as there (``ScenePreparation``), so that the two
differ in how the world moves and not in where it begins. The samples beyond the first also get the scatter that the
network learned to leave open; the random numbers depend on sample and object alone, so that hypotheses are compared
under the same ones.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from wm_core.inference.base import InferenceError
from wm_core.interventions import Hypothesis
from wm_core.rollout import POSITION, QUATERNION
from wm_core.scene_graph import SceneGraph
from wm_dynamics.base import (
    Contact,
    Dynamics,
    DynamicsResult,
    RolloutCall,
    default_threads,
    empty_result,
)
from wm_dynamics.contact_step.compiled import CompiledStep
from wm_dynamics.contact_step.network import DynamicsNetwork, default_model
from wm_dynamics.learned.compiled_futures import CompiledFutureBatch
from wm_dynamics.learned.futures import FutureBatch
from wm_dynamics.learned.onnx_futures import OnnxFutureBatch
from wm_dynamics.learned.scene import SETTLE_STEPS, Array, Flags, PreparedScene, scene_key
from wm_dynamics.preparation import ScenePreparation

log = logging.getLogger(__name__)

CHUNK_BODIES = 16384
"""Bodies of the futures that one worker steps together at most."""
SHARED_BODIES = 4096
"""Below so many bodies in all a second worker gains nothing: a step costs more for its operations than for its
bodies.
"""
SETTLE_MOVE_M = 0.002
"""A body that was seen at rest and moves by less in the first SETTLE_STEPS, undisturbed, is at rest [m]; larger, and a
body that begins to slide is held."""
SETTLE_ROUNDS = 3
"""Times that bodies are put to sleep: each round those that stand on what slept in the round before."""
CALM_S = 1.0
CALM_MOVE_M = 0.025
"""A body that was seen at rest and sleeps within CALM_S of the start, no farther than CALM_MOVE_M from it, has settled:
one perceived some degrees off the face that it stands on rocks down by a centimeter [s, m]."""
CALM_ROUNDS = 4
"""Times that a sample is drawn halfway to the mean, the last time all the way."""
ENGINES = ("auto", "compiled", "onnxruntime")
SHARED_COMPILED_BODIES = 256
CHUNK_COMPILED_BODIES = 1024
"""SHARED_BODIES and CHUNK_BODIES of the compiled engine: small chunks, so that Python prepares one while the steps of
another are made."""
KEPT_SCENES = 4
"""Scenes whose preparation is kept for the next request; KEPT_BODIES: bodies of interventions kept for each."""


def _drawn_in(mean: Array, starts: Array, share: float) -> Array:
    """Samples' start states (S, N, 13) with their poses at ``share`` of the way from the mean's (N, 13)."""
    result = starts.copy()
    result[..., POSITION] = mean[:, POSITION] + share * (starts[..., POSITION] - mean[:, POSITION])
    if result.size:
        origin = Rotation.from_quat(np.tile(mean[:, QUATERNION], (len(starts), 1)))
        turn = Rotation.from_quat(starts[..., QUATERNION].reshape(-1, 4)) * origin.inv()
        turned = Rotation.from_rotvec(share * turn.as_rotvec()) * origin
        result[..., QUATERNION] = turned.as_quat().reshape(*starts.shape[:2], 4)
    return result


def _make_steps(world: FutureBatch, count: int, ended: Callable[[], bool]) -> None:
    """Steps without interventions and outputs, fewer where the time is over before."""
    while count > 0 and not ended():
        portion = min(count, world.portion())
        world.make_steps(portion)
        count -= portion


class LearnedDynamics(Dynamics):
    """Rigid-body futures by the contact network.

    Args:
        model: ONNX file; None: the shipped one.
        threads: workers; None: the processors of this process.
        floor_z: height of the floor [m]; None: 0.75 m below the lowest support.
        engine: what makes the steps: ``compiled`` (for this processor), ``onnxruntime``, or ``auto``: compiled, and
            ONNX Runtime where that cannot be (the reason is logged).

    Attributes:
        engine: ``compiled`` or ``onnxruntime``.

    Raises:
        InferenceError: see ``DynamicsNetwork``; or ``compiled`` was asked for and cannot be.
        ValueError: unknown engine.
    """

    name = "learned"

    def __init__(
        self,
        model: str | Path | None = None,
        threads: int | None = None,
        floor_z: float | None = None,
        engine: str = "auto",
    ) -> None:
        if engine not in ENGINES:
            raise ValueError(f"engine: got {engine!r}, expected one of {', '.join(ENGINES)}")
        path = Path(model) if model else default_model()
        self._compiled: CompiledStep | None = None
        if engine != "onnxruntime":
            self.network = DynamicsNetwork(path, quick=True)
            try:
                self._compiled = CompiledStep(self.network)
            except InferenceError as error:
                if engine == "compiled":
                    raise
                log.warning("dynamics: ONNX Runtime makes the steps, because %s", error)
        if self._compiled is None:
            self.network = DynamicsNetwork(path)
        self.engine = "compiled" if self._compiled is not None else "onnxruntime"
        self.threads = threads or default_threads()
        self.floor_z = floor_z
        self._kept: OrderedDict[tuple[object, ...], PreparedScene] = OrderedDict()
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(self.threads, thread_name_prefix="wm_learned")

    def close(self) -> None:
        """Ends the worker threads."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def answer(self, call: RolloutCall) -> DynamicsResult:
        """See ``wm_dynamics.base.Dynamics.answer``; a deadline also ends hypotheses that have begun."""
        scenes, hypotheses, t, ids = call.scenes, call.hypotheses, call.times, call.object_ids
        stopped = threading.Event()

        def ended() -> bool:
            if call.ended():
                stopped.set()
            return stopped.is_set()

        known = self._known_of(scenes, len(ids), ended)
        states, present = empty_result(list(known.starts), len(hypotheses), len(t), len(ids))
        scatter = np.zeros((len(hypotheses), len(ids)), dtype=np.float32)
        doubts = [""] * len(hypotheses)
        contacts: list[Contact] = []
        completed = 0
        if not ended():
            size = self._chunk_size(len(hypotheses), len(scenes) * len(ids), call.deadline is not None)
            parts = [range(k, min(k + size, len(hypotheses))) for k in range(0, len(hypotheses), size)]
            queue: list[tuple[range, Future[FutureBatch | None]]] = [
                (
                    part,
                    self._pool.submit(
                        self._chunk, known, [hypotheses[k] for k in part], scenes[0], t, ids, stopped, call.deadline
                    ),
                )
                for part in parts
            ]
            for part, future in queue:
                while not future.done() and not ended():
                    try:
                        future.exception(timeout=0.02)
                    except TimeoutError:
                        continue
                done = None if stopped.is_set() and not future.done() else future.result()
                if done is None:
                    stopped.set()
                    break
                rows = slice(part.start, part.stop)
                states[rows] = done.outputs.states
                present[rows] = done.outputs.present
                scatter[rows] = done.scatter
                doubts[rows] = done.doubts
                contacts.extend(done.contacts(part.start, ids))
                completed = part.stop
                if call.on_hypothesis is not None:
                    for k in part:
                        if not doubts[k]:
                            call.on_hypothesis(k, states[k], present[k])
            for _, future in queue:
                future.cancel()
            for _, future in queue:
                if not future.cancelled():
                    future.exception()
        present[completed:] = False
        return DynamicsResult(
            ids, states, present, tuple(contacts), completed, self.name, doubts=tuple(doubts), scatter=scatter
        )

    # -- parts

    def _known_of(self, scenes: Sequence[SceneGraph], slots: int, ended: Callable[[], bool]) -> PreparedScene:
        """What the futures begin from; that of the last few scenes is kept, as a planner asks of one scene again."""
        key = (slots, *(scene_key(scene) for scene in scenes))
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        known = self._prepared(scenes, slots, ended)
        if ended():
            return known
        with self._lock:
            self._kept[key] = known
            while len(self._kept) > KEPT_SCENES:
                self._kept.popitem(last=False)
        return known

    def _prepared(
        self, scenes: Sequence[SceneGraph], slots: int, ended: Callable[[], bool] = lambda: False
    ) -> PreparedScene:
        """What the futures begin from; samples in which what was seen at rest would topple are drawn toward the mean.

        An object at rest can only be where something carries it. The draws do not know that, as each object is drawn by
        itself. What is taken from a position so goes back into the answer's positions (``wm_dynamics.settling``).

        Args:
            ended: whether the time is over; what is returned then is not fit to be asked.
        """
        preparation = ScenePreparation(scenes[0], self.floor_z, 1.0 / 240.0)
        known = PreparedScene(preparation, scenes, preparation.starts(scenes, ended=ended), slots)
        self._rest(known, ended)
        if len(scenes) == 1 or (known.asleep[0] | known.fixed[0])[: known.count].all():
            return known
        part = known
        rows = np.arange(len(scenes))
        for attempt in range(CALM_ROUNDS):
            rows = rows[self._unrest(part, ended)]
            if not len(rows) or ended():
                break
            share = 0.5 if attempt < CALM_ROUNDS - 1 else 0.0
            rests = np.flatnonzero(known.at_rest[0, : known.count])
            known.starts[np.ix_(rows, rests)] = _drawn_in(known.starts[0, rests], known.starts[rows][:, rests], share)
            # The others rest, and the samples do not know of one another: only these are asked again, and the mean.
            rows = np.concatenate([[0], rows])
            part = known.part(rows)
            self._rest(part, ended)
            for name in ("asleep", "touching", "on_surface"):
                getattr(known, name)[rows] = getattr(part, name)
        return known

    def _chunk_size(self, hypotheses: int, bodies: int, hurried: bool) -> int:
        """Hypotheses that one worker takes together; ``bodies``: of one hypothesis."""
        shared, most = SHARED_BODIES, CHUNK_BODIES
        if self._compiled is not None:
            shared, most = SHARED_COMPILED_BODIES, CHUNK_COMPILED_BODIES
        workers = 1 if hypotheses * bodies < shared else self.threads
        size = -(-hypotheses // workers)
        if hurried:
            # What is done when the time is over counts, so it is done in smaller portions.
            size = min(size, max(32, hypotheses // 8))
        return max(1, min(size, most // max(bodies, 1)))

    def _futures(self, known: PreparedScene, hypotheses: Sequence[Hypothesis], times: Array) -> FutureBatch:
        if self._compiled is not None:
            return CompiledFutureBatch(known, hypotheses, times, self._compiled)
        return OnnxFutureBatch(known, hypotheses, times, self.network)

    def _rest(self, known: PreparedScene, ended: Callable[[], bool]) -> None:
        """Puts to sleep (S, M) what stays where it is when nothing is done.

        What rests in the mean rests in every sample. It was seen to rest, so a draw of its place in which it would
        slide or tip over (a box drawn half off the box that bears it) is wrong about the place, not about the rest.
        """
        still = known.at_rest & ~known.fixed
        known.asleep[:] = False
        # What stands on something that rocks by a hair while both are awake may rest once that one sleeps.
        for _ in range(SETTLE_ROUNDS):
            awake = still & ~known.asleep
            if not awake.any() or ended():
                break
            world = self._futures(known, [Hypothesis("")], np.zeros(1))
            begin = world.state.bodies.position.copy()
            _make_steps(world, SETTLE_STEPS, ended)
            moved = np.linalg.norm(world.state.bodies.position - begin, axis=0).reshape(still.shape)
            known.touching[:] = world.state.pairs.touching
            known.on_surface[:] = world.state.surfaces.on_surface
            rests = awake & (moved < SETTLE_MOVE_M)
            rests = awake & (rests | rests[:1])
            if not rests.any():
                break
            known.asleep |= rests

    def _unrest(self, known: PreparedScene, ended: Callable[[], bool]) -> Flags:
        """(S,) samples in which what comes to rest in the mean, nearly where it was seen, does not."""
        world = self._futures(known, [Hypothesis("")], np.array([0.0, CALM_S]))
        bodies, shape = world.state.bodies, known.at_rest.shape
        begin = bodies.position.copy()
        _make_steps(world, world.last, ended)
        moved = np.linalg.norm(bodies.position - begin, axis=0).reshape(shape)
        asleep = bodies.asleep.reshape(shape)
        calm = known.at_rest[0] & ~known.fixed[0] & asleep[0] & (moved[0] < CALM_MOVE_M)
        unlike = ~asleep | (np.abs(moved - moved[:1]) > CALM_MOVE_M)
        # What a sample was drawn to move, as it may, is no contradiction.
        found: Flags = (calm & known.at_rest & unlike).any(axis=1)
        return found

    def _chunk(
        self,
        known: PreparedScene,
        hypotheses: Sequence[Hypothesis],
        scene: SceneGraph,
        times: Array,
        ids: NDArray[np.int64],
        stopped: threading.Event,
        deadline: float | None,
    ) -> FutureBatch | None:
        """The futures of some hypotheses; None when stopped before the end."""
        if stopped.is_set():
            return None
        world = self._futures(known, hypotheses, times)
        world.schedule(scene)
        while not world.finished:
            if stopped.is_set() or (deadline is not None and time.monotonic() >= deadline):
                return None
            world.advance()
        world.gather()
        return world
