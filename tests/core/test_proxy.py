"""The fault proxy produces the faults it is named for, on command."""

from __future__ import annotations

import contextlib
import random
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dispatchers.testing._proxy import FaultProxy

GENEROUS = 30.0
SHORT = 0.2
"""Seconds that a client waits to see that nothing comes."""
linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux drops what overflows")


class Server:
    """Answers every byte with itself, and remembers what came on each connection."""

    def __init__(self) -> None:
        self.sock = socket.create_server(("127.0.0.1", 0))
        self.address = self.sock.getsockname()
        self.received: list[bytes] = []
        self.ended: list[bool] = []
        self.clients: list[socket.socket] = []
        self.threads = [threading.Thread(target=self._accept)]
        self.threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self.sock.accept()
            except OSError:
                return
            self.clients.append(client)
            self.received.append(b"")
            self.ended.append(False)
            serve = threading.Thread(target=self._serve, args=(client, len(self.received) - 1))
            self.threads.append(serve)
            serve.start()

    def _serve(self, client: socket.socket, number: int) -> None:
        try:
            while data := client.recv(65536):
                self.received[number] += data
                client.sendall(data)
            client.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        self.ended[number] = True

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()
        for client in self.clients:
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)
        for thread in self.threads:
            thread.join(GENEROUS)
        for client in self.clients:
            client.close()


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture
def proxy(server) -> Iterator[FaultProxy]:
    with FaultProxy(*server.address) as proxy:
        yield proxy


@pytest.fixture
def connect(proxy) -> Iterator[Callable[[], socket.socket]]:
    """Opens connections through the proxy, and closes them at the end."""
    clients = []

    def connect() -> socket.socket:
        client = socket.create_connection(proxy.address, timeout=GENEROUS)
        clients.append(client)
        return client

    yield connect
    for client in clients:
        client.close()


def receive(client: socket.socket, count: int) -> bytes:
    """That many bytes, or fewer if the other side ends."""
    data = b""
    while len(data) < count and (more := client.recv(count - len(data))):
        data += more
    return data


def ask(client: socket.socket, data: bytes = b"ping") -> bytes:
    client.sendall(data)
    return receive(client, len(data))


def assert_silent(client: socket.socket) -> None:
    client.settimeout(SHORT)
    with pytest.raises(TimeoutError):
        client.recv(1)
    client.settimeout(GENEROUS)


def assert_reset(client: socket.socket) -> None:
    with pytest.raises(ConnectionResetError):
        client.recv(1)


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + GENEROUS
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


class TestPass:
    def test_forwards_both_ways_and_counts(self, proxy, connect):
        """A healthy proxy is not noticed, but counts."""
        first, second = connect(), connect()

        answers = [ask(first, b"one"), ask(second, b"three")]

        assert answers == [b"one", b"three"]
        assert (proxy.connections, proxy.open_connections) == (2, 2)
        assert (proxy.request_bytes, proxy.reply_bytes) == (8, 8)
        assert proxy.mode == "pass"

    def test_forwards_the_end_of_each_direction(self, server, connect):
        """A client that has sent everything still receives the rest."""
        client = connect()
        client.sendall(b"all")
        client.shutdown(socket.SHUT_WR)

        assert receive(client, 100) == b"all"
        until(lambda: server.ended == [True])

    def test_forwards_more_than_fits_into_buffers(self, connect):
        """Whatever the sizes, every byte arrives, in order."""
        client = connect()
        data = random.Random(1).randbytes(6_000_000)
        sender = threading.Thread(target=client.sendall, args=(data,))
        sender.start()

        received = receive(client, len(data))
        sender.join()

        assert received == data

    def test_closes_what_both_ends_closed(self, proxy, connect):
        """A connection that ended is not open."""
        client = connect()
        ask(client)

        client.close()

        until(lambda: proxy.open_connections == 0)

    def test_a_server_that_is_down_resets(self, proxy, server, connect):
        """A client of a dead server sees a reset."""
        server.close()

        with pytest.raises(ConnectionResetError):
            connect().recv(1)

    def test_a_server_that_hangs_up_is_seen(self, server, connect):
        """The client sees the end that the server made."""
        client = connect()
        ask(client)

        server.clients[0].shutdown(socket.SHUT_RDWR)

        assert client.recv(1) == b""


