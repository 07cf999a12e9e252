"""Relations among objects of several parts: what is in a bowl is inside it, what is on a lid is on it."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from wm_core.convex_parts import ConvexPart
from wm_core.scene_graph import Predicate, SceneGraph, Shape
from wm_dynamics.mujoco.bodies import BodyDef, body_parts, body_points
from wm_perception.reasoning.gaps import Pieces, gap_of_pieces, gaps_between
from wm_perception.reasoning.history import MotionHistory
from wm_perception.reasoning.relations import RelationGraph, measure_relations
from wm_perception.reasoning.steps import step_of
from wm_perception.types import PerceptionConfig
from wm_sim import objects

CONFIG = PerceptionConfig()
WHITE = (1.0, 1.0, 1.0, 1.0)
NOTHING = np.zeros((0, 3))
UPRIGHT = np.array([0.0, 0.0, 0.0, 1.0])


def compound(geoms):
    """Parts about the center of their bounds, the hull of all, and its sizes."""
    geoms, size = objects.centered(list(geoms))
    body = BodyDef(geoms)
    return body_parts(body), body_points(body), size


def boxes(*placed):
    """Parts of (size, center) each."""
    parts = [ConvexPart(Shape.BOX, np.array(size), np.array(center)) for size, center in placed]
    points = np.concatenate([p.points() for p in parts])
    middle = 0.5 * (points.min(axis=0) + points.max(axis=0))
    parts = [replace(p, position=p.position - middle) for p in parts]
    return tuple(parts), points - middle, np.ptp(points, axis=0)


def open_box(size=0.10, height=0.08, wall=0.006):
    half = 0.5 * (size - wall)
    sides = [((wall, size, height), (s * half, 0.0, 0.5 * height)) for s in (-1, 1)]
    sides += [((size, wall, height), (0.0, s * half, 0.5 * height)) for s in (-1, 1)]
    return boxes(*sides, ((size, size, wall), (0.0, 0.0, 0.5 * wall)))


BOWL = compound(objects.bowl(0.16, 0.06, WHITE))
MUG = compound(objects.mug(0.08, 0.10, WHITE))
BIN = open_box()
TRAY = open_box(0.24, 0.03)
PLATE = compound([*objects.bowl(0.24, 0.016, WHITE)])
STEPPED = boxes(((0.06, 0.06, 0.10), (0.0, 0.0, 0.05)), ((0.06, 0.06, 0.03), (0.06, 0.0, 0.015)))
HAMMER = boxes(((0.26, 0.02, 0.02), (0.0, 0.0, 0.02)), ((0.04, 0.12, 0.04), (0.15, 0.0, 0.02)))


def scene_of(container, position, extents, shape=Shape.SPHERE, quaternion=UPRIGHT, turned=UPRIGHT, stamp=0):
    """The container (id 2) with its bottom at z = 0, and a thing (id 3)."""
    parts, hull, size = container
    low = float(Rotation.from_quat(turned).apply(hull)[:, 2].min())
    return SceneGraph.build(
        [2, 3],
        [[0.0, 0.0, -low], position],
        [size, extents],
        stamp_ns=stamp,
        shapes=[Shape.CONVEX, shape],
        quaternions=[turned, quaternion],
        hulls=[hull, NOTHING],
        parts=[parts, ()],
    )


def held(scene):
    """Predicates between thing and container that begin to hold: (of the thing, of the container)."""
    found = RelationGraph(CONFIG).update(scene)
    return (
        {r.predicate for r in found if (r.subject, r.object) == (3, 2)},
        {r.predicate for r in found if (r.subject, r.object) == (2, 3)},
    )


def ball(container, x, z, diameter=0.04, y=0.0):
    return scene_of(container, [x, y, z], [diameter] * 3)


def leaning(container, top_x, top_z, foot_x, foot_z, length=0.16, width=0.014):
    """A stick from a foot towards a point that it leans on."""
    way = np.array([top_x - foot_x, 0.0, top_z - foot_z])
    way /= np.linalg.norm(way)
    turn = Rotation.from_euler("y", np.arctan2(way[0], way[2])).as_quat()
    center = np.array([foot_x, 0.0, foot_z]) + 0.5 * length * way
    return scene_of(container, center, [width, width, length], Shape.CAPSULE, turn)


@pytest.mark.parametrize(
    "scene",
    [
        ball(BOWL, 0.0, 0.031),
        ball(BOWL, 0.02, 0.034),
        ball(MUG, -0.01, 0.029),
        ball(BIN, 0.02, 0.027),
        scene_of(BIN, [0.0, 0.0, 0.032], [0.05, 0.04, 0.05], Shape.BOX),
        leaning(MUG, 0.022, 0.10, -0.04, 0.012),
        leaning(BIN, 0.04, 0.08, -0.03, 0.010),
    ],
    ids=["ball in bowl", "off its middle", "ball in mug", "ball in bin", "block in bin", "spoon in mug", "pen in bin"],
)
def test_what_is_in_a_cavity_is_inside(scene):
    of_thing, of_container = held(scene)
    assert Predicate.INSIDE in of_thing
    assert Predicate.ON not in of_thing and Predicate.SUPPORTS not in of_container
    assert Predicate.INSIDE not in of_container and Predicate.ON not in of_container


@pytest.mark.parametrize(
    "scene",
    [
        ball(PLATE, 0.0, 0.034, 0.048),
        ball(MUG, -0.012, 0.137, 0.09),
        scene_of(BIN, [0.0, 0.0, 0.085], [0.104, 0.104, 0.01], Shape.BOX),
        scene_of(TRAY, [0.0, 0.0, 0.056], [0.08, 0.08, 0.10], Shape.BOX),
        scene_of(STEPPED, [0.03, 0.0, 0.06], [0.04, 0.04, 0.06], Shape.BOX),
    ],
    ids=["ball on plate with a rim", "ball too large for a mug", "lid on box", "block on tray", "block on a step"],
)
def test_what_is_borne_is_on(scene):
    of_thing, of_container = held(scene)
    assert Predicate.ON in of_thing and Predicate.SUPPORTS in of_container
    assert Predicate.INSIDE not in of_thing | of_container


@pytest.mark.parametrize(
    "scene",
    [
        ball(BOWL, 0.095, 0.02),
        ball(MUG, 0.05, 0.02, y=0.05),
        ball(HAMMER, 0.10, 0.02, y=0.03),
        ball(STEPPED, -0.055, 0.02),
    ],
    ids=["beside a bowl", "beside a handle", "between head and handle", "beside a step"],
)
def test_what_is_beside_is_neither(scene):
    of_thing, of_container = held(scene)
    assert not {Predicate.ON, Predicate.INSIDE, Predicate.SUPPORTS} & (of_thing | of_container)


def test_a_ball_over_a_bowl_is_not_yet_inside():
    inside = []
    for z in (0.20, 0.11, 0.08, 0.031):
        found = measure_relations(ball(BOWL, 0.0, z), CONFIG)
        inside.append(found.get((3, Predicate.INSIDE, 2), 0.0))
    assert max(inside[:3]) < 0.1 and inside[3] > 0.8


def test_what_lies_before_a_bin_on_its_side_is_not_inside():
    turned = Rotation.from_euler("y", 90, degrees=True).as_quat()
    before, within = (scene_of(BIN, [x, 0.0, 0.026], [0.04] * 3, turned=turned) for x in (0.065, 0.0))
    assert Predicate.INSIDE not in held(before)[0]
    assert Predicate.INSIDE in held(within)[0]


def test_the_gap_of_a_ball_in_a_bowl_is_that_of_its_parts():
    parts, hull, size = BOWL
    sphere = (int(Shape.SPHERE), np.full(3, 0.04), NOTHING)
    solid = (int(Shape.CONVEX), size, hull)
    places = np.zeros(3), np.eye(3), np.array([0.0, 0.0, 0.005]), np.eye(3)
    # The bowl's floor is 2 cm below its middle, the ball 1.5 cm above it at its lowest.
    gap, normal = gap_of_pieces(Pieces.of(solid, parts), Pieces.of(sphere), *places)
    assert gap == pytest.approx(0.005, abs=0.003)
    assert normal[2] > 0.5, "from the bowl up to the ball"
    of_hulls = gaps_between(solid, sphere, *(v[None] for v in places))
    assert of_hulls[0] < -0.01, "the hull is full where the bowl is empty"


def test_objects_without_parts_are_as_before():
    """Pieces of solids without parts have the gap of the solids."""
    one = (int(Shape.BOX), np.array([0.1, 0.05, 0.08]), NOTHING)
    other = (int(Shape.CYLINDER), np.array([0.06, 0.06, 0.1]), NOTHING)
    places = np.zeros(3), np.eye(3), np.array([0.09, 0.01, 0.0]), Rotation.from_euler("y", 0.4).as_matrix()
    gap, _ = gap_of_pieces(Pieces.of(one), Pieces.of(other), *places, samples=96)
    assert gap == pytest.approx(float(gaps_between(one, other, *(v[None] for v in places))[0]))


def test_the_history_has_the_gaps_of_parts():
    """A contact of a ball with the wall of a bowl that it rolls in is a contact, not an overlap for all the time."""
    gaps = []
    for scene in (ball(BOWL, 0.0, 0.045), ball(BOWL, 0.0, 0.031)):
        history = MotionHistory()
        history.push(step_of(scene, 0.0))
        gaps.append(history.gap[0, 0, 1])
    assert gaps[0] == pytest.approx(0.015, abs=0.004) and gaps[1] == pytest.approx(0.001, abs=0.004)
