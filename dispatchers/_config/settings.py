"""Validated configuration: the selected target and its dispatchers."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any, cast

from pydantic import BaseModel, BeforeValidator, Field, ValidationError

from dispatchers._config.environment import (
    converted,
    environment_layer,
    ignored_variables,
    is_of_a_service,
)
from dispatchers._config.files import file_layer, framework_layer
from dispatchers._config.layers import (
    DEFAULT,
    Keys,
    Layer,
    Tree,
    dotted,
    merged,
    replaced,
    table_of,
)
from dispatchers._config.references import BUILT_IN, ENDPOINT_SETTINGS, LIBRARIES
from dispatchers._config.registry import backends, bundled_extra, load_backend
from dispatchers._dispatch.base import BaseDispatcher
from dispatchers._errors import ConfigurationError, nearest
from dispatchers._models.base import Model
from dispatchers._models.fields import Attempts, Priority, QueueName, Seconds
from dispatchers._models.options import BackendOptions, Names, OnHandlerError
from dispatchers._models.paths import StoreSpec
from dispatchers._models.request import Backoff
from dispatchers._models.validation import joined, path_of, sentence
from dispatchers._runtime.importing import import_object, install
from dispatchers._runtime.log import say

__all__ = ["Configuration", "Settings", "Specification", "TaskOverride", "read"]

LATE = ("targets", "endpoint")
"""Tables that are validated when they are first needed."""


SHARED = ("on_handler_error", "skew_grace", "max_deliveries")
"""Global settings that stand in for a dispatcher's own."""


def _as_span(value: object) -> object:
    # A bool is an int: `expires = true` would be one second.
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return value
    # Built when needed: the first validator of a process makes pydantic look for plugins.
    from pydantic import TypeAdapter

    try:
        if isinstance(value, str):
            return TypeAdapter(timedelta).validate_python(value)
        return timedelta(seconds=value)
    except (ValueError, OverflowError) as exc:
        raise ValueError("should be seconds, or a duration like PT5M") from exc


class TaskOverride(Model):
    """Host's overrides of one task; other settings stay the task's own."""

    dispatcher: str | None = Field(default=None, min_length=1)
    """The alias of the dispatcher."""
    queue: QueueName | None = None
    """The queue."""
    priority: Priority | None = None
    """-100 to 100, higher first."""
    time_limit: Seconds | None = None
    """Seconds that one run may take."""
    max_attempts: Attempts | None = None
    """Attempts in all."""
    backoff: Backoff | None = None
    """The wait between attempts."""
    expires: Annotated[timedelta, BeforeValidator(_as_span), Field(gt=timedelta(0))] | None = None
    """Seconds, or ISO 8601 text, after which it is not run any more."""
    on_handler_error: OnHandlerError | None = None
    """`raise` the task's failure to the transport, or `log` it only."""


class Settings(Model):
    """The whole configuration."""

    target: str | None = Field(default=None, min_length=1)
    """The selected target."""
    targets: dict[str, dict[str, dict[str, Any]]] = Field(default_factory=dict)
    """The dispatchers of each target by alias: `backend` and its options."""
    modules: Names = ()
    """Modules that a worker imports, so that the tasks are registered."""
    tasks: dict[str, TaskOverride] = Field(default_factory=dict)
    """Overrides by exact task name; a list instead of a table names modules."""
    hooks: Names = ()
    """Modules that add hooks, imported before the first dispatcher is built."""
    on_handler_error: OnHandlerError | None = None
    """Treatment of a task's failure, where neither dispatcher nor task decides."""
    skew_grace: float | None = Field(default=None, ge=0)
    """For dispatchers that do not set their own, in seconds."""
    max_deliveries: int | None = Field(default=None, ge=1)
    """For dispatchers that do not set their own."""
    endpoint: dict[str, Any] = Field(default_factory=dict)
    """The worker's HTTP endpoint (`docs/http.md`)."""
    exit_timeout: float = Field(default=5.0, ge=0, le=3600)
    """Seconds that dispatchers have at exit to finish the work they hold."""
    workflows: StoreSpec = Field(default="auto", min_length=1)
    """The journal of workflows: `memory`, `sqlite:PATH` or `module:attribute`; `auto` takes the one
    that the default dispatcher has."""

    @property
    def shared(self) -> dict[str, object]:
        """Return the options of dispatchers that do not set their own."""
        return {name: own for name in SHARED if (own := getattr(self, name)) is not None}


