"""The layering of docs/architecture.md holds in the imports."""

import ast
from pathlib import Path

import pytest

from wm_bringup.packages import PACKAGES

SOURCES = Path(__file__).resolve().parents[1] / "ros2_ws" / "src"

# What may import rclpy: nodes, the ROS glue and the parts of bring-up that are ROS programs.
ROS_ALLOWED = {
    "wm_ros",
    "wm_perception/node.py",
    "wm_imagination/node.py",
    "wm_sim/node.py",
    *(f"{package}/main.py" for package in ("wm_perception", "wm_imagination", "wm_sim")),
    "wm_bringup",
}
LAYERS = {
    "wm_core": {"wm_core"},
    "wm_dynamics": {"wm_core", "wm_dynamics"},
    "wm_planning": {"wm_core", "wm_dynamics", "wm_planning"},
    "wm_ros": {"wm_core", "wm_ros"},
    "wm_perception": {"wm_core", "wm_dynamics", "wm_ros", "wm_perception"},
    "wm_imagination": {"wm_core", "wm_dynamics", "wm_ros", "wm_imagination"},
    "wm_sim": {"wm_core", "wm_dynamics", "wm_ros", "wm_sim"},
    "wm_bringup": {"wm_bringup", *PACKAGES},
}


def imported_roots(path: Path) -> set[str]:
    roots: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            roots |= {name.name.split(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            roots.add(node.module.split(".")[0])
    return roots


def modules(package: str) -> list[Path]:
    found = sorted((SOURCES / package / package).rglob("*.py"))
    assert found, f"no modules in {package}"
    return found


@pytest.mark.parametrize("package", LAYERS)
def test_core_modules_do_not_import_rclpy(package):
    for path in modules(package):
        relative = path.relative_to(SOURCES / package).as_posix()
        if package in ROS_ALLOWED or relative in ROS_ALLOWED:
            continue
        assert not imported_roots(path) & {"rclpy", "tf2_ros", "wm_ros"}, f"{relative} imports ROS"


@pytest.mark.parametrize("package", LAYERS)
def test_packages_depend_only_on_those_above(package):
    for path in modules(package):
        own = {root for root in imported_roots(path) if root.startswith("wm_") and root != "wm_msgs"}
        assert own <= LAYERS[package], f"{path.name} imports {sorted(own - LAYERS[package])}"


def test_the_runtime_imports_no_torch_outside_the_optional_backend():
    for package in LAYERS:
        for path in modules(package):
            if path.name != "torch_session.py":
                assert "torch" not in imported_roots(path), path
