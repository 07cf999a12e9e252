"""Appearance of a random world: textures, lights, background, and the noise of its depth sensor."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import mujoco
import numpy as np
from numpy.typing import NDArray

from training.worlds import textures
from training.worlds.homeware.catalog import gloss
from training.worlds.homeware.sensors import View, random_sensor
from training.worlds.splits import Split, generator
from training.worlds.textures import random_texture
from wm_sim.depth_noise import DepthNoise
from wm_sim.rendering import SHADOW_MAP_PIXELS, ZFAR_M, ZNEAR_M
from wm_sim.scenes import BuiltScene
from wm_sim.simulator import Simulator

_HOMEWARE_LIGHT = 1.4
"""Light of ``homeware`` over that of the other splits: its images have a mean brightness of 90 of 255."""
_HOMEWARE_FLOOR_M = 5.0
"""Half the side of the floor [m] in ``homeware``, where all walls stand, so that no image shows nothing at its edge."""


def casts_shadows(scene: BuiltScene) -> bool:
    """Whether things cast true shadows, on each other too: in half the worlds of ``homeware``.

    In the others, as in all older splits, soft ones are laid on the table, which takes a third of the time to draw.
    """
    split, seed = scene.model.name.rsplit("-", 1)
    return split == "homeware" and bool(generator("homeware", int(seed), 3).uniform() < 0.5)


def room(scene: BuiltScene, width: int, height: int) -> Callable[[mujoco.MjSpec], None]:
    """The appearance of a world for ``Simulator``: textures, lights, walls, and furniture around the table."""
    split, seed = scene.model.name.rsplit("-", 1)
    rng = generator(cast(Split, split), int(seed), 1)
    bright = _HOMEWARE_LIGHT if split == "homeware" else 1.0
    # What is drawn as a mesh brings its texture along.
    meshed = [any(g.mesh is not None for g in body.geoms) for body in scene.bodies]
    images = [None if meshed[row] else random_texture(cast(Split, split), rng, row == 0) for row in range(len(meshed))]

    def decorate(spec: mujoco.MjSpec) -> None:
        visual = spec.visual
        visual.global_.offwidth, visual.global_.offheight = width, height
        visual.quality.offsamples = 0
        ambient = bright * rng.uniform(0.22, 0.5)
        visual.headlight.ambient = [ambient] * 3
        visual.headlight.diffuse = [bright * rng.uniform(0.0, 0.35)] * 3
        visual.headlight.specular = [0.05, 0.05, 0.05]
        spec.stat.extent, spec.stat.center = 1.0, [0.0, 0.0, 0.75]
        visual.map.znear, visual.map.zfar = ZNEAR_M, ZFAR_M
        visual.quality.shadowsize, visual.map.shadowclip = SHADOW_MAP_PIXELS, 0.9
        for row, pixels in enumerate(images):
            if pixels is None:
                continue
            name = "table" if row == 0 else "pusher" if row in scene.pushers else f"material{row}"
            repeat = float(rng.uniform(0.7, 3.0)) if row == 0 else 1.0
            _material(spec, name, pixels, row != 0, repeat, float(rng.uniform(0.0, 0.35)))
        for name in ("floor", "wall", "cloth"):
            _material(
                spec,
                name,
                random_texture(cast(Split, split), rng, True),
                False,
                float(rng.uniform(0.5, 2.0)),
                0.05,
            )
        floor = spec.geom("floor")
        wide = _HOMEWARE_FLOOR_M if split == "homeware" else 3.0
        floor.size, floor.material = [wide, wide, 0.1], "floor"
        for k in range(int(rng.integers(1, 3))):
            down = -rng.uniform(0.5, 1.0)
            tint = rng.uniform(0.85, 1.0, 3)
            shadows = k == 0 and casts_shadows(scene)
            spec.worldbody.add_light(
                type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL,
                pos=[-0.6, 0.9, 2.6],
                dir=[rng.uniform(-0.8, 0.8), rng.uniform(-0.8, 0.8), down],
                diffuse=(bright * tint * rng.uniform(0.25, 0.65) / (k + 1)).tolist(),
                specular=[rng.uniform(0.0, 0.4)] * 3,
                ambient=[0.0, 0.0, 0.0],
                castshadow=shadows,
            )
        _surroundings(spec, scene, rng)

    return decorate


def _surroundings(spec: mujoco.MjSpec, scene: BuiltScene, rng: np.random.Generator) -> None:
    """Walls and furniture: background that is no object, though it may stand taller than the table."""
    box = mujoco.mjtGeom.mjGEOM_BOX
    free = {"contype": 0, "conaffinity": 0}
    reach = rng.uniform(1.4, 2.8, 4)
    away_from_camera = _clear_of_camera(scene)
    if away_from_camera is not None:
        reach = np.maximum(reach, 1.4 + np.linalg.norm(scene.model.camera.position[:2]))
    for k, (dx, dy) in enumerate(((1, 0), (-1, 0), (0, 1), (0, -1))):
        if rng.uniform() < 0.25 and away_from_camera is None:
            continue
        long = 3.0 if away_from_camera is None else 2.0 * _HOMEWARE_FLOOR_M
        half = [0.05 if dx else long, 0.05 if dy else long, 1.4]
        spec.worldbody.add_geom(
            type=box,
            size=half,
            pos=[dx * reach[k], dy * reach[k], 1.4],
            material="wall",
            rgba=[*rng.uniform(0.4, 1.0, 3), 1.0],
            **free,
        )
    half_table = 0.5 * np.array(scene.model.table.size[:2])
    for _ in range(int(rng.integers(0, 7))):
        half = rng.uniform([0.04, 0.04, 0.1], [0.3, 0.3, 0.65])
        angle = rng.uniform(-np.pi, np.pi)
        away = float(np.hypot(*half_table)) + rng.uniform(0.15, 1.0) + float(np.hypot(half[0], half[1]))
        if away_from_camera is not None and not away_from_camera(angle):
            continue
        spec.worldbody.add_geom(
            type=box,
            size=half,
            pos=[away * np.cos(angle), away * np.sin(angle), half[2]],
            quat=[np.cos(0.5 * angle), 0.0, 0.0, np.sin(0.5 * angle)],
            material="cloth" if rng.uniform() < 0.5 else "",
            rgba=[*textures.random_color(rng), 1.0],
            **free,
        )


def _clear_of_camera(scene: BuiltScene) -> Callable[[float], bool] | None:
    """Whether furniture in a direction [rad] leaves the view free; None where all cameras are close, as in old splits.

    The cameras of ``homeware`` may be farther away than a room's furniture, and must not look at its back.
    """
    if not scene.model.name.startswith("homeware"):
        return None
    x, y = scene.model.camera.position[:2]
    return lambda angle: abs((angle - np.arctan2(y, x) + np.pi) % (2.0 * np.pi) - np.pi) > 0.9


def _material(
    spec: mujoco.MjSpec, name: str, image: NDArray[np.uint8], cube: bool, repeat: float, specular: float
) -> None:
    kind = mujoco.mjtTexture.mjTEXTURE_CUBE if cube else mujoco.mjtTexture.mjTEXTURE_2D
    texture = spec.add_texture(name=f"{name}_texture", type=kind)
    pixels = np.concatenate([image] * 6) if cube else image
    texture.height, texture.width, texture.nchannel = pixels.shape[0], pixels.shape[1], 3
    texture.data = pixels.tobytes()
    material = spec.add_material(
        name=name, texrepeat=[repeat, repeat], texuniform=name == "floor", specular=specular, shininess=0.3
    )
    roles = list(material.textures)
    roles[int(mujoco.mjtTextureRole.mjTEXROLE_RGB)] = f"{name}_texture"
    material.textures = roles


def random_noise(seed: int, split: Split = "train", width: int = 640) -> DepthNoise:
    """A depth sensor by seed: from half to twice a Kinect's noise, its pixel scales fitted to the image width."""
    rng = generator(split, seed, 2)
    scale = width / 640.0
    return DepthNoise(
        axial_offset_m=0.0012 * rng.uniform(0.3, 1.6),
        axial_gain_per_m=0.0019 * rng.uniform(0.5, 1.6),
        correlation_px=1.5 * scale * rng.uniform(0.6, 1.4),
        lateral_px=0.8 * scale * rng.uniform(0.5, 1.4),
        disparity_step_px=float(rng.choice([0.03, 0.0625, 0.125])),
        edge_hole_probability=float(rng.uniform(0.1, 0.8)),
        edge_width_px=max(1, round(2 * scale * rng.uniform(0.5, 1.5))),
        dropout=float(rng.choice([0.0005, 0.003, 0.01])),
    )


