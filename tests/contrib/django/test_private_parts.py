"""Canaries: names that the glue uses although Django keeps them private."""

from __future__ import annotations

import django
import pytest
from django.db import connection, transaction
from django.test import TestCase

from dispatchers.testing.canaries import Canary

CONNECTION = "django.db.backends.base.base:BaseDatabaseWrapper"
PARTS = (
    Canary("django.db.transaction:Atomic.__enter__", "self"),
    Canary("django.db.transaction:Atomic._from_testcase"),
    Canary("django.db.backends.base.base:BaseDatabaseWrapper.atomic_blocks"),
    Canary("django.db.backends.base.base:BaseDatabaseWrapper.in_atomic_block"),
    Canary(
        "django.db.backends.base.base:BaseDatabaseWrapper.close_if_unusable_or_obsolete", "self"
    ),
    Canary("django.utils.connection:BaseConnectionHandler.all", "self", "initialized_only"),
    Canary("django.utils.connection:BaseConnectionHandler.create_connection", "self", "alias"),
    Canary("django.db.backends.base.base:BaseDatabaseWrapper.inc_thread_sharing", "self"),
    Canary("django.db.backends.base.base:BaseDatabaseWrapper.autocommit"),
    Canary("django.db.backends.base.base:BaseDatabaseWrapper.run_on_commit"),
    Canary("django.db.transaction:mark_for_rollback_on_error", "using"),
    Canary("django.db.models.options:Options.local_concrete_fields"),
    Canary("django.db.models:Field.get_db_prep_save", "self", "value", "connection"),
    Canary("django.db.backends.base.operations:BaseDatabaseOperations.quote_name", "self", "name"),
    Canary(
        "django.db.backends.base.features:BaseDatabaseFeatures.interprets_empty_strings_as_nulls"
    ),
)


@pytest.mark.parametrize("part", PARTS, ids=str)
def test_a_private_part_is_unchanged(part: Canary) -> None:
    """A release of Django that changes it fails here first."""
    assert part.problem() is None


def test_the_private_part_of_task_results_is_unchanged() -> None:
    """Django has no public way to give a result its value."""
    own = "django.tasks" if django.VERSION >= (6,) else "django_tasks"
    pytest.importorskip(own, reason='needs pip install "dispatchers[django-tasks]"')

    assert Canary(f"{own}.base:TaskResult._return_value").problem() is None


class TestBlocks(TestCase):
    """`Atomic._from_testcase` tells the blocks of a `TestCase` from those of the application."""

    def test_the_blocks_of_a_test_case_are_marked(self) -> None:
        with transaction.atomic():
            marks = [block._from_testcase for block in connection.atomic_blocks]

        assert marks[-1] is False
        assert all(marks[:-1])
