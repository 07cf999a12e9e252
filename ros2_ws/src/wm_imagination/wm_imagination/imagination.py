"""What if: a request in, K imagined futures out. Validation, dynamics, effects, images, points.

Knows nothing of ROS; the node only translates.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from wm_core.geometry import normalize_quaternion, pose_matrix, rotation_distance
from wm_core.inference.backends import InferenceError
from wm_core.interventions import (
    Hypothesis,
    Intervention,
    InterventionKind,
    UnknownObjectError,
    validate_hypotheses,
)
from wm_core.rollout import (
    POSITION,
    QUATERNION,
    STATE_SIZE,
    EventAnswer,
    ImagineRequest,
    RequestError,
    Rollout,
    StatesWanted,
)
from wm_core.scene_graph import SceneGraph, Shape
from wm_dynamics.base import Dynamics, DynamicsResult, default_threads, object_slots, targets
from wm_dynamics.belief import centre_offsets, move_centres, moving_objects, sample_belief
from wm_dynamics.events import EventTable, event_table, workspace_bounds
from wm_dynamics.factory import make_dynamics
from wm_dynamics.separation import surface_separation
from wm_dynamics.validity import Validity, check_futures
from wm_imagination import causal, estimate
from wm_imagination.appearance.memory import AppearanceMemory
from wm_imagination.appearance.model import Appearance
from wm_imagination.appearance.points import sample_primitive
from wm_imagination.rendering.primitives import Body, shade
from wm_imagination.rendering.renderer import RenderedFrame, Renderer

log = logging.getLogger(__name__)

BACKENDS = ("auto", "learned", "physics", "straight", "still")
MIN_STEP_S = 1e-3
MAX_IMAGE_SIDE = 4096
MAX_VIDEO_RATE_HZ = 1000.0
# Without images the futures are all of the work; with them about this share of it.
_DYNAMICS_SHARE_WITH_IMAGES = 0.4
_MAX_WARNINGS = 16


class NoAppearanceError(RequestError):
    """Images were asked for before any camera image was seen."""


class BackendUnavailableError(RuntimeError):
    """The dynamics backend cannot run here; the message says why."""


@dataclass(frozen=True)
class Limits:
    """What one request may ask for; beyond it the request is refused before any work.

    Attributes:
        max_hypotheses, max_interventions (per hypothesis), max_path_poses (per path), max_samples, max_pairs:
            counts.
        max_horizon_s: [s].
        max_times: states in time, horizon / step + 1.
        max_state_values: K * S * T * N * 13 numbers, the bulk of an answer (16 million are 64 MB).
        max_image_bytes: K * F * H * W * (3 for video, 4 for depth), uncompressed.
        max_object_points: coloured points per object in an answer.
        max_request_bytes: all memory of a request at once, as ``estimate`` counts it.
        default_deadline_s: when a request ends that names no deadline [s]; one that cannot be done by then is refused.
            0: never.
        max_deadline_s: deadline that a request may name [s].
    """

    max_hypotheses: int = 1024
    max_interventions: int = 64
    max_path_poses: int = 10_000
    max_samples: int = 256
    max_pairs: int = 1024
    max_horizon_s: float = 30.0
    max_times: int = 10_001
    max_state_values: int = 16_000_000
    max_image_bytes: int = 1 << 29
    max_object_points: int = 5000
    max_request_bytes: int = 8_000_000_000
    default_deadline_s: float = 0.0
    max_deadline_s: float = 1e6


@dataclass(frozen=True)
class Progress:
    """Something is done: a hypothesis' states, or a frame.

    Attributes:
        fraction: of the whole request, 0..1.
        hypothesis: index 0..K-1.
        partial: states of that hypothesis alone (K = 1; no effect, no events), or None.
        frame: an image just drawn, or None; at ``frame_time_s`` after the start.
        frame_index: of ``frame`` among that hypothesis' frames.
    """

    fraction: float
    hypothesis: int
    partial: Rollout | None = None
    frame: RenderedFrame | None = None
    frame_time_s: float = 0.0
    frame_index: int = 0


OnProgress = Callable[[Progress], None]


def _check_range(name: str, value: float, low: float, high: float, unit: str, low_open: bool = False) -> None:
    if not np.isfinite(value) or value > high or value < low or (low_open and value <= low):
        bound = f"more than {low:g}" if low_open else f"{low:g}"
        raise RequestError(f"{name}: got {value:g}{unit}, expected {bound} to {high:g}{unit}")


def validate_request(
    request: ImagineRequest, scene: SceneGraph, limits: Limits, appearance: Appearance | None = None
) -> None:
    """Refuse what cannot be answered, cheapest checks first; K = 10^6 costs no more than K = 0.

    Raises:
        RequestError, NoAppearanceError, InterventionError, UnknownObjectError: the message names the field,
            what was
            found and what was expected.
    """
    count = request.count
    if not 1 <= count <= limits.max_hypotheses:
        what = "hypotheses and batches" if request.batches else "hypotheses"
        raise RequestError(f"{what}: got {count}, expected 1 to {limits.max_hypotheses} (max_hypotheses)")
    _check_range("horizon", request.horizon_s, 0.0, limits.max_horizon_s, " s", low_open=True)
    _check_range("step", request.step_s, MIN_STEP_S, request.horizon_s, " s")
    steps = len(request.times)
    if steps > limits.max_times:
        raise RequestError(
            f"step: got {request.step_s:g} s over {request.horizon_s:g} s, which are {steps} states, "
            f"expected at most {limits.max_times}"
        )
    if not 1 <= request.samples <= limits.max_samples:
        raise RequestError(f"samples: got {request.samples}, expected 1 to {limits.max_samples}")
    if request.seed < 0:
        raise RequestError(f"seed: got {request.seed}, expected >= 0")
    if request.backend not in BACKENDS:
        raise RequestError(f"backend: got {request.backend!r}, expected one of {', '.join(BACKENDS)}")
    # 0: the default. NaN and negative ones are mistakes, not wishes.
    _check_range("deadline", request.deadline_s, 0.0, limits.max_deadline_s, " s")
    if len(request.pairs) > limits.max_pairs:
        raise RequestError(f"pairs: got {len(request.pairs)}, expected at most {limits.max_pairs}")
    for name in ("log_mass", "friction", "restitution", "log_mass_std", "friction_std", "restitution_std"):
        unknown = scene.ids[~np.isfinite(getattr(scene, name))]
        if len(unknown):
            raise RequestError(
                f"initial_state.objects.{name}: got a value that is not finite for ids {unknown.tolist()[:8]}"
            )
    for k, hypothesis in enumerate(request.hypotheses):
        if len(hypothesis.interventions) > limits.max_interventions:
            raise RequestError(
                f"hypotheses[{k}].interventions: got {len(hypothesis.interventions)}, "
                f"expected at most {limits.max_interventions}"
            )
        for j, intervention in enumerate(hypothesis.interventions):
            if len(intervention.path_times) > limits.max_path_poses:
                raise RequestError(
                    f"hypotheses[{k}].interventions[{j}].path: got {len(intervention.path_times)} poses, "
                    f"expected at most {limits.max_path_poses}"
                )
    for k, batch in enumerate(request.batches):
        if len(batch.times) > limits.max_path_poses:
            raise RequestError(f"batches[{k}].times: got {len(batch.times)}, expected at most {limits.max_path_poses}")
        if batch.interventions_each > limits.max_interventions:
            raise RequestError(
                f"batches[{k}]: got {batch.interventions_each} interventions in each sequence, "
                f"expected at most {limits.max_interventions}"
            )
    validate_hypotheses(request.hypotheses, scene, request.horizon_s, request.batches)
    for e, kind in enumerate(request.event_kinds):
        causal.check_kind(kind, f"event_kinds[{e}]")
    ids = object_slots(scene, request.futures)
    values = count * request.samples * steps * len(ids) * STATE_SIZE
    if values > limits.max_state_values:
        raise RequestError(
            f"hypotheses x samples x times x objects: got {count} x {request.samples} x {steps} x {len(ids)}, "
            f"which are {values} state values, expected at most {limits.max_state_values}; "
            "ask for fewer, or a larger step"
        )
    known = set(ids.tolist())
    for p, pair in enumerate(request.pairs):
        for object_id in pair:
            if object_id not in known:
                raise UnknownObjectError(
                    f"pairs[{p}]: object id {object_id} is not in the scene graph or created (ids: {sorted(known)})"
                )
        if pair[0] == pair[1]:
            raise RequestError(f"pairs[{p}]: got {pair[0]} twice, expected two objects")
    _validate_images(request, scene, limits, appearance)


def _validate_images(request: ImagineRequest, scene: SceneGraph, limits: Limits, appearance: Appearance | None) -> None:
    images = request.images
    if not images.any_images:
        return
    _check_range("video_rate", images.rate_hz, 0.0, MAX_VIDEO_RATE_HZ, " Hz", low_open=True)
    if images.world_T_camera is not None and not np.isfinite(images.world_T_camera).all():
        raise RequestError("camera_pose: got a number that is not finite, expected a pose")
    if images.camera is not None and max(images.camera.width, images.camera.height) > MAX_IMAGE_SIDE:
        raise RequestError(
            f"camera: got {images.camera.width}x{images.camera.height} pixels, expected at most {MAX_IMAGE_SIDE} a side"
        )
    if appearance is None or appearance.frame is None:
        raise NoAppearanceError(
            "want_video, want_depth: images were asked for, but no camera image was seen yet; "
            "expected colour, depth, camera_info and instances of one stamp (see diagnostics)"
        )
    if appearance.frame.frame_id != scene.frame_id:
        raise RequestError(
            f"initial_state.header.frame_id: got {scene.frame_id!r}, expected {appearance.frame.frame_id!r}, "
            "the frame in which the camera images were seen"
        )
    camera = images.camera or appearance.frame.camera
    frames = len(frame_rows(request.times, images.rate_hz))
    per_pixel = 3 * images.video + 4 * images.depth
    size = request.count * frames * camera.width * camera.height * per_pixel
    if size > limits.max_image_bytes:
        what = "hypotheses and batches" if request.batches else "hypotheses"
        raise RequestError(
            f"{what} x frames x pixels: got {request.count} x {frames} x "
            f"{camera.width}x{camera.height}, which are {size} bytes of images, expected at most "
            f"{limits.max_image_bytes}; ask for fewer {what}, a lower video_rate or a smaller camera"
        )


def frame_rows(times: NDArray[np.float64], rate_hz: float) -> NDArray[np.int64]:
    """(F,) rows of the state times (T,) that are drawn for frames at a rate [1/s]: the nearest to each."""
    wanted = np.arange(int(np.floor(times[-1] * rate_hz + 1e-6)) + 1) / rate_hz if len(times) > 1 else np.zeros(1)
    step = times[1] - times[0] if len(times) > 1 else 1.0
    return np.unique(np.clip(np.round(wanted / step).astype(np.int64), 0, len(times) - 1))


class Imagination:
    """Answers what-if requests. No answer depends on those before; safe to use from several threads.

    Args:
        limits: what a request may ask for.
        backend: what "auto" means.
        backend_options: backend name -> keyword arguments of its constructor; "auto" takes those of "learned".
    """

    def __init__(
        self,
        limits: Limits | None = None,
        backend: str = "auto",
        backend_options: dict[str, dict[str, object]] | None = None,
    ) -> None:
        self.limits = limits or Limits()
        self.default_backend = backend
        self._options = backend_options or {}
        self._made: dict[str, Dynamics] = {}
        self._making = threading.Lock()

    def dynamics(self, name: str = "auto") -> Dynamics:
        """The backend of a name; made when it is first asked for, then kept.

        Raises:
            BackendUnavailableError: what it needs is missing, or its model does not load (names file and tensor).
        """
        chosen = self.default_backend if name in ("", "auto") else name
        with self._making:
            # The network is loaded and compiled once, whichever of the two is asked for first.
            shared = getattr(self._made.get("auto"), "learned", None) if chosen == "learned" else None
            if shared is not None:
                self._made.setdefault(chosen, shared)
            if chosen not in self._made:
                options = self._options.get(chosen, self._options.get("learned", {}) if chosen == "auto" else {})
                given = {"learned": self._made["learned"]} if chosen == "auto" and "learned" in self._made else {}
                try:
                    self._made[chosen] = make_dynamics(chosen, **given, **options)  # type: ignore[arg-type]
                except (ImportError, InferenceError) as error:
                    raise BackendUnavailableError(f"backend {chosen!r}: {error}") from error
            return self._made[chosen]

    def close(self) -> None:
        """End the backends' worker threads; the next request makes them anew."""
        with self._making:
            for dynamics in self._made.values():
                close = getattr(dynamics, "close", None)
                if close is not None:
                    close()
            self._made.clear()

    def imagine(
        self,
        request: ImagineRequest,
        scene: SceneGraph | None,
        memory: AppearanceMemory | Appearance | None = None,
        *,
        should_stop: Callable[[], bool] | None = None,
        on_progress: OnProgress | None = None,
        keep_frames: bool = True,
        begin: float | None = None,
    ) -> Rollout:
        """Answer one request.

        The factual future is always computed, first, from the same belief samples and seed as the others, so
        that ``effect`` holds the intervention's doing and no sampling noise.

        Args:
            request: what to imagine; its ``initial_state``, if given, is used instead of ``scene``.
            scene: the latest scene graph.
            memory: what was seen, for images and points.
            should_stop: asked between hypotheses and between frames; true: the answer so far, ``complete``
                False.
            on_progress: called from this thread as hypotheses and frames are done.
            keep_frames: false: frames go to ``on_progress`` only; ``video`` and ``depth`` stay None.
            begin: ``time.monotonic()`` from which the deadline counts; None: now.

        Returns:
            The rollout. An empty scene gives one with N = 0 (or the created bodies alone).

        Raises:
            RequestError, NoAppearanceError, InterventionError, UnknownObjectError: see ``validate_request``.
            BackendUnavailableError: the backend cannot run here.
        """
        begin = time.monotonic() if begin is None else begin
        start = request.initial_state if request.initial_state is not None else scene
        if start is None:
            raise RequestError("initial_state: got none and no scene graph was received yet, expected one of them")
        looks = request.images.any_images or request.images.points
        appearance = memory.snapshot() if isinstance(memory, AppearanceMemory) and looks else None
        if isinstance(memory, Appearance):
            appearance = memory
        validate_request(request, start, self.limits, appearance)
        run = _Run(self, request, start, appearance, begin)
        run.keep_frames = keep_frames
        if run.deadline is None and self.limits.default_deadline_s > 0.0:
            # Not as a deadline: dynamics works in smaller, dearer portions where a part of an answer is wanted.
            run.latest = begin + self.limits.default_deadline_s
        # Not by way of ``run``: it would hold itself, and the looks that it was given until garbage is collected.
        latest = run.latest
        run.should_stop = lambda: time.monotonic() >= latest or (should_stop is not None and should_stop())
        if on_progress is not None:
            run.on_progress = on_progress
        return run.answer()


