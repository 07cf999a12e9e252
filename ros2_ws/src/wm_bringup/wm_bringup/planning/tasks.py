"""Push tasks on the simulated table, drawn by a seed.

``make_task``: an object to a place. ``make_pose_task``: a T to a pose (Push-T, of Chi et al., "Diffusion policy", 2023,
there in the plane).

A task is a random table, an object to push, a goal 0.2 to 0.4 m away, and a tall object near the way. The ranges of
sizes and places are set by hand for the simulated table; another range makes other tasks of the same seeds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wm_planning.config import PushPlannerConfig
from wm_sim.scene_model import SceneModel

Array = NDArray[np.float64]

PUSHER_NAME = "paddle"
_HOME = (-0.30, 0.50, 0.30)
"""Start of the paddle, over the table's front left corner [m, from the table's center]: out of every object's reach."""
_T_HALF = (0.30, 0.45)
"""Half sides (2,) [m] of the area, about the table's center, in which a T starts and has its goal. Larger makes it fall
off the table, as it is 16 to 20 cm long."""
_T_CAMERA = {"position": [-0.95, 0.0, 0.90], "target": [0.0, 0.0, 0.0], "vertical_fov": 50.0}
"""Camera of the tasks with a T, position and target from the table's center [m], field of view [degrees]: all of a T is
seen wherever it may start or shall go. From the scenes' usual camera 15 of 100 start partly out of view."""


@dataclass(frozen=True)
class Task:
    """A push task.

    Attributes:
        seed: that it was drawn by.
        scene: the table with its objects.
        target, tall: names of objects in the scene: the one to push, and the one that must stand ("": none).
        goal: (2,) of the target's center [m], map frame.
        turn: about the vertical, from the target's start to its goal [rad]; None: it may be turned in any way.
        tolerance_m, tolerance_rad: of the target's center and of its turn, at which the task is done.
    """

    seed: int
    scene: SceneModel
    target: str
    tall: str
    goal: Array
    turn: float | None = None
    tolerance_m: float = 0.03
    tolerance_rad: float = np.pi


def _radius(item: dict[str, Any]) -> float:
    return 0.5 * float(np.hypot(*item["size"][:2])) if item["shape"] == "box" else 0.5 * float(item["size"][0])


def _target(rng: np.random.Generator) -> dict[str, Any]:
    if rng.uniform() < 0.5:
        size = [float(v) for v in (*rng.uniform(0.05, 0.09, 2), rng.uniform(0.05, 0.10))]
        return {"name": "target", "class_name": "box", "shape": "box", "size": size}
    size = [float(rng.uniform(0.05, 0.08)), float(rng.uniform(0.06, 0.11))]
    return {"name": "target", "class_name": "can", "shape": "cylinder", "size": size}


def _tall(rng: np.random.Generator) -> dict[str, Any]:
    kind = str(rng.choice(["box", "cylinder", "bottle"]))
    height = float(rng.uniform(0.18, 0.24))
    if kind == "box":
        size = [float(v) for v in (*rng.uniform(0.035, 0.055, 2), height)]
    else:
        size = [float(rng.uniform(0.04, 0.055)) * (1.3 if kind == "bottle" else 1.0), height]
    return {"name": "tall", "class_name": "bottle" if kind == "bottle" else "object", "shape": kind, "size": size}


def _other(rng: np.random.Generator, name: str) -> dict[str, Any]:
    kind = str(rng.choice(["box", "cylinder", "sphere", "mug", "bowl"], p=[0.35, 0.25, 0.15, 0.15, 0.10]))
    size = {
        "box": [float(v) for v in rng.uniform(0.04, 0.10, 3)],
        "cylinder": [float(rng.uniform(0.05, 0.08)), float(rng.uniform(0.05, 0.12))],
        "sphere": [float(rng.uniform(0.05, 0.08))],
        "mug": [float(rng.uniform(0.07, 0.09)), float(rng.uniform(0.08, 0.10))],
        "bowl": [float(rng.uniform(0.10, 0.13)), float(rng.uniform(0.05, 0.07))],
    }[kind]
    return {
        "name": name,
        "class_name": {"sphere": "ball", "cylinder": "can"}.get(kind, kind),
        "shape": kind,
        "size": size,
    }


