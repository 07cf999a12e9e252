"""Weights: found where they are, refused by file and tensor where they are wrong."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from model_files import CLASSES, learned_model, make_model
from wm_bringup.doctor.findings import Finding
from wm_bringup.doctor.models import check_models
from wm_perception.models import choice, files, segmenter
from wm_perception.models.files import ModelError
from wm_perception.models.segmenter import make_segmenter
from wm_perception.pipeline import PerceptionPipeline
from wm_perception.segmentation.geometric import GeometricSegmenter
from wm_perception.segmentation.learned import CHANNELS, LearnedSegmenter
from wm_perception.segmentation.onnx import OnnxSegmenter
from wm_perception.types import PerceptionConfig


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is the only one in which shipped weights are looked for."""
    folder = tmp_path / "models"
    folder.mkdir()
    monkeypatch.setattr(files, "model_folders", lambda: [folder])
    return folder


def learned(path: Path | str) -> PerceptionConfig:
    return PerceptionConfig(segmenter="learned", segmenter_model=str(path))


def test_auto_takes_geometry_without_weights_and_the_network_with_them(shipped: Path):
    assert isinstance(make_segmenter(PerceptionConfig()), GeometricSegmenter)
    learned_model(shipped / "segmenter.onnx")
    segmenter = make_segmenter(PerceptionConfig())
    assert isinstance(segmenter, LearnedSegmenter) and segmenter.vocabulary == CLASSES
    assert isinstance(make_segmenter(PerceptionConfig(segmenter="geometric")), GeometricSegmenter)
    assert isinstance(PerceptionPipeline().segmenter, LearnedSegmenter)
    said = str(choice.chosen("segmenter", PerceptionConfig()))
    assert said.startswith("learned, ") and files.sha256(shipped / "segmenter.onnx")[:12] in said


def test_precision_is_that_which_the_machine_is_fast_with(shipped: Path, monkeypatch: pytest.MonkeyPatch):
    def said(**given: str) -> choice.Choice:
        return choice.chosen("segmenter", PerceptionConfig(**given))

    full = learned_model(shipped / "segmenter.onnx")
    monkeypatch.setattr(choice, "int8_is_fast", lambda: (True, "the processor has avx512_vnni"))
    assert said().path == full and "no segmenter_int8.onnx beside it" in said().why
    with pytest.raises(ModelError, match=r"inference_precision: got 'int8', but there is no .*segmenter_int8\.onnx"):
        said(inference_precision="int8")
    small = learned_model(shipped / "segmenter_int8.onnx")
    assert said().path == full and "is of other weights; run: make export ARGS=--install" in said().why
    monkeypatch.setattr(choice, "_weights", lambda path: "one and the same")
    assert (said().path, said().precision, said().backend) == (small, "int8", "onnxruntime_cpu")
    assert "int8 on onnxruntime_cpu" in str(said()) and "avx512_vnni" in str(said())
    assert said(inference_precision="fp32").path == full
    monkeypatch.setattr(choice, "int8_is_fast", lambda: (False, "the processor has no VNNI"))
    assert said().path == full and said().why.endswith("the processor has no VNNI")
    with pytest.raises(ModelError, match="got 'int8', expected auto, fp32 or fp16 here: the processor has no VNNI"):
        said(inference_precision="int8")
    # A file that was named is used as it is.
    assert said(segmenter_model=str(small)).path == small


def test_a_runtime_that_is_not_here_is_refused_at_configure(shipped: Path):
    learned_model(shipped / "segmenter.onnx")
    with pytest.raises(ModelError, match="inference_backend: tensorrt: Python package tensorrt is not installed"):
        make_segmenter(PerceptionConfig(inference_backend="tensorrt"))
    with pytest.raises(ValueError, match="inference_backend: got 'tpu', expected one of auto, tensorrt"):
        PerceptionConfig(inference_backend="tpu")


