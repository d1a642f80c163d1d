"""The options that every backend has."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from dispatchers._errors import nearest, public
from dispatchers._models.base import Model
from dispatchers._models.capabilities import OPTIONS
from dispatchers._models.fields import as_tuple
from dispatchers._models.paths import StoreSpec
from dispatchers._models.redaction import secrets_of, without_secrets


class BreakerSettings(Model):
    """Settings of a circuit breaker."""

    failures: int = Field(default=5, ge=1)
    """Failures in a row that open it."""
    reset: float = Field(default=5.0, gt=0)
    """Seconds from opening, or from a failed probe, until the next probe is let through."""
    probes: int = Field(default=1, ge=1)
    """Probes that must succeed, one after the other, before it closes."""
    probe_timeout: float = Field(default=10.0, gt=0)
    """Seconds after which a probe that has not reported back is given up and the next one let
    through; longer than any deadline in use."""


OnHandlerError = Literal["raise", "log"]


def _as_list(value: object) -> object:
    """Return a list as a tuple; a single text is refused, for it may be several names."""
    return value if isinstance(value, str) else as_tuple(value)


def _waivable(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        if name not in OPTIONS:
            raise ValueError(f"no option {name!r} to waive{nearest(name, OPTIONS)}")
    return names


Names = Annotated[tuple[str, ...], BeforeValidator(_as_list)]


def _as_breaker(value: object) -> object:
    if type(value) is int:  # equal to False, as far as 0 goes
        raise ValueError("should be the breaker's settings, or false")
    return {} if value is True else value


Breaking = Annotated[BreakerSettings | Literal[False], BeforeValidator(_as_breaker)]


@public
class BackendOptions(Model):
    """Options of every dispatcher; a backend adds its own in a subclass."""

    def __repr__(self) -> str:
        """Show the values without secrets and passwords of URLs."""
        return without_secrets(super().__repr__(), secrets_of(self))

    def __str__(self) -> str:
        return repr(self)

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle the breaker's settings as a table: their class has no public name."""
        breaker = self.breaker.model_dump() if self.breaker else False
        return type(self).model_validate, ({**self.__dict__, "breaker": breaker},)

    queue: str | None = Field(default=None, min_length=1, max_length=255)
    """The queue of requests that name none; None leaves it to the backend."""
    queues: Names = ()
    """Queues that exist. If any is named, a request for another is refused, not created."""
    deadline: float = Field(default=2.0, gt=0, le=3600)
    """Seconds that handing over may take."""
    breaker: Breaking = Field(default_factory=BreakerSettings)
    """The circuit breaker's settings, or false."""
    waive: Annotated[Names, AfterValidator(_waivable)] = ()
    """Options that may be left out where the backend cannot: `["delay", "priority"]`."""
    on_handler_error: OnHandlerError | None = None
    """`raise` a task's failure to the transport, or `log` it only; None leaves it to the task."""
    idempotency: StoreSpec | None = None
    """Where runs are remembered by key: `memory`, `sqlite:PATH`, `redis://HOST/DB` or
    `module:attribute`."""
    dead_letters: StoreSpec | None = None
    """The store of work that failed permanently: `memory`, `sqlite:PATH`, `redis://HOST/DB` or
    `module:attribute`."""
    tracebacks: bool = False
    """Keep every frame of a failed run, its file, line and function, in the log and dead letter."""
    max_deliveries: int = Field(default=5, ge=1)
    """Work that was delivered more often without an outcome is dead-lettered."""
    skew_grace: float = Field(default=900.0, ge=0)
    """Seconds that unknown tasks and newer envelopes are handed back before they are dead."""
