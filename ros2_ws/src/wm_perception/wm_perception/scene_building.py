"""The scene graph of supports and tracks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from wm_core.scene_graph import SceneGraph, Shape
from wm_perception.lifting.container_object import container_row
from wm_perception.lifting.structure import Container
from wm_perception.lifting.supports import Support
from wm_perception.shapes.mass_prior import with_mass_priors
from wm_perception.tracking.tracker import Tracker
from wm_perception.types import Array, Frame

_SUPPORT_THICKNESS_M = 0.04
"""Thickness [m] of the box that stands for a support, of which only the top is seen. Chosen by hand."""


def build_scene(
    frame: Frame,
    supports: Sequence[Support],
    tracker: Tracker,
    world_frame: str,
    containers: Sequence[Container] = (),
) -> SceneGraph:
    """The scene graph at a frame, without relations: supports seen twice, containers, tracks with an id."""
    rows: list[dict[str, Any]] = [_support_row(s) for s in supports if s.frames >= 2]
    rows += [container_row(c) for c in containers]
    for t in tracker.tracks:
        if t.id == 0:
            continue
        rows.append(
            {
                "ids": t.id,
                "class_names": tracker.class_name(t),
                "positions": t.position,
                "quaternions": t.quaternion,
                "linear_velocities": t.velocity,
                "angular_velocities": t.motion.angular_velocity,
                "extents": t.extents,
                "shapes": int(t.shape),
                "is_static": False,
                "pose_covariances": t.pose_covariance(),
                "twist_covariances": t.twist_covariance(),
                "colors": np.clip(t.appearance.color / 255.0, 0.0, 1.0),
                "visibilities": t.visibility.fraction if t.visibility.seen_now else 0.0,
                "existence_probabilities": t.existence,
                "first_seen_ns": t.first_seen_ns,
                "last_seen_ns": t.last_seen_ns,
                "hulls": t.hull,
                "parts": t.parts,
                "class_probabilities": t.appearance.class_probabilities(),
                "embeddings": t.appearance.embedding,
            }
        )
    rows.sort(key=lambda row: row["ids"])  # type: ignore[arg-type, return-value]
    names = [
        "ids", "class_names", "positions", "quaternions", "linear_velocities", "angular_velocities", "extents",
        "shapes", "is_static", "pose_covariances", "twist_covariances", "colors", "visibilities",
        "existence_probabilities", "first_seen_ns", "last_seen_ns", "hulls", "parts",
    ]  # fmt: skip
    columns = {name: [row[name] for row in rows] for name in names}
    n = len(rows)
    shapes = {"quaternions": (n, 4), "pose_covariances": (n, 6, 6), "twist_covariances": (n, 6, 6)}
    for name in ("linear_velocities", "angular_velocities", "colors"):
        shapes[name] = (n, 3)
    # Supports are not classified and have no embedding: their rows are 0.
    optional = {name: _rows(rows, name) for name in ("class_probabilities", "embeddings")}
    scene = SceneGraph.build(
        columns.pop("ids"),
        columns.pop("positions"),
        columns.pop("extents"),
        stamp_ns=frame.stamp_ns,
        frame_id=world_frame,
        world_T_camera=np.asarray(frame.world_T_camera, dtype=np.float64),
        class_vocabulary=tracker.vocabulary if optional["class_probabilities"].size else (),
        **optional,
        **{k: np.asarray(v, dtype=float).reshape(shapes[k]) if k in shapes else v for k, v in columns.items()},
    )
    return with_mass_priors(scene)


def _support_row(s: Support) -> dict[str, Any]:
    center, sizes, yaw, outline = s.rectangle()
    quaternion = np.array([0.0, 0.0, np.sin(0.5 * yaw), np.cos(0.5 * yaw)])
    local = outline - center
    cosine, sine = np.cos(yaw), np.sin(yaw)
    local = np.stack([cosine * local[:, 0] + sine * local[:, 1], -sine * local[:, 0] + cosine * local[:, 1]], 1)
    covariance = np.diag([0.02**2, 0.02**2, 0.004**2, 0.01**2, 0.01**2, 0.03**2])
    return {
        "ids": s.id,
        "class_names": "support",
        "positions": np.array([*center, s.height_m - 0.5 * _SUPPORT_THICKNESS_M]),
        "quaternions": quaternion,
        "linear_velocities": np.zeros(3),
        "angular_velocities": np.zeros(3),
        "extents": np.array([*np.maximum(sizes, 0.02), _SUPPORT_THICKNESS_M]),
        "shapes": int(Shape.BOX),
        "is_static": True,
        "pose_covariances": covariance,
        "twist_covariances": np.zeros((6, 6)),
        "colors": np.clip(s.color / 255.0, 0.0, 1.0),
        "visibilities": 1.0 if s.seen_now else 0.0,
        "existence_probabilities": min(0.999, 0.5 + 0.1 * s.frames),
        "first_seen_ns": s.first_seen_ns,
        "last_seen_ns": s.last_seen_ns,
        "hulls": np.column_stack([local, np.full(len(local), 0.5 * _SUPPORT_THICKNESS_M)]),
        "parts": (),
    }


def _rows(rows: list[dict[str, Any]], name: str) -> Array:
    """(N, C) of a column that some rows lack or have empty; those are 0."""
    width = max((len(row.get(name, ())) for row in rows), default=0)
    out = np.zeros((len(rows), width))
    for values, row in zip(out, rows, strict=True):
        given = row.get(name, ())
        if len(given) == width:
            values[:] = given
    return out
