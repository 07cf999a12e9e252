"""Trained models: where they are, whether they are what they should be, and the segmenter that a configuration names.

A file is checked when it is loaded, by what it says of its tensors and by running it once: a wrong file is refused
before the first frame. Every refusal is a ``ModelError`` that names the file, the tensor or metadata, what was found
and what was expected. docs/models.md has the contracts.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wm_core.inference import (
    GPU_BACKENDS,
    InferenceError,
    InferenceSession,
    TensorSpec,
    choose,
    int8_is_fast,
    open_session,
)
from wm_core.inference_base import onnx_metadata
from wm_perception.segmentation.geometric import GeometricSegmenter
from wm_perception.types import PerceptionConfig, Segmenter

if TYPE_CHECKING:
    from wm_perception.reasoning.reasoner import Reasoner

log = logging.getLogger(__name__)

SHIPPED = ("segmenter", "reasoner")
"""Names of the models that come with the package, where they have been trained."""

SEGMENTER_TASK = "wm_segmenter"
"""Metadata ``task`` of wm's own segmenter; any other model is a user's own."""

REASONER_TASK = "wm_reasoner"

_EMBEDDING_SIZE = 16


class ModelError(ValueError):
    """A model that cannot be used; names the file, what of it is wrong, what was found and what was expected."""


@dataclass(frozen=True)
class Tensor:
    """What a model's input or output has to be.

    Attributes:
        name: of the tensor.
        shape: a number is a fixed size, a letter any size (the same letter: the same size).
        dtype: of its values.
        also: other shapes that are taken, e.g. with a leading batch axis.
        optional: the model may do without it.
    """

    name: str
    shape: tuple[int | str, ...]
    dtype: Any = np.float32
    also: tuple[tuple[int | str, ...], ...] = ()
    optional: bool = False

    @property
    def shapes(self) -> tuple[tuple[int | str, ...], ...]:
        """All shapes that are taken."""
        return (self.shape, *self.also)

    def __str__(self) -> str:
        shapes = " or ".join(shape_text(s) for s in self.shapes)
        return f"{self.name!r} {np.dtype(self.dtype)} {shapes}"


def shape_text(shape: Sequence[int | str | None]) -> str:
    """``(1, 3, H, ?)`` of a shape; ? is a size that the file leaves open without a name."""
    return f"({', '.join('?' if s is None else str(s) for s in shape)}{',' if len(shape) == 1 else ''})"


# Where they are.


def model_folders() -> list[Path]:
    """Where shipped models are looked for: beside the sources, then in the installed share folders."""
    folders = [Path(__file__).resolve().parents[1] / "models"]
    prefixes = [p for p in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if p]
    folders += [Path(prefix) / "share" / "wm_perception" / "models" for prefix in [*prefixes, sys.prefix]]
    return [f for f in folders if f.is_dir()]


def shipped_model(name: str) -> Path | None:
    """The ONNX file of a model that came with the package, or None where it did not."""
    return next((f / f"{name}.onnx" for f in model_folders() if (f / f"{name}.onnx").is_file()), None)


def model_path(name: str, given: str = "") -> Path:
    """The file to load: the one given, or else the shipped one.

    Raises:
        ModelError: it is not there.
    """
    if given:
        path = Path(given).expanduser()
        if not path.is_file():
            what = "a folder" if path.is_dir() else "no such file"
            raise ModelError(f"{name} model {path}: {what}, expected an ONNX file ({name}_model)")
        return path
    found = shipped_model(name)
    if found is None:
        places = ", ".join(str(f) for f in model_folders()) or "no folder wm_perception/models at all"
        raise ModelError(f"{name} model: no {name}.onnx in {places}; run: make train-{name}")
    return found


@lru_cache(maxsize=16)
def _sha256(path: Path, size: int, changed_ns: int) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def sha256(path: Path) -> str:
    """Of a file's content, 64 hexadecimal digits."""
    status = path.stat()
    return _sha256(path.resolve(), status.st_size, status.st_mtime_ns)


# Whether they are what they should be.


