"""Servers for tests: one that is there, or a private one on a port and in a folder of its own.

`redis_url()` and `rabbitmq_url()` give a server that many tests share: the one named by
`DISPATCHERS_TEST_REDIS_URL` or `DISPATCHERS_TEST_RABBITMQ_URL`, else the one on its standard local
port, else a private one that ends with this process. Tests that kill, stop or fill a server start
one of their own::

    with RedisServer() as server:
        ...
        server.kill()     # kill -9
        server.start()    # again, on the same port, with what it had kept

POSIX only, like the servers' own programs.
"""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from time import monotonic, sleep
from typing import Literal, Self

from . import processes

__all__ = [
    "MissingServerError",
    "PrivateServer",
    "RabbitMQServer",
    "RedisServer",
    "rabbitmq_url",
    "redis_url",
]

START_TIMEOUT = 60.0
"""Seconds a server gets to start: RabbitMQ takes 4, on a busy machine many more."""
STOP_TIMEOUT = 15.0
"""Seconds a server gets to stop before it is killed."""
GREETING: Mapping[str, tuple[bytes, bytes]] = {
    "redis": (b"PING\r\n", b"+PONG"),
    "rabbitmq": (b"AMQP\x00\x00\x09\x01", b"\x01\x00\x00"),
}
"""The bytes a server is sent, and the bytes its answer begins with."""
RABBITMQ_SCRIPTS = "/usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin/rabbitmq-server"
"""Debian's real script: the one on the path changes the user, and refuses others than root."""


class MissingServerError(RuntimeError):
    """There is no such server, and no program to start one."""


class PrivateServer(ABC):
    """A server as a child process, with a port and a folder of its own.

    A context manager: it is started on entry, stopped and its folder removed on exit.

    Raises:
        MissingServerError: Its program is not on this machine.
    """

    kind: str
    """`redis` or `rabbitmq`."""

    def __init__(self) -> None:
        self.program = self._program()
        self.folder = Path(tempfile.mkdtemp(prefix=f"dispatchers-{self.kind}-"))
        self.host = "127.0.0.1"
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    @abstractmethod
    def url(self) -> str:
        """Return the address for clients."""

    @abstractmethod
    def _program(self) -> str: ...

    @abstractmethod
    def _command(self) -> Sequence[str]: ...

    def _environment(self) -> Mapping[str, str]:
        return os.environ

    @property
    def pid(self) -> int | None:
        """Its process id while it runs."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start it, and wait until it answers.

        Raises:
            RuntimeError: It ended, or did not answer in time; the message has its last words.
        """
        log = self.folder / "log"
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                self._command(),
                env=dict(self._environment()),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                # A group of its own: signals reach its children, and Ctrl-C does not reach it.
                start_new_session=True,
            )
        # Until it answers, not until it accepts: a bare connection proves nothing.
        until = monotonic() + START_TIMEOUT
        while not self.answers():
            if self._process.poll() is not None or monotonic() > until:
                raise RuntimeError(f"{self.kind} did not start: {log.read_text()[-2000:]}")
            sleep(0.01)

    def stop(self) -> None:
        """End it in order (SIGTERM), and wait; what it keeps is kept."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it by `kill -9`, and wait."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """Freeze it (SIGSTOP): connections stay open, and nothing answers.

        Returns when every thread of every process of it has stopped.
        """
        if self.pid is not None:
            processes.pause(self.pid)

    def resume(self) -> None:
        """Continue a paused server; return when it answers."""
        if self.pid is not None:
            processes.resume(self.pid)
            processes.wait_until(self.answers, f"{self.kind} does not answer after its pause")

    def answers(self) -> bool:
        """Return True if the server answers now."""
        return answers(self.kind, self.host, self.port)

    def remove(self) -> None:
        """End the server if it runs, and remove its folder."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def _end(self, number: int) -> None:
        if self._process is None:
            return
        # Listed before the end: orphans have another parent, and could not be found afterwards.
        members = processes.family(self._process.pid)
        if number != signal.SIGKILL:  # which a paused process obeys as well
            processes.resume(self._process.pid)
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_TIMEOUT)
        processes.kill(members)  # a shell's children outlive it, and would answer for a while
        # A paused or stuck server was killed meanwhile; without this it would stay a zombie.
        self._process.wait()
        self._process = None


