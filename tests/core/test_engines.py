"""Engine files, and TensorRT sessions over stand-ins for the CUDA driver and TensorRT (no GPU runs these tests)."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from square_model import square
from wm_core.inference import backends, cuda, engines
from wm_core.inference.base import onnx_metadata

onnx = pytest.importorskip("onnx", reason="onnx is a test requirement")

PROFILE = {"x": ((1, 3), (2, 3), (4, 3))}


KEY = engines.EngineKey(
    "square", "0" * 64, "tensorrt", "10.9.0", "Stand-in GPU", ("SM89",), "fp32", engines.profile_key(PROFILE)
)


# Files.


def test_an_engine_file_says_what_it_is_of_and_is_given_back_whole(tmp_path: Path):
    file = engines.write_engine(tmp_path / "a.wmengine", KEY, b"engine\nwith lines", {"task": "t"}, "/m.onnx", 1.25)
    head, content = engines.read_engine(file)
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
        "profile": engines.profile_key({"x": ((1, 3), (1, 3), (4, 3))}),
    }
    for name, value in changes.items():
        other = dataclasses.replace(KEY, **{name: value})
        assert other.digest != KEY.digest and other.file_name != KEY.file_name
        assert [d.split()[0] for d in other.differences(KEY)] == [name]
    assert engines.EngineKey.from_json(json.loads(json.dumps(dataclasses.asdict(KEY)))) == KEY


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = engines.write_engine(tmp_path / "a.wmengine", KEY, b"old", {})
    before = file.read_bytes()

    def fail(*args: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        engines.write_engine(file, KEY, b"new", {})
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
    file = engines.write_engine(tmp_path / "a.wmengine", KEY, b"engine", {})
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(backends.EngineCorruptError, match=said):
        engines.read_engine(file)
    ((path, found),) = engines.cached(tmp_path)
    assert path == file and (isinstance(found, backends.EngineCorruptError) or "sha256" in said)


def test_an_engine_of_another_machine_is_refused_with_all_that_differs(tmp_path: Path):
    file = engines.write_engine(tmp_path / "a.wmengine", KEY, b"engine", {})
    head = engines.read_head(file)
    status = backends.BackendStatus("tensorrt", True, "")
    here = cuda.Device("Stand-in GPU", (8, 9), 2**33, False, "13.1")
    engines.check_runs_here(head, status, "10.9.0", here)
    for device, installed, said in (
        (dataclasses.replace(here, compute_capability=(8, 7)), "10.9.0", "compute capability SM89, expected SM87"),
        (dataclasses.replace(here, name="Orin"), "10.9.0", "GPU 'Stand-in GPU', expected 'Orin'"),
        (here, "11.1.0", "tensorrt 10.9.0, expected 11.1.0"),
    ):
        with pytest.raises(backends.EngineMismatchError, match=said):
            engines.check_runs_here(head, status, installed, device)
    with pytest.raises(backends.EngineMismatchError, match="precision 'fp32', expected 'fp16'"):
        engines.check_fits(head, dataclasses.replace(KEY, precision="fp16"))


def test_the_profile_comes_from_the_metadata(tmp_path: Path):
    path = square(tmp_path / "square.onnx")
    assert engines.profile_of(path)["x"] == PROFILE["x"]
    assert engines.profile_of(square(tmp_path / "plain.onnx", metadata={})) == {}
    bad = square(
        tmp_path / "bad.onnx", metadata={"tensors": '{"x": {"shape": ["b", 3]}}', "axes": '{"batch": [1, 2, 4]}'}
    )
    with pytest.raises(backends.ModelFileError, match="metadata 'axes'"):
        engines.profile_of(bad)


def test_metadata_is_read_without_the_onnx_package(tmp_path: Path):
    path = square(tmp_path / "square.onnx", metadata={"a": "ä", "long": "x" * 300, "empty": ""})
    assert onnx_metadata(path) == {"a": "ä", "long": "x" * 300, "empty": ""}
    for content in (b"not a model", path.read_bytes()[:-5]):
        path.write_bytes(content)
        with pytest.raises(backends.ModelFileError, match="no ONNX model"):
            onnx_metadata(path)


# Sessions, over stand-ins.


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

    def open(self, path: Path, backend: str = "", **options: Any) -> backends.InferenceSession:
        return backends.open_session(path, backend or self.trt.__name__, cache=self.cache, **options)


@pytest.fixture(scope="session")
def driver_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler for the stand-in of the CUDA driver")
    path = tmp_path_factory.mktemp("driver") / "libfakecuda.so"
    source = Path(__file__).with_name("fake_cuda.c")
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
    real = engines.load_runtime
    monkeypatch.setattr(engines, "load_runtime", lambda n: trt if n == name else real(n))
    monkeypatch.setattr(engines, "runtime_module", lambda n: n if n == name else None)
    monkeypatch.setattr(engines, "runtime_version", lambda n: trt.__version__ if n == name else "")
    return Machine(driver, calls, trt, folder / "cache")


@pytest.fixture(params=RUNTIMES, ids=lambda p: f"{p[0]}-{p[1]}")
def machine(request: Any, driver: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return make_machine(driver, monkeypatch, tmp_path, *request.param)


@pytest.fixture
def ten(driver: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return make_machine(driver, monkeypatch, tmp_path, "tensorrt", "10.9.0")


def rows(count: int, seed: int = 0) -> dict[str, Any]:
    return {"x": np.random.default_rng(seed).normal(size=(count, 3)).astype(np.float32)}


def test_numbers_go_through_the_gpu_and_come_back(machine: Machine, tmp_path: Path):
    with machine.open(square(tmp_path / "square.onnx", 3.0)) as session:
        assert session.backend == machine.trt.__name__ and "Stand-in GPU (SM89" in session.device
        assert session.metadata["precision"] == "fp32"
        for count in (2, 2, 2, 4, 1, 2, 4, 3):
            for seed in range(3):
                feeds = rows(count, seed)
                np.testing.assert_allclose(session.run(feeds)["y"], 3.0 * feeds["x"] ** 2, rtol=1e-6)


def test_results_are_not_overwritten_by_the_next_run(ten: Machine, tmp_path: Path):
    with ten.open(square(tmp_path / "square.onnx")) as session:
        first, second = session.run(rows(2, 1))["y"], session.run(rows(2, 2))["y"]
        np.testing.assert_allclose(first, rows(2, 1)["x"] ** 2, rtol=1e-6)
        assert not np.shares_memory(first, second)


def test_call_sequence_of_tensorrt(ten: Machine, tmp_path: Path):
    session = ten.open(square(tmp_path / "square.onnx"))
    assert ten.calls == [
        f"create_network({1 << 1})",
        "clear_flag(TF32)",
        "set_memory_pool_limit",
        "build_serialized_network",
        "deserialize_cuda_engine",
        "create_execution_context(graphs=None)",
    ]
    ten.driver.calls()
    session.run(rows(2))
    run = ["cuMemcpyHtoDAsync_v2", "KERNEL", "cuMemcpyDtoHAsync_v2"]
    assert ten.driver.calls() == [
        *["cuMemHostAlloc", "cuMemAlloc_v2"] * 2,
        *[*run, "cuStreamSynchronize"],
        # The same again as a graph, tried once.
        *["cuStreamBeginCapture_v2", *run, "cuStreamEndCapture", "cuGraphInstantiateWithFlags"],
        *["cuGraphLaunch", "cuStreamSynchronize"],
    ]
    session.run(rows(2))
    assert ten.driver.calls() == ["cuGraphLaunch", "cuStreamSynchronize"]
    session.close()
    closing = ten.driver.calls()
    assert closing.count("cuMemFreeHost") == closing.count("cuMemFree_v2") == 2
    assert closing[-2:] == ["cuStreamDestroy_v2", "cuDevicePrimaryCtxRelease_v2"]
    assert {"cuGraphExecDestroy", "cuGraphDestroy"} <= set(closing)
    session.close()
    with pytest.raises(backends.ClosedError, match="the session is closed"):
        session.run(rows(2))


def test_tensorrt_11_needs_no_flag_and_rtx_builds_for_its_architecture(
    driver: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    eleven = make_machine(driver, monkeypatch, tmp_path, "tensorrt", "11.1.0")
    eleven.open(square(tmp_path / "square.onnx")).close()
    assert eleven.calls[0] == "create_network(0)"
    rtx = make_machine(driver, monkeypatch, tmp_path, "tensorrt_rtx", "1.7.1")
    rtx.open(tmp_path / "square.onnx").close()
    assert "set_compute_capability(89)" in rtx.calls and "set_memory_pool_limit" not in rtx.calls
    assert rtx.calls[-2:] == ["set_runtime_cache", "create_execution_context(graphs=whole)"]
    # Kernels that were compiled at the first run are there at the next start.
    (kernels,) = rtx.cache.glob("*.kernels")
    assert engines.read_kernels(kernels) == b"kernels"
    rtx.open(tmp_path / "square.onnx").close()
    assert "cache.deserialize(7)" in rtx.calls


def test_an_engine_is_built_once_and_again_when_stale(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = square(tmp_path / "square.onnx")
    build = "build_serialized_network"
    with machine.open(path) as session:
        assert any("built in" in r for r in session.reasons)
    with machine.open(path) as session:
        assert machine.calls.count(build) == 1 and any("from the cache" in r for r in session.reasons)
    # A damaged engine.
    (file,) = machine.cache.glob("*.wmengine")
    file.write_bytes(file.read_bytes()[:-4])
    machine.open(path).close()
    assert machine.calls.count(build) == 2
    # Another model in its place: a new engine, and the old one goes.
    square(path, 2.0)
    with machine.open(path) as session:
        np.testing.assert_allclose(session.run(rows(2))["y"], 2.0 * rows(2)["x"] ** 2, rtol=1e-6)
    assert machine.calls.count(build) == 3
    (other,) = machine.cache.glob("*.wmengine")
    assert other != file
    # Another version of the runtime.
    head = engines.read_head(other)
    assert engines.state_of(head) == (True, "fits")
    machine.trt.__version__ = "99.0"
    fits, why = engines.state_of(head)
    assert not fits and "99.0 is installed" in why
    machine.open(path).close()
    assert machine.calls.count(build) == 4
    # Another profile beside it.
    machine.open(path, profile={"x": ((1, 3), (1, 3), (1, 3))}).close()
    assert machine.calls.count(build) == 5 and len(list(machine.cache.glob("*.wmengine"))) == 2


def test_an_engine_that_others_could_write_is_built_and_not_loaded(
    machine: Machine, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    path, build = square(tmp_path / "square.onnx"), "build_serialized_network"
    machine.open(path).close()
    (file,) = machine.cache.glob("*.wmengine")
    file.chmod(0o666)
    machine.open(path).close()
    assert machine.calls.count(build) == 2 and "can be written by others; it is not used" in caplog.text
    machine.cache.chmod(0o777)
    with machine.open(path) as session:
        assert machine.calls.count(build) == 3 and any("not kept" in reason for reason in session.reasons)
    assert f"run: chmod go-w {machine.cache}" in caplog.text
    machine.cache.chmod(0o700)
    machine.open(path).close()
    assert machine.calls.count(build) == 3


def test_doctor_lists_the_cache(ten: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from wm_bringup.doctor import models

    monkeypatch.setenv("WM_ENGINE_CACHE", str(ten.cache))
    assert "none in" in models.check_engines()[0].found
    path = square(tmp_path / "square.onnx")
    ten.open(path).close()
    (found,) = models.check_engines()
    assert found.level == "ok" and "tensorrt 10.9.0, Stand-in GPU, fp32" in found.found
    square(path, 2.0)
    (found,) = models.check_engines()
    assert found.level == "note" and "has changed" in found.found
    next(ten.cache.glob("*.wmengine")).write_bytes(b"no")
    (found,) = models.check_engines()
    assert found.level == "warning" and "begins with" in found.found


def test_two_that_start_together_build_one_engine(ten: Machine, tmp_path: Path):
    path, sessions = square(tmp_path / "square.onnx"), []
    threads = [threading.Thread(target=lambda: sessions.append(ten.open(path))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(sessions) == 3 and ten.calls.count("build_serialized_network") == 1


def test_an_engine_file_is_run_on_its_own_machine_alone(ten: Machine, tmp_path: Path):
    path = square(tmp_path / "square.onnx")
    ten.open(path).close()
    (file,) = ten.cache.glob("*.wmengine")
    mine = Path(shutil.copy(file, tmp_path / "mine.wmengine"))
    with backends.open_session(mine, cache=ten.cache) as session:
        assert session.backend == "tensorrt" and session.metadata["precision"] == "fp32"
        np.testing.assert_allclose(session.run(rows(3))["y"], rows(3)["x"] ** 2, rtol=1e-6)
    ten.driver.library.fake_device(8, 7, 0, 1)
    cuda.probe.cache_clear()
    with pytest.raises(backends.EngineMismatchError, match="compute capability SM89, expected SM87"):
        ten.open(mine)
    ten.driver.library.fake_device(8, 9, 0, 1)
    cuda.probe.cache_clear()
    ten.trt.__version__ = "10.10.0"
    with pytest.raises(backends.EngineMismatchError, match=r"tensorrt 10\.9\.0, expected 10\.10\.0; build it here"):
        ten.open(mine)
    ten.trt.__version__ = "10.9.0"
    ten.trt.fail = "deserialize"
    with pytest.raises(backends.EngineCorruptError, match=r"tensorrt refuses the engine: magic tag"):
        ten.open(mine)
    raw = tmp_path / "trtexec.engine"
    ten.trt.fail = ""
    raw.write_bytes(engines.read_engine(file)[1])
    with backends.open_session(raw, cache=ten.cache) as session:
        np.testing.assert_allclose(session.run(rows(1))["y"], rows(1)["x"] ** 2, rtol=1e-6)


def test_shapes_beyond_the_profile_are_named(machine: Machine, tmp_path: Path):
    with machine.open(square(tmp_path / "square.onnx")) as session:
        with pytest.raises(backends.InputShapeError, match=r"\(5, 3\), expected \(1, 3\) to \(4, 3\)"):
            session.run(rows(5))
        np.testing.assert_allclose(session.run(rows(4))["y"], rows(4)["x"] ** 2, rtol=1e-6)
        with pytest.raises(backends.InputTypeError, match="float64"):
            session.run({"x": np.zeros((1, 3))})


def test_bounds_are_asked_for_where_there_are_none(machine: Machine, tmp_path: Path):
    path = square(tmp_path / "square.onnx", metadata={})
    with pytest.raises(backends.ModelFileError, match=r"'x'.* has open sizes and no bounds"):
        machine.open(path)
    machine.open(path, profile=PROFILE).close()


def test_what_is_no_model_is_refused(machine: Machine, tmp_path: Path):
    path = square(tmp_path / "square.onnx")
    with pytest.raises(backends.ModelFileError, match="no such file"):
        machine.open(tmp_path / "absent.onnx")
    content = path.read_bytes().replace(b"Mul", b"Mol")
    path.write_bytes(content)
    with pytest.raises(backends.ModelFileError, match=r"refuses it: it is no model"):
        machine.open(path)
    machine.trt.fail = "data-dependent"
    with (
        machine.open(square(path)) as session,
        pytest.raises(backends.ModelFileError, match="output 'y' has a size that follows from the values"),
    ):
        session.run(rows(1))


def test_memory_that_is_not_there(machine: Machine, tmp_path: Path):
    path = square(tmp_path / "square.onnx")
    machine.trt.fail, machine.trt.fail_text = "build", "Cuda Runtime (out of memory)"
    with pytest.raises(backends.DeviceMemoryError, match="not enough memory to build it"):
        machine.open(path)
    machine.trt.fail, machine.trt.fail_text = "build", "no implementation for node"
    with pytest.raises(backends.InferenceError, match="cannot build it: no implementation"):
        machine.open(path)
    machine.trt.fail = "context"
    with pytest.raises(backends.DeviceMemoryError, match="not enough memory to run"):
        machine.open(path)
    machine.trt.fail = ""
    with machine.open(path) as session:
        machine.driver.library.fake_fail(b"cuMemAlloc_v2", 2)
        with pytest.raises(backends.DeviceMemoryError, match=r"cuMemAlloc_v2 failed with 2 \(out of memory\)"):
            session.run(rows(2))
        # The next frame may find memory again.
        np.testing.assert_allclose(session.run(rows(2))["y"], rows(2)["x"] ** 2, rtol=1e-6)
        machine.trt.fail, machine.trt.fail_text = "execute", "OutOfMemory: requested size 4096"
        with pytest.raises(backends.DeviceMemoryError, match="OutOfMemory"):
            session.run(rows(3))


@pytest.mark.parametrize("problem", ["wrong result", "no capture"])
def test_a_graph_that_does_not_do_the_same_is_not_used(ten: Machine, tmp_path: Path, problem: str, caplog: Any):
    with ten.open(square(tmp_path / "square.onnx")) as session:
        if problem == "no capture":
            ten.driver.library.fake_fail(b"cuStreamEndCapture", 901)
        else:
            launch = cuda.Graph.launch

            def other(graph: cuda.Graph) -> None:
                ten.trt.wrong = 2.0
                launch(graph)
                ten.trt.wrong = 1.0

            cuda.Graph.launch = other  # type: ignore[method-assign]
        try:
            session.run(rows(2))
        finally:
            if problem == "wrong result":
                cuda.Graph.launch = launch  # type: ignore[method-assign]
        assert "goes on without CUDA graphs" in caplog.text
        ten.driver.calls()
        np.testing.assert_allclose(session.run(rows(2, 5))["y"], rows(2, 5)["x"] ** 2, rtol=1e-6)
        assert "cuGraphLaunch" not in ten.driver.calls()


def test_memory_that_gpu_and_cpu_share_is_not_copied(ten: Machine, tmp_path: Path):
    ten.driver.library.fake_device(8, 7, 1, 1)
    cuda.probe.cache_clear()
    with ten.open(square(tmp_path / "square.onnx")) as session:
        ten.driver.calls()
        np.testing.assert_allclose(session.run(rows(2))["y"], rows(2)["x"] ** 2, rtol=1e-6)
        made = ten.driver.calls()
        assert "cuMemHostGetDevicePointer_v2" in made
        assert not {"cuMemcpyHtoDAsync_v2", "cuMemcpyDtoHAsync_v2", "cuMemAlloc_v2"} & set(made)


def test_threads_take_turns(machine: Machine, tmp_path: Path):
    wrong: list[int] = []
    with machine.open(square(tmp_path / "square.onnx")) as session:

        def work(number: int) -> None:
            for k in range(15):
                feeds = rows(1 + (number + k) % 4, 100 * number + k)
                if not np.allclose(session.run(feeds)["y"], feeds["x"] ** 2):
                    wrong.append(number)

        threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong


# Which runtime is taken.


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
    with pytest.raises(backends.InferenceError, match="cannot build it"):
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
    with pytest.raises(backends.BackendUnavailableError, match=said):
        old.open(path)
    with backends.open_session(path) as session:
        assert session.backend == "onnxruntime_cpu"


def test_rtx_says_which_gpus_it_serves(driver: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    machine = make_machine(driver, monkeypatch, tmp_path, "tensorrt_rtx", "1.7.1")
    driver.library.fake_device(9, 0, 0, 1)
    with pytest.raises(backends.BackendUnavailableError, match=r"serves SM75, .*the GPU is Stand-in GPU \(SM90"):
        machine.open(square(tmp_path / "square.onnx"))


def test_no_driver_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cuda.Driver.__init__, "__defaults__", (str(tmp_path / "libcuda.so.1"),))
    monkeypatch.setattr(engines, "runtime_module", lambda n: n)
    monkeypatch.setattr(engines, "runtime_version", lambda n: "10.9.0")
    cuda.driver.cache_clear()
    cuda.probe.cache_clear()
    try:
        with pytest.raises(backends.BackendUnavailableError, match="there is no NVIDIA driver"):
            backends.open_session(square(tmp_path / "square.onnx"), "tensorrt")
    finally:
        cuda.driver.cache_clear()
        cuda.probe.cache_clear()


# ONNX Runtime on a GPU, over stand-ins.


def test_a_provider_that_does_not_start_is_no_silent_cpu(driver: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import onnxruntime

    path = square(tmp_path / "square.onnx")
    monkeypatch.setattr(engines, "runtime_module", lambda name: None)
    with pytest.raises(backends.BackendUnavailableError, match="built without CUDAExecutionProvider"):
        backends.open_session(path, "onnxruntime_cuda")
    known = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: known)
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None, raising=False)
    for name in ("onnxruntime_cuda", "onnxruntime_tensorrt"):
        with pytest.raises(backends.BackendUnavailableError, match=f"{name}: got CPUExecutionProvider"):
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
