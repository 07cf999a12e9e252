"""Effects of interventions: distances to the factual future, and the uncertainty of positions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wm_core.rollout import POSITION
from wm_core.scene_graph import SceneGraph
from wm_dynamics.base import DynamicsResult


def position_std(scene: SceneGraph, states: NDArray[np.float32]) -> NDArray[np.float32]:
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


def effect_of(
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


def effects_of(result: DynamicsResult, good: NDArray[np.bool_]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """As ``effect_of``, against the factual future of the dynamics that answered each."""
    if not result.factual:
        return effect_of(result.states, result.present, good)
    parts = []
    for name, (states, present) in result.factual.items():
        # The factual future of another backend is not in the answer and was not judged; it counts as valid.
        reference = np.concatenate([good[:1] if result.backends[0] == name else [True], good])
        rows = (
            np.concatenate([states[None], result.states]),
            np.concatenate([present[None], result.present]),
        )
        effect, vector = effect_of(*rows, reference)
        own = np.array([backend == name for backend in result.backends])
        parts.append((own, effect[1:], vector[1:]))
    effect, vector = parts[0][1].copy(), parts[0][2].copy()
    for own, one, other in parts[1:]:
        effect[own], vector[own] = one[own], other[own]
    return effect, vector
