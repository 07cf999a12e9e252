"""CI runs lint, the documentation, Jazzy's smoke tests, Kilted's exhaustive checks and suite; one failure fails all."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Stands in for make: notes where and how it was called, and fails where the call holds the text of FAIL.
MAKE = """#!/bin/bash
call="make $* ($(pwd))"
echo "$call" >> "$CALLS"
echo "== 7 passed in 0.1s =="
[ -n "$FAIL" ] && case "$call" in *"$FAIL"*) exit "$STATUS" ;; esac
exit 0
"""


def run_ci(tmp_path: Path, fail: str, status: int = 2) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """A clone of a tiny repository with our .ci/run in it."""
    clone = tmp_path / "clone"
    (clone / ".ci").mkdir(parents=True)
    (clone / ".ci/run").write_text((ROOT / ".ci/run").read_text())
    (clone / ".gitignore").write_text("out/\n")
    (clone / "new.txt").write_text("not added yet\n")
    stale = clone / "out/ci/jazzy/tests/test_gone.py"
    stale.parent.mkdir(parents=True)
    stale.write_text("")
    subprocess.run(["git", "init", "-q"], cwd=clone, check=True)
    subprocess.run(["git", "add", ".ci", ".gitignore"], cwd=clone, check=True)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/make").write_text(MAKE)
    (tmp_path / "bin/make").chmod(0o755)
    calls = tmp_path / "calls"
    env = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "CALLS": str(calls), "FAIL": fail}
    env |= {"STATUS": str(status), "HOME": str(tmp_path)}
    done = subprocess.run(["bash", ".ci/run"], cwd=clone, env=env, capture_output=True, text=True, timeout=60)
    assert not stale.exists()
    assert (clone / "out/ci/jazzy/new.txt").exists() and (clone / "out/ci/jazzy/.ci/run").exists()
    return done, calls.read_text().splitlines()


@pytest.mark.parametrize(
    ("fail", "statuses"),
    [
        ("", "0, 0, 0, 0, 0"),
        ("lint", "2, 0, 0, 0, 0"),
        ("docs", "0, 2, 0, 0, 0"),
        ("WM_ROS_DISTRO=jazzy", "0, 0, 2, 0, 0"),
        ("exhaustive", "0, 0, 0, 2, 0"),
        ("--cov", "0, 0, 0, 0, 2"),
    ],
)
def test_every_part_runs_and_any_of_them_fails_the_whole(tmp_path: Path, fail: str, statuses: str) -> None:
    done, calls = run_ci(tmp_path, fail)
    lint, docs, jazzy, exhaustive, kilted = calls
    assert lint.startswith("make lint ") and docs.startswith("make docs ")
    assert "test WM_ROS=pip WM_ROS_DISTRO=jazzy ARGS=-m smoke" in jazzy and "-C out/ci/jazzy" in jazzy
    kilted_set_up = "WM_ROS=pip WM_ROS_DISTRO=kilted WITH=training export"
    assert f"make test-exhaustive {kilted_set_up}" in exhaustive and f"make test {kilted_set_up} ARGS=--cov" in kilted
    assert (done.returncode == 0) == (fail == "")
    *_, summary, own = done.stdout.splitlines()
    assert summary == "== 7 passed in 0.1s =="
    a, b, c, d, e = statuses.split(", ")
    said = f"ci: lint exit status {a}, documentation exit status {b}, smoke tests on Jazzy exit status {c}, "
    said += f"exhaustive checks exit status {d}, tests on Kilted exit status {e}, "
    assert own.startswith(said)


@pytest.mark.parametrize(
    ("late", "said"),
    [
        ("WM_ROS_DISTRO=jazzy", "ci: set-up and smoke tests on Jazzy ran past 1500 s"),
        ("exhaustive", "ci: the exhaustive checks ran past 4500 s"),
        ("--cov", "ci: the tests ran past 4500 s"),
    ],
)
def test_a_part_that_runs_past_its_limit_is_named(tmp_path: Path, late: str, said: str) -> None:
    done, _ = run_ci(tmp_path, late, status=124)  # of timeout(1)
    assert done.returncode != 0
    assert done.stderr.splitlines() == [said]