def test_a_gpu_runtime_that_does_not_run_the_model_is_passed_over(
    shipped: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    learned_model(shipped / "segmenter.onnx")
    real = segmenter.load_learned_segmenter

    def load(path: Path, threads: int, height: float, backend: str) -> object:
        if backend == "onnxruntime_cuda":
            raise ModelError("not enough memory")
        return real(path, threads, height, backend)

    def choose(backend: str, path: Path, gpu: bool, without: dict[str, str]) -> tuple[str, tuple[str, ...]]:
        return ("onnxruntime_cpu", ("no GPU",)) if without or not gpu else ("onnxruntime_cuda", ("a GPU",))

    monkeypatch.setattr(choice, "REFUSED_BACKENDS", refused := {})
    monkeypatch.setattr(segmenter, "REFUSED_BACKENDS", refused)
    monkeypatch.setattr(choice, "choose", choose)
    monkeypatch.setattr(segmenter, "load_learned_segmenter", load)
    assert isinstance(make_segmenter(PerceptionConfig()), LearnedSegmenter)
    assert "going on without it: not enough memory" in caplog.text
    assert choice.chosen("segmenter", PerceptionConfig()).backend == "onnxruntime_cpu"


def test_bad_shipped_weights_are_refused_not_passed_over(shipped: Path):
    (shipped / "segmenter.onnx").write_bytes(b"not a model")
    with pytest.raises(ModelError, match=r"models/segmenter\.onnx: ONNX Runtime refuses it"):
        make_segmenter(PerceptionConfig())


def test_installed_weights_are_found_in_the_share_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / "share/wm_perception/models"
    folder.mkdir(parents=True)
    monkeypatch.setenv("AMENT_PREFIX_PATH", f"/nowhere:{tmp_path}")
    assert folder in files.model_folders()
    learned_model(folder / "another.onnx")
    assert files.shipped_model("another") == folder / "another.onnx"
    assert files.model_path("another") == folder / "another.onnx"


def test_absent_weights_are_named(shipped: Path, tmp_path: Path):
    with pytest.raises(ModelError, match=rf"no segmenter\.onnx in {shipped}; run: make train-segmenter"):
        make_segmenter(PerceptionConfig(segmenter="learned"))
    with pytest.raises(ModelError, match=r"absent\.onnx: no such file, expected an ONNX file \(segmenter_model\)"):
        make_segmenter(learned(tmp_path / "absent.onnx"))
    with pytest.raises(ModelError, match="a folder, expected an ONNX file"):
        make_segmenter(learned(tmp_path))


@pytest.mark.parametrize(
    ("content", "name", "found"),
    [
        (b"", "empty.onnx", "empty.onnx: ONNX Runtime refuses it"),
        (b"not a model", "text.onnx", "text.onnx: ONNX Runtime refuses it"),
        (b"not a model", "weights.bin", "ending in '.bin', expected one of"),
    ],
)
def test_what_is_no_model_is_refused(tmp_path: Path, content: bytes, name: str, found: str):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError) as error:
        make_segmenter(learned(tmp_path / name))
    assert found in str(error.value) and name in str(error.value)


def test_a_cut_off_file_is_refused(tmp_path: Path):
    path = learned_model(tmp_path / "cut.onnx")
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ModelError, match=r"cut\.onnx"):
        make_segmenter(learned(path))


@pytest.mark.parametrize(
    ("changes", "texts"),
    [
        ({"metadata": {"task": ""}}, ("metadata 'task'", "'image'", "expected 'wm_segmenter'", "segmenter: onnx")),
        ({"metadata": {"task": "other"}}, ("metadata 'task': got 'other', expected 'wm_segmenter'",)),
        ({"metadata": {"vocabulary": ""}}, ("metadata 'vocabulary' is missing", "channels, task, version")),
        ({"metadata": {"vocabulary": "[1, 2]"}}, ("metadata 'vocabulary': got '[1, 2]'", "different names")),
        ({"metadata": {"vocabulary": '["a", "a"]'}}, ("metadata 'vocabulary'", "different names")),
        ({"metadata": {"vocabulary": '["a"'}}, ("metadata 'vocabulary': got '[\"a\"'", "JSON list")),
        ({"metadata": {"channels": "red, green"}}, ("metadata 'channels': got red, green; expected red, green, blue",)),
        ({"rename": {"image": "picture"}}, ("input 'image' is missing", "'picture'", "expected 'image' float32")),
        ({"rename": {"centre": "center"}}, ("output 'centre' is missing", "'center'", "expected 'centre' float32")),
        ({"input_shape": ("B", 3, "h", "w")}, ("input 'image': got shape (B, 3, h, w)", "(B, 10, h, w)")),
        ({"input_shape": (1, 10, 240, 320)}, ("input 'image': got fixed sizes (1, 10, 240, 320)", "left open")),
        ({"input_shape": ("B", 10, "h")}, ("input 'image': got shape (B, 10, h)", "(B, 10, h, w)")),
        ({"input_type": "float64"}, ("input 'image': got float64, expected 'image' float32",)),
        ({"shapes": {"offset": ("B", 3, "h", "w")}}, ("output 'offset': got shape (B, 3, h, w)", "(B, 2, h, w)")),
        ({"shapes": {"embedding": ("B", 16)}}, ("output 'embedding': got shape (B, 16)", "(B, 16, h2, w2)")),
        (
            {"metadata": {"vocabulary": "box, ball"}},
            ("output 'classes'", "(B, 3, ", "expected 'classes' float32 (B, 2,"),
        ),
        # What the file states agrees, what it gives does not.
        ({"wrong_size": "classes"}, ("output 'classes': it gave shape (1, 3, 64, 96)", "h2 = 32, w2 = 48")),
        ({"nan": "centre"}, ("output 'centre'", "are NaN or infinite")),
        ({"extra_input": "prompt"}, ("input 'prompt' float32", "is not known", "expected 'image' float32")),
    ],
)
def test_a_wrong_network_is_refused_by_file_and_tensor(tmp_path: Path, changes: dict, texts: tuple[str, ...]):
    path = learned_model(tmp_path / "wrong.onnx", **changes)
    with pytest.raises(ModelError) as error:
        make_segmenter(learned(path))
    assert "wrong.onnx" in str(error.value)
    assert all(text in str(error.value) for text in texts), str(error.value)


