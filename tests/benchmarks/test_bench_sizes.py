"""What the benchmark of camera sizes says is found is what the pipeline finds."""

from __future__ import annotations

import argparse
import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from benchmarks.perception import latency
from benchmarks.perception.sizes import (
    SIZES,
    enlarged_clip,
    found_table,
    measure_sizes,
    settings_of,
    sizes_table,
    what_is_found,
)
from training.reasoner.rendered_clips import FIRST_SEED, ClipPlan, render_clip

pytestmark = pytest.mark.slow


def test_fewer_pixels_find_less() -> None:
    clip = render_clip(ClipPlan("seeds", FIRST_SEED, "random", 0.8, 30.0))
    drawn = enlarged_clip(clip, SIZES[1])
    assert (drawn.camera.width, drawn.camera.height) == drawn.frames[0].rgb.shape[1::-1] == (1280, 720)
    usual, few = what_is_found([clip], 640), what_is_found([clip], 160)
    for result in (usual, few):
        assert len(result.seconds) == len(drawn.frames)
        assert 0 < result.frames < len(drawn.frames), "the first half second is not scored"
        assert len(result.errors_m) == result.found <= result.asked == usual.asked
    # A crowded world: eight of its eleven objects are seen well enough.
    assert usual.found >= 0.6 * usual.asked and few.found < 0.6 * usual.found
    assert usual.phantoms <= usual.frames
    assert found_table([usual, few]).row_count == 2


def test_each_row_is_measured_with_the_other_settings_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given: list[dict[str, Any]] = []

    def measured(clip: Any, parameters: dict[str, Any], *_: Any) -> dict[str, Any]:
        given.append(parameters)
        return {"latency_median_s": 0.1, "latency_p95_s": None, "rate_hz": 9.0, "graphs": 90}

    monkeypatch.setattr(latency, "measure", measured)
    clip = render_clip(ClipPlan("seeds", FIRST_SEED, "random", 0.2, 30.0))
    other = settings_of("overlap_frames=always,pipeline.inference_threads=1")
    assert other == {"overlap_frames": "always", "pipeline.inference_threads": 1}
    console = Console(file=io.StringIO(), width=150)
    rows = measure_sizes(clip, {"a": 1}, 1.0, tmp_path, console, SIZES[:2], others=(0,), also=(other,))
    assert [(r["size"], r["working_width"], r["settings"]) for r in rows] == [
        (size, width, settings)
        for size, width in (("640x480", 640), ("1280x720", 640), ("1280x720", 0))
        for settings in ("", "overlap_frames always, inference_threads 1")
    ]
    assert all(p["a"] == 1 for p in given) and [p.get("overlap_frames") for p in given] == [None, "always"] * 3
    table = sizes_table(rows)
    assert table.row_count == 6 and table.columns[-1].header == "settings"
    assert sizes_table(rows[::2]).columns[-1].header == "graphs/s"


@pytest.mark.parametrize("text", ["", "overlap_frames", "=1", "overlap_frames=", "a=1,,b=2"])
def test_settings_that_are_no_pairs_are_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="expected NAME=VALUE"):
        settings_of(text)
