"""What no imagined future may be: not finite, faster or of more energy than can be - or it is marked, and kept out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from dynamics_backends import shared_dynamics
from wm_core.interventions import (
    BodySpec,
    Hypothesis,
    Property,
    add,
    apply_impulse,
    follow_path,
    morph,
    remove,
    set_pose,
    set_property,
    set_velocity,
)
from wm_core.rollout import ANGULAR_VELOCITY, LINEAR_VELOCITY, POSITION, EventQuestion, ImagineRequest, Rollout
from wm_core.scene_graph import EventKind, SceneGraph, Shape
from wm_dynamics.base import DynamicsResult
from wm_dynamics.validity import FASTEST_M_S, FASTEST_RAD_S, check_futures, limits_of
from wm_imagination.engine import Imagination

TIMES = np.arange(31) / 30.0
BACKENDS = ("learned", "physics", "straight", "still", "auto")
BOTTLE = 2


def bottle_hull(radius: float = 0.036, height: float = 0.22) -> np.ndarray:
    """A bottle's outline turned about z: foot, shoulder, neck."""
    angle = np.linspace(0.0, 2.0 * np.pi, 12, endpoint=False)
    rings = [(radius, -0.5), (radius, 0.15), (0.4 * radius, 0.3), (0.4 * radius, 0.5)]
    return np.concatenate(
        [np.stack([r * np.cos(angle), r * np.sin(angle), np.full(12, h * height)], axis=1) for r, h in rings]
    )


def scene(seen: bool = False) -> SceneGraph:
    """A table, a bottle, a box with a small one on it, a ball; ``seen``: as perception is unsure of them."""
    shapes = [Shape.BOX, Shape.CONVEX, Shape.BOX, Shape.BOX, Shape.SPHERE]
    extents = [(1.2, 0.8, 0.04), (0.072, 0.072, 0.22), (0.08, 0.08, 0.10), (0.05, 0.05, 0.04), (0.07, 0.07, 0.07)]
    positions = [(0, 0, 0.68), (0.1, 0.1, 0.81), (-0.1, 0.0, 0.75), (-0.1, 0.0, 0.82), (0.15, -0.2, 0.735)]
    n = len(shapes)
    graph = SceneGraph.build(
        np.arange(1, n + 1),
        positions,
        extents,
        shapes=shapes,
        class_names=["support", "bottle", "box", "box", "ball"],
        is_static=[True, False, False, False, False],
        hulls=[bottle_hull() if s == Shape.CONVEX else np.zeros((0, 3)) for s in shapes],
        log_mass=np.log([10.0, 0.24, 0.4, 0.07, 0.1]),
    )
    if not seen:
        return graph
    pose = np.diag([0.005**2, 0.005**2, 0.004**2, 0.015**2, 0.015**2, 0.03**2])
    return replace(
        graph,
        pose_covariances=np.tile(pose, (n, 1, 1)),
        log_mass_std=np.full(n, 0.9),
        friction_std=np.full(n, 0.15),
    )


@pytest.fixture(scope="module")
def imagination() -> Imagination:
    return Imagination()


def is_sound(rollout: Rollout, graph: SceneGraph, hypotheses: tuple[Hypothesis, ...]) -> None:
    """Every future that is said to be valid is finite, and as fast as can be at most; every other has a reason."""
    count = len(hypotheses)
    assert rollout.valid.shape == (count,) and len(rollout.invalid_reasons) == count
    for k in range(count):
        assert bool(rollout.valid[k]) == (rollout.invalid_reasons[k] == "")
        if not rollout.valid[k]:
            assert np.isnan(rollout.effect[k]).all() and np.isnan(rollout.pair_collision[k]).all()
            continue
        limits = limits_of([graph], hypotheses[k], rollout.states.shape[3])
        states = rollout.states[k].astype(np.float64)
        assert np.isfinite(states).all()
        free = limits.mass[0] > 0.0
        assert np.linalg.norm(states[:, :, free, LINEAR_VELOCITY], axis=-1).max(initial=0.0) <= limits.speed * 1.001
        assert np.linalg.norm(states[..., ANGULAR_VELOCITY], axis=-1).max() <= FASTEST_RAD_S * 1.001
    if not rollout.valid.all():
        assert any(text.startswith(("valid:", "effect:")) for text in rollout.warnings)


NUMBERS = st.floats(-1.0, 1.0, allow_nan=False, width=32)
VECTORS = st.tuples(NUMBERS, NUMBERS, NUMBERS)


