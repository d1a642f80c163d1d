"""Acts of other processes in the cases; each opens the journal for itself."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import Connection
from time import monotonic
from typing import Any

from dispatchers.journals import Journal, Status
from dispatchers.testing import _others

from ._calls import PATIENCE, Calls, child, done, local, send, step

Act = Callable[[Calls, int], Any]


@contextmanager
def others(opener: Callable[[], Journal], act: Act, count: int) -> Generator[list[_others.Other]]:
    """Start processes that have the journal open, and wait for their beginning."""
    with _others.others(partial(_opened, opener), partial(_silent, act), count) as started:
        yield started


def _opened(opener: Callable[[], Journal]) -> Calls:
    journal = opener()
    journal.look("none", timeout=PATIENCE)
    return Calls(journal)


def _silent(act: Act, calls: Calls, line: Connection, index: int) -> object:
    del line
    return act(calls, index)


# Acts: functions of this module, as other processes get them pickled.


def begin_many(calls: Calls, index: int) -> list[bool]:
    """Begin twenty executions that others begin, too."""
    return [calls.begin(f"shop.checkout/{n}", input=b"%d" % index).first for n in range(20)]


def answer_many(calls: Calls, index: int) -> list[bool]:
    """Answer fifty commands that others answer, too."""
    return [calls.answer(number, b"%d" % index).first for number in range(1, 51)]


def signal_many(calls: Calls, index: int) -> int:
    """Deliver signals that no others deliver."""
    return sum(calls.deliver(f"{index}-{number}").first for number in range(25))


def take_one(calls: Calls, index: int) -> tuple[str, float, float]:
    """Take a turn: `turn`, or the refusal; and from when until when."""
    begun = monotonic()
    found = calls.try_take(wakeup=f"message-{index}")
    return found.value if isinstance(found, str) else "turn", begun, monotonic()


def claim_one(calls: Calls, index: int) -> str:
    """Claim one step."""
    return calls.journal.claims.claim("shop.checkout/1/1", f"run-{index}", 60).state


CALLS = ("begin", "take", "commit", "sent", "answer", "deliver", "end", "resume", "terminate")
"""Calls in the midst of which a process is killed, in the order of `live`."""


def live(calls: Calls, index: int) -> None:
    """Live through executions until killed; each call is announced on standard output."""
    number = 0
    while True:
        number += 1
        _live_once(calls, f"shop.checkout/{index}-{number}")


def _live_once(calls: Calls, name: str) -> None:
    say = _Line.say
    say("begin", name)
    calls.begin(name, input=b"start")
    say("take", name)
    turn = calls.take(name)
    say("commit", name)
    answers = [(3, done(b"three"))]
    calls.commit(turn, step(1), child(2), local(3), send(4), answers=answers, state=b"one")
    say("sent", name)
    calls.sent(1, 2, execution=name)
    say("answer", name)
    calls.answer(1, b"one", name)
    say("deliver", name)
    calls.deliver("a", b"a", name)
    say("end", name)
    last = calls.look(name).head
    calls.commit(turn, seen=last, status=Status.FAILED, output=b"{}", why="x")
    say("resume", name)
    calls.resume(name)
    say("terminate", name)
    calls.terminate(name)


class _Line:
    """The line to the case; one for the process."""

    number = -1

    @classmethod
    def say(cls, call: str, name: str) -> None:
        os.write(cls.number, f"{call} {name}\n".encode())


def live_loudly(calls: Calls, index: int, path: str) -> None:
    """As `live`; announces each call in a file."""
    _Line.number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    live(calls, index)
