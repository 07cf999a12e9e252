"""From clips to what the segmenter is trained on: features and masks in memory-mapped arrays, made once."""

from __future__ import annotations

import json
import multiprocessing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from scipy import ndimage

from training.worlds.families import VOCABULARY
from training.worlds.generate import DEPTH_UNIT_M
from training.worlds.splits import SEEDS_OF_A_SPLIT, SPLITS
from wm_core.camera import Camera
from wm_perception.lifting.cloud import make_cloud
from wm_perception.segmentation.division import APART_PX
from wm_perception.segmentation.learned import CHANNELS, OFFSET_SCALE_PX, network_input
from wm_perception.types import Frame, PerceptionConfig

QUANTUM = 127.0
"""Factor by which inputs in -1..1 are stored as int8."""
MAX_IDS = 32
"""Ids of a clip whose class is stored, from 0; objects with larger ids have no class."""
MIN_PIXELS = 16
"""Pixels of an object below which it is left out of the loss. Larger ignores more objects that are mostly hidden."""


@dataclass(frozen=True)
class Prepared:
    """M images.

    Attributes:
        inputs: (M, 10, h, w) int8, the network's input times 127.
        masks: (M, h, w) uint8 instance ids, 0 background.
        clips: (M,) number of the clip of each, its seed + ``SEEDS_OF_A_SPLIT`` times the split's index.
        classes: (M, 32) class of each id, -1 = none of the vocabulary.
    """

    inputs: NDArray[np.int8]
    masks: NDArray[np.uint8]
    clips: NDArray[np.int64]
    classes: NDArray[np.int8]


def support_height(
    points: NDArray[np.float32],
    table_top: float,
    table_size: NDArray[np.float64],
    camera_z: float,
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """Height over the table or the floor as perception would find it (h, w) [m], NaN where there is no support.

    Perception knows a table to a millimeter or two, not always all of it, and at first not at all.
    """
    over = np.full(points.shape[:2], np.nan, np.float32)
    if rng.uniform() < 0.08:
        return over
    floor_carries = camera_z < PerceptionConfig().floor_below_camera_m
    z = points[..., 2]
    with np.errstate(invalid="ignore"):
        if floor_carries:
            over = np.where(z > -0.02, z, np.nan).astype(np.float32)
        half = 0.5 * table_size[:2] + 0.01
        if rng.uniform() < 0.15:
            half = half - rng.uniform(0.0, 0.15, 2)
        on = (np.abs(points[..., 0]) < half[0]) & (np.abs(points[..., 1]) < half[1])
        above = z - np.float32(table_top + rng.normal(0.0, 0.0015))
        use = on & (above > -0.02)
    over[use] = above[use]
    return over


def _prepare_shard(task: tuple[Path, Path, int]) -> int:
    import h5py

    shard, folder, first = task
    inputs = np.load(folder / "inputs.npy", mmap_mode="r+")
    masks = np.load(folder / "masks.npy", mmap_mode="r+")
    clips = np.load(folder / "clips.npy", mmap_mode="r+")
    classes = np.load(folder / "classes.npy", mmap_mode="r+")
    config, at = PerceptionConfig(), first
    with h5py.File(shard, "r") as file:
        for name in sorted(file):
            group = file[name]
            if "rgb" not in group:
                continue
            seed = int(group.attrs["seed"])
            clip = seed + SEEDS_OF_A_SPLIT * SPLITS.index(group.attrs["split"])
            rng = np.random.default_rng([clip, 11])
            matrix = group["K"][()]
            names = json.loads(group.attrs["class_names"])
            of_class = np.full(MAX_IDS, -1, np.int8)
            for number, what in zip(group["ids"][()], names, strict=True):
                if what in VOCABULARY:
                    of_class[number] = VOCABULARY.index(what)
            for k in range(len(group["rgb"])):
                depth = group["depth"][k].astype(np.float32) * np.float32(DEPTH_UNIT_M)
                h, w = depth.shape
                camera = Camera(w, h, matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2])
                pose = group["world_T_camera"][k]
                cloud = make_cloud(Frame(1, group["rgb"][k], depth, camera, pose), 1, config.max_depth_m)
                height = support_height(
                    cloud.points, group.attrs["table_top_m"], group.attrs["table_size_m"], pose[2, 3], rng
                )
                inputs[at] = np.rint(network_input(cloud, height) * QUANTUM).astype(np.int8)
                mask = group["mask"][k]
                masks[at] = np.where(mask > 1, mask, 0)
                clips[at], classes[at] = clip, of_class
                at += 1
    return at - first


