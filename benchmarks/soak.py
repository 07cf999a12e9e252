"""Whether the nodes keep what they should let go: memory, file descriptors and threads over a long run.

    make soak [ARGS='--minutes 60']        or: source tools/env.sh && python benchmarks/soak.py --minutes 3

Simulated camera (640x480, 30 Hz, with the errors of a depth camera), perception and imagination run as processes of
their own; a client asks a what-if a second through the service, every tenth one with images. After a warm-up a
straight line is fitted through the memory of every node (benchmarks/soaking/trend.py). Prints a table, writes
out/bench/soak.json with all samples, and ends with status 1 where a node surely grows faster than the limit, or cannot
be asked.
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

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
from diagnostic_msgs.msg import DiagnosticArray  # noqa: E402
from rich.markup import escape  # noqa: E402
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn  # noqa: E402
from rich.table import Table  # noqa: E402

from benchmarks.soaking import trend  # noqa: E402
from benchmarks.soaking.usage import Usage, look  # noqa: E402
from wm_bringup.client import ClientError, GraphClient  # noqa: E402
from wm_bringup.demo.capture import CAMERA_TOPICS, NAMESPACE, environment  # noqa: E402
from wm_bringup.demo.scenarios import timing_hypotheses  # noqa: E402
from wm_bringup.environment import make_console  # noqa: E402
from wm_bringup.progress import ProgressLog  # noqa: E402
from wm_bringup.report.results import machine_facts  # noqa: E402
from wm_bringup.run.node_command import node_command  # noqa: E402
from wm_bringup.run.nodes import start_nodes  # noqa: E402
from wm_bringup.run.private_graph import graph_environment  # noqa: E402
from wm_bringup.run.processes import ProcessDied, ProcessGroup  # noqa: E402
from wm_core.rollout import ImageRequest, ImagineRequest  # noqa: E402

LIMIT_MB_H = 20.0
WARM_UP_SHARE, WARM_UP_MOST_S = 0.25, 600.0
"""Part of the run that is not fitted: caches and buffers fill, and the first of everything is made."""
LEAST_FITTED_S = 1200.0
"""A verdict takes as much after the warm-up: nodes fill their buffers for some minutes, by up to 300 MB an hour, and
then grow no more."""
MB = 1e6
START_S = 180.0
"""How long nodes may take to start: their models load, and are compiled where they never were."""
SAMPLE_S = 1.0
SCENE_CHANGE_S = 20.0


class Soak:
    """A run and its samples."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.samples: dict[str, list[tuple[float, Usage]]] = {}
        self.heaps: dict[str, list[tuple[float, float, int]]] = {}
        self.answered, self.refused, self.graphs = 0, 0, 0
        self.begin_s = 0.0
        self.round_trips_s: list[float] = []

    def hear(self, message: DiagnosticArray) -> None:
        """Keep what a node says of its heap: time, megabytes in use, the interpreter's blocks."""
        for status in message.status:
            name, _, what = status.name.partition(": ")
            values = {value.key: value.value for value in status.values}
            if what == "memory" and "used_mb" in values:
                seen = (time.monotonic(), float(values["used_mb"]), int(values["python_blocks"]))
                self.heaps.setdefault(name, []).append(seen)

    def ask(self, client: GraphClient, number: int) -> None:
        """One what-if about what is seen now."""
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
        """Ask and sample until the time is over."""
        client.node.create_subscription(DiagnosticArray, "/diagnostics", self.hear, 10)
        begin = self.begin_s = time.monotonic()
        total_s = 60.0 * self.arguments.minutes
        task = progress.add_task("soak", total=total_s)
        next_ask = next_look = begin
        number, newest = 0, client.latest_stamp_ns
        while (now := time.monotonic()) < begin + total_s:
            if now >= next_look:
                next_look = max(next_look + SAMPLE_S, now)
                for managed in processes:
                    self.samples.setdefault(managed.name, []).append((now - begin, look(managed.pid)))
                self.graphs += sum(stamp > newest for stamp in reversed(client.graphs))
                newest = client.latest_stamp_ns
                progress.update(task, completed=now - begin, description=self.status())
            if self.arguments.what_if_hz > 0.0 and now >= next_ask:
                next_ask = max(next_ask + 1.0 / self.arguments.what_if_hz, now)
                self.ask(client, number)
                number += 1
            client.spin(max(0.0, min(next_look, next_ask) - time.monotonic()) if self.arguments.what_if_hz else 0.2)
        progress.update(task, completed=total_s, description=self.status())

    def status(self) -> str:
        """Resident memory by node, for the progress bar."""
        held = (f"{name} {taken[-1][1].rss_bytes / MB:.0f} MB" for name, taken in self.samples.items())
        return f"{', '.join(held)}; {self.answered} what-ifs"

    def rows(self) -> dict[str, Any]:
        """Figures by node."""
        rows: dict[str, Any] = {}
        warm_s = warm_up_s(self.arguments)
        for name, taken in self.samples.items():
            times = np.array([t for t, _ in taken])
            kept = times >= warm_s
            columns = {key: np.array([getattr(u, key) for _, u in taken]) for key in asdict(taken[0][1])}
            rss = trend.fit(times[kept], columns["rss_bytes"][kept] / MB)
            anonymous = trend.fit(times[kept], columns["anonymous_bytes"][kept] / MB)
            first = int(np.argmax(kept))
            said = [(t - self.begin_s, used, blocks) for t, used, blocks in self.heaps.get(name, ())]
            heap = np.array([row for row in said if row[0] >= warm_s]).reshape(-1, 3)
            used, blocks = trend.fit(heap[:, 0], heap[:, 1]), trend.fit(heap[:, 0], heap[:, 2])
            rows[name] = {
                # Not every node says what it has in use, and a NaN is no JSON.
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
    """That of the trend, where it was watched for long enough to tell."""
    return growth.verdict(limit) if fitted_s >= LEAST_FITTED_S else "undecided"


def warm_up_s(arguments: argparse.Namespace) -> float:
    """Seconds at the beginning that are not fitted."""
    if arguments.warm_up is not None:
        return 60.0 * float(arguments.warm_up)
    return min(WARM_UP_SHARE * 60.0 * float(arguments.minutes), WARM_UP_MOST_S)


def soak(arguments: argparse.Namespace, console: Any, log_folder: Path) -> Soak:
    """Run the graph.

    Raises:
        ProcessDied: a node ended. ClientError: nothing is perceived, or what-ifs are refused.
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
    """The figures for people."""
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
        description="Growth of the nodes' memory, descriptors and threads on a live graph."
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
            name: [{"time_s": t - run.begin_s, "used_mb": used, "python_blocks": blocks} for t, used, blocks in taken]
            for name, taken in run.heaps.items()
        },
        "samples": {name: [{"time_s": t, **asdict(u)} for t, u in taken] for name, taken in run.samples.items()},
        "machine": machine_facts(),
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(found) + "\n")
    console.print(f"written: {arguments.out}")
    return int(any(row["verdict"] == "grows" for row in rows.values()))


if __name__ == "__main__":
    sys.exit(main())
