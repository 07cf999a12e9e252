"""A what-if: a ball comes toward a box; what if the box were not there, or the ball were stopped?"""

from wm_core.interventions import Hypothesis, remove, set_velocity
from wm_core.rollout import ImagineRequest
from wm_core.scene_graph import EventKind, SceneGraph, Shape
from wm_imagination.engine import Imagination

TABLE, BALL, BOX = 1, 2, 3  # object ids
scene = SceneGraph.build(
    [TABLE, BALL, BOX],
    positions=[(0.0, 0.0, -0.02), (-0.3, 0.0, 0.04), (0.0, 0.0, 0.05)],  # centers [m]; the table's top is z = 0
    extents=[(1.0, 1.0, 0.04), (0.08, 0.08, 0.08), (0.1, 0.1, 0.1)],  # full sizes [m]
    shapes=[Shape.BOX, Shape.SPHERE, Shape.BOX],
    is_static=[True, False, False],
    linear_velocities=[(0.0, 0.0, 0.0), (0.8, 0.0, 0.0), (0.0, 0.0, 0.0)],  # [m/s]
)
no_box = Hypothesis("no box", (remove(BOX),))
stopped = Hypothesis("ball stopped", (set_velocity(BALL, (0.0, 0.0, 0.0), at_s=0.1),))
request = ImagineRequest((Hypothesis("as it is"), no_box, stopped), horizon_s=1.0)
rollout = Imagination().imagine(request, scene)
for k, name in enumerate(rollout.hypotheses):
    x, _, _ = rollout.positions(k)[-1, rollout.index(BALL)]
    contacts = [f"{e.time_s:.2f} s" for e in rollout.events if e.hypothesis == k and e.kind == EventKind.CONTACT]
    print(f"{name}: after 1 s the ball is at x = {x:.2f} m; it touches the box at {', '.join(contacts) or 'no time'}")
