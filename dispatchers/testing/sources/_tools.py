"""Rows, backends and observers that the cases share."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from dispatchers import forwarding
from dispatchers._dispatch.base import BaseDispatcher
from dispatchers._dispatch.protocol import Item, Sent
from dispatchers._errors import ErrorCategory, RejectedError
from dispatchers._models.capabilities import Capabilities
from dispatchers._models.envelope import encode
from dispatchers._models.request import DispatchRequest
from dispatchers.forwarding import Fate, Forwarder, HeldRow, Settled, Source, Step

from ._harness import PutRow

PATIENCE = 30.0
"""Seconds until what was to happen counts as not happening."""
POLL = 0.005
"""Seconds between two looks at what was to happen."""
MANY = 100
"""More rows than a case puts."""

Answer = Callable[[DispatchRequest], Sent | None]


def row(name: str, lane: str = "", *, deduplicate: bool = False) -> PutRow:
    """An envelope to be put."""
    request = DispatchRequest(task="shop.mail", payload={"n": 1, "text": "neu: ä"}, id=name)
    return PutRow(name, request.task, lane, encode(request), deduplicate)


def poison(name: str, lane: str = "") -> PutRow:
    """A row whose body is no envelope, and no text either."""
    return PutRow(name, "shop.mail", lane, b"\xff\x00 no envelope")


def in_lanes(*names: str) -> list[PutRow]:
    """Rows `a1`, `b1`, ... of the lanes that their first letters name."""
    return [row(name, name[0]) for name in names]


def settled(rows: Iterable[HeldRow], fate: Fate = Fate.GONE, why: str = "not now") -> list[Settled]:
    """Rows that all share one fate."""
    return [Settled(each, fate, None, "" if fate is Fate.GONE else why) for each in rows]


def watched(source: Source) -> set[str]:
    """Return the files whose lines count: those of the forwarder and of the store's class."""
    modules = {kind.__module__ for kind in type(source).__mro__} - {"builtins", "abc"}
    return {forwarding.__file__} | {
        file for name in modules if (file := getattr(sys.modules[name], "__file__", None))
    }


def taken(source: Source, limit: int = MANY) -> Sequence[HeldRow]:
    """Lead, and take what is there."""
    assert source.lead(), "nothing else drains it, and yet it does not lead"
    return source.take(limit, but_lanes=(), but_rows=())


def bodies(rows: Iterable[HeldRow | PutRow]) -> list[bytes]:
    """The bodies of rows."""
    return [each.body for each in rows]


def take_it(request: DispatchRequest) -> None:
    """Take each request."""
    del request


class Backend(BaseDispatcher):
    """Notes what it is asked to take, and answers as the case says; it knows repeated ids."""

    name = "suite"
    contract = 1
    capabilities = Capabilities(confirmed=True, batch=True, deduplicate=True)

    def __init__(self, answer: Answer = take_it, **options: Any) -> None:
        given: dict[str, Any] = {
            "alias": "suite",
            "breaker": False,
            "deadline": PATIENCE,
            **options,
        }
        super().__init__(**given)
        self.answer = answer
        self.calls: list[tuple[str, bytes]] = []
        """The id and the body of each piece that it was asked to take."""
        self.took: list[str] = []
        """The ids that it has taken, in order, each once."""

    def _send(self, request: DispatchRequest, body: bytes, *, timeout: float) -> Sent:
        del timeout
        self.calls.append((request.id, body))
        sent = self.answer(request) or Sent(request.id)
        if request.id not in self.took:
            self.took.append(request.id)
        return sent

    def _send_many(self, items: Sequence[Item], *, timeout: float) -> Sequence[Sent | Exception]:
        return [self._tried(request, body, timeout) for request, body in items]

    def _tried(self, request: DispatchRequest, body: bytes, timeout: float) -> Sent | Exception:
        try:
            return self._send(request, body, timeout=timeout)
        except Exception as exc:  # noqa: BLE001 - the answer to one item
            return exc

    def _category(self, exc: Exception) -> ErrorCategory | None:
        del exc
        return None

    def _maybe_sent(self, exc: Exception) -> bool:
        del exc
        return True


class FileBackend(Backend):
    """Notes the id of each piece in a file, which outlives this process."""

    def __init__(self, path: Path, answer: Answer = take_it) -> None:
        super().__init__(answer)
        self.path = path

    def _send(self, request: DispatchRequest, body: bytes, *, timeout: float) -> Sent:
        sent = super()._send(request, body, timeout=timeout)
        with self.path.open("a") as file:
            file.write(f"{request.id}\n")
        return sent


def refusing_once() -> Answer:
    """Refuse the first row of each lane `b` once: it is settled as one that stays."""
    refused: set[str] = set()

    def answer(request: DispatchRequest) -> None:
        if request.id.startswith("b") and request.id.endswith("-0") and request.id not in refused:
            refused.add(request.id)
            raise RejectedError(ErrorCategory.THROTTLED, "not now")

    return answer


def noted(path: Path) -> list[str]:
    """Return the ids that a `FileBackend` has noted, each as often as it came."""
    return path.read_text().splitlines() if path.exists() else []


def drained(forwarder: Forwarder) -> None:
    """Step until nothing is held.

    Raises:
        AssertionError: It does not come to an end.
    """
    wait_until(lambda: forwarder.step() is Step.EMPTY, "what is held does not leave")


def wait_until(true: Callable[[], bool], otherwise: str) -> None:
    """Wait until something is true.

    Raises:
        AssertionError: It was not in time; `otherwise` is the message.
    """
    until = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < until, otherwise
        time.sleep(POLL)


def lanes_in_order(arrived: Sequence[str], put: Sequence[PutRow]) -> None:
    """Check that each row arrived, and those of a lane in the order in which they were put.

    Raises:
        AssertionError: One is missing, or came before an earlier one of its lane.
    """
    first = list(dict.fromkeys(arrived))
    for lane in {each.lane for each in put}:
        wanted = [each.id for each in put if each.lane == lane]
        assert [each for each in first if each in wanted] == wanted, f"lane {lane!r}"
