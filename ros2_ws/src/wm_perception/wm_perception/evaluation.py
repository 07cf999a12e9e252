"""Errors of a sequence of scene graphs against the ground truth."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment

from wm_core.rotations import quaternion_to_matrix
from wm_core.scene_graph import SceneGraph, Shape

MATCH_DISTANCE_M = 0.06
"""Distance [m] up to which a perceived object is a true one, about the size of the objects. Larger hides phantoms."""
NEAR_EQUAL = 0.1
"""Sides whose logarithms differ by less count as equal: a turn that swaps them is no error."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class PerceptionScore:
    """Counts and errors over a sequence.

    Attributes:
        objects_true: movable objects that exist in the ground truth.
        found: of those, how many were matched in at least half of the frames that they could be seen in.
        missed: objects_true - found.
        phantom: perceived ids that matched no true object in most of their frames.
        id_switches: times that a true object changed its perceived id (motmetrics).
        position_error_median_m, position_error_p90_m: over all matches.
        velocity_error_median_m_s: over all matches of objects that truly move (over 0.05 m/s); NaN if none do.
        frames: frames compared.
    """

    objects_true: int
    found: int
    missed: int
    phantom: int
    id_switches: int
    position_error_median_m: float
    position_error_p90_m: float
    velocity_error_median_m_s: float
    frames: int

    def as_dict(self) -> dict[str, float]:
        """Plain numbers by name."""
        return asdict(self)


def match(
    perceived: SceneGraph, ground_truth: SceneGraph, gate_m: float = MATCH_DISTANCE_M
) -> list[tuple[int, int, float]]:
    """Optimal pairs (row in perceived, row in ground truth, distance [m]) of movable objects nearer than a gate.

    The gate widens with the size of the object: the center of a large one is known less well.
    """
    p = np.flatnonzero(~perceived.is_static)
    t = np.flatnonzero(~ground_truth.is_static)
    if not len(p) or not len(t):
        return []
    distance = np.linalg.norm(perceived.positions[p][:, None] - ground_truth.positions[t][None], axis=-1)
    gates = np.maximum(gate_m, 0.3 * ground_truth.extents[t].max(axis=1))[None]
    cost = np.where(distance < gates, distance, 1e3)
    return [
        (int(p[i]), int(t[j]), float(distance[i, j]))
        for i, j in zip(*linear_sum_assignment(cost), strict=True)
        if cost[i, j] < 1e3
    ]


# -- one object against the ground truth


def _turns() -> Array:
    """(24, 3, 3) the turns of a cube: ways to name the axes of the same box."""
    found = []
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((1.0, -1.0), repeat=3):
            turn = np.zeros((3, 3))
            turn[list(order), range(3)] = signs
            if np.linalg.det(turn) > 0.0:
                found.append(turn)
    return np.array(found)


_TURNS = _turns()
_ORDERS = np.abs(_TURNS).argmax(axis=1)


def extents_error(perceived: ArrayLike, ground_truth: ArrayLike) -> float:
    """Mean relative error of the three full sizes, in the order of axes that fits best.

    Args:
        perceived, ground_truth: (3,) full sizes along each object's own axes [m].
    """
    found, true = np.asarray(perceived, np.float64), np.asarray(ground_truth, np.float64)
    orders = np.array(list(itertools.permutations(range(3))))
    return float((np.abs(found[orders] - true) / true).mean(axis=1).min())


def round_axis(shape: int, extents: ArrayLike, hull: ArrayLike | None = None) -> int | None:
    """The axis (0, 1, 2) of symmetry of a true object; -1: any axis (a sphere); None: none.

    The axis of a cylinder or capsule is that of the size which is unlike the other two. A convex hull is round about an
    axis if turning it about that axis moves none of its silhouettes by more than 6 % of its size (a plate, a bottle;
    not a mug with its handle).
    """
    if shape == Shape.SPHERE:
        return -1
    sizes = np.asarray(extents, np.float64)
    if shape in (Shape.CYLINDER, Shape.CAPSULE):
        unlike = {k: abs(np.log(sizes[(k + 1) % 3] / sizes[(k + 2) % 3])) for k in (2, 0, 1)}
        return min(unlike, key=lambda k: round(unlike[k], 6))
    points = np.asarray(hull, np.float64) if hull is not None else np.zeros((0, 3))
    if shape != Shape.CONVEX or len(points) < 8:
        return None
    size = float(sizes.max())
    angles = np.linspace(0.0, 2.0 * np.pi, 36, endpoint=False)
    for axis in (2, 0, 1):
        others = [(axis + 1) % 3, (axis + 2) % 3]
        reach = np.zeros((len(angles), 3))
        for column, tilt in enumerate((-0.7, 0.0, 0.7)):
            directions = np.zeros((len(angles), 3))
            directions[:, axis] = np.sin(tilt)
            directions[:, others[0]] = np.cos(tilt) * np.cos(angles)
            directions[:, others[1]] = np.cos(tilt) * np.sin(angles)
            reach[:, column] = (directions @ points.T).max(axis=1)
        if float(np.ptp(reach, axis=0).max()) < 0.06 * size:
            return axis
    return None