def prepare(shards: list[Path], folder: Path, workers: int, console: Console) -> Prepared:
    """Features of all images of these shards, from the cache where they are there.

    Raises:
        FileNotFoundError: no shards; generate the data first.
    """
    import h5py

    if not shards:
        raise FileNotFoundError(f"{folder.parent}: found no shards (clips_*.h5), expected some; run: make data")
    counts, shape, stamps = [], (0, 0), []
    for shard in shards:
        with h5py.File(shard, "r") as file:
            groups = [g for g in file.values() if "rgb" in g]
            counts.append(sum(len(g["rgb"]) for g in groups))
            if groups:
                shape = groups[0]["rgb"].shape[1:3]
        stamps.append([shard.parent.name, shard.name, shard.stat().st_size])
    total = sum(counts)
    done = folder / "done.json"
    wanted = {"shards": stamps, "channels": list(CHANNELS), "vocabulary": list(VOCABULARY), "images": total}
    if not done.exists() or json.loads(done.read_text()) != wanted:
        folder.mkdir(parents=True, exist_ok=True)
        done.unlink(missing_ok=True)
        layout: dict[str, tuple[tuple[int, ...], Any]] = {
            "inputs": ((total, len(CHANNELS), *shape), np.int8),
            "masks": ((total, *shape), np.uint8),
            "clips": ((total,), np.int64),
            "classes": ((total, MAX_IDS), np.int8),
        }
        for name, (size, kind) in layout.items():
            np.lib.format.open_memmap(folder / f"{name}.npy", mode="w+", dtype=kind, shape=size).flush()
        starts = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(int)
        tasks = [(s, folder, int(f)) for s, f in zip(shards, starts, strict=True)]
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with (
            Progress(*columns, console=console) as progress,
            multiprocessing.get_context("spawn").Pool(workers) as pool,
        ):
            bar = progress.add_task("features: images", total=total)
            for count in pool.imap_unordered(_prepare_shard, tasks):
                progress.advance(bar, count)
        done.write_text(json.dumps(wanted))
    return load_prepared(folder)


def load_prepared(folder: Path) -> Prepared:
    """Features of a folder as ``prepare`` left them.

    Raises:
        FileNotFoundError: none there, or not all.
    """
    if not (folder / "done.json").is_file():
        raise FileNotFoundError(f"{folder}: found no features (done.json), expected some; run: make train-segmenter")
    return Prepared(
        *(np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("inputs", "masks", "clips", "classes"))
    )