class RedisServer(PrivateServer):
    """A private `redis-server`, with an append-only file unless told otherwise.

    Args:
        keeps: `always` and `everysec` write the append-only file so often; `nothing` keeps nothing.

        settings: Further settings, as in `redis.conf`.
    """

    kind = "redis"

    def __init__(
        self,
        *,
        keeps: Literal["always", "everysec", "nothing"] = "everysec",
        settings: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__()
        self.keeps = keeps
        self.settings = dict(settings or {})

    @property
    def url(self) -> str:
        """`redis://127.0.0.1:PORT/0`."""
        return f"redis://{self.host}:{self.port}/0"

    def _program(self) -> str:
        return _found("redis-server")

    def _command(self) -> Sequence[str]:
        settings = {
            "bind": self.host,
            "port": str(self.port),
            "dir": str(self.folder),
            # No snapshots: what survives must not depend on the moment of one.
            "save": "",
            "appendonly": "no" if self.keeps == "nothing" else "yes",
            "appendfsync": "everysec" if self.keeps == "nothing" else self.keeps,
            **self.settings,
        }
        return [self.program, *(word for k, v in settings.items() for word in (f"--{k}", v))]


class RabbitMQServer(PrivateServer):
    """A private RabbitMQ, with a port mapper of its own that ends with it."""

    kind = "rabbitmq"

    def __init__(self) -> None:
        # A mapper of its own: a shared one would outlive the test and know nodes of others.
        self._mapper_program = _found("epmd")
        super().__init__()
        self._mapper: subprocess.Popen[bytes] | None = None
        self._mapper_port, self._cluster_port = free_port(), free_port()

    @property
    def url(self) -> str:
        """`amqp://guest:guest@127.0.0.1:PORT//`."""
        return f"amqp://guest:guest@{self.host}:{self.port}//"

    @property
    def node(self) -> str:
        """Its Erlang name."""
        return f"t{self.port}@localhost"

    def control(self, *arguments: str) -> str:
        """Return the output of `rabbitmqctl` with these arguments."""
        script = Path(self.program).with_name("rabbitmqctl")
        done = subprocess.run(
            [str(script), "-n", self.node, *arguments],
            env=dict(self._environment()),
            capture_output=True,
            text=True,
            timeout=START_TIMEOUT,
            check=True,
        )
        return done.stdout

    def alarm(self) -> None:
        """Raise a memory alarm, which blocks publishers; return when it is in force."""
        self._set_watermark("absolute", "1", alarm=True)

    def end_alarm(self) -> None:
        """Take the alarm back; return when it is over."""
        self._set_watermark("0.4", alarm=False)

    def _set_watermark(self, *words: str, alarm: bool) -> None:
        self.control("set_vm_memory_high_watermark", *words)
        processes.wait_until(
            lambda: ("memory" in self.control("eval", "rabbit_alarm:get_alarms().")) is alarm,
            "the memory alarm did not change",
        )

    def start(self) -> None:
        """Start the port mapper, if it does not run, and the server."""
        if self._mapper is None:
            port = str(self._mapper_port)
            self._mapper = subprocess.Popen(
                [self._mapper_program, "-port", port, "-address", self.host],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            processes.wait_until(
                lambda: _accepts(self.host, self._mapper_port), "epmd accepts no connection"
            )
        super().start()

    def remove(self) -> None:
        """End the server and the port mapper, and remove the folder."""
        super().remove()
        if self._mapper is not None:
            self._mapper.kill()
            self._mapper.wait()
            self._mapper = None

    def _program(self) -> str:
        scripts = sorted(Path("/").glob(RABBITMQ_SCRIPTS.lstrip("/")))
        return str(scripts[-1]) if scripts else _found("rabbitmq-server")

    def _command(self) -> Sequence[str]:
        return [self.program]

    def _environment(self) -> Mapping[str, str]:
        plugins = self.folder / "enabled_plugins"
        # No plugins: they would listen on ports that other servers of a test run use.
        plugins.write_text("[].")
        (self.folder / "rabbitmq.conf").write_text(f"listeners.tcp.1 = {self.host}:{self.port}\n")
        return {
            **os.environ,
            "HOME": str(self.folder),
            "RABBITMQ_NODENAME": self.node,
            "RABBITMQ_NODE_IP_ADDRESS": self.host,
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self._cluster_port),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "data"),
            "RABBITMQ_LOG_BASE": str(self.folder),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(plugins),
            # The machine's own settings, a node's name for one, must not apply.
            "RABBITMQ_CONF_ENV_FILE": os.devnull,
            "ERL_EPMD_PORT": str(self._mapper_port),
            "ERL_EPMD_ADDRESS": self.host,
        }


def redis_url() -> str:
    """A Redis that tests may share: name your keys and queues so that others' are left alone.

    Raises:
        MissingServerError: There is none, and no program to start one.
    """
    return _shared("redis", "DISPATCHERS_TEST_REDIS_URL", "redis://127.0.0.1:6379/0", 6379)


def rabbitmq_url() -> str:
    """A RabbitMQ that tests may share: name your queues so that others' are left alone.

    Raises:
        MissingServerError: There is none, and no program to start one.
    """
    standard = "amqp://guest:guest@127.0.0.1:5672//"
    return _shared("rabbitmq", "DISPATCHERS_TEST_RABBITMQ_URL", standard, 5672)


def _shared(kind: str, variable: str, standard: str, port: int) -> str:
    if named := os.environ.get(variable):
        return named
    # Asked for its protocol: another program may listen on the standard port.
    return standard if answers(kind, "127.0.0.1", port) else _private(kind).url


@cache
def _private(kind: str) -> PrivateServer:
    """The private server of this process."""
    server: PrivateServer = RedisServer() if kind == "redis" else RabbitMQServer()
    # A forked child inherits the exit function, and must not end its parent's server.
    owner = os.getpid()
    atexit.register(lambda: server.remove() if os.getpid() == owner else None)
    server.start()
    return server


def answers(kind: str, host: str, port: int) -> bool:
    """Return true if a server of this kind answers there: a bare connection proves nothing."""
    asked, expected = GREETING[kind]
    try:
        with socket.create_connection((host, port), timeout=1.0) as connection:
            connection.settimeout(5.0)
            connection.sendall(asked)
            return connection.recv(len(expected)).startswith(expected)
    except OSError:
        return False


def free_port() -> int:
    """Return a port of the loopback that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _accepts(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=1.0).close()
    except OSError:
        return False
    return True


def _found(program: str) -> str:
    path = shutil.which(program)
    if path is None:
        raise MissingServerError(f"no {program} on the path: install it, or name a server")
    return path
