"""The model card of the dynamics network, its figures on held-out worlds, and its videos.

Evaluation starts from true states of held-out worlds (other seeds; other shapes) and rolls one second out without
correction. ``make bench-imagination`` has the figures through the robot's own interface, from perceived states too.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from scipy.spatial import ConvexHull, QhullError

from training.common.model_card import WorstFrame, write_model_card
from training.common.trainer import count_parameters
from training.dynamics.data import FOLDER, DynamicsClip, generate, load
from training.dynamics.model import DynamicsStep
from training.dynamics.rollout import WindowBatch, make_batch, pose_errors, roll_out
from wm_core.rotations import quaternion_to_matrix
from wm_dynamics.contact_step.body_tables import ROWS, STEP_S

if TYPE_CHECKING:
    from training.dynamics.options import Options

Array = NDArray[np.float64]
HELD_OUT_CLIPS = 60
"""Clips of each held-out split."""
STEPS = 60
"""Steps of a rollout: 1 s."""
WORST = 6
"""Windows that are shown."""
_SIZE = 320
"""Pixels of a square picture."""


def outline(batch: WindowBatch, body: int) -> Array:
    """Points (P, 3) in a body's frame whose convex hull is its shape, as the network has it [m]."""
    parameters = batch.parameters[:, body].numpy().astype(np.float64)
    center, half = parameters[ROWS["center"]], parameters[ROWS["half"]]
    rounding = float(parameters[ROWS["rounding"]][0])
    hull = torch.nonzero(batch.hull_row == body)
    if len(hull):
        return batch.hull_points[:, :, int(hull[0, 0])].numpy().astype(np.float64).T
    if parameters[ROWS["cylinder"]][0] > 0:
        low_radius, low, high_radius, high = parameters[ROWS["rims"]]
        angle = np.linspace(0.0, 2.0 * np.pi, 20, endpoint=False)
        ring = np.stack([np.cos(angle), np.sin(angle), np.zeros(20)], axis=1)
        return np.concatenate([ring * low_radius + [0, 0, low], ring * high_radius + [0, 0, high]]) + center
    corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]) * half
    if rounding <= 0.0:
        return corners + center
    index = np.arange(60) + 0.5
    polar, azimuth = np.arccos(1.0 - 2.0 * index / 60.0), np.pi * (1.0 + 5.0**0.5) * index
    ball = np.stack([np.cos(azimuth) * np.sin(polar), np.sin(azimuth) * np.sin(polar), np.cos(polar)], axis=1)
    return (corners[:, None] + rounding * ball[None]).reshape(-1, 3) + center


def draw(batch: WindowBatch, states: NDArray[np.float32], bodies: Sequence[int], body: int, top: float) -> NDArray[Any]:
    """A picture (H, W, 3) of one instant of a window, seen from above at an angle; ``body`` is drawn in red."""
    image = np.full((_SIZE, _SIZE, 3), 245, np.uint8)
    focus = batch.ground_truth[:, :3, body].mean(dim=0).numpy().astype(np.float64)
    focus[2] = top
    view = np.array([[1.0, 0.0, 0.0], [0.0, 0.62, -0.78]])

    def project(points: Array) -> NDArray[np.int32]:
        flat = (points - focus) @ view.T * 520.0
        return (np.stack([flat[:, 0], -flat[:, 1]], axis=1) * [1, 1] + _SIZE / 2).astype(np.int32)

    surface = batch.surfaces[body, 0].astype(np.float64)
    if np.isfinite(surface).all():
        c, s, hx, hy = surface[3:7]
        corners = np.array([[-hx, -hy], [hx, -hy], [hx, hy], [-hx, hy]]) @ np.array([[c, s], [-s, c]]) + surface[1:3]
        table = np.concatenate([corners, np.full((4, 1), surface[0])], axis=1)
        cv2.fillConvexPoly(image, project(table), (228, 220, 208))
    for other in sorted(bodies, key=lambda b: float(states[2, b])):
        state = states[:, other].astype(np.float64)
        points = outline(batch, other) @ quaternion_to_matrix(state[3:7]).T + state[:3]
        flat = project(points)
        try:
            polygon = flat[ConvexHull(flat.astype(np.float64)).vertices]
        except QhullError:
            continue
        color = (214, 96, 60) if other == body else (90, 90, 90) if batch.kinematic[other] else (120, 160, 200)
        layer = image.copy()
        cv2.fillConvexPoly(layer, polygon, color)
        image = cv2.addWeighted(layer, 0.75, image, 0.25, 0.0)
        cv2.polylines(image, [polygon], True, (40, 40, 40), 1, cv2.LINE_AA)
    return image


def write_video(path: Path, frames: Sequence[NDArray[np.uint8]], rate_hz: int = 30) -> None:
    """H.264 of frames (H, W, 3) RGB."""
    import av

    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=rate_hz)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": "28"}
        for frame in frames:
            for packet in stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")):
                file.mux(packet)
        for packet in stream.encode():
            file.mux(packet)