def rotation_error_deg(
    perceived_quaternion: ArrayLike,
    perceived_extents: ArrayLike,
    quaternion: ArrayLike,
    extents: ArrayLike,
    shape: int,
    hull: ArrayLike | None = None,
) -> float | None:
    """Angle [deg] between a perceived and a true orientation, up to symmetries; None for a sphere.

    The axes of the perceived object may be named in any of the 24 ways, as long as the sizes along them then fit the
    true ones about as well as they can; so half turns of a box are none, nor are quarter turns that swap near-equal
    sides. Of round objects only the axis counts, either way up.

    Args:
        perceived_quaternion, quaternion: (4,) x y z w; perceived_extents, extents: (3,) full sizes [m].
        shape: true ``Shape``; hull: (P, 3) points of a true convex object, in its own frame.
    """
    axis = round_axis(shape, extents, hull)
    if axis == -1:
        return None
    found = np.maximum(np.asarray(perceived_extents, np.float64), 1e-6)
    true = np.maximum(np.asarray(extents, np.float64), 1e-6)
    misfit = np.abs(np.log(found[_ORDERS] / true)).max(axis=1)
    rotations = quaternion_to_matrix(np.asarray(perceived_quaternion)) @ _TURNS[misfit <= misfit.min() + NEAR_EQUAL]
    target = quaternion_to_matrix(np.asarray(quaternion))
    if axis is not None:
        cosines = np.abs(rotations[:, :, axis] @ target[:, axis])
    else:
        cosines = 0.5 * (np.einsum("nij,ij->n", rotations, target) - 1.0)
    return float(np.degrees(np.arccos(np.clip(cosines.max(), -1.0, 1.0))))


# -- identities


@dataclass(frozen=True)
class TrackFrame:
    """One frame of a sequence for the scores of identities.

    Attributes:
        true_ids: objects to be found; perceived_ids: objects that were found, rightly or not.
        pairs: (true id, perceived id, distance [m]) of those that may be matched.
    """

    true_ids: tuple[int, ...]
    perceived_ids: tuple[int, ...]
    pairs: tuple[tuple[int, int, float], ...]


@dataclass(frozen=True)
class TrackScore:
    """Scores of identities (Ristani et al. 2016 for IDF1, Bernardin and Stiefelhagen 2008 for MOTA), by motmetrics.

    Attributes:
        idf1, mota: 0..1 (MOTA may be negative); nan where there was nothing to find.
        id_switches: how many; id_switches_per_1000: per 1000 true object frames.
        misses, false_positives, object_frames: how many.
    """

    idf1: float
    mota: float
    id_switches: int
    id_switches_per_1000: float
    misses: int
    false_positives: int
    object_frames: int


def score_tracks(sequences: Iterable[Sequence[TrackFrame]]) -> TrackScore:
    """Scores over sequences, whose ids are apart from one another."""
    import motmetrics

    accumulators = []
    for frames in sequences:
        accumulator = motmetrics.MOTAccumulator(auto_id=True)
        for frame in frames:
            cost = np.full((len(frame.true_ids), len(frame.perceived_ids)), np.nan)
            for true_id, perceived_id, distance in frame.pairs:
                cost[frame.true_ids.index(true_id), frame.perceived_ids.index(perceived_id)] = distance
            accumulator.update(list(frame.true_ids), list(frame.perceived_ids), cost)
        accumulators.append(accumulator)
    names = ["idf1", "mota", "num_switches", "num_objects", "num_misses", "num_false_positives"]
    if not accumulators:
        return TrackScore(np.nan, np.nan, 0, np.nan, 0, 0, 0)
    table = motmetrics.metrics.create().compute_many(accumulators, metrics=names, generate_overall=True)
    row = table.loc["OVERALL"]
    objects, switches = int(row["num_objects"]), int(row["num_switches"])
    return TrackScore(
        idf1=float(row["idf1"]),
        mota=float(row["mota"]) if objects else np.nan,
        id_switches=switches,
        id_switches_per_1000=1000.0 * switches / objects if objects else np.nan,
        misses=int(row["num_misses"]),
        false_positives=int(row["num_false_positives"]),
        object_frames=objects,
    )


@dataclass(frozen=True)
class Reappearance:
    """An object that was hidden and came back.

    Attributes:
        true_id: of the object. hidden_s: time for which it was hidden [s].
        before, after: its perceived ids before and after; None: it had none.
    """

    true_id: int
    hidden_s: float
    before: int | None
    after: int | None

    @property
    def same(self) -> bool:
        """Whether it came back under its id."""
        return self.before is not None and self.before == self.after


