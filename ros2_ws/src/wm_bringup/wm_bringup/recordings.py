"""Reads back what the recorder wrote."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mcap.reader import make_reader
from rclpy.serialization import deserialize_message

from wm_bringup.environment import message_class


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
    """Messages of some topics (None: all) in order of arrival."""
    with path.open("rb") as file:
        for schema, channel, message in make_reader(file).iter_messages(topics=topics):
            yield Recorded(
                channel.topic,
                schema.name if schema is not None else "",
                message.publish_time,
                message.log_time,
                message.data,
            )


def counts(path: Path) -> dict[str, int]:
    """Messages by topic."""
    with path.open("rb") as file:
        summary = make_reader(file).get_summary()
    if summary is None or summary.statistics is None:
        return {}
    return {
        summary.channels[channel].topic: count
        for channel, count in sorted(summary.statistics.channel_message_counts.items())
    }
