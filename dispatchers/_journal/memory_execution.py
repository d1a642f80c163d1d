"""One execution of a `MemoryJournal`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from dispatchers._journal.limits import AWAITED, Counts
from dispatchers._journal.protocol import UNREAD_AFTER
from dispatchers._journal.rules import due_timers, is_forgotten, leaves_after, waited
from dispatchers._journal.values import (
    LEAVING,
    Answer,
    Command,
    Commit,
    Entry,
    EntryKind,
    Record,
    Start,
    Status,
    Unsent,
    WakeUp,
)
from dispatchers._runtime import clock


class Execution:
    """An execution, its entries, and who is at it. The journal's lock guards it."""

    def __init__(self, execution: str, workflow: str, at: float) -> None:
        self.record = _expected(execution, workflow, at)
        self.entries: list[Entry] = []
        self.sources: dict[str, tuple[int, float]] = {}
        self.unsent: dict[int, Unsent] = {}
        self.owner: str | None = None
        self.wakeup: str | None = None
        self.renewed_at = 0.0
        self.waked_at: float | None = None
        self.waited = 0.0
        """Seconds for which it had wanted a turn when it was woken."""
        self.lost = 0
        """Turns since the last commit that were neither committed nor released."""
        self.wants_turn = False
        self._index()

    def _index(self) -> None:
        self.commands: dict[int, EntryKind] = {}
        self.answered: dict[int, int] = {}
        self.timers: dict[int, float] = {}
        self.counts = Counts(0, 0, 0)

    @property
    def is_begun(self) -> bool:
        """Tell whether it was started and has not ended."""
        return self.record.status in {Status.RUNNING, Status.STUCK}

    def change(self, **fields: object) -> None:
        """Replace fields of its record."""
        self.record = self.record._replace(**fields)  # type: ignore[arg-type]

    def begin(self, start: Start) -> None:
        """Take over what a start says; entries that came before it stay."""
        fields = start._asdict()
        at = fields.pop("at")
        del fields["execution"]
        self.change(**fields, status=Status.RUNNING, created_at=at, started_at=at, updated_at=at)
        self.wants_turn = True

    def wake_up(self, why: str = "answer") -> WakeUp:
        """Return the way to wake it, which counts as under way from now on."""
        self.note_woken()
        r = self.record
        return WakeUp(r.id, r.workflow, r.dispatcher, r.queue, r.headers, why)

    def note_woken(self) -> None:
        """Count it as being woken from now on."""
        self.waked_at = clock.monotonic()
        self.waited = waited(self.record, clock.time())

    def hold(self, owner: str, wakeup: str) -> None:
        """Begin a turn."""
        self.lost += self.owner is not None
        self.owner, self.wakeup, self.renewed_at = owner, wakeup, clock.monotonic()
        self.waked_at = None
        self.change(fence=self.record.fence + 1)

    def free(self) -> None:
        """End a turn."""
        self.owner = self.wakeup = None

    def append(self, entry: Entry) -> None:
        """Record an entry at the next place."""
        entry = entry._replace(seq=len(self.entries) + 1)
        self.entries.append(entry)
        awaited = self._note(entry)
        counts = self.counts
        size = counts.size + len(entry.body or b"")
        self.counts = Counts(entry.seq, counts.open + awaited, size)
        self.change(head=entry.seq, updated_at=entry.at)
        if entry.source is not None:
            self.sources[entry.source] = (entry.seq, entry.at)

    def _note(self, entry: Entry) -> int:
        """Index an entry; returns by how much the number of open commands changes."""
        number = entry.number
        if number is None:
            return 0
        if not entry.kind.is_command:
            self.answered[number] = entry.seq
            self.timers.pop(number, None)
            return -(self.commands[number] in AWAITED)
        self.commands[number] = entry.kind
        if entry.kind is EntryKind.TIMER:
            self.timers[number] = float(entry.name or 0)
        return int(entry.kind in AWAITED)

    def add_command(self, command: Command, at: float) -> None:
        """Record a command."""
        number, kind, name, digest, body, _ = command
        self.append(Entry(0, kind, number, name, digest, body, None, at))
        if kind in LEAVING:
            self.unsent[number] = Unsent(command, at + UNREAD_AFTER)

    def note_sent(self, numbers: Sequence[int], again: Mapping[int, float]) -> None:
        """Drop commands that have left, and set when others, and of those some, leave again."""
        for number in set(numbers) - again.keys():
            self.unsent.pop(number, None)
        for number in again.keys() & self.unsent.keys():
            known = self.unsent[number]
            left = known.left or number in numbers
            self.unsent[number] = known._replace(next_try=again[number], left=left)

    def add_answer(self, number: int, answer: Answer) -> bool:
        """Record an answer; False if the command is gone or was answered."""
        if number not in self.commands or number in self.answered:
            return False
        self.append(Entry(0, answer.kind, number, None, None, answer.body, None, answer.at))
        self.unsent.pop(number, None)
        return True

    def has_forgotten(self, number: int, source: str) -> bool:
        """Tell whether a step or child is of a command that was forgotten."""
        record = self.record
        return is_forgotten(
            source, record.id, number, record.generation, lambda: self._body_of(number)
        )

    def _body_of(self, number: int) -> bytes | None:
        found = (e.body for e in self.entries if e.number == number and e.kind.is_command)
        return next(found, None)

    def add_told(
        self, kind: EntryKind, name: str | None, body: bytes | None, source: str, at: float
    ) -> bool:
        """Record a signal or a cancellation; False if its source brought it before."""
        if source in self.sources:
            return False
        self.append(Entry(0, kind, None, name, None, body, source, at))
        return True

    def fire(self, now: float) -> None:
        """Record the timers that are due."""
        for number in due_timers(self.timers, self.record.wake_at, now):
            self.append(Entry(0, EntryKind.FIRED, number, None, None, None, None, now))

    def apply(self, commit: Commit) -> None:
        """Record what a turn found out, except for its end or restart."""
        for command in commit.commands:
            self.add_command(command, commit.at)
        for number, answer in commit.answers:
            self.add_answer(number, answer)
        self.wants_turn = False
        if commit.status is not Status.STUCK:
            self.lost = 0
        self.change(
            status=commit.status,
            seen=commit.seen,
            state=self.record.state if commit.state is None else commit.state,
            why=commit.why,
            wake_at=commit.wake_at,
            updated_at=commit.at,
        )

    def end(self, status: Status, output: bytes | None, at: float) -> None:
        """End it; commands that nothing waits for any more do not leave."""
        self.change(status=status, output=output, wake_at=None, finished_at=at, updated_at=at)
        self.keep_unsent(leaves_after(status))
        self.free()

    def forget_sources(self, before: float) -> None:
        """Forget the sources of old entries; those of others have no place any more."""
        self.sources = {s: (0, at) for s, (_, at) in self.sources.items() if at >= before}

    def keep_unsent(self, kinds: frozenset[EntryKind]) -> None:
        """Drop unsent commands of other kinds."""
        self.unsent = {n: u for n, u in self.unsent.items() if u.command.kind in kinds}

    def begin_anew(self, entries: Iterable[Entry], at: float) -> None:
        """Replace all entries; the next turn runs the code from its beginning."""
        self.entries, self.lost = [], 0
        self._index()
        self.change(head=0, seen=0, wake_at=None, generation=self.record.generation + 1)
        for entry in entries:
            self.append(entry)
        self.change(updated_at=at)
        self.wants_turn = True
        self.free()


def _expected(execution: str, workflow: str, at: float) -> Record:
    return Record(
        id=execution,
        workflow=workflow,
        version=0,
        status=Status.EXPECTED,
        dispatcher="",
        queue=None,
        headers=b"",
        input=b"",
        output=None,
        state=None,
        why=None,
        parent=None,
        parent_number=None,
        first=0,
        head=0,
        seen=0,
        wake_at=None,
        fence=0,
        generation=0,
        started_at=at,
        created_at=at,
        updated_at=at,
        finished_at=None,
    )
