"""Offline from a recording: its scene graphs, and what would follow if one object were not there."""

import argparse
import tempfile
from pathlib import Path

import numpy as np

from wm_bringup.recording.recordings import read
from wm_bringup.recording.replay import GRAPHS_FILE, replay
from wm_core.interventions import Hypothesis, remove
from wm_core.rollout import ImagineRequest
from wm_imagination.engine import Imagination
from wm_ros.conversions.scene_graph import scene_graph_from_msg

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("recording", type=Path, help="MCAP file or rosbag2 folder with color, depth, camera info (and tf)")
recording = parser.parse_args().recording

with tempfile.TemporaryDirectory() as folder:
    done = replay(recording, Path(folder))
    print(f"{recording.name}: {done.graphs} scene graphs of {done.frames} frames in {done.seconds:.1f} s")
    graphs = [scene_graph_from_msg(m.message()) for m in read(Path(folder) / GRAPHS_FILE, ["/wm/scene_graph"])]

scene = graphs[-1]
movable = scene.select(~scene.is_static)
for i, name, position in zip(movable.ids, movable.class_names, movable.positions, strict=True):
    print(f"{i}: {name} at {np.round(position, 2)} m")

hypotheses = tuple(Hypothesis(f"without {i}", (remove(int(i)),)) for i in movable.ids)
rollout = Imagination().imagine(ImagineRequest(hypotheses, horizon_s=1.0), scene)
for hypothesis, effect in zip(rollout.hypotheses, rollout.effect, strict=True):
    farthest = int(np.nan_to_num(effect).argmax())
    if np.nan_to_num(effect)[farthest] > 0.01:
        print(f"{hypothesis}: {rollout.object_ids[farthest]} ends up {effect[farthest]:.2f} m from where it would have")
    else:
        print(f"{hypothesis}: nothing else would move otherwise")
