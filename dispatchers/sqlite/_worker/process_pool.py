"""The child processes of a worker: giving them jobs, hearing from them, replacing them."""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from time import monotonic, sleep

from dispatchers._models.dead_letter import DeadLetterStore
from dispatchers._models.outcome import Outcome
from dispatchers._runtime.log import say
from dispatchers.sqlite._records import Finish, Job
from dispatchers.sqlite._worker.child_handle import ChildProcess
from dispatchers.sqlite._worker.homes import Homes
from dispatchers.sqlite._worker.ipc import NUMBER, SECONDS, Kind
from dispatchers.sqlite._worker.settlement import after_crash, settlement

__all__ = ["BrokenError", "ProcessPool"]


# Seconds that a run takes before the jobs behind it are given to another child.
_HOLDS_UP = 0.1


# Seconds that a job waits for a child before it goes back to the queue, where others see it.
_TOO_LONG = 0.5


# Children that end before they are ready, one after the other, before the worker gives up.
_FALSE_STARTS = 3


# The same for children that a signal ended: the next may be spared what met this one.
_KILLED_STARTS = 20


# Seconds of work that each child has in hand at least, and how many exchanges it should outlast.
_AHEAD = 0.02


_EXCHANGES = 3


# Seconds for which children that have more to do than that are not listened to.
_LULL = 0.001


# How much of the estimated time of an exchange the latest one makes up.
_WEIGHT = 0.2


class BrokenError(Exception):
    """The children cannot do their work: the tasks cannot be imported, say."""


