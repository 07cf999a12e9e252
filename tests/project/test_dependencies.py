"""What the packages import, what they declare (package.xml, setup.py) and what set-up installs are the same."""

from __future__ import annotations

import ast
import re
import sys
from importlib import metadata
from pathlib import Path

import pytest
from catkin_pkg.package import parse_package
from packaging.requirements import Requirement

from wm_bringup.packages import PACKAGES

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / "ros2_ws/src"

# import name: (distribution on the package index, key in rosdistro's rosdep/python.yaml or None where it has none)
LIBRARIES: dict[str, tuple[str, str | None]] = {
    "PIL": ("pillow", "python3-pil"),
    "av": ("av", None),
    "cv2": ("opencv-python-headless", "python3-opencv"),
    "llvmlite": ("llvmlite", None),
    "matplotlib": ("matplotlib", "python3-matplotlib"),
    "mcap": ("mcap", "mcap-ros2-support"),  # brings it; it has no key of its own
    "motmetrics": ("motmetrics", None),
    "mujoco": ("mujoco", "python3-mujoco-pip"),
    "numba": ("numba", "python3-numba"),
    "numpy": ("numpy", "python3-numpy"),
    "onnx": ("onnx", None),
    "onnxruntime": ("onnxruntime", "python3-onnxruntime-pip"),
    "packaging": ("packaging", "python3-packaging"),
    "pydantic": ("pydantic", "python3-pydantic"),
    "rerun": ("rerun-sdk", None),
    "rich": ("rich", "python3-rich"),
    "rosbags": ("rosbags", "python3-rosbags-pip"),
    "safetensors": ("safetensors", None),
    "scipy": ("scipy", "python3-scipy"),
    "transforms3d": ("transforms3d", "python3-transforms3d"),
    "typer": ("typer", "python3-typer"),
    "yaml": ("pyyaml", "python3-yaml"),
}
# ROS packages whose module has another name.
ROS_MODULES = {"tf2_ros": "tf2_ros_py"}
# Used where they are installed, asked for by nothing: NVIDIA's runtimes and training are no part of a robot's set-up.
OPTIONAL = {"torch"}
# Libraries that are declared for what they are to others, not for an import.
TEST_ONLY = {"python3-pytest"}


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def requirements_of(*groups: str) -> dict[str, str]:
    """Requirement lines of these files by canonical name, without markers."""
    lines: dict[str, str] = {}
    for group in groups:
        for line in (ROOT / f"requirements/{group}.txt").read_text().splitlines():
            text = line.split("#")[0].split(";")[0].strip()
            if text:
                lines[canonical(Requirement(text).name)] = text
    return lines


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def imports_of(folder: Path) -> dict[str, set[str]]:
    """First parts of the names imported by the files below a folder, at any depth, with the files' names.

    Not the standard library's, not relative ones, and not those for type checkers alone.
    """
    found: dict[str, set[str]] = {}
    for path in sorted(folder.rglob("*.py")):
        waiting: list[ast.AST] = [ast.parse(path.read_text())]
        while waiting:
            node = waiting.pop()
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module]
            for name in names:
                root = name.split(".")[0]
                if root not in sys.stdlib_module_names:
                    found.setdefault(root, set()).add(path.relative_to(folder).as_posix())
            waiting += node.orelse if is_type_checking(node) else ast.iter_child_nodes(node)  # type: ignore[attr-defined]
    return found


def imports_of_package(package: str) -> dict[str, set[str]]:
    found = imports_of(SOURCES / package / package)
    for root, files in imports_of(SOURCES / package / "launch").items():
        found.setdefault(root, set()).update(files)
    found.pop(package, None)
    return found


def setup_arguments(package: str) -> dict[str, ast.expr]:
    tree = ast.parse((SOURCES / package / "setup.py").read_text())
    (call,) = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and getattr(n.func, "id", "") == "setup"]
    return {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg}


def declared_to_pip(package: str) -> dict[str, str]:
    """Requirement lines of setup.py, extras included, by canonical name."""
    arguments = setup_arguments(package)
    lines = list(ast.literal_eval(arguments["install_requires"]))
    for extra in ast.literal_eval(arguments["extras_require"]).values() if "extras_require" in arguments else ():
        lines += extra
    return {canonical(Requirement(line).name): line for line in lines}


@pytest.mark.parametrize("package", PACKAGES)
def test_package_xml_declares_every_import(package: str) -> None:
    manifest = parse_package(str(SOURCES / package / "package.xml"))
    declared = {dependency.name for dependency in manifest.exec_depends}
    for name, files in imports_of_package(package).items():
        if name in OPTIONAL:
            continue
        key = LIBRARIES[name][1] if name in LIBRARIES else ROS_MODULES.get(name, name)
        if key is not None:
            missing = f"{package}/package.xml lacks <exec_depend>{key}</exec_depend>, imported in {sorted(files)}"
            assert key in declared, missing


