"""Values of the journal in words: arguments, results, failures, instants."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from dispatchers._journal.values import Entry

__all__ = ["arguments", "child", "failure", "instant", "parsed", "value"]

EACH = 30
"""Characters of one value."""
ALL = 70
"""Characters of all arguments together."""


def parsed(body: bytes | None) -> Any:
    """Return JSON as a value; None for what is none."""
    try:
        return json.loads(body or b"null")
    except (ValueError, RecursionError):
        return None


def arguments(envelope: bytes | None, *, whole: bool) -> str:
    """Return the arguments in an envelope: `order=7, skus=["a"]`."""
    found = parsed(envelope)
    payload = found.get("payload") if isinstance(found, dict) else None
    if not isinstance(payload, dict):
        return ""
    given = [f"{name}={_text(each, None if whole else EACH)}" for name, each in payload.items()]
    return _cut(", ".join(given), None if whole else ALL)


def value(body: bytes | None, *, whole: bool) -> str:
    """Return a result or a signal's value; nothing for null."""
    found = parsed(body)
    return "" if found is None else _text(found, None if whole else ALL)


def _text(found: object, room: int | None) -> str:
    return _cut(json.dumps(found, ensure_ascii=False, separators=(",", ":")), room)


def _cut(text: str, room: int | None) -> str:
    return text if room is None or len(text) <= room else f"{text[: room - 3]}..."


BEFORE_START = "signals came before its start"


def failure(body: bytes | None) -> str:
    """Return a recorded failure: its exception, message and attempts."""
    found = parsed(body)
    if not isinstance(found, Mapping):
        return "no reason is recorded"
    kind, message = found.get("exception_type") or found.get("category"), found.get("message")
    words = ": ".join(str(each) for each in (kind, message) if each)
    attempts = found.get("attempts")
    tries = f" ({attempts} attempts)" if isinstance(attempts, int) and attempts > 1 else ""
    return f"{words or 'no reason is recorded'}{tries}"


def child(entry: Entry) -> str:
    """Return the id of the execution that a command begins."""
    found = parsed(entry.body)
    if not isinstance(found, Mapping):
        return str(entry.name)
    return f"{entry.name}/{found.get('idempotency_key') or found.get('id')}"


def instant(at: float | str) -> str:
    """Return an instant, in seconds since the epoch, as local date and time."""
    try:
        local = datetime.fromtimestamp(float(at), UTC).astimezone()
    except (ValueError, OverflowError, OSError):
        # Beyond the calendar: `asyncio.sleep(1e12)` is allowed.
        return f"{at} s after 1970"
    return local.strftime("%Y-%m-%d %H:%M:%S")
