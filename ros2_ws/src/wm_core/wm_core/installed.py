"""Check that the requirements of a package are installed, before anything imports them.

``colcon build`` installs no Python package, and a program that starts without one ends in a traceback from an import.
So every program runs this check first, and ends with one line that names what is missing and what to run.

The requirements are those of setup.py (``install_requires``), read from the installed metadata.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

MODULES = {"opencv-python-headless": "cv2", "pillow": "PIL", "pyyaml": "yaml", "rerun-sdk": "rerun"}
"""Distributions whose module has another name."""
ALTERNATIVES = {
    "opencv-python-headless": ("opencv-python", "opencv-contrib-python", "opencv-contrib-python-headless"),
    "onnxruntime": ("onnxruntime-gpu", "onnxruntime-openvino"),
}
"""Distributions with the same module."""


def module_of(distribution: str) -> str:
    """Name under which a distribution is imported."""
    return MODULES.get(distribution.lower(), distribution.lower().replace("-", "_"))


def is_there(module: str) -> bool:
    """Whether a module can be found, without importing it."""
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def version_of(distribution: str) -> str | None:
    """Installed version of a distribution or of one with the same module; None where there is no metadata.

    Debian's packages of some libraries (OpenCV) carry no metadata.
    """
    for name in (distribution, *ALTERNATIVES.get(distribution.lower(), ())):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return None


def shortcomings(packages: Sequence[str]) -> list[tuple[str, str]]:
    """Missing or unsuitable requirements of packages, as pairs of what was found and what was expected.

    Args:
        packages: names of installed distributions, such as ``wm_perception``; their extras are not checked.

    Returns:
        e.g. ``[("no mujoco", "mujoco>=3.17,<4"), ("pydantic 1.10.14", "pydantic>=2.10")]``, each once, sorted.
    """
    if not is_there("packaging"):
        return [("no packaging", "packaging")]
    from packaging.requirements import Requirement

    found: dict[str, str] = {}
    for package in packages:
        for line in metadata.requires(package) or ():
            requirement = Requirement(line)
            if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
                continue
            expected = f"{requirement.name}{requirement.specifier}"
            if not is_there(module_of(requirement.name)):
                found[expected] = f"no {requirement.name}"
                continue
            version = version_of(requirement.name)
            if version is not None and not requirement.specifier.contains(version, prereleases=True):
                found[expected] = f"{requirement.name} {version}"
    return [(found[expected], expected) for expected in sorted(found)]


def checkout() -> Path | None:
    """The checkout of this installation, where it was built with ``--symlink-install``; else None."""
    parents = Path(__file__).resolve().parents
    return next((folder for folder in parents if (folder / "tools/bootstrap.py").is_file()), None)


def refuse_where_missing(program: str, packages: Sequence[str]) -> None:
    """Ends the process with status 1 and one line on stderr, where something that the packages need is missing.

    Args:
        program: its name in the message, such as ``perception_node``.
        packages: as in ``shortcomings``.
    """
    missing = shortcomings(packages)
    if not missing:
        return
    root = checkout()
    setup = "make setup && source tools/env.sh" + (f"   (in {root})" if root else "   (in wm's checkout)")
    print(
        f"{program}: found {', '.join(found for found, _ in missing)} in {sys.executable}; expected "
        f"{', '.join(expected for _, expected in missing)}; run: {setup}",
        file=sys.stderr,
    )
    raise SystemExit(1)
