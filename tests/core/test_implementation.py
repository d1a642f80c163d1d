"""One import name for packages of which exactly one is to be installed."""

from __future__ import annotations

import importlib
import subprocess
import sys
import textwrap
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from dispatchers import ConfigurationError, MissingDependencyError, RegistrationError
from dispatchers import implementation as module
from dispatchers.implementation import Implementation, expose, installed, release, satisfies

POSTGRES = Implementation("acme_search_postgres", "acme-search-postgres", ">=1.2,<2")
SQLITE = Implementation("acme_search_sqlite", "acme-search-sqlite", ">=1.2,<2")
BOTH = (POSTGRES, SQLITE)


class Site:
    """A folder on the path that small packages are installed into."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def install(self, implementation: Implementation, version: str = "1.5", **files: str) -> None:
        """Write the package and its metadata, as an installer does."""
        files = {"__init__": "kind = __name__\ndef search(): ...\n", **files}
        for name, text in files.items():
            path = self.path / implementation.module / f"{name}.py"
            path.parent.mkdir(exist_ok=True)
            path.write_text(textwrap.dedent(text))
        folder = f"{implementation.distribution.replace('-', '_')}-{version}.dist-info"
        (self.path / folder).mkdir()
        (self.path / folder / "METADATA").write_text(metadata(implementation, version))
        importlib.invalidate_caches()

    def facade(self, **options: object) -> None:
        """Write the package `acme_search`, which exposes one of both."""
        path = self.path / "acme_search" / "__init__.py"
        path.parent.mkdir()
        path.write_text(
            "from dispatchers.implementation import Implementation, expose\n"
            f"expose(__name__, *{BOTH!r}, **{options!r})\n"
        )
        importlib.invalidate_caches()


def metadata(implementation: Implementation, version: str) -> str:
    return f"Metadata-Version: 2.1\nName: {implementation.distribution}\nVersion: {version}\n"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    before, finders = set(sys.modules), list(sys.meta_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield Site(tmp_path)
    for name in [each for each in set(sys.modules) - before if each.startswith("acme")]:
        del sys.modules[name]
    sys.meta_path[:] = finders
    module._aliases.names.clear()


def test_the_installed_implementation_is_found(site: Site) -> None:
    """The one that is installed, in a version that will do, is chosen."""
    site.install(SQLITE)

    assert installed("acme_search", *BOTH) is SQLITE


def test_the_name_is_the_implementation(site: Site) -> None:
    """A package that exposes an implementation is that implementation."""
    site.install(SQLITE)
    site.facade(required=("search", "kind"))

    exposed = importlib.import_module("acme_search")

    assert exposed is importlib.import_module("acme_search_sqlite")
    assert exposed.kind == "acme_search_sqlite"


def test_modules_have_two_names_and_are_one(site: Site) -> None:
    """A module within is the same object under both names, whichever is imported first."""
    site.install(SQLITE, query="class Query: ...\n", plan="")
    site.facade()

    first = importlib.import_module("acme_search.query")
    importlib.import_module("acme_search_sqlite.plan")

    assert first is importlib.import_module("acme_search_sqlite.query")
    assert first.__name__ == "acme_search_sqlite.query"
    assert first.__spec__ is not None
    assert first.__spec__.name == "acme_search_sqlite.query"
    plan = importlib.import_module("acme_search.plan")
    assert plan is importlib.import_module("acme_search_sqlite.plan")


def test_a_module_that_is_not_there_is_told_by_the_name_that_was_asked_for(site: Site) -> None:
    """A missing module raises as ever."""
    site.install(SQLITE)
    site.facade()

    with pytest.raises(ModuleNotFoundError, match=r"No module named 'acme_search\.missing'"):
        importlib.import_module("acme_search.missing")


def test_a_module_that_fails_can_be_imported_again(site: Site) -> None:
    """A module that raised is not left behind half made under either name."""
    site.install(SQLITE, bad="raise ValueError('no')")
    site.facade()

    for _ in range(2):
        with pytest.raises(ValueError, match="no"):
            importlib.import_module("acme_search.bad")

    assert not {"acme_search.bad", "acme_search_sqlite.bad"} & sys.modules.keys()


def test_exposing_twice_is_the_same(site: Site) -> None:
    """Exposing again gives the same module and adds nothing."""
    site.install(SQLITE)

    first = expose("acme_search", *BOTH)
    second = expose("acme_search", *BOTH)

    assert first is second
    assert sys.meta_path.count(module._aliases) == 1


def test_a_wheel_serves_as_well(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """An implementation may come from a wheel on the path."""
    wheel = site.path / "acme_search_sqlite-1.5-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("acme_search_sqlite/__init__.py", "kind = 'wheel'\n")
        archive.writestr("acme_search_sqlite/query.py", "")
        info = "acme_search_sqlite-1.5.dist-info"
        archive.writestr(f"{info}/METADATA", metadata(SQLITE, "1.5"))
    monkeypatch.syspath_prepend(str(wheel))

    exposed = expose("acme_search", *BOTH, required=["kind"])

    assert exposed.kind == "wheel"
    assert importlib.import_module("acme_search.query").__name__ == "acme_search_sqlite.query"


def test_none_installed_has_the_commands() -> None:
    """Without any implementation the error has the command of each."""
    with pytest.raises(MissingDependencyError) as caught:
        expose("acme_search", *BOTH)

    assert str(caught.value) == (
        "no implementation of 'acme_search' is installed: "
        "pip install 'acme-search-postgres>=1.2,<2' or pip install 'acme-search-sqlite>=1.2,<2'"
    )
    assert isinstance(caught.value, ImportError)


def test_a_folder_without_metadata_is_not_installed(site: Site) -> None:
    """What merely lies on the path is no installation: its version is unknown."""
    (site.path / "acme_search_sqlite").mkdir()

    with pytest.raises(MissingDependencyError, match="no implementation of 'acme_search'"):
        installed("acme_search", *BOTH)


def test_both_installed_names_both(site: Site) -> None:
    """Two implementations at once are an error that names both and the cure."""
    site.install(SQLITE, "1.5")
    site.install(POSTGRES, "1.6")

    with pytest.raises(RegistrationError) as caught:
        expose("acme_search", *BOTH)

    assert str(caught.value) == (
        "'acme_search' has 2 implementations, acme-search-postgres 1.6 and "
        "acme-search-sqlite 1.5, and takes one: "
        "pip uninstall acme-search-postgres or pip uninstall acme-search-sqlite"
    )


@pytest.mark.parametrize("version", ["1.1", "1.1.9", "2", "2.0rc1", "10.0"])
def test_another_version_is_told_with_the_range(site: Site, version: str) -> None:
    """A version out of range is an error with the range and the command."""
    site.install(SQLITE, version)

    with pytest.raises(MissingDependencyError) as caught:
        expose("acme_search", *BOTH)

    assert str(caught.value) == (
        f"'acme_search' needs 'acme-search-sqlite>=1.2,<2', {version} is installed: "
        "pip install 'acme-search-sqlite>=1.2,<2'"
    )


def test_missing_names_are_listed(site: Site) -> None:
    """An implementation that lacks required names is refused with all of them."""
    site.install(SQLITE, __init__="class Index:\n    size = 1\n")

    with pytest.raises(RegistrationError) as caught:
        expose("acme_search", *BOTH, required=("Index", "Index.size", "Index.sort", "search"))

    assert "'acme_search_sqlite' of acme-search-sqlite 1.5 lacks Index.sort, search" in str(
        caught.value
    )
    assert "pip install --upgrade 'acme-search-sqlite>=1.2,<2'" in str(caught.value)
    assert "acme_search" not in sys.modules


@pytest.mark.parametrize(
    ("source", "cause"),
    [("import acme_inner", "No module named 'acme_inner'"), ("1 / 0", "ZeroDivisionError")],
)
def test_an_implementation_that_fails_to_import_is_broken(
    site: Site, source: str, cause: str
) -> None:
    """An implementation that does not import is broken, with its real cause."""
    site.install(SQLITE, __init__=source)

    with pytest.raises(RegistrationError) as caught:
        expose("acme_search", *BOTH)

    assert "from acme-search-sqlite 1.5, is broken" in str(caught.value)
    assert cause in str(caught.value)
    assert caught.value.__cause__ is not None


def test_the_errors_are_configuration_errors_at_import(site: Site) -> None:
    """`import acme_search` raises the error itself, with its cure."""
    site.facade()

    with pytest.raises(ConfigurationError, match="pip install"):
        importlib.import_module("acme_search")


def test_a_statement_of_its_own_process_works(site: Site) -> None:
    """`from acme_search import search` and `import acme_search.query` work as usual."""
    site.install(SQLITE, query="class Query: ...\n")
    site.facade()
    script = (
        "from acme_search import search; import acme_search.query; "
        "from acme_search.query import Query; import acme_search_sqlite.query as real; "
        "assert Query is real.Query; print(search.__module__)"
    )

    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        env={"PYTHONPATH": str(site.path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (done.stdout.strip(), done.stderr) == ("acme_search_sqlite", "")


@pytest.mark.parametrize(
    ("version", "specifier", "expected"),
    [
        ("1.2", ">=1.2", True),
        ("1.2.0", ">=1.2,<2", True),
        ("1.10", ">=1.2", True),
        ("1.2", "==1.2.0", True),
        ("1.2.1", "==1.2", False),
        ("1.2", "!=1.2", False),
        ("1.2", "<=1.2", True),
        ("1.2", ">1.2", False),
        ("2.0.0", "<2", False),
        ("2.0.dev1", "<2", False),
        ("1.9.post1", "<2", True),
        ("v1.5", ">=1.2", True),
        ("1.5+local", ">=1.2", True),
        ("1!0.1", ">=1.2", True),
        ("0", ">=0", True),
        ("3", "", True),
        ("1.5", " >= 1.2 , < 2 ", True),
    ],
)
def test_versions_are_compared_by_number(version: str, specifier: str, expected: bool) -> None:
    """Release numbers are compared as numbers; a pre-release counts as its release."""
    assert satisfies(version, specifier) is expected


@pytest.mark.parametrize("specifier", ["1.2", "~=1.2", ">=x", ">=1.2 <2", "==1.*", ">="])
def test_a_range_that_is_not_understood_is_refused(specifier: str) -> None:
    """A specifier of another form raises, whatever is installed."""
    with pytest.raises(ValueError, match=r"is not of the form '>=1\.2,<2'"):
        installed("acme_search", Implementation("acme", "acme", specifier))


def test_a_version_without_numbers_is_refused() -> None:
    """A version that has no release number cannot be compared."""
    with pytest.raises(ValueError, match="'unknown' has no release number"):
        release("unknown")
