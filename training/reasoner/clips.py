"""Rendered clips for the reasoner, run through the perception pipeline up to its tracker.

``python -m training.reasoner.clips`` renders worlds of the training split (about 6 s per clip of 4 s on one core) and
keeps, beside the ground truth, the tracks of every frame and the true id of each. A clip is written to a temporary name
and renamed when it is complete, so that an interrupted run can be resumed. It depends on its seed and on the
segmenter's weights alone.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from training.reasoner.data import LabeledClip, pack, unpack
from training.reasoner.examples import Example, make_example
from training.reasoner.metrics import clip_ground_truth
from training.reasoner.rendered_clips import ClipPlan, Kind, RenderedClip, render_clip
from wm_core.scene_graph import Event, SceneGraph
from wm_perception.evaluation import match
from wm_perception.pipeline import PerceptionPipeline
from wm_perception.reasoning.features import RATE_HZ
from wm_perception.reasoning.reasoner import Reasoner
from wm_perception.reasoning.steps import Step, step_of
from wm_perception.types import Frame, PerceptionConfig

FIRST_SEED = 30_000
"""Apart from the seeds of the simulated tracks and of development clips (70000 on)."""
SECONDS = 4.0
"""Length of a clip [s], the same as that of simulated clips (``data.SECONDS``)."""
_KINDS: tuple[Kind, ...] = ("lively", "busy", "lively", "busy", "random", "lively", "busy", "behind", "lively", "away")
"""Kinds of every ten clips."""


@dataclass(frozen=True)
class PerceivedClip:
    """A labeled clip and its tracks.

    Attributes:
        labeled: the ground truth.
        steps: the tracks of each frame, under perceived ids.
        names: per step {perceived id: true id} of the tracks that are matched.
    """

    labeled: LabeledClip
    steps: tuple[Step, ...]
    names: tuple[dict[int, int], ...]


class _Recorder(Reasoner):
    """Keeps the tracker's scenes and adds nothing to them."""

    def __init__(self, config: PerceptionConfig) -> None:
        super().__init__(config)
        self.scenes: list[SceneGraph] = []

    def update(self, scene: SceneGraph, tracked: Sequence[Event] = ()) -> SceneGraph:
        """Keeps the scene and returns it unchanged."""
        self.scenes.append(scene)
        return scene


def watch(clip: RenderedClip, config: PerceptionConfig) -> tuple[tuple[Step, ...], tuple[dict[int, int], ...]]:
    """Steps and names (see ``PerceivedClip``) of a rendered clip."""
    recorder = _Recorder(config)
    pipeline = PerceptionPipeline(config, reasoner=recorder)
    steps, names = [], []
    for frame, time in zip(clip.frames, clip.ground_truth.times, strict=True):
        pipeline.process(Frame(frame.stamp_ns, frame.rgb, frame.depth, clip.camera, frame.scene.world_T_camera))
        scene = recorder.scenes[-1]
        steps.append(step_of(scene, float(time)))
        names.append({int(scene.ids[p]): int(frame.scene.ids[t]) for p, t, _ in match(scene, frame.scene)})
    return tuple(steps), tuple(names)


def make_perceived_clip(seed: int, config: PerceptionConfig) -> PerceivedClip | None:
    """Render the clip of a seed and run perception on it; None where the physics diverged."""
    plan = ClipPlan("train", seed, _KINDS[seed % len(_KINDS)], SECONDS, RATE_HZ)
    try:
        clip = render_clip(plan)
    except ValueError:
        return None
    ground_truth = clip_ground_truth(clip.world, clip.ground_truth)
    steps, names = watch(clip, config)
    return PerceivedClip(
        LabeledClip(clip.ground_truth, ground_truth.events, ground_truth.caused, clip.world.table_top_z), steps, names
    )


_COLUMNS = ("positions", "quaternions", "velocities", "extents", "shapes", "visibilities", "floors")


