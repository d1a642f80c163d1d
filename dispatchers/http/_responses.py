"""Answers: statuses by transport, generic bodies that leak nothing."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

from pydantic_core import to_json

from dispatchers._models.outcome import Action, Outcome, Reason, Retry

__all__ = ["MARKER", "POLICIES", "Answer", "Policy", "answer_to", "refusal"]

MARKER = "Dispatchers-Outcome"
"""The header that says what became of the work: an `Outcome.reason`."""


JSON = ("Content-Type", "application/json")


UNCACHED = ("Cache-Control", "no-store")
"""For refusals: some statuses may be cached where the method is `GET`."""


class Answer(NamedTuple):
    """An answer to send."""

    status: int
    """The HTTP status."""
    headers: tuple[tuple[str, str], ...] = ()
    """Names and values; `Content-Length` is the server's affair."""
    body: bytes = b""
    """JSON text, or nothing with 204."""


class Policy(NamedTuple):
    """The statuses by which a transport learns what to do, and where it counts its attempts."""

    counter: str
    """The header that counts."""
    first: int
    """Its value at the first attempt."""
    dead: int
    """Dead-lettered: do not deliver again."""
    failed: int
    """The task failed; deliver again after its back-off."""
    in_flight: int
    """Another worker is running it; deliver again."""
    asked: int = 429
    """The task itself asked for a pause."""
    returned: int = 503
    """This worker cannot run it now; deliver again."""


POLICIES: dict[Literal["cloud_tasks", "plain"], Policy] = {
    # Every status but 2xx is delivered again; 429 and 503 slow the whole queue down and honour
    # Retry-After. https://cloud.google.com/tasks/docs/reference/rpc/google.cloud.tasks.v2 (2026-11)
    "cloud_tasks": Policy("x-cloudtasks-taskretrycount", 0, dead=200, failed=500, in_flight=409),
    # A client that reads statuses as RFC 9110 means them: 4xx is final, 5xx is not.
    "plain": Policy("dispatchers-attempt", 1, dead=422, failed=503, in_flight=503),
}


def refusal(status: int, error: str, *more: tuple[str, str]) -> Answer:
    """Return an answer that tells the kind of error and nothing else."""
    return Answer(status, (JSON, UNCACHED, *more), to_json({"error": error}))


def _outcome(status: int, reason: Reason, *more: tuple[str, str]) -> Answer:
    headers = (JSON, (MARKER, reason.value), *more)
    return Answer(status, headers, to_json({"outcome": reason.value}))


SUCCEEDED = Answer(204)
"""Says it all; each header costs a server's time, and most answers are this one."""


def answer_to(outcome: Outcome, policy: Policy) -> Answer:
    """Return the answer to a delivery whose outcome is settled here."""
    reason = outcome.reason
    match outcome.action:
        case Action.DONE:
            return SUCCEEDED if reason is Reason.SUCCEEDED else _outcome(200, reason)
        case Action.DEAD:
            return _outcome(policy.dead, reason)
        case Action.RETRY:
            status = policy.asked if _asked(outcome) else policy.failed
        case _:
            in_flight = reason is Reason.IN_FLIGHT
            status = policy.in_flight if in_flight else policy.returned
    return _outcome(status, reason, retry_after(outcome.after))


def _asked(outcome: Outcome) -> bool:
    exc = outcome.exception
    return isinstance(exc, Retry) and exc.after is not None


def retry_after(seconds: float) -> tuple[str, str]:
    """Return the header, in whole seconds and never sooner."""
    return "Retry-After", str(math.ceil(max(seconds, 0.0)))
