"""Random worlds: the same by seed, held-out shapes apart, nothing overlaps, siblings differ only where they must."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.reasoner.data import lively
from training.worlds import families, textures
from training.worlds.appearance import open_simulator, random_noise
from training.worlds.simulate import FAR_M, compile_world, simulate
from training.worlds.splits import MEASURED_ONLY, SPLITS
from training.worlds.worlds import random_scene
from wm_core.scene_graph import Shape
from wm_dynamics.mujoco.bodies import lowest_point


@pytest.mark.parametrize("split", [s for s in SPLITS if s not in MEASURED_ONLY])
def test_a_world_depends_on_its_seed_alone(split: str) -> None:
    first, again, other = random_scene(5, split), random_scene(5, split), random_scene(6, split)
    np.testing.assert_array_equal(first.states, again.states)
    np.testing.assert_array_equal(first.colors, again.colors)
    assert first.names == again.names
    assert first.states.shape != other.states.shape or not np.allclose(first.states, other.states)


def test_splits_with_one_seed_differ() -> None:
    train, seeds = random_scene(3, "train"), random_scene(3, "seeds")
    assert train.states.shape != seeds.states.shape or not np.allclose(train.states, seeds.states)


def test_held_out_families_and_textures_are_not_trained_on() -> None:
    assert not set(families.TRAINING) & set(families.HELD_OUT)
    assert not set(textures.TRAINING) & set(textures.HELD_OUT)
    for seed in range(4):
        names = {n.rstrip("0123456789") for n in random_scene(seed, "families").names} - {"table", "pusher"}
        assert names <= set(families.HELD_OUT)


def test_unknown_split_is_refused() -> None:
    with pytest.raises(ValueError, match="split: got 'test', expected one of train, seeds, families"):
        random_scene(0, "test")  # type: ignore[arg-type]


@pytest.mark.slow
@settings(max_examples=12, deadline=None)
@given(st.integers(0, 100_000), st.sampled_from(["train", "seeds", "families"]))
def test_things_stand_still_until_something_happens(seed: int, split: str) -> None:
    scene = random_scene(seed, split)
    first = min((do.time_offset for index, do in scene.schedule if index not in scene.pushers), default=0.5)
    if scene.pushers:
        return
    clip = simulate(scene, seconds=min(0.4, first - 0.05))
    moved = np.linalg.norm(clip.states[-1, 1:, :3] - clip.states[0, 1:, :3], axis=1)
    # Round objects may roll a little and lying bottles settle; nothing is thrown apart by an overlap.
    assert clip.stable
    assert (np.linalg.norm(clip.states[:, 1:, 7:10], axis=2) < 0.6).all(), moved


@pytest.mark.slow
def test_things_of_stacks_stand_on_each_other() -> None:
    raised, fallen = [], []
    for seed in range(12):
        scene = random_scene(seed, "stacks")
        free = [k for k in range(1, len(scene.bodies)) if k not in scene.pushers]
        foot = [
            state[2] + lowest_point(body, state[3:7])
            for body, state in ((scene.bodies[k], scene.states[k]) for k in free)
        ]
        up = np.array(foot) > scene.table_top_z + 0.005
        clip = simulate(scene, seconds=0.3)
        assert clip.stable
        raised += up.tolist()
        fallen += (clip.states[-1, free, 2] < clip.states[0, free, 2] - 0.01)[up].tolist()
    assert np.mean(raised) > 0.25 and np.mean(fallen) < 0.1


def test_without_what_touches_nothing_all_else_is_the_same() -> None:
    for seed in range(40):
        scene = random_scene(seed, "train")
        world = compile_world(scene)
        clip = simulate(scene, seconds=1.5, world=world)
        touched = {i for _, a, b, _ in clip.touches for i in (a, b) if min(a, b) > 1}
        movers = {i for _, i in clip.scheduled}
        alone = [i for i in clip.ids[1:].tolist() if i not in touched | movers]
        if not alone or not movers:
            continue
        sibling = simulate(scene, seconds=1.5, remove=[alone[0]], world=world)
        rest = [k for k, i in enumerate(clip.ids) if i != alone[0]]
        assert not sibling.present[:, scene.ids.index(alone[0])].any()
        np.testing.assert_allclose(sibling.states[:, rest, :3], clip.states[:, rest, :3], atol=2e-3)
        return
    pytest.fail("no world with an object that touches nothing")


@pytest.mark.slow
def test_distances_of_things_that_touch_are_of_their_true_surfaces() -> None:
    """A contact begins where the parts meet; hulls alone would have objects touch that have come apart."""
    for seed in range(40):
        scene = lively(random_scene(seed, "train"), seed)
        clip = simulate(scene, seconds=3.0)
        balls = [
            (a, b)
            for a, b in clip.distances
            if all(clip.shapes[clip.ids.tolist().index(i)] == Shape.SPHERE for i in (a, b))
        ]
        if balls:
            break
    for a, b in balls:
        i, j = clip.ids.tolist().index(a), clip.ids.tolist().index(b)
        centers = np.linalg.norm(clip.states[:, i, :3] - clip.states[:, j, :3], axis=1)
        expected = centers - 0.5 * (clip.extents[i, 0] + clip.extents[j, 0])
        both = clip.present[:, i] & clip.present[:, j]
        np.testing.assert_allclose(clip.distances[a, b][both], np.minimum(expected, FAR_M)[both], atol=1e-5)
        assert np.isnan(clip.distances[a, b][~both]).all()
    assert balls, "no two balls touched in forty worlds"


@pytest.mark.parametrize("name", [*families.ASSEMBLIES, *families.HELD_OUT])
def test_families_stand_on_their_ground(name: str) -> None:
    from wm_dynamics.mujoco.bodies import BodyDef, lowest_point

    family, _ = {**families.ASSEMBLIES, **families.HELD_OUT}[name]
    for seed in range(3):
        drawn = family(np.random.default_rng(seed))
        low = lowest_point(BodyDef(drawn.parts), np.array([0.0, 0.0, 0.0, 1.0]))
        assert abs(low) < 5e-3
        assert drawn.class_name == "object" or drawn.class_name in families.VOCABULARY


@pytest.mark.parametrize("name", [*textures.TRAINING, *textures.SURFACES, *textures.HELD_OUT])
def test_textures_are_images(name: str) -> None:
    pool = {**textures.TRAINING, **textures.SURFACES, **textures.HELD_OUT}
    image = pool[name](np.random.default_rng(1), 64)
    assert image.shape == (64, 64, 3) and image.dtype == np.uint8
    again = pool[name](np.random.default_rng(1), 64)
    np.testing.assert_array_equal(image, again)


def test_what_is_drawn_is_what_the_masks_say() -> None:
    scene = random_scene(4, "train")
    with open_simulator(scene, 4, 160, 120) as simulator:
        pose = simulator.world_T_camera(0.0)
        present = np.ones(len(scene.bodies), bool)
        present[list(scene.pushers)] = False
        rgb, depth, ids = simulator.look(scene.states, present, pose)
    assert rgb.std() > 5.0
    assert set(np.unique(ids)) <= {0, *scene.ids}
    for row in range(1, len(scene.bodies)):
        inside = ids == scene.ids[row]
        if inside.sum() < 20:
            continue
        v, u = np.argwhere(inside).mean(axis=0)
        ray = np.array(
            [(u - simulator.camera.cx) / simulator.camera.fx, (v - simulator.camera.cy) / simulator.camera.fy, 1.0]
        )
        point = pose[:3, :3] @ (ray * np.median(depth[inside])) + pose[:3, 3]
        assert np.linalg.norm(point - scene.states[row, :3]) < 0.75 * np.linalg.norm(scene.extents[row]) + 0.01


def test_noise_is_by_seed() -> None:
    assert random_noise(1) == random_noise(1)
    assert random_noise(1) != random_noise(2)
