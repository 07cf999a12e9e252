"""Your own planner: model-predictive path integral (MPPI) over imagined pushes, 64 futures in one request."""

import numpy as np

from wm_core.interventions import BodySpec, path_batch
from wm_core.rollout import POSITION, ImagineRequest, StatesWanted
from wm_core.scene_graph import SceneGraph, Shape
from wm_imagination.engine import Imagination

TABLE, BOX, CUP = 1, 2, 3  # object ids
scene = SceneGraph.build(
    [TABLE, BOX, CUP],
    positions=[(0.0, 0.0, -0.02), (0.0, 0.0, 0.04), (0.16, -0.02, 0.05)],
    extents=[(1.2, 1.2, 0.04), (0.08, 0.08, 0.08), (0.07, 0.07, 0.1)],
    shapes=[Shape.BOX, Shape.BOX, Shape.CYLINDER],
    is_static=[True, False, False],
)
goal = np.array([0.20, 0.18])  # of the box [m]; the cup must not be touched
finger = BodySpec(Shape.SPHERE, np.full(3, 0.03))
times = [0.0, 0.5, 1.0, 1.5]  # of the knots of the finger's path [s]
count, temperature, scatter = 64, 0.01, np.array([0.0, 0.02, 0.04, 0.06])[:, None]  # [m], the start is fixed

rng = np.random.default_rng(0)
imagination = Imagination()
start = np.array([-0.07, -0.07])
mean = start + np.linspace(0.0, 1.0, len(times))[:, None] * (goal - start)  # (M, 2) knots, straight to the goal
for step in range(5):
    knots = mean + scatter * rng.standard_normal((count, *mean.shape))  # (K, M, 2)
    knots[0] = mean
    paths = np.concatenate([knots, np.full((*knots.shape[:2], 1), 0.03)], axis=2)
    request = ImagineRequest(
        (),
        horizon_s=2.0,
        batches=(path_batch(paths, times, finger),),
        pairs=((BOX, CUP), (scene.ids.max() + 1, CUP)),  # the finger's id is the next free one
        want_states=StatesWanted.FINAL,
        want_events=False,
    )
    rollout = imagination.imagine(request, scene)
    box = rollout.final_states[:, 0, scene.index(BOX), POSITION]  # (K, 3)
    cost = np.linalg.norm(box[:, :2] - goal, axis=1) + 0.5 * rollout.pair_collision.max(axis=1)
    cost[~rollout.usable] = np.inf
    weights = np.exp((cost.min() - cost) / temperature)
    mean = np.einsum("k,kmi->mi", weights / weights.sum(), knots)
    best = int(cost.argmin())
    touched = "touches" if rollout.pair_collision[best].any() else "clear of"
    left = f"{1e3 * np.linalg.norm(box[best, :2] - goal):3.0f} mm"
    print(f"round {step}: the best of {count} pushes leaves the box {left} from the goal, {touched} the cup")
print("the finger's path:")
for t, (x, y) in zip(times, knots[best], strict=True):
    print(f"  at {t:.1f} s ({x:5.2f}, {y:5.2f}) m")
