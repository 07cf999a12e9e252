"""Lower precisions of an fp32 ONNX file: fp16, and int8 with ranges measured on inputs of the training set.

The files are strongly typed: the graph itself says what is computed in which precision. TensorRT 11 and TensorRT-RTX
require that, and every other runtime supports it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from export.graph import describe
from export.model import Feeds, Model

PRECISIONS = ("fp32", "fp16", "int8", "int8_symmetric")
"""``int8``: asymmetric, for CPUs; ``int8_symmetric``: zero points of 0 and float biases, as TensorRT requires."""


class _Reader:
    """Real inputs one at a time, the interface that ONNX Runtime's calibration reads; counts them."""

    def __init__(self, feeds: Iterator[Feeds]) -> None:
        self.feeds, self.count = feeds, 0

    def get_next(self) -> Feeds | None:
        found = next(self.feeds, None)
        self.count += found is not None
        return found


def facts_of(path: Path) -> dict[str, str]:
    """Metadata entries of an ONNX file."""
    import onnx

    return {e.key: e.value for e in onnx.load(path, load_external_data=False).metadata_props}


def fp16(source: Path, path: Path, model: Model) -> Path:
    """Write the fp16 file: weights and computation in half precision, inputs and outputs float32. Returns its path."""
    import onnx
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

    # ONNX Runtime blocks Resize and Upsample because some runtimes lack them in half precision; none of those is used.
    blocked = [o for o in DEFAULT_OP_BLOCK_LIST if o not in ("Resize", "Upsample")] + list(model.fp32_operators)
    graph = convert_float_to_float16(onnx.load(source), keep_io_types=True, op_block_list=blocked)
    describe(graph, model, {**_own(facts_of(source)), "precision": "fp16"})
    onnx.save(graph, path)
    return path


def int8(source: Path, path: Path, model: Model, symmetric: bool = False, images: int | None = None) -> Path:
    """Write an int8 file: 8-bit weights (per channel) and activations, with QuantizeLinear and DequantizeLinear nodes.

    Args:
        symmetric: see ``PRECISIONS``.
        images: number of inputs of the training set to measure ranges on; None: that of the model's quantization.

    Raises:
        ValueError: the model has no quantization, or no node's name matches an entry of its ``keep``.
        FileNotFoundError: there is no training data to measure ranges on.
    """
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    plan = model.quantization
    if plan is None:
        raise ValueError(f"{model.name}: has no int8; its quantization in export/registry.py is None")
    reader = _Reader(model.real("train", images or plan.images))
    prepared = path.with_suffix(".prepared.onnx")
    root = logging.getLogger()
    level = root.level
    # The quantizer logs the advice to preprocess the graph, which the first call below does.
    root.setLevel(logging.ERROR)
    try:
        quant_pre_process(str(source), str(prepared))
        nodes = onnx.load(prepared).graph.node
        for field in ("keep", "narrow"):
            for word in getattr(plan, field):
                if not any(word in n.name for n in nodes):
                    raise ValueError(f"{model.name}: no node's name contains {word!r}, as Quantization.{field} has it")
        kept = [n.name for n in nodes if any(word in n.name for word in plan.keep)]
        narrow = [n for n in nodes if n.op_type == "Conv" and any(word in n.name for word in plan.narrow)]
        options: dict[str, Any] = {"ActivationSymmetric": True, "QuantizeBias": False} if symmetric else {}
        options["TensorQuantOverrides"] = {n.input[1]: [{"axis": 0, "reduce_range": True}] for n in narrow}
        try:
            quantize_static(
                str(prepared),
                str(path),
                reader,
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(plan.operators),
                nodes_to_exclude=kept,
                per_channel=True,
                activation_type=QuantType.QInt8 if symmetric else QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod.MinMax,
                extra_options=options,
            )
        except ValueError as error:
            if reader.count == 0:
                raise FileNotFoundError(
                    f"{model.name}: found no inputs of the training set to take ranges from; run: make data, "
                    f"make train-{model.name}"
                ) from error
            raise
    finally:
        root.setLevel(level)
        prepared.unlink(missing_ok=True)
    graph = onnx.load(path)
    facts = _own(facts_of(source)) | {
        "precision": "int8_symmetric" if symmetric else "int8",
        "calibration": f"min-max over {reader.count} inputs of the training set",
    }
    describe(graph, model, facts)
    onnx.checker.check_model(graph, full_check=True)
    onnx.save(graph, path)
    return path


def make(precision: str, source: Path, path: Path, model: Model) -> Path:
    """Write one of ``PRECISIONS`` but fp32, from the fp32 file; returns its path.

    Raises:
        ValueError: another precision, or see ``int8``.
        FileNotFoundError: see ``int8``.
    """
    if precision == "fp16":
        return fp16(source, path, model)
    if precision in ("int8", "int8_symmetric"):
        return int8(source, path, model, symmetric=precision != "int8")
    raise ValueError(f"precision: got {precision!r}, expected one of {', '.join(PRECISIONS[1:])}")


def _own(facts: dict[str, str]) -> dict[str, str]:
    """Metadata entries without those that ``describe`` writes, and without a quantizer's own."""
    given = ("task", "tensors", "axes", "git_revision", "weights_sha256", "license", "card", "precision", "calibration")
    return {k: v for k, v in facts.items() if k not in given and "." not in k}
