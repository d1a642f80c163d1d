"""Where settings come from, which source wins, and how each value's origin is told."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from dispatchers import ConfigurationError
from dispatchers._config.environment import (
    EnvironmentText,
    converted,
    environment_layer,
    ignored_variables,
    is_of_a_service,
    meaning,
)
from dispatchers._config.files import file_layer, set_framework_source
from dispatchers._config.layers import Layer, code_layer, dotted, merged
from dispatchers._config.settings import Configuration, read
from dispatchers._models.options import BackendOptions

FIELDS = {"target": None, "targets": None, "tasks": None, "modules": None, "hooks": None}
NOTHING = Layer({})


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in [name for name in os.environ if name.startswith("DISPATCHERS_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    yield
    set_framework_source(None)


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def file_values() -> dict[str, object]:
    return file_layer(os.environ).values


# Files.


def test_the_nearest_file_upwards_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is the nearest one upwards from the working directory."""
    write(tmp_path / "dispatchers.toml", 'target = "far"')
    write(tmp_path / "a" / "dispatchers.toml", 'target = "near"')
    (tmp_path / "a" / "b").mkdir()
    monkeypatch.chdir(tmp_path / "a" / "b")

    assert file_values() == {"target": "near"}


def test_a_table_in_pyproject_is_a_file_too(tmp_path: Path) -> None:
    """`[tool.dispatchers]` in pyproject.toml is read like dispatchers.toml."""
    path = write(tmp_path / "pyproject.toml", '[tool.dispatchers]\ntarget = "test"')

    layer = file_layer(os.environ)

    assert layer.values == {"target": "test"}
    assert layer.origin_of(("target",)) == str(path)


