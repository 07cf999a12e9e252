"""The imagination node: scene graphs and camera images in, answers to what-if questions out.

It keeps the newest graph and reports the backend; ``ros.appearance_input`` integrates camera frames,
``ros.request_server`` answers requests, ``ros.imagined_topics`` publishes images, points and markers for people.
"""

from __future__ import annotations

if __name__ == "__main__":
    from wm_ros.nodes.startup import end_quietly

    end_quietly()

import sys
import time
from typing import Any

import numpy as np
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup, ReentrantCallbackGroup
from wm_msgs.msg import SceneGraph as SceneGraphMsg

from wm_core.health.findings import Finding
from wm_core.health.graph import check_scene_graph
from wm_core.scene_graph import SceneGraph
from wm_imagination.engine import BackendUnavailableError, Imagination
from wm_imagination.parameters import THREADS, ImaginationParameters
from wm_imagination.ros.appearance_input import STALE_S, AppearanceInput
from wm_imagination.ros.imagined_topics import ImaginedTopics
from wm_imagination.ros.request_server import RequestServer
from wm_ros import qos
from wm_ros.conversions.scene_graph import scene_graph_from_msg
from wm_ros.health.diagnostics import Level, RateMonitor
from wm_ros.health.inputs import InputHealth
from wm_ros.nodes.lifecycle import ManagedNode, guarded
from wm_ros.nodes.memory import Trimmer, share_arenas
from wm_ros.nodes.running import run_node

_SILENT_S = 5.0
"""Age of the newest scene graph from which on diagnostics warn: perception publishes several a second."""


