"""Values of the journal: executions, their entries, and what a turn asks to be recorded."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum, StrEnum
from typing import NamedTuple


class EntryKind(IntEnum):
    """Kind of an entry. Below 16 a command of the code, from 16 on something that it is told."""

    STEP = 1
    """A task is to run on a worker."""
    LOCAL = 2
    """A function is to run in the turn."""
    TIMER = 3
    """Something is due at an instant."""
    CHILD = 4
    """Another execution is to begin."""
    SEND = 5
    """Work is to be dispatched, whose result is not awaited."""
    MARK = 6
    """The code passed a `patched`."""
    DONE = 16
    """A command was answered with a result."""
    FAILED = 17
    """A command was answered with a failure."""
    FIRED = 18
    """A timer was due."""
    SIGNAL = 19
    """A signal was sent."""
    CANCEL = 20
    """The execution is to be cancelled."""

    # Each entry is looked up by its kind; an enum's own hash is computed in Python.
    __hash__ = int.__hash__

    @property
    def is_command(self) -> bool:
        """Tell whether the code asked for it."""
        return self < EntryKind.DONE


LEAVING = frozenset({EntryKind.STEP, EntryKind.CHILD, EntryKind.SEND})
"""Commands that are handed over to a dispatcher once they are recorded."""


class Status(IntEnum):
    """Status of an execution."""

    EXPECTED = 0
    """Signals came before its start."""
    RUNNING = 1
    """It has begun and not ended."""
    COMPLETED = 2
    """It returned."""
    FAILED = 3
    """It raised."""
    CANCELLED = 4
    """It was cancelled, and its code has ended."""
    TERMINATED = 5
    """It was ended without running its code."""
    STUCK = 6
    """Its code does not do what is recorded; it goes on once the code is right."""

    @property
    def is_end(self) -> bool:
        """Tell whether nothing follows."""
        return Status.COMPLETED <= self <= Status.TERMINATED


class Entry(NamedTuple):
    """One recorded entry of an execution."""

    seq: int
    """Its place: 1, 2, 3 ... without a gap."""
    kind: EntryKind
    """Its kind."""
    number: int | None
    """The number of the command that it is, or that it answers."""
    name: str | None
    """Task, function or signal; for a timer the instant, in seconds since the epoch."""
    digest: bytes | None
    """Of a command's arguments, to compare at replay."""
    body: bytes | None
    """A command's envelope; an answer's or signal's value as JSON."""
    source: str | None
    """The request that brought a signal or a cancellation."""
    at: float
    """When it was recorded, in seconds since the epoch."""


class Command(NamedTuple):
    """A command of the code, to be recorded."""

    number: int
    """1, 2, 3 ... over the life of an execution, restarts included."""
    kind: EntryKind
    """Its kind, below 16."""
    name: str
    """Task, function or mark; for a timer the instant, in seconds since the epoch."""
    digest: bytes
    """Of its arguments."""
    body: bytes | None = None
    """The envelope to hand over, for a kind in `LEAVING`. A number is issued anew after `resume`,
    under another id of its request (`rules.request_id`)."""
    route: str = ""
    """The alias of the dispatcher that gets the envelope."""


class Unsent(NamedTuple):
    """A command that is recorded and is to leave, for the first time or once more."""

    command: Command
    """The whole command: anything with the dispatcher of its `route` can hand it over."""
    next_try: float
    """Seconds since the epoch; for a new command `UNREAD_AFTER` after its commit."""
    left: bool = False
    """A dispatcher has taken it, and may have forgotten it: it leaves once more."""


class Answer(NamedTuple):
    """Answer to a command."""

    kind: EntryKind
    """`DONE` or `FAILED`."""
    body: bytes
    """The result, or the failure, as JSON."""
    at: float
    """Seconds since the epoch."""
    source: str = ""
    """The id of the request that it answers, or of the child that ended; empty where that is not
    known. One of a command that `resume` has forgotten answers none (`rules.is_forgotten`)."""


class Start(NamedTuple):
    """Beginning of an execution."""

    execution: str
    """Its id."""
    workflow: str
    """The workflow's registered name."""
    version: int
    """The version of the code that it keeps."""
    dispatcher: str
    """The alias through which it is woken."""
    queue: str | None
    """The queue in which it is woken."""
    headers: bytes
    """Headers of its wake-ups, a JSON object: trace context."""
    input: bytes
    """The envelope that started it."""
    at: float
    """Seconds since the epoch."""
    parent: str | None = None
    """The id of the execution that awaits it."""
    parent_number: int | None = None
    """The number of the parent's command."""


