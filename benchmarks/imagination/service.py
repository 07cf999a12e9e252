"""1024 futures through the ROS service: from a client's request to its arrays, a node in a process of its own.

Two requests: ``planner`` (the pushes as one batch of arrays, final states only, no events) and ``full`` (each push as a
hypothesis of its own, states at 30 Hz, events).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.imagination.speed import HORIZON_S, PUSHER, hypotheses, make_scene, push_paths
from wm_core.interventions import ActionBatch, InterventionKind
from wm_core.rollout import ImagineRequest, StatesWanted

HYPOTHESES = 1024
"""Hypotheses of a request: the number in the figures ``service_1024_s`` and ``service_1024_full_s``."""
REQUESTS = ("planner", "full")
_WAIT_S = 60.0
"""For the node to start: it loads its models and compiles its kernels."""
_ANSWER_S = 240.0
"""For one answer; after this it counts as missing."""


def available() -> bool:
    """Whether there is a ROS here (``source tools/env.sh``)."""
    import importlib.util

    return all(importlib.util.find_spec(name) is not None for name in ("rclpy", "wm_msgs"))


def make_request(kind: str, backend: str, count: int) -> ImagineRequest:
    """1 s of ``count`` pushes into eight objects, those of ``benchmarks.imagination.speed``; kind: of ``REQUESTS``."""
    if kind == "full":
        return ImagineRequest(hypotheses("planner", count), HORIZON_S, backend=backend, initial_state=make_scene())
    pushes = ActionBatch(
        InterventionKind.FOLLOW_PATH,
        np.stack(push_paths(count), axis=1),
        np.array([0.0, HORIZON_S]),
        body=PUSHER,
        name="push",
    )
    return ImagineRequest(
        (),
        HORIZON_S,
        backend=backend,
        initial_state=make_scene(),
        batches=(pushes,),
        want_states=StatesWanted.FINAL,
        want_events=False,
    )


def measure(
    backends: tuple[str, ...],
    repeats: int,
    log: Path,
    count: int = HYPOTHESES,
    on_row: Callable[[str], None] | None = None,
) -> dict[str, dict[str, float | None]]:
    """Shortest seconds by backend and request; None where the node refused (its message is printed).

    Raises:
        RuntimeError: the node did not offer its service.
    """
    import rclpy
    from wm_msgs.srv import ImagineRollouts

    from wm_ros.conversions.requests import request_to_msg
    from wm_ros.conversions.rollout import rollout_from_msg

    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    os.environ["ROS_DOMAIN_ID"] = str(1 + os.getpid() % 100)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "wm_imagination.node"],
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    rclpy.init()
    node = rclpy.create_node("imagination_benchmark", namespace="wm")
    result: dict[str, dict[str, float | None]] = {}
    try:
        client = node.create_client(ImagineRollouts, "imagine_rollouts")
        if not client.wait_for_service(_WAIT_S):
            raise RuntimeError(f"the node did not offer its service within {_WAIT_S:g} s (see {log})")

        def call(request: ImagineRequest) -> Any:
            future = client.call_async(ImagineRollouts.Request(request=request_to_msg(request)))
            rclpy.spin_until_future_complete(node, future, timeout_sec=_ANSWER_S)
            answer = future.result()
            if answer is None or answer.error_code:
                raise RuntimeError(f"service: {answer.error_msg if answer else f'no answer within {_ANSWER_S:g} s'}")
            return rollout_from_msg(answer.rollout)

        for backend in backends:
            rows: dict[str, float | None] = dict.fromkeys(REQUESTS)
            for kind in REQUESTS:
                durations: list[float] = []
                try:
                    for _ in range(repeats + 1):
                        request = make_request(kind, backend, count)
                        begin = time.perf_counter()
                        answer = call(request)
                        durations.append(time.perf_counter() - begin)
                        if not answer.complete:
                            raise RuntimeError("the answer is not complete")
                        if durations[-1] > 5.0:
                            break
                except RuntimeError as error:
                    print(f"service, {backend}, {kind}: {error}", file=sys.stderr)
                if durations:
                    rows[kind] = min(durations[1:] or durations)
                if on_row is not None:
                    on_row(f"service, {backend}, {kind.replace('_', ' ')}")
            result[backend] = rows
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
        os.killpg(process.pid, signal.SIGINT)
        try:
            process.wait(10.0)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
    return result
