"""``wm imagine``: a request to a running imagination node, and its answer as a table."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from wm_bringup.environment import make_console
from wm_core import interventions as do
from wm_core.interventions import Hypothesis
from wm_core.rollout import POSITION, EventAnswer, EventQuestion, ImagineRequest, Rollout
from wm_core.scene_graph import EventKind, SceneGraph

MAX_EVENTS = 5
"""Shown per future."""
VISIBLE_M = 0.005
"""Objects that neither move nor are affected by this much are left out of the table."""


class ImagineError(RuntimeError):
    """The request could not be sent or was refused; says what to do."""


def words_of(text: str) -> list[str]:
    """Words of an option's value, with commas or blanks between them."""
    return text.replace(",", " ").split()


def _numbers(option: str, text: str, form: str) -> list[float]:
    words = words_of(text)
    try:
        values = [float(word) for word in words]
    except ValueError:
        values = []
    if len(values) != len(form.split()) or not all(math.isfinite(v) for v in values) or values[0] != int(values[0]):
        raise ImagineError(f"{option}: got {text!r}, expected {form}")
    return values


def hypotheses_of(
    remove: Sequence[str] = (),
    push: Sequence[str] = (),
    mass: Sequence[str] = (),
    velocity: Sequence[str] = (),
) -> tuple[Hypothesis, ...]:
    """The factual future and one hypothesis per option.

    Args:
        remove: "ID".
        push: "ID X Y Z", an impulse [N s].
        mass: "ID FACTOR".
        velocity: "ID X Y Z" [m/s].
    """
    found = [Hypothesis("as it is")]
    for text in remove:
        (object_id,) = _numbers("--remove", text, "ID")
        found.append(Hypothesis(f"without {object_id:.0f}", (do.remove(int(object_id)),)))
    for text in push:
        object_id, *impulse = _numbers("--push", text, "ID X Y Z")
        name = f"push {object_id:.0f} by ({', '.join(f'{v:g}' for v in impulse)}) N s"
        found.append(Hypothesis(name, (do.apply_impulse(int(object_id), impulse),)))
    for text in mass:
        object_id, factor = _numbers("--mass", text, "ID FACTOR")
        change = do.set_property(int(object_id), do.Property.MASS, factor, factor=True)
        found.append(Hypothesis(f"mass of {object_id:.0f} x {factor:g}", (change,)))
    for text in velocity:
        object_id, *speed = _numbers("--velocity", text, "ID X Y Z")
        name = f"{object_id:.0f} at ({', '.join(f'{v:g}' for v in speed)}) m/s"
        found.append(Hypothesis(name, (do.set_velocity(int(object_id), speed),)))
    return unique_names(found)


WHY_FORM = "EVENT ID [ID]"
_WHY_KINDS = {
    kind.name.lower(): kind
    for kind in (
        EventKind.CONTACT,
        EventKind.SEPARATION,
        EventKind.FALL,
        EventKind.TOPPLE,
        EventKind.LEAVE,
        EventKind.STOP,
    )
}


def questions_of(why: Sequence[str], hypotheses: int = 1) -> tuple[EventQuestion, ...]:
    """Which objects' removal would prevent an event, of every future.

    Args:
        why: "EVENT ID" or, of a contact or separation, "EVENT ID ID".
        hypotheses: how many futures there are.
    """
    found = []
    for text in why:
        words = words_of(text)
        kind = _WHY_KINDS.get(words[0].lower()) if words else None
        if kind is None:
            raise ImagineError(f"--why: got {text!r}, expected {WHY_FORM} with EVENT one of {', '.join(_WHY_KINDS)}")
        pair = len(words) == 3 and kind in (EventKind.CONTACT, EventKind.SEPARATION)
        ids = [_numbers("--why", word, "ID")[0] for word in words[1:]]
        if len(ids) != (2 if pair else 1):
            raise ImagineError(
                f"--why: got {text!r}, expected {WHY_FORM}, the second ID of a contact or separation only"
            )
        for k in range(hypotheses):
            found.append(EventQuestion(kind, int(ids[0]), int(ids[1]) if pair else 0, k))
    return tuple(found)


