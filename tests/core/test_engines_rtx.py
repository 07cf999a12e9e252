"""Every shipped model becomes a real TensorRT-RTX engine for several GPUs; needs no GPU, only the package."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from wm_core.inference import engine_builder, engine_file, tensorrt_library
from wm_core.inference.base import InferenceError, ModelFileError, onnx_metadata

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        tensorrt_library.runtime_module("tensorrt_rtx") is None,
        reason="tensorrt_rtx is not installed (make setup WITH='training export'); x86-64 alone has it",
    ),
]

ARCHITECTURES = ("SM80", "SM86", "SM89", "SM120")
MODELS = Path(__file__).resolve().parents[2] / "ros2_ws/src"
SHIPPED = sorted(p for p in MODELS.glob("wm_*/models/*.onnx") if not p.stem.endswith("_int8"))
"""The int8 files beside them are for CPUs: TensorRT wants zero points of 0, as ``test_int8_for_a_gpu`` has them."""


def inspect(path: Path, built: engine_builder.Build) -> None:
    size, count = len(built.engine), sum(built.layers.values())
    assert size > 10_000 and count > 20 and built.seconds > 0.0
    text = ", ".join(f"{k} {v}" for k, v in built.dtypes.items())
    print(f"{path.stem}: {size / 2**20:.2f} MiB, {built.seconds:.2f} s, {count} layers, tensors {text}")


REFUSED = {"dynamics": "Unsupported reduction type"}
"""What TensorRT-RTX 1.7 does not take, and what it says: sums over contacts are ScatterElements with a reduction."""


@pytest.mark.parametrize("path", [p for p in SHIPPED if p.stem in REFUSED], ids=lambda p: p.stem)
def test_what_is_refused_still_is(path: Path):
    with pytest.raises(ModelFileError, match=REFUSED[path.stem]):
        engine_builder.build("tensorrt_rtx", path, {}, ["SM89"])


@pytest.mark.parametrize("path", [p for p in SHIPPED if p.stem not in REFUSED], ids=lambda p: p.stem)
def test_every_shipped_model_compiles(path: Path):
    made = {}
    for architecture in ARCHITECTURES:
        built = engine_builder.build("tensorrt_rtx", path, None, [architecture])
        inspect(path, built)
        made[architecture] = built
    first = made[ARCHITECTURES[0]]
    kinds = set(first.dtypes)
    if path.stem.endswith("_fp16"):
        # All that is computed is in half precision; float are the casts of inputs and outputs.
        assert first.dtypes["HALF"] > 10 * first.dtypes["FLOAT"]
    else:
        assert "FLOAT" in kinds and not kinds & {"HALF", "INT8"}
    # An engine of each architecture, not one and the same.
    assert len({b.engine for b in made.values()}) > 1


@pytest.fixture(scope="module")
def rewritten(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dynamics with their sums as TensorRT takes them."""
    pytest.importorskip("torch", reason="export needs torch; install requirements/training.txt")
    from export import graph, registry

    folder = tmp_path_factory.mktemp("dynamics")
    model = registry.model("dynamics")
    source = graph.from_torch(model, folder / "dynamics.onnx")
    return Path(graph.for_engines(model, source, folder / "dynamics_tensorrt.onnx"))


def test_the_dynamics_answer_as_torch_does_with_their_sums_rewritten(rewritten: Path):
    from export import parity, registry

    worst, _ = parity.check(registry.model("dynamics"), rewritten)
    assert worst <= parity.TOLERANCE["fp32"]


@pytest.mark.exhaustive
@pytest.mark.timeout(1800)
def test_the_dynamics_compile_with_their_sums_rewritten(rewritten: Path):
    """For one architecture: 214 s on a core of 2 GHz (a step of one sweep: 178 s). The other models do in seconds."""
    built = engine_builder.build("tensorrt_rtx", rewritten, None, ["SM89"])
    inspect(rewritten, built)
    assert built.layers["MATRIX_MULTIPLY"] > 20 and "SCATTER" in built.layers


def test_one_engine_for_several_architectures():
    path = next(p for p in SHIPPED if p.stem == "segmenter")
    built = engine_builder.build("tensorrt_rtx", path, None, ARCHITECTURES)
    inspect(path, built)


def test_engine_files_of_real_engines(tmp_path: Path):
    path = next(p for p in SHIPPED if p.stem == "segmenter")
    profile = engine_builder.profile_of(path)
    built = engine_builder.build("tensorrt_rtx", path, profile, ["SM89"])
    key = engine_file.EngineKey(
        path.stem,
        "0" * 64,
        "tensorrt_rtx",
        tensorrt_library.runtime_version("tensorrt_rtx"),
        "",
        ("SM89",),
        "fp32",
        engine_file.profile_key(profile),
    )
    file = engine_file.write_engine(tmp_path / key.file_name, key, built.engine, {}, "", built.seconds)
    head, content = engine_file.read_engine(file)
    assert head.key == key and content == built.engine and key.runtime_version.count(".") >= 2


def test_a_lower_precision_is_in_the_engine(tmp_path: Path):
    """Half precision halves the weights, and so, nearly, the engine."""
    sizes = {}
    for stem in ("segmenter", "segmenter_fp16"):
        path = next(p for p in SHIPPED if p.stem == stem)
        sizes[stem] = len(engine_builder.build("tensorrt_rtx", path, None, ["SM89"]).engine)
    assert sizes["segmenter_fp16"] < 0.75 * sizes["segmenter"]


def test_int8_for_a_gpu(tmp_path: Path):
    """An int8 file as TensorRT wants it: zero points of 0, biases as numbers."""
    pytest.importorskip("torch", reason="export needs torch; install requirements/training.txt")
    import numpy as np

    from export import graph, precision, registry
    from export.model import replace_real

    model = registry.model("segmenter")
    rng = np.random.default_rng(5)
    sizes = {**model.sizes("least"), "height": 64, "width": 64, "half_height": 32, "half_width": 32}
    # Ranges of random numbers: good enough to compile, not to see with.
    feeds = [model.random(rng, sizes) for _ in range(2)]
    made_up = replace_real(model, lambda split, count: iter(feeds))
    source = graph.from_torch(model, tmp_path / "segmenter.onnx")
    path = precision.int8(source, tmp_path / "segmenter_int8_symmetric.onnx", made_up, symmetric=True)
    for architecture in ARCHITECTURES[:3]:
        built = engine_builder.build("tensorrt_rtx", path, None, [architecture])
        inspect(path, built)
        assert built.dtypes["INT8"] > 30 and built.layers["QUANTIZE"] > 30
    # And the file for CPUs, with its zero points, is refused with a reason.
    cpu = precision.int8(source, tmp_path / "segmenter_int8.onnx", made_up)
    with pytest.raises(ModelFileError, match="tensorrt_rtx refuses it"):
        engine_builder.build("tensorrt_rtx", cpu, None, ["SM89"])


def test_unknown_architectures_are_named():
    path = next(p for p in SHIPPED if p.stem == "segmenter")
    with pytest.raises(InferenceError, match=r"got architecture 'SM90', expected some of SM75, SM80"):
        engine_builder.build("tensorrt_rtx", path, None, ["SM90"])


def test_metadata_of_shipped_files_says_what_they_are():
    for path in (p for p in SHIPPED if p.stem not in REFUSED):
        metadata = onnx_metadata(path)
        assert {"task", "precision", "tensors", "axes", "git_revision", "card"} <= set(metadata), path
        assert set(json.loads(metadata["axes"])) <= {
            s for t in json.loads(metadata["tensors"]).values() for s in t["shape"] if isinstance(s, str)
        }
