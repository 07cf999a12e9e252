"""The sections of a model card on precisions and files, brought up to date after an export."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Sequence
from typing import Any

from export.model import Model
from export.parity import Row

_MIB = 2**20
"""Bytes in a mebibyte."""


def update(model: Model, rows: Sequence[Row]) -> None:
    """Write files, checksums and precisions into a model's card (``NAME.md``) and its facts (``NAME.json``).

    Args:
        rows: one for each file and backend, see ``export.parity.compare``.
    """
    facts_file, card_file = model.folder / f"{model.name}.json", model.folder / f"{model.name}.md"
    if not facts_file.is_file() or not card_file.is_file():
        return
    facts: dict[str, Any] = json.loads(facts_file.read_text(encoding="utf-8"))
    paths = [model.onnx, *sorted(model.folder.glob(f"{model.name}_*.onnx")), model.weights]
    files = {p.name: (p.stat().st_size, hashlib.sha256(p.read_bytes()).hexdigest()) for p in paths if p.is_file()}
    facts["files"] = {name: {"bytes": size, "sha256": digest} for name, (size, digest) in files.items()}
    from training.common.model_card import describe_onnx, table

    facts["onnx"] = describe_onnx(model.onnx)
    facts["precisions"] = [
        {
            "precision": row.precision,
            "runs_on": row.backend,
            "device": row.device,
            "metrics": {k: round(v, 4) for k, v in row.metric.items() if math.isfinite(v)},
            "largest_relative_error": row.real_error,
        }
        for row in rows
    ]
    facts_file.write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    keys = list(dict.fromkeys(key for row in rows for key, value in row.metric.items() if math.isfinite(value)))
    header = ["precision", "runs on", *[k.replace("_", " ") for k in keys], "largest relative error"]
    body = [
        [
            row.precision,
            f"{row.backend}, {row.device}",
            *[f"{row.metric[k]:.4f}" if k in row.metric else "" for k in keys],
            "" if row.real_error is None else f"{row.real_error:.1e}",
        ]
        for row in rows
    ]
    section = (
        "## Precisions\n\nMeasured by `make export`, on held-out worlds and against torch; times: `make bench-engines`."
        f"\n\n{table(header, body)}\n\n"
    )
    text = re.sub(r"## Precisions\n.*?(?=^## )", "", card_file.read_text(encoding="utf-8"), flags=re.S | re.M)
    listed = table(
        ("file", "size", "sha256"),
        [(f"`{f}`", f"{size / _MIB:.2f} MiB", f"`{digest}`") for f, (size, digest) in files.items()],
    )
    text = re.sub(r"(?<=## Files\n\n)\|.*?(?=\n\n)", lambda _: listed, text, flags=re.S)
    if "Its metadata:" in text:
        text = text[: text.index("Its metadata:")]
        rows_of = [(f"`{k}`", f"`{v}`") for k, v in facts["onnx"]["metadata"].items()]
        text += "Its metadata:\n\n" + table(("key", "value"), rows_of) + "\n"
    text = text.replace("## Files\n", section + "## Files\n")
    card_file.write_text(text, encoding="utf-8")
