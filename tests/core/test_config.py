"""The validated configuration: selection, options, overrides, `auto`, and what errors say."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr

from dispatchers import (
    BackendOptions,
    Backoff,
    BaseDispatcher,
    Capabilities,
    ConfigurationError,
    ErrorCategory,
    MissingDependencyError,
    RegistrationError,
    Sent,
    register,
)
from dispatchers._config import references, registry
from dispatchers._config.json_schema import settings_schema
from dispatchers._config.layers import Layer, code_layer
from dispatchers._config.settings import Configuration, read


class AcmeOptions(BackendOptions):
    """Options of a made-up backend."""

    url: str
    """Where it is."""
    workers: int = 1
    """How many."""
    eager: bool = False
    """Whether at once."""
    token: SecretStr | None = None
    """A secret."""
    app: object = None
    """The application's own object."""


class AcmeDispatcher(BaseDispatcher):
    """A backend that is not built in."""

    name = "acme"
    contract = 1
    capabilities = Capabilities()
    Options = AcmeOptions

    def _send(self, request: object, body: bytes, *, timeout: float) -> Sent:
        return Sent()

    def _category(self, exc: Exception) -> ErrorCategory | None:
        return None

    def _maybe_sent(self, exc: Exception) -> bool:
        return True


class RivalDispatcher(AcmeDispatcher):
    """A second one."""

    name = "rival"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in [name for name in os.environ if name.startswith("DISPATCHERS_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    code = dict(registry.table.code)
    yield
    registry.table.code = code
    registry.refresh()


@pytest.fixture
def acme() -> type[BaseDispatcher]:
    return register(AcmeDispatcher)


def of(settings: Mapping[str, object]) -> Configuration:
    return Configuration(code_layer(settings, "here"))


def dispatcher(**options: object) -> Configuration:
    return of({"target": "test", "targets": {"test": {"default": options}}})


def message_of(settings: Mapping[str, object]) -> str:
    with pytest.raises(ConfigurationError) as caught:
        of(settings).specification("default")
    return str(caught.value)


# Selection.


def test_no_configuration_at_all_means_inline() -> None:
    """Without any configuration `default` is inline, so that a library can dispatch at once."""
    configuration = of({})

    assert configuration.target() is None
    assert dict(configuration.dispatchers()) == {"default": {"backend": "inline"}}


def test_the_selected_target_has_the_dispatchers() -> None:
    """`target` selects among the targets."""
    targets = {"a": {"default": "inline"}, "b": {"default": "null", "x": "inline"}}

    configuration = of({"target": "b", "targets": targets})

    assert configuration.target() == "b"
    assert sorted(configuration.dispatchers()) == ["default", "x"]


def test_targets_without_a_selection_are_listed() -> None:
    """Targets configured and none selected is an error that lists them, with the cures."""
    message = message_of({"targets": {"gcp": {"default": "inline"}, "compose": {}}})

    assert message.startswith("no target is selected of 'compose', 'gcp': set DISPATCHERS_TARGET")


def test_an_unknown_target_is_told_with_its_origin_and_the_nearest() -> None:
    """An unknown target is an error with the nearest name."""
    message = message_of({"target": "gpc", "targets": {"gcp": {"default": "inline"}}})

    assert message == "no target 'gpc' (here); did you mean 'gcp'?"


def test_a_target_without_any_configuration_is_an_error() -> None:
    """A target is selected and no targets are configured: nothing runs inline in silence."""
    assert message_of({"target": "gcp"}) == "no target 'gcp' (here); no targets are configured"


def test_a_target_without_dispatchers_is_an_error() -> None:
    """An empty target is an error with the cure."""
    message = message_of({"target": "gcp", "targets": {"gcp": {}}})

    assert message == "targets.gcp (here): has no dispatchers: add `default`"


def test_the_variable_beats_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`DISPATCHERS_TARGET` selects, whatever the file says; code beats both."""
    path = tmp_path / "dispatchers.toml"
    path.write_text('target = "a"\n[targets]\na.x = "inline"\nb.x = "inline"\nc.x = "inline"\n')
    nothing = Layer({})

    assert read([], nothing).target() == "a"
    monkeypatch.setenv("DISPATCHERS_TARGET", "b")
    assert read([], nothing).target() == "b"
    assert read([], code_layer({"target": "c"}, "code")).target() == "c"


def test_an_unknown_alias_is_told_with_the_nearest() -> None:
    """An alias that is not configured is an error with the nearest one."""
    configuration = of({"target": "t", "targets": {"t": {"tracking": "inline"}}})

    with pytest.raises(ConfigurationError) as caught:
        configuration.specification("trackign")

    assert str(caught.value) == "no dispatcher 'trackign' in target 't'; did you mean 'tracking'?"


# Errors name the key, the place and the cure.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"waiv": ["delay"]}, "waiv (here): unknown option; did you mean 'waive'?"),
        ({"waive": ["dely"]}, "waive (here): no option 'dely' to waive; did you mean 'delay'?"),
        ({"deadline": "2"}, "deadline (here): should be a valid number"),
        ({"deadline": True}, "deadline (here): should be a valid number"),
        ({"deadline": 0}, "deadline (here): should be greater than 0"),
        ({"deadline": float("nan")}, "deadline (here): should be a finite number"),
        ({"max_deliveries": True}, "max_deliveries (here): should be a valid integer"),
        ({"max_deliveries": 1.5}, "max_deliveries (here): should be a valid integer"),
        ({"queue": 3}, "queue (here): should be a valid string"),
        (
            {"breaker": {"failurs": 3}},
            "breaker.failurs (here): unknown option; did you mean 'failures'?",
        ),
        (
            {"breaker": {"failures": "3"}},
            "breaker.failures (here): should be a valid integer",
        ),
    ],
)
def test_a_wrong_option_is_told_with_key_and_origin(
    options: dict[str, object], message: str
) -> None:
    """Every message says which key of which target of which source, and the nearest name."""
    settings = {"target": "test", "targets": {"test": {"default": {"backend": "inline"} | options}}}

    assert message_of(settings) == f"targets.test.default.{message}"


def test_an_error_in_a_file_has_its_path(tmp_path: Path) -> None:
    """The origin of a value from a file is the file's path."""
    path = tmp_path / "dispatchers.toml"
    path.write_text('target = "test"\n[targets.test.default]\nbackend = "inline"\nwaiv = []\n')

    with pytest.raises(ConfigurationError) as caught:
        read([], Layer({})).specification("default")

    assert str(caught.value) == (
        f"targets.test.default.waiv ({path}): unknown option; did you mean 'waive'?"
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"targts": {}}, "targts (here): unknown option; did you mean 'targets'?"),
        ({"target": 3}, "target (here): should be a valid string"),
        ({"modules": "shop"}, "modules (here): should be a valid tuple"),
        ({"hooks": [3]}, "hooks.0 (here): should be a valid string"),
        ({"max_deliveries": 0}, "max_deliveries (here): should be greater than or equal to 1"),
        ({"skew_grace": True}, "skew_grace (here): should be a valid number"),
        ({"on_handler_error": "rais"}, "on_handler_error (here): should be 'raise' or 'log'"),
        (
            {"tasks": {"a.b": {"quue": "x"}}},
            "tasks.\"a.b\".quue (here): unknown option; did you mean 'queue'?",
        ),
        (
            {"tasks": {"a": {"priority": 101}}},
            "tasks.a.priority (here): should be less than or equal to 100",
        ),
        (
            {"tasks": {"a": {"expires": True}}},
            "tasks.a.expires (here): should be a valid timedelta",
        ),
        (
            {"tasks": {"a": {"expires": "soon"}}},
            "tasks.a.expires (here): should be seconds, or a duration like PT5M",
        ),
        (
            {"tasks": {"a": {"expires": 1e300}}},
            "tasks.a.expires (here): should be seconds, or a duration like PT5M",
        ),
        (
            {"tasks": {"a": {"backoff": {"intial": 3}}}},
            "tasks.a.backoff.intial (here): unknown option; did you mean 'initial'?",
        ),
    ],
)
def test_a_wrong_setting_of_the_whole_is_told_with_key_and_origin(
    settings: dict[str, object], message: str
) -> None:
    """What stands at the top, or in a task's table, is checked the same way."""
    with pytest.raises(ConfigurationError) as caught:
        of(settings)

    assert str(caught.value) == message


