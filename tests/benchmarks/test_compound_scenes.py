"""The six scenes of compounds: what happens in them in truth, and how imagining them is scored."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from benchmarks.imagination.compounds import error_m, ground_truth, outlines
from benchmarks.imagination.six_scenes import (
    SCENES,
    TABLE_HEIGHT_M,
    ball_into_bowl,
    hook_by_handle,
    push_tee,
    spoon_in_mug,
    stack_on_pan,
    tower_of_mugs,
)
from benchmarks.imagination.starts import Start
from wm_core.convex_parts import MAX_PARTS
from wm_core.rotations import rotation_distance, turn_about_z
from wm_dynamics.physics.backend import PhysicsDynamics


@cache
def future(make):
    scene = make(np.random.default_rng([3, 0]))
    return scene, *ground_truth(scene)


@pytest.mark.parametrize("make", SCENES, ids=lambda f: f.__name__)
def test_scenes_follow_from_their_seed_and_objects_have_parts(make):
    scene, again = make(np.random.default_rng([3, 0])), make(np.random.default_rng([3, 0]))
    np.testing.assert_array_equal(scene.built.states, again.built.states)
    assert any(scene.built.parts) and all(len(p) <= MAX_PARTS for p in scene.built.parts)


def last(make, name):
    scene, graph, states, _, _ = future(make)
    return states[-1, graph.index(scene.built.id_of(name))]


def test_what_is_hollow_holds_what_is_put_into_it():
    ball, bowl = last(ball_into_bowl, "ball"), last(ball_into_bowl, "bowl")
    assert np.linalg.norm(ball[:2] - bowl[:2]) < 0.05 and ball[2] < TABLE_HEIGHT_M + 0.05
    spoon, mug = last(spoon_in_mug, "spoon"), last(spoon_in_mug, "mug")
    upright = Rotation.from_quat(spoon[3:7]).apply([0.0, 0.0, 1.0])[2]
    assert abs(upright) > 0.7 and np.linalg.norm(spoon[:2] - mug[:2]) < 0.06
    lower = last(stack_on_pan, "lower")
    assert TABLE_HEIGHT_M + 0.02 < lower[2] < TABLE_HEIGHT_M + 0.045  # on the pan's floor, below its rim


def test_a_hook_draws_a_mug_along_and_a_tee_turns():
    scene, graph, states, _, _ = future(hook_by_handle)
    mug = graph.index(scene.built.id_of("mug"))
    assert np.linalg.norm(states[-1, mug, :2] - states[0, mug, :2]) > 0.08
    scene, graph, states, _, _ = future(push_tee)
    tee = graph.index(scene.built.id_of("tee"))
    assert abs(float(turn_about_z(states[-1, tee, 3:7], states[0, tee, 3:7]))) > np.radians(20.0)


def test_mugs_stand_upon_one_another_or_lean():
    scene, graph, states, _, _ = future(tower_of_mugs)
    for name in ("mug1", "mug2"):
        row = graph.index(scene.built.id_of(name))
        assert states[0, row, 2] > TABLE_HEIGHT_M + 0.1
        assert float(rotation_distance(states[0, row, 3:7], graph.quaternions[row])) < 1e-3


def test_the_score_knows_parts_from_outlines():
    scene, graph, states, present, times = future(ball_into_bowl)
    rows = {int(i): k for k, i in enumerate(graph.ids) if not graph.is_static[k]}
    physics = PhysicsDynamics()
    parts, outline = (
        error_m(physics, scene.hypothesis, Start(g, rows), graph, (states, present, times), scene.hypothesis)
        for g in (graph, outlines(graph))
    )
    assert parts < 0.4 * outline and outline > 0.02
    assert not any(outlines(graph).parts) and any(graph.parts)
