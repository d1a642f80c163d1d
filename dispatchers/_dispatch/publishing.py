"""`PublishingDispatcher`: the base of adapters whose client publishes messages."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable, Iterator, Sequence
from time import monotonic
from typing import ClassVar, Generic, TypeVar, final

from dispatchers._dispatch.base import BaseDispatcher
from dispatchers._dispatch.error_mapping import (
    AnswerError,
    before_contact,
    is_in_doubt,
    out_of_time,
    untried,
)
from dispatchers._dispatch.protocol import Item, Sent
from dispatchers._errors import ErrorCategory, RejectedError
from dispatchers._models.request import DispatchRequest

M = TypeVar("M")


class PublishingDispatcher(BaseDispatcher, Generic[M]):
    """Like `BaseDispatcher`, for a client that publishes messages, one or many at a time.

    You write `_prepare`, which makes a message without contact, and `_publish`, which hands
    messages over in as few round trips as the client can.
    """

    shares_sending = True
    batch_size: int | None = None
    """Messages of one `_publish`; the deadline is checked in between. None means no limit."""
    batch_bytes: int | None = None
    """Bytes of one `_publish`, as `_size_of` counts them. None means no limit."""
    required: ClassVar[tuple[str, ...]] = ("_prepare", "_publish", "_category", "_maybe_sent")

    @abstractmethod
    def _prepare(self, request: DispatchRequest, body: bytes) -> M:
        """Return the message for one envelope, without contact.

        May raise anything: the request is rejected, and the others of its batch go on.
        """

    @abstractmethod
    def _publish(self, messages: Sequence[M], timeout: float) -> Sequence[Sent | Exception]:
        """Hand over messages within `timeout` seconds; one answer each, in order.

        Raising says the same of all of them, and of none of another batch.
        """

    def _publish_in_order(
        self, messages: Sequence[M], timeout: float
    ) -> Sequence[Sent | Exception]:
        """Hand over messages, and none after one that failed and may be tried again.

        For `stops_at_failure`; the answers may end with that one. The default is `_publish`, for a
        client that takes all of them or none.
        """
        return self._publish(messages, timeout)

    def _size_of(self, message: M) -> int:
        """Return the bytes that a message takes of `batch_bytes`."""
        return 0

    def _lane_of(self, message: M) -> Hashable:
        """Return what the messages of one `_publish` have in common, such as their queue.

        They keep their order within a lane. None for all means that any may go together.
        """
        return None

    @final
    def _send(self, request: DispatchRequest, body: bytes, *, timeout: float) -> Sent:
        until = monotonic() + timeout
        # Before contact, so that what cannot be made is certainly not handed over.
        answer = self._published([self._made(request, body)], until)[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    @final
    def _send_many(self, items: Sequence[Item], *, timeout: float) -> Sequence[Sent | Exception]:
        until = monotonic() + timeout
        # To make a large batch's messages takes time, too: what comes too late is not made at all.
        prepared = [
            out_of_time() if self._is_late(until) else self._prepared(request, body)
            for request, body in items
        ]
        good = [each for each in prepared if not isinstance(each, RejectedError)]
        answers = iter(self._packed_and_published(good, until) if good else ())
        return [each if isinstance(each, RejectedError) else next(answers) for each in prepared]

    @final
    def _send_in_order(
        self, items: Sequence[Item], *, timeout: float
    ) -> Sequence[Sent | Exception]:
        if not self.stops_at_failure:
            return super()._send_in_order(items, timeout=timeout)
        until, results = monotonic() + timeout, list[Sent | Exception]()
        for part in self._parts(items):
            prepared = self._prepared_in_order(part)
            good = [each for each in prepared if not isinstance(each, RejectedError)]
            answers = iter(self._answers_in_order(good, until) if good else ())
            for each in prepared:
                results.append(
                    each if isinstance(each, RejectedError) else next(answers, untried())
                )
            if any(map(self._may_be_repeated, results[-len(prepared) :])):
                break
        return results

    def _parts(self, items: Sequence[Item]) -> Iterator[Sequence[Item]]:
        size = self.batch_size or len(items)
        return (items[start : start + size] for start in range(0, len(items), size))

    def _prepared_in_order(self, items: Sequence[Item]) -> list[M | RejectedError]:
        """Return messages; what cannot be made now is the last."""
        prepared: list[M | RejectedError] = []
        for request, body in items:
            prepared.append(self._prepared(request, body))
            last = prepared[-1]
            if isinstance(last, RejectedError) and self._may_be_repeated(last):
                break
        return prepared

    def _answers_in_order(self, messages: Sequence[M], until: float) -> Sequence[Sent | Exception]:
        if self._is_late(until):
            return [out_of_time()]
        try:
            return self._publish_in_order(messages, until - monotonic())
        except Exception as exc:  # noqa: BLE001 - C3: other calls have answers of their own
            return [exc] * len(messages)

    def _packed_and_published(
        self, messages: Sequence[M], until: float
    ) -> Sequence[Sent | Exception]:
        """Publish in as few calls as may be; what is raised is the answer of its own call alone."""
        packs = self._packs(messages)
        if len(packs) == 1:  # raised: it is true of all
            return self._published(messages, until)
        answers: dict[int, Sent | Exception] = {}
        stop: RejectedError | None = None
        for places in packs:
            pack = [messages[place] for place in places]
            found = [stop] * len(pack) if stop else self._answers(pack, until)
            answers.update(zip(places, found, strict=True))
            stop = stop or self._reason_to_stop(found[-1], until)
        return [answers[place] for place in range(len(messages))]

    def _packs(self, messages: Sequence[M]) -> list[list[int]]:
        """Return the places of the messages that go in one call each."""
        if len(messages) == 1:  # the usual dispatch
            return [[0]]
        most, limit = self.batch_size or len(messages), self.batch_bytes
        full: list[list[int]] = []
        filling: dict[Hashable, tuple[list[int], int]] = {}
        for place, message in enumerate(messages):
            lane, more = self._lane_of(message), self._size_of(message) if limit else 0
            places, size = filling.get(lane) or ([], 0)
            if len(places) == most or (places and limit and size + more > limit):
                full.append(places)
                places, size = [], 0
            places.append(place)  # in place: copying would cost the square of a batch's length
            filling[lane] = places, size + more
        return full + [places for places, _ in filling.values()]

    def _answers(self, messages: Sequence[M], until: float) -> Sequence[Sent | Exception]:
        try:
            return self._published(messages, until)
        except Exception as exc:  # noqa: BLE001 - C3: other calls have answers of their own
            return [exc] * len(messages)

    def _reason_to_stop(self, last: Sent | Exception, until: float) -> RejectedError | None:
        if self._is_late(until):
            return out_of_time()
        # What is in doubt was cut half-way: more of it on a new connection helps no one.
        if isinstance(last, Exception) and is_in_doubt(last, self._maybe_sent):
            return untried()
        return None

    @property
    def _most_at_once(self) -> int:
        return super()._most_at_once if self.batch_size is None else self.batch_size

    def _made(self, request: DispatchRequest, body: bytes) -> M:
        message = self._prepared(request, body)
        if isinstance(message, RejectedError):
            raise message
        return message

    def _send_made(self, made: Sequence[M], timeout: float) -> Sequence[Sent | Exception]:
        until = monotonic() + timeout
        if self._guard is None:
            return self._packed_and_published(made, until)
        return self._guard.call(lambda: self._packed_and_published(made, until), timeout=timeout)

    def _prepared(self, request: DispatchRequest, body: bytes) -> M | RejectedError:
        try:
            return self._prepare(request, body)
        except Exception as exc:  # noqa: BLE001 - C1: each message has an answer of its own
            return before_contact(exc)

    def _published(self, messages: Sequence[M], until: float) -> Sequence[Sent | Exception]:
        if self._is_late(until):
            raise RejectedError(ErrorCategory.TIMEOUT, "the deadline passed before contact")
        answers = self._publish(messages, until - monotonic())
        if len(answers) != len(messages):
            raise AnswerError(f"_publish gave {len(answers)} answers for {len(messages)} messages")
        return answers

    def _is_late(self, until: float) -> bool:
        return monotonic() >= until and not self.capabilities.runs_here