def test_all_that_is_wrong_is_said_at_once(acme: object) -> None:
    """Several wrong options make one error with a line each."""
    message = message_of(
        {
            "target": "t",
            "targets": {"t": {"default": {"backend": "acme", "workers": "3", "eagr": True}}},
        }
    )

    assert message.splitlines() == [
        "3 problems:",
        "  - targets.t.default.url (here): is missing",
        "  - targets.t.default.workers (here): should be a valid integer",
        "  - targets.t.default.eagr (here): unknown option; did you mean 'eager'?",
    ]


def test_an_error_never_quotes_the_value(acme: object) -> None:
    """A message names the key, never what stands there: it may be a secret."""
    secret = "hunter2-in-the-wrong-place"

    message = message_of(
        {
            "target": "t",
            "targets": {"t": {"default": {"backend": "acme", "url": "u", "workers": secret}}},
        }
    )

    assert secret not in message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "`backend` is missing"),
        ({"backend": 3}, "`backend` must be a name, not int"),
        ({"backend": "inlin"}, "no backend 'inlin'; did you mean 'inline'?"),
    ],
)
def test_the_backend_must_be_named(options: dict[str, object], message: str) -> None:
    """A dispatcher without a backend, or with an unknown one, is told with its place."""
    text = message_of({"target": "test", "targets": {"test": {"default": options}}})

    assert text.startswith("targets.test.default (")
    assert message in text


