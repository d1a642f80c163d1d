"""The pytest plugin: its fixtures, and the check for refusals that a test does not look at."""

from __future__ import annotations

import subprocess
import sys
from itertools import count

import pytest

pytest_plugins = ["pytester"]
pytestmark = pytest.mark.dispatchers_unchecked  # what happens inside is no business of this run

PLAIN = ("-pno:asyncio", "-pno:hypothesispytest", "-pno:schemathesis", "-Wdefault")
"""Without what only costs time here."""
NUMBERS = count()
HEAD = """
import pytest
from dispatchers import DispatchResponses, task

@task(name="plugin{number}.greet")
def greet(user_id: int) -> None: ...

def refused():
    return greet.dispatch("x")
"""


@pytest.fixture
def run(pytester: pytest.Pytester):  # type: ignore[no-untyped-def]
    """Run a test module of its own, with or without a setting."""

    def run(source: str, *args: str) -> pytest.RunResult:
        pytester.makepyfile(HEAD.format(number=next(NUMBERS)) + source)
        return pytester.runpytest_inprocess(*PLAIN, *args)

    return run


def test_a_refusal_that_nobody_looks_at_fails_the_test(run) -> None:  # type: ignore[no-untyped-def]
    """A dispatch rejected as invalid is a bug that the test would have missed."""
    result = run("def test_it(dispatched):\n    refused()\n")

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["*refused, and the test did not look at the response:*", "*argument 'user_id'*"]
    )


@pytest.mark.parametrize(
    "look",
    [
        "refused().ok",
        "bool(refused())",
        "refused().error",
        "refused().status",
        "refused().exception",
        "refused().model_dump()",
        "refused() == None",
        "assert not DispatchResponses([refused()])",
        "with pytest.raises(Exception): refused().raise_for_error()",
    ],
)
def test_a_look_is_enough(run, look: str) -> None:  # type: ignore[no-untyped-def]
    """Whoever asks what became of it knows."""
    result = run(f"def test_it(dispatched):\n    {look}\n")

    result.assert_outcomes(passed=1)


@pytest.mark.parametrize("glance", ["repr(refused())", "refused().request_id", "refused().elapsed"])
def test_a_glance_is_not_enough(run, glance: str) -> None:  # type: ignore[no-untyped-def]
    """Printing a response, or reading its id, tells a program nothing."""
    result = run(f"def test_it(dispatched):\n    {glance}\n")

    result.assert_outcomes(failed=1)


def test_a_hook_does_not_look_for_the_caller(run) -> None:  # type: ignore[no-untyped-def]
    """Hooks see every response; what they read does not count."""
    result = run(
        "from dispatchers import hooks\n"
        "def test_it(dispatched):\n"
        "    hook = hooks.after_dispatch(lambda response: response.status)\n"
        "    try:\n"
        "        refused()\n"
        "    finally:\n"
        "        hooks.remove(hook)\n"
    )

    result.assert_outcomes(failed=1)


def test_unsupported_and_configuration_are_watched_others_are_not(run) -> None:  # type: ignore[no-untyped-def]
    """Only what a programmer must mend: a broker that is down is a matter of the application."""
    result = run(
        "@pytest.mark.parametrize('category', ['unsupported', 'configuration', 'unavailable'])\n"
        "def test_it(dispatched, category):\n"
        "    dispatched.fail_next(category=category)\n"
        "    greet.dispatch(1)\n"
    )

    result.assert_outcomes(failed=2, passed=1)


def test_fixtures_are_watched_too(run) -> None:  # type: ignore[no-untyped-def]
    """A refusal in a fixture's set-up fails the test, one in its tear-down is an error."""
    result = run(
        "@pytest.fixture\n"
        "def before(dispatched):\n    refused()\n"
        "@pytest.fixture\n"
        "def after(dispatched):\n    yield\n    refused()\n"
        "def test_before(before): pass\n"
        "def test_after(after): pass\n"
    )

    result.assert_outcomes(failed=1, passed=1, errors=1)


def test_a_failed_test_keeps_its_own_error(run) -> None:  # type: ignore[no-untyped-def]
    """The refusal is told besides, since it may be the cause."""
    result = run("def test_it(dispatched):\n    refused()\n    assert 1 == 2\n")

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*assert 1 == 2*", "*did not look at the response*"])


def test_a_later_look_counts(run) -> None:  # type: ignore[no-untyped-def]
    """It is judged at the end of the test."""
    result = run("def test_it(dispatched):\n    r = refused()\n    assert not r.ok\n")

    result.assert_outcomes(passed=1)


def test_the_marker_allows_it(run) -> None:  # type: ignore[no-untyped-def]
    """A test that means it says so."""
    result = run(
        "@pytest.mark.dispatchers_unchecked\ndef test_it(dispatched):\n    refused()\n",
        "--strict-markers",
    )

    result.assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("setting", "outcomes"),
    [("ignore", {"passed": 1}), ("warn", {"passed": 1, "warnings": 1}), ("fail", {"failed": 1})],
)
def test_the_setting_decides(run, setting: str, outcomes: dict[str, int]) -> None:  # type: ignore[no-untyped-def]
    """`dispatchers_unchecked` fails, warns or ignores."""
    result = run(
        "def test_it(dispatched):\n    refused()\n", "-o", f"dispatchers_unchecked={setting}"
    )

    result.assert_outcomes(**outcomes)


def test_a_wrong_setting_is_a_usage_error(run) -> None:  # type: ignore[no-untyped-def]
    """A misspelt value does not turn the check off in silence."""
    result = run("def test_it(): pass\n", "-o", "dispatchers_unchecked=of")

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*dispatchers_unchecked = 'of': it is one of fail, warn, ignore*"])


@pytest.mark.parametrize(
    ("fixture", "status"),
    [("dispatched", "accepted"), ("inline_dispatch", "executed"), ("memory_dispatch", "accepted")],
)
def test_the_fixtures_take_every_dispatch(run, fixture: str, status: str) -> None:  # type: ignore[no-untyped-def]
    """Each fixture puts its dispatcher in place of the configured ones."""
    result = run(
        "from datetime import timedelta\n"
        f"def test_it({fixture}):\n"
        f"    assert greet.dispatch(1).status == {status!r}\n"
        "    assert greet.options(delay=timedelta(1)).dispatch(1).ok\n"
    )

    result.assert_outcomes(passed=1)


def test_loading_the_plugin_imports_nothing_of_the_library() -> None:
    """A run that never uses the library does not pay for it."""
    code = "import sys, dispatchers_pytest; print({'pydantic', 'dispatchers'} & set(sys.modules))"

    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )

    assert done.stdout.strip() == "set()"


def test_pytest_finds_the_plugin_by_its_entry_point() -> None:
    """Installing the distribution is all there is to do."""
    from importlib.metadata import entry_points

    found = [point.value for point in entry_points(group="pytest11") if point.name == "dispatchers"]

    assert found == ["dispatchers_pytest"]
