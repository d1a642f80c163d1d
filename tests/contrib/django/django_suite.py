"""Django's own tests of task backends, run with `DispatcherBackend` in place of Django's two.

`python tests/contrib/django/django_suite.py DJANGO`, where DJANGO is the folder of Django's source.
The tests of `ImmediateBackend` run over `inline`, those of `DummyBackend` over `null`. What cannot
hold here is named below with its reason; the run fails where anything else does, and where one of
those does not fail any more. With `unkept` after DJANGO, `ImmediateBackend` keeps no results.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
import unittest
from pathlib import Path
from typing import Any

import django
from django.conf import settings

KEPT = {
    "ImmediateBackendTestCase.test_cannot_get_result": "results can be read",
    "ImmediateBackendTestCase.test_cannot_refresh_result": "results can be read",
}
NOT_OURS = {
    "ImmediateBackendTestCase.test_catches_exception": "SystemExit is the caller's",
    "DummyBackendTestCase.test_refresh_result": "it changes a result in the backend's memory",
    "DummyBackendTestCase.test_refresh_result_async": "it changes a result in the backend's memory",
}
"""Tests that fail here, and why; those of `KEPT` only where results are kept."""
BACKENDS = '''
from dispatchers_django.models import TaskResult
from dispatchers_django.tasks import DispatcherBackend

class ImmediateBackend(DispatcherBackend):
    """Over `inline`."""

    def __init__(self, alias, params):
        super().__init__(alias, params)
        self.chosen = self.chosen.model_copy(update={"results": KEEPS})

class DummyBackend(DispatcherBackend):
    """Over `null`, with the two names that these tests ask for."""

    def __init__(self, alias, params):
        super().__init__(alias, params)
        self.chosen = self.chosen.model_copy(update={"dispatcher": "kept"})

    def clear(self):
        TaskResult.objects.all().delete()

    @property
    def results(self):
        return [self.get_result(row.id) for row in TaskResult.objects.order_by("enqueued_at")]
'''


def copied(source: Path, folder: Path, *, keeps: bool) -> None:
    """Copy the tests, with our backends for Django's and databases allowed."""
    (folder / "suite_backends.py").write_text(f"KEEPS = {keeps}\n{BACKENDS}")
    (folder / "tasks").mkdir()
    for path in source.glob("*.py"):
        text = path.read_text()
        text = re.sub(r"django\.tasks\.backends\.(dummy|immediate)\b", "suite_backends", text)
        text = re.sub(r"\bSimpleTestCase\b", "TransactionTestCase", text)
        (folder / "tasks" / path.name).write_text(text)


def set_up(folder: Path) -> None:
    """Set Django up over a database of this run."""
    # Some tests call what is synchronous in async functions: Django's two touch no database.
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "true"
    settings.configure(
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": folder / "db"}},
        DISPATCHERS={"default": {"BACKEND": "inline"}, "kept": {"BACKEND": "null"}},
        DISPATCHERS_IN_TESTS="configured",
        INSTALLED_APPS=["dispatchers_django"],
        USE_TZ=True,
    )
    django.setup()


def failed(folder: Path) -> tuple[set[str], int]:
    """Run the tests; the names of those that failed, and how many there are."""
    from django.test.runner import DiscoverRunner

    class Runner(DiscoverRunner):
        def suite_result(self, suite: Any, result: unittest.TestResult, **_: Any) -> Any:
            return result

    sys.path.insert(0, str(folder))
    result: Any = Runner(verbosity=1, interactive=False, top_level=str(folder)).run_tests(["tasks"])
    wrong = [*result.failures, *result.errors]
    cases = [getattr(each, "test_case", each) for each, _ in wrong]  # of a part, its whole
    return {f"{type(each).__name__}.{each._testMethodName}" for each in cases}, result.testsRun


def main(source: str, *options: str) -> int:
    """Run them, and compare."""
    keeps = "unkept" not in options
    expected = {*NOT_OURS, *(KEPT if keeps else ())}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        copied(Path(source, "tests", "tasks"), folder, keeps=keeps)
        set_up(folder)
        wrong, number = failed(folder)
    for each in sorted(wrong ^ expected):
        print("FAILED" if each in wrong else "DOES NOT FAIL ANY MORE", each)
    print(f"{number} tests, {len(wrong)} not ours")
    return 1 if wrong ^ expected else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
