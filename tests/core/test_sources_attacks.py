"""Configuration files as they go wrong on real machines."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from dispatchers import ConfigurationError, configure, get_dispatcher
from dispatchers._config.files import file_layer
from dispatchers._config.layers import Layer
from dispatchers._config.lifecycle import reload


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def _read() -> Layer:
    return file_layer(os.environ)


@pytest.mark.parametrize(
    "put",
    [
        pytest.param(lambda path: path.mkdir(), id="a folder"),
        pytest.param(lambda path: path.symlink_to("nowhere"), id="a dangling link"),
        pytest.param(lambda path: path.symlink_to(path.name), id="a link to itself"),
        pytest.param(lambda path: os.mkfifo(path), id="a pipe"),
    ],
)
def test_what_stands_in_the_files_place_is_no_missing_file(
    tmp_path: Path, put: Callable[[Path], None]
) -> None:
    """A mount or link that went wrong must not run the tasks of production inline."""
    put(tmp_path / "dispatchers.toml")

    with pytest.raises(ConfigurationError, match=r"dispatchers\.toml cannot be read: "):
        _read()


def test_a_link_to_a_file_is_the_file(tmp_path: Path) -> None:
    """A configuration may be linked to, as orchestrators do."""
    (tmp_path / "real.toml").write_text('target = "t"')
    (tmp_path / "dispatchers.toml").symlink_to("real.toml")

    assert _read().values == {"target": "t"}


def test_a_setting_where_the_table_belongs_is_told(tmp_path: Path) -> None:
    """`tool.dispatchers` that is no table is an error, not nothing."""
    (tmp_path / "pyproject.toml").write_text("[tool]\ndispatchers = 3\n")

    with pytest.raises(ConfigurationError, match=r"tool\.dispatchers .* must be a table, not int"):
        _read()


def test_a_number_without_end_is_no_toml(tmp_path: Path) -> None:
    """What the parser of Python itself refuses is told with the file's name."""
    (tmp_path / "dispatchers.toml").write_text(f"exit_timeout = {'9' * 5000}")

    with pytest.raises(ConfigurationError, match=r"dispatchers\.toml is not TOML"):
        _read()


def test_a_tasks_name_without_quotes_is_told_the_cure(tmp_path: Path) -> None:
    """TOML parts a name at its dots: the error says how it is written."""
    (tmp_path / "dispatchers.toml").write_text('[tasks.shop.send]\nqueue = "low"\n')
    reload()

    with pytest.raises(ConfigurationError, match=r'wants quotes: \[tasks\."shop\.send"\]'):
        get_dispatcher()


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_number_is_no_breaker(number: int) -> None:
    """Numbers are not booleans: `breaker = 0` is refused, `false` is what turns it off."""
    settings = {"targets": {"t": {"default": {"backend": "null", "breaker": number}}}}

    with pytest.raises(ConfigurationError, match="the breaker's settings, or false"):
        configure(settings, target="t")


def test_several_problems_are_pickled_with_their_list() -> None:
    """An error with several problems crosses processes with each of them."""
    settings = {"targets": {"t": {"default": {"backend": "null", "qeue": 1, "deadline": True}}}}
    with pytest.raises(ConfigurationError) as caught:
        configure(settings, target="t")

    other = pickle.loads(pickle.dumps(caught.value))

    assert str(other) == str(caught.value)
    assert vars(other) == vars(caught.value)
