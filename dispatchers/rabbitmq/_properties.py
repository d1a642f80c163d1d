"""The frame that says what a message is, byte for byte as pika writes it, in half the time.

pika builds it by a call for each name and each value: 29 us for a message of Celery's, which has
25 headers, of the 36 us that publishing one among many takes (pika 1.4).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from struct import Struct
from typing import Any

from pika import spec
from pika.data import encode_short_string, encode_value

from ._channel import CHANNEL

__all__ = ["content_header"]

FRAME = Struct(">BHI").pack
"""A frame's type, its channel and the size of what it holds."""
CONTENT = Struct(">HxxQH").pack
"""The class of methods, the size of the message's body, and which properties follow."""
SIZE = Struct(">I").pack
TEXT = Struct(">cI").pack
OCTET = Struct("B").pack
INSTANT = Struct(">Q").pack
END = OCTET(spec.FRAME_END)

PROPERTIES = (
    *("content_type", "content_encoding", "headers", "delivery_mode", "priority"),
    *("correlation_id", "reply_to", "expiration", "message_id", "timestamp", "type"),
    *("user_id", "app_id", "cluster_id"),
)
"""In the order of their flags: AMQP 0-9-1, section 4.2.6.1."""
FLAGS = {name: 1 << (15 - position) for position, name in enumerate(PROPERTIES)}
OCTETS = frozenset({"delivery_mode", "priority"})
WRITABLE = (type(None), bool, int, str, bytes, datetime, Decimal)
"""Types that pika writes into a table as they are; a float is none of them (1.4, `pika.data`)."""


def content_header(size: int, properties: Mapping[str, Any]) -> bytes:
    """Return the frame before a message's body of `size` bytes.

    Args:
        size: Bytes.

        properties: Of `pika.BasicProperties`, by name; None is left out.

    Raises:
        TypeError: There is no such property.
    """
    if unknown := properties.keys() - FLAGS.keys():
        raise TypeError(f"AMQP has no property {min(unknown)!r}")
    flags, parts = 0, []
    for name in PROPERTIES:
        if (value := properties.get(name)) is not None:
            flags |= FLAGS[name]
            parts.append(_property(name, value))
    values = b"".join(parts)
    content = CONTENT(spec.BasicProperties.INDEX, size, flags)
    length = len(content) + len(values)
    return b"".join([FRAME(spec.FRAME_HEADER, CHANNEL, length), content, values, END])


def _property(name: str, value: Any) -> bytes:
    if name == "headers":
        return _table(value)
    if name in OCTETS:
        return OCTET(value)
    if name == "timestamp":
        return INSTANT(value)
    return _short(value) if name in ("content_type", "content_encoding") else _once(value)


def _table(values: Mapping[Any, Any]) -> bytes:
    parts: list[bytes] = []
    for name, value in values.items():
        parts.append(_short(name if type(name) is str else str(name)))
        kind = type(value)
        # The kinds that most headers have; pika writes the others.
        if kind is str:
            data = value.encode()
            parts += (TEXT(b"S", len(data)), data)
        elif value is None:
            parts.append(b"V")
        elif kind is bool:
            parts.append(b"t\x01" if value else b"t\x00")
        elif kind is dict:
            parts += (b"F", _table(value))
        else:
            encode_value(parts, _writable(value))
    data = b"".join(parts)
    return SIZE(len(data)) + data


def _writable(value: Any) -> Any:
    """Return a header's value in types that pika writes; of any other the text is written."""
    if isinstance(value, dict):
        return {str(k): v if type(v) in WRITABLE else _writable(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [v if type(v) in WRITABLE else _writable(v) for v in value]
    return value if isinstance(value, WRITABLE) else str(value)


def _once(text: str) -> bytes:
    parts: list[bytes] = []
    encode_short_string(parts, text)
    return b"".join(parts)


_short = lru_cache(maxsize=1024)(_once)
"""Names, of which there are few."""
