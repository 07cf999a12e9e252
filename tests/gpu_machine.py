"""Fixtures of a machine that seems to have a GPU and TensorRT: stand-ins for the CUDA driver and for TensorRT."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wm_core.inference import backends, base, cuda, tensorrt_library

onnx = pytest.importorskip("onnx", reason="onnx is a test requirement")


PROFILE = {"x": ((1, 3), (2, 3), (4, 3))}


@dataclass
class Machine:
    """A machine that seems to have a GPU and TensorRT.

    Attributes:
        driver: calls of the CUDA driver; ``calls``: of TensorRT.
        trt: the module; ``cache``: folder of engines.
    """

    driver: Any
    calls: list[str]
    trt: Any
    cache: Path

    def open(self, path: Path, backend: str = "", **options: Any) -> base.InferenceSession:
        return backends.open_session(path, backend or self.trt.__name__, cache=self.cache, **options)


@pytest.fixture(scope="session")
def driver_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler for the stand-in of the CUDA driver")
    path = tmp_path_factory.mktemp("driver") / "libfakecuda.so"
    source = Path(__file__).parent / "core" / "fake_cuda.c"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-w", "-o", str(path), str(source)], check=True)
    return path


@pytest.fixture
def driver(driver_library: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    from fake_tensorrt import Driver

    found = Driver(str(driver_library))
    found.library.fake_reset()
    monkeypatch.setattr(cuda.Driver.__init__, "__defaults__", (str(driver_library),))
    cuda.driver.cache_clear()
    cuda.probe.cache_clear()
    yield found
    cuda.driver.cache_clear()
    cuda.probe.cache_clear()


RUNTIMES = [("tensorrt", "10.9.0"), ("tensorrt", "11.1.0"), ("tensorrt_rtx", "1.7.1")]


def make_machine(driver: Any, monkeypatch: pytest.MonkeyPatch, folder: Path, name: str, version: str) -> Machine:
    from fake_tensorrt import module

    calls: list[str] = []
    trt = module(name, version, driver, calls)
    real = tensorrt_library.load_runtime
    monkeypatch.setattr(tensorrt_library, "load_runtime", lambda n: trt if n == name else real(n))
    monkeypatch.setattr(tensorrt_library, "runtime_module", lambda n: n if n == name else None)
    monkeypatch.setattr(tensorrt_library, "runtime_version", lambda n: trt.__version__ if n == name else "")
    return Machine(driver, calls, trt, folder / "cache")


@pytest.fixture(params=RUNTIMES, ids=lambda p: f"{p[0]}-{p[1]}")
def machine(request: Any, driver: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return make_machine(driver, monkeypatch, tmp_path, *request.param)


@pytest.fixture
def ten(driver: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return make_machine(driver, monkeypatch, tmp_path, "tensorrt", "10.9.0")


def rows(count: int, seed: int = 0) -> dict[str, Any]:
    return {"x": np.random.default_rng(seed).normal(size=(count, 3)).astype(np.float32)}
