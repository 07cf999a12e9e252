"""Memory and time that a request will need, estimated before any work is done.

Both count every future that is computed: hypotheses, batches, the factual one, and those that questions try. The memory
is what is held at once, from the states to the serialized answer. The time is a lower bound: that of a processor
several times as fast as those this was measured on, so that what is refused for it could not have been done in time.
"""

from __future__ import annotations

from dataclasses import dataclass

from wm_core.camera import Camera
from wm_core.rollout import STATE_SIZE, ImagineRequest, RequestError

FLOAT = 4
"""Bytes of a float32."""
STATE_COPIES = 3
"""States in the result, in the message, and in the serialized message."""
DIFFERENCE_VALUES = 4
"""Numbers for each state that effects are computed of: a vector, and its square."""
SEPARATION_BYTES = 8 * 16
"""For each state of a pair: poses of both, centers, and an index, as double."""
POINT_BYTES = 2 * (3 * FLOAT + 3)
"""A colored point, in the result and in the message."""
BODY_STEPS_PER_S = {"learned": 60.0, "physics": 250.0, "auto": 60.0}
"""Steps per simulated second by backend; those without contacts (straight, still) take next to no time."""
BODY_STEP_S = {"learned": 5e-8, "physics": 2e-7, "auto": 5e-8}
"""Least time of one body's step on one processor [s]: a tenth of what ``make bench-imagination`` measures on one of two
server cores (7e-7 learned, 1.7e-6 MuJoCo's own threaded rollout)."""
PAIR_STATE_S = 3e-7
"""Least time for the distance of a pair at one instant [s]: a tenth of 3.5e-6, measured on the same."""
PIXEL_S = 2e-8
"""Least time to draw one pixel [s]: a tenth of 2.1e-7, measured on the same."""


@dataclass(frozen=True)
class Work:
    """The size of a request, in counts.

    Attributes:
        futures: all that are computed; ``answered``: those that come back, which alone are drawn.
        samples, objects, times, pairs, event_kinds: as in ``Rollout``.
        frames: of each answered future; camera: of the frames; None: no frames.
        bytes_per_pixel: of a frame, color and depth together.
        object_points: colored points of each object, at most.
        horizon_s: [s].
        backend: that answers; threads: that work side by side.
    """

    futures: int
    answered: int
    samples: int
    objects: int
    times: int
    pairs: int
    event_kinds: int
    frames: int
    camera: Camera | None
    bytes_per_pixel: int
    object_points: int
    horizon_s: float
    backend: str
    threads: int

    @property
    def pixels(self) -> int:
        """Of one frame."""
        return self.camera.width * self.camera.height if self.camera is not None else 0

    def bytes_by_part(self) -> dict[str, int]:
        """Memory [bytes], by what it is for."""
        states = self.futures * self.samples * self.times * self.objects
        return {
            "states": states * FLOAT * (STATE_SIZE * STATE_COPIES + DIFFERENCE_VALUES),
            # Pairs are looked at one after the other.
            "separations": min(self.pairs, 1) * self.futures * self.samples * self.times * SEPARATION_BYTES
            + self.pairs * self.futures * self.samples * 4 * FLOAT,
            "event probabilities": self.futures * self.samples * self.objects * self.event_kinds,
            "images": self.answered * self.frames * self.pixels * self.bytes_per_pixel,
            "points": self.objects * self.object_points * POINT_BYTES,
        }

    def seconds_by_part(self) -> dict[str, float]:
        """Least time [s], by what it is for."""
        steps = self.futures * self.samples * self.objects * self.horizon_s * BODY_STEPS_PER_S.get(self.backend, 0.0)
        return {
            "dynamics": steps * BODY_STEP_S.get(self.backend, 0.0) / max(self.threads, 1),
            "separations": self.futures * self.samples * self.times * self.pairs * PAIR_STATE_S,
            "images": self.answered * self.frames * self.pixels * PIXEL_S,
        }

    def what(self, part: str) -> str:
        """The counts that a part grows with, for people."""
        futures = f"{self.futures} futures"
        if part == "images":
            size = f"{self.camera.width}x{self.camera.height}" if self.camera is not None else "no camera"
            return f"{self.answered} futures x {self.frames} frames of {size}"
        if part == "points":
            return f"{self.objects} objects x {self.object_points} points"
        if part == "separations":
            return f"{futures} x {self.samples} samples x {self.times} times x {self.pairs} pairs"
        if part == "event probabilities":
            return f"{futures} x {self.samples} samples x {self.objects} objects x {self.event_kinds} event kinds"
        if part == "dynamics":
            return f"{futures} x {self.samples} samples x {self.objects} objects over {self.horizon_s:g} s"
        return f"{futures} x {self.samples} samples x {self.times} times x {self.objects} objects"


_REMEDIES = {
    "states": "ask for fewer hypotheses, batches, samples or questions, or a larger step",
    "dynamics": "ask for fewer hypotheses, batches, samples or questions, or a shorter horizon",
    "separations": "ask for fewer pairs, hypotheses, batches or samples, or a larger step",
    "event probabilities": "ask for fewer event_kinds, hypotheses, batches or samples",
    "images": "ask for a lower video_rate, a smaller camera, or fewer hypotheses and batches",
    "points": "ask without want_points",
}


def work_of(
    request: ImagineRequest,
    *,
    futures: int,
    objects: int,
    frames: int,
    camera: Camera | None,
    object_points: int,
    backend: str,
    threads: int,
) -> Work:
    """The size of a request.

    Args:
        futures: all that are computed, the factual one and those of questions with them.
        objects: with those that hypotheses bring in.
        frames, camera: of its images; 0 and None: it wants none.
        object_points: of one object, at most. backend: that answers. threads: that work side by side.
    """
    images = request.images
    return Work(
        futures=futures,
        answered=request.count,
        samples=request.samples,
        objects=objects,
        times=len(request.times),
        pairs=len(request.pairs),
        event_kinds=len(request.event_kinds),
        frames=frames,
        camera=camera,
        bytes_per_pixel=3 * images.video + 4 * images.depth,
        object_points=object_points if images.points else 0,
        horizon_s=request.horizon_s,
        backend=backend,
        threads=threads,
    )


def check(work: Work, max_bytes: int, max_seconds: float) -> None:
    """Refuse what needs too much.

    Args:
        max_bytes: memory. max_seconds: time; 0: any.

    Raises:
        RequestError: says how much it needs, what for, what was expected, and what to lower.
    """
    parts = work.bytes_by_part()
    total, worst = sum(parts.values()), max(parts, key=lambda name: parts[name])
    if total > max_bytes:
        raise RequestError(
            f"request: got one that needs {_size(total)} ({worst}: {_size(parts[worst])} for {work.what(worst)}), "
            f"expected at most {_size(max_bytes)} (max_request_megabytes); {_REMEDIES[worst]}"
        )
    times = work.seconds_by_part()
    seconds, longest = sum(times.values()), max(times, key=lambda name: times[name])
    if 0.0 < max_seconds < seconds:
        raise RequestError(
            f"request: got one that takes {seconds:.0f} s or more ({longest}: {times[longest]:.0f} s for "
            f"{work.what(longest)}), expected at most {max_seconds:g} s (default_deadline_s); {_REMEDIES[longest]}, "
            "or give a deadline, which answers with what is done by then"
        )


def _size(count: float) -> str:
    return f"{count / 1e9:.3g} GB" if count >= 1e9 else f"{count / 1e6:.3g} MB"