class TestRefuse:
    def test_refuses_new_connections(self, proxy, connect):
        """Nothing listens on the port."""
        proxy.refuse()

        with pytest.raises(ConnectionRefusedError):
            connect()

    def test_resets_existing_connections(self, proxy, connect):
        """The server is gone for those who were connected, too."""
        client = connect()
        ask(client)

        proxy.refuse()

        assert_reset(client)
        assert proxy.open_connections == 0

    def test_the_port_comes_back(self, proxy, connect):
        """After `heal` the same port serves again, however often."""
        port = proxy.port
        for _ in range(5):
            proxy.refuse()
            proxy.refuse()
            proxy.heal()

        assert proxy.port == port
        assert ask(connect()) == b"ping"

    @linux
    def test_refuses_although_a_forked_child_holds_the_listener(self, proxy, connect):
        """A server process that was forked meanwhile does not keep the port open."""
        with proxy._port.sock.dup():
            proxy.refuse()

            with pytest.raises(ConnectionRefusedError):
                connect()
            proxy.heal()
            assert ask(connect()) == b"ping"


class TestBlackHole:
    def test_accepts_and_never_answers(self, proxy, server, connect):
        """New connections succeed, what is sent on them is swallowed."""
        proxy.black_hole()
        client = connect()
        client.sendall(b"work")

        assert_silent(client)
        assert server.received == []

    def test_swallows_on_existing_connections(self, proxy, server, connect):
        """What is sent on an existing connection does not reach the server either."""
        client = connect()
        ask(client, b"before")

        proxy.black_hole()
        client.sendall(b"work")

        assert_silent(client)
        assert server.received == [b"before"]
        assert proxy.request_bytes == 6

    def test_swallows_replies(self, proxy, server, connect):
        """What the server sends does not reach the client."""
        client = connect()
        ask(client)

        proxy.black_hole()
        server.clients[0].sendall(b"news")

        assert_silent(client)

    def test_takes_more_than_fits_into_buffers(self, proxy, connect):
        """A client can send without end and never notices."""
        proxy.black_hole()

        connect().sendall(bytes(6_000_000))

    def test_healing_resets_where_bytes_were_swallowed(self, proxy, connect):
        """A stream with a gap is not continued."""
        client = connect()
        ask(client)
        proxy.black_hole()
        client.sendall(b"work")
        assert_silent(client)

        proxy.heal()

        assert_reset(client)
        assert ask(connect()) == b"ping"

    def test_healing_continues_where_nothing_was_swallowed(self, proxy, connect):
        """A connection that was quiet meanwhile lives on; one made meanwhile begins to."""
        old = connect()
        ask(old)
        proxy.black_hole()
        new = connect()
        until(lambda: proxy.connections == 2)

        proxy.heal()

        assert [ask(old), ask(new)] == [b"ping"] * 2

    @linux
    def test_can_refuse_to_accept(self, proxy, connect):
        """With `accept=False` connecting itself hangs."""
        proxy.black_hole(accept=False)

        for _ in range(3):
            with socket.socket() as client:
                client.settimeout(SHORT)
                with pytest.raises(TimeoutError):
                    client.connect(proxy.address)
        assert proxy.connections == 0

    @linux
    def test_can_refuse_to_accept_on_top_of_existing_connections(self, proxy, connect):
        """Existing connections are swallowed as well."""
        client = connect()
        ask(client)

        proxy.black_hole(accept=False)
        client.sendall(b"work")

        assert_silent(client)

    @linux
    @pytest.mark.parametrize("cure", ["heal", "black_hole"])
    def test_accepts_again_afterwards(self, proxy, connect, cure):
        """Switching on lets new connections in, and counts only those of clients."""
        proxy.black_hole(accept=False)
        proxy.black_hole(accept=False)

        getattr(proxy, cure)()

        connect()
        until(lambda: proxy.connections == 1)

    @linux
    def test_refuses_after_it_ignored(self, proxy, connect):
        """From one fault to the next without healing."""
        proxy.black_hole(accept=False)
        proxy.refuse()
        with pytest.raises(ConnectionRefusedError):
            connect()
        proxy.heal()

        assert ask(connect()) == b"ping"

    @linux
    def test_lets_in_who_waited_meanwhile(self, proxy, server):
        """A client that got into the backlog between our own connections is served."""
        with socket.create_server(("127.0.0.1", 0)) as other:
            client = socket.create_connection(other.getsockname(), timeout=GENEROUS)
            proxy.black_hole(accept=False)
            proxy._port._left_over.append(other.accept()[0])

        proxy.heal()

        with client:
            assert ask(client) == b"ping"
        assert proxy.connections == 1

    def test_needs_no_server(self):
        """A proxy without an upstream server is a black hole from the beginning."""
        with FaultProxy() as hole, socket.create_connection(hole.address) as client:
            client.sendall(b"work")

            assert_silent(client)
            hole.reset()
            assert_reset(client)


