"""`Endpoint`: one request in, one answer out; every rule of the worker's HTTP side."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import lru_cache, partial
from time import monotonic
from typing import TypeVar

from pydantic_core import to_json

from dispatchers._errors import ConfigurationError
from dispatchers._journal.errors import JournalError
from dispatchers._models.outcome import Action, Outcome, Reason
from dispatchers._models.problem import Problem
from dispatchers._runtime.identity import Identity
from dispatchers._runtime.log import say, say_once
from dispatchers._runtime.to_thread import off_loop
from dispatchers._worker.runner import arun_envelope, run_envelope
from dispatchers._worker.settlement import settle
from dispatchers.http._assembly import Assembly, assembled, is_current
from dispatchers.http._auth import GRANTED, AuthResult, bearer, refused
from dispatchers.http._checks import problems_of
from dispatchers.http._delivery import Push
from dispatchers.http._json_depth import is_deeper
from dispatchers.http._request import Headers, Request, count_of, known_headers, path_within
from dispatchers.http._responses import JSON, POLICIES, Answer, answer_to, refusal, retry_after

from ._settings import EndpointSettings

__all__ = ["Endpoint", "handle"]

T = TypeVar("T")

NOT_FOUND = refusal(404, "not found")
NOT_ALLOWED = refusal(405, "method not allowed", ("Allow", "POST"))
INCOMPLETE = refusal(400, "incomplete body")
TOO_LARGE = refusal(413, "too large")
UNSUPPORTED = refusal(415, "unsupported media type")
UNAUTHORIZED = refusal(401, "unauthorized", ("WWW-Authenticate", "Bearer"))
INTERNAL = refusal(500, "internal error")
NO_CREDENTIALS = refused("no credentials")
NOT_SWEPT = refusal(503, "unavailable", retry_after(10))
SWEEP = "sweep"
"""The end of the path that wakes executions; it replaces that of the endpoint."""
RELAY = "relay"
"""The end of the path that hands over what is held in stores."""
RELAYED = 20.0
"""Seconds that one call hands over at most: what calls it waits for an answer."""
NO_ENVELOPE = Outcome(action=Action.DEAD, reason=Reason.NO_ENVELOPE)
LARGE_BODY = 64 * 1024
"""Bytes from which hashing and looking for depth leave the event loop: a millisecond or so."""
REFUSAL_INTERVAL = 1.0
"""Seconds between two records of one reason: a stranger could fill a disk otherwise."""


class Endpoint:
    """The worker's endpoint: hand it requests, send its answers.

    Threads and event loops may share one. It reads its settings once.

    Args:
        settings: None reads `[endpoint]` of the configuration, and imports the modules that it
            names where this process is a worker.

    Raises:
        ConfigurationError: Something is wrong; the message has every problem.
    """

    def __init__(self, settings: EndpointSettings | None = None) -> None:
        self._parts: Assembly = assembled(settings)
        self.settings: EndpointSettings = self._parts.settings
        """The settings in force."""
        self._policy = POLICIES[self.settings.transport]
        self._paths = (self.path, self.sweep_path, self.relay_path)
        self._refusals: dict[str, tuple[float, int]] = {}

    @property
    def path(self) -> str:
        """Its path."""
        return self.settings.path

    @property
    def sweep_path(self) -> str:
        """The path beside it that wakes executions of workflows, for a scheduler to call."""
        return f"{self.path.rpartition('/')[0]}/{SWEEP}"

    @property
    def relay_path(self) -> str:
        """The path beside it that hands over what dispatchers hold, for a scheduler to call."""
        return f"{self.path.rpartition('/')[0]}/{RELAY}"

    def path_within(self, path: str, mounted_at: str) -> str:
        """Return the path of a request as `handle` takes it.

        Args:
            path: The whole path, or the part below the mount.

            mounted_at: `root_path` or `SCRIPT_NAME`: what leads to the application.
        """
        found = [path_within(path, mounted_at, each) for each in self._paths]
        return next((within for within in found if within in self._paths), found[0])

    @property
    def max_body(self) -> int:
        """Bytes of a body beyond which reading on is of no use."""
        return self.settings.max_body

    @property
    def is_current(self) -> bool:
        """True while the configuration is the one it was made from."""
        return is_current(self._parts)

    def handle(self, method: str, path: str, headers: Headers, body: bytes) -> Answer:
        """Answer one request. Raises no `Exception`.

        Args:
            method: `POST`; any other is refused.

            path: Without the query.

            headers: Names and values, decoded as Latin-1; names in any case.

            body: All of it, or more than `max_body` bytes of a larger one.
        """
        try:
            request = Request(method, path, known_headers(headers), body)
            if (answer := self._refusal(request) or _cut_short(request)) is not None:
                return answer
            # Verified before the body is looked into: a stranger's bytes reach no parser.
            result = self._verified(request)
            if request.path != self.path:
                return self._beside(request)(result)
            push = self._admitted(request, result)
            if isinstance(push, Answer):
                return push
            push.outcome = self._unreadable(request) or self.run(push)
            return self._settled(push)
        except Exception as exc:  # noqa: BLE001 - the boundary: a defect of ours is a generic 500
            return _failed(exc)

    async def ahandle(self, method: str, path: str, headers: Headers, body: bytes) -> Answer:
        """Answer one request on an event loop, which nothing of it blocks."""
        try:
            request = Request(method, path, known_headers(headers), body)
            if (answer := self._refusal(request) or _cut_short(request)) is not None:
                return answer
            result = await self._averified(request)
            if request.path != self.path:
                return await off_loop(self._beside(request), result)
            stored = result.replay_id is not None
            push = await _called(stored, self._admitted, request, result)
            if isinstance(push, Answer):
                return push
            unreadable = await _called(_is_large(request), self._unreadable, request)
            push.outcome = unreadable or await self.arun(push)
            return await _called(push.waits, self._settled, push)
        except Exception as exc:  # noqa: BLE001 - the boundary: a defect of ours is a generic 500
            return _failed(exc)

    def run(self, push: Push) -> Outcome:
        """Run one envelope; a framework's glue overrides it, for a transaction around it, say."""
        return run_envelope(
            push.body,
            attempt=push.attempt,
            deliveries=push.deliveries,
            heartbeat=push.heartbeat,
            settings=self._parts.run,
        )

    async def arun(self, push: Push) -> Outcome:
        """Run one envelope on the event loop; sync handlers run on a thread."""
        return await arun_envelope(
            push.body,
            attempt=push.attempt,
            deliveries=push.deliveries,
            heartbeat=push.heartbeat,
            settings=self._parts.run,
        )

    def refuse(self, method: str, path: str, headers: Headers) -> Answer | None:
        """Return the answer that needs no body; None if it has to be read."""
        request = Request(method, path, known_headers(headers), b"")
        if (answer := self._refusal(request)) is not None:
            return answer
        # A signature covers the body, so that it has to be read before it can be refused.
        if self.settings.insecure or self.settings.signatures or bearer(request) is not None:
            return None
        self._say_refused(NO_CREDENTIALS)  # a stranger's body is not worth reading
        return UNAUTHORIZED

    def check(self, *, deploy: bool = False) -> list[Problem]:
        """Return the problems of settings that it can be started with.

        Args:
            deploy: Check them as those of a deployment that strangers can reach.
        """
        return problems_of(self.settings, deploy=deploy)

    def _refusal(self, request: Request) -> Answer | None:
        # A process that is not a worker answers 404 before anything else: it tells nothing.
        settings = self.settings
        if not settings.worker or request.path not in self._paths:
            return NOT_FOUND
        if request.method != "POST":
            return NOT_ALLOWED
        announced = count_of(request.headers.get("content-length", ""), 0)
        if len(request.body) > settings.max_body or announced > settings.max_body:
            return TOO_LARGE
        return None

    def _verified(self, request: Request) -> AuthResult:
        """Return the result of the verifier that trusts it, else the most telling refusal."""
        if self.settings.insecure:
            return GRANTED
        worst = NO_CREDENTIALS
        for verifier in self._parts.verifiers:
            result = verifier.verify(request)
            if result is None:
                continue
            if result.granted:
                return result
            # A refusal that may be lifted (keys that could not be fetched) is worth another try.
            if worst.retry_after is None:
                worst = result
        return worst

    async def _averified(self, request: Request) -> AuthResult:
        oidc = self._parts.oidc
        if oidc is not None and oidc.waits(request):
            # Threads of their own: tokens with made-up key ids must not use up the handlers'.
            verified = oidc.waiting.submit(partial(self._verified, request))
            return await asyncio.wrap_future(verified)
        hashes = self.settings.signatures is not None and _is_large(request)
        return await _called(hashes, self._verified, request)

    def _admitted(self, request: Request, result: AuthResult) -> Push | Answer:
        if not result.granted:
            return self._denied(result)
        # Checked after the credentials: a stranger learns nothing about what would be accepted.
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json" or "content-encoding" in request.headers:
            return UNSUPPORTED
        replays = self._parts.replays
        # Taken last: a request that is refused for another reason must not use up its id.
        claim = replays.take(result) if replays and result.replay_id is not None else None
        if isinstance(claim, Outcome):
            return answer_to(claim, self._policy)
        return Push(request, self._policy, claim, keeps_letters=self._parts.letters is not None)

    def _beside(self, request: Request) -> Callable[[AuthResult], Answer]:
        """Return what answers the other two paths."""
        return self._swept if request.path == self.sweep_path else self._relayed

    def _swept(self, result: AuthResult) -> Answer:
        """Wake executions that want a turn; once more than asked for does no harm."""
        if not result.granted:
            return self._denied(result)
        # Late: most endpoints serve no workflows, whose engine is then not imported.
        from dispatchers.workflows._sweep import sweeper

        try:
            return Answer(200, (JSON,), to_json({"woken": sweeper.sweep_for_others()}))
        except (ConfigurationError, JournalError) as exc:
            say_once(self, logging.ERROR, "endpoint: executions are not swept: %s", str(exc))
            return NOT_SWEPT

    def _relayed(self, result: AuthResult) -> Answer:
        """Hand over what dispatchers hold; where another process does, nothing is left to do."""
        if not result.granted:
            return self._denied(result)
        # Late: most endpoints hold nothing, and load no forwarder.
        from dispatchers._worker.relays import relayed

        try:
            return Answer(200, (JSON,), to_json({"relayed": relayed(RELAYED)}))
        except Exception as exc:  # noqa: BLE001 - anything a store raises; it is asked again
            say_once(self, logging.ERROR, "endpoint: nothing is relayed: %s", type(exc).__name__)
            return NOT_SWEPT

    def _denied(self, result: AuthResult) -> Answer:
        self._say_refused(result)
        if result.retry_after is None:
            return UNAUTHORIZED
        return refusal(503, "unavailable", retry_after(result.retry_after))

    def _say_refused(self, result: AuthResult) -> None:
        since, count = self._refusals.get(result.reason, (float("-inf"), 0))
        now = monotonic()
        if now - since < REFUSAL_INTERVAL:
            self._refusals[result.reason] = since, count + 1
            return
        self._refusals[result.reason] = now, 0
        words = f"{result.reason}{result.detail}{f' ({count} more before)' if count else ''}"
        say(logging.WARNING, "endpoint: a request was refused: %s", words)

    def _unreadable(self, request: Request) -> Outcome | None:
        return NO_ENVELOPE if is_deeper(request.body, self.settings.max_depth) else None

    def _settled(self, push: Push) -> Answer:
        """Store the dead letter before anything is acknowledged (C9, C11)."""
        settle(push, push.outcome, self._parts.letters)
        return push.answer


async def _called(waits: bool, function: Callable[..., T], *args: object) -> T:
    """Call a function, on a thread where it may wait."""
    return await off_loop(function, *args) if waits else function(*args)


def _is_large(request: Request) -> bool:
    return len(request.body) > LARGE_BODY


def _cut_short(request: Request) -> Answer | None:
    # Half an envelope is not taken for a bad one: the other half may come with the next try.
    announced = count_of(request.headers.get("content-length", ""), 0)
    return INCOMPLETE if len(request.body) < announced else None


def _failed(exc: Exception) -> Answer:
    say(logging.ERROR, "endpoint: %s", type(exc).__name__)
    return INTERNAL


@lru_cache(maxsize=16)
def _endpoint_of(key: Identity[EndpointSettings]) -> Endpoint:
    # By identity: a table of keys within settings cannot be hashed by value.
    return Endpoint(key.value)


def handle(
    method: str, path: str, headers: Headers, body: bytes, settings: EndpointSettings
) -> Answer:
    """Answer one request by `Endpoint(settings)`, which is kept for the latest few settings.

    Raises:
        ConfigurationError: The settings cannot work.
    """
    return _endpoint_of(Identity(settings)).handle(method, path, headers, body)
