"""ONNX files from torch: exported, constants folded, simplified, with a description in their metadata."""

from __future__ import annotations

import hashlib
import json
import subprocess
import warnings
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from export.model import Model

if TYPE_CHECKING:
    import onnx

OPSET = 18
"""Operator set of the files: old enough for TensorRT 10 on a Jetson, new enough for every operator of the models."""


@lru_cache(maxsize=1)
def revision() -> str:
    """Git revision of the sources at the first call, ``-dirty`` where they differ; ``unknown`` outside a checkout."""
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude", "*"],
            capture_output=True,
            text=True,
            check=True,
            cwd=Path(__file__).parent,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip() or "unknown"


def from_torch(model: Model, path: Path) -> Path:
    """Export a model's torch definition with its shipped weights to an fp32 ONNX file.

    Raises:
        FileNotFoundError: the model has no weights.
        ValueError: tensors, axes or operator set of the graph differ from those of the registry.
    """
    import onnx
    import torch

    if not model.weights.is_file():
        raise FileNotFoundError(f"{model.weights}: no such file, expected the weights; run: make train-{model.name}")
    network = model.network(model.weights)
    sizes = {name: max(axis.usual, 2) for name, axis in model.axes.items()}
    made = model.random(np.random.default_rng(0), sizes)
    examples = tuple(torch.from_numpy(made[t.name]) for t in model.inputs)
    axes = {
        t.name: {k: s for k, s in enumerate(t.shape) if isinstance(s, str)} for t in (*model.inputs, *model.outputs)
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with torch.inference_mode(), warnings.catch_warnings():
        # torch warns that this exporter is the older one; the newer one fails on odd sizes after strided convolutions.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        torch.onnx.export(
            network,
            examples,
            str(path),
            input_names=[t.name for t in model.inputs],
            output_names=[t.name for t in model.outputs],
            dynamic_axes={name: found for name, found in axes.items() if found},
            opset_version=OPSET,
            do_constant_folding=True,
            dynamo=False,
        )
    graph = simplify(onnx.load(path))
    describe(graph, model, {**model.facts(network), "precision": "fp32"})
    check(graph, model)
    onnx.save(graph, path)
    return path


