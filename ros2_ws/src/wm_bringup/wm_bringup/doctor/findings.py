"""A finding of ``wm doctor``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

OK, NOTE, WARNING, ERROR = "ok", "note", "warning", "error"


@dataclass(frozen=True)
class Finding:
    """One object that was looked at.

    Attributes:
        section: python, ros, graphics, inference, models, engines, caches, topics, frames or nodes.
        name: of the object; of what is wrong with inputs, the cause that the nodes say, too.
        level: ok, note, warning or error.
        found: what is there.
        advice: what to do; empty where there is nothing to do.
        values: figures, for ``--json``.
    """

    section: str
    name: str
    level: str
    found: str
    advice: str = ""
    values: dict[str, Any] = field(default_factory=dict)