class TestReset:
    def test_resets_existing_and_new_connections(self, proxy, connect):
        """Who is connected is reset, who connects as well."""
        client = connect()
        ask(client)

        proxy.reset()

        assert_reset(client)
        with pytest.raises(ConnectionResetError):
            connect().recv(1)

    def test_the_server_sees_an_orderly_end(self, proxy, server, connect):
        """It is the client that is to be troubled."""
        ask(connect())

        proxy.reset()

        until(lambda: server.ended == [True])


class TestRestart:
    def test_ends_existing_connections_in_order_and_forwards_new_ones(self, proxy, connect):
        """A client sees what it sees of a server that was stopped and started."""
        client = connect()
        ask(client)

        proxy.restart()

        assert client.recv(1) == b""
        assert ask(connect()) == b"ping"
        assert proxy.mode == "pass"


class TestCut:
    @pytest.mark.parametrize("after", [0, 1, 5])
    def test_lets_so_many_bytes_of_the_reply_through(self, proxy, server, connect, after):
        """The reply is cut after n bytes, and the request has arrived whole."""
        client = connect()
        proxy.cut(after=after)
        client.sendall(b"request")

        assert receive(client, after) == b"request"[:after]
        assert_reset(client)
        assert server.received == [b"request"]
        assert proxy.reply_bytes == after

    @pytest.mark.parametrize("after", [0, 1, 5])
    def test_lets_so_many_bytes_of_the_request_through(self, proxy, server, connect, after):
        """The server gets n bytes and then an orderly end."""
        client = connect()
        ask(client, b"hello")
        proxy.cut(after=after, direction="request")
        client.sendall(b"request")

        until(lambda: server.ended == [True])
        assert server.received == [b"hello" + b"request"[:after]]
        assert proxy.request_bytes == 5 + after

    def test_can_end_in_order(self, proxy, connect):
        """With `how="close"` the client sees the end of the stream."""
        client = connect()
        proxy.cut(after=3, how="close")

        client.sendall(b"request")

        assert receive(client, 100) == b"req"

    def test_a_message_that_fits_passes(self, proxy, connect):
        """The cut is in place of the byte after the last one."""
        client = connect()
        proxy.cut(after=4)

        assert ask(client, b"ping") == b"ping"
        client.sendall(b"more")
        assert_reset(client)

    def test_counts_on_each_connection_from_now(self, proxy, connect):
        """Every connection has its own count, which begins with the order."""
        first, second = connect(), connect()
        ask(first, b"before")
        proxy.cut(after=2)

        for client in (first, second, connect()):
            client.sendall(b"abc")

            assert receive(client, 2) == b"ab"
            assert_reset(client)


