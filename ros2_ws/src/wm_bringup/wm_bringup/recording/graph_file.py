"""The file that a replay writes: the same bytes for the same messages."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from mcap.well_known import SchemaEncoding
from mcap.writer import CompressionType, Writer
from rclpy.serialization import serialize_message

from wm_bringup.environment import message_definition
from wm_bringup.recording.canonical import canonical_cdr


class ReplayError(RuntimeError):
    """A replay that gave nothing, or cannot be done; says why."""


def type_name(kind: type) -> str:
    """PACKAGE/msg/NAME of a message class."""
    return f"{kind.__module__.partition('.')[0]}/msg/{kind.__name__}"


class GraphFile:
    """The file of what the node publishes. Its times are stamps of images: nothing in it tells when it was written.

    ``failure``: what went wrong; nothing is written after it. It is not raised where the node publishes: the node would
    take it for a bad frame.
    """

    def __init__(self, path: Path) -> None:
        self.failure: OSError | None = None
        self._path = path
        self._file = path.open("wb")
        self._writer = Writer(self._file, compression=CompressionType.ZSTD)
        self._writer.start(profile="ros2", library="wm replay")
        self._channels: dict[str, int] = {}
        self._schemas: dict[str, int] = {}

    def write(self, topic: str, message: Any, stamp_ns: int) -> None:
        """Append a message."""
        if self.failure is not None:
            return
        try:
            self._write(topic, message, stamp_ns)
        except OSError as error:
            self.failure = error

    def check(self) -> None:
        """Raises ReplayError where writing failed."""
        if self.failure is not None:
            raise ReplayError(f"cannot write {self._path}: {self.failure}")

    def _write(self, topic: str, message: Any, stamp_ns: int) -> None:
        kind = type_name(type(message))
        if topic not in self._channels:
            if kind not in self._schemas:
                definition = message_definition(kind).encode()
                self._schemas[kind] = self._writer.register_schema(kind, SchemaEncoding.ROS2, definition)
            self._channels[topic] = self._writer.register_channel(topic, "cdr", self._schemas[kind])
        data = canonical_cdr(serialize_message(message), kind)
        self._writer.add_message(self._channels[topic], stamp_ns, data, stamp_ns)

    def close(self) -> None:
        """Finish the file."""
        try:
            if self.failure is None:
                self._writer.finish()
            self._file.close()
        except OSError as error:
            self.failure = self.failure or error


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