def reappearances(
    times: ArrayLike,
    visible: Sequence[set[int]],
    gone: Sequence[set[int]],
    found: Sequence[Mapping[int, int]],
    hidden_s: float = 2.0,
    around_s: float = 1.0,
) -> list[Reappearance]:
    """Objects that were wholly hidden for long and came back.

    Its id before is the one that it had most in the last ``around_s`` before it went, and the one after likewise.

    Args:
        times: (T,) [s]; visible, gone: per frame the true ids that are well seen, and those that are not seen at all.
        found: per frame {true id: perceived id} of the matches.
        hidden_s: shortest time from the last frame in which an object was seen to the first in which it is again.
    """
    stamps = np.asarray(times, np.float64)
    result = []
    for name in sorted(set().union(*visible) if visible else set()):
        seen = np.array([name not in ids for ids in gone])
        edges = np.flatnonzero(np.diff(seen.astype(int)))
        for first, last in itertools.pairwise(edges):
            if not seen[first] or stamps[last + 1] - stamps[first] < hidden_s - 1e-6:
                continue
            well = [n for n in range(last + 1, len(stamps)) if name in visible[n]]
            if not well:
                continue
            before = [
                found[n].get(name)
                for n in range(first + 1)
                if stamps[n] > stamps[first] - around_s and name in visible[n]
            ]
            after = [found[n].get(name) for n in well if stamps[n] < stamps[well[0]] + around_s]
            gap = float(stamps[last + 1] - stamps[first])
            result.append(Reappearance(name, gap, _most(before), _most(after)))
    return result


def _most(ids: Sequence[int | None]) -> int | None:
    known = [i for i in ids if i is not None]
    return max(sorted(set(known)), key=known.count) if known else None


# -- a sequence


def score_sequence(
    pairs: Sequence[tuple[SceneGraph, SceneGraph]], visible: Sequence[set[int]] | None = None
) -> PerceptionScore:
    """Score (perceived, ground truth) pairs of equal stamps, in time order.

    Args:
        visible: for each pair the true ids that can be seen; None: all of them.

    Raises:
        ValueError: no pairs.
    """
    import motmetrics

    if not pairs:
        raise ValueError("score: got no pairs of scene graphs, expected at least one")
    accumulator = motmetrics.MOTAccumulator(auto_id=True)
    true_frames: dict[int, int] = {}
    true_matched: dict[int, int] = {}
    seen_frames: dict[int, int] = {}
    seen_matched: dict[int, int] = {}
    errors: list[float] = []
    velocity_errors: list[float] = []
    for n, (perceived, ground_truth) in enumerate(pairs):
        matches = match(perceived, ground_truth)
        can_see = set(ground_truth.ids[~ground_truth.is_static].tolist()) if visible is None else visible[n]
        for i in ground_truth.ids[~ground_truth.is_static].tolist():
            true_frames[i] = true_frames.get(i, 0) + (i in can_see)
        for i in perceived.ids[~perceived.is_static].tolist():
            seen_frames[i] = seen_frames.get(i, 0) + 1
        for p, t, distance in matches:
            true_id, seen_id = int(ground_truth.ids[t]), int(perceived.ids[p])
            true_matched[true_id] = true_matched.get(true_id, 0) + (true_id in can_see)
            seen_matched[seen_id] = seen_matched.get(seen_id, 0) + 1
            if true_id not in can_see:
                continue
            errors.append(distance)
            if np.linalg.norm(ground_truth.linear_velocities[t]) > 0.05:
                velocity_errors.append(
                    float(np.linalg.norm(perceived.linear_velocities[p] - ground_truth.linear_velocities[t]))
                )
        cost = np.full((len(true_frames), len(perceived)), np.nan)
        order = list(true_frames)
        for p, t, distance in matches:
            cost[order.index(int(ground_truth.ids[t])), p] = distance
        accumulator.update(order, perceived.ids.tolist(), cost)
    switches = motmetrics.metrics.create().compute(accumulator, metrics=["num_switches"])
    found = sum(1 for i, n in true_frames.items() if n and true_matched.get(i, 0) >= 0.5 * n)
    existing = sum(1 for n in true_frames.values() if n)
    phantom = sum(1 for i, n in seen_frames.items() if seen_matched.get(i, 0) < 0.5 * n)
    return PerceptionScore(
        objects_true=existing,
        found=found,
        missed=existing - found,
        phantom=phantom,
        id_switches=int(switches["num_switches"].iloc[0]),
        position_error_median_m=float(np.median(errors)) if errors else float("nan"),
        position_error_p90_m=float(np.percentile(errors, 90)) if errors else float("nan"),
        velocity_error_median_m_s=float(np.median(velocity_errors)) if velocity_errors else float("nan"),
        frames=len(pairs),
    )
