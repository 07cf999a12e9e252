"""What Open3D, transforms3d, onnx and safetensors cost to import, and how they compare with wm's own code.

``python -m benchmarks.libraries [--recording FOLDER]``: the figures of docs/dependencies.md. Times are processor time
of all threads, the least of several runs; both sides of a row run in turns in one process. Needs
``make setup WITH=training`` (Open3D).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.spatial.transform import Rotation

from benchmarks.perception.real import MUG, MUG_NEAR_M, TABLE
from wm_bringup.sources.layouts import open_folder
from wm_core import geometry, rotations
from wm_core.scene_graph import Shape
from wm_imagination.appearance.points import SurfacePoints, newest_per_voxel
from wm_perception.lifting.cloud import make_cloud
from wm_perception.lifting.planes import find_planes
from wm_perception.shapes import fitting
from wm_perception.shapes.surfaces import align, surface_samples
from wm_perception.types import PerceptionConfig

ROOT = Path(__file__).resolve().parent.parent
RUNS = 7
"""Of which the least time counts; more runs disturb it less."""
VOXEL_M = 0.003
"""Spacing of the appearance's memory, and here of Open3D's grid."""
IMPORTS = ("safetensors.numpy", "onnx", "transforms3d", "open3d", "scipy.spatial.transform")
_IMPORT = """
import importlib, sys, time
import numpy

def resident_mib():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4 / 1024

