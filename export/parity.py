"""Parity of exported files with the torch model: errors, the figures of the task, latency and memory."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.model import Feeds, Model, Runner
from wm_core.inference.backends import BACKENDS, available_backends, open_session
from wm_core.inference.base import InferenceError
from wm_core.inference.onnx_runtime import usual_threads

TOLERANCE = {"fp32": 1e-4, "fp16": 3e-2}
"""Largest relative error by precision, see ``relative_error``. int8 is judged by the figures of the task alone."""

METRIC_TOLERANCE = 0.01
"""How far the task's main figure (0..1) of a precision may be below that of torch: one point."""


@dataclass
class Row:
    """One file on one backend, compared with torch.

    Attributes:
        model: name of the model.
        precision: of ``export.precision.PRECISIONS``.
        backend: of ``wm_core.inference.backends.BACKENDS``, or "torch eager".
        device: that the backend ran on, in words.
        file_bytes: size of the file [bytes]; 0 of torch, which has none.
        random_error, real_error: largest relative error over random and real inputs; None: no such inputs, or not run.
        absolute_error: largest absolute error over all inputs; None: not run.
        metric: figures of the task by name; empty: not measured.
        metric_lost: by how much the main figure is below that of torch; None: not measured.
        latency_ms, p95_ms: median and 95th percentile at the usual sizes [ms]; None: not run.
        memory_mib: what loading and running adds to the peak memory of a process [MiB]; None: not measured.
        problems: a line for each tolerance that is exceeded, and for an error of the backend.
    """

    model: str
    precision: str
    backend: str
    device: str = ""
    file_bytes: int = 0
    random_error: float | None = None
    real_error: float | None = None
    absolute_error: float | None = None
    metric: dict[str, float] = field(default_factory=dict)
    metric_lost: float | None = None
    latency_ms: float | None = None
    p95_ms: float | None = None
    memory_mib: float | None = None
    problems: list[str] = field(default_factory=list)


def relative_error(found: NDArray[Any], expected: NDArray[Any], unit: str = "") -> float:
    """Largest absolute difference, divided by the largest absolute expected value; of a "probability", divided by 1.

    The scale is the tensor's and not each value's: the relative error of a logit that crosses zero is unbounded. So is
    that of a probability near zero: ONNX Runtime's sigmoid is exact to 6e-8, a large part of a probability of 3e-5,
    which does not matter to the task.
    """
    if not expected.size:
        return 0.0
    scale = 1.0 if unit == "probability" else float(np.abs(expected).max())
    return float(np.abs(found.astype(np.float64) - expected).max()) / max(scale, 1e-6)


def threads_of(model: Model) -> int:
    """CPU threads that a model is run with; with small tensors more than one thread costs time."""
    return usual_threads() if model.gpu else 1


def torch_runner(model: Model) -> Runner:
    """The torch definition, eager, as a function."""
    import torch

    network = model.network(model.weights)
    torch.set_num_threads(threads_of(model))

    def run(feeds: Feeds) -> dict[str, NDArray[Any]]:
        with torch.inference_mode():
            values = network(*[torch.from_numpy(np.ascontiguousarray(feeds[t.name])) for t in model.inputs])
        return {t.name: v.numpy() for t, v in zip(model.outputs, values, strict=True)}

    return run


def errors(model: Model, run: Runner, reference: Runner, inputs: Iterable[Feeds]) -> tuple[float | None, float]:
    """Largest relative error over these inputs (None: there are none), and largest absolute error."""
    units = {t.name: t.unit for t in model.outputs}
    worst: float | None = None
    absolute = 0.0
    for feeds in inputs:
        found, expected = run(feeds), reference(feeds)
        for name, value in expected.items():
            worst = max(worst or 0.0, relative_error(found[name], value, units[name]))
            if value.size:
                absolute = max(absolute, float(np.abs(found[name] - value).max()))
    return worst, absolute


def check(model: Model, path: Path) -> tuple[float, float]:
    """Largest relative and absolute error of a file on ONNX Runtime's CPU against torch, over random inputs."""
    with open_session(path, "onnxruntime_cpu", threads_of(model)) as session:
        worst, absolute = errors(model, session.run, torch_runner(model), random_inputs(model))
    return worst or 0.0, absolute


def latencies(run: Callable[[], object], seconds: float = 1.5, least: int = 20) -> NDArray[np.float64]:
    """Latencies (N,) [s] of at least ``least`` runs that last at least ``seconds`` [s], after five warm-up runs."""
    for _ in range(5):
        run()
    found: list[float] = []
    end = time.perf_counter() + seconds
    while len(found) < least or time.perf_counter() < end:
        begin = time.perf_counter()
        run()
        found.append(time.perf_counter() - begin)
    return np.asarray(found)


_MEMORY_PROBE = """
import json, sys
import numpy as np
from wm_core.inference.backends import open_session
path, backend, shapes = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
if backend != "torch":
    import onnxruntime

# Not resource.getrusage: what that says of a new process begins with its parent's peak.
def peak():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])


before = peak()
session = open_session(path, backend, threads=2)
feeds = {s.name: np.zeros(shapes[s.name], s.dtype) for s in session.inputs}
for _ in range(3):
    session.run(feeds)
print((peak() - before) / 1024)
"""


