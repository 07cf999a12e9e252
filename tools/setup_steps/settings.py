"""Where the parts of this checkout lie, what set-up supports, and the error that it ends with."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
VENV = ROOT / ".venv"
WORKSPACE = ROOT / "ros2_ws"
REQUIREMENTS = ROOT / "requirements"
EXTRA_INTERFACES = ROOT / "tools" / "ros_from_pip"
LOGS = ROOT / "out" / "setup"

SUPPORTED = ((3, 10), (3, 11), (3, 12), (3, 13))
"""Versions of CPython that ROS 2 from pip and the lock files are for."""
SUPPORTED_TEXT = "CPython 3.10 to 3.13"
SUPPORTED_DISTROS = ("jazzy", "kilted")
DEFAULT_DISTRO = "kilted"
"""Of those, the one that pip installs where nothing else is said."""
PIP_VERSION = "25.3"
WHEELS_ONLY = ("--only-binary=:all:", "--no-binary=empy")
"""Nothing is compiled at install time, except that empy (pure Python) has no wheel."""
FORMAT = "3"


class SetupError(Exception):
    """What was found, what is expected, and what to run, for one line on the terminal."""

    def __init__(self, found: str, expected: str, run: str):
        super().__init__(f"{found}; expected {expected}; run: {run}")
