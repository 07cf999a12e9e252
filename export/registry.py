"""The models that ``wm export`` knows, each with all that exporting, checking and measuring it needs.

A further model is one more ``Model`` in ``MODELS``: its torch definition, its tensors, their bounds, real inputs, and
the metric of its task.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import onnx
    from torch import nn

Feeds = Mapping[str, NDArray[Any]]
Runner = Callable[[Feeds], Mapping[str, NDArray[Any]]]

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ROOT / "ros2_ws/src"
PERCEPTION_MODELS = PACKAGES / "wm_perception/models"
DYNAMICS_MODELS = PACKAGES / "wm_dynamics/models"


@dataclass(frozen=True)
class Axis:
    """A size that is left open in the file.

    Attributes:
        least, most: bounds that the nodes keep to; ``usual``: what engines are tuned for.
    """

    least: int
    usual: int
    most: int

    def __post_init__(self) -> None:
        if not 0 <= self.least <= self.usual <= self.most:
            raise ValueError(f"axis: got {self.least}..{self.usual}..{self.most}, expected 0 <= least <= usual <= most")


@dataclass(frozen=True)
class Tensor:
    """An input or output: its shape (a number, or the name of an axis), and what its numbers mean."""

    name: str
    shape: tuple[int | str, ...]
    unit: str
    dtype: str = "float32"
    normalisation: str = "none"


@dataclass(frozen=True)
class Quantisation:
    """How a model is made int8.

    Attributes:
        operators: ONNX operators whose inputs and weights become int8.
        keep: nodes that stay in fp32: any whose name contains one of these.
        images: how many real inputs of the training set ranges are taken from.
    """

    operators: tuple[str, ...]
    keep: tuple[str, ...]
    images: int = 64


@dataclass(frozen=True)
class Model:
    """One exportable model.

    Attributes:
        name: of its files; ``task``: the metadata ``task``.
        folder: where weights, ONNX file and card lie.
        network: the torch module with the weights of a safetensors file, in evaluation mode.
        inputs, outputs: in the order of the module's arguments and results.
        axes: of every name in their shapes.
        facts: further metadata.
        real: real inputs, ``training`` set or held out; the generator may end early where there is no data.
        metric: figures of the task by name, from a function that runs the model; empty where there is no data.
        metric_key: of these figures, the one that precisions are compared by; more is better.
        quantisation: None: int8 is not offered.
        fp32_operators: operators that stay in fp32 in the fp16 file.
        gpu: False: too small to gain from a GPU, which ``auto`` then leaves alone.
        loads: sizes that are measured, by name, where they are not the usual ones.
        for_engines: makes of the fp32 graph what TensorRT takes, where it does not take it as it is; one engine is then
            built for all architectures at once, as it takes long.
        precisions: that are offered.
        example: made-up inputs of these sizes; None: normal random numbers.
    """

    name: str
    task: str
    folder: Path
    network: Callable[[Path], nn.Module]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    axes: Mapping[str, Axis]
    facts: Callable[[nn.Module], dict[str, str]]
    real: Callable[[str, int], Iterator[Feeds]]
    metric: Callable[[Runner], dict[str, float]]
    metric_key: str
    quantisation: Quantisation | None = None
    fp32_operators: tuple[str, ...] = ()
    gpu: bool = True
    loads: Mapping[str, Mapping[str, int]] = field(default_factory=lambda: {"batch 1": {}})
    for_engines: Callable[[onnx.ModelProto], onnx.ModelProto] | None = None
    precisions: tuple[str, ...] = ("fp32", "fp16", "int8", "int8_symmetric")
    example: Callable[[np.random.Generator, Mapping[str, int]], dict[str, NDArray[Any]]] | None = None

    @property
    def weights(self) -> Path:
        """The safetensors file."""
        return self.folder / f"{self.name}.safetensors"

    @property
    def onnx(self) -> Path:
        """The shipped fp32 file."""
        return self.folder / f"{self.name}.onnx"

    def shape(self, tensor: Tensor, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """Of a tensor, with these sizes of the axes."""
        return tuple(s if isinstance(s, int) else sizes[s] for s in tensor.shape)

    def sizes(self, which: str) -> dict[str, int]:
        """Of all axes: ``least``, ``usual`` or ``most``."""
        return {name: getattr(axis, which) for name, axis in self.axes.items()}

    def profile(self) -> dict[str, tuple[tuple[int, ...], ...]]:
        """Shapes of each input that an engine is built for: least, usual, most."""
        return {t.name: tuple(self.shape(t, self.sizes(w)) for w in ("least", "usual", "most")) for t in self.inputs}

    def random(self, rng: np.random.Generator, sizes: Mapping[str, int] | None = None) -> dict[str, NDArray[Any]]:
        """Made-up inputs: those of ``example``, or normal random numbers (integers: zeros, valid indices)."""
        sizes = sizes or self.sizes("usual")
        if self.example is not None:
            return self.example(rng, sizes)
        found: dict[str, NDArray[Any]] = {}
        for t in self.inputs:
            shape = self.shape(t, sizes)
            real = np.dtype(t.dtype).kind == "f"
            found[t.name] = (rng.normal(0.0, 0.5, shape) if real else np.zeros(shape)).astype(t.dtype)
        return found


def replace_real(model: Model, real: Callable[[str, int], Iterator[Feeds]]) -> Model:
    """The same model with other real inputs, e.g. a user's own to take int8 ranges from."""
    return replace(model, real=real)


