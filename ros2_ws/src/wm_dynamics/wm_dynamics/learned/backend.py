"""The ``learned`` dynamics backend: a contact network (ONNX) that rolls out thousands of futures at once.

The network makes one fixed step of all bodies of all futures together (``training.dynamics.model`` describes it). This
package adds which bodies are awake, which pairs are near, which surface is beneath, interventions, and outputs.

Every object at rest that nothing touches is asleep: it costs nothing and keeps its pose exactly, as in the
``physics`` backend. Belief samples start from the same preparation as there (``ScenePreparation``), so that the two
differ in how the world moves, not in the start. The samples beyond the first also get the scatter that the
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

from wm_core.inference.base import InferenceError
from wm_core.interventions import Hypothesis
from wm_core.scene_graph import SceneGraph
from wm_dynamics.base import (
    Contact,
    DynamicsResult,
    RolloutCall,
    default_threads,
    empty_result,
)
from wm_dynamics.contact_step.compiled import CompiledStep
from wm_dynamics.contact_step.network import DynamicsNetwork, default_model
from wm_dynamics.joining.dynamics import JoiningDynamics
from wm_dynamics.learned.compiled_futures import CompiledFutureBatch
from wm_dynamics.learned.futures import FutureBatch
from wm_dynamics.learned.onnx_futures import OnnxFutureBatch
from wm_dynamics.learned.scene import Array, PreparedScene
from wm_dynamics.scene_key import scene_key
from wm_dynamics.settling.preparation import ScenePreparation
from wm_dynamics.settling.rest import put_to_rest

log = logging.getLogger(__name__)

CHUNK_BODIES = 16384
"""Bodies of the futures that one worker steps together at most: more need memory beyond the caches, fewer need more
calls of the network."""
SHARED_BODIES = 4096
"""Bodies of all futures of a request below which one worker makes all steps: calling the operations then costs more
than the bodies do. Larger uses one worker for larger requests."""
ENGINES = ("auto", "compiled", "onnxruntime")
"""Ways to make the steps, see ``LearnedDynamics``."""
SHARED_COMPILED_BODIES = 256
"""SHARED_BODIES of the compiled engine."""
CHUNK_COMPILED_BODIES = 1024
"""CHUNK_BODIES of the compiled engine: small, so that Python prepares one chunk while another is stepped."""
KEPT_SCENES = 4
"""Scenes whose preparation is kept for the next request, because planners send many about one scene."""


class LearnedDynamics(JoiningDynamics):
    """Rigid-body futures by the contact network.

    Args:
        model: ONNX file; None: the shipped one.
        threads: workers; None: the processors of this process.
        floor_z: height of the floor [m]; None: 0.75 m below the lowest support.
        engine: what makes the steps: ``compiled`` (for this processor), ``onnxruntime``, or ``auto``: compiled, or
            ONNX Runtime where that is not possible (the reason is logged). The ONNX graph has whole bodies alone: in
            ONNX Runtime objects of several parts collide as their convex outlines, which is logged, too.

    Attributes:
        engine: ``compiled`` or ``onnxruntime``.
        network: as ONNX Runtime runs it.
        threads, floor_z: as given.

    Raises:
        InferenceError: see ``DynamicsNetwork``; or ``compiled`` was required and is not possible.
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
        self._warned_of_parts = False
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
        """The start of the futures, kept for the last few scenes because planners send many requests about one."""
        key = (slots, *(scene_key(scene) for scene in scenes))
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        if self._compiled is None and any(scenes[0].parts) and not self._warned_of_parts:
            self._warned_of_parts = True
            log.warning("dynamics: ONNX Runtime makes the steps, so objects of several parts collide as their outlines")
        preparation = ScenePreparation(scenes[0], self.floor_z, 1.0 / 240.0)
        known = PreparedScene(preparation, scenes, preparation.starts(scenes, ended=ended), slots)
        put_to_rest(known, self._futures, ended)
        if ended():
            return known
        with self._lock:
            self._kept[key] = known
            while len(self._kept) > KEPT_SCENES:
                self._kept.popitem(last=False)
        return known

    def _chunk_size(self, hypotheses: int, bodies: int, hurried: bool) -> int:
        """Hypotheses that one worker steps together; ``bodies``: of one hypothesis."""
        shared, most = SHARED_BODIES, CHUNK_BODIES
        if self._compiled is not None:
            shared, most = SHARED_COMPILED_BODIES, CHUNK_COMPILED_BODIES
        workers = 1 if hypotheses * bodies < shared else self.threads
        size = -(-hypotheses // workers)
        if hurried:
            # Hypotheses that are done at the deadline count, so the portions are smaller.
            size = min(size, max(32, hypotheses // 8))
        return max(1, min(size, most // max(bodies, 1)))

    def _futures(self, known: PreparedScene, hypotheses: Sequence[Hypothesis], times: Array) -> FutureBatch:
        if self._compiled is not None:
            return CompiledFutureBatch(known, hypotheses, times, self._compiled)
        return OnnxFutureBatch(known, hypotheses, times, self.network)

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
