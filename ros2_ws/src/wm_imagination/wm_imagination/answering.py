"""The answer to one request: dynamics, events, effects, causes, images and points."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from wm_core.interventions import Hypothesis, UnknownObjectError
from wm_core.rollout import EventAnswer, ImagineRequest, RequestError, Rollout, StatesWanted
from wm_core.scene_graph import SceneGraph
from wm_dynamics.base import Dynamics, default_threads
from wm_dynamics.belief import sample_belief
from wm_dynamics.events import EventTable, event_table
from wm_dynamics.settling.restoration import Settling, restore_centers, states_as_seen
from wm_dynamics.validity import Validity, check_futures
from wm_imagination import causal, estimate
from wm_imagination.appearance.model import Appearance
from wm_imagination.effects import effects_of, position_std
from wm_imagination.imagined_events import event_probabilities, events_of
from wm_imagination.limits import Limits
from wm_imagination.pairs import pair_separations
from wm_imagination.path_bounds import paths_outside
from wm_imagination.rendering.bodies import bodies_at
from wm_imagination.rendering.object_points import object_points
from wm_imagination.rendering.renderer import RenderedFrame, Renderer
from wm_imagination.validation import frame_rows

log = logging.getLogger(__name__)

_DYNAMICS_SHARE_WITH_IMAGES = 0.4
"""About the share of a request's time that its futures take where images are drawn, too; for the progress alone."""


