"""Which way is up in a recording whose world frame does not say."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from wm_core.geometry import rotation_between
from wm_perception.cloud import make_cloud
from wm_perception.types import Array, Frame


def estimate_up_direction(frames: Sequence[Frame]) -> Array:
    """Transform ``level_T_world`` (4, 4) that turns the frames' world so that z points up.

    The up direction is the normal that most surface elements share, among those within 50 degrees of the image's
    upward direction (a hand-held or robot camera is not upside down): tables and floors outweigh the rest. It is
    refined by the mean of the normals near it. The origin stays where it was.

    Raises:
        ValueError: no frame, or too little depth to tell.
    """
    if not frames:
        raise ValueError("up direction: got no frames, expected at least one")
    normals, guesses = [], []
    for frame in frames:
        cloud = make_cloud(frame, 4, 4.0)
        known = np.isfinite(cloud.normals).all(axis=-1)
        normals.append(cloud.normals[known].astype(np.float64))
        guesses.append(-frame.world_T_camera[:3, 1])
    every = np.concatenate(normals)
    if len(every) < 500:
        raise ValueError(f"up direction: got {len(every)} surface normals, expected at least 500 (is depth missing?)")
    guess = np.mean(guesses, axis=0)
    guess /= np.linalg.norm(guess)
    likely = every[every @ guess > np.cos(np.radians(50.0))]
    if len(likely) < 200:
        raise ValueError("up direction: no surface faces up within 50 degrees of the image's upward direction")
    chosen = likely[np.random.default_rng(0).choice(len(likely), min(len(likely), 400), replace=False)]
    votes = (chosen @ likely.T > np.cos(np.radians(4.0))).sum(axis=1)
    up = chosen[int(votes.argmax())]
    for degrees in (8.0, 4.0, 3.0, 3.0):
        near = likely[likely @ up > np.cos(np.radians(degrees))]
        up = near.mean(axis=0)
        up /= np.linalg.norm(up)
    level_T_world = np.eye(4)
    level_T_world[:3, :3] = rotation_between(up, [0.0, 0.0, 1.0])
    return level_T_world
