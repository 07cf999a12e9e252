"""Imagined futures as arrays, and requests for them."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from wm_core.camera import Camera
from wm_core.interventions import ActionBatch, Hypothesis
from wm_core.scene_graph import EventKind, SceneGraph, index_of

STATE_SIZE = 13
"""Position (3) [m], quaternion x, y, z, w (4), linear velocity (3) [m/s], angular velocity (3) [rad/s]."""

POSITION = slice(0, 3)
QUATERNION = slice(3, 7)
LINEAR_VELOCITY = slice(7, 10)
ANGULAR_VELOCITY = slice(10, 13)


class RequestError(ValueError):
    """A request that cannot be answered; the message names the field, what was found and what was expected."""


@dataclass(frozen=True)
class RolloutEvent:
    """An imagined event.

    Attributes:
        hypothesis, sample: indices of the future.
        kind: what happens. a, b: object ids; ``b`` 0: only one takes part.
        time_s: after the start of the rollout [s].
    """

    hypothesis: int
    sample: int
    kind: EventKind
    a: int
    b: int
    time_s: float


@dataclass(frozen=True)
class ImageRequest:
    """Which imagined images to make.

    Attributes:
        video, depth, points: whether color frames, depth frames and point clouds are wanted.
        rate_hz: frames per second of the rollout.
        camera: of the images; world_T_camera: (4, 4) pose of its optical frame; None: those of the latest frame.
    """

    video: bool = False
    depth: bool = False
    points: bool = False
    rate_hz: float = 10.0
    camera: Camera | None = None
    world_T_camera: NDArray[np.float64] | None = None

    @property
    def any_images(self) -> bool:
        """True when frames must be rendered."""
        return self.video or self.depth


class StatesWanted(IntEnum):
    """Which states an answer holds; as in wm_msgs/ImagineRequest."""

    ALL = 0
    FINAL = 1
    NONE = 2


@dataclass(frozen=True)
class EventQuestion:
    """Which objects' removal would prevent an event? Fields as in wm_msgs/EventQuestion.

    Attributes:
        hypothesis: index of the future that it is about.
        kind, a, b: the event; ``b`` 0: any second object.
        until_s: it counts when it happens by then [s]; 0: the horizon.
        object_ids: whose removal is tried; empty: every movable object but a and b, and created bodies.
    """

    kind: EventKind
    a: int
    b: int = 0
    hypothesis: int = 0
    until_s: float = 0.0
    object_ids: tuple[int, ...] = ()


@dataclass(frozen=True)
class EventAnswer:
    """How likely an event is, and how likely without each of C objects, the most preventing first.

    Attributes:
        question: that of the request.
        probability: 0..1 with everything there; NaN: not computed.
        object_ids: (C,) int64.
        probability_without: (C,) 0..1; NaN: not computed.
        prevented: (C,) of the samples in which it happens the fraction in which it does not without the object;
            NaN: not computed, or it never happens.
    """

    question: EventQuestion
    probability: float
    object_ids: NDArray[np.int64]
    probability_without: NDArray[np.float64]
    prevented: NDArray[np.float64]


@dataclass(frozen=True)
class ImagineRequest:
    """What to imagine; as in wm_msgs/ImagineRequest.

    Attributes:
        hypotheses: given one by one; batches: given as arrays, counted after them.
        horizon_s: duration of the futures [s]; step_s: between their states [s].
        samples: S, samples of the belief for each hypothesis; seed: of all random numbers.
        backend: auto, or the name of the dynamics.
        pairs: of object ids whose separation and collision are wanted.
        deadline_s: time for the answer [s]; 0: none.
        initial_state: None: the latest scene graph.
        images: which images to make.
        want_states: which states the answer holds; want_events: whether it lists events.
        event_kinds: of the events whose probabilities are wanted.
        questions: of the causes of events.
    """

    hypotheses: tuple[Hypothesis, ...]
    horizon_s: float
    step_s: float = 1.0 / 30.0
    samples: int = 1
    seed: int = 0
    backend: str = "auto"
    pairs: tuple[tuple[int, int], ...] = ()
    deadline_s: float = 0.0
    initial_state: SceneGraph | None = None
    images: ImageRequest = field(default_factory=ImageRequest)
    batches: tuple[ActionBatch, ...] = ()
    want_states: StatesWanted = StatesWanted.ALL
    want_events: bool = True
    event_kinds: tuple[EventKind, ...] = ()
    questions: tuple[EventQuestion, ...] = ()

    @property
    def count(self) -> int:
        """K, the number of futures, without expanding batches."""
        return len(self.hypotheses) + sum(len(b) for b in self.batches)

    @cached_property
    def futures(self) -> tuple[Hypothesis, ...]:
        """All K hypotheses: those given, then those of the (valid) batches."""
        return (*self.hypotheses, *(h for b in self.batches for h in b.hypotheses))

    @property
    def times(self) -> NDArray[np.float64]:
        """(T,) times of the states [s]: 0, step, 2 step, ... up to and including the horizon."""
        # Messages carry float32: 2 s in steps of 1/30 s must not come out as 59.999997 of them.
        count = int(np.floor(self.horizon_s / self.step_s * (1.0 + 1e-6)))
        return np.arange(count + 1, dtype=np.float64) * self.step_s


@dataclass(frozen=True)
class Rollout:
    """K futures of N objects, S samples, T times.

    Attributes:
        stamp_ns, frame_id: of the scene graph that it starts from.
        hypotheses: K names.
        times: (T,) [s].
        object_ids: (N,) those of the graph, then created bodies.
        states: (K, S, T, N, 13), see ``STATE_SIZE``; (K, S, 0, N, 13) where the request wants only final ones or none.
        present: (K, T, N) bool, or (K, 0, N) like states.
        position_std: (K, T, N) [m], or (K, 0, N) like states.
        events: see ``RolloutEvent``.
        effect: (K, N) [m] largest distance from the object's own factual future over all times, mean over samples.
        effect_vector: (K, N, 3) [m] position at the end less that of the factual future, mean over samples.
            Both are NaN where the object is absent from one of the two futures.
        pairs: P pairs of ids, in the order of the request.
        pair_separation: (K, P) [m] smallest surface distance over times and samples, negative when penetrating.
        pair_collision: (K, P) 0..1, part of the samples in which the pair touched.
        complete: whether all of it was computed; else ``computed`` says which futures were.
        backends: K names of the dynamics that answered each; empty: all by ``backend``.
        computed: (K,) bool; dynamics_s: wall-clock time of the dynamics [s].
        warnings: sentences on doubtful input that was answered.
        valid: (K,) bool, false: not to be acted upon. Its states are those of the backend; position_std, effect, pairs,
            event_probability and answers of it, and effects against an invalid factual future, are NaN. Futures that
            were not computed are not valid either. Empty: not checked.
        invalid_reasons: K strings, empty where valid: not finite, faster or of more energy than possible, or the
            backend is unsure of it. Empty: not checked.
        final_states: (K, S, N, 13), final_present: (K, N), final_position_std: (K, N) [m], at the last time.
        event_kinds: E kinds; event_probability: (K, E, N) 0..1, NaN where not computed.
        path_outside: (K,) how far a kinematic body's path goes beyond the workspace [m].
        answers: one for each of the request's questions about events.
        frame_times: (F,) [s].
        video: (K, F, H, W, 3) uint8 RGB, or None.
        depth: (K, F, H, W) float32 [m], 0 where nothing is, or None.
        camera, world_T_camera: of the frames.
        points: N arrays (P, 3) in object frames [m]; point_colors: N arrays (P, 3) uint8; empty tuples: not requested.
    """

    stamp_ns: int
    frame_id: str
    hypotheses: tuple[str, ...]
    times: NDArray[np.float64]
    object_ids: NDArray[np.int64]
    states: NDArray[np.float32]
    present: NDArray[np.bool_]
    backend: str
    complete: bool = True
    position_std: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0, 0), np.float32))
    events: tuple[RolloutEvent, ...] = ()
    effect: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    effect_vector: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0, 3), np.float32))
    pairs: tuple[tuple[int, int], ...] = ()
    pair_separation: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    pair_collision: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    frame_times: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    video: NDArray[np.uint8] | None = None
    depth: NDArray[np.float32] | None = None
    camera: Camera | None = None
    world_T_camera: NDArray[np.float64] | None = None
    points: tuple[NDArray[np.float32], ...] = ()
    point_colors: tuple[NDArray[np.uint8], ...] = ()
    backends: tuple[str, ...] = ()
    computed: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, bool))
    valid: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, bool))
    invalid_reasons: tuple[str, ...] = ()
    dynamics_s: float = 0.0
    warnings: tuple[str, ...] = ()
    final_states: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0, 0, STATE_SIZE), np.float32))
    final_present: NDArray[np.bool_] = field(default_factory=lambda: np.zeros((0, 0), bool))
    final_position_std: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    event_kinds: tuple[EventKind, ...] = ()
    event_probability: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0, 0), np.float32))
    path_outside: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    answers: tuple[EventAnswer, ...] = ()

    @property
    def usable(self) -> NDArray[np.bool_]:
        """(K,) futures to choose among: computed, and valid where that was checked."""
        count = len(self.hypotheses)
        computed = self.computed if len(self.computed) == count else np.ones(count, dtype=bool)
        return computed & self.valid if len(self.valid) == count else computed

    @property
    def answered_by(self) -> tuple[str, ...]:
        """K names of the dynamics that answered each hypothesis."""
        return self.backends or (self.backend,) * len(self.hypotheses)

    def index(self, object_id: int) -> int:
        """Index of an object among the N.

        Raises:
            KeyError: no such id; the message lists those that exist.
        """
        return index_of(object_id, self.object_ids, "rollout")

    def positions(self, hypothesis: int = 0, sample: int = 0) -> NDArray[np.float32]:
        """(T, N, 3) [m] of one future."""
        return self.states[hypothesis, sample, :, :, POSITION]


class Imagines(Protocol):
    """What answers a request; ``wm_imagination.engine.Imagination`` does."""

    def imagine(self, request: ImagineRequest, scene: SceneGraph | None) -> Rollout:
        """The futures that the request asks for, of the scene."""