def test_a_pyproject_without_the_table_is_passed_by(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A package's file that does not concern us hides none of its repository, even if broken."""
    (tmp_path / ".git").mkdir()
    write(tmp_path / "dispatchers.toml", 'target = "test"')
    write(tmp_path / "a" / "pyproject.toml", '[project]\nname = "uses-dispatchers"')
    write(tmp_path / "a" / "b" / "pyproject.toml", "this is = = not TOML")
    monkeypatch.chdir(tmp_path / "a" / "b")

    assert file_values() == {"target": "test"}


def test_two_files_in_one_folder_are_refused(tmp_path: Path) -> None:
    """A folder with both files is an error: one of them would be ignored in silence."""
    write(tmp_path / "dispatchers.toml", 'target = "a"')
    write(tmp_path / "pyproject.toml", '[tool.dispatchers]\ntarget = "b"')

    with pytest.raises(ConfigurationError, match="both configure: keep one of them"):
        file_values()


def test_the_named_file_beats_the_nearest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`DISPATCHERS_CONFIG` names the file."""
    write(tmp_path / "dispatchers.toml", 'target = "nearest"')
    named = write(tmp_path / "etc" / "other.toml", 'target = "named"')
    monkeypatch.setenv("DISPATCHERS_CONFIG", str(named))

    assert file_values() == {"target": "named"}


def test_an_empty_name_of_the_file_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty variable counts as not set, as Compose files leave them."""
    write(tmp_path / "dispatchers.toml", 'target = "nearest"')
    monkeypatch.setenv("DISPATCHERS_CONFIG", "")

    assert file_values() == {"target": "nearest"}


@pytest.mark.parametrize("kind", ["missing", "folder"])
def test_a_named_file_that_cannot_be_read_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """A file that was named and is not there is never passed over."""
    path = tmp_path / kind
    if kind == "folder":
        path.mkdir()
    monkeypatch.setenv("DISPATCHERS_CONFIG", str(path))

    with pytest.raises(ConfigurationError) as caught:
        file_values()

    assert "variable DISPATCHERS_CONFIG" in str(caught.value)
    assert f"{path} cannot be read" in str(caught.value)


def test_a_named_pyproject_must_have_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pyproject.toml that was named and has no table of ours is an error."""
    monkeypatch.setenv("DISPATCHERS_CONFIG", str(write(tmp_path / "pyproject.toml", "[project]")))

    with pytest.raises(ConfigurationError, match=r"has no table \[tool.dispatchers\]"):
        file_values()


@pytest.mark.parametrize("text", [b"target = ", b"\xff\xfe", b"a = 1\na = 2"])
def test_a_file_that_is_not_toml_is_named(tmp_path: Path, text: bytes) -> None:
    """A file that does not parse is an error with its path and the parser's words."""
    path = tmp_path / "dispatchers.toml"
    path.write_bytes(text)

    with pytest.raises(ConfigurationError) as caught:
        file_values()

    assert str(caught.value).startswith(f"{path} is not TOML: ")


def test_a_byte_order_mark_does_not_matter(tmp_path: Path) -> None:
    """Editors that write a byte order mark are forgiven."""
    (tmp_path / "dispatchers.toml").write_bytes(b'\xef\xbb\xbftarget = "test"')

    assert file_values() == {"target": "test"}


def test_a_working_directory_that_is_gone_means_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A daemon whose working directory was removed still starts."""
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()

    assert file_values() == {}


# Shapes.


def test_a_list_of_tasks_names_modules() -> None:
    """`tasks` as a list means the modules that a worker imports; as a table, overrides."""
    layer = code_layer({"tasks": ["a"], "modules": ["b"]}, "here")

    assert layer.values == {"modules": ["a", "b"]}


def test_a_dispatcher_may_be_the_name_of_its_backend() -> None:
    """`default = "inline"` is short for a table with that backend."""
    layer = code_layer({"targets": {"test": {"default": "inline"}}}, "here")

    assert layer.values == {"targets": {"test": {"default": {"backend": "inline"}}}}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"targets": []}, "targets (here): must be a table, not list"),
        ({"targets": {"a": 1}}, "targets.a (here): must be a table, not int"),
        ({"targets": {"a": {"b": 1}}}, "targets.a.b (here): must be a table, not int"),
        ({"tasks": "x"}, "tasks (here): must be a table, not text"),
        ({"tasks": {"a.b": 1}}, 'tasks."a.b" (here): must be a table, not int'),
        ({"targets": {1: {}}}, "targets (here): key 1 is not text"),
        ([("target", "x")], "here takes a mapping, not list"),
        ("target", "here takes a mapping, not str"),
    ],
)
def test_what_should_be_a_table_and_is_not_is_told_with_its_place(
    settings: object, message: str
) -> None:
    """A wrong shape is an error with the keys and the source, not a TypeError."""
    with pytest.raises(ConfigurationError) as caught:
        code_layer(settings, "here")

    assert str(caught.value) == message


def test_settings_from_code_are_copied() -> None:
    """Changing the mapping afterwards changes nothing."""
    settings: dict[str, dict[str, dict[str, object]]] = {"targets": {"test": {"default": {}}}}
    layer = code_layer(settings, "here")

    settings["targets"]["test"]["default"]["backend"] = "celery"

    assert layer.values == {"targets": {"test": {"default": {}}}}


def test_keys_are_written_as_toml_writes_them() -> None:
    """A key with a dot is quoted."""
    assert dotted(["tasks", "acme.record", "queue"]) == 'tasks."acme.record".queue'


# Merging.


def test_layers_are_merged_key_by_key() -> None:
    """A higher source changes one option of one dispatcher and leaves the rest."""
    high = code_layer({"targets": {"a": {"x": {"queue": "high"}}}}, "high")
    low = code_layer({"targets": {"a": {"x": {"queue": "low", "url": "u"}, "y": {}}}}, "low")

    result = merged([high, low])

    assert result.values == {"targets": {"a": {"x": {"queue": "high", "url": "u"}, "y": {}}}}
    assert result.origin_of(("targets", "a", "x", "queue")) == "high"
    assert result.origin_of(("targets", "a", "x", "url")) == "low"
    assert result.origin_of(("targets", "a", "x", "missing")) in {"high", "low"}


def test_a_list_replaces_a_list() -> None:
    """Lists are values: they are not joined."""
    high, low = Layer({"modules": ["a"]}, "high"), Layer({"modules": ["b"]}, "low")

    assert merged([high, low]).values == {"modules": ["a"]}


def test_explicit_beats_environment_beats_framework_beats_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order of the sources: code, environment, framework, file."""
    dispatcher = {"backend": "inline", "queue": "framework", "deadline": 3.0}
    write(
        tmp_path / "dispatchers.toml",
        'target = "t"\n[targets.t.default]\nqueue = "file"\ndeadline = 4.0\nwaive = ["delay"]\n',
    )
    set_framework_source(lambda: {"targets": {"t": {"default": dispatcher}}}, "settings.X")
    monkeypatch.setenv("DISPATCHERS_TARGETS__T__DEFAULT__QUEUE", "environment")
    explicit = code_layer({"targets": {"t": {"default": {"on_handler_error": "log"}}}}, "code")

    options = read([], explicit).specification("default").options

    assert options.on_handler_error == "log"
    assert options.queue == "environment"
    assert options.deadline == 3.0
    assert options.waive == ("delay",)


def test_a_framework_that_has_nothing_to_say_takes_no_part() -> None:
    """None from the framework's source is no settings."""
    set_framework_source(lambda: None)

    assert read([], NOTHING).settings.targets == {}


def test_an_error_in_framework_settings_names_them() -> None:
    """The origin of a framework's value is the name that its source was given."""
    set_framework_source(lambda: {"targts": {}}, "settings.DISPATCHERS")

    with pytest.raises(ConfigurationError, match=r"targts \(settings.DISPATCHERS\)"):
        read([], NOTHING)


def test_framework_settings_that_cannot_be_read_are_told() -> None:
    """Whatever a framework raises becomes a configuration error that names it."""
    set_framework_source(lambda: {}[0], "settings.DISPATCHERS")  # type: ignore[index]

    with pytest.raises(ConfigurationError, match=r"settings\.DISPATCHERS cannot be read: KeyError"):
        read([], NOTHING)


# Environment.


def layer_of(known: dict[str, object] | None = None, /, **environ: str) -> Layer:
    return environment_layer(environ, known or {}, FIELDS)


def test_variables_reach_every_option() -> None:
    """A nested variable is a path of keys; new ones are in lower case."""
    layer = layer_of(
        DISPATCHERS_TARGET="gcp", DISPATCHERS_TARGETS__GCP__DEFAULT__PROJECT="shop-prod"
    )

    assert layer.values == {
        "target": "gcp",
        "targets": {"gcp": {"default": {"project": "shop-prod"}}},
    }
    keys = ("targets", "gcp", "default", "project")
    assert layer.origin_of(keys) == "variable DISPATCHERS_TARGETS__GCP__DEFAULT__PROJECT"


def test_keys_of_other_sources_are_matched_whatever_their_case() -> None:
    """A variable finds the key that is there: capitals, hyphens and dots included."""
    known: dict[str, object] = {
        "targets": {"EU-West": {"Orders": {}}},
        "tasks": {"acme_audit.record": {}},
    }

    layer = layer_of(
        known,
        DISPATCHERS_TARGETS__EU_WEST__ORDERS__QUEUE="x",
        DISPATCHERS_TASKS__ACME_AUDIT_RECORD__QUEUE="low",
    )

    assert layer.values == {
        "targets": {"EU-West": {"Orders": {"queue": "x"}}},
        "tasks": {"acme_audit.record": {"queue": "low"}},
    }


def test_a_variable_that_could_mean_two_keys_is_refused() -> None:
    """Two keys that differ in case only cannot be told apart by a variable."""
    known: dict[str, object] = {"targets": {"eu-west": {}, "eu_west": {}}}

    with pytest.raises(ConfigurationError, match="could mean 'eu-west' and 'eu_west'"):
        layer_of(known, DISPATCHERS_TARGETS__EU_WEST__DEFAULT="inline")


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("DISPATCHERS_TARGTS__X__DEFAULT", "DISPATCHERS_TARGETS"),
        ("DISPATCHERS_TRAGET", "DISPATCHERS_TARGET"),
        ("DISPATCHERS_CONFG", "DISPATCHERS_CONFIG"),
        ("DISPATCHERS_MODULE", "DISPATCHERS_MODULES"),
    ],
)
def test_a_misspelt_variable_is_told_with_the_nearest(name: str, near: str) -> None:
    """A variable that names a setting nearly is an error, not ignored."""
    with pytest.raises(ConfigurationError, match=f"{name} names no setting; .*'{near}'"):
        layer_of(**{name: "1"})


