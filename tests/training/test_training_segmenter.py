"""Data set, features, training and export of the segmenter at the smallest size: seeded, resumable, alike in ONNX."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

torch = pytest.importorskip("torch", reason="training is not installed; run: make test WITH=training")
h5py = pytest.importorskip("h5py", reason="training is not installed; run: make test WITH=training")

from training.segmenter import validate
from training.segmenter.borders import BorderTrainer
from training.segmenter.evaluate import average_precision, evaluate, session, worst_frames
from training.segmenter.exporting import export
from training.segmenter.model import SegmenterNetwork
from training.segmenter.options import VALIDATION_CLIPS, Options, validation_clips
from training.segmenter.train import train_borders
from training.segmenter.trainer import SETTLING_RATE, Batches, Trainer, collate
from training.worlds import generate as generator
from training.worlds.contact_sheet import contact_sheet
from training.worlds.dataset import Prepared, augment, prepare, targets
from training.worlds.families import VOCABULARY
from training.worlds.splits import SEEDS_OF_A_SPLIT, SPLITS
from wm_perception.segmentation.learned import CHANNELS, OUTPUTS, group_pixels

pytestmark = pytest.mark.slow

QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("data") / "train"
    return generator.generate(folder, "train", 3, 3, 1, 1, QUIET)


@pytest.fixture(scope="module")
def prepared(shards: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return prepare(shards, tmp_path_factory.mktemp("features"), 1, QUIET)


def test_a_shard_describes_itself(shards: list[Path]) -> None:
    with h5py.File(shards[0]) as file:
        assert file.attrs["split"] == "train" and file.attrs["depth_unit_m"] == pytest.approx(1e-4)
        group = file["000001"]
        n, t = len(group["ids"]), len(group["times"])
        assert group["states"].shape == (t, n, 13) and group["properties"].shape == (n, 3)
        assert group["rgb"].shape == (3, 240, 320, 3) and group["depth"].dtype == np.uint16
        assert group["mask"].shape == (3, 240, 320)
        gone = json.loads(group["siblings/0"].attrs["intervention"])["object"]
        row = group["ids"][()].tolist().index(gone)
        assert not group["siblings/0/present"][:, row].any()


def test_what_is_there_is_not_made_again(shards: list[Path]) -> None:
    before = shards[0].stat().st_mtime_ns
    again = generator.generate(shards[0].parent, "train", 3, 3, 1, 1, QUIET)
    assert again == shards and shards[0].stat().st_mtime_ns == before


def test_the_same_seeds_give_the_same_data(shards: list[Path], tmp_path: Path) -> None:
    """Colors but for the last bits of the driver's shading: one run in many differed by 2 of 255 in 0.4 % of them."""
    other = generator.generate(tmp_path, "train", 1, 3, 1, 1, QUIET)
    with h5py.File(shards[0]) as a, h5py.File(other[0]) as b:
        for name in ("states", "depth", "mask"):
            np.testing.assert_array_equal(a["000000"][name][()], b["000000"][name][()])
        apart = np.abs(a["000000"]["rgb"][()].astype(int) - b["000000"]["rgb"][()])
    assert apart.max() <= 3 and (apart > 0).mean() < 0.01


def test_contact_sheet_is_a_picture(shards: list[Path], tmp_path: Path) -> None:
    contact_sheet(shards[0].parent, tmp_path / "sheet.png", rows=1, columns=1)
    assert (tmp_path / "sheet.png").stat().st_size > 10_000
    with pytest.raises(FileNotFoundError, match="found no shards"):
        contact_sheet(tmp_path, tmp_path / "none.png")


def test_features_and_masks(prepared: Prepared) -> None:
    assert prepared.inputs.shape[1:] == (len(CHANNELS), 240, 320)
    assert len(prepared.inputs) == len(prepared.masks) == 9
    assert prepared.masks.max() > 1 and 1 not in np.unique(prepared.masks)
    assert np.abs(prepared.inputs).max() == 127


def test_clips_of_two_splits_are_told_apart(shards: list[Path], tmp_path: Path) -> None:
    """Clip 0 of one split is not clip 0 of the other, and validation keeps clips of both."""
    more = generator.generate(tmp_path / "homeware", "homeware", 2, 2, 0, 1, QUIET)
    both = prepare([*more, *shards], tmp_path / "features", 1, QUIET)
    homeware = SEEDS_OF_A_SPLIT * SPLITS.index("homeware")
    assert np.unique(both.clips).tolist() == [0, 1, 2, homeware, homeware + 1]
    assert {VOCABULARY[c] for c in np.unique(both.classes) if c >= 0} <= set(VOCABULARY)
    many = np.repeat(np.concatenate([np.arange(100), homeware + np.arange(100)]), 3)
    kept = validation_clips(many)
    assert len(kept) == VALIDATION_CLIPS and (kept < homeware).sum() == VALIDATION_CLIPS // 2
    assert validation_clips(np.arange(100)).tolist() == list(range(100 - VALIDATION_CLIPS, 100))


