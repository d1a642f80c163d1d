"""`Harness`: the part of a backend that the conformance suite needs, written by its author.

The suite can only judge what it can see and disturb. So a harness makes dispatchers, shows what the
backend holds, steps a worker, and *produces* faults. What a backend does not have is said with a
reason in `without`; the cases that need it are skipped with that reason, never in silence::

    class AcmeHarness(Harness):
        without = {"network": "files, no sockets", "stall": "a rename does not block"}

        def __init__(self, folder):
            self.folder = folder

        def make_dispatcher(self, **options):
            return AcmeDispatcher(path=self.folder, **options)

        def received(self, dispatcher):
            return [file.read_bytes() for file in sorted(self.folder.iterdir())]
        ...
"""

from __future__ import annotations

import asyncio
import threading
from abc import ABC, abstractmethod
from collections.abc import Coroutine, Generator, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, ClassVar, NoReturn, TypeVar, cast

from dispatchers import BaseDispatcher, ErrorCategory, Sent, Worker, WorkerOptions

from ._abilities import WithAbilities

__all__ = ["ABILITIES", "Harness"]

T = TypeVar("T")

ABILITIES: Mapping[str, str] = {
    "received": "show the envelopes that the backend holds (`received`)",
    "worker": "have the work run (`run_next`)",
    "stepping": "run one piece of work at a time, and nothing by itself (`run_next`)",
    "dead": "show the envelopes that were dead-lettered (`dead`)",
    "crash": "let a worker die in the midst of a run (`crash`)",
    "network": "connect through a proxy (`upstream` and `connect`)",
    "stall": "keep the backend from answering (`stalled`)",
    "processes": "hold work that was dispatched in other processes",
    "retry": "try failed work again",
}
"""What a harness is asked to do, by name; `without` says which of it the backend has not."""


