"""Paths in a configuration, and the files that one may come from."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import dispatchers
from dispatchers import ConfigurationError, configure, get_dispatcher
from dispatchers._config import files
from dispatchers._config.api import reload
from dispatchers._config.files import file_layer
from dispatchers._models.paths import LocatedText
from dispatchers.backends.memory import MemoryDispatcher
from dispatchers.backends.sqlite import SQLiteDispatcher
from dispatchers.http import EndpointSettings
from dispatchers.stores import dead_letters

FILE = """
target = "t"
[targets.t.default]
backend = "sqlite"
path = "work.db"
dead_letters = "sqlite:dead.db"
idempotency = "sqlite:keys/keys.db"
[endpoint]
dead_letters = "sqlite:pushed.db"
"""


@pytest.fixture(autouse=True)
def afresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in [name for name in os.environ if name.startswith("DISPATCHERS_")]:
        monkeypatch.delenv(name)
    yield
    monkeypatch.undo()
    reload()


@pytest.fixture
def folder(tmp_path: Path) -> Callable[[str], Path]:
    def made(name: str) -> Path:
        found = tmp_path / name
        found.mkdir()
        return found

    return made


def test_paths_in_a_file_start_from_its_folder(
    folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every relative path in a configuration file starts from the folder of that file."""
    home, elsewhere = folder("app"), folder("elsewhere")
    (home / "dispatchers.toml").write_text(FILE)
    monkeypatch.setenv("DISPATCHERS_CONFIG", str(home / "dispatchers.toml"))
    monkeypatch.chdir(elsewhere)
    reload()

    options = get_dispatcher().options
    endpoint = dispatchers._config.api.state.snapshot.configuration.endpoint()

    assert isinstance(options, SQLiteDispatcher.Options)
    assert options.path == str(home / "work.db")
    assert options.dead_letters == f"sqlite:{home / 'dead.db'}"
    assert options.idempotency == f"sqlite:{home / 'keys' / 'keys.db'}"
    assert isinstance(endpoint, EndpointSettings)
    assert endpoint.dead_letters == f"sqlite:{home / 'pushed.db'}"


