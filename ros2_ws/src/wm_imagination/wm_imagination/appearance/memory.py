"""The appearance of objects and of the background, kept as surface samples so that it can be drawn elsewhere.

The memory is a set of surface samples (color, normal, spacing), not an average: the newest view replaces
what it sees again, and what it no longer sees (the back of an object, the table behind it) is kept from earlier
views. So drawing stays as crisp as the newest image, and one wall never becomes several shells of noise.
"""

from __future__ import annotations

import threading
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from wm_core.camera import Camera
from wm_core.geometry import invert_transform, pose_matrix
from wm_core.scene_graph import SceneGraph
from wm_imagination.appearance.background import BackgroundMemory
from wm_imagination.appearance.model import (
    Appearance,
    AppearanceConfig,
    AppearanceError,
    ObjectAppearance,
    ObservedFrame,
)
from wm_imagination.appearance.points import (
    OLD_VIEW_BIAS_M,
    Float32,
    SurfacePoints,
    move_points,
    newest_per_voxel,
    sample_object,
    turn_vectors,
)
from wm_imagination.appearance.views import (
    View,
    depth_tolerance,
    grow_masks,
    surface_geometry,
)


class AppearanceMemory:
    """Learns appearance from posed RGB-D frames with instance ids. Safe to use from several threads.

    Attributes:
        config: bounds and tolerances.
    """

    def __init__(self, config: AppearanceConfig | None = None) -> None:
        self.config = config or AppearanceConfig()
        self._lock = threading.Lock()
        self._clear()

    def _clear(self) -> None:
        self._frame: ObservedFrame | None = None
        self._background = BackgroundMemory(self.config)
        self._latest: dict[int, SurfacePoints] = {}  # by object id: samples of the latest view
        self._earlier: dict[int, SurfacePoints] = {}  # by object id: of earlier views, not seen in the latest
        self._reusable: dict[int, bool] = {}  # whether the latest view may be kept beside the next one
        self._unseen: dict[int, SurfacePoints] = {}
        self._primitive: dict[int, tuple[int, NDArray[np.float64]]] = {}
        self._parts: dict[int, int] = {}  # of how many parts the samples of the unseen side are
        self._seen_ns: dict[int, int] = {}
        self._snapshot: Appearance | None = None

    def reset(self) -> None:
        """Forget everything."""
        with self._lock:
            self._clear()

    @property
    def stamp_ns(self) -> int | None:
        """Stamp of the latest integrated frame [ns]; None when there is none."""
        frame = self._frame
        return None if frame is None else frame.stamp_ns

    def snapshot(self) -> Appearance:
        """The memory as it is now; later frames do not change it."""
        with self._lock:
            if self._snapshot is None:
                objects = {}
                for object_id, unseen in self._unseen.items():
                    shape, extents = self._primitive[object_id]
                    seen = [c[object_id] for c in (self._latest, self._earlier) if object_id in c and len(c[object_id])]
                    objects[object_id] = ObjectAppearance(
                        SurfacePoints.concatenate(seen), unseen, shape, extents.copy()
                    )
                self._snapshot = Appearance(self._frame, self._background.hidden, objects, self._background.visible)
            return self._snapshot

    def integrate(
        self,
        stamp_ns: int,
        color: NDArray[np.uint8],
        depth_m: NDArray[np.float32],
        camera: Camera,
        world_T_camera: NDArray[np.float64],
        instance_ids: NDArray[np.uint16],
        scene: SceneGraph,
    ) -> None:
        """Integrate one frame. Time going backwards (a bag that starts over) clears the memory first.

        Args:
            stamp_ns: of the image [ns].
            color: (H, W, 3) uint8 red, green, blue.
            depth_m: (H, W) [m]; 0, NaN or infinite where there is none.
            camera: intrinsics of both images, which are aligned.
            world_T_camera: (4, 4) pose of the optical frame in ``scene.frame_id``.
            instance_ids: (H, W) uint16; ids of ``scene``, 0 for the background.
            scene: the graph of the same stamp.

        Raises:
            AppearanceError: a size, type or pose is wrong; the memory is left as it was.
        """
        self._check(color, depth_m, camera, world_T_camera, instance_ids)
        depth = np.nan_to_num(np.asarray(depth_m, np.float32), nan=0.0, posinf=0.0, neginf=0.0)
        depth = np.where((depth > 0.0) & (depth <= self.config.max_depth_m), depth, np.float32(0.0))
        movable = [int(i) for i, static in zip(scene.ids, scene.is_static, strict=True) if not static and i < 65536]
        lookup = np.zeros(65536, np.uint16)
        lookup[movable] = movable
        ids = lookup[instance_ids]
        frame = ObservedFrame(
            int(stamp_ns),
            np.array(color, np.uint8),
            depth,
            camera,
            np.array(world_T_camera, np.float64),
            ids,
            grow_masks(color, ids),
            {int(i): pose_matrix(p, q) for i, p, q in zip(scene.ids, scene.positions, scene.quaternions, strict=True)},
            scene.frame_id,
        )
        with self._lock:
            if self._frame is not None and frame.stamp_ns < self._frame.stamp_ns:
                self._clear()
            self._integrate(frame, scene)
            self._snapshot = None

    @staticmethod
    def _check(
        color: NDArray[np.uint8],
        depth_m: NDArray[np.float32],
        camera: Camera,
        world_T_camera: NDArray[np.float64],
        instance_ids: NDArray[np.uint16],
    ) -> None:
        size = (camera.height, camera.width)
        if color.shape != (*size, 3) or color.dtype != np.uint8:
            raise AppearanceError(f"color: got {color.dtype} {color.shape}, expected uint8 {(*size, 3)} (camera size)")
        if np.shape(depth_m) != size:
            raise AppearanceError(f"depth: got shape {np.shape(depth_m)}, expected {size} (camera size)")
        if np.shape(instance_ids) != size or not np.issubdtype(instance_ids.dtype, np.unsignedinteger):
            raise AppearanceError(
                f"instance_ids: got {instance_ids.dtype} {np.shape(instance_ids)}, expected uint16 {size}"
            )
        pose = np.asarray(world_T_camera, np.float64)
        if pose.shape != (4, 4) or not np.isfinite(pose).all():
            raise AppearanceError("world_T_camera: expected a finite 4x4 matrix")
        if abs(float(np.linalg.det(pose[:3, :3])) - 1.0) > 1e-2:
            raise AppearanceError("world_T_camera: expected a rotation in its upper left 3x3")

    def _integrate(self, frame: ObservedFrame, scene: SceneGraph) -> None:
        points, normals, spacing, solid = surface_geometry(frame.depth_m, frame.camera)
        grown = frame.owner_ids
        near_object = cv2.dilate(grown, np.ones((3, 3), np.uint8)) > 0
        view = View(frame.camera, frame.world_T_camera, frame.depth_m, frame.instance_ids, near_object, grown)
        self._background.integrate(frame, view, scene, points, normals, spacing, solid)
        self._integrate_objects(frame, view, scene, points, normals, spacing)
        self._frame = frame

    def _integrate_objects(
        self,
        frame: ObservedFrame,
        view: View,
        scene: SceneGraph,
        points: Float32,
        normals: Float32,
        spacing: Float32,
    ) -> None:
        flat_ids = frame.instance_ids.ravel()
        labeled = np.flatnonzero(flat_ids)
        eroded = cv2.erode(frame.instance_ids, np.ones((3, 3), np.uint8)).ravel()
        grown = cv2.dilate(frame.instance_ids, np.ones((3, 3), np.uint8)).ravel()
        flat_depth = frame.depth_m.ravel()
        interior = (eroded == flat_ids) & (grown == flat_ids) & (flat_depth > 0.0)
        camera_T_world = invert_transform(frame.world_T_camera)
        for row, object_id in enumerate(scene.ids.tolist()):
            if scene.is_static[row]:
                continue
            self._seen_ns[object_id] = frame.stamp_ns
            world_T_object = frame.poses[object_id]
            camera_T_object = camera_T_world @ world_T_object
            self._update_primitive(object_id, scene, row)
            pixels = labeled[flat_ids[labeled] == object_id]
            core = pixels[interior[pixels]]
            # A thin object has hardly any pixels but edge pixels: those are used then.
            if len(core) < 0.3 * len(pixels):
                core = pixels[flat_depth[pixels] > 0.0]
            fresh = self._object_samples(core, frame, camera_T_object, scene.extents[row], points, normals, spacing)
            earlier_parts = [self._earlier.get(object_id, SurfacePoints.empty())]
            if len(fresh):
                if self._reusable.get(object_id, False):
                    earlier_parts.insert(0, self._latest[object_id].with_bias(OLD_VIEW_BIAS_M))
                self._latest[object_id] = fresh
                self._reusable[object_id] = self._pose_is_good(scene, row)
            elif object_id in self._latest:  # hidden now: its last view is kept
                last = self._latest[object_id]
                self._latest[object_id] = last[self._object_kept(last, view, camera_T_object, object_id)]
            earlier = SurfacePoints.concatenate(earlier_parts)
            earlier = earlier[self._object_kept(earlier, view, camera_T_object, object_id)]
            self._earlier[object_id] = newest_per_voxel(earlier, self.config.voxel_m, self.config.max_object_points)
            unseen = self._unseen[object_id]
            self._unseen[object_id] = unseen[self._not_contradicted(unseen, view, camera_T_object, object_id)]
        self._forget(frame.stamp_ns)

    def _pose_is_good(self, scene: SceneGraph, row: int) -> bool:
        """Whether the pose is certain and slow enough that samples of this view match those of another."""
        position_std = float(np.sqrt(max(np.trace(scene.pose_covariances[row, :3, :3]), 0.0)))
        return (
            position_std <= self.config.uncertain_position_m
            and float(np.linalg.norm(scene.linear_velocities[row])) <= self.config.fast_m_s
            and float(np.linalg.norm(scene.angular_velocities[row])) <= self.config.fast_rad_s
        )

    def _object_samples(
        self,
        pixels: NDArray[np.int64],
        frame: ObservedFrame,
        camera_T_object: NDArray[np.float64],
        extents: NDArray[np.float64],
        points: Float32,
        normals: Float32,
        spacing: Float32,
    ) -> SurfacePoints:
        object_T_camera = invert_transform(camera_T_object)
        local = move_points(object_T_camera, points.reshape(-1, 3)[pixels])
        # Flying pixels lie far outside the fitted extents.
        inside = (np.abs(local) <= 0.65 * extents.astype(np.float32) + np.float32(0.015)).all(axis=1)
        pixels, local = pixels[inside], local[inside]
        cloud = SurfacePoints(
            local,
            frame.color.reshape(-1, 3)[pixels],
            turn_vectors(object_T_camera, normals.reshape(-1, 3)[pixels]),
            # Surfaces seen edge-on stay sparse: the completion lies between.
            np.minimum(spacing.ravel()[pixels], 2.0 * points.reshape(-1, 3)[pixels, 2] / np.float32(frame.camera.fx)),
            np.zeros(len(pixels), np.float32),
        )
        if len(cloud) > self.config.max_object_points:
            step = int(np.ceil(len(cloud) / self.config.max_object_points))
            cloud = cloud[::step]
            cloud = replace(cloud, spacing=(cloud.spacing * np.sqrt(step)).astype(np.float32))
        return cloud

    @staticmethod
    def _object_kept(
        cloud: SurfacePoints,
        view: View,
        camera_T_object: NDArray[np.float64],
        object_id: int,
    ) -> NDArray[np.bool_]:
        """Which samples of an object the view neither shows again nor contradicts."""
        in_camera = move_points(camera_T_object, cloud.points)
        inside, pixel, z = view.look_up(in_camera)
        measured = view.depth.ravel()[pixel]
        own = view.ids.ravel()[pixel] == object_id
        tolerance = depth_tolerance(z)
        # A sample whose surface turns away from the camera is the back of a thin object, not the front seen
        # again.
        turned = turn_vectors(camera_T_object, cloud.normals)
        away = np.einsum("ij,ij->i", turned, in_camera) > 0.0
        hidden_by_itself = own & ((z > measured + tolerance) | (away & (z > measured - tolerance)))
        hidden_by_other = ~own & (z > measured + depth_tolerance(z))
        return ~inside | (measured <= 0.0) | hidden_by_itself | hidden_by_other

    @staticmethod
    def _not_contradicted(
        cloud: SurfacePoints, view: View, camera_T_object: NDArray[np.float64], object_id: int
    ) -> NDArray[np.bool_]:
        """Which samples of the primitive the view does not look through.

        The fit is rough, so a sample just outside the silhouette or a little before the seen surface stays.
        """
        inside, pixel, z = view.look_up(move_points(camera_T_object, cloud.points))
        measured = view.depth.ravel()[pixel]
        own = view.grown_ids.ravel()[pixel] == object_id
        tolerance = depth_tolerance(z)
        return ~inside | (measured <= 0.0) | own | (z > measured - 0.5 * tolerance)

    def _update_primitive(self, object_id: int, scene: SceneGraph, row: int) -> None:
        shape, extents, parts = int(scene.shapes[row]), scene.extents[row], scene.parts[row]
        known = self._primitive.get(object_id)
        if (
            known is not None
            and known[0] == shape
            and (np.abs(known[1] / extents - 1.0) < 0.15).all()
            and self._parts.get(object_id, 0) == len(parts)
        ):
            return
        self._primitive[object_id], self._parts[object_id] = (shape, extents.copy()), len(parts)
        self._unseen[object_id] = sample_object(shape, extents, scene.hulls[row], parts, self.config.completion_points)

    def _forget(self, stamp_ns: int) -> None:
        limit = stamp_ns - int(self.config.forget_after_s * 1e9)
        by_age = sorted(self._seen_ns, key=lambda i: -self._seen_ns[i])
        for rank, object_id in enumerate(by_age):
            if rank >= self.config.max_objects or self._seen_ns[object_id] < limit:
                self._background.forget(object_id)
                for table in (
                    self._seen_ns,
                    self._latest,
                    self._earlier,
                    self._reusable,
                    self._unseen,
                    self._primitive,
                    self._parts,
                ):
                    table.pop(object_id, None)
