"""A backend with its options: described, checked, asked for figures, dead letters and a worker.

`BaseDispatcher` inherits this and adds how requests are handed over.
"""

from __future__ import annotations

import logging
from abc import ABC
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from itertools import count
from typing import TYPE_CHECKING, Never, TypeVar, final

from pydantic import ValidationError

from dispatchers._dispatch import reporting as _report
from dispatchers._dispatch.error_mapping import safe_text, type_name
from dispatchers._errors import ConfigurationError
from dispatchers._models.capabilities import Capabilities
from dispatchers._models.options import BackendOptions
from dispatchers._models.redaction import secrets_of
from dispatchers._models.request import DispatchRequest
from dispatchers._models.stats import PartlyCountedError, Stats
from dispatchers._models.validation import options_error
from dispatchers._runtime.connect import bounded
from dispatchers._runtime.importing import import_object, is_importable
from dispatchers._runtime.log import say

if TYPE_CHECKING:
    from dispatchers._dispatch.worker_protocol import Worker, WorkerOptions
    from dispatchers._models.dead_letter import DeadLetterStore

# Rooms above this one, named as text so that no import leads upwards.
STORES = "dispatchers._stores.loading:dead_letters"
CATALOGUE = "dispatchers._tasks.task:catalogue"

T = TypeVar("T")

_numbers = count(1)
"""Dispatchers of this process; several may have one alias."""


