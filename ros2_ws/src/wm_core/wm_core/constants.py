"""Physical constants and thresholds of events, each with its source; where two consumers differ, both are named."""

import numpy as np

GRAVITY_M_S2 = 9.81
"""Standard gravity (9.80665, CGPM 1901), rounded as in MuJoCo's default."""

TOPPLE_ANGLE_RAD = np.pi / 4.0
"""An object that has turned by more than this from how it stood has toppled: beyond it a cube falls on another face."""

IMAGINED_FALL_DROP_M = 0.02
"""A fall is a drop of the lowest point by at least this; toppling over is none, as its lowest point stays."""
IMAGINED_FALL_SPEED_M_S = 0.3
"""... at this speed, half of what free fall over ``IMAGINED_FALL_DROP_M`` gives (0.63 m/s)."""
SEEN_FALL_SPEED_M_S = 0.45
"""The same of tracked objects, whose velocities are uncertain by 0.1 m/s (docs/perception_bench.md)."""

IMAGINED_REST_SPEED_M_S = 0.03
"""Below this an imagined object is at rest, ..."""
IMAGINED_REST_DURATION_S = 0.1
"""... if for at least this time: six steps of the contact network."""
TRACKED_REST_SPEED_M_S = 0.04
"""Below this a tracked object is at rest, ..."""
TRACKED_REST_TIME_S = 0.3
"""... if over this time: about five frames at 15 Hz."""

SIMULATED_CONTACT_GAP_S = 0.04
"""Air time below which two contacts of a pair in MuJoCo count as one: one contact lasts 30 ms (mujoco/world.py)."""
IMAGINED_CONTACT_GAP_STEPS = 2
"""Steps of 1/60 s without touch that two touches of a pair may have between them and still be one (33 ms)."""

WORKSPACE_MARGIN_M = 0.05
"""How far a scene's workspace reaches beyond its supports: an object half over the edge has not left."""
