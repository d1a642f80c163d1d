"""Settling the jobs of the file: each outcome becomes one row of the next transaction."""

from __future__ import annotations

import time

from dispatchers._models.dead_letter import DeadLetter, DeadLetterStore
from dispatchers._models.outcome import Outcome, Reason
from dispatchers._worker.settlement import Delivery, settle
from dispatchers.sqlite._dead_letters import error_text
from dispatchers.sqlite._records import Finish, Job

__all__ = ["after_crash", "settlement"]


CRASH_DELAY, MAX_CRASH_DELAY = 0.2, 30.0
"""Seconds before a job that ended its process is delivered again: doubled each time, and most."""


class JobDelivery(Delivery):
    """A job with the worker; `finish` is its settlement.

    Args:
        job: The job.

        kept: Dead letters stay in the queue's own file.
    """

    def __init__(self, job: Job, *, kept: bool) -> None:
        self.body, self.id, self.task, self.queue = job.body, job.id, job.task, job.queue
        self.attempt, self.deliveries = job.attempt, job.deliveries
        self.finish = Finish.done(job)
        self._job = job
        self._kept = kept

    def complete(self, outcome: Outcome) -> None:
        """Keep no more of it than its keys; nothing of what was too late to be run."""
        is_late = outcome.reason is Reason.EXPIRED
        self.finish = Finish.forget(self._job) if is_late else Finish.done(self._job)

    def retry(self, outcome: Outcome) -> None:
        """Let the same row wait for its next attempt."""
        run_at = _in(outcome.after)
        self.finish = Finish.retry(self._job, run_at=run_at, attempt=outcome.attempt + 1)

    def give_back(self, after: float) -> None:
        """Let the same row wait; this delivery does not count."""
        self.finish = Finish.give_back(self._job, run_at=_in(after), counted=False)

    def dead_letter(self, outcome: Outcome, letter: DeadLetter) -> None:
        """Keep it in the file as dead, or forget what another store has."""
        del letter
        error = outcome.error
        self.finish = Finish.forget(self._job)
        if self._kept:
            self.finish = Finish.dead(
                self._job,
                reason=outcome.reason.value,
                error_type=(error and error.exception_type) or "",
                error=error_text(error),
            )


def settlement(job: Job, outcome: Outcome, letters: DeadLetterStore | None) -> Finish:
    """Return the settlement of a job after a run.

    Args:
        job: The job that ran.

        outcome: The outcome of the run.

        letters: The store of dead letters; None is the queue's own file.
    """
    delivery = JobDelivery(job, kept=letters is None)
    settle(delivery, outcome, letters)
    return delivery.finish


def after_crash(job: Job) -> Finish:
    """Return the settlement of a job that ended its process: delivered again, which counts."""
    delay = min(CRASH_DELAY * 2 ** min(job.deliveries - 1, 30), MAX_CRASH_DELAY)
    return Finish.give_back(job, run_at=time.time() + delay)


def _in(seconds: float) -> float | None:
    return time.time() + seconds if seconds > 0 else None
