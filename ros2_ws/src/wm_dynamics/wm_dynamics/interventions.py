"""The meaning of interventions for all backends: ``apply`` acts on a handle of a body that each backend implements."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike

from wm_core.interventions import BodySpec, Intervention, InterventionKind, Property
from wm_core.rotations import quaternion_to_matrix
from wm_dynamics.mujoco.bodies import Array, BodyDef, GeomDef, lowest_point, scaled_body

_FIELDS = {Property.MASS: "mass", Property.FRICTION: "friction", Property.RESTITUTION: "restitution"}


@dataclass(frozen=True)
class MemberIntervention(Intervention):
    """An intervention on a member of a body of several objects (``wm_dynamics.joining``), as the body has it.

    Attributes:
        arm: (3,) from the body's origin to the member's center, in the body's axes [m]: the velocity that is set is
            that of the member's center, and the point of an impulse is an offset from there.
        gain, more: a property of the body becomes ``gain`` times what it was, plus ``more``.
        geoms: ``MORPH``: the body's parts from now on; its mass becomes ``gain`` times what it was.
        keeps_foot: ``MORPH``: its lowest point stays at its height, else its origin.
    """

    arm: Array = field(default_factory=lambda: np.zeros(3))
    gain: float = 1.0
    more: float = 0.0
    geoms: tuple[GeomDef, ...] = ()
    keeps_foot: bool = False


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
        if isinstance(do, MemberIntervention):
            handle.set_shape(*_reshaped(handle.body, do, handle.quaternion))
        else:
            handle.set_shape(*morphed(handle.body, do.scale, handle.quaternion))
    elif handle.kinematic:
        return
    elif kind == InterventionKind.SET_POSE:
        handle.place(do.position, do.quaternion)
    elif handle.body.is_static:
        return
    elif kind == InterventionKind.SET_VELOCITY:
        # v of the origin = v of the center - w x arm
        linear = do.linear_velocity - np.cross(do.angular_velocity, _arm(do, handle))
        handle.set_velocity(linear, do.angular_velocity)
    elif kind == InterventionKind.APPLY_IMPULSE:
        handle.push(do.impulse, do.point + _arm(do, handle))


def _arm(do: Intervention, handle: BodyHandle) -> Array:
    """(3,) from the body's origin to what the intervention is on [m], world axes."""
    if not isinstance(do, MemberIntervention):
        return np.zeros(3)
    return np.asarray(quaternion_to_matrix(handle.quaternion) @ do.arm)


def _reshaped(body: BodyDef, do: MemberIntervention, quaternion: ArrayLike) -> tuple[BodyDef, float]:
    """The body with other parts, and how far it has to rise [m]."""
    new = replace(body, geoms=do.geoms, mass=do.gain * body.mass)
    return new, lowest_point(body, quaternion) - lowest_point(new, quaternion) if do.keeps_foot else 0.0


def with_property(body: BodyDef, do: Intervention) -> BodyDef:
    """The body after a SET_PROPERTY: a value, or a factor of what it was; restitution within 0..1."""
    name = _FIELDS[do.property]
    if isinstance(do, MemberIntervention):
        value = do.gain * getattr(body, name) + do.more
    else:
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
