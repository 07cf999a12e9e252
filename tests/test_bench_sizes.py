"""What the benchmark of camera sizes says is found is what the pipeline finds."""

from __future__ import annotations

from benchmarks.perceiving.clips import FIRST_SEED, ClipPlan, render_clip
from benchmarks.perceiving.sizes import SIZES, enlarged_clip, found_table, what_is_found


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
