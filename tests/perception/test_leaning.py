"""Things that lie across others or lean on them: their tilt, and what is left upright."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from seen_objects import eye_at, seen_points
from wm_bringup.sources.layouts import open_folder
from wm_bringup.sources.rgbd_folder import prepared
from wm_core.rotations import matrix
from wm_core.scene_graph import Shape
from wm_dynamics.mujoco.bodies import GeomDef
from wm_perception.pipeline import PerceptionPipeline
from wm_perception.shapes.fitting import fit_shape
from wm_perception.shapes.free_space import FreeSpace, is_free_beneath
from wm_perception.shapes.leaning import fit_leaning
from wm_perception.shapes.surfaces import ShapeFit

EYE = eye_at(40.0)
TUBE = [GeomDef(Shape.CYLINDER, np.array([0.07, 0.07, 0.24]))]
SLAB = [GeomDef(Shape.BOX, np.array([0.24, 0.12, 0.03]))]


def fits(
    parts: list[GeomDef], turn: Rotation, height: float, seed: int, bottom: float | None = 0.0
) -> tuple[ShapeFit, ShapeFit, NDArray[np.float64]]:
    """The upright fit, the leaning one, and the points."""
    points = seen_points(parts, EYE, (0.0, 0.0, height), turn.as_quat(), noise=1.0, seed=seed)
    upright = fit_shape(points, 0.0, eye=EYE)
    return upright, fit_leaning(points, upright, bottom, eye=EYE), points


@pytest.mark.parametrize("tilt_deg", [8.0, 15.0, 30.0, 50.0])
@pytest.mark.parametrize("yaw", [0.4, 1.6, -1.0])
@pytest.mark.parametrize(("parts", "axis", "length"), [(TUBE, 2, 0.24), (SLAB, 0, 0.24)], ids=["tube", "slab"])
def test_the_axis_of_what_lies_askew_is_found(
    parts: list[GeomDef], axis: int, length: float, yaw: float, tilt_deg: float
) -> None:
    lying = 90.0 - tilt_deg if axis == 2 else -tilt_deg
    turn = Rotation.from_euler("z", yaw) * Rotation.from_euler("y", lying, degrees=True)
    true = turn.as_matrix()[:, axis]
    upright, found, _ = fits(parts, turn, 0.2, 1)
    rotation = matrix(found.quaternion)
    longest = rotation[:, int(np.argmax(found.extents))]
    assert found is not upright
    assert np.degrees(np.arccos(min(abs(float(longest @ true)), 1.0))) < 8.0
    assert found.extents.max() == pytest.approx(length, abs=0.035)
    assert np.linalg.norm(found.position - [0.0, 0.0, 0.2]) < 0.02
    # The upright one reaches down to the support.
    assert np.linalg.norm(upright.position - [0.0, 0.0, 0.2]) > 0.04


@pytest.mark.parametrize("yaw", [0.4, 1.6, -1.0])
@pytest.mark.parametrize("parts", [TUBE, SLAB], ids=["tube", "slab"])
@pytest.mark.parametrize("lying", [0.0, 90.0])
def test_what_stands_or_lies_flat_stays(parts: list[GeomDef], lying: float, yaw: float) -> None:
    turn = Rotation.from_euler("z", yaw) * Rotation.from_euler("y", lying, degrees=True)
    points = seen_points(parts, EYE, (0.0, 0.0, 0.12), turn.as_quat(), noise=1.0, seed=3)
    upright = fit_shape(points, None, eye=EYE)
    assert fit_leaning(points, upright, 0.0, eye=EYE) is upright


def test_it_does_not_reach_into_what_is_under_it() -> None:
    turn = Rotation.from_euler("z", 0.4) * Rotation.from_euler("y", 60.0, degrees=True)
    upright, found, points = fits(TUBE, turn, 0.2, 1)
    assert found is not upright
    low = float(points[:, 2].min())
    assert fits(TUBE, turn, 0.2, 1, bottom=low - 0.05)[1] is not upright
    same, kept, _ = fits(TUBE, turn, 0.2, 1, bottom=low + 0.05)
    assert kept is same
    assert fits(TUBE, turn, 0.2, 1, bottom=None)[1].extents.max() == found.extents.max()


@pytest.mark.parametrize("gap", [0.08, 0.13])
@pytest.mark.parametrize("yaw", [0.4, 1.6, -1.0])
def test_what_lies_across_two_things_does_not_reach_down_between_them(yaw: float, gap: float) -> None:
    turn = Rotation.from_euler("z", yaw)
    points = seen_points(SLAB, EYE, (0.0, 0.0, 0.115), turn.as_quat(), noise=1.0)
    along = turn.apply([1.0, 0.0, 0.0])
    rng = np.random.default_rng(0)
    # The tops of two things of 0.1 m under its ends, and rays that pass between them, across it.
    ends = 0.25 * (0.24 + gap) * np.array([[-1.0], [1.0]]) * along
    tops = np.concatenate(
        [end + turn.apply(rng.uniform([-0.04, -0.06, 0.1], [0.04, 0.06, 0.1], (60, 3))) for end in ends]
    )
    side = turn.apply([0.0, 1.0, 0.0])
    middle = along * np.linspace(-0.28 * gap, 0.28 * gap, 30)[:, None]
    near, far = middle - 0.5 * side + [0.0, 0.0, 0.07], middle + 0.5 * side + [0.0, 0.0, 0.03]
    ways = far - near
    lengths = np.linalg.norm(ways, axis=1)
    free = FreeSpace(near, ways / lengths[:, None], lengths)
    assert is_free_beneath(free, points, 0.0, tops)
    # Neither tells alone: it may go on down behind what hides its foot.
    assert not is_free_beneath(free, points, 0.0)
    nowhere = FreeSpace(free.eyes, free.directions, 0.1 * free.lengths)
    assert not is_free_beneath(nowhere, points, 0.0, tops)
    assert not is_free_beneath(free, points, 0.0, tops - [0.0, 0.0, 0.06])
    assert not is_free_beneath(free, points, 0.09, tops)


def test_a_real_tube_across_two_cartons_lies_on_them(shared_data: Path) -> None:
    """It was a slab that stood on the table. By eye: 24 cm long, 7 cm thick, its right end the lower one."""
    recording = prepared(open_folder(shared_data / "real_frames" / "osd_test50"))
    pipeline = PerceptionPipeline()
    for k in range(12):
        scene = pipeline.process(recording.frame(k)).scene
    table = max(float(scene.positions[i, 2] + 0.5 * scene.extents[i, 2]) for i in np.flatnonzero(scene.is_static))
    lying = [
        i
        for i in np.flatnonzero(~scene.is_static)
        if scene.positions[i, 2] - 0.5 * float(np.abs(matrix(scene.quaternions[i])[2]) @ scene.extents[i]) > table + 0.1
    ]
    assert len(lying) == 1
    extents = np.sort(scene.extents[lying[0]])
    assert 0.2 < extents[2] < 0.27 and 0.05 < extents[0] < 0.09 and 0.05 < extents[1] < 0.09
    axis = matrix(scene.quaternions[lying[0]])[:, int(np.argmax(scene.extents[lying[0]]))]
    assert 0.17 < abs(axis[2]) < 0.4
