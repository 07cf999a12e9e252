"""Household things: whole, closed, standing, at rest; the same by seed; and depth sensors that err as theirs do."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from numpy.typing import NDArray

from training.worlds import families
from training.worlds.appearance import depth_sensor, open_simulator
from training.worlds.homeware import prints
from training.worlds.homeware.catalog import FAMILIES, gloss
from training.worlds.homeware.sensors import ActiveStereo, PhoneLidar, StructuredLight, View, random_sensor, shadow
from training.worlds.homeware.settings import KINDS, random_setting
from training.worlds.homeware.surfaces import ATLAS_PIXELS, box, circle, lathe, loft, paint, sweep
from training.worlds.simulate import compile_world, simulate
from training.worlds.worlds import random_scene
from wm_dynamics.mujoco.bodies import BodyDef, body_points, lowest_point
from wm_sim.scenes import BuiltScene

ATTEMPTS = 3
"""Objects of each family that are looked at."""


def closed(vertices: NDArray[np.float64], faces: NDArray[np.int64]) -> bool:
    """Whether each edge has two faces, on either side, once corners at one place are one."""
    _, same = np.unique(np.round(vertices, 6), axis=0, return_inverse=True)
    f = same.ravel()[faces]
    f = f[(f[:, 0] != f[:, 1]) & (f[:, 1] != f[:, 2]) & (f[:, 2] != f[:, 0])]
    edges = np.concatenate([f[:, [0, 1]], f[:, [1, 2]], f[:, [2, 0]]])
    there, back = {tuple(e) for e in edges.tolist()}, {(b, a) for a, b in edges.tolist()}
    return there == back


def volume(vertices: NDArray[np.float64], faces: NDArray[np.int64]) -> float:
    """Enclosed by a closed mesh [m^3]; negative where it is inside out."""
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    return float(np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6.0)


def digest(scene: BuiltScene, digits: int | None = None) -> str:
    """Of all that a world is made of; rounded to so many digits."""
    code = hashlib.sha256(repr((scene.names, scene.class_names, scene.pushers)).encode())

    def add(values: object) -> None:
        array = np.asarray(values, dtype=np.float64)
        code.update((array if digits is None else np.round(array, digits) + 0.0).tobytes())

    for values in (scene.states, scene.extents, scene.colors, *scene.hulls):
        add(values)
    for body in scene.bodies:
        add([body.mass, body.friction, body.restitution])
        for geom in body.geoms:
            for values in (geom.extents, geom.position, geom.quaternion, geom.hull, geom.color):
                add(values)
            code.update(geom.material.encode())
            if geom.mesh is not None:
                add(geom.mesh.vertices)
                code.update(geom.mesh.texture.tobytes())
    for index, do in scene.schedule:
        add([index, do.time_offset])
    return code.hexdigest()[:16]


@pytest.mark.parametrize("name", list(FAMILIES))
def test_families_draw_whole_things_that_stand(name: str) -> None:
    for seed in range(ATTEMPTS):
        drawn = FAMILIES[name].draw(np.random.default_rng(seed))
        body = BodyDef(drawn.parts)
        assert drawn.class_name == "object" or drawn.class_name in families.VOCABULARY
        meshes = [g.mesh for g in drawn.parts if g.mesh is not None]
        assert len(meshes) == 1 and all(g.hidden != g.visual_only for g in drawn.parts)
        mesh = meshes[0]
        assert np.isfinite(mesh.vertices).all() and mesh.uv.min() >= 0.0 and mesh.uv.max() <= 1.0
        assert max(mesh.texture.shape[:2]) <= ATLAS_PIXELS and len(mesh.faces) < 3000
        assert closed(mesh.vertices, mesh.faces) and volume(mesh.vertices, mesh.faces) > 1e-6
        # What is drawn is where it collides, to 6 mm; it stands on the ground.
        solid = body_points(body)
        np.testing.assert_allclose(mesh.vertices.min(axis=0), solid.min(axis=0), atol=6e-3)
        np.testing.assert_allclose(mesh.vertices.max(axis=0), solid.max(axis=0), atol=6e-3)
        assert abs(lowest_point(body, np.array([0.0, 0.0, 0.0, 1.0]))) < 2e-3
        assert abs(float(mesh.vertices[:, 2].min())) < 3e-3
        assert np.ptp(solid, axis=0).min() > 0.004 and np.ptp(solid, axis=0).max() < 0.5


@pytest.mark.parametrize("name", ["mug", "bottle", "scissors", "carton"])
def test_things_are_the_same_by_seed(name: str) -> None:
    first, again, other = (FAMILIES[name].draw(np.random.default_rng(s)).parts[-1].mesh for s in (1, 1, 2))
    assert first is not None and again is not None and other is not None
    assert first.key() == again.key() != other.key()


def test_surfaces_are_closed_and_face_outwards() -> None:
    tube = sweep(np.array([[0, 0, 0], [0.1, 0, 0.02], [0.2, 0.05, 0.0]]), 0.01)
    jar = lathe([(0.0, 0.0), (0.03, 0.0), (0.04, 0.1), (0.0, 0.1)])
    image = prints.plain(np.ones(3), np.random.default_rng(0))
    size = np.array([0.1, 0.2, 0.3])
    for surfaces in ([loft(tube, True, True)], [loft(jar)], box(size), box(size, 0.01)):
        mesh = paint([(s, image) for s in surfaces])
        assert closed(mesh.vertices, mesh.faces) and volume(mesh.vertices, mesh.faces) > 0.0
    mesh = paint([(s, image) for s in box(size)])
    assert volume(mesh.vertices, mesh.faces) == pytest.approx(0.006)
    assert volume(*(lambda s: (s.vertices, s.faces))(loft(lathe([(0.05, 0), (0.05, 0.1)], 200), True, True))) == (
        pytest.approx(np.pi * 0.05**2 * 0.1, rel=1e-3)
    )
    assert circle(0.02, 0.1).shape == (28, 3)


def test_images_are_where_the_coordinates_say() -> None:
    """The corners of a box's face show the corners of its image, upright."""
    image = np.zeros((40, 60, 3), np.uint8)
    image[:20, :30], image[:20, 30:], image[20:, :30], image[20:, 30:] = 50, 100, 150, 200
    faces = box((0.1, 0.2, 0.3))
    mesh = paint([(faces[0], image)])
    h, w = mesh.texture.shape[:2]
    for vertex, uv in zip(mesh.vertices, mesh.uv, strict=True):
        # The face at -x, seen from there: left is +y, up is +z.
        expected = {(1, 1): 50, (-1, 1): 100, (1, -1): 150, (-1, -1): 200}
        pixel = mesh.texture[min(int((1.0 - uv[1]) * h), h - 1), min(int(uv[0] * w), w - 1), 0]
        assert pixel == expected[(int(np.sign(vertex[1])), int(np.sign(vertex[2])))]


