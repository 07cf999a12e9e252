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
