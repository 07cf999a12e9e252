"""A finding of ``wm doctor``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

OK, NOTE, WARNING, ERROR = "ok", "note", "warning", "error"


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes:
        section: python, ros, graphics, inference, models, engines, caches, topics, frames or nodes.
        name: the checked object; for a defect of the inputs its cause, by the name that the nodes' diagnostics use.
        level: ok, note, warning or error.
        found: the observation, for people.
        advice: the remedy; empty where none is needed.
        values: the figures of the observation by name, for ``--json``.
    """

    section: str
    name: str
    level: str
    found: str
    advice: str = ""
    values: dict[str, Any] = field(default_factory=dict)
