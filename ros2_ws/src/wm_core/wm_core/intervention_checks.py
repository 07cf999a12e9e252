"""Whether interventions, hypotheses and batches can be carried out in a scene graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from wm_core.interventions import (
    BATCH_KINDS,
    ActionBatch,
    BodySpec,
    Hypothesis,
    Intervention,
    InterventionError,
    InterventionKind,
    Property,
    UnknownObjectError,
)
from wm_core.scene_graph import SceneGraph, Shape

# Limits beyond which a value is taken for a mistake, such as another unit. Chosen by hand, far beyond what a robot does
# at a table; the limits of wm_dynamics/validity.py lie above them. Larger ones let more mistakes reach the dynamics.
MAX_SPEED_M_S = 50.0
"""Largest component of a linear velocity [m/s]."""
MAX_ANGULAR_SPEED_RAD_S = 500.0
"""Largest component of an angular velocity [rad/s]."""
MAX_IMPULSE_N_S = 1.0e3
"""Largest component of an impulse [N s]."""
MAX_COORDINATE_M = 1.0e3
"""Largest coordinate [m] of poses and paths in the graph frame, to either side of its origin."""
MAX_POINT_M = 10.0
"""Largest coordinate [m] of the point that an impulse acts on."""
EXTENT_LIMITS_M = (1e-3, 10.0)
"""Least and largest full extent [m] of a new body along each of its axes."""
MASS_LIMITS_KG = (1e-6, 1e4)
"""Least and largest mass [kg]."""
MAX_FRICTION = 10.0
"""Largest coefficient of friction."""
SCALE_LIMITS = (0.1, 10.0)
"""Least and largest factor of a morph along each axis of the object."""

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


def _check_triple(where: str, name: str, value: NDArray[np.float64], low: float, high: float, unit: str = "") -> None:
    array = np.asarray(value)
    if array.shape != (3,) or not np.isfinite(array).all() or (array < low).any() or (array > high).any():
        raise InterventionError(f"{where}.{name}: got {array.tolist()}, expected each {low:g}..{high:g}{unit}")


def _check_body(where: str, body: BodySpec | None) -> None:
    if body is None:
        raise InterventionError(f"{where}.object: got none, expected the body that enters")
    if body.shape == Shape.CONVEX:
        raise InterventionError(f"{where}.object.shape: got CONVEX, expected BOX, SPHERE, CYLINDER or CAPSULE")
    _check_triple(where, "object.extents", body.extents, *EXTENT_LIMITS_M, " m")
    low, high = MASS_LIMITS_KG
    if body.mass is not None and not low <= body.mass <= high:
        raise InterventionError(f"{where}.object.mass: got {body.mass} kg, expected 1e-6..1e4")
    for name, value, high in (("friction", body.friction, MAX_FRICTION), ("restitution", body.restitution, 1.0)):
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


def _check_set_pose(intervention: Intervention, where: str) -> None:
    _check_vector(where, "pose.position", intervention.position, MAX_COORDINATE_M, "m", 3)
    _check_quaternions(where, "pose.orientation", intervention.quaternion)


def _check_set_velocity(intervention: Intervention, where: str) -> None:
    _check_vector(where, "twist.linear", intervention.linear_velocity, MAX_SPEED_M_S, "m/s", 3)
    _check_vector(where, "twist.angular", intervention.angular_velocity, MAX_ANGULAR_SPEED_RAD_S, "rad/s", 3)


def _check_apply_impulse(intervention: Intervention, where: str) -> None:
    _check_vector(where, "impulse", intervention.impulse, MAX_IMPULSE_N_S, "N s", 3)
    _check_vector(where, "point", intervention.point, MAX_POINT_M, "m", 3)


def _check_set_property(intervention: Intervention, where: str) -> None:
    if intervention.property not in _PROPERTIES:
        raise InterventionError(f"{where}.property: got {int(intervention.property)}, expected 0..{max(Property)}")
    low, high = MASS_LIMITS_KG if intervention.property == Property.MASS else (0.0, MAX_FRICTION)
    if not np.isfinite(intervention.value) or not low <= intervention.value <= high:
        raise InterventionError(f"{where}.value: got {intervention.value}, expected {low:g}..{high:g}")


def _check_follow_path(intervention: Intervention, where: str) -> None:
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


_FIELD_CHECKS: dict[InterventionKind, Callable[[Intervention, str], None]] = {
    InterventionKind.ADD: lambda given, where: _check_body(where, given.body),
    InterventionKind.SET_POSE: _check_set_pose,
    InterventionKind.SET_VELOCITY: _check_set_velocity,
    InterventionKind.APPLY_IMPULSE: _check_apply_impulse,
    InterventionKind.SET_PROPERTY: _check_set_property,
    InterventionKind.FOLLOW_PATH: _check_follow_path,
    InterventionKind.MORPH: lambda given, where: _check_triple(where, "scale", given.scale, *SCALE_LIMITS),
    InterventionKind.RESTYLE: lambda given, where: _check_triple(where, "color", given.color, 0.0, 1.0),
}
"""Checks of a kind's own fields; the other kinds (``REMOVE``) have none."""


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
    if kind in _FIELD_CHECKS:
        _FIELD_CHECKS[kind](intervention, where)


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