class Record(NamedTuple):
    """An execution as the journal knows it."""

    id: str
    workflow: str
    version: int
    status: Status
    dispatcher: str
    queue: str | None
    headers: bytes
    input: bytes
    """The envelope that started it; empty while it is expected."""
    output: bytes | None
    """The result or the failure as JSON, once it has ended."""
    state: bytes | None
    """The state that the code has published, as JSON."""
    why: str | None
    """The reason for `failed`, `cancelled`, `terminated` or `stuck`, for people."""
    parent: str | None
    parent_number: int | None
    first: int
    """The number before the first command: 0, more after a restart."""
    head: int
    """The place of the last entry."""
    seen: int
    """The place up to which committed turns have read; `head` if no entry is unread."""
    wake_at: float | None
    """The instant of the earliest timer, in seconds since the epoch."""
    fence: int
    """Counts up with each turn."""
    generation: int
    """Counts up with each restart and resume, which number the entries anew: what was read of
    another generation says nothing about this one."""
    started_at: float
    """When its code began, or began anew after a restart: its clock starts here."""
    created_at: float
    updated_at: float
    finished_at: float | None


class Refusal(StrEnum):
    """Reason why no turn is taken or committed."""

    HELD = "held"
    """Another worker is at it, and looks again before it leaves."""
    MISSING = "missing"
    """There is no such execution."""
    ENDED = "ended"
    """It has ended."""
    SUPERSEDED = "superseded"
    """Another turn has begun since, or it was released: this one has no effect."""
    LIMIT = "limit"
    """The commit went beyond a limit: nothing of it is recorded, the execution is now `STUCK`, and
    `Record.why` names the limit and the cure."""


class WakeUp(NamedTuple):
    """An execution that wants a turn, and the way to it."""

    execution: str
    workflow: str
    dispatcher: str
    queue: str | None
    headers: bytes
    why: str = "answer"
    """`answer`, `timer`, `unread`, `orphaned` or `unsent`."""


class Turn(NamedTuple):
    """An execution in the hands of a worker."""

    record: Record
    """The execution, as it was when the turn was taken."""
    owner: str
    """The worker's name of the turn."""
    fence: int
    """Its number; a commit under an older one is refused."""
    entries: Sequence[Entry]
    """The entries after the place that was asked for."""
    unsent: Sequence[Command] = ()
    """Commands that are recorded and were not handed over yet."""
    lost: int | None = None
    """Turns that ended with their workers since the last commit: taken, and neither committed nor
    released. None where the journal has not recorded that this turn is taken, and cannot know."""
    follows: str | None = None
    """The owner of the turn that was recorded last. None where the fence tells it, as each turn is
    recorded when it is taken: of those that are only read, several have the same fence."""


class Commit(NamedTuple):
    """Changes that a turn asks to be recorded, all or nothing."""

    at: float
    """Seconds since the epoch."""
    seen: int
    """The place of the last entry that the turn has fed to the code."""
    commands: Sequence[Command] = ()
    """New commands; those in `LEAVING` become unsent."""
    answers: Sequence[tuple[int, Answer]] = ()
    """Answers of local steps, by the number of their command."""
    status: Status = Status.RUNNING
    """The status afterwards. An end answers the parent's command, if there is one."""
    output: bytes | None = None
    """With an end: result or failure as JSON."""
    state: bytes | None = None
    """The state that the code has published; None leaves it as it is."""
    why: str | None = None
    """With `FAILED`, `CANCELLED` and `STUCK`: the reason, for people."""
    wake_at: float | None = None
    """The instant of the earliest timer that is open."""
    restart: bytes | None = None
    """The envelope with which the execution begins anew: its entries are deleted, the numbers of
    its commands go on, signals and cancellations after `seen` are kept. The turn is released."""
    unread: Sequence[int] = ()
    """With a restart: places up to `seen` of signals that no code has received; kept, too."""
    version: int | None = None
    """With a restart: the version on which the execution begins anew; None keeps its own."""
    keep: bool = False
    """Keep the turn even if nothing has arrived: something is left to hand over."""


class Committed(NamedTuple):
    """Answer to a commit that was recorded."""

    entries: Sequence[Entry]
    """All entries after `Commit.seen` that are not commands: what arrived meanwhile, and the turn's
    own answers, in their order."""
    kept: bool
    """The turn goes on: entries are there, or `keep` was asked for. Otherwise it is released."""
    wake: WakeUp | None = None
    """The parent, if an end has answered it; after a restart the execution itself."""


class Answered(NamedTuple):
    """Answer to an entry from outside."""

    first: bool
    """It was recorded now; False for a repetition, and where the execution has ended."""
    wake: WakeUp | None = None
    """The execution, if it wants a turn because of this and no wake-up is known to be under way."""


class Count(NamedTuple):
    """Executions of one workflow, woken through one dispatcher, that have not ended."""

    workflow: str
    """The registered name."""
    dispatcher: str
    """The alias through which they are woken."""
    running: int
    """In a turn, or about to get one."""
    parked: int
    """Waiting for an answer, a timer or a signal."""
    stuck: int
    """Waiting for other code."""


class Query(NamedTuple):
    """Choice of executions."""

    workflow: str | None = None
    """The registered name."""
    status: Sequence[Status] = ()
    """Any of these; none given are all."""
    parent: str | None = None
    """The execution whose children they are."""
    id_part: str | None = None
    """Text that the id contains."""
    limit: int = 100
    """At most so many, the youngest first."""
    before: float | None = None
    """Created before this, in seconds since the epoch."""