class Harness(WithAbilities, ABC):
    """Makes dispatchers of one backend, looks into it, and lets it fail.

    Every dispatcher of one harness is one of the same place: the same file, the same broker. A
    backend that lives in its dispatcher, like `memory`, has as many places as dispatchers, which
    is why each method is given the dispatcher in question.
    """

    _abilities = ABILITIES
    without: ClassVar[Mapping[str, str]] = {}
    """What the backend has not, by the names in `ABILITIES`, with the reason why."""
    secrets: tuple[str, ...] = ()
    """Passwords and the like that `make_dispatcher` configures; none of them may ever be shown."""
    idempotency: str = "memory"
    """The idempotency store that workers of this harness share with no other harness."""
    deadline: float = 5.0
    """Seconds that a dispatch gets in cases about something else than deadlines."""
    retrying: Mapping[str, object] = {}
    """Options that make the dispatcher retry failed work at once, if it needs any."""
    drains_delayed: bool = False
    """A worker with `drain` waits for delayed work, too; else it leaves that to another one."""

    # What an author writes.

    @abstractmethod
    def make_dispatcher(self, **options: Any) -> BaseDispatcher:
        """A dispatcher of this backend with these options, on top of what it cannot do without."""

    def received(self, dispatcher: BaseDispatcher) -> list[bytes]:
        """The envelopes that the backend holds and no worker has finished, delayed ones too."""
        del dispatcher
        self._unwritten("received")

    def run_next(self, dispatcher: BaseDispatcher) -> object:
        """Let a worker run the next piece of work that is due; None where nothing was.

        Where workers run by themselves there is nothing to do but to return None: the suite asks
        again until what it waits for has happened.
        """
        del dispatcher
        self._unwritten("worker")

    def make_worker(self, dispatcher: BaseDispatcher, **options: Any) -> Worker:
        """A worker of the dispatcher with these `WorkerOptions`, for `WorkerConformance`."""
        return dispatcher._worker(WorkerOptions(**options))

    def leased(self, seconds: float) -> Mapping[str, object] | None:
        """Options of a dispatcher whose workers hold work for `seconds` without a renewal.

        The shortest lease that the backend has, where that is longer.
        None, as by default, where no lease runs out: the cases about leases are skipped.
        """
        del seconds
        return None

    def dead(self, dispatcher: BaseDispatcher) -> list[bytes]:
        """The envelopes that were dead-lettered."""
        del dispatcher
        self._unwritten("dead")

    def crash(self, dispatcher: BaseDispatcher) -> None:
        """Let a worker take the next piece of work and die before it settles it.

        When this returns, the work may be delivered again, or will be in a second or two.
        """
        del dispatcher
        self._unwritten("crash")

    @property
    def upstream(self) -> tuple[str, int]:
        """Host and port of the server; the suite puts a `FaultProxy` before it."""
        self._unwritten("network")

    def connect(self, host: str, port: int, **options: Any) -> BaseDispatcher:
        """Like `make_dispatcher`, for another address: a proxy's, or one without a server.

        Without a server the constructor must not raise: it contacts none.
        """
        del host, port, options
        self._unwritten("network")

    def stalled(self, dispatcher: BaseDispatcher) -> AbstractContextManager[None]:
        """Keep the backend from answering until the block ends: a lock held, a pipe full.

        With a network the suite does that by a proxy, and this is not asked.
        """
        del dispatcher
        self._unwritten("stall")

    @contextmanager
    def broken(self, dispatcher: BaseDispatcher, exc: BaseException) -> Generator[None]:
        """Let handing over raise `exc` until the block ends.

        This replaces the adapter's own methods. Replace what they call instead, if you can: then
        their code is judged as well.
        """
        with _replaced(dispatcher, _Raising(exc)):
            yield

    def run_coroutine(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine; by default on an event loop of its own.

        A backend whose work lives on a loop gives the coroutine to that one instead.
        """
        return alone(work)

    def waiting(self, dispatcher: BaseDispatcher) -> Mapping[str, int]:
        """Count the work that waits in each queue; by default as `stats()` says."""
        if not dispatcher.capabilities.stats:
            self._skip(f"{dispatcher.name} has no figures, and the harness none (`waiting`)")
        return {each.queue: each.waiting or 0 for each in dispatcher.stats(timeout=STUCK)}

    def queue_name(self, name: str) -> str:
        """The name of a further queue that a case uses; `close` gives it back with the others.

        By default the name as it is, for a backend whose place is the harness's own.
        """
        return name

    def refusals(self) -> Iterator[tuple[BaseDispatcher, ErrorCategory]]:
        """Dispatchers whose server refuses what it is given, each with the category of the reason.

        A wrong password, a queue that is gone, a server that is full: `yield` each when the server
        refuses, and make it good afterwards. By default none, and the case is skipped.
        """
        return iter(())

    def close(self) -> None:
        """Give everything back; dispatchers are closed already."""

    # What the suite uses.

    _made: tuple[BaseDispatcher, ...] = ()
    _ended = False

    def dispatcher(self, **options: Any) -> BaseDispatcher:
        """A dispatcher for one case, closed at its end; without a breaker unless asked for."""
        # Without a breaker: opened by one fault, it would answer for the next in the backend's
        # place.
        given = {"breaker": False, "deadline": self.deadline, **options}
        return self.keep(self.make_dispatcher(**given))

    def dispatcher_at(self, host: str, port: int, **options: Any) -> BaseDispatcher:
        """A dispatcher whose server is at this address, closed at the end of the case."""
        given = {"breaker": False, "deadline": self.deadline, **options}
        return self.keep(self.connect(host, port, **given))

    def keep(self, dispatcher: BaseDispatcher) -> BaseDispatcher:
        """Close a dispatcher at the end of the case."""
        # A new tuple: the class's own, empty one is shared by all harnesses.
        self._made += (dispatcher,)
        return dispatcher

    def end(self) -> None:
        """Close every dispatcher of the case, then the harness; a second time is harmless."""
        if self._ended:
            return
        self._ended = True
        left = [each for each in self._made if not _closes(each)]
        self.close()
        if left:
            raise AssertionError(f"close(0.5) did not return within {STUCK:g} s: {left}")

    def _unwritten(self, ability: str) -> NoReturn:
        raise NotImplementedError(
            f"{type(self).__name__} should {ABILITIES[ability]}, or say why it cannot: "
            f"without = {{{ability!r}: 'the reason'}}"
        )


STUCK = 10.0
"""Seconds after which a dispatcher that is being closed is left alone."""


def _closes(dispatcher: BaseDispatcher) -> bool:
    """Close a dispatcher; false where that hangs, which must not keep the test run from ending."""
    raised: list[Exception] = []

    def close() -> None:
        try:
            dispatcher.close(0.5)
        except Exception as exc:  # noqa: BLE001 - raised again on the case's own thread
            raised.append(exc)

    thread = threading.Thread(target=close, daemon=True)
    thread.start()
    thread.join(STUCK)
    if raised:
        raise raised[0]
    return not thread.is_alive()


def alone(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on an event loop of its own.

    What it raises is carried around asyncio, which is thrown off its feet by an exception that
    cannot be shown (3.11 to 3.13: its handler of SIGINT stays behind).
    """

    async def caught() -> tuple[T | None, BaseException | None]:
        try:
            return await work, None
        except BaseException as exc:  # noqa: BLE001 - raised again outside
            return None, exc

    answer, error = asyncio.run(caught())
    if error is not None:
        raise error
    return cast("T", answer)


WAYS = ("_send", "_asend", "_send_many", "_asend_many", "_sharing")


class _Raising:
    """A stand-in for an adapter's methods: every call raises."""

    def __init__(self, exc: BaseException) -> None:
        self._exc = exc

    def send(self, *_: object, **__: object) -> Sent:
        raise self._exc

    async def asend(self, *_: object, **__: object) -> Sent:
        raise self._exc


@contextmanager
def _replaced(dispatcher: BaseDispatcher, by: _Raising) -> Generator[None]:
    """A dispatcher whose ways to hand over are replaced for a while."""
    own = vars(dispatcher)
    before = {name: own[name] for name in WAYS if name in own}
    # On the object, not on its class: other dispatchers of the case stay whole.
    own.update(dict(zip(WAYS, (by.send, by.asend, by.send, by.asend, None), strict=True)))
    try:
        yield
    finally:
        for name in WAYS:
            del own[name]
        # A method that was on the object itself goes back; the class's own shows through again.
        own.update(before)