def test_prints_are_of_shipped_fonts_and_by_seed() -> None:
    first, again = (prints.front(np.random.default_rng(4), 120, 90, (np.ones(3), np.zeros(3)), "LAMO") for _ in "ab")
    np.testing.assert_array_equal(first, again)
    assert first.shape == (120, 90, 3) and first.std() > 5.0
    assert all("DejaVu" in name for name in prints._FONTS)


def test_settings_are_of_all_kinds_and_distances() -> None:
    made = [random_setting(np.random.default_rng(s)) for s in range(150)]
    assert {s.kind for s in made} == set(KINDS)
    far = [float(np.linalg.norm(np.subtract(s.camera.position, s.camera.target))) for s in made]
    assert min(far) < 0.45 and max(far) > 2.0 and all(0.25 < d < 3.3 for d in far)
    assert all(s.support.is_static and (s.area > 0.0).all() for s in made)


SEEDS = (4, pytest.param(1, marks=pytest.mark.slow), pytest.param(3, marks=pytest.mark.slow))


@pytest.mark.parametrize("seed", SEEDS)
def test_worlds_are_by_seed_and_at_rest_until_something_happens(seed: int) -> None:
    scene = random_scene(seed, "homeware")
    assert digest(scene) == digest(random_scene(seed, "homeware"))
    assert 1 <= len(scene.bodies) - 1 <= 15
    world = compile_world(scene)
    assert not any(g.mesh for b in world.bodies for g in b.geoms)
    first = min((do.time_offset for k, do in scene.schedule), default=1.0)
    clip = simulate(scene, seconds=min(0.5, first), world=world, distances=False)
    moved = np.linalg.norm(clip.states[:, :, :3] - clip.states[:1, :, :3], axis=2)
    things = [k for k in range(1, len(scene.bodies)) if k not in scene.pushers]
    assert clip.stable and moved[:, things].max() < 5e-3
    # On what carries them: not through it, not in the air.
    low = [scene.states[k, 2] + lowest_point(scene.bodies[k], scene.states[k, 3:7]) - scene.table_top_z for k in things]
    assert min(low) > -4e-3
    if len(things) == 1:
        assert max(low) < 0.25


