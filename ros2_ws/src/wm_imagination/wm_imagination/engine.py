"""What-if requests: validation, dynamics, effects, images, points. Independent of ROS."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from wm_core.inference.base import InferenceError
from wm_core.rollout import ImagineRequest, RequestError, Rollout
from wm_core.scene_graph import SceneGraph
from wm_dynamics.base import Dynamics
from wm_dynamics.factory import make_dynamics
from wm_imagination.answering import Answering, OnProgress
from wm_imagination.appearance.memory import AppearanceMemory
from wm_imagination.appearance.model import Appearance
from wm_imagination.limits import Limits
from wm_imagination.validation import validate_request


class BackendUnavailableError(RuntimeError):
    """The dynamics backend cannot run here; the message says why."""


class Imagination:
    """Answers what-if requests, each independent of those before. Safe to use from several threads.

    Args:
        limits: of one request.
        backend: the one that "auto" stands for.
        backend_options: backend name -> keyword arguments of its constructor; "auto" uses those of "learned".

    Attributes:
        limits, default_backend: as given.
    """

    def __init__(
        self,
        limits: Limits | None = None,
        backend: str = "auto",
        backend_options: dict[str, dict[str, object]] | None = None,
    ) -> None:
        self.limits = limits or Limits()
        self.default_backend = backend
        self._options = backend_options or {}
        self._made: dict[str, Dynamics] = {}
        self._making = threading.Lock()

    def dynamics(self, name: str = "auto") -> Dynamics:
        """The backend of a name; made at its first use, then kept.

        Raises:
            BackendUnavailableError: what it needs is missing, or its model does not load (names file and tensor).
        """
        chosen = self.default_backend if name in ("", "auto") else name
        with self._making:
            # The network is loaded and compiled once, whichever of the two is used first.
            shared = getattr(self._made.get("auto"), "learned", None) if chosen == "learned" else None
            if shared is not None:
                self._made.setdefault(chosen, shared)
            if chosen not in self._made:
                options = self._options.get(chosen, self._options.get("learned", {}) if chosen == "auto" else {})
                given = {"learned": self._made["learned"]} if chosen == "auto" and "learned" in self._made else {}
                try:
                    self._made[chosen] = make_dynamics(chosen, **given, **options)  # type: ignore[arg-type]
                except (ImportError, InferenceError) as error:
                    raise BackendUnavailableError(f"backend {chosen!r}: {error}") from error
            return self._made[chosen]

    def close(self) -> None:
        """End the backends' worker threads; the next request makes them anew."""
        with self._making:
            for dynamics in self._made.values():
                close = getattr(dynamics, "close", None)
                if close is not None:
                    close()
            self._made.clear()

    def imagine(
        self,
        request: ImagineRequest,
        scene: SceneGraph | None,
        memory: AppearanceMemory | Appearance | None = None,
        *,
        should_stop: Callable[[], bool] | None = None,
        on_progress: OnProgress | None = None,
        keep_frames: bool = True,
        begin: float | None = None,
    ) -> Rollout:
        """Answer one request.

        The factual future is always computed, first, from the same belief samples and seed as the others, so
        that ``effect`` holds the intervention's doing and no sampling noise.

        Args:
            request: what to imagine; its ``initial_state``, if given, is used instead of ``scene``.
            scene: the latest scene graph.
            memory: what was seen, for images and points.
            should_stop: called between hypotheses and between frames; true: the answer so far, ``complete`` False.
            on_progress: called from this thread as hypotheses and frames are done.
            keep_frames: false: frames go to ``on_progress`` only; ``video`` and ``depth`` stay None.
            begin: ``time.monotonic()`` from which the deadline counts; None: now.

        Returns:
            The rollout. An empty scene gives one with N = 0 (or the created bodies alone).

        Raises:
            RequestError, NoAppearanceError, InterventionError, UnknownObjectError: see ``validate_request``.
            BackendUnavailableError: the backend cannot run here.
        """
        begin = time.monotonic() if begin is None else begin
        start = request.initial_state if request.initial_state is not None else scene
        if start is None:
            raise RequestError("initial_state: got none and no scene graph was received yet, expected one of them")
        draws = request.images.any_images or request.images.points
        appearance = memory.snapshot() if isinstance(memory, AppearanceMemory) and draws else None
        if isinstance(memory, Appearance):
            appearance = memory
        object_ids = validate_request(request, start, self.limits, appearance)
        run = Answering(self.limits, self.dynamics(request.backend), request, start, object_ids, appearance, begin)
        run.keep_frames = keep_frames
        if run.deadline is None and self.limits.default_deadline_s > 0.0:
            # Not as a deadline: with a deadline, dynamics works in smaller portions, which take longer in all.
            run.latest = begin + self.limits.default_deadline_s
        # A closure over ``run`` would be a reference cycle, and keep the appearance until garbage is collected.
        latest = run.latest
        run.should_stop = lambda: time.monotonic() >= latest or (should_stop is not None and should_stop())
        if on_progress is not None:
            run.on_progress = on_progress
        return run.answer()
