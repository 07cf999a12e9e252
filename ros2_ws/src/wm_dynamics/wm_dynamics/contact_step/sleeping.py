"""When things of imagined futures fall asleep and wake up, and what counts as a touch: of both engines of the learned
dynamics.
"""

SLOW_M_S = 0.004
"""Below this (surface speed) for SLEEP_STEPS steps, together with all that is near, a thing falls asleep."""
WAKE_M_S = 0.012
"""What comes near faster than this (surface speed) wakes what sleeps."""
SLEEP_STEPS = 9
TOUCH_N_S = 1e-9
"""Impulse [N s] of a step above which things touch."""
SCATTER_SHARE = 0.5
"""Of what a step adds to a thing's speed, the share that its scatter may add on top: between a dead blow and an elastic
one of equal masses lies a factor of two, and the learned deviations of blows are some tenths."""
