"""A program that starts where a library is missing says so in one line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from wm_bringup.packages import PACKAGES
from wm_core import installed

ROOT = Path(__file__).resolve().parents[2]
INSTALL = ROOT / "ros2_ws/install"
PROGRAMS = {
    "perception_node": ("wm_perception", "onnxruntime"),
    "imagination_node": ("wm_imagination", "numba"),
    "sim_camera_node": ("wm_sim", "mujoco"),
    "wm": ("wm_bringup", "typer"),
}
# As where it is not installed: no finder finds it. Python runs a sitecustomize that it finds before anything else.
HIDE = """
import importlib.abc, sys

class Hidden(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == {module!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
        return None

sys.meta_path.insert(0, Hidden())
"""


def distribution(folder: Path, name: str, version: str, *requires: str, module: bool = True) -> None:
    """An installed distribution as pip leaves it: metadata, and a module."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    (info / "METADATA").write_text("\n".join([*lines, *(f"Requires-Dist: {line}" for line in requires)]) + "\n")
    if module:
        (folder / f"{installed.module_of(name)}.py").write_text("raise AssertionError('imported')\n")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_what_is_missing_or_too_old_is_told_apart(folder: Path) -> None:
    distribution(folder, "wmx-old", "1.10.14")
    distribution(folder, "wmx-new", "4.0")
    distribution(folder, "wmx-right", "3.17.1")
    requires = ("wmx-old>=2.10", "wmx-new>=3.17,<4", "wmx-right>=3.17,<4", "wmx-none", 'wmx-more; extra == "more"')
    distribution(folder, "wmx-package", "0.1", *requires)
    assert installed.shortcomings(["wmx-package"]) == [
        ("wmx-new 4.0", "wmx-new<4,>=3.17"),
        ("no wmx-none", "wmx-none"),
        ("wmx-old 1.10.14", "wmx-old>=2.10"),
    ]


def test_a_library_without_metadata_counts_as_there(folder: Path) -> None:
    (folder / "wmx_debian.py").write_text("")
    distribution(folder, "wmx-package", "0.1", "wmx-debian>=4")
    assert installed.shortcomings(["wmx-package"]) == []


def test_another_distribution_of_the_same_module_counts(folder: Path, monkeypatch) -> None:
    monkeypatch.setitem(installed.ALTERNATIVES, "wmx-cpu", ("wmx-gpu",))
    (folder / "wmx_cpu.py").write_text("")
    distribution(folder, "wmx-gpu", "1.20", module=False)
    distribution(folder, "wmx-package", "0.1", "wmx-cpu>=1.23")
    assert installed.shortcomings(["wmx-package"]) == [("wmx-cpu 1.20", "wmx-cpu>=1.23")]


def test_everything_is_there_after_set_up() -> None:
    assert installed.shortcomings(list(PACKAGES)) == []


@pytest.mark.smoke
@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_refuses_in_one_line_and_says_what_to_run(program: str, tmp_path: Path) -> None:
    package, module = PROGRAMS[program]
    folder = "bin" if program == "wm" else "lib"
    script = next(iter((INSTALL / package).glob(f"{folder}/**/{program}")), None) or next(
        (INSTALL / package).rglob(program)
    )
    (tmp_path / "sitecustomize.py").write_text(HIDE.format(module=module))
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, str(script), "--help"],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"{program}: found no {module} in {sys.executable}; expected ")
    assert f"; run: make setup && source tools/env.sh   (in {ROOT})" in line
