"""The dead letters of the selected target, wherever its dispatchers keep them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple, TypeVar

from dispatchers._contract import BaseDispatcher
from dispatchers._dead import DeadLetter, DeadLetterStore
from dispatchers._envelope import EnvelopeError, decode
from dispatchers._errors import ConfigurationError
from dispatchers._instances import get_dispatcher
from dispatchers._library import cause
from dispatchers._request import DispatchRequest
from dispatchers._response import DispatchResponse, DispatchStatus
from dispatchers._stores import dead_letters

from ._places import dispatchers, places

__all__ = ["Found", "Graveyard", "Verdict", "as_new", "find", "graveyards", "matching", "replay"]

T = TypeVar("T")

PAGE = 500
"""Letters that are in memory at a time, each with its envelope."""
GONE = frozenset({DispatchStatus.ACCEPTED, DispatchStatus.EXECUTED, DispatchStatus.DEFERRED})
"""Answers after which a letter is not needed; `DUPLICATE` is none: the backend may know the key
only because the work ran, and died, under it."""


class Graveyard:
    """One store of dead letters; what it raises is told in one line.

    Args:
        dispatcher: The dispatcher whose work it keeps.

        store: The store.
    """

    def __init__(self, dispatcher: BaseDispatcher, store: DeadLetterStore) -> None:
        self.dispatcher = dispatcher
        self.store = store

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
        """Let a store that can do so put the letter back by itself; None if it cannot."""
        own: Callable[[str], bool] | None = getattr(self.store, "replay", None)
        return None if own is None else self._ask(lambda: own(id))

    def _ask(self, call: Callable[[], T]) -> T:
        try:
            return call()
        except Exception as exc:
            raise ConfigurationError(
                f"the dead letters of {self.dispatcher.alias!r} could not be asked: {cause(exc)}"
            ) from exc


class Found(NamedTuple):
    """A letter and where it lies."""

    where: Graveyard
    letter: DeadLetter


class Verdict(NamedTuple):
    """What became of one letter."""

    id: str
    word: Literal["replayed", "deleted", "kept"]
    message: str = ""


def graveyards(alias: str | None = None) -> list[Graveyard]:
    """The stores of the target, or of one of its dispatchers.

    Raises:
        ConfigurationError: None keeps dead letters.
    """
    named = dispatchers() if alias is None else {alias: get_dispatcher(alias)}
    found: list[Graveyard] = []
    for names in places(named):
        store = _store(named[names[0]])
        if store is not None and all(store is not known.store for known in found):
            found.append(Graveyard(named[names[0]], store))
    if not found:
        raise ConfigurationError(_none(named))
    return found


def _store(dispatcher: BaseDispatcher) -> DeadLetterStore | None:
    own = dispatcher._dead_letters()
    spec = dispatcher.options.dead_letters
    return dead_letters(spec) if own is None and spec is not None else own


def _none(named: dict[str, BaseDispatcher]) -> str:
    aliases = ", ".join(f"{alias!r} ({each.name})" for alias, each in named.items())
    return (
        f'nothing keeps dead letters of {aliases}: set dead_letters = "sqlite:PATH" '
        "for the dispatcher"
    )


def find(id: str, alias: str | None = None) -> Found:  # noqa: A002
    """The letter of that id.

    Raises:
        ConfigurationError: There is none.
    """
    for where in graveyards(alias):
        if (letter := where.get(id)) is not None:
            return Found(where, letter)
    raise ConfigurationError(f"there is no dead letter {id!r}: see dispatchers dead list")


def matching(
    alias: str | None, *, task: str | None, queue: str | None, limit: int | None
) -> Iterator[Found]:
    """Letters newest first, also while those that came before are removed."""
    left = limit if limit is not None else 2**63
    for where in graveyards(alias):
        for letter in _each(where, task, queue):
            if left <= 0:
                return
            left -= 1
            yield Found(where, letter)


def _each(where: Graveyard, task: str | None, queue: str | None) -> Iterator[DeadLetter]:
    seen: set[str] = set()
    kept = 0
    while True:
        page = where.list(limit=kept + PAGE, task=task, queue=queue)
        fresh = [letter for letter in page if letter.id not in seen]
        if not fresh:
            return
        seen.update(letter.id for letter in fresh)
        yield from fresh
        kept = sum(where.get(letter.id) is not None for letter in fresh) + kept


# Replay.


def replay(found: Found) -> Verdict:
    """Dispatch a letter again under its id; it is removed only once the backend has the work."""
    number = found.letter.id
    try:
        gone = found.where.replay(number)
        if gone is None:
            return _dispatched(found)
    except ConfigurationError as exc:
        return Verdict(number, "kept", str(exc))
    if gone:
        return Verdict(number, "replayed")
    return Verdict(number, "kept", "somebody else has replayed or deleted it")


def _dispatched(found: Found) -> Verdict:
    letter = found.letter
    try:
        request = as_new(decode(letter.body))
    except EnvelopeError as exc:
        return Verdict(letter.id, "kept", f"{exc}: it can only be deleted")
    response = found.where.dispatcher.dispatch(request)
    if response.status not in GONE:
        return Verdict(letter.id, "kept", _why(response))
    found.where.delete(letter.id)
    return Verdict(letter.id, "replayed", str(response.status))


def as_new(request: DispatchRequest) -> DispatchRequest:
    """The same work, due now: somebody wants it to run, whenever it should have run before."""
    return request.replace(delay=None, eta=None, expires=None)


def _why(response: DispatchResponse) -> str:
    if (error := response.error) is not None:
        return f"{response.status} ({error.category}): {error.message}"
    return (
        "the backend knows its key already: the work is there, or ran; "
        "wait until it forgets the key, or delete the letter"
    )
