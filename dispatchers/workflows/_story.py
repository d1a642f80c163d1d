"""Entries of an execution as lines for people, in the order in which the code saw them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from dispatchers._journal.values import Entry, EntryKind, Record, Status, Unsent
from dispatchers._runtime.durations import spoken

from ._story_words import BEFORE_START, arguments, child, failure, instant, value

__all__ = ["Line", "story", "waits_for"]

WORDS = {
    EntryKind.STEP: "step",
    EntryKind.LOCAL: "local",
    EntryKind.CHILD: "child",
    EntryKind.SEND: "dispatch",
    EntryKind.MARK: "patched",
}
NOT_LEFT = "not handed over yet, tried again"
ANSWERS = frozenset({EntryKind.DONE, EntryKind.FAILED, EntryKind.FIRED})


class Line(NamedTuple):
    """One line of an execution's story."""

    number: int | None
    """The command's number, from which an execution can be resumed; None for what was told."""
    at: float
    """When it was recorded, in seconds since the epoch."""
    text: str
    """The command with its arguments, the signal, or another event."""
    outcome: str
    """What came of it; empty if nothing can come of it."""
    is_open: bool = False
    """It is a command that is not answered."""

    @property
    def words(self) -> str:
        """Text and outcome."""
        return f"{self.text} -> {self.outcome}" if self.outcome else self.text

    def __str__(self) -> str:
        return f"{'' if self.number is None else self.number:>4}  {self.words}"


def story(
    record: Record, entries: Sequence[Entry], unsent: Iterable[Unsent] = (), *, whole: bool = False
) -> list[Line]:
    """Return the lines of an execution: its beginning, its entries, those that are open, its end.

    Args:
        record: The execution.

        entries: All of its entries.

        unsent: Its commands that are to leave.

        whole: Show values in full; otherwise they are shortened.
    """
    told = _Telling(record, entries, {each.command.number: each for each in unsent}, whole=whole)
    lines = [told.line(each) for each in entries if each.kind not in ANSWERS]
    return [
        *told.beginning(),
        *(line for line in lines if not line.is_open),
        # Last: what is being waited for is what a reader looks for.
        *(line for line in lines if line.is_open),
        *told.end(),
    ]


class _Telling:
    """Words for the entries of one execution."""

    def __init__(
        self,
        record: Record,
        entries: Iterable[Entry],
        unsent: Mapping[int, Unsent],
        *,
        whole: bool,
    ) -> None:
        self._record = record
        self._unsent = unsent
        self._whole = whole
        self._answers = {each.number: each for each in entries if each.kind in ANSWERS}

    def beginning(self) -> Iterator[Line]:
        record = self._record
        if record.status is Status.EXPECTED:
            yield Line(None, record.created_at, BEFORE_START, "")
            return
        given = arguments(record.input, whole=self._whole)
        again = ", after a restart" if record.first else ""
        text = f"began {record.workflow}({given}), version {record.version}{again}"
        yield Line(None, record.started_at, text, "")

    def end(self) -> Iterator[Line]:
        record = self._record
        at = record.updated_at if record.finished_at is None else record.finished_at
        if record.status is Status.COMPLETED:
            shown = value(record.output, whole=self._whole)
            yield Line(None, at, "completed", shown)
        elif record.status.is_end or record.status is Status.STUCK:
            word = record.status.name.lower()
            why = record.why or failure(record.output)
            yield Line(None, at, word, why if why != word else "")

    def line(self, entry: Entry) -> Line:
        if not entry.kind.is_command:
            return Line(None, entry.at, self._told(entry) + _brought(entry), "")
        answer = self._answers.get(entry.number)
        outcome = self._open(entry) if answer is None else self._answered(entry, answer)
        is_open = answer is None and entry.kind not in (EntryKind.SEND, EntryKind.MARK)
        return Line(entry.number, entry.at, self._asked(entry), outcome, is_open)

    def _asked(self, entry: Entry) -> str:
        kind, name = entry.kind, entry.name or "?"
        if kind in (EntryKind.STEP, EntryKind.SEND):
            return f"{WORDS[kind]} {name}({arguments(entry.body, whole=self._whole)})"
        if kind is EntryKind.TIMER:
            return f"timer until {instant(name)}"
        return f"{WORDS[kind]} {child(entry) if kind is EntryKind.CHILD else name}"

    def _told(self, entry: Entry) -> str:
        if entry.kind is EntryKind.CANCEL:
            return f"cancel: {entry.name}" if entry.name else "cancel"
        shown = value(entry.body, whole=self._whole)
        return f"signal {entry.name}{shown and f' {shown}'}"

    def _answered(self, entry: Entry, answer: Entry) -> str:
        took = spoken(max(0.0, answer.at - entry.at))
        if answer.kind is EntryKind.FIRED:
            return f"fired{_lateness(entry, answer)}"
        if answer.kind is EntryKind.FAILED:
            return f"failed after {took}: {failure(answer.body)}"
        shown = value(answer.body, whole=self._whole)
        # A local step is recorded with its answer, in one commit.
        words = "done" if entry.kind is EntryKind.LOCAL else f"done in {took}"
        return f"{words}{shown and f': {shown}'}"

    def _open(self, entry: Entry) -> str:
        if (unsent := self._unsent.get(entry.number or 0)) is not None:
            words = "not answered yet, handed over once more" if unsent.left else NOT_LEFT
            return f"{words} {instant(unsent.next_try)}"
        if entry.kind is EntryKind.MARK:
            return ""
        if entry.kind is EntryKind.SEND:
            return "handed over"
        if self._record.status.is_end:
            return "not awaited any more"
        if entry.kind is EntryKind.TIMER:
            return "not fired yet" if self._is_awaited(entry) else "not awaited any more"
        return "runs in the turn" if entry.kind is EntryKind.LOCAL else "not answered yet"

    def _is_awaited(self, timer: Entry) -> bool:
        wake_at = self._record.wake_at
        # The earliest that is awaited is known: those before it are not.
        return wake_at is not None and float(timer.name or 0) >= wake_at


def _lateness(timer: Entry, fired: Entry) -> str:
    late = fired.at - float(timer.name or fired.at)
    return f" {spoken(late)} late" if late >= 1 else ""


def _brought(entry: Entry) -> str:
    return f", by request {entry.source}" if entry.source else ""


def waits_for(record: Record, lines: Iterable[Line]) -> str:
    """Return what an execution waits for, in words; empty once it has ended.

    Args:
        record: The execution.

        lines: Its story.
    """
    if record.status is not Status.RUNNING:
        return {Status.EXPECTED: "its start", Status.STUCK: "code that is mended"}.get(
            record.status, ""
        )
    if record.seen < record.head:
        return "a turn of a worker"
    known = [
        f"{line.text.partition('(')[0]} ({line.number})"
        for line in lines
        if line.is_open and not line.outcome.startswith("not awaited")
    ]
    # The journal does not say which signal the code waits for: nothing of it is a command.
    return ", ".join(known) or "a signal"
