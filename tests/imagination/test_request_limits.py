"""What a request may need: memory and time are estimated with every future counted, and time ends."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest

from traced_scene import BALL, BOX, CAMERA, FRONT, TABLE, make_scene, trace
from wm_core.interventions import Hypothesis, impulse_batch
from wm_core.rollout import EventQuestion, ImageRequest, ImagineRequest, RequestError
from wm_core.scene_graph import EventKind
from wm_imagination import estimate
from wm_imagination.appearance.memory import AppearanceMemory
from wm_imagination.engine import Imagination
from wm_imagination.limits import Limits

FACTUAL = Hypothesis("factual")
MANY = impulse_batch(BALL, np.full((1000, 1, 3), 0.01))


@pytest.fixture(scope="module")
def memory() -> AppearanceMemory:
    memory, scene = AppearanceMemory(), make_scene()
    color, depth, ids = trace(scene)
    memory.integrate(1, color, depth, CAMERA, FRONT, ids, scene)
    return memory


def refusal(imagination: Imagination, request: ImagineRequest, memory: AppearanceMemory | None = None) -> str:
    begin = time.monotonic()
    with pytest.raises(RequestError) as caught:
        imagination.imagine(request, make_scene(), memory)
    print(f"refused after {1e3 * (time.monotonic() - begin):.0f} ms: {caught.value}")
    return str(caught.value)


def test_images_of_batches_count(memory: AppearanceMemory) -> None:
    video = ImageRequest(video=True, depth=True, rate_hz=30.0)
    request = ImagineRequest((), 5.0, batches=(MANY,), images=video, backend="still")
    said = refusal(Imagination(), request, memory)
    size = 1000 * 151 * CAMERA.width * CAMERA.height * 7
    assert f"which are {size} bytes of images" in said and "hypotheses and batches x frames x pixels" in said
    # Beyond the limit of images there is one of all memory.
    said = refusal(Imagination(Limits(max_image_bytes=1 << 60)), request, memory)
    assert f"images: {size / 1e9:.3g} GB for 1000 futures x 151 frames" in said
    assert "expected at most 8 GB (max_request_megabytes); ask for a lower video_rate" in said


def test_futures_of_questions_count() -> None:
    scene = make_scene()
    question = EventQuestion(hypothesis=0, kind=EventKind.CONTACT, a=BALL, b=BOX, object_ids=(BOX, TABLE))
    request = ImagineRequest((FACTUAL,), 1.0, questions=(question,) * 20, backend="still")
    states = 41 * 31 * len(scene) * estimate.FLOAT
    per_state = estimate.STATE_COPIES * 13 + estimate.DIFFERENCE_VALUES
    limits = Limits(max_request_bytes=states * per_state - 1)
    assert "41 futures x 1 samples x 31 times x 3 objects" in refusal(Imagination(limits), request)
    Imagination(Limits(max_request_bytes=states * per_state)).imagine(request, scene)


def test_what_cannot_be_done_by_the_default_deadline_is_refused_unless_a_deadline_is_given() -> None:
    imagination = Imagination(Limits(default_deadline_s=2.0))
    long = ImagineRequest((), 30.0, 30.0, samples=64, batches=(MANY,), backend="physics")
    said = refusal(imagination, long)
    assert "request: got one that takes" in said and "dynamics" in said and "1001 futures x 64 samples" in said
    assert "expected at most 2 s (default_deadline_s)" in said and "or give a deadline" in said
    begin = time.monotonic()
    request = ImagineRequest((), 30.0, 30.0, samples=64, deadline_s=0.1, batches=(MANY,), backend="physics")
    answer = imagination.imagine(request, make_scene())
    print(f"a deadline of 0.1 s: answered after {time.monotonic() - begin:.2f} s")
    assert not answer.complete and not answer.computed.all()


def test_a_request_without_a_deadline_ends_at_the_default_one() -> None:
    imagination = Imagination(Limits(default_deadline_s=0.4), backend="physics")
    request = ImagineRequest((), 2.0, batches=(MANY,), seed=1)
    work = estimate.work_of(
        request, futures=1001, objects=3, frames=0, camera=None, object_points=0, backend="physics", threads=64
    )
    assert sum(work.seconds_by_part().values()) < 0.4, "the estimate does not refuse what a fast machine might do"
    imagination.dynamics().threads = 64
    answer = imagination.imagine(request, make_scene())
    assert not answer.complete and answer.computed.sum() < 1000
    assert any("default_deadline_s" in warning for warning in answer.warnings)
    few = imagination.imagine(ImagineRequest((FACTUAL,), 0.1), make_scene(), begin=time.monotonic() + 3600.0)
    assert few.complete and not few.warnings


def test_a_deadline_beyond_the_limit_is_refused() -> None:
    request = ImagineRequest((FACTUAL,), 0.5, deadline_s=11.0, backend="still")
    assert "deadline: got 11 s, expected 0 to 10 s" in refusal(Imagination(Limits(max_deadline_s=10.0)), request)


def test_every_part_grows_with_what_its_refusal_names() -> None:
    base = estimate.Work(10, 9, 4, 5, 31, 3, 2, 6, CAMERA, 7, 100, 1.0, "physics", 2)
    doubled = {
        "states": {"futures": 20}, "separations": {"pairs": 6}, "event probabilities": {"event_kinds": 4},
        "images": {"frames": 12}, "points": {"object_points": 200},
    }  # fmt: skip
    for part, change in doubled.items():
        more = replace(base, **change)
        assert more.bytes_by_part()[part] > base.bytes_by_part()[part], part
        limit = sum(more.bytes_by_part().values()) - 1
        with pytest.raises(RequestError, match="max_request_megabytes"):
            estimate.check(more, limit, 0.0)
        estimate.check(more, limit + 1, 0.0)
    assert replace(base, horizon_s=2.0).seconds_by_part()["dynamics"] == 2 * base.seconds_by_part()["dynamics"]
    assert replace(base, backend="still").seconds_by_part()["dynamics"] == 0.0


def test_the_estimate_is_below_what_it_takes() -> None:
    """A lower bound of the time: nothing is refused that would have been done."""
    imagination = Imagination(backend="physics")
    request = ImagineRequest((), 1.0, batches=(impulse_batch(BALL, np.full((16, 1, 3), 0.01)),))
    begin = time.monotonic()
    assert imagination.imagine(request, make_scene()).complete
    seconds = time.monotonic() - begin
    work = estimate.work_of(
        request, futures=17, objects=3, frames=0, camera=None, object_points=0, backend="physics",
        threads=imagination.dynamics().threads,
    )  # fmt: skip
    print(f"estimated {sum(work.seconds_by_part().values()):.4f} s, took {seconds:.4f} s")
    assert sum(work.seconds_by_part().values()) < seconds
