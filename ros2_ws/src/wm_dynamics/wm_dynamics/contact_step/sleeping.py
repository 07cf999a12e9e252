"""Thresholds of sleep, of touches and of scatter in imagined futures, for both engines."""

SLOW_M_S = 0.004
"""A body falls asleep when the points of its surface, and all that is near it, are slower than this for SLEEP_STEPS
steps [m/s]. Larger, and a slow slide stops; smaller, and the jitter of a stack keeps it awake."""
WAKE_M_S = 0.012
"""A body that closes in on a sleeping one, or slides beneath or on it, faster than this wakes it [m/s]; above SLOW_M_S,
so that a body on the point of falling asleep wakes nothing."""
WAKE_GAP_M = 0.001
"""Distance [m], beyond what two bodies overlapped at the start, within which an awake one touches a sleeping one. What
closes in is given the way of a step, and of its fall in it, on top. Larger wakes what is only passed by; smaller, and a
blow meets a body that does not give way."""
WAKE_DEPTH_M = 0.002
"""Depth [m], beyond what two bodies overlapped at the start, from which an awake one wakes a sleeping one whatever its
speed: it was put into it. Larger, and what is placed into another stays there."""
WAKE_STEEP = 0.3
"""Vertical component of a contact's normal from which on one body bears the other, so that it takes it along."""
WAKE_ROUNDS = 8
"""Times that a step is begun anew since what it moves wakes something: a row of bodies that touch wakes one by one,
each as if it had the speed with which it is struck. The rest of a longer row does not give way in the first step."""
SLACK_RETURN_M = 0.002
"""Overlap [m] that may stay beyond the present one: as a pair moves apart, it loses what it overlapped at the start.
Larger, and what comes back is let in again; smaller, and the jitter of bodies that lie in one another drives them
apart."""
SLEEP_STEPS = 9
"""0.15 s at steps of 1/60 s. Fewer, and a body at the turning point of a rocking motion is put to sleep."""
TOUCH_N_S = 1e-9
"""Impulse of a step above which two bodies touch [N s]: above what rounding leaves of zero."""
SCATTER_SHARE = 0.5
"""Share of the speed that a step adds to a body which its scatter may add on top: an elastic collision of equal masses
gives twice the speed of an inelastic one, and the learned deviations of collisions are some tenths."""
