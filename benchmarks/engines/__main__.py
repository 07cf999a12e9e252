"""Every model on every runtime that is here, beside torch: latency, rate, and the overhead of wm's session interface.

    make bench-engines                      # all models; out/bench/engines.json
    make bench-engines ARGS='--model segmenter --seconds 2'

Runners run in turns in blocks, so that other load on the machine disturbs all of them alike. With an NVIDIA GPU and
its packages there are further rows: torch eager and torch.compile on the GPU, ONNX Runtime's CUDA and TensorRT
providers, TensorRT and TensorRT-RTX, with and without CUDA graphs. Those have not been run yet (docs/engines.md).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from export import registry
from export.model import Feeds, Model
from export.parity import threads_of
from wm_core.inference.backends import GPU_BACKENDS, available_backends, open_session
from wm_core.inference.base import InferenceError
from wm_core.inference.onnx_runtime import cores, cpu_flags

AIMS = {"against torch eager, batch 1": 2.0, "int8 against fp32": 1.5, "overhead": 0.03}
"""Least ratios of speed, and the largest fraction that the interface may add (docs/engines.md)."""
Run = Callable[[], object]


@dataclass
class Row:
    """One runner of a model under one load.

    Attributes:
        model, load, precision, runtime, device: what ran, and where.
        median_ms, p95_ms, least_ms: of one run [ms]; per_second: runs a second by the median.
        against_torch, against_defaults: how many times as fast as torch eager and as ONNX Runtime by its defaults, by
            medians.
        least_against_torch: the same by least times, which other processes on the machine disturb less.
    """

    model: str
    load: str
    precision: str
    runtime: str
    device: str
    median_ms: float
    p95_ms: float
    least_ms: float
    per_second: float
    against_torch: float | None = None
    against_defaults: float | None = None
    least_against_torch: float | None = None


def take_turns(runs: dict[str, Run], seconds: float, block: int = 8) -> dict[str, np.ndarray]:
    """Times [s] of each, in turns of ``block`` runs; a run before each block, which fills the caches, is not timed."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
    end = time.perf_counter() + seconds * len(runs)
    while time.perf_counter() < end or min(len(t) for t in times.values()) < 3 * block:
        for name, run in runs.items():
            run()
            for _ in range(block):
                begin = time.perf_counter()
                run()
                times[name].append(time.perf_counter() - begin)
    return {name: np.asarray(t) for name, t in times.items()}


def torch_runs(model: Model, feeds: Feeds, threads: int, compile_too: bool) -> dict[str, Run]:
    """Torch eager on the CPU, and on the GPU, where there is one, also compiled; copies are included."""
    import torch

    torch.set_num_threads(threads)
    network = model.network(model.weights)
    tensors = [torch.from_numpy(feeds[t.name]) for t in model.inputs]

    def eager() -> object:
        with torch.inference_mode():
            return network(*tensors)

    runs: dict[str, Run] = {f"torch eager|CPU, {threads} threads": eager}
    if torch.cuda.is_available():
        on_gpu = model.network(model.weights).cuda()
        compiled = torch.compile(on_gpu)
        name = torch.cuda.get_device_name()

        def gpu(module: Any) -> Run:
            def run() -> object:
                with torch.inference_mode():
                    return [v.cpu() for v in module(*[t.cuda() for t in tensors])]

            return run

        runs[f"torch eager|{name}"] = gpu(on_gpu)
        if compile_too:
            runs[f"torch.compile|{name}"] = gpu(compiled)
    return runs


