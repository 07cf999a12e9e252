"""A new intervention: wind, put together from impulses that every dynamics backend knows."""

import numpy as np

from wm_core.interventions import Hypothesis, Intervention, apply_impulse
from wm_core.rollout import ImagineRequest
from wm_core.scene_graph import EventKind, SceneGraph, Shape
from wm_imagination.engine import Imagination
from wm_imagination.validation import Limits

STEP_S = 1.0 / 60.0  # between impulses [s]; the dynamics step at this rate
AIR_DENSITY_KG_M3, DRAG_COEFFICIENT = 1.2, 1.0  # air at room temperature; about that of a box


def wind(scene: SceneGraph, speed_m_s: float, duration_s: float) -> tuple[Intervention, ...]:
    """Wind along +x: drag on what every movable object shows to it, ``F = rho / 2 * c * A * v^2``, step by step."""
    pressure = 0.5 * AIR_DENSITY_KG_M3 * DRAG_COEFFICIENT * speed_m_s**2  # [N/m^2]
    return tuple(
        apply_impulse(int(i), (pressure * y * z * STEP_S, 0.0, 0.0), at_s=float(at))
        for i, (_, y, z), static in zip(scene.ids, scene.extents, scene.is_static, strict=True)
        for at in np.arange(0.0, duration_s, STEP_S)
        if not static
    )


TABLE, BALL, CARTON, CUP = 1, 2, 3, 4  # object ids
scene = SceneGraph.build(
    [TABLE, BALL, CARTON, CUP],
    positions=[(0.0, 0.0, -0.02), (-0.2, -0.2, 0.04), (-0.2, 0.0, 0.12), (-0.2, 0.2, 0.05)],
    extents=[(2.0, 2.0, 0.04), (0.08, 0.08, 0.08), (0.06, 0.16, 0.24), (0.08, 0.08, 0.1)],
    shapes=[Shape.BOX, Shape.SPHERE, Shape.BOX, Shape.CYLINDER],
    is_static=[True, False, False, False],
    log_mass=np.log([10.0, 0.05, 0.15, 0.4]),  # of kg
)
speeds = (2.0, 4.0, 6.0)
hypotheses = tuple(Hypothesis(f"{speed:g} m/s", wind(scene, speed, 0.4)) for speed in speeds)
# An engine of the default limits takes 64 interventions in a hypothesis; these are 3 objects times 24 steps.
imagination = Imagination(Limits(max_interventions=128))
rollout = imagination.imagine(ImagineRequest(hypotheses, horizon_s=1.0), scene)
for k, hypothesis in enumerate(hypotheses):
    ball, carton, cup = 1e3 * rollout.effect[k, 1:]
    fallen = any(e.hypothesis == k and e.kind == EventKind.TOPPLE and e.a == CARTON for e in rollout.events)
    print(
        f"wind of {hypothesis.name} for 0.4 s moves the ball by {ball:.0f} mm, the cup by {cup:.0f} mm, "
        f"the carton by {carton:.0f} mm{', which falls' if fallen else ''}"
    )
