"""Model cards: what a model is, what it was trained on and how, what it can and cannot do, in Markdown with pictures.

``NAME.json`` beside it holds the same facts for programs; ``wm doctor`` compares its checksums with the files.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray

NEEDED = ("title", "summary", "architecture", "parameters", "license", "data", "training", "metrics", "limits")
_MIB = 2**20
"""Bytes in a mebibyte."""


@dataclass(frozen=True)
class WorstFrame:
    """One of the frames that a model does worst on.

    Attributes:
        title: which it is, e.g. split, clip and frame.
        score: what is bad, e.g. ``mean IoU 0.31``.
        panels: (H, W, 3) uint8 RGB pictures by caption, e.g. color, ground truth, found.
    """

    title: str
    score: str
    panels: Mapping[str, NDArray[np.uint8]] = field(default_factory=dict)


def write_model_card(
    folder: Path,
    name: str,
    facts: Mapping[str, Any],
    curves: Sequence[Mapping[str, float]] = (),
    worst: Sequence[WorstFrame] = (),
) -> Path:
    """Write NAME.md, NAME.json, NAME_curves.png and NAME_worst.png beside NAME.onnx.

    Args:
        folder: has NAME.onnx, and NAME.safetensors if there is one; sizes, checksums and tensors are read from them.
        name: of the model, e.g. ``segmenter``.
        facts: what JSON can hold. Needed: title, summary, architecture (text), parameters (a number), license,
            ``data`` {"command", "seeds", "about", "splits": {split: {quantity: number}}},
            ``training`` {"command", "seed", "seconds", "device", ...}, ``metrics`` {split: {metric: number or None}},
            ``limits`` [text]. Further: ``aims`` {split: {metric: number}}, ``baseline`` {split: {metric: number}}
            (shown beside), ``directions`` {metric: "up" or "down"} (what is better; up by default), ``notes`` [text].
        curves: rows of training, {"step": number, line: value, ...}.
        worst: the frames to show.

    Returns:
        The card's path.

    Raises:
        ValueError: a fact is missing, or there is no such model; the message names it.
    """
    missing = [key for key in NEEDED if not facts.get(key)]
    if missing:
        raise ValueError(f"model card {name}: facts lack {', '.join(missing)}; expected {', '.join(NEEDED)}")
    onnx_file = folder / f"{name}.onnx"
    if not onnx_file.is_file():
        raise ValueError(f"model card {name}: no {onnx_file}, expected the exported model")
    files = {
        path.name: {"bytes": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        for path in (onnx_file, folder / f"{name}.safetensors")
        if path.is_file()
    }
    tensors = describe_onnx(onnx_file)
    document = {"name": name, **facts, "files": files, "onnx": tensors, "curves": [dict(row) for row in curves]}
    text = json.dumps(_finite(document), indent=1, ensure_ascii=False)
    pictures = {}
    if len(curves) > 1:
        pictures["curves"] = draw_curves(folder / f"{name}_curves.png", curves)
    if worst:
        pictures["worst"] = draw_worst(folder / f"{name}_worst.png", worst)
    (folder / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    card = folder / f"{name}.md"
    card.write_text(_card(name, facts, files, tensors, pictures, worst), encoding="utf-8")
    return card


def describe_onnx(path: Path) -> dict[str, Any]:
    """Opset, metadata, and name, dtype and shape of each input and output of an ONNX file."""
    import onnx

    model = onnx.load(path, load_external_data=False)

    def describe(value: Any) -> dict[str, Any]:
        kind = value.type.tensor_type
        shape = [d.dim_param or "?" if not d.HasField("dim_value") else d.dim_value for d in kind.shape.dim]
        return {
            "name": value.name,
            "dtype": str(np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type))),
            "shape": shape,
        }

    weights = {initializer.name for initializer in model.graph.initializer}
    return {
        "opset": max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=0),
        "metadata": {entry.key: entry.value for entry in model.metadata_props},
        "inputs": [describe(v) for v in model.graph.input if v.name not in weights],
        "outputs": [describe(v) for v in model.graph.output],
    }


def _finite(value: Any) -> Any:
    """The same with null where a number is NaN or infinite, which JSON cannot say, and NumPy's numbers as Python's."""
    if isinstance(value, Mapping):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, np.ndarray):
        return _finite(value.tolist())
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


# Pictures.


def draw_curves(path: Path, curves: Sequence[Mapping[str, float]]) -> Path:
    """A plot of every line in the rows over ``step``; ``validation`` thick and black."""
    lines = list(dict.fromkeys(key for row in curves for key in row if key != "step"))
    figure, axes = plt.subplots(figsize=(7.0, 3.6))
    positive = True
    for key in lines:
        points = np.array([(row.get("step", n), row[key]) for n, row in enumerate(curves) if key in row], float)
        positive &= bool((points[:, 1] > 0).all())
        main = key.startswith("validation")
        axes.plot(*points.T, label=key.replace("_", " "), lw=2.2 if main else 1.2, color="black" if main else None)
    if positive:
        axes.set_yscale("log")
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    axes.grid(alpha=0.3, which="both", lw=0.5)
    axes.legend(fontsize=8, ncols=2)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path


def draw_worst(path: Path, worst: Sequence[WorstFrame], columns: int = 2) -> Path:
    """A sheet of the frames, each with its panels side by side; ``columns`` frames in a row."""
    panels = max(len(w.panels) for w in worst)
    rows = -(-len(worst) // columns)
    height, width = next(iter(worst[0].panels.values())).shape[:2]
    inch = 1.9
    figure, axes = plt.subplots(
        rows,
        columns * panels,
        figsize=(inch * columns * panels, (inch * height / width + 0.42) * rows),
        squeeze=False,
    )
    for panel in axes.flat:
        panel.axis("off")
    for n, frame in enumerate(worst):
        row, first = n // columns, (n % columns) * panels
        for k, (caption, picture) in enumerate(frame.panels.items()):
            axes[row, first + k].imshow(picture)
            heading = f"{n + 1}. {frame.title}\n{caption}" if k == 0 else f"{frame.score if k == 1 else ''}\n{caption}"
            axes[row, first + k].set_title(heading, fontsize=7, loc="left", pad=2)
    figure.tight_layout(pad=0.4)
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path


# Text.


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    lines += ["| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def number(value: Any) -> str:
    """For people: three significant digits, thousands grouped, a dash where there is none."""
    if value is None or (isinstance(value, (float, np.floating)) and not math.isfinite(value)):
        return "-"
    if isinstance(value, (bool, str)):
        return str(value)
    if isinstance(value, (int, np.integer)):
        return f"{value:,}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}" if abs(value) < 1 else f"{value:.2f}"


def duration(seconds: float) -> str:
    """Seconds for people."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def _metrics(facts: Mapping[str, Any]) -> str:
    metrics, aims = facts["metrics"], facts.get("aims", {})
    baseline, directions = facts.get("baseline", {}), facts.get("directions", {})
    header = ["metric"]
    for split in metrics:
        header += [split, *(["aim"] if split in aims else []), *(["untrained"] if split in baseline else [])]
    rows = []
    for key in dict.fromkeys(key for values in metrics.values() for key in values):
        row = [key]
        for split, values in metrics.items():
            value = values.get(key)
            cell = number(value)
            if split in aims:
                aim = aims[split].get(key)
                known = isinstance(value, (int, float, np.number)) and aim is not None and math.isfinite(value)
                down = directions.get(key) == "down"
                reached = known and (value <= aim if down else value >= aim)
                cell = f"**{cell}**" if known and reached else cell
                row += [cell, "" if aim is None else f"{'≤' if down else '≥'} {number(aim)}"]
            else:
                row.append(cell)
            if split in baseline:
                row.append(number(baseline[split].get(key)))
        rows.append(row)
    return table(header, rows) + ("\n\nBold: the aim is reached." if aims else "")


