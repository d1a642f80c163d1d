"""The dead letters of the selected target, wherever its dispatchers keep them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Literal, NamedTuple, NoReturn, TypeVar

from dispatchers._config.api import get_dispatcher, state
from dispatchers._config.layers import DEFAULT
from dispatchers._dispatch.base import BaseDispatcher
from dispatchers._dispatch.protocol import Dispatcher
from dispatchers._errors import ConfigurationError
from dispatchers._models.dead_letter import DeadLetter, DeadLetterStore
from dispatchers._models.envelope import EnvelopeError, decode
from dispatchers._models.response import DispatchStatus
from dispatchers._runtime.importing import cause
from dispatchers._stores.loading import dead_letters
from dispatchers.forwarding import Fate, fate_of, reason_of
from dispatchers.frameworks import dispatcher_for

from ._places import dispatchers, places

__all__ = [
    "Found",
    "LetterStore",
    "Result",
    "find",
    "letter_stores",
    "matching",
    "replay",
]

T = TypeVar("T")

PAGE = 500
"""Letters that are asked for first, each with its envelope."""
SHOWN = 3
"""Ids that the message about an ambiguous one names."""
ENDPOINT = "[endpoint]"
"""The name of the endpoint's store, as an alias."""
KNOWN = (
    "the backend knows its key already: the work is there, or ran; "
    "wait until it forgets the key, or delete the letter"
)


class LetterStore:
    """Store of dead letters, whose errors are one line.

    Args:
        owner: The dispatcher whose work it keeps, or `[endpoint]`.

        store: The store.

        dispatcher: The alias to replay through, for work whose task is not known here.
    """

    def __init__(self, owner: str, store: DeadLetterStore, dispatcher: str = DEFAULT) -> None:
        self.owner = owner
        self.store = store
        self.dispatcher = dispatcher

    def list(self, *, limit: int, task: str | None, queue: str | None) -> list[DeadLetter]:
        """The newest letters first."""
        return self._ask(lambda: self.store.list(limit=limit, task=task, queue=queue))

    def get(self, id: str) -> DeadLetter | None:  # noqa: A002 - the protocol's word
        """One letter."""
        return self._ask(lambda: self.store.get(id))

    def edit(self, id: str, body: bytes) -> bool:  # noqa: A002
        """Replace the envelope of a letter."""
        return self._ask(lambda: self.store.edit(id, body))

    def delete(self, id: str) -> bool:  # noqa: A002
        """Forget a letter."""
        return self._ask(lambda: self.store.delete(id))

    def replay(self, id: str) -> bool | None:  # noqa: A002
        """Have the store requeue the letter itself; None if it cannot."""
        # Optional: a store that is a queue can move the work in one step, where no crash comes
        # between.
        own: Callable[[str], bool] | None = getattr(self.store, "replay", None)
        return None if own is None else self._ask(lambda: own(id))

    def _ask(self, call: Callable[[], T]) -> T:
        try:
            return call()
        except Exception as exc:
            raise ConfigurationError(
                f"the dead letters of {self.owner!r} could not be asked: {cause(exc)}"
            ) from exc


class Found(NamedTuple):
    """A letter and where it lies."""

    where: LetterStore
    letter: DeadLetter


class Result(NamedTuple):
    """Result of acting on one letter."""

    id: str
    word: Literal["replayed", "deleted", "kept"]
    message: str = ""


def letter_stores(alias: str | None = None) -> list[LetterStore]:
    """Return the stores of the target, or those of one alias.

    Raises:
        ConfigurationError: None keeps dead letters, or one cannot be opened.
    """
    if alias == ENDPOINT:
        return [*_of_endpoint()] or _refuse("[endpoint] keeps no dead letters: set dead_letters")
    named = dispatchers() if alias is None else {alias: get_dispatcher(alias)}
    every = [*_of_dispatchers(named), *(_of_endpoint() if alias is None else ())]
    found: list[LetterStore] = []
    for each in every:
        # By identity: two aliases may share one store, whose letters would be shown twice.
        if all(each.store is not known.store for known in found):
            found.append(each)
    return found or _refuse(_none(named))


def _of_dispatchers(named: dict[str, BaseDispatcher]) -> Iterator[LetterStore]:
    """Return the store of each place that work goes to."""
    # By place: aliases of one queue would list its letters several times.
    for alias, *_ in places(named):
        if (store := named[alias]._dead_letters()) is not None:
            yield LetterStore(alias, store, alias)


