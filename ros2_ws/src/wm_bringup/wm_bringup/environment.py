"""What this machine's ROS installation has, found without starting anything: packages, files, message definitions."""

from __future__ import annotations

import importlib
import os
import re
from collections import deque
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

_PRIMITIVES = frozenset(
    {
        *("bool", "byte", "char", "float32", "float64", "string", "wstring"),
        *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
    }
)
_FIELD = re.compile(r"^\s*([A-Za-z][\w/]*)(?:<=\d+)?(?:\[[^\]]*\])?\s+[A-Za-z]\w*")
_SEPARATOR = "=" * 80


def prefixes(environ: Mapping[str, str] | None = None) -> list[Path]:
    """Folders of AMENT_PREFIX_PATH, those of overlays first."""
    value = (os.environ if environ is None else environ).get("AMENT_PREFIX_PATH", "")
    return [Path(part) for part in value.split(os.pathsep) if part]


def share_folder(package: str) -> Path | None:
    """The share folder of an installed ROS package, or None where it is not installed."""
    for prefix in prefixes():
        if (prefix / "share/ament_index/resource_index/packages" / package).exists():
            return prefix / "share" / package
    # The ROS wheels on PyPI register some packages in no index.
    return next((prefix / "share" / package for prefix in prefixes() if (prefix / "share" / package).is_dir()), None)


def resource(package: str, *parts: str) -> Path:
    """A file that a package of this workspace installs, e.g. ``resource("wm_sim", "worlds", "tabletop.sdf")``.

    Raises:
        FileNotFoundError: the package or the file is not installed.
    """
    folder = share_folder(package)
    if folder is None:
        raise FileNotFoundError(f"package {package} is not in AMENT_PREFIX_PATH; run: make setup, source tools/env.sh")
    path = folder.joinpath(*parts)
    if not path.exists():
        raise FileNotFoundError(f"{path} is not there; build the workspace again: make setup")
    return path


def workspace_root() -> Path | None:
    """The checkout that this runs from, or None where the packages are installed without it."""
    named = os.environ.get("WM_ROOT")
    candidates = [Path(named)] if named else []
    candidates += Path(__file__).resolve().parents
    return next((folder for folder in candidates if (folder / "ros2_ws/src/wm_bringup").is_dir()), None)


def package_file(package: str, *parts: str) -> Path:
    """As ``resource``, but taken from the checkout where there is one: a file added to it needs no new build."""
    root = workspace_root()
    if root is not None:
        path = root.joinpath("ros2_ws/src", package, *parts)
        if path.exists():
            return path
    return resource(package, *parts)


def _definition_text(type_name: str) -> str:
    parts = type_name.split("/")
    package, name = parts[0], parts[-1]
    if len(parts) != 3 or parts[1] != "msg":
        raise LookupError(f"{type_name}: expected PACKAGE/msg/NAME")
    folder = share_folder(package)
    if folder is None:
        raise LookupError(f"package {package} is not in AMENT_PREFIX_PATH")
    path = folder / "msg" / f"{name}.msg"
    try:
        return path.read_text()
    except OSError as error:
        raise LookupError(f"cannot read {path}") from error


def referenced_types(text: str, package: str) -> list[str]:
    """Full names (PACKAGE/msg/NAME) of the message types that a .msg text of ``package`` has fields of, in order."""
    found: dict[str, None] = {}
    for line in text.splitlines():
        match = _FIELD.match(line.partition("#")[0])
        if match is None or match[1] in _PRIMITIVES:
            continue
        parts = match[1].split("/")
        owner = parts[0] if len(parts) > 1 else "std_msgs" if parts[0] == "Header" else package
        found[f"{owner}/msg/{parts[-1]}"] = None
    return list(found)


@lru_cache(maxsize=256)
def message_definition(type_name: str) -> str:
    """Definition of a message type with those of all it is made of, in MCAP's ros2msg format.

    Raises:
        LookupError: the definition of one of them is not installed.
    """
    main = _definition_text(type_name)
    pieces, seen = [main.rstrip("\n")], {type_name}
    waiting = deque(referenced_types(main, type_name.split("/")[0]))
    while waiting:
        name = waiting.popleft()
        if name in seen:
            continue
        seen.add(name)
        text = _definition_text(name)
        package, _, short = name.partition("/msg/")
        pieces.append(f"{_SEPARATOR}\nMSG: {package}/{short}\n{text.rstrip()}")
        waiting.extend(referenced_types(text, package))
    return "\n".join(pieces) + "\n"


def message_class(type_name: str) -> type:
    """The Python class of PACKAGE/msg/NAME (srv and action likewise).

    Raises:
        LookupError: it is not installed, or its name has another form.
    """
    package, _, rest = type_name.partition("/")
    kind, _, name = rest.partition("/")
    if kind not in ("msg", "srv", "action") or not name.isidentifier():
        raise LookupError(f"{type_name}: expected PACKAGE/msg/NAME")
    try:
        return getattr(importlib.import_module(f"{package}.{kind}"), name)
    except (ImportError, AttributeError) as error:
        raise LookupError(f"{type_name} cannot be imported ({error})") from error


def make_console() -> Any:
    """A rich console; into a pipe or a file its tables are as wide as they need."""
    import sys

    from rich.console import Console

    return Console() if sys.stdout.isatty() else Console(width=160)
