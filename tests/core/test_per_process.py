"""`PerProcess`: one object for each process, as clients are kept."""

from __future__ import annotations

import os
import threading
from multiprocessing import get_context

import pytest

from dispatchers.net import ForkGate, PerProcess

GATE = ForkGate()


def test_threads_that_ask_at_once_get_the_same() -> None:
    """Two clients would be two sets of connections, of which one is never closed."""
    kept, begun = PerProcess[object](GATE), threading.Barrier(4, timeout=30)
    made: list[object] = []
    found: list[object] = []

    def make() -> object:
        made.append(object())
        return made[-1]

    def ask() -> None:
        begun.wait()
        found.append(kept.get(make))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert len(made) == 1
    assert found == made * 4


def test_what_no_longer_serves_is_made_anew() -> None:
    """It is asked within the gate, as clients take locks of their own for that."""
    inside: list[int] = []

    def is_usable(found: str) -> bool:
        inside.append(GATE._inside)
        return found == "new"

    kept = PerProcess[str](GATE, is_usable)

    assert kept.get(lambda: "old") == "old"
    assert kept.get(lambda: "new") == "new"
    assert kept.get(lambda: "third") == "new"
    assert set(inside) == {1}


def test_what_making_raises_is_raised_and_tried_again() -> None:
    kept = PerProcess[str](GATE)

    with pytest.raises(ZeroDivisionError):
        kept.get(lambda: str(1 // 0))

    assert kept.get(lambda: "made") == "made"


def test_what_is_taken_is_forgotten() -> None:
    kept = PerProcess[str](GATE)
    kept.get(lambda: "first")

    assert kept.take() == "first"
    assert kept.take() is None
    assert kept.get(lambda: "second") == "second"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_makes_its_own_and_leaves_its_parents_alone() -> None:
    """C8: closing what came over a fork, or letting go of it, ends connections of the parent."""
    gone: list[str] = []

    class Client:
        def __del__(self) -> None:
            gone.append("gone")

    kept, context = PerProcess[object](GATE), get_context("fork")
    first = id(kept.get(Client))
    answers = context.SimpleQueue()

    def in_child() -> None:
        taken = kept.take()
        again = kept.get(Client)
        answers.put((taken is None, id(again) != first, list(gone)))

    child = context.Process(target=in_child)
    child.start()
    child.join(30)

    assert answers.get() == (True, True, [])
    assert id(kept.get(Client)) == first