size, begin = resident_mib(), time.process_time()
importlib.import_module(sys.argv[1])
print(1e3 * (time.process_time() - begin), resident_mib() - size)
"""


def import_cost(module: str) -> tuple[float, float]:
    """Processor time [ms] and resident memory [MiB] of an import in a process of its own that has NumPy."""
    command = [sys.executable, "-c", _IMPORT, module]
    found = [subprocess.run(command, check=True, capture_output=True, text=True).stdout for _ in range(3)]
    least = min(tuple(float(v) for v in text.split()) for text in found)
    return least[0], least[1]


def compare(ours: Callable[[], Any], theirs: Callable[[], Any], repeat: int = 1) -> tuple[float, float, Any, Any]:
    """Least processor time [ms] of each over ``RUNS`` runs in turns, and the result of each."""
    best = [np.inf, np.inf]
    results: list[Any] = [None, None]
    for _ in range(RUNS):
        for side, function in enumerate((ours, theirs)):
            begin = time.process_time()
            for _ in range(repeat):
                results[side] = function()
            best[side] = min(best[side], 1e3 * (time.process_time() - begin) / repeat)
    return best[0], best[1], results[0], results[1]


def angles_deg(a: Any, b: Any) -> Any:
    """Between unit vectors (..., 3), up to their sign."""
    return np.degrees(np.arccos(np.clip(np.abs(np.sum(a * b, axis=-1)), 0.0, 1.0)))


def geometry_rows(folder: Path) -> list[tuple[str, str, float, float, str]]:
    """Point-cloud geometry on the first frame of a recording that shows its mug well.

    Returns:
        Job, Open3D's function, processor times [ms] of ours and of theirs, how the results differ.
    """
    import open3d

    def o3d_cloud(points: Any) -> Any:
        return open3d.geometry.PointCloud(open3d.utility.Vector3dVector(np.asarray(points, np.float64)))

    recording = open_folder(folder).registered().leveled()
    for index in range(len(recording.frames)):
        frame = recording.frame(index)
        cloud = make_cloud(frame, 2, 4.0)
        points = cloud.points[np.isfinite(cloud.points).all(-1)]
        height = points[:, 2] - TABLE[2]
        mug = points[(np.linalg.norm(points[:, :2] - MUG, axis=1) < MUG_NEAR_M) & (height > 0.01) & (height < 0.12)]
        if len(mug) > 400:
            break
    c, rows = frame.camera, []
    intrinsics = open3d.camera.PinholeCameraIntrinsic(c.width, c.height, c.fx, c.fy, c.cx, c.cy)
    depth, camera_T_world = np.ascontiguousarray(frame.depth_m, np.float32), np.linalg.inv(frame.world_T_camera)

    def their_cloud() -> Any:
        made = open3d.geometry.PointCloud.create_from_depth_image(
            open3d.geometry.Image(depth), intrinsics, camera_T_world, 1.0, 4.0, 2
        )
        made.estimate_normals(open3d.geometry.KDTreeSearchParamKNN(25))
        return made

    a, b, _, made = compare(lambda: make_cloud(frame, 2, 4.0), their_cloud)
    theirs, ours = np.asarray(made.normals), cloud.normals[np.isfinite(cloud.points).all(-1)]
    words = f"{len(points)} and {len(theirs)} points"
    if len(ours) == len(theirs):
        words += f", normals {np.nanmedian(angles_deg(ours, theirs)):.1f} deg apart (median)"
    rows.append(("cloud with normals", "estimate_normals", a, b, words))

    def their_plane() -> Any:
        open3d.utility.random.seed(0)
        plane, inliers = o3d_cloud(points[::4]).segment_plane(0.01, 3, 1000)
        return np.asarray(plane[:3]), len(inliers) / len(points[::4])

    a, b, planes, (normal, share) = compare(lambda: find_planes(cloud, PerceptionConfig()), their_plane)
    tilt = np.degrees(np.arccos(min(1.0, abs(float(normal[2])))))
    words = f"{len(planes)} level patches; one plane {tilt:.0f} deg off level, {100 * share:.0f} % of the points"
    rows.append(("horizontal supports", "segment_plane", a, b, words))

    flat, none = np.zeros_like(points), np.zeros(len(points), np.float32)
    seen = SurfacePoints(points, np.zeros(points.shape, np.uint8), flat, np.full_like(none, VOXEL_M), none)
    a, b, thin, down = compare(
        lambda: newest_per_voxel(seen, VOXEL_M, len(points)), lambda: o3d_cloud(points).voxel_down_sample(VOXEL_M)
    )
    words = f"{len(thin)} newest samples, {len(down.points)} means"
    rows.append(("one sample a voxel", "voxel_down_sample", a, b, words))

    mug = mug[:: max(1, len(mug) // 450)].astype(np.float64)
    a, b, kept, other = compare(
        lambda: fitting._without_stragglers(mug, 0), lambda: o3d_cloud(mug).remove_statistical_outlier(5, 2.0)[1]
    )
    words = f"{len(kept)} and {len(other)} of {len(mug)} points kept"
    rows.append(("stragglers of the mug", "remove_statistical_outlier", a, b, words))

    rng = np.random.default_rng(0)
    extents, hull = np.array([0.12, 0.08, 0.06]), np.zeros((0, 3))
    sample, outward = surface_samples(Shape.BOX, extents, hull, 400)
    visible = sample[(outward @ [0.5, -0.6, 0.6]) > 0.2][:150]
    true = rotations.about_z(0.1)
    measured = visible @ rotations.matrix(true).T + [0.01, -0.008, 0.0] + rng.normal(0.0, 0.002, visible.shape)
    model = o3d_cloud(sample)
    model.normals = open3d.utility.Vector3dVector(outward)
    kind = open3d.pipelines.registration

    def their_pose() -> Any:
        found = kind.registration_icp(
            o3d_cloud(measured), model, 0.05, np.eye(4), kind.TransformationEstimationPointToPlane()
        ).transformation
        return np.linalg.inv(found)[:3, 3]

    a, b, ours, theirs = compare(
        lambda: align(Shape.BOX, extents, measured, np.zeros(3), np.array([0.0, 0.0, 0.0, 1.0])).position, their_pose
    )
    error = [1e3 * float(np.linalg.norm(p - [0.01, -0.008, 0.0])) for p in (ours, theirs)]
    rows.append(("pose of a box", "registration_icp", a, b, f"{error[0]:.1f} and {error[1]:.1f} mm from the true one"))
    return rows


def rotation_rows() -> list[tuple[str, str, float, float, str]]:
    """Rotations one at a time: function, transforms3d's, times [ms], largest difference."""
    from transforms3d import affines, axangles, quaternions

    rng = np.random.default_rng(0)
    q, other = (v / np.linalg.norm(v) for v in rng.normal(size=(2, 4)))
    q *= np.sign(q[3])
    m = rotations.matrix(q)

    def xyzw(wxyz: Any) -> Any:
        return np.asarray(wxyz)[[1, 2, 3, 0]]

    def wxyz(quaternion: Any) -> Any:
        return quaternion[[3, 0, 1, 2]]

    def their_vector() -> Any:
        axis, angle = quaternions.quat2axangle(wxyz(q))
        return axis * angle

    cases: list[tuple[str, str, Callable[[], Any], Callable[[], Any]]] = [
        ("matrix", "quat2mat", lambda: rotations.matrix(q), lambda: quaternions.quat2mat(wxyz(q))),
        ("multiply", "qmult", lambda: rotations.multiply(q, other),
         lambda: xyzw(quaternions.qmult(wxyz(q), wxyz(other)))),
        ("conjugate", "qconjugate", lambda: rotations.conjugate(q), lambda: xyzw(quaternions.qconjugate(wxyz(q)))),
        ("about_z", "axangle2quat", lambda: rotations.about_z(0.3),
         lambda: xyzw(quaternions.axangle2quat((0.0, 0.0, 1.0), 0.3, True))),
        ("to_vector", "quat2axangle", lambda: rotations.to_vector(q), their_vector),
        ("quaternion_to_matrix", "quat2mat", lambda: rotations.quaternion_to_matrix(q),
         lambda: quaternions.quat2mat(wxyz(q))),
        ("matrix_to_quaternion", "mat2quat", lambda: rotations.matrix_to_quaternion(m),
         lambda: xyzw(quaternions.mat2quat(m))),
        ("pose_matrix", "affines.compose", lambda: geometry.pose_matrix(m[0], q),
         lambda: affines.compose(m[0], quaternions.quat2mat(wxyz(q)), np.ones(3))),
        ("roll, pitch, yaw (SciPy)", "quat2euler", lambda: Rotation.from_quat(q).as_euler("xyz"),
         lambda: rotations.roll_pitch_yaw(q)),
        ("matrix of axis and angle (SciPy)", "axangle2mat", lambda: Rotation.from_rotvec(0.5 * q[:3]).as_matrix(),
         lambda: axangles.axangle2mat(q[:3], 0.5 * float(np.linalg.norm(q[:3])))),
    ]  # fmt: skip
    rows = []
    for name, library, ours, theirs in cases:
        a, b, one, two = compare(ours, theirs, repeat=300)
        rows.append((name, library, a, b, f"{np.abs(np.asarray(one) - np.asarray(two)).max():.0e}"))
    return rows