# The segmenter.

_SEGMENTER_WORK = ROOT / "out/train/segmenter"


def _segmenter_network(weights: Path) -> nn.Module:
    from safetensors.torch import load_file

    from training.segmenter.model import SegmenterNetwork

    network = SegmenterNetwork()
    network.load_state_dict(load_file(weights))
    return network.eval()


def _segmenter_facts(network: nn.Module) -> dict[str, str]:
    import json

    from training.segmenter.model import EMBEDDING
    from training.worlds.families import VOCABULARY
    from wm_perception.segmentation.learned import CHANNELS

    return {
        "version": "1",
        "channels": json.dumps(list(CHANNELS)),
        "vocabulary": json.dumps(list(VOCABULARY)),
        "embedding": str(EMBEDDING),
    }


def prepared(split: str, least: int = 1) -> Any:
    """The segmenter's images (``training.worlds.dataset.Prepared``) of train, seeds or families, or None."""
    from training.worlds.dataset import Prepared

    folder = _SEGMENTER_WORK / f"features_{split}"
    if not (folder / "done.json").is_file():
        return None
    names = ("inputs", "masks", "clips", "classes")
    data = Prepared(*[np.load(folder / f"{name}.npy", mmap_mode="r") for name in names])
    return data if len(data.masks) >= least else None


def _segmenter_real(split: str, count: int) -> Iterator[Feeds]:
    from training.worlds.dataset import QUANTUM

    data = prepared(split)
    if data is None:
        return
    # Evenly over all clips.
    for row in np.linspace(0, len(data.masks) - 1, min(count, len(data.masks))).astype(int):
        yield {"image": data.inputs[row][None].astype(np.float32) / np.float32(QUANTUM)}