def test_another_target_may_use_what_is_not_installed() -> None:
    """Only the dispatchers that are asked for need their backend."""
    targets = {"test": {"default": "inline"}, "prod": {"default": {"backend": "nowhere", "x": 1}}}

    configuration = of({"target": "test", "targets": targets})

    assert configuration.specification("default").cls.name == "inline"
    with pytest.raises(RegistrationError, match=r"targets.prod.default \(here\): no backend"):
        configuration.specification("default", "prod")


# What options become.


def test_options_are_those_of_the_backend(acme: object) -> None:
    """The backend's own model validates, and its objects stay the objects they are."""
    app = object()

    found = dispatcher(backend="acme", url="u", app=app).specification("default").options

    assert isinstance(found, AcmeOptions)
    assert found.app is app


def test_settings_of_the_whole_stand_in_for_a_dispatchers_own() -> None:
    """`on_handler_error`, `skew_grace` and `max_deliveries` of the whole are defaults."""
    configuration = of(
        {
            "target": "t",
            "skew_grace": 60.0,
            "on_handler_error": "log",
            "targets": {"t": {"a": "inline", "b": {"backend": "inline", "skew_grace": 1.0}}},
        }
    )

    a, b = (configuration.specification(alias).options for alias in "ab")

    assert (a.skew_grace, a.on_handler_error, a.max_deliveries) == (60.0, "log", 5)
    assert (b.skew_grace, b.on_handler_error) == (1.0, "log")


def test_overrides_of_a_task_become_its_values() -> None:
    """A task's table is typed: seconds become spans, the back-off a Backoff."""
    settings = of(
        {
            "tasks": {
                "acme.record": {
                    "queue": "low",
                    "expires": 90,
                    "time_limit": 5,
                    "backoff": {"initial": 3.0},
                },
                "acme.other": {"expires": "PT1H"},
            }
        }
    ).settings

    record = settings.tasks["acme.record"]
    assert (record.queue, record.time_limit) == ("low", 5.0)
    assert record.expires == timedelta(seconds=90)
    assert record.backoff == Backoff(initial=3.0)
    assert settings.tasks["acme.other"].expires == timedelta(hours=1)