def make_task(seed: int, table_look: str = "wood") -> Task:
    """The task of a seed."""
    rng = np.random.default_rng([seed, 4711])
    half = np.array([0.5, 0.65])
    for _ in range(1000):
        target, tall = _target(rng), _tall(rng)
        start = rng.uniform(-1.0, 1.0, 2) * (half - 0.20)
        angle, distance = rng.uniform(-np.pi, np.pi), rng.uniform(0.2, 0.4)
        ahead = np.array([np.cos(angle), np.sin(angle)])
        goal = start + distance * ahead
        if (np.abs(goal) > half - 0.15).any():
            continue
        # The tall object beside the way, sometimes in it.
        between = rng.uniform(0.35, 0.75) * distance
        gap = rng.uniform(-0.02, 0.04)
        side = rng.choice([-1.0, 1.0]) * (_radius(target) + _radius(tall) + gap)
        where = start + between * ahead + side * np.array([-ahead[1], ahead[0]])
        free = _radius(target) + _radius(tall) + 0.03
        if np.linalg.norm(where - start) < free or np.linalg.norm(where - goal) < free:
            continue
        items = [target | {"position": start.tolist()}, tall | {"position": where.tolist()}]
        for number in range(int(rng.integers(1, 5))):
            for _ in range(40):
                other = _other(rng, f"other{number}")
                spot = start + rng.uniform(-0.4, 0.4, 2)
                if (np.abs(spot) > half - 0.10).any():
                    continue
                apart = [
                    np.linalg.norm(spot - np.array(i["position"])) - _radius(other) * 1.2 - _radius(i) for i in items
                ]
                clear = np.linalg.norm(spot - goal) - _radius(other) * 1.2 - _radius(target)
                if min(apart) > 0.03 and clear > 0.03:
                    items.append(other | {"position": spot.tolist()})
                    break
        colors = rng.permutation(["orange", "green", "purple", "teal", "yellow", "pink"]).tolist()
        for item, color in zip(items[1:], colors, strict=False):
            item["color"] = color
        items[0]["color"] = "red"
        for item in items:
            item |= {
                "yaw": float(rng.uniform(0.0, 360.0)),
                "density": float(rng.uniform(200.0, 900.0)),
                "friction": float(rng.uniform(0.3, 0.65)),
            }
        scene = SceneModel.model_validate(
            {
                "name": f"push_{seed}",
                "description": "An object to push to a place, and a tall one near the way.",
                "duration": 120.0,
                "table": {"size": [1.0, 1.3, 0.04], "height": 0.75, "look": table_look},
                "objects": items,
                "pushers": [
                    {
                        "name": PUSHER_NAME,
                        "shape": "box",
                        "size": list(PushPlannerConfig().paddle),
                        "friction": PushPlannerConfig().paddle_friction,
                        "path": [[0.0, *_HOME]],
                    }
                ],
            }
        )
        return Task(seed, scene, "target", "tall", goal)
    raise RuntimeError(f"seed {seed}: no room for a task after 1000 draws")


def make_pose_task(seed: int, table_look: str = "wood") -> Task:
    """The Push-T task of a seed: a T of 16 to 20 cm, 5 to 25 cm from its goal, turned by up to half a turn.

    Done within 2 cm and 10 degrees.
    """
    rng = np.random.default_rng([seed, 1123])
    half = np.array(_T_HALF)
    start = rng.uniform(-half, half)
    while True:
        angle, distance = rng.uniform(-np.pi, np.pi), rng.uniform(0.05, 0.25)
        goal = start + distance * np.array([np.cos(angle), np.sin(angle)])
        if (np.abs(goal) < half).all():
            break
    config = PushPlannerConfig.for_poses()
    target = {
        "name": "target",
        "class_name": "object",
        "shape": "tee",
        "size": [float(rng.uniform(0.16, 0.20)), float(rng.uniform(0.04, 0.06))],
        "position": start.tolist(),
        "yaw": float(rng.uniform(0.0, 360.0)),
        "color": str(rng.choice(["orange", "green", "purple", "teal", "yellow", "pink", "red"])),
        "density": float(rng.uniform(200.0, 900.0)),
        "friction": float(rng.uniform(0.3, 0.65)),
    }
    scene = SceneModel.model_validate(
        {
            "name": f"push_t_{seed}",
            "description": "A T to push to a pose.",
            "duration": 300.0,
            "table": {"size": [1.0, 1.3, 0.04], "height": 0.75, "look": table_look},
            "camera": _T_CAMERA,
            "objects": [target],
            "pushers": [
                {
                    "name": PUSHER_NAME,
                    "shape": "box",
                    "size": list(config.paddle),
                    "friction": config.paddle_friction,
                    "path": [[0.0, *_HOME]],
                }
            ],
        }
    )
    turn = float(rng.uniform(-np.pi, np.pi))
    return Task(seed, scene, "target", "", goal, turn, 0.02, float(np.radians(10.0)))
