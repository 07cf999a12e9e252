"""The parameters of the node ``imagination``."""

from __future__ import annotations

from dataclasses import dataclass

from wm_core.camera_parameters import CameraParameters
from wm_core.parameters import parameter
from wm_imagination.limits import BACKENDS, Limits

THREADS = 16
"""Threads of the node's executor, for requests that are worked on or wait, and for callbacks."""


@dataclass(frozen=True)
class ImaginationParameters(CameraParameters):
    """Parameters of the node ``imagination``."""

    backend: str = parameter("auto", "dynamics that requests with backend auto get", choices=BACKENDS)
    dynamics_model: str = parameter(
        "", "ONNX file of the learned dynamics; empty: the one that comes with wm", read_only=True
    )
    max_hypotheses: int = parameter(Limits.max_hypotheses, "hypotheses per request", minimum=1, maximum=100_000)
    max_horizon_s: float = parameter(
        Limits.max_horizon_s, "horizon of a request", unit="s", minimum=0.01, maximum=3600.0
    )
    max_samples: int = parameter(Limits.max_samples, "belief samples per hypothesis", minimum=1, maximum=10_000)
    max_state_values: int = parameter(
        Limits.max_state_values, "numbers in the states of one answer (4 bytes each)", minimum=1000, maximum=500_000_000
    )
    max_image_megabytes: int = parameter(
        512, "imagined images of one request, uncompressed", unit="MB", minimum=1, maximum=16_384
    )
    max_request_megabytes: int = parameter(
        2000, "memory of one request, estimated before it is worked on", unit="MB", minimum=10, maximum=1_000_000
    )
    default_deadline_s: float = parameter(
        120.0,
        "when a request without a deadline ends, with what is done by then; one that cannot be done by then is "
        "refused; 0: never",
        unit="s",
        minimum=0.0,
        maximum=86_400.0,
    )
    max_deadline_s: float = parameter(3600.0, "deadline that a request may name", unit="s", minimum=0.1, maximum=1e6)
    max_concurrent: int = parameter(2, "requests worked on at a time", minimum=1, maximum=THREADS // 2, read_only=True)
    max_waiting: int = parameter(
        6, "requests that may wait for their turn; more are refused", minimum=0, maximum=THREADS // 2
    )
    appearance_rate_hz: float = parameter(
        5.0, "how often appearance is learned from a camera frame; 0: never", unit="Hz", minimum=0.0, maximum=60.0
    )
    jpeg_quality: int = parameter(90, "of imagined frames", minimum=1, maximum=100)

    @property
    def limits(self) -> Limits:
        """Limits of one request."""
        return Limits(
            max_hypotheses=self.max_hypotheses,
            max_horizon_s=self.max_horizon_s,
            max_samples=self.max_samples,
            max_state_values=self.max_state_values,
            max_image_bytes=self.max_image_megabytes * 1_000_000,
            max_request_bytes=self.max_request_megabytes * 1_000_000,
            default_deadline_s=self.default_deadline_s,
            max_deadline_s=self.max_deadline_s,
        )
