"""`Endpoint`: one request in, one answer out; every rule of the worker's HTTP side."""

from __future__ import annotations

import hashlib
import logging
from collections import OrderedDict
from typing import NamedTuple

from dispatchers._check import Problem
from dispatchers._dead import DeadLetter, DeadLetterStore
from dispatchers._log import say
from dispatchers._loops import off_loop
from dispatchers._outcome import Action, Outcome, Reason
from dispatchers._run import arun_envelope, run_envelope

from ._answers import POLICIES, Answer, answer_to, refusal, retry_after
from ._call import Call, Headers, known_headers
from ._check import problems_of
from ._depth import is_deeper
from ._ready import Ready, prepared
from ._replay import Hold
from ._settings import EndpointSettings
from ._verdict import GRANTED, Verdict, refused

__all__ = ["Endpoint", "handle"]

NOT_FOUND = refusal(404, "not found")
NOT_ALLOWED = refusal(405, "method not allowed", ("Allow", "POST"))
INCOMPLETE = refusal(400, "incomplete body")
TOO_LARGE = refusal(413, "too large")
UNSUPPORTED = refusal(415, "unsupported media type")
UNAUTHORIZED = refusal(401, "unauthorized", ("WWW-Authenticate", "Bearer"))
INTERNAL = refusal(500, "internal error")
STORE_DOWN = refusal(503, "unavailable", retry_after(10))
NO_CREDENTIALS = refused("no credentials")
NO_ENVELOPE = Outcome(action=Action.DEAD, reason=Reason.NO_ENVELOPE)
MOST = 10**9
"""Counts are told apart up to here; a longer one is beyond every limit just so."""


class Admitted(NamedTuple):
    """A request that may run."""

    attempt: int
    hold: Hold | None


class Endpoint:
    """The worker's endpoint: hand it requests, send what it answers.

    Threads and event loops may share one. It reads its settings once.

    Args:
        settings: None reads `[endpoint]` of the configuration, and imports the modules that it
            names where this process is a worker.

    Raises:
        ConfigurationError: Something is wrong; the message has every problem.
    """

    def __init__(self, settings: EndpointSettings | None = None) -> None:
        self._ready: Ready = prepared(settings)
        self.settings: EndpointSettings = self._ready.settings
        """The settings in force."""
        self._policy = POLICIES[self.settings.transport]

    @property
    def path(self) -> str:
        """Where it is."""
        return self.settings.path

    @property
    def max_body(self) -> int:
        """Bytes of a body beyond which there is no use in reading on."""
        return self.settings.max_body

    def handle(self, method: str, path: str, headers: Headers, body: bytes) -> Answer:
        """Answer one request. Raises no `Exception`.

        Args:
            method: `POST`, or what is refused.

            path: Without the query.

            headers: Names and values, decoded as Latin-1; names in any case.

            body: All of it, or more than `max_body` bytes of a larger one.
        """
        try:
            call = Call(method, path, known_headers(headers), body)
            if (refused := self._refusal(call) or _cut_short(call)) is not None:
                return refused
            admitted = self._admitted(call, self._verdict(call))
            if isinstance(admitted, Answer):
                return admitted
            outcome = self._unreadable(call) or run_envelope(
                call.body,
                attempt=admitted.attempt,
                deliveries=admitted.attempt,
                heartbeat=admitted.hold.heartbeat if admitted.hold else None,
                settings=self._ready.run,
            )
            return self._concluded(call, admitted, outcome)
        except Exception as exc:  # noqa: BLE001 - the boundary: a defect of ours is a generic 500
            return _failed(exc)

    async def ahandle(self, method: str, path: str, headers: Headers, body: bytes) -> Answer:
        """`handle` on an event loop, which nothing of it blocks: sync handlers run on a thread."""
        try:
            call = Call(method, path, known_headers(headers), body)
            if (refused := self._refusal(call) or _cut_short(call)) is not None:
                return refused
            waits = self._ready.oidc is not None and self._ready.oidc.waits(call)
            verdict = await off_loop(self._verdict, call) if waits else self._verdict(call)
            replayed = verdict.replay_id is not None
            if replayed:
                admitted = await off_loop(self._admitted, call, verdict)
            else:
                admitted = self._admitted(call, verdict)
            if isinstance(admitted, Answer):
                return admitted
            outcome = self._unreadable(call) or await arun_envelope(
                call.body,
                attempt=admitted.attempt,
                deliveries=admitted.attempt,
                heartbeat=admitted.hold.heartbeat if admitted.hold else None,
                settings=self._ready.run,
            )
            if replayed or outcome.action is Action.DEAD:
                return await off_loop(self._concluded, call, admitted, outcome)
            return self._concluded(call, admitted, outcome)
        except Exception as exc:  # noqa: BLE001 - the boundary: a defect of ours is a generic 500
            return _failed(exc)

    def refuse(self, method: str, path: str, headers: Headers) -> Answer | None:
        """What can be answered before the body is read; None if it has to be read."""
        return self._refusal(Call(method, path, known_headers(headers), b""))

    def check(self, *, deploy: bool = False) -> list[Problem]:
        """What is wrong with the settings, though they can be started with.

        Args:
            deploy: Judge them as those of a deployment that strangers can reach.
        """
        return problems_of(self.settings, deploy=deploy)

    def _refusal(self, call: Call) -> Answer | None:
        """A process that is no worker says nothing else but that there is nothing."""
        settings = self.settings
        if not settings.worker or call.path != settings.path:
            return NOT_FOUND
        if call.method != "POST":
            return NOT_ALLOWED
        announced = _count(call.headers.get("content-length", ""), 0)
        if len(call.body) > settings.max_body or announced > settings.max_body:
            return TOO_LARGE
        return None

    def _verdict(self, call: Call) -> Verdict:
        """Whoever one of the verifiers trusts is trusted; one that cannot tell leaves it open."""
        if self.settings.insecure:
            return GRANTED
        worst = NO_CREDENTIALS
        for verifier in self._ready.verifiers:
            verdict = verifier.verify(call)
            if verdict is None:
                continue
            if verdict.granted:
                return verdict
            if worst.retry_after is None:
                worst = verdict
        return worst

    def _admitted(self, call: Call, verdict: Verdict) -> Admitted | Answer:
        if not verdict.granted:
            say(logging.WARNING, "endpoint: a request was refused: %s", verdict.why)
            if verdict.retry_after is None:
                return UNAUTHORIZED
            return refusal(503, "unavailable", retry_after(verdict.retry_after))
        kind = call.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json" or "content-encoding" in call.headers:
            return UNSUPPORTED
        counted = _count(call.headers.get(self._policy.counter, ""), self._policy.first)
        attempt = max(counted - self._policy.first + 1, 1)
        if verdict.replay_id is None or self._ready.replays is None:
            return Admitted(attempt, None)
        hold = self._ready.replays.take(verdict)
        if isinstance(hold, Outcome):
            return answer_to(hold, self._policy)
        return Admitted(attempt, hold)

    def _unreadable(self, call: Call) -> Outcome | None:
        return NO_ENVELOPE if is_deeper(call.body, self.settings.max_depth) else None

    def _concluded(self, call: Call, admitted: Admitted, outcome: Outcome) -> Answer:
        """Store the letter before anything is acknowledged (C9, C11)."""
        settled = outcome.action is Action.DONE or (
            outcome.action is Action.DEAD and self._is_buried(call, admitted, outcome)
        )
        if admitted.hold is not None:
            admitted.hold.end(settled=settled)
        if outcome.action is Action.DEAD and not settled:
            return STORE_DOWN
        return answer_to(outcome, self._policy)

    def _is_buried(self, call: Call, admitted: Admitted, outcome: Outcome) -> bool:
        """Whether the dead-letter store has it; where there is none, the log has to do."""
        letters: DeadLetterStore | None = self._ready.letters
        if letters is None:
            say(logging.ERROR, "endpoint: no dead_letters: %s is lost", outcome.task or "a message")
            return True
        try:
            letters.add(_letter(call, admitted, outcome))
        except Exception as exc:  # noqa: BLE001 - anything a store raises
            say(logging.ERROR, "a dead letter could not be stored: %s", type(exc).__name__)
            return False
        return True


