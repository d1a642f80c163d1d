"""C12: available is cheap; `check` is for start-up, and raises."""

from __future__ import annotations

import socket
import time
from datetime import timedelta

import pytest

from dispatchers import BaseDispatcher, ConfigurationError, Stats
from dispatchers.testing._proxy import FaultProxy
from dispatchers.testing.harness import Harness
from dispatchers.testing.journal import Journal

from ._never_hangs import proxied
from ._tools import DEADLINE, PATIENCE, answered, eventually, opened, send

__all__ = ["KnowsItself"]


class KnowsItself:
    """C12, from outside."""

    def test_available_is_a_word(self, harness: Harness) -> None:
        """C12: `is_available` says yes or no, of the class as of an instance."""
        dispatcher = harness.dispatcher()

        assert type(dispatcher).is_available() is True
        assert dispatcher.is_available() is True

    def test_nothing_is_contacted_before_the_first_dispatch(self, harness: Harness) -> None:
        """C12: constructing, `is_available` and `check` without contact open no connection."""
        with proxied(harness) as (proxy, dispatcher):
            dispatcher.is_available()
            dispatcher.check()

            # Counted at the proxy: what the client says of itself proves nothing.
            assert _connections(proxy) == 0

    def test_it_can_be_built_with_nobody_there(self, harness: Harness, journal: Journal) -> None:
        """C12: a server that is down at start-up is an answer later, not an exception now."""
        harness.need("network")
        host, port = harness.upstream
        with FaultProxy(host, port) as proxy:
            proxy.refuse()

            dispatcher = answered(DEADLINE, lambda: harness.dispatcher_at(*proxy.address))
            down = send(dispatcher, journal)
            proxy.heal()
            for _ in range(2):  # the first one may still find what the failure has left behind
                send(dispatcher, journal)
            opened(dispatcher, journal)
            dispatcher.close(0.5)

        assert not down.ok

    def test_a_sound_dispatcher_passes_its_check(self, harness: Harness) -> None:
        """C12: `check` says nothing where there is nothing to say, with contact or without."""
        dispatcher = harness.dispatcher()

        dispatcher.check()
        dispatcher.check(contact=True)

    def test_a_check_with_contact_finds_nobody(self, harness: Harness) -> None:
        """C12: a server that cannot be reached fails the check, within the deadline."""
        with proxied(harness) as (proxy, dispatcher):
            proxy.refuse()

            with pytest.raises(ConfigurationError):
                answered(DEADLINE, lambda: dispatcher.check(contact=True))

    def test_figures_count_what_waits(self, harness: Harness, journal: Journal) -> None:
        """C12: `stats()` counts accepted work in its queue, and tells zero from unknown."""
        harness.need("stepping")
        dispatcher = harness.dispatcher()
        _can_count(dispatcher)
        before = _held(dispatcher)

        for _ in range(2):
            send(dispatcher, journal).raise_for_error()
        # A broker counts in its own time; figures of this process must be right at once.
        eventually(lambda: _held(dispatcher) == before + 2, None if harness.has("network") else 0.0)

        for each in dispatcher.stats():
            assert isinstance(each, Stats)
            assert all(number is None or number >= 0 for number in each[1:6]), each
            assert each.at.utcoffset() == timedelta(0)

    def test_figures_of_nobody_are_an_empty_list(self, harness: Harness) -> None:
        """C12: a server that does not answer costs `stats()` its timeout, and raises nothing."""
        with proxied(harness) as (proxy, dispatcher):
            _can_count(dispatcher)
            proxy.black_hole()

            assert answered(DEADLINE, lambda: dispatcher.stats(timeout=DEADLINE)) == []

    def test_a_wrong_option_raises_at_once(self, harness: Harness) -> None:
        """C12: a misspelt option is an error of the constructor, which names it."""
        with pytest.raises(ConfigurationError, match="deadlin"):
            harness.dispatcher(deadlin=1.0)

    def test_what_it_is_can_be_read(self, harness: Harness) -> None:
        """C12: name, contract number and options are there for `dispatchers list` to show."""
        dispatcher = harness.dispatcher(alias="somewhere")

        assert dispatcher.alias == "somewhere"
        assert dispatcher.name == type(dispatcher).name
        assert type(dispatcher).contract == 1
        assert set(type(dispatcher).Options.model_fields) >= {"deadline", "waive", "queue"}


def _can_count(dispatcher: BaseDispatcher) -> None:
    if not dispatcher.capabilities.stats:
        assert dispatcher.stats() == []
        pytest.skip(f"{dispatcher.name} cannot say how much waits")


def _held(dispatcher: BaseDispatcher) -> int:
    """Count the work that is there, delayed and running work included."""
    found = dispatcher.stats(timeout=PATIENCE)
    return sum((each.waiting or 0) + (each.running or 0) + (each.delayed or 0) for each in found)


def _connections(proxy: FaultProxy) -> int:
    """Return how many there were; earlier ones are counted by the time ours is."""
    before = time.monotonic()
    with socket.create_connection(proxy.address, PATIENCE) as ours:
        # The proxy accepts in order: once it has our byte, it has counted all that came before.
        ours.sendall(b"\0")
        while proxy.request_bytes == 0 and time.monotonic() < before + PATIENCE:
            time.sleep(0.005)
    return proxy.connections - 1