def test_a_file_named_by_a_relative_path_is_made_absolute(
    folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`DISPATCHERS_CONFIG=conf/my.toml` names a file, whose paths start from `conf`."""
    home = folder("conf")
    (home / "my.toml").write_text(FILE)
    monkeypatch.chdir(home.parent)
    monkeypatch.setenv("DISPATCHERS_CONFIG", "conf/my.toml")

    layer = file_layer(os.environ)

    assert layer.origin == str(home / "my.toml")


def test_a_path_is_made_absolute_once(
    folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A path from code starts from the working directory of when it was read, ever after."""
    first, second = folder("first"), folder("second")
    monkeypatch.chdir(first)
    configure({"target": "t", "targets": {"t": {"default": {"backend": "sqlite", "path": "q"}}}})
    built = SQLiteDispatcher(path="direct")
    monkeypatch.chdir(second)

    options = get_dispatcher().options

    assert isinstance(options, SQLiteDispatcher.Options)
    assert options.path == str(first / "q")
    assert built.options.path == str(first / "direct")


def test_a_path_in_a_variable_is_made_absolute_when_the_variables_are_read(
    folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relative path in a variable starts from the working directory, not from the file."""
    first, second = folder("first"), folder("second")
    (second / "c.toml").write_text(FILE)
    monkeypatch.setenv("DISPATCHERS_CONFIG", str(second / "c.toml"))
    monkeypatch.setenv("DISPATCHERS_TARGETS__T__DEFAULT__PATH", "own.db")
    monkeypatch.chdir(first)
    reload()
    dispatchers._config.api.current()
    monkeypatch.chdir(second)

    options = get_dispatcher().options

    assert isinstance(options, SQLiteDispatcher.Options)
    assert options.path == str(first / "own.db")


def test_a_child_that_changes_directory_uses_the_same_file(
    folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Work that a forked child dispatches after a chdir is in the file of its parent."""
    first, second = folder("first"), folder("second")
    monkeypatch.chdir(first)
    configure({"target": "t", "targets": {"t": {"default": {"backend": "sqlite", "path": "q"}}}})
    read, write = os.pipe()
    if not (child := os.fork()):
        os.chdir(second)
        options = get_dispatcher().options
        os.write(write, getattr(options, "path", "").encode())
        os._exit(0)

    os.waitpid(child, 0)

    assert os.read(read, 4096).decode() == str(first / "q")
    os.close(read)
    os.close(write)


def test_one_store_has_one_instance_however_it_is_written(
    folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store is the same object whether its path is written relative or absolute."""
    monkeypatch.chdir(folder("a"))

    assert dead_letters("sqlite:d.db") is dead_letters(f"sqlite:{Path.cwd() / 'd.db'}")


def test_other_stores_are_named_as_they_are() -> None:
    """Only the paths of stores are changed, never a URL or a module."""
    options = MemoryDispatcher.Options(dead_letters="memory", idempotency="redis://h/0")

    assert (options.dead_letters, options.idempotency) == ("memory", "redis://h/0")


def test_a_located_text_is_plain_text_elsewhere() -> None:
    """Texts that know their folder are copied and pickled as plain text."""
    text = pickle.loads(pickle.dumps(LocatedText("a", "/b")))

    assert type(text) is str
    assert text == "a"


# Whose file it is.


def test_the_search_ends_at_the_projects_root(
    folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file above the project's root is not looked for: it is another project's, or anyone's."""
    project = folder("project")
    (project.parent / "dispatchers.toml").write_text(FILE)
    (project / "src").mkdir()
    monkeypatch.chdir(project / "src")
    found = file_layer(os.environ)
    (project / "pyproject.toml").write_text("")
    without = file_layer(os.environ)
    (project / "pyproject.toml").unlink()
    (project / ".git").mkdir()

    assert found.values
    assert without.values == {}
    assert file_layer(os.environ).values == {}


def test_the_search_ends_at_the_home_folder(
    folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file above the home folder is not looked for."""
    home = folder("home")
    (home.parent / "dispatchers.toml").write_text(FILE)
    (home / "work").mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(home / "work")

    assert file_layer(os.environ).values == {}


@pytest.mark.parametrize("name", ["dispatchers.toml", "pyproject.toml"])
def test_a_file_of_another_user_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that another user owns is refused with its owner and the cure, never read."""
    text = FILE if name == "dispatchers.toml" else '[tool.dispatchers]\ntarget = "t"\n'
    (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    owner = (tmp_path / name).stat().st_uid
    monkeypatch.setattr(files, "_trusted_owners", lambda: {owner + 1})

    with pytest.raises(ConfigurationError) as caught:
        file_layer(os.environ)

    assert "belongs to another user" in str(caught.value)
    assert f"DISPATCHERS_CONFIG={tmp_path / name}" in str(caught.value)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_link_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A link that another user has put there is refused, even if it leads to a file of ours."""
    (tmp_path / "ours.toml").write_text(FILE)
    (tmp_path / "dispatchers.toml").symlink_to("ours.toml")
    os.chown(tmp_path / "dispatchers.toml", 12345, 12345, follow_symlinks=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SUDO_UID", raising=False)

    with pytest.raises(ConfigurationError, match="belongs to another user, 12345"):
        file_layer(os.environ)


def test_a_file_that_everyone_can_write_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that every user can write is refused with its mode; named on purpose, it is read."""
    path = tmp_path / "dispatchers.toml"
    path.write_text(FILE)
    path.chmod(0o666)
    monkeypatch.chdir(tmp_path)

    with pytest.raises(ConfigurationError, match=r"can be written by every user \(mode 0666\)"):
        file_layer(os.environ)
    assert file_layer({"DISPATCHERS_CONFIG": str(path)}).values


def test_a_file_of_root_or_of_the_group_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files of root, as images have them, and those that a group may write, are trusted."""
    path = tmp_path / "dispatchers.toml"
    path.write_text(FILE)
    path.chmod(0o664)
    monkeypatch.chdir(tmp_path)
    owner = path.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner)

    assert file_layer(os.environ).values
    assert 0 in files._trusted_owners()


def test_who_became_root_by_sudo_is_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under sudo, files of the user who called it are read, as git reads them."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("SUDO_UID", "1000")

    assert files._trusted_owners() == {0, 1000}


def test_a_path_may_begin_at_home(
    folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`~` in a path is the user's home, as in a shell; the name of no user is a name."""
    home, app = folder("home"), folder("app")
    monkeypatch.setenv("HOME", str(home))
    text = FILE.replace("work.db", "~/work.db").replace("sqlite:dead.db", "sqlite:~/dead.db")
    (app / "dispatchers.toml").write_text(text.replace("keys/", "~no-such-user/"))
    monkeypatch.setenv("DISPATCHERS_CONFIG", str(app / "dispatchers.toml"))
    reload()

    options = get_dispatcher().options

    assert isinstance(options, SQLiteDispatcher.Options)
    assert options.path == str(home / "work.db")
    assert options.dead_letters == f"sqlite:{home / 'dead.db'}"
    assert options.idempotency == f"sqlite:{app / '~no-such-user' / 'keys.db'}"


def test_a_file_has_one_path_however_it_is_named(
    folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Messages and options have no `..` in them."""
    app, elsewhere = folder("app"), folder("elsewhere")
    (app / "dispatchers.toml").write_text(FILE)
    monkeypatch.chdir(elsewhere)
    monkeypatch.setenv("DISPATCHERS_CONFIG", "../app/dispatchers.toml")
    reload()

    options = get_dispatcher().options

    assert isinstance(options, SQLiteDispatcher.Options)
    assert options.path == str(app.resolve() / "work.db")
