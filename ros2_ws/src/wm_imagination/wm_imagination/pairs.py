"""How near pairs of objects come in imagined futures, and whether they collide."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from wm_core.interventions import Hypothesis
from wm_core.scene_graph import SceneGraph
from wm_dynamics.base import DynamicsResult
from wm_dynamics.separation import surface_separation


def pair_separations(
    scene: SceneGraph,
    hypotheses: Sequence[Hypothesis],
    times: NDArray[np.float64],
    result: DynamicsResult,
    pairs: Sequence[tuple[int, int]],
    computed: NDArray[np.bool_],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Smallest separation (K, P) [m] and collision probability (K, P), NaN where nothing was computed.

    Args:
        times: (T,) [s]; result: of K hypotheses; pairs: P, of object ids; computed: (K,).
    """
    if not pairs:
        empty = np.zeros((len(hypotheses), 0), np.float32)
        return empty, empty
    separation = surface_separation(scene, hypotheses, times, result, pairs)  # (K, S, P)
    touched = separation <= 0.0
    # A pair may be requested twice, either way round.
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