def test_targets_point_at_centers(prepared: Prepared) -> None:
    row = int(np.argmax([(m > 0).sum() for m in prepared.masks]))
    mask = np.array(prepared.masks[row])
    maps, weights, meaning = targets(mask, prepared.classes[row])
    labels, _ = group_pixels(maps[0], maps[1], maps[2:4])
    assert average_precision([mask], [(labels, np.ones(labels.max()))])[0] > 0.9
    assert meaning.shape == (120, 160) and meaning.max() < len(VOCABULARY)
    assert (weights >= 0).all()


def test_augmented_pictures_stay_in_range_and_keep_their_instances(prepared: Prepared) -> None:
    image, mask = np.array(prepared.inputs[0]), np.array(prepared.masks[0])
    for seed in range(8):
        other, other_mask = augment(image, mask, np.random.default_rng(seed))
        assert other.shape == image.shape and np.isfinite(other).all() and np.abs(other).max() <= 1.0 + 1e-5
        assert set(np.unique(other_mask)) <= set(np.unique(mask))


def test_a_resumed_run_is_the_whole_run(prepared: Prepared, tmp_path: Path) -> None:
    options = Options(seed=3, steps=4, batch=2, rate=1e-3, clips=3)
    rows = np.arange(len(prepared.masks))

    def run(trainer: Trainer, until: int) -> None:
        batches = iter(Batches(prepared, rows, options, trainer.step))
        while trainer.step < until:
            trainer.train_step(next(batches))

    whole = Trainer(options, torch.device("cpu"))
    run(whole, 4)
    first = Trainer(options, torch.device("cpu"))
    run(first, 2)
    first.save(tmp_path / "checkpoint.safetensors")
    second = Trainer(options, torch.device("cpu"))
    second.load(tmp_path / "checkpoint.safetensors")
    assert second.step == 2
    run(second, 4)
    for name, value in whole.network.state_dict().items():
        torch.testing.assert_close(second.network.state_dict()[name], value, atol=2e-3, rtol=1e-2, msg=name)
    other = Trainer(Options(seed=4, steps=4, batch=2, rate=1e-3, clips=3), torch.device("cpu"))
    with pytest.raises(ValueError, match="checkpoint of a run with"):
        other.load(tmp_path / "checkpoint.safetensors")


def test_export_says_what_torch_says(prepared: Prepared, tmp_path: Path) -> None:
    trainer = Trainer(Options(seed=1, steps=1, batch=2, rate=1e-3, clips=3), torch.device("cpu"))
    image = collate(prepared, [0, 1], None)[0]
    trainer.average.eval()
    with torch.no_grad():
        wanted = [o.numpy() for o in trainer.average(torch.from_numpy(image))]
    export(trainer.average, tmp_path / "segmenter.onnx", {"seed": "1"})
    network = session(tmp_path / "segmenter.onnx", 1)
    for name, a, b in zip(OUTPUTS, network(image), wanted, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-4, err_msg=name)
    # Any even size.
    assert network(image[:1, :, :122, :158])[0].shape == (1, 1, 122, 158)
    result = evaluate(
        network, Prepared(prepared.inputs[:2], prepared.masks[:2], prepared.clips[:2], prepared.classes[:2])
    )
    assert 0.0 <= result.mask_ap50 <= 1.0 and result.images == 2
    worst = worst_frames(network, prepared, np.linspace(0.0, 1.0, 9), "train", 2)
    assert len(worst) == 2 and worst[0].panels["ground truth"].shape == (240, 320, 3)


def test_the_head_for_borders_learns_alone(prepared: Prepared, tmp_path: Path) -> None:
    options = Options(seed=1, steps=1, batch=2, rate=1e-3, clips=3)
    network = Trainer(options, torch.device("cpu")).average
    before = {k: v.clone() for k, v in network.state_dict().items()}
    trainer = BorderTrainer(network, options, 30, torch.device("cpu"))
    batch = collate(prepared, [0, 1], None)
    first = trainer.watched([batch])
    for _ in range(30):
        trainer.train_step(batch)
    trainer.average.load_state_dict(trainer.network.state_dict())
    assert trainer.watched([batch]) < 0.7 * first
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, before[name], atol=0.0, rtol=0.0, msg=name)
    checkpoint = tmp_path / "borders.safetensors"
    trainer.save(checkpoint)
    train_borders(network, options, 30, prepared, checkpoint, torch.device("cpu"), QUIET)
    for name, value in trainer.average.state_dict().items():
        torch.testing.assert_close(network.apart.state_dict()[name], value, msg=name)


