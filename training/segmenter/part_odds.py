"""The network by which neighboring segments are parts of one object: `python -m training.segmenter.part_odds`.

Renders worlds that the network was not trained on, divides their images into segments with it, and fits a small
network from what speaks for and against two neighbors being one (`wm_perception.segmentation.part_features`) to whether
they truly are. Writes it where `wm_perception.segmentation.part_network` reads it, and prints how many pairs of either
kind are joined by it, each world by a network from the others.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

from training.segmenter.options import MODELS
from training.worlds.generate import DEPTH_UNIT_M, WIDTH, draw_clip
from training.worlds.simulate import simulate
from training.worlds.splits import SPLITS, Split
from training.worlds.worlds import random_scene
from wm_core.camera import Camera
from wm_perception.models.segmenter import make_segmenter
from wm_perception.pipeline import PerceptionPipeline
from wm_perception.segmentation.division import BORDER
from wm_perception.segmentation.learned import OUTPUTS, LearnedSegmenter
from wm_perception.segmentation.part_features import FEATURES, part_features
from wm_perception.segmentation.part_network import FAR, FILE, PartNetwork
from wm_perception.types import Frame, PerceptionConfig

Array = NDArray[np.float64]

OF: tuple[tuple[Split, int], ...] = (("homeware", 900), ("assemblies", 600), ("stacks", 300), ("train", 600))
"""Worlds of each split by default. More of stacks joins less of what stands on one another. With a fifth of them, the
cross entropy of pairs of other worlds is 0.249 in place of 0.218."""
FIRST_SEED = 520_000
"""Seed of the first world of each split: the network was trained on smaller ones."""
OUT = Path("ros2_ws/src/wm_perception/wm_perception/segmentation") / FILE
SECONDS, RATE_HZ, IMAGES = 2.0, 15.0, 4
"""Length of a clip [s], its states a second, and the images drawn of it: objects fall and are pushed in some."""
BORDERS = (-1.0, BORDER, 0.75)
"""Log-odds at which an image is divided, once at each: of the same things, other parts. The table is of ``BORDER``."""
PURE = 0.7
"""Part of a segment that must be of one object for its pairs to be counted. Larger leaves out more bad masks."""
HIDDEN, MEMBERS = 48, 4
"""Hidden units of a network, and networks of which the mean is taken. Of pairs of homeware that are one, 24 units leave
32 % apart, 48 leave 30 %, with as many of two joined. More is slower."""
EPOCHS, BATCH, RATE, DECAY = 15, 256, 5e-3, 0.05
"""Of AdamW, with one cycle of the learning rate. More epochs or less decay fit single worlds."""
FOLDS = 5
"""Parts of the worlds that are told by weights from the others."""


@dataclass(frozen=True)
class Pairs:
    """Neighboring segments.

    Attributes:
        features: (P, F); one: (P,) whether both are of one object; world: (P,) number of the world; split: (P,) its
            index in ``SPLITS``; border: (P,) at which the image was divided.
    """

    features: Array
    one: NDArray[np.bool_]
    world: NDArray[np.int64]
    split: NDArray[np.int64]
    border: Array


def images(split: Split, seed: int) -> Iterator[tuple[Frame, NDArray[np.int64]]]:
    """Images of a world, with the true ids (h, w) of what can be moved; none where its physics diverges."""
    scene = random_scene(seed, split)
    clip = simulate(scene, SECONDS, RATE_HZ, distances=False)
    if not clip.stable:
        return
    drawn = draw_clip(scene, clip, seed, split, IMAGES)
    h, w = drawn["mask"].shape[1:]
    matrix = drawn["K"]
    camera = Camera(w, h, matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2])
    fixed = clip.ids[clip.is_static]
    for rgb, depth, mask, pose in zip(
        drawn["rgb"], drawn["depth"], drawn["mask"], drawn["world_T_camera"], strict=True
    ):
        ids = np.where(np.isin(mask, fixed), 0, mask).astype(np.int64)
        yield Frame(1, rgb, depth.astype(np.float32) * np.float32(DEPTH_UNIT_M), camera, pose), ids


def neighbors(
    pipeline: PerceptionPipeline, segmenter: LearnedSegmenter, frame: Frame, ids: NDArray[np.int64]
) -> tuple[Array, NDArray[np.bool_]]:
    """Features (P, F) of an image's neighboring segments, and whether they are of one object (P,)."""
    pipeline.reset()
    begun = pipeline.begin(frame)
    parts = segmenter.decode(begun.inferred, begun.cloud, np.zeros(ids.shape, np.bool_), begun.height, [])
    count = len(parts.keys)
    if count < 2:
        return np.zeros((0, len(FEATURES))), np.zeros(0, np.bool_)
    votes = np.zeros((count + 1, int(ids.max()) + 1))
    np.add.at(votes, (parts.labels.ravel(), ids.ravel()), 1.0)
    owner = votes.argmax(axis=1)
    pure = (votes.max(axis=1) >= PURE * np.maximum(votes.sum(axis=1), 1.0)) & (owner > 0)
    h, w = ids.shape
    pairs, features = part_features(
        parts,
        segmenter.offset_px(begun.inferred, ids.shape),
        begun.inferred[OUTPUTS.index("apart")][0, :, :h, :w],
        begun.cloud,
        begun.height,
    )
    use = pure[pairs].all(axis=1)
    return features[use], (owner[pairs[:, 0]] == owner[pairs[:, 1]])[use]


