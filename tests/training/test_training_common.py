"""What all trainings share: the loop goes on to the last bit where it was cut off, and survives a broken gradient."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from rich.console import Console

torch = pytest.importorskip("torch", reason="training needs torch: make test WITH=training")

from training.common import trainer as common  # noqa: E402

QUIET = Console(quiet=True)


@dataclass(frozen=True)
class Options:
    seed: int = 1
    steps: int = 8
    rate: float = 1e-2


class Line(common.Trainer):
    """Fits a line to one batch of points a step."""

    recipe = common.Recipe(weight_decay=0.01, clip=1.0, decay=0.9, warm_up=2, floor=0.1)

    def __init__(self, options: Options) -> None:
        super().__init__(options, lambda: torch.nn.Linear(1, 1), torch.device("cpu"))

    def losses(self, batch):
        return {"square": ((self.network(batch) - 3.0 * batch) ** 2).mean()}


def points(step: int):
    return torch.randn(16, 1, generator=torch.Generator().manual_seed(step))


def fitted(trainer: Line, folder: Path) -> Line:
    trainer.fit(points, lambda smooth: {"loss": smooth["square"]}, 4, folder / "checkpoint.safetensors", QUIET)
    return trainer


@pytest.mark.slow
def test_a_resumed_run_is_the_whole_run_to_the_last_bit(tmp_path: Path) -> None:
    whole = fitted(Line(Options()), tmp_path / "whole")
    begun, resumed = Line(Options()), Line(Options())
    for step in range(3):
        begun.train_step(points(step))
    begun.save(tmp_path / "checkpoint.safetensors")
    resumed.resume(tmp_path / "checkpoint.safetensors", QUIET)
    assert resumed.step == 3
    fitted(resumed, tmp_path)
    for name in ("network", "average"):
        for a, b in zip(getattr(whole, name).parameters(), getattr(resumed, name).parameters(), strict=True):
            assert torch.equal(a, b), name
    assert [row["step"] for row in whole.curve] == [row["step"] for row in resumed.curve] == [4, 8]
    with pytest.raises(ValueError, match=r'checkpoint of a run with .* expected .*"seed": 2'):
        Line(Options(seed=2)).resume(tmp_path / "checkpoint.safetensors", QUIET)


@pytest.mark.slow
def test_a_gradient_that_is_not_finite_changes_no_weight() -> None:
    trainer = Line(Options())
    trainer.train_step(points(0))
    before = [p.detach().clone() for p in trainer.network.parameters()]
    trainer.train_step(torch.tensor([[float("nan")]]))
    assert trainer.skipped == 1 and trainer.step == 2
    assert all(torch.equal(a, b) for a, b in zip(before, trainer.network.parameters(), strict=True))