def bare(path: Path, threads: int | None) -> tuple[Any, list[str]]:
    """An ONNX Runtime session by its defaults (``threads`` None) or with wm's options, and its output names."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if threads is not None:
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return session, [o.name for o in session.get_outputs()]


def files_of(model: Model) -> dict[str, Path]:
    """The shipped files by precision."""
    found = {"fp32": model.onnx}
    found |= {p.stem.removeprefix(f"{model.name}_"): p for p in sorted(model.folder.glob(f"{model.name}_*.onnx"))}
    return found


def measure(model: Model, load: str, seconds: float, console: Console) -> list[Row]:
    """All runners of a model under one load."""
    feeds = model.random(np.random.default_rng(3), {**model.sizes("usual"), **model.loads[load]})
    threads = threads_of(model)
    runs = torch_runs(model, feeds, threads, True)
    facts = {name: ("fp32", name.split("|")[0], name.split("|")[1]) for name in runs}
    eager = next(iter(runs))
    session, _ = bare(model.onnx, None)
    plain = "onnxruntime, defaults"
    runs[plain] = lambda: session.run(None, feeds)
    facts[plain] = ("fp32", plain, f"CPU, {cores()} threads")
    with ExitStack() as stack:
        for status in available_backends():
            if not status.available or status.name == "torch":
                continue
            for precision, path in files_of(model).items():
                on_gpu = status.name in GPU_BACKENDS
                if (precision == "int8" and on_gpu) or (precision == "fp16" and not on_gpu):
                    continue
                for graphs in (True, False) if on_gpu else (False,):
                    name = f"{status.name} {precision}{' CUDA graphs' if graphs else ''}"
                    try:
                        opened = stack.enter_context(open_session(path, status.name, threads, cuda_graph=graphs))
                        opened.run(feeds)
                    except InferenceError as error:
                        console.print(f"{model.name} {name}: left out: {error}", markup=False)
                        continue
                    runs[name] = lambda opened=opened: opened.run(feeds)  # type: ignore[misc]
                    facts[name] = (precision, f"{status.name}{', CUDA graphs' if graphs else ''}", opened.device)
        times = take_turns(runs, seconds)
    medians = {name: float(np.median(t)) for name, t in times.items()}
    return [
        Row(
            model.name,
            load,
            precision=facts[name][0],
            runtime=facts[name][1],
            device=facts[name][2],
            median_ms=1e3 * medians[name],
            p95_ms=1e3 * float(np.percentile(t, 95)),
            least_ms=1e3 * float(t.min()),
            per_second=1.0 / medians[name],
            against_torch=medians[eager] / medians[name],
            against_defaults=medians[plain] / medians[name],
            least_against_torch=float(times[eager].min() / t.min()),
        )
        for name, t in times.items()
    ]


def overhead(model: Model, seconds: float) -> dict[str, float]:
    """What wm's interface adds to ONNX Runtime with the same options, at batch 1: fraction, and both medians [ms].

    Single runs in turns, and the median of the differences of neighbors: the interface costs microseconds, and the
    times vary by more.
    """
    feeds = model.random(np.random.default_rng(3))
    threads = threads_of(model)
    session, names = bare(model.onnx, threads)
    ours = open_session(model.onnx, "onnxruntime_cpu", threads)
    first: list[float] = []
    second: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(first) < 100:
        order: Sequence[tuple[list[float], Run]] = (
            (first, lambda: dict(zip(names, session.run(None, feeds), strict=True))),
            (second, lambda: ours.run(feeds)),
        )
        for times, run in order if len(first) % 2 else order[::-1]:
            begin = time.perf_counter()
            run()
            times.append(time.perf_counter() - begin)
    count = min(len(first), len(second))
    difference = float(np.median(np.asarray(second[:count]) - np.asarray(first[:count])))
    base = float(np.median(first))
    return {"fraction": difference / base, "bare_ms": 1e3 * base, "ours_ms": 1e3 * float(np.median(second))}


def machine() -> dict[str, Any]:
    """The machine and the versions that were measured."""
    import onnxruntime

    name = platform.processor()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    from wm_core.inference import cuda

    try:
        import torch

        torch_version = torch.__version__
    except ImportError:
        torch_version = ""
    return {
        "cpu": name,
        "cores": cores(),
        "vnni": sorted(f for f in cpu_flags() if "vnni" in f),
        "gpu": str(cuda.probe()),
        "onnxruntime": onnxruntime.__version__,
        "torch": torch_version,
    }


def verdicts(rows: Sequence[Row], costs: dict[str, dict[str, float]], busy: bool) -> list[dict[str, Any]]:
    """Each aim, the measured value, and whether it is reached; None where the machine was too busy to tell.

    Torch's threads spin while they wait for one another: on busy cores it slows down far more than wm's runtimes, and
    the ratio would be too favorable.
    """
    found: list[dict[str, Any]] = []

    def add(aim: str, model: str, value: float, reached: bool) -> None:
        judged = None if busy and aim != "overhead" else reached
        found.append({"aim": aim, "model": model, "expected": AIMS[aim], "measured": round(value, 4), "met": judged})

    for name in dict.fromkeys(r.model for r in rows):
        own = [r for r in rows if r.model == name and r.load == "batch 1" and r.runtime == "onnxruntime_cpu"]
        for row in own:
            aim = "against torch eager, batch 1"
            ratio = row.against_torch or 0.0
            add(aim, f"{name} {row.precision}", ratio, ratio >= AIMS[aim])
        by_precision = {r.precision: r for r in own}
        if {"fp32", "int8"} <= set(by_precision):
            ratio = by_precision["fp32"].median_ms / by_precision["int8"].median_ms
            add("int8 against fp32", name, ratio, ratio >= AIMS["int8 against fp32"])
        if name in costs:
            add("overhead", name, costs[name]["fraction"], costs[name]["fraction"] < AIMS["overhead"])
    return found


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.engines",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", action="append", help="repeatable (default: all with weights)")
    parser.add_argument("--seconds", type=float, default=4.0, help="for each runner (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("out/bench/engines.json"), help="default: %(default)s")
    given = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 200)
    try:
        import torch  # noqa: F401
    except ImportError:
        console.print(
            "left out: torch is not installed, so there is nothing to compare with (make setup WITH=training)"
        )
        return 0
    rows: list[Row] = []
    costs: dict[str, dict[str, float]] = {}
    # Measured before the runners add to it.
    before = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    busy = before > 0.5 * cores()
    for name in given.model or registry.names():
        model = registry.model(name)
        if not model.onnx.is_file():
            console.print(f"{name}: left out, no {model.onnx}")
            continue
        for load in model.loads:
            rows += measure(model, load, given.seconds, console)
        costs[name] = overhead(model, given.seconds)
    table = Table(title="Runtimes", title_justify="left", box=None, pad_edge=False)
    for heading in ("model", "load", "precision", "runtime", "device", "median ms", "p95 ms", "least ms", "per s"):
        table.add_column(heading)
    table.add_column("x torch eager")
    table.add_column("by least times")
    table.add_column("x ORT defaults")
    for r in rows:
        figures = [f"{v:.2f}" for v in (r.median_ms, r.p95_ms, r.least_ms)]
        ratios = ["" if v is None else f"{v:.2f}" for v in (r.against_torch, r.least_against_torch, r.against_defaults)]
        table.add_row(r.model, r.load, r.precision, r.runtime, r.device, *figures, f"{r.per_second:.0f}", *ratios)
    console.print(table)
    for name, cost in costs.items():
        console.print(
            f"{name}: our interface adds {100 * cost['fraction']:.2f} % to ONNX Runtime's {cost['bare_ms']:.3f} ms",
            highlight=False,
        )
    if busy:
        console.print(f"the machine is busy (load {before:.1f} on {cores()} cores): times are not judged")
    judged = verdicts(rows, costs, busy)
    for v in judged:
        word = "not judged" if v["met"] is None else "met" if v["met"] else "missed"
        console.print(f"{v['aim']}, {v['model']}: {v['measured']:g}, aim {v['expected']:g}: {word}", highlight=False)
    device = machine()
    if "GPU" in device["gpu"] or "driver" in device["gpu"]:
        console.print(f"no GPU rows: {device['gpu']}", highlight=False)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    device["load_average_before"] = round(before, 2)
    report = {"machine": device, "rows": [asdict(r) for r in rows], "overhead": costs, "aims": judged}
    given.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    console.print(f"written: {given.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