def _pairs_of_world(model: Path, split: Split, seed: int) -> list[tuple[float, Array, NDArray[np.bool_]]]:
    """Of each image and border of a world: the border, the features of its pairs, and whether they are one."""
    pipeline, segmenter = _loaded(model)
    found = []
    for frame, ids in images(split, seed):
        for border in BORDERS:
            segmenter.border = border
            found.append((border, *neighbors(pipeline, segmenter, frame, ids)))
    return found


@cache
def _loaded(model: Path) -> tuple[PerceptionPipeline, LearnedSegmenter]:
    """A pipeline with the trained network; once in each process."""
    config = PerceptionConfig(segmenter="learned", segmenter_model=str(model), inference_threads=1)
    segmenter = make_segmenter(config)
    if not isinstance(segmenter, LearnedSegmenter):
        raise ValueError(f"{model}: expected the trained network's file")
    config = PerceptionConfig(stride=1, working_width=WIDTH, reasoner="geometric")
    return PerceptionPipeline(config, segmenter), segmenter


def collect(model: Path, worlds: dict[Split, int], first_seed: int, threads: int, console: Console) -> Pairs:
    """Neighboring segments of all images of some worlds of each split, by the network in a file.

    Raises:
        ValueError: that file is of another network.
    """
    plan = [(name, seed) for name, count in worlds.items() for seed in range(first_seed, first_seed + count)]
    columns: list[list[NDArray[Any]]] = [[], [], [], [], []]
    _loaded(model)
    with ProcessPoolExecutor(threads, mp_context=get_context("spawn")) as executor:
        found = executor.map(_pairs_of_world, *zip(*((model, *world) for world in plan), strict=True))
        for number, images_of_world in enumerate(track(found, "worlds", total=len(plan), console=console)):
            for border, features, one in images_of_world:
                index = SPLITS.index(plan[number][0])
                values = (features, one, *(np.full(len(one), value) for value in (number, index, border)))
                for column, value in zip(columns, values, strict=True):
                    column.append(value)
    return Pairs(*(np.concatenate(column) for column in columns))


def fit(features: Array, one: NDArray[np.bool_], seed: int = 0) -> PartNetwork:
    """The mean of ``MEMBERS`` small networks, as one: each is fitted from other first weights and in another order."""
    import torch
    from torch.nn import functional

    generator = torch.Generator().manual_seed(seed)
    mean, deviation = features.mean(axis=0), features.std(axis=0) + 1e-6
    scaled = torch.from_numpy(np.clip((features - mean) / deviation, -FAR, FAR)).float()
    wanted = torch.from_numpy(one).float()
    steps = EPOCHS * -(-len(scaled) // BATCH)
    members: list[list[Array]] = []
    for _ in range(MEMBERS):
        count = scaled.shape[1]
        weights = [
            torch.randn(count, HIDDEN, generator=generator) / np.sqrt(count),
            torch.zeros(HIDDEN),
            torch.randn(HIDDEN, generator=generator) / np.sqrt(HIDDEN),
            torch.zeros(()),
        ]
        for weight in weights:
            weight.requires_grad_()
        optimizer = torch.optim.AdamW(weights, RATE, weight_decay=DECAY)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
        for _ in range(EPOCHS):
            for rows in torch.randperm(len(scaled), generator=generator).split(BATCH):
                odds = functional.relu(scaled[rows] @ weights[0] + weights[1]) @ weights[2] + weights[3]
                loss = functional.binary_cross_entropy_with_logits(odds, wanted[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
        members.append([weight.detach().double().numpy() for weight in weights])
    hidden, offset, out, constant = zip(*members, strict=True)
    return PartNetwork(
        mean,
        deviation,
        np.concatenate(hidden, axis=1),
        np.concatenate(offset),
        np.concatenate(out) / MEMBERS,
        float(np.mean(constant)),
    )


def held_out_odds(pairs: Pairs) -> Array:
    """Log-odds (P,) of every pair, by a network from the worlds of other folds."""
    odds = np.zeros(len(pairs.one))
    for fold in range(FOLDS):
        rest, own = pairs.world % FOLDS != fold, pairs.world % FOLDS == fold
        odds[own] = fit(pairs.features[rest], pairs.one[rest]).log_odds(pairs.features[own])
    return odds


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=MODELS / "segmenter.onnx", help="default: %(default)s")
    parser.add_argument("--out", type=Path, default=OUT, help="default: %(default)s")
    parser.add_argument("--first-seed", type=int, default=FIRST_SEED, help="default: %(default)s")
    parser.add_argument(
        "--threads", type=int, default=os.cpu_count(), help="processes (default: all cores, %(default)s)"
    )
    parser.add_argument("--share", type=float, default=1.0, help="part of the worlds (default: %(default)s)")
    arguments = parser.parse_args()
    console = Console()
    worlds = {name: max(1, round(count * arguments.share)) for name, count in OF}
    try:
        pairs = collect(arguments.model, worlds, arguments.first_seed, arguments.threads, console)
    except (OSError, ValueError) as error:
        parser.exit(1, f"{error}\n")
    odds = held_out_odds(pairs)
    table = Table("split", "pairs", "of one object", "of these joined", "of two joined")
    for index in np.unique(pairs.split):
        own = (pairs.split == index) & (pairs.border == BORDER)
        joined = odds[own] > 0.0
        one = pairs.one[own]
        shares = (one.mean(), joined[one].mean() if one.any() else np.nan, joined[~one].mean())
        table.add_row(SPLITS[index], str(int(own.sum())), *(f"{share:.3f}" for share in shares))
    console.print(table)
    arguments.out.write_text(json.dumps(fit(pairs.features, pairs.one).as_dict(FEATURES)) + "\n")
    console.print(f"written: {arguments.out}")


if __name__ == "__main__":
    main()
