"""Which way is up in a recording whose world frame does not say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wm_core.rotations import rotation_between
from wm_perception.lifting.cloud import make_cloud
from wm_perception.types import Array, Frame

_COLUMNS = 160
"""Columns of pixels at which normals are computed, about. Larger is slower and no surer."""
_MAX_DEPTH_M = 4.0
"""Depth [m] beyond which normals are too noisy to be used."""
_LEAST_NORMALS, _LEAST_LIKELY = 500, 200
"""Normals, and those that a likely camera pose makes face up, below which nothing is estimated. Larger refuses more."""
_CANDIDATES = 400
"""Normals that are tried as the up direction. Larger is slower and finer."""
_SAME_DEG = 4.0
"""Normals within this angle count as of one surface: the scatter of a structured-light sensor at 1 m."""
_PITCH_DEG = np.array([-30.0, -15.0, 0.0, 15.0, 75.0, 90.0, 105.0])
"""Angles [degrees] of ``_PITCH_PRIOR``, which is linear in between."""
_PITCH_PRIOR = np.array([0.0, 0.3, 0.7, 1.0, 1.0, 0.5, 0.0])
"""Prior of the angle by which a camera is tilted down, by hand. Lower at 0 degrees: walls, which face a level camera,
are mostly larger than the tables and floors that it sees at a flat angle. 90 degrees: straight down."""
_ROLL_DEG = np.array([15.0, 50.0])
"""Angles [degrees] of ``_ROLL_PRIOR``, which is linear in between."""
_ROLL_PRIOR = np.array([1.0, 0.0])
"""Prior of the camera's roll, by hand: 1 up to 15 degrees, 0 from 50."""
_PLAUSIBLE = 0.05
"""Prior below which a camera pose does not occur. Larger leaves fewer candidates."""


@dataclass(frozen=True)
class UpDirection:
    """The up direction of a recording's world, from its surfaces.

    Attributes:
        level_T_world: (4, 4) turns the world so that z points up; the origin stays.
        turned_deg: angle of that turn [deg].
        share: part of all surface elements that face up, within 4 degrees.
        share_given: the same for the z axis of the world as it is.
        given_is_plausible: whether the camera poses are likely if z of the world as given is up.
    """

    level_T_world: Array
    turned_deg: float
    share: float
    share_given: float
    given_is_plausible: bool


def estimate_up_direction(frames: Sequence[Frame]) -> Array:
    """Transform ``level_T_world`` (4, 4) that turns the frames' world so that z points up; see ``find_up``.

    Raises:
        ValueError: no frame, or too little depth to tell.
    """
    return find_up(frames).level_T_world


def plausibility(world_up: Array, world_T_cameras: Sequence[Array]) -> float:
    """Mean prior (0..1) of cameras with these poses (4, 4) if ``world_up`` (3,) is up.

    A camera is level or tilted down, up to straight down, or a little up; it is not upside down, and rolled by at most
    50 degrees.
    """
    return float(np.mean([_prior(world_up[None] @ pose[:3, :3])[0] for pose in world_T_cameras]))


def _prior(up_in_camera: Array) -> Array:
    """(P,) of up directions (P, 3) in an optical frame (x right, y down, z forward)."""
    right, up, back = up_in_camera[:, 0], -up_in_camera[:, 1], -up_in_camera[:, 2]
    pitch = np.degrees(np.arctan2(back, up))
    roll = np.degrees(np.arcsin(np.clip(np.abs(right), 0.0, 1.0)))
    return np.interp(pitch, _PITCH_DEG, _PITCH_PRIOR, 0.0, 0.0) * np.interp(roll, _ROLL_DEG, _ROLL_PRIOR)


def find_up(frames: Sequence[Frame]) -> UpDirection:
    """The up direction by the largest consistent support: the normal that most surface elements share.

    Each direction's votes, the surface elements that face so within 4 degrees, count by how likely a camera is held
    in the way that it would follow from it: see ``plausibility``. The winner is refined by the mean of the normals near
    it.

    Raises:
        ValueError: no frame, or too little depth to tell.
    """
    if not frames:
        raise ValueError("up direction: got no frames, expected at least one")
    normals = [_normals(frame) for frame in frames]
    every = np.concatenate(normals)
    if len(every) < _LEAST_NORMALS:
        raise ValueError(
            f"up direction: got {len(every)} surface normals, expected at least {_LEAST_NORMALS} (is depth missing?)"
        )
    poses = [frame.world_T_camera for frame in frames]
    # In each frame's own camera, as a camera that turns around sees one up direction in many ways.
    weights = np.concatenate([_prior(n @ pose[:3, :3]) for n, pose in zip(normals, poses, strict=True)])
    likely = every[weights > _PLAUSIBLE]
    if len(likely) < _LEAST_LIKELY:
        raise ValueError("up direction: no surface that faces up for a camera that is level or tilted down")
    chosen = likely[np.random.default_rng(0).choice(len(likely), min(len(likely), _CANDIDATES), replace=False)]
    priors = np.array([plausibility(c, poses) for c in chosen])
    votes = priors * (chosen @ likely.T > np.cos(np.radians(_SAME_DEG))).sum(axis=1)
    up = chosen[int(votes.argmax())]
    for degrees in (2 * _SAME_DEG, _SAME_DEG, 3.0, 3.0):
        near = likely[likely @ up > np.cos(np.radians(degrees))]
        up = near.mean(axis=0)
        up /= np.linalg.norm(up)
    z = np.array([0.0, 0.0, 1.0])
    level_T_world = np.eye(4)
    level_T_world[:3, :3] = rotation_between(up, z)
    return UpDirection(
        level_T_world,
        float(np.degrees(np.arccos(np.clip(up[2], -1.0, 1.0)))),
        _share(every, up),
        _share(every, z),
        plausibility(z, poses) > _PLAUSIBLE,
    )


def _normals(frame: Frame) -> NDArray[np.float64]:
    cloud = make_cloud(frame, max(1, frame.camera.width // _COLUMNS), _MAX_DEPTH_M)
    known = np.isfinite(cloud.normals).all(axis=-1)
    return cloud.normals[known].astype(np.float64)


def _share(normals: Array, direction: Array) -> float:
    return float((normals @ direction > np.cos(np.radians(_SAME_DEG))).mean())
