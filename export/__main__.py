"""Exports models: ``wm export`` or ``make export``.

From each model's torch definition and weights: ONNX in fp32, fp16 and, where there is training data to measure ranges
on, int8; TensorRT-RTX engines for a list of compute capabilities, without a GPU; an engine of standard TensorRT where
TensorRT and a GPU are found; a parity report. With --onnx, the same for a model of your own, from its ONNX file.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from wm_core.inference import cuda, engine_builder, engine_file, tensorrt_library
from wm_core.inference.backends import open_session
from wm_core.inference.base import InferenceError, Profile, onnx_metadata

ARCHITECTURES = ("SM80", "SM86", "SM89", "SM120")
"""Compute capabilities that TensorRT-RTX engines are built for by default."""
ENGINE_PRECISIONS = ("fp32", "fp16", "int8_symmetric")
"""Precisions that engines are built from; TensorRT does not build the asymmetric ``int8`` file."""


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Arguments of the command line; None: those of the process."""
    parser = argparse.ArgumentParser(
        prog="wm export", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", action="append", help="one of the registry; repeatable (default: all with weights)")
    parser.add_argument("--onnx", type=Path, help="a model of your own instead")
    parser.add_argument(
        "--precision", action="append", help="fp32, fp16, int8, int8_symmetric; repeatable (default: all)"
    )
    parser.add_argument(
        "--profile",
        action="append",
        default=[],
        metavar="INPUT=LEAST:USUAL:MOST",
        help="with --onnx: sizes of an input with open sizes, e.g. rgb=1x3x240x320:1x3x480x640:1x3x480x640; repeatable",
    )
    parser.add_argument(
        "--architecture",
        action="append",
        metavar="SM89",
        help=f"compute capability to build TensorRT-RTX engines for; repeatable (default: {', '.join(ARCHITECTURES)})",
    )
    parser.add_argument("--no-engines", action="store_true", help="ONNX files and parity alone")
    parser.add_argument("--no-metric", action="store_true", help="leave out the task's figures, which take minutes")
    parser.add_argument("--real", type=int, default=16, help="real inputs to compare on (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("out/export"), help="default: %(default)s")
    parser.add_argument(
        "--install", action="store_true", help="put ONNX files beside the weights, and update the cards"
    )
    return parser.parse_args(arguments)


def build_engines(
    files: Mapping[str, Path],
    folder: Path,
    architectures: Sequence[str],
    profile: Profile | None,
    console: Console,
    together: bool = False,
) -> list[dict[str, Any]]:
    """Build TensorRT-RTX engines of these files for each architecture, and TensorRT engines for this machine's GPU.

    Args:
        files: ONNX files by precision.
        folder: that the engines are written to.
        architectures: compute capabilities, e.g. "SM89".
        profile: least, usual and most shape of each input with open sizes; None: from the file's metadata.
        console: prints what is left out, and errors.
        together: one engine for all architectures, instead of one for each.

    Returns:
        For each engine its model, precision, runtime and architectures, with "file" (its name), "bytes",
        "build_seconds", "layers" and "dtypes", or with "error" where the build failed.
    """
    found: list[dict[str, Any]] = []
    device = cuda.probe()
    jobs: list[tuple[str, tuple[str, ...]]] = []
    if tensorrt_library.runtime_module("tensorrt_rtx") is None:
        console.print(
            "TensorRT-RTX engines: left out, tensorrt_rtx is not installed (make setup WITH='training export')"
        )
    else:
        groups = [tuple(architectures)] if together else [(a,) for a in architectures]
        jobs += [("tensorrt_rtx", group) for group in groups]
    if tensorrt_library.runtime_module("tensorrt") is None or isinstance(device, str):
        why = "tensorrt is not installed" if tensorrt_library.runtime_module("tensorrt") is None else str(device)
        console.print(f"TensorRT engines: left out, {why}")
    else:
        jobs.append(("tensorrt", ()))
    for precision, path in files.items():
        for runtime, wanted in jobs:
            facts: dict[str, Any] = {
                "model": path.stem,
                "precision": precision,
                "runtime": runtime,
                "runtime_version": tensorrt_library.runtime_version(runtime),
                "architectures": list(wanted)
                or [device.architecture if isinstance(device, cuda.Device) else "unknown"],
            }
            try:
                built = engine_builder.build(runtime, path, profile, wanted)
            except InferenceError as error:
                found.append(facts | {"error": str(error)})
                console.print(f"[red]{path.stem} {runtime} {' '.join(wanted)}: {error}", markup=True, highlight=False)
                continue
            bounds = engine_builder.profile_of(path) if profile is None else profile
            import hashlib

            key = engine_file.EngineKey(
                path.stem,
                hashlib.sha256(path.read_bytes()).hexdigest(),
                runtime,
                facts["runtime_version"],
                device.name if isinstance(device, cuda.Device) and runtime == "tensorrt" else "",
                tuple(facts["architectures"]),
                precision,
                engine_file.profile_key(bounds),
            )
            name = f"{path.stem}-{runtime}-{'-'.join(facts['architectures'])}{engine_file.SUFFIX}"
            engine_file.write_engine(folder / name, key, built.engine, onnx_metadata(path), "", built.seconds)
            found.append(
                facts
                | {
                    "file": name,
                    "bytes": len(built.engine),
                    "build_seconds": round(built.seconds, 3),
                    "layers": dict(built.layers),
                    "dtypes": dict(built.dtypes),
                }
            )
    return found


def show(console: Console, title: str, rows: Sequence[Sequence[str]]) -> None:
    """Print a table; the first row is its header."""
    table = Table(title=title, box=None, pad_edge=False, title_justify="left")
    for heading in rows[0]:
        table.add_column(heading, overflow="fold")
    for row in rows[1:]:
        table.add_row(*row)
    console.print(table)


def engine_table(found: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Header and cells of a table of what ``build_engines`` returned."""
    rows = [["model", "precision", "runtime", "for", "MiB", "build s", "layers", "tensors by type"]]
    for e in found:
        dtypes = ", ".join(f"{k} {v}" for k, v in e.get("dtypes", {}).items())
        rows.append(
            [
                e["model"],
                e["precision"],
                f"{e['runtime']} {e['runtime_version']}",
                " ".join(e["architectures"]),
                f"{e['bytes'] / 2**20:.2f}" if "bytes" in e else e.get("error", ""),
                f"{e['build_seconds']:.2f}" if "bytes" in e else "",
                str(sum(e.get("layers", {}).values()) or ""),
                dtypes,
            ]
        )
    return rows


def registered(arguments: argparse.Namespace, console: Console) -> int:
    """Export models of the registry; exit status 1 where a tolerance is exceeded or an engine could not be built."""
    from export import card, graph, parity, precision, registry

    rows: list[parity.Row] = []
    built: list[dict[str, Any]] = []
    unknown = [p for p in arguments.precision or () if p not in precision.PRECISIONS]
    if unknown:
        raise ValueError(f"--precision: got {unknown[0]!r}, expected one of {', '.join(precision.PRECISIONS)}")
    for name in arguments.model or registry.names():
        model = registry.model(name)
        folder = arguments.out / name
        folder.mkdir(parents=True, exist_ok=True)
        files = {"fp32": graph.from_torch(model, folder / f"{name}.onnx")}
        wanted = arguments.precision or precision.PRECISIONS
        for kind in precision.PRECISIONS[1:]:
            offered = kind in model.precisions and (model.quantization is not None or not kind.startswith("int8"))
            if kind not in wanted or not offered:
                continue
            try:
                files[kind] = precision.make(kind, files["fp32"], folder / f"{name}_{kind}.onnx", model)
            except FileNotFoundError as error:
                console.print(f"{name} {kind}: left out: {error}", markup=False)
        console.print(f"{name}: {', '.join(str(f) for f in files.values())}", markup=False, highlight=False)
        real = list(model.real("seeds", arguments.real))
        if not real:
            console.print(
                f"{name}: no held-out data here; compared on random inputs alone (make train-{name} makes it)"
            )
        own = parity.compare(model, files, real, not arguments.no_metric, lambda text: console.print(f"  {text}"))
        rows += own
        if not arguments.no_engines:
            chosen = {k: f for k, f in files.items() if k in ENGINE_PRECISIONS}
            if model.for_engines is not None:
                chosen = {"fp32": graph.for_engines(model, files["fp32"], folder / f"{name}_tensorrt.onnx")}
                worst, _ = parity.check(model, chosen["fp32"])
                console.print(f"{name}: as TensorRT takes it, error {worst:.1e}", highlight=False)
                if not worst <= parity.TOLERANCE["fp32"]:
                    raise ValueError(f"{chosen['fp32']}: error {worst:.2g}, expected {parity.TOLERANCE['fp32']:g}")
            together = model.for_engines is not None
            built += build_engines(chosen, folder, arguments.architecture or ARCHITECTURES, None, console, together)
        if arguments.install:
            for kind, path in files.items():
                if kind in ("fp32", "int8") or (kind == "fp16" and model.gpu):
                    shutil.copyfile(path, model.folder / path.name)
            card.update(model, [r for r in own if r.precision != "int8_symmetric"])
            console.print(f"{name}: installed in {model.folder}")
    keys = {name: registry.model(name).metric_key for name in {r.model for r in rows}}
    show(console, "\nParity with torch", parity.table(rows, keys))
    if built:
        show(console, "\nEngines", engine_table(built))
    report = {"git_revision": graph.revision(), "parity": parity.as_json(rows), "engines": built}
    failed = [f"{r.model} {r.precision} on {r.backend}: {p}" for r in rows for p in r.problems]
    failed += [f"{e['model']} for {' '.join(e['architectures'])}: {e['error']}" for e in built if "error" in e]
    report["failed"] = failed
    return write(arguments.out, report, parity.table(rows, keys), engine_table(built), failed, console)


def write(
    out: Path,
    report: Mapping[str, Any],
    parity_rows: Sequence[Sequence[str]],
    engine_rows: Sequence[Sequence[str]],
    failed: Sequence[str],
    console: Console,
) -> int:
    """Write report.json and report.md; returns exit status 1 where ``failed`` has lines, else 0."""

    def markdown(rows: Sequence[Sequence[str]]) -> str:
        lines = ["| " + " | ".join(rows[0]) + " |", "|" + " --- |" * len(rows[0])]
        return "\n".join(lines + ["| " + " | ".join(c.replace("|", "/") for c in row) + " |" for row in rows[1:]])

    out.mkdir(parents=True, exist_ok=True)
    (out / "report.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    text = f"# Export\n\n## Parity with torch\n\n{markdown(parity_rows)}\n\n## Engines\n\n{markdown(engine_rows)}\n"
    (out / "report.md").write_text(text, encoding="utf-8")
    console.print(f"\nwritten: {out / 'report.json'}, {out / 'report.md'}")
    for line in failed:
        console.print(f"beyond tolerance: {line}", style="red", markup=False)
    return 1 if failed else 0


def parse_profile(texts: Sequence[str]) -> dict[str, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]] | None:
    """Least, usual and most shape by input, from the values of ``--profile``; None: there are no values.

    Raises:
        ValueError: not INPUT=LEAST:USUAL:MOST, or the shapes differ in length or are not ascending.
    """
    found = {}
    for text in texts:
        name, _, shapes = text.partition("=")
        try:
            least, usual, most = (tuple(int(n) for n in part.split("x")) for part in shapes.split(":"))
        except ValueError as error:
            raise ValueError(f"--profile: got {text!r}, expected INPUT=LEAST:USUAL:MOST, e.g. x=1x3:1x3:8x3") from error
        if not name or not len(least) == len(usual) == len(most):
            raise ValueError(f"--profile: got {text!r}, expected three shapes of one length")
        if not all(a <= b <= c for a, b, c in zip(least, usual, most, strict=True)):
            raise ValueError(f"--profile: got {text!r}, expected least <= usual <= most")
        found[name] = (least, usual, most)
    return found or None


def own(arguments: argparse.Namespace, console: Console) -> int:
    """Export a user's ONNX file: fp16 and engines; exit status 1 where fp16 exceeds its tolerance or a build failed."""
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    from export.parity import TOLERANCE, relative_error

    source: Path = arguments.onnx
    profile = parse_profile(arguments.profile)
    bounds = profile or engine_builder.profile_of(source)
    folder: Path = arguments.out / source.stem
    folder.mkdir(parents=True, exist_ok=True)
    wanted = arguments.precision or ["fp32", "fp16"]
    beyond = [p for p in wanted if p not in ("fp32", "fp16")]
    if beyond:
        raise ValueError(
            f"--precision: got {beyond[0]!r}, expected fp32 or fp16 with --onnx: int8 needs data to take ranges from"
        )
    files = {"fp32": source}
    failed = []
    rows = [["model", "precision", "runs on", "error random"]]
    if "fp16" in wanted:
        files["fp16"] = folder / f"{source.stem}_fp16.onnx"
        model = convert_float_to_float16(onnx.load(source), keep_io_types=True)
        onnx.save(model, files["fp16"])
        rng = np.random.default_rng(3)
        with open_session(source, "onnxruntime_cpu") as plain, open_session(files["fp16"], "onnxruntime_cpu") as half:
            feeds = {}
            for spec in plain.inputs:
                sizes = (
                    bounds[spec.name][1]
                    if spec.name in bounds
                    else tuple(s if isinstance(s, int) else 1 for s in spec.shape)
                )
                feeds[spec.name] = rng.uniform(0.0, 1.0, sizes).astype(spec.dtype)
            expected, found = plain.run(feeds), half.run(feeds)
        error = max(
            (
                relative_error(found[k], v)
                for k, v in expected.items()
                if v.dtype.kind == "f" and v.shape == found[k].shape
            ),
            default=0.0,
        )
        rows.append([source.stem, "fp16", "onnxruntime_cpu", f"{error:.1e}"])
        if not error <= TOLERANCE["fp16"]:
            failed.append(f"{source.stem} fp16: error {error:.2g}, expected at most {TOLERANCE['fp16']}")
    built = []
    if not arguments.no_engines:
        chosen = {k: f for k, f in files.items() if k in wanted}
        built = build_engines(chosen, folder, arguments.architecture or ARCHITECTURES, profile, console)
    failed += [f"{e['model']} for {' '.join(e['architectures'])}: {e['error']}" for e in built if "error" in e]
    show(console, "\nParity with the fp32 file", rows)
    show(console, "\nEngines", engine_table(built))
    return write(arguments.out, {"engines": built, "failed": failed}, rows, engine_table(built), failed, console)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``wm export``; returns the exit status."""
    given = parse(arguments)
    console = Console(width=None if sys.stdout.isatty() else 220)
    try:
        return own(given, console) if given.onnx is not None else registered(given, console)
    except (InferenceError, ValueError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