def _letter(call: Call, admitted: Admitted, outcome: Outcome) -> DeadLetter:
    """What is no envelope is known by its own bytes, however often it comes."""
    return DeadLetter.of(
        outcome,
        call.body,
        id=outcome.request_id or f"body-{hashlib.sha256(call.body).hexdigest()[:32]}",
        queue=call.headers.get("x-cloudtasks-queuename", "")[:255],
        deliveries=admitted.attempt,
    )


def _cut_short(call: Call) -> Answer | None:
    """Half an envelope is not taken for a bad one: the other half may come with the next try."""
    announced = _count(call.headers.get("content-length", ""), 0)
    return INCOMPLETE if len(call.body) < announced else None


def _count(text: str, otherwise: int) -> int:
    """A header that counts, `MOST` at most; what is no count is left to `otherwise`."""
    if not (text.isascii() and text.isdigit()):
        return otherwise
    digits = text.lstrip("0") or "0"
    return int(digits) if len(digits) < len(str(MOST)) else MOST


def _failed(exc: Exception) -> Answer:
    say(logging.ERROR, "endpoint: %s", type(exc).__name__)
    return INTERNAL


MOST_KEPT = 16
_kept: OrderedDict[int, Endpoint] = OrderedDict()
"""Endpoints by the identity of their settings, which they hold."""


def _endpoint_of(settings: EndpointSettings) -> Endpoint:
    found = _kept.get(id(settings))
    if found is None:
        found = _kept[id(settings)] = Endpoint(settings)
        while len(_kept) > MOST_KEPT:
            _kept.popitem(last=False)
    return found


def handle(
    method: str, path: str, headers: Headers, body: bytes, settings: EndpointSettings
) -> Answer:
    """`Endpoint(settings).handle(...)` as one function; what it needs is kept for a few settings.

    Raises:
        ConfigurationError: The settings cannot work.
    """
    return _endpoint_of(settings).handle(method, path, headers, body)
