"""True events and causes of simulated worlds, and the scores of what is perceived of them."""

from dataclasses import replace

import numpy as np
import pytest

from training.reasoner.data import make_labeled_clip
from training.reasoner.events import CausedGroundTruth, TrueEvent, caused_ground_truth
from training.reasoner.examples import make_example
from training.reasoner.metrics import (
    ClipGroundTruth,
    caused_counts,
    coverage,
    event_counts,
    f1,
    macro_f1,
    micro_f1,
    property_rows,
    relation_counts,
    spearman,
)
from training.reasoner.simulated_tracker import perceive
from wm_core.scene_graph import Event, EventKind, Predicate, Relation, SceneGraph
from wm_perception.reasoning.features import CAUSE_FEATURES, OBJECT_FEATURES, PAIR_FEATURES
from wm_perception.reasoning.relations import measure_relations
from wm_perception.types import PerceptionConfig


@pytest.fixture(scope="module")
def labeled():
    """A world in which objects touch."""
    return next(x for seed in (1, 3, 9) if (x := make_labeled_clip(seed, "train", more=True)) and any(x.caused.caused))


def stamp(time_s):
    return round(time_s * 1e9) + 1


@pytest.mark.slow
def test_events_of_a_world_fit_together(labeled):
    clip = labeled.clip
    assert [e.time for e in labeled.events] == sorted(e.time for e in labeled.events)
    speeds = np.linalg.norm(clip.states[:, :, 7:10], axis=-1)
    index = {int(i): k for k, i in enumerate(clip.ids)}
    for e in labeled.events:
        row = int(np.argmin(np.abs(clip.times - e.time)))
        if e.kind == EventKind.MOVE:
            assert speeds[row : row + 4, index[e.a]].max() > 0.06
        elif e.kind == EventKind.STOP:
            assert speeds[row, index[e.a]] < 0.06
        elif e.kind == EventKind.CONTACT:
            assert e.a < e.b and e.mover in (e.a, e.b) and not clip.is_static[index[e.a]]
    contacts = {(e.a, e.b) for e in labeled.events if e.kind == EventKind.CONTACT}
    assert {(e.a, e.b) for e in labeled.events if e.kind == EventKind.SEPARATION} <= contacts | {
        tuple(sorted(t[1:3])) for t in clip.touches
    }


def test_a_cause_is_what_the_world_without_it_lacks():
    events = [
        TrueEvent(EventKind.CONTACT, 2, 3, 1.0, 2),
        TrueEvent(EventKind.MOVE, 3, 0, 1.02),
        TrueEvent(EventKind.MOVE, 4, 0, 2.0),
        TrueEvent(EventKind.SEPARATION, 2, 3, 1.1),
    ]
    worlds = {2: [TrueEvent(EventKind.MOVE, 4, 0, 2.05)], 3: [TrueEvent(EventKind.MOVE, 4, 0, 2.0)]}
    ground_truth = caused_ground_truth(events, worlds.get)
    assert dict(zip(ground_truth.pairs, ground_truth.caused, strict=True)) == {(0, 1): True, (0, 2): False}


def test_what_is_not_simulated_is_not_asked():
    events = [TrueEvent(EventKind.CONTACT, 2, 3, 1.0, 2), TrueEvent(EventKind.MOVE, 3, 0, 1.02)]
    assert caused_ground_truth(events, lambda who: None).pairs == ()


def test_perceived_steps_and_examples(labeled):
    steps = perceive(labeled, np.random.default_rng(1))
    assert 59 <= len(steps) <= 61 and all(np.diff([s.time for s in steps]) > 0.06)
    for step in steps:
        assert np.isfinite(step.positions).all() and (step.extents > 0.0).all()
        np.testing.assert_allclose(np.linalg.norm(step.quaternions, axis=1), 1.0, atol=1e-6)
    example = make_example(labeled, np.random.default_rng(1))
    again = make_example(labeled, np.random.default_rng(1))
    n, count = example.here.shape
    assert example.objects.shape == (n, count, len(OBJECT_FEATURES))
    assert example.pairs.shape == (n, n, count, len(PAIR_FEATURES))
    assert example.cause_rows.shape == (len(example.caused), len(CAUSE_FEATURES))
    assert (example.pair_events == example.pair_events.transpose(1, 0, 2, 3)).all()
    assert np.array_equal(example.objects, again.objects) and np.array_equal(example.cause_rows, again.cause_rows)
    moved = example.object_events[:, :, 0].sum()
    assert moved <= sum(e.kind == EventKind.MOVE for e in labeled.events)


