"""MCAP files, unfinished ones too: a recorder that was killed, or a disk that was full, leaves a file without an index.

What is there is read up to where it ends: up to the last whole chunk. A finished file is read by its own index.
"""

from __future__ import annotations

import json
import struct
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO, Any

from mcap.data_stream import ReadDataStream
from mcap.exceptions import McapError
from mcap.opcode import Opcode
from mcap.reader import SeekingReader
from mcap.records import Channel, Chunk, ChunkIndex, Message, Schema, Statistics
from mcap.stream_reader import breakup_chunk
from mcap.summary import Summary

_RECORD_HEADER = struct.Struct("<BQ")
_MAGIC_BYTES = 8
_MIB = 1 << 20


class McapFileError(ValueError):
    """Not an MCAP file, or one that holds nothing; names the file."""


@dataclass(frozen=True)
class McapTopic:
    """A topic of a file: name, type (``sensor_msgs/msg/Image``), number of messages, offered latched or not."""

    name: str
    type: str
    count: int
    latched: bool


@dataclass(frozen=True)
class McapMessage:
    """Topic, type, publish_time and log_time [ns], serialized message."""

    topic: str
    type: str
    publish_ns: int
    log_ns: int
    data: bytes


class _Scanned(SeekingReader):
    """A reader by an index that was made by reading the file from its start."""

    def __init__(self, file: IO[bytes], summary: Summary, loose: list[tuple[int, int, int]]) -> None:
        file.seek(0)
        super().__init__(file)
        self._found, self._loose = summary, sorted(loose)

    def get_summary(self) -> Summary:
        """The index."""
        return self._found

    def iter_messages(self, topics: Any = None, *args: Any, **kwargs: Any) -> Iterator[Any]:
        """As the base class; messages outside chunks, which it cannot find, by where they were found."""
        if self._found.chunk_indexes:
            yield from super().iter_messages(topics, *args, **kwargs)
            return
        for _, offset, channel_id in self._loose:
            channel = self._found.channels[channel_id]
            if topics is not None and channel.topic not in topics:
                continue
            self._stream.seek(offset)
            _, length = _RECORD_HEADER.unpack(self._stream.read(_RECORD_HEADER.size))
            body = ReadDataStream(BytesIO(self._stream.read(length)))
            yield self._found.schemas.get(channel.schema_id), channel, Message.read(body, length)


