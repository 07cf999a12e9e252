"""One request on its way: dynamics, events, effects, causes, images and points."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from wm_core.interventions import Hypothesis, InterventionKind, UnknownObjectError
from wm_core.rollout import EventAnswer, ImagineRequest, RequestError, Rollout, StatesWanted
from wm_core.scene_graph import SceneGraph
from wm_dynamics.base import Dynamics, DynamicsResult, default_threads, object_slots, targets
from wm_dynamics.belief import sample_belief
from wm_dynamics.events import EventTable, event_table, workspace_bounds
from wm_dynamics.separation import surface_separation
from wm_dynamics.settling.restoration import Settling, restore_centers, states_as_seen
from wm_dynamics.validity import Validity, check_futures
from wm_imagination import causal, estimate
from wm_imagination.appearance.model import Appearance
from wm_imagination.appearance.points import sample_primitive
from wm_imagination.effects import effects_of, position_std
from wm_imagination.limits import Limits
from wm_imagination.rendering.bodies import bodies_at
from wm_imagination.rendering.primitives import shade
from wm_imagination.rendering.renderer import RenderedFrame, Renderer
from wm_imagination.validation import frame_rows

log = logging.getLogger(__name__)


# Without images the futures are all of the work; with them about this share of it.
_DYNAMICS_SHARE_WITH_IMAGES = 0.4
_MAX_WARNINGS = 16


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


class Answering:
    """One request on its way.

    Args:
        limits: what it was held against. dynamics: of the backend that it names.
        request: a valid one. scene: what is imagined to go on. appearance: what was seen of it, for images and points.
        begin: ``time.monotonic()`` from which the deadline counts.
    """

    def __init__(
        self,
        limits: Limits,
        dynamics: Dynamics,
        request: ImagineRequest,
        scene: SceneGraph,
        appearance: Appearance | None,
        begin: float,
    ) -> None:
        self.limits, self.dynamics = limits, dynamics
        self.request, self.scene, self.appearance = request, scene, appearance
        self.deadline = begin + request.deadline_s if request.deadline_s > 0.0 else None
        self.latest = np.inf
        self.should_stop: Callable[[], bool] = lambda: False
        self.on_progress: OnProgress | None = None
        self.keep_frames = True
        self.times = request.times
        self.dynamics_share = _DYNAMICS_SHARE_WITH_IMAGES if request.images.any_images else 1.0

    def answer(self) -> Rollout:
        """All of it, or what was done before the deadline or the stop."""
        request, scene = self.request, self.scene
        futures = request.futures
        count = len(futures)
        tried = self._removals(count)
        asked = [*futures, *(r.hypothesis for question in tried for r in question)]
        ids = object_slots(scene, asked)
        self._check_work(asked, len(ids))
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
            on_hypothesis=self._partials(order, hypotheses, count, scenes, ids)
            if self.on_progress is not None
            else None,
        )
        dynamics_s = time.monotonic() - begin
        done = np.arange(len(hypotheses)) < result.completed
        judged = check_futures(
            scenes, hypotheses, self.times, result.states, result.object_ids, result.doubts, result.completed
        )
        good = done & judged.valid
        effect, effect_vector = effects_of(result, good)
        separation, collision = self._pairs(hypotheses, result, good)
        outside, warnings = self._paths_outside()
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

    def _check_work(self, asked: Sequence[Hypothesis], objects: int) -> None:
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
            futures=len(asked) + all(h.interventions for h in asked),
            objects=objects,
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
        ids: NDArray[np.int64],
    ) -> Callable[[int, NDArray[np.float32], NDArray[np.bool_]], None]:
        """Tells the listener of each hypothesis asked for as it is done."""
        assert self.on_progress is not None
        tell, done = self.on_progress, 0
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
        """(K,) how far bodies on paths go beyond the workspace [m], and what to say about it."""
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
            position_std=position_std(self.scene, states),
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
        """Colored points of every object in its own frame; of its primitive where it was never seen."""
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
