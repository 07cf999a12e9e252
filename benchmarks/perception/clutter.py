"""Segmentation of clutter: heaps and bins of household objects, and single frames of real cameras.

Scored as unseen-object segmentation is on OCID (benchmarks/perception/clutter_scores.py): overlap and boundary
precision, recall and F, and the share of objects with F above 0.75. Real frames have no masks: the number of objects
found stands beside the number counted by eye (benchmarks/perception/real_counts.json). Prints tables; writes
out/bench/clutter.json and pictures.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks.perception.__main__ import ROOT, default_clip
from benchmarks.perception.clutter_scores import ClutterCounts, count_image, total
from benchmarks.perception.masks import LEAST_PIXELS
from benchmarks.perception.pictures import outlined
from training.worlds.appearance import open_simulator, random_noise
from training.worlds.household.catalogue import missing
from training.worlds.household.clutter import KINDS, Kind, clutter_scene
from wm_core.scene_graph import SceneGraph
from wm_perception.lifting.container_object import CLASS_NAME
from wm_perception.pipeline import PerceptionPipeline
from wm_perception.types import Frame, PerceptionConfig

WIDTH, HEIGHT = 640, 480
"""Size of the images [pixels]."""
FRAMES = 6
"""Images of one standing camera, at 15 Hz; the last is scored."""
REAL_SECONDS = 3.0
"""For which a single real frame is repeated, so that its objects are published."""
RATE_HZ = 15.0
FIRST_SEED = 60_000
"""Far from the seeds of the other measurements."""
COUNTS = Path(__file__).with_name("real_counts.json")
AIMS = {"overlap_f": 0.92, "boundary_f": 0.88}
"""Published on OCID, real data: 0.921 and 0.900."""
SCORES = ("overlap_precision", "overlap_recall", "overlap_f", "boundary_precision", "boundary_recall", "boundary_f")

Image = NDArray[np.uint8]


def look(seed: int, kind: Kind, config: PerceptionConfig) -> tuple[ClutterCounts, Image]:
    """Counts of one scene, and a picture: true objects at the left, found ones at the right."""
    scene = clutter_scene(seed, kind)
    pipeline = PerceptionPipeline(config)
    noise = random_noise(seed, "household", WIDTH)
    rng = np.random.default_rng([seed, KINDS.index(kind), 17])
    with open_simulator(scene, seed, WIDTH, HEIGHT) as simulator:
        pose = simulator.world_T_camera(0.0)
        rgb, depth, ids = simulator.look(scene.states, np.ones(len(scene.bodies), bool), pose)
        camera = simulator.camera
    for number in range(FRAMES):
        stamp_ns = round(number * 1e9 / RATE_HZ) + 1
        result = pipeline.process(Frame(stamp_ns, rgb, noise.apply(depth, rng), camera, pose))
    assert result.segmentation is not None
    labels = result.segmentation.labels
    step = max(1, round(HEIGHT / labels.shape[0]))
    true = np.where(ids == scene.ids[0], 0, ids)[::step, ::step][: labels.shape[0], : labels.shape[1]]
    small = cv2.resize(rgb, (labels.shape[1], labels.shape[0]), interpolation=cv2.INTER_AREA)
    picture = np.hstack([outlined(small, true), outlined(small, labels)])
    return count_image(true, labels, LEAST_PIXELS), picture


def perceive_frame(folder: Path, config: PerceptionConfig) -> tuple[SceneGraph, Image]:
    """The objects of a single frame that is repeated as a standing camera would, and a picture of the found masks."""
    from wm_bringup.sources.layouts import open_folder

    recording = open_folder(folder).registered().leveled()
    pipeline = PerceptionPipeline(config)
    first = recording.frame(0)
    for number in range(round(REAL_SECONDS * RATE_HZ)):
        stamp_ns = round(number * 1e9 / RATE_HZ) + 1
        found = pipeline.process(Frame(stamp_ns, first.color, first.depth_m, first.camera, first.world_T_camera))
    assert found.segmentation is not None
    labels = found.segmentation.labels
    small = cv2.resize(first.color, (labels.shape[1], labels.shape[0]), interpolation=cv2.INTER_AREA)
    # What is in a bin was counted by eye, and not the bin.
    things = ~found.scene.is_static & (np.array(found.scene.class_names) != CLASS_NAME)
    return found.scene.select(things), outlined(small, labels)


def count_real(
    folder: Path, config: PerceptionConfig, out: Path, console: Console
) -> dict[str, dict[str, int | str | list[int]]]:
    """Objects found on each frame of a folder that was counted by eye, beside the count."""
    by_eye = json.loads(COUNTS.read_text(encoding="utf-8"))["frames"]
    found: dict[str, dict[str, int | str | list[int]]] = {}
    for name, entry in by_eye.items():
        if not (folder / name).is_dir():
            continue
        console.print(f"... {name}")
        objects, picture = perceive_frame(folder / name, config)
        cv2.imwrite(str(out / f"real_{name}.png"), picture[..., ::-1])
        found[name] = {"found": len(objects), **entry}
    return found


def default_frames() -> Path:
    """Folder of the real frames, beside the recorded clip of ``make bench-perception``."""
    return default_clip().with_name("real_frames")


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.perception.clutter",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--scenes", type=int, default=20, help="of each kind; 0: real frames only (default: 20)")
    parser.add_argument("--seed", type=int, default=FIRST_SEED, help="of the first scene (default: %(default)s)")
    parser.add_argument("--segmenter-model", default="", metavar="FILE", help="in place of the shipped weights")
    parser.add_argument("--untrained", action="store_true", help="measure the pipeline without training")
    parser.add_argument("--threads", type=int, default=2, help="of the network (default: %(default)s)")
    parser.add_argument("--real-frames", type=Path, default=default_frames(), help="folder (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=ROOT / "out/bench", help="folder (default: %(default)s)")
    arguments = parser.parse_args(argv)
    for name, low, high in (("scenes", 0, 1000), ("threads", 1, 32)):
        value = getattr(arguments, name)
        if not low <= value <= high:
            parser.error(f"--{name}: got {value}, expected {low} to {high}")
    return arguments


def configuration(arguments: argparse.Namespace) -> PerceptionConfig:
    """The pipeline that is measured."""
    if arguments.untrained:
        return PerceptionConfig(segmenter="geometric", reasoner="geometric", inference_threads=arguments.threads)
    return PerceptionConfig(
        segmenter="learned" if arguments.segmenter_model else "auto",
        segmenter_model=arguments.segmenter_model,
        inference_threads=arguments.threads,
    )


def scores_table(scores: dict[str, dict[str, Any]]) -> Table:
    """Of each kind and of all."""
    table = Table(title="Clutter (aims: overlap F 92.0, boundary F 88.0)", pad_edge=False)
    for head in ("what", "images", "objects", "overlap P", "R", "F", "boundary P", "R", "F", "F above 0.75"):
        table.add_column(head, justify="left" if head == "what" else "right")
    for kind, row in scores.items():
        values = ["-" if row[key] is None else f"{1e2 * row[key]:.1f}" for key in (*SCORES, "good_share")]
        table.add_row(kind, str(row["images"]), str(row["objects"]), *values)
    return table


def real_frames_table(frames: dict[str, dict[str, Any]]) -> Table:
    """Objects found beside those counted by eye."""
    table = Table(title="Real frames: objects found", pad_edge=False)
    for head in ("frame", "found", "by eye", "what"):
        table.add_column(head, justify="right" if head in ("found", "by eye") else "left")
    for name, row in frames.items():
        low, high = row["objects"]
        style = "green" if low <= row["found"] <= high else "red"
        table.add_row(name, f"[{style}]{row['found']}[/]", str(low) if low == high else f"{low} to {high}", row["what"])
    return table


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    arguments = parse(argv)
    console = Console() if sys.stdout.isatty() else Console(width=130)
    arguments.out.mkdir(parents=True, exist_ok=True)
    config = configuration(arguments)
    notes: list[str] = []
    scores: dict[str, dict[str, Any]] = {}
    by_scene: dict[str, dict[str, Any]] = {}
    counts: dict[str, list[ClutterCounts]] = {}
    reason = missing()
    if reason is not None:
        notes.append(f"clutter is not measured: {reason}")
    for kind in KINDS if reason is None and arguments.scenes else ():
        pictures = []
        for seed in range(arguments.seed, arguments.seed + arguments.scenes):
            count, picture = look(seed, kind, config)
            counts.setdefault(kind, []).append(count)
            by_scene[f"{kind} {seed}"] = {**count.scores(), "objects": count.true, "found": count.found}
            pictures.append((count.scores()["overlap_f"] or 0.0, picture))
        pictures.sort(key=lambda item: item[0])
        worst = [p for _, p in pictures[:6]]
        cv2.imwrite(str(arguments.out / f"clutter_{kind}_worst.png"), np.vstack(worst)[..., ::-1])
    for name, each in {**counts, "all": [c for found in counts.values() for c in found]}.items():
        if each:
            added = total(each)
            scores[name] = {**added.scores(), "images": len(each), "objects": added.true}
    frames: dict[str, Any] = {}
    if arguments.real_frames.is_dir():
        frames = count_real(arguments.real_frames, config, arguments.out, console)
    if not frames:
        notes.append(f"no real frames in {arguments.real_frames}: not measured")
    if scores:
        console.print(scores_table(scores))
    if frames:
        console.print(real_frames_table(frames))
    for note in notes:
        console.print(f"note: {note}")
    document = {"scores": scores, "aims": AIMS, "scenes": by_scene, "real_frames": frames, "notes": notes}
    path = arguments.out / "clutter.json"
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    console.print(f"written: {path} and pictures beside it")
    return 0


if __name__ == "__main__":
    sys.exit(main())
