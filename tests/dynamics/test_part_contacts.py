"""Contacts of the parts of bodies: which are near, and one step of them, compiled and in NumPy."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import mujoco
import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file
from scipy.spatial import ConvexHull
from scipy.spatial.transform import Rotation

from compound_things import LETTER_T, Thing, bowl, compound, cup, scene, solid
from wm_core.convex_parts import ConvexPart
from wm_core.scene_graph import SceneGraph, Shape
from wm_dynamics.belief import scene_body
from wm_dynamics.contact_step.array_step import Hulls, Parts, Stepped, StepWeights, step
from wm_dynamics.contact_step.body_tables import HULL_POINTS, PLANE_ROWS, body_shape, parameter_column
from wm_dynamics.contact_step.compiled import CompiledStep
from wm_dynamics.contact_step.network import DynamicsNetwork, default_model
from wm_dynamics.contact_step.part_shapes import PartShape, face_axes, outline_points, part_shape
from wm_dynamics.contact_step.rollout_tables import PartTable
from wm_dynamics.mujoco.bodies import BodyDef, GeomDef
from wm_dynamics.mujoco.world import World

Array = NDArray[np.float64]


def tables(graph: SceneGraph) -> tuple[dict[str, NDArray[Any]], list[PartShape], Parts, Hulls]:
    """Inputs of a step of all movable objects: all pairs of their parts; the parts; the oracle's parts and hulls."""
    rows = np.flatnonzero(~graph.is_static).tolist()
    bodies = [scene_body(graph, i) for i in rows]
    shapes = [body_shape(b) for b in bodies]
    turns = [Rotation.from_quat(graph.quaternions[i]) for i in rows]
    position = np.stack([graph.positions[i] + t.apply(s.offset) for i, t, s in zip(rows, turns, shapes, strict=True)])
    hull_row = np.array([k for k, s in enumerate(shapes) if s.hull is not None], dtype=np.int64)
    hulls = [shapes[k].hull for k in hull_row.tolist()]
    parts: list[PartShape] = []
    hull_number, begins = [], []
    for shape in shapes:
        begins.append(len(parts))
        for part in shape.parts:
            parts.append(part)
            hulls += [] if part.hull is None else [part.hull]
            hull_number.append(0 if part.hull is None else len(hulls))
    pairs = [
        (a, b, begins[a] + i if shapes[a].parts else -1, begins[b] + j if shapes[b].parts else -1)
        for a in range(len(rows)) for b in range(a + 1, len(rows))
        for i in range(max(len(shapes[a].parts), 1)) for j in range(max(len(shapes[b].parts), 1))
    ]  # fmt: skip
    pair_a, pair_b, part_a, part_b = np.array(pairs, dtype=np.int64).T.copy()
    rng = np.random.default_rng(2)
    plane = np.zeros((PLANE_ROWS, len(rows)))
    plane[3], plane[5:] = 1.0, 1e4
    feeds = {
        "position": position.T, "quaternion": graph.quaternions[rows].T,
        "linear": rng.normal(0.0, 0.1, (3, len(rows))), "angular": rng.normal(0.0, 0.3, (3, len(rows))),
        "parameters": np.stack([parameter_column(b, s) for b, s in zip(bodies, shapes, strict=True)], axis=1),
        "plane": plane, "plane_slack": np.zeros(len(rows)), "pair_slack": np.zeros(len(pairs)),
        "hull_points": np.stack(hulls, axis=2),  # type: ignore[arg-type]
    }  # fmt: skip
    feeds = {name: np.ascontiguousarray(value, dtype=np.float32) for name, value in feeds.items()}
    feeds |= {"pair_a": pair_a, "pair_b": pair_b, "pair_part_a": part_a, "pair_part_b": part_b, "hull_row": hull_row}
    number = np.zeros(len(rows), dtype=np.int64)
    number[hull_row] = 1 + np.arange(len(hull_row))
    oracle = Parts(
        part_a + 1, part_b + 1, *(
            np.stack([np.asarray(value, dtype=np.float64) for value in values], axis=-1)
            for values in (
                [p.frame for p in parts], [p.center for p in parts], [p.half for p in parts],
                [p.rounding for p in parts], [float(p.cylinder) for p in parts],
            )
        ), np.array(hull_number),
    )  # fmt: skip
    return feeds, parts, oracle, Hulls(hull_row, number, feeds["hull_points"].astype(np.float64))


