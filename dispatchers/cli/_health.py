"""Health of a worker: a file, a port, and sd_notify."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from dispatchers._errors import ConfigurationError
from dispatchers._runtime.fork import renew_after_fork

__all__ = ["Health", "notify"]

INTERVAL = 5.0
"""Seconds between two signs of life."""


class Health:
    """Tells from outside whether a worker is alive and takes work.

    Args:
        healthy: Whether the worker's own loop goes on; called from a thread of this object.

        file: A file that is written every few seconds while the worker is healthy, and removed at
            its end: a probe asks for its age.

        address: Host and port that answer 200 while the worker is healthy, else 503.
    """

    def __init__(
        self,
        healthy: Callable[[], bool],
        *,
        file: Path | None = None,
        address: tuple[str, int] | None = None,
    ) -> None:
        self._healthy = healthy
        self._file = file
        self._address = address
        self._over = threading.Event()
        self.stopping = False
        """Set when the worker is told to stop; it takes no more work."""

    @contextmanager
    def shown(self) -> Generator[None]:
        """Give signs of life during the block.

        Raises:
            ConfigurationError: The file cannot be written, or the port is taken.
        """
        server = self._server()
        self._touch()
        thread = threading.Thread(target=self._beat, name="dispatchers-health", daemon=True)
        thread.start()
        notify("READY=1")
        try:
            yield
        finally:
            notify("STOPPING=1")
            self._over.set()
            thread.join()
            if server is not None:
                server.shutdown()
                server.server_close()
            if self._file is not None:
                self._file.unlink(missing_ok=True)

    @property
    def status(self) -> str:
        """`ok`, `stopping` or `stuck`."""
        if self.stopping:
            return "stopping"
        try:
            return "ok" if self._healthy() else "stuck"
        except Exception:  # noqa: BLE001 - an adapter's own word; without it nothing is known
            return "stuck"

    def _beat(self) -> None:
        told = False
        while not self._over.wait(min(INTERVAL, watchdog_interval())):
            status = self.status
            if status == "stopping" and not told:
                told = notify("STOPPING=1")
            # A worker that is stopping still finishes its runs: systemd must not kill it for that.
            if status != "stuck":
                notify("WATCHDOG=1")
                with suppress(ConfigurationError):  # a full disk ends no worker
                    self._touch()

    def _touch(self) -> None:
        if self._file is None:
            return
        try:
            self._file.write_text(f"{json.dumps({'status': self.status, 'pid': os.getpid()})}\n")
        except OSError as exc:
            raise ConfigurationError(
                f"--health-file {str(self._file)!r} cannot be written: {exc.strerror}"
            ) from exc

    def _server(self) -> _Server | None:
        if self._address is None:
            return None
        handler = type("Handler", (_Handler,), {"health": self})
        try:
            server = _Server(self._address, handler)
        except OSError as exc:
            host, port = self._address
            where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            raise ConfigurationError(
                f"--health-port: {where} cannot be listened on: {exc.strerror}"
            ) from exc
        threading.Thread(
            target=server.serve_forever, name="dispatchers-health-port", daemon=True
        ).start()
        return server


class _Server(ThreadingHTTPServer):
    """Listens on IPv4 and IPv6 where no host is named, else on what the host is.

    Args:
        address: Host and port.

        handler: The class of the handler.
    """

    # A probe that keeps its connection open must not hold up the worker's end.
    daemon_threads = True

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        host, port = address
        # Clusters of IPv6 alone probe by IPv6.
        self._dual = not host and socket.has_dualstack_ipv6()
        self.address_family = socket.AF_INET6 if self._dual else _family(host)
        super().__init__((host, port), handler)
        renew_after_fork(self)

    def server_bind(self) -> None:
        """Take IPv4 on the socket of IPv6 as well."""
        if self._dual:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()

    def _after_fork(self) -> None:
        # A child that outlives its worker would keep the port from the next one.
        self.socket.close()


def _family(host: str) -> socket.AddressFamily:
    """Return IPv4 where the host has it."""
    found = {each[0] for each in socket.getaddrinfo(host or None, None, type=socket.SOCK_STREAM)}
    return socket.AF_INET if socket.AF_INET in found else socket.AF_INET6


class _Handler(BaseHTTPRequestHandler):
    """Answers every path alike: probes differ in what they ask for."""

    health: Health
    timeout = 10

    def do_GET(self) -> None:
        """Answer 200 while the worker takes work, else 503."""
        status = self.health.status
        body = json.dumps({"status": status, "pid": os.getpid()}).encode()
        self.send_response(200 if status == "ok" else 503)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815 - the name that http.server looks for

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Log nothing: a probe comes every few seconds."""


def notify(state: str) -> bool:
    """Tell systemd, where it started this process and asked for it: `sd_notify(3)`."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address or not hasattr(socket, "AF_UNIX"):
        return False
    if address.startswith("@"):  # an abstract address
        address = f"\0{address[1:]}"
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        # A supervisor that does not read must not hold up the worker.
        sender.setblocking(False)
        sender.sendto(state.encode(), address)
        return True
    return False


def watchdog_interval() -> float:
    """Return half of what systemd waits for, as `sd_watchdog_enabled(3)` advises."""
    text = os.environ.get("WATCHDOG_USEC", "")
    mine = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    return int(text) / 2e6 if text.isdecimal() and int(text) and mine else INTERVAL
