"""The compiled step of the learned dynamics: the same numbers as the ONNX graph, and what happens without it."""

from __future__ import annotations

import logging
import shutil
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from wm_core.inference.base import InferenceError
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
from wm_core.rollout import LINEAR_VELOCITY, POSITION
from wm_core.scene_graph import SceneGraph, Shape
from wm_dynamics.auto import AutomaticDynamics
from wm_dynamics.contact_step import compiled as compiled_module
from wm_dynamics.contact_step.body_tables import HULL_POINTS, ROWS, body_shape, parameter_column
from wm_dynamics.contact_step.compile_cache import cache_folder, only_one, trusted_folder
from wm_dynamics.contact_step.compiled import CompiledStep, check_feeds, read_weights
from wm_dynamics.contact_step.network import OUTPUTS, DynamicsNetwork, default_model
from wm_dynamics.factory import make_dynamics
from wm_dynamics.learned.backend import LearnedDynamics
from wm_dynamics.mujoco.bodies import BodyDef, GeomDef

TIMES = np.arange(31) / 30.0


@pytest.fixture(scope="module")
def network() -> DynamicsNetwork:
    return DynamicsNetwork(default_model())


@pytest.fixture(scope="module")
def compiled(network: DynamicsNetwork) -> CompiledStep:
    return CompiledStep(network)


@pytest.fixture(scope="module")
def both() -> tuple[LearnedDynamics, LearnedDynamics]:
    return LearnedDynamics(threads=2, engine="compiled"), LearnedDynamics(threads=1, engine="onnxruntime")


def bodies(rng: np.random.Generator) -> list[BodyDef]:
    found = []
    for shape in (Shape.BOX, Shape.SPHERE, Shape.CYLINDER, Shape.CAPSULE, Shape.CONVEX, Shape.CONVEX):
        e = rng.uniform(0.04, 0.12, 3)
        hull = np.zeros((0, 3))
        if shape == Shape.SPHERE:
            e[:] = e[0]
        elif shape in (Shape.CYLINDER, Shape.CAPSULE):
            e[1] = e[0]
            e[2] += e[0]
        elif len(found) == 4:
            hull = rng.normal(size=(40, 3)) * e / 3.0
        elif shape == Shape.CONVEX:
            angle = np.linspace(0.0, 2.0 * np.pi, 24, endpoint=False)
            ring = np.stack([np.cos(angle), np.sin(angle), np.zeros(24)], axis=1)
            hull = np.concatenate([0.05 * ring, 0.03 * ring + [0.0, 0.0, 0.1]])
        e = np.ptp(hull, axis=0) if len(hull) else e
        found.append(
            BodyDef(
                (GeomDef(shape, e, hull=hull),),
                float(np.exp(rng.normal() - 1.0)),
                float(rng.uniform(0.1, 1.0)),
                float(rng.uniform(0.0, 0.7)),
            )
        )
    return found


