"""Inputs, intermediate results and outputs of the perception pipeline, and its configuration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from wm_core.camera import Camera
from wm_core.parameters import check_fields, parameter
from wm_core.scene_graph import SceneGraph, Shape

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Frame:
    """One posed RGB-D image.

    Attributes:
        stamp_ns: time of the image [ns].
        color: (H, W, 3) uint8, RGB.
        depth_m: (H, W) float32 [m], registered to the color image; 0 or NaN where nothing was measured.
        camera: intrinsics of both.
        world_T_camera: (4, 4) pose of the optical frame in a fixed frame with z up.
        own_depth_m: (H, W) float32 [m], depth of the robot's own body, which ``depth_m`` leaves out, 0 elsewhere: it is
            no object, and hides what is behind it. None: none of it is in the image.
    """

    stamp_ns: int
    color: NDArray[np.uint8]
    depth_m: NDArray[np.float32]
    camera: Camera
    world_T_camera: Array
    own_depth_m: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        expected = (self.camera.height, self.camera.width)
        if self.depth_m.shape != expected:
            raise ValueError(f"depth image: got shape {self.depth_m.shape}, expected {expected} (camera info)")
        if self.color.shape != (*expected, 3):
            raise ValueError(f"color image: got shape {self.color.shape}, expected {(*expected, 3)} (camera info)")
        if np.shape(self.world_T_camera) != (4, 4) or not np.isfinite(self.world_T_camera).all():
            raise ValueError("world_T_camera: expected a finite 4x4 transform")
        if self.own_depth_m is not None and self.own_depth_m.shape != expected:
            raise ValueError(f"own depth: got shape {self.own_depth_m.shape}, expected {expected} (camera info)")


@dataclass(frozen=True)
class PerceptionConfig:
    """Parameters of the pipeline, group ``pipeline`` of the node.

    ``world_frame``: name of the fixed frame in the scene graph.
    """

    world_frame: str = "map"
    working_width: int = parameter(
        640,
        "wider images are reduced by a whole factor to about this width, at which the networks were trained and "
        "outlines are sharp enough; object ids are published at the full size; 0: images are not reduced",
        unit="pixels",
        minimum=0,
        maximum=8192,
    )
    stride: int = parameter(
        2, "every stride-th pixel (at the working width) is used for geometry", minimum=1, maximum=8
    )
    max_depth_m: float = parameter(4.0, "measurements beyond are ignored", unit="m", minimum=0.3, maximum=20.0)
    support_min_area_m2: float = parameter(
        0.08, "smallest horizontal surface that counts as a support", unit="m^2", minimum=0.01, maximum=10.0
    )
    support_tolerance_m: float = parameter(
        0.012, "half thickness of a support's layer of points", unit="m", minimum=0.003, maximum=0.05
    )
    floor_below_camera_m: float = parameter(
        1.1,
        "supports deeper than this below the camera carry no tracked objects, unless a lower one is seen",
        unit="m",
        minimum=0.2,
        maximum=10.0,
    )
    min_height_m: float = parameter(
        0.008, "what is lower than this over its support is no object", unit="m", minimum=0.003, maximum=0.1
    )
    max_height_m: float = parameter(
        0.6, "what is higher than this over its support is no object", unit="m", minimum=0.05, maximum=3.0
    )
    max_extent_m: float = parameter(0.5, "larger clusters are background", unit="m", minimum=0.05, maximum=3.0)
    min_pixels: int = parameter(50, "smallest cluster, in pixels at the stride", minimum=10, maximum=5000)
    confirm_hits: int = parameter(
        4, "frames in which an object must be seen before it gets an id", minimum=1, maximum=30
    )
    empty_frames: int = parameter(
        6, "frames in which an object's place must be seen empty before it is dropped", minimum=1, maximum=100
    )
    near_m: float = parameter(
        0.10, "surface distance below which two objects are NEAR", unit="m", minimum=0.01, maximum=1.0
    )
    touch_m: float = parameter(
        0.008, "surface distance below which two objects are TOUCHING", unit="m", minimum=0.001, maximum=0.05
    )
    fits_per_frame: int = parameter(1, "shape fits per frame at most (they take a few ms each)", minimum=1, maximum=50)
    gap_reset_s: float = parameter(
        1.0, "after a longer gap between frames velocities are forgotten", unit="s", minimum=0.1, maximum=60.0
    )
    segmenter: str = parameter(
        "auto",
        "what finds instances; auto: learned where its weights are installed, else geometric; onnx: your own "
        "(docs/models.md)",
        choices=("auto", "learned", "geometric", "onnx"),
    )
    segmenter_model: str = parameter("", "path of an ONNX file; empty: the shipped weights; needed for onnx")
    reasoner: str = parameter(
        "auto",
        "what finds relations and events; auto: learned where its weights are installed, else geometric",
        choices=("auto", "learned", "geometric"),
    )
    reasoner_model: str = parameter("", "path of an ONNX file; empty: the shipped weights")
    inference_threads: int = parameter(2, "CPU threads of each network", minimum=1, maximum=32)
    inference_backend: str = parameter(
        "auto",
        "what runs the networks; auto: the first that is here (docs/engines.md)",
        choices=(
            "auto",
            "tensorrt",
            "tensorrt_rtx",
            "onnxruntime_tensorrt",
            "onnxruntime_cuda",
            "onnxruntime_cpu",
        ),
    )
    inference_precision: str = parameter(
        "auto",
        "of the shipped segmenter; auto: fp16 on a GPU, int8 on a CPU that is fast with it (VNNI), else fp32",
        choices=("auto", "fp32", "fp16", "int8"),
    )

    def __post_init__(self) -> None:
        check_fields(self)
        for name in ("segmenter", "reasoner"):
            chosen, path = getattr(self, name), getattr(self, f"{name}_model")
            if chosen == "onnx" and not path:
                raise ValueError(f"{name}_model: got nothing, expected the path of an ONNX file for {name} onnx")
            if chosen == "geometric" and path:
                raise ValueError(f"{name}_model: got {path!r}, expected nothing for {name} geometric")


@dataclass(frozen=True)
class PredictedObject:
    """Where a tracked object is expected in this frame, for a segmenter that uses it.

    Attributes:
        key: the tracker's own index.
        shape: ``Shape``; hull: (P, 3) in the object frame [m] for ``Shape.CONVEX``, else (0, 3).
        position: (3,) center, world frame [m]; quaternion: (4,) x, y, z, w, world from object.
        extents: (3,) full sizes along the object's own axes [m].
        color: (3,) mean RGB, 0..255.
        margin_m: distance from its surface up to which pixels may be its own [m].
    """

    key: int
    shape: Shape
    position: Array
    quaternion: Array
    extents: Array
    hull: Array
    color: Array
    margin_m: float


@dataclass(frozen=True)
class Cloud:
    """The organized cloud of a frame at the pipeline's stride.

    Attributes:
        points: (h, w, 3) float32 world coordinates [m], NaN where there is no depth.
        normals: (h, w, 3) float32 unit normals toward the camera, NaN where unknown.
        depth: (h, w) float32 [m], NaN where unknown.
        rgb: (h, w, 3) uint8; lab_of: gives ``lab``, which not every frame needs.
        camera: intrinsics at this size. world_T_camera: (4, 4).
        nearest: (h, w) float32 [m], as ``depth``, but that of the robot's own body where that is seen.
    """

    points: NDArray[np.float32]
    normals: NDArray[np.float32]
    depth: NDArray[np.float32]
    rgb: NDArray[np.uint8]
    lab_of: Callable[[], NDArray[np.float32]]
    camera: Camera
    world_T_camera: Array
    nearest: NDArray[np.float32]

    @cached_property
    def lab(self) -> NDArray[np.float32]:
        """(h, w, 3) float32, CIE L*a*b* scaled to 0..255."""
        return self.lab_of()


@dataclass(frozen=True)
class Segmentation:
    """Instances of one frame.

    Attributes:
        labels: (h, w) int32 at the cloud's size, 0 = no object, 1..L.
        keys: (L,) ``PredictedObject.key`` of each label, -1 where the segmenter does not assign one.
        class_names: L names, or empty: not classified.
        scores: (L,) 0..1, probability that each is one whole object; empty: not estimated.
        embeddings: (L, D) appearance, unit length; (0, 0): none.
        vocabulary: C class names; class_probabilities: (L, C), rows sum to 1; both empty: not classified.
        pairs: (P, 2) labels that are neighbors, the smaller first; log_odds: (P,) that both are parts of one object;
            empty: not estimated, every label is one object.
    """

    labels: NDArray[np.int32]
    keys: NDArray[np.int64]
    class_names: tuple[str, ...] = ()
    scores: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    embeddings: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    vocabulary: tuple[str, ...] = ()
    class_probabilities: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    pairs: NDArray[np.int64] = field(default_factory=lambda: np.zeros((0, 2), np.int64))
    log_odds: Array = field(default_factory=lambda: np.zeros(0))


class Segmenter(Protocol):
    """Finds instances in a frame: geometric, or a trained network."""

    def segment(
        self,
        frame: Frame,
        cloud: Cloud,
        candidates: NDArray[np.bool_],
        height: NDArray[np.float32],
        predicted: list[PredictedObject],
    ) -> Segmentation:
        """Instances among the candidate pixels (h, w), which stand clear of every support.

        ``height`` (h, w) [m] is that over the support below each pixel, NaN where there is none.
        """
        ...


@runtime_checkable
class TwoStageSegmenter(Segmenter, Protocol):
    """A segmenter whose network needs no tracks, so that it can run while the frame before is still tracked.

    ``segment`` is ``decode`` of what ``infer`` returns.
    """

    def infer(self, frame: Frame, cloud: Cloud, height: NDArray[np.float32]) -> Any:
        """The network's output for a frame; arguments as for ``segment``."""
        ...

    def decode(
        self,
        inferred: Any,
        cloud: Cloud,
        candidates: NDArray[np.bool_],
        height: NDArray[np.float32],
        predicted: list[PredictedObject],
    ) -> Segmentation:
        """Instances from what ``infer`` returned; the other arguments as for ``segment``."""
        ...


@runtime_checkable
class RefiningSegmenter(TwoStageSegmenter, Protocol):
    """A segmenter that looks at its instances again when the tracker has joined parts of one object.

    ``segment`` refines what it returns.
    """

    def refine(self, segmentation: Segmentation, cloud: Cloud) -> Segmentation:
        """The same instances with other outlines and scores."""
        ...


@dataclass(frozen=True)
class PerceptionResult:
    """The output for one frame.

    Attributes:
        scene: the scene graph at the frame's stamp.
        ids_of: gives ``instance_ids``, which not every frame needs.
        timings_s: durations [s] of the pipeline's steps, by name.
        warnings: sentences on the frame's faults; empty: none.
        segmentation: the instances of this frame that were tracked; None: not known.
    """

    scene: SceneGraph
    ids_of: Callable[[], NDArray[np.uint16]]
    timings_s: dict[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    segmentation: Segmentation | None = None

    @cached_property
    def instance_ids(self) -> NDArray[np.uint16]:
        """(H, W) persistent object id of every pixel; 0 = background and supports."""
        return self.ids_of()
