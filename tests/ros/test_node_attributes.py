"""No node takes a name that rclpy's own node uses: an attribute that is covered makes the executor forget things.

Every node class is made, taken through its life, and watched while it sets attributes; and its methods are compared.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import rclpy
from rclpy.lifecycle import LifecycleNode
from rclpy.node import Node

import wm_bringup
import wm_imagination
import wm_perception
import wm_ros
import wm_sim

PACKAGES = (wm_bringup, wm_imagination, wm_perception, wm_ros, wm_sim)
# rclpy says of these that they are to be overridden.
HOOKS = {"__init__", "destroy_node"} | {
    f"on_{name}" for name in ("configure", "activate", "deactivate", "cleanup", "shutdown", "error")
}

# What a node is for: replay's has calls where the others have publishers and subscriptions.
REPLACED = {
    "ReplayNode": {
        f"{verb}_{what}" for verb in ("create", "destroy") for what in ("lifecycle_publisher", "subscription")
    }
}


def node_classes() -> list[type]:
    """All subclasses of rclpy's node in the packages."""
    found: dict[str, type] = {}
    for package in PACKAGES:
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            source = Path(importlib.util.find_spec(module.name).origin or "")
            if source.suffix != ".py" or "Node" not in source.read_text():
                continue
            for _, value in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
                if issubclass(value, Node) and value.__module__ == module.name:
                    found[f"{value.__module__}.{value.__name__}"] = value
    return [found[name] for name in sorted(found)]


def own_classes(cls: type) -> list[type]:
    """The class and those of its bases that are ours."""
    return [base for base in cls.__mro__ if base.__module__.startswith("wm_")]


@pytest.fixture(scope="module")
def rclpy_names() -> Iterator[set[str]]:
    """Names of all attributes that rclpy's nodes have."""
    context = rclpy.Context()
    rclpy.init(context=context)
    names: set[str] = set()
    for cls in (Node, LifecycleNode):
        node = cls("bare", context=context)
        names |= set(dir(node)) | set(vars(node))
        node.destroy_node()
    rclpy.try_shutdown(context=context)
    # What every Python class has; which of them our classes define is no matter of rclpy's.
    yield names - set(dir(type("Plain", (), {})))


def watched(cls: type, names: set[str], covered: set[str]) -> type:
    """The class, noting assignments to rclpy's attributes that do not come from rclpy."""
    rclpy_folder = str(Path(rclpy.__file__).parent)

    def set_attribute(self: object, name: str, value: object) -> None:
        caller = sys._getframe(1)
        if name in names and not caller.f_code.co_filename.startswith(rclpy_folder):
            covered.add(f"{name} ({Path(caller.f_code.co_filename).name}:{caller.f_lineno})")
        super(type(self), self).__setattr__(name, value)

    return type(cls.__name__, (cls,), {"__setattr__": set_attribute})


def make(cls: type, tmp_path: Path) -> Node:
    """An instance, with what its class needs."""
    if "out" in inspect.signature(cls.__init__).parameters:
        return cls(tmp_path / "x.mcap")
    if "outputs" in inspect.signature(cls.__init__).parameters:
        return cls({})
    if "node_names" in inspect.signature(cls.__init__).parameters:
        return cls(node_names=("perception",))
    return cls()


def test_there_are_nodes():
    names = {cls.__name__ for cls in node_classes()}
    assert {"PerceptionNode", "ImaginationNode", "SimCameraNode", "ManagedNode", "Recorder"} <= names


@pytest.mark.ros
@pytest.mark.parametrize("cls", node_classes(), ids=lambda cls: cls.__name__)
def test_no_method_covers_one_of_rclpys(cls, rclpy_names):
    for own in own_classes(cls):
        covered = (set(vars(own)) & rclpy_names) - HOOKS - REPLACED.get(own.__name__, set())
        assert not covered, f"{own.__name__} covers {sorted(covered)} of rclpy's node"


@pytest.mark.ros
@pytest.mark.parametrize(
    "cls", [cls for cls in node_classes() if cls.__name__ != "ManagedNode"], ids=lambda cls: cls.__name__
)
def test_no_attribute_covers_one_of_rclpys(cls, rclpy_names, tmp_path):
    covered: set[str] = set()
    rclpy.init(args=["--ros-args", "-p", "autostart:=false", "-p", "real_time_factor:=1.0"])
    try:
        node = make(watched(cls, rclpy_names, covered), tmp_path)
        services = {service.srv_name for service in node.services}
        if isinstance(node, LifecycleNode):
            for transition in ("configure", "activate", "deactivate", "cleanup", "shutdown"):
                getattr(node, f"trigger_{transition}")()
                assert not (services - {service.srv_name for service in node.services}), f"{transition} lost services"
            assert node.state_label == "finalized"
        node.destroy_node()
    finally:
        rclpy.try_shutdown()
    assert not covered, f"{cls.__name__} sets {sorted(covered)} of rclpy's node"
