"""Futures in batches are those of one future after another, whatever is done in them."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from wm_core.interventions import (
    BodySpec,
    Hypothesis,
    Property,
    add,
    apply_impulse,
    follow_path,
    morph,
    remove,
    restyle,
    set_pose,
    set_property,
    set_velocity,
)
from wm_core.scene_graph import SceneGraph, Shape
from wm_dynamics.base import DynamicsResult
from wm_dynamics.belief import sample_belief
from wm_dynamics.mujoco.batch import BatchSimulator
from wm_dynamics.mujoco.bodies import BodyDef, GeomDef, rest_state
from wm_dynamics.mujoco.live_world import LiveWorld
from wm_dynamics.mujoco.simulator import Simulator
from wm_dynamics.mujoco.trajectory import Action, Trajectory
from wm_dynamics.mujoco.variants import ModelVariants
from wm_dynamics.mujoco.world import World
from wm_dynamics.physics.backend import MOST_IN_BATCH, PhysicsDynamics

STEP = 1.0 / 480.0
TIMES = np.arange(22) / 21.0  # between steps, too
TABLE = BodyDef(
    (GeomDef(Shape.BOX, np.array([1.0, 1.0, 0.04])),), is_static=True, static_state=rest_state((0, 0, -0.02))
)
HULL = np.random.default_rng(0).uniform(-0.5, 0.5, (60, 3)) * [0.08, 0.06, 0.1]
PUSHER = BodySpec(Shape.BOX, np.array([0.03, 0.1, 0.06]))
BALL = BodySpec(Shape.SPHERE, np.full(3, 0.05), np.array([0.02, 0.01, 0.12]), mass=0.1)
QUARTER = Rotation.from_euler("z", 90, degrees=True).as_quat()


def part(shape: Shape, extents: tuple[float, float, float], **values: float) -> BodyDef:
    return BodyDef((GeomDef(shape, np.array(extents), hull=HULL),), **values)  # type: ignore[arg-type]


def state(position: tuple[float, float, float], velocity: tuple[float, float, float] = (0, 0, 0)) -> np.ndarray:
    found = rest_state(position)
    found[7:10] = velocity
    return found


SCENES = {
    "one rolls into others": (
        [
            TABLE,
            part(Shape.SPHERE, (0.08,) * 3, mass=0.3),
            part(Shape.BOX, (0.08, 0.08, 0.1)),
            part(Shape.CYLINDER, (0.06, 0.06, 0.12)),
        ],
        [rest_state((0, 0, 0)), state((-0.3, 0, 0.04), (0.8, 0, 0)), state((0, 0, 0.05)), state((0.12, 0.03, 0.06))],
    ),
    "a stack and a falling hull": (
        [
            TABLE,
            part(Shape.BOX, (0.1, 0.1, 0.06)),
            part(Shape.BOX, (0.06, 0.06, 0.06), friction=0.3),
            part(Shape.CONVEX, (0.08, 0.06, 0.1)),
        ],
        [rest_state((0, 0, 0)), state((0, 0, 0.03)), state((0.01, 0, 0.09)), state((0.02, 0.02, 0.3), (0.1, 0, -0.5))],
    ),
    "at the edge": (
        [
            TABLE,
            part(Shape.CAPSULE, (0.05, 0.05, 0.12), restitution=0.6),
            part(Shape.BOX, (0.08, 0.12, 0.05)),
            part(Shape.SPHERE, (0.06,) * 3),
        ],
        [
            rest_state((0, 0, 0)),
            state((0.3, 0.1, 0.2), (0.5, 0, 0)),
            state((0.42, 0, 0.025), (0.6, 0.1, 0)),
            state((-0.2, 0, 0.03)),
        ],
    ),
}

# Every kind of intervention, at once and later, on what moves, on the support and on what the hypothesis brings in.
# Bodies: 0 table, 1 to 3 objects; the tests know no ids, so object ids are body indices here.
QUESTIONS = {
    "factual": [],
    "remove": [remove(2, 0.31)],
    "remove the table": [remove(0, 0.4)],
    "add": [add(BALL, 0.2)],
    "set_pose into another": [set_pose(3, (0.0, 0.02, 0.07), at_s=0.25)],
    "set_pose of the table": [set_pose(0, (0.1, 0.0, -0.1), at_s=0.5)],
    "set_velocity": [set_velocity(2, (0, 0.6, 0), (0, 0, 4.0)), set_velocity(2, (-0.5, 0, 0), at_s=0.5)],
    "apply_impulse": [apply_impulse(2, (0.08, 0.05, 0.02), (0, 0.01, 0.02), at_s=0.1)],
    "set_property": [
        set_property(2, Property.MASS, 3.0),
        set_property(0, Property.FRICTION, 0.02, at_s=0.2),
        set_property(1, Property.RESTITUTION, 0.9, at_s=0.3),
    ],
    "morph": [morph(2, (1.5, 1.5, 0.7), 0.2), morph(0, (0.5, 0.5, 1.0), 0.6)],
    "restyle": [restyle(2, (1.0, 0.0, 0.0), at_s=0.3)],
    "follow_path": [follow_path([0, 0.6], [[-0.15, 0, 0.05], [0.3, 0.05, 0.05]], body=PUSHER, at_s=0.1)],
    "follow_path, turning": [
        follow_path([0, 0.5], [[0, 0, 0.05], [0.1, 0.1, 0.06]], [[0, 0, 0, 1], QUARTER.tolist()], object_id=2)
    ],
    "many": [
        add(BALL, 0.1),
        set_pose(1, (0.3, 0.3, 0.1), at_s=0.1),
        remove(2, 0.3),
        apply_impulse(3, (0.05, 0, 0), at_s=0.9),
    ],
}


def futures(name: str, simulator: Simulator, variants: ModelVariants | None) -> list[tuple[LiveWorld, list[Action]]]:
    """Every question of a scene, each with the bodies that it brings in."""
    bodies, states = SCENES[name]
    worlds: dict[int, World] = {}
    made = []
    for interventions in QUESTIONS.values():
        created = [i for i in interventions if i.creates_body]
        extra = [part(i.body.shape, tuple(i.body.extents), mass=0.1) for i in created if i.body is not None]
        key = tuple(e.geoms[0].shape for e in extra)
        world = worlds.setdefault(hash(key), World([*bodies, *extra], -0.8, STEP))
        start = np.array([*states, *[rest_state(np.zeros(3))] * len(extra)])
        absent = range(len(bodies), len(bodies) + len(extra))
        live = LiveWorld(simulator, world, world.model, start, absent, variants=variants)
        numbers = iter(absent)
        made.append((live, [Action(next(numbers) if i.creates_body else i.object_id, i) for i in interventions]))
    return made


def same(one: Trajectory, other: Trajectory) -> bool:
    return (
        one.states.tobytes() == other.states.tobytes()
        and one.present.tobytes() == other.present.tobytes()
        and one.touches == other.touches
        and one.stable == other.stable
        and one.warnings == other.warnings
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", SCENES)
def test_a_batch_is_bit_for_bit_what_stepping_gives(name: str) -> None:
    simulator = Simulator()
    stepped = [live.execute(actions, TIMES) for live, actions in futures(name, simulator, None)]
    batched = BatchSimulator().run(futures(name, simulator, ModelVariants()), TIMES)
    assert batched is not None
    different = [q for q, one, other in zip(QUESTIONS, stepped, batched, strict=True) if not same(one, other)]
    assert not different
    moved = [np.abs(t.states[-1, :4] - stepped[0].states[-1, :4]).max() for t in stepped]
    assert sum(m > 1e-3 for m in moved) >= 8, "most questions must make a difference, or nothing is compared"
    assert sum(len(t.touches) for t in stepped) > 50


def test_futures_in_any_order_and_company_are_the_same() -> None:
    simulator = Simulator()
    alone = [
        BatchSimulator().run([future], TIMES)[0]  # type: ignore[index]
        for future in futures("at the edge", simulator, ModelVariants())
    ]
    backwards = BatchSimulator().run(futures("at the edge", simulator, ModelVariants())[::-1], TIMES)
    assert backwards is not None
    assert all(same(one, other) for one, other in zip(alone, backwards[::-1], strict=True))


def test_what_has_not_differed_yet_is_simulated_once(monkeypatch: pytest.MonkeyPatch) -> None:
    bodies, states = SCENES["at the edge"]
    world, variants, batch = World(bodies, -0.8, STEP), ModelVariants(), BatchSimulator()
    rolled: list[int] = []
    native = BatchSimulator._native

    def counted(self, world, heads, *arguments):
        rolled.append(len(heads))
        return native(self, world, heads, *arguments)

    monkeypatch.setattr(BatchSimulator, "_native", counted)
    lives = [
        (
            LiveWorld(batch.simulator, world, world.model, np.array(states), variants=variants),
            [Action(2, apply_impulse(2, (0.02 * k, 0, 0), at_s=0.5))],
        )
        for k in range(1, 6)
    ]
    found = batch.run(lives, TIMES)
    assert found is not None and rolled == [1, 5]
    assert len({t.states[5].tobytes() for t in found}) == 1 and len({t.states[-1].tobytes() for t in found}) == 5


def test_equal_edits_share_a_model_and_leave_the_original_alone() -> None:
    bodies, _ = SCENES["at the edge"]
    world, variants = World(bodies, -0.8, STEP), ModelVariants()
    before = world.model.body_mass.copy()
    one = variants.edited(world, world.model, "set_mass", 1, 2.0)
    assert one is variants.edited(world, world.model, "set_mass", 1, 2.0)
    assert one is not variants.edited(world, world.model, "set_mass", 1, 3.0)
    assert one is not variants.edited(world, one, "set_friction", 1, 0.1)
    assert one.body_mass[world.body_ids[1]] == pytest.approx(2.0)
    np.testing.assert_array_equal(world.model.body_mass, before)


@pytest.mark.parametrize("batched", [False, True])
def test_what_mujoco_warns_of_is_told(batched: bool) -> None:
    """An absurd speed makes the solver diverge: the states hold, and the future says why."""
    bodies, states = SCENES["at the edge"]
    world = World(bodies, -0.8, STEP)
    simulator = Simulator()
    fast = [Action(1, set_velocity(1, (3e10, 0.0, 0.0), at_s=0.25))]
    lives = [LiveWorld(simulator, world, world.model, np.array(states)) for _ in range(2)]
    if batched:
        found = BatchSimulator(simulator).run([(lives[0], fast), (lives[1], [])], TIMES)
        assert found is not None
        broken, sound = found
    else:
        broken, sound = lives[0].execute(fast, TIMES), lives[1].execute([], TIMES)
    assert not broken.stable and np.isfinite(broken.states).all()
    assert {w.kind for w in broken.warnings} <= {"BADQPOS", "BADQVEL", "BADQACC"} and broken.warnings
    assert broken.warnings[0].time_s == pytest.approx(0.25, abs=2 * STEP)
    assert sound.stable and not sound.warnings


def table_scene() -> SceneGraph:
    positions = [(0, 0, -0.02), (-0.3, 0, 0.04), (0, 0, 0.05), (0.1, 0.3, 0.06)]
    linear = np.zeros((4, 3))
    linear[1] = [0.8, 0, 0]
    return SceneGraph.build(
        range(1, 5),
        positions,
        [[1.4, 1.4, 0.04], [0.08] * 3, [0.08, 0.08, 0.1], [0.06, 0.06, 0.12]],
        shapes=[Shape.BOX, Shape.SPHERE, Shape.BOX, Shape.CYLINDER],
        is_static=[True, False, False, False],
        class_names=["support", "ball", "box", "can"],
        linear_velocities=linear,
    )


@pytest.mark.slow
def test_the_size_of_batches_and_the_number_of_threads_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = table_scene()
    uncertain = replace(scene, pose_covariances=np.tile(np.diag([1e-5] * 6), (4, 1, 1)))
    scenes = sample_belief(uncertain, 3, 1)
    pushers = [replace(PUSHER, mass=mass) for mass in (0.1, 0.4)]
    asked = [
        Hypothesis(f"push {k}", (follow_path([0, 0.5], [[-0.2, 0.01 * k, 0.05], [0.2, 0, 0.05]], body=pushers[k % 2]),))
        for k in range(6)
    ]
    results: list[DynamicsResult] = []
    for size, threads in ((1, 1), (5, 2), (MOST_IN_BATCH, 1)):
        physics = PhysicsDynamics(threads=threads)
        monkeypatch.setattr(physics, "_batch_size", lambda left, deadline, size=size: size)
        results.append(physics.rollout(scenes, asked, TIMES))
        results.append(physics.rollout(scenes, asked, TIMES))  # compiled worlds are kept from request to request
        physics.close()
    assert len({r.states.tobytes() for r in results}) == 1
    assert all(r.contacts == results[0].contacts and r.present.all() for r in results[1:])
    assert results[0].contacts and not results[0].warnings


def test_batches_get_smaller_towards_the_deadline() -> None:
    physics = PhysicsDynamics(threads=2)
    physics._future_s = 0.01
    free = physics._batch_size(1000, None)
    near = [physics._batch_size(1000, time.monotonic() + ahead) for ahead in (10.0, 0.1, 0.0, -1.0)]
    assert free == MOST_IN_BATCH and near[0] == free and 1 <= near[1] <= 2 and near[2:] == [1, 1]
    assert physics._batch_size(3, None) == 1, "every worker has something to do"
    physics.close()


def test_warnings_reach_the_result_of_their_future() -> None:
    asked = [
        Hypothesis("sound"),
        Hypothesis("absurd", (set_velocity(3, (0.0, 3e10, 0.0), at_s=0.5),)),
        Hypothesis("sound, too"),
    ]
    result = PhysicsDynamics(threads=1).rollout([table_scene()], asked, TIMES)
    assert result.completed == 3 and np.isfinite(result.states).all()
    assert {(w.hypothesis, w.sample) for w in result.warnings} == {(1, 0)}
    assert all(w.kind.startswith("BAD") and 0.49 < w.time_s < 0.52 for w in result.warnings)
    np.testing.assert_array_equal(result.states[0], result.states[2])


@pytest.mark.slow
def test_a_deadline_in_the_middle_of_a_batch_ends_it() -> None:
    """Eight hundred stretches: given up at the next native call, with what was finished kept."""
    restless = tuple(apply_impulse(3, (1e-4, 0, 0), at_s=0.01 * i) for i in range(100))
    asked = [Hypothesis(f"h{k}", (*restless, apply_impulse(3, (1e-4 * k, 0, 0)))) for k in range(400)]
    physics = PhysicsDynamics(threads=1)
    told: list[int] = []
    begin = time.monotonic()
    result = physics.rollout(
        [table_scene()], asked, TIMES, deadline=begin + 1.0, on_hypothesis=lambda k, states, present: told.append(k)
    )
    assert result.completed == len(told) < 400 and told == list(range(len(told)))
    assert result.present[: result.completed].all() and not result.present[result.completed :].any()
    again = physics.rollout([table_scene()], asked[:2], TIMES)
    assert again.completed == 2, "the workers are idle again"