def in_numpy(feeds: dict[str, NDArray[Any]], parts: Parts, hulls: Hulls) -> Stepped:
    weights = load_file(default_model().with_suffix(".safetensors"))
    network = SimpleNamespace(
        **{k.removeprefix("network."): v for k, v in weights.items() if k.startswith("network.")}
    )  # fmt: skip
    learned = StepWeights(network, np.exp(weights["sweep_weights"]), np.exp(weights["deviation_floor"]))
    state = [feeds[name].astype(np.float64) for name in ("position", "quaternion", "linear", "angular")]
    return step(
        state, feeds["parameters"].astype(np.float64), feeds["plane"].astype(np.float64), feeds["pair_a"],
        feeds["pair_b"], hulls, (feeds["plane_slack"], feeds["pair_slack"]), learned, parts,
    )  # fmt: skip


def part_table(parts: list[PartShape], oracle: Parts, bodies: int) -> PartTable:
    none = np.zeros(bodies, dtype=np.int64)
    return PartTable(
        none, none,
        *(np.array(v, dtype=np.float32).reshape(len(parts), -1) for v in (
            [p.frame for p in parts], [p.center for p in parts], [p.half for p in parts])),
        *(np.array(v, dtype=np.float32) for v in (
            [p.rounding for p in parts], [p.cylinder for p in parts], [p.radius for p in parts])),
        hull=np.asarray(oracle.hull_number, dtype=np.int64) - 1,
    )  # fmt: skip


def things() -> list[Thing]:
    """Two cups on one another, a rod leaning in the upper one, a T that a box lies on, a bowl over all."""
    leaning = Rotation.from_euler("y", 0.3)
    return [
        compound(cup(), (0.0, 0.0, 0.0)), compound(cup(), (0.004, 0.003, 0.0998), 0.2),
        solid(Shape.CYLINDER, (0.012, 0.012, 0.16), (-0.01, 0.0, 0.19), 0.03, leaning),
        compound(LETTER_T, (0.25, 0.0, 0.0)), solid(Shape.BOX, (0.05, 0.05, 0.05), (0.25, 0.01, 0.0648)),
        bowl((0.0, 0.3, -0.0005)), solid(Shape.SPHERE, (0.04,) * 3, (0.0, 0.3, 0.029)),
    ]  # fmt: skip


@pytest.mark.slow
def test_a_step_of_parts_is_that_of_the_formulas() -> None:
    feeds, parts, oracle, hulls = tables(scene(things()))
    compiled = CompiledStep(DynamicsNetwork(default_model(), quick=True))
    # Far parts of one pair of bodies are gathered, too: only what they weigh in the sweeps is zero.
    expected = in_numpy(feeds, oracle, hulls)
    found = compiled.run(feeds, part_table(parts, oracle, feeds["position"].shape[1]))
    near = expected.pair_gap < 0.02
    assert near.sum() > 30
    np.testing.assert_allclose(found[8][near], expected.pair_gap[near], atol=2e-6)
    np.testing.assert_allclose(found[5], expected.pair_impulse, atol=2e-5)
    np.testing.assert_allclose(found[0], expected.position, atol=2e-5)
    np.testing.assert_allclose(found[2], expected.linear, atol=2e-3)


@pytest.mark.slow
def test_parts_that_are_left_out_are_farther_than_the_margin() -> None:
    """Against MuJoCo's distances, for all kinds of parts in random poses."""
    from wm_dynamics.contact_step.parts_kernel import _near_boxes, _place_box

    rng = np.random.default_rng(7)
    points = rng.normal(size=(20, 3)) * 0.03
    kinds = [
        ConvexPart(Shape.BOX, np.array([0.1, 0.02, 0.06])), ConvexPart(Shape.CYLINDER, np.array([0.05, 0.05, 0.02])),
        ConvexPart(Shape.CAPSULE, np.array([0.03, 0.03, 0.1])), ConvexPart(Shape.SPHERE, np.full(3, 0.05)),
        ConvexPart(Shape.CONVEX, np.ptp(points, axis=0), hull=points),
    ]  # fmt: skip
    margin, left_out, kept = np.float32(0.004), 0, 0
    for _ in range(60):
        one, two = (kinds[i] for i in rng.integers(len(kinds), size=2))
        bodies = [BodyDef((GeomDef(p.shape, p.extents, hull=p.hull),)) for p in (one, two)]
        world = World(bodies, None, 0.004, touch_sensors=False)
        data = mujoco.MjData(world.model)
        states = np.zeros((2, 13))
        states[:, 3:7] = Rotation.random(2, random_state=int(rng.integers(1 << 31))).as_quat()
        states[1, :3] = rng.normal(size=3) * 0.05
        world.set_positions(data, states)
        mujoco.mj_kinematics(world.model, data)
        distance = mujoco.mj_geomDistance(
            world.model, data, world.geom_ids[0][0], world.geom_ids[1][0], 1.0, np.zeros(6)
        )
        boxes = np.zeros((2, 16), dtype=np.float32)
        for k, part in enumerate((one, two)):
            shape = part_shape(part, np.zeros(3), HULL_POINTS)
            floats = [np.asarray(v, dtype=np.float32) for v in (states[:, :3].T, states[:, 3:7].T, shape.frame.ravel())]
            half = (shape.half + shape.rounding).astype(np.float32)
            _place_box(boxes[k], k, *floats, shape.center.astype(np.float32), half, np.float32(shape.radius))
        if _near_boxes(boxes[0], boxes[1], margin):
            kept += 1
        else:
            left_out += 1
            assert distance > margin - 1e-5
    assert left_out > 10 and kept > 10


