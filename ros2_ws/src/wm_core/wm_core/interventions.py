"""Interventions (Pearl's do operator) and hypotheses, with validation against a scene graph."""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum

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

    Units: extents [m, full], velocities [m/s, rad/s], mass [kg] (None: prior density times volume), colour 0..1.
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
    """An impulse [N s] at an offset [m] from the object's centre."""
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
    """The object is scaled about its centre along its own axes."""
    return Intervention(InterventionKind.MORPH, object_id, at_s, scale=np.asarray(scale, float))


def restyle(object_id: int, color: Sequence[float], at_s: float = 0.0) -> Intervention:
    """The object gets a colour (0..1) in imagined images."""
    return Intervention(InterventionKind.RESTYLE, object_id, at_s, color=np.asarray(color, float))


# Bounds beyond which a request is a mistake rather than a question (a tabletop robot's world).
MAX_SPEED_M_S = 50.0
MAX_ANGULAR_SPEED_RAD_S = 500.0
MAX_IMPULSE_N_S = 1.0e3
MAX_COORDINATE_M = 1.0e3


def _check_vector(where: str, name: str, value: NDArray[np.float64], limit: float, unit: str) -> None:
    if not np.isfinite(value).all() or (np.abs(value) > limit).any():
        raise InterventionError(
            f"{where}.{name}: got {np.asarray(value).tolist()}, expected finite, within +-{limit:g} {unit}"
        )


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
    _check_vector(where, "object.pose.position", body.position, MAX_COORDINATE_M, "m")
    _check_vector(where, "object.twist.linear", body.linear_velocity, MAX_SPEED_M_S, "m/s")
    _check_vector(where, "object.twist.angular", body.angular_velocity, MAX_ANGULAR_SPEED_RAD_S, "rad/s")


def validate_intervention(intervention: Intervention, scene: SceneGraph, horizon_s: float, where: str) -> None:
    """Check one intervention against the scene it applies to.

    Args:
        where: how to name the intervention in an error, for example ``hypotheses[2].interventions[0]``.

    Raises:
        UnknownObjectError: the id is not in the graph.
        InterventionError: a field is out of its range; the message names it, what was found and expected.
    """
    kind = intervention.kind
    if kind not in set(InterventionKind):
        raise InterventionError(f"{where}.kind: got {int(kind)}, expected 0..{max(InterventionKind)}")
    if not np.isfinite(intervention.time_offset) or not 0.0 <= intervention.time_offset <= horizon_s:
        raise InterventionError(
            f"{where}.time_offset: got {intervention.time_offset} s, expected 0..{horizon_s:g} (the horizon)"
        )
    if not intervention.creates_body:
        try:
            row = scene.index(intervention.object_id)
        except KeyError as error:
            raise UnknownObjectError(f"{where}.object_id: {error.args[0]}") from None
        immovable = (
            InterventionKind.SET_VELOCITY,
            InterventionKind.APPLY_IMPULSE,
            InterventionKind.FOLLOW_PATH,
        )
        if scene.is_static[row] and kind in immovable:
            raise InterventionError(
                f"{where}.object_id: {intervention.object_id} ({scene.class_names[row]}) is static, "
                f"expected a movable object for {kind.name}"
            )
    if kind == InterventionKind.ADD:
        _check_body(where, intervention.body)
    elif kind == InterventionKind.SET_POSE:
        _check_vector(where, "pose.position", intervention.position, MAX_COORDINATE_M, "m")
        _check_vector(where, "pose.orientation", intervention.quaternion, 1.0 + 1e-3, "")
    elif kind == InterventionKind.SET_VELOCITY:
        _check_vector(where, "twist.linear", intervention.linear_velocity, MAX_SPEED_M_S, "m/s")
        _check_vector(where, "twist.angular", intervention.angular_velocity, MAX_ANGULAR_SPEED_RAD_S, "rad/s")
    elif kind == InterventionKind.APPLY_IMPULSE:
        _check_vector(where, "impulse", intervention.impulse, MAX_IMPULSE_N_S, "N s")
        _check_vector(where, "point", intervention.point, 10.0, "m")
    elif kind == InterventionKind.SET_PROPERTY:
        if intervention.property not in set(Property):
            raise InterventionError(f"{where}.property: got {int(intervention.property)}, expected 0..{max(Property)}")
        low, high = (1e-6, 1e4) if intervention.property == Property.MASS else (0.0, 10.0)
        if not np.isfinite(intervention.value) or not low <= intervention.value <= high:
            raise InterventionError(f"{where}.value: got {intervention.value}, expected {low:g}..{high:g}")
    elif kind == InterventionKind.FOLLOW_PATH:
        times, count = intervention.path_times, len(intervention.path_times)
        if count < 1 or len(intervention.path_positions) != count or len(intervention.path_quaternions) != count:
            raise InterventionError(
                f"{where}.path: got {count} times and {len(intervention.path_positions)} poses, "
                "expected as many of each, at least 1"
            )
        if not np.isfinite(times).all() or times[0] != 0.0 or (np.diff(times) <= 0.0).any():
            raise InterventionError(f"{where}.path_times: got {times.tolist()[:8]}, expected ascending from 0")
        _check_vector(where, "path.position", intervention.path_positions, MAX_COORDINATE_M, "m")
        _check_vector(where, "path.orientation", intervention.path_quaternions, 1.0 + 1e-3, "")
        if intervention.object_id == 0:
            _check_body(where, intervention.body)
    elif kind == InterventionKind.MORPH:
        scale = intervention.scale
        if not np.isfinite(scale).all() or (scale < 0.1).any() or (scale > 10.0).any():
            raise InterventionError(f"{where}.scale: got {scale.tolist()}, expected each 0.1..10")
    elif kind == InterventionKind.RESTYLE:
        color = intervention.color
        if not np.isfinite(color).all() or (color < 0.0).any() or (color > 1.0).any():
            raise InterventionError(f"{where}.color: got {color.tolist()}, expected each 0..1")


def validate_hypotheses(hypotheses: Sequence[Hypothesis], scene: SceneGraph, horizon_s: float) -> None:
    """Check every hypothesis; raises as ``validate_intervention``, and on a name given twice."""
    names: set[str] = set()
    for k, hypothesis in enumerate(hypotheses):
        if hypothesis.name in names:
            raise InterventionError(f"hypotheses[{k}].name: got {hypothesis.name!r} twice, expected unique names")
        names.add(hypothesis.name)
        for j, intervention in enumerate(hypothesis.interventions):
            validate_intervention(intervention, scene, horizon_s, f"hypotheses[{k}].interventions[{j}]")
