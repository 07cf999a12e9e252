"""Training clips of the reasoner that were run through perception."""

import numpy as np
import pytest
from rich.console import Console

from training.reasoner.clips import FIRST_SEED, load_seen_examples, make_perceived_clips, read_perceived_clip

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("seen")
    make_perceived_clips(folder, 1, 1, Console(quiet=True))
    return folder


def test_a_seen_clip_names_what_it_sees(folder):
    (path,) = folder.glob("*.npz")
    seen = read_perceived_clip(path)
    assert seen is not None and len(seen.steps) == len(seen.names) >= 59
    true = {int(i) for i in seen.labeled.clip.ids}
    matched, misses = 0, []
    for step, names in zip(seen.steps, seen.names, strict=True):
        assert set(names) <= {int(i) for i in step.ids} and set(names.values()) <= true
        assert len(set(names.values())) == len(names)
        row = int(np.argmin(np.abs(seen.labeled.clip.times - step.time)))
        for perceived, real in names.items():
            where = step.positions[list(step.ids).index(perceived)]
            there = seen.labeled.clip.states[row, list(seen.labeled.clip.ids).index(real), :3]
            misses.append(np.linalg.norm(where - there))
            matched += 1
    assert matched > len(seen.steps) and np.median(misses) < 0.03


def test_examples_hold_only_what_was_seen(folder):
    (example,) = load_seen_examples(folder, 1)
    (again,) = load_seen_examples(folder, 1)
    assert np.array_equal(example.pairs, again.pairs) and np.array_equal(example.pair_events, again.pair_events)
    seen = read_perceived_clip(next(folder.glob("*.npz")))
    told = int(example.object_events.sum()) + int(example.pair_events.sum()) // 2
    assert 0 < told <= len(seen.labeled.events)
    assert not (example.touching & ~(example.touching.transpose(1, 0, 2))).any()


def test_a_finished_clip_is_not_made_again(folder):
    (path,) = folder.glob("*.npz")
    before = path.stat().st_mtime_ns
    make_perceived_clips(folder, 1, 1, Console(quiet=True))
    assert path.stat().st_mtime_ns == before
    with pytest.raises(FileNotFoundError, match=str(FIRST_SEED + 1)):
        load_seen_examples(folder, 2)
