"""The function that each of our jobs names, for whoever runs it with a plain worker of RQ's."""

from __future__ import annotations

from rq import Retry, get_current_job

from dispatchers import Action, run_envelope

__all__ = ["run"]

ALWAYS = 10**6
"""RQ counts what was handed back as well as attempts; the envelope says how many there may be."""


class RunFailedError(Exception):
    """The work failed for good; RQ keeps it among its failed jobs."""


def run(body: str) -> Retry | None:
    """Run an envelope in a plain `rq worker` with RQ's JSON serializer, and its guarantees.

    What is lost with such a worker when it is killed is RQ's; `dispatchers worker` loses nothing.

    Raises:
        RunFailedError: It failed for good.
    """
    job = get_current_job()
    attempt = 1 + (job.number_of_retries or 0 if job else 0)
    outcome = run_envelope(body.encode(), attempt=attempt)
    if outcome.action is Action.DONE:
        return None
    if outcome.action is Action.DEAD:
        raise RunFailedError(outcome.reason.value)
    return Retry(max=ALWAYS, interval=int(outcome.after))
