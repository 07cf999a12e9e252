"""Lower precisions of an fp32 ONNX file: fp16, and int8 with ranges from the training set's own inputs.

The files are strongly typed: what is computed in which precision stands in the graph, as TensorRT 11 and TensorRT-RTX
want it, and as every other runtime can follow.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from export.graph import describe
from export.model import Feeds, Model

PRECISIONS = ("fp32", "fp16", "int8", "int8_symmetric")
"""``int8``: asymmetric, for CPUs; ``int8_symmetric``: zero points of 0 and float biases, as TensorRT wants it."""


class _Reader:
    """Real inputs, one after the other, as ONNX Runtime's calibration asks for them."""

    def __init__(self, feeds: Iterator[Feeds]) -> None:
        self.feeds, self.count = feeds, 0

    def get_next(self) -> Feeds | None:
        found = next(self.feeds, None)
        self.count += found is not None
        return found


def facts_of(path: Path) -> dict[str, str]:
    """A file's metadata."""
    import onnx

    return {e.key: e.value for e in onnx.load(path, load_external_data=False).metadata_props}


def fp16(source: Path, path: Path, model: Model) -> Path:
    """Weights and computation in half precision; inputs and outputs stay float32."""
    import onnx
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

    # Resize and the like are refused in half precision by some runtimes only, of which none is used here.
    blocked = [o for o in DEFAULT_OP_BLOCK_LIST if o not in ("Resize", "Upsample")] + list(model.fp32_operators)
    graph = convert_float_to_float16(onnx.load(source), keep_io_types=True, op_block_list=blocked)
    describe(graph, model, {**_own(facts_of(source)), "precision": "fp16"})
    onnx.save(graph, path)
    return path


def int8(source: Path, path: Path, model: Model, symmetric: bool = False, images: int | None = None) -> Path:
    """Eight-bit weights (per channel) and activations, with QuantizeLinear and DequantizeLinear in the graph.

    Args:
        symmetric: see ``PRECISIONS``.
        images: how many inputs of the training set to take ranges from; None: as the model says.

    Raises:
        ValueError: the model has no quantization.
        FileNotFoundError: there is no training data to take ranges from.
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
    # It advises preprocessing, which has just been done.
    root.setLevel(logging.ERROR)
    try:
        quant_pre_process(str(source), str(prepared))
        nodes = [n.name for n in onnx.load(prepared).graph.node]
        kept = [n for n in nodes if any(word in n for word in plan.keep)]
        missing = [word for word in plan.keep if not any(word in n for n in nodes)]
        if missing:
            raise ValueError(f"{model.name}: no node's name contains {missing[0]!r}, as Quantization.keep has it")
        options: dict[str, Any] = {"ActivationSymmetric": True, "QuantizeBias": False} if symmetric else {}
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
    """One of ``PRECISIONS`` but fp32, from the fp32 file."""
    if precision == "fp16":
        return fp16(source, path, model)
    if precision in ("int8", "int8_symmetric"):
        return int8(source, path, model, symmetric=precision != "int8")
    raise ValueError(f"precision: got {precision!r}, expected one of {', '.join(PRECISIONS[1:])}")


def _own(facts: dict[str, str]) -> dict[str, str]:
    """Without what ``describe`` writes itself, or a quantizer's own entries."""
    given = ("task", "tensors", "axes", "git_revision", "weights_sha256", "license", "card", "precision", "calibration")
    return {k: v for k, v in facts.items() if k not in given and "." not in k}
