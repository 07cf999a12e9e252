"""Every Python that set-up supports reads the sources: with that interpreter where it is here, else by its grammar."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

from setup_steps.python_choice import find_interpreter  # noqa: E402
from setup_steps.settings import SUPPORTED  # noqa: E402

FOLDERS = ("ros2_ws/src", "tests", "tools", "benchmarks", "training", "export")
# Warnings are errors: what one version only warns of (an invalid escape, "is" with a literal) a later one refuses.
COMPILE = """
import sys
from pathlib import Path
for name in sys.stdin.read().splitlines():
    compile(Path(name).read_bytes(), name, "exec", dont_inherit=True)
print(sys.version_info[:2])
"""


def sources() -> list[Path]:
    found = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
    assert len(found) > 100
    return found


@pytest.mark.slow
@pytest.mark.parametrize("version", SUPPORTED, ids=lambda v: f"{v[0]}.{v[1]}")
def test_sources_compile(version: tuple[int, int]) -> None:
    python = find_interpreter(version)
    if python is None:
        for path in sources():
            ast.parse(path.read_text(), str(path), feature_version=version)
        return
    done = subprocess.run(
        [python, "-I", "-W", "error", "-c", COMPILE],
        input="\n".join(map(str, sources())),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == str(version)


def test_the_bootstrap_is_read_by_an_older_python_that_must_say_what_it_lacks() -> None:
    """The Makefile lets Python 3.9 start it, so that it can look for a newer one."""
    for path in (ROOT / "tools/bootstrap.py", *(ROOT / "tools/setup_steps").glob("*.py")):
        ast.parse(path.read_text(), str(path), feature_version=(3, 9))
