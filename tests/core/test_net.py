"""Names are resolved and connections opened within a bound (C2)."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dispatchers._runtime import connect as _net
from dispatchers._runtime import resolver as _resolve
from dispatchers._runtime.connect import (
    ConnectTimeoutError,
    Resolver,
    ResolveTimeoutError,
    bounded,
    connect,
    probe,
    resolve,
)

from ..timing import within  # noqa: TID252 - as for the other cases

GENEROUS = 30.0
INDEX, ZONE = socket.if_nameindex()[0]
linux = pytest.mark.skipif(sys.platform != "linux", reason="127.0.0.2, /proc: Linux has them")
forks = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")


def entry(host: str, port: int) -> _net.Address:
    return (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port))


class NameServer:
    """Stands for `socket.getaddrinfo`; names under `silent.` are never answered."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.hosts: dict[str, list[str]] = {}
        self.released = threading.Event()
        self.begun = threading.Event()

    def __call__(self, host: str, port: int, type: int = 0) -> list[_net.Address]:  # noqa: A002
        self.asked.append(host)
        self.begun.set()
        if host.startswith("silent."):
            assert self.released.wait(GENEROUS)
        if host not in self.hosts:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [entry(address, port) for address in self.hosts[host]]


@pytest.fixture
def names(monkeypatch) -> Iterator[NameServer]:
    server = NameServer()
    server.hosts = {"up.example": ["127.0.0.1"], "silent.example": ["127.0.0.1"]}
    monkeypatch.setattr(socket, "getaddrinfo", server)
    monkeypatch.setattr(_net, "_resolver", Resolver(keep=0))
    yield server
    server.released.set()
    assert _net._resolver.close(GENEROUS) == 0


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


@pytest.fixture
def full() -> Iterator[int]:
    """The port of a listener whose backlog is full: it answers no further connection."""
    with contextlib.ExitStack() as stack:
        sock = stack.enter_context(socket.socket())
        sock.bind(("127.0.0.1", 0))
        sock.listen(0)
        for _ in range(8):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(sock.getsockname())
        yield sock.getsockname()[1]


@pytest.fixture
def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return sock.getsockname()[1]


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + GENEROUS
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


def descriptors() -> int:
    return len([*Path("/proc/self/fd").iterdir()])


def in_thread(act: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=act)
    thread.start()
    return thread


