"""`recording`: a dispatcher for tests that writes down what is dispatched, and fails when told.

::

    with RecordingDispatcher.installed() as dispatched:
        sign_up("ada@example.org")

        dispatched.assert_one(send_welcome, user_id=1)
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from types import TracebackType
from typing import Annotated, Self

from pydantic import AfterValidator

from dispatchers import hooks
from dispatchers._dispatch.base import BaseDispatcher
from dispatchers._dispatch.protocol import Sent
from dispatchers._errors import ErrorCategory, nearest
from dispatchers._models.capabilities import OPTIONS, Capabilities
from dispatchers._models.options import BackendOptions, Breaking, Names
from dispatchers._models.outcome import Action, Outcome, Reason
from dispatchers._models.request import DispatchRequest
from dispatchers._models.response import DispatchResponse, DispatchStatus
from dispatchers._worker.runner import run_envelope
from dispatchers._worker.settings import run_settings
from dispatchers._worker.steps import left_undone

from ._assertions import Assertions
from ._book import Book, Dispatched, Job
from ._failures import FailureStatus, InjectedError, InjectedFailure, anything
from ._install import everywhere

__all__ = ["Outage", "RecordingDispatcher", "RecordingOptions"]

ENDLESS = 1000
"""So many runs in a row, and work keeps coming: it will not end."""


def _lackable(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        if name not in OPTIONS:
            raise ValueError(f"no capability {name!r} to do without{nearest(name, OPTIONS)}")
    return names


class RecordingOptions(BackendOptions):
    """Options of `recording`."""

    breaker: Breaking = False
    """Off: a failure that a test asked for is that failure, not an open breaker."""
    lacks: Annotated[Names, AfterValidator(_lackable)] = ()
    """Capabilities to do without, as the backend in production does: `["delay", "priority"]`."""


class RecordingDispatcher(Assertions, BaseDispatcher):
    """Keeps what is dispatched, for a test to look at; nothing runs until `run_due`.

    Serves many threads. Works without pytest; with it, the fixture `dispatched` is one of these.
    """

    name = "recording"
    journal = "memory"
    contract = 1
    capabilities = Capabilities(
        delay=True,
        priority=True,
        retries=True,
        deduplicate=True,
        queues=True,
        batch=True,
        confirmed=True,
    )
    Options = RecordingOptions
    options: RecordingOptions

    def __init__(
        self,
        options: RecordingOptions | None = None,
        *,
        alias: str | None = None,
        **settings: object,
    ) -> None:
        given = self._validated(options, settings)
        assert isinstance(given, RecordingOptions)
        lacking = dict.fromkeys(given.lacks, False)
        # Before the base class's constructor, which reads them.
        self.capabilities = self.capabilities.model_copy(update=lacking)
        super().__init__(given, alias=alias)
        self._book = Book()
        self._settings = run_settings(self.options)

    @classmethod
    @contextmanager
    def installed(cls, **settings: object) -> Generator[Self]:
        """In place of every configured dispatcher, for as long as the block lasts.

        Args:
            settings: Options of the dispatcher: `lacks=["delay"]`.
        """
        recording = cls(None, alias="default", **settings)
        hook = hooks.after_dispatch(recording._book.answer)
        try:
            with everywhere(recording.under):
                yield recording
        finally:
            hooks.remove(hook)

    def under(self, alias: str) -> Self:
        """The dispatcher of that alias which writes into the same record."""
        if alias == self.alias:
            return self
        other = type(self)(self.options, alias=alias)
        # One book for all aliases: assertions see what any of them dispatched.
        other._book = self._book
        return other

    # Failures on demand.

    def fail_next(
        self,
        *,
        category: ErrorCategory | str = ErrorCategory.UNAVAILABLE,
        status: FailureStatus = "rejected",
        times: int = 1,
        arrives: bool = False,
    ) -> None:
        """Let the next requests fail.

        Args:
            category: What the answer says.

            status: `rejected`; `unknown`; or `failed`, as if the task had run here and failed.

            times: How many requests.

            arrives: With `unknown`: the work is taken, only the answer was lost.

        Raises:
            ValueError: An argument does not fit.
        """
        self.fail_when(anything, category=category, status=status, times=times, arrives=arrives)

    def fail_when(
        self,
        predicate: Callable[[DispatchRequest], bool],
        *,
        category: ErrorCategory | str = ErrorCategory.UNAVAILABLE,
        status: FailureStatus = "rejected",
        times: int | None = None,
        arrives: bool = False,
    ) -> None:
        """Let requests fail of which `predicate(request)` is true; `times` None is for ever.

        Raises:
            ValueError: An argument does not fit.
        """
        failure = InjectedFailure(predicate, category, status, times, arrives=arrives)
        self._book.failures.append(failure)

    def down(
        self,
        *,
        category: ErrorCategory | str = ErrorCategory.UNAVAILABLE,
        status: FailureStatus = "rejected",
    ) -> Outage:
        """Let every request fail until `up`; as a context manager, to the end of the block.

        Raises:
            ValueError: An argument does not fit.
        """
        return Outage(self._book, InjectedFailure(anything, category, status, None))

    def up(self) -> None:
        """Let nothing fail any more."""
        self._book.failures = []

    # Time, and running.

    def advance(self, span: timedelta) -> None:
        """Let so much time pass for delays, back-off and expiry, without sleeping.

        Raises:
            ValueError: Time does not run backwards.
        """
        if span < timedelta():
            raise ValueError(f"advance({span!r}): time does not run backwards")
        self._book.ahead += span

    def due(self) -> list[Dispatched]:
        """The work that waits and could run now, in the order in which it would."""
        return [job.dispatched for job in self._book.due()]

    def run_due(self, *, limit: int = ENDLESS) -> list[Outcome]:
        """Run what is due, and what becomes due by it, as a worker would.

        What asks for another attempt waits for `advance`, as long as its back-off says.

        Args:
            limit: So many runs at most.

        Returns:
            What became of each run; `.exception` is what a handler raised.

        Raises:
            RuntimeError: After `limit` runs there was still work due.
        """
        outcomes: list[Outcome] = []
        while (job := self._book.take()) is not None:
            if len(outcomes) == limit:
                # Put back: the error must not lose the work that it is about.
                self._book.waiting.append(job)
                raise RuntimeError(f"{limit} runs, and {job.dispatched.task!r} is still due")
            outcomes.append(self._run(job))
        return outcomes

    def run_next(self) -> Outcome | None:
        """Run the next piece of work that is due; None if nothing is."""
        job = self._book.take()
        return None if job is None else self._run(job)

    def _run(self, job: Job) -> Outcome:
        # By the book's clock, as `advance` moves only that.
        if job.expires is not None and job.expires <= self._book.now:
            return left_undone(job.dispatched.body, _late(job))
        outcome = run_envelope(
            job.dispatched.body,
            attempt=job.attempt,
            deliveries=job.deliveries,
            settings=self._settings,
        )
        self._follow(job, outcome)
        return outcome

    def _follow(self, job: Job, outcome: Outcome) -> None:
        """Settle work as an adapter's worker would."""
        if outcome.action is Action.DEAD:
            self._book.dead_letter(job.dispatched)
        elif outcome.action in (Action.RETRY, Action.RETURN):
            job.attempt += outcome.action is Action.RETRY
            job.due = self._book.now + timedelta(seconds=outcome.after)
            self._book.waiting.append(job)

    # The adapter.

    def _send(self, request: DispatchRequest, body: bytes, *, timeout: float) -> Sent:
        del timeout
        failure = self._book.failure(request)
        # Before the work is written down; with `arrives` the answer alone is lost, after it.
        if failure is not None and not failure.arrives:
            return failure.happen()
        taken = self._book.add(request, body, self.alias)
        if failure is not None:
            return failure.happen()
        return Sent(request.id, DispatchStatus.ACCEPTED if taken else DispatchStatus.DUPLICATE)

    async def _asend(self, request: DispatchRequest, body: bytes, *, timeout: float) -> Sent:
        return self._send(request, body, timeout=timeout)

    def _category(self, exc: Exception) -> ErrorCategory | None:
        return exc.category if isinstance(exc, InjectedError) else None

    def _maybe_sent(self, exc: Exception) -> bool:
        return isinstance(exc, InjectedError)

    def _announce(self, response: DispatchResponse) -> DispatchResponse:
        self._book.answer(response)
        return super()._announce(response)

    def _announce_all(self, responses: Sequence[DispatchResponse]) -> None:
        for response in responses:
            self._book.answer(response)
        super()._announce_all(responses)


class Outage:
    """A backend that is down, from the moment it is made; as a context manager, until its end."""

    def __init__(self, book: Book, failure: InjectedFailure) -> None:
        self._book = book
        self._failure = failure
        book.failures.append(failure)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._book.failures = [each for each in self._book.failures if each is not self._failure]


def _late(job: Job) -> Outcome:
    return Outcome(
        action=Action.DONE,
        reason=Reason.EXPIRED,
        attempt=job.attempt,
        task=job.dispatched.task,
        request_id=job.dispatched.request.id,
    )
