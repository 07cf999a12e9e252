"""What interventions mean, in every dynamics backend that knows contacts; and what is refused.

Tolerances: ``physics`` starts every rollout from the same bytes, so untouched things agree exactly; what has been in
contact agrees to the millimeters that reordered sums of a stiff contact solver leave. ``learned`` computes in float32.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from dynamics_backends import shared_dynamics
from wm_core import interventions as do
from wm_core.intervention_checks import validate_hypotheses
from wm_core.interventions import BodySpec, Hypothesis, Intervention, InterventionError, InterventionKind, Property
from wm_core.rollout import POSITION
from wm_core.scene_graph import SceneGraph, Shape

TIMES = np.arange(31) / 30.0
BACKENDS = ("physics", "learned")
FACTUAL = Hypothesis("factual")
PUSHER = BodySpec(Shape.BOX, np.array([0.02, 0.1, 0.06]))
MOVED_M = {"physics": 4e-3, "learned": 1e-2}
"""Position tolerance of a whole second with contacts, in a moved, turned or reordered world."""
KINDS = tuple(k for k in InterventionKind if k != InterventionKind.RESTYLE)


def table_scene(**changes: object) -> SceneGraph:
    """A table (1), a ball (2) rolling at a box (3), a cylinder (4) and a box (5) standing far apart."""
    positions = [[0, 0, -0.02], [-0.3, 0, 0.04], [0, 0, 0.05], [0.1, 0.4, 0.06], [-0.2, -0.4, 0.03]]
    extents = [[2.0, 2.0, 0.04], [0.08] * 3, [0.08, 0.08, 0.10], [0.06, 0.06, 0.12], [0.06, 0.10, 0.06]]
    linear, angular = np.zeros((5, 3)), np.zeros((5, 3))
    linear[1], angular[1] = [0.6, 0, 0], [0, 15.0, 0]
    values = {
        "shapes": [Shape.BOX, Shape.SPHERE, Shape.BOX, Shape.CYLINDER, Shape.BOX],
        "is_static": [True, False, False, False, False],
        "class_names": ["support", "ball", "box", "can", "box"],
        "linear_velocities": linear,
        "angular_velocities": angular,
        "log_mass": np.log([100.0, 0.3, 0.25, 0.2, 0.15]),
        "restitution": np.full(5, 0.1),
    }
    values |= changes
    positions, extents = values.pop("positions", positions), values.pop("extents", extents)  # type: ignore[assignment]
    return SceneGraph.build(range(1, 6), positions, extents, **values)  # type: ignore[arg-type]


def still_scene() -> SceneGraph:
    return table_scene(linear_velocities=np.zeros((5, 3)), angular_velocities=np.zeros((5, 3)))


def futures(backend: str, scene: SceneGraph, *lists: tuple[Intervention, ...]) -> np.ndarray:
    """(K, T, M, 13) states of one list of interventions each."""
    hypotheses = [Hypothesis(f"h{k}", interventions) for k, interventions in enumerate(lists)]
    return shared_dynamics(backend).rollout([scene], hypotheses, TIMES).states[:, 0]


def intervention(kind: InterventionKind, rng: np.random.Generator, at_s: float) -> Intervention:
    """A plausible one of a kind, on objects 3 to 5 of the table scene."""
    thing = int(rng.integers(3, 6))
    place = [*rng.uniform(-0.5, 0.5, 2), 0.1]
    made = {
        InterventionKind.REMOVE: lambda: do.remove(thing, at_s),
        InterventionKind.ADD: lambda: do.add(BodySpec(Shape.BOX, np.full(3, 0.05), np.array(place)), at_s),
        InterventionKind.SET_POSE: lambda: do.set_pose(thing, [*place[:2], 0.06], at_s=at_s),
        InterventionKind.SET_VELOCITY: lambda: do.set_velocity(thing, [*rng.uniform(-0.5, 0.5, 2), 0.0], at_s=at_s),
        InterventionKind.APPLY_IMPULSE: lambda: do.apply_impulse(thing, [*rng.uniform(-0.1, 0.1, 2), 0.0], at_s=at_s),
        InterventionKind.SET_PROPERTY: lambda: do.set_property(
            thing, Property(int(rng.integers(0, 3))), float(rng.uniform(0.3, 0.9)), factor=True, at_s=at_s
        ),
        InterventionKind.FOLLOW_PATH: lambda: do.follow_path(
            [0.0, 0.5], [place, [place[0] + 0.1, *place[1:]]], body=PUSHER, at_s=at_s
        ),
        InterventionKind.MORPH: lambda: do.morph(thing, rng.uniform(0.6, 1.5, 3), at_s),
    }
    return made[kind]()


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_nothing_done_is_the_factual_future_whatever_is_asked_beside_it(backend: str) -> None:
    rng = np.random.default_rng(0)
    others = [(intervention(kind, rng, 0.2),) for kind in KINDS]
    states = futures(backend, table_scene(), (), *others, (do.restyle(3, (1, 0, 0)),), ())
    scene = len(table_scene())
    alone = futures(backend, table_scene(), ())[0]
    for k in (-2, -1):
        assert states[k].tobytes() == states[0].tobytes()
    # The same future however many are rolled out with it (up to the order in which a batch is summed).
    tolerance = 0.0 if backend == "physics" else 1e-4
    np.testing.assert_allclose(states[0][:, :scene], alone, atol=tolerance)


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
@settings(max_examples=5, deadline=None)
@given(st.sampled_from([4, 5]), st.integers(0, 29))
def test_removing_what_touches_nothing_changes_nothing_else(backend: str, thing: int, step: int) -> None:
    states = futures(backend, table_scene(), (), (do.remove(thing, step / 30.0),))
    others = [m for m in range(5) if m + 1 != thing]
    # Millimeters: an intervention ends a stretch of the physics engine's steps, at which it looks for contacts anew.
    np.testing.assert_allclose(states[1][:, others, :3], states[0][:, others, :3], atol=1e-3)


@pytest.mark.parametrize("backend", BACKENDS)
@settings(max_examples=6, deadline=None)
@given(
    st.tuples(*[st.floats(-0.08, 0.08)] * 4),
    st.integers(0, 10),
)
def test_impulses_add(backend: str, j: tuple[float, float, float, float], step: int) -> None:
    """Two at once are one of their sum, in whatever order they are given."""
    at = step / 30.0
    one, other = do.apply_impulse(5, (j[0], j[1], 0), at_s=at), do.apply_impulse(5, (j[2], j[3], 0), at_s=at)
    both = do.apply_impulse(5, (j[0] + j[2], j[1] + j[3], 0.0), at_s=at)
    states = futures(backend, still_scene(), (both,), (one, other), (other, one))
    for k in (1, 2):
        np.testing.assert_allclose(states[k][..., POSITION], states[0][..., POSITION], atol=1e-3)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("mass", [0.05, 1.0])
def test_an_impulse_is_mass_times_the_change_of_velocity(backend: str, mass: float) -> None:
    """In the air, where no friction takes part of it."""
    log_mass = still_scene().log_mass.copy()
    log_mass[4] = np.log(mass)
    scene = replace(still_scene(), log_mass=log_mass)
    place = do.set_pose(5, (-0.3, -0.3, 0.9))
    states = futures(backend, scene, (place,), (place, do.apply_impulse(5, (mass * 0.4, 0.0, 0.0), at_s=0.1)))
    change = states[1, 4, 4, 7:10] - states[0, 4, 4, 7:10]
    np.testing.assert_allclose(change, [0.4, 0.0, 0.0], atol=5e-3)


@pytest.mark.parametrize("backend", BACKENDS)
@settings(max_examples=5, deadline=None)
@given(st.permutations([1, 2, 3, 4]))
def test_permuting_objects_permutes_the_result(backend: str, order: list[int]) -> None:
    scene, rows = table_scene(), np.array([0, *order])
    ids = scene.ids.tolist()
    swapped = table_scene(
        **{
            name: getattr(scene, name)[rows]
            for name in ("shapes", "is_static", "linear_velocities", "angular_velocities", "log_mass", "restitution")
        },
        class_names=[scene.class_names[m] for m in rows],
        positions=scene.positions[rows],
        extents=scene.extents[rows],
    )
    path = do.follow_path([0.0, 1.0], [[0.2, -0.3, 0.05], [0.2, 0.3, 0.05]], body=PUSHER)
    push = partial(do.set_velocity, linear=(0.0, 0.4, 0.0))
    states = futures(backend, scene, (), (push(3), path))
    other = futures(backend, swapped, (), (push(ids[rows.tolist().index(2)]), path))
    back = [*rows.tolist(), 5]
    np.testing.assert_allclose(other[..., POSITION], states[:, :, back, POSITION], atol=MOVED_M[backend])


@pytest.mark.parametrize("backend", BACKENDS)
@settings(max_examples=5, deadline=None)
@given(st.floats(-np.pi, np.pi), st.floats(-2, 2), st.floats(-2, 2), st.floats(-1, 1))
def test_a_world_moved_and_turned_about_gravity(backend: str, angle: float, x: float, y: float, z: float) -> None:
    scene, turn, shift = table_scene(), Rotation.from_euler("z", angle), np.array([x, y, z])
    moved = replace(
        scene,
        positions=turn.apply(scene.positions) + shift,
        quaternions=(turn * Rotation.from_quat(scene.quaternions)).as_quat(),
        linear_velocities=turn.apply(scene.linear_velocities),
        angular_velocities=turn.apply(scene.angular_velocities),
    )
    impulse, path = np.array([0.02, 0.05, 0.0]), np.array([[0.2, -0.3, 0.05], [0.2, 0.3, 0.05]])
    q = turn.as_quat()
    here = (do.apply_impulse(3, impulse, at_s=0.1), do.follow_path([0, 1], path, body=PUSHER))
    there = (
        do.apply_impulse(3, turn.apply(impulse), at_s=0.1),
        do.follow_path([0, 1], turn.apply(path) + shift, [q, q], body=PUSHER),
    )
    expected = futures(backend, scene, (), here)[..., POSITION]
    found = futures(backend, moved, (), there)[..., POSITION]
    expected = turn.apply(expected.reshape(-1, 3)).reshape(expected.shape) + shift
    # The pusher that the factual future does not have holds no meaningful pose there.
    np.testing.assert_allclose(found[1], expected[1], atol=MOVED_M[backend])
    np.testing.assert_allclose(found[0][:, :5], expected[0][:, :5], atol=MOVED_M[backend])


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_kind_at_any_time_changes_nothing_before(backend: str) -> None:
    rng = np.random.default_rng(1)
    lists = [(intervention(kind, rng, step / 30.0),) for kind in KINDS for step in (0, 7, 20)]
    states = futures(backend, table_scene(), (), *lists)
    assert np.isfinite(states).all()
    for k, (one,) in enumerate(lists, start=1):
        before = one.time_offset - 1e-6 > TIMES
        np.testing.assert_allclose(states[k][before][:, :5], states[0][before][:, :5], atol=1e-4, err_msg=str(one.kind))


@pytest.mark.parametrize("backend", BACKENDS)
@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10**6), st.lists(st.sampled_from(KINDS), min_size=2, max_size=6))
def test_any_combination_is_answered(backend: str, seed: int, kinds: list[InterventionKind]) -> None:
    rng = np.random.default_rng(seed)
    scene, several = table_scene(), tuple(intervention(k, rng, float(rng.uniform(0, 1))) for k in kinds)
    validate_hypotheses([Hypothesis("h", several)], scene, 1.0)
    result = shared_dynamics(backend).rollout([scene], [FACTUAL, Hypothesis("h", several)], TIMES)
    assert np.isfinite(result.states).all() and result.completed == 2
    norms = np.linalg.norm(result.states[..., 3:7], axis=-1)
    np.testing.assert_allclose(norms, 1.0, atol=1e-3)
    assert result.present.shape == (2, 31, 5 + sum(i.creates_body for i in several))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_morph_changes_mass_and_contacts(backend: str) -> None:
    """Scaled by two each way: 8 times the mass, an eighth of the speed from one impulse; it stands on its bottom."""
    push = do.apply_impulse(5, (0.06, 0.0, 0.0), at_s=0.5)
    states = futures(backend, still_scene(), (push,), (do.morph(5, (2, 2, 2), 0.1), push))
    np.testing.assert_allclose(states[1, 14, 4, 2], 0.06, atol=3e-3)
    gone = np.linalg.norm(states[:, -1, 4, :2] - states[:, 14, 4, :2], axis=-1)
    assert gone[1] < 0.3 * gone[0]


@pytest.mark.parametrize("backend", BACKENDS)
def test_properties_change_what_follows(backend: str) -> None:
    push = do.set_velocity(5, (0.6, 0.0, 0.0), at_s=0.2)
    slippery = do.set_property(5, Property.FRICTION, 0.05, at_s=0.1)
    rough = do.set_property(5, Property.FRICTION, 1.5, at_s=0.1)
    states = futures(backend, still_scene(), (slippery, push), (push,), (rough, push))
    far = states[:, -1, 4, 0] - states[:, 0, 4, 0]
    assert far[0] > far[1] + 0.02 and far[1] > far[2] - 1e-3


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_follows_a_path_is_where_the_path_says(backend: str) -> None:
    q = Rotation.from_euler("z", 0.8).as_quat()
    own = do.follow_path([0, 0.5], [[-0.2, -0.4, 0.03], [-0.2, -0.2, 0.03]], [[0, 0, 0, 1], q], object_id=5, at_s=0.25)
    states = futures(backend, still_scene(), (own,))[0]
    np.testing.assert_allclose(states[15, 4, :3], [-0.2, -0.3, 0.03], atol=2e-3)
    np.testing.assert_allclose(states[-1, 4, :3], [-0.2, -0.2, 0.03], atol=1e-4)
    assert abs(states[-1, 4, 3:7] @ q) == pytest.approx(1.0, abs=1e-4)


# What is refused.

NAN = float("nan")


def path(**changes: object) -> Intervention:
    return replace(do.follow_path([0, 1], [[0, 0, 0.1], [0.1, 0, 0.1]], body=PUSHER), **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("one", "said"),
    [
        (do.set_pose(3, (NAN, 0, 0)), "pose.position: got [nan, 0.0, 0.0], expected finite"),
        (do.set_pose(3, (0, 0, 0), (NAN, 0, 0, 1)), "pose.orientation: got [nan"),
        (do.set_pose(3, (0, 0)), "pose.position: got shape (2,), expected 3 numbers"),
        (do.set_velocity(3, (1e3, 0, 0)), "twist.linear: got [1000.0, 0.0, 0.0], expected finite, within +-50 m/s"),
        (do.apply_impulse(3, (0, 0, np.inf)), "impulse: got [0.0, 0.0, inf]"),
        (do.apply_impulse(3, (0, 0, 1), (0, 0, 11)), "point: got [0.0, 0.0, 11.0]"),
        (do.apply_impulse(1, (0, 0, 1)), "1 (support) is static, expected a movable object for APPLY_IMPULSE"),
        (do.set_property(3, Property.MASS, 0.0), "value: got 0.0, expected 1e-06..10000"),
        (do.set_property(3, Property.FRICTION, NAN), "value: got nan, expected 0..10"),
        (do.morph(3, (1, 1, 11)), "scale: got [1.0, 1.0, 11.0], expected each 0.1..10"),
        (do.morph(3, (1, NAN, 1)), "scale"),
        (do.restyle(3, (2, 0, 0)), "color: got [2.0, 0.0, 0.0], expected each 0..1"),
        (do.remove(3, -0.1), "time_offset: got -0.1 s, expected 0..1"),
        (do.remove(3, NAN), "time_offset: got nan s"),
        (do.remove(77), "object_id: object id 77 is not in the scene graph"),
        (do.add(BodySpec(friction=NAN)), "object.friction: got nan, expected 0..10"),
        (do.add(BodySpec(restitution=1.5)), "object.restitution: got 1.5, expected 0..1"),
        (do.add(BodySpec(mass=NAN)), "object.mass: got nan kg"),
        (do.add(BodySpec(extents=np.zeros(3))), "object.extents: got [0.0, 0.0, 0.0], expected each 0.001..10 m"),
        (do.add(BodySpec(quaternion=np.full(4, NAN))), "object.pose.orientation"),
        (do.add(BodySpec(shape=Shape.CONVEX)), "object.shape: got CONVEX"),
        (path(path_times=np.array([0.0, 0.0])), "path_times: got [0.0, 0.0], expected ascending from 0"),
        (path(path_times=np.array([0.1, 0.2])), "path_times"),
        (path(path_times=np.zeros(0)), "path: got 0 times and 2 poses"),
        (path(path_positions=np.array([[0, 0, 0], [NAN, 0, 0.0]])), "path.position: got [[0.0, 0.0, 0.0], [nan"),
    ],
    ids=lambda v: v[:30] if isinstance(v, str) else "",
)
def test_bad_interventions_are_named(one: Intervention, said: str) -> None:
    with pytest.raises(InterventionError) as error:
        validate_hypotheses([FACTUAL, Hypothesis("x", (one,))], table_scene(), 1.0)
    assert str(error.value).startswith("hypotheses[1].interventions[0].") and said in str(error.value)


# Batches.


def batch_of(kind: str, count: int = 4, steps: int = 3) -> do.ActionBatch:
    rng = np.random.default_rng(3)
    times, values = 0.1 * np.arange(steps), rng.uniform(-0.1, 0.1, (count, steps, 3)) * [1, 1, 0]
    if kind == "path":
        return do.path_batch(values + [-0.4, 0, 0.05], times, PUSHER, name=kind)
    if kind == "velocity":
        return do.velocity_batch(5, values, times, name=kind)
    return do.impulse_batch(5, 0.2 * values, times, points=np.array([0, 0, 0.01]), name=kind)


@pytest.mark.parametrize("kind", ["path", "velocity", "impulse"])
def test_a_batch_means_its_hypotheses(kind: str) -> None:
    batch = replace(batch_of(kind), common=(do.remove(4, 0.05),), time_offset=0.1)
    validate_hypotheses((), table_scene(), 1.0, [batch])
    validate_hypotheses(batch.hypotheses, table_scene(), 1.0)
    assert len(batch) == len(batch.hypotheses) == 4 and batch.hypotheses[3].name == f"{kind}/3"
    assert all(len(h.interventions) == batch.interventions_each for h in batch.hypotheses)
    second = batch.hypotheses[2].interventions
    assert second[0] == batch.common[0]
    if kind == "path":
        np.testing.assert_array_equal(second[1].path_positions, batch.values[2])
        assert second[1].path_quaternions.shape == (3, 4) and second[1].time_offset == 0.1
    else:
        assert [i.time_offset for i in second[1:]] == pytest.approx([0.1, 0.2, 0.3])
        given = "linear_velocity" if kind == "velocity" else "impulse"
        np.testing.assert_array_equal([getattr(i, given) for i in second[1:]], batch.values[2])


@pytest.mark.parametrize(
    ("kind", "changes", "said"),
    [
        ("path", {"values": np.zeros((0, 3, 3))}, "values: got shape (0, 3, 3), expected (K, 3, 3) with K >= 1"),
        ("path", {"values": np.zeros((2, 2, 3))}, "values: got shape (2, 2, 3), expected (K, 3, 3)"),
        ("path", {"values": np.full((2, 3, 3), NAN)}, "values: got [nan, nan, nan] at [0, 0], expected finite"),
        ("path", {"quaternions": np.zeros((3, 4))}, "quaternions: got shape (3, 4), expected (4,) or (4, 3, 4)"),
        ("path", {"times": np.array([0.0, 0.2, 0.1])}, "times: got [0.0, 0.2, 0.1], expected ascending from 0"),
        ("path", {"times": np.zeros(0)}, "times: got shape (0,), expected at least one time"),
        ("path", {"time_offset": 1.5}, "time_offset: got 1.5 s"),
        ("path", {"time_offset": NAN}, "time_offset: got nan s"),
        ("path", {"object_id": 1}, "object_id: 1 (support) is static"),
        ("path", {"body": BodySpec(extents=np.zeros(3))}, "object.extents"),
        ("velocity", {"object_id": 77}, "object_id: object id 77 is not in the scene graph"),
        ("velocity", {"object_id": 0}, "object_id: object id 0 is not in the scene graph"),
        ("velocity", {"time_offset": 0.9}, "time_offset: got 0.9 s and times up to 0.2 s later, expected 0..1"),
        ("velocity", {"angular": np.zeros((1, 3))}, "angular: got shape (1, 3), expected (4, 3, 3) or none"),
        ("impulse", {"points": np.zeros((2, 3))}, "points: got shape (2, 3), expected (3,) or (4, 3, 3)"),
        ("impulse", {"kind": InterventionKind.MORPH}, "kind: got 7, expected FOLLOW_PATH, SET_VELOCITY, APPLY_IMPULSE"),
        ("impulse", {"common": (do.remove(88),)}, "common[0].object_id: object id 88"),
    ],
)
def test_bad_batches_are_named(kind: str, changes: dict[str, object], said: str) -> None:
    with pytest.raises(InterventionError) as error:
        validate_hypotheses((), table_scene(), 1.0, [replace(batch_of(kind), **changes)])  # type: ignore[arg-type]
    assert str(error.value).startswith("batches[0].") and said in str(error.value)


def test_names_are_unique_over_hypotheses_and_batches() -> None:
    with pytest.raises(InterventionError, match=r"batches\[1\].name: got 'path' twice"):
        validate_hypotheses((), table_scene(), 1.0, [batch_of("path"), batch_of("path")])
    with pytest.raises(InterventionError, match=r"batches\[0\].name: got 'path' twice"):
        validate_hypotheses([Hypothesis("path/1")], table_scene(), 1.0, [batch_of("path")])
