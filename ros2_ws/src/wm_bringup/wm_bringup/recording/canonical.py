"""Serialized messages in one form: the bytes between fields, which the middleware leaves as they happen to be, are
0."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from wm_bringup.environment import message_definition


@lru_cache(maxsize=64)
def _store(kind: str) -> Any:
    """A type store that knows a type by the definition that is installed here."""
    store = get_typestore(Stores.EMPTY)
    store.register(get_types_from_msg(message_definition(kind), kind))
    return store


def canonical_cdr(data: bytes, kind: str) -> bytes:
    """The same message, serialized (CDR, little endian) with every padding byte 0.

    Messages that are equal field by field, to the last bit, are equal so.

    Args:
        data: as rclpy serializes it.
        kind: PACKAGE/msg/NAME.
    """
    store = _store(kind)
    return bytes(store.serialize_cdr(store.deserialize_cdr(data, kind), kind))
