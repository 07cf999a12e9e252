"""Which runtime is used, over stand-ins for the CUDA driver, TensorRT and ONNX Runtime on a GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpu_machine import Machine, make_machine, rows
from square_model import square
from wm_core.inference import backends, base, cuda, tensorrt_library

onnx = pytest.importorskip("onnx", reason="onnx is a test requirement")

pytest_plugins = ("gpu_machine",)


def test_auto_takes_the_gpu_and_says_why_not_another(ten: Machine, tmp_path: Path):
    path = square(tmp_path / "square.onnx")
    with backends.open_session(path, cache=ten.cache) as session:
        assert session.backend == "tensorrt" and "tensorrt 10.9.0, Stand-in GPU" in session.reasons[0]
    with backends.open_session(path, gpu=False) as session:
        assert session.backend == "onnxruntime_cpu"
    status = {s.name: s for s in backends.available_backends()}
    assert not status["tensorrt_rtx"].available and "not installed" in status["tensorrt_rtx"].reason


def test_auto_goes_on_where_a_gpu_runtime_refuses_a_model(ten: Machine, tmp_path: Path, caplog: Any):
    ten.trt.fail, ten.trt.fail_text = "build", "no implementation for node"
    path = square(tmp_path / "square.onnx")
    with backends.open_session(path, cache=ten.cache) as session:
        assert session.backend == "onnxruntime_cpu"
        assert any("tensorrt refuses it" in r for r in session.reasons) and "going on with" in caplog.text
        np.testing.assert_allclose(session.run(rows(7))["y"], rows(7)["x"] ** 2, rtol=1e-6)
    with pytest.raises(base.InferenceError, match="cannot build it"):
        ten.open(path)


@pytest.mark.parametrize(
    ("version", "gpu", "said"),
    [
        ("8.6.1", (8, 9, 1), r"tensorrt 8\.6\.1, expected 10 or 11"),
        ("10.9.0", (8, 9, 0), "no usable NVIDIA GPU .*no CUDA-capable device"),
    ],
)
def test_a_runtime_that_cannot_be_used_is_refused_by_name(
    driver: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, gpu: tuple[int, int, int], said: str
):
    old = make_machine(driver, monkeypatch, tmp_path, "tensorrt", version)
    driver.library.fake_device(gpu[0], gpu[1], 0, gpu[2])
    path = square(tmp_path / "square.onnx")
    with pytest.raises(base.BackendUnavailableError, match=said):
        old.open(path)
    with backends.open_session(path) as session:
        assert session.backend == "onnxruntime_cpu"


def test_rtx_says_which_gpus_it_serves(driver: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    machine = make_machine(driver, monkeypatch, tmp_path, "tensorrt_rtx", "1.7.1")
    driver.library.fake_device(9, 0, 0, 1)
    with pytest.raises(base.BackendUnavailableError, match=r"serves SM75, .*the GPU is Stand-in GPU \(SM90"):
        machine.open(square(tmp_path / "square.onnx"))


def test_no_driver_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cuda.Driver.__init__, "__defaults__", (str(tmp_path / "libcuda.so.1"),))
    monkeypatch.setattr(tensorrt_library, "runtime_module", lambda n: n)
    monkeypatch.setattr(tensorrt_library, "runtime_version", lambda n: "10.9.0")
    cuda.driver.cache_clear()
    cuda.probe.cache_clear()
    try:
        with pytest.raises(base.BackendUnavailableError, match="there is no NVIDIA driver"):
            backends.open_session(square(tmp_path / "square.onnx"), "tensorrt")
    finally:
        cuda.driver.cache_clear()
        cuda.probe.cache_clear()


# ONNX Runtime on a GPU, over stand-ins.


def test_a_provider_that_does_not_start_is_no_silent_cpu(driver: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import onnxruntime

    path = square(tmp_path / "square.onnx")
    monkeypatch.setattr(tensorrt_library, "runtime_module", lambda name: None)
    with pytest.raises(base.BackendUnavailableError, match="built without CUDAExecutionProvider"):
        backends.open_session(path, "onnxruntime_cuda")
    known = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: known)
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None, raising=False)
    for name in ("onnxruntime_cuda", "onnxruntime_tensorrt"):
        with pytest.raises(base.BackendUnavailableError, match=f"{name}: got CPUExecutionProvider"):
            backends.open_session(path, name, cache=tmp_path)
    # What auto asked for is passed over, and the CPU does it.
    with backends.open_session(path, cache=tmp_path) as session:
        assert session.backend == "onnxruntime_cpu"
        assert sum("refuses it" in r for r in session.reasons) == 2


def test_gpu_memory_of_onnx_runtime_is_bound_once_for_each_shape(
    driver: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    import onnxruntime

    real, made = onnxruntime.OrtValue, []

    class OnCpu:
        """OrtValue, with the CPU's memory in the place of the GPU's."""

        @staticmethod
        def ortvalue_from_numpy(value: Any, device: str, number: int) -> Any:
            made.append(("input", value.shape, device))
            return real.ortvalue_from_numpy(value, "cpu", 0)

        @staticmethod
        def ortvalue_from_shape_and_type(shape: Any, kind: Any, device: str, number: int) -> Any:
            made.append(("output", tuple(shape), device))
            return real.ortvalue_from_shape_and_type(shape, kind, "cpu", 0)

    monkeypatch.setattr(onnxruntime, "OrtValue", OnCpu)
    monkeypatch.setattr(
        onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
    )
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None, raising=False)
    monkeypatch.setattr(
        onnxruntime.InferenceSession, "get_providers", lambda self: ["CUDAExecutionProvider", "CPUExecutionProvider"]
    )
    with backends.open_session(square(tmp_path / "square.onnx"), "onnxruntime_cuda") as session:
        for count in (2, 2, 2, 5, 5, 2):
            for seed in range(2):
                found = session.run(rows(count, seed))["y"]
                np.testing.assert_allclose(found, rows(count, seed)["x"] ** 2, rtol=1e-6)
    assert made == [
        ("input", (2, 3), "cuda"),
        ("output", (2, 3), "cuda"),
        ("input", (5, 3), "cuda"),
        ("output", (5, 3), "cuda"),
    ]
