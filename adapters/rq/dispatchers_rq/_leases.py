"""Jobs that a worker has taken, and what it does with them, each in one step of the server's."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence
from time import monotonic, sleep
from typing import Any
from uuid import uuid4

from redis.exceptions import RedisError

from dispatchers import DeadLetter, DeadLetterStore, Heartbeat, Outcome
from dispatchers.delivery import Delivery, DeliveryCount, say
from dispatchers.redis import Script, within
from dispatchers.stores import Watch

from ._message import (
    ATTEMPT,
    LETTER,
    body_of,
    failure_text,
    fields_of,
    kind_of,
    leases_key,
    stamp,
    uncompressed,
)
from ._options import RQOptions
from ._scripts import ADOPT, CLASSIFY, REAP, RENEW, SETTLE, TAKE

RETRY_DELAY = 0.5
"""Seconds between two tries to settle with a server that does not answer."""
DEPENDENTS = 2
"""The answer to settling a job that others depend on."""


class Taken(Delivery):
    """A job that is with a worker, and the ways to settle it.

    Args:
        leases: The queues.

        queue: The name of its queue.

        id: Its id.

        token: The lease's: another one means another owner.

        fields: The job's hash.
    """

    def __init__(
        self,
        leases: Leases,
        queue: str,
        id: str,  # noqa: A002
        token: str,
        fields: Mapping[bytes, bytes],
    ) -> None:
        self.queue, self.id, self.token = queue, id, token
        self.answer: int | None = None
        """The answer to its settling, once it is settled."""
        self._leases = leases
        self.read(fields)

    def read(self, fields: Mapping[bytes, bytes]) -> None:
        """Take the job's hash for what it is now."""
        self.fields = fields
        self.is_ours = ATTEMPT.encode() in fields
        """It holds an envelope."""
        self.task = fields.get(b"description", b"").decode(errors="replace")
        self.attempt, self.deliveries, _ = DeliveryCount.read(fields)
        try:
            self.body = body_of(fields) if self.is_ours else b""
        except ValueError:
            self.body = b""  # the outcome says that it is not an envelope

    @property
    def data(self) -> bytes:
        """Return function and arguments, as the job's serializer wrote them."""
        return uncompressed(self.fields.get(b"data", b""))

    @property
    def has_dependents(self) -> bool:
        """Tell whether it is settled, and other jobs wait for that."""
        return self.answer == DEPENDENTS

    def complete(self, outcome: Outcome) -> None:
        """Keep the job as finished."""
        self._leases.settle(self, "done", self._leases.options.keep, "ended_at", stamp())

    def retry(self, outcome: Outcome) -> None:
        """Schedule the next attempt."""
        self._leases.settle(self, "retry", outcome.after)

    def give_back(self, after: float) -> None:
        """Schedule the same attempt."""
        self._leases.settle(self, "return", after)

    def dead_letter(self, outcome: Outcome, letter: DeadLetter) -> None:
        """Keep the job among RQ's failed ones.

        RQ's tools show type and place of an exception, not its words, which may repeat arguments.
        """
        error = letter.error
        raised = f": {error.exception_type} at {error.where}" if error else ""
        words = f"{letter.reason} in attempt {letter.attempts}"
        self._fail(letter, words + (raised if error and error.exception_type else ""))

    def stopped(self, letters: DeadLetterStore | None) -> None:
        """Keep a job that RQ's own tools have stopped among the failed ones."""
        letter = DeadLetter(
            id=self.id,
            task=self.task,
            queue=self.queue,
            reason="stopped",
            attempts=self.attempt,
            deliveries=self.deliveries,
            body=self.body,
        )
        if letters is not None:
            letters.add(letter)
        self._fail(letter, letter.reason)

    def _fail(self, letter: DeadLetter, words: str) -> None:
        fields = ("ended_at", stamp(), LETTER, letter.to_json(body=False))
        ttl = self._leases.options.failure_ttl
        self._leases.settle(self, "dead", ttl, failure_text(words), *fields)

    def abandon(self) -> None:
        """Give it back: at once where its process ends, else later."""
        if isinstance(sys.exception(), Exception):  # a store was down
            super().abandon()
        else:
            self._leases.interrupted(self)


