"""The options of a dispatcher."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from dispatchers import BackendOptions

QueueAddress = Annotated[str, Field(pattern=r"^(https?://\S+/)?[A-Za-z0-9_-]{1,80}(\.fifo)?$")]
"""A name, or a URL: https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-queues.html."""


class SQSOptions(BackendOptions):
    """Options of `sqs`."""

    queue: QueueAddress  # pyright: ignore[reportIncompatibleVariableOverride, reportGeneralTypeIssues] - required
    """The queue of requests that name none, by name or URL; queues are made beforehand."""
    region: str | None = Field(default=None, min_length=1)
    """The region of the queues; None leaves it to boto3: `AWS_DEFAULT_REGION`, its files."""
    endpoint: str | None = Field(default=None, pattern=r"^https?://[^\s/?#]+/?$")
    """The address of another service that speaks SQS's protocol; None is Amazon."""
    deadline: float = Field(default=5.0, gt=0, le=3600)
    """Seconds that handing over may take."""
    group: str | None = Field(default=None, min_length=1, max_length=128)
    """The message group of all work; None gives each piece on a FIFO queue a group of its own. A
    request's header `sqs-group` wins over both."""
    lease: int = Field(default=60, ge=1, le=43200)
    """Seconds that a worker holds a message (its visibility timeout) before it renews that."""
    poll: int = Field(default=5, ge=1, le=20)
    """Seconds that a worker's idle thread waits for a message in one call; a stop waits as long."""

    @property
    def is_fifo(self) -> bool:
        """Tell whether the queues keep the order of a group and recognise duplicates."""
        return is_fifo(self.queue)

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        other = next((each for each in self.queues if is_fifo(each) is not self.is_fifo), None)
        if other is not None:
            raise ValueError(
                f"queue {self.queue!r} and {other!r} are of two kinds, FIFO and standard, which "
                "can do different things: give each kind a dispatcher of its own"
            )
        return self


def is_fifo(queue: str) -> bool:
    """Tell whether a queue is FIFO: its name has to end so."""
    return queue.endswith(".fifo")