@pytest.mark.slow
def test_more_worlds_are_at_rest() -> None:
    tipped = []
    for seed in range(20, 60):
        scene = random_scene(seed, "homeware")
        first = min((do.time_offset for _, do in scene.schedule), default=1.0)
        clip = simulate(scene, seconds=min(0.5, first), world=compile_world(scene), distances=False)
        moved = np.linalg.norm(clip.states[:, :, :3] - clip.states[:1, :, :3], axis=2)
        things = [k for k in range(1, len(scene.bodies)) if k not in scene.pushers]
        assert clip.stable and (not things or moved[:, things].max() < 2e-2), seed
        tipped += [seed] if things and moved[:, things].max() >= 5e-3 else []
    # A thing that balances stands when it is put down and tips when a last bit is another one, as on another processor.
    assert len(tipped) <= 1


def test_a_thing_of_many_parts_has_one_id_in_masks() -> None:
    scene = random_scene(4, "homeware")
    with open_simulator(scene, 4, 160, 120) as simulator:
        present = np.ones(len(scene.bodies), bool)
        present[list(scene.pushers)] = False
        rgb, depth, ids = simulator.look(scene.states, present, simulator.world_T_camera(0.0))
        measured = depth_sensor(scene, 4, "homeware", 160)(
            rgb, depth, ids, simulator.camera.fx, np.random.default_rng(0)
        )
    assert rgb.std() > 5.0 and set(np.unique(ids)) <= {0, *scene.ids}
    assert any(sum(g.hidden for g in b.geoms) > 3 for b in scene.bodies)
    both = (measured > 0.0) & (depth > 0.0)
    assert both.mean() > 0.3 and np.median(np.abs(measured[both] - depth[both])) < 0.02


OLD = {
    "train": ("8e12633191d7f5b5", "1b89ae9f8f551f7d"),
    "seeds": ("f423a7b3a18d6807", "5128333555d8cdd1"),
    "families": ("538dc315b3b8e897", "c2b7c9422400cd70"),
    "assemblies": ("9ca27ecb1cb2df08", "f836481e0015c903"),
}
"""Hashes of worlds of the older splits, as they were drawn before there was ``homeware``."""


@pytest.mark.parametrize("split", list(OLD))
def test_older_splits_draw_the_worlds_that_they_drew(split: str) -> None:
    assert tuple(digest(random_scene(seed, split), 6) for seed in (0, 7)) == OLD[split]  # type: ignore[arg-type]


def test_gloss_is_of_the_family() -> None:
    assert gloss("fork12") == FAMILIES["fork"].gloss and gloss("table") == pytest.approx(0.1)


# -- depth sensors

SENSORS = [StructuredLight(), ActiveStereo(), PhoneLidar()]


def view_of(depth: NDArray[np.float32], brightness: int = 150, mirror: float = 0.0) -> View:
    rgb = np.full((*depth.shape, 3), brightness, np.uint8)
    return View(rgb, depth, np.full(depth.shape, mirror, np.float32), 280.0)


def wall(distance: float) -> NDArray[np.float32]:
    return np.full((240, 320), distance, np.float32)


def post(near: float, far: float) -> NDArray[np.float32]:
    """A post before a wall, in the columns 140 to 180."""
    depth = wall(far)
    depth[:, 140:180] = near
    return depth


@pytest.mark.parametrize("sensor", SENSORS)
@pytest.mark.parametrize("distance", [0.7, 1.0, 2.0])
def test_a_flat_wall_is_measured_without_bias(sensor: StructuredLight, distance: float) -> None:
    measured = np.stack([sensor.measure(view_of(wall(distance)), np.random.default_rng(s)) for s in range(6)])
    seen = measured[measured > 0.0]
    assert len(seen) > 0.9 * measured.size
    assert abs(float(seen.mean()) - distance) < 0.003 * distance
    assert 2e-4 < float(seen.std()) / distance**2 < 0.02


