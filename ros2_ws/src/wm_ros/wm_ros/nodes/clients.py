"""Services and actions whose handlers can find out that their client is gone.

ROS does not notify a server when a client ends while it waits. But the endpoint on which the client reads answers
disappears from the graph: at once when its process or node ends in order, and after the middleware's lease (20 s with
Fast DDS's defaults) when it is killed or disconnected. A client that only stopped waiting cannot be distinguished from
one that waits; it can cancel an action, and a deadline ends other requests.

The header of a request names the client's endpoint; rclpy exposes only its sequence number. The endpoint is read from
the memory of rclpy's object, after a check of its layout. Where that fails, or with another middleware than Fast DDS, a
request counts as abandoned when all clients are gone that the service had when the request came.
"""

from __future__ import annotations

import ctypes
import math
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from rclpy.action import ActionServer
from rclpy.callback_groups import CallbackGroup
from rclpy.exceptions import InvalidHandle
from rclpy.impl.implementation_singleton import rclpy_implementation as _rclpy
from rclpy.node import Node
from rclpy.qos import QoSProfile, qos_profile_services_default
from rclpy.type_support import check_for_type_support
from rclpy.utilities import get_rmw_implementation_identifier
from rclpy.waitable import NumberOfEntities, Waitable

Gone = Callable[[], bool]
"""Whether a client is gone; once true it stays true."""

REFRESH_S = 0.5
"""Least time between queries of the graph [s], as a request checks after every step of its work."""
_GID_BYTES = 16
"""Bytes of an endpoint's id (a DDS GUID) that are compared."""
_HEADER_BYTES = _GID_BYTES + 8
"""Bytes of a request's id: the client's, then a sequence number of 64 bits."""
# pybind11's instance of one C++ object: the object's head, pointers to value and holder (two words), to weak
# references, and flags.
_INSTANCE_WORDS = 5
_KEPT_GOALS = 256
"""Goals whose clients are remembered until they are executed; beyond, the oldest are dropped."""


class AbandonedError(RuntimeError):
    """The client of a request is gone, so nobody waits for the answer."""


def requester(request_id: Any) -> bytes | None:
    """The GUID (16 bytes) in a request's header (``rmw_request_id_t``); None where it cannot be read for sure."""
    word = ctypes.sizeof(ctypes.c_void_p)
    if sys.implementation.name != "cpython" or type(request_id).__module__.partition(".")[0] not in ("rclpy", "_rclpy"):
        return None
    if type(request_id).__basicsize__ != object.__basicsize__ + _INSTANCE_WORDS * word:
        return None
    address = ctypes.c_void_p.from_address(id(request_id) + object.__basicsize__).value
    if not address or address % word:
        return None
    raw = ctypes.string_at(address, _HEADER_BYTES)
    if int.from_bytes(raw[_GID_BYTES:], sys.byteorder, signed=True) != request_id.sequence_number:
        return None
    return raw[:_GID_BYTES]


class ClientWatch:
    """Follows the clients of a node's services in the graph. Thread-safe.

    Args:
        node: of which the view of the graph is used.
        refresh_s: see ``REFRESH_S``.
    """

    def __init__(self, node: Node, refresh_s: float = REFRESH_S) -> None:
        self._node, self._refresh_s = node, refresh_s
        self._exact = get_rmw_implementation_identifier().startswith("rmw_fastrtps")
        self._lock = threading.Lock()
        self._seen: dict[str, tuple[float, frozenset[bytes]]] = {}

    def endpoints(self, service: str, fresh: bool = False) -> frozenset[bytes]:
        """The GUIDs of the endpoints on which clients of a service (its full name) read answers.

        ``fresh``: query now, whatever the age of the last query.
        """
        with self._lock:
            at, found = self._seen.get(service, (-math.inf, frozenset()))
            if fresh or time.monotonic() - at >= self._refresh_s:
                infos = self._node.get_subscriptions_info_by_topic(f"rr{service}Reply", no_mangle=True)
                found = frozenset(bytes(info.endpoint_gid)[:_GID_BYTES] for info in infos)
                self._seen[service] = (time.monotonic(), found)
            return found

    def client(self, service: str, request_id: Any) -> Gone:
        """A function that returns whether the client that sent a request is gone.

        Args:
            service: full name. request_id: the header's ``rmw_request_id_t``.
        """
        guid = requester(request_id) if self._exact else None
        # A client may leave right after its request; one that was never seen cannot be said to have left.
        try:
            there = self.endpoints(service, fresh=True)
        except (InvalidHandle, _rclpy.RCLError):  # the node is shutting down
            return lambda: False
        awaited = frozenset((guid,)) if guid is not None else there
        here = bool(awaited & there)
        over = False

        def gone() -> bool:
            nonlocal here, over
            if over or not awaited:
                return over
            try:
                present = bool(awaited & self.endpoints(service))
            except (InvalidHandle, _rclpy.RCLError):  # the node is shutting down, which is reported elsewhere
                return over
            over = here and not present
            here = here or present
            return over

        return gone


