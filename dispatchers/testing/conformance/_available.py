"""C12: available is cheap; `check` is for start-up, and raises."""

from __future__ import annotations

import socket
import time

import pytest

from dispatchers import ConfigurationError
from dispatchers.testing import FaultProxy
from dispatchers.testing.harness import Harness
from dispatchers.testing.journal import Journal

from ._never_hangs import proxied
from ._tools import DEADLINE, PATIENCE, answered, send

__all__ = ["KnowsItself"]


class KnowsItself:
    """C12, from outside."""

    def test_available_is_a_word(self, harness: Harness) -> None:
        """C12: `is_available` says yes or no, of the class as of an instance."""
        dispatcher = harness.dispatcher()

        assert type(dispatcher).is_available() is True
        assert dispatcher.is_available() is True

    def test_nothing_is_contacted_before_the_first_dispatch(self, harness: Harness) -> None:
        """C12: constructing, `is_available` and `check` without contact connect to nobody."""
        with proxied(harness) as (proxy, dispatcher):
            dispatcher.is_available()
            dispatcher.check()

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
            up = [send(dispatcher, journal) for _ in range(3)]
            dispatcher.close(0.5)

        assert not down.ok
        assert up[-1].ok

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


def _connections(proxy: FaultProxy) -> int:
    """How many there were; those that came before ours have been counted when ours is."""
    before = time.monotonic()
    with socket.create_connection(proxy.address, PATIENCE) as ours:
        ours.sendall(b"\0")
        while proxy.request_bytes == 0 and time.monotonic() < before + PATIENCE:
            time.sleep(0.005)
    return proxy.connections - 1