def _write(task: tuple[Path, int]) -> int:
    path, seed = task
    arrays: dict[str, NDArray[Any]] = {}
    seen = make_perceived_clip(seed, PerceptionConfig(inference_threads=1))
    if seen is not None:
        sizes = [len(s.ids) for s in seen.steps]
        hulls = [h for s in seen.steps for h in s.hulls]
        arrays = {f"lesson/{k}": v for k, v in pack(seen.labeled).items()}
        arrays |= {
            "steps/times": np.array([s.time for s in seen.steps]),
            "steps/sizes": np.array(sizes),
            "steps/ids": np.concatenate([s.ids for s in seen.steps]).astype(np.int64),
            "steps/true": np.array(
                [n.get(int(i), 0) for s, n in zip(seen.steps, seen.names, strict=True) for i in s.ids], np.int64
            ),
            "steps/hulls": np.concatenate([np.zeros((0, 3)), *hulls]).astype(np.float32),
            "steps/hull_sizes": np.array([len(h) for h in hulls], np.int64),
        }
        arrays |= {f"steps/{c}": np.concatenate([getattr(s, c) for s in seen.steps]) for c in _COLUMNS}
    part = path.with_suffix(".part.npz")
    np.savez_compressed(part, **arrays)  # type: ignore[arg-type]
    part.rename(path)
    return 1


def read_perceived_clip(path: Path) -> PerceivedClip | None:
    """The clip of a file; None where the world of its seed diverged."""
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    if not arrays:
        return None
    labeled = unpack({k[7:]: v for k, v in arrays.items() if k.startswith("lesson/")})
    a = {k[6:]: v for k, v in arrays.items() if k.startswith("steps/")}
    hulls = np.split(a["hulls"].astype(np.float64), np.cumsum(a["hull_sizes"])[:-1]) if len(a["hull_sizes"]) else []
    steps, names = [], []
    end = 0
    for time, size in zip(a["times"], a["sizes"], strict=True):
        part = slice(end, end := end + int(size))
        steps.append(
            Step(
                time=float(time),
                ids=a["ids"][part],
                hulls=tuple(hulls[part]),
                **{c: a[c][part] for c in _COLUMNS},
            )
        )
        names.append({int(p): int(t) for p, t in zip(a["ids"][part], a["true"][part], strict=True) if t})
    return PerceivedClip(labeled, tuple(steps), tuple(names))


def _path(folder: Path, seed: int) -> Path:
    return folder / f"seen_{seed:06d}.npz"


def load_seen_examples(folder: Path, clips: int, first_seed: int = FIRST_SEED) -> list[Example]:
    """Examples of the clips of a folder, by seed.

    Raises:
        FileNotFoundError: a clip is missing (``make_perceived_clips`` makes it).
    """
    examples = []
    for seed in range(first_seed, first_seed + clips):
        if (seen := read_perceived_clip(_path(folder, seed))) is None:
            continue
        rng = np.random.default_rng([seed, 29])
        example = make_example(seen.labeled, rng, seen.steps, seen.names)
        if len(example.here):
            examples.append(example)
    return examples


def make_perceived_clips(
    folder: Path, clips: int, workers: int, console: Console, first_seed: int = FIRST_SEED
) -> None:
    """Writes the clips that are missing."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [(_path(folder, seed), seed) for seed in range(first_seed, first_seed + clips)]
    tasks = [task for task in paths if not task[0].exists()]
    if not tasks:
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress, multiprocessing.get_context("spawn").Pool(workers) as pool:
        bar = progress.add_task("clips rendered and perceived", total=len(tasks))
        for count in pool.imap_unordered(_write, tasks):
            progress.advance(bar, count)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=200, help=f"of {SECONDS:g} s each (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (default: %(default)s)")
    parser.add_argument("--first-seed", type=int, default=FIRST_SEED, help="default: %(default)s")
    parser.add_argument("--out", type=Path, default=Path("out/data/reasoner/seen"), help="default: %(default)s")
    arguments = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 120)
    make_perceived_clips(arguments.out, arguments.clips, arguments.workers, console, arguments.first_seed)


if __name__ == "__main__":
    main()