class _Run:
    """One request on its way."""

    def __init__(
        self,
        owner: Imagination,
        request: ImagineRequest,
        scene: SceneGraph,
        appearance: Appearance | None,
        begin: float,
    ) -> None:
        self.limits = owner.limits
        self.dynamics = owner.dynamics(request.backend)
        self.request, self.scene, self.appearance = request, scene, appearance
        self.deadline = begin + request.deadline_s if request.deadline_s > 0.0 else None
        self.latest = np.inf
        self.should_stop: Callable[[], bool] = lambda: False
        self.on_progress: OnProgress | None = None
        self.keep_frames = True
        self.times = request.times
        self.dynamics_share = _DYNAMICS_SHARE_WITH_IMAGES if request.images.any_images else 1.0

    def answer(self) -> Rollout:
        request, scene = self.request, self.scene
        futures = request.futures
        count = len(futures)
        tried = self._removals(count)
        asked = [*futures, *(r.hypothesis for question in tried for r in question)]
        self._check_work(asked)
        factual = next((k for k, h in enumerate(futures) if not h.interventions), None)
        # The factual future goes first: without it a deadline would leave no effect at all.
        order = np.array(
            ([factual] if factual is not None else [-1]) + [k for k in range(len(asked)) if k != factual],
            dtype=np.int64,
        )
        hypotheses = [Hypothesis("") if k < 0 else asked[k] for k in order.tolist()]
        row_of = np.empty(len(asked), dtype=np.int64)
        row_of[order[order >= 0]] = np.flatnonzero(order >= 0)
        rows = row_of[:count]

        scenes = sample_belief(scene, request.samples, request.seed)
        begin = time.monotonic()
        result = self.dynamics.rollout(
            scenes,
            hypotheses,
            self.times,
            deadline=self.deadline,
            should_stop=self.should_stop,
            on_hypothesis=self._partials(order, hypotheses, count, scenes) if self.on_progress is not None else None,
        )
        dynamics_s = time.monotonic() - begin
        done = np.arange(len(hypotheses)) < result.completed
        judged = check_futures(
            scenes, hypotheses, self.times, result.states, result.object_ids, result.doubts, result.completed
        )
        good = done & judged.valid
        effect, effect_vector = _effects(result, good)
        separation, collision = self._pairs(hypotheses, result, good)
        outside, warnings = self._paths_outside()
        warnings += _about_validity(judged, done, order, count, hypotheses)
        wants_events = request.want_events or request.event_kinds or tried
        table = event_table(scene, hypotheses, self.times, result) if wants_events else None
        # From here on positions are those of the centres. The first future is the factual one: nothing is done there.
        _move_centres(result, scenes)
        # A view where nothing is reordered: states are most of the memory.
        kept = slice(int(rows[0]), int(rows[0]) + count) if (np.diff(rows) == 1).all() else rows
        rollout = replace(
            self._rollout(
                tuple(h.name for h in futures),
                result.object_ids,
                result.states[kept],
                result.present[kept],
                complete=bool(done.all()),
            ),
            backend=result.backend or self.dynamics.name,
            backends=tuple(result.backends[row] for row in rows) if result.backends else (),
            computed=done[kept],
            valid=good[kept],
            invalid_reasons=tuple(judged.reasons[row] if done[row] else "not computed" for row in rows.tolist()),
            dynamics_s=dynamics_s,
            warnings=warnings,
            effect=effect[kept],
            effect_vector=effect_vector[kept],
            pairs=request.pairs,
            pair_separation=separation[kept],
            pair_collision=collision[kept],
            path_outside=outside,
        )
        rollout.position_std[done[kept] & ~good[kept]] = np.nan
        if table is not None:
            rollout = replace(
                rollout,
                events=_listed(table, np.where(good, order, -1), count).events() if request.want_events else (),
                event_kinds=request.event_kinds,
                event_probability=self._event_probability(table, result.object_ids, good)[kept],
                answers=self._answers(tried, table, row_of, good),
            )
        if request.images.any_images:
            first = result.states[0, 0] if good[0] else None
            rollout = self._with_images(rollout, good[kept], first)
        if request.images.points:
            points, colors = self._points(rollout)
            rollout = replace(rollout, points=points, point_colors=colors)
        if not rollout.complete and time.monotonic() >= self.latest:
            limit = f"{self.limits.default_deadline_s:g} s"
            late = f"deadline: ended after {limit} (default_deadline_s); ask for less, or give a later deadline"
            rollout = replace(rollout, warnings=(*rollout.warnings, late))
        return self._with_states(rollout)

    def _check_work(self, asked: Sequence[Hypothesis]) -> None:
        """Refuse what needs too much memory, or more time than there is.

        Raises:
            RequestError: see ``estimate.check``.
        """
        request, images, frames, camera = self.request, self.request.images, 0, None
        if images.any_images and self.appearance is not None and self.appearance.frame is not None:
            camera = images.camera or self.appearance.frame.camera
            frames = len(frame_rows(self.times, images.rate_hz))
        created = max((sum(i.creates_body for i in h.interventions) for h in asked), default=0)
        work = estimate.work_of(
            request,
            futures=len(asked) + all(h.interventions for h in asked),
            objects=len(self.scene) + created,
            frames=frames,
            camera=camera,
            object_points=self.limits.max_object_points,
            backend=self.dynamics.name,
            threads=int(getattr(self.dynamics, "threads", default_threads())),
        )
        limit_s = self.limits.default_deadline_s if request.deadline_s == 0.0 else 0.0
        estimate.check(work, self.limits.max_request_bytes, limit_s)

    def _partials(
        self, order: NDArray[np.int64], hypotheses: Sequence[Hypothesis], count: int, scenes: Sequence[SceneGraph]
    ) -> Callable[[int, NDArray[np.float32], NDArray[np.bool_]], None]:
        """Tells the listener of each hypothesis asked for as it is done."""
        assert self.on_progress is not None
        tell, ids, done = self.on_progress, object_slots(self.scene, hypotheses), 0
        offsets = np.zeros((len(scenes), 0, 3))

        def on_hypothesis(row: int, states: NDArray[np.float32], present: NDArray[np.bool_]) -> None:
            nonlocal done, offsets
            if row == 0:
                offsets = centre_offsets(scenes, states[:, 0])
            k = int(order[row])
            if not 0 <= k < count:
                return
            done += 1
            states = states.copy()
            move_centres(states, offsets)
            partial = self._rollout((hypotheses[row].name,), ids, states[None], present[None])
            judged = check_futures(scenes, [hypotheses[row]], self.times, states[None], ids)
            partial = replace(partial, computed=np.ones(1, bool), valid=judged.valid, invalid_reasons=judged.reasons)
            tell(Progress(self.dynamics_share * done / count, k, partial))

        return on_hypothesis

    def _removals(self, count: int) -> list[tuple[causal.Removal, ...]]:
        """Per question the futures without one object each.

        Raises:
            RequestError, UnknownObjectError: a question cannot be asked; names it.
        """
        tried: list[tuple[causal.Removal, ...]] = []
        total = count
        for n, question in enumerate(self.request.questions):
            try:
                tried.append(causal.removals(self.scene, self.request.futures, question))
            except (RequestError, UnknownObjectError) as error:
                raise type(error)(f"questions[{n}]: {error}") from None
            total += len(tried[-1])
            if total > self.limits.max_hypotheses or n >= self.limits.max_hypotheses:
                raise RequestError(
                    f"questions: got {total} futures with those that try what would prevent an event, "
                    f"expected at most {self.limits.max_hypotheses} (max_hypotheses)"
                )
        return tried

    def _answers(
        self,
        tried: Sequence[tuple[causal.Removal, ...]],
        table: EventTable,
        row_of: NDArray[np.int64],
        done: NDArray[np.bool_],
    ) -> tuple[EventAnswer, ...]:
        answers, position, samples = [], self.request.count, self.request.samples
        for question, removals in zip(self.request.questions, tried, strict=True):
            row = int(row_of[question.hypothesis])
            factual = causal.happens(table, row, samples, question) if done[row] else None
            own = row_of[position : position + len(removals)].tolist()
            without = [
                causal.happens(table, r, samples, removal.event) if done[r] else None
                for r, removal in zip(own, removals, strict=True)
            ]
            position += len(removals)
            answers.append(causal.answer(question, removals, factual, without))
        return tuple(answers)

    def _event_probability(
        self, table: EventTable, object_ids: NDArray[np.int64], done: NDArray[np.bool_]
    ) -> NDArray[np.float32]:
        """(rows, E, N) fraction of samples in which an event of a kind happens to an object; NaN: not computed."""
        kinds, samples = self.request.event_kinds, self.request.samples
        happened = np.zeros((len(done), len(kinds), len(object_ids), samples), dtype=bool)
        # Ids ascend: those of the graph, then created ones above them.
        for e, kind in enumerate(kinds):
            of_kind = table.kind == int(kind)
            for ids in (table.a, table.b):
                rows = np.flatnonzero(of_kind & (ids != 0))
                slots = np.searchsorted(object_ids, ids[rows])
                happened[table.hypothesis[rows], e, slots, table.sample[rows]] = True
        probability = happened.mean(axis=3, dtype=np.float32)
        probability[~done] = np.nan
        return probability

    def _paths_outside(self) -> tuple[NDArray[np.float32], tuple[str, ...]]:
        """(K,) how far led bodies go beyond the workspace [m], and what to say about it."""
        request, bounds = self.request, workspace_bounds(self.scene)
        outside = np.zeros(request.count, dtype=np.float32)
        if bounds is None:
            return outside, ()
        place = (
            f"the workspace (x {bounds[0, 0]:.2f} to {bounds[1, 0]:.2f}, y {bounds[0, 1]:.2f} to {bounds[1, 1]:.2f} m)"
        )
        warnings = []

        def beyond(times: NDArray[np.float64], positions: NDArray[np.float64], at_s: float) -> NDArray[np.float64]:
            return _beyond(bounds, times, positions, request.horizon_s - at_s)

        for k, hypothesis in enumerate(request.hypotheses):
            for j, i in enumerate(hypothesis.interventions):
                if i.kind == InterventionKind.FOLLOW_PATH:
                    by = float(beyond(i.path_times, i.path_positions, i.time_offset))
                    outside[k] = max(outside[k], by)
                    if by > 0.0:
                        warnings.append(f"hypotheses[{k}].interventions[{j}].path: leaves {place} by {by:.3f} m")
        k = len(request.hypotheses)
        for b, batch in enumerate(request.batches):
            own = slice(k, k + len(batch))
            k += len(batch)
            if batch.kind == InterventionKind.FOLLOW_PATH:
                outside[own] = beyond(batch.times, batch.values, batch.time_offset)
            for i in batch.common:
                if i.kind == InterventionKind.FOLLOW_PATH:
                    outside[own] = np.maximum(outside[own], beyond(i.path_times, i.path_positions, i.time_offset))
            if outside[own].any():
                warnings.append(
                    f"batches[{b}]: {int((outside[own] > 0.0).sum())} of {len(batch)} paths leave {place}, "
                    f"by up to {outside[own].max():.3f} m"
                )
        if len(warnings) > _MAX_WARNINGS:
            warnings[_MAX_WARNINGS:] = [f"and {len(warnings) - _MAX_WARNINGS} more"]
        return outside, tuple(warnings)

    def _with_states(self, rollout: Rollout) -> Rollout:
        """With the final states, and without what was not asked for."""
        wanted = self.request.want_states
        objects = slice(0, 0) if wanted == StatesWanted.NONE else slice(None)
        rollout = replace(
            rollout,
            final_states=np.ascontiguousarray(rollout.states[:, :, -1, objects]),
            final_present=rollout.present[:, -1, objects].copy(),
            final_position_std=rollout.position_std[:, -1, objects].copy(),
        )
        if wanted != StatesWanted.ALL:
            rollout = replace(
                rollout,
                states=rollout.states[:, :, :0].copy(),
                present=rollout.present[:, :0].copy(),
                position_std=rollout.position_std[:, :0].copy(),
            )
        return rollout

    def _rollout(
        self,
        names: tuple[str, ...],
        ids: NDArray[np.int64],
        states: NDArray[np.float32],
        present: NDArray[np.bool_],
        complete: bool = True,
    ) -> Rollout:
        return Rollout(
            stamp_ns=self.scene.stamp_ns,
            frame_id=self.scene.frame_id,
            hypotheses=names,
            times=self.times,
            object_ids=ids,
            states=states,
            present=present,
            backend=self.dynamics.name,
            complete=complete,
            position_std=_position_std(self.scene, states),
            effect=np.full((len(names), len(ids)), np.nan, np.float32),
            effect_vector=np.full((len(names), len(ids), 3), np.nan, np.float32),
            pair_separation=np.zeros((len(names), 0), np.float32),
            pair_collision=np.zeros((len(names), 0), np.float32),
        )

    def _pairs(
        self, hypotheses: Sequence[Hypothesis], result: DynamicsResult, computed: NDArray[np.bool_]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Smallest separation (K, P) [m] and collision probability (K, P), NaN where nothing was computed."""
        pairs = self.request.pairs
        if not pairs:
            empty = np.zeros((len(hypotheses), 0), np.float32)
            return empty, empty
        separation = surface_separation(self.scene, hypotheses, self.times, result, pairs)  # (K, S, P)
        touched = separation <= 0.0
        # A pair may be asked for twice, either way round.
        columns: dict[tuple[int, int], list[int]] = {}
        for p, (a, b) in enumerate(pairs):
            columns.setdefault((min(a, b), max(a, b)), []).append(p)
        for contact in result.contacts:
            for p in columns.get((contact.a, contact.b), ()):
                touched[contact.hypothesis, contact.sample, p] = True
        # A touch between two of the times was a distance of at most zero.
        separation = np.where(touched, np.minimum(np.nan_to_num(separation, nan=0.0), 0.0), separation)
        with np.errstate(invalid="ignore"):
            smallest = np.where(
                np.isnan(separation).all(axis=1),
                np.nan,
                np.nanmin(np.nan_to_num(separation, nan=np.inf), axis=1),
            )
        collision = np.where(np.isnan(smallest), np.nan, touched.mean(axis=1))
        smallest[~computed] = np.nan
        collision[~computed] = np.nan
        return smallest.astype(np.float32), collision.astype(np.float32)

    # --- images and points
    # --------------------------------------------------------------------------------------

    def _with_images(
        self, rollout: Rollout, computed: NDArray[np.bool_], factual: NDArray[np.float32] | None
    ) -> Rollout:
        images = self.request.images
        assert self.appearance is not None
        renderer = Renderer(self.appearance, self.scene, images.camera, images.world_T_camera)
        camera = renderer.camera
        rows = frame_rows(self.times, images.rate_hz)
        count = len(rollout.hypotheses)
        shape = (count, len(rows), camera.height, camera.width)
        video = np.zeros((*shape, 3), np.uint8) if images.video and self.keep_frames else None
        depth = np.zeros(shape, np.float32) if images.depth and self.keep_frames else None
        complete = rollout.complete
        drawn, total = 0, max(count * len(rows), 1)
        for k, hypothesis in enumerate(self.request.futures):
            if not computed[k]:
                continue
            drawn_states = states_as_seen(self.scene, rollout.states[k, 0], factual)
            for f, row in enumerate(rows):
                if self.should_stop() or (self.deadline is not None and time.monotonic() >= self.deadline):
                    complete = False
                    break
                frame = renderer.render(
                    bodies_at(
                        self.scene,
                        hypothesis,
                        rollout.object_ids,
                        drawn_states[row],
                        rollout.present[k, row],
                        float(self.times[row]),
                    )
                )
                if video is not None:
                    video[k, f] = frame.color
                if depth is not None:
                    depth[k, f] = frame.depth_m
                drawn += 1
                if self.on_progress is not None:
                    self.on_progress(
                        Progress(
                            self.dynamics_share + (1.0 - self.dynamics_share) * drawn / total,
                            k,
                            frame=frame,
                            frame_time_s=float(self.times[row]),
                            frame_index=f,
                        )
                    )
            if not complete:
                break
        return replace(
            rollout,
            complete=complete,
            frame_times=self.times[rows],
            video=video,
            depth=depth,
            camera=camera,
            world_T_camera=renderer.world_T_camera,
        )

    def _points(self, rollout: Rollout) -> tuple[tuple[NDArray[np.float32], ...], tuple[NDArray[np.uint8], ...]]:
        """Coloured points of every object in its own frame; of its primitive where it was never seen."""
        created = {
            m: i.body
            for h in self.request.futures
            for m, i in reversed(targets(self.scene, h))
            if i.creates_body and i.body is not None
        }
        limit = self.limits.max_object_points
        points, colors = [], []
        for m, object_id in enumerate(rollout.object_ids.tolist()):
            seen = None
            if m < len(self.scene):
                if self.appearance is not None:
                    seen = self.appearance.completed(object_id, self.scene.colors[m])
                shape, extents = int(self.scene.shapes[m]), self.scene.extents[m]
                hull, color = self.scene.hulls[m], self.scene.colors[m]
            else:
                body = created[m]
                shape, extents, hull, color = int(body.shape), body.extents, None, body.color
            if seen is None or not len(seen):
                seen = sample_primitive(shape, extents, hull, min(1000, limit))
                points.append(seen.points)
                colors.append(shade(color, seen.normals))
            else:
                step = int(np.ceil(len(seen) / limit))
                points.append(np.ascontiguousarray(seen.points[::step]))
                colors.append(np.ascontiguousarray(seen.colors[::step]))
        return tuple(points), tuple(colors)


def _position_std(scene: SceneGraph, states: NDArray[np.float32]) -> NDArray[np.float32]:
    """(K, T, M) [m]: the spread over the samples (K, S, T, M, 13), but at least what perception leaves open.

    The samples are drawn from the perceived uncertainty, so adding that once more would count it twice; few
    samples understate it.
    """
    objects = states.shape[3]
    perceived = np.zeros(objects)
    perceived[: len(scene)] = np.clip(np.trace(scene.pose_covariances[:, :3, :3], axis1=1, axis2=2), 0.0, None)
    if states.shape[1] == 1:
        std = np.sqrt(perceived).astype(np.float32)
        return np.broadcast_to(std, (states.shape[0], states.shape[2], objects)).copy()
    with np.errstate(over="ignore", invalid="ignore"):  # of futures that are not valid
        spread = states[..., POSITION].var(axis=1, ddof=1).sum(axis=-1)  # (K, T, M)
    return np.sqrt(np.maximum(spread, perceived.astype(np.float32))).astype(np.float32)


def _effect(
    states: NDArray[np.float32], present: NDArray[np.bool_], computed: NDArray[np.bool_]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Effect (K, M) and effect vector (K, M, 3) [m] against row 0, the factual future; NaN where undefined.

    Args:
        states: (K, S, T, M, 13); present: (K, T, M); computed: (K,).
    """
    both = present & present[:1]  # (K, T, M)
    difference = states[..., POSITION] - states[:1, ..., POSITION]  # (K, S, T, M, 3), samples paired
    squared = np.einsum("kstmj,kstmj->kstm", difference, difference) * both[:, None]
    effect = np.sqrt(squared.max(axis=2, initial=0.0)).mean(axis=1)  # (K, M)
    effect[~both.any(axis=1)] = np.nan
    vector = np.where(both[:, -1, :, None], difference[:, :, -1].mean(axis=1), np.nan)
    effect[~computed | ~computed[0]] = np.nan
    vector[~computed | ~computed[0]] = np.nan
    return effect.astype(np.float32), vector.astype(np.float32)


def _effects(result: DynamicsResult, good: NDArray[np.bool_]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """As ``_effect``, against the factual future of the dynamics that answered each."""
    if not result.factual:
        return _effect(result.states, result.present, good)
    parts = []
    for name, (states, present) in result.factual.items():
        # Whether a factual future that is not in the answer is valid, nobody judged: it came with those that are.
        reference = np.concatenate([good[:1] if result.backends[0] == name else [True], good])
        rows = (
            np.concatenate([states[None], result.states]),
            np.concatenate([present[None], result.present]),
        )
        effect, vector = _effect(*rows, reference)
        own = np.array([backend == name for backend in result.backends])
        parts.append((own, effect[1:], vector[1:]))
    effect, vector = parts[0][1].copy(), parts[0][2].copy()
    for own, one, other in parts[1:]:
        effect[own], vector[own] = one[own], other[own]
    return effect, vector


def _move_centres(result: DynamicsResult, scenes: Sequence[SceneGraph]) -> None:
    """Positions of bodies to those of the objects' centres, in place; each backend has starts of its own."""
    if not result.factual:
        move_centres(result.states, centre_offsets(scenes, result.states[0, :, 0]))
        return
    for name, (states, _) in result.factual.items():
        offsets = centre_offsets(scenes, states[:, 0])
        for k in np.flatnonzero([backend == name for backend in result.backends]).tolist():
            move_centres(result.states[k], offsets)


def _about_validity(
    judged: Validity,
    done: NDArray[np.bool_],
    order: NDArray[np.int64],
    count: int,
    hypotheses: Sequence[Hypothesis],
) -> tuple[str, ...]:
    """Warnings about futures that are not valid: how many of those asked for, and what the first suffers from."""
    asked = done & (order >= 0) & (order < count)
    bad = np.flatnonzero(asked & ~judged.valid)
    said = []
    if len(bad):
        k = int(bad[0])
        more = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
        said.append(
            f"valid: {len(bad)} of {count} futures are not: {hypotheses[k].name!r} ({judged.reasons[k]}){more}; "
            "invalid_reasons says of each why"
        )
    if done[0] and not judged.valid[0]:
        said.append(f"effect: left out, as the factual future is not valid ({judged.reasons[0]})")
    for text in said:
        log.warning("imagine: %s", text)
    return tuple(said)


def _listed(table: EventTable, order: NDArray[np.int64], count: int) -> EventTable:
    """The events of the ``count`` hypotheses asked for, in their order; ``order``: theirs of the table's, -1: none."""
    hypothesis = order[table.hypothesis]
    rows = np.flatnonzero((hypothesis >= 0) & (hypothesis < count))
    rows = rows[np.lexsort((table.time_s[rows], table.sample[rows], hypothesis[rows]))]
    return EventTable(
        hypothesis[rows], table.sample[rows], table.kind[rows], table.a[rows], table.b[rows], table.time_s[rows]
    )


def _beyond(
    bounds: NDArray[np.float64], times: NDArray[np.float64], positions: NDArray[np.float64], left_s: float
) -> NDArray[np.float64]:
    """(...) how far paths (..., M, 3) [m] at times (M,) [s] go beyond bounds (2, 3) within ``left_s``."""
    reached = positions[..., times <= left_s + 1e-9, :]
    ahead = int(np.searchsorted(times, left_s))
    if 0 < ahead < len(times):
        share = (left_s - times[ahead - 1]) / (times[ahead] - times[ahead - 1])
        last = positions[..., ahead - 1, :] + share * (positions[..., ahead, :] - positions[..., ahead - 1, :])
        reached = np.concatenate([reached, last[..., None, :]], axis=-2)
    over = np.maximum(np.maximum(bounds[0] - reached, reached - bounds[1]), 0.0)
    return np.linalg.norm(over, axis=-1).max(axis=-1)


# What the factual future moves by less, though it was seen at rest, has only settled: perception and physics disagree
# by so much on where things touch.
SETTLE_DISTANCE_M = 0.025
SETTLE_ANGLE_RAD = 0.25


def states_as_seen(
    scene: SceneGraph, states: NDArray[np.float32], factual: NDArray[np.float32] | None
) -> NDArray[np.float32]:
    """States (T, M, 13) to draw: those of things seen at rest without the settling of the first moments.

    Dynamics shifts a thing that was seen floating or sunk by some millimetres until it touches. A picture of that would
    show a jump that nobody imagined. So a thing that the factual future leaves where it was seen, but for settling, is
    drawn at its perceived pose, moved as its state differs from the factual state of the same time.

    Args:
        states, factual: (T, M, 13) of one hypothesis and of the factual future; None: states are drawn as they are.
    """
    count = len(scene)
    if factual is None or not count:
        return states
    seen_p, seen_q = scene.positions, normalize_quaternion(scene.quaternions)
    drift = np.linalg.norm(factual[:, :count, POSITION] - seen_p, axis=-1).max(axis=0)
    turned = rotation_distance(factual[:, :count, QUATERNION], np.broadcast_to(seen_q, (len(factual), count, 4)))
    settles = (drift < SETTLE_DISTANCE_M) & (turned.max(axis=0) < SETTLE_ANGLE_RAD) & ~moving_objects(scene)[0]
    drawn = states.copy()
    for m in np.flatnonzero(~scene.is_static):
        # Of other things only the first correction (out of what they were seen to overlap) is left out.
        reference = factual[:, m] if settles[m] else np.broadcast_to(factual[0, m], factual[:, m].shape)
        turn = Rotation.from_quat(states[:, m, QUATERNION]) * Rotation.from_quat(reference[:, QUATERNION]).inv()
        # The thing as seen, carried by the rigid motion that takes its reference pose to its pose in this future.
        offset = seen_p[m] - reference[:, POSITION]
        drawn[:, m, POSITION] = states[:, m, POSITION] + turn.apply(offset)
        drawn[:, m, QUATERNION] = (turn * Rotation.from_quat(seen_q[m])).as_quat()
    return drawn


def bodies_at(
    scene: SceneGraph,
    hypothesis: Hypothesis,
    object_ids: NDArray[np.int64],
    states: NDArray[np.float32],
    present: NDArray[np.bool_],
    time_s: float,
) -> list[Body]:
    """What a renderer draws of one imagined state: poses, and looks as changed by interventions so far.

    Args:
        states: (M, 13) at ``time_s``; present: (M,); object_ids: (M,), as in ``Rollout``.
    """
    scales: dict[int, NDArray[np.float64]] = {}
    styles: dict[int, NDArray[np.float64]] = {}
    created: dict[int, Intervention] = {}
    for m, intervention in targets(scene, hypothesis):
        if intervention.creates_body:
            created[m] = intervention
        if intervention.time_offset > time_s + 1e-9:
            continue
        if intervention.kind == InterventionKind.MORPH:
            scales[m] = scales.get(m, np.ones(3)) * intervention.scale
        elif intervention.kind == InterventionKind.RESTYLE:
            styles[m] = intervention.color
    # How a ball is turned cannot be perceived, so its looks are remembered, and drawn, in the graph's orientation.
    balls = np.flatnonzero(scene.shapes == Shape.SPHERE)
    quaternions = states[:, QUATERNION].astype(np.float64)
    quaternions[balls] = scene.quaternions[balls]
    poses = pose_matrix(states[:, POSITION], quaternions)
    bodies = []
    for m in np.flatnonzero(present):
        if m < len(scene):
            if scene.is_static[m]:
                continue
            bodies.append(
                Body(
                    int(object_ids[m]),
                    poses[m],
                    int(scene.shapes[m]),
                    scene.extents[m],
                    scene.colors[m],
                    scales.get(int(m), np.ones(3)),
                    styles.get(int(m)),
                    scene.hulls[m] if len(scene.hulls[m]) else None,
                )
            )
        elif int(m) in created:
            body = created[int(m)].body
            assert body is not None
            bodies.append(Body(int(object_ids[m]), poses[m], int(body.shape), body.extents, body.color))
    return bodies
