"""Bags, read: MCAP files, unfinished ones too, and rosbag2 folders of MCAP or SQLite."""

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


@dataclass(frozen=True)
class BagTopic:
    """A topic of a bag: name, type (``sensor_msgs/msg/Image``), number of messages, latched or not."""

    name: str
    type: str
    count: int
    latched: bool


def message_class(type_name: str) -> Any:
    """The Python class of a message type.

    Raises:
        SourceError: this ROS installation does not have it.
    """
    match = re.fullmatch(r"(\w+)/msg/(\w+)", type_name)
    if match is None:
        raise SourceError(f"message type {type_name!r}: expected PACKAGE/msg/NAME")
    try:
        return getattr(importlib.import_module(f"{match[1]}.msg"), match[2])
    except (ImportError, AttributeError) as error:
        raise SourceError(f"message type {type_name}: not installed here; install ROS package {match[1]}") from error


def parse_remap(texts: Sequence[str]) -> dict[str, str]:
    """``/from:=/to`` texts as a dictionary.

    Raises:
        SourceError: another form, or a name twice.
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

    MCAP files are read by ``McapFile``, unfinished ones up to where they end; rosbag2 folders by their metadata.yaml,
    and where a killed recorder has left none (or one that does not fit) by the MCAP files in them.

    Attributes:
        topics: by name.
        warnings: what is wrong with its files.

    Raises:
        SourceError: no such file, or not a bag.
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
        except Exception as error:  # damaged files raise what their storage library raises
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
        """Time of the first message [ns]."""
        if self._reader is not None:
            return int(self._reader.start_time)
        return min((file.start_ns for file in self._files), default=0)

    @property
    def duration_s(self) -> float:
        """From the first message to the last [s]."""
        if self._reader is not None:
            return max(int(self._reader.duration), 0) / NANOSECONDS
        return (max((file.end_ns for file in self._files), default=0) - self.start_ns) / NANOSECONDS

    def choose(self, names: Sequence[str]) -> list[BagTopic]:
        """The topics of these names; all where none is given.

        Raises:
            SourceError: no such topic; lists those there are.
        """
        for name in names:
            if name not in self.topics:
                raise SourceError(f"{self.path}: no topic {name}; it has {', '.join(sorted(self.topics)) or 'none'}")
        return [self.topics[name] for name in names] if names else sorted(self.topics.values(), key=lambda t: t.name)

    def messages(self, names: Sequence[str]) -> Iterator[tuple[str, int, bytes]]:
        """Topic, time [ns] and serialized message, in order of time.

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