def _segmenter_metric(run: Runner) -> dict[str, float]:
    from training.segmenter.evaluate import evaluate
    from wm_perception.segmentation.learned import OUTPUTS

    def network(image: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        values = run({"image": image})
        return [values[name] for name in OUTPUTS]

    figures: dict[str, float] = {}
    for split in ("seeds", "families"):
        data = prepared(split)
        if data is None:
            continue
        found = evaluate(network, data)
        figures[f"{split}_mask_ap"] = found.mask_ap
        figures[f"{split}_mask_ap50"] = found.mask_ap50
        figures[f"{split}_class_accuracy"] = found.class_accuracy
    return figures


def _maps() -> tuple[Tensor, ...]:
    from training.worlds.families import VOCABULARY

    return (
        Tensor("foreground", ("batch", 1, "height", "width"), "logit"),
        Tensor("centre", ("batch", 1, "height", "width"), "logit"),
        Tensor("offset", ("batch", 2, "height", "width"), "pixels / 32"),
        Tensor("classes", ("batch", len(VOCABULARY), "half_height", "half_width"), "logit"),
        Tensor("embedding", ("batch", 16, "half_height", "half_width"), "none"),
    )


def _segmenter() -> Model:
    return Model(
        name="segmenter",
        task="wm_segmenter",
        folder=PERCEPTION_MODELS,
        network=_segmenter_network,
        inputs=(
            Tensor(
                "image",
                ("batch", 10, "height", "width"),
                "see channels",
                normalisation="wm_perception.segmentation.learned.network_input, -1..1, 0 where unknown",
            ),
        ),
        outputs=_maps(),
        # A camera of 640 x 480 at stride 2 is usual; the most is one of 1280 x 720 at stride 1.
        axes={
            "batch": Axis(1, 1, 4),
            "height": Axis(32, 240, 720),
            "width": Axis(32, 320, 1280),
            "half_height": Axis(16, 120, 360),
            "half_width": Axis(16, 160, 640),
        },
        facts=_segmenter_facts,
        real=_segmenter_real,
        metric=_segmenter_metric,
        metric_key="seeds_mask_ap",
        # The last convolutions give logits and offsets over a wide range, which eight bits cannot tell apart. The
        # context is one pixel: nothing to gain.
        loads={"batch 1": {}, "4 images": {"batch": 4}},
        quantisation=Quantisation(("Conv", "Add", "Relu"), ("/fine/fine.1/", "/meaning/meaning.1/", "/context/")),
    )


# The reasoner.

_REASONER_DATA = ROOT / "out/data/reasoner"
_REASONER_CLIPS = 12
"""Held-out clips of each split that its metric is taken over: enough to see a precision go wrong."""


def _reasoner_network(weights: Path) -> nn.Module:
    from safetensors.torch import load_file

    from training.reasoner.model import ReasonerNetwork

    network = ReasonerNetwork()
    network.load_state_dict(load_file(weights))
    return network.eval()


def _reasoner_facts(network: nn.Module) -> dict[str, str]:
    import json

    from wm_perception.reasoning.features import RATE_HZ, VERSION, WINDOW

    scales: Any = network.scales
    return {
        "version": str(VERSION),
        "rate_hz": str(RATE_HZ),
        "window": str(WINDOW),
        "scales": json.dumps([round(float(v), 6) for v in scales]),
    }


def _lessons(split: str, clips: int) -> list[Any]:
    from training.reasoner.data import read_shard

    lessons: list[Any] = []
    for shard in sorted((_REASONER_DATA / split).glob("*.npz")):
        if len(lessons) >= clips:
            break
        lessons += read_shard(shard)
    return lessons[:clips]


def _watch_lessons(lessons: Sequence[Any], run: Runner) -> dict[str, float]:
    """The figures of the reasoner's card, of the reasoner with this function as its network."""
    import json

    from training.reasoner.card import Result, evaluate_lesson
    from wm_perception.reasoning.reasoner import Reasoner
    from wm_perception.types import PerceptionConfig

    facts = _reasoner_facts(_reasoner_network(PERCEPTION_MODELS / "reasoner.safetensors"))
    reasoner = Reasoner(PerceptionConfig(), run, json.loads(facts["scales"]))
    result = Result()

    def renewed() -> Reasoner:
        reasoner.reset()
        return reasoner

    for k, lesson in enumerate(lessons):
        evaluate_lesson(renewed, lesson, k, result)
    return result.figures()


def _reasoner_real(split: str, count: int) -> Iterator[Feeds]:
    lessons = _lessons(split, 1 + count // 40)
    if not lessons:
        return
    import torch

    # What the network is fed while it watches clips.
    network = _reasoner_network(PERCEPTION_MODELS / "reasoner.safetensors")
    described = _reasoner()
    fed: list[dict[str, NDArray[Any]]] = []

    def watched(feeds: Feeds) -> dict[str, NDArray[Any]]:
        fed.append({k: np.array(v) for k, v in feeds.items()})
        with torch.inference_mode():
            values = network(*[torch.from_numpy(feeds[t.name]) for t in described.inputs])
        return {t.name: v.numpy() for t, v in zip(described.outputs, values, strict=True)}

    _watch_lessons(lessons, watched)
    for row in np.linspace(0, len(fed) - 1, min(count, len(fed))).astype(int):
        yield fed[row]


def _reasoner_metric(run: Runner) -> dict[str, float]:
    figures: dict[str, float] = {}
    for split in ("seeds", "families"):
        lessons = _lessons(split, _REASONER_CLIPS)
        if lessons:
            found = _watch_lessons(lessons, run)
            figures |= {f"{split}_{k}": found[k] for k in ("events_f1", "caused_f1", "property_spearman")}
    return figures


def _reasoner() -> Model:
    from wm_perception.reasoning import features as features

    window = features.WINDOW
    see = "wm_perception.reasoning.features"
    inputs: Sequence[tuple[str, tuple[int | str, ...], str]] = (
        ("objects", ("N", window, len(features.OBJECT_FEATURES)), "OBJECT_FEATURES"),
        ("pairs", ("N", "N", window, len(features.PAIR_FEATURES)), "PAIR_FEATURES"),
        ("shapes", ("N", len(features.SHAPE_FEATURES)), "SHAPE_FEATURES"),
        ("contacts", ("C", len(features.CONTACT_FEATURES)), "CONTACT_FEATURES"),
        ("steps", ("M", len(features.STEP_FEATURES)), "STEP_FEATURES"),
        ("causes", ("Q", len(features.CAUSE_FEATURES)), "CAUSE_FEATURES"),
    )
    return Model(
        name="reasoner",
        task="wm_reasoner",
        folder=PERCEPTION_MODELS,
        network=_reasoner_network,
        inputs=tuple(Tensor(n, s, f"see {see}.{names}", normalisation="in the features") for n, s, names in inputs),
        outputs=(
            Tensor("pair_probabilities", ("N", "N", 3), "probability"),
            Tensor("object_probabilities", ("N", 4), "probability"),
            Tensor("prior", ("N", 6), "means, then precisions, of log mass, friction, restitution"),
            Tensor("contact_evidence", ("C", 6), "as prior"),
            Tensor("step_evidence", ("M", 6), "as prior"),
            Tensor("cause", ("Q",), "probability"),
        ),
        axes={"N": Axis(1, 8, 64), "C": Axis(0, 4, 256), "M": Axis(0, 8, 64), "Q": Axis(0, 16, 96)},
        facts=_reasoner_facts,
        real=_reasoner_real,
        metric=_reasoner_metric,
        metric_key="seeds_events_f1",
        gpu=False,
        loads={"batch 1": {}, "24 things": {"N": 24, "C": 16, "M": 24, "Q": 96}},
    )


# The dynamics.


def _dynamics_network(weights: Path) -> nn.Module:
    from training.dynamics.exporting import _Exported, load_weights

    # By how much deviations are widened was found by calibration after training, and is no weight.
    return _Exported(load_weights(weights), float(_dynamics_said(weights).get("scatter_factor", "1"))).eval()


def _dynamics_said(weights: Path) -> dict[str, str]:
    from wm_core.inference.base import onnx_metadata

    shipped = weights.with_suffix(".onnx")
    return onnx_metadata(shipped) if shipped.is_file() else {}


def _dynamics_facts(network: nn.Module) -> dict[str, str]:
    from wm_dynamics.contact_step.body_tables import VERSION

    said = _dynamics_said(DYNAMICS_MODELS / "dynamics.safetensors")
    step: Any = network.network
    return {
        "version": str(VERSION),
        "step_s": repr(step.step_s),
        "sweeps": str(step.sweeps),
        **{k: said[k] for k in ("units", "training", "scatter_factor") if k in said},
    }


def _dynamics_example(rng: np.random.Generator, sizes: Mapping[str, int]) -> dict[str, NDArray[Any]]:
    """Things at and about rest, with indices that are in range."""
    from training.dynamics.exporting import example_inputs
    from training.dynamics.options import INPUTS

    bodies, hulls = sizes["bodies"], min(sizes["hulls"], sizes["bodies"])
    values = example_inputs(bodies, sizes["pairs"], hulls)
    feeds = {name: value.numpy().copy() for name, value in zip(INPUTS, values, strict=True)}
    for name, scale in (("position", 0.5), ("linear", 0.3), ("angular", 1.0)):
        feeds[name] += (scale * rng.normal(size=feeds[name].shape)).astype(np.float32)
    feeds["quaternion"] += (0.3 * rng.normal(size=feeds["quaternion"].shape)).astype(np.float32)
    feeds["quaternion"] /= np.linalg.norm(feeds["quaternion"], axis=0)
    return feeds


def _dynamics_tensors() -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    from training.dynamics.exporting import example_inputs
    from training.dynamics.options import INPUTS, OUTPUTS
    from wm_dynamics.contact_step.body_tables import HULL_POINTS

    si = "SI; wm_dynamics/contact_step/body_tables.py"
    inputs = []
    for name, value in zip(INPUTS, example_inputs(5, 4, 2), strict=True):
        axes = {5: "bodies", 4: "pairs", 2: "hulls"}
        last = "pairs" if name.startswith("pair_") else "hulls" if name.startswith("hull_") else "bodies"
        assert axes[value.shape[-1]] == last or value.shape[-1] == HULL_POINTS
        shape: tuple[int | str, ...] = (*(int(s) for s in value.shape[:-1]), last)
        inputs.append(Tensor(name, shape, si, str(value.dtype).removeprefix("torch.")))
    rows = {"position_next": 3, "quaternion_next": 4, "linear_next": 3, "angular_next": 3, "deviation": 2}
    outputs = []
    for name in OUTPUTS:
        last = "pairs" if name.startswith("pair_") else "bodies"
        outputs.append(Tensor(name, (rows[name], last) if name in rows else (last,), si))
    return tuple(inputs), tuple(outputs)


def _without_scattered_sums(graph: onnx.ModelProto) -> onnx.ModelProto:
    from export.graph import without_scattered_sums

    return without_scattered_sums(graph)


def _dynamics() -> Model:
    inputs, outputs = _dynamics_tensors()
    return Model(
        name="dynamics",
        task="wm_dynamics",
        folder=DYNAMICS_MODELS,
        network=_dynamics_network,
        inputs=inputs,
        outputs=outputs,
        axes={"bodies": Axis(1, 8, 8192), "pairs": Axis(0, 8, 8192), "hulls": Axis(0, 2, 4096)},
        facts=_dynamics_facts,
        real=lambda split, count: iter(()),
        metric=lambda run: {},
        metric_key="",
        example=_dynamics_example,
        gpu=False,
        loads={"batch 1": {}, "1024 futures": {"bodies": 8192, "pairs": 8192, "hulls": 1024}},
        for_engines=_without_scattered_sums,
        # Positions of metres to a tenth of a millimetre are more than half precision has.
        precisions=("fp32",),
    )


_MAKERS: dict[str, Callable[[], Model]] = {"segmenter": _segmenter, "reasoner": _reasoner, "dynamics": _dynamics}
"""Of each model; called when it is asked for, as some import torch."""


def names() -> tuple[str, ...]:
    """Of the models whose weights are there."""
    folders = {"dynamics": DYNAMICS_MODELS}
    return tuple(n for n in _MAKERS if (folders.get(n, PERCEPTION_MODELS) / f"{n}.safetensors").is_file())


def model(name: str) -> Model:
    """A model by name.

    Raises:
        ValueError: no such model.
    """
    if name not in _MAKERS:
        raise ValueError(f"model: got {name!r}, expected one of {', '.join(_MAKERS)}")
    return _MAKERS[name]()