@pytest.mark.parametrize(
    "name",
    [
        "DISPATCHERS_CONFIG",
        "DISPATCHERS_REQUIRE_SERVICES",
        "DISPATCHERS_TEST_URL",
        "DISPATCHERS_SERVICE_HOST",
        "DISPATCHERS_PORT",
        "DISPATCHERS_PORT_80_TCP_ADDR",
        "DISPATCHERS_WEB_PORT",
        "DISPATCHERS_WEB_PORT_80_TCP",
        "DISPATCHERS_WEB_SERVICE_PORT_HTTP",
        "DISPATCHERS_TARGET_SERVICE_HOST",
        "DISPATCHERS_TARGETS_PORT_5432_TCP_PROTO",
        "DISPATCHERS_HOOKS_PORT",
        "DISPATCHERS_DB_NAME",
        "DISPATCHERS_IMAGE",
        "DISPATCHERSX",
        "dispatchers_targt",
        "OTHER",
    ],
)
def test_variables_that_are_no_settings_are_left_alone(name: str) -> None:
    """What tests, Kubernetes, container links and deployments set does no harm."""
    assert layer_of(**{name: "tcp://10.0.0.1:80"}).values == {}


def test_ignored_variables_are_known() -> None:
    """Variables with our prefix that are not settings are known by name, for `doctor`."""
    environ = dict.fromkeys(
        ("DISPATCHERS_TARGET", "DISPATCHERS_CONFIG", "DISPATCHERS_WEB_PORT", "DISPATCHERS_IMAGE"),
        "x",
    )

    assert ignored_variables(environ, FIELDS) == ["DISPATCHERS_IMAGE", "DISPATCHERS_WEB_PORT"]
    assert is_of_a_service("DISPATCHERS_WEB_PORT")
    assert not is_of_a_service("DISPATCHERS_IMAGE")