@dataclass(frozen=True, slots=True)
class Specification:
    """One dispatcher as configured: enough to build it."""

    alias: str
    cls: type[BaseDispatcher]
    options: BackendOptions
    raw: Mapping[str, object]

    def same_as(self, other: Specification) -> bool:
        """Tell whether a dispatcher of the other one serves as well."""
        try:
            return self.cls is other.cls and bool(self.raw == other.raw)
        except Exception:  # noqa: BLE001 - an option's __eq__ is foreign code
            return False


class Configuration:
    """Merged layers and what they mean.

    Raises:
        ConfigurationError: A setting is unknown or does not fit.
    """

    def __init__(self, layer: Layer) -> None:
        self.layer = layer
        self.settings = self._validated()
        self._specifications: dict[tuple[str | None, str], Specification] = {}

    def _validated(self) -> Settings:
        given = self.layer.values
        # The tables that need a backend's options are converted once that backend is imported.
        values = converted({k: v for k, v in given.items() if k not in LATE}, Settings)
        tasks = cast("Mapping[str, Tree]", given.get("tasks", {}))
        # By hand: the names of tasks are the user's own, and fields of no model.
        values["tasks"] = {name: converted(task, TaskOverride) for name, task in tasks.items()}
        try:
            return Settings.model_validate({**values, **{k: given[k] for k in LATE if k in given}})
        except ValidationError as exc:
            raise joined(self._sentences(exc, Settings, self.layer.values, ())) from None

    def target(self, name: str | None = None) -> str | None:
        """Return the selected target; None if nothing is configured.

        Raises:
            ConfigurationError: None is selected, it is unknown, or it has no dispatchers.
        """
        targets = self.settings.targets
        chosen = name or self.settings.target
        if chosen is None and not targets:
            return None
        if chosen is None:
            raise ConfigurationError(
                f"no target is selected of {', '.join(map(repr, sorted(targets)))}: "
                "set DISPATCHERS_TARGET, `target` in the configuration, or configure(target=...)"
            )
        if chosen not in targets:
            origin = "" if name else f" ({self.layer.origin_of(('target',))})"
            known = nearest(chosen, targets) or "; no targets are configured"
            raise ConfigurationError(f"no target {chosen!r}{origin}{known}")
        if not targets[chosen]:
            origin = self.layer.origin_of(("targets", chosen))
            raise ConfigurationError(
                f"targets.{dotted([chosen])} ({origin}): has no dispatchers: add `default`"
            )
        return chosen

    def dispatchers(self, target: str | None = None) -> Mapping[str, Mapping[str, object]]:
        """Return a target's dispatchers by alias; `inline` without any configuration.

        Raises:
            ConfigurationError: As `target` does.
        """
        chosen = self.target(target)
        if chosen is None:
            return {DEFAULT: {"backend": "inline"}}
        return self.settings.targets[chosen]

    def specification(self, alias: str, target: str | None = None) -> Specification:
        """Return the specification of an alias; imports its backend.

        Raises:
            ConfigurationError: There is none, or it is configured wrongly.
        """
        chosen = self.target(target)
        # Kept: each build and each check asks for it.
        found = self._specifications.get((chosen, alias))
        if found is None:
            found = self._specified(alias, chosen)
            self._specifications[chosen, alias] = found
        return found

    def _specified(self, alias: str, target: str | None) -> Specification:
        known = self.dispatchers(target)
        if alias not in known:
            place = f" in target {target!r}" if target else ""
            raise ConfigurationError(f"no dispatcher {alias!r}{place}{nearest(alias, known)}")
        keys = ("targets", target, alias) if target else ()
        return self.specified(alias, known[alias], keys)

    def specified(
        self, alias: str, raw: Mapping[str, object], keys: Keys, origin: str | None = None
    ) -> Specification:
        """Validate a table of `backend` and options.

        Raises:
            ConfigurationError: It is wrong; the message has every problem in it.
        """
        place = f"{dotted(keys) or alias} ({origin or self.layer.origin_of(keys)})"
        cls = self._backend(raw, place)
        own = {key: value for key, value in raw.items() if key != "backend"}
        # An adapter may narrow its options: a global setting must not make them invalid.
        shared = {k: v for k, v in self.settings.shared.items() if k in cls.Options.model_fields}
        options = {**shared, **converted(own, cls.Options)}
        try:
            valid = cls.Options.model_validate(options)
        except ValidationError as exc:
            raise joined(self._sentences(exc, cls.Options, raw, keys, origin)) from None
        # With the shared ones: a changed global setting must rebuild the dispatcher.
        return Specification(alias, cls, valid, {**shared, **raw})

    def endpoint(self) -> Any:
        """Return the settings of the worker's HTTP endpoint.

        Raises:
            ConfigurationError: They are wrong; the message has every problem in it.
        """
        model: Any = import_object(ENDPOINT_SETTINGS)

        raw = self.settings.endpoint
        # An endpoint counts attempts by the queue's header, and has no such setting.
        shared = {k: v for k, v in self.settings.shared.items() if k != "max_deliveries"}
        try:
            return model.model_validate({**shared, **converted(raw, model)})
        except ValidationError as exc:
            raise joined(self._sentences(exc, model, raw, ("endpoint",))) from None

    def _backend(self, raw: Mapping[str, object], place: str) -> type[BaseDispatcher]:
        name = raw.get("backend")
        if name is None:
            raise ConfigurationError(f"{place}: `backend` is missing{nearest('', BUILT_IN)}")
        if not isinstance(name, str):
            raise ConfigurationError(
                f"{place}: `backend` must be a name, not {type(name).__name__}"
            )
        try:
            return automatic() if name == "auto" else load_backend(str(name))
        except ConfigurationError as exc:
            # Of the same class: callers tell a missing library from a wrong setting.
            raise type(exc)(f"{place}: {exc}") from exc

    def _sentences(
        self,
        error: ValidationError,
        model: type[BaseModel],
        raw: Mapping[str, object],
        keys: Keys,
        origin: str | None = None,
    ) -> list[str]:
        """Return a sentence per problem: key, origin, fault."""
        problems = error.errors(include_url=False, include_input=False)
        paths = [path_of(problem, raw) for problem in problems]
        return [
            f"{dotted((*keys, *path))} ({origin or self.layer.origin_of((*keys, *path))}): "
            f"{sentence(problem, model)}{_quoted(keys, path, raw)}"
            for problem, path in zip(problems, paths, strict=True)
            # A union reports each of its members: only the deepest report names the fault.
            if not any(len(other) > len(path) and other[: len(path)] == path for other in paths)
        ]


