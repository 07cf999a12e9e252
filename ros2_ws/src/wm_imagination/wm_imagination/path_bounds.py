"""How far the paths of a request leave the workspace."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wm_core.interventions import InterventionKind
from wm_core.rollout import ImagineRequest
from wm_core.scene_graph import SceneGraph
from wm_dynamics.events import workspace_bounds

_MAX_WARNINGS = 16
"""Warnings about paths in one answer; of more, their number."""


def paths_outside(request: ImagineRequest, scene: SceneGraph) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    """(K,) how far bodies on paths go beyond the workspace [m], and warnings about it."""
    bounds = workspace_bounds(scene)
    outside = np.zeros(request.count, dtype=np.float32)
    if bounds is None:
        return outside, ()
    place = f"the workspace (x {bounds[0, 0]:.2f} to {bounds[1, 0]:.2f}, y {bounds[0, 1]:.2f} to {bounds[1, 1]:.2f} m)"
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