@st.composite
def interventions(draw: st.DrawFn) -> Any:
    """Any kind, from gentle to as strong as a request may ask for."""
    thing, at_s, vector, other = draw(st.integers(2, 5)), draw(st.floats(0.0, 0.4)), draw(VECTORS), draw(VECTORS)
    strength = draw(st.sampled_from([0.1, 1.0, 50.0]))
    v, w = np.array(vector) * strength, np.array(other)
    kinds = (
        lambda: set_velocity(thing, v, 10.0 * strength * w, at_s=at_s),
        lambda: apply_impulse(thing, 0.2 * v, point=0.1 * w, at_s=at_s),
        lambda: remove(thing, at_s=at_s),
        lambda: set_pose(thing, np.array([0.0, 0.0, 0.9]) + 0.3 * w, at_s=at_s),
        lambda: set_property(thing, Property.MASS, float(10.0 ** (2.0 * w[0])), factor=True, at_s=at_s),
        lambda: morph(thing, np.exp(0.7 * w), at_s=at_s),
        lambda: add(BodySpec(Shape.BOX, np.full(3, 0.06), np.array([0.1, 0.1, 0.9]) + 0.2 * w), at_s=at_s),
        lambda: follow_path(
            [0.0, 0.2 + 0.3 * abs(w[0])], [(-0.4, 0.0, 0.75), tuple(np.array([0.3, 0.0, 0.75]) + 0.1 * w)],
            body=BodySpec(Shape.BOX, np.array([0.02, 0.2, 0.1])), at_s=at_s,
        ),
    )  # fmt: skip
    return draw(st.sampled_from(kinds))()


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
@settings(max_examples=25, deadline=None, derandomize=True, phases=(Phase.generate,))
@given(asked=st.lists(st.lists(interventions(), min_size=1, max_size=3), min_size=1, max_size=3), seen=st.booleans())
def test_what_leaves_a_backend_can_be_or_is_marked(
    imagination: Imagination, backend: str, asked: list[list[Any]], seen: bool
) -> None:
    shared_dynamics(backend)
    hypotheses = tuple(Hypothesis(f"h{k}", tuple(actions)) for k, actions in enumerate(asked))
    graph = scene(seen)
    request = ImagineRequest(hypotheses, 0.5, samples=1 + seen, backend=backend, pairs=((2, 3),))
    is_sound(imagination.imagine(request, graph), graph, hypotheses)


def test_a_bottle_pushed_off_its_axis_spins_and_does_not_fly_away(imagination: Imagination) -> None:
    """Euler's method gave it 10^9 m/s, and NaN came back as an answer."""
    pushes = [
        Hypothesis(
            f"turn {turn}",
            tuple(
                apply_impulse(
                    BOTTLE, (0.2 * np.cos(turn), 0.2 * np.sin(turn), 0.0),
                    point=(-0.03 * np.sin(turn), 0.03 * np.cos(turn), height), at_s=0.1 * i,
                )
                for i in range(4)
            ),
        )
        for turn, height in ((0.0, 0.0), (1.0, 0.02), (3.0, -0.02), (5.0, 0.05))
    ]  # fmt: skip
    for seen, samples in ((False, 1), (True, 4)):
        # Of a bottle that is a tenth as heavy as it is believed to be such blows make a top beyond all limits.
        graph = replace(scene(seen), log_mass_std=np.full(5, 0.3 * seen))
        rollout = imagination.imagine(ImagineRequest(tuple(pushes), 2.0, samples=samples, backend="physics"), graph)
        is_sound(rollout, graph, tuple(pushes))
        assert rollout.valid.all(), rollout.invalid_reasons
        # Four times 0.2 N s are 3.3 m/s of 0.24 kg.
        most = np.linalg.norm(rollout.states[:, 0, :, 1, LINEAR_VELOCITY], axis=-1).max()
        assert 0.5 < most < 8.0
        assert np.linalg.norm(rollout.states[:, 0, -1, 1, POSITION], axis=-1).max() < 10.0


class Broken:
    """A backend whose second future is what ``wrong`` makes of it."""

    name = "broken"

    def __init__(self, wrong: Any, factual: bool = False) -> None:
        self.real = shared_dynamics("physics")
        self.wrong, self.factual = wrong, factual

    def joined(self, mean: Any) -> tuple[tuple[int, ...], ...]:
        return self.real.joined(mean)

    def rollout(self, scenes: Any, hypotheses: Any, times: Any, **more: Any) -> DynamicsResult:
        result = self.real.rollout(scenes, hypotheses, times)
        self.wrong(result.states[0 if self.factual else 1])
        return result


def no_number(states: Any) -> None:
    states[-1, 10:, 3, 0] = np.nan


def no_place(states: Any) -> None:
    states[:, -1, 1, 2] = np.inf


def too_fast(states: Any) -> None:
    states[0, 20:, 3, 7] = 60.0


def spinning(states: Any) -> None:
    states[0, 20:, 3, 10] = 5000.0