def _quoted(keys: Keys, path: Keys, raw: Mapping[str, object]) -> str:
    """Return the cure for a dotted task name written without quotes."""
    if keys or len(path) != 3 or path[0] != "tasks":  # noqa: PLR2004 - tasks, module, function
        return ""
    inner = table_of(table_of(raw.get("tasks")).get(path[1])).get(path[2])
    cure = f"""; a task's name wants quotes: [tasks."{".".join(path[1:])}"]"""
    return cure if isinstance(inner, dict) and inner else ""


def automatic() -> type[BaseDispatcher]:
    """Return the only installed backend that is not built in.

    Raises:
        ConfigurationError: There is none, or there are several; the message has the cure.
    """
    known = [info for info in backends() if info.name not in BUILT_IN]
    installed = [info for info in known if info.state == "installed"]
    if len(installed) == 1:
        return load_backend(installed[0].name)
    if installed:
        names = " and ".join(repr(info.name) for info in installed)
        raise ConfigurationError(
            f'backend "auto" finds {names}: say which, backend = "{installed[0].name}"'
        )
    extras = [bundled_extra(name) for name in LIBRARIES]
    broken = "".join(f"; {info.reason}" for info in known if info.state in {"broken", "conflict"})
    raise ConfigurationError(
        'backend "auto" finds no backend that is installed besides the built-in ones: '
        f"{' or '.join(install(extra) for extra in extras)}{broken}"
    )


_said_once: set[str] = set()


def _say_what_is_ignored(environ: Mapping[str, str]) -> None:
    """Log once each variable that is not a setting."""
    for name in ignored_variables(environ, Settings.model_fields):
        if name not in _said_once and not is_of_a_service(name):
            _said_once.add(name)
            say(logging.WARNING, "variable %s is not a setting of dispatchers: ignored", name)


def read(above: Sequence[Layer], explicit: Layer) -> Configuration:
    """Read all sources and validate them.

    Args:
        above: What beats everything, the highest first; the dispatchers it names begin afresh.

        explicit: What was configured from code.

    Raises:
        ConfigurationError: A source cannot be read, or a setting is unknown or does not fit.
    """
    environ = os.environ
    low = [framework_layer(), file_layer(environ)]
    known = merged([*above, explicit, *low]).values
    # Read after the others: names in variables are matched with the keys that these have.
    environment = environment_layer(environ, known, Settings.model_fields)
    _say_what_is_ignored(environ)
    result = merged([explicit, environment, *low])
    for layer in reversed(above):
        result = merged([layer, replaced(layer, result)])
    return Configuration(result)
