"""Perception and imagination as processes, with their parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wm_bringup.environment import package_file
from wm_bringup.run.node_command import node_command
from wm_bringup.run.processes import ProcessGroup

START_S = 180.0
"""The first start on a machine compiles imagination's kernels: 40 s, and longer on a busy one."""


def start_nodes(
    processes: ProcessGroup,
    *,
    namespace: str = "/wm",
    remaps: Mapping[str, str] | None = None,
    parameters: Mapping[str, Any] | None = None,
    params_files: Sequence[Path] = (),
    perception: Mapping[str, Any] | None = None,
) -> None:
    """Start perception and imagination with their default parameters, then ``params_files``, then ``parameters``.

    ``perception``: parameters of that node alone, e.g. of ``model_parameters``.
    """
    for name in ("perception", "imagination"):
        files = [package_file(f"wm_{name}", "config", f"{name}.yaml"), *params_files]
        given = {**(parameters or {}), **((perception or {}) if name == "perception" else {})}
        processes.start(name, node_command(f"wm_{name}.node", namespace, given, files, remaps or {}))


def model_parameters(
    segmenter: str = "", segmenter_model: Path | None = None, reasoner: str = "", reasoner_model: Path | None = None
) -> dict[str, str]:
    """Parameters of perception for the models that were asked for; nothing for those that were not.

    Raises:
        FileNotFoundError: a model's file is not there.
    """
    given: dict[str, str] = {}
    for name, kind, path in (("segmenter", segmenter, segmenter_model), ("reasoner", reasoner, reasoner_model)):
        if kind:
            given[f"pipeline.{name}"] = kind
        if path is not None:
            if not path.is_file():
                raise FileNotFoundError(f"{path} is not a file")
            given[f"pipeline.{name}_model"] = str(path.resolve())
    return given
