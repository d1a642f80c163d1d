"""Calls of a journal, with values that a case does not care about."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from threading import Barrier, Thread
from typing import Any, TypeVar

from dispatchers._models.envelope import encode
from dispatchers._models.request import DispatchRequest
from dispatchers.journals import (
    LEASE,
    Answer,
    Answered,
    Command,
    Commit,
    Committed,
    Entry,
    EntryKind,
    Journal,
    Query,
    Record,
    Refusal,
    Start,
    Status,
    Turn,
    Unsent,
    rules,
)

T = TypeVar("T")

TIMEOUT = 20.0
"""Seconds that a call may take; generous, as machines that test are busy."""
PATIENCE = 20.0
"""Seconds until what was to happen counts as not happening."""

ONE = "shop.checkout/1"
WORKFLOW = "shop.checkout"

_names = itertools.count(1)


def start(execution: str = ONE, **fields: Any) -> Start:
    """A start."""
    values: dict[str, Any] = {
        "workflow": WORKFLOW,
        "version": 1,
        "dispatcher": "default",
        "queue": None,
        "headers": b"{}",
        "input": b"start",
        "at": time.time(),
    }
    return Start(execution, **{**values, **fields})


def step(
    number: int,
    name: str = "shop.charge",
    kind: EntryKind = EntryKind.STEP,
    *,
    generation: int | None = None,
) -> Command:
    """A command that is handed over; with an envelope, if its generation is given."""
    body = b"envelope %d" % number
    if generation is not None:
        name_of_request = rules.request_id(ONE, number, generation)
        body = encode(DispatchRequest(task=name, id=name_of_request))
    return Command(number, kind, name, b"digest", body, "default")


def timer(number: int, at: float) -> Command:
    """A timer."""
    return Command(number, EntryKind.TIMER, repr(at), b"digest")


def mark(number: int, name: str = "mark") -> Command:
    """A command that is neither handed over nor answered."""
    return Command(number, EntryKind.MARK, name, b"digest")


def local(number: int) -> Command:
    """A local step."""
    return Command(number, EntryKind.LOCAL, "shop.rate", b"digest")


def child(number: int, *, generation: int | None = None) -> Command:
    """A child."""
    return step(number, "shop.child", EntryKind.CHILD, generation=generation)


def send(number: int) -> Command:
    """Work whose result is not awaited."""
    return step(number, "shop.mail", EntryKind.SEND)


def done(body: bytes = b"1", kind: EntryKind = EntryKind.DONE) -> Answer:
    """An answer."""
    return Answer(kind, body, time.time())


class Calls:
    """A journal, called with few words; each gives what the protocol's method returns."""

    def __init__(self, journal: Journal, lease: float = LEASE) -> None:
        self.journal = journal
        self.lease = lease

    def begin(self, execution: str = ONE, **fields: Any) -> Answered:
        return self.journal.begin(start(execution, **fields), timeout=TIMEOUT)

    def try_take(
        self, execution: str = ONE, *, wakeup: str | None = None, after: int = 0
    ) -> Turn | Refusal:
        name = f"turn-{next(_names)}"
        wakeup = wakeup or f"message-{name}"
        return self.journal.take(execution, name, wakeup=wakeup, after=after, timeout=TIMEOUT)

    def take(self, execution: str = ONE, *, wakeup: str | None = None, after: int = 0) -> Turn:
        turn = self.try_take(execution, wakeup=wakeup, after=after)
        assert isinstance(turn, Turn), f"no turn of {execution} was given, but {turn!r}"
        return turn

    def keeps_others_out(self, turn: Turn) -> bool:
        """Renew a turn and try to take another; false if one was given.

        True as well where the machine stood still for so long that the turn counts as given up.
        """
        begun = time.monotonic()
        self.renew(turn)
        found = self.try_take(turn.record.id)
        return found is Refusal.HELD or time.monotonic() - begun >= self.lease

    def try_commit(
        self, turn: Turn, *commands: Command, seen: int | None = None, **fields: Any
    ) -> Committed | Refusal:
        if seen is None:
            seen = turn.entries[-1].seq if turn.entries else turn.record.seen
        at = fields.pop("at", None) or time.time()
        commit = Commit(at, seen, commands=commands, **fields)
        return self.journal.commit(turn, commit, timeout=TIMEOUT)

    def commit(
        self, turn: Turn, *commands: Command, seen: int | None = None, **fields: Any
    ) -> Committed:
        committed = self.try_commit(turn, *commands, seen=seen, **fields)
        assert isinstance(committed, Committed), f"a commit was refused: {committed!r}"
        return committed

    def park(
        self, *commands: Command, execution: str = ONE, begin: Mapping[str, Any] = {}, **fields: Any
    ) -> Committed:
        """Begin an execution and have one turn record commands."""
        self.begin(execution, **begin)
        return self.commit(self.take(execution), *commands, **fields)

    def end(
        self, status: Status = Status.COMPLETED, execution: str = ONE, **fields: Any
    ) -> Committed:
        """End an execution by a turn."""
        return self.commit(self.take(execution), status=status, **fields)

    def answer(
        self,
        number: int,
        body: bytes = b"1",
        execution: str = ONE,
        kind: EntryKind = EntryKind.DONE,
        source: str = "",
    ) -> Answered:
        given = done(body, kind)._replace(source=source)
        return self.journal.answer(execution, number, given, timeout=TIMEOUT)

    def deliver(
        self,
        source: str,
        body: bytes | None = b"1",
        execution: str = ONE,
        kind: EntryKind = EntryKind.SIGNAL,
        name: str | None = "approval",
    ) -> Answered:
        return self.journal.deliver(
            execution,
            WORKFLOW,
            kind,
            name if kind is EntryKind.SIGNAL else None,
            body,
            source=source,
            at=time.time(),
            timeout=TIMEOUT,
        )

    def release(self, turn: Turn) -> None:
        self.journal.release(turn, timeout=TIMEOUT)

    def renew(self, turn: Turn) -> bool:
        return self.journal.renew(turn, timeout=TIMEOUT)

    def sent(
        self, *numbers: int, execution: str = ONE, again: Mapping[int, float] | None = None
    ) -> None:
        self.journal.sent(execution, numbers, again=again, timeout=TIMEOUT)

    def is_answered(self, number: int, execution: str = ONE, source: str = "") -> bool:
        return self.journal.is_answered(execution, number, source=source, timeout=TIMEOUT)

    def due(self, limit: int = 1000) -> dict[str, str]:
        """Return the reasons of what is due, by execution."""
        found = self.journal.due(limit=limit, timeout=TIMEOUT)
        return {each.execution: each.why for each in found}

    def look(self, execution: str = ONE) -> Record:
        found = self.journal.look(execution, timeout=TIMEOUT)
        assert found is not None, f"{execution} is not there"
        return found

    def entries(self, execution: str = ONE, after: int = 0) -> list[Entry]:
        return list(self.journal.entries(execution, after=after, timeout=TIMEOUT))

    def kinds(self, execution: str = ONE) -> list[tuple[str, int | None]]:
        """Return kind and number of each entry."""
        return in_short(self.entries(execution))

    def unsent(self, execution: str = ONE) -> dict[int, Unsent]:
        found = self.journal.unsent(execution, timeout=TIMEOUT)
        return {each.command.number: each for each in found}

    def find(self, **fields: Any) -> list[str]:
        return [each.id for each in self.journal.find(Query(**fields), timeout=TIMEOUT)]

    def terminate(self, execution: str = ONE) -> Answered:
        return self.journal.terminate(execution, "by hand", at=time.time(), timeout=TIMEOUT)

    def resume(self, execution: str = ONE, number: int | None = None) -> Answered:
        return self.journal.resume(execution, number=number, at=time.time(), timeout=TIMEOUT)

    def forget(self, before: float, limit: int = 1000) -> int:
        return self.journal.forget(before=before, limit=limit, timeout=TIMEOUT)


