"""The service as one process sees it: the official client, and the calls that are made."""

from __future__ import annotations

import os
from collections.abc import Sequence
from time import monotonic
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

from botocore.exceptions import BotoCoreError, ClientError

from dispatchers import ErrorCategory, RejectedError, Sent
from dispatchers.net import resolve

from ._clients import Clients
from ._errors import before_contact
from ._message import Message
from ._options import SQSOptions

SHARE = 0.8
"""The part of the time left that the client gets: its own answer says more than a cut call."""
WARM = 5.0
"""Seconds after an answer in which a connection may be taken to be open still."""
CLIENT_ERRORS = (BotoCoreError, ClientError)


class Broker:
    """Calls of the official client, and what is known of queues.

    Args:
        options: The adapter's options.

        connections: Connections that are kept.
    """

    def __init__(self, options: SQSOptions, *, connections: int = 10) -> None:
        self._options = options
        self._clients = Clients(options, connections)
        self._urls: dict[str, str] = {}
        self._answered: tuple[int, float] = (0, 0.0)

    def close(self) -> None:
        """Close the connections of this process."""
        self._clients.close()

    def call(
        self, name: str, queue: str | None = None, timeout: float | None = None, **parameters: Any
    ) -> Any:
        """Call one operation of the client.

        Args:
            name: The operation.

            queue: The name or URL of a queue.

            timeout: Seconds; None is the deadline of the options.

            parameters: The operation's own.
        """
        timeout = timeout or self._options.deadline
        if queue is not None:
            parameters["QueueUrl"] = self.url(queue, timeout)
        return getattr(self._clients.of(timeout), name)(**parameters)

    def url(self, queue: str, timeout: float | None = None) -> str:
        """Return the URL of a queue; that of a name is asked for once.

        Raises:
            RejectedError: There is none, or the service did not say.
        """
        if "/" in queue:
            return queue
        if (found := self._urls.get(queue)) is None:
            try:
                found = str(self.call("get_queue_url", None, timeout, QueueName=queue)["QueueUrl"])
            except CLIENT_ERRORS as exc:
                raise before_contact(exc) from exc
            self._urls[queue] = found
        return found

    def url_of(self, arn: str) -> str:
        """Return the URL of a queue by its ARN: `arn:aws:sqs:REGION:ACCOUNT:NAME`."""
        if arn not in self._urls:
            *_, account, name = arn.split(":")
            answer = self.call("get_queue_url", QueueName=name, QueueOwnerAWSAccountId=account)
            self._urls[arn] = str(answer["QueueUrl"])
        return self._urls[arn]

    def send_one(self, message: Message) -> None:
        """Hand one message over, and raise what kept it from that."""
        answer = self.send([message], self._options.deadline)[0]
        if isinstance(answer, Exception):
            raise answer

    def send(self, messages: Sequence[Message], timeout: float) -> list[Sent | Exception]:
        """Hand messages over to one queue within `timeout` seconds; one answer each."""
        until = monotonic() + timeout
        client = self._clients.of(timeout * SHARE)
        self._find_out(client, (until - monotonic()) * SHARE)
        entries = [{"Id": f"{n}", **each.entry} for n, each in enumerate(messages)]
        left, queue = (until - monotonic()) * SHARE, messages[0].queue
        answer = self.call("send_message_batch", queue, left, Entries=entries)
        self._answered = os.getpid(), monotonic()
        found: dict[str, Sent | Exception] = {
            each["Id"]: Sent(each["MessageId"]) for each in answer.get("Successful", ())
        }
        found |= {each["Id"]: _refused(each) for each in answer.get("Failed", ())}
        return [found[entry["Id"]] for entry in entries]

    def _find_out(self, client: Any, timeout: float) -> None:
        """Look the service's name up where no connection may be open: the client has no limit."""
        pid, answered = self._answered
        if (pid == os.getpid() and monotonic() - answered < WARM) or getproxies():
            return
        address = urlsplit(client.meta.endpoint_url)
        port = address.port or (443 if address.scheme == "https" else 80)
        try:
            resolve(str(address.hostname), port, timeout=timeout)
        except OSError as exc:
            late = isinstance(exc, TimeoutError)
            raise RejectedError(
                ErrorCategory.TIMEOUT if late else ErrorCategory.UNAVAILABLE,
                f"no address of {address.hostname} ({type(exc).__name__}): check region, endpoint "
                "and name servers",
            ) from exc


def _refused(failed: dict[str, Any]) -> ClientError:
    """Return the error of one entry, in the shape of that of a whole call."""
    status = 400 if failed.get("SenderFault") else 500
    error = {"Code": failed.get("Code", ""), "Message": failed.get("Message", "")}
    answer: Any = {"Error": error, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(answer, "SendMessageBatch")
