"""Telling whether two requests under one idempotency key ask for the same work."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from dispatchers._errors import ErrorCategory, RejectedError

if TYPE_CHECKING:
    from dispatchers._models.request import DispatchRequest


SIZE = 16
"""Bytes of a digest: two payloads of one key are never alike by chance."""


def digest_of(request: DispatchRequest) -> bytes | None:
    """Return a digest of the arguments of a request that has a key; None without one.

    The order of a dict's keys does not count. What a key stands for is the task and its arguments:
    the same call with another delay or queue is a repetition.
    """
    if request.idempotency_key is None:
        return None
    return digest_of_payload(dict(request.payload))


def digest_of_payload(payload: object) -> bytes:
    """Return the digest of arguments as JSON gives them back."""
    from hashlib import blake2b

    # `json`, as it sorts keys at every depth; the payload's own text keeps their order.
    text = json.dumps(payload, sort_keys=True, separators=(",", ":"))
    return blake2b(text.encode(errors="surrogatepass"), digest_size=SIZE).digest()


def conflict(task: str) -> RejectedError:
    """Return the refusal of a key that stands for other work."""
    return RejectedError(
        ErrorCategory.CONFLICT,
        f"the idempotency key is known from a dispatch of {task!r} with other arguments: "
        "use another key for other work",
    )