class TestDropReply:
    def test_the_request_arrives_and_the_reply_does_not(self, proxy, server, connect):
        """Done, but the client cannot know."""
        client = connect()
        ask(client, b"before")

        proxy.drop_reply()
        client.sendall(b"work")

        assert_reset(client)
        assert server.received == [b"beforework"]

    def test_can_end_in_order(self, proxy, server, connect):
        """With `how="close"` the client sees the end of the stream."""
        client = connect()
        proxy.drop_reply(how="close")

        client.sendall(b"work")

        assert client.recv(1) == b""
        assert server.received == [b"work"]


class TestSlow:
    def test_delays_replies(self, proxy, server, connect):
        """The request goes at once, the reply so many seconds later."""
        client = connect()
        ask(client)

        proxy.delay(0.3)
        begun = time.monotonic()
        client.sendall(b"work")
        answer = receive(client, 4)
        answered = time.monotonic() - begun
        proxy.delay(10 * GENEROUS)
        client.sendall(b"more")

        until(lambda: server.received == [b"pingworkmore"])
        assert answer == b"work"
        assert answered >= 0.3

    def test_delays_requests(self, proxy, server, connect):
        """The other direction, on demand."""
        client = connect()
        ask(client)

        proxy.delay(0.3, direction="request")
        begun = time.monotonic()
        client.sendall(b"work")
        until(lambda: server.received == [b"pingwork"])

        assert time.monotonic() - begun >= 0.3

    def test_healing_sends_what_was_delayed(self, proxy, connect):
        """What was on its way arrives at once, and in order."""
        client = connect()
        proxy.delay(GENEROUS * 10)
        client.sendall(b"late")
        assert_silent(client)

        proxy.heal()

        assert ask(client, b"r") == b"l"
        assert receive(client, 4) == b"ater"

    def test_takes_no_more_than_it_can_pass_on(self, proxy, connect):
        """What waits in the proxy is bounded: the client feels it."""
        client = connect()
        proxy.delay(GENEROUS * 10, direction="request")
        client.settimeout(1.0)

        with pytest.raises(TimeoutError):
            client.sendall(bytes(100_000_000))

    def test_drips(self, proxy, connect):
        """So many bytes per second, no more."""
        client = connect()
        proxy.slow_drip(200)

        begun = time.monotonic()
        answer = ask(client, b"x" * 60)

        assert answer == b"x" * 60
        assert time.monotonic() - begun >= 0.25

    def test_drips_less_than_a_byte_at_a_time(self, proxy, connect):
        """Slow is slow: at two bytes per second the second byte takes half a second."""
        client = connect()
        proxy.slow_drip(2)

        begun = time.monotonic()
        answer = ask(client, b"xy")

        assert answer == b"xy"
        assert time.monotonic() - begun >= 0.45


class TestStall:
    def test_stops_both_ways_and_loses_nothing(self, proxy, server, connect):
        """Nothing passes until `heal`, then everything does."""
        client = connect()
        ask(client)

        proxy.stall()
        client.sendall(b"work")
        assert_silent(client)
        stalled = server.received[:]
        proxy.heal()

        assert stalled == [b"ping"]
        assert receive(client, 4) == b"work"

    def test_keeps_new_connections_open(self, proxy, server, connect):
        """They are accepted, and begin when healed."""
        proxy.stall()
        client = connect()
        client.sendall(b"work")
        assert_silent(client)
        proxy.heal()

        assert receive(client, 4) == b"work"

    def test_can_stop_in_the_middle(self, proxy, connect):
        """After so many bytes of a reply nothing passes."""
        client = connect()
        proxy.stall(after=2)
        client.sendall(b"work")

        assert receive(client, 2) == b"wo"
        assert_silent(client)
        proxy.heal()
        assert receive(client, 2) == b"rk"