class McapFile:
    """An open MCAP file, as a context manager.

    Attributes:
        topics: by name.
        start_ns, end_ns: log times of the first and last message; 0 where there is none.
        warning: what is wrong with the file; empty: nothing.

    Raises:
        McapFileError: not an MCAP file.
        OSError: it cannot be opened.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.warning = ""
        self._file: IO[bytes] = self.path.open("rb")
        try:
            self._reader, summary = self._open()
        except Exception as error:
            self._file.close()
            if isinstance(error, McapFileError):
                raise
            raise McapFileError(f"{self.path}: cannot be read as an MCAP file: {error}") from error
        counts = Counter(dict(summary.statistics.channel_message_counts)) if summary.statistics else Counter()
        self.start_ns = summary.statistics.message_start_time if summary.statistics else 0
        self.end_ns = summary.statistics.message_end_time if summary.statistics else 0
        self.topics: dict[str, McapTopic] = {}
        for number, channel in sorted(summary.channels.items()):
            schema = summary.schemas.get(channel.schema_id)
            kind = schema.name if schema is not None else ""
            before = self.topics.get(channel.topic)
            if before is not None and before.type != kind:
                self._file.close()
                raise McapFileError(f"{self.path}: topic {channel.topic} has types {before.type} and {kind}")
            count = counts[number] + (before.count if before else 0)
            latched = _is_latched(channel) or bool(before and before.latched)
            self.topics[channel.topic] = McapTopic(channel.topic, kind, count, latched)

    def __enter__(self) -> McapFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def messages(self, topics: Sequence[str] | None = None) -> Iterator[McapMessage]:
        """Messages of some topics (None: all) in order of log time, those of one time in the order of the file.

        Raises:
            McapFileError: the file is damaged.
        """
        try:
            for schema, channel, message in self._reader.iter_messages(None if topics is None else list(topics)):
                kind = schema.name if schema is not None else ""
                yield McapMessage(channel.topic, kind, message.publish_time, message.log_time, message.data)
        except Exception as error:  # a damaged record raises what its decompressor raises
            raise McapFileError(f"{self.path}: damaged: {error}") from error

    def _open(self) -> tuple[SeekingReader, Summary]:
        if not self.path.stat().st_size:
            raise McapFileError(f"{self.path}: is empty (0 bytes), expected an MCAP file")
        reader = SeekingReader(self._file, validate_crcs=True)
        try:
            summary = reader.get_summary()
            if summary is not None and summary.statistics is not None:
                return reader, summary
            whole = True
        except (McapError, OSError, ValueError, KeyError, struct.error):
            whole = False
        summary, loose, read_to = _scan(self._file, self.path.stat().st_size)
        if not whole:
            size = self.path.stat().st_size
            statistics = summary.statistics
            assert statistics is not None
            seconds = (statistics.message_end_time - statistics.message_start_time) * 1e-9
            self.warning = (
                f"{self.path} was not finished (its recorder was killed, or the disk was full): read up to where it "
                f"ends, {statistics.message_count} messages over {seconds:.1f} s, {read_to / _MIB:.1f} of "
                f"{size / _MIB:.1f} MiB"
            )
        return _Scanned(self._file, summary, loose), summary


def _scan(file: IO[bytes], size: int) -> tuple[Summary, list[tuple[int, int, int]], int]:
    """Index of a file without one: channels, chunks; messages outside chunks as (time, offset, channel); bytes read."""
    summary, counts = Summary(), Counter[int]()
    loose: list[tuple[int, int, int]] = []
    start: int | None = None
    end = 0

    def index_record(record: Any, offset: int | None, seen: set[int]) -> None:
        nonlocal start, end
        if isinstance(record, Schema):
            summary.schemas[record.id] = record
        elif isinstance(record, Channel):
            summary.channels[record.id] = record
        elif isinstance(record, Message):
            if record.channel_id not in summary.channels:
                raise McapError(f"message of channel {record.channel_id}, which the file does not describe")
            counts[record.channel_id] += 1
            seen.add(record.channel_id)
            start = record.log_time if start is None else min(start, record.log_time)
            end = max(end, record.log_time)
            if offset is not None:
                loose.append((record.log_time, offset, record.channel_id))

    position = _MAGIC_BYTES
    while position + _RECORD_HEADER.size <= size:
        file.seek(position)
        opcode, length = _RECORD_HEADER.unpack(file.read(_RECORD_HEADER.size))
        after = position + _RECORD_HEADER.size + length
        if after > size or opcode in (0, Opcode.DATA_END, Opcode.FOOTER):
            break  # cut off in the middle, blocks that a file system never filled, or the end of the data
        if opcode in (Opcode.CHUNK, Opcode.SCHEMA, Opcode.CHANNEL, Opcode.MESSAGE):
            stream = ReadDataStream(BytesIO(file.read(length)))
            seen: set[int] = set()
            try:
                if opcode == Opcode.CHUNK:
                    chunk = Chunk.read(stream)
                    for record in breakup_chunk(chunk, validate_crc=True):
                        index_record(record, None, seen)
                    index = ChunkIndex(
                        chunk_length=after - position,
                        chunk_start_offset=position,
                        compression=chunk.compression,
                        compressed_size=len(chunk.data),
                        message_end_time=chunk.message_end_time,
                        message_index_length=0,
                        message_index_offsets=dict.fromkeys(sorted(seen), 0),
                        message_start_time=chunk.message_start_time,
                        uncompressed_size=chunk.uncompressed_size,
                    )
                    if seen:
                        summary.chunk_indexes.append(index)
                elif opcode == Opcode.MESSAGE:
                    index_record(Message.read(stream, length), position, seen)
                else:
                    index_record((Schema if opcode == Opcode.SCHEMA else Channel).read(stream), None, seen)
            except Exception:  # a damaged record raises what its decompressor raises: the file ends before it
                break
        position = after
    if summary.chunk_indexes:
        loose = []
    summary.statistics = Statistics(
        attachment_count=0,
        channel_count=len(summary.channels),
        channel_message_counts=dict(counts),
        chunk_count=len(summary.chunk_indexes),
        message_count=counts.total(),
        message_end_time=end,
        message_start_time=start or 0,
        metadata_count=0,
        schema_count=len(summary.schemas),
    )
    return summary, loose, min(position, size)


def _is_latched(channel: Channel) -> bool:
    """Whether a publisher offered the topic transient local, by the QoS that rosbag2 and wm keep beside it."""
    text = channel.metadata.get("offered_qos_profiles", "")
    if not text:
        return False
    try:
        profiles = json.loads(text)
    except ValueError:
        import yaml

        try:
            profiles = yaml.safe_load(text)
        except yaml.YAMLError:
            return False
    # By name, or as rmw's number (1: transient local), which rosbag2 wrote until Humble.
    words = [str(profile.get("durability", "")).lower() for profile in profiles or [] if isinstance(profile, dict)]
    return any(word in ("transient_local", "1") for word in words)
