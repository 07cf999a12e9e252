"""The layering of docs/architecture.md holds in the imports."""

import ast
import re
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from wm_bringup.packages import PACKAGES

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / "ros2_ws" / "src"

# What may import rclpy: nodes and their parts, the ROS glue and the parts of bring-up that are ROS programs.
ROS_ALLOWED = {
    "wm_ros",
    *(f"{package}/node.py" for package in ("wm_perception", "wm_imagination", "wm_sim")),
    *(f"{package}/ros" for package in ("wm_perception", "wm_imagination")),
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
        if {package, relative, "/".join(relative.split("/")[:2])} & ROS_ALLOWED:
            continue
        assert not imported_roots(path) & {"rclpy", "tf2_ros", "wm_ros"}, f"{relative} imports ROS"


@pytest.mark.parametrize("package", LAYERS)
def test_packages_depend_only_on_those_above(package):
    for path in modules(package):
        own = {root for root in imported_roots(path) if root.startswith("wm_") and root != "wm_msgs"}
        assert own <= LAYERS[package], f"{path.name} imports {sorted(own - LAYERS[package])}"


@pytest.mark.parametrize(
    ("folder", "users"), [("training", {"export", "benchmarks"}), ("export", {"benchmarks"}), ("benchmarks", set())]
)
def test_training_export_and_benchmarks_are_in_layers(folder, users):
    """Training is used by export and benchmarks, export by benchmarks, and all three by no package."""
    for name in ({"training", "export", "benchmarks"} - users - {folder}) | {"ros2_ws/src"}:
        files = [p for p in (ROOT / name).rglob("*.py") if not {"build", "install"} & set(p.parts)]
        assert files
        for path in files:
            assert folder not in imported_roots(path), f"{path.relative_to(ROOT)} imports {folder}"


@pytest.mark.slow
def test_the_runtime_imports_no_torch_outside_the_optional_backend():
    for package in LAYERS:
        for path in modules(package):
            if path.name != "torch_session.py":
                assert "torch" not in imported_roots(path), path


def all_modules() -> dict[str, Path]:
    """Files by the names under which they are imported."""
    bases = [(SOURCES / package, package) for package in PACKAGES]
    bases += [(ROOT, folder) for folder in ("training", "export", "benchmarks")]
    found = {}
    for base, folder in bases:
        for path in sorted((base / folder).rglob("*.py")):
            found[".".join(path.relative_to(base).with_suffix("").parts).removesuffix(".__init__")] = path
    assert len(found) > 200
    return found


def imported_modules(path: Path, known: dict[str, Path]) -> set[str]:
    """Modules of ours that a file imports anywhere, in functions and for type checkers, too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names if name.name in known}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for name in node.names:
                whole = f"{node.module}.{name.name}"
                if whole in known or node.module in known:
                    found.add(whole if whole in known else node.module)
    return found


def circles(edges: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules that reach one another (Tarjan's strongly connected components, by SciPy)."""
    names = sorted(edges)
    row_of = {name: row for row, name in enumerate(names)}
    rows = [(row_of[a], row_of[b]) for a in names for b in edges[a]]
    columns = np.array(rows, dtype=np.int64).reshape(-1, 2).T
    graph = coo_matrix((np.ones(len(rows)), columns), shape=(len(names), len(names)))
    _, group = connected_components(graph, directed=True, connection="strong")
    return [[names[i] for i in np.flatnonzero(group == g)] for g in np.flatnonzero(np.bincount(group) > 1)]


def test_circles_are_seen() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": set()}) == []
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]


@pytest.mark.slow
def test_no_module_imports_itself_by_way_of_others() -> None:
    """Nor in a function, nor for type checkers alone."""
    known = all_modules()
    edges = {name: imported_modules(path, known) - {name} for name, path in known.items()}
    assert sum(map(len, edges.values())) > 500
    assert circles(edges) == []


def defined_in(path: Path) -> set[str]:
    """Names of the functions, classes and methods of a file, as ``Class.method``."""
    tree = ast.parse(path.read_text())
    methods = {
        f"{c.name}.{f.name}"
        for c in tree.body
        if isinstance(c, ast.ClassDef)
        for f in c.body
        if isinstance(f, ast.FunctionDef)
    }
    return methods | {f.name for f in tree.body if isinstance(f, ast.FunctionDef)}


def test_the_calls_in_the_documentation_exist() -> None:
    text = (ROOT / "docs/architecture.md").read_text()
    calls = re.findall(r"`(wm_\w+)/([\w/]+\.py): ([\w.]+)`", text)
    assert len(calls) > 25
    for package, file, name in calls:
        assert name in defined_in(SOURCES / package / package / file), f"{package}/{file}: {name}"
