"""Interventions (Pearl's do operator), hypotheses and batches of action sequences.

``wm_core.intervention_checks`` checks whether they can be carried out in a scene graph.
"""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from wm_core.scene_graph import PRIOR_DENSITY_KG_M3, PRIOR_FRICTION, PRIOR_RESTITUTION, Shape, shape_volume


class InterventionError(ValueError):
    """An intervention that cannot be carried out; the message names the field, what was found and expected."""


class UnknownObjectError(InterventionError):
    """An intervention on an object id that is not in the scene graph."""


class InterventionKind(IntEnum):
    """As in wm_msgs/Intervention."""

    REMOVE = 0
    ADD = 1
    SET_POSE = 2
    SET_VELOCITY = 3
    APPLY_IMPULSE = 4
    SET_PROPERTY = 5
    FOLLOW_PATH = 6
    MORPH = 7
    RESTYLE = 8


class Property(IntEnum):
    """As in wm_msgs/Intervention."""

    MASS = 0
    FRICTION = 1
    RESTITUTION = 2


def _zeros() -> NDArray[np.float64]:
    return np.zeros(3)


def _identity() -> NDArray[np.float64]:
    return np.array([0.0, 0.0, 0.0, 1.0])


@dataclass(frozen=True)
class BodySpec:
    """A body that an intervention creates: ``ADD`` (free, at ``position``) or a ``FOLLOW_PATH`` pusher.

    Attributes:
        shape: any but ``CONVEX``.
        extents: (3,) full sizes along the body's own axes [m].
        position: (3,) center [m, graph frame]; a pusher's comes from its path, and so do the next three.
        quaternion: (4,) x, y, z, w.
        linear_velocity: (3,) [m/s]; angular_velocity: (3,) [rad/s]; both in the axes of the graph frame.
        mass: [kg]; None: prior density times volume.
        friction, restitution: coefficients of Coulomb friction and of restitution (0..1).
        color: (3,) RGB, 0..1.
    """

    shape: Shape = Shape.BOX
    extents: NDArray[np.float64] = field(default_factory=lambda: np.full(3, 0.05))
    position: NDArray[np.float64] = field(default_factory=_zeros)
    quaternion: NDArray[np.float64] = field(default_factory=_identity)
    linear_velocity: NDArray[np.float64] = field(default_factory=_zeros)
    angular_velocity: NDArray[np.float64] = field(default_factory=_zeros)
    mass: float | None = None
    friction: float = PRIOR_FRICTION
    restitution: float = PRIOR_RESTITUTION
    color: NDArray[np.float64] = field(default_factory=lambda: np.array([0.2, 0.2, 0.2]))

    @property
    def effective_mass(self) -> float:
        """Mass [kg], by prior density where none is given."""
        return self.mass if self.mass is not None else PRIOR_DENSITY_KG_M3 * shape_volume(self.shape, self.extents)


@dataclass(frozen=True)
class Intervention:
    """One change to the world. Fields that a kind does not name are ignored.

    Attributes:
        kind: what changes.
        object_id: of the object that it is done to; 0: a body that is created.
        time_offset: [s] after the start of the rollout.
        body: ``ADD``, and ``FOLLOW_PATH`` with ``object_id`` 0: the body created.
        position: ``SET_POSE``: (3,) center [m, graph frame]; quaternion: (4,) x, y, z, w.
        linear_velocity: ``SET_VELOCITY``: (3,) [m/s]; angular_velocity: (3,) [rad/s]; axes of the graph frame.
        impulse: ``APPLY_IMPULSE``: (3,) [N s]; point: (3,) offset from the center [m]; axes of the graph frame.
        property, value: ``SET_PROPERTY``: mass [kg], friction or restitution.
        value_is_factor: ``SET_PROPERTY``: the property is multiplied by ``value``.
        path_times: ``FOLLOW_PATH``: (M,) [s] after ``time_offset``, ascending, first 0.
        path_positions: ``FOLLOW_PATH``: (M, 3) centers [m, graph frame]; path_quaternions: (M, 4) x, y, z, w.
        scale: ``MORPH``: (3,) factors along the object's own axes.
        color: ``RESTYLE``: (3,) RGB, 0..1.
    """

    kind: InterventionKind
    object_id: int = 0
    time_offset: float = 0.0
    body: BodySpec | None = None
    position: NDArray[np.float64] = field(default_factory=_zeros)
    quaternion: NDArray[np.float64] = field(default_factory=_identity)
    linear_velocity: NDArray[np.float64] = field(default_factory=_zeros)
    angular_velocity: NDArray[np.float64] = field(default_factory=_zeros)
    impulse: NDArray[np.float64] = field(default_factory=_zeros)
    point: NDArray[np.float64] = field(default_factory=_zeros)
    property: Property = Property.MASS
    value: float = 1.0
    value_is_factor: bool = False
    path_times: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    path_positions: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 3)))
    path_quaternions: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 4)))
    scale: NDArray[np.float64] = field(default_factory=lambda: np.ones(3))
    color: NDArray[np.float64] = field(default_factory=_zeros)

    @builtins.property  # the field named property hides the built-in in this class body
    def creates_body(self) -> bool:
        """True when a body that is not in the scene graph enters (``ADD``, or a pusher of its own)."""
        return self.kind == InterventionKind.ADD or (self.kind == InterventionKind.FOLLOW_PATH and self.object_id == 0)


