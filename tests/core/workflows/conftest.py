"""A journal in memory, small enough to be seen through, that replays from nothing all the time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pydantic_core import from_json, to_json

from dispatchers import catalogue
from dispatchers._journal.failure import Failure
from dispatchers._journal.values import LEAVING, Entry, EntryKind
from dispatchers._models.envelope import decode
from dispatchers.workflows._replay import Replay

STARTED = 1_000_000.0


class Story:
    """One execution: what it asked for, and what it was told.

    After each entry the code is replayed from nothing as well, and must have come to the same.

    Args:
        code: Makes the coroutine.

        seen: Compare with a replay from nothing after each entry.
    """

    def __init__(self, code: Callable[[], Any], *, seen: bool = True, first: int = 0) -> None:
        self.code, self.seen, self.first = code, seen, first
        self.recorded: dict[int, Entry] = {}
        self.told: list[Entry] = []
        self.place = 0
        self.clock = STARTED
        self.states: list[Any] = []
        self.live = self.anew()
        self.after()

    def anew(self, code: Callable[[], Any] | None = None) -> Replay:
        return Replay(
            code or self.code,
            execution="shop.flow/1",
            first=self.first,
            started=STARTED,
            recorded=dict(self.recorded),
        )

    def cold(self, code: Callable[[], Any] | None = None) -> Replay:
        """A replay of everything from nothing."""
        replay = self.anew(code)
        for entry in self.told:
            replay.feed(entry)
        return replay

    def entry(self, kind: EntryKind, number: int | None = None, **values: Any) -> Entry:
        self.place += 1
        self.clock += 0.001
        names = ("name", "digest", "body", "source")
        return Entry(self.place, kind, number, *(values.get(n) for n in names), self.clock)

    def after(self) -> None:
        new = self.live.take_commands()
        assert self.live.mismatch is None, self.live.mismatch
        for c in new:
            self.recorded[c.number] = self.entry(
                c.kind, c.number, name=c.name, digest=c.digest, body=c.body
            )
        if (state := self.live.take_state()) is not None:
            self.states.append(from_json(state))
        if self.seen:
            self.compare()

    def compare(self) -> None:
        again = self.cold()
        left = again.take_commands()
        assert again.mismatch is None, again.mismatch
        assert left == []
        for name in ("end", "wake_at", "waits_for"):
            assert getattr(again, name) == getattr(self.live, name)
        assert [c.number for c in again.locals] == [c.number for c in self.live.locals]
        again.close()

    def tell(self, entry: Entry) -> Story:
        self.told.append(entry)
        self.live.feed(entry)
        self.after()
        return self

    # What it is told.

    def done(self, number: int, value: Any = None) -> Story:
        return self.tell(self.entry(EntryKind.DONE, number, body=to_json(value)))

    def fail(self, number: int, exc: BaseException, attempts: int = 1) -> Story:
        failure = Failure.of(exc, attempts=attempts)
        return self.tell(self.entry(EntryKind.FAILED, number, body=failure.encode()))

    def fire(self, number: int | None = None) -> Story:
        """The earliest timer that is awaited, or one by its number."""
        if number is None:
            number = min(n for n, at in self.timers.items() if at == self.live.wake_at)
        self.clock = max(self.clock, self.timers[number])
        return self.tell(self.entry(EntryKind.FIRED, number))

    def signal(self, name: str, value: Any = None) -> Story:
        return self.tell(self.entry(EntryKind.SIGNAL, name=name, body=to_json(value)))

    def cancel(self, why: str = "") -> Story:
        return self.tell(self.entry(EntryKind.CANCEL, name=why))

    def run_local(self) -> Story:
        call = self.live.locals[0]
        answer = call.run()
        return self.tell(self.entry(answer.kind, call.number, body=answer.body))

    def run_step(self, number: int) -> Story:
        """Run the task of a step here, and answer it."""
        task = catalogue.get(self.recorded[number].name or "")
        arguments = task.reader(self.recorded[number].body or b"")["payload"]
        try:
            value = task.function(**arguments)
            if task.is_async:
                value.send(None)
        except StopIteration as stop:
            value = stop.value
        except Exception as exc:  # noqa: BLE001 - the answer
            return self.fail(number, exc)
        body = task.results.encode(value)
        return self.tell(self.entry(EntryKind.DONE, number, body=body))

    def play(self) -> Story:
        """Answer everything in the order in which it was asked for; timers when nothing else is."""
        while self.end is None:
            if self.live.locals:
                self.run_local()
            elif steps := self.steps:
                self.run_step(steps[0])
            elif self.timers:
                self.fire()
            else:
                break
        return self

    # What it asked for.

    @property
    def end(self) -> Any:
        return self.live.end

    @property
    def result(self) -> Any:
        assert self.end is not None, f"waits for {self.live.waits_for}"
        assert self.end.status.name == "COMPLETED", self.end
        return from_json(self.end.output)

    @property
    def asked(self) -> list[str]:
        """All commands so far, in words."""
        return [f"{e.kind.name.lower()} {e.name}" for _, e in sorted(self.recorded.items())]

    @property
    def answered(self) -> set[int | None]:
        return {entry.number for entry in self.told}

    @property
    def steps(self) -> list[int]:
        """The steps that are not answered."""
        kinds = LEAVING - {EntryKind.SEND}
        return [n for n, e in self.recorded.items() if e.kind in kinds and n not in self.answered]

    @property
    def timers(self) -> dict[int, float]:
        return {
            n: float(e.name or 0)
            for n, e in self.recorded.items()
            if e.kind is EntryKind.TIMER and n not in self.answered
        }

    def arguments(self, number: int) -> dict[str, Any]:
        payload: Any = decode(self.recorded[number].body or b"").payload
        return dict(payload)


@pytest.fixture
def story() -> Any:
    """Makes stories; what is parked at the end is unwound."""
    made: list[Story] = []

    def make(code: Callable[[], Any], **options: Any) -> Story:
        made.append(Story(code, **options))
        return made[-1]

    yield make
    for each in made:
        each.live.close()
