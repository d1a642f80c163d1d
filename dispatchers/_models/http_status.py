"""Classification of failures by HTTP status, for whatever client raised them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Literal

Answer = Literal["permanent", "transient"] | float | timedelta | None
"""`"permanent"`, `"transient"`, seconds until another attempt helps, or None to leave it open."""

CLIENTS = frozenset(
    {
        "httpx.HTTPStatusError",
        "requests.exceptions.HTTPError",
        "aiohttp.client_exceptions.ClientResponseError",
        "urllib.error.HTTPError",
    }
)
"""Exceptions that are classified by their status unless you say otherwise; none is imported."""
TRANSIENT = frozenset({408, 409, 423, 425, 429})
"""Statuses below 500 with which another attempt may help (RFC 9110, 4918, 8470, 6585)."""
PERMANENT = frozenset({501, 505, 506, 508, 510})
"""Statuses from 500 on that describe the request or the server's abilities, not its state."""
MAX_WAIT = 86_400.0
"""Seconds of a `Retry-After` that are honoured."""
MAX_DIGITS = 9


def by_http_status(exc: BaseException) -> Answer:
    """Classify a failure by the HTTP status it carries, itself or in its cause.

    For `classify(YourError, by_http_status)`. The exceptions of httpx, requests, aiohttp and
    urllib are classified so by themselves.

    Returns:
        `"permanent"` or `"transient"`, the seconds of a `Retry-After` with which it is transient,
        or None where there is no status.
    """
    # The cause as well: applications wrap their client's exception in one of their own.
    for each in (exc, exc.__cause__):
        if (status := _status(each)) is not None:
            if not _is_transient(status):
                return "permanent"
            wait = _retry_after(each)
            return "transient" if wait is None else wait
    return None


def _is_transient(status: int) -> bool:
    return status in TRANSIENT or (status >= 500 and status not in PERMANENT)  # noqa: PLR2004


def _status(exc: Any) -> int | None:
    """Return the status as the clients name it."""
    response = getattr(exc, "response", None)
    places = ((response, "status_code"), (response, "status"), (exc, "status_code"))
    for holder, name in (*places, (exc, "status"), (exc, "code")):
        found: object = getattr(holder, name, None)
        if isinstance(found, int) and 100 <= found <= 599:  # noqa: PLR2004
            return int(found)
    return None


def _retry_after(exc: Any) -> float | None:
    """Return the seconds that `Retry-After` asks for: a number of them, or a date."""
    response = getattr(exc, "response", None)
    headers = getattr(response, "headers", None) or getattr(exc, "headers", None)
    get = getattr(headers, "get", None)
    text = (get("Retry-After") or get("retry-after")) if callable(get) else None
    if not isinstance(text, str):
        return None
    text = text.strip()
    if text.isascii() and text.isdigit():
        # Cut, as a server may send any number of digits.
        return float(min(int(text[:MAX_DIGITS]), MAX_WAIT))
    return _until(text)


def _until(text: str) -> float | None:
    # Imported late: a package of its own, which few runs need.
    from email.utils import parsedate_to_datetime

    try:
        when = parsedate_to_datetime(text)
    except (TypeError, ValueError, OverflowError):
        return None
    aware = when if when.tzinfo else when.replace(tzinfo=UTC)
    return min(max((aware - datetime.now(UTC)).total_seconds(), 0.0), MAX_WAIT)
