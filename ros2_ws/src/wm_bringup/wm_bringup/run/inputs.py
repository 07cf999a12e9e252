"""What perception reads, by its parameters files and remaps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from wm_bringup.run.params_file import complaints, full_name, graph_nodes, node_parameters
from wm_core.frames import prefixed
from wm_perception.parameters import PerceptionParameters

CAMERA_INFO = PerceptionParameters.camera_info_topic


def remap_table(remaps: Sequence[str]) -> dict[str, str]:
    """{"/a": "/b"} of ["/a:=/b"].

    Raises:
        ValueError: another form.
    """
    table = {}
    for rule in remaps:
        old, separator, new = rule.partition(":=")
        if not (separator and old and new):
            raise ValueError(f"--remap: got {rule!r}, expected /OLD:=/NEW, e.g. {CAMERA_INFO}:=/my/camera_info")
        table[old] = new
    return table


@dataclass(frozen=True)
class PerceptionInputs:
    """What perception reads, by its parameters files and remaps; names as on the graph, frames with their prefix.

    ``camera_frame``: empty: that of the images. ``tf_timeout_s``: None: not said, so the node's default.
    """

    color: str = PerceptionParameters.color_topic
    depth: str = PerceptionParameters.depth_topic
    camera_info: str = CAMERA_INFO
    world_frame: str = PerceptionParameters.world_frame
    pose_source: str = PerceptionParameters.pose_source
    max_stamp_difference_s: float = PerceptionParameters.max_stamp_difference_s
    tf_timeout_s: float | None = None
    camera_frame: str = PerceptionParameters.camera_frame


def perception_inputs(
    params_files: Sequence[Path], remaps: Mapping[str, str], namespace: str = "/wm"
) -> PerceptionInputs:
    """The topics that perception reads, by its parameters files and remaps, and how it takes them.

    Raises:
        ValueError: a file that is no parameters file.
    """
    given = node_parameters(params_files, full_name(namespace, "perception"))
    usual = PerceptionInputs()
    prefix = str(given.get("frame_prefix", ""))

    def image(name: str, topic: str) -> str:
        transport = given.get(f"{name}_transport", "raw")
        topic = str(given.get(f"{name}_topic", topic)) + ("" if transport == "raw" else f"/{transport}")
        return remaps.get(topic, topic)

    info = str(given.get("camera_info_topic", usual.camera_info))
    return PerceptionInputs(
        image("color", usual.color),
        image("depth", usual.depth),
        remaps.get(info, info),
        prefixed(prefix, str(given.get("world_frame", usual.world_frame))),
        str(given.get("pose_source", usual.pose_source)),
        float(given.get("max_stamp_difference_s", usual.max_stamp_difference_s)),
        given.get("tf_timeout_s"),
        prefixed(prefix, str(given.get("camera_frame", usual.camera_frame))),
    )


def unread_names(params_files: Sequence[Path], namespace: str = "/wm") -> list[str]:
    """A line for each name in parameters files that no node reads; those of nodes that only a launch file starts pass.

    Raises:
        ValueError: a file that is no parameters file.
    """
    nodes = graph_nodes(namespace)
    return [line for file in params_files for line in complaints(file, nodes)]