class TestLife:
    def test_leaves_nothing_behind(self, server):
        """No thread, no socket, and the port is free again."""
        threads = threading.active_count()
        clients = []
        with FaultProxy(*server.address) as proxy:
            for mode in ("heal", "black_hole", "stall", "drop_reply"):
                getattr(proxy, mode)()
                clients.append(socket.create_connection(proxy.address, timeout=GENEROUS))
            proxy.heal()
            clients.append(socket.create_connection(proxy.address, timeout=GENEROUS))
            ask(clients[-1])
            proxy.black_hole(accept=False)

        for client in clients:
            client.close()
        until(lambda: all(server.ended))
        with socket.create_server(("127.0.0.1", proxy.port)):
            pass
        assert threading.active_count() <= threads + len(server.threads) - 1

    @linux
    def test_leaves_no_descriptor_behind(self):
        """Every socket it opened is closed, in whatever mode it ends."""
        count = lambda: len([*Path("/proc/self/fd").iterdir()])
        before = count()
        for mode in ("heal", "refuse", "reset", "black_hole", "stall"):
            with FaultProxy() as proxy:
                client = socket.create_connection(proxy.address, timeout=GENEROUS)
                getattr(proxy, mode)()
                client.close()
        with FaultProxy() as proxy:
            proxy.black_hole(accept=False)

        assert count() <= before  # what a former test has left may be collected meanwhile

    def test_ends_connections_when_closed(self, server):
        """Clients see the end; closing twice is harmless."""
        with FaultProxy(*server.address) as proxy:
            client = socket.create_connection(proxy.address, timeout=GENEROUS)
            ask(client)
            proxy.close()

            assert client.recv(1) == b""
            client.close()

    def test_runs_again(self, server):
        """A closed proxy can be entered again, on another port, and is healthy."""
        proxy = FaultProxy(*server.address)
        for _ in range(2):
            with proxy:
                with socket.create_connection(proxy.address, timeout=GENEROUS) as client:
                    assert ask(client) == b"ping"
                proxy.refuse()

    def test_takes_orders_only_while_it_runs(self, server):
        """Otherwise the error says what to do."""
        proxy = FaultProxy(*server.address)

        for act in (proxy.heal, proxy.stall, lambda: proxy.port):
            with pytest.raises(RuntimeError, match="context manager"):
                act()

    def test_an_address_in_use_is_an_error_that_leaves_nothing_open(self, server):
        """The system's error, at once."""
        with pytest.raises(OSError, match="in use"):
            FaultProxy(port=server.address[1]).__enter__()

    @pytest.mark.parametrize(
        "wrong",
        [
            lambda proxy: FaultProxy("127.0.0.1"),
            lambda proxy: FaultProxy(upstream_port=80),
            lambda proxy: proxy.slow_drip(0),
            lambda proxy: proxy.slow_drip(float("nan")),
            lambda proxy: proxy.delay(-1),
            lambda proxy: proxy.cut(after=-1),
            lambda proxy: proxy.stall(after=-1),
            lambda proxy: proxy.cut(after=1, direction="up"),
            lambda proxy: proxy.cut(after=1, how="politely"),
            lambda proxy: proxy.drop_reply(how="stall"),
        ],
    )
    def test_refuses_what_makes_no_sense(self, proxy, wrong):
        """A fault that would not happen is an error, not a test that passes."""
        with pytest.raises(ValueError):
            wrong(proxy)

        assert proxy.mode == "pass"

    def test_survives_any_order_of_modes_under_load(self, proxy, connect):
        """Modes may change at any moment while clients talk; healed, it works."""
        chance, stop = random.Random(2), threading.Event()
        modes = [
            proxy.heal,
            proxy.refuse,
            proxy.reset,
            proxy.black_hole,
            proxy.drop_reply,
            proxy.stall,
            lambda: proxy.cut(after=chance.randrange(9), direction="request"),
            lambda: proxy.delay(0.01),
            lambda: proxy.slow_drip(1000),
        ]

        def talk() -> None:
            while not stop.is_set():
                try:
                    with socket.create_connection(proxy.address, timeout=0.05) as client:
                        for _ in range(5):
                            ask(client)
                except OSError:
                    pass

        talkers = [threading.Thread(target=talk) for _ in range(3)]
        for talker in talkers:
            talker.start()
        for _ in range(150):
            chance.choice(modes)()
        stop.set()
        for talker in talkers:
            talker.join()
        proxy.heal()

        assert ask(connect()) == b"ping"
        until(lambda: proxy.open_connections == 1)
