"""Stamps of serialized messages, and QoS as rosbag2 keeps it in MCAP files."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy

_FOREVER = {"sec": 9223372036, "nsec": 854775807}


def stamp_reader(message_type: type) -> Callable[[bytes], int]:
    """Function that reads the stamp [ns] of a serialized message of this type; 0 where it has none."""
    fields: dict[str, str] = getattr(message_type, "get_fields_and_field_types", dict)()
    first = next(iter(fields.values()), "")
    offset, least = 4, 12  # after the encapsulation header of CDR
    if first == "sequence<geometry_msgs/TransformStamped>":
        offset, least = 8, 16  # after the length: the stamp of the first one
    elif first not in ("std_msgs/Header", "builtin_interfaces/Time"):
        return lambda data: 0

    def read(data: bytes) -> int:
        if len(data) < least or (offset == 8 and not any(data[4:8])):
            return 0
        seconds, nanoseconds = struct.unpack_from("<iI" if data[1] & 1 else ">iI", data, offset)
        return max(0, seconds * 1_000_000_000 + nanoseconds)

    return read


def qos_metadata(profiles: Iterable[QoSProfile]) -> str:
    """QoS of a topic's publishers, as rosbag2 keeps it in MCAP (YAML, here its subset JSON)."""

    def word(policy: Any) -> str:
        return str(policy.name).lower()

    return json.dumps(
        [
            {
                # Over DDS the depth and history of a remote publisher are unknown (0); a player needs some.
                "history": "keep_last" if word(profile.history) == "unknown" else word(profile.history),
                "depth": profile.depth or 10,
                "reliability": word(profile.reliability),
                "durability": word(profile.durability),
                "deadline": _FOREVER,
                "lifespan": _FOREVER,
                "liveliness": "automatic",
                "liveliness_lease_duration": _FOREVER,
                "avoid_ros_namespace_conventions": False,
            }
            for profile in profiles
        ]
    )


def matching_qos(offered: Sequence[QoSProfile], depth: int) -> QoSProfile:
    """The strongest profile that every one of these publishers can serve."""
    reliable = all(profile.reliability == ReliabilityPolicy.RELIABLE for profile in offered)
    latched = all(profile.durability == DurabilityPolicy.TRANSIENT_LOCAL for profile in offered)
    return QoSProfile(
        reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
        history=HistoryPolicy.KEEP_LAST,
        depth=depth,
    )
