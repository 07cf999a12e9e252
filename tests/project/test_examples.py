"""Every example runs as a program of its own and prints what it promises."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tabletop_bag import SHORT, write_bag

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = {path.stem for path in (ROOT / "examples").glob("*.py")}
TESTED = {"what_if", "own_segmenter", "custom_planner", "from_recording", "new_intervention"}


def printed(name: str, *arguments: str) -> list[str]:
    command = [sys.executable, str(ROOT / f"examples/{name}.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=150)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def numbers(lines: list[str], pattern: str) -> list[float]:
    """The number that a pattern finds in each line."""
    found = [re.search(pattern, line) for line in lines]
    assert all(found), (pattern, lines)
    return [float(match[1]) for match in found if match]


def test_every_example_is_tested_and_listed() -> None:
    assert EXAMPLES == TESTED
    listed = re.findall(r"\]\((\w+)\.py\)", (ROOT / "examples/README.md").read_text())
    assert sorted(listed) == sorted(EXAMPLES)
    assert "examples/README.md" in (ROOT / "README.md").read_text()


def test_what_if() -> None:
    lines = printed("what_if")
    assert [line.partition(":")[0] for line in lines] == ["as it is", "no box", "ball stopped"]
    as_it_is, no_box, stopped = numbers(lines, r"x = (-?\d\.\d+) m")
    assert stopped < as_it_is < -0.09 < 0.15 < no_box  # the box's side is at -0.05 m, the ball's radius 0.04 m
    assert re.search(r"box at 0\.\d+ s$", lines[0]) and lines[1].endswith("no time") and lines[2].endswith("no time")


def test_own_segmenter() -> None:
    count, *objects = printed("own_segmenter")
    assert count == "5 objects found, 5 are there" and len(objects) == 5
    assert max(numbers(objects, r"center (\d+) mm away")) < 10
    assert sum(line.startswith("ball at") for line in objects) == 3


def test_custom_planner() -> None:
    lines = printed("custom_planner")
    rounds = [line for line in lines if line.startswith("round")]
    assert len(rounds) == 5 and all(line.endswith("clear of the cup") for line in rounds)
    assert numbers(rounds, r"leaves the box +(\d+) mm")[-1] < 20
    assert lines[-1].startswith("  at 1.5 s")


def test_new_intervention() -> None:
    lines = printed("new_intervention")
    ball = numbers(lines, r"the ball by (\d+) mm")
    assert len(lines) == 3 and 10 < ball[0] < ball[1] < ball[2]
    assert max(numbers(lines, r"the cup by (\d+) mm")) < 10
    assert [line.endswith("which falls") for line in lines] == [False, True, True]


def test_from_recording(tmp_path: Path) -> None:
    head, *lines = printed("from_recording", str(write_bag(tmp_path / "table.mcap")))
    assert head.startswith(f"table.mcap: {SHORT} scene graphs of {SHORT} frames in ")
    seen = dict(re.findall(r"^(\d+): \w+ at \[ ?(.+)\] m$", "\n".join(lines), flags=re.MULTILINE))
    assert list(seen.values()) == ["-0.12 -0.08  0.06", "0.14 0.05 0.04"]  # as tabletop_images has them
    assert lines[2:] == [f"without {i}: nothing else would move otherwise" for i in seen]


def test_from_recording_says_what_it_takes() -> None:
    assert any("MCAP file" in line for line in printed("from_recording", "--help"))
