"""Tests reach no real queue unless they say so."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow  # whole projects, processes by the dozen

pytest_plugins = ["pytester"]

TASKS = """
from dispatchers import task

@task(name="isolation.mail")
def mail(user_id: int) -> None: ...
"""
CONFIGURATION = '[targets.prod]\ndefault = {{ backend = "sqlite", path = "{path}" }}\n'
TEST = """
import pytest
from isolation_tasks import mail

{before}
def test_it({arguments}):
    {first}
    response = mail.dispatch(user_id=1)
    print("said", response.status, response.backend)
"""


@pytest.fixture
def run(pytester: pytest.Pytester):  # type: ignore[no-untyped-def]
    """Run a test of a project with a queue; what it said, and whether the queue was touched."""
    queue = pytester.path / "queue.sqlite3"
    pytester.makefile(".toml", dispatchers='target = "prod"\n' + CONFIGURATION.format(path=queue))
    pytester.makepyfile(isolation_tasks=TASKS)

    def run(
        *args: str, before: str = "", arguments: str = "", first: str = "pass"
    ) -> tuple[str, bool]:
        source = TEST.format(before=before, arguments=arguments, first=first)
        pytester.makepyfile(test_isolation_inner=source)
        command = ("-p", "no:randomly", "-s", *args)
        result = pytester.runpytest_subprocess("-o", "pythonpath=.", *command)
        result.assert_outcomes(passed=1)
        said = next(line for line in result.outlines if "said " in line)
        return said.partition("said ")[2], queue.exists()

    return run


def test_a_test_reaches_no_real_queue(run) -> None:  # type: ignore[no-untyped-def]
    """Its work is accepted, checked as everywhere, and dropped."""
    assert run() == ("accepted null", False)


@pytest.mark.parametrize(
    ("args", "more"),
    [
        (("-o", "dispatchers_backends=configured"), {}),
        ((), {"before": "@pytest.mark.dispatchers_configured"}),
    ],
)
def test_a_setting_or_a_marker_reaches_it(run, args, more) -> None:  # type: ignore[no-untyped-def]
    """They say that the test means the configured backends."""
    assert run(*args, **more) == ("accepted sqlite", True)


@pytest.mark.parametrize("own", ["code", "variable"])
def test_a_configuration_of_the_test_s_own_is_used(run, own) -> None:  # type: ignore[no-untyped-def]
    """A test that chooses its dispatchers has said which it means."""
    table = {"backend": "sqlite", "path": "queue.sqlite3"}
    settings = {"targets": {"prod": {"default": table}}}
    first = {
        "code": f"import dispatchers; dispatchers.configure({settings})",
        "variable": "monkeypatch.setenv('DISPATCHERS_TARGETS__PROD__DEFAULT__QUEUE', 'x')",
    }

    assert run(arguments="monkeypatch", first=first[own]) == ("accepted sqlite", True)


PROJECT = """
INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth"]
INSTALLED_APPS += ["dispatchers_django", "shop"]
DISPATCHERS = {"default": {"BACKEND": "sqlite", "OPTIONS": {"path": "queue.sqlite3"}}}
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "db.sqlite3"}}
SECRET_KEY = "of this test"
USE_TZ = True
"""
MANAGE = """
import os, sys
os.environ["DJANGO_SETTINGS_MODULE"] = "project"
from django.core.management import execute_from_command_line
execute_from_command_line(sys.argv)
"""
RUNNER = """
import os, sys
os.environ["DJANGO_SETTINGS_MODULE"] = "project"
import django
from django.conf import settings
from django.test.utils import get_runner
django.setup()
sys.exit(bool(get_runner(settings)(verbosity=0).run_tests(["shop"])))
"""
DJANGO_TEST = """
from django.contrib.auth.models import User
from django.db import transaction
from django.test import TestCase, override_settings
from dispatchers_django import OnCommit
from shop.tasks import send_welcome

class T(TestCase):
    def test_sign_up(self):
        told = []
        with self.captureOnCommitCallbacks(execute=True), transaction.atomic():
            eve = User.objects.create_user("eve")
            later = send_welcome.options(dispatcher=OnCommit(on_result=told.append))
            self.assertTrue(later.dispatch(user_id=eve.pk))
        self.assertEqual([each.backend for each in told], ["BACKEND"])
"""
OWN = '{"default": {"BACKEND": "sqlite", "OPTIONS": {"path": "queue.sqlite3"}}}'


@pytest.mark.parametrize(
    ("command", "environment", "decorator", "backend"),
    [
        (["manage.py", "test"], {}, "", "null"),
        (["runner.py"], {}, "", "null"),
        (["manage.py", "test"], {}, f"@override_settings(DISPATCHERS={OWN})", "sqlite"),
        (["manage.py", "test"], {"IN_TESTS": "1"}, "", "sqlite"),
    ],
)
def test_django_s_tests_reach_no_real_queue(
    tmp_path: Path, command: list[str], environment: dict[str, str], decorator: str, backend: str
) -> None:
    """As its mail goes to an outbox: with `manage.py test`, and a runner of the project's own."""
    pytest.importorskip("django")
    extra = 'DISPATCHERS_IN_TESTS = "configured"\n' if environment else ""
    shop = tmp_path / "shop"
    shop.mkdir()
    (shop / "__init__.py").touch()
    task = '@task(name="shop.send_welcome")\ndef send_welcome(user_id: int) -> None: ...\n'
    (shop / "tasks.py").write_text(f"from dispatchers import task\n{task}")
    test = DJANGO_TEST.replace("BACKEND", backend).replace("class T", f"{decorator}\nclass T")
    (shop / "tests.py").write_text(test)
    (tmp_path / "project.py").write_text(PROJECT + extra)
    (tmp_path / "manage.py").write_text(MANAGE)
    (tmp_path / "runner.py").write_text(RUNNER)

    done = subprocess.run(
        [sys.executable, *command], cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    assert (tmp_path / "queue.sqlite3").exists() is (backend == "sqlite")