def unique_names(hypotheses: Sequence[Hypothesis]) -> tuple[Hypothesis, ...]:
    """The same with a number behind names that were given before."""
    seen: dict[str, int] = {}
    named = []
    for h in hypotheses:
        seen[h.name] = seen.get(h.name, 0) + 1
        named.append(h if seen[h.name] == 1 else Hypothesis(f"{h.name} #{seen[h.name]}", h.interventions))
    return tuple(named)


def default_hypotheses(scene: SceneGraph, most: int = 3) -> tuple[Hypothesis, ...]:
    """Hypotheses that make sense in any scene: its largest movable objects removed, and pushed away from the camera."""
    movable = [i for i in range(len(scene)) if not scene.is_static[i]]
    movable.sort(key=lambda i: -float(np.prod(scene.extents[i])))
    away = np.array([1.0, 0.0, 0.0])
    if scene.world_T_camera is not None:
        flat = np.array([*scene.world_T_camera[:2, 2], 0.0])
        away = flat / np.linalg.norm(flat) if np.linalg.norm(flat) > 1e-6 else away
    found = [Hypothesis("as it is")]
    for i in movable[:most]:
        object_id = int(scene.ids[i])
        found.append(Hypothesis(f"without {object_id}", (do.remove(object_id),)))
        # 0.5 m/s, whatever it weighs.
        impulse = (0.5 * float(scene.masses[i]) * away).tolist()
        found.append(Hypothesis(f"push {object_id} away", (do.apply_impulse(object_id, impulse),)))
    return tuple(found)


@dataclass(frozen=True)
class Answer:
    """The answer to a request.

    Attributes:
        scene: scene graph that the futures start from.
        rollout: as arrays.
        compute_s: wall-clock time in the node [s].
        round_trip_s: wall-clock time from sending the request to the answer [s].
    """

    scene: SceneGraph
    rollout: Rollout
    compute_s: float
    round_trip_s: float


class ImagineClient:
    """Client of the services of an imagination node. A context manager with a ROS context of its own."""

    def __init__(self, namespace: str = "wm") -> None:
        self.namespace = f"/{namespace.strip('/')}"

    def __enter__(self) -> ImagineClient:
        import rclpy
        from rclpy.executors import SingleThreadedExecutor
        from rclpy.node import Node
        from rclpy.signals import SignalHandlerOptions
        from wm_msgs.srv import GetSceneGraph, ImagineRollouts

        self._rclpy = rclpy
        self._context = rclpy.Context()
        rclpy.init(context=self._context, signal_handler_options=SignalHandlerOptions.NO)
        self._node = Node("wm_imagine", context=self._context, start_parameter_services=False)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        self._graph = self._node.create_client(GetSceneGraph, f"{self.namespace}/get_scene_graph")
        self._imagine = self._node.create_client(ImagineRollouts, f"{self.namespace}/imagine_rollouts")
        return self

    def __exit__(self, *details: Any) -> None:
        self._executor.shutdown(timeout_sec=1.0)
        self._node.destroy_node()
        self._rclpy.try_shutdown(context=self._context)

    def _call(self, client: Any, request: Any, timeout_s: float) -> Any:
        if not client.wait_for_service(timeout_sec=min(timeout_s, 5.0)):
            raise ImagineError(
                f"no service {client.srv_name} in this domain; start the graph (wm run), "
                "and use the same ROS_DOMAIN_ID and --namespace"
            )
        future = client.call_async(request)
        self._executor.spin_until_future_complete(future, timeout_sec=timeout_s)
        if not future.done():
            raise ImagineError(
                f"no answer from {client.srv_name} in {timeout_s:g} s; see the node's log, or raise --timeout"
            )
        return future.result()

    def scene(self, timeout_s: float = 10.0) -> SceneGraph:
        """The node's latest scene graph."""
        from wm_msgs.srv import GetSceneGraph

        from wm_ros.conversions.scene_graph import scene_graph_from_msg

        response = self._call(self._graph, GetSceneGraph.Request(), timeout_s)
        if response.error_code != GetSceneGraph.Response.OK:
            raise ImagineError(response.error_msg)
        return scene_graph_from_msg(response.scene_graph)

    def imagine(self, request: ImagineRequest, scene: SceneGraph, timeout_s: float = 60.0) -> Answer:
        """Futures from ``scene``."""
        from wm_msgs.srv import ImagineRollouts

        from wm_ros.conversions.requests import request_to_msg
        from wm_ros.conversions.rollout import rollout_from_msg
        from wm_ros.conversions.scene_graph import scene_graph_to_msg

        message = request_to_msg(request)
        # The scene graph that the hypotheses were chosen from, not a newer one.
        message.initial_state = scene_graph_to_msg(scene)
        begin = time.monotonic()
        response = self._call(self._imagine, ImagineRollouts.Request(request=message), timeout_s)
        seconds = time.monotonic() - begin
        if response.error_code != ImagineRollouts.Response.OK:
            raise ImagineError(response.error_msg)
        rollout = rollout_from_msg(response.rollout, request.pairs, request.questions)
        return Answer(scene, rollout, float(response.compute_time), seconds)