def _of_endpoint() -> Iterator[LetterStore]:
    """Return the store of the worker's HTTP endpoint."""
    configuration = state.snapshot.configuration
    if not configuration.settings.endpoint:
        return
    spec = configuration.endpoint().dead_letters
    if spec is not None:
        yield LetterStore(ENDPOINT, dead_letters(spec))


def _refuse(message: str) -> NoReturn:
    raise ConfigurationError(message)


def _none(named: dict[str, BaseDispatcher]) -> str:
    aliases = ", ".join(f"{alias!r} ({each.name})" for alias, each in named.items())
    return (
        f'nothing keeps dead letters of {aliases}: set dead_letters = "sqlite:PATH" '
        "for the dispatcher, or for [endpoint]"
    )


def find(id: str, alias: str | None = None) -> Found:  # noqa: A002
    """Return the letter of an id, or of its unique beginning.

    Raises:
        ConfigurationError: There is none, or there are several.
    """
    stores = letter_stores(alias)
    for where in stores:
        # The whole id first: it may also be the beginning of another.
        if (letter := where.get(id)) is not None:
            return Found(where, letter)
    return _only(
        [each for each in _all_of(stores, None, None) if each.letter.id.startswith(id)], id
    )


def _only(found: Sequence[Found], prefix: str) -> Found:
    if len(found) == 1:
        return found[0]
    if not found:
        _refuse(f"there is no dead letter {prefix!r}: see dispatchers dead list")
    ids = ", ".join(each.letter.id for each in found[:SHOWN])
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    _refuse(f"{len(found)} dead letters begin with {prefix!r}, {ids}{more}: write more of the id")


def matching(
    alias: str | None, *, task: str | None, queue: str | None, limit: int | None
) -> Iterator[Found]:
    """Return letters newest first, also while those that came before are removed."""
    return islice(_all_of(letter_stores(alias), task, queue), limit)


def _all_of(stores: Iterable[LetterStore], task: str | None, queue: str | None) -> Iterator[Found]:
    """Return the letters of every store, each once."""
    known: set[str] = set()
    for where in stores:
        for letter in _each(where, task, queue):
            if letter.id not in known:
                known.add(letter.id)
                yield Found(where, letter)


def _each(where: LetterStore, task: str | None, queue: str | None) -> Iterator[DeadLetter]:
    seen: set[str] = set()
    kept = 0
    while True:
        # A store knows no page but the newest: twice as many each time reads each letter twice at
        # most, where a page more each time would read a hundred thousand of them ten million times.
        page = where.list(limit=max(PAGE, 2 * kept), task=task, queue=queue)
        fresh = [letter for letter in page if letter.id not in seen]
        if not fresh:
            return
        seen.update(letter.id for letter in fresh)
        yield from fresh
        kept = sum(where.get(letter.id) is not None for letter in fresh) + kept


# Replay.


def replay(found: Found) -> Result:
    """Dispatch a letter again, and remove it once that is accepted."""
    number = found.letter.id
    try:
        gone = found.where.replay(number)
        if gone is None:
            return _dispatched(found)
    except ConfigurationError as exc:
        return Result(number, "kept", str(exc))
    if gone:
        return Result(number, "replayed")
    return Result(number, "kept", "it has been replayed or deleted meanwhile")


def _dispatched(found: Found) -> Result:
    letter = found.letter
    try:
        request = decode(letter.body).as_new()
    except EnvelopeError as exc:
        return Result(letter.id, "kept", f"{exc}: it can only be deleted")
    response = _dispatcher_of(found).dispatch(request)
    # Deleted only when the backend has the work: a crash in between replays it twice.
    if fate_of(response) is not Fate.GONE:
        return Result(letter.id, "kept", reason_of(response))
    # The backend may know the key only because the work ran, and died, under it.
    if response.status is DispatchStatus.DUPLICATE:
        return Result(letter.id, "kept", KNOWN)
    found.where.delete(letter.id)
    return Result(letter.id, "replayed", str(response.status))


def _dispatcher_of(found: Found) -> Dispatcher:
    """Return the dispatcher to replay a letter through."""
    if found.where.owner != ENDPOINT:
        return get_dispatcher(found.where.dispatcher)
    return dispatcher_for(found.letter.task)
