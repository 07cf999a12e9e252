"""Growth of the nodes over a long run: memory, file descriptors and threads.

    make soak [ARGS='--minutes 60']        or: source tools/env.sh && python -m benchmarks.soak --minutes 3

Simulated camera (640x480, 30 Hz, with the errors of a depth camera), perception and imagination run as processes of
their own; a client asks a what-if a second through the service, every tenth one with images. After a warm-up a
straight line is fitted through the memory of every node (benchmarks/soak/trend.py). Prints a table, writes
out/bench/soak.json with all samples, and ends with status 1 where a node surely grows faster than the limit, or does
not answer.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from benchmarks.soak import trend
from benchmarks.soak.usage import Usage, usage_of
from wm_bringup.client import ClientError, GraphClient
from wm_bringup.demo.capture import CAMERA_TOPICS, NAMESPACE, environment
from wm_bringup.demo.scenarios import timing_hypotheses
from wm_bringup.environment import make_console
from wm_bringup.progress import ProgressLog
from wm_bringup.report.results import machine_facts
from wm_bringup.run.node_command import node_command
from wm_bringup.run.nodes import start_nodes
from wm_bringup.run.private_graph import graph_environment
from wm_bringup.run.processes import ProcessDied, ProcessGroup
from wm_core.rollout import ImageRequest, ImagineRequest

ROOT = Path(__file__).resolve().parents[2]
LIMIT_MB_H = 20.0
"""Growth that is allowed: half a gigabyte a day."""
WARM_UP_SHARE, WARM_UP_MOST_S = 0.25, 600.0
"""Part of the run that is not fitted: caches and buffers fill, and models are loaded."""
LEAST_FITTED_S = 1200.0
"""A verdict needs so much time after the warm-up: nodes fill their buffers for some minutes, by up to 300 MB an hour,
and then stop growing."""
MB = 1e6
"""Bytes."""
START_S = 180.0
"""Time [s] that nodes have to start: they load their models, and compile them the first time."""
SAMPLE_S = 1.0
"""Time [s] between two samples of a process."""
SCENE_CHANGE_S = 20.0
"""Time [s] after which the simulated scene begins anew."""


class Soak:
    """A run and its samples.

    Attributes:
        arguments: of the command line; begin_s: monotonic time of the start [s].
        samples: by node (time since the start [s], ``Usage``).
        heaps: by node (monotonic time [s], heap in use [MB], blocks of the Python interpreter).
        answered, refused: what-ifs; graphs: scene graphs received; round_trips_s: of the answers [s].
    """

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.samples: dict[str, list[tuple[float, Usage]]] = {}
        self.heaps: dict[str, list[tuple[float, float, int]]] = {}
        self.answered, self.refused, self.graphs = 0, 0, 0
        self.begin_s = 0.0
        self.round_trips_s: list[float] = []

    def on_diagnostics(self, message: DiagnosticArray) -> None:
        """Keep the heap figures that a node reports."""
        for status in message.status:
            name, _, what = status.name.partition(": ")
            values = {value.key: value.value for value in status.values}
            if what == "memory" and "used_mb" in values:
                seen = (time.monotonic(), float(values["used_mb"]), int(values["python_blocks"]))
                self.heaps.setdefault(name, []).append(seen)

    def imagine(self, client: GraphClient, number: int) -> None:
        """Request one what-if about the newest scene graph."""
        scene = client.scene(client.latest_stamp_ns)
        every = self.arguments.images_every
        images = ImageRequest(video=every > 0 and number % every == every - 1, rate_hz=5.0)
        request = ImagineRequest(
            tuple(timing_hypotheses(scene, self.arguments.futures, number)),
            horizon_s=1.0,
            backend=self.arguments.backend,
            samples=self.arguments.samples,
            images=images,
        )
        try:
            answer = client.imagine(request, timeout_s=60.0)
        except ClientError as error:
            self.refused += 1
            if self.refused > max(3, self.answered):
                raise ClientError(
                    f"{self.refused} of {self.refused + self.answered} what-ifs failed: {error}"
                ) from error
            return
        self.answered += 1
        self.round_trips_s.append(answer.round_trip_s)

    def run(self, client: GraphClient, processes: ProcessGroup, progress: Progress) -> None:
        """Request what-ifs and sample processes until the time is over."""
        client.node.create_subscription(DiagnosticArray, "/diagnostics", self.on_diagnostics, 10)
        begin = self.begin_s = time.monotonic()
        total_s = 60.0 * self.arguments.minutes
        task = progress.add_task("soak", total=total_s)
        next_request = next_sample = begin
        number, newest = 0, client.latest_stamp_ns
        while (now := time.monotonic()) < begin + total_s:
            if now >= next_sample:
                next_sample = max(next_sample + SAMPLE_S, now)
                for managed in processes:
                    self.samples.setdefault(managed.name, []).append((now - begin, usage_of(managed.pid)))
                self.graphs += sum(stamp > newest for stamp in reversed(client.graphs))
                newest = client.latest_stamp_ns
                progress.update(task, completed=now - begin, description=self.status())
            if self.arguments.what_if_hz > 0.0 and now >= next_request:
                next_request = max(next_request + 1.0 / self.arguments.what_if_hz, now)
                self.imagine(client, number)
                number += 1
            client.spin(
                max(0.0, min(next_sample, next_request) - time.monotonic()) if self.arguments.what_if_hz else 0.2
            )
        progress.update(task, completed=total_s, description=self.status())

    def status(self) -> str:
        """Resident memory by node, for the progress bar."""
        held = (f"{name} {rows[-1][1].rss_bytes / MB:.0f} MB" for name, rows in self.samples.items())
        return f"{', '.join(held)}; {self.answered} what-ifs"

    def rows(self) -> dict[str, Any]:
        """Figures by node."""
        rows: dict[str, Any] = {}
        warm_s = warm_up_s(self.arguments)
        for name, samples in self.samples.items():
            times = np.array([t for t, _ in samples])
            kept = times >= warm_s
            columns = {key: np.array([getattr(u, key) for _, u in samples]) for key in asdict(samples[0][1])}
            rss = trend.fit(times[kept], columns["rss_bytes"][kept] / MB)
            anonymous = trend.fit(times[kept], columns["anonymous_bytes"][kept] / MB)
            first = int(np.argmax(kept))
            reported = [(t - self.begin_s, used, blocks) for t, used, blocks in self.heaps.get(name, ())]
            heap = np.array([row for row in reported if row[0] >= warm_s]).reshape(-1, 3)
            used, blocks = trend.fit(heap[:, 0], heap[:, 1]), trend.fit(heap[:, 0], heap[:, 2])
            rows[name] = {
                # Not every node reports its heap, and JSON has no NaN.
                "used_mb_h": used.per_hour if len(heap) else None,
                "used_mb_h_margin": used.margin if len(heap) else None,
                "python_blocks_h": blocks.per_hour if len(heap) else None,
                "python_blocks_h_margin": blocks.margin if len(heap) else None,
                "rss_mb": [float(columns["rss_bytes"][k] / MB) for k in (first, -1)],
                "rss_mb_h": rss.per_hour,
                "rss_mb_h_margin": rss.margin,
                "anonymous_mb_h": anonymous.per_hour,
                "anonymous_mb_h_margin": anonymous.margin,
                "descriptors": [int(columns["descriptors"][k]) for k in (first, -1)],
                "threads": [int(columns["threads"][k]) for k in (first, -1)],
                "cpu": float((columns["cpu_s"][-1] - columns["cpu_s"][0]) / max(times[-1] - times[0], 1e-9)),
                "verdict": verdict(rss, times[-1] - times[first], self.arguments.limit),
            }
        return rows


def verdict(growth: trend.Trend, fitted_s: float, limit: float) -> str:
    """The verdict of the trend, where enough time [s] was fitted."""
    return growth.verdict(limit) if fitted_s >= LEAST_FITTED_S else "undecided"


def warm_up_s(arguments: argparse.Namespace) -> float:
    """Seconds at the beginning that are not fitted."""
    if arguments.warm_up is not None:
        return 60.0 * float(arguments.warm_up)
    return min(WARM_UP_SHARE * 60.0 * float(arguments.minutes), WARM_UP_MOST_S)


def soak(arguments: argparse.Namespace, console: Any, log_folder: Path) -> Soak:
    """Run the graph.

    Raises:
        ProcessDied: a node ended.
        ClientError: nothing is perceived, or what-ifs are refused.
    """
    run, progress, environ = Soak(arguments), ProgressLog(console), graph_environment()
    for setting in arguments.env:
        name, _, value = setting.partition("=")
        environ[name] = value
    with (
        environment(environ),
        ProcessGroup(log_folder, environ) as processes,
        GraphClient("wm_soak", NAMESPACE, processes.check) as client,
    ):
        with progress.stage("start the graph"):
            start_nodes(processes, namespace=NAMESPACE, parameters={"use_sim_time": True})
            client.wait_for(
                lambda: client.ready() and min(map(client.node.count_subscribers, CAMERA_TOPICS)) >= 2,
                START_S,
                "the nodes to start",
            )
            camera = {
                "scene": arguments.scene,
                "rate_hz": arguments.rate,
                "depth_noise": True,
                "duration_s": SCENE_CHANGE_S,
                "at_end": "loop",
            }
            processes.start("camera", node_command("wm_sim.node", parameters=camera))
            client.wait_for(lambda: len(client.graphs) > 5, START_S, "scene graphs")
        bar = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
        with Progress(*bar, console=console) as progress:
            run.run(client, processes, progress)
    return run


def table_of(rows: Mapping[str, Any], limit: float) -> Table:
    """The figures as a table."""
    table = Table(box=None, pad_edge=False)
    growth = ("memory", "growth (95 %)", "of it anonymous", "heap in use")
    for column in ("node", *growth, "descriptors", "threads", "cores", "verdict"):
        table.add_column(column, justify="left" if column in ("node", "verdict") else "right")
    colors = {"grows": "red", "steady": "green", "undecided": "yellow"}
    for name, row in rows.items():
        table.add_row(
            escape(name),
            "{:.1f} -> {:.1f} MB".format(*row["rss_mb"]),
            f"{row['rss_mb_h']:+.1f} ± {row['rss_mb_h_margin']:.1f} MB/h",
            f"{row['anonymous_mb_h']:+.1f} ± {row['anonymous_mb_h_margin']:.1f} MB/h",
            "-" if row["used_mb_h"] is None else f"{row['used_mb_h']:+.1f} ± {row['used_mb_h_margin']:.1f} MB/h",
            "{} -> {}".format(*row["descriptors"]),
            "{} -> {}".format(*row["threads"]),
            f"{row['cpu']:.2f}",
            f"[{colors[row['verdict']]}]{row['verdict']}[/] (limit {limit:g} MB/h)",
        )
    return table


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.soak",
        description="Growth of the nodes' memory, descriptors and threads on a live graph.",
    )
    parser.add_argument("--minutes", type=float, default=60.0, help="length of the run (default: %(default)s)")
    parser.add_argument("--warm-up", type=float, help="minutes that are not fitted (default: a quarter, at most 10)")
    parser.add_argument(
        "--what-if-hz", type=float, default=1.0, help="what-ifs a second; 0: none (default: %(default)s)"
    )
    parser.add_argument("--futures", type=int, default=8, help="of each what-if (default: %(default)s)")
    parser.add_argument("--samples", type=int, default=1, help="of each future (default: %(default)s)")
    parser.add_argument("--images-every", type=int, default=10, help="every N-th with images; 0: none (default: 10)")
    parser.add_argument("--backend", default="auto", help="of the what-ifs (default: %(default)s)")
    parser.add_argument("--scene", default="demo", help="of wm_sim (default: %(default)s)")
    parser.add_argument("--rate", type=float, default=30.0, help="of the camera [Hz] (default: %(default)s)")
    parser.add_argument("--limit", type=float, default=LIMIT_MB_H, help="growth allowed [MB/h] (default: %(default)s)")
    parser.add_argument(
        "--env", action="append", default=[], metavar="NAME=VALUE", help="for the nodes, e.g. MALLOC_ARENA_MAX=2"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "out/bench/soak.json")
    arguments = parser.parse_args()
    if not arguments.minutes > 0.0 or not 0.0 <= warm_up_s(arguments) < 60.0 * arguments.minutes:
        parser.error(
            f"minutes, warm-up: got {arguments.minutes:g} and {arguments.warm_up}, expected 0 <= warm-up < minutes"
        )
    console = make_console()
    try:
        with tempfile.TemporaryDirectory() as folder:
            run = soak(arguments, console, Path(folder))
    except (ClientError, ProcessDied) as error:
        console.print(f"[red]{escape(str(error))}[/]")
        return 1
    rows = run.rows()
    console.print(table_of(rows, arguments.limit))
    seconds = 60.0 * arguments.minutes
    trips = np.array(run.round_trips_s) if run.round_trips_s else np.full(1, np.nan)
    console.print(
        f"{run.graphs / seconds:.1f} scene graphs a second; {run.answered} what-ifs answered, {run.refused} failed; "
        f"round trip median {1e3 * np.median(trips):.0f} ms, 95 % under {1e3 * np.percentile(trips, 95):.0f} ms"
    )
    if any(row["verdict"] == "undecided" for row in rows.values()):
        console.print(
            f"undecided: the interval holds the limit, or less than {LEAST_FITTED_S / 60.0:g} minutes were watched "
            "after the warm-up; a longer run says more (--minutes)"
        )
    found = {
        "nodes": rows,
        "options": {k: str(v) if isinstance(v, Path) else v for k, v in vars(arguments).items()},
        "graphs_per_s": run.graphs / seconds,
        "answered": run.answered,
        "failed": run.refused,
        "heaps": {
            name: [{"time_s": t - run.begin_s, "used_mb": used, "python_blocks": blocks} for t, used, blocks in samples]
            for name, samples in run.heaps.items()
        },
        "samples": {name: [{"time_s": t, **asdict(u)} for t, u in samples] for name, samples in run.samples.items()},
        "machine": machine_facts(),
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(found) + "\n")
    console.print(f"written: {arguments.out}")
    return int(any(row["verdict"] == "grows" for row in rows.values()))


if __name__ == "__main__":
    sys.exit(main())