def memory_mib(path: Path, backend: str, shapes: Mapping[str, Sequence[int]]) -> float | None:
    """What loading a file and running it adds to the peak of a fresh process [MiB]; None where that fails."""
    command = [
        sys.executable,
        "-c",
        _MEMORY_PROBE,
        str(path),
        backend,
        json.dumps({k: list(v) for k, v in shapes.items()}),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    return float(done.stdout.split()[-1]) if done.returncode == 0 and done.stdout.strip() else None


def random_inputs(model: Model, count: int = 4) -> list[dict[str, NDArray[Any]]]:
    """So many random inputs: the first of the usual sizes, the others of random sizes within the bounds."""
    rng = np.random.default_rng(17)
    found = [model.random(rng)]
    while len(found) < count:
        sizes = {}
        for name, axis in model.axes.items():
            # At most twice the usual size, which keeps runs short; even, because the networks halve images.
            most = max(axis.least, min(axis.most, 2 * axis.usual))
            sizes[name] = (
                int(rng.integers(axis.least, most + 1)) // 2 * 2 if axis.least > 1 else int(rng.integers(1, 4))
            )
        for name in sizes:
            if f"half_{name}" in sizes:
                sizes[f"half_{name}"] = sizes[name] // 2
        found.append(model.random(rng, sizes))
    return found


def compare(
    model: Model,
    files: Mapping[str, Path],
    real: Sequence[Feeds],
    measure_metric: bool = True,
    say: Callable[[str], None] = print,
) -> list[Row]:
    """Every file on every backend that runs on this machine, against torch; the first row is torch itself.

    Args:
        files: by precision.
        real: real inputs to compare on, beside random ones; may be empty.
        measure_metric: False leaves out the figures of the task, which take minutes.
        say: is called with a line of progress for each row.
    """
    reference = torch_runner(model)
    rows = [Row(model.name, "fp32", "torch eager", device=_torch_device())]
    usual = model.random(np.random.default_rng(3))
    times = 1e3 * latencies(lambda: reference(usual))
    rows[0].latency_ms, rows[0].p95_ms = float(np.median(times)), float(np.percentile(times, 95))
    if measure_metric:
        rows[0].metric = model.metric(reference)
    random = random_inputs(model)
    backends = [s.name for s in available_backends() if s.available and s.name != "torch"]
    for precision, path in files.items():
        for backend in backends:
            if precision == "int8" and backend != "onnxruntime_cpu":
                continue
            row = Row(model.name, precision, backend, file_bytes=path.stat().st_size)
            rows.append(row)
            say(f"{model.name} {precision} on {backend}")
            try:
                with open_session(path, backend, threads_of(model)) as session:
                    row.device = session.device
                    row.random_error, one = errors(model, session.run, reference, random)
                    row.real_error, other = errors(model, session.run, reference, real)
                    row.absolute_error = max(one, other)
                    times = 1e3 * latencies(lambda: session.run(usual))
                    row.latency_ms, row.p95_ms = float(np.median(times)), float(np.percentile(times, 95))
                    row.memory_mib = memory_mib(path, backend, {k: v.shape for k, v in usual.items()})
                    if measure_metric:
                        row.metric = model.metric(session.run)
            except InferenceError as error:
                row.problems.append(str(error))
            judge(row, rows[0], model)
    return rows


def judge(row: Row, reference: Row, model: Model) -> None:
    """Set ``metric_lost`` of a row, and append to ``problems`` each tolerance that it exceeds."""
    limit = TOLERANCE.get(row.precision)
    for name in ("random_error", "real_error"):
        value = getattr(row, name)
        if limit is not None and value is not None and not value <= limit:
            row.problems.append(f"{name} {value:.2g}, expected at most {limit:g}")
    key = model.metric_key
    if key in row.metric and key in reference.metric:
        row.metric_lost = reference.metric[key] - row.metric[key]
        if not row.metric_lost <= METRIC_TOLERANCE:
            row.problems.append(f"{key} loses {row.metric_lost:.3f}, expected at most {METRIC_TOLERANCE}")


def _torch_device() -> str:
    import torch

    return f"CPU, {torch.get_num_threads()} threads"


def as_json(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Rows for a JSON report; figures that are not finite are left out."""
    found = [asdict(row) for row in rows]
    for row in found:
        # JSON has no NaN, the value of a figure without data, e.g. where no object is of a known class.
        row["metric"] = {k: v for k, v in row["metric"].items() if np.isfinite(v)}
    return found


def table(rows: Sequence[Row], keys: Mapping[str, str]) -> list[list[str]]:
    """Header and cells of a table to read; ``keys``: the main figure of each model by the model's name."""

    def number(value: float | None, form: str = ".3g") -> str:
        return "" if value is None else f"{value:{form}}"

    found = [
        [
            "model",
            "precision",
            "runs on",
            "MiB",
            "error random",
            "error real",
            "task figure",
            "lost",
            "median ms",
            "p95 ms",
            "memory MiB",
            "beyond tolerance",
        ]
    ]
    for row in rows:
        key = keys[row.model]
        figure = f"{key} {row.metric[key]:.4f}" if key in row.metric else ""
        found.append(
            [
                row.model,
                row.precision,
                f"{row.backend}, {row.device}",
                number(row.file_bytes / 2**20 if row.file_bytes else None, ".2f"),
                number(row.random_error, ".1e"),
                number(row.real_error, ".1e"),
                figure,
                number(row.metric_lost, "+.4f"),
                number(row.latency_ms, ".2f"),
                number(row.p95_ms, ".2f"),
                number(row.memory_mib, ".0f"),
                "; ".join(row.problems),
            ]
        )
    return found


__all__ = ["BACKENDS", "METRIC_TOLERANCE", "TOLERANCE", "Row", "compare", "errors", "relative_error", "table"]
