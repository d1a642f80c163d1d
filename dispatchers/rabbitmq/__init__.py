"""RabbitMQ for adapters: `pip install "dispatchers[dramatiq]"` or `"dispatchers[celery]"`.

`Publisher` hands messages over within a time limit, and answers for each of them what the broker
said: confirmed, refused, returned because no queue took it, or nothing in time. Client libraries
bound a connection but not a publish; pika encodes the frames, the socket is ours::

    publisher = Publisher([Server("localhost", user="guest", password="guest")])
    answers = publisher.publish([Message("mail", b"{}", id="1", queues=[Queue("mail")])], 2.0)

`None` is a confirmed message. `category_of` and `is_certainly_unsent` classify everything else.
`Publisher.check` reads what the broker's settings make of a durable message.
"""

from __future__ import annotations

from ._errors import (
    BlockedError,
    NackedError,
    NotTriedError,
    RefusedError,
    ReplyError,
    ReturnedError,
    UnconfirmedError,
    category_of,
    is_certainly_unsent,
)
from ._message import Exchange, Message, Queue
from ._publisher import Publisher
from ._server import Server

__all__ = [
    "BlockedError",
    "Exchange",
    "Message",
    "NackedError",
    "NotTriedError",
    "Publisher",
    "Queue",
    "RefusedError",
    "ReplyError",
    "ReturnedError",
    "Server",
    "UnconfirmedError",
    "category_of",
    "is_certainly_unsent",
]