def test_an_ignored_variable_is_logged_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An unknown variable is one warning per process; those of a Kubernetes service are none."""
    monkeypatch.setenv("DISPATCHERS_QUEUE_OF_OURS", "mail")
    monkeypatch.setenv("DISPATCHERS_WEB_PORT", "tcp://10.0.0.1:80")

    read([], NOTHING)
    read([], NOTHING)

    (record,) = caplog.records
    assert "DISPATCHERS_QUEUE_OF_OURS is not a setting" in record.getMessage()


def test_an_empty_variable_is_not_set() -> None:
    """`DISPATCHERS_TARGET=` selects nothing."""
    assert layer_of(DISPATCHERS_TARGET="").values == {}


def test_a_whole_table_may_be_json() -> None:
    """JSON stands for a whole table, and variables below it go into it."""
    layer = layer_of(
        DISPATCHERS_TARGETS__A='{"default": {"backend": "inline", "deadline": 3}}',
        DISPATCHERS_TARGETS__A__DEFAULT__QUEUE="x",
        DISPATCHERS_TASKS='{"a.b": {"queue": "low"}}',
    )

    assert layer.values == {
        "targets": {"a": {"default": {"backend": "inline", "deadline": 3, "queue": "x"}}},
        "tasks": {"a.b": {"queue": "low"}},
    }
    keys = ("targets", "a", "default", "deadline")
    assert layer.origin_of(keys) == "variable DISPATCHERS_TARGETS__A"


def test_modules_may_be_a_list_in_a_variable() -> None:
    """`DISPATCHERS_TASKS=a,b` names modules, as the list in a file does."""
    assert layer_of(DISPATCHERS_TASKS="a, b").values == {"modules": ["a", "b"]}
    assert layer_of(DISPATCHERS_TASKS='["a"]').values == {"modules": ["a"]}


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"DISPATCHERS_TARGETS": "{x"}, "DISPATCHERS_TARGETS is not JSON"),
        ({"DISPATCHERS_TARGETS": "x"}, "targets (variable DISPATCHERS_TARGETS): must be a table"),
        ({"DISPATCHERS_TARGETS__A": "[1]"}, "targets.a (variable DISPATCHERS_TARGETS__A): must"),
        ({"DISPATCHERS_TARGETS____X": "1"}, "has an empty key"),
        (
            {"DISPATCHERS_TARGETS__A__X": "inline", "DISPATCHERS_TARGETS__A__X__QUEUE": "q"},
            "goes deeper than another",
        ),
    ],
)
def test_a_variable_of_the_wrong_shape_is_named(environ: dict[str, str], message: str) -> None:
    """A variable whose text does not fit its place is an error with its name."""
    with pytest.raises(ConfigurationError) as caught:
        layer_of(**environ)

    assert message in str(caught.value)


class Options(BackendOptions):
    """One option of each kind."""

    count: int = 1
    ratio: float = 1.0
    flag: bool = False
    words: tuple[str, ...] = ()
    listed: list[int] = []
    table: dict[str, int] = {}
    text: str = ""
    maybe: int | None = None
    anything: object = None


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("count", "3", 3),
        ("count", "-3", -3),
        ("ratio", "2.5", 2.5),
        ("ratio", "2", 2.0),
        ("flag", "true", True),
        ("flag", "0", False),
        ("flag", "off", False),
        ("words", "a", ("a",)),
        ("words", "a, b", ("a", "b")),
        ("words", '["a", "b,c"]', ("a", "b,c")),
        ("listed", "1,2", [1, 2]),
        ("listed", "[1, 2]", [1, 2]),
        ("table", '{"a": 1}', {"a": 1}),
        ("text", "3", "3"),
        ("text", "true", "true"),
        ("text", '["a"]', '["a"]'),
        ("maybe", "3", 3),
        ("anything", "3", "3"),
        ("queues", "a,b", ("a", "b")),
        ("breaker", "false", False),
        ("deadline", "0.5", 0.5),
    ],
)
def test_the_option_decides_what_a_text_means(name: str, text: str, value: object) -> None:
    """The text of a variable becomes what the option is: number, truth value, list or text."""
    options = Options.model_validate(converted({name: EnvironmentText(text)}, Options))

    found = getattr(options, name)

    assert found == value
    assert type(found) is type(value)


def test_the_settings_of_the_breaker_are_reached_too() -> None:
    """A variable reaches the fields of a model within the options."""
    values = converted({"breaker": {"failures": EnvironmentText("7")}}, Options)

    assert Options.model_validate(values).model_dump()["breaker"]["failures"] == 7


def test_only_the_environment_is_converted() -> None:
    """A text in a file stays a text: "true" is not true, and a boolean is no number."""
    assert converted({"flag": "true", "count": "3"}, Options) == {"flag": "true", "count": "3"}


@pytest.mark.parametrize(("text", "kind"), [("x", int), ("1.5", int), ("{", dict[str, int])])
def test_a_text_that_means_nothing_stays_a_text(text: str, kind: object) -> None:
    """What cannot be converted is left for validation to refuse, with the variable's name."""
    assert meaning(text, kind) == text


