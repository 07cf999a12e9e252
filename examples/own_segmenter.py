"""Your own segmenter: a class with one method takes the place of the network in the perception pipeline."""

import cv2
import numpy as np

from wm_perception.pipeline import PerceptionPipeline
from wm_perception.types import Frame, PerceptionConfig, Segmentation
from wm_sim.simulator import Simulator


class ConnectedPixels:
    """Every connected patch of pixels that stand clear of the supports is one object."""

    def __init__(self, min_pixels: int = 50) -> None:
        self.min_pixels = min_pixels

    def segment(self, frame, cloud, candidates, height, predicted) -> Segmentation:
        """``wm_perception.types.Segmenter`` says what each argument is; all images are (h, w) of the cloud's size."""
        _, patches, statistics, _ = cv2.connectedComponentsWithStats(candidates.astype(np.uint8), connectivity=4)
        large = statistics[:, cv2.CC_STAT_AREA] >= self.min_pixels
        large[0] = False  # what is no candidate
        labels = np.where(large, np.cumsum(large), 0)[patches]
        return Segmentation(labels.astype(np.int32), keys=np.full(large.sum(), -1))  # -1: the tracker finds out which


pipeline = PerceptionPipeline(PerceptionConfig(stride=1), segmenter=ConnectedPixels())
with Simulator("two_balls", width=320, height=240) as world:
    for _ in range(12):
        world.step()
        image = world.render()
        result = pipeline.process(Frame(world.stamp_ns, image.rgb, image.depth, world.camera, image.world_T_camera))
    ground_truth = world.ground_truth()

found = result.scene.select(~result.scene.is_static)
print(f"{len(found)} objects found, {int((~ground_truth.is_static).sum())} are there")
for name, position in zip(found.class_names, found.positions, strict=True):
    distance = np.linalg.norm(ground_truth.positions - position, axis=1)
    nearest = ground_truth.class_names[int(distance.argmin())]
    print(f"{name} at {np.round(position, 2)} m: a {nearest} has its center {1e3 * distance.min():.0f} mm away")
