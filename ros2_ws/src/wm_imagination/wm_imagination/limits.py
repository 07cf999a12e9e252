"""The backends of imagination, and the limits of one request."""

from __future__ import annotations

from dataclasses import dataclass

BACKENDS = ("auto", "learned", "physics", "straight", "still")
"""Names of the dynamics backends in requests; ``wm_dynamics.factory`` makes them."""


@dataclass(frozen=True)
class Limits:
    """Limits of one request; a request beyond them is refused before any work.

    Attributes:
        max_hypotheses: hypotheses of a request, K.
        max_interventions: interventions of each hypothesis.
        max_path_poses: poses of each path.
        max_samples: belief samples of each hypothesis, S.
        max_pairs: pairs of objects whose separation is requested.
        max_horizon_s: length of the futures [s].
        max_times: states in time, horizon / step + 1.
        max_state_values: K * S * T * N * 13 numbers, the bulk of an answer (16 million are 64 MB).
        max_image_bytes: K * F * H * W * (3 for video, 4 for depth), uncompressed.
        max_object_points: colored points per object in an answer.
        max_request_bytes: all memory of a request at once, as ``estimate`` counts it.
        default_deadline_s: when a request ends that names no deadline [s]; one that cannot be done by then is refused.
            0: never.
        max_deadline_s: deadline that a request may name [s].
    """

    max_hypotheses: int = 1024
    max_interventions: int = 64
    max_path_poses: int = 10_000
    max_samples: int = 256
    max_pairs: int = 1024
    max_horizon_s: float = 30.0
    max_times: int = 10_001
    max_state_values: int = 16_000_000
    max_image_bytes: int = 1 << 29
    max_object_points: int = 5000
    max_request_bytes: int = 8_000_000_000
    default_deadline_s: float = 0.0
    max_deadline_s: float = 1e6