def test_a_variable_overrides_a_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """Text from the environment is converted for tasks too."""
    monkeypatch.setenv("DISPATCHERS_TASKS__ACME_RECORD__MAX_ATTEMPTS", "3")
    explicit = code_layer({"tasks": {"acme.record": {"queue": "low"}}}, "code")

    task = read([], explicit).settings.tasks["acme.record"]

    assert (task.queue, task.max_attempts) == ("low", 3)


# auto.


def test_auto_takes_the_one_backend_that_is_not_built_in(
    acme: type[BaseDispatcher], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`backend = "auto"` is the one installed backend besides the built-in ones."""
    only(monkeypatch, "acme")

    assert dispatcher(backend="auto", url="u").specification("default").cls is acme


def test_auto_with_several_asks_which(acme: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several candidates are an error that names them and the line to write."""
    register(RivalDispatcher)
    only(monkeypatch, "acme", "rival")

    with pytest.raises(ConfigurationError) as caught:
        dispatcher(backend="auto").specification("default")

    assert str(caught.value) == (
        "targets.test.default (here): backend \"auto\" finds 'acme' and 'rival': "
        'say which, backend = "acme"'
    )


def test_auto_with_none_has_the_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    """No candidate is an error with the commands that install one."""
    only(monkeypatch)

    with pytest.raises(ConfigurationError) as caught:
        dispatcher(backend="auto").specification("default")

    assert "finds no backend" in str(caught.value)
    assert "pip install 'dispatchers[celery]'" in str(caught.value)


def test_auto_says_what_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """A candidate that is broken is not passed over in silence."""
    only(monkeypatch)
    claim = registry.Claim("acme-one 1.5", "no_such_module:Acme")
    monkeypatch.setitem(registry.table.scanned or {}, "acme", (claim,))

    with pytest.raises(ConfigurationError, match=r"acme-one 1.5 .*is broken"):
        dispatcher(backend="auto").specification("default")


def only(monkeypatch: pytest.MonkeyPatch, *installed: str) -> None:
    """Hide every backend that is not built in but those."""
    shown = {*references.BUILT_IN, *installed}
    claims = {name: own for name, own in registry._scan().items() if name in shown}
    monkeypatch.setattr(registry.table, "scanned", claims)
    monkeypatch.setattr(registry, "LIBRARIES", {})


def test_a_missing_library_keeps_its_type(monkeypatch: pytest.MonkeyPatch, acme: object) -> None:
    """A dispatcher whose library is missing raises MissingDependencyError, with its place."""
    monkeypatch.setattr(AcmeDispatcher, "library", "acme_driver")

    with pytest.raises(MissingDependencyError, match=r"targets.test.default \(here\): backend"):
        dispatcher(backend="acme", url="u").specification("default")


# The JSON Schema.


def test_the_schema_has_every_backend_with_its_options(acme: object) -> None:
    """C6: the schema for editors has the options of every backend that is there."""
    schema = settings_schema()

    options = schema["$defs"]["backend.acme"]
    assert options["properties"]["backend"] == {"const": "acme"}
    assert options["properties"]["workers"]["description"] == "How many."
    assert options["required"] == ["backend", "url"]
    assert options["additionalProperties"] is False
    assert {"backend.inline", "backend.auto"} <= schema["$defs"].keys()


def test_the_schema_is_json_and_refers_to_nothing_that_is_not_there(acme: object) -> None:
    """Every reference in the schema has its definition."""
    schema = settings_schema()

    text = json.dumps(schema)
    references = {part.split('"')[0] for part in text.split('"$ref": "#/$defs/')[1:]}
    assert references
    assert references <= schema["$defs"].keys()


def test_the_schema_has_every_setting() -> None:
    """The settings of the whole are described, `tasks` in both of its forms."""
    properties = settings_schema()["properties"]

    assert {"target", "targets", "modules", "tasks", "hooks"} <= properties.keys()
    assert [each["type"] for each in properties["tasks"]["anyOf"]] == ["array", "object"]
