"""The world state: objects and relations as arrays (object index first).

Perception, dynamics and rendering exchange ``SceneGraph``s. ``wm_ros.conversions`` converts them to and from wm_msgs.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from enum import IntEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wm_core.convex_parts import MAX_PARTS, ConvexPart
from wm_core.shapes import Shape as Shape


class Predicate(IntEnum):
    """Relations, as in wm_msgs/SceneRelation."""

    ON = 0
    INSIDE = 1
    TOUCHING = 2
    SUPPORTS = 3
    LEFT_OF = 4
    RIGHT_OF = 5
    IN_FRONT_OF = 6
    BEHIND = 7
    NEAR = 8
    OCCLUDES = 9
    APPROACHING = 10
    MOVING_WITH = 11
    CAUSED = 12


CARRIED_BY = (Predicate.ON, Predicate.INSIDE)
"""Relations whose object carries the subject."""


class EventKind(IntEnum):
    """Events, as in wm_msgs/SceneEvent."""

    CONTACT = 0
    SEPARATION = 1
    FALL = 2
    TOPPLE = 3
    LEAVE = 4
    ENTER = 5
    MOVE = 6
    STOP = 7


@dataclass(frozen=True)
class Relation:
    """``subject`` PREDICATE ``object``.

    Attributes:
        subject, object: object ids; of ``CAUSED`` event ids.
        predicate: which relation. probability: 0..1.
        since_ns: stamp from which it holds [ns].
    """

    subject: int
    predicate: Predicate
    object: int
    probability: float
    since_ns: int


@dataclass(frozen=True)
class Event:
    """An observed event.

    Attributes:
        id: of the event, never used twice.
        kind: what happened. a, b: object ids; ``b`` 0: only one takes part.
        stamp_ns: of the instant [ns]. probability: 0..1.
    """

    id: int
    kind: EventKind
    a: int
    b: int
    stamp_ns: int
    probability: float = 1.0


# Priors of properties without any observation: log density of household objects around 400 kg/m^3 (hollow plastic 150,
# wood 600, full bottles 1000), friction and restitution of dry everyday materials.
PRIOR_DENSITY_KG_M3 = 400.0
PRIOR_LOG_MASS_STD = 0.7
"""Standard deviation of the natural logarithm of mass: a factor of 2. Larger spreads belief samples."""
PRIOR_FRICTION = 0.5
"""Mean coefficient of friction."""
PRIOR_FRICTION_STD = 0.15
"""Standard deviation of the coefficient of friction. Larger spreads belief samples."""
PRIOR_RESTITUTION = 0.1
"""Mean coefficient of restitution."""
PRIOR_RESTITUTION_STD = 0.1
"""Standard deviation of the coefficient of restitution. Larger spreads belief samples."""


def shape_volume(shape: int, extents: ArrayLike) -> float:
    """Volume [m^3] of a shape with full extents (3,) [m]; a convex hull counts as 0.6 of its bounds."""
    x, y, z = (float(v) for v in np.asarray(extents, dtype=np.float64))
    if shape == Shape.SPHERE:
        return np.pi / 6.0 * x * y * z
    if shape == Shape.CYLINDER:
        return np.pi / 4.0 * x * y * z
    if shape == Shape.CAPSULE:
        radius = 0.25 * (x + y)
        return np.pi * radius**2 * max(z - 2.0 * radius, 0.0) + 4.0 / 3.0 * np.pi * radius**3
    return x * y * z * (0.6 if shape == Shape.CONVEX else 1.0)


def index_of(object_id: int, ids: NDArray[np.int64], where: str) -> int:
    """Index of an id among ``ids`` (N,); raises KeyError, which names ``where`` and the ids, where it is not there."""
    found = np.flatnonzero(ids == object_id)
    if not len(found):
        raise KeyError(f"object id {object_id} is not in the {where} (ids: {ids.tolist()})")
    return int(found[0])


@dataclass(frozen=True)
class SceneGraph:
    """N objects and their relations at one instant.

    Attributes:
        stamp_ns: time of the image that it was made from [ns].
        frame_id: fixed frame, z up, gravity along -z (REP-103, REP-105).
        ids: (N,) int64, persistent, ascending, >= 1.
        class_names: N names; "object" unknown, "support" a table or shelf surface, "container" a bin.
        positions: (N, 3) centers of the extents [m].
        quaternions: (N, 4) x, y, z, w.
        linear_velocities: (N, 3) [m/s]; angular_velocities: (N, 3) [rad/s, frame axes].
        extents: (N, 3) full sizes along the objects' own axes [m].
        shapes: (N,) ``Shape``.
        is_static: (N,) bool.
        pose_covariances: (N, 6, 6) over (x, y, z, rotation about x, y, z) [m, rad].
        twist_covariances: (N, 6, 6) [m/s, rad/s].
        log_mass, log_mass_std, friction, friction_std, restitution, restitution_std: (N,) beliefs; mass in kg.
        colors: (N, 3) 0..1.
        visibilities, existence_probabilities: (N,) 0..1.
        first_seen_ns, last_seen_ns: (N,) int64.
        hulls: N arrays (P, 3) in the object frame [m]; (0, 3) where there is none.
        parts: N tuples of the convex parts of objects that are not convex (at most ``MAX_PARTS``); empty: the object
            is its shape. Shape, extents and hull then remain those of the outline.
        relations, events: see ``Relation``, ``Event``.
        class_vocabulary: C class names; class_probabilities: (N, C), rows sum to 1, or are 0 where not estimated.
        embeddings: (N, D) appearance, unit length, or 0 where not estimated.
        world_T_camera: (4, 4) pose of the optical frame of the latest image.
    """

    stamp_ns: int
    frame_id: str
    ids: NDArray[np.int64]
    class_names: tuple[str, ...]
    positions: NDArray[np.float64]
    quaternions: NDArray[np.float64]
    linear_velocities: NDArray[np.float64]
    angular_velocities: NDArray[np.float64]
    extents: NDArray[np.float64]
    shapes: NDArray[np.int64]
    is_static: NDArray[np.bool_]
    pose_covariances: NDArray[np.float64]
    twist_covariances: NDArray[np.float64]
    log_mass: NDArray[np.float64]
    log_mass_std: NDArray[np.float64]
    friction: NDArray[np.float64]
    friction_std: NDArray[np.float64]
    restitution: NDArray[np.float64]
    restitution_std: NDArray[np.float64]
    colors: NDArray[np.float64]
    visibilities: NDArray[np.float64]
    existence_probabilities: NDArray[np.float64]
    first_seen_ns: NDArray[np.int64]
    last_seen_ns: NDArray[np.int64]
    hulls: tuple[NDArray[np.float64], ...]
    relations: tuple[Relation, ...] = ()
    events: tuple[Event, ...] = ()
    world_T_camera: NDArray[np.float64] = field(default_factory=lambda: np.eye(4))
    class_vocabulary: tuple[str, ...] = ()
    class_probabilities: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 0)))
    embeddings: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 0)))
    parts: tuple[tuple[ConvexPart, ...], ...] = ()

    def __post_init__(self) -> None:
        n = len(self.ids)
        for name in ("class_probabilities", "embeddings"):
            if not getattr(self, name).size:
                object.__setattr__(self, name, np.zeros((n, 0)))
        if not self.parts:
            object.__setattr__(self, "parts", ((),) * n)
        for f in fields(self):
            value = getattr(self, f.name)
            if f.name in ("relations", "events", "world_T_camera", "class_vocabulary") or not hasattr(value, "__len__"):
                continue
            if f.name != "frame_id" and len(value) != n:
                raise ValueError(f"SceneGraph.{f.name}: got {len(value)} entries, expected {n} (one per id)")
        if self.class_probabilities.size and self.class_probabilities.shape[1] != len(self.class_vocabulary):
            raise ValueError(
                f"SceneGraph.class_probabilities: got {self.class_probabilities.shape[1]} columns, expected "
                f"{len(self.class_vocabulary)} (one per name in class_vocabulary)"
            )
        for name in ("positions", "quaternions", "linear_velocities", "angular_velocities", "extents"):
            if not np.isfinite(getattr(self, name)).all():
                raise ValueError(f"SceneGraph.{name}: has a value that is not finite")
        for object_id, own in zip(self.ids, self.parts, strict=True):
            if len(own) > MAX_PARTS:
                raise ValueError(
                    f"SceneGraph.parts: object {object_id} has {len(own)} parts, expected at most {MAX_PARTS}"
                )
        if n and (np.diff(self.ids) <= 0).any():
            raise ValueError("SceneGraph.ids: expected ascending and unique")
        if n and (self.extents <= 0.0).any():
            raise ValueError("SceneGraph.extents: expected every extent > 0")

    def __len__(self) -> int:
        return len(self.ids)

    def index(self, object_id: int) -> int:
        """Index of an object.

        Raises:
            KeyError: no such id; the message lists those that exist.
        """
        return index_of(object_id, self.ids, "scene graph")

    @property
    def masses(self) -> NDArray[np.float64]:
        """(N,) median masses [kg]."""
        return np.exp(self.log_mass)

    def select(self, keep: ArrayLike) -> SceneGraph:
        """The graph of the objects at a boolean mask or index array, with the relations among them."""
        rows = np.asarray(keep)
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows
        kept_ids = set(self.ids[rows].tolist())
        changes: dict[str, object] = {}
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, np.ndarray) and f.name != "world_T_camera":
                changes[f.name] = value[rows]
        changes["class_names"] = tuple(self.class_names[i] for i in rows)
        changes["hulls"] = tuple(self.hulls[i] for i in rows)
        changes["parts"] = tuple(self.parts[i] for i in rows)
        changes["relations"] = tuple(r for r in self.relations if r.subject in kept_ids and r.object in kept_ids)
        return replace(self, **changes)  # type: ignore[arg-type]

    @classmethod
    def build(
        cls,
        ids: ArrayLike,
        positions: ArrayLike,
        extents: ArrayLike,
        *,
        stamp_ns: int = 0,
        frame_id: str = "map",
        **given: object,
    ) -> SceneGraph:
        """A graph from the essentials; every other attribute may be given by name, else has its default.

        Defaults: unit orientation, at rest, boxes, movable, fully visible, prior physical properties, gray.
        """
        id_array = np.asarray(ids, dtype=np.int64).reshape(-1)
        n = len(id_array)
        extent_array = np.asarray(extents, dtype=np.float64).reshape(n, 3)
        shapes = np.asarray(given.get("shapes", np.zeros(n)), dtype=np.int64).reshape(n)
        volumes = np.array([shape_volume(int(s), e) for s, e in zip(shapes, extent_array, strict=True)]).reshape(n)
        values: dict[str, object] = {
            "class_names": ("object",) * n,
            "quaternions": np.tile([0.0, 0.0, 0.0, 1.0], (n, 1)),
            "linear_velocities": np.zeros((n, 3)),
            "angular_velocities": np.zeros((n, 3)),
            "shapes": shapes,
            "is_static": np.zeros(n, dtype=bool),
            "pose_covariances": np.zeros((n, 6, 6)),
            "twist_covariances": np.zeros((n, 6, 6)),
            "log_mass": np.log(np.maximum(volumes, 1e-9) * PRIOR_DENSITY_KG_M3),
            "log_mass_std": np.full(n, PRIOR_LOG_MASS_STD),
            "friction": np.full(n, PRIOR_FRICTION),
            "friction_std": np.full(n, PRIOR_FRICTION_STD),
            "restitution": np.full(n, PRIOR_RESTITUTION),
            "restitution_std": np.full(n, PRIOR_RESTITUTION_STD),
            "colors": np.full((n, 3), 0.5),
            "visibilities": np.ones(n),
            "existence_probabilities": np.ones(n),
            "first_seen_ns": np.full(n, stamp_ns, dtype=np.int64),
            "last_seen_ns": np.full(n, stamp_ns, dtype=np.int64),
            "hulls": tuple(np.zeros((0, 3)) for _ in range(n)),
        }
        integer = {"shapes", "first_seen_ns", "last_seen_ns"}
        for name, value in given.items():
            if name in ("class_names", "hulls", "parts", "relations", "events", "class_vocabulary"):
                values[name] = tuple(value)  # type: ignore[arg-type]
            else:
                kind = np.int64 if name in integer else bool if name == "is_static" else np.float64
                values[name] = np.asarray(value, dtype=kind)
        return cls(
            stamp_ns=int(stamp_ns),
            frame_id=frame_id,
            ids=id_array,
            positions=np.asarray(positions, dtype=np.float64).reshape(n, 3),
            extents=extent_array,
            **values,  # type: ignore[arg-type]
        )