def world(seed: int, pairs: bool = True) -> dict[str, NDArray[Any]]:
    """Objects on and above surfaces with edges, some pushed against one another, some held, some with slack."""
    rng = np.random.default_rng(seed)
    kinds = bodies(rng)
    count = int(rng.integers(1, 40))
    index = rng.integers(len(kinds), size=count)
    shapes = [body_shape(kinds[i]) for i in index]
    parameters = np.stack([parameter_column(kinds[i], s) for i, s in zip(index, shapes, strict=True)], axis=1)
    held = rng.random(count) < 0.15
    for name in ("inverse_mass", "inverse_inertia", "falls"):
        parameters[ROWS[name], held] = 0.0
    bound = np.array([s.bound for s in shapes])
    quaternion = Rotation.random(count, random_state=seed).as_quat().T
    upright = rng.random(count) < 0.6
    quaternion[:, upright] = Rotation.from_euler("z", rng.uniform(-3, 3, upright.sum())).as_quat().T
    # Twos, a little into one another or apart, each two away from the rest.
    position = np.stack([1.0 * (np.arange(count) // 2), 0.0 * bound, bound + rng.uniform(-0.01, 0.01, count)])
    second = np.arange(1, count, 2)
    direction = rng.normal(size=(3, len(second))) * [[1.0], [1.0], [0.3]]
    direction *= (bound[second] + bound[second - 1]) * rng.uniform(0.75, 1.02, len(second)) / np.linalg.norm(
        direction, axis=0
    )  # fmt: skip
    position[:, second] = position[:, second - 1] + direction
    plane = np.zeros((7, count))
    yaw = rng.uniform(-3.0, 3.0, count)
    plane[0], plane[3], plane[4] = rng.uniform(-0.005, 0.005, count), np.cos(yaw), np.sin(yaw)
    plane[1], plane[5:] = position[0] + rng.uniform(-0.2, 0.2, count), rng.choice([0.2, 0.5, 1e4], count)
    hull_row = np.flatnonzero([s.hull is not None for s in shapes])
    hulls = [shapes[k].hull for k in hull_row]
    a = second - 1 if pairs else second[:0]
    b = second if pairs else second[:0]
    feeds: dict[str, NDArray[Any]] = {
        "position": position,
        "quaternion": quaternion,
        "linear": rng.normal(0.0, 0.3, (3, count)),
        "angular": rng.normal(0.0, 2.0, (3, count)),
        "parameters": parameters,
        "plane": plane,
        "hull_points": np.stack(hulls, axis=2) if hulls else np.zeros((3, HULL_POINTS, 0)),  # type: ignore[arg-type]
        "plane_slack": 0.01 * rng.random(count) * (rng.random(count) < 0.3),
        "pair_slack": 0.01 * rng.random(len(a)) * (rng.random(len(a)) < 0.3),
    }
    feeds = {name: np.ascontiguousarray(value, dtype=np.float32) for name, value in feeds.items()}
    whole = {"pair_a": a, "pair_b": b, "hull_row": hull_row}
    return feeds | {name: value.astype(np.int64) for name, value in whole.items()}


@pytest.mark.slow
@pytest.mark.parametrize("pairs", [False, True])
def test_a_step_is_that_of_the_graph(network: DynamicsNetwork, compiled: CompiledStep, pairs: bool) -> None:
    """Of 19 in 20 bodies to float32's last digits. A few contacts are ill-conditioned in float32, in the graph too:
    rounding decides there, and neither is nearer to the same step in float64 than the other.
    """
    differences: dict[str, list[NDArray[Any]]] = {name: [] for name in OUTPUTS}
    for seed in range(60):
        feeds = world(seed, pairs)
        for name, expected, found in zip(OUTPUTS, network.run(feeds), compiled.run(feeds), strict=True):
            assert found.shape == expected.shape, name
            if name == "plane_gap":  # not used of what does not fall
                falls = feeds["parameters"][ROWS["falls"]][0] > 0
                expected, found = expected[falls], found[falls]
            if expected.size:
                difference = np.abs(found - expected) / (1.0 + np.abs(expected))
                differences[name].append(difference.reshape(-1, difference.shape[-1]).max(axis=0))
    for name, found_ in differences.items():
        if not found_:
            continue
        each = np.concatenate(found_)
        if name in ("plane_gap", "pair_gap"):
            assert each.max() < 1e-5, name
        assert np.median(each) < 5e-6, name
        assert np.quantile(each, 0.9) < (2e-2 if pairs else 5e-4), (name, np.quantile(each, [0.8, 0.9, 0.99]))
    assert pairs == bool(sum(map(len, differences["pair_impulse"])))


@pytest.mark.slow
def test_a_network_loaded_quickly_is_the_same_and_only_checks(network: DynamicsNetwork) -> None:
    feeds = check_feeds()
    quick = DynamicsNetwork(default_model(), quick=True)
    for expected, found in zip(network.run(feeds), quick.run(feeds), strict=True):
        np.testing.assert_array_equal(found, expected)
    for engine, is_quick in (("compiled", True), ("onnxruntime", False)):
        dynamics = LearnedDynamics(engine=engine)
        assert dynamics.engine == engine
        assert dynamics.network.quick is is_quick
        dynamics.close()


@pytest.mark.slow
def test_bodies_apart_do_not_know_of_one_another(compiled: CompiledStep) -> None:
    """However full the tiles are, and whatever else is in them, a body's step is the same to the last bit."""
    feeds = world(3, pairs=False)
    whole = compiled.run(feeds)
    for body in range(feeds["position"].shape[1]):
        of_bodies = {name: v[..., [body]] for name, v in feeds.items() if not name.startswith(("pair", "hull"))}
        alone = feeds | of_bodies
        mine = feeds["hull_row"] == body
        alone["hull_row"], alone["hull_points"] = np.zeros(int(mine.sum()), np.int64), feeds["hull_points"][:, :, mine]
        for one, all_of_them in zip(compiled.run(alone), whole, strict=True):
            if all_of_them.size:
                np.testing.assert_array_equal(one[..., 0], all_of_them[..., body])


@pytest.mark.slow
def test_what_is_not_a_number_stays_so(compiled: CompiledStep) -> None:
    feeds = check_feeds()
    feeds["position"][0, 2] = np.nan
    feeds["linear"][1, 8] = np.nan
    position, quaternion, linear, *_ = compiled.run(feeds)
    assert np.isnan(position[0, 2]) and np.isnan(linear[1, 8])
    others = [b for b in range(position.shape[1]) if b not in (2, 3, 8, 9)]
    assert np.isfinite(position[:, others]).all() and np.isfinite(quaternion[:, others]).all()


def scene(seed: int = 0) -> SceneGraph:
    """A table with seven objects on it, some of them in a stack."""
    rng = np.random.default_rng(seed)
    hull = rng.normal(size=(60, 3)) * 0.03
    things = [
        (Shape.BOX, (0.08, 0.06, 0.05), (0.0, 0.0, 0.025)),
        (Shape.CYLINDER, (0.07, 0.07, 0.12), (0.15, 0.02, 0.06)),
        (Shape.SPHERE, (0.07, 0.07, 0.07), (-0.15, 0.03, 0.035)),
        (Shape.BOX, (0.1, 0.1, 0.04), (0.0, 0.25, 0.02)),
        (Shape.BOX, (0.06, 0.06, 0.06), (0.0, 0.25, 0.07)),
        (Shape.CAPSULE, (0.04, 0.04, 0.1), (0.3, 0.25, 0.06)),
        (Shape.CONVEX, tuple(np.ptp(hull, axis=0)), (-0.3, -0.2, float(-hull[:, 2].min()))),
    ]
    return SceneGraph.build(
        np.arange(1, 9),
        [(0.0, 0.0, -0.02), *(t[2] for t in things)],
        [(1.2, 1.2, 0.04), *(t[1] for t in things)],
        shapes=[Shape.BOX, *(t[0] for t in things)],
        hulls=[np.zeros((0, 3))] * 7 + [hull],
        class_names=["support"] + ["object"] * 7,
        is_static=[True] + [False] * 7,
    )


SPEC = BodySpec(shape=Shape.BOX, extents=np.array([0.03, 0.08, 0.06]))
HYPOTHESES = (
    Hypothesis("factual"),
    Hypothesis("slide", (set_velocity(2, (0.4, 0.02, 0.0)),)),
    Hypothesis("fly", (set_velocity(8, (0.3, 0.2, 1.0), (1.0, 2.0, 0.5)),)),
    Hypothesis("push", (follow_path([0, 1], [(-0.1, 0, 0.05), (0.15, 0, 0.05)], body=SPEC, at_s=0.1),)),
    Hypothesis("path", (follow_path([0, 0.5], [(0, 0.25, 0.07), (0.3, 0.25, 0.1)],
                                    [(0, 0, 0, 1), (0, 0, 0.38, 0.92)], object_id=6),)),
    Hypothesis("add", (add(SPEC, at_s=0.3), remove(3, at_s=0.5))),
    Hypothesis("gone", (remove(5),)),
    Hypothesis("table", (remove(1, at_s=0.4),)),
    Hypothesis("pose", (set_pose(4, (0.3, -0.3, 0.1), at_s=0.2),)),
    Hypothesis("morph", (morph(3, (1.0, 1.0, 2.0), at_s=0.3), morph(8, (1.5, 1.0, 1.0)))),
    Hypothesis("light", (set_property(2, Property.MASS, 0.5, factor=True), apply_impulse(2, (0.03, 0, 0), at_s=0.2))),
    Hypothesis("ice", (set_property(1, Property.FRICTION, 0.05), set_velocity(2, (0.3, 0, 0), at_s=0.1))),
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("samples", [1, 3])
def test_rollouts_are_those_of_the_graph(both: tuple[LearnedDynamics, LearnedDynamics], samples: int) -> None:
    """Every intervention, sleeping and waking, stacks, hulls, samples: the same futures from both engines."""
    a, b = (d.rollout([scene()] * samples, HYPOTHESES, TIMES) for d in both)
    np.testing.assert_array_equal(a.present, b.present)
    assert np.isfinite(a.states).all()
    for k, hypothesis in enumerate(HYPOTHESES):
        apart = np.linalg.norm(a.states[k, ..., POSITION] - b.states[k, ..., POSITION], axis=-1)
        assert apart[:, :8].max() < 3e-3, hypothesis.name
        # Later, a rounding can decide what hits what by a hair.
        assert np.quantile(apart, 0.95) < 5e-3, hypothesis.name
    # A stone that falls off with its table lands on a corner that rounding decides.
    assert (np.abs(a.scatter - b.scatter) > 3e-3 + 0.3 * b.scatter).sum() <= 1
    touched = [
        {(c.hypothesis, c.sample, c.a, c.b) for c in r.contacts if c.began and c.time_s < 0.3} for r in (a, b)
    ]  # fmt: skip
    assert len(touched[0] ^ touched[1]) <= 0.05 * len(touched[0]) + 1


@pytest.mark.slow
def test_futures_do_not_depend_on_what_else_is_asked(both: tuple[LearnedDynamics, LearnedDynamics]) -> None:
    """To the last bit, alone or among hundreds, in one chunk or in many."""
    many = [Hypothesis(f"{k}", (set_velocity(2 + k % 7, (0.1 + 0.001 * k, 0.2, 0.0)),)) for k in range(300)]
    whole = both[0].rollout([scene()], many, TIMES)
    for k in (0, 17, 150, 299):
        alone = both[0].rollout([scene()], [many[k]], TIMES)
        np.testing.assert_array_equal(alone.states[0], whole.states[k])
        mine = [(c.time_s, c.a, c.b, c.began) for c in whole.contacts if c.hypothesis == k]
        assert [(c.time_s, c.a, c.b, c.began) for c in alone.contacts] == mine


@pytest.mark.slow
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 10_000))
@example(116)  # a stone with square bounds that sank as it tipped
def test_crowded_worlds_stay_finite_and_on_the_table(both: tuple[LearnedDynamics, LearnedDynamics], seed: int) -> None:
    rng = np.random.default_rng(seed)
    throw = Hypothesis("t", tuple(set_velocity(i, rng.normal(0.0, 0.7, 3) * (1, 1, 0.5)) for i in range(2, 9)))
    states = both[0].rollout([scene(seed)], [throw], TIMES).states[0, 0]
    assert np.isfinite(states).all()
    on_table = np.abs(states[:, 1:, :2]).max(axis=-1) < 0.55
    assert (states[:, 1:, 2][on_table] > -0.01).all()
    assert np.linalg.norm(states[:, 1:, LINEAR_VELOCITY], axis=-1).max() < 12.0


@pytest.mark.slow
def test_the_engine_can_be_chosen_and_read(both: tuple[LearnedDynamics, LearnedDynamics]) -> None:
    assert [d.engine for d in both] == ["compiled", "onnxruntime"]
    auto = make_dynamics("auto", engine="onnxruntime")
    assert isinstance(auto, AutomaticDynamics) and auto.engine == "onnxruntime"
    with pytest.raises(ValueError, match="engine: got 'fast', expected one of auto, compiled, onnxruntime"):
        LearnedDynamics(engine="fast")


@pytest.mark.slow
def test_without_numba_it_is_onnx_runtime(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    import sys

    for name in [
        n for n in sys.modules if n.split(".")[0] == "numba" or n == "wm_dynamics.contact_step.rollout_kernel"
    ]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "numba", None)
    with caplog.at_level(logging.WARNING):
        assert LearnedDynamics(threads=1).engine == "onnxruntime"
    assert "ONNX Runtime makes the steps, because Numba cannot be imported" in caplog.text
    with pytest.raises(InferenceError, match="Numba cannot be imported"):
        LearnedDynamics(engine="compiled")


@pytest.mark.slow
def test_what_answers_otherwise_than_the_graph_is_not_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    alone = tmp_path / "dynamics.onnx"
    shutil.copy(default_model(), alone)
    with pytest.raises(InferenceError, match=r"dynamics\.safetensors: no such file"):
        LearnedDynamics(alone, engine="compiled")
    weights = default_model().with_suffix(".safetensors").read_bytes()
    (tmp_path / "dynamics.safetensors").write_bytes(weights[:-40] + np.ones(10, np.float32).tobytes())
    with pytest.raises(InferenceError, match="differs from ONNX Runtime's"):
        LearnedDynamics(alone, engine="compiled")
    assert LearnedDynamics(alone).engine == "onnxruntime"
    assert "differs from ONNX Runtime's" in caplog.text


@pytest.mark.parametrize("content", [b"", b"\x02\0\0\0\0\0\0\0{}", b"\xff" * 40])
def test_bad_weights_are_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    with pytest.raises(InferenceError, match=r"w\.safetensors: not the dynamics network's weights"):
        read_weights(path, {})


def test_where_compiled_code_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder().parent == tmp_path / "wm" / "numba"
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "mine"))
    assert cache_folder().parent == tmp_path / "mine"
    folder = trusted_folder()
    assert folder == cache_folder() and folder.stat().st_mode & 0o777 == 0o700
    (tmp_path / "file").touch()
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "file"))
    assert trusted_folder() is None


