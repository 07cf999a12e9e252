"""What has been seen of each object and of the background, as it is handed to the renderer."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from wm_core.camera import Camera
from wm_imagination.appearance.points import Float32, SurfacePoints, complete
from wm_imagination.appearance.views import VisibleSurface


class AppearanceError(ValueError):
    """A frame that cannot be integrated; the message names the field, what was found and what was expected."""


@dataclass(frozen=True)
class ObservedFrame:
    """The latest image, kept whole: the base layer of imagined images from its own viewpoint.

    Attributes:
        stamp_ns: of the image [ns].
        color: (H, W, 3) uint8 red, green, blue.
        depth_m: (H, W) float32 [m], 0 where there is none.
        camera, world_T_camera: intrinsics and pose of the optical frame.
        instance_ids: (H, W) uint16, 0 for everything that does not move (supports included).
        owner_ids: (H, W) uint16, the same with the pixels around that may hold the object's color (``grow_masks``).
        poses: object id -> (4, 4) ``world_T_object`` at this stamp.
        frame_id: of the scene graph, in which all poses are.
    """

    stamp_ns: int
    color: NDArray[np.uint8]
    depth_m: Float32
    camera: Camera
    world_T_camera: NDArray[np.float64]
    instance_ids: NDArray[np.uint16]
    owner_ids: NDArray[np.uint16]
    poses: dict[int, NDArray[np.float64]]
    frame_id: str = ""


@dataclass(frozen=True)
class ObjectAppearance:
    """One object's appearance, in its own frame, and the primitive that stands for its unseen side.

    Attributes:
        seen: samples that were observed.
        unseen: samples of the fitted primitive that no view has contradicted, without color of their own.
        shape, extents: of the primitive; extents (3,) [m].
    """

    seen: SurfacePoints
    unseen: SurfacePoints
    shape: int
    extents: NDArray[np.float64]


@dataclass(frozen=True)
class Appearance:
    """An unchanging view of the memory, safe to draw from while the memory goes on learning.

    Attributes:
        frame: the latest image, or None when nothing was seen yet.
        hidden: background samples in the world frame that it does not show (covered, or out of view).
        objects: object id -> what is known of its appearance.
    """

    frame: ObservedFrame | None
    hidden: SurfacePoints
    objects: dict[int, ObjectAppearance]
    _surface: VisibleSurface | None = field(default=None, repr=False)
    _completed: dict[int, SurfacePoints] = field(default_factory=dict, repr=False)

    @property
    def visible(self) -> SurfacePoints:
        """Background samples in the world frame that the latest image shows."""
        return self._surface.in_world() if self._surface is not None else SurfacePoints.empty()

    def completed(self, object_id: int, fallback_color: NDArray[np.float64]) -> SurfacePoints | None:
        """``complete`` of one object, computed once; None when the object was never seen."""
        if object_id not in self.objects:
            return None
        if object_id not in self._completed:
            found = self.objects[object_id]
            self._completed[object_id] = complete(found.seen, found.unseen, fallback_color)
        return self._completed[object_id]


@dataclass(frozen=True)
class AppearanceConfig:
    """Bounds and tolerances of the memory. Larger bounds keep more detail and cost memory and time in every frame.

    Attributes:
        voxel_m: finest spacing of what is kept from earlier views [m].
        max_background_points: bound on background samples kept from earlier views; the oldest go first.
        max_object_points: bound on samples per object.
        max_objects: bound on remembered objects; those longest unseen go first.
        forget_after_s: an object that is absent from the scene graph for so long is forgotten [s].
        max_depth_m: farther measurements are not kept [m].
        uncertain_position_m, fast_m_s, fast_rad_s: an object whose position is less certain or that moves faster is
            drawn from its newest view alone, because samples of several views would not match [m, m/s, rad/s].
        completion_points: samples of the unseen side per object.
    """

    voxel_m: float = 0.003
    max_background_points: int = 300_000
    max_object_points: int = 12_000
    max_objects: int = 256
    forget_after_s: float = 10.0
    max_depth_m: float = 8.0
    uncertain_position_m: float = 0.03
    fast_m_s: float = 1.0
    fast_rad_s: float = 6.0
    completion_points: int = 3000
