"""What the segmenter is, how it was made, and how good it is on what it has never seen: the model card."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.progress import Progress

from training.common.model_card import WorstFrame, write_model_card
from training.common.trainer import count_parameters
from training.segmenter.evaluate import Evaluation, evaluate, session, worst_frames
from training.segmenter.model import WIDTHS
from training.worlds.dataset import prepare
from training.worlds.families import HELD_OUT, VOCABULARY
from training.worlds.generate import HEIGHT, IMAGES, WIDTH, generate
from training.worlds.homeware.catalog import FAMILIES as HOMEWARE
from training.worlds.motions import DURATION_S
from training.worlds.splits import Split

if TYPE_CHECKING:
    from training.segmenter.borders import BorderTrainer
    from training.segmenter.options import Options
    from training.segmenter.trainer import Trainer

AIMS = {"seeds": {"mask_ap50": 0.92, "mask_ap": 0.75}, "families": {"mask_ap50": 0.85, "mask_ap": 0.60}}

ABOUT_HOMEWARE = (
    f"The split homeware has {len(HOMEWARE)} families of household things ({', '.join(HOMEWARE)}) in heaps, bins, "
    "shelves, on tables and floors, with the depth errors of Kinect v1, RealSense D4xx and telephones' lidars. "
    "Licenses of its assets: all shapes, prints and textures are drawn by this project's own code (Apache-2.0); no "
    "scan, photograph or mesh of others is among them; letters of prints are Hershey's fonts as OpenCV draws them "
    "(public domain) and DejaVu as matplotlib ships it (Bitstream Vera's license, changes in the public domain). "
    "What is held out is less unseen with homeware: the held-out pan and goblet are new forms of kinds that "
    "it has (pans, cups), the cone is like its lampshades and tubs, the cross like its T-shaped blocks, and the "
    "texture checker like its weave."
)
"""Said in the card of weights that were trained on household things: licenses, and what is no longer wholly unseen."""


def measure(arguments: argparse.Namespace, console: Console) -> tuple[dict[str, Evaluation], list[WorstFrame]]:
    """Scores of the ONNX file on both held-out splits, and their worst frames."""
    network = session(arguments.models / "segmenter.onnx", arguments.threads)
    results: dict[str, Evaluation] = {}
    worst: list[WorstFrame] = []
    splits: tuple[Split, ...] = ("seeds", "families")
    for split in splits:
        folder = arguments.data / split
        shards = generate(folder, split, arguments.held_out_clips, IMAGES, 0, arguments.threads, console)
        data = prepare(shards, arguments.work / f"features_{split}", arguments.threads, console)
        with Progress(console=console) as progress:
            bar = progress.add_task(f"evaluation: {split}", total=len(data.masks))
            results[split] = evaluate(
                network,
                data,
                lambda done: progress.update(bar, completed=done),  # noqa: B023
                refined=False,
            )
        worst += worst_frames(network, data, results[split].quality, split, 5)
    return results, worst


def write_card(
    arguments: argparse.Namespace, options: Options, trainer: Trainer, borders: BorderTrainer, console: Console
) -> None:
    """Measures, and writes the model card beside the weights."""
    import torch

    results, worst = measure(arguments, console)
    metrics: dict[str, dict[str, Any]] = {}
    for split, result in results.items():
        facts = {k: v for k, v in asdict(result).items() if k not in ("quality", "images", "objects")}
        facts["mean_iou"] = float(np.mean(result.quality))
        metrics[split] = {k: None if np.isnan(v) else round(v, 4) for k, v in facts.items()}
    device = torch.cuda.get_device_name() if trainer.device.type == "cuda" else f"CPU, {arguments.threads} threads"
    clips = arguments.held_out_clips
    more = {"assemblies": options.assemblies, "homeware": options.homeware, "stacks": options.stacks}
    images = f"{IMAGES} images of {WIDTH} x {HEIGHT} from each clip of {DURATION_S:g} s"
    card = write_model_card(
        arguments.models,
        "segmenter",
        {
            "title": "wm segmenter",
            "summary": "Instance masks of all objects on a table or floor, of known class or not, from color, depth "
            "and "
            "height over the support; then their class (`object`: none of the known ones), and a vector of their "
            "appearance.",
            "architecture": f"Residual U-Net, widths {WIDTHS}, that gives foreground, center and offset maps, grouped "
            f"into instances as in Panoptic-DeepLab, {len(VOCABULARY)} classes ({', '.join(VOCABULARY)}), "
            "16 numbers of appearance, and a head for borders between objects, which sees the image as well.",
            "parameters": count_parameters(trainer.network),
            "license": "Apache-2.0, as the project; trained on its own simulated images alone",
            "data": {
                "command": "make data",
                "seeds": f"train 0..{options.clips - 1}"
                + "".join(f", {s} 0..{n - 1}" for s, n in more.items() if n)
                + (f" (stacks in the last {options.settling} steps alone)" if options.stacks else "")
                + "; the held-out splits draw from generators of their own",
                "about": f"Simulated with MuJoCo: {images}, with sensor noise. Shapes held out: {', '.join(HELD_OUT)}; "
                "textures held out: checker, rings, cells. Household objects of other owners are for measuring alone "
                "(docs/perception_bench.md): none is trained on." + (f" {ABOUT_HOMEWARE}" if options.homeware else ""),
                "splits": {
                    "train": {"clips": options.clips, "images": options.clips * IMAGES},
                    **{s: {"clips": n, "images": n * IMAGES} for s, n in more.items() if n},
                    **{s: {"clips": clips, "images": r.images, "things": r.objects} for s, r in results.items()},
                },
            },
            "training": {
                "command": "make train-segmenter",
                "seed": options.seed,
                "steps": options.steps,
                "border_head_steps": borders.step,
                "batch": options.batch,
                "seconds": round(trainer.seconds + borders.seconds),
                "device": device,
                "precision": "bfloat16" if trainer.half else "float32",
            },
            "metrics": metrics,
            "aims": AIMS,
            "limits": [
                "Trained on simulated images alone; recorded ones were used to check it, not to train it.",
                "Objects of fewer than about 30 pixels at 320 x 240 are missed.",
                "Objects that touch and have the same appearance may be merged; long thin parts may be cut off.",
            ],
        },
        trainer.curve,
        worst,
    )
    console.print(f"written: {card}")
