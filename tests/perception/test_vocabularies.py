"""Readers of class names are right for the vocabulary of any segmenter: an older one's, the present, one's own."""

from __future__ import annotations

import numpy as np
import pytest

from traced_table import RATE_HZ, Thing, frame
from training.worlds.families import VOCABULARY
from wm_core.scene_graph import SceneGraph, Shape
from wm_perception.models.segmenter import make_segmenter
from wm_perception.pipeline import PerceptionPipeline
from wm_perception.segmentation.learned import LearnedSegmenter
from wm_perception.shapes.hollow import HOLLOW_CLASSES, hollow_probability
from wm_perception.shapes.mass_prior import OUTLINE_DENSITIES, UNKNOWN, log_mass_prior
from wm_perception.tracking.shape_update import _FORMS
from wm_perception.types import PerceptionConfig, Segmentation
from wm_ros.conversions.scene_graph import scene_graph_from_msg, scene_graph_to_msg
from wm_ros.markers import MarkerBuilder

FIRST = VOCABULARY[:9]
"""Of the segmenters that were trained on primitives alone."""
VOCABULARIES = {"first": FIRST, "present": VOCABULARY, "of one's own": ("gear", "cup", "object of mine")}
BALL = Thing((0.0, -0.2, 0.04), 0.08, (220, 60, 40))
BOX = Thing((0.1, 0.15, 0.05), (0.08, 0.12, 0.10), (40, 80, 200))


class Naming:
    """A segmenter that knows things by their colors, and is 80 % sure of the class that it is told."""

    def __init__(self, vocabulary: tuple[str, ...], names: dict[tuple[int, int, int], str]) -> None:
        self.vocabulary, self.names = vocabulary, names

    def segment(self, seen, cloud, candidates, height, predicted) -> Segmentation:
        labels = np.zeros(cloud.depth.shape, np.int32)
        chances = np.full((len(self.names), len(self.vocabulary)), 0.2 / max(len(self.vocabulary) - 1, 1), np.float32)
        for row, (color, name) in enumerate(self.names.items()):
            labels[(cloud.rgb == color).all(axis=-1)] = row + 1
            chances[row, self.vocabulary.index(name)] = 0.8
        count = len(self.names)
        return Segmentation(
            labels,
            np.full(count, -1, np.int64),
            scores=np.full(count, 0.95, np.float32),
            embeddings=np.eye(count, 8, dtype=np.float32),
            vocabulary=self.vocabulary,
            class_probabilities=chances,
        )


def perceived(vocabulary: tuple[str, ...], ball: str, box: str) -> SceneGraph:
    """The scene after two thirds of a second in which these classes were given to the ball and the box."""
    # The reasoner that ships, as its inputs must not depend on the vocabulary either.
    pipeline = PerceptionPipeline(
        PerceptionConfig(segmenter="geometric", inference_threads=1),
        Naming(vocabulary, {BALL.color: ball, BOX.color: box}),
    )
    scene = None
    for number in range(0, round(0.67 * RATE_HZ), 2):
        scene = pipeline.process(frame(number, [BALL, BOX])).scene
    assert scene is not None
    return scene


@pytest.mark.slow
@pytest.mark.parametrize("kind", VOCABULARIES)
def test_a_scene_has_the_classes_of_any_vocabulary(kind: str) -> None:
    vocabulary = VOCABULARIES[kind]
    for ball, box in zip(vocabulary, (*vocabulary[1:], vocabulary[0]), strict=True):
        scene = perceived(vocabulary, ball, box)
        assert scene.class_vocabulary == vocabulary
        rows = np.flatnonzero(~scene.is_static)
        assert sorted(scene.class_names[r] for r in rows) == sorted((ball, box))
        np.testing.assert_allclose(scene.class_probabilities[rows].sum(axis=1), 1.0)
        assert np.isfinite(scene.log_mass[rows]).all() and (scene.log_mass_std[rows] > 0.0).all()
        # Of a true ball and box, whatever they are called: a wrong class must not break the fit.
        for thing in (BALL, BOX):
            near = np.linalg.norm(scene.positions[rows] - thing.position, axis=1)
            assert near.min() < 0.02, (ball, box)
            assert abs(scene.extents[rows[near.argmin()], 2] - 2.0 * thing.position[2]) < 0.02, (ball, box)
        back = scene_graph_from_msg(scene_graph_to_msg(scene))
        assert back.class_vocabulary == vocabulary and back.class_names == scene.class_names
        np.testing.assert_allclose(back.class_probabilities, scene.class_probabilities, atol=1e-6)
        labels = {m.text for m in MarkerBuilder().build(scene).markers if m.ns == "labels"}
        assert {f"{scene.ids[r]} {scene.class_names[r]}" for r in rows} <= labels


def test_what_ships_names_classes_that_all_readers_know() -> None:
    """Names are added at the vocabulary's end alone, so that older weights keep theirs."""
    segmenter = make_segmenter(PerceptionConfig(inference_threads=1))
    if not isinstance(segmenter, LearnedSegmenter):
        pytest.skip("no trained weights are installed (make train-segmenter)")
    vocabulary = segmenter.vocabulary
    assert vocabulary == VOCABULARY[: len(vocabulary)] and len(vocabulary) >= len(FIRST)


def test_each_class_has_a_mass() -> None:
    assert set(VOCABULARY) | {UNKNOWN, "cylinder"} == set(OUTLINE_DENSITIES)
    size = (int(Shape.CYLINDER), np.array([0.08, 0.08, 0.10]), np.zeros((0, 3)))
    unknown = log_mass_prior({UNKNOWN: 1.0}, *size)
    assert log_mass_prior({"gear": 0.7, "cup": 0.0}, *size) == pytest.approx(unknown)
    # What is open at the top is lighter than what is not.
    open_ones, closed = ([OUTLINE_DENSITIES[n].mean for n in names] for names in (OPEN, ("box", "can", "bottle")))
    assert max(open_ones) < min(closed)


OPEN = ("mug", "bowl", "cup", "pan", "basket", "tray")


def test_open_bodies_are_taken_to_be_open() -> None:
    assert {n for n in VOCABULARY if n in HOLLOW_CLASSES} == set(OPEN)
    for vocabulary in (FIRST, VOCABULARY):
        chances = np.full(len(vocabulary), 1.0 / len(vocabulary))
        expected = sum(n in OPEN for n in vocabulary) / len(vocabulary)
        assert hollow_probability(vocabulary, chances) == pytest.approx(expected)
    # In frames in which the vocabulary changes, a track's probabilities are still of the other one.
    assert hollow_probability(VOCABULARY, np.full(len(FIRST), 0.1)) == 0.0


def test_each_class_is_of_a_likely_solid_or_left_to_the_geometry() -> None:
    of_either = {"capsule", "tool", "pan", "basket", "tray"}
    assert {n for n in VOCABULARY if n not in _FORMS} == of_either
    assert all(_FORMS[n] == ("box" if n == "box" else "round") for n in set(VOCABULARY) - of_either)