class ImaginationNode(ManagedNode):
    """Lifecycle node ``imagination`` in the namespace ``wm``.

    Services: imagine_rollouts, get_scene_graph. Action: imagine. Publishes imagined/image (frames as they are
    drawn), imagined/points (the last imagined end state) and imagined/markers (paths), each only while
    somebody subscribes. Subscribes scene_graph, instances, and the camera topics in its parameters with
    sensor QoS.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("imagination", parameters=ImaginationParameters, on_parameters=self._on_parameters, **kwargs)
        self._imagination = Imagination()
        self._scene: SceneGraph | None = None
        self._first_graph_s = np.inf
        self._input_group = MutuallyExclusiveCallbackGroup()
        self._graph_input: Any = None
        self._health = InputHealth(self)
        self._appearance = AppearanceInput(self, self._health, self._input_group)
        self._imagined = ImaginedTopics(self)
        self._requests = RequestServer(
            self,
            ReentrantCallbackGroup(),
            lambda: self._imagination,
            lambda: self._scene,
            self._appearance,
            self._imagined,
        )
        self._trimmer = Trimmer()

    # Lifecycle.

    def configure(self) -> None:
        """Make the backend and the publishers."""
        self._imagination = self._make_imagination(self.params)
        self._check_backend(self.params)
        self._appearance.forget()
        self._imagined.open()

    def activate(self) -> None:
        """Subscribe, offer the services and the action, start to learn appearance."""
        p: ImaginationParameters = self.params
        self._scene, self._first_graph_s = None, np.inf
        self._health.clear()
        self._graph_input = self.create_subscription(
            SceneGraphMsg, "scene_graph", self._on_scene_graph, qos.SCENE_GRAPH, callback_group=self._input_group
        )
        self._health.listen(
            "scene_graph", "scene graphs", "scene_graph", SceneGraphMsg, wanted=qos.SCENE_GRAPH, silent_s=STALE_S
        )
        self._graph_rate()
        self._appearance.start(p)
        self._requests.open(p.max_concurrent)

    def deactivate(self) -> None:
        """End the running requests, withdraw the services, unsubscribe."""
        self._requests.close()
        if self._graph_input is not None:
            self.destroy_subscription(self._graph_input)
        self._graph_input = None
        self._appearance.stop()
        self.diagnostics.clear_rates()

    def cleanup(self) -> None:
        """Forget what was seen, give back the publishers."""
        self._imagined.close()
        self._imagination.close()
        self._appearance.memory.reset()
        self._scene = None

    @staticmethod
    def _make_imagination(value: ImaginationParameters) -> Imagination:
        options: dict[str, object] = {"model": value.dynamics_model} if value.dynamics_model else {}
        return Imagination(value.limits, value.backend, {"learned": options})

    def _check_backend(self, value: ImaginationParameters) -> None:
        """Make the backend that requests will get, and report it.

        Raises:
            BackendUnavailableError: it, or the model that was named for it, does not load.
        """
        try:
            if value.dynamics_model:
                # A file that was named and does not load is a mistake, also where auto could do without.
                self._imagination.dynamics("learned")
            dynamics = self._imagination.dynamics()
            name, engine = dynamics.name, str(getattr(dynamics, "engine", ""))
        except (BackendUnavailableError, ValueError) as error:
            self.diagnostics.set_status("backend", Level.ERROR, f"{value.backend}: {error}", asked=value.backend)
            raise
        if value.backend != "auto":
            why = "as configured"
        elif name == "learned":
            why = "auto: physics for the futures that it is unsure of"
        else:
            why = "auto: the learned dynamics does not load, see the log"
        self.diagnostics.set_status(
            "backend",
            Level.OK,
            f"{name} ({why})",
            asked=value.backend,
            model=value.dynamics_model or "shipped",
            engine=engine,
        )
        self.get_logger().info(f"dynamics backend {name} ({why}){f', engine {engine}' if engine else ''}")

    def _on_parameters(self, value: ImaginationParameters) -> None:
        if value.backend == self._imagination.default_backend:
            self._imagination.limits = value.limits
            return
        # Requests that are being worked on keep the old one, and its threads end with the last of them.
        self._imagination = self._make_imagination(value)
        try:
            self._check_backend(value)
        except BackendUnavailableError as error:
            self.get_logger().error(f"backend {value.backend}: {error}; requests that do not name another are refused")

    # The scene graph.

    def _graph_rate(self) -> RateMonitor:
        advice = "is the perception node running? (ros2 topic hz scene_graph)"
        return self.diagnostics.rate("scene graph", max_age_s=_SILENT_S, advice=advice)

    @guarded
    def _on_scene_graph(self, msg: SceneGraphMsg) -> None:
        try:
            scene = scene_graph_from_msg(msg)
        except ValueError as error:
            self.warn("bad_scene_graph", f"scene_graph: {error}", "the last good one stays")
            return
        self._graph_rate().tick()
        self._health.arrived("scene_graph", scene.stamp_ns)
        self._first_graph_s = min(self._first_graph_s, time.monotonic())
        self._scene = scene
        self._appearance.add_scene(scene)

    # Diagnostics.

    def before_diagnostics(self) -> None:
        """Give memory back to the system, report what appearance is known."""
        self._trimmer.trim()
        if self.is_active and self.params.appearance_rate_hz > 0.0:
            self._appearance.diagnose(self._scene is not None)

    def input_findings(self) -> list[Finding]:
        """The scene graph, the clock, and why no appearance is learned."""
        streams = {s.name: s for s in self._health.streams()}
        graph = check_scene_graph(streams["scene_graph"])
        # check_scene_graph has the finding about the graph's stream; of the others its clock is left.
        findings = [f for f in self._health.findings(("scene_graph",)) if not f.cause.endswith(".scene_graph")]
        findings += [graph] if graph is not None else []
        if time.monotonic() - self._first_graph_s >= STALE_S:
            findings += self._appearance.findings(streams)
        return list({f.cause: f for f in findings}.values())


def main() -> None:
    """Run the node until SIGINT or SIGTERM."""
    share_arenas()
    sys.exit(run_node(ImaginationNode, threads=THREADS))


if __name__ == "__main__":
    main()