@pytest.mark.parametrize("package", PACKAGES)
def test_package_xml_declares_no_library_that_is_not_imported(package: str) -> None:
    manifest = parse_package(str(SOURCES / package / "package.xml"))
    imported = {LIBRARIES[name][1] for name in imports_of_package(package) if name in LIBRARIES}
    keys = {key for _, key in LIBRARIES.values()}
    for dependency in manifest.exec_depends:
        if dependency.name in keys or dependency.name.startswith("python3-"):
            assert dependency.name in imported, f"{package}/package.xml: nothing imports {dependency.name}"
    assert {d.name for d in manifest.test_depends} <= TEST_ONLY


@pytest.mark.slow
@pytest.mark.parametrize("package", PACKAGES)
def test_setup_py_asks_for_every_library_as_set_up_does(package: str) -> None:
    declared = declared_to_pip(package)
    imported = imports_of_package(package)
    wanted = {canonical(LIBRARIES[name][0]): files for name, files in imported.items() if name in LIBRARIES}
    for name, files in wanted.items():
        assert name in declared, f"{package}/setup.py: install_requires lacks {name}, imported in {sorted(files)}"
    assert set(declared) <= set(wanted), f"{package}/setup.py: nothing imports {set(declared) - set(wanted)}"
    runtime = requirements_of("runtime")
    for name, line in declared.items():
        assert line == runtime.get(name), (
            f"{package}/setup.py says {line}, requirements/runtime.txt {runtime.get(name)}"
        )


@pytest.mark.parametrize("package", [*PACKAGES, "wm_msgs"])
def test_every_package_has_the_newest_version_of_the_changelog(package: str) -> None:
    newest = re.search(r"^## (\d+\.\d+\.\d+)$", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    manifest = parse_package(str(SOURCES / package / "package.xml"))
    assert newest and manifest.version == newest[1]
    if package in PACKAGES:
        assert metadata.version(package) == newest[1], "an older one is installed; run: make setup"
        assert metadata.metadata(package)["Summary"] == manifest.description


def test_the_robot_installs_nothing_that_no_package_needs() -> None:
    needed = {name for package in PACKAGES for name in declared_to_pip(package)}
    assert set(requirements_of("runtime")) == needed


NOT_INSTALLED = {"open3d": "open3d-cpu"}
"""Import name: its distribution, where the names differ and a plain `make test` does not install it."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("folder", "groups"),
    [
        ("tests", ("build", "runtime", "test", "training", "export")),
        ("benchmarks", ("runtime", "training")),
        ("training", ("runtime", "training", "household")),
        ("export", ("runtime", "training", "export")),
        ("examples", ("runtime",)),
    ],
)
def test_everything_else_imports_only_what_its_requirements_bring(folder: str, groups: tuple[str, ...]) -> None:
    # What comes with the named ones: pytest and colcon bring coverage and catkin_pkg, TensorRT has no wheel of its own.
    brought = {*requirements_of(*groups), "coverage", "catkin-pkg", "tensorrt"}
    own = {*PACKAGES, "wm_msgs", "benchmarks", "training", "export", "conftest"}
    own |= {path.stem for path in (ROOT / "tools").iterdir()}
    own |= {path.stem for path in (ROOT / folder).rglob("*.py")}
    distributions = metadata.packages_distributions()
    for name, files in imports_of(ROOT / folder).items():
        found = {canonical(d) for d in distributions.get(name, [NOT_INSTALLED.get(name, name)])}
        from_ros = name == "launch" or name == "launch_ros" or name.endswith("_msgs")
        if name in own or from_ros or any(d.startswith("ros-") for d in found):
            continue
        assert found & brought, f"{folder}: {name} ({sorted(files)}) is in none of {groups}"


@pytest.mark.parametrize("package", ["ros2_ws/src/wm_msgs", "tools/ros_from_pip/tf2_msgs"])
def test_interface_packages_declare_what_cmake_finds(package: str) -> None:
    manifest = parse_package(str(ROOT / package / "package.xml"))
    found = set(re.findall(r"find_package\((\w+)", (ROOT / package / "CMakeLists.txt").read_text()))
    declared = {d.name for d in (*manifest.buildtool_depends, *manifest.build_depends)}
    assert found, "no find_package in CMakeLists.txt"
    assert found <= declared, f"{package}/package.xml lacks {found - declared}"


@pytest.mark.parametrize("group", ["runtime", "test", "lint", "docs", "training", "export"])
def test_the_documentation_says_why_each_requirement_is_there(group: str) -> None:
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", (ROOT / "docs/dependencies.md").read_text(), flags=re.MULTILINE)
    said = {canonical(name): why for names, why in rows for name in re.split(r",? ", names)}
    for name in requirements_of(group):
        bare = name.partition("[")[0]
        assert said.get(bare), f"docs/dependencies.md does not say why {bare} of requirements/{group}.txt is there"


def test_the_documentation_says_what_has_no_rosdep_key() -> None:
    text = (ROOT / "docs/dependencies.md").read_text()
    (section,) = re.findall(r"## ROS's own way.*?(?=\n## )", text, flags=re.DOTALL)
    for distribution, key in LIBRARIES.values():
        if key is None:
            assert f"`{distribution}`" in section, f"docs/dependencies.md does not say that {distribution} has no key"
