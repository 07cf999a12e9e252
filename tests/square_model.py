"""A small ONNX model: y = factor x^2."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx


def square(path: Path, factor: float = 1.0, metadata: dict[str, str] | None = None) -> Path:
    """y = factor x^2, of any number of rows of three."""
    from onnx import TensorProto, helper, numpy_helper

    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "x"], ["xx"]), helper.make_node("Mul", ["xx", "factor"], ["y"])],
        "square",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(np.float32(factor), "factor")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    given = metadata
    if given is None:
        given = {
            "tensors": json.dumps({"x": {"shape": ["batch", 3]}, "y": {"shape": ["batch", 3]}}),
            "axes": json.dumps({"batch": [1, 2, 4]}),
            "precision": "fp32",
        }
    for key, value in given.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    onnx.save(model, path)
    return path