@dataclass(frozen=True)
class Hypothesis:
    """A named list of interventions; the empty list is the factual future.

    Attributes:
        name: chosen by the caller, repeated in the answer.
        interventions: carried out at their time offsets.
    """

    name: str
    interventions: tuple[Intervention, ...] = ()


BATCH_KINDS = (InterventionKind.FOLLOW_PATH, InterventionKind.SET_VELOCITY, InterventionKind.APPLY_IMPULSE)
"""Kinds of action sequences that a batch can hold."""


@dataclass(frozen=True)
class ActionBatch:
    """K action sequences of one body, as arrays: one request of a sampling-based planner.

    Each means the same as a ``Hypothesis`` of ``common`` and then one ``FOLLOW_PATH``, or M ``SET_VELOCITY`` or
    M ``APPLY_IMPULSE`` interventions.

    Attributes:
        kind: one of ``BATCH_KINDS``.
        values: (K, M, 3) positions of the center [m, graph frame], linear velocities [m/s] or impulses [N s].
        times: (M,) [s] after ``time_offset``, ascending, first 0; the same for all K.
        object_id: of the body that acts; 0: a new pusher like ``body`` (``FOLLOW_PATH`` only).
        body: the new pusher; None: ``BodySpec()``.
        time_offset: [s] after the start of the rollout.
        quaternions: ``FOLLOW_PATH``: (K, M, 4) x, y, z, w, or (4,) the same for all.
        angular: ``SET_VELOCITY``: (K, M, 3) [rad/s]; None: 0.
        points: ``APPLY_IMPULSE``: (K, M, 3) offset from the center [m, graph axes], or (3,) the same for all.
        common: interventions that all K have besides.
        name: the hypotheses are named NAME/0 ... NAME/(K-1).
    """

    kind: InterventionKind
    values: NDArray[np.float64]
    times: NDArray[np.float64]
    object_id: int = 0
    body: BodySpec | None = None
    time_offset: float = 0.0
    quaternions: NDArray[np.float64] = field(default_factory=_identity)
    angular: NDArray[np.float64] | None = None
    points: NDArray[np.float64] = field(default_factory=_zeros)
    common: tuple[Intervention, ...] = ()
    name: str = "batch"

    def __len__(self) -> int:
        return len(self.values)

    @builtins.property
    def interventions_each(self) -> int:
        """Interventions of each of the K hypotheses."""
        return len(self.common) + (1 if self.kind == InterventionKind.FOLLOW_PATH else len(self.times))

    @cached_property
    def hypotheses(self) -> tuple[Hypothesis, ...]:
        """The K hypotheses that the batch stands for; expects a valid one (``validate_batch``)."""
        count, steps = self.values.shape[:2]
        if self.kind == InterventionKind.FOLLOW_PATH:
            quaternions = np.broadcast_to(self.quaternions, (count, steps, 4))
            body = self.body if self.body is not None or self.object_id else BodySpec()
            return tuple(
                Hypothesis(
                    f"{self.name}/{k}",
                    (
                        *self.common,
                        Intervention(
                            self.kind,
                            self.object_id,
                            self.time_offset,
                            body=body,
                            path_times=self.times,
                            path_positions=self.values[k],
                            path_quaternions=quaternions[k],
                        ),
                    ),
                )
                for k in range(count)
            )
        at = (self.time_offset + self.times).tolist()
        if self.kind == InterventionKind.SET_VELOCITY:
            second = np.zeros_like(self.values) if self.angular is None else self.angular
            names = ("linear_velocity", "angular_velocity")
        else:
            second = np.broadcast_to(self.points, self.values.shape)
            names = ("impulse", "point")
        return tuple(
            Hypothesis(
                f"{self.name}/{k}",
                (
                    *self.common,
                    *(
                        Intervention(
                            self.kind, self.object_id, at[m], **{names[0]: self.values[k, m], names[1]: second[k, m]}
                        )
                        for m in range(steps)
                    ),
                ),
            )
            for k in range(count)
        )


def path_batch(
    positions: NDArray[np.float64],
    times: Sequence[float] | NDArray[np.float64],
    body: BodySpec | None = None,
    *,
    quaternions: NDArray[np.float64] | None = None,
    object_id: int = 0,
    at_s: float = 0.0,
    name: str = "path",
) -> ActionBatch:
    """K paths (K, M, 3) [m] of one pusher (or of ``object_id``) over common times (M,) [s]."""
    return ActionBatch(
        InterventionKind.FOLLOW_PATH,
        np.asarray(positions, float),
        np.asarray(times, float),
        object_id,
        body if body is not None or object_id else BodySpec(),
        at_s,
        quaternions=_identity() if quaternions is None else np.asarray(quaternions, float),
        name=name,
    )


