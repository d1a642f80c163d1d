"""A worker for `manage.py rqworker` that loses nothing when it is killed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from dispatchers_rq import HorseWorker, refuse_unsupported

from dispatchers import ConfigurationError, get_dispatcher
from dispatchers.delivery import import_modules

from ._dispatcher import DjangoRQDispatcher


class LeasedWorker(HorseWorker):
    """Runs work under a lease in `rqworker`; django-rq's setting `WORKER_CLASS` names it.

    Its options are those of the dispatcher `default`; a subclass has another `alias`.

    Args:
        queues: django-rq's queues.

        connection: Not used, as the dispatcher has the Redis of the queues.

        serializer: Not used, as it reads both of RQ's.

        settings: As RQ's worker takes them.

    Raises:
        ConfigurationError: That dispatcher does not serve these queues, or this RQ or system is
            not supported.
    """

    alias = "default"
    """The dispatcher whose options hold."""

    def __init__(
        self,
        queues: Iterable[Any],
        connection: Any = None,
        *,
        serializer: Any = None,
        **settings: Any,
    ) -> None:
        refuse_unsupported()
        import_modules()
        names = [queue.name for queue in queues]
        dispatcher = _serving(self.alias, names)
        super().__init__(dispatcher, names, letters=dispatcher.letters, **settings)

    def _ends(self) -> bool:
        """Tell whether it was told to end: unlike ours, it may outlive what has started it."""
        return self._stop_requested


def _serving(alias: str, queues: list[str]) -> DjangoRQDispatcher:
    found = get_dispatcher(alias)
    if not isinstance(found, DjangoRQDispatcher) or not {*queues} <= {*found.options.queues}:
        raise ConfigurationError(
            f"dispatcher {alias!r} is not one of 'django_rq' for the queues {', '.join(queues)}: "
            "set `alias` in a subclass of LeasedWorker, and name it in settings.RQ['WORKER_CLASS']"
        )
    return found