def too_rich(states: Any) -> None:
    states[0, 20:, 1:, 9] = 13.0


def rising(states: Any) -> None:
    states[0, 5:, 1:4, 2] += np.linspace(0.0, 30.0, states.shape[1] - 5)[:, None]


def far(states: Any) -> None:
    states[0, -1, 2, 0] = 6.47e6


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (no_number, "not finite from 0.33 s on: 4 box"),
        (no_place, "not finite"),
        (too_fast, "4 box: 60 m/s after 0.67 s"),
        (spinning, "rad/s"),
        (too_rich, "J after"),
        (rising, "J after"),
        (far, "m from the origin"),
    ],
)
def test_what_cannot_be_is_marked_and_kept_out(monkeypatch: pytest.MonkeyPatch, wrong: Any, said: str) -> None:
    engine = Imagination()
    monkeypatch.setattr(engine, "dynamics", lambda name: Broken(wrong))
    hypotheses = (Hypothesis("as it is"), Hypothesis("push", (set_velocity(5, (0.2, 0.0, 0.0)),)))
    request = ImagineRequest(
        hypotheses, 1.0, samples=2, pairs=((4, 5),), event_kinds=(EventKind.CONTACT,),
        questions=(EventQuestion(EventKind.CONTACT, 5, hypothesis=1),),
    )  # fmt: skip
    rollout = engine.imagine(request, scene(seen=True))
    assert rollout.valid.tolist() == [True, False] and rollout.computed.all()
    assert rollout.usable.tolist() == [True, False]
    assert said in rollout.invalid_reasons[1] and not rollout.invalid_reasons[0]
    assert any(said in text and "1 of 2 futures" in text for text in rollout.warnings)
    for name in ("effect", "effect_vector", "pair_separation", "pair_collision", "event_probability"):
        values = getattr(rollout, name)
        assert np.isnan(values[1]).all(), name
        assert np.isfinite(values[0][1:]).all() or name == "effect_vector", name
    assert np.isnan(rollout.answers[0].probability)


def test_the_origin_of_the_map_may_be_far_away() -> None:
    graph = scene()
    away = replace(graph, positions=graph.positions + np.array([7000.0, -3000.0, 100.0]))
    hypotheses = (Hypothesis("as it is"), Hypothesis("push", (set_velocity(5, (0.2, 0.0, 0.0)),)))
    rollout = Imagination().imagine(ImagineRequest(hypotheses, 0.5, backend="straight"), away)
    assert rollout.valid.all(), rollout.invalid_reasons


def test_without_a_valid_factual_future_there_are_no_effects(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Imagination()
    monkeypatch.setattr(engine, "dynamics", lambda name: Broken(no_number, factual=True))
    rollout = engine.imagine(
        ImagineRequest((Hypothesis("push", (set_velocity(5, (0.2, 0.0, 0.0)),)),), 1.0), scene(seen=True)
    )
    assert rollout.valid.all() and np.isnan(rollout.effect).all()
    assert any(text.startswith("effect: left out, as the factual future is not valid") for text in rollout.warnings)


def test_doubts_of_a_backend_are_reasons() -> None:
    graph = scene()
    states = np.zeros((2, 1, 3, 5, 13), np.float32)
    states[..., 6], states[..., :3] = 1.0, graph.positions
    hypotheses = (Hypothesis("a"), Hypothesis("b"))
    judged = check_futures([graph], hypotheses, TIMES[:3], states, graph.ids, ("", "the solver diverged"))
    assert judged.valid.tolist() == [True, False] and judged.reasons == ("", "the solver diverged")
    # Of what was not computed nothing is said.
    states[1] = np.nan
    assert check_futures([graph], hypotheses, TIMES[:3], states, graph.ids, completed=1).valid.all()


def test_limits_follow_from_what_is_given() -> None:
    graph = scene()
    still = limits_of([graph], Hypothesis(""), 5)
    # From the small box, 0.82 m, to 1 m below the lowest there is: some 6 m/s, and three times that for the lightest.
    assert 12.0 < still.speed < 25.0 and still.energy[0] < 60.0
    fast = limits_of([graph], Hypothesis("", (set_velocity(3, (40.0, 0.0, 0.0)),)), 5)
    assert fast.speed > still.speed + 80.0 and fast.energy[0] > 0.5 * 0.4 * 40.0**2
    blow = limits_of([graph], Hypothesis("", (apply_impulse(2, (0.0, 0.0, 1e3)),)), 5)
    assert blow.speed == FASTEST_M_S
    heavy = limits_of([graph], Hypothesis("", (set_property(3, Property.MASS, 9.0, factor=True),)), 5)
    assert heavy.mass[0, 2] == pytest.approx(0.4) and heavy.energy[0] > still.energy[0]
