"""Worlds, contacts, pushers and interventions, on hand-made bodies."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from wm_core.interventions import (
    BodySpec,
    Property,
    add,
    apply_impulse,
    follow_path,
    morph,
    remove,
    set_pose,
    set_property,
    set_velocity,
)
from wm_core.scene_graph import Shape
from wm_dynamics.mujoco.bodies import BodyDef, GeomDef, lowest_point, rest_state, scaled_body, simplify_hull
from wm_dynamics.mujoco.live_world import LiveWorld
from wm_dynamics.mujoco.simulator import Simulator
from wm_dynamics.mujoco.trajectory import Action
from wm_dynamics.mujoco.world import World

STEP = 1.0 / 240.0
TABLE = BodyDef(
    (GeomDef(Shape.BOX, np.array([1.4, 1.4, 0.04])),), is_static=True, static_state=rest_state((0, 0, -0.02))
)
SIMULATOR = Simulator()


def body(
    shape: Shape = Shape.BOX, extents: tuple[float, float, float] = (0.08, 0.08, 0.08), **values: float
) -> BodyDef:
    return BodyDef((GeomDef(shape, np.array(extents)),), **values)  # type: ignore[arg-type]


def run(bodies, states, actions=(), seconds=1.0, step=STEP, absent=()):
    world = World([TABLE, *bodies], -0.8, step)
    times = np.arange(0.0, seconds + 1e-9, 1.0 / 30.0)
    return times, SIMULATOR.run(
        world, world.model, np.array([rest_state((0, 0, 0)), *states]), list(actions), times, absent=absent
    )


@pytest.mark.parametrize("step", [1 / 240, 1 / 480])
@pytest.mark.parametrize("restitution", [0.2, 0.5, 0.8])
def test_restitution_of_a_dropped_ball(restitution, step):
    world = World([TABLE, body(Shape.SPHERE, (0.1, 0.1, 0.1), mass=0.2, restitution=restitution)], -0.8, step)
    times = np.arange(0.0, 0.6, step)
    states = np.array([rest_state((0, 0, 0)), rest_state((0, 0, 0.25))])
    speed = SIMULATOR.run(world, world.model, states, [], times).states[:, 1, 9]
    lowest = int(speed.argmin())
    assert speed[lowest : lowest + int(0.06 / step)].max() / -speed[lowest] == pytest.approx(restitution, abs=0.08)


def test_sliding_box_stops_after_v_squared_over_two_mu_g():
    start = rest_state((0, 0, 0.04))
    start[7] = 1.0
    _, trajectory = run([body(mass=0.3, friction=0.4)], [start], seconds=1.0)
    assert trajectory.states[-1, 1, 0] == pytest.approx(1.0 / (2 * 0.4 * 9.81), rel=0.06)


def test_rolling_ball_slows_down_gently():
    start = rest_state((-0.4, 0, 0.04))
    start[7], start[11] = 0.5, 0.5 / 0.04
    _, trajectory = run([body(Shape.SPHERE, mass=0.2)], [start], seconds=1.0)
    assert 0.35 < trajectory.states[-1, 1, 7] < 0.49


def test_pusher_pushes_at_its_own_speed_without_sinking_in():
    pusher = body(extents=(0.02, 0.2, 0.1))
    path = follow_path([0, 1], [[-0.2, 0, 0.06], [0.2, 0, 0.06]], body=BodySpec(), at_s=0.1)
    times, trajectory = run(
        [body(mass=0.3), pusher],
        [rest_state((0, 0, 0.04)), rest_state((0, 0, 9))],
        [Action(2, path)],
        1.5,
        absent=[2],
    )
    moving = (times > 0.6) & (times < 1.05)
    gap = trajectory.states[:, 1, 0] - trajectory.states[:, 2, 0] - 0.05
    assert gap[moving].min() > -0.003 and gap[moving].max() < 0.003
    np.testing.assert_allclose(trajectory.states[moving, 2, 7], 0.4, atol=1e-3)
    speed = np.diff(trajectory.states[moving, 1, 0]) * 30.0
    assert speed.mean() == pytest.approx(0.4, abs=0.02)
    assert not trajectory.present[0, 2] and trajectory.present[-1, 2]
    np.testing.assert_allclose(trajectory.states[-1, 2, :3], [0.2, 0, 0.06], atol=1e-5)


def test_pusher_of_an_existing_object_turns_as_told():
    quarter = Rotation.from_euler("z", 90, degrees=True).as_quat()
    path = follow_path([0, 1], [[0, 0, 0.1], [0.1, 0, 0.1]], [[0, 0, 0, 1], quarter], object_id=1)
    _, trajectory = run([body(mass=0.3)], [rest_state((0, 0, 0.04))], [Action(1, path)], 1.2)
    np.testing.assert_allclose(trajectory.states[-1, 1, 3:7], quarter, atol=1e-4)
    np.testing.assert_allclose(trajectory.states[15, 1, 12], np.pi / 2, atol=1e-3)


@settings(max_examples=15, deadline=None)
@given(st.tuples(*[st.floats(-0.2, 0.2)] * 3), st.tuples(*[st.floats(-0.03, 0.03)] * 3), st.floats(0.05, 2.0))
def test_impulse_changes_momentum_and_angular_momentum(impulse, point, mass):
    thing = body(mass=mass)
    world = World([thing], None, STEP)
    live = LiveWorld(SIMULATOR, world, world.model, np.array([rest_state((0, 0, 1.0))]))
    live.apply(Action(0, apply_impulse(1, impulse, point)))
    state = live.states()[0]
    np.testing.assert_allclose(state[7:10], np.array(impulse) / mass, atol=1e-9)
    np.testing.assert_allclose(state[10:13], np.cross(point, impulse) / (mass * 0.08**2 / 6.0), rtol=1e-3, atol=1e-9)


def test_mass_edited_in_place_equals_mass_compiled():
    light, heavy = body(mass=0.2), body(mass=0.6)
    edited, compiled = World([TABLE, light], 0, STEP), World([TABLE, heavy], 0, STEP)
    model = edited.with_properties([TABLE, heavy])
    for name in (
        "body_mass",
        "body_inertia",
        "body_invweight0",
        "dof_invweight0",
        "dof_M0",
        "body_subtreemass",
    ):
        np.testing.assert_allclose(getattr(model, name), getattr(compiled.model, name), rtol=1e-9, err_msg=name)


def test_interventions_take_effect_at_their_time():
    actions = [
        Action(1, set_velocity(1, (0.5, 0, 0), at_s=0.2)),
        Action(1, set_pose(1, (0.2, 0.3, 0.04), at_s=0.5)),
        Action(1, morph(1, (1, 1, 2), at_s=0.8)),
        Action(0, remove(9, at_s=1.2)),
        Action(1, remove(1, at_s=1.6)),
    ]
    _, trajectory = run([body(mass=0.3)], [rest_state((0, 0, 0.04))], actions, 2.0)
    states = trajectory.states[:, 1]
    np.testing.assert_allclose(states[:6, :3], np.tile([0, 0, 0.04], (6, 1)), atol=1e-3)
    assert states[7, 0] > 0.005
    np.testing.assert_allclose(states[16, :3], [0.2, 0.3, 0.04], atol=2e-3)
    assert states[26, 2] == pytest.approx(0.08, abs=2e-3), "stands on its support after it has grown"
    assert states[40, 2] < 0.05, "falls when the table is gone"
    assert not trajectory.present[-1].any()
    np.testing.assert_allclose(states[-1, 7:], 0.0)


def test_friction_of_a_support_overrules_once_it_is_set():
    start = rest_state((0, 0, 0.04))
    start[7] = 0.6
    ice = Action(0, set_property(9, Property.FRICTION, 0.02))
    _, slippery = run([body(friction=0.6)], [start], [ice], 0.5)
    _, rough = run([body(friction=0.6)], [start], [], 0.5)
    assert slippery.states[-1, 1, 0] > 0.25 > 0.1 > rough.states[-1, 1, 0]


def test_things_that_appear_inside_others_are_not_flung_away():
    extra = body(Shape.SPHERE, (0.08, 0.08, 0.08), mass=0.2)
    spec = BodySpec(Shape.SPHERE, np.full(3, 0.08), position=np.array([0.0, 0.0, 0.05]), mass=0.2)
    _, trajectory = run(
        [body(mass=0.3), extra],
        [rest_state((0, 0, 0.04)), rest_state((0, 0, 9))],
        [Action(2, add(spec))],
        1.0,
        absent=[2],
    )
    assert np.abs(trajectory.states[:, 1:, 7:10]).max() < 1.5
    assert np.isfinite(trajectory.states).all()


def test_short_bounces_and_lasting_contacts_are_reported():
    ball = body(Shape.SPHERE, (0.06, 0.06, 0.06), mass=0.1, restitution=0.7)
    _, trajectory = run([body(mass=0.3), ball], [rest_state((0.3, 0, 0.04)), rest_state((0, 0, 0.15))], seconds=1.0)
    box = [t for t in trajectory.touches if (t.a, t.b) == (0, 1)]
    assert [(t.time_s, t.began) for t in box] == [(0.0, True)]
    bounces = [t for t in trajectory.touches if (t.a, t.b) == (0, 2) and t.began]
    assert len(bounces) >= 3 and bounces[0].time_s == pytest.approx(np.sqrt(2 * 0.12 / 9.81), abs=0.01)


def test_a_branch_goes_on_bit_for_bit():
    start = rest_state((0, 0, 0.2))
    start[7], start[11] = 0.7, 3.0
    world = World([TABLE, body(), body(Shape.CYLINDER, (0.05, 0.05, 0.1))], -0.8, STEP)
    states = np.array([rest_state((0, 0, 0)), start, rest_state((0.2, 0, 0.05))])
    live = LiveWorld(SIMULATOR, world, world.model, states)
    live.advance(50)
    branch = live.branch()
    for _ in range(10):
        live.advance(16)
    room = branch.branch([body()])
    for _ in range(10):
        branch.advance(16)
        room.advance(16)
    assert branch.packed.tobytes() == live.packed.tobytes()
    np.testing.assert_allclose(room.states()[:3], live.states(), atol=1e-6)


def test_compound_body_of_convex_parts_has_its_mass_and_stands():
    parts = (
        GeomDef(Shape.BOX, np.array([0.1, 0.1, 0.02])),
        GeomDef(Shape.CYLINDER, np.array([0.02, 0.02, 0.1]), position=np.array([0, 0, 0.06])),
    )
    _, trajectory = run([BodyDef(parts, mass=0.25)], [rest_state((0, 0, 0.01))], seconds=1.0)
    np.testing.assert_allclose(trajectory.states[-1, 1, :3], [0, 0, 0.01], atol=1e-3)
    world = World([TABLE, BodyDef(parts, mass=0.25)], 0, STEP)
    assert world.model.body_mass[world.body_ids[1]] == pytest.approx(0.25)


@pytest.mark.parametrize("shape", list(Shape))
def test_lowest_point_scales_and_hulls(shape):
    rng = np.random.default_rng(0)
    hull = rng.uniform(-0.5, 0.5, (200, 3)) * [0.1, 0.06, 0.2]
    thing = BodyDef((GeomDef(shape, np.array([0.06, 0.06, 0.2]), hull=hull),))
    turned = Rotation.from_euler("xyz", [0.3, 0.5, 0.2]).as_quat()
    assert -0.2 < lowest_point(thing, turned) < -0.025
    bigger = scaled_body(thing, (2, 2, 2))
    assert lowest_point(bigger, turned) == pytest.approx(2 * lowest_point(thing, turned), rel=1e-6)
    assert bigger.mass == pytest.approx(8 * thing.mass)


def test_hulls_are_thinned_and_flat_ones_refused():
    points = np.random.default_rng(1).normal(size=(3000, 3))
    kept = simplify_hull(points / np.linalg.norm(points, axis=1, keepdims=True) * 0.1)
    assert kept is not None and 20 < len(kept) <= 64
    assert simplify_hull(points * [1, 1, 0]) is None
    assert simplify_hull(points[:2]) is None
