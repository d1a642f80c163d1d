"""The registry: backends by name, whose they are, and what is wrong with those that fail."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

from dispatchers import (
    BackendOptions,
    BaseDispatcher,
    Capabilities,
    MissingDependencyError,
    RegistrationError,
    Sent,
)
from dispatchers._config import references, registry
from dispatchers._config.registry import BackendInfo, backends, load_backend, register
from dispatchers._errors import nearest
from dispatchers._runtime.importing import is_importable

GOOD = """
from dispatchers import BaseDispatcher, Capabilities, Sent

class Acme(BaseDispatcher):
    name = "acme"
    contract = 1
    capabilities = Capabilities()

    def _send(self, request, body, *, timeout):
        return Sent()

    def _category(self, exc):
        return None

    def _maybe_sent(self, exc):
        return True
"""


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    code = dict(registry.table.code)
    yield
    registry.table.code = code
    registry.refresh()


class Site:
    """A folder on the path that distributions are installed into."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def install(self, name: str, points: str, **modules: str) -> None:
        version = "1.5"
        info = self.path / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nProvides-Extra: acme\n"
        (info / "METADATA").write_text(text)
        (info / "entry_points.txt").write_text(points)
        for module, source in modules.items():
            (self.path / f"{module}.py").write_text(textwrap.dedent(source))
        registry.refresh()


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield Site(tmp_path)
    for name in [each for each in set(sys.modules) - before if each.startswith("acme")]:
        del sys.modules[name]


def point(name: str = "acme", reference: str = "acme_one:Acme") -> str:
    return f"[console_scripts]\nx = y:z\n\n[dispatchers.backends]\n{name} = {reference}\n"


def info_of(name: str) -> BackendInfo:
    return next(info for info in backends() if info.name == name)


def backend(**attributes: object) -> type[BaseDispatcher]:
    """A class that may serve as backend `acme`, but for the given attributes."""

    def _send(self: object, request: object, body: bytes, *, timeout: float) -> Sent:
        return Sent()

    good = {
        "name": "acme",
        "contract": 1,
        "capabilities": Capabilities(),
        "_send": _send,
        "_category": lambda self, exc: None,
        "_maybe_sent": lambda self, exc: True,
    }
    kept = {key: value for key, value in (good | attributes).items() if value is not ...}
    return type("Acme", (BaseDispatcher,), kept)


def test_a_built_in_backend_is_found_by_name() -> None:
    """A built-in backend needs no entry point."""
    cls = load_backend("inline")

    assert cls.name == "inline"


def test_asking_for_one_backend_imports_no_other(site: Site) -> None:
    """A backend's module is imported when it is asked for, never before."""
    site.install("acme-one", point(), acme_one=GOOD)
    site.install("acme-two", point("other", "acme_two:Acme"), acme_two=GOOD)

    load_backend("acme")

    assert "acme_one" in sys.modules
    assert "acme_two" not in sys.modules


def test_a_foreign_distribution_is_found_by_its_entry_point(site: Site) -> None:
    """An entry point in `dispatchers.backends` makes a backend known, with its owner."""
    site.install("acme-one", point(), acme_one=GOOD)

    info = info_of("acme")

    assert load_backend("acme").__module__ == "acme_one"
    assert (info.owner, info.state, info.reason) == ("acme-one 1.5", "installed", None)