def scenes_telling(labeled, events, relations=()):
    clip = labeled.clip
    rows = range(0, len(clip.times), 2)
    out = []
    for row in rows:
        now = clip.times[row]
        out.append(
            SceneGraph.build(
                clip.ids,
                clip.states[row, :, :3],
                clip.extents,
                stamp_ns=stamp(now),
                is_static=clip.is_static,
                log_mass=clip.log_mass,
                friction=clip.friction,
                restitution=clip.restitution,
                events=[e for e, time in events if now - 1 / 15 < time <= now],
                relations=relations if row == rows[-1] else (),
            )
        )
    return out, [{int(i): int(i) for i in clip.ids}] * len(out)


def told(labeled, delay_s=0.0):
    return [(Event(n + 1, e.kind, e.a, e.b, stamp(e.time + delay_s)), e.time) for n, e in enumerate(labeled.events)]


def test_a_perfect_account_scores_one(labeled):
    ground_truth = ClipGroundTruth(labeled.clip, labeled.events, labeled.caused)
    edges = [
        Relation(i + 1, Predicate.CAUSED, j + 1, 0.9, 0)
        for (i, j), yes in zip(labeled.caused.pairs, labeled.caused.caused, strict=True)
        if yes
    ]
    scenes, ids = scenes_telling(labeled, told(labeled), edges)
    assert micro_f1(event_counts(scenes, ground_truth, ids)) == 1.0
    scores = caused_counts(scenes, ground_truth, ids)
    assert f1(scores["reasoner"]) == 1.0 and f1(scores["baseline"]) < 1.0
    rows = property_rows(scenes, ground_truth, ids, contacts=1)
    assert np.allclose(rows[:, :, 0], rows[:, :, 2]) and coverage(rows) == 1.0


def test_late_events_and_phantoms_do_not_count(labeled):
    ground_truth = ClipGroundTruth(labeled.clip, labeled.events, labeled.caused)
    scenes, ids = scenes_telling(labeled, told(labeled, 0.15))
    late = event_counts(scenes, ground_truth, ids)
    assert sum(c[0] for c in late.values()) < sum(c[2] for c in late.values())
    ghost = (Event(99, EventKind.MOVE, 77, 0, stamp(1.5)), 1.5)
    scenes, ids = scenes_telling(labeled, [*told(labeled), ghost])
    counts = event_counts(scenes, ground_truth, ids)
    assert sum(c[1] for c in counts.values()) == 1


def test_relations_of_the_true_poses_score_one(labeled):
    clip = labeled.clip
    scene = scenes_telling(labeled, [])[0][5]
    held = [Relation(*key, p, 0) for key, p in measure_relations(scene, PerceptionConfig()).items() if p >= 0.5]
    counts = relation_counts(replace(scene, relations=tuple(held)), scene, {int(i): int(i) for i in clip.ids})
    assert held and macro_f1(counts) == 1.0
    nothing = relation_counts(scene, scene, {int(i): int(i) for i in clip.ids})
    assert macro_f1(nothing) == 0.0


def test_scores_of_nothing():
    assert np.isnan(f1(np.zeros(3))) and np.isnan(micro_f1({})) and np.isnan(macro_f1({}))
    empty = np.zeros((0, 3, 3))
    assert np.isnan(coverage(empty)) and np.isnan(spearman(empty)["mean"])
    rows = np.tile(np.arange(5.0)[:, None, None], (1, 3, 3))
    assert spearman(rows)["mean"] == pytest.approx(1.0)
    assert CausedGroundTruth((), ()).pairs == ()
