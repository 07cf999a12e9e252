"""The models that ``wm export`` knows, each with all that exporting, checking and measuring it needs.

A further model is one more function in ``_MAKERS`` that makes a ``Model``: its torch definition, its tensors, their
bounds, real inputs, and the metric of its task.
"""

from __future__ import annotations

from collections.abc import Callable

from export.dynamics import make_dynamics
from export.model import DYNAMICS_MODELS, PERCEPTION_MODELS, Model
from export.reasoner import make_reasoner
from export.segmenter import make_segmenter

_MAKERS: dict[str, Callable[[], Model]] = {
    "segmenter": make_segmenter,
    "reasoner": make_reasoner,
    "dynamics": make_dynamics,
}
"""Makes each model; called only for the models that are used, because some import torch."""


def names() -> tuple[str, ...]:
    """Names of the models whose weights are there."""
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
