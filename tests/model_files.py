"""Small ONNX files for tests, good and bad."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from wm_perception.segmentation.learned import CHANNELS

CLASSES = ("box", "ball", "mug")
_OPSET = [helper.make_opsetid("", 17)]
_TYPES = {"float32": TensorProto.FLOAT, "float64": TensorProto.DOUBLE, "int64": TensorProto.INT64}


def save(path: Path, graph: Any, metadata: Mapping[str, str]) -> Path:
    model = helper.make_model(graph, opset_imports=_OPSET, ir_version=9)
    for key, value in metadata.items():
        if value:
            entry = model.metadata_props.add()
            entry.key, entry.value = key, value
    onnx.save(model, path)
    return path


def make_model(
    path: Path,
    inputs: Mapping[str, Sequence[int | str | None]],
    outputs: Mapping[str, np.ndarray],
    metadata: Mapping[str, str] | None = None,
    stated: Mapping[str, Sequence[int | str | None]] | None = None,
    input_types: Mapping[str, str] | None = None,
) -> Path:
    """A model that gives the same outputs whatever comes in; ``stated`` shapes are what the file says of them."""
    nodes = [
        helper.make_node("Constant", [], [name], value=numpy_helper.from_array(value, f"{name}_value"))
        for name, value in outputs.items()
    ]
    shapes = stated or {}
    graph = helper.make_graph(
        nodes,
        "constant",
        [
            helper.make_tensor_value_info(name, _TYPES[(input_types or {}).get(name, "float32")], list(shape))
            for name, shape in inputs.items()
        ],
        [
            helper.make_tensor_value_info(name, _TYPES[str(value.dtype)], list(shapes.get(name, value.shape)))
            for name, value in outputs.items()
        ],
    )
    return save(path, graph, metadata or {})


def learned_model(
    path: Path,
    metadata: Mapping[str, str] | None = None,
    rename: Mapping[str, str] | None = None,
    input_shape: Sequence[int | str] = ("B", len(CHANNELS), "h", "w"),
    input_type: str = "float32",
    shapes: Mapping[str, Sequence[int | str]] | None = None,
    wrong_size: str = "",
    nan: str = "",
    extra_input: str = "",
    traced: tuple[int, int] | None = None,
) -> Path:
    """An untrained network with the tensors of wm's own segmenter: 1x1 convolutions; the arguments spoil it."""
    rename = rename or {}
    channels = input_shape[1] if isinstance(input_shape[1], int) else len(CHANNELS)
    stated: dict[str, Sequence[int | str]] = {
        "foreground": ("B", 1, "h", "w"),
        "centre": ("B", 1, "h", "w"),
        "offset": ("B", 2, "h", "w"),
        "classes": ("B", len(CLASSES), "h2", "w2"),
        "embedding": ("B", 16, "h2", "w2"),
        "apart": ("B", 4, "h", "w"),
    }
    nodes, constants = [], []
    rng = np.random.default_rng(0)
    source = rename.get("image", "image")
    if input_type != "float32":
        nodes.append(helper.make_node("Cast", [source], ["cast"], to=TensorProto.FLOAT))
        source = "cast"
    if traced:
        sizes = numpy_helper.from_array(np.array([1, channels, *traced], np.int64), "traced")
        constants.append(sizes)
        nodes.append(helper.make_node("Reshape", [source, "traced"], ["reshaped"]))
        source = "reshaped"
    if len(input_shape) == 3:
        constants.append(numpy_helper.from_array(np.array([3], np.int64), "last"))
        nodes.append(helper.make_node("Unsqueeze", [source, "last"], ["four_axes"]))
        source = "four_axes"
    stated.update(shapes or {})
    for name, shape in stated.items():
        weights = rng.normal(0.0, 0.1, (shape[1], channels, 1, 1)).astype(np.float32)
        if nan == name:
            weights[:] = np.nan
        constants.append(numpy_helper.from_array(weights, f"{name}_weights"))
        stride = 2 if "h2" in shape and name != wrong_size else 1
        final = rename.get(name, name)
        flat = len(shape) == 2
        nodes.append(
            helper.make_node(
                "Conv", [source, f"{name}_weights"], [f"{name}_map" if flat else final], strides=[stride, stride]
            )
        )
        if flat:
            nodes.append(helper.make_node("ReduceMax", [f"{name}_map"], [final], axes=[2, 3], keepdims=0))
    extra = [helper.make_tensor_value_info(extra_input, TensorProto.FLOAT, [1])] if extra_input else []
    graph = helper.make_graph(
        nodes,
        "learned",
        [
            helper.make_tensor_value_info(rename.get("image", "image"), _TYPES[input_type], list(input_shape)),
            *extra,
        ],
        [
            helper.make_tensor_value_info(rename.get(name, name), TensorProto.FLOAT, list(shape))
            for name, shape in stated.items()
        ],
        constants,
    )
    good = {
        "task": "wm_segmenter",
        "version": "1",
        "vocabulary": json.dumps(CLASSES),
        "channels": json.dumps(CHANNELS),
    }
    return save(path, graph, {**good, **(metadata or {})})
