"""What is one solid of revolution, and what merely stands on another thing."""

import numpy as np
import pytest

from seen_objects import seen_frame
from wm_core.scene_graph import Shape
from wm_dynamics.mujoco.bodies import GeomDef
from wm_perception.lifting.cloud import make_cloud
from wm_perception.segmentation.one_axis import RevolutionSlices

GREEN, WHITE, RED = (0.1, 0.5, 0.2, 1.0), (0.9, 0.9, 0.88, 1.0), (0.8, 0.1, 0.1, 1.0)
EYE = (-0.7, 0.0, 0.5)


def cylinder(diameter, low, high, color=GREEN, place=(0.0, 0.0)):
    extents = np.array([diameter, diameter, high - low])
    return GeomDef(Shape.CYLINDER, extents, position=np.array([*place, 0.5 * (low + high)]), color=color)


def joined(parts, groups, eye=EYE):
    """Whether the segments that groups of parts make are one."""
    frame, which = seen_frame(parts, eye)
    labels = np.zeros_like(which)
    for label, group in enumerate(groups, start=1):
        labels[np.isin(which, np.asarray(group) + 1)] = label
    assert all((labels == k).sum() > 60 for k in (1, 2))
    return RevolutionSlices(make_cloud(frame, 1, 4.0), labels, 2).are_one(1, 2)


STEPPED = [
    cylinder(0.07, 0.0, 0.138),
    cylinder(0.058, 0.138, 0.15),
    cylinder(0.042, 0.15, 0.165),
    cylinder(0.026, 0.165, 0.205),
    cylinder(0.03, 0.205, 0.223, WHITE),
]


@pytest.mark.parametrize("eye", [EYE, (-0.5, 0.3, 0.4), (-0.6, -0.2, 0.75)])
@pytest.mark.parametrize("cut", [2, 3])
def test_a_stepped_bottle_is_one_thing_wherever_it_is_cut(cut, eye):
    assert joined(STEPPED, [range(cut), range(cut, 5)], eye)
    assert joined(STEPPED, [range(cut, 5), range(cut)], eye)


@pytest.mark.parametrize(
    "upper",
    [
        cylinder(0.04, 0.1, 0.16, GREEN, (0.0, 0.018)),
        cylinder(0.04, 0.1, 0.16, RED),
        cylinder(0.078, 0.1, 0.18),
        GeomDef(Shape.BOX, np.array([0.05, 0.05, 0.06]), position=np.array([0.0, 0.0, 0.13]), color=GREEN),
    ],
    ids=["beside the axis", "another color", "as wide", "a box"],
)
def test_what_stands_on_a_can_is_another_thing(upper):
    assert not joined([cylinder(0.08, 0.0, 0.1), upper], [[0], [1]])


def test_a_can_on_a_box_is_another_thing():
    box = GeomDef(Shape.BOX, np.array([0.09, 0.08, 0.07]), position=np.array([0.0, 0.0, 0.035]), color=GREEN)
    assert not joined([box, cylinder(0.05, 0.07, 0.15)], [[0], [1]])


def test_what_stands_beside_is_another_thing():
    assert not joined([cylinder(0.08, 0.0, 0.1), cylinder(0.04, 0.0, 0.12, GREEN, (0.0, 0.061))], [[0], [1]])
