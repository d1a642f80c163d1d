"""The function that each of our jobs names, for RQ's own workers."""

from __future__ import annotations

import logging
from typing import Any

from rq import Retry, get_current_job
from rq.job import Job

from dispatchers import Action, ConfigurationError, DeadLetter, Outcome, run_envelope
from dispatchers.delivery import import_modules, say

from ._errors import RunFailedError
from ._message import BODY, DELIVERIES, LETTER

MAX_RETRIES = 10**6
"""RQ counts returned work like attempts; the envelope says how many attempts there may be."""
MISCONFIGURED_DELAY = 60
"""Seconds before work comes back to a worker that could not import its task modules."""


def run(body: str = "") -> Retry | None:
    """Run an envelope in RQ's own worker, and by its guarantees.

    The configuration's task modules are imported first. What is lost with such a worker when it
    is killed is up to RQ; `dispatchers worker` loses nothing.

    Args:
        body: The envelope, in jobs of 0.1.0; newer ones have it beside RQ's fields.

    Raises:
        RunFailedError: It failed permanently.
    """
    job = get_current_job()
    try:
        import_modules()
    except ConfigurationError as exc:
        say(logging.ERROR, "this worker cannot run work of dispatchers: %s", exc)
        return Retry(max=MAX_RETRIES, interval=MISCONFIGURED_DELAY)
    envelope = (_envelope(job) if job else b"") or body.encode()
    attempt = 1 + (getattr(job, "number_of_retries", 0) or 0)
    outcome = run_envelope(envelope, attempt=attempt, deliveries=_count(job))
    return _follow(outcome, envelope, job)


def _envelope(job: Job) -> bytes:
    body: Any = job.connection.hget(job.key, BODY)
    return bytes(body or b"")


def _count(job: Job | None) -> int:
    """Count this delivery, so that work which kills its workers ends (C10)."""
    return int(job.connection.hincrby(job.key, DELIVERIES, 1)) if job else 1


def _follow(outcome: Outcome, envelope: bytes, job: Job | None) -> Retry | None:
    if job and outcome.action is not Action.DEAD:
        job.connection.hdel(job.key, DELIVERIES)
    if outcome.action is Action.DONE:
        return None
    if outcome.action is Action.DEAD:
        if job:
            _keep_letter(outcome, envelope, job)
        raise RunFailedError(outcome.reason.value)
    return Retry(max=MAX_RETRIES, interval=int(outcome.after))


def _keep_letter(outcome: Outcome, envelope: bytes, job: Job) -> None:
    """Let `dispatchers dead` list the job that RQ fails next, and RQ not try it again."""
    name = outcome.task or str(job.description)
    letter = DeadLetter.of(
        outcome, envelope, id=outcome.request_id or job.id, task=name, queue=job.origin
    )
    # RQ would try it again as long as retries are left, and the work is a dead letter now.
    job.retries_left = 0
    job.connection.hset(job.key, LETTER, letter.to_json(body=False))
