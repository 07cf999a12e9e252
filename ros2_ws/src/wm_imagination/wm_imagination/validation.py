"""The refusal of a request that breaks a limit, before any work is done."""

from __future__ import annotations

from collections.abc import Sequence, Sized
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from wm_core.intervention_checks import validate_hypotheses
from wm_core.interventions import UnknownObjectError
from wm_core.rollout import STATE_SIZE, ImagineRequest, RequestError
from wm_core.scene_graph import SceneGraph
from wm_dynamics.base import object_slots
from wm_imagination import causal
from wm_imagination.appearance.model import Appearance
from wm_imagination.limits import BACKENDS, Limits

MIN_STEP_S = 1e-3
"""Least step of the states; physics steps are at least half as long."""
MAX_IMAGE_SIDE = 4096
"""Largest width and height of an imagined image [pixels]."""
MAX_VIDEO_RATE_HZ = 1000.0
"""Largest rate of imagined frames: one per ``MIN_STEP_S``."""


class NoAppearanceError(RequestError):
    """Images were requested before any camera image was seen."""


def check_range(name: str, value: float, low: float, high: float, unit: str, low_open: bool = False) -> None:
    """Raises RequestError where a value is not finite or out of range; ``low_open``: the lower bound is out, too."""
    if not np.isfinite(value) or value > high or value < low or (low_open and value <= low):
        bound = f"more than {low:g}" if low_open else f"{low:g}"
        raise RequestError(f"{name}: got {value:g}{unit}, expected {bound} to {high:g}{unit}")


class HasInterventions(Protocol):
    """A hypothesis, or the message of one."""

    @property
    def interventions(self) -> Sized:
        """Of whatever type."""
        ...


def check_counts(hypotheses: Sequence[HasInterventions], batch_sizes: Sequence[int], limits: Limits) -> None:
    """Refuse by counts alone; a message is refused so before anything in it is converted.

    Args:
        batch_sizes: futures in each batch.

    Raises:
        RequestError: names the field, the count and the limit.
    """
    count = len(hypotheses) + sum(batch_sizes)
    if not 1 <= count <= limits.max_hypotheses:
        what = "hypotheses and batches" if batch_sizes else "hypotheses"
        raise RequestError(f"{what}: got {count}, expected 1 to {limits.max_hypotheses} (max_hypotheses)")
    for k, hypothesis in enumerate(hypotheses):
        if len(hypothesis.interventions) > limits.max_interventions:
            raise RequestError(
                f"hypotheses[{k}].interventions: got {len(hypothesis.interventions)}, "
                f"expected at most {limits.max_interventions}"
            )


def validate_request(
    request: ImagineRequest, scene: SceneGraph, limits: Limits, appearance: Appearance | None = None
) -> NDArray[np.int64]:
    """Refuse what cannot be answered, cheapest checks first; K = 10^6 costs no more than K = 0.

    Returns:
        (M,) ids of the answer's objects, see ``object_slots``.

    Raises:
        RequestError, NoAppearanceError, InterventionError, UnknownObjectError: the message names the field, what was
            found and what was expected.
    """
    check_counts(request.hypotheses, [len(batch) for batch in request.batches], limits)
    check_range("horizon", request.horizon_s, 0.0, limits.max_horizon_s, " s", low_open=True)
    check_range("step", request.step_s, MIN_STEP_S, request.horizon_s, " s")
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
    # 0: the default. NaN and negative values are errors.
    check_range("deadline", request.deadline_s, 0.0, limits.max_deadline_s, " s")
    if len(request.pairs) > limits.max_pairs:
        raise RequestError(f"pairs: got {len(request.pairs)}, expected at most {limits.max_pairs}")
    for name in ("log_mass", "friction", "restitution", "log_mass_std", "friction_std", "restitution_std"):
        unknown = scene.ids[~np.isfinite(getattr(scene, name))]
        if len(unknown):
            raise RequestError(
                f"initial_state.objects.{name}: got a value that is not finite for ids {unknown.tolist()[:8]}"
            )
    for k, hypothesis in enumerate(request.hypotheses):
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
    values = request.count * request.samples * steps * len(ids) * STATE_SIZE
    if values > limits.max_state_values:
        raise RequestError(
            f"hypotheses x samples x times x objects: got {request.count} x {request.samples} x {steps} x {len(ids)}, "
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
    return ids


def _validate_images(request: ImagineRequest, scene: SceneGraph, limits: Limits, appearance: Appearance | None) -> None:
    images = request.images
    if not images.any_images:
        return
    check_range("video_rate", images.rate_hz, 0.0, MAX_VIDEO_RATE_HZ, " Hz", low_open=True)
    if images.world_T_camera is not None and not np.isfinite(images.world_T_camera).all():
        raise RequestError("camera_pose: got a number that is not finite, expected a pose")
    if images.camera is not None and max(images.camera.width, images.camera.height) > MAX_IMAGE_SIDE:
        raise RequestError(
            f"camera: got {images.camera.width}x{images.camera.height} pixels, expected at most {MAX_IMAGE_SIDE} a side"
        )
    if appearance is None or appearance.frame is None:
        raise NoAppearanceError(
            "want_video, want_depth: images were asked for, but no camera image was seen yet; "
            "expected color, depth, camera_info and instances of one stamp (see diagnostics)"
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
