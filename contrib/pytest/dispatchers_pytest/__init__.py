"""The pytest plugin, loaded by its entry point in every run: `pip install "dispatchers[testing]"`.

It lies beside `dispatchers`, not in it, so that loading it imports nothing of the library: a run
that never uses it pays nothing. README.md has the fixtures and the setting.
"""

from __future__ import annotations

import sys
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from dispatchers.backends.inline import InlineDispatcher
    from dispatchers.backends.memory import MemoryDispatcher
    from dispatchers.testing import RecordingDispatcher, UncheckedDispatches

__all__ = ["UncheckedDispatchWarning", "dispatched", "inline_dispatch", "memory_dispatch"]

SETTING = "dispatchers_unchecked"
CHOICES = ("fail", "warn", "ignore")
ADVICE = (
    "look at response.ok or response.error, or call response.raise_for_error(); "
    f"where it is meant so, mark the test with @pytest.mark.{SETTING}"
)


class UncheckedDispatchWarning(UserWarning):
    """A dispatch was refused for good, and the test did not look at the response."""


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


def _unable(cls: type[InlineDispatcher | MemoryDispatcher]) -> list[str]:
    options = ("delay", "priority", "expires", "time_limit", "deduplicate")
    return [option for option in options if not cls.capabilities.supports(option)]


# Refused dispatches that a test does not look at.


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the setting."""
    parser.addini(
        SETTING,
        "what happens to a test that does not look at a dispatch which was rejected as invalid, "
        "unsupported or configuration: fail (default), warn or ignore",
        default="fail",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Add the marker.

    Raises:
        pytest.UsageError: The setting is none of its values.
    """
    config.addinivalue_line(
        "markers", f"{SETTING}: the test leaves refused dispatches unlooked at, and means it"
    )
    if (chosen := config.getini(SETTING)) not in CHOICES:
        raise pytest.UsageError(f"{SETTING} = {chosen!r}: it is one of {', '.join(CHOICES)}")


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
    _begin(item)
    try:
        result = yield
    except BaseException:
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
