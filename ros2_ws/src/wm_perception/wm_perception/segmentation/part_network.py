"""The small network that tells from ``part_features`` how likely two neighboring segments are one object."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np

from wm_perception.segmentation.part_features import FEATURES
from wm_perception.types import Array

FAR = 5.0
"""Deviations from the mean up to which features count; further off the network has seen little."""
FILE = "part_network.json"


@dataclass(frozen=True)
class PartNetwork:
    """One hidden layer of rectified units, on features in units of their deviation.

    Attributes:
        mean, deviation: (F,); hidden: (F, H) and offset (H,) of the hidden units; out: (H,) and constant, of the
            log-odds.
    """

    mean: Array
    deviation: Array
    hidden: Array
    offset: Array
    out: Array
    constant: float

    def log_odds(self, features: Array) -> Array:
        """(P,) of pairs with these features (P, F)."""
        scaled = np.clip((features - self.mean) / self.deviation, -FAR, FAR)
        return np.asarray(np.maximum(scaled @ self.hidden + self.offset, 0.0) @ self.out + self.constant)

    def as_dict(self, names: Sequence[str]) -> dict[str, Any]:
        """For JSON, with the names (F,) of the features; four digits are far below what the fit knows."""
        short = {k: np.vectorize(lambda v: float(f"{v:.4g}"))(v).tolist() for k, v in vars(self).items()}
        return {"features": list(names), **short}

    @classmethod
    def from_dict(cls, stored: dict[str, Any], names: Sequence[str]) -> PartNetwork:
        """The network of ``as_dict``.

        Raises:
            ValueError: it is of other features than these.
        """
        if stored["features"] != list(names):
            raise ValueError(
                f"{FILE}: got features {', '.join(stored['features'])}; expected {', '.join(names)}; fit it again: "
                "python -m training.segmenter.part_odds"
            )
        mean, deviation, hidden, offset, out = (
            np.array(stored[k], np.float64) for k in ("mean", "deviation", "hidden", "offset", "out")
        )
        return cls(mean, deviation, hidden, offset, out, float(stored["constant"]))


@cache
def shipped() -> PartNetwork:
    """The network of this package, fitted by ``python -m training.segmenter.part_odds``.

    Raises:
        ValueError: it is of other features than ``part_features`` gives.
    """
    return PartNetwork.from_dict(json.loads(files(__package__).joinpath(FILE).read_text()), FEATURES)