def test_validation_is_scored_by_split(
    shards: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = Trainer(Options(seed=1, steps=1, batch=2, rate=1e-3, clips=3), torch.device("cpu"))
    export(trainer.average, tmp_path / "segmenter.onnx", {"seed": "1"})
    options = ["--model", str(tmp_path / "segmenter.onnx"), "--work", str(tmp_path), "--threads", "1"]
    monkeypatch.setattr("sys.argv", ["validate", *options])
    with pytest.raises(SystemExit, match="1"):
        validate.main()
    assert "features_train: found no features (done.json)" in capsys.readouterr().err
    prepare(shards, tmp_path / "features_train", 1, QUIET)
    validate.main()
    (row,) = [line for line in capsys.readouterr().out.splitlines() if "│ train" in line]
    images, ap50, ap = row.split("│")[2:5]
    assert int(images) == 9 and 0.0 <= float(ap) <= float(ap50) <= 1.0


def test_perfect_masks_have_full_precision() -> None:
    mask = np.zeros((60, 80), np.uint8)
    mask[5:25, 5:25], mask[30:50, 30:60] = 2, 3
    labels = np.where(mask > 0, mask - 1, 0).astype(np.int32)
    assert average_precision([mask], [(labels, np.ones(2, np.float32))]) == (pytest.approx(1.0), pytest.approx(1.0))
    half = labels.copy()
    half[30:40] = 0
    _, ap = average_precision([mask], [(half, np.ones(2, np.float32))])
    assert ap < 0.6


def test_learning_rate_rises_and_falls() -> None:
    options = Options(seed=1, steps=1000, batch=2, rate=1e-3, clips=1)
    rates = [Trainer.recipe.learning_rate(s, options) for s in range(1000)]
    assert max(rates) == pytest.approx(1e-3) and rates[0] < 1e-5 + 1e-3 / 200 and rates[-1] < 2e-5


def test_settling_steps_begin_at_a_tenth_of_the_rate() -> None:
    options = Options(seed=1, steps=1000, batch=2, rate=1e-3, clips=1, settling=200)
    rates = [Trainer.recipe.learning_rate(s, options) for s in range(1000)]
    plain = Options(seed=1, steps=800, batch=2, rate=1e-3, clips=1)
    assert rates[:800] == [Trainer.recipe.learning_rate(s, plain) for s in range(800)]
    assert rates[800] == pytest.approx(SETTLING_RATE * 1e-3) and rates[-1] < 2e-5
    assert all(a >= b for a, b in itertools.pairwise(rates[800:]))


def test_settling_steps_alone_see_stacks(prepared: Prepared) -> None:
    # Clips 1 and 2 stand for an assembly and a stack; their masks have ids by which the batches tell them apart.
    clips, masks = prepared.clips.copy(), np.minimum(prepared.masks, 199)
    for clip, split in ((1, "assemblies"), (2, "stacks")):
        clips[prepared.clips == clip] += SEEDS_OF_A_SPLIT * SPLITS.index(split)
        masks[prepared.clips == clip] = 200 + clip
    data = Prepared(prepared.inputs, masks, clips, np.tile(prepared.classes[:1], (len(clips), 1)))
    batches = Batches(data, np.arange(len(clips)), Options(1, 48, 2, 1e-3, 3, settling=24), 0)
    drawn = [{int(i) for i in np.unique(batch[4]) if i > 200} for _, batch in zip(range(48), batches, strict=False)]
    assert set.union(*drawn[:24]) == {201} and set.union(*drawn[24:]) == {201, 202}
    assert validation_clips(clips).max() == clips[prepared.clips == 1][0]


def test_things_too_small_to_tell_do_not_count() -> None:
    mask = np.zeros((60, 80), np.uint8)
    mask[5:25, 5:25], mask[50:54, 70:74] = 2, 3
    labels = (mask == 2).astype(np.int32)
    assert average_precision([mask], [(labels, np.ones(1, np.float32))])[1] == pytest.approx(1.0)


def test_what_runtimes_get_is_the_same_function():
    torch.manual_seed(4)
    network = SegmenterNetwork().eval()
    for part in network.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            for values in (part.running_mean, part.weight, part.bias):
                torch.nn.init.normal_(values, 0.2, 0.5)
            torch.nn.init.uniform_(part.running_var, 0.3, 2.0)
    # No side is a multiple of the deepest level's step.
    image = 2.0 * torch.rand(2, len(CHANNELS), 38, 54) - 1.0
    with torch.no_grad():
        before, after = network(image), network.for_runtimes()(image)
    for name, one, other in zip(OUTPUTS, before, after, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4, msg=name)
    assert isinstance(network.stem[0], torch.nn.PixelUnshuffle)
