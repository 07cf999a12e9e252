"""One's own segmenter: its tensors are checked, its masks become instances of the cloud, the example works."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from model_files import make_model
from traced_table import Thing, frame
from wm_core.scene_graph import Shape
from wm_perception.evaluation import score_sequence
from wm_perception.lifting.cloud import make_cloud
from wm_perception.models.files import ModelError
from wm_perception.models.segmenter import make_segmenter
from wm_perception.pipeline import PerceptionPipeline
from wm_perception.segmentation.onnx import OnnxSegmenter, Placement, class_probabilities, place
from wm_perception.types import Frame, PerceptionConfig, PredictedObject
from wm_sim.depth_noise import DepthNoise
from wm_sim.simulator import Simulator

EXAMPLE = Path(__file__).resolve().parents[2] / "ros2_ws/src/wm_perception/examples/own_segmenter"
RED = Thing((0.0, 0.15, 0.05), (0.1, 0.1, 0.1), (200, 30, 30))
BLUE = Thing((0.0, -0.15, 0.05), 0.1, (30, 60, 200))
FRAME = frame(0, [RED, BLUE])
CLOUD = make_cloud(FRAME, 1, 4.0)
HEIGHT = CLOUD.points[..., 2]
CANDIDATES = np.nan_to_num(HEIGHT, nan=0.0) > 0.008
IS_RED = np.all(FRAME.color == RED.color, axis=-1)
IS_BLUE = np.all(FRAME.color == BLUE.color, axis=-1)
SIZE = (240, 320)
INPUT = {"rgb": (1, 3, *SIZE)}


def stack(*masks: np.ndarray) -> np.ndarray:
    return np.stack(masks).astype(np.float32)


def segmenter(path: Path, masks: np.ndarray, scores: list[float], **more: Any) -> OnnxSegmenter:
    outputs = {"masks": masks, "scores": np.array(scores, np.float32), **more.pop("outputs", {})}
    return OnnxSegmenter(make_model(path / "own.onnx", more.pop("inputs", INPUT), outputs, **more))


def segment(s: OnnxSegmenter, predicted: list[PredictedObject] | None = None):
    return s.segment(FRAME, CLOUD, CANDIDATES, HEIGHT, predicted or [])


@pytest.mark.parametrize("shape", [(2, *SIZE), (1, 2, *SIZE), (2, 1, *SIZE)])
def test_masks_become_instances(tmp_path: Path, shape: tuple[int, ...]):
    found = segment(segmenter(tmp_path, stack(IS_RED, IS_BLUE).reshape(shape), [0.8, 0.9]))
    assert found.labels.shape == CLOUD.depth.shape and found.labels.dtype == np.int32
    # In the order of the scores.
    np.testing.assert_allclose(found.scores, [0.9, 0.8])
    assert (found.labels[IS_BLUE] == 1).mean() > 0.97 and (found.labels[IS_RED] == 2).mean() > 0.97
    assert (found.labels[~(IS_RED | IS_BLUE)] == 0).all()
    assert found.keys.tolist() == [-1, -1] and found.class_names == () and found.embeddings.size == 0


def test_small_masks_of_a_padded_input_are_put_back_in_place(tmp_path: Path):
    # A square network: the image takes the upper three quarters.
    whole = np.zeros((320, 320))
    whole[:240] = IS_RED
    found = segment(segmenter(tmp_path, stack(whole[::4, ::4]), [0.9], inputs={"rgb": (1, 3, 160, 160)}))
    mask = found.labels == 1
    assert (mask & IS_RED).sum() / (mask | IS_RED).sum() > 0.8


def test_the_higher_score_wins_where_masks_overlap(tmp_path: Path):
    both = IS_RED | IS_BLUE
    found = segment(segmenter(tmp_path, stack(both, IS_RED), [0.6, 0.9]))
    assert (found.labels[IS_RED & (found.labels > 0)] == 1).all()
    assert (found.labels[IS_BLUE & (found.labels > 0)] == 2).all() and len(found.keys) == 2
    # What a better one has all but taken is dropped, not left as a rim.
    found = segment(segmenter(tmp_path, stack(both, IS_RED, IS_BLUE), [0.9, 0.8, 0.7]))
    assert len(found.keys) == 1 and set(np.unique(found.labels)) == {0, 1}


def test_the_table_the_unsure_and_the_tiny_are_no_things(tmp_path: Path):
    table = np.isfinite(CLOUD.depth) & ~IS_RED & ~IS_BLUE
    tiny = np.zeros(SIZE, bool)
    rows, columns = np.nonzero(IS_BLUE & CANDIDATES)
    tiny[rows[:10], columns[:10]] = True
    found = segment(segmenter(tmp_path, stack(table, np.ones(SIZE), IS_RED, tiny), [0.99, 0.95, 0.4, 0.9]))
    assert not found.labels.any() and found.keys.shape == (0,)
    unsure = segmenter(tmp_path, stack(IS_RED), [0.4], metadata={"score_threshold": "0.3"})
    assert len(segment(unsure).keys) == 1
    half = segmenter(tmp_path, 0.6 * stack(IS_RED), [0.9], metadata={"mask_threshold": "0.7"})
    assert len(segment(half).keys) == 0
    none = segmenter(tmp_path, np.zeros((0, *SIZE), np.float32), [])
    assert len(segment(none).keys) == 0


def test_what_has_no_depth_is_in_no_instance(tmp_path: Path):
    s = segmenter(tmp_path, stack(IS_RED), [0.9])
    holes = FRAME.depth_m.copy()
    holes[IS_RED & (np.arange(SIZE[1]) % 2 == 0)] = 0.0
    cloud = make_cloud(Frame(1, FRAME.color, holes, FRAME.camera, FRAME.world_T_camera), 1, 4.0)
    found = s.segment(FRAME, cloud, CANDIDATES, HEIGHT, [])
    assert found.labels.any() and not found.labels[~np.isfinite(cloud.depth)].any()


def test_labels_and_embeddings_come_along(tmp_path: Path):
    s = segmenter(
        tmp_path,
        stack(IS_RED, IS_BLUE),
        [0.7, 0.9],
        outputs={"labels": np.array([2, 0], np.int64), "embeddings": np.array([[3.0, 4.0], [0.0, 2.0]], np.float32)},
        metadata={"vocabulary": "ball, mug, box"},
    )
    found = segment(s)
    assert found.class_names == ("ball", "box") and found.vocabulary == ("ball", "mug", "box")
    np.testing.assert_allclose(found.embeddings, [[0.0, 1.0], [0.6, 0.8]], atol=1e-6)
    np.testing.assert_allclose(found.class_probabilities, [[0.9, 0.05, 0.05], [0.15, 0.15, 0.7]], atol=1e-6)
    assert class_probabilities(np.zeros(2, np.int64), np.ones(2, np.float32), 1).tolist() == [[1.0], [1.0]]


def test_instances_on_predicted_objects_carry_their_keys_once(tmp_path: Path):
    def expected(key: int, thing: Thing, shape: Shape) -> PredictedObject:
        size = np.broadcast_to(np.asarray(thing.size, float), 3)
        position, quaternion = np.array(thing.position), np.array([0.0, 0.0, 0.0, 1.0])
        return PredictedObject(key, shape, position, quaternion, size, np.zeros((0, 3)), np.array(thing.color), 0.03)

    predicted = [expected(7, RED, Shape.BOX), expected(9, BLUE, Shape.SPHERE)]
    found = segment(segmenter(tmp_path, stack(IS_RED, IS_BLUE), [0.8, 0.9]), predicted)
    assert found.keys.tolist() == [9, 7]
    left = IS_RED & (np.arange(SIZE[1]) < np.nonzero(IS_RED)[1].mean() - 6)
    found = segment(segmenter(tmp_path, stack(left, IS_RED & ~left), [0.9, 0.8]), predicted)
    # Only the larger part of a thing in two goes on as it.
    assert found.keys.tolist() == [-1, 7]


MASKS, SCORES = np.zeros((2, *SIZE), np.float32), np.array([0.5, 0.6], np.float32)
GOOD = {"masks": MASKS, "scores": SCORES}


@pytest.mark.parametrize(
    ("inputs", "outputs", "more", "texts"),
    [
        ({"image": (1, 3, 8, 8)}, GOOD, {}, ("input 'rgb' is missing", "'image' float32 (1, 3, 8, 8)")),
        ({"rgb": (1, 8, 8, 3)}, GOOD, {}, ("input 'rgb': got shape (1, 8, 8, 3)", "(1, 3, H, W)")),
        ({"rgb": (3, 8, 8)}, GOOD, {}, ("input 'rgb': got shape (3, 8, 8)",)),
        (INPUT, GOOD, {"input_types": {"rgb": "int64"}}, ("input 'rgb': got int64, expected 'rgb' float32",)),
        ({**INPUT, "text": (1,)}, GOOD, {}, ("input 'text' float32 (1,) is not known",)),
        ({**INPUT, "depth": (1, 1, 60, 80)}, GOOD, {}, ("input 'depth'", "(60, 80)", "that of 'rgb', (240, 320)")),
        ({**INPUT, "depth": (1, 3, *SIZE)}, GOOD, {}, ("input 'depth': got shape (1, 3, 240, 320)", "(1, 1, H, W)")),
        (INPUT, {"scores": SCORES}, {}, ("output 'masks' is missing", "(N, h, w) or (1, N, h, w)")),
        (INPUT, {"masks": MASKS}, {}, ("output 'scores' is missing: got 'masks'",)),
        (INPUT, {**GOOD, "masks": MASKS[0]}, {}, ("output 'masks': got shape (240, 320)",)),
        (INPUT, {**GOOD, "masks": MASKS.astype(np.int64)}, {}, ("output 'masks': got int64",)),
        (INPUT, {**GOOD, "masks": MASKS[:1]}, {}, ("output 'masks': it gave shape (1, 240, 320)", "N = 2")),
        (INPUT, {**GOOD, "masks": MASKS + 7.0}, {}, ("output 'masks': got values 7..7, expected 0..1",)),
        (INPUT, {**GOOD, "scores": SCORES * np.nan}, {}, ("output 'scores': 2 of 2 values are NaN",)),
        (INPUT, {**GOOD, "labels": np.array([0, 1])}, {}, ("metadata 'vocabulary' is missing",)),
        (
            INPUT,
            {**GOOD, "labels": np.array([0, 5])},
            {"metadata": {"vocabulary": json.dumps(["ball", "box"])}},
            ("output 'labels': got values 0..5, expected 0..1",),
        ),
        (INPUT, {**GOOD, "embeddings": np.zeros((3, 4), np.float32)}, {}, ("output 'embeddings': it gave", "N = 2")),
        (INPUT, GOOD, {"metadata": {"mask_threshold": "2"}}, ("metadata 'mask_threshold': got 2, expected 0..1",)),
        (INPUT, GOOD, {"metadata": {"score_threshold": "high"}}, ("metadata 'score_threshold': got 'high'",)),
    ],
)
def test_a_wrong_model_is_refused_by_file_and_tensor(
    tmp_path: Path, inputs: dict, outputs: dict, more: dict, texts: tuple[str, ...]
):
    path = make_model(tmp_path / "wrong.onnx", inputs, outputs, **more)
    with pytest.raises(ModelError) as error:
        make_segmenter(PerceptionConfig(segmenter="onnx", segmenter_model=str(path)))
    assert "wrong.onnx" in str(error.value)
    assert all(text in str(error.value) for text in texts), str(error.value)


def test_images_are_placed_in_inputs_of_every_kind():
    assert place((480, 640), (240, 320)) == Placement((240, 320), (240, 320))
    assert place((480, 640), (640, 640)) == Placement((640, 640), (480, 640))
    assert place((480, 640), (None, None)) == Placement((480, 640), (480, 640))
    assert place((470, 630), (None, None), 32) == Placement((480, 640), (470, 630))
    assert place((480, 640), (None, 320), 16) == Placement((240, 320), (240, 320))
    assert place((481, 641), (240, 320)) == Placement((240, 320), (240, 320))


def test_color_and_depth_arrive_as_documented(tmp_path: Path):
    inputs = {"rgb": ("one", 3, "H", "W"), "depth": ("one", 1, "H", "W")}
    s = segmenter(tmp_path, MASKS, [0.5, 0.6], inputs=inputs, metadata={"size_multiple": "64"})
    at = place(SIZE, (None, None), 64)
    depth = FRAME.depth_m.copy()
    depth[0, 0] = np.nan
    feeds = s._feeds(FRAME.color, depth, at)
    assert feeds["rgb"].shape == (1, 3, 256, 320) and feeds["depth"].shape == (1, 1, 256, 320)
    np.testing.assert_allclose(feeds["rgb"][0, :, :240], np.moveaxis(FRAME.color, 2, 0) / 255.0, atol=1e-6)
    assert (feeds["rgb"][0, :, 240:] == 0.5).all() and (feeds["depth"][0, 0, 240:] == 0.0).all()
    assert feeds["depth"][0, 0, 0, 0] == 0.0 and feeds["depth"][0, 0, 120, 160] == depth[120, 160]


@pytest.mark.slow
def test_the_example_segments_a_simulated_scene_in_place_of_ours(tmp_path: Path):
    spec = importlib.util.spec_from_file_location("build_model", EXAMPLE / "build_model.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model = module.build(tmp_path / "own_segmenter.onnx")
    given = yaml.safe_load((EXAMPLE / "perception.yaml").read_text())["/**/perception"]["ros__parameters"]["pipeline"]
    assert given["segmenter_model"] == model.name
    pipeline = PerceptionPipeline(PerceptionConfig(**{**given, "segmenter_model": str(model)}))
    assert isinstance(pipeline.segmenter, OnnxSegmenter) and pipeline.segmenter.takes_depth
    pairs, visible = [], []
    with Simulator("demo", 0, noise=DepthNoise()) as simulator:
        for n in range(21):
            simulator.advance_to(n / 30.0)
            image = simulator.render()
            stamped = Frame(simulator.stamp_ns + 1, image.rgb, image.depth, simulator.camera, image.world_T_camera)
            result = pipeline.process(stamped)
            if n >= 15 and n % 3 == 0:
                truth = simulator.ground_truth()
                pixels = np.bincount(simulator.instances().ravel(), minlength=int(truth.ids.max()) + 1)
                pairs.append((result.scene, truth))
                visible.append(set(truth.ids[~truth.is_static & (pixels[truth.ids] >= 150)].tolist()))
    score = score_sequence(pairs, visible)
    # It cuts by rule: parts of things may stand alone for a frame or two.
    assert score.missed == 0 and score.phantom <= 4 and score.id_switches == 0
    assert score.position_error_median_m < 0.01
    cloud = make_cloud(stamped, 2, 4.0)
    candidates = np.isfinite(cloud.depth) & (cloud.points[..., 2] > simulator.scene.table_top_z + 0.01)
    found = pipeline.segmenter.segment(stamped, cloud, candidates, cloud.points[..., 2], [])
    assert set(found.class_names) <= set(module.CLASSES) and found.embeddings.shape == (len(found.keys), 3)