def test_the_entry_points_are_looked_for_once(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The scan is kept until `refresh`."""
    site.install("acme-one", point(), acme_one=GOOD)
    scans: list[None] = []
    original = metadata.distributions
    monkeypatch.setattr(metadata, "distributions", lambda: scans.append(None) or original())
    registry.refresh()  # which itself scans where dispatchers are built, from earlier tests

    for _ in range(3):
        load_backend("acme")
        load_backend("inline")
        backends()
    once = len(scans)
    registry.refresh()
    backends()

    assert (once, len(scans)) == (1, 2)


def test_an_unknown_name_is_told_with_the_nearest() -> None:
    """An unknown name raises with the nearest one."""
    with pytest.raises(RegistrationError, match="no backend 'inlin'; did you mean 'inline'"):
        load_backend("inlin")


@pytest.mark.parametrize(("name", "near"), [("RQ", "rq"), ("SQLite3", "sqlite"), ("AUTO_", "auto")])
def test_the_nearest_name_is_found_in_any_case(name: str, near: str) -> None:
    """As the libraries write themselves."""
    assert nearest(name, ["auto", "rq", "sqlite"]) == f"; did you mean {near!r}?"


def test_of_thousands_of_names_the_first_are_listed() -> None:
    """A message stays one that can be read."""
    names = [f"task{number:04}" for number in range(1000)]

    message = nearest("?", names)

    assert message.startswith("; known are 'task0000', 'task0001'")
    assert message.endswith("'task0049' and 950 more")


@pytest.mark.parametrize("name", [None, 5, b"inline", ["inline"]])
def test_a_name_that_is_no_text_is_refused(name: object) -> None:
    """A name of another type is a registration error too, not a TypeError."""
    with pytest.raises(RegistrationError, match="a backend's name is text"):
        load_backend(name)  # type: ignore[arg-type]


def test_every_bundled_adapter_has_an_extra_of_its_name() -> None:
    """What the cure of a missing library names can be installed."""
    extras = metadata.metadata("dispatchers").get_all("Provides-Extra") or []

    assert {name.replace("_", "-") for name in references.LIBRARIES} <= set(extras)


def test_every_bundled_adapter_has_a_library() -> None:
    """An adapter whose library is missing is never called broken."""
    bundled = metadata.distribution("dispatchers").entry_points.select(group="dispatchers.backends")

    assert {point.name for point in bundled} == set(references.LIBRARIES)


def test_no_extra_is_spelt_with_an_underscore() -> None:
    """`pip` before 23.3 installs nothing of `dispatchers[cloud_tasks]`, and says nothing."""
    root = Path(__file__).parents[2]
    texts = [*root.glob("*.md"), root / "pyproject.toml", root / "noxfile.py"]
    for folder in ("dispatchers", "adapters", "contrib", "docs", "examples", "benchmarks"):
        texts += [*root.glob(f"{folder}/**/*.py"), *root.glob(f"{folder}/**/*.md")]

    wrong = {
        f"{path.relative_to(root)}: {found[0]}"
        for path in texts
        for found in re.finditer(r"dispatchers\[[a-z,-]*_[a-z_,-]*\]", path.read_text())
    }

    assert wrong == set()


@pytest.mark.parametrize("name", sorted(references.LIBRARIES))
def test_a_missing_library_is_told_with_the_command(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bundled adapter whose library is missing says which extra brings it."""
    monkeypatch.setattr(registry, "is_importable", lambda _: False)
    monkeypatch.setattr(registry.table, "scanned", {})

    with pytest.raises(MissingDependencyError) as caught:
        load_backend(name)

    assert str(caught.value).endswith(f"pip install 'dispatchers[{name.replace('_', '-')}]'")
    assert isinstance(caught.value, ImportError)


@pytest.mark.parametrize(
    ("source", "state", "words"),
    [
        ("import acme_driver", "missing", "'acme_driver', which is not installed"),
        ("import acme_driver.inner", "missing", "'acme_driver', which is not installed"),
        ("import acme_one.inner", "broken", "No module named 'acme_one.inner'"),
        ("import dispatchers.inner", "broken", "No module named 'dispatchers.inner'"),
        ("from os import nothing", "broken", "cannot import name 'nothing'"),
        ("raise ModuleNotFoundError", "broken", "ModuleNotFoundError"),
    ],
)
def test_what_a_bundled_adapter_misses_is_missing_and_its_own_fault_is_broken(
    site: Site, monkeypatch: pytest.MonkeyPatch, source: str, state: str, words: str
) -> None:
    """A library that its library needs is told with the extra as well."""
    pytest.importorskip("rq")
    site.install("acme-one", "", acme_one=f"{source}\n{GOOD}")
    claim = registry.Claim("dispatchers 1.0", "acme_one:Acme")
    monkeypatch.setattr(registry.table, "scanned", {"rq": (claim,)})

    info = info_of("rq")

    assert (info.state, words in (info.reason or "")) == (state, True), info
    assert ("pip install 'dispatchers[rq]'" in (info.reason or "")) is (state == "missing")


def test_a_class_whose_library_is_missing_is_listed_with_its_capabilities(site: Site) -> None:
    """A backend is `missing` when its class loads and its library is not there."""
    source = GOOD + '    library = "acme_driver"\n'
    site.install("acme-one", point(), acme_one=source)

    info = info_of("acme")

    assert info.state == "missing"
    assert info.extra == "acme-one[acme]"
    assert info.cls is not None
    assert info.cls.capabilities == Capabilities()
    with pytest.raises(MissingDependencyError, match=r"'acme_driver'.*'acme-one\[acme\]'"):
        load_backend("acme")


def test_a_backend_that_fails_to_import_is_broken_with_its_real_cause(site: Site) -> None:
    """A module that does not import is broken, not missing, and the cause is in the message."""
    site.install("acme-one", point(), acme_one="import acme_inner_part")

    info = info_of("acme")

    assert info.state == "broken"
    assert info.reason is not None
    for part in ("acme-one 1.5", "acme_one:Acme", "No module named 'acme_inner_part'"):
        assert part in info.reason
    with pytest.raises(RegistrationError) as caught:
        load_backend("acme")
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


@pytest.mark.parametrize(
    ("source", "cause"),
    [
        ("raise ValueError('no')", "ValueError: no"),
        ("1 / 0", "ZeroDivisionError"),
        ("Acme = = 1", "SyntaxError"),
        ("Other = 1", "AttributeError"),
        ("class E(Exception):\n    def __str__(self): 1/0\nraise E", "E"),
    ],
)
def test_a_broken_backend_breaks_no_other(site: Site, source: str, cause: str) -> None:
    """Whatever importing one backend raises, the others are listed and load."""
    site.install("acme-one", point(), acme_one=source)

    found = {info.name: info for info in backends()}

    assert found["acme"].state == "broken"
    assert cause in str(found["acme"].reason)
    assert found["inline"].state == "installed"


def test_a_name_with_two_owners_names_both(site: Site) -> None:
    """Two distributions that claim one name are a conflict that names both and the cure."""
    site.install("acme-one", point(), acme_one=GOOD)
    site.install("acme-two", point("acme", "acme_two:Acme"), acme_two=GOOD)

    info = info_of("acme")

    assert info.state == "conflict"
    with pytest.raises(RegistrationError) as caught:
        load_backend("acme")
    for part in ("acme-one 1.5", "acme-two 1.5", "uninstall all but one"):
        assert part in str(caught.value)
    assert load_backend("inline").name == "inline"


def test_a_foreign_claim_on_a_built_in_name_is_a_conflict(site: Site) -> None:
    """Nobody takes a built-in name over in silence."""
    site.install("acme-one", point("inline", "acme_one:Acme"), acme_one=GOOD)

    with pytest.raises(RegistrationError, match=r"'inline' has 2 owners, dispatchers .*acme-one"):
        load_backend("inline")


def test_the_distribution_that_comes_first_on_the_path_counts(
    site: Site, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second copy of the same distribution further down the path is no second owner."""
    site.install("acme-one", point(), acme_one=GOOD)
    later = tmp_path_factory.mktemp("later")
    monkeypatch.setattr(sys, "path", [*sys.path, str(later)])
    Site(later).install("acme-one", point("acme", "acme_old:Acme"), acme_old=GOOD)

    assert load_backend("acme").__module__ == "acme_one"


def test_broken_metadata_hides_no_backend(site: Site) -> None:
    """A distribution whose entry points cannot be parsed has none; the others keep theirs."""
    site.install("acme-one", point(), acme_one=GOOD)
    site.install("acme-two", "dispatchers.backends\nwhat is this")

    assert info_of("acme").state == "installed"


@pytest.mark.parametrize(
    ("attributes", "problem"),
    [
        ({"name": "other"}, "registered as 'acme', its `name` is 'other'"),
        ({"name": ...}, "`name` must be lower-case"),
        ({"name": "Acme!"}, "`name` must be lower-case"),
        ({"contract": ...}, "`contract` is missing: write `contract = 1`"),
        ({"contract": True}, "`contract` must be a whole number"),
        ({"contract": "1"}, "`contract` must be a whole number"),
        ({"contract": 2}, "contract 2, this core speaks 1: upgrade dispatchers"),
        ({"contract": 0}, "contract 0, this core speaks 1: upgrade the adapter"),
        ({"capabilities": ...}, "`capabilities` must be a Capabilities"),
        ({"capabilities": {"delay": True}}, "`capabilities` must be a Capabilities"),
        ({"Options": dict}, "`Options` must be a subclass of BackendOptions"),
        ({"library": 3}, "`library` must be the name of a module"),
        ({"_send": ...}, "missing: _send"),
        ({"_category": ..., "_maybe_sent": ...}, "missing: _category, _maybe_sent"),
        ({"_category": None}, "missing: _category"),
        ({"_send": lambda self, request, body: Sent()}, "`_send` must take the keyword `timeout`"),
        (
            {"_probe": lambda self, seconds: None},
            "`_probe` must take the keyword `timeout`",
        ),
        ({"dispatch": lambda self, request: None}, "`dispatch` is final: write `_send`"),
    ],
)
def test_a_class_is_checked_when_it_is_loaded(attributes: dict[str, object], problem: str) -> None:
    """On load the class is checked: members, contract number, types; the message says what."""
    cls = backend(**attributes)

    problems = "; ".join(registry.class_problems(cls, "acme"))

    assert problem in problems


@pytest.mark.parametrize("value", [object(), int, "acme"])
def test_what_is_no_dispatcher_class_is_refused(value: object) -> None:
    """Something else than a subclass of BaseDispatcher is refused."""
    with pytest.raises(RegistrationError, match="is not a subclass of BaseDispatcher"):
        register(value)  # type: ignore[call-overload]


def test_all_that_is_wrong_with_a_class_is_said_at_once() -> None:
    """The message lists every problem."""
    cls = backend(contract=..., capabilities=...)

    with pytest.raises(RegistrationError) as caught:
        register(cls)

    assert "`contract` is missing" in str(caught.value)
    assert "`capabilities` must be" in str(caught.value)


def test_an_inherited_contract_number_counts() -> None:
    """The number may stand on a parent class, as long as that is not the base itself."""
    child = type("Child", (backend(),), {})

    assert registry.class_problems(child, "acme") == []


def test_a_foreign_class_is_checked_with_its_owner_named(site: Site) -> None:
    """A class that lacks something is broken, and its distribution is named."""
    site.install("acme-one", point(), acme_one=GOOD.replace("contract = 1", ""))

    info = info_of("acme")

    assert info.state == "broken"
    assert "acme-one 1.5" in str(info.reason)
    assert "`contract` is missing" in str(info.reason)


def test_is_available_that_raises_makes_the_backend_broken(site: Site) -> None:
    """C12: `is_available` must not raise; one that does is the adapter's fault, and said so."""
    source = GOOD + "\n    @classmethod\n    def is_available(cls):\n        1 / 0\n"
    site.install("acme-one", point(), acme_one=source)

    info = info_of("acme")

    assert info.state == "broken"
    assert "is_available() must not raise" in str(info.reason)


def test_register_makes_a_class_known() -> None:
    """`register` is the door for code and notebooks, and gives the class back."""
    cls = backend()

    given = register(cls)

    assert given is cls
    assert load_backend("acme") is cls
    assert info_of("acme").owner == "code"


def test_register_is_a_decorator_with_arguments() -> None:
    """`@register(replace=True)` works like `@register`."""
    cls = backend()

    given = register(replace=True)(cls)

    assert given is cls
    assert load_backend("acme") is cls


def test_registering_the_same_class_again_changes_nothing() -> None:
    """A module that is executed twice over the same class is no conflict."""
    cls = register(backend())

    assert register(cls) is cls


def test_registering_a_taken_name_names_the_owner(site: Site) -> None:
    """A name of another distribution, or a built-in one, is refused with its owner named."""
    site.install("acme-one", point(), acme_one=GOOD)

    with pytest.raises(RegistrationError, match=r"another owner, acme-one 1.5 .*replace=True"):
        register(backend())
    with pytest.raises(RegistrationError, match=r"another owner, dispatchers"):
        register(backend(name="inline"))


def test_registering_another_class_under_the_same_name_is_refused() -> None:
    """Two classes from code do not share a name in silence."""
    register(backend())

    with pytest.raises(RegistrationError, match="another owner, code"):
        register(backend())


def test_a_distribution_that_comes_after_a_class_from_code_is_a_conflict(site: Site) -> None:
    """The order in which two owners appear does not matter."""
    register(backend())
    site.install("acme-one", point(), acme_one=GOOD)

    with pytest.raises(RegistrationError, match=r"2 owners, code .* and acme-one 1\.5"):
        load_backend("acme")


def test_replace_takes_a_name_over(site: Site) -> None:
    """With `replace=True` the class from code is the only owner."""
    site.install("acme-one", point(), acme_one=GOOD)
    cls = backend()

    register(cls, replace=True)

    assert load_backend("acme") is cls
    assert info_of("acme").state == "installed"


def test_an_adapter_that_registers_itself_and_has_an_entry_point_is_one_owner(site: Site) -> None:
    """The same class by both doors is no conflict."""
    source = GOOD + "\nfrom dispatchers import register\nregister(Acme)\n"
    site.install("acme-one", point(), acme_one=source)

    first = load_backend("acme")

    assert load_backend("acme") is first
    assert info_of("acme").state == "installed"


def test_the_name_auto_is_reserved() -> None:
    """A backend cannot be called `auto`."""
    with pytest.raises(RegistrationError, match="'auto' is reserved"):
        register(backend(name="auto"))


def test_options_of_a_backend_may_be_its_own() -> None:
    """A subclass of BackendOptions is accepted."""

    class Own(BackendOptions):
        url: str = "x"

    assert registry.class_problems(backend(Options=Own), "acme") == []


def test_a_library_whose_parent_package_fails_is_not_there(site: Site) -> None:
    """C12: looking for a library never raises, whatever its parent package does."""
    package = site.path / "acme_parent"
    package.mkdir()
    (package / "__init__.py").write_text("1 / 0")

    assert is_importable("acme_parent.driver") is False
    assert is_importable("acme_parent") is True
    assert is_importable("..") is False


def test_importing_the_core_loads_no_backend_and_reads_nothing() -> None:
    """`import dispatchers` loads no backend, looks for no entry points and reads no settings."""
    script = (
        "import sys, dispatchers\n"
        "from dispatchers._config import registry as _registry\n"
        "from dispatchers._config.api import state\n"
        "print([m for m in sys.modules if m.startswith('dispatchers.backends.')])\n"
        "print(_registry.table.scanned, state.snapshot._read, 'tomllib' in sys.modules)\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )

    assert done.stdout.splitlines() == ["[]", "None {} False"]
