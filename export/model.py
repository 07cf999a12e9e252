"""What is exported: a model's tensors, the sizes that are left open, its data, and how right it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
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
class Quantization:
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
        quantization: None: int8 is not offered.
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
    quantization: Quantization | None = None
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
