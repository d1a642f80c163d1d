"""The values that go into the store and come out of it; tuples where there are many of them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

__all__ = ["Counts", "DeadJob", "Exchange", "Finish", "Job", "NewJob", "Outcome", "Put", "Stored"]


class NewJob(NamedTuple):
    """One piece of work to be stored.

    Args:
        id: The request's id, the only one of its kind in the file.

        task: The task's name.

        queue: The queue's name.

        body: The envelope, which the store does not look into.

        priority: -100 to 100, higher first.

        run_at: Seconds since the epoch before which it is not run; None for at once.

        expires_at: Seconds since the epoch after which it is not started any more.

        key: At most one job with this key is alive or remembered per task.

        attempt: The attempt that its next run is; counted apart from deliveries.

        digest: The mark of what the key stands for; None is not compared.
    """

    id: str
    task: str
    queue: str
    body: bytes
    priority: int = 0
    run_at: float | None = None
    expires_at: float | None = None
    key: str | None = None
    attempt: int = 1
    digest: bytes | None = None


class Put(StrEnum):
    """The answer to a put."""

    INSERTED = "inserted"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"
    """The key stands for a job with another digest."""


class Stored(NamedTuple):
    """The answer to a put: `id` is the row's that has it, which for a duplicate may be another."""

    put: Put
    id: str


class Job(NamedTuple):
    """One claimed piece of work.

    `deliveries` counts the claims of this attempt, this one included. `fence` is the number of this
    claim, which no other has: it entitles to settle the job. `seq` is the job's place in the file.
    """

    seq: int
    fence: int
    id: str
    task: str
    queue: str
    priority: int
    run_at: float
    expires_at: float | None
    key: str | None
    attempt: int
    deliveries: int
    created_at: float
    body: bytes


class Outcome(StrEnum):
    """The end of a delivery."""

    DONE = "done"
    RETRY = "retry"
    RETURNED = "returned"
    DEAD = "dead"
    FORGOTTEN = "forgotten"


class Finish(NamedTuple):
    """The settlement of one delivery; build it with the methods below."""

    job: Job
    outcome: Outcome
    run_at: float | None = None
    attempt: int = 0
    counted: bool = True
    reason: str = ""
    error_type: str = ""
    error: str = ""
    effects: bytes = b""

    @classmethod
    def done(cls, job: Job) -> Finish:
        """The job is finished: its body is dropped, its id and key are remembered for a while."""
        return cls(job, Outcome.DONE)

    @classmethod
    def retry(cls, job: Job, *, run_at: float | None = None, attempt: int | None = None) -> Finish:
        """The attempt failed: the next one (or `attempt`) may start from `run_at` on."""
        return cls(job, Outcome.RETRY, run_at=run_at, attempt=attempt or job.attempt + 1)

    @classmethod
    def give_back(cls, job: Job, *, run_at: float | None = None, counted: bool = True) -> Finish:
        """It was not run to an end: it keeps its attempt, and its place unless `run_at` is given.

        Args:
            job: The job.

            run_at: Seconds since the epoch before which it is not delivered again.

            counted: Whether this delivery counts. False if it never started.
        """
        return cls(job, Outcome.RETURNED, run_at=run_at, counted=counted)

    @classmethod
    def dead(cls, job: Job, *, reason: str, error_type: str = "", error: str = "") -> Finish:
        """Nothing more is tried: it is kept with its body to be looked at."""
        return cls(job, Outcome.DEAD, reason=reason, error_type=error_type, error=error)

    @classmethod
    def forget(cls, job: Job) -> Finish:
        """It ended, and its id and key are free at once."""
        return cls(job, Outcome.FORGOTTEN)


@dataclass(frozen=True, slots=True)
class Exchange:
    """The result of settling one batch and claiming the next.

    Args:
        jobs: The next batch, in the order in which it should be started.

        lost: Settlements that were refused, because the job is no longer this owner's.

        alive: Whether the owner is still registered. If not, everything it held was given away.

        expired: How many jobs were found too late to be started and put aside.
    """

    jobs: list[Job]
    lost: list[Finish]
    alive: bool
    expired: int


@dataclass(frozen=True, slots=True)
class DeadJob:
    """A job that is not tried any more, and why."""

    id: str
    task: str
    queue: str
    priority: int
    key: str | None
    attempt: int
    deliveries: int
    created_at: float
    died_at: float
    reason: str
    error_type: str
    error: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Counts:
    """The number of jobs in each state. `queues` has those that are ready, by queue."""

    ready: int
    running: int
    delayed: int
    done: int
    expired: int
    dead: int
    queues: dict[str, int]
