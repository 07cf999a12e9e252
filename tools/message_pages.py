"""Pages of the documentation from .msg, .srv and .action files: their comments are the text."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

SECTIONS = {".msg": ("Fields",), ".srv": ("Request", "Response"), ".action": ("Goal", "Result", "Feedback")}
_ELEMENT = re.compile(r"(?P<type>\S+)\s+(?P<name>\w+)(?P<value>\s*=\s*[^#\s]+)?\s*(?:#(?P<comment>.*))?$")


@dataclass
class Element:
    """A field or constant of an interface.

    Attributes:
        type, name: as written.
        value: of a constant, as written with its "="; empty: a field.
        comment: the lines of its comment.
    """

    type: str
    name: str
    value: str
    comment: list[str] = field(default_factory=list)


def parse(text: str) -> list[list[str | list[Element]]]:
    """Sections of an interface, which lines of --- part: each a list of comments and of groups of elements.

    A comment from the first column stands by itself, one further right belongs to the element before it; an empty line
    ends a group.

    Raises:
        ValueError: a line is neither a comment nor an element.
    """
    sections: list[list[str | list[Element]]] = [[]]
    group: list[Element] | None = None
    for line in text.splitlines():
        blocks = sections[-1]
        if line.startswith("---"):
            sections.append([])
            group = None
        elif not line.strip():
            group = None
        elif line.startswith("#"):
            said = line.lstrip("# ")
            if group is None and blocks and isinstance(blocks[-1], str):
                blocks[-1] += f" {said}"
            else:
                blocks.append(said)
            group = None
        elif line.lstrip().startswith("#"):
            if group is None:
                raise ValueError(f"{line!r}: continues no element")
            group[-1].comment.append(line.strip().lstrip("# "))
        else:
            found = _ELEMENT.match(line)
            if found is None:
                raise ValueError(f"{line!r}: neither a comment nor an element")
            if group is None:
                group = []
                blocks.append(group)
            value = (found["value"] or "").strip(" =")
            group.append(Element(found["type"], found["name"], value, [(found["comment"] or "").strip()]))
    return sections


def escaped(text: str) -> str:
    """Text whose characters mean themselves in Markdown; what stands in backticks stays."""
    parts = text.split("`")
    parts[::2] = [re.sub(r"([\\*_<\[\]|])", r"\\\1", part) for part in parts[::2]]
    return "`".join(parts)


def linked(type_name: str, known: dict[str, str]) -> str:
    """A type as code, with a link where ``known`` (name -> address) has a page of it."""
    base = type_name.partition("[")[0]
    return f"[`{type_name}`]({known[base]})" if base in known else f"`{type_name}`"


def page(file: Path, known: dict[str, str]) -> str:
    """The page of one interface in Markdown; ``known``: addresses of the other interfaces' pages by name."""
    lines = [f"# {file.stem}", "", f"`{file.parent.parent.name}/{file.parent.name}/{file.stem}`", ""]
    sections = parse(file.read_text())
    for title, blocks in zip(SECTIONS[file.suffix], sections, strict=True):
        first = blocks[0] if blocks else None
        if isinstance(first, str) and title == SECTIONS[file.suffix][0]:
            lines += [escaped(first), ""]
            blocks = blocks[1:]
        lines += [f"## {title}", ""]
        for block in blocks:
            if isinstance(block, str):
                lines += [escaped(block), ""]
                continue
            lines += ["| name | type | meaning |", "| --- | --- | --- |"]
            for element in block:
                name = f"{element.name} = {element.value}" if element.value else element.name
                says = escaped(" ".join(element.comment).strip())
                lines.append(f"| `{name}` | {linked(element.type, known)} | {says} |")
            lines.append("")
    return "\n".join(lines)
