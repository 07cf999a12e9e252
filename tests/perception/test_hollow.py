"""Hollow bodies from the side that a camera sees: walls, room inside, and handles where they are."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seen_objects import PLACE, WHITE, ball_fits, contains, eye_at, pan, seen_points, tray
from wm_core.convex_parts import MAX_PARTS, hull_part
from wm_core.rotations import about_z, matrix
from wm_core.scene_graph import Shape
from wm_dynamics.mujoco.bodies import GeomDef
from wm_perception.shapes.hollow import HOLLOW_CLASSES, Verdict, find_hollow, hollow_probability
from wm_perception.shapes.hollow_parts import hollow_parts
from wm_perception.shapes.part_frames import in_object_frame, in_world, scaled
from wm_perception.shapes.profiles import convex_pieces
from wm_sim import objects

PROPERTY = settings(max_examples=20, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


def found_parts(solid, elevation, yaw=0.4, likely=0.0, noise=1.0, seed=0):
    eye = eye_at(elevation)
    points = seen_points(solid, eye, PLACE, about_z(yaw), noise=noise, seed=seed)
    verdict, hollow = find_hollow(points, eye, 0.0, likely)
    return points, verdict, hollow


@pytest.mark.parametrize("elevation", [20, 35, 55, 75])
@pytest.mark.parametrize(
    ("solid", "room"),
    [
        (objects.mug(0.085, 0.1, WHITE), (0.055, 0.028)),
        (objects.bowl(0.17, 0.065, WHITE), (0.065, 0.035)),
        (pan(0.2, 0.05, 0.15), (0.045, 0.022)),
        (tray(0.24, 0.16, 0.05, 0.005), (0.035, 0.025)),
    ],
    ids=["mug", "bowl", "pan", "tray"],
)
def test_walls_are_where_they_were_seen_and_the_inside_is_empty(solid, room, elevation):
    points, verdict, hollow = found_parts(solid, elevation)
    assert verdict is Verdict.HOLLOW
    assert np.linalg.norm(hollow.rim.center - PLACE[:2]) < 0.005
    parts = hollow_parts(hollow)
    assert len(parts) <= MAX_PARTS
    held = np.any([contains(part, points, 0.006) for part in parts], axis=0)
    assert held.mean() > 0.85
    height, radius = room
    assert ball_fits(parts, PLACE + [0.0, 0.0, height], radius)


@pytest.mark.parametrize("elevation", [25, 50])
@pytest.mark.parametrize("yaw", [1.2, 2.0, -2.2])
def test_a_mug_can_be_hooked_by_its_handle(elevation, yaw):
    diameter, height = 0.085, 0.1
    points, _, hollow = found_parts(objects.mug(diameter, height, WHITE), elevation, yaw)
    handle = hollow.handle
    assert handle is not None and handle.loop
    assert abs(np.angle(np.exp(1j * (handle.azimuth - yaw)))) < 0.15
    assert abs(handle.reach - (0.5 * diameter + 0.35 * diameter - 0.004 + 0.006)) < 0.006
    parts = hollow_parts(hollow)
    outward = np.array([np.cos(yaw), np.sin(yaw), 0.0])
    # A finger goes through between the wall and the bow, and does not go through the bow itself.
    finger = PLACE + outward * (0.5 * diameter + 0.01) + [0.0, 0.0, 0.5 * height]
    bow = PLACE + outward * (0.85 * diameter - 0.004) + [0.0, 0.0, 0.5 * height]
    assert not any(contains(part, finger[None]).any() for part in parts)
    assert any(contains(part, bow[None], 0.003).any() for part in parts)
    assert points is not None


@pytest.mark.parametrize("yaw", [0.4, 2.0, -1.6])
def test_a_pan_has_a_stick_where_its_handle_is(yaw):
    _, _, hollow = found_parts(pan(0.2, 0.05, 0.15), 40, yaw)
    handle = hollow.handle
    assert handle is not None and not handle.loop
    assert abs(np.angle(np.exp(1j * (handle.azimuth - yaw)))) < 0.1
    assert abs(handle.reach - 0.242) < 0.012
    assert len(hollow_parts(hollow)) == 10


SOLIDS = {
    "box": [GeomDef(Shape.BOX, np.array([0.12, 0.08, 0.09]), position=np.array([0.0, 0.0, 0.045]), color=WHITE)],
    "can": [GeomDef(Shape.CYLINDER, np.array([0.07, 0.07, 0.1]), position=np.array([0.0, 0.0, 0.05]), color=WHITE)],
    "bottle": objects.bottle(0.07, 0.22, WHITE),
    "dumbbell": [
        GeomDef(Shape.BOX, np.array([0.2, 0.03, 0.03]), position=np.array([0.0, 0.0, 0.04]), color=WHITE),
        *(GeomDef(Shape.BOX, np.array([0.03, 0.08, 0.08]), position=np.array([x, 0.0, 0.04]), color=WHITE)
          for x in (-0.09, 0.09)),
    ],
}  # fmt: skip


@pytest.mark.parametrize("elevation", [15, 30, 50, 75])
@pytest.mark.parametrize("name", list(SOLIDS))
def test_solid_things_are_not_hollow(name, elevation):
    _, verdict, hollow = found_parts(SOLIDS[name], elevation)
    assert hollow is None and verdict is not Verdict.HOLLOW


def test_a_lid_is_seen_whatever_the_class_says():
    _, verdict, hollow = found_parts(SOLIDS["can"], 40, likely=0.95)
    assert verdict is Verdict.SOLID and hollow is None


def test_from_the_side_the_class_decides():
    eye = np.array([-0.8, 0.0, 0.06])
    points = seen_points(objects.mug(0.085, 0.1, WHITE), eye, PLACE, about_z(1.6), noise=1.0)
    assert find_hollow(points, eye, 0.0, 0.3) == (Verdict.UNSEEN, None)
    verdict, hollow = find_hollow(points, eye, 0.0, 0.9)
    assert verdict is Verdict.UNSEEN and hollow is not None and hollow.seen == 0.0
    assert hollow.handle is not None and abs(hollow.handle.azimuth - 1.6) < 0.2
    assert ball_fits(hollow_parts(hollow), PLACE + [0.0, 0.0, 0.055], 0.028)


@PROPERTY
@given(
    st.floats(0.07, 0.2),
    st.floats(0.35, 1.3),
    st.floats(25.0, 80.0),
    st.sampled_from([0.0, 1.0]),
    st.integers(0, 9),
)
def test_any_bowl_holds_a_ball_that_fits(diameter, slenderness, elevation, noise, seed):
    height = slenderness * diameter
    _, verdict, hollow = found_parts(objects.bowl(diameter, height, WHITE), elevation, 0.1 * seed, 0.0, noise, seed)
    assert verdict is Verdict.HOLLOW
    assert abs(hollow.top - height) < 0.006 and np.abs(hollow.rim.half - 0.5 * diameter).max() < 0.006
    # The true floor is 10 mm thick.
    radius = min(0.22 * diameter, 0.75 * height - 0.014)
    parts = hollow_parts(hollow)
    assert ball_fits(parts, PLACE + [0.0, 0.0, 0.75 * height], radius)
    # It is closed below: straight down there is a floor, straight aside a wall.
    down = PLACE + np.linspace([0.0, 0.0, 0.0], [0.0, 0.0, 0.5 * height], 60)
    assert any(contains(part, down).any() for part in parts)
    for angle in np.linspace(0.0, 2.0 * np.pi, 11):
        out = np.array([np.cos(angle), np.sin(angle), 0.0])
        aside = PLACE + [0.0, 0.0, 0.9 * height] + np.linspace(0.0, 0.52 * diameter, 80)[:, None] * out
        assert any(contains(part, aside).any() for part in parts)


def test_the_probability_of_hollow_classes_is_their_sum():
    vocabulary = ("box", "mug", "bowl")
    assert "mug" in HOLLOW_CLASSES
    assert hollow_probability(vocabulary, np.array([0.1, 0.5, 0.4])) == pytest.approx(0.9)
    assert hollow_probability(vocabulary, np.zeros(0)) == 0.0


def test_a_goblet_is_cut_at_its_stem():
    profile = np.array([[1.0, 0.0], [1.0, 0.01], [0.2, 0.012], [0.2, 0.08], [0.9, 0.1]])
    pieces = convex_pieces(profile, 3)
    assert len(pieces) == 3
    assert pieces[0][0, 1] == 0.0 and pieces[-1][-1, 1] == 0.1
    # Between foot and cup there is nothing but the stem.
    stem = next(p for p in pieces if p[:, 1].min() <= 0.05 <= p[:, 1].max())
    assert stem[:, 0].max() < 0.3


@PROPERTY
@given(st.floats(-3.0, 3.0), st.tuples(*[st.floats(-0.5, 0.5)] * 3), st.floats(0.8, 1.2))
def test_parts_keep_their_place_through_frames(yaw, place, factor):
    hull = hull_part(np.random.default_rng(1).uniform(-0.05, 0.05, (12, 3)))
    box = hollow_parts(found_parts(tray(0.2, 0.12, 0.05, 0.005), 50, noise=0.0)[2])[0]
    quaternion, position = about_z(yaw), np.array(place)
    local = in_object_frame((hull, box), position, quaternion)
    back = in_world(local, position, quaternion)
    for before, after in zip((hull, box), back, strict=True):
        a, b = before.points(), after.points()
        assert np.abs(a.min(axis=0) - b.min(axis=0)).max() < 1e-9 and np.abs(a.max(axis=0) - b.max(axis=0)).max() < 1e-9
    turned = local[0].points()
    assert np.abs(turned @ matrix(quaternion).T + position - hull.points()).max() < 1e-9
    assert np.allclose(scaled(local, np.full(3, factor))[0].points(), factor * turned)
