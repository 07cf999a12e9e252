"""What ``wm export`` must know of a model: its tensors, their open sizes, its data, and the metric of its task."""

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
    """A size of tensors that is left open in the ONNX file.

    Attributes:
        least, most: bounds that the nodes keep to; engines are built for sizes from least to most.
        usual: the size that engines are tuned for and that latency is measured at.

    Raises:
        ValueError: not 0 <= least <= usual <= most.
    """

    least: int
    usual: int
    most: int

    def __post_init__(self) -> None:
        if not 0 <= self.least <= self.usual <= self.most:
            raise ValueError(f"axis: got {self.least}..{self.usual}..{self.most}, expected 0 <= least <= usual <= most")


@dataclass(frozen=True)
class Tensor:
    """An input or output of a model; all of it is written into the ONNX file's metadata.

    Attributes:
        name: of the tensor in the ONNX file.
        shape: of each dimension its size, or the name of its ``Axis`` where the size is open.
        unit: of the values, or where their units are listed. "probability" has its error measured against 1 instead of
            the tensor's largest value (``export.parity.relative_error``).
        dtype: element type, by NumPy's name.
        normalisation: how the values are scaled before they are fed; "none": fed in their unit.
    """

    name: str
    shape: tuple[int | str, ...]
    unit: str
    dtype: str = "float32"
    normalisation: str = "none"


@dataclass(frozen=True)
class Quantization:
    """How a model is quantized to int8.

    Attributes:
        operators: ONNX operators whose inputs and weights become int8.
        keep: nodes that stay in fp32: any whose name contains one of these.
        narrow: convolutions whose weights get seven bits: any whose name contains one of these. CPUs without VNNI sum
            pairs of products in 16 bits, in which those of eight bits overflow where neighboring channels are both
            large (see ``wm_core.inference.onnx_runtime.int8_is_fast``).
        images: number of real inputs of the training set that the ranges of activations are measured on.
    """

    operators: tuple[str, ...]
    keep: tuple[str, ...]
    narrow: tuple[str, ...] = ()
    images: int = 64


@dataclass(frozen=True)
class Model:
    """One exportable model.

    Attributes:
        name: stem of the model's files.
        task: the file's metadata entry ``task``.
        folder: holds the weights, the ONNX files and the card.
        network: builds the torch module with the weights of a safetensors file, in evaluation mode.
        inputs, outputs: in the order of the module's arguments and results.
        axes: the open sizes, by the names that the shapes of inputs and outputs use.
        facts: further metadata entries, from the module.
        real: given a split ("train", or the held-out "seeds" or "families") and a number, at most so many real inputs;
            fewer or none where there is no data.
        metric: figures of the task on held-out data by name, from a function that runs the model; empty where there is
            no data.
        metric_key: the figure that precisions are compared by; larger is better. Empty: none.
        quantization: how the int8 files are made; None: int8 is not offered.
        fp32_operators: ONNX operators that stay in fp32 in the fp16 file.
        gpu: False: too small to gain from a GPU. ``auto`` then uses none, no fp16 file is installed, and one CPU thread
            is used in measurements.
        loads: by label, sizes of axes at which ``make bench-engines`` measures; axes that are not named have their
            usual size.
        for_engines: turns the fp32 graph into one that TensorRT can build; None: TensorRT builds the graph as it is.
            Where it is set, one engine serves all architectures, because a build takes long.
        precisions: those of ``export.precision.PRECISIONS`` that are offered.
        example: synthetic inputs by name, of given sizes; None: those of ``random``.
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
        """Shape of a tensor for these sizes of the axes."""
        return tuple(s if isinstance(s, int) else sizes[s] for s in tensor.shape)

    def sizes(self, which: str) -> dict[str, int]:
        """Size of every axis by name; ``which``: "least", "usual" or "most"."""
        return {name: getattr(axis, which) for name, axis in self.axes.items()}

    def profile(self) -> dict[str, tuple[tuple[int, ...], ...]]:
        """Shapes of each input that an engine is built for: least, usual, most."""
        return {t.name: tuple(self.shape(t, self.sizes(w)) for w in ("least", "usual", "most")) for t in self.inputs}

    def random(self, rng: np.random.Generator, sizes: Mapping[str, int] | None = None) -> dict[str, NDArray[Any]]:
        """Synthetic inputs by name; ``sizes``: of the axes, None: the usual ones.

        Those of ``example``, or normal random numbers of standard deviation 0.5; integers are 0, a valid index.
        """
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
    """The same model with other real inputs, e.g. a user's own to measure int8 ranges on."""
    return replace(model, real=real)