Measure = Callable[
    [NDArray[np.uint8], NDArray[np.float32], NDArray[np.int32], float, np.random.Generator], NDArray[np.float32]
]
"""From color (H, W, 3), true depth (H, W) [m], ids (H, W) and focal length [pixels] to measured depth (H, W) [m]."""


def depth_sensor(scene: BuiltScene, seed: int, split: Split, width: int) -> Measure:
    """The depth sensor of a world by seed: in ``homeware`` one of several models, else ``random_noise``."""
    if split != "homeware":
        noise = random_noise(seed, split, width)
        return lambda rgb, depth, ids, focal_px, rng: noise.apply(depth, rng)
    distance = float(np.linalg.norm(np.subtract(scene.model.camera.position, scene.model.camera.target)))
    sensor = random_sensor(generator(split, seed, 2), distance)
    mirrors = np.zeros(max(scene.ids) + 1, np.float32)
    mirrors[list(scene.ids)] = [gloss(name) for name in scene.names]
    if isinstance(sensor, DepthNoise):
        return lambda rgb, depth, ids, focal_px, rng: sensor.apply(depth, rng)
    return lambda rgb, depth, ids, focal_px, rng: sensor.measure(View(rgb, depth, mirrors[ids], focal_px), rng)


def open_simulator(
    scene: BuiltScene, seed: int, width: int = 640, height: int = 480, noise: DepthNoise | None = None
) -> Simulator:
    """A simulator of a random world with its appearance."""
    return Simulator(
        scene, seed, width, height, noise, quality=casts_shadows(scene), decorate=room(scene, width, height)
    )