def targets(
    mask: NDArray[np.uint8], classes: NDArray[np.int8]
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
    """What the network should say of an instance mask (h, w).

    Returns:
        maps (4, h, w): foreground, center, offset x, y [pixels / 32]; weights (2, h, w): of foreground and of offset
        (objects count by the root of their area, borders between instances more; objects too small to tell not at all);
        classes (h/2, w/2), -100 where there is none.
    """
    h, w = mask.shape
    maps, weights = np.zeros((4, h, w), np.float32), np.zeros((2, h, w), np.float32)
    edge = cv2.dilate(mask, np.ones((3, 3), np.uint8)) != cv2.erode(mask, np.ones((3, 3), np.uint8))
    weights[0] = 1.0
    weights[0][edge] = 4.0
    meaning = np.full(mask.shape, -100, np.int64)
    for number, box in enumerate(ndimage.find_objects(mask), start=1):
        if box is None:
            continue
        inside = mask[box] == number
        rows, columns = np.nonzero(inside)
        size = len(rows)
        if size < MIN_PIXELS:
            weights[0][box][inside] = 0.0
            continue
        rows, columns = rows + box[0].start, columns + box[1].start
        cx, cy = float(columns.mean()), float(rows.mean())
        maps[0][box][inside] = 1.0
        maps[2, rows, columns] = (cx - columns) / OFFSET_SCALE_PX
        maps[3, rows, columns] = (cy - rows) / OFFSET_SCALE_PX
        weights[1][box][inside] = min(np.sqrt(400.0 / size), 3.0)
        sigma = float(np.clip(0.12 * np.sqrt(size), 2.0, 6.0))
        reach = int(3 * sigma) + 1
        y = np.arange(max(int(cy) - reach, 0), min(int(cy) + reach + 1, h))
        x = np.arange(max(int(cx) - reach, 0), min(int(cx) + reach + 1, w))
        bump = np.exp(-0.5 * np.square((y - cy) / sigma))[:, None] * np.exp(-0.5 * np.square((x - cx) / sigma))
        spot = maps[1, y[0] : y[-1] + 1, x[0] : x[-1] + 1]
        np.maximum(spot, bump, out=spot)
        if number < MAX_IDS and classes[number] >= 0:
            meaning[box][inside] = classes[number]
    return maps, weights, np.ascontiguousarray(meaning[::2, ::2])


def apart(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Whether each pixel of an instance mask (h, w) and its neighbors ``APART_PX`` are of two objects.

    Returns:
        (N, h, w): 0 one object, 1 two, 2 not known: either is background, or beyond the image.
    """
    h, w = mask.shape
    result = np.full((len(APART_PX), h, w), 2, np.uint8)
    for channel, (down, right) in zip(result, APART_PX, strict=True):
        here, there = mask[: h - down, : w - right], mask[down:, right:]
        both = (here > 0) & (there > 0)
        channel[: h - down, : w - right][both] = (here != there)[both]
    return result


def _smaller(
    stored: NDArray[np.int8], mask: NDArray[np.uint8], rng: np.random.Generator
) -> tuple[NDArray[np.int8], NDArray[np.uint8]]:
    """The picture as a part of an image that shows nothing else: things as seen from farther away."""
    h, w = mask.shape
    scale = rng.uniform(0.55, 0.9)
    ch, cw = int(h * scale), int(w * scale)
    y, x = int(rng.integers(0, h - ch + 1)), int(rng.integers(0, w - cw + 1))
    rows = ((np.arange(ch) + 0.5) * h / ch).astype(np.intp)[:, None]
    columns = ((np.arange(cw) + 0.5) * w / cw).astype(np.intp)
    image, small = np.zeros_like(stored), np.zeros_like(mask)
    image[:3] = rng.integers(-127, 128, (3, 1, 1))
    image[:, y : y + ch, x : x + cw] = stored[:, rows, columns]
    small[y : y + ch, x : x + cw] = mask[rows, columns]
    return image, small


def _compressed(color: NDArray[np.int8], quality: int) -> NDArray[np.int8]:
    """Colors (3, h, w) after JPEG of this quality 0..100."""
    pixels = np.clip((color.transpose(1, 2, 0) + QUANTUM), 0, 255).astype(np.uint8)
    _, code = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded = cv2.imdecode(code, cv2.IMREAD_COLOR)
    return np.ascontiguousarray((decoded.astype(np.int16).transpose(2, 0, 1) - int(QUANTUM)).clip(-127, 127), np.int8)


def augment(
    stored: NDArray[np.int8], mask: NDArray[np.uint8], rng: np.random.Generator | None
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """A different picture of the same scene: mirrored, enlarged or made smaller, in other light, of another camera.

    Args:
        stored: (10, h, w), the input times 127; mask: (h, w); rng: None for the picture as it is.

    Returns:
        The input (10, h, w) float32, and its mask.
    """
    if rng is None:
        return stored.astype(np.float32) / np.float32(QUANTUM), mask
    kind = rng.uniform()
    if kind < 0.35:
        h, w = mask.shape
        scale = rng.uniform(1.1, 2.2)
        ch, cw = int(h / scale), int(w / scale)
        y, x = int(rng.integers(0, h - ch + 1)), int(rng.integers(0, w - cw + 1))
        rows = (y + (np.arange(h) + 0.5) * ch / h).astype(np.intp)
        columns = (x + (np.arange(w) + 0.5) * cw / w).astype(np.intp)
        stored, mask = stored[:, rows[:, None], columns], mask[rows[:, None], columns]
    elif kind < 0.5:
        stored, mask = _smaller(stored, mask, rng)
    flip = rng.uniform() < 0.5
    if flip:
        stored, mask = stored[:, :, ::-1], np.ascontiguousarray(mask[:, ::-1])
    image = np.empty(stored.shape, np.float32)
    np.multiply(stored[3:], np.float32(1.0 / QUANTUM), out=image[3:])
    if flip:
        image[5] *= -1.0
    if rng.uniform() < 0.1:
        gray = stored[:3].mean(axis=0).astype(np.int8)
        stored = np.stack([gray, gray, gray])
    if rng.uniform() < 0.2:
        stored = _compressed(stored[:3], int(rng.integers(25, 85)))
    # Gain, gamma and tint as one table per channel.
    level = np.clip((np.arange(-128, 128) / QUANTUM + 1.0) / 2.0, 0.0, 1.0) ** rng.uniform(0.7, 1.5)
    gain, noise = rng.uniform(0.6, 1.4), rng.uniform(0.0, 0.25)
    blur = rng.uniform(0.4, 1.2) if rng.uniform() < 0.3 else 0.0
    for k in range(3):
        table = np.roll(2.0 * gain * rng.uniform(0.85, 1.15) * level - 1.0, 128).astype(np.float32)
        channel = table[stored[k].view(np.uint8)]
        if blur:
            channel = cv2.GaussianBlur(channel, (0, 0), blur)
        channel += (rng.random(channel.shape, np.float32) - np.float32(0.5)) * np.float32(noise)
        np.clip(channel, -1.0, 1.0, out=image[k])
    return image, mask
