"""Interventions (Pearl's do operator) and hypotheses, with validation against a scene graph."""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from wm_core.scene_graph import (
    PRIOR_DENSITY_KG_M3,
    PRIOR_FRICTION,
    PRIOR_RESTITUTION,
    SceneGraph,
    Shape,
    shape_volume,
)


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

    Units: extents [m, full], velocities [m/s, rad/s], mass [kg] (None: prior density times volume), color 0..1.
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
    """One change to the world. Fields that a kind does not name are ignored; units as in wm_msgs/Intervention."""

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
    """A named list of interventions; the empty list is the factual future."""

    name: str
    interventions: tuple[Intervention, ...] = ()


BATCH_KINDS = (InterventionKind.FOLLOW_PATH, InterventionKind.SET_VELOCITY, InterventionKind.APPLY_IMPULSE)
"""Kinds of action sequences that a batch can hold."""


@dataclass(frozen=True)
class ActionBatch:
    """K action sequences of one body, as arrays: what a sampling planner asks for in one call.

    Each means the same as a ``Hypothesis`` of ``common`` and then one ``FOLLOW_PATH``, or M ``SET_VELOCITY`` or
    M ``APPLY_IMPULSE`` interventions.

    Attributes:
        kind: one of ``BATCH_KINDS``.
        values: (K, M, 3) positions of the center [m, graph frame], linear velocities [m/s] or impulses [N s].
        times: (M,) [s] after ``time_offset``, ascending, first 0; the same for all K.
        object_id: who acts; 0: a new pusher like ``body`` (``FOLLOW_PATH`` only).
        body: of the new pusher.
        time_offset: [s] after the start of the rollout.
        quaternions: ``FOLLOW_PATH``: (K, M, 4) x, y, z, w, or (4,) the same for all.
        angular: ``SET_VELOCITY``: (K, M, 3) [rad/s]; None: 0.
        points: ``APPLY_IMPULSE``: (K, M, 3) offset from the center [m, graph axes], or (3,) the same for all.
        common: what all K have besides.
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


# Bounds beyond which a request is a mistake rather than a question (a tabletop robot's world).
MAX_SPEED_M_S = 50.0
MAX_ANGULAR_SPEED_RAD_S = 500.0
MAX_IMPULSE_N_S = 1.0e3
MAX_COORDINATE_M = 1.0e3
MAX_POINT_M = 10.0


_KINDS = frozenset(InterventionKind)
_PROPERTIES = frozenset(Property)
_IMMOVABLE = (InterventionKind.SET_VELOCITY, InterventionKind.APPLY_IMPULSE, InterventionKind.FOLLOW_PATH)
_SHOWN = 8
"""Numbers of an array that an error shows at most."""


def _check_vector(
    where: str, name: str, value: NDArray[np.float64], limit: float, unit: str, columns: int | None = None
) -> None:
    array = np.asarray(value, dtype=np.float64)
    if columns is not None and (not array.ndim or array.shape[-1] != columns):
        raise InterventionError(f"{where}.{name}: got shape {array.shape}, expected {columns} numbers in each row")
    # One pass: a NaN makes the comparison false.
    if not (np.abs(array) <= limit).all():
        shown = array.tolist() if array.size <= _SHOWN else _offending(array, limit)
        raise InterventionError(f"{where}.{name}: got {shown}, expected finite, within +-{limit:g} {unit}")


def _offending(array: NDArray[np.float64], limit: float) -> str:
    """The first row that is out of range, and which one it is."""
    at = np.argwhere(~(np.abs(array) <= limit))[0]
    return f"{array[tuple(at[:-1])].tolist()} at {at[:-1].tolist()}"


def _check_quaternions(where: str, name: str, value: NDArray[np.float64]) -> None:
    _check_vector(where, name, value, 1.0 + 1e-3, "", 4)


def _check_path_times(where: str, times: NDArray[np.float64]) -> None:
    if not np.isfinite(times).all() or times[0] != 0.0 or (np.diff(times) <= 0.0).any():
        raise InterventionError(f"{where}: got {times.tolist()[:_SHOWN]}, expected ascending from 0")


def _check_body(where: str, body: BodySpec | None) -> None:
    if body is None:
        raise InterventionError(f"{where}.object: got none, expected the body that enters")
    if body.shape == Shape.CONVEX:
        raise InterventionError(f"{where}.object.shape: got CONVEX, expected BOX, SPHERE, CYLINDER or CAPSULE")
    extents = np.asarray(body.extents)
    if not np.isfinite(extents).all() or (extents < 1e-3).any() or (extents > 10.0).any():
        raise InterventionError(f"{where}.object.extents: got {extents.tolist()}, expected each 0.001..10 m")
    if body.mass is not None and not 1e-6 <= body.mass <= 1e4:
        raise InterventionError(f"{where}.object.mass: got {body.mass} kg, expected 1e-6..1e4")
    for name, value, high in (("friction", body.friction, 10.0), ("restitution", body.restitution, 1.0)):
        if not 0.0 <= value <= high:
            raise InterventionError(f"{where}.object.{name}: got {value}, expected 0..{high:g}")
    _check_vector(where, "object.pose.position", body.position, MAX_COORDINATE_M, "m", 3)
    _check_quaternions(where, "object.pose.orientation", body.quaternion)
    _check_vector(where, "object.twist.linear", body.linear_velocity, MAX_SPEED_M_S, "m/s", 3)
    _check_vector(where, "object.twist.angular", body.angular_velocity, MAX_ANGULAR_SPEED_RAD_S, "rad/s", 3)


def _check_target(object_id: int, kind: InterventionKind, scene: SceneGraph, where: str) -> None:
    try:
        row = scene.index(object_id)
    except KeyError as error:
        raise UnknownObjectError(f"{where}.object_id: {error.args[0]}") from None
    if kind in _IMMOVABLE and scene.is_static[row]:
        raise InterventionError(
            f"{where}.object_id: {object_id} ({scene.class_names[row]}) is static, "
            f"expected a movable object for {kind.name}"
        )


def validate_intervention(intervention: Intervention, scene: SceneGraph, horizon_s: float, where: str) -> None:
    """Check one intervention against the scene it applies to.

    Args:
        where: how to name the intervention in an error, for example ``hypotheses[2].interventions[0]``.

    Raises:
        UnknownObjectError: the id is not in the graph.
        InterventionError: a field is out of its range; the message names it, what was found and expected.
    """
    kind = intervention.kind
    if kind not in _KINDS:
        raise InterventionError(f"{where}.kind: got {int(kind)}, expected 0..{max(InterventionKind)}")
    if not 0.0 <= intervention.time_offset <= horizon_s:
        raise InterventionError(
            f"{where}.time_offset: got {intervention.time_offset} s, expected 0..{horizon_s:g} (the horizon)"
        )
    if not intervention.creates_body:
        _check_target(intervention.object_id, kind, scene, where)
    if kind == InterventionKind.ADD:
        _check_body(where, intervention.body)
    elif kind == InterventionKind.SET_POSE:
        _check_vector(where, "pose.position", intervention.position, MAX_COORDINATE_M, "m", 3)
        _check_quaternions(where, "pose.orientation", intervention.quaternion)
    elif kind == InterventionKind.SET_VELOCITY:
        _check_vector(where, "twist.linear", intervention.linear_velocity, MAX_SPEED_M_S, "m/s", 3)
        _check_vector(where, "twist.angular", intervention.angular_velocity, MAX_ANGULAR_SPEED_RAD_S, "rad/s", 3)
    elif kind == InterventionKind.APPLY_IMPULSE:
        _check_vector(where, "impulse", intervention.impulse, MAX_IMPULSE_N_S, "N s", 3)
        _check_vector(where, "point", intervention.point, MAX_POINT_M, "m", 3)
    elif kind == InterventionKind.SET_PROPERTY:
        if intervention.property not in _PROPERTIES:
            raise InterventionError(f"{where}.property: got {int(intervention.property)}, expected 0..{max(Property)}")
        low, high = (1e-6, 1e4) if intervention.property == Property.MASS else (0.0, 10.0)
        if not np.isfinite(intervention.value) or not low <= intervention.value <= high:
            raise InterventionError(f"{where}.value: got {intervention.value}, expected {low:g}..{high:g}")
    elif kind == InterventionKind.FOLLOW_PATH:
        count = len(intervention.path_times)
        if count < 1 or len(intervention.path_positions) != count or len(intervention.path_quaternions) != count:
            raise InterventionError(
                f"{where}.path: got {count} times and {len(intervention.path_positions)} poses, "
                "expected as many of each, at least 1"
            )
        _check_path_times(f"{where}.path_times", intervention.path_times)
        _check_vector(where, "path.position", intervention.path_positions, MAX_COORDINATE_M, "m", 3)
        _check_quaternions(where, "path.orientation", intervention.path_quaternions)
        if intervention.object_id == 0:
            _check_body(where, intervention.body)
    elif kind == InterventionKind.MORPH:
        scale = np.asarray(intervention.scale)
        if scale.shape != (3,) or not np.isfinite(scale).all() or (scale < 0.1).any() or (scale > 10.0).any():
            raise InterventionError(f"{where}.scale: got {scale.tolist()}, expected each 0.1..10")
    elif kind == InterventionKind.RESTYLE:
        color = np.asarray(intervention.color)
        if color.shape != (3,) or not np.isfinite(color).all() or (color < 0.0).any() or (color > 1.0).any():
            raise InterventionError(f"{where}.color: got {color.tolist()}, expected each 0..1")


def validate_batch(batch: ActionBatch, scene: SceneGraph, horizon_s: float, where: str) -> None:
    """Check K action sequences at once; costs no more for many than for one.

    Raises:
        UnknownObjectError, InterventionError: as ``validate_intervention``; ``where`` is e.g. ``batches[0]``.
    """
    if batch.kind not in BATCH_KINDS:
        known = ", ".join(k.name for k in BATCH_KINDS)
        raise InterventionError(f"{where}.kind: got {int(batch.kind)}, expected {known}")
    times, values = np.asarray(batch.times), np.asarray(batch.values)
    if times.ndim != 1 or not len(times):
        raise InterventionError(f"{where}.times: got shape {times.shape}, expected at least one time")
    _check_path_times(f"{where}.times", times)
    if values.ndim != 3 or values.shape[1:] != (len(times), 3) or not len(values):
        raise InterventionError(
            f"{where}.values: got shape {values.shape}, expected (K, {len(times)}, 3) with K >= 1 (count, times, x y z)"
        )
    path = batch.kind == InterventionKind.FOLLOW_PATH
    last = batch.time_offset + (0.0 if path else float(times[-1]))
    if not (batch.time_offset >= 0.0 and last <= horizon_s * (1.0 + 1e-6)):
        raise InterventionError(
            f"{where}.time_offset: got {batch.time_offset:g} s and times up to {times[-1]:g} s later, "
            f"expected 0..{horizon_s:g} (the horizon)"
        )
    if path and batch.object_id == 0:
        _check_body(where, batch.body if batch.body is not None else BodySpec())
    else:
        _check_target(batch.object_id, batch.kind, scene, where)
    shape = values.shape[:2]
    if path:
        _check_vector(where, "values", values, MAX_COORDINATE_M, "m")
        if np.shape(batch.quaternions) not in ((4,), (*shape, 4)):
            raise InterventionError(
                f"{where}.quaternions: got shape {np.shape(batch.quaternions)}, expected (4,) or {(*shape, 4)}"
            )
        _check_quaternions(where, "quaternions", batch.quaternions)
    elif batch.kind == InterventionKind.SET_VELOCITY:
        _check_vector(where, "values", values, MAX_SPEED_M_S, "m/s")
        if batch.angular is not None:
            if np.shape(batch.angular) != values.shape:
                raise InterventionError(
                    f"{where}.angular: got shape {np.shape(batch.angular)}, expected {values.shape} or none"
                )
            _check_vector(where, "angular", batch.angular, MAX_ANGULAR_SPEED_RAD_S, "rad/s")
    else:
        _check_vector(where, "values", values, MAX_IMPULSE_N_S, "N s")
        if np.shape(batch.points) not in ((3,), values.shape):
            raise InterventionError(
                f"{where}.points: got shape {np.shape(batch.points)}, expected (3,) or {values.shape}"
            )
        _check_vector(where, "points", batch.points, MAX_POINT_M, "m")
    for j, intervention in enumerate(batch.common):
        validate_intervention(intervention, scene, horizon_s, f"{where}.common[{j}]")


def validate_hypotheses(
    hypotheses: Sequence[Hypothesis],
    scene: SceneGraph,
    horizon_s: float,
    batches: Sequence[ActionBatch] = (),
) -> None:
    """Check every hypothesis and batch; raises as ``validate_intervention``, and on a name given twice."""
    names: set[str] = set()
    for k, hypothesis in enumerate(hypotheses):
        if hypothesis.name in names:
            raise InterventionError(f"hypotheses[{k}].name: got {hypothesis.name!r} twice, expected unique names")
        names.add(hypothesis.name)
        for j, intervention in enumerate(hypothesis.interventions):
            validate_intervention(intervention, scene, horizon_s, f"hypotheses[{k}].interventions[{j}]")
    prefixes: set[str] = set()
    for k, batch in enumerate(batches):
        validate_batch(batch, scene, horizon_s, f"batches[{k}]")
        if batch.name in prefixes or not names.isdisjoint(h.name for h in batch.hypotheses):
            raise InterventionError(f"batches[{k}].name: got {batch.name!r} twice, expected unique names")
        prefixes.add(batch.name)
