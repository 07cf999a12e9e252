"""The inference runtime: results, choice of backend, and errors that name what is wrong."""

import threading

import numpy as np
import pytest

from wm_core.inference import backends, base, onnx_runtime


@pytest.fixture
def onnx_model(tmp_path):
    onnx = pytest.importorskip("onnx", reason="onnx is a test requirement")
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "x"], ["y"])],
        "square",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path = tmp_path / "square.onnx"
    onnx.save(model, path)
    return path


def test_auto_runs_an_onnx_model(onnx_model):
    session = backends.open_session(onnx_model)
    assert session.backend == "onnxruntime_cpu"
    assert session.inputs[0].name == "x" and session.inputs[0].shape[1] == 3
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert np.allclose(session.run({"x": x})["y"], x**2)


@pytest.mark.parametrize(
    ("feeds", "message"),
    [
        ({"z": np.zeros((1, 3), np.float32)}, r"got inputs \['z'\], expected \['x'\]"),
        ({"x": np.zeros((1, 3))}, "dtype float64, expected float32"),
        ({"x": np.zeros((1, 4), np.float32)}, r"shape \(1, 4\)"),
        ({"x": np.zeros(3, np.float32)}, r"shape \(3,\)"),
    ],
)
def test_bad_feeds_are_refused_by_name(onnx_model, feeds, message):
    with pytest.raises(base.InferenceError, match=message):
        backends.open_session(onnx_model).run(feeds)


def test_bad_files_and_backends(tmp_path, onnx_model):
    with pytest.raises(base.InferenceError, match="no such file"):
        backends.open_session(tmp_path / "absent.onnx")
    corrupt = tmp_path / "corrupt.onnx"
    corrupt.write_bytes(b"not a model")
    with pytest.raises(base.InferenceError, match=r"corrupt\.onnx: ONNX Runtime refuses it"):
        backends.open_session(corrupt)
    with pytest.raises(base.InferenceError, match="got 'tpu', expected auto or one of"):
        backends.open_session(onnx_model, backend="tpu")
    with pytest.raises(base.InferenceError, match=r"ending in '\.bin'"):
        backends.open_session(tmp_path / "weights.bin")


@pytest.mark.parametrize(
    ("feeds", "error"),
    [
        ({"z": np.zeros((1, 3), np.float32)}, base.InputNameError),
        ({"x": np.zeros((1, 3), np.float32), "z": np.zeros(1)}, base.InputNameError),
        ({"x": np.zeros((1, 3))}, base.InputTypeError),
        ({"x": np.zeros((1, 4), np.float32)}, base.InputShapeError),
    ],
)
def test_each_wrong_input_has_an_error_of_its_own(onnx_model, feeds, error):
    with backends.open_session(onnx_model) as session, pytest.raises(error):
        session.run(feeds)


def test_nan_is_refused_where_that_is_asked_for(onnx_model):
    x = np.ones((2, 3), np.float32)
    x[1, 2] = np.nan
    with backends.open_session(onnx_model) as session:
        assert np.isnan(session.run({"x": x})["y"][1, 2])
    with backends.open_session(onnx_model, check_finite=True) as session:
        with pytest.raises(base.InputValueError, match="input 'x': 1 of 6 values are NaN or infinite"):
            session.run({"x": x})
        x[1, 2] = np.inf
        with pytest.raises(base.InputValueError):
            session.run({"x": x})
        # Numbers whose sum is beyond float32 are numbers.
        assert np.isinf(session.run({"x": np.full((1, 3), 3e38, np.float32)})["y"]).all()


def test_a_session_is_closed_once_and_then_refuses(onnx_model):
    session = backends.open_session(onnx_model)
    session.warm_up({"x": (2, 3)})
    session.close()
    session.close()
    with pytest.raises(base.ClosedError, match="the session is closed"):
        session.run({"x": np.zeros((1, 3), np.float32)})


def test_arrays_that_do_not_lie_in_one_piece_are_taken(onnx_model):
    x = np.arange(24, dtype=np.float32).reshape(4, 6)[::2, ::2]
    assert not x.flags.c_contiguous
    with backends.open_session(onnx_model) as session:
        assert np.array_equal(session.run({"x": x})["y"], x**2)


def test_memory_that_the_machine_does_not_have_is_named(tmp_path):
    onnx = pytest.importorskip("onnx", reason="onnx is a test requirement")
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        [helper.make_node("ConstantOfShape", ["size"], ["y"])],
        "huge",
        [helper.make_tensor_value_info("size", TensorProto.INT64, [1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n"])],
    )
    path = tmp_path / "huge.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    with backends.open_session(path) as session:
        with pytest.raises(base.DeviceMemoryError, match=r"huge\.onnx: not enough memory for inputs of"):
            session.run({"size": np.array([1 << 48], np.int64)})
        assert session.run({"size": np.array([2], np.int64)})["y"].shape == (2,)


def test_threads_share_a_session(onnx_model):
    wrong = []
    with backends.open_session(onnx_model, threads=2) as session:

        def work(number):
            for k in range(50):
                x = np.full((1 + k % 3, 3), number + k, np.float32)
                if not np.array_equal(session.run({"x": x})["y"], x**2):
                    wrong.append(number)

        threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong


def test_the_choice_of_a_runtime_says_why(onnx_model):
    name, reasons = backends.choose("auto", onnx_model, gpu=False)
    assert name == "onnxruntime_cpu" and reasons[-1].startswith("onnxruntime_cpu: onnxruntime ")
    with pytest.raises(base.BackendUnavailableError, match="no runtime for it here: onnxruntime_cpu: broken"):
        backends.choose("auto", onnx_model, gpu=False, without={"onnxruntime_cpu": "broken"})
    absent = next(s for s in backends.available_backends() if not s.available)
    with pytest.raises(base.BackendUnavailableError, match=absent.name):
        backends.open_session(onnx_model, absent.name)


@pytest.mark.parametrize(("count", "threads"), [(1, 1), (2, 2), (4, 2), (6, 3), (8, 4), (12, 6), (16, 6), (64, 6)])
def test_threads_leave_room_for_the_rest_of_the_robot(count, threads):
    assert onnx_runtime.usual_threads(count) == threads


def test_int8_is_for_processors_that_sum_it_in_32_bits():
    assert onnx_runtime.int8_is_fast(frozenset({"avx2", "avx512_vnni"})) == (True, "the processor has avx512_vnni")
    assert onnx_runtime.int8_is_fast(frozenset({"avx2", "avx_vnni"}))[0]
    assert onnx_runtime.int8_is_fast(frozenset({"avx2", "avx512f"})) == (False, "the processor has no VNNI")


def test_status_says_why_a_runtime_is_absent(monkeypatch):
    monkeypatch.setattr(backends.importlib.util, "find_spec", lambda name: None)
    assert all(not s.available and "not installed" in s.reason for s in backends.available_backends())
    assert [s.name for s in backends.available_backends()] == list(backends.BACKENDS)


@pytest.mark.slow
def test_torch_session_agrees_with_torch(tmp_path):
    torch = pytest.importorskip(
        "torch", reason="torch is not in the robot's runtime; install requirements/training.txt"
    )

    class Square(torch.nn.Module):
        def forward(self, x):
            return x * x

    path = tmp_path / "square.pt2"
    torch.export.save(torch.export.export(Square(), (torch.zeros(2, 3),)), path)
    session = backends.open_session(path)
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    (output,) = session.run({session.inputs[0].name: x}).values()
    assert np.allclose(output, x**2)
