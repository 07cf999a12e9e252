"""Engine files: keys, checksums, atomic writes, and the profile in an ONNX file."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import pytest

from gpu_machine import PROFILE
from square_model import square
from wm_core.inference import base, cuda, engine_builder, engine_cache, engine_file
from wm_core.inference.base import onnx_metadata

onnx = pytest.importorskip("onnx", reason="onnx is a test requirement")


KEY = engine_file.EngineKey(
    "square", "0" * 64, "tensorrt", "10.9.0", "Stand-in GPU", ("SM89",), "fp32", engine_file.profile_key(PROFILE)
)


def test_an_engine_file_says_what_it_is_of_and_is_given_back_whole(tmp_path: Path):
    file = engine_file.write_engine(tmp_path / "a.wmengine", KEY, b"engine\nwith lines", {"task": "t"}, "/m.onnx", 1.25)
    head, content = engine_file.read_engine(file)
    assert (head.key, content, head.metadata, head.source) == (KEY, b"engine\nwith lines", {"task": "t"}, "/m.onnx")
    assert head.build_seconds == 1.25 and list(tmp_path.iterdir()) == [file]


def test_keys_differ_with_everything_that_an_engine_depends_on():
    changes: dict[str, Any] = {
        "model_sha256": "1" * 64,
        "runtime": "tensorrt_rtx",
        "runtime_version": "11.1.0",
        "gpu": "Another",
        "architectures": ("SM86",),
        "precision": "fp16",
        "profile": engine_file.profile_key({"x": ((1, 3), (1, 3), (4, 3))}),
    }
    for name, value in changes.items():
        other = dataclasses.replace(KEY, **{name: value})
        assert other.digest != KEY.digest and other.file_name != KEY.file_name
        assert [d.split()[0] for d in other.differences(KEY)] == [name]
    assert engine_file.EngineKey.from_json(json.loads(json.dumps(dataclasses.asdict(KEY)))) == KEY


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = engine_file.write_engine(tmp_path / "a.wmengine", KEY, b"old", {})
    before = file.read_bytes()

    def fail(*args: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        engine_file.write_engine(file, KEY, b"new", {})
    assert file.read_bytes() == before and list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda b: b[:-3], "has 3 bytes of engine, expected 6"),
        (lambda b: b[:-1] + b"?", "the engine's sha256 is "),
        (lambda b: b"ELF" + b[3:], "begins with b'ELF"),
        (lambda b: b.replace(b'"key"', b'"kex"'), "its head is no JSON of an engine"),
        (lambda b: b[:20], "its head is no JSON of an engine"),
        (lambda b: b"", "begins with b''"),
    ],
)
def test_a_damaged_engine_file_is_named(tmp_path: Path, damage: Any, said: str):
    file = engine_file.write_engine(tmp_path / "a.wmengine", KEY, b"engine", {})
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(base.EngineCorruptError, match=said):
        engine_file.read_engine(file)
    ((path, found),) = engine_cache.cached(tmp_path)
    assert path == file and (isinstance(found, base.EngineCorruptError) or "sha256" in said)


def test_an_engine_of_another_machine_is_refused_with_all_that_differs(tmp_path: Path):
    file = engine_file.write_engine(tmp_path / "a.wmengine", KEY, b"engine", {})
    head = engine_file.read_head(file)
    here = cuda.Device("Stand-in GPU", (8, 9), 2**33, False, "13.1")
    engine_file.check_runs_here(head, "10.9.0", here)
    for device, installed, said in (
        (dataclasses.replace(here, compute_capability=(8, 7)), "10.9.0", "compute capability SM89, expected SM87"),
        (dataclasses.replace(here, name="Orin"), "10.9.0", "GPU 'Stand-in GPU', expected 'Orin'"),
        (here, "11.1.0", "tensorrt 10.9.0, expected 11.1.0"),
    ):
        with pytest.raises(base.EngineMismatchError, match=said):
            engine_file.check_runs_here(head, installed, device)
    with pytest.raises(base.EngineMismatchError, match="precision 'fp32', expected 'fp16'"):
        engine_file.check_fits(head, dataclasses.replace(KEY, precision="fp16"))


def test_the_profile_comes_from_the_metadata(tmp_path: Path):
    path = square(tmp_path / "square.onnx")
    assert engine_builder.profile_of(path)["x"] == PROFILE["x"]
    assert engine_builder.profile_of(square(tmp_path / "plain.onnx", metadata={})) == {}
    bad = square(
        tmp_path / "bad.onnx", metadata={"tensors": '{"x": {"shape": ["b", 3]}}', "axes": '{"batch": [1, 2, 4]}'}
    )
    with pytest.raises(base.ModelFileError, match="metadata 'axes'"):
        engine_builder.profile_of(bad)


def test_metadata_is_read_without_the_onnx_package(tmp_path: Path):
    path = square(tmp_path / "square.onnx", metadata={"a": "ä", "long": "x" * 300, "empty": ""})
    assert onnx_metadata(path) == {"a": "ä", "long": "x" * 300, "empty": ""}
    for content in (b"not a model", path.read_bytes()[:-5]):
        path.write_bytes(content)
        with pytest.raises(base.ModelFileError, match="no ONNX model"):
            onnx_metadata(path)
