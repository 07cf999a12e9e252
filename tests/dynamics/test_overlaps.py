"""What the sweeps leave: deep contacts are solved again, contacts of two bodies are reduced; what hulls stand on."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from compound_things import Array, compound, scene
from dynamics_backends import shared_dynamics
from wm_core.interventions import Hypothesis, set_pose
from wm_core.rollout import POSITION
from wm_core.scene_graph import Shape
from wm_dynamics.contact_step.formulas.ground import lowest_of_hull
from wm_dynamics.contact_step.manifold import KEPT, SAME_WAY, keep_widest
from wm_dynamics.contact_step.overlaps import LEFT_M, Touching, closing, separate
from wm_dynamics.mujoco.bodies import GeomDef

TIMES = np.arange(31) / 30.0


def touching(rng: np.random.Generator, bodies: int, count: int) -> Touching:
    """Contacts of random pairs of bodies, some with the surface beneath, some deep."""
    b = rng.integers(bodies, size=count)
    a = (b + rng.integers(1, bodies, size=count)) % bodies
    a[rng.random(count) < 0.3] = -1
    normal = rng.normal(size=(count, 3))
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    normal[a < 0] = [0.0, 0.0, 1.0]
    arms = rng.normal(0.0, 0.05, (2, count, 3))
    return Touching(a, b, normal, arms[0], arms[1], rng.uniform(-0.01, 0.01, count), np.zeros(count))


def masses(rng: np.random.Generator, bodies: int) -> tuple[Array, Array, Array, Array]:
    """Inverse mass (B,), inverse inertia (B, 9), and both of the bodies themselves; the last body is held."""
    mass = rng.uniform(0.05, 2.0, bodies)
    turns = Rotation.random(bodies, random_state=int(rng.integers(1 << 31))).as_matrix()
    own = rng.uniform(0.5, 2.0, (bodies, 3)) * mass[:, None] * 1e-3
    inertia = turns @ (own[:, :, None] * turns.transpose(0, 2, 1))
    inverse = np.linalg.inv(inertia)
    inverse[-1] = 0.0
    inverse_mass = 1.0 / mass
    inverse_mass[-1] = 0.0
    return inverse_mass, inverse.reshape(bodies, 9), mass, inertia


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_stopping_takes_energy_and_keeps_momentum(seed: int) -> None:
    rng = np.random.default_rng(seed)
    count = 5
    contacts, (inverse_mass, inverse, mass, inertia) = touching(rng, count, 14), masses(rng, count)
    twist = rng.normal(0.0, 0.5, (count, 6))
    twist[-1] = 0.0
    before = twist.copy()
    separate(14, contacts, inverse_mass, inverse, twist, np.zeros((count, 6)))

    def energy(of: Array) -> float:
        turning = np.einsum("ni,nij,nj->n", of[:, 3:], inertia, of[:, 3:])
        return 0.5 * float((mass * (of[:, :3] ** 2).sum(axis=1) + turning)[:-1].sum())

    assert energy(twist) <= energy(before) + 1e-9
    np.testing.assert_array_equal(twist[-1], 0.0)
    pairs = contacts.a >= 0
    loose = Touching(*(v[pairs & (contacts.a < count - 1) & (contacts.b < count - 1)] for v in contacts))
    twist = before.copy()
    separate(len(loose.gap), loose, inverse_mass, inverse, twist, np.zeros((count, 6)))
    np.testing.assert_allclose(mass @ twist[:, :3], mass @ before[:, :3], atol=1e-9)


def test_a_row_of_bodies_that_is_deep_comes_apart_without_a_velocity() -> None:
    """Five balls of 2 cm that each lie 4 mm in the next, the first against a wall."""
    count = 5
    one = np.tile([1.0, 0.0, 0.0], (count, 1))
    a = np.arange(-1, count - 1)
    row = Touching(a, np.arange(count), one, 0.01 * one, -0.01 * one, np.full(count, -0.004), np.zeros(count))
    shift = np.zeros((count, 6))
    for _ in range(3):
        twist = np.zeros((count, 6))
        separate(count, row, np.full(count, 5.0), np.zeros((count, 9)), twist, shift)
        np.testing.assert_array_equal(twist, 0.0)
        assert shift[:, 0].min() > -1e-9
        row.gap[:] = [row.gap[c] + closing(c, row, shift) for c in range(count)]
    assert row.gap.min() > -LEFT_M - 2e-4 and row.gap.max() < 1e-3


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 40))
def test_of_contacts_that_push_one_way_four_are_kept_and_the_deepest(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    ways = np.eye(3)[rng.integers(3, size=count)]
    place, gap = rng.normal(0.0, 0.03, (count, 3)), rng.uniform(-0.003, 0.0, count)
    state = np.zeros(count, dtype=np.int64)
    keep_widest(count, ways, place, gap, state, np.zeros(count))
    assert state.min() > 0
    for way in np.unique(ways, axis=0):
        group = ways @ way > SAME_WAY
        kept = group & (state > 1)
        assert 1 <= kept.sum() <= KEPT
        assert gap[group].min() == gap[kept].min()
        if group.sum() > 12 and kept.sum() == KEPT:
            widest = np.linalg.norm(place[group][:, None] - place[group][None], axis=2).max()
            own = np.linalg.norm(place[kept][:, None] - place[kept][None], axis=2).max()
            assert own > 0.5 * widest


CORNERS = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)])


def lowest(points: Array, turn: Rotation) -> NDArray[np.float64]:
    """(4, 3) what a hull of points (P, 3) stands on, in the world."""
    down = turn.inv().apply([0.0, 0.0, -1.0])[:, None, None]
    found, _ = lowest_of_hull(down, points.T[:, :, None])
    return np.asarray(turn.apply(found[:, :, 0].T))


@pytest.mark.parametrize("lean", [0.0, 0.005])
def test_a_hull_that_stands_flat_does_so_on_its_four_corners(lean: float) -> None:
    box = CORNERS * [0.1, 0.02, 0.01]
    for turn in (Rotation.identity(), Rotation.from_euler("z", 0.7), Rotation.from_euler("x", 0.5 * np.pi)):
        leaning = Rotation.from_euler("y", lean) * turn
        stands, all_corners = lowest(box, leaning), leaning.apply(box)
        assert len(np.unique(np.round(stands, 6), axis=0)) == 4
        assert np.abs(stands[:, None] - all_corners[None]).max(axis=-1).min(axis=1).max() < 1e-9
        assert stands[:, 2].max() < all_corners[:, 2].min() + 0.002


def test_a_hull_that_leans_stands_on_what_is_lowest() -> None:
    """A screwdriver's shaft ends 11 mm above the table; taken for a contact, it let the handle's front end sink in."""
    angle = np.linspace(0.0, 2.0 * np.pi, 16, endpoint=False)
    ring = np.stack([0.0 * angle, np.cos(angle), np.sin(angle)], axis=1)
    points = np.concatenate([0.0175 * ring + [-0.115, 0.0, 0.0], 0.0175 * ring, 0.006 * ring + [0.115, 0.0, 0.0]])
    assert (lowest(points, Rotation.identity())[:, 2] < -0.0174).sum() >= 3
    box = CORNERS * [0.1, 0.02, 0.01]
    for angles in ([0.0, 0.3, 0.0], [0.2, 0.3, 0.1]):
        leaning = Rotation.from_euler("xyz", angles)
        assert lowest(box, leaning)[:, 2].min() == pytest.approx(leaning.apply(box)[:, 2].min(), abs=1e-9)


@pytest.mark.slow
def test_what_leans_over_an_edge_does_not_fall_through_the_table() -> None:
    """The lowest points of its outline are beyond the edge; its parts rest on it."""
    parts = [
        GeomDef(Shape.BOX, np.array([0.06, 0.034, 0.068]), position=np.array([0.041, 0.0, -0.011])),
        GeomDef(Shape.BOX, np.array([0.086, 0.105, 0.021]), position=np.array([-0.028, 0.0, -0.011])),
    ]
    turn = Rotation.from_euler("y", -0.35)
    thing = compound(parts, (-0.57, 0.0, 0.0), turn=turn)
    graph = scene([thing])
    place = np.array([-0.57, 0.0, 0.05])
    drop = Hypothesis("drop", (set_pose(2, place, turn.as_quat(), 0.0),))
    result = shared_dynamics("learned").rollout([graph], [drop], TIMES)
    states = result.states[0, 0, :, 1].astype(np.float64)
    over = np.abs(states[:, 0]) < 0.6
    assert states[over, POSITION][:, 2].min() > 0.0


@pytest.mark.slow
def test_a_long_flat_thing_that_is_struck_at_its_end_stays_out_of_the_table() -> None:
    parts = [
        GeomDef(Shape.BOX, np.array([0.21, 0.025, 0.016]), position=np.array([-0.027, 0.0, 0.0])),
        GeomDef(Shape.BOX, np.array([0.025, 0.055, 0.016]), position=np.array([0.078, 0.0, 0.0])),
    ]
    thing = compound(parts, (0.0, 0.0, 0.0))
    ball = compound([GeomDef(Shape.SPHERE, np.full(3, 0.04))], (0.1, 0.0, 0.016), mass=0.3)
    graph = scene([thing, ball])
    end = graph.positions[graph.index(2)] + [0.09, 0.0, 0.14]
    drop = Hypothesis("drop", (set_pose(3, end, np.array([0.0, 0.0, 0.0, 1.0]), 0.0),))
    result = shared_dynamics("learned").rollout([graph], [drop], TIMES)
    states = result.states[0, 0, :, 1].astype(np.float64)
    corners = 0.5 * CORNERS * thing.extents
    depth = [-(Rotation.from_quat(s[3:7]).apply(corners) + s[:3])[:, 2].min() for s in states]
    assert max(depth) < 0.005, np.round(depth, 4)
