"""Perception on a recorded clip, whose objects were labeled by hand."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wm_core.scene_graph import SceneGraph
from wm_perception.pipeline import PerceptionPipeline
from wm_perception.types import PerceptionConfig

Array = NDArray[np.float64]

MUG = np.array([-0.75, 1.77])
"""Where the mug stands in the leveled world of the clip [m], found by hand in the pictures."""
MUG_NEAR_M = 0.06
"""An object this near [m] is the mug: about its radius and the error of its center."""
TABLE = np.array([-0.44, 1.60, -0.82])
"""A point of the table's top."""


@dataclass(frozen=True)
class Region:
    """A box in the leveled world with real objects in it.

    Attributes:
        name: of its objects; low, high: corners (3,) [m]; most: how many objects it may hold.
    """

    name: str
    low: tuple[float, float, float]
    high: tuple[float, float, float]
    most: int


# By hand, from the pictures and a plan of all measured points (the worktop is at -0.68 m, the table at -0.82 m).
REGIONS = (
    Region("mug", (-0.83, 1.69, -0.84), (-0.67, 1.85, -0.70), 1),
    Region("magazines and papers", (-0.67, 1.38, -0.84), (-0.36, 1.90, -0.76), 4),
    Region("two magazines", (-0.36, 1.30, -0.84), (-0.08, 1.68, -0.76), 2),
    Region("wooden models on a tray", (-2.32, 1.35, -0.70), (-1.98, 2.10, -0.05), 4),
    Region("wooden models beside", (-2.60, 2.12, -0.70), (-2.18, 2.60, -0.05), 4),
    Region("models and a book in the corner", (-2.42, 2.55, -0.70), (-1.93, 3.00, -0.05), 4),
    Region("leaflets at the sink", (-1.92, 2.88, -0.70), (-1.50, 3.25, -0.10), 2),
    Region("leaflets and a bottle", (-1.22, 3.00, -0.70), (-0.98, 3.27, -0.10), 3),
    Region("a purple book", (-1.00, 2.80, -0.70), (-0.72, 3.27, -0.10), 2),
    Region("open books and a laptop", (-0.78, 3.05, -0.70), (-0.18, 3.33, -0.10), 4),
    Region("a chair at the left", (-1.42, 1.30, -1.60), (-0.90, 2.00, -0.70), 2),
    Region("a chair behind", (-0.77, 2.03, -1.60), (-0.24, 2.32, -0.70), 2),
    Region("a chair in front", (-0.55, 0.80, -1.60), (-0.10, 1.05, -0.70), 2),
)
"""Outside of these there is only table, worktop, cupboard, wall or floor: nothing that could be picked up."""
_TOO_LARGE = 1.5
"""An object more times as long as its region is a phantom."""
_MOVES_M_S = 0.1
"""Objects said to be faster move; larger values count less false motion."""


def run_real_clip(folder: Path, config: PerceptionConfig) -> dict[str, Any]:
    """Figures of a pipeline on the clip.

    Returns:
        mug_present: fraction of all frames with exactly one object at the mug, and always the same one;
        phantoms_per_frame: objects per frame that match no real object, see ``phantoms``;
        table_tilt_deg: between the table of the scene graph and a plane fitted to raw depth; None without a table;
        false_motion: share of the objects, over all frames, that are said to move, see ``false_motion``;
        frames, things_per_frame, ids_ever.
    """
    from wm_bringup.sources.layouts import open_folder

    recording = open_folder(folder).registered().leveled()
    pipeline = PerceptionPipeline(config)
    scenes, points = [], []
    for index in range(len(recording.frames)):
        frame = recording.frame(index)
        scenes.append(pipeline.process(frame).scene)
        points.append(table_points(frame))
    normal = fit_plane(np.concatenate(points))
    objects = [scene.select(~scene.is_static) for scene in scenes]
    return {
        "mug_present": mug_present(objects),
        "phantoms_per_frame": float(np.mean([len(phantoms(t)) for t in objects])),
        "table_tilt_deg": table_tilt_deg(scenes, normal),
        "false_motion": false_motion(objects),
        "frames": len(scenes),
        "things_per_frame": float(np.mean([len(t) for t in objects])),
        "ids_ever": len({int(i) for t in objects for i in t.ids}),
        "raw_table_to_level_deg": float(np.degrees(np.arccos(min(1.0, abs(float(normal[2])))))),
    }


