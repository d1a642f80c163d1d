"""Effects of a run on its own file: what it records, and the jobs that follow from that.

A child process collects them while a turn or a step of an execution ends. They travel to the worker
with the outcome of the run, which applies them in the transaction that settles the job: all of it
is on the disk, or the job is delivered again.
"""

from __future__ import annotations

import marshal
from collections.abc import Sequence
from typing import Any, NamedTuple

from dispatchers._journal.values import Answer, Command, Commit, EntryKind, Status, WakeUp
from dispatchers._models.request import DispatchRequest
from dispatchers._worker.steps import PARENT, Step
from dispatchers._worker.waking import TURN
from dispatchers.sqlite._collecting import current
from dispatchers.sqlite._records import NewJob

__all__ = ["Collector", "Effects", "FollowUp", "collecting"]


class FollowUp(NamedTuple):
    """A job that follows from what was recorded."""

    job: NewJob
    wakes: str | None
    """The execution that it wakes: put only if that wants to be woken. None is put in any case."""
    number: int | None = None
    """Of the command that it carries out, where its key may be another's."""


class Effects(NamedTuple):
    """Changes of one run: an answer, or the commit of a turn."""

    execution: str
    number: int
    """Of the command that is answered; for a commit the fence of its turn."""
    owner: str
    """For a commit that of its turn."""
    change: Answer | Commit
    sent: Sequence[int]
    """Commands of the commit whose jobs are among those that follow."""
    follow: Sequence[FollowUp]

    def packed(self) -> bytes:
        """Return them as bytes, for a process of the same program."""
        change = self.change
        plain = _plain_answer(change) if isinstance(change, Answer) else _plain_commit(change)
        follow = [(tuple(each.job), *each[1:]) for each in self.follow]
        sent = tuple(self.sent)
        return marshal.dumps((self.execution, self.number, self.owner, plain, sent, follow))

    @classmethod
    def unpacked(cls, data: bytes) -> Effects:
        """Return what was packed."""
        packed = marshal.loads(data)  # noqa: S302 - our own child
        execution, number, owner, plain, sent, follow = packed
        change = _answer(plain) if len(plain) == len(Answer._fields) else _commit(plain)
        jobs = [FollowUp(NewJob(*job), *rest) for job, *rest in follow]
        return cls(execution, number, owner, change, sent, jobs)


def _plain_answer(answer: Answer) -> tuple[Any, ...]:
    return (answer.kind.value, *answer[1:])


def _answer(plain: Sequence[Any]) -> Answer:
    return Answer(EntryKind(plain[0]), *plain[1:])


def _plain_commit(commit: Commit) -> tuple[Any, ...]:
    # No enumerations, and no tuples of other classes: nothing is unpickled.
    commands = [(each.number, each.kind.value, *each[2:]) for each in commit.commands]
    answers = [(number, _plain_answer(answer)) for number, answer in commit.answers]
    unread = tuple(commit.unread)
    changed = commit._replace(commands=commands, answers=answers, unread=unread)  # type: ignore[arg-type]
    return tuple(changed._replace(status=commit.status.value))  # type: ignore[arg-type]


def _commit(plain: Sequence[Any]) -> Commit:
    found = Commit(*plain)
    rows: Sequence[Any] = found.commands
    commands = [Command(row[0], EntryKind(row[1]), *row[2:]) for row in rows]
    given: Sequence[Any] = found.answers
    answers = [(number, _answer(row)) for number, row in given]
    return found._replace(commands=commands, answers=answers, status=Status(found.status))


def _woken(request: DispatchRequest) -> str | None:
    """Return the execution that a request does nothing but wake."""
    if not request.task.endswith(TURN):
        return None
    payload = request.payload
    # A signal or a cancellation travels with the wake-up: it is work of its own.
    return None if payload.get("event") else str(payload["execution"])


def _number(job: NewJob, request: DispatchRequest) -> int | None:
    if job.key is None:
        return None
    step = Step.named(request.headers) or Step.named(request.headers, PARENT)
    return step and step.number


class Collector:
    """Collects what one run asks for, in its child process.

    Args:
        path: The file of the worker.
    """

    __slots__ = ("_change", "_follow", "_sent", "path", "puts", "way")

    def __init__(self, path: str) -> None:
        self.path = path
        self.puts = False
        self.way: WakeUp | None = None
        self._change: tuple[str, int, str, Answer | Commit] | None = None
        self._sent: list[int] = []
        self._follow: list[FollowUp] = []

    @property
    def is_open(self) -> bool:
        """Tell whether there is a change, from which jobs may follow."""
        return self._change is not None

    def record(self, execution: str, number: int, change: Answer | Commit, owner: str = "") -> None:
        """Collect the change of the run, whose fields are those of `Effects`."""
        self._change = (execution, number, owner, change)

    def awaits(self, execution: str, number: int) -> bool:
        """Tell whether a command is new in the change, and was not answered."""
        if (commit := self._commit(execution)) is None:
            return False
        is_new = any(each.number == number for each in commit.commands)
        return is_new and all(answered != number for answered, _ in commit.answers)

    def answer(self, execution: str, number: int, answer: Answer) -> bool:
        """Collect an answer to a new command of the change; true if it is the first of it."""
        commit = self._commit(execution)
        assert commit is not None
        assert self._change is not None
        answers = [*commit.answers, (number, answer)]
        self._change = (*self._change[:3], commit._replace(answers=answers))
        return not commit.answers

    def _commit(self, execution: str) -> Commit | None:
        change = self._change
        if change is None or change[0] != execution or not isinstance(change[3], Commit):
            return None
        return change[3]

    def note_sent(self, numbers: Sequence[int]) -> None:
        """Collect which commands have jobs among those that follow."""
        self._sent += numbers

    def follow(self, job: NewJob, request: DispatchRequest) -> None:
        """Collect a job."""
        wakes = _woken(request) if job.run_at is None else None
        self._follow.append(FollowUp(job, wakes, _number(job, request)))

    def clear(self) -> None:
        """Forget all: the run has failed."""
        self._change = None
        self._sent, self._follow = [], []

    def packed(self) -> bytes:
        """Return what was collected; empty if nothing was."""
        if self._change is None:
            return b""
        return Effects(*self._change, self._sent, self._follow).packed()


class collecting:  # noqa: N801 - read as a function, after `with`
    """Collects the effects of the runs in a block.

    No generator: each run passes here, and one would cost a tenth of a short run.

    Args:
        path: The file of the worker.
    """

    __slots__ = ("_collector", "_token")

    def __init__(self, path: str) -> None:
        self._collector = Collector(path)

    def __enter__(self) -> Collector:
        self._token = current.set(self._collector)
        return self._collector

    def __exit__(self, *_: object) -> None:
        current.reset(self._token)
