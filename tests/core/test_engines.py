"""TensorRT sessions over stand-ins for the CUDA driver and TensorRT (no GPU runs these tests)."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpu_machine import PROFILE, Machine, make_machine, rows
from square_model import square
from wm_core.inference import backends, base, cuda, engine_cache, engine_file

onnx = pytest.importorskip("onnx", reason="onnx is a test requirement")

pytest_plugins = ("gpu_machine",)


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
    with pytest.raises(base.ClosedError, match="the session is closed"):
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
    assert engine_cache.read_kernels(kernels) == b"kernels"
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
    head = engine_file.read_head(other)
    assert engine_cache.state_of(head) == (True, "fits")
    machine.trt.__version__ = "99.0"
    fits, why = engine_cache.state_of(head)
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
    with pytest.raises(base.EngineMismatchError, match="compute capability SM89, expected SM87"):
        ten.open(mine)
    ten.driver.library.fake_device(8, 9, 0, 1)
    cuda.probe.cache_clear()
    ten.trt.__version__ = "10.10.0"
    with pytest.raises(base.EngineMismatchError, match=r"tensorrt 10\.9\.0, expected 10\.10\.0; build it here"):
        ten.open(mine)
    ten.trt.__version__ = "10.9.0"
    ten.trt.fail = "deserialize"
    with pytest.raises(base.EngineCorruptError, match=r"tensorrt refuses the engine: magic tag"):
        ten.open(mine)
    raw = tmp_path / "trtexec.engine"
    ten.trt.fail = ""
    raw.write_bytes(engine_file.read_engine(file)[1])
    with backends.open_session(raw, cache=ten.cache) as session:
        np.testing.assert_allclose(session.run(rows(1))["y"], rows(1)["x"] ** 2, rtol=1e-6)


def test_shapes_beyond_the_profile_are_named(machine: Machine, tmp_path: Path):
    with machine.open(square(tmp_path / "square.onnx")) as session:
        with pytest.raises(base.InputShapeError, match=r"\(5, 3\), expected \(1, 3\) to \(4, 3\)"):
            session.run(rows(5))
        np.testing.assert_allclose(session.run(rows(4))["y"], rows(4)["x"] ** 2, rtol=1e-6)
        with pytest.raises(base.InputTypeError, match="float64"):
            session.run({"x": np.zeros((1, 3))})


def test_bounds_are_asked_for_where_there_are_none(machine: Machine, tmp_path: Path):
    path = square(tmp_path / "square.onnx", metadata={})
    with pytest.raises(base.ModelFileError, match=r"'x'.* has open sizes and no bounds"):
        machine.open(path)
    machine.open(path, profile=PROFILE).close()


def test_what_is_no_model_is_refused(machine: Machine, tmp_path: Path):
    path = square(tmp_path / "square.onnx")
    with pytest.raises(base.ModelFileError, match="no such file"):
        machine.open(tmp_path / "absent.onnx")
    content = path.read_bytes().replace(b"Mul", b"Mol")
    path.write_bytes(content)
    with pytest.raises(base.ModelFileError, match=r"refuses it: it is no model"):
        machine.open(path)
    machine.trt.fail = "data-dependent"
    with (
        machine.open(square(path)) as session,
        pytest.raises(base.ModelFileError, match="output 'y' has a size that follows from the values"),
    ):
        session.run(rows(1))


def test_memory_that_is_not_there(machine: Machine, tmp_path: Path):
    path = square(tmp_path / "square.onnx")
    machine.trt.fail, machine.trt.fail_text = "build", "Cuda Runtime (out of memory)"
    with pytest.raises(base.DeviceMemoryError, match="not enough memory to build it"):
        machine.open(path)
    machine.trt.fail, machine.trt.fail_text = "build", "no implementation for node"
    with pytest.raises(base.InferenceError, match="cannot build it: no implementation"):
        machine.open(path)
    machine.trt.fail = "context"
    with pytest.raises(base.DeviceMemoryError, match="not enough memory to run"):
        machine.open(path)
    machine.trt.fail = ""
    with machine.open(path) as session:
        machine.driver.library.fake_fail(b"cuMemAlloc_v2", 2)
        with pytest.raises(base.DeviceMemoryError, match=r"cuMemAlloc_v2 failed with 2 \(out of memory\)"):
            session.run(rows(2))
        # The next frame may find memory again.
        np.testing.assert_allclose(session.run(rows(2))["y"], rows(2)["x"] ** 2, rtol=1e-6)
        machine.trt.fail, machine.trt.fail_text = "execute", "OutOfMemory: requested size 4096"
        with pytest.raises(base.DeviceMemoryError, match="OutOfMemory"):
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
