"""Faults of imagination's scene graph, and reasons why no appearance is learned, from plain values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from wm_core.health.findings import Finding, Severity
from wm_core.health.inputs import Stream, check_stream

_START = "start perception (ros2 launch wm_bringup wm.launch.py, or wm run)"


def check_scene_graph(stream: Stream) -> Finding | None:
    """No scene graph, another type or QoS, an old graph, or a graph whose perception has ended."""
    s = stream
    if s.messages and not s.is_silent:
        return None
    kinds = {p.type_name for p in s.publishers}
    if s.publishers and (s.type_name not in kinds or all(p.mismatch for p in s.publishers)):
        return check_stream(s)
    if not s.is_silent:
        return None
    who = ", ".join(sorted({p.node for p in s.publishers}))
    if not s.publishers and not s.messages:
        found = f"no scene graph: nobody publishes {s.topic} (no perception is alive)"
        run = _START
        if s.candidates:
            found += f"; scene graphs are on {', '.join(s.candidates)}"
            run = "put both nodes into one namespace (__ns), or remap scene_graph"
        return Finding("no_scene_graph", Severity.ERROR, found, run=f"{run}; until then requests need an initial_state")
    if not s.messages:
        found = f"no scene graph: {who} publishes {s.topic}, but has sent none for {s.age_s:.1f} s"
        return Finding("no_scene_graph", Severity.ERROR, found, run="its console and /diagnostics say why")
    if not s.publishers:
        found = f"perception is gone: nobody publishes {s.topic} any more, the last scene graph is {s.age_s:.1f} s old"
        return Finding("perception_gone", Severity.ERROR, found, run=f"{_START}; requests still start from the old one")
    found = f"the scene graph is stale: the last one came {s.age_s:.1f} s ago, though {who} is alive"
    run = "its console and /diagnostics say why; requests still start from the old one"
    return Finding("stale_graph", Severity.WARN, found, run=run)


def check_appearance(
    streams: Sequence[Stream], missing: str, stream_findings: Sequence[Finding], bad_frames: Sequence[Finding]
) -> list[Finding]:
    """Why no appearance was learned although scene graphs come.

    Args:
        streams: color, depth, intrinsics and instances.
        missing: what the newest frame with a scene graph lacks; empty: nothing but a camera info.
        stream_findings: faults of these streams; bad_frames: faults of frames that could not be learned from.
    """
    no_images = "so images and video cannot be imagined"
    silent = [s for s in streams if s.is_silent or not s.messages]
    if silent:
        lacking = ", ".join(f"{s.topic} ({s.role})" for s in silent)
        said = Finding(
            "no_appearance", Severity.WARN, f"no appearance was learned yet, {no_images}: nothing comes on {lacking}"
        )
        # Images are optional, so that their absence is no error of the node.
        return [said, *(replace(f, severity=Severity.WARN) for f in stream_findings)]
    if bad_frames:
        return [replace(f, found=f"no appearance was learned yet, {no_images}: {f.found}") for f in bad_frames]
    found = f"no appearance was learned yet, {no_images}: no frame is complete (lacking: {missing or 'camera info'})"
    return [
        Finding(
            "no_appearance",
            Severity.WARN,
            found,
            "color, instances and scene graph of one stamp, and depth within max_stamp_difference_s",
            "do perception and imagination read the same color topic?",
        )
    ]
