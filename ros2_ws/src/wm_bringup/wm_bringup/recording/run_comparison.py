"""``wm compare A B``: compares the recorded scene graphs of two runs.

It reports the first frame, object and field that differ, the amount, and the largest difference of each field.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from wm_bringup.recording.mcap_file import McapFile, McapFileError

GRAPH_TYPE = "wm_msgs/msg/SceneGraph"
"""Message type of the scene graphs in a recording."""
_PREFERRED = ("scene_graphs.mcap", "run.mcap", "demo.mcap")
"""Files of ``wm replay``, ``wm run --out`` and ``wm demo``, in the order of preference in a folder."""
_MISSING = "-"
"""Text for a value that one of the runs does not have."""


class CompareError(ValueError):
    """Two recordings cannot be compared; the message names the file."""


@dataclass(frozen=True)
class Difference:
    """One field that differs.

    Attributes:
        frame: index of the frame among those of both runs, ordered by stamp.
        stamp_ns: stamp of the frame [ns].
        where: the part of the graph: "object 4 (mug)", "relation 4 ON 1", "event 7 FALL", "graph".
        name: path of the field in the message.
        values: the values in A and B.
        amount: absolute difference, in the field's unit; None where there is none (text, absence).
    """

    frame: int
    stamp_ns: int
    where: str
    name: str
    values: tuple[Any, Any]
    amount: float | None = None

    def text(self) -> str:
        """The difference in one line."""
        by = f", by {self.amount:.3g}" if self.amount is not None else ""
        a, b = (f"{v:.9g}" if isinstance(v, float) else str(v) for v in self.values)
        return f"frame {self.frame} (stamp {self.stamp_ns * 1e-9:.6f} s), {self.where}, {self.name}: {a} and {b}{by}"


@dataclass
class Comparison:
    """The comparison of two runs.

    Attributes:
        counts: number of scene graphs in A and in B.
        common: number of stamps that both runs have.
        identical_bytes: number of common stamps with equal serialized messages. The middleware does not initialize
            padding bytes, so messages with equal fields may have unequal bytes.
        first: the first difference; None: there is none.
        frames: number of frames that differ.
        fields: number of frames that differ, and the largest amount, by the field's path.
    """

    counts: tuple[int, int]
    common: int = 0
    identical_bytes: int = 0
    first: Difference | None = None
    frames: int = 0
    fields: dict[str, tuple[int, float | None]] = field(default_factory=dict)

    @property
    def identical(self) -> bool:
        """Whether no field of any frame differs."""
        return self.first is None

    def add(self, differences: Sequence[Difference]) -> None:
        """Add the differences of one frame; none: the frame is equal."""
        if not differences:
            return
        self.frames += 1
        self.first = self.first or differences[0]
        largest: dict[str, float | None] = {}
        for d in differences:
            before = largest.get(d.name)
            largest[d.name] = d.amount if before is None else max(before, d.amount or 0.0)
        for name, amount in largest.items():
            count, before = self.fields.get(name, (0, None))
            self.fields[name] = (count + 1, amount if before is None else max(before, amount or 0.0))

    def as_json(self) -> str:
        """The comparison as JSON, for programs."""
        first = None
        if self.first is not None:
            f = self.first
            first = {
                "frame": f.frame,
                "stamp_ns": f.stamp_ns,
                "where": f.where,
                "field": f.name,
                "a": str(f.values[0]),
                "b": str(f.values[1]),
                "by": f.amount,
            }
        facts = {
            "identical": self.identical,
            "scene_graphs": list(self.counts),
            "common_stamps": self.common,
            "identical_bytes": self.identical_bytes,
            "frames_that_differ": self.frames,
            "first": first,
            "fields": {name: {"frames": n, "largest": v} for name, (n, v) in self.fields.items()},
        }
        return json.dumps(facts, indent=1)


def find_recording(path: Path) -> Path:
    """The MCAP file of a run: ``path`` itself, or the file in this folder.

    Raises:
        CompareError: there is no file, or several and none of the preferred names.
    """
    if not path.exists():
        raise CompareError(f"{path}: no such file or folder")
    if path.is_file():
        return path
    for name in _PREFERRED:
        if (path / name).is_file():
            return path / name
    files = sorted(path.glob("*.mcap"))
    if len(files) != 1:
        found = ", ".join(f.name for f in files) or "none"
        raise CompareError(f"{path}: expected one MCAP file, or {' or '.join(_PREFERRED)}; found {found}")
    return files[0]


def _graphs(path: Path, topic: str) -> tuple[dict[tuple[int, int], bytes], str]:
    """Serialized scene graphs by stamp [ns] and number of earlier graphs of that stamp; and a warning, or ""."""
    from rclpy.serialization import deserialize_message
    from wm_msgs.msg import SceneGraph

    from wm_ros.stamps import stamp_to_ns

    found: dict[tuple[int, int], bytes] = {}
    seen: dict[int, int] = {}
    try:
        with McapFile(path) as file:
            graphs = [t.name for t in file.topics.values() if t.type == GRAPH_TYPE]
            if topic not in graphs:
                listed = ", ".join(graphs) or "none of that type"
                raise CompareError(f"{path}: no scene graphs on {topic}; it has {listed} (--topic)")
            for message in file.messages([topic]):
                stamp_ns = stamp_to_ns(deserialize_message(message.data, SceneGraph).header.stamp)
                again = seen.get(stamp_ns, 0)
                seen[stamp_ns] = again + 1
                found[stamp_ns, again] = message.data
            return found, file.warning
    except (McapFileError, OSError) as error:
        raise CompareError(str(error)) from error


def compare(a: Path, b: Path, topic: str = "/wm/scene_graph", tolerance: float = 0.0) -> tuple[Comparison, list[str]]:
    """Compare the scene graphs of two runs stamp by stamp; returns the comparison, and warnings on the files.

    Args:
        a, b: MCAP files, or folders of ``wm replay``, ``wm run --out`` or ``wm demo``.
        topic: topic of the scene graphs in both files.
        tolerance: largest absolute difference of equal numbers, in the field's unit; 0: all bits must be equal.

    Raises:
        CompareError: a file cannot be read or has no scene graphs.
    """
    from rclpy.serialization import deserialize_message
    from wm_msgs.msg import SceneGraph

    (left, warning_a), (right, warning_b) = (_graphs(find_recording(path), topic) for path in (a, b))
    if not left and not right:
        raise CompareError(f"{a} and {b}: no scene graph in either on {topic}")
    result = Comparison((len(left), len(right)))
    for frame, key in enumerate(sorted(left.keys() | right.keys())):
        one, other = left.get(key), right.get(key)
        if one is None or other is None:
            values = tuple("there" if data is not None else _MISSING for data in (one, other))
            result.add([Difference(frame, key[0], "graph", "frame", values)])  # type: ignore[arg-type]
            continue
        result.common += 1
        if one == other:
            result.identical_bytes += 1
            continue
        messages = deserialize_message(one, SceneGraph), deserialize_message(other, SceneGraph)
        result.add(list(graph_differences(*messages, frame, key[0], tolerance)))
    return result, [w for w in (warning_a, warning_b) if w]


def graph_differences(a: Any, b: Any, frame: int, stamp_ns: int, tolerance: float) -> Iterator[Difference]:
    """Yield the fields in which two SceneGraph messages differ.

    Objects and events are matched by id, relations by subject, predicate and object.
    """
    from wm_core.scene_graph import EventKind, Predicate

    def predicate(r: Any) -> str:
        return f"relation {r.subject} {Predicate(r.predicate).name} {r.object}"

    def event(e: Any) -> str:
        return f"event {e.id} {EventKind(e.kind).name}"

    parts = (
        ("objects", lambda o: o.id, lambda o: f"object {o.id} ({o.class_name})"),
        ("relations", lambda r: (r.subject, r.predicate, r.object), predicate),
        ("events", lambda e: e.id, event),
    )
    for name, key_of, label in parts:
        one, other = ({key_of(x): x for x in getattr(m, name)} for m in (a, b))
        for key in sorted(one.keys() | other.keys()):
            x, y = one.get(key), other.get(key)
            where = label(x if x is not None else y)
            if x is None or y is None:
                values = tuple("there" if v is not None else _MISSING for v in (x, y))
                yield Difference(frame, stamp_ns, where, name, values)  # type: ignore[arg-type]
                continue
            for path, values, amount in _fields(x, y, tolerance):
                yield Difference(frame, stamp_ns, where, path, values, amount)
    for path, values, amount in _fields(a, b, tolerance, skip=tuple(name for name, _, _ in parts)):
        yield Difference(frame, stamp_ns, "graph", path, values, amount)


def _fields(
    a: Any, b: Any, tolerance: float, path: str = "", skip: Sequence[str] = ()
) -> Iterator[tuple[str, tuple[Any, Any], float | None]]:
    """Yield (path, values, amount) of each primitive field in which two messages of one type differ."""
    names = a.get_fields_and_field_types()
    if set(names) == {"sec", "nanosec"}:
        a, b = (1_000_000_000 * int(t.sec) + int(t.nanosec) for t in (a, b))
        if a != b:
            yield f"{path} [ns]", (a, b), float(abs(a - b))
        return
    for name in names:
        if name in skip:
            continue
        x, y = getattr(a, name), getattr(b, name)
        here = f"{path}.{name}" if path else name
        if hasattr(x, "get_fields_and_field_types"):
            yield from _fields(x, y, tolerance, here)
        elif isinstance(x, str) or not hasattr(x, "__len__"):
            yield from _leaf(x, y, tolerance, here)
        elif len(x) != len(y):
            yield f"{here} (length)", (len(x), len(y)), float(abs(len(x) - len(y)))
        elif len(x) and isinstance(x[0], str):
            for i, (u, v) in enumerate(zip(x, y, strict=True)):
                yield from _leaf(u, v, tolerance, f"{here}[{i}]")
        else:
            u, v = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
            same = (u == v) & (np.signbit(u) == np.signbit(v)) | np.isnan(u) & np.isnan(v)
            if tolerance > 0.0:
                with np.errstate(invalid="ignore"):
                    same |= np.abs(u - v) <= tolerance
            wrong = np.flatnonzero(~same)
            if len(wrong):
                worst = int(wrong[np.argmax(np.abs(u - v)[wrong])])
                yield here, (float(u[worst]), float(v[worst])), float(abs(u[worst] - v[worst]))


def _leaf(x: Any, y: Any, tolerance: float, path: str) -> Iterator[tuple[str, tuple[Any, Any], float | None]]:
    if isinstance(x, float):
        same = (x == y and math.copysign(1.0, x) == math.copysign(1.0, y)) or (math.isnan(x) and math.isnan(y))
        if not same and not abs(x - y) <= tolerance > 0.0:
            yield path, (x, y), abs(x - y)
    elif x != y:
        numbers = isinstance(x, int) and not isinstance(x, bool)
        yield path, (x, y), float(abs(x - y)) if numbers else None


def print_comparison(comparison: Comparison, names: tuple[str, str], console: Any, tolerance: float = 0.0) -> None:
    """Print the first difference, and a table of the fields that differ; ``console`` is a rich console."""
    from rich.markup import escape
    from rich.table import Table

    (a, b), first = comparison.counts, comparison.first
    console.print(escape(f"A {names[0]}: {a} scene graphs; B {names[1]}: {b}; {comparison.common} of the same stamp"))
    if first is None:
        within = f"within {tolerance:g}" if tolerance > 0.0 else "to the last bit"
        console.print(f"identical: every field of {comparison.common} scene graphs, {within}")
        return
    console.print(escape(f"they part at {first.text()}"))
    console.print(f"{comparison.frames} frames differ")
    table = Table(box=None, pad_edge=False)
    for heading in ("field", "frames", "largest difference"):
        table.add_column(heading, justify="left" if heading == "field" else "right")
    for name, (count, amount) in sorted(comparison.fields.items(), key=lambda item: -item[1][0]):
        table.add_row(escape(name), str(count), _MISSING if amount is None else f"{amount:.3g}")
    console.print(table)
