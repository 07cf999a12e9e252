"""What is known of sides that are not seen: free space, outlines that are hidden, sizes by class, hidden handles."""

import numpy as np
import pytest

from wm_core.rotations import about_z
from wm_core.scene_graph import Shape
from wm_perception.shapes.fitting import fit_shape
from wm_perception.shapes.free_space import FreeSpace
from wm_perception.shapes.handles import hidden_handle
from wm_perception.shapes.rim import Rim
from wm_perception.shapes.size_prior import likely_extents
from wm_perception.shapes.surfaces import ShapeFit
from wm_perception.shapes.unseen import completed, open_ends
from wm_perception.tracking.outlines import CUT, FREE, outline_of

EYE = np.array([-0.8, 0.0, 0.5])


def past(rows):
    """Ends of rays on the table around the origin, at (x, y) each."""
    return np.array([[x, y, 0.0] for x, y in rows])


def box(extents, position=(0.0, 0.0, 0.05)):
    return ShapeFit(Shape.BOX, np.array(position), about_z(0.0), np.array(extents), 0.0)


def test_a_ray_through_a_solid_is_in_free_space_and_one_beside_it_is_not():
    free = FreeSpace.up_to(EYE, past([(0.2, 0.0), (0.2, 0.2)]), 0.001)
    extents = np.array([0.1, 0.1, 0.1])
    points, distance = free.deepest(Shape.BOX, extents, np.array([0.0, 0.0, 0.05]), np.eye(3))
    assert distance.min() == pytest.approx(-0.0164, abs=0.001)
    assert np.abs(points[distance.argmin()][:2]).max() < 0.05
    aside = FreeSpace.up_to(EYE, past([(0.2, 0.2), (0.2, -0.2)]), 0.001)
    assert aside.intrusion_m(Shape.BOX, extents, np.array([0.0, 0.0, 0.05]), np.eye(3)) == 0.0


def test_what_ends_before_a_solid_says_nothing_of_it():
    free = FreeSpace.up_to(EYE, np.array([[-0.2, 0.0, 0.1]]), 0.001)
    assert free.intrusion_m(Shape.BOX, np.full(3, 0.1), np.array([0.0, 0.0, 0.05]), np.eye(3)) == 0.0


def test_free_space_that_a_can_only_touches_does_not_change_it():
    rng = np.random.default_rng(0)
    turn, z = rng.uniform(0.6 * np.pi, 1.4 * np.pi, 300), rng.uniform(0.01, 0.12, 300)
    points = np.column_stack([0.04 * np.cos(turn), 0.04 * np.sin(turn), z]) + 0.0005 * rng.standard_normal((300, 3))
    beside = np.array([[0.0, sign * away, h] for sign in (-1, 1) for away in (0.043, 0.06) for h in (0.03, 0.06, 0.09)])
    free = FreeSpace.up_to(EYE, EYE + 1.6 * (beside - EYE), 0.001)
    without, bounded = (fit_shape(points, 0.0, free=known) for known in (None, free))
    assert bounded.shape == without.shape == Shape.CYLINDER
    np.testing.assert_allclose(bounded.extents, without.extents, atol=0.001)
    np.testing.assert_allclose(bounded.position, without.position, atol=0.001)
    # A can of twice the size would be where the table is seen.
    assert free.intrusion_m(Shape.CYLINDER, 2.0 * bounded.extents, bounded.position, np.eye(3)) > 0.005


NOWHERE = np.zeros((60, 80), bool)


def test_an_end_beside_something_nearer_goes_on_and_an_outline_of_its_own_ends():
    depth = np.full((60, 80), 1.2, np.float32)
    labels = np.zeros((60, 80), np.int32)
    labels[20:40, 20:50] = 1
    depth[20:40, 20:50] = 1.0
    depth[10:50, 50:60] = 0.8
    # What hides it leaks into its mask by a pixel.
    depth[20:40, 49] = 0.8
    outline = outline_of(depth, labels, 1, (slice(20, 40), slice(20, 50)), 2, NOWHERE)
    assert outline.leaked[:, -1].all()
    assert not outline.leaked[:, :-2].any()
    assert (outline.rim[5:15, 28:] == CUT).all()
    assert (outline.rim[5:15, 0] == FREE).all()
    assert 0.05 < outline.hidden_share < 0.4
    assert len(outline.past)
    assert (labels[outline.past[:, 0], outline.past[:, 1]] == 0).all()


