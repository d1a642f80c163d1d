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
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from time import monotonic, sleep
from typing import Literal, Self

__all__ = [
    "MissingServerError",
    "PrivateServer",
    "RabbitMQServer",
    "RedisServer",
    "rabbitmq_url",
    "redis_url",
]

PATIENCE = 60.0
"""Seconds a server gets to start: RabbitMQ takes 4, on a busy machine many more."""
GRACE = 15.0
"""Seconds a server gets to stop before it is killed."""
GREETING: Mapping[str, tuple[bytes, bytes]] = {
    "redis": (b"PING\r\n", b"+PONG"),
    "rabbitmq": (b"AMQP\x00\x00\x09\x01", b"\x01\x00\x00"),
}
"""What a server is asked, and how its answer begins."""
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
        """How clients reach it."""

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
                start_new_session=True,
            )
        until = monotonic() + PATIENCE
        while not answers(self.kind, self.host, self.port):
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
        """Stop it in mid-air (SIGSTOP): connections stay open, and nothing answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused server go on."""
        self._signal(signal.SIGCONT)

    def remove(self) -> None:
        """End it if it runs, and remove its folder."""
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

    def _signal(self, number: int) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)

    def _end(self, number: int) -> None:
        if self._process is None:
            return
        self._signal(signal.SIGCONT)
        self._signal(number)
        try:
            self._process.wait(GRACE)
        except subprocess.TimeoutExpired:
            self._signal(signal.SIGKILL)
            self._process.wait()
        self._signal(signal.SIGKILL)  # what is left of its session: a shell's children
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
        """What `rabbitmqctl` says to these arguments: `set_vm_memory_high_watermark 0`, say."""
        script = Path(self.program).with_name("rabbitmqctl")
        done = subprocess.run(
            [str(script), "-n", self.node, *arguments],
            env=dict(self._environment()),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=True,
        )
        return done.stdout

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
            _wait_for(lambda: _accepts(self.host, self._mapper_port))
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
    return standard if answers(kind, "127.0.0.1", port) else _private(kind).url


@cache
def _private(kind: str) -> PrivateServer:
    """The private server of this process."""
    server: PrivateServer = RedisServer() if kind == "redis" else RabbitMQServer()
    owner = os.getpid()
    atexit.register(lambda: server.remove() if os.getpid() == owner else None)
    server.start()
    return server


def answers(kind: str, host: str, port: int) -> bool:
    """Whether a server of this kind answers there: a bare connection proves nothing."""
    asked, expected = GREETING[kind]
    try:
        with socket.create_connection((host, port), timeout=1.0) as connection:
            connection.settimeout(5.0)
            connection.sendall(asked)
            return connection.recv(len(expected)).startswith(expected)
    except OSError:
        return False


def free_port() -> int:
    """A port of the loopback that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _accepts(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=1.0).close()
    except OSError:
        return False
    return True


def _wait_for(true: Callable[[], bool]) -> None:
    until = monotonic() + PATIENCE
    while not true() and monotonic() < until:
        sleep(0.01)


def _found(program: str) -> str:
    path = shutil.which(program)
    if path is None:
        raise MissingServerError(f"no {program} on the path: install it, or name a server")
    return path