def velocity_batch(
    object_id: int,
    linear: NDArray[np.float64],
    times: Sequence[float] | NDArray[np.float64] = (0.0,),
    *,
    angular: NDArray[np.float64] | None = None,
    at_s: float = 0.0,
    name: str = "velocity",
) -> ActionBatch:
    """K sequences of velocities (K, M, 3) [m/s] (and angular ones [rad/s]) that an object is given."""
    turn = None if angular is None else np.asarray(angular, float)
    return ActionBatch(
        InterventionKind.SET_VELOCITY,
        np.asarray(linear, float),
        np.asarray(times, float),
        object_id,
        None,
        at_s,
        angular=turn,
        name=name,
    )


def impulse_batch(
    object_id: int,
    impulses: NDArray[np.float64],
    times: Sequence[float] | NDArray[np.float64] = (0.0,),
    *,
    points: NDArray[np.float64] | None = None,
    at_s: float = 0.0,
    name: str = "impulse",
) -> ActionBatch:
    """K sequences of impulses (K, M, 3) [N s] on an object, at an offset [m] from its center."""
    return ActionBatch(
        InterventionKind.APPLY_IMPULSE,
        np.asarray(impulses, float),
        np.asarray(times, float),
        object_id,
        None,
        at_s,
        points=_zeros() if points is None else np.asarray(points, float),
        name=name,
    )


def remove(object_id: int, at_s: float = 0.0) -> Intervention:
    """The object ceases to exist."""
    return Intervention(InterventionKind.REMOVE, object_id, at_s)


def add(body: BodySpec, at_s: float = 0.0) -> Intervention:
    """A free body enters."""
    return Intervention(InterventionKind.ADD, 0, at_s, body=body)


def set_pose(
    object_id: int, position: Sequence[float], quaternion: Sequence[float] = (0, 0, 0, 1), at_s: float = 0.0
) -> Intervention:
    """The object is placed at a pose [m, xyzw], at rest."""
    return Intervention(
        InterventionKind.SET_POSE,
        object_id,
        at_s,
        position=np.asarray(position, float),
        quaternion=np.asarray(quaternion, float),
    )


def set_velocity(
    object_id: int, linear: Sequence[float], angular: Sequence[float] = (0, 0, 0), at_s: float = 0.0
) -> Intervention:
    """The object gets a velocity [m/s, rad/s]."""
    return Intervention(
        InterventionKind.SET_VELOCITY,
        object_id,
        at_s,
        linear_velocity=np.asarray(linear, float),
        angular_velocity=np.asarray(angular, float),
    )


def apply_impulse(
    object_id: int, impulse: Sequence[float], point: Sequence[float] = (0, 0, 0), at_s: float = 0.0
) -> Intervention:
    """An impulse [N s] at an offset [m] from the object's center."""
    return Intervention(
        InterventionKind.APPLY_IMPULSE,
        object_id,
        at_s,
        impulse=np.asarray(impulse, float),
        point=np.asarray(point, float),
    )


def set_property(
    object_id: int, name: Property, value: float, *, factor: bool = False, at_s: float = 0.0
) -> Intervention:
    """A physical property becomes ``value``, or is multiplied by it."""
    return Intervention(
        InterventionKind.SET_PROPERTY, object_id, at_s, property=name, value=value, value_is_factor=factor
    )


def follow_path(
    times: Sequence[float],
    positions: Sequence[Sequence[float]],
    quaternions: Sequence[Sequence[float]] | None = None,
    *,
    object_id: int = 0,
    body: BodySpec | None = None,
    at_s: float = 0.0,
) -> Intervention:
    """A kinematic body moves along a path; ``object_id`` 0 makes a pusher of ``body``'s shape."""
    p = np.asarray(positions, float).reshape(-1, 3)
    q = np.tile(_identity(), (len(p), 1)) if quaternions is None else np.asarray(quaternions, float)
    return Intervention(
        InterventionKind.FOLLOW_PATH,
        object_id,
        at_s,
        body=body if body is not None or object_id else BodySpec(),
        path_times=np.asarray(times, float),
        path_positions=p,
        path_quaternions=q,
    )


def morph(object_id: int, scale: Sequence[float], at_s: float = 0.0) -> Intervention:
    """The object is scaled about its center along its own axes."""
    return Intervention(InterventionKind.MORPH, object_id, at_s, scale=np.asarray(scale, float))


def restyle(object_id: int, color: Sequence[float], at_s: float = 0.0) -> Intervention:
    """The object gets a color (0..1) in imagined images."""
    return Intervention(InterventionKind.RESTYLE, object_id, at_s, color=np.asarray(color, float))
