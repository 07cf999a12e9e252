"""Checks of the frames that perception gets, twice a second: depth, its unit, gravity, supports."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from wm_core.health.depth import check_depth, check_gravity, check_support, find_surfaces, summarize_depth
from wm_core.health.findings import Finding, Severity
from wm_core.scene_graph import SceneGraph
from wm_perception.types import Frame, PerceptionConfig

_EVERY_S = 0.5
"""Time between inspections [s], some milliseconds each. Larger: findings come later."""
_VALID_S = 5.0
"""Age [s] from which findings are dropped, as no frame has come since. Larger: they stay longer."""
_SETTLED_FRAMES = 5
"""Frames after which a support that is in view is in the graph: two, and a margin of three."""


def inspect_frame(
    frame: Frame,
    scene: SceneGraph | None,
    depth_topic: str,
    frame_id: str,
    world_frame: str,
    config: PerceptionConfig,
    min_depth_fraction: float,
    unit: Finding | None = None,
) -> list[Finding]:
    """Faults of one frame.

    Args:
        scene: the scene graph at the frame; None: supports are not judged.
        unit: finding on the unit of depth (``depth_unit_finding``), which explains why everything lies too far away.
    """
    summary = summarize_depth(frame.depth_m, config.max_depth_m)
    surfaces = find_surfaces(frame.depth_m, frame.camera)
    depth = check_depth(depth_topic, summary, config.max_depth_m, min_depth_fraction)
    if unit is not None:
        unusable = depth is not None and depth.severity == Severity.ERROR
        depth = replace(unit, severity=Severity.ERROR) if unusable else unit
    said = [f for f in (depth, check_gravity(surfaces, frame.world_T_camera, frame_id, world_frame)) if f is not None]
    if scene is not None:
        supports = int(np.count_nonzero(scene.is_static & (scene.visibilities > 0.0)))
        none = check_support(supports, config.support_min_area_m2, config.max_depth_m, said)
        said += [none] if none is not None else []
    return said


class FrameInspector:
    """Calls ``inspect_frame`` twice a second, and keeps its findings. Thread-safe.

    Args:
        depth_topic, world_frame: names in findings.
        config, min_depth_fraction: limits, as for ``inspect_frame``.
        clock: [s], monotonic.
    """

    def __init__(
        self,
        depth_topic: str,
        world_frame: str,
        config: PerceptionConfig,
        min_depth_fraction: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._depth_topic, self._world_frame = depth_topic, world_frame
        self._config, self._min_depth_fraction = config, min_depth_fraction
        self._clock = clock
        self._lock = threading.Lock()
        self._findings: list[Finding] = []
        self._frames, self._last_s = 0, float("-inf")

    def look(self, frame: Frame, scene: SceneGraph, frame_id: str, unit: Finding | None = None) -> None:
        """Check a perceived frame when it is time. ``unit`` as for ``inspect_frame``."""
        now = self._clock()
        self._frames += 1
        if self._frames < _SETTLED_FRAMES or now - self._last_s < _EVERY_S:
            return
        findings = inspect_frame(
            frame, scene, self._depth_topic, frame_id, self._world_frame, self._config, self._min_depth_fraction, unit
        )
        with self._lock:
            self._findings, self._last_s = findings, now

    def findings(self) -> list[Finding]:
        """Findings of the last inspection; none where that is older than 5 s."""
        with self._lock:
            return list(self._findings) if self._clock() - self._last_s <= _VALID_S else []
