"""The reasoner on synthetic collisions: features, events, properties, causes, and the shipped network."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wm_core.scene_graph import Event, EventKind, Predicate, SceneGraph, Shape
from wm_perception.models.files import ModelError, shipped_model
from wm_perception.models.reasoner import load_learned_reasoner, make_reasoner, reasoner_contract
from wm_perception.reasoning.causes import ObservedEvent, cause_candidates, cause_row
from wm_perception.reasoning.events import moving_spans, tilts, topple_row, upright_axis
from wm_perception.reasoning.evidence import contact_row
from wm_perception.reasoning.features import CONTACT_FEATURES, STEP_S, WINDOW
from wm_perception.reasoning.history import MotionHistory
from wm_perception.reasoning.reasoner import Reasoner
from wm_perception.reasoning.steps import between, step_of
from wm_perception.types import PerceptionConfig

SHIPPED = shipped_model("reasoner")
needs_weights = pytest.mark.skipif(SHIPPED is None, reason="the reasoner has not been trained here")
GOLDEN = Path(__file__).with_name("reasoner_golden.json")
DIAMETER = 0.06


def graph(time_s, positions, velocities=None, first_id=2):
    """Balls of 6 cm on a table (id 1)."""
    n = len(positions)
    return SceneGraph.build(
        [1, *range(first_id, first_id + n)],
        [[0.0, 0.0, -0.02], *positions],
        [[2.0, 2.0, 0.04], *[[DIAMETER] * 3] * n],
        stamp_ns=round(time_s * 1e9) + 1,
        shapes=[int(Shape.BOX), *[int(Shape.SPHERE)] * n],
        is_static=[True] + [False] * n,
        linear_velocities=[[0.0, 0.0, 0.0], *(velocities if velocities is not None else [[0.0] * 3] * n)],
    )


def collision(speed=0.8, mass_ratio=1.0, restitution=0.8, rate_hz=15.0, seconds=3.0, others=0, hit_s=1.2):
    """Scene graphs of a ball (id 2) that hits another at rest (id 3) at ``hit_s``, and balls that take no part.

    ``mass_ratio``: of the one that is hit to the one that hits.
    """
    after_a = speed * (1.0 - restitution * mass_ratio) / (1.0 + mass_ratio)
    after_b = speed * (1.0 + restitution) / (1.0 + mass_ratio)
    scenes = []
    for k in range(int(seconds * rate_hz) + 1):
        t = k / rate_hz
        since = t - hit_s
        start = max(0.0, min(t - 0.6, 0.6)) - 0.6
        a = start * speed if since <= 0.0 else after_a * since
        b = DIAMETER + (0.0 if since <= 0.0 else after_b * since)
        z = 0.5 * DIAMETER
        scenes.append(graph(t, [[a, 0.0, z], [b, 0.0, z], *[[0.3 * (i % 2), 0.4 + 0.2 * i, z] for i in range(others)]]))
    return scenes


def history_of(scenes):
    history = MotionHistory(len(scenes))
    for scene in scenes:
        history.push(step_of(scene, (scene.stamp_ns - 1) * 1e-9))
    return history


def run(reasoner, scenes):
    out = [reasoner.update(s) for s in scenes]
    return out, [e for s in out for e in s.events]


# Rules of events


def test_motion_begins_and_ends():
    times = np.arange(60) / 30.0
    speeds = np.where((times > 0.5) & (times < 1.0), 0.5, 0.0)
    positions = np.column_stack([np.cumsum(speeds) / 30.0, np.zeros(60), np.zeros(60)])
    ((begin, end),) = moving_spans(times, positions, speeds, 0.06, 0.03)
    assert begin == pytest.approx(0.5, abs=0.05) and end == pytest.approx(1.0, abs=0.05)
    assert moving_spans(times, positions * 0.01, speeds, 0.06, 0.03) == []


def test_what_still_moves_at_the_end_has_not_stopped():
    times = np.arange(30) / 30.0
    speeds = np.full(30, 0.5)
    positions = np.column_stack([times * 0.5, times * 0.0, times * 0.0])
    assert moving_spans(times, positions, speeds, 0.06, 0.03) == [(None, None)]


def test_a_box_topples_a_rolling_can_does_not():
    angles = np.linspace(0.0, np.pi / 2.0, 20)
    about_y = np.column_stack([np.zeros(20), np.sin(angles / 2), np.zeros(20), np.cos(angles / 2)])
    axis = upright_axis(Shape.BOX, np.array([0.05, 0.05, 0.2]), about_y[0])
    assert axis is not None and topple_row(about_y, axis) == int(np.argmax(angles > np.pi / 4))
    lying = np.array([0.0, np.sqrt(0.5), 0.0, np.sqrt(0.5)])
    spin = np.column_stack([np.zeros(20), np.zeros(20), np.sin(angles / 2), np.cos(angles / 2)])
    x, w = lying[1], lying[3]
    rolled = np.stack([[x * s[2], x * s[3], w * s[2], w * s[3]] for s in spin])
    axis = upright_axis(Shape.CYLINDER, np.array([0.06, 0.06, 0.12]), rolled[0])
    assert axis is not None and tilts(rolled, axis).max() < 1e-6
    assert upright_axis(Shape.SPHERE, np.full(3, 0.1), lying) is None


# Features


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(
    ratio=st.floats(0.3, 3.0), speed=st.floats(0.5, 1.2), restitution=st.floats(0.3, 0.9)
)  # fmt: skip
def test_a_contact_tells_mass_ratio_and_restitution(ratio, speed, restitution):
    scenes = collision(speed, ratio, restitution, hit_s=1.2)
    row = contact_row(history_of(scenes), 2, 3, 18)
    assert row is not None
    values = dict(zip(CONTACT_FEATURES, row, strict=True))
    # Kicks of 3 cm/s are added to both sides, against noise.
    assert values["log_kicks"] == pytest.approx(-np.log(ratio), abs=0.15)
    assert values["restitution"] == pytest.approx(restitution, abs=0.1)
    assert values["closing"] == pytest.approx(speed, rel=0.1)


def test_slots_are_kept_and_given_back():
    history = MotionHistory(12)
    for k in range(40):
        first = 2 if k < 20 else 50
        history.push(step_of(graph(k * STEP_S, [[0.0, 0.0, 0.03], [0.2, 0.0, 0.03]], first_id=first), k * STEP_S))
    assert sorted(history.slot) == [50, 51]
    ids, objects, pairs = history.window(39)
    assert ids.tolist() == [50, 51]
    assert objects.shape[:2] == (2, WINDOW) and pairs.shape[:3] == (2, 2, WINDOW)
    assert np.isfinite(objects).all() and np.isfinite(pairs).all()


def test_between_two_frames():
    a, b = (step_of(graph(t, [[x, 0.0, 0.03]]), t) for t, x in ((0.0, 0.0), (0.1, 0.1)))
    middle = between(a, b, 0.05)
    assert middle.positions[0, 0] == pytest.approx(0.05)
    assert np.linalg.norm(middle.quaternions[0]) == pytest.approx(1.0)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(list(EventKind)[:4]), st.floats(0.0, 2.0)), max_size=6))
def test_an_uninvolved_thing_changes_no_cause(extra):
    moved = (0.5, 0.1, 0.5)
    story = [
        ObservedEvent(EventKind.CONTACT, (2, 3), 0.5, (moved, (0.0, 0.4, 0.4))),
        ObservedEvent(EventKind.MOVE, (3,), 0.52, ((0.0, 0.4, 0.4),)),
        ObservedEvent(EventKind.CONTACT, (3, 4), 1.0, ((0.4, 0.1, 0.4), (0.0, 0.3, 0.3))),
        ObservedEvent(EventKind.MOVE, (4,), 1.02, ((0.0, 0.3, 0.3),)),
    ]
    pairs = (EventKind.CONTACT, EventKind.SEPARATION)
    others = [
        ObservedEvent(kind, (8, 9), t, (moved, moved)) if kind in pairs else ObservedEvent(kind, (8,), t, (moved,))
        for kind, t in extra
    ]
    mixed = sorted([*story, *others], key=lambda h: h.time)
    for i, j in cause_candidates([(h.kind, h.who, h.time) for h in story]):
        before = cause_row(story, i, j)
        after = cause_row(mixed, mixed.index(story[i]), mixed.index(story[j]))
        assert np.array_equal(before, after)


def test_influence_spreads_along_contacts_only():
    kick, still = (0.0, 0.4, 0.4), (0.5, 0.1, 0.5)
    story = [
        ObservedEvent(EventKind.CONTACT, (2, 3), 0.5, (still, kick)),
        ObservedEvent(EventKind.CONTACT, (3, 4), 1.0, (still, kick)),
        ObservedEvent(EventKind.MOVE, (4,), 1.0, (kick,)),
        ObservedEvent(EventKind.MOVE, (7,), 1.1, (kick,)),
    ]
    pairs = cause_candidates([(h.kind, h.who, h.time) for h in story])
    assert (0, 2) in pairs and (0, 3) in pairs and (1, 0) not in pairs
    assert cause_row(story, 0, 2)[2] > 0.5
    assert cause_row(story, 0, 3)[2] == 0.0


# Without a network


def test_geometry_alone_tells_contacts_and_leaves_properties():
    out, events = run(Reasoner(PerceptionConfig()), collision())
    kinds = [e.kind for e in events]
    assert kinds.count(EventKind.CONTACT) == 1 and kinds.count(EventKind.SEPARATION) == 1
    assert (out[-1].friction == out[0].friction).all() and (out[-1].log_mass_std == out[0].log_mass_std).all()
    assert not any(r.predicate == Predicate.CAUSED for s in out for r in s.relations)


# With a network


def stub(feeds):
    n = len(feeds["objects"])
    said = np.array([0.3, 0.6, 0.2, 4.0, 5.0, 6.0], np.float32)
    pair = np.zeros((n, n, 3), np.float32)
    # Contact where both are kicked apart along their line.
    kicks = feeds["pairs"][:, :, 5, 4] - feeds["pairs"][:, :, 5, 5]
    pair[..., 0] = (kicks < -0.5) & (feeds["pairs"][:, :, 5, 11] > 0.0)
    return {
        "pair_probabilities": pair,
        "object_probabilities": np.zeros((n, 4), np.float32),
        "prior": np.tile(np.array([0.0, 0.5, 0.3, 2.0, 4.0, 4.0], np.float32), (n, 1)),
        "contact_evidence": np.tile(said, (len(feeds["contacts"]), 1)),
        "step_evidence": np.tile(said, (len(feeds["steps"]), 1)) * np.float32(0.01),
        "cause": np.ones(len(feeds["causes"]), np.float32),
    }


def test_certainty_grows_with_contacts():
    reasoner = Reasoner(PerceptionConfig(), stub)
    out, events = run(reasoner, collision())
    assert [e.kind for e in events].count(EventKind.CONTACT) == 1
    assert reasoner.beliefs.contacts_of(2) == reasoner.beliefs.contacts_of(3) == 1
    row = out[-1].index(3)
    for name in ("log_mass_std", "friction_std", "restitution_std"):
        spread = np.array([getattr(s, name)[row] for s in out[WINDOW + 2 :]])
        assert (np.diff(spread) <= 1e-12).all() and spread[-1] < 0.9 * spread[0]
    assert out[-1].log_mass_std[0] == out[0].log_mass_std[0], "supports keep their priors"


def test_of_what_is_out_of_sight_no_contact_is_told():
    scenes = collision()
    hidden = [replace(s, visibilities=np.where(s.ids == 3, 0.0, s.visibilities)) for s in scenes]
    for shown, count in ((scenes, 1), (hidden, 0)):
        _, events = run(Reasoner(PerceptionConfig(), stub), shown)
        assert [e.kind for e in events].count(EventKind.CONTACT) == count


def test_what_flickered_did_not_leave_and_what_fell_left_when_it_was_down():
    def leave(first_s, x, speed):
        reasoner = Reasoner(PerceptionConfig())
        for k in range(int(first_s * 15), 31):
            scene = graph(k / 15, [[x, 0.0, 0.03]], [[speed, 0.0, 0.0]])
            ones = np.full(2, round(first_s * 1e9) + 1)
            reasoner.update(replace(scene, first_seen_ns=ones, last_seen_ns=np.full(2, scene.stamp_ns)))
        gone = graph(2.6, [])
        tracked = [Event(1, EventKind.LEAVE, 2, 0, gone.stamp_ns, 1.0)]
        return [(e.stamp_ns - 1) * 1e-9 for e in reasoner.update(gone, tracked).events if e.kind == EventKind.LEAVE]

    assert leave(1.8, 0.2, 0.0) == [], "it was there for a fifth of a second"
    assert leave(0.0, 0.2, 0.0) == pytest.approx([2.0]), "taken away: when it was seen last"
    assert leave(0.0, 0.95, 0.5) == pytest.approx([2.0 + np.sqrt(2.0 * 0.28 / 9.81)]), "over the edge at x = 1"


def test_events_keep_counting_after_a_reset_and_a_gap():
    reasoner = Reasoner(PerceptionConfig(), stub)
    _, first = run(reasoner, collision())
    reasoner.reset()
    _, second = run(reasoner, collision())
    assert [e.kind for e in first] == [e.kind for e in second]
    assert min(e.id for e in second) > max(e.id for e in first)


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000))
def test_contact_and_separation_take_turns(seed):
    rng = np.random.default_rng(seed)

    def noisy(feeds):
        found = stub(feeds)
        n = len(feeds["objects"])
        pair = rng.uniform(size=(n, n, 3)).astype(np.float32)
        found["pair_probabilities"] = 0.5 * (pair + pair.transpose(1, 0, 2))
        found["object_probabilities"] = rng.uniform(size=(n, 4)).astype(np.float32)
        return found

    _, events = run(Reasoner(PerceptionConfig(), noisy), collision(seconds=4.0))
    for kinds in ((EventKind.CONTACT, EventKind.SEPARATION), (EventKind.MOVE, EventKind.STOP)):
        for who in {(e.a, e.b) for e in events}:
            mine = sorted((e.stamp_ns, e.id, e.kind) for e in events if e.kind in kinds and (e.a, e.b) == who)
            stamps = [s for s, _, _ in mine]
            assert len(set(stamps)) == len(stamps)


# The shipped network


@needs_weights
def test_shipped_network_does_not_depend_on_the_order_of_things():
    from wm_perception.models.contract import load

    session = load(SHIPPED, 1)
    rng = np.random.default_rng(3)
    inputs, _ = reasoner_contract()
    sizes = {"N": 5, "C": 4, "M": 4, "Q": 4}
    feeds = {
        t.name: rng.normal(0.0, 0.5, [s if isinstance(s, int) else sizes[s] for s in t.shape]).astype(np.float32)
        for t in inputs
    }
    order = rng.permutation(5)
    one = session.run(feeds)
    other = session.run(
        feeds
        | {
            "objects": feeds["objects"][order],
            "pairs": feeds["pairs"][order][:, order],
            "shapes": feeds["shapes"][order],
        }
    )
    np.testing.assert_allclose(other["pair_probabilities"], one["pair_probabilities"][order][:, order], atol=1e-5)
    np.testing.assert_allclose(other["object_probabilities"], one["object_probabilities"][order], atol=1e-5)
    np.testing.assert_allclose(
        one["pair_probabilities"], one["pair_probabilities"].transpose(1, 0, 2), atol=1e-5, err_msg="symmetric"
    )


@needs_weights
def test_shipped_network_is_what_was_trained():
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file

    from training.reasoner.model import ReasonerNetwork
    from wm_perception.models.contract import load

    network = ReasonerNetwork()
    network.load_state_dict(load_file(SHIPPED.with_suffix(".safetensors")))
    network.eval()
    session = load(SHIPPED, 1)
    rng = np.random.default_rng(5)
    inputs, outputs = reasoner_contract()
    sizes = {"N": 4, "C": 3, "M": 2, "Q": 5}
    feeds = {
        t.name: rng.normal(0.0, 0.5, [s if isinstance(s, int) else sizes[s] for s in t.shape]).astype(np.float32)
        for t in inputs
    }
    with torch.no_grad():
        expected = network(*(torch.from_numpy(feeds[t.name]) for t in inputs))
    found = session.run(feeds)
    for tensor, value in zip(outputs, expected, strict=True):
        np.testing.assert_allclose(found[tensor.name], value.numpy(), rtol=2e-3, atol=2e-4, err_msg=tensor.name)


@needs_weights
@pytest.mark.parametrize("rate_hz", [15.0, 30.0])
def test_a_collision_is_told_once_with_its_cause(rate_hz):
    reasoner = make_reasoner(PerceptionConfig(reasoner="learned"))
    scenes = collision(rate_hz=rate_hz, others=2)
    velocities = np.diff([s.positions for s in scenes], axis=0, append=[scenes[-1].positions]) * rate_hz
    scenes = [replace(s, linear_velocities=v) for s, v in zip(scenes, velocities, strict=True)]
    out, events = run(reasoner, scenes)
    contacts = [e for e in events if e.kind == EventKind.CONTACT]
    assert [(e.a, e.b) for e in contacts] == [(2, 3)]
    assert contacts[0].stamp_ns * 1e-9 == pytest.approx(1.2, abs=0.1)
    moves = {e.a: e for e in events if e.kind == EventKind.MOVE}
    assert set(moves) == {2, 3}
    assert moves[3].stamp_ns * 1e-9 == pytest.approx(1.2, abs=0.1)
    caused = {(r.subject, r.object) for s in out for r in s.relations if r.predicate == Predicate.CAUSED}
    assert (contacts[0].id, moves[3].id) in caused
    assert (contacts[0].id, moves[2].id) not in caused
    for thing in (2, 3):
        row = out[-1].index(thing)
        assert out[-1].log_mass_std[row] < out[int(0.9 * rate_hz)].log_mass_std[row]
        assert 0.0 <= out[-1].restitution[row] <= 1.0 and 0.0 < out[-1].friction[row] <= 1.5


@needs_weights
def test_heavier_things_are_told_from_lighter_ones():
    masses = []
    for ratio in (0.3, 3.0):
        out, _ = run(make_reasoner(PerceptionConfig(reasoner="learned")), collision(mass_ratio=ratio))
        last = out[-1]
        masses.append(last.log_mass[last.index(3)] - last.log_mass[last.index(2)])
    assert masses[1] > masses[0] + 0.3


def test_another_model_is_refused(tmp_path: Path):
    path = tmp_path / "none.onnx"
    path.write_bytes(b"nothing")
    with pytest.raises(ModelError, match=r"none\.onnx"):
        load_learned_reasoner(path)
    segmenter = shipped_model("segmenter")
    if segmenter is not None:
        with pytest.raises(ModelError, match="expected 'wm_reasoner'"):
            load_learned_reasoner(segmenter)


def golden_outputs():
    """What the shipped network says of one made-up instant: (name, first values) of each output."""
    from wm_perception.models.contract import load

    rng = np.random.default_rng(11)
    inputs, outputs = reasoner_contract()
    sizes = {"N": 3, "C": 2, "M": 2, "Q": 2}
    feeds = {
        t.name: rng.normal(0.0, 0.5, [s if isinstance(s, int) else sizes[s] for s in t.shape]).astype(np.float32)
        for t in inputs
    }
    found = load(SHIPPED, 1).run(feeds)
    return {t.name: [round(float(v), 5) for v in found[t.name].ravel()[:8]] for t in outputs}


@needs_weights
def test_shipped_network_gives_what_it_gave():
    """Within 1e-3 of tests/perception/reasoner_golden.json, relative or absolute, whatever the runtime's version.

    After a new training: ``python tests/perception/test_reasoner.py`` writes the file anew; say why in the commit.
    """
    expected = json.loads(GOLDEN.read_text())
    for name, values in golden_outputs().items():
        np.testing.assert_allclose(values, expected[name], rtol=1e-3, atol=1e-3, err_msg=name)


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(golden_outputs(), indent=1) + "\n")
