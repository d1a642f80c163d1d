"""A web server that answers what it is told, and keeps what it was asked."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple, Self


class Asked(NamedTuple):
    at: float
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Web:
    """Answers 200, or the next of `answers`: a status, or a status and headers."""

    def __init__(self, *answers: int | tuple[int, dict[str, str]]) -> None:
        self.answers = list(answers)
        self.asked: list[Asked] = []
        self._lock = threading.Lock()
        web = self

        class Handler(BaseHTTPRequestHandler):
            def handle_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                status, headers = web.answer(
                    Asked(time.time(), self.command, self.path, dict(self.headers), body)
                )
                text = web.text(status)
                self.send_response(status)
                for name, value in {"Content-Length": str(len(text)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(text)

            do_GET = do_POST = do_PUT = handle_any

            def log_message(self, *args: object) -> None:
                pass

        self.text: Callable[[int], bytes] = lambda _: b""
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True

    def answer(self, asked: Asked) -> tuple[int, dict[str, str]]:
        with self._lock:
            self.asked.append(asked)
            found: Any = self.answers.pop(0) if self.answers else 200
        return found if isinstance(found, tuple) else (found, {})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()


def eventually(is_so: Callable[[], object], seconds: float = 30.0) -> bool:
    """Whether it comes to be so."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if is_so():
            return True
        time.sleep(0.01)
    return bool(is_so())