def _name(scene: SceneGraph, object_id: int) -> str:
    if object_id in scene.ids:
        return f"{object_id} {scene.class_names[scene.index(object_id)]}"
    return f"{object_id} pusher"


def not_valid(rollout: Rollout, k: int) -> str:
    """Why a future must not be used; empty: it may."""
    if len(rollout.valid) != len(rollout.hypotheses) or rollout.valid[k]:
        return ""
    return rollout.invalid_reasons[k] if k < len(rollout.invalid_reasons) else "no reason given"


def print_answer(answer: Answer, console: Any = None) -> None:
    """Effect, end and uncertainty of each object in each future, and the events on the way."""
    from rich.markup import escape
    from rich.table import Table

    console = console or make_console()
    rollout, scene = answer.rollout, answer.scene
    horizon = float(rollout.times[-1]) if len(rollout.times) else 0.0
    table = Table(box=None, pad_edge=False, title=f"in {horizon:g} s", title_justify="left")
    for heading in ("future", "object", "effect [m]", "ends at x y z [m]", "moved [m]", "± [m]"):
        table.add_column(escape(heading), justify="left" if heading in ("future", "object") else "right")
    for k, name in enumerate(rollout.hypotheses):
        shown, quiet = escape(name), 0
        reason = not_valid(rollout, k)
        if reason:
            table.add_row(f"[red]{shown}[/]", "[red]not valid[/]", "", "", "", "")
            continue
        for n, object_id in enumerate(rollout.object_ids.tolist()):
            if object_id in scene.ids and scene.is_static[scene.index(object_id)]:
                continue
            there = np.flatnonzero(rollout.present[k, :, n])
            effect = float(rollout.effect[k, n]) if rollout.effect.size else math.nan
            strong = f"[bold]{effect:.3f}[/]" if effect > VISIBLE_M else "-" if math.isnan(effect) else f"{effect:.3f}"
            if not len(there):
                table.add_row(shown, escape(_name(scene, object_id)), strong, "not there", "", "")
                shown = ""
                continue
            first, last = rollout.states[k, 0, there[0], n, POSITION], rollout.states[k, :, there[-1], n, POSITION]
            end = last.mean(axis=0)
            moved = float(np.linalg.norm(end - first))
            if moved < VISIBLE_M and not effect > VISIBLE_M:
                quiet += 1
                continue
            gone = "" if there[-1] == len(rollout.times) - 1 else " (then gone)"
            place = " ".join(f"{v:+.3f}" for v in end) + gone
            spread = f"{rollout.position_std[k, there[-1], n]:.3f}"
            table.add_row(shown, escape(_name(scene, object_id)), strong, place, f"{moved:.3f}", spread)
            shown = ""
        if quiet:
            table.add_row(shown, f"[dim]{quiet} at rest and unaffected[/]", "", "", "", "")
    console.print(table)
    for k, name in enumerate(rollout.hypotheses):
        reason = not_valid(rollout, k)
        if reason:
            console.print(f"\n[red]{escape(name)} is not valid[/]: {escape(reason)}")
            continue
        events = [e for e in rollout.events if e.sample == 0 and e.hypothesis == k]
        if events:
            console.print(f"\n{escape(name)}")
        for e in events[:MAX_EVENTS]:
            second = f" and {_name(scene, e.b)}" if e.b else ""
            console.print(escape(f"  {e.time_s:5.2f} s  {e.kind.name.lower()}: {_name(scene, e.a)}{second}"))
        if len(events) > MAX_EVENTS:
            console.print(f"           and {len(events) - MAX_EVENTS} more")
    if rollout.warnings:
        console.print()
    for warning in rollout.warnings:
        console.print(f"[yellow]{escape(warning)}[/]")
    complete = "" if rollout.complete else "; the deadline came first, not all is computed"
    console.print(
        f"\n{len(rollout.hypotheses)} futures x {rollout.states.shape[1]} samples by {rollout.backend}: "
        f"{1e3 * answer.compute_s:.0f} ms in the node, {1e3 * answer.round_trip_s:.0f} ms from here{complete}"
    )


