"""The picture of ``wm doctor --picture``: what perception sees of color and depth, and what is wrong with it."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from wm_bringup.doctor.findings import ERROR, NOTE, OK, WARNING, Finding

if TYPE_CHECKING:
    from wm_bringup.doctor.seen import Seen

_PANEL_WIDTH = 640
_LINE_PX = 18
_COLORS = {ERROR: (80, 80, 255), WARNING: (80, 220, 255)}
_BEYOND = (90, 90, 90)


def depth_picture(depth_m: NDArray[np.float32], max_depth_m: float) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 BGR: near is red, far is blue, beyond ``max_depth_m`` gray, not measured black."""
    measured = np.isfinite(depth_m) & (depth_m > 0.0)
    inside = measured & (depth_m <= max_depth_m)
    near, far = np.percentile(depth_m[inside], (1, 99)) if inside.any() else (0.0, max_depth_m)
    scaled = np.clip((far - depth_m) / max(far - near, 1e-3), 0.0, 1.0)
    picture = cv2.applyColorMap((255.0 * np.where(inside, scaled, 0.0)).astype(np.uint8), cv2.COLORMAP_JET)
    picture[measured & ~inside] = _BEYOND
    picture[~measured] = 0
    return np.asarray(picture, dtype=np.uint8)


def _panel(image: NDArray[np.uint8], title: str) -> NDArray[np.uint8]:
    height = max(1, round(_PANEL_WIDTH * image.shape[0] / image.shape[1]))
    panel = cv2.resize(image, (_PANEL_WIDTH, height), interpolation=cv2.INTER_AREA)
    for color, width in (((0, 0, 0), 3), ((255, 255, 255), 1)):
        cv2.putText(panel, title, (8, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.5, color, width, cv2.LINE_AA)
    return np.asarray(panel, dtype=np.uint8)


def draw_picture(path: Path, seen: Seen, max_depth_m: float, findings: Sequence[Finding]) -> Finding:
    """Write the picture (PNG or JPEG by the name's end); says where it is, or why there is none."""
    from wm_perception.overlay import draw_overlay

    panels = []
    if seen.frame is not None and seen.result is not None:
        panels.append(_panel(draw_overlay(seen.frame, seen.result)[:, :, ::-1], "perceived"))
    elif seen.color is not None:
        panels.append(_panel(seen.color[:, :, ::-1], "color, nothing perceived"))
    if seen.depth_m is not None:
        title = f"depth (gray: beyond {max_depth_m:g} m, black: none)"
        panels.append(_panel(depth_picture(seen.depth_m, max_depth_m), title))
    if not panels:
        return Finding("frames", "picture", WARNING, f"{path} not written: no image came", "see the topics above")
    height = max(panel.shape[0] for panel in panels)
    panels = [cv2.copyMakeBorder(p, 0, height - p.shape[0], 0, 0, cv2.BORDER_CONSTANT) for p in panels]
    rows = np.hstack(panels)
    lines: list[tuple[str, str]] = []
    for f in findings:
        if f.level in (WARNING, ERROR) and f.section in ("topics", "frames"):
            wrapped = textwrap.wrap(f"{f.name}: {f.found}", rows.shape[1] // 8)
            lines += [(f.level, text) for text in wrapped]
    lines = lines or [(OK, "nothing is wrong with topics and frames")]
    strip = np.zeros((_LINE_PX * len(lines) + 12, rows.shape[1], 3), np.uint8)
    for i, (level, text) in enumerate(lines):
        at = (8, _LINE_PX * (i + 1))
        cv2.putText(
            strip, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.43, _COLORS.get(level, (120, 255, 120)), 1, cv2.LINE_AA
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        written = cv2.imwrite(str(path), np.vstack([rows, strip]))
    except cv2.error:
        written = False
    if not written:
        advice = "give a name that ends in .png or .jpg, in a folder that can be written"
        return Finding("frames", "picture", WARNING, f"{path} could not be written", advice)
    return Finding("frames", "picture", NOTE, str(path))