def load(
    path: str | Path, threads: int | None = None, backend: str = "onnxruntime_cpu", gpu: bool = True
) -> InferenceSession:
    """A session over a model file.

    Args:
        backend: see ``wm_core.inference.BACKENDS``, or auto; gpu: False: auto leaves the GPU alone.

    Raises:
        ModelError: absent, no model that the runtime can load, or no such runtime here.
    """
    # Of a file whose ending no runtime takes, it is said which are taken.
    backend = backend if Path(path).suffix == ".onnx" else "auto"
    try:
        return open_session(path, backend, threads, gpu=gpu)
    except InferenceError as error:
        raise ModelError(str(error)) from error


def check_tensors(path: str | Path, kind: str, found: Sequence[TensorSpec], expected: Sequence[Tensor]) -> None:
    """Compare what a file says of its inputs or outputs with what they have to be.

    Args:
        kind: ``input`` or ``output``. Inputs beyond the expected are refused: nothing could be put in; outputs are not.

    Raises:
        ModelError: names the file and the tensor.
    """
    by_name = {s.name: s for s in found}
    listed = ", ".join(f"{s.name!r} {s.dtype} {shape_text(s.shape)}" for s in found) or "none"
    for tensor in expected:
        if tensor.name not in by_name:
            if tensor.optional:
                continue
            raise ModelError(f"{path}: {kind} {tensor.name!r} is missing: got {listed}; expected {tensor}")
        spec = by_name[tensor.name]
        if spec.dtype != np.dtype(tensor.dtype):
            raise ModelError(f"{path}: {kind} {tensor.name!r}: got {spec.dtype}, expected {tensor}")
        # A runtime gives () for a shape that the file does not state; running it tells.
        if spec.shape and not any(_fits(spec.shape, shape) for shape in tensor.shapes):
            raise ModelError(f"{path}: {kind} {tensor.name!r}: got shape {shape_text(spec.shape)}, expected {tensor}")
    known = {tensor.name for tensor in expected}
    unknown = [s for s in found if s.name not in known]
    if kind == "input" and unknown:
        s = unknown[0]
        raise ModelError(
            f"{path}: input {s.name!r} {s.dtype} {shape_text(s.shape)} is not known, "
            f"expected {', '.join(str(t) for t in expected)}"
        )


def _fits(shape: Sequence[int | str | None], expected: Sequence[int | str]) -> bool:
    return len(shape) == len(expected) and all(
        not isinstance(got, int) or isinstance(want, str) or got == want
        for got, want in zip(shape, expected, strict=True)
    )


def check_values(
    path: str | Path, values: Mapping[str, NDArray[Any]], expected: Sequence[Tensor], sizes: dict[str, int]
) -> None:
    """Compare what a model gave with what its outputs have to be.

    Args:
        sizes: of the letters that are known; those that are met are added.

    Raises:
        ModelError: names the file and the tensor: absent, of another shape, or with values that are no numbers.
    """
    for tensor in expected:
        if tensor.name not in values:
            if tensor.optional:
                continue
            raise ModelError(f"{path}: output {tensor.name!r} is missing, expected {tensor}")
        value = values[tensor.name]
        bound = next((b for s in tensor.shapes if (b := _bind(value.shape, s, sizes)) is not None), None)
        if bound is None:
            known = ", ".join(f"{letter} = {size}" for letter, size in sizes.items())
            raise ModelError(
                f"{path}: output {tensor.name!r}: it gave shape {shape_text(value.shape)}, expected {tensor}"
                + (f" with {known}" if known else "")
            )
        sizes.update(bound)
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            raise ModelError(
                f"{path}: output {tensor.name!r}: {int((~np.isfinite(value)).sum())} of {value.size} values are NaN or "
                "infinite, expected finite ones"
            )


def _bind(shape: Sequence[int], expected: Sequence[int | str], sizes: Mapping[str, int]) -> dict[str, int] | None:
    """Sizes of the letters that make the shapes agree, or None."""
    if len(shape) != len(expected):
        return None
    bound = dict(sizes)
    for got, want in zip(shape, expected, strict=True):
        if got != (bound.setdefault(want, got) if isinstance(want, str) else want):
            return None
    return bound


