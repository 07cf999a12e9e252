"""Reads back what the recorder wrote."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rclpy.serialization import deserialize_message

from wm_bringup.environment import message_class
from wm_bringup.recording.mcap_file import McapFile


@dataclass(frozen=True)
class Recorded:
    """A message as it lies in the file: topic, type, stamp and arrival [ns], bytes."""

    topic: str
    type_name: str
    stamp_ns: int
    arrival_ns: int
    data: bytes

    def message(self) -> Any:
        """Taken apart."""
        return deserialize_message(self.data, message_class(self.type_name))


def read(path: Path, topics: Sequence[str] | None = None) -> Iterator[Recorded]:
    """Messages of some topics (None: all) in order of arrival; an unfinished file is read up to where it ends.

    Raises:
        McapFileError: not an MCAP file, or a damaged one.
    """
    with McapFile(path) as file:
        if file.warning:
            print(f"warning: {file.warning}", file=sys.stderr)
        for message in file.messages(topics):
            yield Recorded(message.topic, message.type, message.publish_ns, message.log_ns, message.data)


def counts(path: Path) -> dict[str, int]:
    """Messages by topic. Raises as ``read``."""
    with McapFile(path) as file:
        return {name: topic.count for name, topic in sorted(file.topics.items()) if topic.count}
