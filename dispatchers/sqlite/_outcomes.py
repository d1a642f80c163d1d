"""From what became of a run to the settlement of its delivery."""

from __future__ import annotations

import logging
import time

from dispatchers._dead import DeadLetter, DeadLetterStore
from dispatchers._outcome import Action, Outcome
from dispatchers._verdict import type_name

from ._jobs import Finish, Job
from ._letters import error_text

__all__ = ["after_crash", "settlement"]

log = logging.getLogger("dispatchers")

# Seconds before work comes back whose dead letter could not be stored elsewhere.
_LETTER_PAUSE = 5.0

# Seconds before a job that ended its process is delivered again: doubled each time, up to the most.
_CRASH_PAUSE = 0.2
_LONGEST_PAUSE = 30.0


def settlement(job: Job, outcome: Outcome, letters: DeadLetterStore | None) -> Finish:
    """What follows from an outcome.

    Args:
        job: What ran.

        outcome: What became of it.

        letters: Where dead letters go; None is the queue's own file.
    """
    after = time.time() + outcome.after if outcome.after > 0 else None
    if outcome.action is Action.DONE:
        return Finish.done(job)
    if outcome.action is Action.RETRY:
        return Finish.retry(job, run_at=after, attempt=outcome.attempt + 1)
    if outcome.action is Action.RETURN:
        return Finish.give_back(job, run_at=after, counted=False)
    return _dead(job, outcome) if letters is None else _sent_away(job, outcome, letters)


def after_crash(job: Job) -> Finish:
    """The run ended its process: delivered again, which counts, after a growing pause."""
    pause = min(_CRASH_PAUSE * 2 ** min(job.deliveries - 1, 30), _LONGEST_PAUSE)
    return Finish.give_back(job, run_at=time.time() + pause)


def _dead(job: Job, outcome: Outcome) -> Finish:
    error = outcome.error
    return Finish.dead(
        job,
        reason=outcome.reason.value,
        error_type=(error and error.exception_type) or "",
        error=error_text(error),
    )


def _sent_away(job: Job, outcome: Outcome, letters: DeadLetterStore) -> Finish:
    """The letter is stored first; if that fails, the work comes back (C9)."""
    letter = DeadLetter.of(
        outcome,
        job.body,
        id=job.id,
        task=job.task,
        queue=job.queue,
        deliveries=job.deliveries,
    )
    try:
        letters.add(letter)
    except Exception as exc:  # noqa: BLE001 - anything a store raises
        log.error("a dead letter could not be stored: %s", type_name(exc))  # noqa: TRY400
        return Finish.give_back(job, run_at=time.time() + _LETTER_PAUSE, counted=False)
    return Finish.forget(job)