class TestResolve:
    def test_gives_what_the_system_says(self, names):
        """The entries of getaddrinfo, for stream sockets, unchanged."""
        assert resolve("up.example", 6379, timeout=GENEROUS) == [entry("127.0.0.1", 6379)]

    @pytest.mark.parametrize(
        ("host", "family", "place"),
        [
            ("127.0.0.1", socket.AF_INET, ("127.0.0.1", 80)),
            ("::1", socket.AF_INET6, ("::1", 80, 0, 0)),
            ("fe80::1%7", socket.AF_INET6, ("fe80::1", 80, 0, 7)),
            (f"fe80::1%{ZONE}", socket.AF_INET6, ("fe80::1", 80, 0, INDEX)),
        ],
    )
    def test_an_address_needs_neither_the_system_nor_a_thread(self, names, host, family, place):
        """A literal address is answered at once, as getaddrinfo would."""
        threads = threading.active_count()

        found = resolve(host, 80, timeout=GENEROUS)

        assert found == [(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", place)]
        assert names.asked == []
        assert threading.active_count() == threads

    def test_an_address_is_answered_as_the_system_does(self):
        """What is answered without the system is what the system would have said."""
        for host in ("127.0.0.1", "::1"):
            system = socket.getaddrinfo(host, 80, type=socket.SOCK_STREAM)

            assert resolve(host, 80, timeout=GENEROUS) == system

    def test_a_name_that_does_not_exist_is_the_systems_error(self, names):
        """`socket.gaierror` passes, with its code."""
        with pytest.raises(socket.gaierror) as caught:
            resolve("down.example", 80, timeout=GENEROUS)

        assert caught.value.errno == socket.EAI_NONAME

    @pytest.mark.parametrize("host", ["a" * 300, "a..b", "nul\0byte"])
    def test_what_cannot_be_a_name_does_not_exist(self, host):
        """A name the system refuses as text is `socket.gaierror` as well, not ValueError."""
        with pytest.raises(socket.gaierror):
            resolve(host, 80, timeout=GENEROUS)

    def test_a_silent_name_server_costs_the_timeout(self, names):
        """C2: DNS that never answers costs the deadline, not the resolver's own ten seconds."""
        begun = time.monotonic()
        with within(0.3), pytest.raises(ResolveTimeoutError, match=r"'silent\.example'"):
            resolve("silent.example", 80, timeout=0.3)

        assert time.monotonic() - begun >= 0.3

    def test_a_stuck_lookup_is_not_repeated(self, names):
        """C2: the hundredth caller waits its own timeout for the lookup that hangs already."""
        for _ in range(100):
            with pytest.raises(ResolveTimeoutError):
                resolve("silent.example", 80, timeout=0.002)

        assert names.asked == ["silent.example"]

    def test_a_stuck_lookup_serves_those_who_wait_when_it_is_answered(self, names):
        """Whoever still waits when a late answer comes gets it."""
        with pytest.raises(ResolveTimeoutError):
            resolve("silent.example", 80, timeout=0.01)
        found = []

        waiter = in_thread(lambda: found.append(resolve("silent.example", 80, timeout=GENEROUS)))
        until(lambda: any(v.waiting for v in _net._resolver._under_way.values()))
        names.released.set()
        waiter.join()

        assert found == [[entry("127.0.0.1", 80)]]
        assert names.asked == ["silent.example"]

    def test_lookups_at_the_same_time_are_one(self, names):
        """Many threads that ask for one name share one call, and its answer."""
        found = []
        ask = lambda: found.append(resolve("silent.example", 80, timeout=GENEROUS))
        threads = [in_thread(ask) for _ in range(8)]
        assert names.begun.wait(GENEROUS)
        until(lambda: len(_net._resolver._under_way["silent.example", 80].waiting) == 7)
        names.released.set()
        for thread in threads:
            thread.join()

        assert found == [[entry("127.0.0.1", 80)]] * 8
        assert names.asked == ["silent.example"]

    def test_those_who_share_an_error_raise_their_own(self, names):
        """Threads do not write into each other's traceback."""
        errors = []
        del names.hosts["silent.example"]

        def ask() -> None:
            with pytest.raises(socket.gaierror) as caught:
                resolve("silent.example", 80, timeout=GENEROUS)
            errors.append(caught.value)

        threads = [in_thread(ask) for _ in range(2)]
        until(lambda: any(v.waiting for v in _net._resolver._under_way.values()))
        names.released.set()
        for thread in threads:
            thread.join()

        assert errors[0] is not errors[1]
        assert errors[0].args == errors[1].args

    def test_other_names_are_resolved_while_one_hangs(self, names):
        """A silent zone does not hold up the others."""
        with pytest.raises(ResolveTimeoutError):
            resolve("silent.example", 80, timeout=0.01)

        assert resolve("up.example", 80, timeout=GENEROUS) == [entry("127.0.0.1", 80)]

    def test_too_many_names_that_hang_are_refused_at_once(self, names):
        """C2: beyond the cap of hanging names, another one costs nothing."""
        for number in range(8):
            with pytest.raises(ResolveTimeoutError):
                resolve(f"silent.{number}", 80, timeout=0.01)

        with within(0.0), pytest.raises(ResolveTimeoutError, match="8 calls"):
            resolve("up.example", 80, timeout=GENEROUS)

        assert "up.example" not in names.asked

    @pytest.mark.parametrize("timeout", [0.0, -1.0])
    def test_no_time_left_asks_nobody(self, names, timeout):
        """C2: a deadline that has passed is one, at once."""
        with pytest.raises(ResolveTimeoutError):
            resolve("up.example", 80, timeout=timeout)

        assert names.asked == []
        assert _net._resolver._under_way == {}

    @pytest.mark.parametrize("port", [0, -1, 65536, True, "80", 80.0, None])
    def test_a_port_out_of_range_is_refused(self, port):
        """The message names the host and what a port is."""
        with pytest.raises(ValueError, match="port of 'localhost'"):
            resolve("localhost", port, timeout=GENEROUS)

    @pytest.mark.parametrize("host", ["", None, b"localhost"])
    def test_an_empty_host_is_refused(self, host):
        """Neither nothing nor bytes is a host."""
        with pytest.raises(ValueError, match="host is"):
            resolve(host, 80, timeout=GENEROUS)


class TestInterruptedResolve:
    def test_one_that_never_began_is_begun_by_the_next(self, names):
        """A caller that died before its lookup began leaves nothing that others wait for."""
        resolver = _net._resolver
        orphan = _resolve._Lookup(("up.example", 80))
        resolver._under_way["up.example", 80] = orphan

        with pytest.raises(ResolveTimeoutError):
            resolve("up.example", 80, timeout=0.02)

        assert resolve("up.example", 80, timeout=GENEROUS) == [entry("127.0.0.1", 80)]

    def test_those_who_wait_for_a_dropped_one_begin_their_own(self, names):
        """Who waits for a lookup that is given up before it began does not wait in vain."""
        resolver = _net._resolver
        orphan = _resolve._Lookup(("up.example", 80))
        resolver._under_way["up.example", 80] = orphan
        found = []

        waiter = in_thread(lambda: found.append(resolve("up.example", 80, timeout=GENEROUS)))
        until(lambda: bool(orphan.waiting))
        resolver._drop(orphan)
        waiter.join()

        assert found == [[entry("127.0.0.1", 80)]]

    def test_one_that_ends_while_somebody_begins_to_wait_is_not_missed(self):
        """Who comes a moment too late to be woken sees that it ended."""
        lookup = _resolve._Lookup(("up.example", 80))
        lookup.end()

        assert lookup.wait(GENEROUS)

    @forks
    def test_a_forked_child_begins_its_own(self, names):
        """C8: a lookup that hangs in the parent is not waited for in the child."""
        with pytest.raises(ResolveTimeoutError):
            resolve("silent.example", 80, timeout=0.01)

        pid = os.fork()
        if pid == 0:
            signal.alarm(10)
            try:
                names.released.set()
                os._exit(0 if resolve("silent.example", 80, timeout=5.0) else 1)
            finally:
                os._exit(2)

        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


class TestKeeping:
    def test_an_answer_serves_again_for_a_short_time(self, names):
        """A pool that opens many connections asks once."""
        resolver = Resolver(keep=GENEROUS)

        answers = [resolver.resolve("up.example", 80, timeout=GENEROUS) for _ in range(3)]

        assert answers == [[entry("127.0.0.1", 80)]] * 3
        assert names.asked == ["up.example"]
        resolver.close(GENEROUS)

    def test_an_answer_is_forgotten_in_time(self, names, monkeypatch):
        """After that time the system is asked again: the name may have failed over."""
        resolver = Resolver(keep=3.0)
        resolver.resolve("up.example", 80, timeout=GENEROUS)
        names.hosts["up.example"] = ["127.0.0.2"]
        later = time.monotonic() + 3.1
        monkeypatch.setattr(_resolve, "monotonic", lambda: later)

        assert resolver.resolve("up.example", 80, timeout=1.0) == [entry("127.0.0.2", 80)]
        resolver.close(GENEROUS)

    def test_an_error_is_not_kept(self, names):
        """A name that appears is found by the next lookup."""
        resolver = Resolver(keep=GENEROUS)
        with pytest.raises(socket.gaierror):
            resolver.resolve("new.example", 80, timeout=GENEROUS)
        names.hosts["new.example"] = ["127.0.0.1"]

        assert resolver.resolve("new.example", 80, timeout=GENEROUS)
        resolver.close(GENEROUS)

    def test_what_is_kept_is_bounded(self, names):
        """A process that resolves names without end does not grow without end."""
        resolver = Resolver(keep=GENEROUS)
        for number in range(_resolve.KEPT_NAMES + 10):
            names.hosts[f"{number}.example"] = ["127.0.0.1"]
            resolver.resolve(f"{number}.example", 80, timeout=GENEROUS)

        assert len(resolver._kept) == _resolve.KEPT_NAMES
        resolver.close(GENEROUS)

    def test_what_a_caller_does_to_its_answer_is_his_own(self, names):
        """Callers do not share the list."""
        resolver = Resolver(keep=GENEROUS)
        for _ in range(3):
            answer = resolver.resolve("up.example", 80, timeout=GENEROUS)
            assert answer
            answer.clear()
        assert names.asked == ["up.example"]
        resolver.close(GENEROUS)


class TestConnect:
    def test_gives_a_connection(self, listener):
        """The socket is connected, and its timeout is the one that was given."""
        host, port = listener.getsockname()

        with connect(host, port, timeout=5.0) as sock:
            accepted, peer = listener.accept()
            accepted.close()

            assert peer == sock.getsockname()
            assert sock.gettimeout() == 5.0

    def test_resolves_names(self, names, listener):
        """A name is connected to like an address."""
        with connect("up.example", listener.getsockname()[1], timeout=GENEROUS) as sock:
            assert sock.getpeername() == listener.getsockname()

    def test_takes_an_infinite_timeout(self, listener):
        """No bound is a bound that never comes."""
        with connect(*listener.getsockname(), timeout=float("inf")) as sock:
            assert sock.getpeername() == listener.getsockname()

    def test_a_closed_port_is_refused(self, closed_port):
        """ConnectionRefusedError passes, and names host and port."""
        with pytest.raises(ConnectionRefusedError, match=f"127.0.0.1:{closed_port}"):
            connect("127.0.0.1", closed_port, timeout=GENEROUS)

    def test_a_black_hole_costs_the_timeout(self, full):
        """C2: a server that never answers costs the deadline."""
        begun = time.monotonic()
        with within(0.3), pytest.raises(ConnectTimeoutError, match=f"127.0.0.1:{full}"):
            connect("127.0.0.1", full, timeout=0.3)

        assert time.monotonic() - begun >= 0.3

    def test_a_silent_name_server_costs_the_timeout(self, names):
        """C2: resolution is within the same budget."""
        with within(0.3), pytest.raises(ConnectTimeoutError):
            connect("silent.example", 80, timeout=0.3)

    @pytest.mark.parametrize("timeout", [0.0, -1.0])
    def test_no_time_left_connects_to_nobody_that_must_be_waited_for(self, full, timeout):
        """C2: a deadline that has passed is one, at once."""
        with pytest.raises(ConnectTimeoutError):
            connect("127.0.0.1", full, timeout=timeout)

    @linux
    def test_an_address_that_refuses_gives_way_to_the_next(self, names, listener):
        """The addresses of a name are tried in turn."""
        names.hosts["up.example"] = ["127.0.0.9", "127.0.0.8", "127.0.0.1"]

        with connect("up.example", listener.getsockname()[1], timeout=GENEROUS) as sock:
            assert sock.getpeername() == listener.getsockname()

    @linux
    def test_an_address_that_does_not_answer_does_not_use_up_the_time(self, full, names):
        """RFC 8305: the next address is tried after a quarter of a second."""
        names.hosts["up.example"] = ["127.0.0.1", "127.0.0.2"]
        with socket.create_server(("127.0.0.2", full)) as second:
            with within(_net.STAGGER_SECONDS):
                sock = connect("up.example", full, timeout=GENEROUS)
            with sock:
                assert sock.getpeername() == second.getsockname()

    @linux
    def test_an_address_that_fails_gives_way_at_once(self, full, listener, monkeypatch):
        """RFC 8305: after a failure the next address does not wait for its turn."""
        monkeypatch.setattr(_net, "STAGGER_SECONDS", GENEROUS)
        hosts = [entry("127.0.0.1", full), entry("127.0.0.2", full)]
        race = _net._Race([*hosts, entry(*listener.getsockname())], "name")
        race._step(time.monotonic() + GENEROUS)
        race.next_start = 0.0

        begun = time.monotonic()
        with race.run(begun + GENEROUS) as sock:
            elapsed = time.monotonic() - begun

            assert sock.getpeername() == listener.getsockname()
            assert elapsed < GENEROUS / 2

    def test_many_addresses_that_do_not_answer_cost_one_timeout(self, full, names):
        """C2: all addresses of a name share one budget."""
        names.hosts["up.example"] = ["127.0.0.1"] * 3

        with within(0.6), pytest.raises(ConnectTimeoutError):
            connect("up.example", full, timeout=0.6)

    @linux
    def test_when_all_refuse_the_first_error_is_raised(self, names, closed_port):
        """The others are notes."""
        names.hosts["up.example"] = ["127.0.0.1", "127.0.0.2"]

        with pytest.raises(ConnectionRefusedError) as caught:
            connect("up.example", closed_port, timeout=GENEROUS)

        assert len(caught.value.__notes__) == 1

    def test_families_take_turns(self):
        """RFC 8305: IPv6 and IPv4 in turn, beginning with what the system puts first."""
        v6 = lambda n: (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (f"::{n}", 1, 0, 0))
        v4 = lambda n: entry(f"127.0.0.{n}", 1)

        turns = _net._alternating([v6(1), v6(2), v6(3), v4(1)])

        assert turns == [v6(1), v4(1), v6(2), v6(3)]

    @linux
    def test_leaves_no_socket_open(self, full, names):
        """Losers are closed, also when nobody won."""
        names.hosts["up.example"] = ["127.0.0.1", "127.0.0.2"]
        before = descriptors()

        with socket.create_server(("127.0.0.2", full)):
            connect("up.example", full, timeout=GENEROUS).close()
        with contextlib.suppress(ConnectTimeoutError):
            connect("127.0.0.1", full, timeout=0.05)

        assert descriptors() <= before  # what a former test has left may be collected meanwhile

    def test_a_socket_connected_to_itself_is_refused(self):
        """On the loopback a socket can be given the very port it connects to: that is no server."""
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            sock.connect(sock.getsockname())

            assert _net._is_connected_to_itself(sock)

    def test_a_machine_without_the_family_tries_the_next(self, listener):
        """An address family that this machine lacks is an address that failed."""
        unknown = (9999, socket.SOCK_STREAM, 0, "", ("nowhere", 1))
        race = _net._Race([unknown, entry(*listener.getsockname())], "name")

        with race.run(time.monotonic() + GENEROUS) as sock:
            assert sock.getpeername() == listener.getsockname()


class TestProbe:
    def test_is_quiet_where_a_server_listens(self, listener):
        """It connects, and closes."""
        probe(*listener.getsockname(), timeout=GENEROUS)

        accepted, _ = listener.accept()
        with accepted:
            assert accepted.recv(1) == b""

    def test_raises_what_connecting_raises(self, closed_port):
        """A closed port is ConnectionRefusedError."""
        with pytest.raises(ConnectionRefusedError):
            probe("127.0.0.1", closed_port, timeout=GENEROUS)


class TestBounded:
    @pytest.fixture(autouse=True)
    def fresh(self, monkeypatch) -> Iterator[None]:
        guards = _net.Guards(cap=2)
        monkeypatch.setattr(_net, "_guards", guards)
        yield
        assert guards.close(GENEROUS) == 0

    def test_a_server_that_hangs_leaves_the_others_alone(self):
        """C2: connects that hang for one server refuse none to another."""
        released = threading.Event()
        for _ in range(3):
            with pytest.raises(ConnectTimeoutError):
                bounded(lambda: released.wait(GENEROUS), timeout=0.05, to="down:1")

        assert bounded(lambda: "connection", timeout=GENEROUS, to="up:1") == "connection"
        released.set()

    def test_servers_beyond_count_are_forgotten_unless_they_hang(self):
        """A process that meets ever new servers keeps no guard for each."""
        for number in range(_net.MAX_GUARDS * 3):
            assert bounded(lambda: 5, timeout=GENEROUS, to=f"host:{number}") == 5

        assert len(_net._guards._by_server) <= _net.MAX_GUARDS

    def test_gives_what_the_client_gives(self):
        """The connection, or the client's own error."""
        assert bounded(lambda: "connection", timeout=GENEROUS) == "connection"
        with pytest.raises(ZeroDivisionError):
            bounded(lambda: 1 / 0, timeout=GENEROUS)

    def test_a_client_that_hangs_costs_the_timeout(self):
        """C2: a client without a timeout of its own has this one."""
        released = threading.Event()

        with within(0.2), pytest.raises(ConnectTimeoutError):
            bounded(lambda: released.wait(GENEROUS), timeout=0.2)
        released.set()

    def test_a_connection_that_comes_too_late_is_discarded(self):
        """Nobody waits for it any more, so it is closed; a late error needs no closing."""
        released, discarded = threading.Event(), []

        def connecting() -> str:
            released.wait(GENEROUS)
            return "connection"

        def failing() -> str:
            released.wait(GENEROUS)
            raise ConnectionResetError

        for client in (connecting, failing):
            with pytest.raises(ConnectTimeoutError):
                bounded(client, timeout=0.02, discard=discarded.append)
        released.set()
        until(lambda: all(g.abandoned == 0 for g in _net._guards._by_server.values()))

        assert discarded == ["connection"]

    def test_too_many_that_hang_refuse_the_next_at_once(self):
        """C2: the hundredth call into a client that hangs costs nothing."""
        released = threading.Event()
        for _ in range(2):
            with pytest.raises(ConnectTimeoutError):
                bounded(lambda: released.wait(GENEROUS), timeout=0.01)

        message = "no connection was tried: 2 calls"
        with within(0.0), pytest.raises(ConnectTimeoutError, match=message):
            bounded(lambda: None, timeout=GENEROUS)
        released.set()
