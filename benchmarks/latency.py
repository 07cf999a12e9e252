"""Time from a camera frame to its scene graph, and from a request to its rollouts, on a live graph.

    source tools/env.sh && python -m benchmarks.latency [--scene demo] [--seconds 20]

Simulated camera (640x480, 30 Hz), perception and imagination run as processes of their own. The camera runs in
real time, as a real one does; frames that perception has no time for are dropped. Rollouts of 1 s are requested through
the service while all nodes run, and once more with the camera stopped. Prints a table and
writes out/bench/latency.json.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from rich.markup import escape
from rich.table import Table

from wm_bringup.client import GraphClient
from wm_bringup.demo.capture import CAMERA_TOPICS, NAMESPACE, environment
from wm_bringup.demo.scenarios import timing_hypotheses
from wm_bringup.environment import make_console
from wm_bringup.progress import ProgressLog
from wm_bringup.report.metrics import latency_figures
from wm_bringup.report.results import machine_facts
from wm_bringup.run.node_command import node_command
from wm_bringup.run.nodes import START_S, start_nodes
from wm_bringup.run.private_graph import graph_environment
from wm_bringup.run.processes import ProcessGroup
from wm_core.rollout import ImagineRequest
from wm_core.scene_graph import SceneGraph

ROOT = Path(__file__).resolve().parent.parent
COUNTS = (1, 64, 256, 1024)
"""Numbers of futures that requests are timed with by default."""
REPEATS = 3
"""Requests of each number of futures up to 64; larger ones are made once."""
# The recorder measures the latency: it subscribes to these two topics and no images.
ONLY_STAMPS = r"^(?!/camera/color/camera_info$|/wm/scene_graph$).*$"


def time_rollouts(client: GraphClient, scene: SceneGraph, counts: tuple[int, ...]) -> dict[int, dict[str, float]]:
    """Seconds by number of futures of 1 s: in the node, and from request to answer (medians)."""
    found = {}
    for count in counts:
        request = ImagineRequest(tuple(timing_hypotheses(scene, count)), horizon_s=1.0)
        answers = [client.imagine(request, scene, timeout_s=300.0) for _ in range(REPEATS if count <= 64 else 1)]
        found[count] = {
            "round_trip_s": float(np.median([a.round_trip_s for a in answers])),
            "compute_s": float(np.median([a.compute_s for a in answers])),
        }
    return found


def measure(scene: str, seconds: float, counts: tuple[int, ...], progress: ProgressLog) -> dict[str, Any]:
    """Figures by row: camera to graph, and rollouts by number of futures."""
    environ = graph_environment()
    with (
        tempfile.TemporaryDirectory() as folder,
        environment(environ),
        ProcessGroup(Path(folder) / "logs", environ) as processes,
        GraphClient("wm_latency", NAMESPACE, processes.check) as client,
    ):
        latency = Path(folder) / "latency.json"
        with progress.stage("start the graph"):
            start_nodes(processes, namespace=NAMESPACE, parameters={"use_sim_time": True})
            client.wait_for(
                lambda: client.ready() and min(map(client.node.count_subscribers, CAMERA_TOPICS)) >= 2,
                START_S,
                "the nodes to start",
            )
            processes.start("camera", node_command("wm_sim.node", parameters={"scene": scene}))
            client.wait_for(lambda: len(client.graphs) > 5, START_S, "scene graphs")
        with progress.stage(f"watch for {seconds:g} s"):
            arguments = ["--out", str(Path(folder) / "stamps.mcap"), "--latency", str(latency)]
            arguments += ["--exclude", ONLY_STAMPS]
            processes.start("recorder", node_command("wm_bringup.recording.recorder", arguments=arguments))
            client.spin(seconds)
            processes.stop("recorder")
            stamps = json.loads(latency.read_text())["stamps"]
        perceived = client.scene(client.latest_stamp_ns)
        with progress.stage("imagine while all runs"):
            busy = time_rollouts(client, perceived, counts)
        with progress.stage("imagine with the camera stopped"):
            processes.stop("camera")
            alone = time_rollouts(client, perceived, counts)
    rows: dict[str, Any] = {"camera_to_graph": latency_figures(stamps)}
    for name, found in (("while_perceiving", busy), ("alone", alone)):
        for count, figures in found.items():
            rows[f"rollouts_{count}_{name}"] = figures
    return rows


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description="Latency of perception and of imagination on a live graph.")
    parser.add_argument("--scene", default="demo", help="of wm_sim (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=20.0, help="to watch (default: %(default)s)")
    parser.add_argument("--counts", type=int, nargs="+", default=list(COUNTS), help="numbers of futures")
    parser.add_argument("--out", type=Path, default=ROOT / "out/bench/latency.json")
    arguments = parser.parse_args()
    console = make_console()
    rows = measure(arguments.scene, arguments.seconds, tuple(arguments.counts), ProgressLog(console))
    table = Table(box=None, pad_edge=False)
    table.add_column("row")
    table.add_column("figures")
    for name, figures in rows.items():
        text = ", ".join(f"{key} {value:.4g}" for key, value in figures.items() if value is not None)
        table.add_row(escape(name), escape(text))
    console.print(table)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps({**rows, "machine": machine_facts()}, indent=1) + "\n")
    console.print(f"written: {arguments.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