class WatchedService(Waitable):  # type: ignore[type-arg]  # Jazzy's takes no argument
    """A service whose callback also learns whether its client is gone.

    Args:
        node: of the service. kind: service type. name: relative or full.
        callback: (request, response, gone) -> response; it runs in the executor's threads.
        callback_group: None: the node's default one.
    """

    def __init__(
        self,
        node: Node,
        watch: ClientWatch,
        kind: Any,
        name: str,
        callback: Callable[[Any, Any, Gone], Any],
        callback_group: CallbackGroup | None = None,
        qos_profile: QoSProfile = qos_profile_services_default,
    ) -> None:
        super().__init__(callback_group or node.default_callback_group)
        self.srv_name = node.resolve_service_name(name)
        self._node, self._watch, self._kind, self._callback = node, watch, kind, callback
        self._index: int | None = None
        check_for_type_support(kind)
        with node.handle:
            self._handle: Any = _rclpy.Service(node.handle, kind, self.srv_name, qos_profile.get_c_qos_profile())
        node.add_waitable(self)

    def destroy(self) -> None:
        """Remove the service; a running callback ends, and its answer is not sent."""
        self._node.remove_waitable(self)
        self._handle.destroy_when_not_in_use()

    # The interface of a Waitable.

    def __enter__(self) -> None:
        self._handle.__enter__()

    def __exit__(self, kind: Any, value: Any, trace: Any) -> None:
        self._handle.__exit__(kind, value, trace)

    def get_num_entities(self) -> NumberOfEntities:
        """One service."""
        return NumberOfEntities(num_services=1)

    def add_to_wait_set(self, wait_set: Any) -> None:
        """As rclpy's own services."""
        self._index = wait_set.add_service(self._handle)

    def is_ready(self, wait_set: Any) -> bool:
        """Whether a request came."""
        return self._index is not None and bool(wait_set.is_ready("service", self._index))

    def take_data(self) -> Any:
        """The request and its header, or None."""
        try:
            with self._handle:
                return self._handle.service_take_request(self._kind.Request)
        except InvalidHandle:
            return None

    async def execute(self, taken_data: Any) -> None:
        """Answer a request."""
        request, header = taken_data or (None, None)
        if header is None:
            return
        request_id = getattr(header, "request_id", header)
        gone = self._watch.client(self.srv_name, request_id)
        response = self._callback(request, self._kind.Response(), gone)
        try:
            with self._handle:
                self._handle.service_send_response(response, request_id)
        except (InvalidHandle, _rclpy.RCLError) as error:
            self._node.get_logger().info(f"{self.srv_name}: the answer could not be sent: {error}")


class WatchedActionServer(ActionServer):  # type: ignore[type-arg]
    """An action server that can find out whether the clients of its goals are gone.

    Args:
        arguments, named: of ``rclpy.action.ActionServer``.
    """

    def __init__(self, node: Node, watch: ClientWatch, action_type: Any, action_name: str, **named: Any) -> None:
        self._watch = watch
        self._goal_service = f"{node.resolve_service_name(action_name)}/_action/send_goal"
        self._gone: OrderedDict[bytes, Gone] = OrderedDict()
        super().__init__(node, action_type, action_name, **named)

    def take_data(self) -> Any:
        """As the base class, and remembers who sent a goal."""
        taken = super().take_data()
        header, goal = taken.get("goal", (None, None))
        if header is not None and goal is not None:
            self._gone[bytes(goal.goal_id.uuid)] = self._watch.client(
                self._goal_service, getattr(header, "request_id", header)
            )
            while len(self._gone) > _KEPT_GOALS:  # of goals that were never executed
                self._gone.popitem(last=False)
        return taken

    def client_gone(self, goal_handle: Any) -> Gone:
        """Whether the client of a goal is gone; to be fetched once, when the goal is executed."""
        return self._gone.pop(bytes(goal_handle.goal_id.uuid), lambda: False)


__all__ = ["AbandonedError", "ClientWatch", "Gone", "WatchedActionServer", "WatchedService", "requester"]