def in_short(entries: Sequence[Entry]) -> list[tuple[str, int | None]]:
    """Return kind and number of each entry."""
    return [(each.kind.name, each.number) for each in entries]


def gapless(entries: Sequence[Entry]) -> None:
    """Fail unless entries are numbered 1, 2, 3 ..."""
    places = [each.seq for each in entries]
    assert places == list(range(1, len(places) + 1)), f"places are not 1, 2, 3 ...: {places}"


def at_once(count: int, act: Callable[[int], T]) -> list[T]:
    """Run an act on several threads that begin together; returns the results in their order."""
    barrier = Barrier(count)
    found: dict[int, T] = {}
    errors: list[BaseException] = []

    def run(index: int) -> None:
        barrier.wait(PATIENCE)
        try:
            found[index] = act(index)
        except BaseException as exc:  # noqa: BLE001 - raised again by the case
            errors.append(exc)

    threads = [Thread(target=run, args=(index,), daemon=True) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT + PATIENCE)
        assert not thread.is_alive(), "a call hangs while others are made on other threads"
    if errors:
        raise errors[0]
    return [found[index] for index in range(count)]


def until(condition: Callable[[], T], what: str | Callable[[], str]) -> T:
    """Wait until a condition holds; returns its value."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.01)
    words = what if isinstance(what, str) else what()
    raise AssertionError(f"waited {PATIENCE:g} seconds in vain: {words}")
