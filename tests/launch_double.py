"""A strict double of launch and launch_ros for the launch file's tests.

It knows the names and keyword arguments (Jazzy, Kilted) that the file may use, refuses all others, and keeps what would
be started.
"""

from __future__ import annotations

import importlib.util
import inspect
import logging
import re
import types
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from wm_bringup.environment import share_folder

ROOT = Path(__file__).resolve().parents[1]
BRINGUP = ROOT / "ros2_ws/src/wm_bringup"
LAUNCH_FILE = BRINGUP / "launch/wm.launch.py"

PROCESS_KEYWORDS = {
    # launch.actions.ExecuteLocal and ExecuteProcess
    *("shell", "sigterm_timeout", "sigkill_timeout", "emulate_tty", "output", "output_format", "log_cmd", "on_exit"),
    *("respawn", "respawn_delay", "respawn_max_retries", "cached_output", "prefix", "cwd", "env", "additional_env"),
    "condition",
}
NODE_KEYWORDS = PROCESS_KEYWORDS | {
    *("package", "executable", "name", "namespace", "exec_name", "parameters", "remappings"),
    *("ros_arguments", "arguments"),
}
GZ_SIM_ARGUMENTS = {"gz_args", "gz_version", "ign_args", "ign_version", "debugger", "on_exit_shutdown", "debug_env"}
FOREIGN_EXECUTABLES = {
    "rviz2": {"rviz2"},
    "ros_gz_bridge": {"parameter_bridge"},
    "tf2_ros": {"static_transform_publisher"},
    "nav2_lifecycle_manager": {"lifecycle_manager"},
}


class Context:
    def __init__(self) -> None:
        self.launch_configurations: dict[str, str] = {}
        self.is_shutdown = False


class PackageNotFoundError(KeyError):
    """As in ament_index_python.packages."""


class Shutdown:
    def __init__(self, *, reason="reason not given", condition=None) -> None:
        assert isinstance(reason, str)
        self.reason = reason


@dataclass
class ProcessExited:
    """What an on_exit function gets of launch.events.process.ProcessExited."""

    process_name: str
    returncode: int
    pid: int = 1


class LaunchConfiguration:
    def __init__(self, variable_name: str, *, default: Any = None) -> None:
        self.variable_name, self.default = variable_name, default

    def perform(self, context: Context) -> str:
        return context.launch_configurations[self.variable_name]


class DeclareLaunchArgument:
    def __init__(self, name, *, default_value=None, description=None, choices=None, condition=None) -> None:
        assert isinstance(name, str) and isinstance(description, str) and isinstance(default_value, str)
        assert choices is None or (choices and default_value in choices)
        self.name, self.default, self.description, self.choices = name, default_value, description, choices

    def execute(self, context: Context) -> None:
        value = context.launch_configurations.setdefault(self.name, self.default)
        if self.choices is not None and value not in self.choices:
            raise RuntimeError(f'Argument "{self.name}" provided value "{value}" is not valid')


class OpaqueFunction:
    def __init__(self, *, function, args=None, kwargs=None, condition=None) -> None:
        self.function, self.args, self.kwargs = function, args or [], kwargs or {}

    def execute(self, context: Context) -> Any:
        return self.function(context, *self.args, **self.kwargs)


class PythonLaunchDescriptionSource:
    def __init__(self, launch_file_path) -> None:
        self.path = launch_file_path


class IncludeLaunchDescription:
    def __init__(self, launch_description_source, *, launch_arguments=None, condition=None) -> None:
        assert isinstance(launch_description_source, PythonLaunchDescriptionSource)
        # An iterable of pairs: a dict would be unpacked into its keys.
        assert not isinstance(launch_arguments, dict)
        self.path, self.arguments = launch_description_source.path, dict(launch_arguments or ())


class LogInfo:
    def __init__(self, *, msg, condition=None) -> None:
        assert isinstance(msg, str)


class ParameterValue:
    def __init__(self, value, *, value_type=None) -> None:
        assert isinstance(value, value_type)
        self.value = value


def evaluated(value: Any) -> Any:
    """What a node is given for a parameter: launch_ros reads text as YAML, unless it is told that it is text."""
    if isinstance(value, ParameterValue):
        return value.value
    return yaml.safe_load(value) if isinstance(value, str) else value


