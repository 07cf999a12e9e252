"""How versions that differ between Pythons are locked, and which wheels are asked for once."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

import check_wheels
import lock


def test_one_line_where_a_version_serves_all_and_one_per_python_where_not() -> None:
    resolved = {(3, 10): {"numpy": "2.2.6", "tomli": "2.5.0", "scipy": "1.15.3"}, (3, 11): {"numpy": "2.2.6"}}
    resolved[(3, 11)]["scipy"] = "1.16.0"
    assert lock.lock_lines(resolved) == [
        "numpy==2.2.6",
        'scipy==1.15.3 ; python_version == "3.10"',
        'scipy==1.16.0 ; python_version == "3.11"',
        "tomli==2.5.0",
    ]


@pytest.mark.parametrize(
    ("file", "requires", "all_of_them"),
    [
        ("rich-15.0.0-py3-none-any.whl", ">=3.8", True),
        ("rich-15.0.0-py3-none-any.whl", ">=3.11", False),
        ("empy-4.2.1.tar.gz", None, True),
        ("numpy-2.2.6-cp313-cp313-manylinux_2_17_x86_64.whl", ">=3.10", False),
        ("mujoco-3.17.0-py3-none-manylinux_2_17_x86_64.whl", ">=3.10", False),
    ],
)
def test_a_pure_wheel_for_every_python_is_asked_for_once(file: str, requires: str | None, all_of_them: bool) -> None:
    metadata = {"name": "x", **({"requires_python": requires} if requires else {})}
    entry = {"metadata": metadata, "download_info": {"url": f"https://index.example/{file}"}}
    assert check_wheels.serves_all(entry, ["3.10", "3.13"]) is all_of_them


def test_pins_are_those_of_the_python_asked_about() -> None:
    markers = [f'scipy=={version} ; python_version == "{python}"' for version, python in (("1", "3.10"), ("2", "3.13"))]
    text = "\n".join(["# explained", "numpy==2.2.6", *markers])
    assert check_wheels.pins_for(text, "3.13") == ["numpy==2.2.6", "scipy==2"]
    assert check_wheels.pin_of({"metadata": {"name": "backports.zstd", "version": "1.8.0"}}) == "backports-zstd==1.8.0"


@pytest.mark.slow
def test_a_package_without_a_wheel_is_named_and_fails_the_check(monkeypatch, tmp_path: Path, capsys) -> None:
    """A real pip, with a folder for its index in which nothing lies."""
    (tmp_path / "index").mkdir()
    for name in ("lock.txt", "lock-jazzy.txt"):
        (tmp_path / name).write_text("# explained\nwm-not-there==1.0\n")
    monkeypatch.setattr(check_wheels, "REQUIREMENTS", tmp_path)
    for name, value in {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path / "index")}.items():
        monkeypatch.setenv(name, value)
    assert check_wheels.main(["3.13"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[2].partition(":")[0] for line in lines] == [
        " Python 3.13, lock.txt",
        " Python 3.13, lock-jazzy.txt",
    ]
    assert all("No matching distribution found for wm-not-there==1.0" in line for line in lines)
