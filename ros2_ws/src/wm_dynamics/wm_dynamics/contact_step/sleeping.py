"""Thresholds of sleep, of touches and of scatter in imagined futures, for both engines."""

SLOW_M_S = 0.004
"""A body falls asleep when the points of its surface, and all that is near it, are slower than this for SLEEP_STEPS
steps [m/s]. Larger, and a slow slide stops; smaller, and the jitter of a stack keeps it awake."""
WAKE_M_S = 0.012
"""A body that comes near faster than this (at its surface) wakes sleeping ones [m/s]; above SLOW_M_S, so that a body on
the point of falling asleep wakes nothing."""
SLEEP_STEPS = 9
"""0.15 s at steps of 1/60 s. Fewer, and a body at the turning point of a rocking motion is put to sleep."""
TOUCH_N_S = 1e-9
"""Impulse of a step above which two bodies touch [N s]: above what rounding leaves of zero."""
SCATTER_SHARE = 0.5
"""Share of the speed that a step adds to a body which its scatter may add on top: an elastic collision of equal masses
gives twice the speed of an inelastic one, and the learned deviations of collisions are some tenths."""
