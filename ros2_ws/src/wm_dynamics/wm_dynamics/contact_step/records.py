"""The fields of bodies and pairs in the contact step: names, shapes, and rows in the tiles of the kernel.

Shapes are without the last axis (bodies or pairs); rows of a tile hold one number for each of sixteen bodies or pairs.
SI units; world axes unless a formula says otherwise.
"""

from __future__ import annotations

from math import prod

from wm_dynamics.contact_step.body_tables import PARAMETERS, PLANE_ROWS, ROWS

POINTS = 4
"""Contacts of a body with the surface beneath it, and of a pair."""
FEATURES = 10
"""Inputs of the network for each contact."""
WIDTH = 16
"""Units of each of its hidden layers."""
LAW = 8
"""Its outputs."""
SWEEPS = 8
"""Jacobi sweeps over the contacts. Like the sizes above, it is that of the trained network."""

_ONE, _VECTOR, _MATRIX, _EACH, _VECTORS = (1,), (3, 1), (3, 3, 1), (POINTS,), (3, POINTS)


class Record:
    """Names of fields with their shapes and first rows; ``record.name`` is the first row of a field.

    Attributes:
        shapes: by name; a field that is a record itself has that record instead.
        row_count: rows in all.
    """

    def __init__(self, **shapes: tuple[int, ...] | Record) -> None:
        self.shapes = shapes
        self.row_count = 0
        for name, shape in shapes.items():
            setattr(self, name, self.row_count)
            self.row_count += shape.row_count if isinstance(shape, Record) else prod(shape)

    def __getattr__(self, name: str) -> int:
        raise AttributeError(name)


_OF_PAIRS: dict[str, tuple[int, ...]] = {
    "position": _VECTOR, "rotation": _MATRIX, "center": _VECTOR, "half": _VECTOR, "rounding": _ONE, "cylinder": _ONE,
    "inverse_mass": _ONE, "inverse": _MATRIX, "friction": _ONE, "restitution": _ONE, "linear": _VECTOR,
    "angular": _VECTOR, "falls": _ONE,
}  # fmt: skip
SIDE = Record(**_OF_PAIRS)
"""What a pair reads of either body; comes first in a body's rows, so that it is copied in one piece."""
TABLE = SIDE.row_count
BODY = Record(
    **_OF_PAIRS,
    quaternion=(4, 1), inertia=_MATRIX, inverse_inertia=_MATRIX, rims=(4, 1), rolling=_ONE, torsion=_ONE,
    plane=(PLANE_ROWS, 1), slack=_ONE, is_hull=_ONE, hull_points=_VECTORS, hull_middle=_VECTOR,
    world_inertia=_MATRIX, start_square=_ONE, arm=_VECTORS, gap=_EACH, least_gap=_ONE, approach=_EACH, slip=(2, POINTS),
    effective_inverse_mass=_EACH, effective_inverse_mass_slip=_EACH, near=_EACH, count=_ONE, near_sum=_ONE,
    on_ground=_ONE, crowd=_ONE, pairs=_ONE, held_by=_ONE, weight=_VECTOR, load=_VECTOR, at=(2, 1), mass_scale=_ONE,
    features=(FEATURES, POINTS), law=(LAW, POINTS), target_velocity=_EACH, share=_EACH, friction_gain=_EACH, mu=_EACH,
    part=_EACH, whole=_EACH, slide=_EACH, push=_EACH, rubbing=(2, POINTS), moving=(6, 1), square=_ONE, struck=_ONE,
    limit=_ONE, position_next=_VECTOR, quaternion_next=(4, 1), linear_next=_VECTOR, angular_next=_VECTOR, impulse=_ONE,
    deviation=(2, 1),
)  # fmt: skip
PAIR = Record(
    a=SIDE, b=SIDE, slack=_ONE, gap=_EACH, least_gap=_ONE, normal=_VECTOR, arm_a=_VECTORS, arm_b=_VECTORS,
    approach=_EACH, slip=_VECTORS, effective_inverse_mass_a=_EACH, effective_inverse_mass_b=_EACH,
    effective_inverse_mass_slip_a=_EACH, effective_inverse_mass_slip_b=_EACH, near=_EACH, near_sum=_ONE, beside=_ONE,
    steep=_ONE, above_a=_ONE, above_b=_ONE, crowd_a=_ONE, crowd_b=_ONE, pairs_a=_ONE, pairs_b=_ONE, through=_ONE,
    at_a=(2, 1), at_b=(2, 1), mass_scale_a=_ONE, mass_scale_b=_ONE, features=(FEATURES, POINTS), law=(LAW, POINTS),
    target_velocity=_EACH, share=_EACH, friction_gain=_EACH, mu=_EACH, part=_EACH, whole=_EACH, slide=_EACH,
    push=_EACH, rubbing=_VECTORS, moving_a=(6, 1), moving_b=(6, 1), respond_a=(6, 1), respond_b=(6, 1), impulse=_ONE,
    square=_ONE, given_a=_ONE, given_b=_ONE,
)  # fmt: skip
WEIGHTS = Record(
    first=(WIDTH, FEATURES), first_bias=(WIDTH, 1), second=(WIDTH, WIDTH), second_bias=(WIDTH, 1), last=(LAW, WIDTH),
    last_bias=(LAW, 1), sweeps=(SWEEPS, 4), floor=(2,), scatter=(1,),
)  # fmt: skip
"""The weights in one array of float32; of the sweeps and of the floor their exponentials."""
PARAMETER_TO_ROW: tuple[int, ...] = tuple(
    getattr(BODY, name) + i for name, size in PARAMETERS.items() for i in range(size)
)
"""Row of the body's tile of each row of the parameter table."""
assert [ROWS[name].start for name in PARAMETERS] == sorted(ROWS[name].start for name in PARAMETERS)
