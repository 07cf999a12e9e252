"""Renders MuJoCo worlds off screen: color, depth and instance masks, on a GPU or in software, without a display."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

# Mesa's software rasterizer gains nothing from a second thread at this image size, and the other nodes need the cores.
os.environ.setdefault("LP_NUM_THREADS", "1")

import mujoco
import numpy as np
from numpy.typing import NDArray

from wm_core.camera import Camera

log = logging.getLogger(__name__)

ZNEAR_M = 0.05
"""Distance of the near plane [m]. A larger value cuts off close objects."""
ZFAR_M = 12.0
"""Distance of the far plane [m], beyond which depth is 0. It exceeds the diagonal of the floor, 8.5 m."""
SHADOW_MAP_PIXELS = 1024
"""Width and height of the shadow map [pixels]. A larger map gives sharper shadow edges and takes more time."""


class RenderingError(RuntimeError):
    """This machine cannot render; the message says what was tried and what to install."""


def _gl_context(width: int, height: int) -> tuple[Any, str]:
    """An OpenGL context of this size [pixels] and its backend, "egl" or "osmesa"; MUJOCO_GL gives the first to try."""
    failures = []
    wanted = os.environ.get("MUJOCO_GL", "").lower()
    backends = [wanted] if wanted in ("egl", "osmesa") else ["egl", "osmesa"]
    backends += [b for b in ("egl", "osmesa") if b not in backends]
    for backend in backends:
        platform = os.environ.get("PYOPENGL_PLATFORM")
        try:
            # mujoco.gl_context has chosen one backend for good at the import of mujoco, so it is not used here.
            if backend == "egl":
                from mujoco.egl import GLContext
            else:
                from mujoco.osmesa import GLContext
            context = GLContext(width, height)
            context.make_current()
        except Exception as error:  # PyOpenGL raises ImportError, AttributeError, its own errors and more
            failures.append(f"{backend}: {type(error).__name__}: {error}")
            if platform is None:
                os.environ.pop("PYOPENGL_PLATFORM", None)
            continue
        if failures:
            log.warning(
                "rendering with %s, as %s; EGL is faster (Debian: libegl1 libgl1-mesa-dri)",
                backend,
                failures[0],
            )
        return context, backend
    raise RenderingError(
        f"cannot render without a display ({'; '.join(failures)}): "
        "install libegl1 and libgl1-mesa-dri, or libosmesa6 (sudo apt install libegl1 libgl1-mesa-dri)"
    )


def _fade(rng: np.random.Generator, size: int, cells: int) -> NDArray[np.float64]:
    """Smooth periodic noise (size, size) in -1..1: a random grid of ``cells`` per side, interpolated by smoothstep."""
    coarse = rng.uniform(-1.0, 1.0, (cells, cells))
    at = np.arange(size) * cells / size
    low, weight = np.floor(at).astype(int), at % 1.0
    weight = weight * weight * (3.0 - 2.0 * weight)
    high = (low + 1) % cells
    rows = coarse[low] * (1.0 - weight[:, None]) + coarse[high] * weight[:, None]
    return rows[:, low] * (1.0 - weight) + rows[:, high] * weight


def _wood(rgb: tuple[float, float, float], seed: int, planks: int = 4, size: int = 512) -> NDArray[np.uint8]:
    """Texture (size, size, 3) of wooden planks with grain along the rows, of this mean rgb 0..1."""
    rng = np.random.default_rng(seed)
    image = np.zeros((size, size))
    width = size // planks
    for k in range(planks):
        rows = slice(k * width, (k + 1) * width)
        grain = np.repeat(rng.normal(0.0, 1.0, (width, 1)), size, axis=1)
        grain = np.roll(grain, 1, 0) * 0.25 + grain * 0.5 + np.roll(grain, -1, 0) * 0.25
        streaks = _fade(rng, size, 8)[:width] + 0.6 * _fade(rng, size, 32)[:width]
        image[rows] = 0.035 * grain + 0.045 * streaks + rng.uniform(-0.06, 0.06)
        image[k * width : k * width + 2] -= 0.16
    texture = np.asarray(rgb) * (1.0 + image[..., None] * 1.4)
    return np.clip(texture * 255.0, 0, 255).astype(np.uint8)


def _speckled(rgb: tuple[float, float, float], seed: int, amount: float, size: int = 256) -> NDArray[np.uint8]:
    """Texture (size, size, 3) of this mean rgb 0..1 with noise; ``amount`` scales the noise as a share of the color."""
    rng = np.random.default_rng(seed)
    noise = 0.5 * _fade(rng, size, 16) + 0.5 * _fade(rng, size, 64) + 0.4 * rng.normal(size=(size, size))
    return np.clip(np.asarray(rgb) * (1.0 + amount * noise[..., None]) * 255.0, 0, 255).astype(np.uint8)


def _tiles(size: int = 512, count: int = 4) -> NDArray[np.uint8]:
    """Texture (size, size, 3) of ``count`` by ``count`` gray floor tiles with joints 4 pixels wide."""
    rng = np.random.default_rng(3)
    cell = size // count
    image = np.repeat(np.repeat(rng.uniform(0.42, 0.50, (count, count)), cell, 0), cell, 1)
    image = image * (1.0 + 0.06 * _fade(rng, size, 16) + 0.04 * _fade(rng, size, 64))
    at = np.arange(size) % cell
    joint = (at < 4)[:, None] | (at < 4)[None, :]
    image = np.where(joint, 0.28, image)
    return np.clip(image[..., None] * np.array([1.0, 0.98, 0.94]) * 255.0, 0, 255).astype(np.uint8)


def _pattern(name: str, size: int = 64) -> NDArray[np.uint8]:
    """Gray texture (size, size, 3) of a pattern, by which the renderer multiplies a geom's color."""
    at = np.arange(size)
    if name == "checker":
        value = np.where(((at[:, None] // 16) + (at[None, :] // 16)) % 2 == 0, 1.0, 0.62)
    elif name == "stripes":
        value = np.where((at // 8) % 2 == 0, 1.0, 0.60)[:, None] * np.ones((1, size))
    else:
        value = 1.0 + 0.10 * np.random.default_rng(9).normal(size=(size, size))
    return np.clip(np.repeat(value[..., None], 3, axis=2) * 240.0, 0, 255).astype(np.uint8)


_TABLES = {
    "wood": (0.60, 0.44, 0.29),
    "light": (0.74, 0.64, 0.50),
    "dark": (0.30, 0.21, 0.15),
    "white": (0.80, 0.79, 0.76),
}
"""Mean rgb 0..1 of the table's surfaces."""

LIGHT_DIRECTION = np.array([0.30, -0.42, -0.86])
"""Direction of the only light that casts shadows, in the map frame; approximately of unit length."""


def decorator(width: int, height: int, walls: bool, quality: bool = False) -> Callable[[mujoco.MjSpec], None]:
    """A function that adds the textures, walls and lights of a room to a world's specification, for ``World``.

    Args:
        width, height: image size [pixels].
        walls: add walls behind the table and at both sides.
        quality: render shadow maps and smooth edges, for still images. It takes three times as long in software.
    """

    def decorate(spec: mujoco.MjSpec) -> None:
        visual = spec.visual
        visual.global_.offwidth, visual.global_.offheight = width, height
        visual.quality.offsamples = 4 if quality else 0
        visual.quality.shadowsize = SHADOW_MAP_PIXELS
        visual.headlight.ambient = [0.36, 0.36, 0.37]
        visual.headlight.diffuse = [0.22, 0.22, 0.22]
        visual.headlight.specular = [0.05, 0.05, 0.05]
        # Fixed values: near and far planes and the shadow region must not depend on the objects in the world.
        spec.stat.extent, spec.stat.center = 1.0, [0.0, 0.0, 0.75]
        visual.map.znear, visual.map.zfar = ZNEAR_M, ZFAR_M
        visual.map.shadowclip = 0.9
        plane = mujoco.mjtTexture.mjTEXTURE_2D
        for look, rgb in _TABLES.items():
            grain = _speckled(rgb, 5, 0.03) if look == "white" else _wood(rgb, 7)
            _material(spec, f"table_{look}", grain, plane, [1.6, 2.0], specular=0.12)
        _material(spec, "floor", _tiles(), plane, [0.5, 0.5], uniform=True)
        # Walls have no texture, because texture lookups take most of the time of a software rasterizer.
        spec.add_material(name="wall", rgba=[0.80, 0.79, 0.75, 1.0], specular=0.05)
        spec.add_material(name="board", rgba=[0.32, 0.42, 0.48, 1.0], specular=0.05)
        for name in ("speckle", "stripes", "checker"):
            _material(spec, f"pattern_{name}", _pattern(name), mujoco.mjtTexture.mjTEXTURE_CUBE, [1.0, 1.0])
        floor = spec.geom("floor")
        floor.size, floor.material = [3.0, 3.0, 0.1], "floor"
        spec.worldbody.add_light(
            type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL,
            pos=[-0.6, 0.9, 2.6],
            dir=LIGHT_DIRECTION,
            diffuse=[0.62, 0.61, 0.58],
            specular=[0.25, 0.25, 0.25],
            ambient=[0.0, 0.0, 0.0],
            castshadow=quality,
        )
        if walls:
            wall = [0.05, 3.0, 1.4]
            box = mujoco.mjtGeom.mjGEOM_BOX
            free = {"contype": 0, "conaffinity": 0}
            spec.worldbody.add_geom(name="wall_back", type=box, size=wall, pos=[1.9, 0.0, 1.4], material="wall", **free)
            for side in (-1, 1):
                spec.worldbody.add_geom(
                    name=f"wall_{side}",
                    type=box,
                    size=[2.2, 0.05, 1.4],
                    pos=[0.0, side * 2.3, 1.4],
                    material="wall",
                    **free,
                )
            spec.worldbody.add_geom(
                name="board",
                type=box,
                size=[0.01, 0.55, 0.35],
                pos=[1.84, 0.55, 1.15],
                material="board",
                **free,
            )
            spec.worldbody.add_geom(
                name="skirting",
                type=box,
                size=[0.01, 3.0, 0.05],
                pos=[1.84, 0.0, 0.05],
                rgba=[0.35, 0.33, 0.31, 1.0],
                **free,
            )

    return decorate


def _material(
    spec: mujoco.MjSpec,
    name: str,
    image: NDArray[np.uint8],
    kind: Any,
    repeat: list[float],
    *,
    uniform: bool = False,
    specular: float = 0.05,
) -> None:
    """Add a material with a texture (H, W, 3); ``kind`` is an mjtTexture, and a cube has the image on all six sides."""
    texture = spec.add_texture(name=f"{name}_texture", type=kind)
    pixels = np.concatenate([image] * 6) if kind == mujoco.mjtTexture.mjTEXTURE_CUBE else image
    texture.height, texture.width, texture.nchannel = pixels.shape[0], pixels.shape[1], 3
    texture.data = pixels.tobytes()
    material = spec.add_material(name=name, texrepeat=repeat, texuniform=uniform, specular=specular, shininess=0.3)
    textures = list(material.textures)
    textures[int(mujoco.mjtTextureRole.mjTEXROLE_RGB)] = f"{name}_texture"
    material.textures = textures


@dataclass(frozen=True)
class Shadow:
    """A soft elliptic shadow on a level surface.

    In software a shadow map takes more time than the rest of the image; an ellipse takes almost none.

    Attributes:
        position: (3,) center in the map frame [m].
        half_axes: (2,) half lengths of the axes [m].
        rotation: (3, 3) axes in the map frame, as columns; the third is the surface's normal.
        darkness: opacity 0..1 of each of the two ellipses that are drawn.
    """

    position: NDArray[np.float64]
    half_axes: NDArray[np.float64]
    rotation: NDArray[np.float64]
    darkness: float


def cast_shadow(points: NDArray[np.float64], surface_z: float, bounds: NDArray[np.float64]) -> Shadow | None:
    """The shadow of a body on a level surface.

    The ellipse has the principal axes of the projected points and their largest extents along these. The shadow is None
    where the body is more than 3 cm below or 60 cm above the surface, or where the ellipse leaves the surface.

    Args:
        points: (P, 3) points of the body in the map frame [m].
        surface_z: height of the surface [m].
        bounds: (2, 2) lower and upper corner of the surface, x and y [m].
    """
    height = points[:, 2] - surface_z
    gap = float(height.min())
    if gap < -0.03 or gap > 0.6:
        return None
    fallen = points[:, :2] + height[:, None] * (LIGHT_DIRECTION[:2] / -LIGHT_DIRECTION[2])
    center = 0.5 * (fallen.min(axis=0) + fallen.max(axis=0))
    values, axes = np.linalg.eigh(np.cov((fallen - fallen.mean(axis=0)).T))
    along = (fallen - center) @ axes
    half = np.abs(along).max(axis=0) * 1.02
    reach = np.abs(axes) @ half * 0.8
    if ((center - reach < bounds[0]) | (center + reach > bounds[1])).any() or values.min() <= 0.0:
        return None
    rotation = np.eye(3)
    rotation[:2, :2] = axes if np.linalg.det(axes) > 0.0 else axes * [1.0, -1.0]
    darkness = 0.20 * float(np.exp(-gap / 0.08))
    return Shadow(np.array([*center, surface_z + 2e-4]), half, rotation, darkness) if darkness > 0.01 else None


class Renderer:
    """Renders one model with one camera from any pose. Close it after use, or use it as a context manager.

    Args:
        model: the model, compiled with ``decorator`` for at least this image size.
        camera: intrinsics with square pixels and the principal point at the image center.

    Attributes:
        model, camera: as given.
        backend: "egl" or "osmesa".

    Raises:
        RenderingError: this machine has no OpenGL.
        ValueError: the intrinsics do not fit OpenGL's symmetric frustum.
    """

    def __init__(self, model: mujoco.MjModel, camera: Camera) -> None:
        centered = (
            abs(camera.cx - 0.5 * (camera.width - 1)) < 1e-6 and abs(camera.cy - 0.5 * (camera.height - 1)) < 1e-6
        )
        if not centered or abs(camera.fx - camera.fy) > 1e-6 * camera.fx:
            raise ValueError(f"camera: got {camera}, expected fx = fy and the principal point at the center")
        self.model, self.camera = model, camera
        self._context, self.backend = _gl_context(camera.width, camera.height)
        self._mjr = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100.value)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, self._mjr)
        # With reversed depth float32 resolves less than a millimeter at distances of meters.
        self._mjr.readDepthMap = mujoco.mjtDepthMap.mjDEPTH_ZEROFAR
        self._scene = mujoco.MjvScene(model, maxgeom=model.ngeom + 96)
        self._option = mujoco.MjvOption()
        self._view = mujoco.MjvCamera()
        self._rect = mujoco.MjrRect(0, 0, camera.width, camera.height)
        self._rgb = np.empty((camera.height, camera.width, 3), dtype=np.uint8)
        self._depth = np.empty((camera.height, camera.width), dtype=np.float32)

    def close(self) -> None:
        """Free the OpenGL context."""
        if self._context is not None:
            self._context.make_current()
            self._mjr.free()
            self._context.free()
            self._context = None

    def __enter__(self) -> Renderer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _update(self, data: mujoco.MjData, world_T_camera: NDArray[np.float64]) -> None:
        """Compute the poses of ``data.qpos``, and give the scene the camera's pose (4, 4) and frustum."""
        mujoco.mj_kinematics(self.model, data)
        mujoco.mj_comPos(self.model, data)
        mujoco.mj_camlight(self.model, data)
        mujoco.mjv_updateScene(
            self.model, data, self._option, None, self._view, mujoco.mjtCatBit.mjCAT_ALL.value, self._scene
        )
        half = ZNEAR_M * 0.5 * self.camera.height / self.camera.fy
        wide = ZNEAR_M * 0.5 * self.camera.width / self.camera.fx
        for eye in self._scene.camera:
            eye.pos = world_T_camera[:3, 3]
            eye.forward, eye.up = world_T_camera[:3, 2], -world_T_camera[:3, 1]
            eye.frustum_center, eye.frustum_bottom, eye.frustum_top = 0.0, -half, half
            eye.frustum_width = wide
            eye.frustum_near, eye.frustum_far = ZNEAR_M, ZFAR_M
        # The headlight moves with the camera.
        for k in range(self._scene.nlight):
            if self._scene.lights[k].headlight:
                self._scene.lights[k].pos = world_T_camera[:3, 3]
                self._scene.lights[k].dir = world_T_camera[:3, 2]

    def _lay(self, shadow: Shadow) -> None:
        """Add two flat, black, transparent ellipses of different size, which look like a shadow with a soft edge."""
        for scale in (1.0, 0.72):
            if self._scene.ngeom >= self._scene.maxgeom:
                return
            mujoco.mjv_initGeom(
                self._scene.geoms[self._scene.ngeom],
                mujoco.mjtGeom.mjGEOM_ELLIPSOID,
                np.array([scale * shadow.half_axes[0], scale * shadow.half_axes[1], 1e-4]),
                shadow.position,
                shadow.rotation.ravel(),
                np.array([0.0, 0.0, 0.0, shadow.darkness], dtype=np.float32),
            )
            self._scene.ngeom += 1

    def render(
        self, data: mujoco.MjData, world_T_camera: NDArray[np.float64], shadows: Sequence[Shadow] = ()
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Color (H, W, 3) and depth (H, W) [m] of the model at ``data.qpos``.

        Depth is measured along the optical axis; it is 0 beyond ``ZFAR_M``.

        Args:
            data: its positions are used.
            world_T_camera: (4, 4) pose of the optical frame in the map frame [m].
            shadows: shadows to draw, each 0.2 mm above its surface.
        """
        self._context.make_current()
        self._update(data, world_T_camera)
        for shadow in shadows:
            self._lay(shadow)
        mujoco.mjr_render(self._rect, self._scene, self._mjr)
        mujoco.mjr_readPixels(self._rgb, self._depth, self._rect, self._mjr)
        # Reversed z buffer value b of a distance z: b = (f n / z - n) / (f - n).
        reverse = self._depth[::-1]
        depth = np.float32(ZFAR_M * ZNEAR_M) / (reverse * np.float32(ZFAR_M - ZNEAR_M) + np.float32(ZNEAR_M))
        depth[reverse <= 0.0] = 0.0
        return np.ascontiguousarray(self._rgb[::-1]), depth

    def segment(self, data: mujoco.MjData, world_T_camera: NDArray[np.float64]) -> NDArray[np.int32]:
        """Geom index (H, W) of the model at each pixel, -1: none. It renders the scene once more; see ``render``."""
        self._context.make_current()
        self._update(data, world_T_camera)
        flags = (mujoco.mjtRndFlag.mjRND_SEGMENT, mujoco.mjtRndFlag.mjRND_IDCOLOR)
        for flag in flags:
            self._scene.flags[flag] = True
        samples = mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value
        mujoco.mjr_setBuffer(samples, self._mjr)
        mujoco.mjr_render(self._rect, self._scene, self._mjr)
        mujoco.mjr_readPixels(self._rgb, None, self._rect, self._mjr)
        for flag in flags:
            self._scene.flags[flag] = False
        code = self._rgb[::-1].astype(np.int32)
        segment = code[..., 0] + (code[..., 1] << 8) + (code[..., 2] << 16)
        table = np.full(self._scene.ngeom + 2, -1, dtype=np.int32)
        for k in range(self._scene.ngeom):
            geom = self._scene.geoms[k]
            if geom.objtype == mujoco.mjtObj.mjOBJ_GEOM and geom.segid >= 0:
                table[geom.segid + 1] = geom.objid
        return table[np.where(segment < len(table), segment, 0)]