class Node:
    def __init__(self, **keywords: Any) -> None:
        unknown = set(keywords) - NODE_KEYWORDS
        assert not unknown, f"launch_ros.actions.Node has no keyword {unknown}"
        assert {"package", "executable"} <= set(keywords)
        for parameters in keywords.get("parameters", []):
            assert isinstance(parameters, (str, dict))
            if isinstance(parameters, dict):
                kinds = (str, bool, int, float, list, ParameterValue)
                assert all(isinstance(value, kinds) for value in parameters.values())
        for name in ("arguments", "ros_arguments"):
            assert all(isinstance(argument, str) for argument in keywords.get(name, []))
        assert isinstance(keywords.get("respawn", False), bool)
        assert isinstance(keywords.get("respawn_delay", 0.0), float)
        on_exit = keywords.get("on_exit")
        assert on_exit is None or list(inspect.signature(on_exit).parameters) == ["event", "context"]
        # launch_ros gives a name to every node of the process, and a namespace begins with a letter or /.
        assert keywords.get("name", "x") and not keywords.get("namespace", "").endswith("/")
        assert all(len(pair) == 2 for pair in keywords.get("remappings", []))
        self.keywords = keywords

    def __getitem__(self, name: str) -> Any:
        return self.keywords[name]

    @property
    def files(self) -> list[str]:
        return [p for p in self.keywords.get("parameters", []) if isinstance(p, str)]

    @property
    def given(self) -> dict[str, Any]:
        dictionaries = [p for p in self.keywords.get("parameters", []) if isinstance(p, dict)]
        return {name: evaluated(value) for p in dictionaries for name, value in p.items()}


class LaunchDescription:
    def __init__(self, initial_entities=None) -> None:
        self.entities = list(initial_entities or [])


INSTALLED = {"ros_gz_sim", "ros_gz_bridge", "tf2_ros", "rviz2", "nav2_lifecycle_manager"}


def double(installed: set[str]) -> dict[str, types.ModuleType]:
    def module(name: str, **members: Any) -> types.ModuleType:
        made = types.ModuleType(name)
        made.__dict__.update(members)
        return made

    def get_package_share_directory(package_name: str) -> str:
        folder = share_folder(package_name)
        if folder is not None:
            source = ROOT / "ros2_ws/src" / package_name  # files that were added since the last build
            return str(source if source.is_dir() else folder)
        if package_name in installed:
            return f"/opt/ros/jazzy/share/{package_name}"
        raise PackageNotFoundError(package_name)

    launch_logging = module("launch.logging", get_logger=logging.getLogger)
    return {
        "launch": module("launch", LaunchDescription=LaunchDescription, logging=launch_logging),
        "launch.logging": launch_logging,
        "launch.actions": module(
            "launch.actions",
            DeclareLaunchArgument=DeclareLaunchArgument,
            OpaqueFunction=OpaqueFunction,
            IncludeLaunchDescription=IncludeLaunchDescription,
            LogInfo=LogInfo,
            Shutdown=Shutdown,
        ),
        "launch.launch_description_sources": module(
            "launch.launch_description_sources", PythonLaunchDescriptionSource=PythonLaunchDescriptionSource
        ),
        "launch.substitutions": module("launch.substitutions", LaunchConfiguration=LaunchConfiguration),
        "launch_ros": module("launch_ros"),
        "launch_ros.actions": module("launch_ros.actions", Node=Node),
        "launch_ros.parameter_descriptions": module("launch_ros.parameter_descriptions", ParameterValue=ParameterValue),
        "ament_index_python": module("ament_index_python"),
        "ament_index_python.packages": module(
            "ament_index_python.packages",
            get_package_share_directory=get_package_share_directory,
            PackageNotFoundError=PackageNotFoundError,
        ),
    }


def load() -> types.ModuleType:
    spec = importlib.util.spec_from_file_location("wm_launch_file", LAUNCH_FILE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def nodes(started: list[Any]) -> dict[str, Node]:
    return {e.keywords.get("name", e["executable"]): e for e in started if isinstance(e, Node)}


def executables(package: str) -> set[str]:
    """Names that `ros2 run PACKAGE` knows, from its setup.py."""
    if package in FOREIGN_EXECUTABLES:
        return FOREIGN_EXECUTABLES[package]
    text = (ROOT / "ros2_ws/src" / package / "setup.py").read_text()
    return set(re.findall(r'"(\w+) = [\w.]+:\w+"', text))


def check(started: list[Any]) -> None:
    """Every package, executable and file that is named exists, and every parameter is one of its node's."""
    for entity in started:
        if isinstance(entity, IncludeLaunchDescription):
            assert entity.path.endswith("ros_gz_sim/launch/gz_sim.launch.py")
            assert set(entity.arguments) <= GZ_SIM_ARGUMENTS
        if not isinstance(entity, Node):
            continue
        assert entity["executable"] in executables(entity["package"]), entity.keywords
        for file in entity.files:
            assert Path(file).is_file(), file
        name = entity.keywords.get("name", "")
        defaults = ROOT / "ros2_ws/src" / entity["package"] / "config" / f"{name}.yaml"
        if defaults.is_file():
            known = yaml.safe_load(defaults.read_text())[f"/**/{name}"]["ros__parameters"]
            groups = {f"{key}.{name}" for key, value in known.items() if isinstance(value, dict) for name in value}
            assert set(entity.given) <= {*known, *groups, "use_sim_time", "autostart"}
        if entity["package"] not in ("rviz2", "tf2_ros"):
            assert ("on_exit" in entity.keywords) != entity.keywords.get("respawn", False)
