"""Reads bags: MCAP files, also unfinished ones, and rosbag2 folders of MCAP or SQLite files."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wm_bringup.recording.mcap_file import McapFile, McapFileError
from wm_bringup.sources.playback import SourceError
from wm_ros.stamps import NANOSECONDS

_LATCHED_TYPES = {"/tf_static", "/robot_description"}
"""Topics that ROS always publishes latched (transient local): some bags do not record the QoS."""


@dataclass(frozen=True)
class BagTopic:
    """A topic of a bag.

    Attributes:
        name: the topic's name in the bag, absolute.
        type: the message type, e.g. ``sensor_msgs/msg/Image``.
        count: the number of recorded messages.
        latched: whether the publisher was transient local, so that late subscribers get the last message.
    """

    name: str
    type: str
    count: int
    latched: bool


def message_class(type_name: str) -> Any:
    """The Python class of a message type, e.g. of ``sensor_msgs/msg/Image``.

    Raises:
        SourceError: the name has another form, or this ROS installation does not have the type.
    """
    match = re.fullmatch(r"(\w+)/msg/(\w+)", type_name)
    if match is None:
        raise SourceError(f"message type {type_name!r}: expected PACKAGE/msg/NAME")
    try:
        return getattr(importlib.import_module(f"{match[1]}.msg"), match[2])
    except (ImportError, AttributeError) as error:
        raise SourceError(f"message type {type_name}: not installed here; install ROS package {match[1]}") from error


def parse_remap(texts: Sequence[str]) -> dict[str, str]:
    """Texts of the form ``/from:=/to`` as a dictionary from recorded to published topic names.

    Raises:
        SourceError: a text has another form, or a topic is remapped twice.
    """
    result: dict[str, str] = {}
    for text in texts:
        match = re.fullmatch(r"(/[\w/]+):=(/[\w/]+)", text)
        if match is None:
            raise SourceError(f"--remap {text}: expected /from:=/to")
        if match[1] in result:
            raise SourceError(f"--remap {text}: {match[1]} is remapped twice")
        result[match[1]] = match[2]
    return result


class Bag:
    """An open bag, as a context manager.

    ``McapFile`` reads MCAP files; it reads an unfinished file up to its last complete message. The rosbags library
    reads rosbag2 folders by their metadata.yaml. A killed recorder leaves a folder with no metadata.yaml or with one
    that does not fit its files; then the MCAP files of the folder are read one by one.

    Attributes:
        path: the file or folder.
        topics: the topics of the bag by name.
        warnings: one sentence for each defect of the files that does not prevent reading.

    Raises:
        SourceError: the path does not exist or is not a bag.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.exists():
            raise SourceError(f"{self.path}: no such file or folder")
        self._reader: Any = None
        self._files: list[McapFile] = []
        self.warnings: list[str] = []
        self.topics: dict[str, BagTopic] = {}
        if self.path.suffix == ".mcap" and self.path.is_file():
            self._open_mcap([self.path])
        else:
            self._open_rosbag2()

    def _open_mcap(self, paths: Sequence[Path]) -> None:
        try:
            for path in paths:
                self._files.append(McapFile(path))
        except (McapFileError, OSError) as error:
            self.__exit__()
            raise SourceError(str(error)) from error
        self.warnings += [file.warning for file in self._files if file.warning]
        for file in self._files:
            for topic in file.topics.values():
                self._add(topic.name, topic.type, topic.count, topic.latched)
        self._files.sort(key=lambda file: file.start_ns)

    def _open_rosbag2(self) -> None:
        from rosbags.rosbag2 import Reader, ReaderError

        try:
            self._reader = Reader(self.path)
            self._reader.open()
        except Exception as error:  # a damaged file raises whatever its storage library raises
            self._reader = None
            expected = "expected an .mcap or .db3 file, or a rosbag2 folder with metadata.yaml"
            known = isinstance(error, (ReaderError, OSError, ValueError, KeyError))
            text = f"{self.path}: {error}; {expected}" if known else f"{self.path}: cannot be read as a bag: {error}"
            files = sorted(self.path.glob("*.mcap")) if self.path.is_dir() else []
            files = [file for file in files if file.stat().st_size]
            if not files:
                raise SourceError(text) from error
            try:
                self._open_mcap(files)
            except SourceError as second:
                raise SourceError(f"{text}; {second}") from error
            self.warnings.append(f"{self.path}: {error}; read by the MCAP files in it")
            return
        for connection in self._reader.connections:
            latched = _offers_transient_local(connection)
            self._add(connection.topic, connection.msgtype, connection.msgcount, latched)

    def _add(self, name: str, kind: str, count: int, latched: bool) -> None:
        before = self.topics.get(name)
        if before is not None and before.type != kind:
            raise SourceError(f"{self.path}: topic {name} has types {before.type} and {kind}")
        latched = latched or name in _LATCHED_TYPES or bool(before and before.latched)
        self.topics[name] = BagTopic(name, kind, count + (before.count if before else 0), latched)

    def __enter__(self) -> Bag:
        return self

    def __exit__(self, *_: object) -> None:
        if self._reader is not None:
            self._reader.close()
        for file in self._files:
            file.close()

    @property
    def start_ns(self) -> int:
        """Time at which the first message was recorded [ns]."""
        if self._reader is not None:
            return int(self._reader.start_time)
        return min((file.start_ns for file in self._files), default=0)

    @property
    def duration_s(self) -> float:
        """Time from the first message to the last [s]."""
        if self._reader is not None:
            return max(int(self._reader.duration), 0) / NANOSECONDS
        return (max((file.end_ns for file in self._files), default=0) - self.start_ns) / NANOSECONDS

    def choose(self, names: Sequence[str]) -> list[BagTopic]:
        """The topics of these names, in their order; all topics, sorted by name, where no name is given.

        Raises:
            SourceError: a topic is not in the bag; the message lists the topics that are.
        """
        for name in names:
            if name not in self.topics:
                raise SourceError(f"{self.path}: no topic {name}; it has {', '.join(sorted(self.topics)) or 'none'}")
        return [self.topics[name] for name in names] if names else sorted(self.topics.values(), key=lambda t: t.name)

    def messages(self, names: Sequence[str]) -> Iterator[tuple[str, int, bytes]]:
        """Yield topic, time of recording [ns] and serialized message (CDR) of these topics, ordered by time.

        Raises:
            SourceError: the file is damaged.
        """
        if self._reader is None:
            for file in self._files:
                try:
                    for message in file.messages(names):
                        yield message.topic, message.log_ns, message.data
                except McapFileError as error:
                    raise SourceError(str(error)) from error
            return
        connections = [c for c in self._reader.connections if c.topic in set(names)]
        if not connections:
            return
        try:
            for connection, stamp_ns, data in self._reader.messages(connections):
                yield connection.topic, int(stamp_ns), bytes(data)
        except (OSError, ValueError, RuntimeError) as error:
            raise SourceError(f"{self.path}: damaged: {error}") from error


def _offers_transient_local(connection: Any) -> bool:
    offered = getattr(connection.ext, "offered_qos_profiles", None) or []
    return any("TRANSIENT_LOCAL" in str(getattr(profile, "durability", profile)).upper() for profile in offered)
