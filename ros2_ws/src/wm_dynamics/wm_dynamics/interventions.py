"""The meaning of interventions for all backends: ``apply`` acts on a handle of a body that each backend implements."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike

from wm_core.interventions import BodySpec, Intervention, InterventionKind, Property
from wm_dynamics.mujoco.bodies import Array, BodyDef, lowest_point, scaled_body

_FIELDS = {Property.MASS: "mass", Property.FRICTION: "friction", Property.RESTITUTION: "restitution"}


class BodyHandle(Protocol):
    """One body of one future at one instant."""

    @property
    def present(self) -> bool:
        """Whether it exists."""
        ...

    @property
    def kinematic(self) -> bool:
        """Whether it follows a path."""
        ...

    @property
    def body(self) -> BodyDef:
        """Its definition as it is now."""
        ...

    @property
    def quaternion(self) -> ArrayLike:
        """(4,) xyzw, of the body frame in world axes."""
        ...

    def add(self, spec: BodySpec) -> None:
        """Bring it in, at the pose and with the velocities of ``spec``; what it overlaps moves apart or wakes."""
        ...

    def follow(self, path: Intervention) -> None:
        """Bring it in where it is absent; from now on it is kinematic, on the path of this intervention."""
        ...

    def remove(self) -> None:
        """It no longer exists."""
        ...

    def place(self, position: ArrayLike, quaternion: ArrayLike) -> None:
        """Put it elsewhere, at rest: position (3,) [m], quaternion (4,) xyzw."""
        ...

    def set_velocity(self, linear: Array, angular: Array) -> None:
        """Velocities (3,) of the body frame's origin [m/s] and of its turning [rad/s], world axes."""
        ...

    def push(self, impulse: Array, point: Array) -> None:
        """An impulse (3,) [N s] at an offset (3,) [m] from the body frame's origin, world axes."""
        ...

    def set_property(self, which: Property, body: BodyDef) -> None:
        """Adopt one property of ``body``, which is the definition with the new value."""
        ...

    def set_shape(self, body: BodyDef, rise_m: float) -> None:
        """Adopt the shape of ``body``, and move up by ``rise_m`` [m]."""
        ...


def apply(do: Intervention, handle: BodyHandle) -> None:
    """Carry an intervention out now, whatever its time offset.

    On a body that does not exist only interventions that bring it in have an effect; a kinematic body stays on its
    path, a static one has no velocity. RESTYLE, ATTACH and the like change nothing here.
    """
    kind = do.kind
    if kind == InterventionKind.ADD and do.body is not None:
        handle.add(do.body)
    elif kind == InterventionKind.FOLLOW_PATH:
        handle.follow(do)
    elif not handle.present:
        return
    elif kind == InterventionKind.REMOVE:
        handle.remove()
    elif kind == InterventionKind.SET_PROPERTY:
        handle.set_property(do.property, with_property(handle.body, do))
    elif kind == InterventionKind.MORPH:
        handle.set_shape(*morphed(handle.body, do.scale, handle.quaternion))
    elif handle.kinematic:
        return
    elif kind == InterventionKind.SET_POSE:
        handle.place(do.position, do.quaternion)
    elif handle.body.is_static:
        return
    elif kind == InterventionKind.SET_VELOCITY:
        handle.set_velocity(do.linear_velocity, do.angular_velocity)
    elif kind == InterventionKind.APPLY_IMPULSE:
        handle.push(do.impulse, do.point)


def with_property(body: BodyDef, do: Intervention) -> BodyDef:
    """The body after a SET_PROPERTY: a value, or a factor of what it was; restitution within 0..1."""
    name = _FIELDS[do.property]
    value = do.value * getattr(body, name) if do.value_is_factor else do.value
    if do.property == Property.RESTITUTION:
        value = float(np.clip(value, 0.0, 1.0))
    return replace(body, **{name: float(value)})  # type: ignore[arg-type]


def morphed(body: BodyDef, scale: ArrayLike, quaternion: ArrayLike) -> tuple[BodyDef, float]:
    """The body scaled about its center, and how far it has to rise [m].

    What stands on a support still stands on it: its lowest point stays where it is. A support keeps its top, and its
    mass, which counts for nothing.
    """
    new = scaled_body(body, scale)
    if not body.is_static:
        return new, lowest_point(body, quaternion) - lowest_point(new, quaternion)
    x, y, z, w = np.asarray(quaternion, dtype=np.float64).tolist()
    upside_down = np.array([w, -z, y, -x])  # turned by pi about x
    return replace(new, mass=body.mass), lowest_point(new, upside_down) - lowest_point(body, upside_down)
