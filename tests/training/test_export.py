"""Export: what comes out computes what torch computes, says what it is, and errors name what is wrong."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="export needs torch; install requirements/training.txt")
pytest.importorskip("onnxscript", reason="export needs onnxscript; install requirements/training.txt")

from export import __main__ as command
from export import card, graph, parity, precision, registry
from export.model import Axis, Model, Quantization, replace_real
from wm_core.inference.backends import open_session
from wm_core.inference.base import ModelFileError, onnx_metadata

pytestmark = pytest.mark.slow

NAMES = registry.names()


def small(model: Model) -> list[dict[str, Any]]:
    """Inputs of a few small sizes."""
    rng = np.random.default_rng(23)
    found = []
    for k in (2, 3):
        sizes = {name: min(max(axis.least, k), axis.most) for name, axis in model.axes.items()}
        if "height" in sizes:
            sizes |= {"height": 32 * k, "width": 48 * k, "half_height": 16 * k, "half_width": 24 * k, "batch": k - 1}
        if "bodies" in sizes:
            sizes |= {"bodies": 4 * k, "pairs": 3 * k, "hulls": k}
        found.append(model.random(rng, sizes))
    return found


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The fp32 files, made anew from torch."""
    folder = tmp_path_factory.mktemp("export")
    return {name: graph.from_torch(registry.model(name), folder / f"{name}.onnx") for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_onnx_runtime_agrees_with_torch(name: str, exported: dict[str, Path]):
    """Made anew, and as shipped: 1e-4 relative."""
    model = registry.model(name)
    reference = parity.torch_runner(model)
    files = [exported[name], *([model.onnx] if model.onnx.is_file() else [])]
    for path in files:
        with open_session(path, "onnxruntime_cpu", 1) as session:
            worst, _ = parity.errors(model, session.run, reference, small(model))
        assert worst is not None and worst <= parity.TOLERANCE["fp32"], (path, worst)


@pytest.mark.parametrize("name", [n for n in NAMES if n != "dynamics"])
def test_half_precision_agrees_with_torch(name: str, exported: dict[str, Path], tmp_path: Path):
    model = registry.model(name)
    path = precision.fp16(exported[name], tmp_path / "half.onnx", model)
    with open_session(path, "onnxruntime_cpu", 1) as session:
        assert {s.dtype for s in (*session.inputs, *session.outputs)} == {np.dtype(np.float32)}
        worst, _ = parity.errors(model, session.run, parity.torch_runner(model), small(model))
    assert worst is not None and worst <= parity.TOLERANCE["fp16"]
    assert set(graph.counts(path)["weight_bytes"]) <= {"float16", "int64"}
    assert onnx_metadata(path)["precision"] == "fp16"


@pytest.mark.parametrize("name", NAMES)
def test_a_file_says_what_it_is(name: str, exported: dict[str, Path]):
    model, metadata = registry.model(name), onnx_metadata(exported[name])
    assert metadata["task"] == model.task and metadata["precision"] == "fp32" and metadata["git_revision"]
    assert metadata["card"].startswith(f"{name}.md")
    tensors = json.loads(metadata["tensors"])
    assert list(tensors) == [t.name for t in (*model.inputs, *model.outputs)]
    assert all(set(t) == {"shape", "dtype", "unit", "normalisation"} for t in tensors.values())
    for shape in (t["shape"] for t in tensors.values()):
        assert all(isinstance(s, int) or s in json.loads(metadata["axes"]) for s in shape)


@pytest.mark.parametrize("name", NAMES)
def test_constants_are_folded(name: str, exported: dict[str, Path]):
    found = graph.counts(exported[name])
    assert "Constant" not in found["operators"] and "Identity" not in found["operators"]
    # Fewer than in torch: normalisation goes into the convolutions before it.
    network = registry.model(name).network(registry.model(name).weights)
    assert found["parameters"] >= 0.9 * sum(p.numel() for p in network.parameters())


def test_int8_keeps_what_it_was_told_to(exported: dict[str, Path], tmp_path: Path):
    import onnx

    model = registry.model("segmenter")
    feeds = small(model)
    model = replace_real(model, lambda split, count: iter(feeds))
    path = precision.int8(exported["segmenter"], tmp_path / "int8.onnx", model)
    found = onnx.load(path)
    made = {o: n for n in found.graph.node for o in n.output}
    convolutions = [n for n in found.graph.node if n.op_type == "Conv"]
    weights = {n.name: made.get(n.input[1]) for n in convolutions}
    plain = [name for name, node in weights.items() if node is None or node.op_type != "DequantizeLinear"]
    assert len(convolutions) == 32
    assert sorted(n.split("/")[1] for n in plain) == ["context", "fine", "layers", "meaning"]
    assert onnx_metadata(path)["calibration"] == "min-max over 2 inputs of the training set"
    # Seven bits where sums of pairs would overflow without VNNI.
    values = {i.name: onnx.numpy_helper.to_array(i) for i in found.graph.initializer}
    quantized = {name: values[node.input[0]] for name, node in weights.items() if node and name not in plain}
    assert all((np.abs(v).max() <= 64) == ("/stem/" in name) for name, v in quantized.items())
    with open_session(path, "onnxruntime_cpu") as session:
        assert all(np.isfinite(v).all() for v in session.run(feeds[0]).values())


def test_int8_without_data_or_plan_is_refused(exported: dict[str, Path], tmp_path: Path):
    model = replace_real(registry.model("segmenter"), lambda split, count: iter(()))
    with pytest.raises(FileNotFoundError, match="found no inputs of the training set to take ranges from"):
        precision.int8(exported["segmenter"], tmp_path / "a.onnx", model)
    with pytest.raises(ValueError, match="reasoner: has no int8"):
        precision.int8(exported["reasoner"], tmp_path / "a.onnx", registry.model("reasoner"))
    for field in ("keep", "narrow"):
        plan = dataclasses.replace(Quantization(("Conv",), ()), **{field: ("/absent/",)})
        wrong = dataclasses.replace(registry.model("segmenter"), quantization=plan)
        with pytest.raises(ValueError, match=f"no node's name contains '/absent/', as Quantization.{field} has it"):
            precision.int8(exported["segmenter"], tmp_path / "a.onnx", wrong)
    with pytest.raises(ValueError, match="precision: got 'int4'"):
        precision.make("int4", exported["segmenter"], tmp_path / "a.onnx", model)


def test_a_graph_that_is_not_as_registered_is_refused(tmp_path: Path):
    model = registry.model("segmenter")
    with pytest.raises(FileNotFoundError, match=r"run: make train-segmenter"):
        graph.from_torch(dataclasses.replace(model, folder=tmp_path), tmp_path / "a.onnx")
    outputs = (dataclasses.replace(model.outputs[0], shape=("batch", 2, "height", "width")), *model.outputs[1:])
    with pytest.raises(ValueError, match="segmenter: outputs are"):
        graph.from_torch(dataclasses.replace(model, outputs=outputs), tmp_path / "a.onnx")
    with pytest.raises(ValueError, match="model: got 'unknown', expected one of segmenter"):
        registry.model("unknown")
    with pytest.raises(ValueError, match=r"got 3\.\.2\.\.4"):
        Axis(3, 2, 4)


def test_errors_are_relative_to_the_tensor():
    expected = np.array([0.0, 100.0])
    assert parity.relative_error(np.array([0.5, 100.0]), expected) == pytest.approx(0.005)
    # Half a percent of a probability is that, however small the largest one is.
    assert parity.relative_error(np.array([2e-5]), np.array([3e-5]), "probability") == pytest.approx(1e-5)
    assert parity.relative_error(np.zeros((0, 3)), np.zeros((0, 3))) == 0.0


def test_what_is_beyond_tolerance_is_said_and_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    from rich.console import Console

    model = registry.model("segmenter")
    reference = parity.Row("segmenter", "fp32", "torch eager", metric={"seeds_mask_ap": 0.77})
    good = parity.Row("segmenter", "fp32", "onnxruntime_cpu", random_error=1e-6, metric={"seeds_mask_ap": 0.7699})
    wrong = parity.Row("segmenter", "fp32", "onnxruntime_cpu", random_error=2e-4, real_error=float("nan"))
    lossy = parity.Row("segmenter", "int8", "onnxruntime_cpu", real_error=0.3, metric={"seeds_mask_ap": 0.755})
    for row in (good, wrong, lossy):
        parity.judge(row, reference, model)
    assert not good.problems and good.metric_lost == pytest.approx(1e-4)
    assert [p.split()[0] for p in wrong.problems] == ["random_error", "real_error"]
    assert lossy.problems == ["seeds_mask_ap loses 0.015, expected at most 0.01"]
    table = parity.table([reference, good, wrong, lossy], {"segmenter": "seeds_mask_ap"})
    failed = [p for r in (wrong, lossy) for p in r.problems]
    engines = command.engine_table([])
    assert command.write(tmp_path, {"failed": failed}, table, engines, failed, Console()) == 1
    assert command.write(tmp_path, {"failed": []}, table, engines, [], Console()) == 0
    assert "int8" in (tmp_path / "report.md").read_text()


@pytest.mark.parametrize("text", ["x", "x=1x3", "x=1:2x2:3", "x=2x3:1x3:4x3", "=1:1:1", "x=a:b:c"])
def test_a_profile_that_is_none_is_refused(text: str):
    with pytest.raises(ValueError, match="--profile: got"):
        command.parse_profile([text])


def test_precisions_that_are_none_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    given = ["--model", "segmenter", "--precision", "fp32", "--precision", "fp7", "--out", str(tmp_path / "out")]
    assert command.main(given) == 1
    assert "--precision: got 'fp7', expected one of fp32, fp16" in capsys.readouterr().err


def test_a_model_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """From an ONNX file alone: half precision, compared, and engines where TensorRT-RTX is installed."""
    from square_model import square

    path = square(tmp_path / "mine.onnx", 0.5, metadata={})
    out = tmp_path / "out"
    given = ["--onnx", str(path), "--profile", "x=1x3:2x3:4x3", "--architecture", "SM86", "--out", str(out)]
    assert command.main(given) == 0
    report = json.loads((out / "report.json").read_text())
    assert (out / "mine" / "mine_fp16.onnx").is_file() and report["failed"] == []
    assert {e["precision"] for e in report["engines"]} in (set(), {"fp32", "fp16"})
    assert command.main([*given, "--precision", "int8"]) == 1
    assert "int8 needs data to take ranges from" in capsys.readouterr().err


def test_cards_are_kept_true(tmp_path: Path, exported: dict[str, Path]):
    model = registry.model("segmenter")
    for name in ("segmenter.md", "segmenter.json", "segmenter.safetensors"):
        shutil.copy(model.folder / name, tmp_path / name)
    shutil.copy(exported["segmenter"], tmp_path / "segmenter.onnx")
    shutil.copy(exported["segmenter"], tmp_path / "segmenter_fp16.onnx")
    moved = dataclasses.replace(model, folder=tmp_path)
    row = parity.Row("segmenter", "fp32", "onnxruntime_cpu", "CPU", metric={"seeds_mask_ap": 0.7716}, latency_ms=20.0)
    for _ in range(2):
        card.update(moved, [row])
    text = (tmp_path / "segmenter.md").read_text()
    assert text.count("## Precisions") == text.count("## Files") == text.count("Its metadata:") == 1
    assert "| fp32 | onnxruntime_cpu, CPU | 0.7716 |" in text and "`segmenter_fp16.onnx`" in text
    facts = json.loads((tmp_path / "segmenter.json").read_text())
    assert set(facts["files"]) == {"segmenter.onnx", "segmenter_fp16.onnx", "segmenter.safetensors"}
    assert facts["metrics"] == json.loads((model.folder / "segmenter.json").read_text())["metrics"]


def test_a_file_that_no_runtime_reads_is_named(tmp_path: Path):
    (tmp_path / "a.onnx").write_bytes(b"no model")
    with pytest.raises(ModelFileError, match=r"a\.onnx: ONNX Runtime refuses it"):
        open_session(tmp_path / "a.onnx", "onnxruntime_cpu")