def names_in(path: str | Path, metadata: Mapping[str, str], key: str) -> tuple[str, ...]:
    """A list of names in a model's metadata: a JSON list, or words between commas.

    Raises:
        ModelError: absent, empty, or not a list of different names.
    """
    text = metadata.get(key, "").strip()
    if not text:
        keys = ", ".join(sorted(metadata)) or "none at all"
        raise ModelError(f"{path}: metadata {key!r} is missing: got {keys}; expected a JSON list of names")
    try:
        names: Any = json.loads(text) if text.startswith("[") else [word.strip() for word in text.split(",")]
    except ValueError as error:
        raise ModelError(f"{path}: metadata {key!r}: got {text[:80]!r}, expected a JSON list ({error})") from error
    if not names or not all(isinstance(n, str) and n for n in names) or len(set(names)) < len(names):
        raise ModelError(f"{path}: metadata {key!r}: got {text[:80]!r}, expected a JSON list of different names")
    return tuple(names)


def number_in(
    path: str | Path, metadata: Mapping[str, str], key: str, default: float, low: float, high: float
) -> float:
    """A number in a model's metadata, or the default where it is absent.

    Raises:
        ModelError: no number, or out of range.
    """
    text = metadata.get(key, "")
    try:
        value = float(text) if text else default
    except ValueError as error:
        raise ModelError(f"{path}: metadata {key!r}: got {text[:80]!r}, expected a number") from error
    if not low <= value <= high:
        raise ModelError(f"{path}: metadata {key!r}: got {value:g}, expected {low:g}..{high:g}")
    return value