class ConfiguredBackend(ABC):
    """A backend under an alias, with its validated options."""

    name: str
    """The registered name of the backend."""
    contract: int
    """The contract number the class was written for. No default: writing it is reading it."""
    capabilities: Capabilities
    """On the class what is possible at most; an instance may narrow it."""
    Options: type[BackendOptions] = BackendOptions
    """The options model."""
    library: str | None = None
    """The module whose presence makes the backend available; None needs nothing."""
    warnings: tuple[str, ...] = ()
    """Warnings of the last check with contact, such as lost durability."""
    posix_worker: bool = False
    """Whether the worker needs a POSIX system: forks, signals, pipes that can be waited for."""
    journal: str | None = None
    """The journal for workflows that `workflows = "auto"` takes, named as there; None has none."""
    worker: str | None = None
    """The class of the worker as `package.module:Class`, made with dispatcher and options."""

    def __init__(
        self, options: BackendOptions | None = None, *, alias: str | None = None, **settings: object
    ) -> None:
        self.alias: str = alias or self.name
        self._number = next(_numbers)
        self.options = self._validated(options, settings)
        self._secrets = secrets_of(self.options)
        if self.capabilities.dead_letters and self._keeps_no_letters_itself():
            self.capabilities = self.capabilities.model_copy(update={"dead_letters": False})

    @classmethod
    def _validated(
        cls, options: BackendOptions | None, settings: dict[str, object]
    ) -> BackendOptions:
        # Validated when they were made.
        if options is not None and not settings:
            return options
        try:
            return cls.Options.model_validate({**(options.__dict__ if options else {}), **settings})
        except ValidationError as exc:
            raise options_error(exc, cls.Options, f"{cls.__name__}") from None

    def _keeps_no_letters_itself(self) -> bool:
        inherited = type(self)._dead_letters is ConfiguredBackend._dead_letters
        return inherited and self.options.dead_letters is None

    @classmethod
    def stands_on(cls, options: BackendOptions) -> tuple[str, ...]:
        """Return the aliases of the dispatchers that one with these options hands work to."""
        del options
        return ()

    @classmethod
    def is_available(cls) -> bool:
        """Tell whether the backend's library is installed; never raises."""
        return cls.library is None or is_importable(cls.library)

    def check(self, *, contact: bool = False) -> None:
        """Check the configuration; with `contact`, reach the backend too.

        Raises:
            ConfigurationError: It would reject every dispatch, or could not be reached.
        """
        self._check()
        self._check_window()
        self.warnings = self._contact() if contact else ()
        for warning in self.warnings:
            say(logging.WARNING, "dispatcher %r: %s", self.alias, warning)

    @final
    def _check_window(self) -> None:
        """Refuse tasks whose runs outlast the redelivery window (C10)."""
        window = self.redelivery_window
        if window is None:
            return
        for task in import_object(CATALOGUE).all():
            if (task.time_limit or 0) > window:
                raise ConfigurationError(
                    f"task {task.name!r} may run for {task.time_limit} s, and after {window:.0f} s "
                    f"the broker of {self.alias!r} gives its work to another worker: "
                    f"{self.redelivery_cure}"
                )

    def queue_of(self, request: DispatchRequest) -> str | None:
        """Return the queue a request goes to, or None for the backend's."""
        return request.queue or self.options.queue

    @final
    def stats(self, *, timeout: float = 2.0) -> list[Stats]:
        """Count what waits, runs, is delayed and is dead, queue by queue.

        Never raises an `Exception`: what the backend cannot say is None, and where it could not be
        asked within `timeout` seconds the list is empty and the reason is logged.
        """
        found, reason = self._counted(timeout)
        if reason is not None:
            _report.uncounted(self.alias, self.name, reason)
        return found

    @final
    def _counted(self, timeout: float) -> tuple[list[Stats], str | None]:
        """Return the figures, and why there are none, or not all."""
        if not self.capabilities.stats:
            return [], None
        try:
            # Bounded from outside: a client's own timeout does not cover name resolution.
            counted = self._bounded(
                lambda: self._stats(timeout=timeout), timeout=timeout, to="stats"
            )
            return list(counted), None
        except PartlyCountedError as exc:
            return list(exc.found), str(exc)
        except Exception as exc:  # noqa: BLE001 - looking at a queue never breaks its caller
            return [], f"{type_name(exc)}: {safe_text(exc, self._secrets)}"

    @final
    def _bounded(
        self,
        connecting: Callable[[], T],
        *,
        timeout: float,
        discard: Callable[[T], object] | None = None,
        to: str = "server",
    ) -> T:
        """Run a client's own connecting within a bound, as `dispatchers.net.bounded` does.

        What hangs counts for this dispatcher alone: another one, under the same alias or of the
        same class, goes on connecting.

        Args:
            connecting: Connects and returns the connection. It must hand nothing over.

            timeout: Seconds.

            discard: Closes a connection that came too late to be used.

            to: The server, where a dispatcher has several.

        Raises:
            ConnectTimeoutError: No connection in time, or too many earlier ones hang.
        """
        to = f"{to} of {self.alias} ({self._number})"
        return bounded(connecting, timeout=timeout, discard=discard, to=to)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.alias!r}>"

    def __reduce__(self) -> Never:
        """Refuse to pickle connections and threads of one process.

        Raises:
            TypeError: Always; the message says what to pass instead.
        """
        # A copy would lack, or share, the sockets and threads of the original.
        raise TypeError(
            f"dispatcher {self.alias!r} cannot be copied or pickled: "
            "pass its alias, and call get_dispatcher(alias) there"
        )

    # What an adapter's author may write.

    def _check(self) -> None:  # noqa: B027 - nothing to check is fine
        """Raise `ConfigurationError` for what is wrong and can be known without contact."""

    def _probe(self, *, timeout: float) -> Iterable[str] | None:
        """Reach the backend, or raise; return what an operator should know, or None."""
        del timeout
        return None

    @final
    def _contact(self) -> tuple[str, ...]:
        """Reach the backend within the deadline, whatever the client's probe does."""
        deadline = self.options.deadline
        try:
            warnings = self._bounded(
                lambda: self._probe(timeout=deadline), timeout=deadline, to="check"
            )
            return tuple(warnings or ())
        except Exception as exc:
            text = safe_text(exc, self._secrets)
            raise ConfigurationError(
                f"dispatcher {self.alias!r} ({self.name}) could not be reached: "
                f"{type_name(exc)}: {text}"
            ) from exc

    def _stats(self, *, timeout: float) -> Sequence[Stats]:
        """Return the figures of each queue, or raise; declare it by the capability `stats`.

        `queue_stats` makes them from counts by queue, and `dispatchers.stores.count_dead` counts
        the dead letters of a configured store.
        """
        del timeout
        return []

    @property
    def redelivery_window(self) -> float | None:
        """Seconds after which the broker delivers an unfinished run again; None is never."""
        return None

    redelivery_cure: str = "shorten it"
    """Words for a task whose time limit exceeds the window: which setting to raise."""

    @property
    def run_by(self) -> str | None:
        """Describe the program that runs the work, where it is another than `dispatchers worker`.

        Words that complete "is run by", with the command or address: "manage.py qcluster".
        """
        return None

    def _worker(self, options: WorkerOptions) -> Worker:
        """Make the worker that runs this dispatcher's work: the class that `worker` names.

        Raises:
            ConfigurationError: There is none for this backend.
        """
        if self.run_by is not None:
            raise ConfigurationError(
                f"the work of {self.alias!r} ({self.name}) is run by {self.run_by}"
            )
        if self.worker is None:
            raise ConfigurationError(f"backend {self.name!r} has no worker: it needs none")
        made: Worker = import_object(self.worker)(self, options)
        return made

    def _forwarders(self) -> Sequence[object]:
        """Return what hands over the work that this dispatcher holds in a store."""
        return ()

    def _moving(self, queues: Sequence[str] | None) -> object | None:
        """Return the `dispatchers.moving.Claims` by which waiting work leaves for another backend.

        None where there are none: `dispatchers move` cannot move work from here.

        Args:
            queues: The queues to move; None for all.

        Raises:
            ConfigurationError: This configuration of the backend cannot be claimed from.
        """
        del queues
        return None

    def _dead_letters(self) -> DeadLetterStore | None:
        """Return the store that lists this dispatcher's dead letters, or None."""
        return self.letters

    @cached_property
    def letters(self) -> DeadLetterStore | None:
        """Store that the option `dead_letters` names, or None."""
        spec = self.options.dead_letters
        opened: DeadLetterStore | None = None if spec is None else import_object(STORES)(spec)
        return opened
