"""Executions as JSON files: written by `dispatchers executions export`, replayed by tests.

Format 1 is an object with `format`, `version`, `execution` and `entries`, described in
docs/executions.md. Bodies are JSON within the JSON, so that two files can be compared by eye.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

from dispatchers._errors import ConfigurationError
from dispatchers._journal.values import Entry, EntryKind, Record, Status

__all__ = ["FORMAT", "VERSION", "Exported", "exported", "read_export"]

FORMAT = "dispatchers.execution"
VERSION = 1
NEVER_NONE = frozenset({"headers", "input"})
BODIES = frozenset({*NEVER_NONE, "output", "state", "body"})
"""Fields that hold JSON; other bytes are written as hexadecimal text."""


class Exported(NamedTuple):
    """An execution that was read from a file."""

    record: Record
    entries: Sequence[Entry]


def exported(record: Record, entries: Sequence[Entry]) -> dict[str, Any]:
    """Return an execution as a value that JSON can carry.

    Args:
        record: The execution.

        entries: All of its entries.
    """
    return {
        "format": FORMAT,
        "version": VERSION,
        "execution": _written(record._asdict(), Status),
        "entries": [_written(each._asdict(), EntryKind) for each in entries],
    }


def _written(fields: Mapping[str, Any], kinds: type[Status | EntryKind]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in fields.items():
        if isinstance(value, kinds):
            found[name] = value.name.lower()
        elif not isinstance(value, bytes):
            # Without a body there is no key: `null` is a body, too.
            found |= {name: value} if value is not None or name not in BODIES else {}
        elif name in BODIES:
            found |= _body(name, value)
        else:
            found[name] = value.hex()
    return found


def _body(name: str, value: bytes) -> dict[str, Any]:
    try:
        return {name: json.loads(value)} if value else {}
    except (ValueError, RecursionError):
        # A journal of another author may hold anything.
        return {f"{name}_base64": b64encode(value).decode()}


def read_export(text: str | bytes, origin: str = "the export") -> Exported:
    """Read an execution from the text of a file.

    Args:
        text: The file's text.

        origin: A name for it in messages.

    Raises:
        ConfigurationError: It is no export, or of a version that this library does not know.
    """
    try:
        found: Any = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise ConfigurationError(f"{origin} is not JSON: {exc}") from None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise ConfigurationError(
            f"{origin} is no exported execution: write one by dispatchers executions export ID"
        )
    if found.get("version") != VERSION:
        raise ConfigurationError(
            f"{origin} has version {found.get('version')!r}, this library reads {VERSION}: "
            "export the execution again, or upgrade dispatchers"
        )
    return _checked(cast("dict[str, Any]", found), origin)


def _checked(found: dict[str, Any], origin: str) -> Exported:
    try:
        record = Record(**_read(found["execution"], Record, Status))
        entries = [Entry(**_read(each, Entry, EntryKind)) for each in found["entries"]]
    except (AttributeError, KeyError, TypeError, ValueError) as exc:
        raise ConfigurationError(
            f"{origin} is damaged ({type(exc).__name__}: {exc}): export the execution again"
        ) from None
    return Exported(record, entries)


def _read(
    given: Mapping[str, Any], model: type[Record | Entry], kinds: type[Status | EntryKind]
) -> dict[str, Any]:
    """Return the fields of a model; those that a later version added are left out."""
    fields = {name: given.get(name) for name in model._fields}
    fields |= {name: _bytes(given, name) for name in fields if name in BODIES}
    kind = "status" if kinds is Status else "kind"
    fields[kind] = kinds[given[kind].upper()]
    if fields.get("digest") is not None:
        fields["digest"] = bytes.fromhex(given["digest"])
    return fields


def _bytes(given: Mapping[str, Any], name: str) -> bytes | None:
    if (packed := given.get(f"{name}_base64")) is not None:
        return b64decode(packed)
    if name not in given:
        return b"" if name in NEVER_NONE else None
    return json.dumps(given[name], ensure_ascii=False, separators=(",", ":")).encode()
