"""The pytest plugin, loaded by its entry point in every run: `pip install "dispatchers[testing]"`.

It lies beside `dispatchers`, not in it, so that loading it imports nothing of the library: a run
that never uses it pays nothing. README.md has the fixtures and the setting.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

if TYPE_CHECKING:
    from dispatchers.backends.inline import InlineDispatcher
    from dispatchers.backends.memory import MemoryDispatcher
    from dispatchers.testing import RecordingDispatcher, UncheckedDispatches
    from dispatchers.testing.workflows import WorkflowClock

__all__ = [
    "UncheckedDispatchWarning",
    "dispatched",
    "inline_dispatch",
    "memory_dispatch",
    "workflow_clock",
]

SETTING = "dispatchers_unchecked"
CHOICES = ("fail", "warn", "ignore")
BACKENDS = "dispatchers_backends"
ISOLATION = ("isolated", "configured")
REAL = "dispatchers_configured"
ADVICE = (
    "look at response.ok or response.error, or call response.raise_for_error(); "
    f"where it is meant so, mark the test with @pytest.mark.{SETTING}"
)


class UncheckedDispatchWarning(UserWarning):
    """A dispatch failed permanently, and the test did not check the response."""


# Fixtures.


@pytest.fixture
def dispatched() -> Iterator[RecordingDispatcher]:
    """A `RecordingDispatcher` in place of every configured dispatcher."""
    from dispatchers.testing import RecordingDispatcher

    with RecordingDispatcher.installed() as recording:
        yield recording


@pytest.fixture
def inline_dispatch() -> Iterator[InlineDispatcher]:
    """`inline` in place of every configured dispatcher; what it cannot do is waived."""
    from dispatchers.backends.inline import InlineDispatcher
    from dispatchers.testing import installed

    with installed(InlineDispatcher(alias="default", waive=_unable(InlineDispatcher))) as inline:
        yield inline


@pytest.fixture
def memory_dispatch() -> Iterator[MemoryDispatcher]:
    """`memory` in place of every configured dispatcher: its worker is stepped by the test."""
    from dispatchers.backends.memory import MemoryDispatcher
    from dispatchers.testing import installed

    with installed(MemoryDispatcher(alias="default", waive=_unable(MemoryDispatcher))) as memory:
        yield memory


@pytest.fixture
def workflow_clock(request: pytest.FixtureRequest) -> Iterator[WorkflowClock]:
    """A `WorkflowClock` in place of every configured dispatcher, of the journal, and of time."""
    from dispatchers.testing.workflows import WorkflowClock

    with WorkflowClock.installed(request.config.getoption("workflow_seed")) as clock:
        request.node.add_report_section("call", "workflow clock", clock.hint)
        yield clock


def _unable(cls: type[InlineDispatcher | MemoryDispatcher]) -> list[str]:
    options = ("delay", "priority", "expires", "time_limit", "deduplicate")
    return [option for option in options if not cls.capabilities.supports(option)]


# Tests reach no real queue unless they say so.


class _Session(NamedTuple):
    """The surroundings in which a session began."""

    isolates: bool
    folder: Path
    variables: dict[str, str]


_sessions: list[_Session] = []
_reaching: list[str] = []
"""The test that is marked to use the configured backends."""


def keeps_in_process(origin: str) -> bool | None:
    """Return whether a dispatcher that `origin` configures is to keep its work in the process.

    A test that sets variables, or works in a folder with a configuration file of its own, has said
    which dispatchers it means.
    """
    if not _sessions:
        return None
    session = _sessions[-1]
    if not session.isolates or _reaching or _variables() != session.variables:
        return False
    path = Path(origin)
    return not path.is_absolute() or session.folder.is_relative_to(path.parent)


def _variables() -> dict[str, str]:
    return {key: text for key, text in os.environ.items() if key.startswith("DISPATCHERS_")}


def _reload() -> None:
    # By `sys.modules`, so that a run which never imports the library does not load it here.
    if frameworks := sys.modules.get("dispatchers.frameworks"):
        frameworks.reload()
    elif "dispatchers" in sys.modules:
        from dispatchers.frameworks import reload

        reload()


@pytest.fixture(autouse=True)
def _dispatchers_configured(request: pytest.FixtureRequest) -> Iterator[None]:
    """Use the configured backends in a test that is marked so."""
    if request.node.get_closest_marker(REAL) is None:
        yield
        return
    _reaching.append(request.node.nodeid)
    _reload()
    yield
    _reaching.pop()
    _reload()


# Refused dispatches that a test does not look at.


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the settings."""
    parser.addoption(
        "--workflow-seed",
        type=int,
        metavar="NUMBER",
        help="repeat the order in which the fixture workflow_clock did things; failures show it",
    )
    parser.addini(
        BACKENDS,
        "whether tests use the configured backends: isolated (default), which accepts work and "
        "drops it in place of a backend that outlives the process, or configured",
        default="isolated",
    )
    parser.addini(
        SETTING,
        "what happens to a test that does not look at a dispatch which was rejected as invalid, "
        "unsupported or configuration: fail (default), warn or ignore",
        default="fail",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Add the markers.

    Raises:
        pytest.UsageError: The setting is none of its values.
    """
    config.addinivalue_line("markers", f"{SETTING}: the test ignores refused dispatches on purpose")
    config.addinivalue_line("markers", f"{REAL}: the test uses the configured backends")
    for setting, choices in ((SETTING, CHOICES), (BACKENDS, ISOLATION)):
        if (chosen := config.getini(setting)) not in choices:
            raise pytest.UsageError(f"{setting} = {chosen!r}: it is one of {', '.join(choices)}")
    isolates = config.getini(BACKENDS) == ISOLATION[0]
    _sessions.append(_Session(isolates, Path.cwd(), _variables()))
    # A stack: `pytester` runs sessions inside a session.
    config.add_cleanup(_sessions.pop)


_watch: pytest.StashKey[UncheckedDispatches] = pytest.StashKey()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Watch one test, its fixtures included."""
    try:
        return (yield)
    finally:
        if (watch := item.stash.get(_watch, None)) is not None:
            watch.__exit__(None, None, None)
            del item.stash[_watch]


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, object, object]:
    """Begin before the fixtures."""
    _begin(item)
    return (yield)


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Check once the test has passed; a test that failed is told besides."""
    # Again: a fixture or the test's module may have imported the library since.
    _begin(item)
    try:
        result = yield
    except BaseException:
        # The failure of the test itself is the result; refused dispatches may explain it.
        _note(item)
        raise
    _check(item)
    return result


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, object, object]:
    """Check what the fixtures did at the end."""
    result = yield
    _check(item)
    return result


def _begin(item: pytest.Item) -> None:
    """Watch, if the library has been imported by now."""
    if _watch in item.stash or "dispatchers" not in sys.modules or _is_ignored(item):
        return
    from dispatchers.testing import UncheckedDispatches

    item.stash[_watch] = UncheckedDispatches().__enter__()


def _is_ignored(item: pytest.Item) -> bool:
    chosen: str = item.config.getini(SETTING)
    return chosen == "ignore" or item.get_closest_marker(SETTING) is not None


def _check(item: pytest.Item) -> None:
    if not (text := _unlooked(item)):
        return
    if item.config.getini(SETTING) == "warn":
        item.warn(UncheckedDispatchWarning(text))
    else:
        pytest.fail(text, pytrace=False)


def _note(item: pytest.Item) -> None:
    if text := _unlooked(item):
        item.add_report_section("call", "dispatchers", text)


def _unlooked(item: pytest.Item) -> str:
    watch = item.stash.get(_watch, None)
    lines = [] if watch is None else watch.take()
    if not lines:
        return ""
    listed = "".join(f"\n  {line}" for line in lines)
    return f"refused, and the test did not look at the response:{listed}\n{ADVICE}"
