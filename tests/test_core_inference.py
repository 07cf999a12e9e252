"""The inference runtime: results, choice of backend, and errors that name what is wrong."""

import numpy as np
import pytest

from wm_core import inference


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
    session = inference.open_session(onnx_model)
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
    with pytest.raises(inference.InferenceError, match=message):
        inference.open_session(onnx_model).run(feeds)


def test_bad_files_and_backends(tmp_path, onnx_model):
    with pytest.raises(inference.InferenceError, match="no such file"):
        inference.open_session(tmp_path / "absent.onnx")
    corrupt = tmp_path / "corrupt.onnx"
    corrupt.write_bytes(b"not a model")
    with pytest.raises(inference.InferenceError, match=r"corrupt\.onnx: ONNX Runtime refuses it"):
        inference.open_session(corrupt)
    with pytest.raises(inference.InferenceError, match="got 'tpu', expected auto or one of"):
        inference.open_session(onnx_model, backend="tpu")
    with pytest.raises(inference.InferenceError, match=r"ending in '\.bin'"):
        inference.open_session(tmp_path / "weights.bin")


def test_status_says_why_a_runtime_is_absent(monkeypatch):
    monkeypatch.setattr(inference.importlib.util, "find_spec", lambda name: None)
    assert all(not s.available and "not installed" in s.reason for s in inference.available_backends())


def test_torch_session_agrees_with_torch(tmp_path):
    torch = pytest.importorskip(
        "torch", reason="torch is not in the robot's runtime; install requirements/training.txt"
    )

    class Square(torch.nn.Module):
        def forward(self, x):
            return x * x

    path = tmp_path / "square.pt2"
    torch.export.save(torch.export.export(Square(), (torch.zeros(2, 3),)), path)
    session = inference.open_session(path)
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    (output,) = session.run({session.inputs[0].name: x}).values()
    assert np.allclose(output, x**2)