def _pairs(values: Mapping[str, Any], leave_out: Sequence[str] = ()) -> list[tuple[str, str]]:
    rows = []
    for key, value in values.items():
        if key in leave_out:
            continue
        if key == "command":
            text = f"`{value}`"
        elif key == "seconds":
            key, text = "time", duration(float(value))
        elif isinstance(value, Mapping):
            text = ", ".join(f"{k} {number(v)}" for k, v in value.items())
        elif isinstance(value, (list, tuple)):
            text = ", ".join(number(v) for v in value)
        else:
            # Seeds and the like are names, not amounts.
            text = str(value) if isinstance(value, int) else number(value)
        rows.append((key.replace("_", " "), text))
    return rows


def _card(
    name: str,
    facts: Mapping[str, Any],
    files: Mapping[str, Mapping[str, Any]],
    onnx_facts: Mapping[str, Any],
    pictures: Mapping[str, Path],
    worst: Sequence[WorstFrame],
) -> str:
    data, training = facts["data"], facts["training"]
    parts = [f"# {facts['title']}", str(facts["summary"]).strip()]
    rows = [
        ("architecture", facts["architecture"]),
        ("parameters", number(facts["parameters"])),
        ("license of the weights", facts["license"]),
    ]
    parts.append(table(("what", ""), rows))
    parts.append("## Measured, on worlds never seen in training")
    parts.append(_metrics(facts))
    parts.append("## Limits")
    parts.append("\n".join(f"- {text}" for text in facts["limits"]))
    if facts.get("notes"):
        parts.append("## Notes")
        parts.append("\n".join(f"- {text}" for text in facts["notes"]))
    parts.append("## Data")
    if data.get("about"):
        parts.append(str(data["about"]).strip())
    parts.append(table(("what", ""), _pairs(data, ("about", "splits"))))
    splits = data.get("splits", {})
    if splits:
        quantities = list(dict.fromkeys(key for values in splits.values() for key in values))
        header = ("split", *(q.replace("_", " ") for q in quantities))
        parts.append(table(header, [(s, *(number(v.get(q)) for q in quantities)) for s, v in splits.items()]))
    parts.append("## Training")
    parts.append(table(("what", ""), _pairs(training)))
    if "curves" in pictures:
        parts.append(f"![losses while training]({pictures['curves'].name})")
    if "worst" in pictures:
        parts.append(f"## The {len(worst)} worst frames")
        parts.append(f"![the frames with the worst results]({pictures['worst'].name})")
    parts.append("## Files")
    parts.append(
        table(
            ("file", "size", "sha256"),
            [(f"`{f}`", f"{v['bytes'] / _MIB:.2f} MiB", f"`{v['sha256']}`") for f, v in files.items()],
        )
    )
    parts.append(f"Tensors of `{name}.onnx` (opset {onnx_facts['opset']}); a letter or word is a free size:")
    rows = [
        (kind, f"`{t['name']}`", t["dtype"], f"({', '.join(str(s) for s in t['shape'])})")
        for kind, key in (("input", "inputs"), ("output", "outputs"))
        for t in onnx_facts[key]
    ]
    parts.append(table(("", "name", "dtype", "shape"), rows))
    metadata = onnx_facts["metadata"]
    if metadata:
        parts.append("Its metadata:")
        parts.append(table(("key", "value"), [(f"`{k}`", f"`{v}`") for k, v in metadata.items()]))
    return "\n\n".join(parts) + "\n"
