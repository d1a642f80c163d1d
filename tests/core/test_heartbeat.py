"""Renewing leases, each independently of the others."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

from dispatchers import Heartbeat
from dispatchers._runtime.heartbeat import Beater


def test_a_renewal_that_hangs_holds_up_no_other():
    """C10: a store that does not answer costs no other run its lease."""
    beater, released = Beater(), threading.Event()
    renewed = threading.Semaphore(0)

    def hang() -> bool:
        return released.wait(60)

    def renew() -> bool:
        renewed.release()
        return True

    slow = [beater.start(Heartbeat(hang, 0.01)) for _ in range(5)]
    quick = beater.start(Heartbeat(renew, 0.01))

    assert all(renewed.acquire(timeout=10) for _ in range(20))
    released.set()
    for beat in (*slow, quick):
        beater.stop(beat)


def test_threads_that_are_not_needed_end():
    """One thread waits for what is due next, however many leases there are."""
    beater = Beater()
    renewed = threading.Semaphore(0)

    def renew() -> bool:
        renewed.release()
        return True

    beats = [beater.start(Heartbeat(renew, 0.005)) for _ in range(20)]
    for _ in range(200):
        assert renewed.acquire(timeout=10)
    for beat in beats:
        beater.stop(beat)

    def alone() -> bool:
        with beater._changed:
            return beater._waiting <= 1 and not beater._beating

    while not alone():
        pass


def test_a_lost_lease_is_renewed_no_more():
    """C10: a claim that another has taken is not touched again."""
    beater, asked = Beater(), []
    done = threading.Event()

    def renew() -> bool:
        asked.append(1)
        return False

    def after() -> bool:
        done.set()
        return True

    lost = beater.start(Heartbeat(renew, 0.005))
    other = beater.start(Heartbeat(after, 0.1))

    assert done.wait(10)
    beater.stop(other)
    assert lost.lost
    assert asked == [1]


@pytest.mark.parametrize(
    ("main_lives", "interval", "told"),
    [
        (True, 60, ["leases are not renewed: no thread could be started: none left"]),
        (False, 60, []),
        (False, -1, ["a lease was not renewed: no thread could be started: none left"]),
    ],
)
def test_a_thread_that_cannot_be_started_is_told_where_it_is_missed(
    monkeypatch, caplog, main_lives, interval, told
):
    """From Python 3.12 on none starts while the interpreter ends; most leases need none then."""

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("none left")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    main = SimpleNamespace(is_alive=lambda: main_lives)
    monkeypatch.setattr(threading, "main_thread", lambda: main)
    beater = Beater()

    beater.stop(beater.start(Heartbeat(lambda: True, interval)))

    assert [each.getMessage() for each in caplog.records] == told
