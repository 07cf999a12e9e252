"""Training of the dynamics: data, a step that learns, checkpoints, and an export that says what torch says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs torch: make test WITH=training")

from training.common.exporting import save_weights  # noqa: E402
from training.dynamics.data import generate, load, make_clip  # noqa: E402
from training.dynamics.exporting import example_inputs, export, load_weights  # noqa: E402
from training.dynamics.model import DynamicsStep  # noqa: E402
from training.dynamics.options import Options  # noqa: E402
from training.dynamics.rollout import make_batch, roll_out  # noqa: E402
from training.dynamics.trainer import Trainer, calibrate, draw_windows, measure  # noqa: E402
from wm_dynamics.contact_step.network import OUTPUTS  # noqa: E402

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def clips() -> list:
    found = [make_clip(seed) for seed in range(500_000, 500_008)]
    return [c for c in found if c is not None]


def test_clips_are_seeded_stored_and_read_back(tmp_path: Path, clips: list) -> None:
    again = make_clip(500_000)
    assert again is not None
    np.testing.assert_array_equal(again.states, clips[0].states)
    paths = generate(3, tmp_path, workers=1)
    stamp = paths[0].stat().st_mtime_ns
    assert generate(3, tmp_path, workers=1) == paths and paths[0].stat().st_mtime_ns == stamp, "not made twice"
    stored = load(paths)
    np.testing.assert_array_equal(stored[0].states, clips[0].states)
    np.testing.assert_array_equal(stored[0].parameters, clips[0].parameters)


def test_the_untrained_network_beats_straight_lines(clips: list) -> None:
    """Built-in mechanics alone; training starts from there."""
    torch.manual_seed(0)
    result = measure(DynamicsStep(), clips, seed=1, count=24, steps=60)
    assert result["fde_1.0s_m"] < 0.6 * result["straight_1.0s_m"]


def test_a_step_learns_and_a_checkpoint_goes_on(tmp_path: Path, clips: list) -> None:
    options = Options(seed=3, steps=6, batch=6, rate=1e-2, clips=8, longest=6)
    windows = draw_windows(clips, 6, 4, np.random.default_rng(0))
    trainer = Trainer(options)
    before = [p.detach().clone() for p in trainer.network.parameters()]
    first = trainer.train_step((windows, 4))
    assert all(np.isfinite(v) for v in first.values())
    assert any((a != b).any() for a, b in zip(before, trainer.network.parameters(), strict=True))
    trainer.save(tmp_path / "c.safetensors")
    resumed = Trainer(options)
    resumed.load(tmp_path / "c.safetensors")
    trainer.train_step((windows, 4))
    resumed.train_step((windows, 4))
    for a, b in zip(trainer.network.parameters(), resumed.network.parameters(), strict=True):
        torch.testing.assert_close(a, b)
    with pytest.raises(ValueError, match="checkpoint of a run with"):
        Trainer(Options(seed=4, steps=6, batch=6, rate=1e-2, clips=8, longest=6)).load(tmp_path / "c.safetensors")


def test_export_says_what_torch_says(tmp_path: Path, clips: list) -> None:
    import onnxruntime

    torch.manual_seed(1)
    network = DynamicsStep()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    export(network, tmp_path / "d.onnx", {}, factor=1.5)
    save_weights(network, tmp_path / "d.safetensors")
    again = load_weights(tmp_path / "d.safetensors")
    session = onnxruntime.InferenceSession(str(tmp_path / "d.onnx"), providers=["CPUExecutionProvider"])
    for sizes in ((5, 4, 2), (9, 0, 0), (3, 7, 3)):
        inputs = example_inputs(*sizes)
        with torch.no_grad():
            r = again(*inputs)
        expected = (r.position, r.quaternion, r.linear, r.angular, r.plane_impulse, r.pair_impulse, 1.5 * r.deviation,
                    r.plane_gap, r.pair_gap)  # fmt: skip
        feeds = {i.name: v.numpy() for i, v in zip(session.get_inputs(), inputs, strict=True)}
        for name, want, got in zip(OUTPUTS, expected, session.run(list(OUTPUTS), feeds), strict=True):
            np.testing.assert_allclose(got, want.numpy(), rtol=2e-3, atol=2e-4, err_msg=name)


def test_scatter_is_calibrated_on_rollouts(clips: list) -> None:
    result = calibrate(DynamicsStep(), clips, seed=0, samples=3, count=6, steps=12)
    assert 0.0 < result["factor"] <= 8.0 and 0.0 <= result["coverage"] <= 1.0


def test_kinematic_bodies_follow_the_truth(clips: list) -> None:
    with_pusher = [c for c in clips if c.kinematic.any()]
    assert with_pusher, "among eight worlds some have a pusher"
    batch = make_batch([(with_pusher[0], 100)], 6)
    with torch.no_grad():
        states, _ = roll_out(DynamicsStep(), batch, 6)
    kinematic = batch.kinematic
    torch.testing.assert_close(states[:, :3, kinematic], batch.ground_truth[1:, :3, kinematic])
