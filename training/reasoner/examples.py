"""Training examples of the reasoner: features of a clip as perceived, and their labels."""

from __future__ import annotations

import multiprocessing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from training.reasoner.data import LabeledClip, read_shard
from training.reasoner.simulated_tracker import perceive
from wm_core.scene_graph import EventKind
from wm_perception.reasoning.causes import ObservedEvent, cause_row
from wm_perception.reasoning.evidence import contact_row, log_mass_prior, shape_row, step_row
from wm_perception.reasoning.features import (
    CAUSE_FEATURES,
    CONTACT_FEATURES,
    CONTACT_LAG,
    EFFECTS,
    OBJECT_EVENTS,
    PAIR_EVENTS,
    SHAPE_FEATURES,
    STEP_FEATURES,
    STEP_LAG,
    STEP_S,
    VERSION,
)
from wm_perception.reasoning.history import MotionHistory
from wm_perception.reasoning.steps import Step


@dataclass(frozen=True)
class Example:
    """Features and labels of one clip; N objects, T steps. Columns of features: ``wm_perception.reasoning.features``.

    Attributes:
        objects: (N, T, ``OBJECT_FEATURES``).
        pairs: (N, N, T, ``PAIR_FEATURES``).
        here: (N, T) whether the object is tracked.
        pair_events: (N, N, T, ``PAIR_EVENTS``) true at the step in which it happened.
        object_events: (N, T, ``OBJECT_EVENTS``) likewise.
        touching: (N, N, T) whether the two objects touch.
        shapes: (N, ``SHAPE_FEATURES``).
        properties: (N, 3) log mass less its prior from the volume, friction, restitution.
        free: (N,) whether the properties count: a true object that follows no path.
        contact_rows: (C, ``CONTACT_FEATURES``) evidence from contacts; contact_of: (C,) index of its object.
        step_rows: (M, ``STEP_FEATURES``) evidence from steps; step_of: (M,) index of its object.
        cause_rows: (Q, ``CAUSE_FEATURES``) pairs of events; caused: (Q,) whether the first caused the second.
    """

    objects: NDArray[np.float16]
    pairs: NDArray[np.float16]
    here: NDArray[np.bool_]
    pair_events: NDArray[np.bool_]
    object_events: NDArray[np.bool_]
    touching: NDArray[np.bool_]
    shapes: NDArray[np.float32]
    properties: NDArray[np.float32]
    free: NDArray[np.bool_]
    contact_rows: NDArray[np.float32]
    contact_of: NDArray[np.int64]
    step_rows: NDArray[np.float32]
    step_of: NDArray[np.int64]
    cause_rows: NDArray[np.float32]
    caused: NDArray[np.bool_]