def show(console: Console, title: str, rows: list[tuple[str, str, float, float, str]], unit: str, scale: float) -> None:
    """Print a table of pairs; the times in ``unit``, which is ``scale`` of a millisecond."""
    table = Table("job", "library", f"ours [{unit}]", f"theirs [{unit}]", "theirs / ours", "difference", title=title)
    for name, library, a, b, difference in rows:
        table.add_row(name, library, f"{a / scale:.3g}", f"{b / scale:.3g}", f"{b / a:.2g}", difference)
    console.print(table)


def main() -> int:
    """Command line."""
    shared = Path(os.environ.get("WM_SHARED_DATA", ROOT.parent / "shared")) / "real_rgbd"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recording", type=Path, default=shared, help="RGB-D folder (default: %(default)s)")
    given = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 160)
    table = Table("import", "ms", "MiB", title="after NumPy, in a process of its own")
    for module in IMPORTS:
        milliseconds, mebibytes = import_cost(module)
        table.add_row(module, f"{milliseconds:.0f}", f"{mebibytes:.0f}")
    console.print(table)
    show(console, "transforms3d, one rotation", rotation_rows(), "us", 1e-3)
    if given.recording.is_dir():
        show(console, "Open3D, one frame", geometry_rows(given.recording), "ms", 1.0)
    else:
        console.print(f"no recording at {given.recording}: Open3D left out")
    return 0


if __name__ == "__main__":
    sys.exit(main())
