"""Convex parts: points, and the merge of many into few."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import ConvexHull, Delaunay

from wm_core.convex_parts import MAX_PARTS, ConvexPart, hull_part, merged, surface_points
from wm_core.scene_graph import SceneGraph, Shape


def ring(count: int) -> list[ConvexPart]:
    parts = []
    for angle in np.linspace(0.0, 2.0 * np.pi, count, endpoint=False):
        turn = np.array([0.0, 0.0, np.sin(0.5 * angle), np.cos(0.5 * angle)])
        place = 0.05 * np.array([np.cos(angle), np.sin(angle), 0.0])
        parts.append(ConvexPart(Shape.BOX, np.array([0.006, 0.1 * np.tan(np.pi / count), 0.08]), place, turn))
    return parts


@pytest.mark.parametrize("shape", list(Shape)[:4])
def test_points_span_the_extents(shape):
    extents = [0.2, 0.2, 0.2] if shape == Shape.SPHERE else [0.2, 0.2, 0.5]
    points = surface_points(shape, extents, np.zeros((0, 3)))
    np.testing.assert_allclose(np.ptp(points, axis=0), extents, atol=1e-9)


def test_a_ring_of_many_walls_stays_hollow_when_merged():
    parts = merged(ring(24))
    assert len(parts) == MAX_PARTS
    assert not any((Delaunay(p.points()).find_simplex([[0.0, 0.0, 0.0]]) >= 0).any() for p in parts)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 12))
def test_merged_parts_hold_every_point_and_no_more_than_the_outline(seed, limit):
    rng = np.random.default_rng(seed)
    parts = [hull_part(rng.normal(0.0, 0.02, (8, 3)) + rng.normal(0.0, 0.1, 3)) for _ in range(15)]
    few = merged(parts, limit)
    assert len(few) == limit
    hulls = [ConvexHull(p.points()) for p in few]
    for point in np.concatenate([p.points() for p in parts]):
        assert min((h.equations[:, :3] @ point + h.equations[:, 3]).max() for h in hulls) < 1e-9
    outline = ConvexHull(np.concatenate([p.points() for p in parts])).volume
    assert max(h.volume for h in hulls) <= outline + 1e-12


def test_too_many_parts_are_refused():
    with pytest.raises(ValueError, match="object 7 has 13 parts, expected at most 12"):
        SceneGraph.build([7], [[0, 0, 0]], [[1, 1, 1]], parts=[tuple(ring(13))])


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"extents": np.array([0.1, np.nan, 0.1])}, r"ConvexPart\.extents: got \[0\.1, nan, 0\.1\], expected 3 finite"),
        ({"extents": np.array([0.1, -0.1, 0.1])}, r"ConvexPart\.extents: .* expected none < 0"),
        ({"extents": np.array([0.1, 0.1])}, r"ConvexPart\.extents: .* expected 3 finite"),
        ({"position": np.array([np.inf, 0.0, 0.0])}, r"ConvexPart\.position: .* expected 3 finite"),
        ({"quaternion": np.array([0.0, 0.0, 1.0])}, r"ConvexPart\.quaternion: .* expected 4 finite"),
        ({"hull": np.zeros(6)}, r"ConvexPart\.hull: got an array of shape \(6,\), expected \(P, 3\)"),
        ({"hull": np.full((4, 3), np.nan)}, r"ConvexPart\.hull: .* finite"),
    ],
)
def test_a_part_of_no_numbers_is_refused_by_name(changed, said):
    given = {"shape": Shape.CONVEX, "extents": np.full(3, 0.1), **changed}
    with pytest.raises(ValueError, match=said):
        ConvexPart(**given)