def simplify(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same function with constants folded, and without duplicate or unused nodes."""
    import onnx
    from onnxscript import optimizer

    if len(model.graph.node) <= _LARGE:
        model = optimizer.optimize(model)
    else:
        # The optimizer's rules compare each node with each other one, which takes minutes with thousands of nodes.
        optimizer.fold_constants(model)
        optimizer.remove_unused_nodes(model)
        _lift_constants(model)
    model = onnx.shape_inference.infer_shapes(model, data_prop=True)
    onnx.checker.check_model(model, full_check=True)
    return model


_LARGE = 1000
"""Nodes of a graph beyond which not all rules are applied. Larger makes the export of the dynamics slower."""


def _lift_constants(model: onnx.ModelProto) -> None:
    """Turn Constant nodes into initializers, in place."""
    kept = []
    for node in model.graph.node:
        value = next((a.t for a in node.attribute if a.name == "value"), None) if node.op_type == "Constant" else None
        if value is None:
            kept.append(node)
            continue
        value.name = node.output[0]
        model.graph.initializer.append(value)
    del model.graph.node[:]
    model.graph.node.extend(kept)


def describe(graph: onnx.ModelProto, model: Model, facts: Mapping[str, str]) -> None:
    """Write task, tensors, axes, git revision, weights, license and card into a graph's metadata, and ``facts``."""
    card = model.folder / f"{model.name}.json"
    summary = ""
    if card.is_file():
        summary = str(json.loads(card.read_text(encoding="utf-8")).get("summary", ""))
    tensors = {
        t.name: {"shape": list(t.shape), "dtype": t.dtype, "unit": t.unit, "normalisation": t.normalisation}
        for t in (*model.inputs, *model.outputs)
    }
    entries = {
        "task": model.task,
        **facts,
        "tensors": json.dumps(tensors),
        "axes": json.dumps({name: [a.least, a.usual, a.most] for name, a in model.axes.items()}),
        "git_revision": revision(),
        "weights_sha256": hashlib.sha256(model.weights.read_bytes()).hexdigest() if model.weights.is_file() else "",
        "license": "Apache-2.0",
        "card": f"{model.name}.md: {summary}" if summary else f"{model.name}.md",
    }
    known = {entry.key for entry in graph.metadata_props}
    for key, value in entries.items():
        if key in known:
            next(e for e in graph.metadata_props if e.key == key).value = value
        else:
            entry = graph.metadata_props.add()
            entry.key, entry.value = key, value


def check(graph: onnx.ModelProto, model: Model) -> None:
    """Compare a graph with the registry.

    Raises:
        ValueError: tensors, axes or operator set differ.
    """
    for kind, values, expected in (
        ("input", graph.graph.input, model.inputs),
        ("output", graph.graph.output, model.outputs),
    ):
        found = {v.name: tuple(d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim) for v in values}
        stated = {t.name: t.shape for t in expected}
        if found != stated:
            raise ValueError(f"{model.name}: {kind}s are {found}, expected {stated}")
    versions = {o.domain: o.version for o in graph.opset_import if o.domain in ("", "ai.onnx")}
    if versions.get("", versions.get("ai.onnx")) != OPSET:
        raise ValueError(f"{model.name}: opset {versions}, expected {OPSET}")


def for_engines(model: Model, source: Path, path: Path) -> Path:
    """Write the fp32 file in the form that TensorRT can build (``Model.for_engines``); returns its path."""
    import onnx

    graph = onnx.load(source)
    onnx.save(model.for_engines(graph) if model.for_engines is not None else graph, path)
    return path


def without_scattered_sums(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same function with sums over indices (ScatterElements, reduction add) as products with a table of 0 and 1.

    TensorRT-RTX 1.7 does not support reductions in ScatterElements. The table has a row for each index and a column
    for each place, and serves all sums over the same indices, which have to be along one axis. A GPU reads such a table
    fast; on a CPU ScatterElements is far cheaper.

    Raises:
        ValueError: indices that are not one row, expanded to all others.
    """
    import onnx
    from onnx import helper, numpy_helper

    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    made = {o: n for n in graph.node for o in n.output}
    ranks = {v.name: len(v.type.tensor_type.shape.dim) for v in (*graph.value_info, *graph.input, *graph.output)}
    ranks |= {t.name: len(t.dims) for t in graph.initializer}
    for name, value in {"sums/zero": 0, "sums/one": 1, "sums/last": [-1], "sums/0": [0], "sums/1": [1]}.items():
        graph.initializer.append(numpy_helper.from_array(np.asarray(value, np.int64), name))
    nodes: list[onnx.NodeProto] = []
    tables: dict[str, str] = {}

    def add(kind: str, inputs: list[str], output: str, **values: Any) -> str:
        nodes.append(helper.make_node(kind, inputs, [output], name=output, **values))
        return output

    for node in graph.node:
        if node.op_type != "ScatterElements" or not any(
            a.name == "reduction" and a.s == b"add" for a in node.attribute
        ):
            nodes.append(node)
            continue
        data, indices, updates = node.input
        stem, flat = node.name or node.output[0], ranks[data] == 1
        while indices in made and made[indices].op_type in ("Expand", "Unsqueeze"):
            indices = made[indices].input[0]
        if ranks.get(indices) != 1:
            raise ValueError(f"{stem}: indices {indices} of rank {ranks.get(indices)}, expected one row, expanded")
        if indices not in tables:
            where = f"sums/{indices}"
            size = add("Gather", [add("Shape", [data], f"{where}/shape"), "sums/last"], f"{where}/last")
            size = add("Squeeze", [size, "sums/0"], f"{where}/size")
            places = add("Range", ["sums/zero", size, "sums/one"], f"{where}/range")
            places = add("Unsqueeze", [places, "sums/0"], f"{where}/places")
            each = add("Unsqueeze", [indices, "sums/1"], f"{where}/each")
            tables[indices] = add("Cast", [add("Equal", [each, places], f"{where}/same")], f"{where}/table", to=1)
        left = add("Unsqueeze", [updates, "sums/0"], f"{stem}/row") if flat else updates
        total = add("MatMul", [left, tables[indices]], f"{stem}/product")
        total = add("Squeeze", [total, "sums/0"], f"{stem}/total") if flat else total
        nodes.append(helper.make_node("Add", [data, total], [node.output[0]], name=stem))
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.checker.check_model(result, full_check=True)
    return result


def counts(path: Path) -> dict[str, Any]:
    """Size of a file: nodes, nodes by operator, parameters, weights by type [bytes]."""
    import onnx

    model = onnx.load(path)
    operators: dict[str, int] = {}
    for node in model.graph.node:
        operators[node.op_type] = operators.get(node.op_type, 0) + 1
    types: dict[str, int] = {}
    parameters = 0
    for tensor in model.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor)
        types[str(array.dtype)] = types.get(str(array.dtype), 0) + int(array.nbytes)
        parameters += int(np.prod(array.shape))
    return {
        "nodes": len(model.graph.node),
        "operators": dict(sorted(operators.items())),
        "parameters": parameters,
        "weight_bytes": types,
    }