def print_reasons(answer: Answer, console: Any = None) -> None:
    """Of each event of the request: its probability, and the objects without which it would not happen."""
    from rich.markup import escape
    from rich.table import Table

    console = console or make_console()
    rollout, scene = answer.rollout, answer.scene
    for reasons in rollout.answers:
        event = reasons.question
        what = f"{event.kind.name.lower()} of {_name(scene, event.a)}"
        what += f" and {_name(scene, event.b)}" if event.b else ""
        future = escape(rollout.hypotheses[event.hypothesis])
        if math.isnan(reasons.probability):
            why = not_valid(rollout, event.hypothesis) or "not computed in time"
            console.print(f"{what}, {future}: not answered: {escape(why)}")
            continue
        console.print(f"{what}, {future}: {reasons.probability:.0%} of {rollout.states.shape[1]} samples")
        if reasons.probability == 0.0:
            continue
        table = Table(box=None, pad_edge=False)
        for heading in ("without", "it happens in", "prevented in"):
            table.add_column(heading, justify="left" if heading == "without" else "right")
        shown = _shown_reasons(reasons)
        for c in shown:
            name = _name(scene, int(reasons.object_ids[c]))
            table.add_row(escape(name), f"{reasons.probability_without[c]:.0%}", f"{reasons.prevented[c]:.0%}")
        if len(shown):
            console.print(table)
        if len(shown) < len(reasons.object_ids):
            console.print(f"[dim]{len(reasons.object_ids) - len(shown)} other objects would not have prevented it[/]")


def _shown_reasons(reasons: EventAnswer) -> list[int]:
    """Rows of the objects whose removal prevents the event in some sample."""
    return [c for c in range(len(reasons.object_ids)) if reasons.prevented[c] > 0.0]


def imagine(
    hypotheses: tuple[Hypothesis, ...] | None,
    *,
    why: Sequence[str] = (),
    horizon_s: float = 2.0,
    samples: int = 1,
    backend: str = "auto",
    seed: int = 0,
    namespace: str = "wm",
    timeout_s: float = 60.0,
) -> Answer:
    """Futures from a running graph.

    ``hypotheses`` None: ``default_hypotheses`` of its scene graph, or with ``why`` the factual one alone.

    Raises:
        ImagineError: no node answers, or the request was refused.
    """
    with ImagineClient(namespace) as client:
        scene = client.scene(min(timeout_s, 10.0))
        if hypotheses is None:
            hypotheses = (Hypothesis("as it is"),) if why else default_hypotheses(scene)
        request = ImagineRequest(
            hypotheses,
            questions=questions_of(why, len(hypotheses)),
            horizon_s=horizon_s,
            samples=samples,
            backend=backend,
            seed=seed,
        )
        return client.imagine(request, scene, timeout_s)