class ProcessPool:
    """Children that run jobs. Used by one thread, but for `wake`.

    Args:
        setup: The first frame for each child.

        size: How many.

        letters: Where dead letters go; None is the queue's own file.
    """

    def __init__(self, setup: bytes, size: int, letters: DeadLetterStore | None) -> None:
        self.finished: list[Finish] = []
        self._setup = setup
        self._size = size
        self._letters = letters
        self._waiting: deque[tuple[Job, float]] = deque()
        self._killed: deque[Job] = deque()
        self._homes = Homes()
        self._children: list[ChildProcess] = []
        self._retired: list[ChildProcess] = []
        self._false_starts = 0
        # A run has put jobs into the file since it was looked at.
        self._put = False
        self._stopping = False
        self._ahead = _AHEAD
        self._selector = selectors.DefaultSelector()
        # A pipe, as a signal handler and other threads can end a `select` with nothing else.
        self._woken, self._waker = os.pipe()
        for end in (self._woken, self._waker):
            # A full pipe must not block the signal handler that writes to it.
            os.set_blocking(end, False)
        self._selector.register(self._woken, selectors.EVENT_READ, None)

    # What the worker asks, and tells.

    @property
    def wants(self) -> int:
        """Return how many more jobs it could do with, to keep all children at work."""
        if self._stopping:
            return 0
        wanted = sum(child.wants(self._ahead) for child in self._children)
        return max(0, wanted - len(self._waiting))

    @property
    def room(self) -> int:
        """Return how many jobs all children together should have in hand."""
        return sum(child.window(self._ahead) for child in self._children)

    @property
    def hungry(self) -> bool:
        """Tell whether a child has nothing to do."""
        return not self._waiting and not self._stopping and self._any_idle(self._children)

    @property
    def brings(self) -> bool:
        """Tell whether runs have brought work that a child waits for, or will before long."""
        bringing = sum(bool(finish.effects) for finish in self.finished)
        if not (bringing or self._put) or self._waiting or self._stopping:
            return False
        # At half, so that the children are at the other half while this one is recorded.
        in_hand = sum(len(child.jobs) for child in self._children)
        return 0 < bringing >= in_hand or self._any_idle(self._children)

    @property
    def busy(self) -> bool:
        """Tell whether any job is in hand."""
        return bool(self._waiting or self._killed or any(child.jobs for child in self._children))

    @property
    def held(self) -> list[int]:
        """The claims whose jobs are in hand or finished."""
        jobs = [job for child in self._children for job in child.jobs.values()]
        jobs += [job for job, _ in self._waiting]
        jobs += [*self._killed, *(finish.job for finish in self.finished)]
        return [job.fence for job in jobs]

    def start(self) -> None:
        """Start the children that are missing."""
        while len(self._children) < self._size and not self._stopping:
            child = ChildProcess(self._setup)
            self._children.append(child)
            self._selector.register(child.incoming, selectors.EVENT_READ, child)

    def take(self, jobs: Iterable[Job], *, elapsed: float) -> None:
        """Let jobs be run.

        Args:
            jobs: Which.

            elapsed: Seconds that it took to claim them; while that goes on, children have to have
                something to do.
        """
        # A moving average: one slow commit does not make children hoard jobs.
        self._ahead += _WEIGHT * (max(_AHEAD, _EXCHANGES * elapsed) - self._ahead)
        self._put = False
        now = monotonic()
        self._waiting.extend((job, now) for job in jobs if not self._give_home(job))
        self._feed()

    def wake(self) -> None:
        """End a `wait`, from another thread or a signal handler."""
        with contextlib.suppress(OSError):  # it is awake already, or over
            os.write(self._waker, b"!")

    def wait(self, timeout: float) -> None:
        """Wait until a child says something, and handle it.

        Raises:
            BrokenError: The children cannot do their work.
        """
        if self._all_at_work:
            # Read later, and several ends at once: each would wake this process, at the cost of as
            # much as a short run.
            sleep(pause := min(timeout, _LULL))
            timeout -= pause
        # Only while something waits: a pipe with room is always ready, and `select` would spin.
        self._watch_writing()
        for key, events in self._selector.select(timeout):
            if key.data is None:
                os.read(self._woken, 4096)
            elif events & selectors.EVENT_WRITE:
                key.data.flush()
            else:
                self._hear(key.data)
        self._feed()

    def tick(self) -> None:
        """Do what is a matter of time: limits, jobs held up, children that ended in silence."""
        now = monotonic()
        for child in [*self._children, *self._retired]:
            if child.limit_at is not None and now >= child.limit_at:
                # Warned first, so that what the handler printed is written before it is killed.
                if not child.warn():
                    self._overrun(child)
            elif child.poll() is not None:
                self._ended(child)
        for child in self._children:
            if child.holds_up(_HOLDS_UP):
                child.recall()
        # Other workers may be idle: work that waits here is invisible to them.
        while self._waiting and now - self._waiting[0][1] > _TOO_LONG:
            self._return(self._waiting.popleft()[0])
        self.start()

    def stop(self) -> None:
        """Take no more jobs, give back those that have not begun, ask the others to end soon."""
        self._stopping = True
        self._return_all()
        for child in self._children:
            child.recall(stop=True)

    def retire(self) -> None:
        """Part with all jobs, whose results do not count any more, and the children at them.

        Others stay: where leases are lost because the machine is overloaded, new processes for
        each loss would only add to the load.
        """
        at_work = [child for child in self._children if child.jobs]
        for child in at_work:
            child.recall(stop=True)
            child.dismiss()
            # Their results would be refused: the jobs belong to others by now.
            child.jobs.clear()
            self._children.remove(child)
        self._retired += at_work
        self._waiting.clear()
        self._killed.clear()
        self.finished.clear()

    def kill(self) -> list[Job]:
        """End all children at once; the jobs that they were at, which are given back."""
        cut = [child.running for child in self._children if child.running is not None]
        for child in [*self._children, *self._retired]:
            child.kill()
            self._discard(child)
            for job in child.jobs.values():
                self._return(job)
        return cut

    def close(self, timeout: float) -> None:
        """Let the children end, who have nothing to do any more."""
        until = monotonic() + timeout
        for child in self._children:
            child.dismiss()
        for child in [*self._children, *self._retired]:
            self._discard(child, max(0.0, until - monotonic()))
        self._selector.close()
        os.close(self._woken)
        os.close(self._waker)

    # Giving.

    def _feed(self) -> None:
        for child in self._children:
            if self._killed and child.idle:
                child.give(self._killed.popleft(), classify=True)
        while self._waiting and self._feed_round():
            pass
        for child in self._children:
            child.flush()

    def _feed_round(self) -> bool:
        """Share jobs out evenly, a few for each child; whether any child took one."""
        wanting = [(child, child.wants(self._ahead)) for child in self._children]
        # Small shares in rounds: a child must not take all that its neighbours could run.
        share = 1 + len(self._waiting) // max(1, 2 * len(wanting))
        given = 0
        # The least busy child first.
        for child, wants in sorted(wanting, key=lambda pair: len(pair[0].jobs)):
            for _ in range(min(wants, share)):
                given += self._give_next(child)
        return given > 0

    def _give_home(self, job: Job) -> bool:
        """Give a turn to the child that has the code of its execution in memory."""
        child = self._homes.of(job)
        if child is None or child not in self._children or not child.takes_more(self._ahead):
            return False
        # To replay the execution elsewhere takes longer than a few short runs, but not than many.
        if child.work - min(each.work for each in self._children) > self._ahead:
            return False
        child.give(job)
        return True

    def _give_next(self, child: ChildProcess) -> int:
        """One job for a child; one that was interrupted before runs with no others in hand."""
        if not self._waiting or child.alone:
            return 0
        # It may have ended its process before: jobs beside it would be interrupted with it.
        if self._waiting[0][0].deliveries > 1 and not child.idle:
            return 0
        child.give(self._waiting.popleft()[0])
        return 1

    @property
    def _all_at_work(self) -> bool:
        return all(child.work > 2 * _LULL for child in self._children)

    def _any_idle(self, children: Iterable[ChildProcess]) -> bool:
        return any(child.idle for child in children)

    def _return(self, job: Job) -> None:
        """Give a job back to the queue that was not begun."""
        self.finished.append(Finish.give_back(job, counted=False))

    def _return_all(self) -> None:
        for job in [*(job for job, _ in self._waiting), *self._killed]:
            self._return(job)
        self._waiting.clear()
        self._killed.clear()

    def _watch_writing(self) -> None:
        """Be told when there is room in the pipe to a child for which frames wait."""
        for child in self._children:
            if child.has_unsent is child.watched:
                continue
            if child.has_unsent:
                self._selector.register(child.outgoing, selectors.EVENT_WRITE, child)
            else:
                self._selector.unregister(child.outgoing)
            child.watched = child.has_unsent

    # Hearing.

    def _hear(self, child: ChildProcess) -> None:
        frames = child.frames()
        if frames is None:
            self._ended(child)
            return
        for frame in frames:
            self._handle(child, *frame)

    def _handle(self, child: ChildProcess, kind: int, number: int, payload: bytes) -> None:
        if kind == Kind.DONE:
            self._settled(child, number, SECONDS.unpack(payload)[0], Finish.done)
        elif kind == Kind.OUTCOME:
            outcome = Outcome.model_validate_json(payload)
            then = partial(settlement, outcome=outcome, letters=self._letters)
            self._settled(child, number, outcome.elapsed, then)
        elif kind == Kind.EFFECTS:
            child.effects[number] = payload
            self._homes.remember(child.jobs.get(number), child)
        elif kind == Kind.PUTS:
            self._put = True
        elif kind == Kind.CRASHED:
            self._settled(child, number, 0.0, partial(_crashed, kind=payload.decode()))
        elif kind == Kind.LIMIT:
            child.limit_in(SECONDS.unpack(payload)[0])
        elif kind == Kind.RECALLED:
            self._recalled(child, [number for (number,) in NUMBER.iter_unpack(payload)])
        elif kind == Kind.READY:
            child.ready = True
            # One good start shows that the tasks can be imported.
            self._false_starts = 0
        elif kind == Kind.BROKEN:
            raise BrokenError(payload.decode())

    def _settled(
        self, child: ChildProcess, number: int, elapsed: float, then: Callable[[Job], Finish]
    ) -> None:
        """A job has ended; one of a retired child does not count."""
        job = child.settled(number, elapsed)
        effects = child.effects.pop(number, b"")
        if job is not None:
            finish = then(job)
            # A copy costs more than the rest of this, and most runs have no effects.
            self.finished.append(finish._replace(effects=effects) if effects else finish)

    def _recalled(self, child: ChildProcess, numbers: list[int]) -> None:
        child.recalled = False
        jobs = [job for number in numbers if (job := child.take_back(number)) is not None]
        self._again(jobs)

    def _again(self, jobs: list[Job]) -> None:
        """Jobs that one child did not begin are another's, or the queue's."""
        now = monotonic()
        self._waiting.extendleft((job, now) for job in reversed(jobs))
        if self._stopping:
            self._return_all()

    # Ending.

    def _overrun(self, child: ChildProcess) -> None:
        job = child.running
        say(
            logging.WARNING,
            "a run of %s is killed at its time limit",
            job.task if job else "a task",
        )
        child.overran = True
        child.kill()
        self._ended(child)

    def _ended(self, child: ChildProcess) -> None:
        """A child has ended: what it was at counts as delivered, what it had not begun does not."""
        # What it said before its end counts: the job may be done although the process is gone.
        for frame in child.last_frames():
            self._handle(child, *frame)
        retired = child in self._retired
        code = self._discard(child)
        if retired:
            return
        jobs = list(child.jobs.values())
        # Jobs run in order, so only the first can have begun.
        self._again(jobs[1:])
        if jobs:
            self._cut_short(child, jobs[0], code)
        elif not child.ready:
            self._false_start(code)
        else:
            say(logging.WARNING, "worker process %d ended with code %d", child.pid, code)

    def _cut_short(self, child: ChildProcess, job: Job, code: int) -> None:
        # A run killed at its limit has an outcome (retry or dead letter), which takes the task's
        # options: another child, that has them imported, works it out.
        if child.overran and not child.classifying:
            self._killed.append(job)
            return
        say(logging.ERROR,
            "worker process %d ended with code %d in a run of %s: it is delivered again",
            child.pid, code, job.task, extra={"request_id": job.id},
        )  # fmt: skip
        self.finished.append(after_crash(job))

    def _false_start(self, code: int) -> None:
        self._false_starts += 1
        if self._false_starts >= (_FALSE_STARTS if code >= 0 else _KILLED_STARTS):
            raise BrokenError(f"worker processes end with code {code} before they are ready")

    def _discard(self, child: ChildProcess, timeout: float = 1.0) -> int:
        """Reap a child and forget it; its exit code."""
        for pipe in (child.incoming, child.outgoing):
            if not pipe.closed and pipe in self._selector.get_map():
                self._selector.unregister(pipe)
        for group in (self._children, self._retired):
            if child in group:
                group.remove(child)
        return child.reap(timeout)


def _crashed(job: Job, *, kind: str) -> Finish:
    say(logging.ERROR, "a run of %s was ended by %s: it is delivered again", job.task, kind)
    return after_crash(job)
