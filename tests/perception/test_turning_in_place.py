"""An object that turns about its own middle: its center stays, and its axes follow all the same."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from wm_core.rotations import turn_about_z
from wm_perception.pipeline import PerceptionPipeline
from wm_perception.types import Frame, PerceptionConfig
from wm_sim.scene_model import SceneModel
from wm_sim.scenes import build_scene
from wm_sim.simulator import Simulator

RATE_HZ = 15.0


def follow(shape: str, size: list[float], rate_rad_s: float, until_rad: float) -> tuple[list[float], list[float]]:
    """True and perceived turns [rad] over time, of an object at rest for 1 s that then turns in place, then rests."""
    item = {"name": "it", "shape": shape, "size": size, "position": [0.0, 0.0], "yaw": 20.0, "color": "orange"}
    model = SceneModel.model_validate(
        {"name": "turn", "description": "", "duration": 10.0, "table": {"size": [1.0, 1.3, 0.04], "height": 0.75},
         "objects": [item]}
    )  # fmt: skip
    pipeline = PerceptionPipeline(PerceptionConfig())
    true, seen = [], []
    with Simulator(build_scene(model), 0, 640, 480) as simulator:
        begin = simulator.live.states()
        present = np.ones(len(begin), bool)
        first = None
        for number in range(round((2.0 + until_rad / rate_rad_s) * RATE_HZ)):
            turn = float(np.clip((number / RATE_HZ - 1.0) * rate_rad_s, 0.0, until_rad))
            states = begin.copy()
            states[1, 3:7] = (Rotation.from_euler("z", turn) * Rotation.from_quat(begin[1, 3:7])).as_quat()
            color, depth, _ = simulator.look(states, present, simulator.world_T_camera())
            stamp_ns = 1 + round(number / RATE_HZ * 1e9)
            scene = pipeline.process(Frame(stamp_ns, color, depth, simulator.camera, simulator.world_T_camera())).scene
            movable = np.flatnonzero(~scene.is_static)
            if number >= RATE_HZ - 1:
                assert len(movable) == 1, f"frame {number}: {len(movable)} objects"
                first = scene.quaternions[movable[0]] if first is None else first
                true.append(turn)
                seen.append(float(turn_about_z(scene.quaternions[movable[0]], first)))
    return true, seen


@pytest.mark.slow
@pytest.mark.parametrize(("shape", "size"), [("tee", [0.18, 0.05]), ("box", [0.2, 0.05, 0.06])])
def test_the_axes_follow_a_slow_turn_in_place(shape, size):
    true, seen = follow(shape, size, 0.5, 0.7)
    assert abs(seen[-1] - true[-1]) < np.radians(4.0)
    assert max(abs(s - t) for s, t in zip(seen, true, strict=True)) < np.radians(15.0)
    assert max(abs(s) for s, t in zip(seen, true, strict=True) if t == 0.0) < np.radians(1.0)
