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
from dispatchers.implementation import (
    Implementation,
    ImplementationError,
    expose,
    installed,
    satisfies,
    sort_key,
)

POSTGRES = Implementation("acme_search_postgres", "acme-search-postgres", ">=1.2,<2")
SQLITE = Implementation("acme_search_sqlite", "acme-search-sqlite", ">=1.2,<2")
BOTH = (POSTGRES, SQLITE)


class Site:
    """A folder on the path that small packages are installed into."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def install(self, implementation: Implementation, version: str = "1.5", **files: str) -> None:
        """Write the package and its metadata, as an installer does."""
        self.write(implementation, **{"__init__": "kind = __name__\ndef search(): ...\n", **files})
        folder = f"{implementation.distribution.replace('-', '_')}-{version}.dist-info"
        (self.path / folder).mkdir()
        (self.path / folder / "METADATA").write_text(metadata(implementation, version))
        importlib.invalidate_caches()

    def write(self, implementation: Implementation, **files: str) -> None:
        """Write modules of the package."""
        for name, text in files.items():
            path = self.path / implementation.module / f"{name}.py"
            path.parent.mkdir(exist_ok=True)
            path.write_text(textwrap.dedent(text))

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
    module._submodules.names.clear()


def test_the_installed_implementation_is_found(site: Site) -> None:
    """The one that is installed, in a version that will do, is chosen."""
    site.install(SQLITE)

    assert installed("acme_search", *BOTH) is SQLITE


def test_the_name_has_what_the_implementation_has(site: Site) -> None:
    """A package that exposes an implementation has its names, later ones too."""
    site.install(SQLITE)
    site.facade(required=("search", "kind"))

    exposed = importlib.import_module("acme_search")

    real = importlib.import_module("acme_search_sqlite")
    assert exposed.search is real.search
    real.later = 1  # type: ignore[attr-defined]
    assert exposed.later == 1
    assert {"search", "later", "__file__"} <= set(dir(exposed))
    with pytest.raises(AttributeError, match="module 'acme_search' has no attribute 'nothing'"):
        _ = exposed.nothing
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
    assert sys.meta_path.count(module._submodules) == 1


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
        ("1!0.1", "<2!0", True),
        ("2.0rc1", ">=2", False),
        ("2.0rc1", ">=2.0rc1", True),
        ("2.0rc1", "==2.0rc1", True),
        ("2.0-RC.1", "==2rc1", True),
        ("2.0rc2", "==2.0rc1", False),
        ("2.0rc2", ">2.0rc1,<2.0", False),
        ("2.0rc2", ">2.0rc1,<=2.0", True),
        ("2.0b3", "<2.0rc1", True),
        ("2.0a1", "<2.0b1", True),
        ("2.0.dev3", "<2.0a1", True),
        ("2.0a1.dev3", "<2.0a1", True),
        ("2.0.post1", ">2.0", False),
        ("2.0.post1", ">=2.0", True),
        ("2.0.post2", ">2.0.post1", True),
        ("2.0-1", "==2.0.post1", True),
        ("1.5rc1", ">=1.2,<2", True),
        ("0", ">=0", True),
        ("3", "", True),
        ("1.5", " >= 1.2 , < 2 ", True),
    ],
)
def test_versions_are_compared_as_pip_compares_them(
    version: str, specifier: str, expected: bool
) -> None:
    """Numbers as numbers; a pre-release comes before its release."""
    assert satisfies(version, specifier) is expected


def test_a_pre_release_is_refused_with_the_reason(site: Site) -> None:
    """`2.0rc1` is not 2.0, and the words say how to accept it."""
    site.install(SQLITE, "2.0rc1")
    wanted = Implementation(SQLITE.module, SQLITE.distribution, ">=2.0")

    with pytest.raises(MissingDependencyError) as caught:
        installed("acme_search", wanted)

    assert str(caught.value).endswith("(2.0rc1 comes before 2.0; '>=2.0rc1' accepts it)")
    accepted = Implementation(SQLITE.module, SQLITE.distribution, ">=2.0rc1")
    assert installed("acme_search", accepted) is accepted


@pytest.mark.parametrize("specifier", ["1.2", "~=1.2", ">=x", ">=2.0+", ">=1.2 <2", "==1.*", ">="])
def test_a_range_that_is_not_understood_is_refused(specifier: str) -> None:
    """A specifier of another form raises, whatever is installed."""
    with pytest.raises(ValueError, match=r"is not of the form '>=1\.2,<2'"):
        installed("acme_search", Implementation("acme", "acme", specifier))


def test_a_version_that_cannot_be_compared_is_an_import_error(site: Site) -> None:
    """An installation with a version of another form is told, with the cure."""
    site.install(SQLITE, "unknown")

    with pytest.raises(ImportError, match="'unknown', which cannot be compared: pip install"):
        expose("acme_search", *BOTH)
    with pytest.raises(ValueError, match="'unknown' is none that can be compared"):
        sort_key("unknown")


@pytest.mark.parametrize("fault", ["both", "broken", "lacks"])
def test_every_error_is_an_import_error(site: Site, fault: str) -> None:
    """Code that does without the package catches ImportError, whatever is wrong with it."""
    site.install(SQLITE, __init__="1 / 0" if fault == "broken" else "")
    if fault == "both":
        site.install(POSTGRES)
    site.facade(required=("search",))

    with pytest.raises(ImportError) as caught:
        importlib.import_module("acme_search")

    assert isinstance(caught.value, ImplementationError)
    assert isinstance(caught.value, RegistrationError)


def test_the_facade_s_own_names_and_modules_stay(site: Site) -> None:
    """They come first, whether they are written before or after `expose`."""
    site.install(SQLITE, __init__="__version__ = '1'\nsize = 1\nkind = 2\n", own="", other="")
    site.write(SQLITE, **{"deep/__init__": "", "deep/inner": ""})
    site.facade()
    init = site.path / "acme_search" / "__init__.py"
    init.write_text(f'"""Search."""\nsize = 7\n{init.read_text()}\n__version__ = \'9\'\n')
    (site.path / "acme_search" / "own.py").write_text("here = True\n")

    exposed = importlib.import_module("acme_search")

    assert (exposed.__version__, exposed.size, exposed.kind) == ("9", 7, 2)
    assert (exposed.__name__, exposed.__doc__) == ("acme_search", "Search.")
    assert importlib.import_module("acme_search.own").here
    assert importlib.import_module("acme_search.other").__name__ == "acme_search_sqlite.other"
    inner = importlib.import_module("acme_search.deep.inner")
    assert inner is importlib.import_module("acme_search_sqlite.deep.inner")


def run(site: Site, *words: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a process of its own, with warnings as errors."""
    return subprocess.run(
        [sys.executable, "-W", "error", *words],
        env={"PYTHONPATH": str(site.path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


THREADS = """
import sys, threading
sys.setswitchinterval(1e-6)
start, wrong = threading.Barrier(8), []

def first():
    start.wait()
    try:
        from acme_search import search
        import acme_search
        acme_search.query.Query
        from acme_search.query import Query
    except Exception as exc:
        wrong.append(repr(exc))

threads = [threading.Thread(target=first) for _ in range(8)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(wrong)
"""


def test_the_first_import_from_several_threads_is_whole(site: Site) -> None:
    """A thread that waited for another's import has the names as well."""
    slow = "import time\ntime.sleep(0.1)\nfrom . import query\ndef search(): ...\n"
    site.install(SQLITE, __init__=slow, query="class Query: ...\n")
    site.facade()

    done = run(site, "-c", THREADS)

    assert (done.stdout, done.stderr) == ("[]\n", "")


MODULES = """
import threading
import dispatchers.implementation
first, wrong = threading.Thread(target=__import__, args=("acme_search",)), []

def module():
    try:
        from acme_search.query import Query
    except Exception as exc:
        wrong.append(repr(exc))

first.start()
begun.wait()
threads = [threading.Thread(target=module) for _ in range(4)]
[thread.start() for thread in threads]
[thread.join() for thread in (first, *threads)]
print(wrong)
"""


def test_a_module_is_there_while_another_thread_imports_the_facade(site: Site) -> None:
    """Importing a module of a package does not wait until the package is whole."""
    slow = "import builtins, time\nbuiltins.begun.set()\ntime.sleep(0.3)\n"
    site.install(SQLITE, __init__=slow + "def search(): ...\n", query="class Query: ...\n")
    site.facade()
    begun = "import builtins, threading\nbegun = builtins.begun = threading.Event()\n"

    done = run(site, "-c", begun + MODULES)

    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_programs_of_the_implementation_run_under_both_names(site: Site) -> None:
    """`python -m acme_search`, and `python -m acme_search.tool`."""
    main = "from . import kind\nfrom .tool import name\nprint(kind, name, __name__)\n"
    tool = "name = 'tool'\nif __name__ == '__main__':\n    print('ran', name)\n"
    site.install(SQLITE, __main__=main, tool=tool)
    site.facade()

    whole, part = run(site, "-m", "acme_search"), run(site, "-m", "acme_search.tool")

    assert (whole.stdout, whole.stderr) == ("acme_search_sqlite tool __main__\n", "")
    assert (part.stdout, part.stderr) == ("ran tool\n", "")


def test_a_star_import_takes_the_implementation_s_public_names(site: Site) -> None:
    """With or without `__all__` there."""
    site.install(SQLITE, __init__="size = 1\n_own = 2\n")
    site.facade()
    names: dict[str, object] = {}

    exec("from acme_search import *", names)

    assert names["size"] == 1
    assert "_own" not in names


def test_a_facade_needs_neither_the_core_nor_pydantic(site: Site) -> None:
    """Both cost a tenth of a second, and a facade asks for none of their names."""
    site.install(SQLITE)
    site.facade()
    source = "import sys, acme_search; print(*{'pydantic', 'dispatchers._tasks'} & {*sys.modules})"

    done = run(site, "-c", source)

    assert (done.stdout, done.stderr) == ("\n", "")