@dataclass(frozen=True)
class Progress:
    """Progress of a request: the states of a hypothesis, or a frame, are done.

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


class Answering:
    """Works out the answer to one request.

    Args:
        limits: that the request was checked against.
        dynamics: the backend that the request names.
        request: a valid one.
        scene: the start of all futures.
        object_ids: (M,) of the answer (``validate_request``).
        appearance: what was seen of the scene, for images and points.
        begin: ``time.monotonic()`` from which the deadline counts [s].

    Attributes:
        deadline: ``time.monotonic()`` at which the work ends [s]; None: none.
        latest: the same where the request names no deadline; for the warning [s].
        should_stop: called between hypotheses and between frames.
        on_progress: called as hypotheses and frames are done; None: nobody listens.
        keep_frames: false: frames go to ``on_progress`` alone.
        times: (T,) of the states [s].
        dynamics_share: of the progress.
    """

    def __init__(
        self,
        limits: Limits,
        dynamics: Dynamics,
        request: ImagineRequest,
        scene: SceneGraph,
        object_ids: NDArray[np.int64],
        appearance: Appearance | None,
        begin: float,
    ) -> None:
        self.limits, self.dynamics = limits, dynamics
        self.request, self.scene, self.object_ids, self.appearance = request, scene, object_ids, appearance
        self.deadline = begin + request.deadline_s if request.deadline_s > 0.0 else None
        self.latest = np.inf
        self.should_stop: Callable[[], bool] = lambda: False
        self.on_progress: OnProgress | None = None
        self.keep_frames = True
        self.times = request.times
        self.dynamics_share = _DYNAMICS_SHARE_WITH_IMAGES if request.images.any_images else 1.0

    def answer(self) -> Rollout:
        """The whole answer, or what was done before the deadline or the stop."""
        request, scene = self.request, self.scene
        futures = request.futures
        count = len(futures)
        tried = self._removals(count)
        wanted = [*futures, *(r.hypothesis for question in tried for r in question)]
        self._check_work(wanted)
        factual = next((k for k, h in enumerate(futures) if not h.interventions), None)
        # The factual future goes first: without it a deadline would leave no effect at all.
        order = np.array(
            ([factual] if factual is not None else [-1]) + [k for k in range(len(wanted)) if k != factual],
            dtype=np.int64,
        )
        hypotheses = [Hypothesis("") if k < 0 else wanted[k] for k in order.tolist()]
        row_of = np.empty(len(wanted), dtype=np.int64)
        row_of[order[order >= 0]] = np.flatnonzero(order >= 0)
        rows = row_of[:count]

        scenes = sample_belief(scene, request.samples, request.seed)
        joined = self.dynamics.joined(scene)
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
            scenes,
            hypotheses,
            self.times,
            result.states,
            result.object_ids,
            result.doubts,
            result.completed,
            joined,
        )
        good = done & judged.valid
        effect, effect_vector = effects_of(result, good)
        separation, collision = pair_separations(scene, hypotheses, self.times, result, request.pairs, good)
        outside, warnings = paths_outside(request, scene)
        warnings += _about_validity(judged, done, order, count, hypotheses)
        wants_events = request.want_events or request.event_kinds or tried
        table = event_table(scene, hypotheses, self.times, result) if wants_events else None
        # From here on positions are those of the centers. The first future is the factual one: nothing is done there.
        restore_centers(result, scenes)
        # A view where nothing is reordered: states are most of the memory.
        kept = slice(int(rows[0]), int(rows[0]) + count) if (np.diff(rows) == 1).all() else rows
        rollout = replace(
            self._rollout(
                tuple(h.name for h in futures),
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
                events=events_of(table, np.where(good, order, -1), count) if request.want_events else (),
                event_kinds=request.event_kinds,
                event_probability=event_probabilities(
                    table, request.event_kinds, result.object_ids, request.samples, good
                )[kept],
                answers=self._answers(tried, table, row_of, good),
            )
        if request.images.any_images:
            first = result.states[0, 0] if good[0] else None
            rollout = self._with_images(rollout, good[kept], first)
        if request.images.points:
            points, colors = object_points(
                scene, request.futures, rollout.object_ids, self.appearance, self.limits.max_object_points
            )
            rollout = replace(rollout, points=points, point_colors=colors)
        if not rollout.complete and time.monotonic() >= self.latest:
            limit = f"{self.limits.default_deadline_s:g} s"
            late = f"deadline: ended after {limit} (default_deadline_s); ask for less, or give a later deadline"
            rollout = replace(rollout, warnings=(*rollout.warnings, late))
        return self._with_states(rollout)

    def _check_work(self, wanted: Sequence[Hypothesis]) -> None:
        """Refuse what needs too much memory, or more time than there is.

        Raises:
            RequestError: see ``estimate.check``.
        """
        request, images, frames, camera = self.request, self.request.images, 0, None
        if images.any_images and self.appearance is not None and self.appearance.frame is not None:
            camera = images.camera or self.appearance.frame.camera
            frames = len(frame_rows(self.times, images.rate_hz))
        work = estimate.work_of(
            request,
            futures=len(wanted) + all(h.interventions for h in wanted),
            objects=len(self.object_ids),
            frames=frames,
            camera=camera,
            object_points=self.limits.max_object_points,
            backend=self.dynamics.name,
            threads=int(getattr(self.dynamics, "threads", default_threads())),
        )
        limit_s = self.limits.default_deadline_s if request.deadline_s == 0.0 else 0.0
        estimate.check(work, self.limits.max_request_bytes, limit_s)

    def _partials(
        self,
        order: NDArray[np.int64],
        hypotheses: Sequence[Hypothesis],
        count: int,
        scenes: Sequence[SceneGraph],
    ) -> Callable[[int, NDArray[np.float32], NDArray[np.bool_]], None]:
        """A callback that reports each hypothesis of the request as it is done."""
        assert self.on_progress is not None
        tell, done, joined = self.on_progress, 0, self.dynamics.joined(self.scene)
        settling: Settling | None = None

        def on_hypothesis(row: int, states: NDArray[np.float32], present: NDArray[np.bool_]) -> None:
            nonlocal done, settling
            if row == 0:
                settling = Settling(scenes, states[:, 0])
            k = int(order[row])
            if not 0 <= k < count:
                return
            done += 1
            states = states.copy()
            if settling is not None:
                settling.restore_centers(states)
            partial = self._rollout((hypotheses[row].name,), states[None], present[None])
            judged = check_futures(scenes, [hypotheses[row]], self.times, states[None], self.object_ids, joined=joined)
            partial = replace(partial, computed=np.ones(1, bool), valid=judged.valid, invalid_reasons=judged.reasons)
            tell(Progress(self.dynamics_share * done / count, k, partial))

        return on_hypothesis

    def _removals(self, count: int) -> list[tuple[causal.Removal, ...]]:
        """Per question the futures without one object each.

        Raises:
            RequestError, UnknownObjectError: a question is not about these futures; names it.
        """
        tried: list[tuple[causal.Removal, ...]] = []
        total = count
        for n, question in enumerate(self.request.questions):
            try:
                tried.append(causal.removals(self.scene, self.object_ids, self.request.futures, question))
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

    def _with_states(self, rollout: Rollout) -> Rollout:
        """With the final states, and without states that were not requested."""
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
        states: NDArray[np.float32],
        present: NDArray[np.bool_],
        complete: bool = True,
    ) -> Rollout:
        return Rollout(
            stamp_ns=self.scene.stamp_ns,
            frame_id=self.scene.frame_id,
            hypotheses=names,
            times=self.times,
            object_ids=self.object_ids,
            states=states,
            present=present,
            backend=self.dynamics.name,
            complete=complete,
            position_std=position_std(self.scene, states),
            effect=np.full((len(names), len(self.object_ids)), np.nan, np.float32),
            effect_vector=np.full((len(names), len(self.object_ids), 3), np.nan, np.float32),
            pair_separation=np.zeros((len(names), 0), np.float32),
            pair_collision=np.zeros((len(names), 0), np.float32),
        )

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


def _about_validity(
    judged: Validity,
    done: NDArray[np.bool_],
    order: NDArray[np.int64],
    count: int,
    hypotheses: Sequence[Hypothesis],
) -> tuple[str, ...]:
    """Warnings about futures of the request that are not valid: how many, and why the first is not."""
    wanted = done & (order >= 0) & (order < count)
    bad = np.flatnonzero(wanted & ~judged.valid)
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
