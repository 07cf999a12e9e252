"""Requests whose clients are gone end, and those of others do not: separate processes, the real graph."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import rclpy
from rclpy.executors import SingleThreadedExecutor
from std_srvs.srv import Trigger
from wm_msgs.srv import ImagineRollouts

from conftest import NodeProcess
from imagination_client import Client
from traced_scene import make_scene
from wm_core.interventions import Hypothesis
from wm_core.rollout import ImagineRequest
from wm_ros.nodes import clients
from wm_ros.nodes.clients import ClientWatch, WatchedService

pytestmark = pytest.mark.ros

CODES = ImagineRollouts.Response
SHORT = ImagineRequest((Hypothesis("factual"),), 0.1, initial_state=make_scene())


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Client, Path]]:
    """A node that works on one request at a time and lets none wait, and a client that stays."""
    folder = tmp_path_factory.mktemp("abandoned")
    command = [sys.executable, "-m", "wm_imagination.node", "--ros-args"]
    for setting in ("backend:=physics", "max_concurrent:=1", "max_waiting:=0", "default_deadline_s:=0.0"):
        command += ["-p", setting]
    process = NodeProcess(command, folder / "node.log", {**os.environ, "PYTHONUNBUFFERED": "1"})
    client = Client()
    try:
        client.spin_until(client.imagine_rollouts.service_is_ready, 30.0, "the node's services")
        yield client, folder
        assert process.alive, process.output
    finally:
        client.close()
        status = process.stop()
        print(process.output[-6000:])
    assert status == 0, "the node did not end cleanly"


def is_busy(client: Client) -> bool:
    """Whether the node works on a request: another one is refused then."""
    answer = client.ask(SHORT)
    assert answer.error_code in (CODES.OK, CODES.INTERNAL), answer.error_msg
    if answer.error_code == CODES.INTERNAL:
        assert "busy" in answer.error_msg
    return answer.error_code == CODES.INTERNAL


@pytest.mark.parametrize("how", ["service", "action"])
def test_a_request_ends_when_its_client_is_gone(graph: tuple[Client, Path], how: str) -> None:
    client, folder = graph
    before = client.counter("abandoned_requests")
    command = [sys.executable, str(Path(__file__).parents[1] / "abandoning_client.py"), how]
    abandoner = NodeProcess(command, folder / f"{how}.log", dict(os.environ))
    try:
        client.spin_until(lambda: "asked" in abandoner.output, 60.0, "the other client")
        client.spin_until(lambda: is_busy(client), 60.0, "the node to work on its request")
        # It would go on for minutes, and this client is still there.
        begin = time.monotonic()
        abandoner.stop()
        client.spin_until(lambda: not is_busy(client), 60.0, "the request to end")
        print(f"{how}: ended {time.monotonic() - begin:.1f} s after its client")
    finally:
        abandoner.stop()
    client.spin_until(lambda: client.counter("abandoned_requests") == before + 1, 20.0, "the counter")


class Server:
    """A service in this process whose callback waits until its client is gone, or until it is told to go on."""

    def __init__(self) -> None:
        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        self.node = rclpy.create_node("server", context=self.context)
        self.watch = ClientWatch(self.node, refresh_s=0.0)
        self.seen: list[Any] = []
        self.service = WatchedService(self.node, self.watch, Trigger, "ask", self.on_request)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)

    def on_request(self, request: Any, response: Any, gone: clients.Gone) -> Any:
        """Keeps the client's watch."""
        self.seen.append(gone)
        response.success = True
        return response

    def close(self) -> None:
        """End it."""
        self.service.destroy()
        self.executor.shutdown(timeout_sec=1.0)
        self.node.destroy_node()
        rclpy.try_shutdown(context=self.context)


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


def ask(server: Server, node: Any) -> Any:
    """A client of a node that was answered."""
    client = node.create_client(Trigger, "/ask")
    executor = SingleThreadedExecutor(context=node.context)
    executor.add_node(node)
    end = time.monotonic() + 20.0
    while not client.service_is_ready():
        assert time.monotonic() < end
        executor.spin_once(timeout_sec=0.05)
    future = client.call_async(Trigger.Request())
    while not future.done():
        assert time.monotonic() < end
        server.executor.spin_once(timeout_sec=0.05)
        executor.spin_once(timeout_sec=0.05)
    assert future.result().success
    executor.remove_node(node)
    return client


@pytest.mark.parametrize("exact", [True, False])
def test_who_is_gone_is_told_from_who_is_there(
    server: Server, exact: bool, wait_for: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    if exact and not server.watch._exact:
        pytest.skip("this middleware does not say whose a request is")
    read = clients.requester
    found: list[bytes | None] = []

    def requester(request_id: Any) -> bytes | None:
        found.append(read(request_id) if exact else None)
        return found[-1]

    monkeypatch.setattr(clients, "requester", requester)
    node = rclpy.create_node("asking", context=server.context)
    try:
        first, second = ask(server, node), ask(server, node)
        one, two = server.seen
        if exact:
            assert set(found) == server.watch.endpoints("/ask") and len(set(found)) == 2
        assert not one() and not two()
        node.destroy_client(first)
        wait_for(lambda: len(server.watch.endpoints("/ask")) == 1, what="the client to leave the graph")
        # Without its address, a request counts as abandoned when everybody is gone who was there when it came.
        assert one() and not two()
        node.destroy_client(second)
        wait_for(two, what="the second client's end to be noticed")
        assert one() and two(), "gone for good"
    finally:
        node.destroy_node()


def test_what_is_no_header_has_no_address() -> None:
    class Header:
        sequence_number = 1

    for odd in (Header(), object(), 5, None):
        assert clients.requester(odd) is None
