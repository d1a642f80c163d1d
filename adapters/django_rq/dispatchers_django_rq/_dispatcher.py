"""`rq`, with queues and Redis from django-rq's settings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dispatchers_rq import RQDispatcher

from dispatchers import BackendOptions, DispatchRequest
from dispatchers.native import is_native

from ._options import DjangoRQOptions
from ._settings import default_timeout, held_back, rq_options


class DjangoRQDispatcher(RQDispatcher):
    """Hands work over to the queues of `RQ_QUEUES`, at once, whatever django-rq's commit mode is.

    Args:
        options: The validated options; None builds them from `settings`.

        alias: The name the dispatcher is configured under.

        settings: The options by keyword.

    Raises:
        ConfigurationError: An option does not fit, or Django's settings have no such queue.
    """

    name = "django_rq"
    contract = 1
    library = "django_rq"
    Options = DjangoRQOptions

    def __init__(
        self, options: BackendOptions | None = None, *, alias: str | None = None, **settings: object
    ) -> None:
        given: Any = self._validated(options, settings)
        super().__init__(rq_options(given, alias or self.name), alias=alias)

    def _prepare(self, request: DispatchRequest, body: bytes) -> Any:
        if is_native(request) and request.time_limit is None:
            limit = default_timeout(str(self.queue_of(request)))
            request = request.replace(time_limit=limit)
        return super()._prepare(request, body)

    def _probe(self, *, timeout: float) -> Sequence[str]:
        return (*held_back(), *super()._probe(timeout=timeout))