class Leases:
    """The queues from a worker's side.

    Args:
        client: A bounded client of the Redis.

        options: The dispatcher's.
    """

    def __init__(self, client: Any, options: RQOptions) -> None:
        self.options = options
        self._client = client
        self._renewals = 0
        self._watch = Watch()
        self._observed = monotonic()
        self.leaves_some = False
        """The last look passed by jobs that this worker cannot read."""
        self.gives_up = False
        """The grace is over: what runs is interrupted by its worker."""
        self.gave_back = False
        """Something was interrupted so."""

    @property
    def interval(self) -> float:
        """Return the seconds between two renewals."""
        return self.options.lease / 3

    def take(self, queues: Sequence[str], worker: str) -> Taken | float | None:
        """Take the next job, or return the seconds until one is due; None is never.

        A job of RQ's own is looked at before it is taken for the first time: one that this
        worker cannot read stays where it is.
        """
        while True:
            # New for each try: if the reply is lost, the job looks abandoned, and is given back.
            token = uuid4().hex
            unpickle = int(self.options.unpickle)
            reply = self._run(TAKE, (token, worker, stamp(), unpickle, *queues))
            self.leaves_some = isinstance(reply, list) and len(reply) == 1
            wait = reply[0] if self.leaves_some else reply
            if isinstance(wait, int):
                return None if wait < 0 else wait / 1000
            *queue, number, found = reply
            if queue:
                return Taken(self, queue[0].decode(), number.decode(), token, fields_of(found))
            # The script looks again: the job is now either taken or passed by.
            self._classify(number, found)

    def _classify(self, number: bytes, data: bytes) -> None:
        kind = kind_of(data)
        self._run(CLASSIFY, (number, kind))
        if kind == "other" or (kind == "pickle" and not self.options.unpickle):
            say(
                logging.WARNING,
                "job %s of RQ's own is left to RQ's workers: it is in the format %r%s",
                number.decode(),
                kind,
                "; `unpickle = true` runs it here" if kind == "pickle" else "",
            )

    def adopt(self, taken: Taken, fields: Mapping[str, Any]) -> None:
        """Make a job of RQ's own one of ours; the same lease goes on."""
        # Name and value in turn, as HSET takes them: a script's arguments are a flat list.
        flat = (part for field in fields.items() for part in field)
        reply = self._run(ADOPT, (taken.queue, taken.id, taken.token, stamp(), *flat))
        # Without a reply the lease is lost: settling the run will do nothing, so nothing is raised
        # here.
        if reply:
            taken.read(fields_of(reply))

    def renew(self, taken: Taken) -> bool:
        """Tell observers that its owner lives; false if it is not the owner's any more."""
        # A number, not a time: observers only ask whether it changed, and clocks of machines
        # differ.
        self._renewals += 1
        return bool(self._run(RENEW, (taken.queue, taken.id, taken.token, self._renewals)))

    def heartbeat(self, taken: Taken) -> Heartbeat:
        """Return what renews it."""
        return Heartbeat(lambda: self.renew(taken), self.interval)

    def settle(self, taken: Taken, action: str, number: float = 0, *values: Any) -> int:
        """Do what follows from a run.

        A server that does not answer is asked again for as long as the lease may last: a second
        time it does nothing.

        Returns:
            0 where the lease was lost and nothing was done; 2 where other jobs depend on this one.
            The job knows it too.
        """
        args = (taken.queue, taken.id, taken.token, action, number, *values)
        taken.answer = 0
        until = monotonic() + self.options.lease
        while True:
            try:
                taken.answer = int(self._run(SETTLE, args))
            except (RedisError, OSError) as exc:
                if monotonic() > until:
                    # Not renewed any more, the lease ends by itself, and an observer gives the job
                    # back.
                    say(logging.ERROR, "a run could not be settled: %s", type(exc).__name__)
                    return taken.answer
                sleep(RETRY_DELAY)
            else:
                return taken.answer

    def interrupted(self, taken: Taken) -> None:
        """Give back what ran when its process ended: counted, unless its worker interrupted it."""
        if self.gives_up:
            self.gave_back |= bool(self.settle(taken, "return"))
        else:
            self.settle(taken, "lost")

    def observe(self, queues: Sequence[str]) -> None:
        """Give back what was not renewed for the length of a lease, by this process's clock."""
        # Two looks at least within one renewal, and no more: each reads all leases of a queue.
        if monotonic() - self._observed < self.interval / 2:
            return
        self._observed = monotonic()
        for queue in queues:
            for number, held in self._all(queue).items():
                # The same id may be in several queues; no name holds a zero byte.
                name = f"{queue}\0{number.decode()}"
                if self._watch.left(name, held, self.options.lease) <= 0:
                    # The script compares the lease: if it was renewed since, it does nothing.
                    self._watch.forget(name)
                    self._reap(queue, number, held)

    def _reap(self, queue: str, number: bytes, held: bytes) -> None:
        most, ttl = self.options.max_deliveries, self.options.failure_ttl
        words = failure_text("it was running each time its worker died")
        if self._run(REAP, (queue, number, held, most, ttl, words, stamp())):
            say(
                logging.WARNING,
                "job %s of a dead worker goes back to queue %r",
                number.decode(),
                queue,
            )

    def under_way(self, queues: Sequence[str]) -> int:
        """Return how many jobs of these queues are with workers."""
        return sum(len(self._all(queue)) for queue in queues)

    def _all(self, queue: str) -> dict[bytes, bytes]:
        with within(self.options.deadline):
            found: dict[bytes, bytes] = self._client.hgetall(leases_key(queue))
        return found

    def _run(self, script: Script, args: Sequence[Any]) -> Any:
        return script.run(self._client, args, timeout=self.options.deadline)