def test_an_object_goes_on_behind_the_robots_own_body_and_ends_before_it():
    """The depth image has nothing where the body is."""
    depth = np.full((60, 80), 1.2, np.float32)
    labels = np.zeros((60, 80), np.int32)
    labels[20:40, 20:50] = 1
    depth[20:40, 20:50] = 1.0
    depth[10:50, 50:60] = np.nan
    box = (slice(20, 40), slice(20, 50))
    alone = outline_of(depth, labels, 1, box, 2, NOWHERE)
    assert alone.hidden_share == 0.0 and not (alone.rim == CUT).any()
    for own, hides in ((0.8, True), (1.1, False)):
        nearest = np.where(np.isnan(depth), np.float32(own), depth)
        outline = outline_of(depth, labels, 1, box, 2, NOWHERE, nearest)
        assert (outline.hidden_share > 0.05) == hides
        assert (outline.rim[5:15, 28:] == CUT).all() == hides
        # The body is no surface that is seen past the object.
        assert np.isfinite(depth[outline.past[:, 0], outline.past[:, 1]]).all()


def test_the_surface_that_an_object_stands_on_does_not_hide_it():
    """In few pixels it comes nearer by centimeters from row to row, as it does in front of what hides."""
    depth = np.repeat(np.linspace(2.0, 0.8, 60, dtype=np.float32)[:, None], 80, axis=1)
    ground = np.ones((60, 80), bool)
    labels = np.zeros((60, 80), np.int32)
    labels[25:35, 30:40] = 1
    ground[labels == 1] = False
    depth[labels == 1] = depth[34, 0]
    box = (slice(25, 35), slice(30, 40))
    assert outline_of(depth, labels, 1, box, 2, NOWHERE).hidden_share > 0.2
    alone = outline_of(depth, labels, 1, box, 2, ground)
    assert alone.hidden_share == alone.cut_share == 0.0
    # A thing that stands before it is no ground.
    depth[25:35, 40:46], ground[25:35, 40:46] = 0.7, False
    assert outline_of(depth, labels, 1, box, 2, ground).hidden_share > 0.15


def test_the_image_edge_cuts_an_object():
    depth = np.full((60, 80), 1.0, np.float32)
    labels = np.zeros((60, 80), np.int32)
    labels[20:40, 60:80] = 1
    depth[labels == 0] = 1.5
    outline = outline_of(depth, labels, 1, (slice(20, 40), slice(60, 80)), 2, NOWHERE)
    assert (outline.rim[5:15, -1] == CUT).all()
    assert outline.cut_share > 0.15
    assert outline.hidden_share == 0.0


def test_known_sizes_stay_and_unknown_ones_only_grow():
    seen = np.array([0.02, 0.08, 0.12])
    for known in ([True, True, True], [False, True, True], [False, False, False]):
        likely = likely_extents("box", seen, np.array(known))
        assert (likely[known] == seen[known]).all()
        assert (likely >= seen).all()
    assert likely_extents("can", np.array([0.02, 0.07, 0.1]), np.array([False, True, True]))[0] > 0.05


def test_a_box_is_extended_at_its_hidden_end_alone_and_not_into_free_space():
    rng = np.random.default_rng(1)
    fit = box((0.03, 0.08, 0.12), (0.0, 0.0, 0.06))
    points = (rng.random((300, 3)) - 0.5) * fit.extents + fit.position
    rim = np.where(points[:, 0] > 0.01, 2, np.where(points[:, 0] < -0.01, 1, 0)).astype(np.uint8)
    ends = open_ends(fit, points, rim)
    assert ends[0, 1]
    assert not ends[0, 0]
    longer = completed(fit, points, rim, "box", None)
    assert longer.extents[0] > fit.extents[0]
    low, before = (f.position[0] - 0.5 * f.extents[0] for f in (longer, fit))
    assert low == pytest.approx(before, abs=1e-9)
    behind = np.array([[0.02, y, z] for y in (-0.03, 0.0, 0.03) for z in (0.03, 0.06, 0.09)])
    free = FreeSpace.up_to(EYE, EYE + 1.5 * (behind + [0.02, 0.0, 0.0] - EYE), 0.0)
    assert completed(fit, points, rim, "box", free).extents[0] <= longer.extents[0]


def test_a_hidden_handle_is_behind_a_mug_and_not_where_the_table_is_seen():
    rim = Rim(np.zeros(2), np.full(2, 0.045), 0.0, True)
    level = np.array([-0.8, 0.0, 0.2])
    nothing = FreeSpace.up_to(level, np.array([[0.3, 0.6, 0.0]]), 0.0)
    handle = hidden_handle(rim, 0.0, 0.1, 0.12, level, nothing)
    assert handle is not None
    assert abs(handle.azimuth) < 0.3
    assert handle.reach == pytest.approx(0.075)
    # Behind it, but for its right side, other things are seen past it.
    seen = [[0.6, y, z] for y in np.linspace(-0.02, 0.16, 10) for z in (-0.15, -0.1, -0.05, 0.0)]
    handle = hidden_handle(rim, 0.0, 0.1, 0.12, level, FreeSpace.up_to(level, np.array(seen), 0.0))
    assert handle is not None
    assert np.sin(handle.azimuth) < -0.3