@torch.no_grad()
def worst_cases(network: DynamicsStep, clips: list[DynamicsClip], path: Path, seed: int) -> list[WorstFrame]:
    """The windows with the largest errors, as pictures, and as a video of ground truth beside prediction, one after
    another.
    """
    from training.dynamics.trainer import draw_windows

    windows = draw_windows(clips, 80, STEPS, np.random.default_rng(seed))
    batch = make_batch(windows, STEPS)
    states, _ = roll_out(network, batch, STEPS)
    position, _ = pose_errors(states, batch.ground_truth[1:], batch.parameters)
    error = torch.where(batch.scored, position[-1], torch.zeros(()))
    frames: list[NDArray[np.uint8]] = []
    cards: list[WorstFrame] = []
    seen: set[int] = set()
    for body in torch.argsort(error, descending=True).tolist():
        window = int(batch.window[body])
        if window in seen:
            continue
        seen.add(window)
        members = np.flatnonzero(batch.window == window).tolist()
        top = float(batch.ground_truth[0, 2, body])
        pair = []
        for step in range(0, STEPS + 1, 2):
            true = draw(batch, batch.ground_truth[step].numpy(), members, body, top)
            predicted = draw(
                batch, (batch.ground_truth[0] if step == 0 else states[step - 1]).numpy(), members, body, top
            )
            pair.append(np.concatenate([true, predicted], axis=1))
        frames.extend(pair)
        cards.append(
            WorstFrame(
                f"case {len(cards) + 1}, ground truth left",
                f"{float(error[body]):.2f} m off after 1 s",
                {"after 0.2 s": pair[6], "after 0.5 s": pair[15], "after 1 s": pair[-1]},
            )
        )
        if len(cards) == WORST:
            break
    write_video(path, frames)
    return cards


def write_card(
    folder: Path,
    network: DynamicsStep,
    curve: Sequence[dict[str, float]],
    options: Options,
    seconds: float,
    calibration: dict[str, float],
) -> Path:
    """Evaluate on held-out seeds and shapes, and write the card, its curves, worst cases and their video."""
    from training.dynamics.trainer import measure

    metrics: dict[str, dict[str, float]] = {}
    baseline: dict[str, dict[str, float]] = {}
    worst: list[WorstFrame] = []
    untrained = DynamicsStep()
    for split in ("seeds", "families"):
        clips = load(generate(HELD_OUT_CLIPS, FOLDER, split))  # type: ignore[arg-type]
        metrics[split] = measure(network, clips, seed=7, count=160)
        baseline[split] = measure(untrained, clips, seed=7, count=160)
        if split == "families":
            worst = worst_cases(network, clips, folder / "dynamics_worst.mp4", seed=8)
    facts = {
        "title": "Dynamics: one step of a world of rigid objects, with learned contacts",
        "summary": (
            "A contact network that rolls thousands of futures out together: contacts get the relative velocity of "
            "their bodies, a network gives each contact its law, bodies get the impulses. Free flight, gravity, "
            "opposite impulses, contacts that only push and the friction cone are built in."
        ),
        "architecture": (
            f"{network.sweeps} sweeps of message passing between bodies and contacts per step of 1/60 s; a perceptron "
            "of 10 invariants, 16 and 16 units, 8 numbers for each contact's law; four contacts with the surface "
            "beneath each object and four for each near pair, from shape parameters. The few weights are shared by all "
            "contacts."
        ),
        "parameters": count_parameters(network),
        "license": "Apache-2.0",
        "data": {
            "command": "make train-dynamics (python -m training.dynamics.data)",
            "seeds": (
                f"train: worlds 500000 to {500000 + options.clips - 1} of the training split; held out: 60 worlds each "
                "of the splits seeds and families, which share no seed, and families no shape, with training"
            ),
            "about": "MuJoCo clips of 2.6 s in which objects slide, topple, drop, fly, vanish and are pushed by a "
            "block",
            "splits": {"train": {"clips": options.clips}, "seeds": {"clips": 60}, "families": {"clips": 60}},
        },
        "training": {
            "command": "make train-dynamics",
            "seed": options.seed,
            "seconds": round(seconds),
            "device": "CPU",
            "steps": options.steps,
            "batch": options.batch,
            "rate": options.rate,
            "longest_rollout_steps": options.longest,
            "scatter_factor": calibration["factor"],
        },
        "metrics": metrics,
        "baseline": baseline,
        "directions": dict.fromkeys(metrics["seeds"], "down"),
        "limits": [
            "A concave object whose parts are not known is its convex hull: objects in a bowl or on a handle move "
            "wrongly.",
            "A support is a level rectangle; an object half over its edge is held by the part of its face above it.",
            "Objects that slide on a face go about a tenth too far; restitution of those that land on a face is too "
            "low.",
            "The direction in which an object on its edge topples depends on less than is known; samples show that.",
        ],
        "notes": [
            "The baseline is the same network before training: built-in mechanics with neutral contact laws.",
            "`straight_*` in the tables are straight lines on the same windows. Errors are over objects that move by "
            f"more than 1 cm; rollouts of {STEPS * STEP_S:.0f} s from true states.",
            "Videos of the worst cases on held-out shapes, ground truth left: dynamics_worst.mp4.",
        ],
    }
    return write_model_card(folder, "dynamics", facts, curve, worst)


def main() -> int:
    """Write the card of the shipped weights anew."""
    from safetensors import safe_open

    from training.dynamics.exporting import load_weights
    from training.dynamics.options import MODELS, Options

    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--checkpoint", type=Path, default=Path("out/train/dynamics/checkpoint.safetensors"))
    parser.add_argument("--out", type=Path, default=MODELS)
    given = parser.parse_args()
    with safe_open(given.checkpoint, "pt") as file:
        facts = file.metadata()
    options = Options(**json.loads(facts["options"]))
    import onnx

    kept = {p.key: p.value for p in onnx.load(given.out / "dynamics.onnx").metadata_props}
    calibration = {"factor": float(kept.get("scatter_factor", "nan"))}
    network = load_weights(given.out / "dynamics.safetensors")
    path = write_card(given.out, network, json.loads(facts["curve"]), options, float(facts["seconds"]), calibration)
    Console().print(f"written: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