def test_a_network_that_keeps_its_examples_size_is_refused(tmp_path: Path):
    path = learned_model(tmp_path / "traced.onnx", traced=(64, 96))
    with pytest.raises(ModelError, match=r"traced\.onnx.*(50, 42)"):
        make_segmenter(learned(path))


def test_auto_takes_a_given_file_for_what_it_says(tmp_path: Path):
    config = PerceptionConfig(segmenter_model=str(learned_model(tmp_path / "ours.onnx")))
    assert isinstance(make_segmenter(config), LearnedSegmenter)
    theirs = make_model(
        tmp_path / "theirs.onnx",
        {"rgb": (1, 3, 8, 8)},
        {"masks": np.zeros((0, 8, 8), np.float32), "scores": np.zeros(0, np.float32)},
    )
    config = PerceptionConfig(segmenter_model=str(theirs))
    assert isinstance(make_segmenter(config), OnnxSegmenter)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"segmenter": "best"}, "segmenter: got 'best', expected one of auto, learned, geometric, onnx"),
        ({"segmenter": "onnx"}, "segmenter_model: got nothing, expected the path of an ONNX file"),
        ({"segmenter": "geometric", "segmenter_model": "a.onnx"}, "segmenter_model: got 'a.onnx', expected nothing"),
        ({"reasoner": "onnx"}, "reasoner: got 'onnx', expected one of auto, learned, geometric"),
        ({"inference_threads": 0}, "inference_threads: got 0, expected 1 to 32"),
    ],
)
def test_a_configuration_that_makes_no_sense_is_refused(given: dict, text: str):
    with pytest.raises(ValueError, match=text):
        PerceptionConfig(**given)


def test_doctor_lists_the_models(shipped: Path):
    def found() -> dict[str, Finding]:
        return {f.name: f for f in check_models()}

    assert {f.level for f in found().values()} == {"note"} and "make train-segmenter" in found()["segmenter"].advice
    path = learned_model(shipped / "segmenter.onnx")
    digest = files.sha256(path)
    finding = found()["segmenter"]
    assert finding.level == "warning" and "no card segmenter.json" in finding.found
    assert digest in finding.found and finding.values["loads"] and finding.values["sha256"] == digest
    card = shipped / "segmenter.json"
    card.write_text(json.dumps({"files": {"segmenter.onnx": {"sha256": "0" * 64}}}))
    assert "is of a file with sha256 0000" in found()["segmenter"].found
    card.write_text(json.dumps({"files": {"segmenter.onnx": {"sha256": digest}}}))
    assert found()["segmenter"].level == "ok"
    learned_model(path, rename={"centre": "center"})
    finding = found()["segmenter"]
    assert finding.level == "error" and "output 'centre' is missing" in finding.found and not finding.values["loads"]


def test_threads_are_no_more_than_the_machine_has(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(choice.os, "cpu_count", lambda: 4)
    assert choice.threads(PerceptionConfig(inference_threads=8)) == 4
    assert choice.threads(PerceptionConfig()) == 2


def test_channels_are_those_of_the_contract():
    inputs, outputs = segmenter.learned_contract(len(CHANNELS), 7)
    assert str(inputs[0]) == "'image' float32 (B, 10, h, w)"
    assert [t.name for t in outputs] == ["foreground", "centre", "offset", "classes", "embedding", "apart"]
    assert dataclasses.replace(outputs[0], optional=True).shapes == (("B", 1, "h", "w"),)