def test_axes_of_a_hull_are_those_of_its_faces() -> None:
    turn = Rotation.from_euler("xyz", [0.3, -0.5, 1.1])
    corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]) * [0.05, 0.003, 0.04]
    axes = face_axes(turn.apply(corners))
    np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-9)
    assert np.linalg.det(axes) > 0.0
    along = np.abs(turn.as_matrix().T @ axes)
    np.testing.assert_allclose(along.max(axis=0), 1.0, atol=1e-6)
    assert along[1, 2] > 0.999, "the largest face first"
    shape = part_shape(ConvexPart(Shape.CONVEX, np.ones(3), hull=turn.apply(corners)), np.zeros(3), HULL_POINTS)
    np.testing.assert_allclose(np.sort(shape.half), [0.003, 0.04, 0.05], atol=1e-9)


def test_an_outline_keeps_what_a_pan_stands_on() -> None:
    """Of many points 64 that leave the hull nearly as it is, and the lowest ones of every small tip."""
    angle = np.linspace(0.0, 2.0 * np.pi, 48, endpoint=False)
    ring = np.stack([np.cos(angle), np.sin(angle), np.zeros(48)], axis=1)
    foot, rim = 0.045 * ring, 0.09 * ring + [0.0, 0.0, 0.05]
    handle = np.array([[0.25, y, z] for y in (-0.01, 0.01) for z in (0.03, 0.045)])
    points = np.concatenate([foot, rim, handle])
    kept = outline_points(points, HULL_POINTS)
    assert len(kept) <= HULL_POINTS
    assert ConvexHull(kept).volume > 0.97 * ConvexHull(points).volume
    for tip in angle:
        down = np.array([0.15 * np.cos(tip), 0.15 * np.sin(tip), -1.0])
        assert (points @ down).max() - (kept @ down).max() < 5e-4


@pytest.mark.parametrize(
    ("name", "is_round"), [("can", True), ("octagon", True), ("stone", False), ("bulging bowl", False), ("cone", True)]
)
def test_only_what_is_of_revolution_rolls_on_rims(name: str, is_round: bool) -> None:
    """A stone whose bounds are square is none: on rims it sank into the table by 3 cm as it tipped."""
    sides = 8 if name == "octagon" else 24
    angle = np.linspace(0.0, 2.0 * np.pi, sides, endpoint=False)
    ring = np.stack([np.cos(angle), np.sin(angle), np.zeros(sides)], axis=1)
    up = np.array([0.0, 0.0, 1.0])
    rng = np.random.default_rng(3)
    stone = rng.normal(size=(60, 3))
    stone *= 0.05 / np.abs(stone).max(axis=0)
    stone[:2] = [[0.05, 0.0, 0.0], [-0.05, 0.0, 0.0]]
    points = {
        "can": np.concatenate([0.05 * ring, 0.05 * ring + 0.1 * up]),
        "octagon": np.concatenate([0.05 * ring, 0.05 * ring + 0.1 * up]),
        "stone": stone,
        "bulging bowl": np.concatenate([0.04 * ring, 0.068 * ring + 0.03 * up, 0.08 * ring + 0.07 * up]),
        "cone": np.concatenate([0.05 * ring, 0.02 * ring + 0.1 * up]),
    }[name]
    assert body_shape(BodyDef((GeomDef(Shape.CONVEX, np.ptp(points, axis=0), hull=points),))).cylinder == is_round