@pytest.mark.parametrize("sensor", SENSORS)
def test_sensors_are_by_seed_and_within_their_range(sensor: StructuredLight) -> None:
    depth = np.broadcast_to(np.linspace(0.05, 9.0, 320, dtype=np.float32), (240, 320)).copy()
    depth[:40] = 0.0
    first, again, other = (sensor.measure(view_of(depth), np.random.default_rng(s)) for s in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any() and first.dtype == np.float32
    seen = first[first > 0.0]
    assert seen.min() >= sensor.nearest_m and seen.max() <= sensor.farthest_m and (first[:40] == 0.0).all()


def test_the_noise_of_structured_light_is_that_of_its_papers() -> None:
    for distance, expected in ((1.0, 0.0019), (2.0, 0.0061)):
        measured = StructuredLight().measure(view_of(wall(distance)), np.random.default_rng(3))
        assert float(measured[measured > 0.0].std()) == pytest.approx(expected, rel=0.5)
    # Its depths are those of whole eighths of a pixel.
    disparity = 0.075 * 580.0 / measured[measured > 0.0] * 8.0
    np.testing.assert_allclose(disparity, np.rint(disparity), atol=1e-2)


def test_shadows_are_left_of_near_things_and_as_wide_as_geometry_says() -> None:
    hidden = shadow(post(0.8, 1.6), 0.075 * 280.0)
    width = 0.075 * 280.0 * (1.0 / 0.8 - 1.0 / 1.6)
    assert abs(int(hidden[100].sum()) - width) <= 1.5
    assert hidden[100, 140 - int(width) + 1 : 139].all() and not hidden[100, 180:].any()
    assert not shadow(wall(1.0), 21.0).any()


@pytest.mark.parametrize("sensor", [StructuredLight(), ActiveStereo(shadow_kept=0.0)])
def test_more_is_lost_at_the_shadows_side(sensor: StructuredLight) -> None:
    lost = np.stack([sensor.measure(view_of(post(0.8, 1.6)), np.random.default_rng(s)) == 0.0 for s in range(4)])
    left, right = lost[:, :, 130:138].mean(), lost[:, :, 183:191].mean()
    assert left > 0.5 and right < 0.1


@pytest.mark.parametrize("sensor", [StructuredLight(), ActiveStereo()])
def test_dark_mirroring_and_grazing_surfaces_are_lost(sensor: StructuredLight) -> None:
    def lost(view: View) -> float:
        return float((sensor.measure(view, np.random.default_rng(5)) == 0.0).mean())

    usual = lost(view_of(wall(1.2)))
    assert usual < 0.05
    assert lost(view_of(wall(1.2), brightness=0)) > usual + 0.3
    assert lost(view_of(wall(1.2), mirror=1.0)) > usual + 0.15
    # A plane that is seen at some 86 degrees.
    rows = np.linspace(-0.4, 0.4, 240, dtype=np.float32)[:, None]
    steep = np.broadcast_to(np.clip(0.9 / np.maximum(1.0 + 2.4 * rows, 0.05), 0.5, 4.5), (240, 320)).astype(np.float32)
    assert lost(view_of(steep)) > usual


def test_near_things_grow_in_active_stereo() -> None:
    depth = post(0.8, 1.6)
    grown = ActiveStereo(fattening_px=5.0, shadow_kept=1.0, smear=0.0).measure(view_of(depth), np.random.default_rng(2))
    exact = ActiveStereo(fattening_px=0.0, shadow_kept=1.0, smear=0.0).measure(view_of(depth), np.random.default_rng(2))
    assert (np.abs(grown - 0.8) < 0.1).sum() > (np.abs(exact - 0.8) < 0.1).sum() + 240


def test_lidar_of_telephones_has_no_holes_and_round_edges() -> None:
    measured = PhoneLidar().measure(view_of(post(0.8, 1.6)), np.random.default_rng(2))
    assert (measured > 0.0).all()
    between = (measured > 0.9) & (measured < 1.5)
    assert 240 < between.sum() < 240 * 24


def test_sensors_that_are_drawn_can_measure() -> None:
    made = [random_sensor(np.random.default_rng(s), 0.4) for s in range(60)]
    assert not any(isinstance(s, StructuredLight) for s in made)
    assert {type(s) for s in made} > {ActiveStereo, PhoneLidar}
    assert any(isinstance(random_sensor(np.random.default_rng(s), 1.0), StructuredLight) for s in range(30))
