"""Draws the bodies of a scene in any state: color, depth, which object is at each pixel, how much of each is seen."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import mujoco
import numpy as np
from numpy.typing import NDArray

from wm_core.camera import Camera
from wm_core.rollout import POSITION, QUATERNION
from wm_core.rotations import quaternion_to_matrix
from wm_dynamics.mujoco.bodies import BodyDef, body_points
from wm_dynamics.mujoco.world import World
from wm_sim.rendering import Renderer, Shadow, cast_shadow
from wm_sim.scenes import BuiltScene

Array = NDArray[np.float64]

_MAX_RENDERERS = 6
"""Kept at once: each holds its textures and frame buffers, some tens of MB."""


@dataclass(frozen=True)
class _DrawnWorld:
    """A world with a renderer and its own copy of the model, so that drawing never changes the physics."""

    renderer: Renderer
    world: World
    model: mujoco.MjModel
    data: mujoco.MjData

    def set(self, states: Array, present: NDArray[np.bool_]) -> None:
        """Bodies at states (n, 13); those not present are out of sight."""
        self.world.set_positions(self.data, states, present)
        for index in np.flatnonzero(~self.world.movable):
            body = self.world.body_ids[index]
            self.model.body_pos[body] = states[index, POSITION] if present[index] else [0.0, 0.0, -100.0]
            self.model.body_quat[body] = np.roll(states[index, QUATERNION], 1)


class SceneDrawing:
    """The camera's view of a scene, of n bodies: those of the scene, then bodies that were created.

    Args:
        scene: whose ids, table and cameras these are.
        camera: intrinsics of all images.
        world_for: gives the compiled world of bodies of these shapes.
        quality: the renderer casts shadows itself (slow); else soft ones are drawn on the table.

    All methods take the bodies, their states (n, 13) in the map frame, present (n,), and world_T_camera (4, 4).
    """

    def __init__(
        self, scene: BuiltScene, camera: Camera, world_for: Callable[[Sequence[BodyDef]], World], quality: bool
    ) -> None:
        self._scene, self._camera, self._world_for, self._quality = scene, camera, world_for, quality
        self._drawn: dict[object, _DrawnWorld] = {}
        self._points: dict[object, Array] = {}

    def close(self) -> None:
        """Frees the rendering contexts."""
        for drawn in self._drawn.values():
            drawn.renderer.close()
        self._drawn.clear()

    @property
    def backend(self) -> str:
        """What renders: egl or osmesa; empty before the first image."""
        return next((drawn.renderer.backend for drawn in self._drawn.values()), "")

    def color_and_depth(
        self,
        bodies: Sequence[BodyDef],
        states: Array,
        present: NDArray[np.bool_],
        world_T_camera: Array,
        colors: Mapping[int, Array] | None = None,
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Color (H, W, 3) and exact depth (H, W) [m]; ``colors``: rgb (3,) 0..1 of repainted bodies by index."""
        drawn = self._drawn_world(bodies)
        original = drawn.model.geom_rgba.copy()
        for index, color in (colors or {}).items():
            drawn.model.geom_rgba[drawn.world.geom_ids[index], :3] = color
        drawn.set(states, present)
        rgb, depth = drawn.renderer.render(drawn.data, world_T_camera, self._shadows(bodies, states, present))
        drawn.model.geom_rgba[:] = original
        return rgb, depth

    def instances(
        self, bodies: Sequence[BodyDef], states: Array, present: NDArray[np.bool_], world_T_camera: Array
    ) -> NDArray[np.int32]:
        """True object id (H, W) at each pixel; 0: none (floor, wall, nothing)."""
        drawn = self._drawn_world(bodies)
        drawn.set(states, present)
        return self._ids(drawn.world)[drawn.renderer.segment(drawn.data, world_T_camera)]

    def visibility(
        self, bodies: Sequence[BodyDef], states: Array, present: NDArray[np.bool_], world_T_camera: Array
    ) -> dict[int, float]:
        """Fraction 0..1 of each present object's own image area that is seen, by true id (1: nothing in front of it).

        Counted in pixels inside the image; an object wholly outside it has 0.
        """
        ids = self._scene.ids
        seen = np.bincount(self.instances(bodies, states, present, world_T_camera).ravel(), minlength=max(ids) + 1)
        fractions = {}
        for index in np.flatnonzero(present):
            if self._scene.bodies[index].is_static:
                fractions[ids[index]] = 1.0
                continue
            alone = np.zeros_like(present)
            alone[index] = True
            area = int((self.instances(bodies, states, alone, world_T_camera) == ids[index]).sum())
            fractions[ids[index]] = min(1.0, float(seen[ids[index]]) / area) if area else 0.0
        return fractions

    def _ids(self, world: World) -> NDArray[np.int32]:
        """(geoms + 1,) true id of each geom of a model; the last entry (index -1) is nothing."""
        known, top = self._scene.ids, max(self._scene.ids)
        ids = np.zeros(world.model.ngeom + 1, dtype=np.int32)
        for index, geoms in enumerate(world.geom_ids):
            ids[geoms] = known[index] if index < len(known) else top + 1 + index - len(known)
        return ids

    def _drawn_world(self, bodies: Sequence[BodyDef]) -> _DrawnWorld:
        key = tuple(b.shape_key() for b in bodies)
        if key not in self._drawn:
            if len(self._drawn) >= _MAX_RENDERERS:  # the first is the scene as it is: it stays
                self._drawn.pop(list(self._drawn)[1]).renderer.close()
            world = self._world_for(bodies)
            model = copy.copy(world.model)
            self._drawn[key] = _DrawnWorld(Renderer(model, self._camera), world, model, mujoco.MjData(model))
        return self._drawn[key]

    def _shadows(self, bodies: Sequence[BodyDef], states: Array, present: NDArray[np.bool_]) -> list[Shadow]:
        """Soft shadows on the table, which is body 0."""
        if self._quality or not present[0]:
            return []
        size = 0.5 * np.array(self._scene.model.table.size[:2])
        shadows = []
        for index in np.flatnonzero(present[1:]) + 1:
            body = bodies[index]
            key = body.shape_key()
            if key not in self._points:
                self._points[key] = body_points(body)
            points = self._points[key] @ quaternion_to_matrix(states[index, QUATERNION]).T + states[index, POSITION]
            shadow = cast_shadow(points, self._scene.table_top_z, np.stack([-size, size]))
            if shadow is not None:
                shadows.append(shadow)
        return shadows