def test_a_variable_that_does_not_fit_is_named_with_its_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The error has the variable and the key, and not the value."""
    name = "DISPATCHERS_TARGETS__A__DEFAULT__DEADLINE"
    monkeypatch.setenv("DISPATCHERS_TARGET", "a")
    monkeypatch.setenv("DISPATCHERS_TARGETS__A__DEFAULT", '{"backend": "inline"}')
    monkeypatch.setenv(name, "soon")

    with pytest.raises(ConfigurationError) as caught:
        read([], NOTHING).specification("default")

    assert str(caught.value) == (
        f"targets.a.default.deadline (variable {name}): should be a valid number"
    )


def test_a_variable_changes_one_option_of_a_dispatcher_in_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A variable beats the file for that one key."""
    write(
        tmp_path / "dispatchers.toml",
        'target = "a"\n[targets.a]\ndefault = { backend = "inline", queue = "q", deadline = 9 }\n',
    )
    monkeypatch.setenv("DISPATCHERS_TARGETS__A__DEFAULT__DEADLINE", "1")

    options = read([], NOTHING).specification("default").options

    assert (options.queue, options.deadline) == ("q", 1.0)


def test_the_origin_of_what_nobody_said_is_the_defaults() -> None:
    """Every value has an origin, also one that no source mentions."""
    assert Configuration(Layer({})).layer.origin_of(("targets",)) == "defaults"