def make_example(
    labeled: LabeledClip,
    rng: np.random.Generator,
    steps: Sequence[Step] | None = None,
    names: Sequence[Mapping[int, int]] = (),
) -> Example:
    """Features of a clip as perceived, and their labels.

    Args:
        steps: tracks at 15 Hz; None: they are simulated.
        names: per step {perceived id: true id}; not needed for simulated tracks. An object without a true id is a
            phantom, without labels; so is one until it is perceived.
    """
    clip = labeled.clip
    if steps is None:
        steps = perceive(labeled, rng)
        names = [{int(i): int(i) for i in step.ids} for step in steps]
    count = len(steps)
    history = MotionHistory(count)
    for step in steps:
        history.push(step)
    ids = sorted(history.slot)
    slots = [history.slot[i] for i in ids]
    where = {i: n for n, i in enumerate(ids)}
    n = len(ids)
    start = steps[0].time
    known = [{true: where[i] for i, true in mapping.items() if i in where} for mapping in names]

    def step_at(time: float) -> int:
        # A step holds the events since the one before.
        return int(np.ceil((time - start) / STEP_S - 1e-6))

    def found(who: Sequence[int], k: int) -> list[int] | None:
        """Rows under which true objects are perceived at a step, or near it."""
        rows = [
            next((known[j][w] for j in (k, k - 1, k + 1, k - 2, k + 2) if 0 <= j < count and w in known[j]), None)
            for w in who
        ]
        return None if None in rows or len(set(rows)) < len(rows) else [r for r in rows if r is not None]

    pair_events = np.zeros((n, n, count, len(PAIR_EVENTS)), dtype=bool)
    object_events = np.zeros((n, count, len(OBJECT_EVENTS)), dtype=bool)
    touching = np.zeros((n, n, count), dtype=bool)
    open_contacts: dict[tuple[int, int], int] = {}

    def touch(pair: tuple[int, int], begin: int, end: int) -> None:
        for k in range(max(begin, 0), min(end, count)):
            if pair[0] in known[k] and pair[1] in known[k]:
                a, b = known[k][pair[0]], known[k][pair[1]]
                touching[a, b, k] = touching[b, a, k] = True

    for e in labeled.events:
        k = step_at(e.time)
        if not 0 <= k < count:
            continue
        if e.kind in PAIR_EVENTS:
            if e.kind == EventKind.CONTACT:
                open_contacts[e.a, e.b] = k
            else:
                touch((e.a, e.b), open_contacts.pop((e.a, e.b), 0), k)
        rows = found(e.who, k)
        if rows is None:
            continue
        if e.kind in PAIR_EVENTS:
            a, b = rows
            pair_events[a, b, k, PAIR_EVENTS.index(e.kind)] = pair_events[b, a, k, PAIR_EVENTS.index(e.kind)] = True
        elif e.kind in OBJECT_EVENTS:
            object_events[rows[0], k, OBJECT_EVENTS.index(e.kind)] = True
    for pair, begin in open_contacts.items():
        touch(pair, begin, count)
    contact_rows, contact_of, step_rows, step_of = [], [], [], []
    for e in labeled.events:
        k = step_at(e.time)
        if e.kind != EventKind.CONTACT or not 2 <= k < count - CONTACT_LAG:
            continue
        both = found(e.who, k)
        k += int(rng.choice([0, 0, 0, 0, 1, -1]))
        for own, other in (both, both[::-1]) if both else ():
            row = contact_row(history, ids[own], ids[other], k)
            if row is not None:
                contact_rows.append(row)
                contact_of.append(own)
    for i in ids:
        for k in range(2, count - STEP_LAG):
            row = step_row(history, i, k)
            if row is not None:
                step_rows.append(row)
                step_of.append(where[i])
    observed, kept = [], []
    for index, e in enumerate(labeled.events):
        k = step_at(e.time)
        rows = found(e.who, k)
        if e.kind not in EFFECTS or rows is None or rng.uniform() < 0.05:
            continue
        motion = tuple(history.motion_at(ids[r], k) for r in rows)
        observed.append(ObservedEvent(e.kind, e.who, e.time + float(rng.normal(0.0, 0.015)), motion))
        kept.append(index)
    new = {index: n for n, index in enumerate(kept)}
    cause_rows, caused = [], []
    for (i, j), answer in zip(labeled.caused.pairs, labeled.caused.caused, strict=True):
        if i in new and j in new:
            cause_rows.append(cause_row(observed, new[i], new[j]))
            caused.append(answer)
    # The true object that each was matched to most; the table (row 0) for phantoms, whose properties do not count.
    body = {int(i): k for k, i in enumerate(clip.ids)}
    meant: list[list[int]] = [[] for _ in ids]
    for mapping in known:
        for true, row_of in mapping.items():
            meant[row_of].append(body[true])
    rows_of = np.array([max(sorted(set(m)), key=m.count) if m else 0 for m in meant], dtype=int)
    real = np.array([bool(m) for m in meant], dtype=bool)
    prior = np.array([log_mass_prior(*history.shape[i]) for i in ids])
    return Example(
        objects=history.objects[:count][:, slots].transpose(1, 0, 2).astype(np.float16),
        pairs=history.pairs[:count][:, slots][:, :, slots].transpose(1, 2, 0, 3).astype(np.float16),
        here=history.here[:count][:, slots].T.copy(),
        pair_events=pair_events,
        object_events=object_events,
        touching=touching,
        shapes=np.array([shape_row(*history.shape[i]) for i in ids], np.float32).reshape(n, len(SHAPE_FEATURES)),
        properties=np.stack(
            [clip.log_mass[rows_of] - prior, clip.friction[rows_of], clip.restitution[rows_of]], 1
        ).astype(np.float32),
        free=real & ~clip.kinematic[rows_of],
        contact_rows=np.array(contact_rows, np.float32).reshape(-1, len(CONTACT_FEATURES)),
        contact_of=np.array(contact_of, np.int64),
        step_rows=np.array(step_rows, np.float32).reshape(-1, len(STEP_FEATURES)),
        step_of=np.array(step_of, np.int64),
        cause_rows=np.array(cause_rows, np.float32).reshape(-1, len(CAUSE_FEATURES)),
        caused=np.array(caused, dtype=bool),
    )


def _examples_of(task: tuple[Path, Path, int]) -> int:
    path, target, views = task
    arrays: dict[str, NDArray[Any]] = {}
    n = 0
    for index, labeled in enumerate(read_shard(path)):
        for view in range(views):
            rng = np.random.default_rng([int("".join(c for c in path.stem if c.isdigit())), index, view])
            example = make_example(labeled, rng)
            if len(example.here):
                arrays |= {f"{n:03d}/{f.name}": getattr(example, f.name) for f in fields(example)}
                n += 1
    part = target.with_suffix(".part.npz")
    np.savez(part, **arrays)  # type: ignore[arg-type]
    part.rename(target)
    return 1


def load_examples(shards: list[Path], folder: Path, workers: int, console: Console, views: int = 1) -> list[Example]:
    """Examples of the labeled clips of shards; made where they are missing, and kept in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    targets = [folder / f"{p.stem}_{views}_v{VERSION}.npz" for p in shards]
    tasks = [(p, t, views) for p, t in zip(shards, targets, strict=True) if not t.exists()]
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    if tasks:
        with (
            Progress(*columns, console=console) as progress,
            multiprocessing.get_context("spawn").Pool(workers) as pool,
        ):
            bar = progress.add_task(f"{folder.name}: perceived shards", total=len(tasks))
            for done in pool.imap_unordered(_examples_of, tasks):
                progress.advance(bar, done)
    examples = []
    for target in targets:
        by_number: dict[str, dict[str, NDArray[Any]]] = {}
        with np.load(target) as file:
            for name in file.files:
                number, key = name.split("/")
                by_number.setdefault(number, {})[key] = file[name]
        examples += [Example(**by_number[number]) for number in sorted(by_number)]
    return examples