def mug_present(objects: list[SceneGraph]) -> float:
    """Fraction of the frames in which exactly one object is at the mug's place, with the id that is there most."""
    near = [
        t.ids[np.linalg.norm(t.positions[:, :2] - MUG, axis=1) < MUG_NEAR_M].tolist() if len(t) else [] for t in objects
    ]
    counts = Counter(i for ids in near for i in ids)
    if not counts:
        return 0.0
    mug = counts.most_common(1)[0][0]
    return float(np.mean([ids == [mug] for ids in near]))


def false_motion(objects: list[SceneGraph]) -> float:
    """Fraction 0..1 of the objects of all frames perceived as faster than 0.1 m/s; only the camera moves."""
    speeds = [np.linalg.norm(t.linear_velocities, axis=1) for t in objects if len(t)]
    return float((np.concatenate(speeds) > _MOVES_M_S).mean()) if speeds else 0.0


def phantoms(objects: SceneGraph) -> list[int]:
    """Ids of the objects that match no real object.

    Their center is in no region, they are more than 1.5 times as long as the region, or the region is full.
    """
    left = [r.most for r in REGIONS]
    found = []
    for name, position, extents in zip(objects.ids, objects.positions, objects.extents, strict=True):
        for k, r in enumerate(REGIONS):
            low, high = np.array(r.low), np.array(r.high)
            inside = (position >= low).all() and (position <= high).all()
            if inside and left[k] and extents.max() <= _TOO_LARGE * (high - low).max():
                left[k] -= 1
                break
        else:
            found.append(int(name))
    return found


def table_points(frame: Any) -> Array:
    """(P, 3) raw depth measurements around the table's top, at most 2000, leveled world; back-projected by Open3D."""
    import open3d

    c = frame.camera
    cloud = open3d.geometry.PointCloud.create_from_depth_image(
        open3d.geometry.Image(np.ascontiguousarray(frame.depth_m, np.float32)),
        open3d.camera.PinholeCameraIntrinsic(c.width, c.height, c.fx, c.fy, c.cx, c.cy),
        np.linalg.inv(frame.world_T_camera),
        depth_scale=1.0,
        depth_trunc=100.0,
        stride=4,
    )
    world = np.asarray(cloud.points)
    near = (np.abs(world[:, 2] - TABLE[2]) < 0.08) & (np.linalg.norm(world[:, :2] - TABLE[:2], axis=1) < 0.6)
    chosen = world[near]
    return chosen[:: max(1, len(chosen) // 2000)]


def fit_plane(points: Array) -> Array:
    """Unit normal (3,), upwards, of the plane through most of the points (RANSAC by Open3D, inliers within 6 mm)."""
    import open3d

    cloud = open3d.geometry.PointCloud(open3d.utility.Vector3dVector(points))
    open3d.utility.random.seed(0)
    plane, _ = cloud.segment_plane(distance_threshold=0.006, ransac_n=3, num_iterations=2000)
    normal = np.asarray(plane[:3], np.float64)
    return normal / np.linalg.norm(normal) * np.sign(normal[2])


def table_tilt_deg(scenes: list[SceneGraph], normal: Array) -> float | None:
    """Median angle between the top of the perceived table and a plane; None where no frame has the table."""
    from wm_core.rotations import quaternion_to_matrix

    angles = []
    for scene in scenes:
        for row in np.flatnonzero(scene.is_static):
            top = scene.positions[row] + [0.0, 0.0, 0.5 * scene.extents[row, 2]]
            if abs(top[2] - TABLE[2]) < 0.04 and np.linalg.norm(top[:2] - TABLE[:2]) < 0.5:
                up = quaternion_to_matrix(scene.quaternions[row])[:, 2]
                angles.append(float(np.degrees(np.arccos(np.clip(abs(up @ normal), 0.0, 1.0)))))
    return float(np.median(angles)) if angles else None