@pytest.mark.slow
def test_every_formula_is_straight_vector_code() -> None:
    """No branches, no calls to a library, no assumption that numbers are finite; valid LLVM code."""
    import llvmlite.binding as llvm
    from llvmlite import ir

    from wm_dynamics.contact_step import emission

    given = [ir.FloatType().as_pointer(), ir.IntType(64)]
    assert len(emission.STRAIGHT) == 14
    for made in emission.STRAIGHT:
        name = made.over_memory.__name__
        module = ir.Module(name)
        function = ir.Function(module, ir.FunctionType(ir.VoidType(), given * made.arguments), name)
        builder = ir.IRBuilder(function.append_basic_block())
        made.over_memory(*(emission.Memory(builder, *function.args[2 * i : 2 * i + 2]) for i in range(made.arguments)))
        builder.ret_void()
        text = str(module)
        llvm.parse_assembly(text).verify()
        assert len(function.blocks) == 1 and "<16 x float>" in text
        called = {line.split("@")[1].split("(")[0].strip('"') for line in text.splitlines() if " call " in line}
        assert all(c.startswith("llvm.") for c in called), (name, called)
        assert " fast " not in text and "nnan" not in text and "ninf" not in text


@pytest.mark.slow
def test_setup_compiles_and_says_so(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    assert compiled_module.main() == 0
    assert "the contact step is there after" in caplog.text
    monkeypatch.setattr(compiled_module, "CHECK_TOLERANCE", -1.0)
    assert compiled_module.main() == 1
    assert "differs from ONNX Runtime's" in caplog.text


@pytest.mark.slow
def test_a_scene_asked_of_again_is_prepared_once(both: tuple[LearnedDynamics, LearnedDynamics]) -> None:
    """And one that differs in anything that matters is not taken for it."""
    dynamics, graph = both[0], scene()
    hit = [Hypothesis("hit", (set_velocity(2, (0.5, 0.2, 0.0)),))]
    first = dynamics.rollout([graph], hit, TIMES)
    dynamics.rollout([graph], HYPOTHESES, TIMES)
    again = dynamics.rollout([replace(graph, stamp_ns=graph.stamp_ns + 10)], hit, TIMES)
    np.testing.assert_array_equal(again.states, first.states)
    assert again.contacts == first.contacts
    moved = graph.positions.copy()
    moved[1] += (0.02, 0.0, 0.0)
    for other in (replace(graph, positions=moved), replace(graph, friction=graph.friction * 0.3)):
        assert not np.array_equal(dynamics.rollout([other], hit, TIMES).states, first.states)


def test_processes_that_start_at_once_compile_once(tmp_path: Path) -> None:
    """One holds the lock while it compiles; the other waits."""
    with only_one(tmp_path):
        entered: list[bool] = []

        def enter() -> None:
            with only_one(tmp_path):
                entered.append(True)

        other = threading.Thread(target=enter)
        other.start()
        other.join(0.2)
        assert not entered
    other.join(10.0)
    assert entered


def test_formulas_are_exact_enough() -> None:
    """Elementary functions of vectors against NumPy's in float64."""
    from numba import njit

    from wm_dynamics.contact_step import numbers
    from wm_dynamics.contact_step.emission import Tile, emitted
    from wm_dynamics.contact_step.records import Record

    record = Record(x=(1,), exp=(1,), tanh=(1,), sigmoid=(1,), log=(1,), sine=(1,), cosine=(1,))

    def over_memory(memory: Any) -> None:
        t = Tile(memory, record)
        x = t.x
        t.exp, t.tanh, t.sigmoid = numbers.exp(x), numbers.tanh(x), numbers.sigmoid(x)
        t.log, (t.sine, t.cosine) = numbers.log(abs(x) + 1e-6), numbers.sine_cosine(x)

    functions = emitted(over_memory, 1)

    @njit  # type: ignore[untyped-decorator]
    def call(array):  # type: ignore[no-untyped-def]
        functions(array, 0)

    for x in (np.linspace(-12, 12, 16), np.linspace(-1e-3, 1e-3, 16), np.linspace(60, 80, 16), np.full(16, np.nan)):
        array = np.zeros(7 * 16, dtype=np.float32)
        array[:16] = x
        call(array)
        given_ = array[:16].astype(np.float64)
        expected = [np.exp(given_), np.tanh(given_), 1 / (1 + np.exp(-given_)), np.log(np.abs(given_) + 1e-6)]
        for row, right in enumerate([*expected, np.sin(given_), np.cos(given_)], start=1):
            np.testing.assert_allclose(array[16 * row : 16 * row + 16], right, rtol=4e-6, atol=4e-7, err_msg=str(row))
