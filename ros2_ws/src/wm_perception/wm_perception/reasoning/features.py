"""Names of the network's features, and the time grid that they are on.

They are made with NumPy alone, in the same way for training and on the robot: those of objects and pairs in
``history``, of contacts, slides and shapes in ``evidence``, of causes in ``causes``. Their scales bring most values
into -4..4, where they are clipped (5 for causes). The network was trained with the constants below: a change of one
of them needs a higher ``VERSION`` and a new training.
"""

from __future__ import annotations

from wm_core.scene_graph import EventKind, Shape

RATE_HZ = 15.0
"""Steps of the time grid per second: the rate that perception reaches on two cores (docs/perception_bench.md)."""
STEP_S = 1.0 / RATE_HZ
"""Time between steps [s]."""
VERSION = 3
"""Of the features: goes up when they change, and examples and networks of earlier versions are refused."""
WINDOW, CENTER = 9, 5
"""Steps that the network sees, and the one that it classifies, so that it also sees what follows. A larger window holds
more of the past."""
AHEAD = WINDOW - 1 - CENTER
"""Steps by which events are reported late (0.2 s)."""
CONTACT_LAG, STEP_LAG = 6, 10
"""Steps after which the outcome of a contact (0.4 s) and of a slide (0.67 s) is evaluated. Larger means
later evidence of longer motion."""
NEAR_GAP_M = 0.20
"""Pairs farther apart than this [m] have no features. Larger means more pairs and longer steps."""
SLOTS = 32
"""Objects that are remembered at most; what one frame has more is left out."""
MOVING_M_S = 0.12
"""Slower than this, motion tells little of friction [m/s]. Chosen by hand; larger means fewer and better evidence."""

OBJECT_FEATURES = (
    "speed", "vertical_velocity", "kick", "vertical_kick", "tracked_speed", "acceleration", "turning", "visibility",
    "seen", "clearance", "log_size", "tilt", "path", "sphere", "cylinder", "capsule", "box", "convex", "age",
)  # fmt: skip
PAIR_FEATURES = (
    "gap_fine", "gap_coarse", "velocity_i", "velocity_j", "kick_i", "kick_j", "kick_size_i", "kick_size_j",
    "relative_speed", "above_i", "above_j", "valid",
)  # fmt: skip
CONTACT_FEATURES = (
    "ratio", "log_kicks", "prior_difference", "restitution", "closing", "kick_own", "kick_other", "pre_own",
    "pre_other", "post_own", "post_other", "later_own", "later_other", "side_own", "side_other", "log_size_own",
    "log_size_other", "round_own", "round_other", "vertical", "seen", "gap", "ratio_then", "log_kicks_then",
    "restitution_then", "way_own", "way_other", "way_ratio",
)  # fmt: skip
STEP_FEATURES = (
    "friction", "speed_before", "speed", "speed_after", "speed_later", "sideways", "nearest_gap", "turning", "round",
    "vertical_before", "vertical", "vertical_after", "clearance", "seen", "log_size", "kick_before", "straight",
    "stopping", "rests", "long_friction", "until_rest", "later_kick", "later_turning", "later_gap",
)  # fmt: skip
SHAPE_ORDER = (Shape.SPHERE, Shape.CYLINDER, Shape.CAPSULE, Shape.BOX, Shape.CONVEX)
"""Shapes in the order of their columns."""
SHAPE_FEATURES = (
    "log_long", "log_middle", "log_short", "log_volume", "sphere", "cylinder", "capsule", "box", "convex",
)  # fmt: skip
CAUSE_FEATURES = (
    "delay", "delay_short", "influence_most", "influence_least", "plain_influence", "share_mover", "share_other",
    "closing", "effect_has_mover", "effect_has_other", "other_at_rest", "mover_at_rest", "later_contacts", "own_starts",
    "hops", "is_contact", "is_separation", "is_fall", "is_topple", "is_move", "is_stop", "effect_kick", "effect_speed",
    "rival", "latest", "influence_by_time", "nearest", "nearest_is_cause", "source", "source_plain", "hit_share",
)  # fmt: skip
PAIR_EVENTS = (EventKind.CONTACT, EventKind.SEPARATION)
OBJECT_EVENTS = (EventKind.MOVE, EventKind.STOP, EventKind.FALL, EventKind.TOPPLE)
"""Events of the network's outputs, in their order."""
EFFECTS = (
    EventKind.CONTACT,
    EventKind.SEPARATION,
    EventKind.FALL,
    EventKind.TOPPLE,
    EventKind.MOVE,
    EventKind.STOP,
)
"""Events that may have a cause, in the order of their columns in ``CAUSE_FEATURES``."""
