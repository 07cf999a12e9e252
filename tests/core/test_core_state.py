"""The scene graph, interventions and their validation."""

import numpy as np
import pytest

from wm_core import interventions as do
from wm_core.intervention_checks import validate_hypotheses, validate_intervention
from wm_core.rollout import STATE_SIZE, Rollout
from wm_core.scene_graph import Predicate, Relation, SceneGraph, Shape, shape_volume


def scene() -> SceneGraph:
    return SceneGraph.build(
        ids=[1, 2, 7],
        positions=[[0, 0, -0.02], [0, 0, 0.05], [0.3, 0, 0.05]],
        extents=[[1, 1, 0.04], [0.1, 0.1, 0.1], [0.1, 0.1, 0.1]],
        class_names=("support", "box", "ball"),
        is_static=[True, False, False],
        shapes=[Shape.BOX, Shape.BOX, Shape.SPHERE],
        relations=[Relation(2, Predicate.ON, 1, 0.9, 5), Relation(7, Predicate.ON, 1, 0.9, 5)],
    )


def test_selection_keeps_rows_and_only_relations_among_them():
    kept = scene().select(np.array([True, True, False]))
    assert kept.ids.tolist() == [1, 2]
    assert kept.class_names == ("support", "box")
    assert [r.subject for r in kept.relations] == [2]


def test_unknown_id_is_named_with_those_that_exist():
    with pytest.raises(KeyError, match=r"object id 9 .*\[1, 2, 7\]"):
        scene().index(9)
    states = np.zeros((1, 1, 1, 2, STATE_SIZE), np.float32)
    rollout = Rollout(0, "map", ("",), np.zeros(1), np.array([3, 8]), states, np.ones((1, 1, 2), bool), "still")
    assert rollout.index(8) == 1
    with pytest.raises(KeyError, match=r"object id 9 .*rollout .*\[3, 8\]"):
        rollout.index(9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ids": [2, 1]}, "ascending"),
        ({"positions": [[0, 0, np.nan], [0, 0, 0]]}, "positions: has a value that is not finite"),
        ({"extents": [[0, 1, 1], [1, 1, 1]]}, "every extent > 0"),
        ({"colors": np.zeros((3, 3))}, r"colors: got 3 entries, expected 2"),
    ],
)
def test_impossible_graphs_are_refused(change, message):
    arguments = {"ids": [1, 2], "positions": np.zeros((2, 3)), "extents": np.ones((2, 3)), **change}
    with pytest.raises(ValueError, match=message):
        SceneGraph.build(**arguments)


def test_volumes_of_primitives():
    assert shape_volume(Shape.SPHERE, [0.2] * 3) == pytest.approx(4 / 3 * np.pi * 1e-3)
    assert shape_volume(Shape.CYLINDER, [0.2, 0.2, 1.0]) == pytest.approx(np.pi * 0.01)
    assert shape_volume(Shape.CAPSULE, [0.2, 0.2, 0.2]) == pytest.approx(shape_volume(Shape.SPHERE, [0.2] * 3))
    assert shape_volume(Shape.CONVEX, [1, 1, 1]) < shape_volume(Shape.BOX, [1, 1, 1])


VALID = [
    do.remove(2),
    do.add(do.BodySpec(Shape.SPHERE, np.full(3, 0.05), np.array([0, 0, 0.3]))),
    do.set_pose(2, [0, 0.2, 0.05]),
    do.set_velocity(7, [0.5, 0, 0]),
    do.apply_impulse(2, [0, 0.1, 0]),
    do.set_property(2, do.Property.MASS, 2.0, factor=True),
    do.follow_path([0, 1], [[0, 0, 0.1], [0.2, 0, 0.1]]),
    do.morph(2, [1, 1, 2]),
    do.restyle(2, [1, 0, 0]),
]


def test_every_kind_of_intervention_can_be_valid():
    assert {i.kind for i in VALID} == set(do.InterventionKind)
    validate_hypotheses([do.Hypothesis("all", tuple(VALID)), do.Hypothesis("factual")], scene(), 2.0)


@pytest.mark.parametrize(
    ("intervention", "message"),
    [
        (do.remove(99), r"hypotheses\[0\]\.interventions\[0\]\.object_id: object id 99"),
        (do.remove(2, at_s=3.0), r"time_offset: got 3.0 s, expected 0\.\.2"),
        (do.remove(2, at_s=float("nan")), "time_offset: got nan"),
        (do.set_velocity(2, [float("nan"), 0, 0]), r"twist\.linear: got \[nan"),
        (do.set_velocity(2, [1e3, 0, 0]), "within"),
        (do.set_velocity(1, [1, 0, 0]), "is static"),
        (do.apply_impulse(2, [float("inf"), 0, 0]), "impulse"),
        (do.set_property(2, do.Property.MASS, 0.0), r"value: got 0.0"),
        (do.follow_path([0, 0], [[0, 0, 0], [1, 0, 0]]), "ascending from 0"),
        (do.follow_path([0], [[0, 0, 0], [1, 0, 0]]), "got 1 times and 2 poses"),
        (do.add(do.BodySpec(extents=np.zeros(3))), "object.extents"),
        (do.add(do.BodySpec(mass=float("nan"))), "object.mass: got nan"),
        (do.morph(2, [0, 1, 1]), r"scale: got \[0"),
        (do.restyle(2, [2, 0, 0]), "color"),
    ],
)
def test_bad_interventions_are_refused_by_field(intervention, message):
    with pytest.raises(do.InterventionError, match=message):
        validate_hypotheses([do.Hypothesis("h", (intervention,))], scene(), 2.0)


def test_unknown_object_is_told_apart_and_names_must_be_unique():
    with pytest.raises(do.UnknownObjectError):
        validate_intervention(do.remove(99), scene(), 2.0, "x")
    with pytest.raises(do.InterventionError, match="'a' twice"):
        validate_hypotheses([do.Hypothesis("a"), do.Hypothesis("a")], scene(), 2.0)