def probe(path: str | Path, session: InferenceSession, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Run a model once.

    Raises:
        ModelError: it fails.
    """
    try:
        return session.run(feeds)
    except InferenceError as error:
        raise ModelError(str(error)) from error


# The segmenter.


def learned_contract(channels: int, classes: int) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Inputs and outputs of wm's own segmenter; h and w are even, h2 and w2 half of them."""
    return (Tensor("image", ("B", channels, "h", "w")),), (
        Tensor("foreground", ("B", 1, "h", "w")),
        Tensor("centre", ("B", 1, "h", "w")),
        Tensor("offset", ("B", 2, "h", "w")),
        Tensor("classes", ("B", classes, "h2", "w2")),
        Tensor("embedding", ("B", _EMBEDDING_SIZE, "h2", "w2")),
    )


def load_learned_segmenter(
    path: str | Path, threads: int | None = None, max_height_m: float = 0.6, backend: str = "onnxruntime_cpu"
) -> Segmenter:
    """wm's own trained segmenter, for things up to a height over their support.

    Raises:
        ModelError: the file is not such a model.
    """
    from wm_perception.segmentation.learned import CHANNELS, OUTPUTS, LearnedSegmenter

    session = load(path, threads, backend)
    task = session.metadata.get("task", "")
    if task != SEGMENTER_TASK:
        found = repr(task) if task else f"none (inputs {', '.join(repr(s.name) for s in session.inputs)})"
        raise ModelError(
            f"{path}: metadata 'task': got {found}, expected {SEGMENTER_TASK!r}; a segmenter of your own is used by "
            "segmenter: onnx"
        )
    vocabulary = names_in(path, session.metadata, "vocabulary")
    channels = names_in(path, session.metadata, "channels")
    if channels != CHANNELS:
        raise ModelError(f"{path}: metadata 'channels': got {', '.join(channels)}; expected {', '.join(CHANNELS)}")
    inputs, outputs = learned_contract(len(CHANNELS), len(vocabulary))
    check_tensors(path, "input", session.inputs, inputs)
    check_tensors(path, "output", session.outputs, outputs)
    if any(isinstance(size, int) for size in session.inputs[0].shape[2:]):
        raise ModelError(
            f"{path}: input 'image': got fixed sizes {shape_text(session.inputs[0].shape)}, expected {inputs[0]} with "
            "h and w left open, since cameras differ"
        )
    # Of two sizes: an export may have kept that of its example somewhere inside.
    for h, w in ((64, 96), (50, 42)):
        values = probe(path, session, {"image": np.zeros((1, len(CHANNELS), h, w), np.float32)})
        check_values(path, values, outputs, {"B": 1, "h": h, "w": w, "h2": h // 2, "w2": w // 2})

    if backend in GPU_BACKENDS:
        # Of the usual size, so that kernels and graphs are there for the first frame.
        try:
            session.warm_up({"image": (1, len(CHANNELS), 240, 320)})
        except InferenceError as error:
            raise ModelError(str(error)) from error

    def network(image: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
        values = session.run({"image": image})
        return tuple(values[name] for name in OUTPUTS)

    return LearnedSegmenter(network, vocabulary, max_height_m)


@dataclass(frozen=True)
class Choice:
    """What a configuration comes down to here: ``kind`` is learned, geometric or onnx; ``path`` None for geometric.

    ``backend`` runs it; ``precision`` is that of the file; ``why``: of both, in words.
    """

    kind: str
    path: Path | None = None
    backend: str = ""
    precision: str = "fp32"
    why: str = ""

    def __str__(self) -> str:
        if not self.path:
            return self.kind
        return (
            f"{self.kind}, {self.path} (sha256 {sha256(self.path)[:12]}), {self.precision} on {self.backend} "
            f"({self.why})"
        )


def chosen(name: str, config: PerceptionConfig) -> Choice:
    """Which model is used for ``segmenter`` or ``reasoner``; the file is there, but not looked into.

    ``auto`` means the shipped weights, and geometry only where none are installed: bad weights are refused, not passed
    over. With a file, ``auto`` takes a segmenter for what its metadata says it is.

    Raises:
        ModelError: the file is not there.
    """
    kind, given = getattr(config, name), getattr(config, f"{name}_model")
    if kind == "geometric" or (kind == "auto" and not given and shipped_model(name) is None):
        return Choice("geometric")
    path = model_path(name, given)
    if kind == "auto" and name == "segmenter" and given:
        kind = "learned" if load(path).metadata.get("task") == SEGMENTER_TASK else "onnx"
    kind = "onnx" if kind == "onnx" else "learned"
    try:
        # The reasoner's tensors are small: bringing them to a GPU takes longer than running it here. Of a segmenter
        # of one's own it is not known whether a GPU runtime takes it: that has to be asked for.
        gpu = name == "segmenter" and kind == "learned"
        backend, reasons = choose(config.inference_backend, path, gpu, _REFUSED)
    except InferenceError as error:
        raise ModelError(f"inference_backend: {error}") from error
    if name == "reasoner" or given:
        return Choice(kind, path, backend, "the file's precision", reasons[-1])
    precision, why = _precision(config.inference_precision, backend, path)
    variant = path if precision == "fp32" else path.with_name(f"{path.stem}_{precision}.onnx")
    return Choice(kind, variant, backend, precision, f"{reasons[-1]}; {why}")


_REFUSED: dict[str, str] = {}
"""Backends that turned out not to run a model here, with the reason."""


def _precision(wanted: str, backend: str, path: Path) -> tuple[str, str]:
    """The precision of a shipped model on a backend, and why.

    Raises:
        ModelError: one was asked for whose file is not there, or that is not for this backend.
    """
    on_gpu = backend in GPU_BACKENDS
    fast, cpu = int8_is_fast()
    if wanted != "auto":
        file = path if wanted == "fp32" else path.with_name(f"{path.stem}_{wanted}.onnx")
        if not file.is_file():
            raise ModelError(f"inference_precision: got {wanted!r}, but there is no {file}; run: make export")
        if wanted == "int8" and (on_gpu or not fast):
            where = f"{backend} takes another int8 file (docs/engines.md)" if on_gpu else cpu
            raise ModelError(f"inference_precision: got 'int8', expected auto, fp32 or fp16 here: {where}")
        return wanted, f"{wanted} was asked for"
    best, why = ("fp16", "on a GPU") if on_gpu else ("int8", cpu) if fast else ("fp32", cpu)
    variant = path.with_name(f"{path.stem}_{best}.onnx")
    if best != "fp32" and not variant.is_file():
        return "fp32", f"no {variant.name} beside it"
    if best != "fp32" and _weights(variant) != _weights(path):
        return "fp32", f"{variant.name} is of other weights; run: make export ARGS=--install"
    return best, why


def _weights(path: Path) -> str:
    """SHA-256 of the weights that a file was exported from, as it says itself; its name where it says nothing."""
    try:
        return onnx_metadata(path).get("weights_sha256") or path.name
    except InferenceError:
        return path.name


def make_segmenter(config: PerceptionConfig) -> Segmenter:
    """The segmenter that a configuration names; see ``chosen``.

    Raises:
        ModelError: its model is absent or not what it should be.
    """
    choice = chosen("segmenter", config)
    if choice.path is None:
        return GeometricSegmenter()
    if choice.kind == "onnx":
        from wm_perception.segmentation.onnx import OnnxSegmenter

        return OnnxSegmenter(choice.path, threads(config), config.min_pixels, choice.backend)
    try:
        return load_learned_segmenter(choice.path, threads(config), config.max_height_m, choice.backend)
    except ModelError as error:
        if config.inference_backend != "auto" or choice.backend not in GPU_BACKENDS:
            raise
        log.warning("%s does not run the segmenter, going on without it: %s", choice.backend, error)
        _REFUSED[choice.backend] = str(error)
        return make_segmenter(config)


# The reasoner.


def reasoner_contract() -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Inputs and outputs of the reasoner: N things, C contacts, M steps of motion, Q questions of cause."""
    from wm_perception.reasoning import features

    window = features.WINDOW
    return (
        Tensor("objects", ("N", window, len(features.OBJECT_FEATURES))),
        Tensor("pairs", ("N", "N", window, len(features.PAIR_FEATURES))),
        Tensor("shapes", ("N", len(features.SHAPE_FEATURES))),
        Tensor("contacts", ("C", len(features.CONTACT_FEATURES))),
        Tensor("steps", ("M", len(features.STEP_FEATURES))),
        Tensor("causes", ("Q", len(features.CAUSE_FEATURES))),
    ), (
        Tensor("pair_probabilities", ("N", "N", 3)),
        Tensor("object_probabilities", ("N", 4)),
        Tensor("prior", ("N", 6)),
        Tensor("contact_evidence", ("C", 6)),
        Tensor("step_evidence", ("M", 6)),
        Tensor("cause", ("Q",)),
    )


def load_learned_reasoner(
    path: str | Path,
    threads: int | None = None,
    config: PerceptionConfig | None = None,
    backend: str = "onnxruntime_cpu",
) -> Reasoner:
    """The trained reasoner.

    Raises:
        ModelError: the file is not such a model.
    """
    from wm_perception.reasoning.reasoner import Reasoner

    session = load(path, threads, backend)
    task = session.metadata.get("task", "")
    if task != REASONER_TASK:
        found = repr(task) if task else f"none (inputs {', '.join(repr(s.name) for s in session.inputs)})"
        raise ModelError(f"{path}: metadata 'task': got {found}, expected {REASONER_TASK!r}")
    inputs, outputs = reasoner_contract()
    check_tensors(path, "input", session.inputs, inputs)
    check_tensors(path, "output", session.outputs, outputs)
    # Of two sizes: an export may have kept that of its example somewhere inside.
    for n, c, m, q in ((1, 1, 1, 1), (4, 3, 2, 5)):
        sizes: dict[str, int] = {"N": n, "C": c, "M": m, "Q": q}
        feeds = {t.name: np.zeros([s if isinstance(s, int) else sizes[s] for s in t.shape], np.float32) for t in inputs}
        check_values(path, probe(path, session, feeds), outputs, dict(sizes))
    text = session.metadata.get("scales", "[1, 1, 1]")
    try:
        scales = np.asarray(json.loads(text), dtype=np.float64)
    except ValueError:
        scales = np.zeros(0)
    if scales.shape != (3,) or not (np.isfinite(scales) & (scales > 0.0)).all():
        raise ModelError(f"{path}: metadata 'scales': got {text[:80]!r}, expected three positive numbers")

    # A function, not the bound method: a copy of the pipeline shares the session.
    def network(feeds: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
        return session.run(feeds)

    return Reasoner(config or PerceptionConfig(), network, scales.tolist())


def make_reasoner(config: PerceptionConfig) -> Reasoner:
    """The reasoner that a configuration names; see ``chosen``.

    Raises:
        ModelError: its model is absent or not what it should be.
    """
    from wm_perception.reasoning.reasoner import Reasoner

    choice = chosen("reasoner", config)
    if choice.path is None:
        return Reasoner(config)
    # Small tensors: more threads only get in each other's way.
    return load_learned_reasoner(choice.path, 1, config, choice.backend)


def load_shipped(name: str) -> Any:
    """Load and check a shipped model, as perception would: see ``SHIPPED``.

    Raises:
        ModelError: it is not there, or not what it should be.
    """
    path = model_path(name)
    return load_learned_segmenter(path) if name == "segmenter" else load_learned_reasoner(path)


def threads(config: PerceptionConfig) -> int:
    """Of a network: as configured, but no more than the machine has."""
    return max(1, min(config.inference_threads, os.cpu_count() or 1))
