"""Examples of the reasoner, in batches."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.reasoner.examples import Example
from training.reasoner.options import Options
from wm_perception.reasoning.features import AHEAD, CENTER, OBJECT_FEATURES, PAIR_FEATURES, WINDOW


class Batches:
    """Random batches by step number, so that a resumed run has the batches of an uninterrupted one.

    Attributes:
        examples: of all clips; options: of the training.
        lively, quiet: (M, 3) windows (objects, example, center step), with an event or motion, and without.
        causes: (Q, Fq) rows of causes; caused: (Q,) their labels.
    """

    def __init__(self, examples: list[Example], options: Options) -> None:
        self.examples, self.options = examples, options
        lively: list[tuple[int, int, int]] = []
        quiet: list[tuple[int, int, int]] = []
        for x, example in enumerate(examples):
            n, count = example.here.shape
            if not n:
                continue
            happens = np.asarray(example.pair_events.any(axis=(0, 1, 3)) | example.object_events.any(axis=(0, 2)))
            moving = np.asarray((example.objects[..., 0] > 0.1).any(axis=0))
            for c in range(CENTER, count - AHEAD):
                close = happens[max(0, c - 2) : c + 3].any()
                (lively if close or moving[c] else quiet).append((n, x, c))
        self.lively, self.quiet = np.array(lively), np.array(quiet)
        self.causes = np.concatenate([e.cause_rows for e in examples])
        self.caused = np.concatenate([e.caused for e in examples])

    def at(self, step: int) -> tuple[Tensor, ...]:
        """The batch of a step."""
        rng = np.random.default_rng([self.options.seed, step])
        size = self.options.batch
        some = self.lively[rng.integers(0, len(self.lively), 8 * size)]
        # Windows with similar numbers of objects, so that little is padded.
        some = some[np.argsort(some[:, 0], kind="stable")]
        start = int(rng.integers(0, 8)) * size
        windows = some[start : start + size]
        if len(self.quiet):
            windows = np.concatenate([windows, self.quiet[rng.integers(0, len(self.quiet), max(1, size // 12))]])
        rows = rng.integers(0, len(self.examples), max(8, size))
        causes = rng.integers(0, len(self.causes), 512)
        return (
            *interaction_batch(self.examples, windows),
            *evidence_batch([self.examples[k] for k in rows], rng),
            torch.from_numpy(self.causes[causes]),
            torch.from_numpy(self.caused[causes].astype(np.float32)),
        )


def interaction_batch(examples: list[Example], windows: NDArray[np.int64]) -> tuple[Tensor, ...]:
    """Objects (B, N, W, Fo), pairs (B, N, N, W, Fp), here (B, N), pair targets (B, N, N, 3), object targets (B, N, 4).

    Args:
        windows: (B, 3) objects, example, center step.
    """
    count, n = len(windows), int(windows[:, 0].max())
    objects = np.zeros((count, n, WINDOW, len(OBJECT_FEATURES)), np.float32)
    pairs = np.zeros((count, n, n, WINDOW, len(PAIR_FEATURES)), np.float32)
    here = np.zeros((count, n), bool)
    pair_targets = np.zeros((count, n, n, 3), np.float32)
    object_targets = np.zeros((count, n, 4), np.float32)
    for b, (m, x, c) in enumerate(windows):
        e = examples[x]
        part = slice(c - CENTER, c + AHEAD + 1)
        objects[b, :m] = e.objects[:, part]
        pairs[b, :m, :m] = e.pairs[:, :, part]
        here[b, :m] = e.here[:, c]
        pair_targets[b, :m, :m, :2] = e.pair_events[:, :, c]
        pair_targets[b, :m, :m, 2] = e.touching[:, :, c]
        object_targets[b, :m] = e.object_events[:, c]
    return tuple(torch.from_numpy(v) for v in (objects, pairs, here, pair_targets, object_targets))


def evidence_batch(examples: list[Example], rng: np.random.Generator | None) -> tuple[Tensor, ...]:
    """Shapes (K, Fs), ground truth (K, 3), free (K,), contacts (C, Fc), their objects (C,), steps (M, Fm), theirs.

    With a generator, objects keep a random part of their evidence, because the robot also judges early.
    """
    columns: list[list[NDArray[Any]]] = [[], [], [], [], [], [], []]
    shapes, ground_truth, free, contacts, contact_of, steps, step_of = columns
    offset = 0
    for e in examples:
        n = len(e.free)
        shapes.append(e.shapes)
        ground_truth.append(e.properties)
        free.append(e.free)
        keep = np.ones(n) if rng is None else rng.uniform(0.0, 1.4, n)
        for rows, owner, into, into_of in (
            (e.contact_rows, e.contact_of, contacts, contact_of),
            (e.step_rows, e.step_of, steps, step_of),
        ):
            kept = np.ones(len(owner), bool) if rng is None else rng.uniform(size=len(owner)) < keep[owner]
            into.append(rows[kept])
            into_of.append(owner[kept] + offset)
        offset += n
    return tuple(torch.from_numpy(np.concatenate(v)) for v in columns)
