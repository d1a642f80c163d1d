"""Canaries: names that the adapter uses although their libraries keep them private."""

from __future__ import annotations

import socket
from queue import SimpleQueue

import grpc
import pytest
from dispatchers_cloud_tasks._broker import Broker
from dispatchers_cloud_tasks._connection import Connection, OwnClient, gate
from dispatchers_cloud_tasks._options import CloudTasksOptions


def test_private_parts_of_grpc_are_there() -> None:
    """C8: the lock and the state of a channel, without which forks and restarts go unseen."""
    channel = grpc.insecure_channel("127.0.0.1:9")
    try:
        lock = channel._connectivity_state.lock
        polling = channel._connectivity_state.polling
        state = channel._channel.check_connectivity_state(False)
    finally:
        channel.close()

    assert callable(lock.acquire)
    assert callable(lock.release)
    assert polling is False
    assert state in {each.value[0] for each in grpc.ChannelConnectivity}


def test_no_thread_of_grpc_s_is_in_a_channel_during_a_fork() -> None:
    """C8: a connection that is being made is not watched meanwhile, and its lock is held."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        channel = grpc.insecure_channel(address)
        connection = Connection(channel, address)
        state, watch = channel._connectivity_state, connection._watch

        guarded = watch in gate._locks
        held = watch.acquire(timeout=30)
        watched = state.polling, list(state.callbacks_and_connectivities)
        watch.release()
        again = len(state.callbacks_and_connectivities)
        connection.retire()

    assert (guarded, held, watched, again) == (True, True, (False, []), 1)


def test_a_channel_is_asked_for_its_state_within_the_gate() -> None:
    """C8: gRPC takes a lock for that which a child, forked meanwhile, would wait for."""
    inside: list[int] = []

    class Asked(OwnClient):
        def is_alive(self) -> bool:
            inside.append(gate._inside)
            return True

    options = CloudTasksOptions(
        project="p", location="l", queue="q", worker_url="https://w", service_account=False
    )
    broker = Broker(options)
    broker._open.get(lambda: Asked(None))

    broker.connection(1.0)

    assert inside == [1]


def test_a_channel_is_closed_when_nobody_watches_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Closed before, it has gRPC's thread die with a traceback now and then."""
    channel = grpc.insecure_channel("127.0.0.1:9")
    connection = Connection(channel, "127.0.0.1:9")
    watched: SimpleQueue[bool] = SimpleQueue()
    monkeypatch.setattr(channel, "close", lambda: watched.put(channel._connectivity_state.polling))

    connection.retire()

    assert watched.get(timeout=30) is False
    monkeypatch.undo()
    channel.close()
