"""The stand-in as one object: gRPC, HTTP, deliveries, a file."""

from __future__ import annotations

import hmac
import threading
import time
from collections.abc import Callable
from concurrent import futures
from contextlib import ExitStack
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Self

import grpc

from ._delivery import Delivery
from ._http import CERTS, http_server
from ._messages import Duration, Queue
from ._misbehaviour import Misbehaviour, Orders
from ._rules import RefusedError, with_defaults
from ._service import CALLS, PREVIEW_CALLS, Calls, Service
from ._store import Store
from ._tokens import Signer, new_key

__all__ = ["StandIn"]

SERVICE = "google.cloud.tasks.v2.CloudTasks"
PREVIEW = "google.cloud.tasks.v2beta3.CloudTasks"
"""The version that tells a queue's figures."""
THREADS = 16
MESSAGE = 64 * 1024 * 1024
"""Bytes of a call that are read before the rules are applied to it."""
UNANSWERED = 3600.0
"""Seconds that a reply which is to be lost is kept back: longer than any caller waits."""


class StandIn:
    """Cloud Tasks on one machine.

    Args:
        folder: Where its file is kept; made if it is missing. A restart there loses nothing.

        host: What to listen on.

        port: gRPC's port; 0 picks a free one.

        http_port: The port of keys and control; 0 picks a free one.

        project: The project its queues belong to.

        location: Their location.

        issuer: The tokens' `iss`; None is the address of its keys.

        token: What callers must bring as `authorization: Bearer ...`; None on the loopback only.

    Raises:
        ValueError: It would listen beyond the loopback without a token.

        OSError, RuntimeError: A port is taken.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        http_port: int = 0,
        project: str = "standin",
        location: str = "local",
        issuer: str | None = None,
        token: str | None = None,
    ) -> None:
        if token is None and not _is_loopback(host):
            raise ValueError(
                f"host {host!r} is not the loopback: give a token, which callers then must bring"
            )
        self.host, self.project, self.location = host, project, location
        self._token = token
        self._orders = Orders()
        self._stopped = threading.Event()
        Path(folder).mkdir(parents=True, exist_ok=True)
        with ExitStack() as opened:  # what is open is closed if a port is taken
            self._store = Store(Path(folder) / "cloud-tasks.db")
            opened.callback(self._store.close)
            self._http = http_server(self, host, http_port)
            opened.callback(self._http.server_close)
            self._delivery = Delivery(self._store, self._token_for, self._orders)
            self._service = Service(self._store, self._delivery.wake, self._delivery.force)
            self._grpc = self._grpc_server()
            self.port = self._grpc.add_insecure_port(f"{host}:{port}")
            opened.pop_all()
        if not self._store.signing_keys():
            self._store.add_key(new_key())
        # Once the ports are open: the default has the port that was picked.
        self._issuer = issuer or self.keys_address
        self._signers = [Signer(pem, self._issuer) for pem in self._store.signing_keys()]

    def _grpc_server(self) -> grpc.Server:
        server = grpc.server(
            futures.ThreadPoolExecutor(THREADS, "standin-grpc"),
            # Without it two stand-ins could share one port, and each get half of the calls.
            options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", MESSAGE)],
        )
        handlers = (self._handlers(SERVICE, CALLS), self._handlers(PREVIEW, PREVIEW_CALLS))
        server.add_generic_rpc_handlers(handlers)
        return server

    # What its users need.

    @property
    def address(self) -> str:
        """Host and port for gRPC: the adapter's `endpoint`."""
        return f"{self.host}:{self.port}"

    @property
    def keys_address(self) -> str:
        """The HTTP address of keys and control."""
        return f"http://{self.host}:{self._http.server_address[1]}"

    @property
    def issuer(self) -> str:
        """The claim `iss` of its tokens."""
        return self._issuer

    @property
    def jwks_url(self) -> str:
        """Return the address of its tokens' keys."""
        return f"{self.keys_address}{CERTS}"

    @property
    def parent(self) -> str:
        """Return the prefix of its queues' names."""
        return f"projects/{self.project}/locations/{self.location}"

    def queue_name(self, queue: str) -> str:
        """The full name of a queue."""
        return f"{self.parent}/queues/{queue}"

    def create_queue(
        self, queue: str, *, min_backoff: float = 0.1, max_backoff: float = 3600.0
    ) -> None:
        """Make a queue, unless it is there.

        Args:
            queue: Its short name.

            min_backoff: Seconds before the second attempt.

            max_backoff: The longest wait in seconds.
        """
        if self._store.queue(self.queue_name(queue)) is None:
            made = Queue(name=self.queue_name(queue))
            made.retry_config.min_backoff.CopyFrom(_duration(min_backoff))
            made.retry_config.max_backoff.CopyFrom(_duration(max_backoff))
            self._store.put_queue(with_defaults(made))

    def tasks(self, queue: str) -> list[Any]:
        """The tasks that a queue holds, as protocol buffers, in the order they were made."""
        return [task for _, task in self._store.tasks(self.queue_name(queue))]

    def misbehave(self, orders: Misbehaviour | None = None, /, **changes: Any) -> None:
        """Do something wrong from now on; nothing given is nothing wrong.

        Raises:
            pydantic.ValidationError: There is no such order.
        """
        self._orders.give(orders or Misbehaviour(**changes))
        self._delivery.wake()

    def rotate_key(self) -> None:
        """Sign with a new key from now on; the old ones are still served."""
        pem = new_key()
        self._store.add_key(pem)
        # A new list: other threads may be walking through the old one.
        self._signers = [*self._signers, Signer(pem, self._issuer)]

    def token_for(self, email: str, audience: str) -> str:
        """A token as a delivery would bring it."""
        return self._token_for(email, audience)

    # Its life.

    def start(self) -> Self:
        """Listen and deliver."""
        self._grpc.start()
        threading.Thread(
            target=self._http.serve_forever, args=(0.05,), name="standin-http", daemon=True
        ).start()
        self._delivery.start()
        return self

    def stop(self) -> None:
        """Finish what is under way, then end. What is left is in the file."""
        self._stopped.set()
        # First, so that nothing new arrives while the deliveries end.
        self._grpc.stop(grace=0).wait()
        self._http.shutdown()
        self._http.server_close()
        self._delivery.stop()
        self._store.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    # Calls.

    def _handlers(self, service: str, calls: Calls) -> grpc.GenericRpcHandler:
        return grpc.method_handlers_generic_handler(
            service,
            {
                name: grpc.unary_unary_rpc_method_handler(
                    self._call(name, call), message.FromString, _serialized
                )
                for name, (message, call) in calls.items()
            },
        )

    def _call(
        self, name: str, call: Callable[[Service, Any], Any]
    ) -> Callable[[Any, grpc.ServicerContext], Any]:
        def answer(request: Any, context: grpc.ServicerContext) -> Any:
            self._admit(context)
            # Before the call: what fails as ordered has certainly not been done.
            self._misbehaves(name, context)
            found: Any = None
            try:
                found = call(self._service, request)
            except RefusedError as exc:
                context.abort(exc.code, exc.message)
            if self._orders.takes("lose_reply"):
                self._lose(context)
            return found

        return answer

    def _admit(self, context: grpc.ServicerContext) -> None:
        if self._token is None:
            return
        given = dict(context.invocation_metadata() or ()).get("authorization", "")
        if not self.admits(str(given)):
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "the stand-in wants its token")

    def admits(self, authorization: str) -> bool:
        """Return true if the caller brings the token, where one is set."""
        if self._token is None:
            return True
        wanted = f"Bearer {self._token}"
        # In constant time, so that a token cannot be guessed by its first letters.
        return hmac.compare_digest(authorization.encode(), wanted.encode())

    def _misbehaves(self, name: str, context: grpc.ServicerContext) -> None:
        orders = self._orders.current
        if orders.answer_delay:
            self._stopped.wait(orders.answer_delay)
        if orders.refuse_batches and name.startswith("Batch"):
            context.abort(grpc.StatusCode.UNIMPLEMENTED, f"Method not found: {name}")
        if self._orders.takes("fail"):
            context.abort(grpc.StatusCode[orders.code], "as ordered")

    def _lose(self, context: grpc.ServicerContext) -> None:
        """Answer nothing as long as the caller may wait."""
        ended = threading.Event()
        context.add_callback(ended.set)
        # The server keeps one thread per call: it must become free when the caller hangs up.
        until = time.monotonic() + UNANSWERED
        while not (ended.is_set() or self._stopped.is_set()) and time.monotonic() < until:
            ended.wait(0.05)

    def _token_for(self, email: str, audience: str) -> str:
        return self._signers[-1].token(email=email, audience=audience)

    # HTTP: public keys, and control for callers with the token.

    def jwks(self) -> dict[str, object]:
        """The keys as a JSON Web Key Set."""
        return {"keys": [signer.jwk for signer in self._signers]}

    def status(self) -> dict[str, object]:
        """Return the queues, their numbers of tasks, and the orders."""
        queues = self._store.queues(f"{self.parent}/queues/")
        return {
            "address": self.address,
            "issuer": self.issuer,
            "jwks_url": self.jwks_url,
            "queues": {
                queue.name.rpartition("/")[2]: {
                    "state": Queue.State.Name(queue.state),
                    "tasks": len(self._store.tasks(queue.name)),
                }
                for queue in queues
            },
            "misbehaviour": self._orders.current.model_dump(),
        }


def _serialized(message: Any) -> bytes:
    found: bytes = message.SerializeToString()
    return found


def _duration(seconds: float) -> Any:
    found = Duration()
    found.FromNanoseconds(round(seconds * 1e9))
    return found


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
