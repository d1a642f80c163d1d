"""A dispatch inside an open transaction warns, with both stacks."""

from __future__ import annotations

import logging
import warnings
from typing import Any

import pytest
from dispatchers_django import DispatchInTransactionWarning, OnCommit
from django.db import transaction
from django.test import override_settings


def begin_here() -> Any:
    block = transaction.atomic()
    block.__enter__()
    return block


def dispatch_here(task: Any) -> Any:
    return task.dispatch(1)


def test_it_shows_where_both_happen(send, ran):
    """Where the transaction was begun, and where the work is dispatched."""
    block = begin_here()
    with pytest.warns(DispatchInTransactionWarning) as caught:
        response = dispatch_here(send)
    block.__exit__(None, None, None)

    text = str(caught[0].message)
    begun, _, here = text.partition("the work is dispatched here:")
    assert "'shop.send'" in begun
    assert "database 'default'" in begun
    assert "in begin_here" in begun
    assert "in dispatch_here" in here
    assert "begin_here" not in here
    assert response.ok


def test_every_database_counts(send):
    """Not only the default."""
    with pytest.warns(DispatchInTransactionWarning, match="'other'"):
        with transaction.atomic(using="other"):
            send.dispatch(1)


def test_the_outermost_block_is_shown(send):
    """For it is the one that commits."""
    with pytest.warns(DispatchInTransactionWarning) as caught:
        block = begin_here()
        with transaction.atomic():
            send.dispatch(1)
        block.__exit__(None, None, None)

    assert "in begin_here" in str(caught[0].message)


@pytest.mark.parametrize("wanted", [False, None])
def test_it_is_silent_where_nobody_asked(send, wanted, monkeypatch):
    """Elsewhere than in tests it wants a setting."""
    monkeypatch.setattr("dispatchers_django._transactions._running_tests", lambda: False)
    with (
        override_settings(DISPATCHERS_WARN_IN_TRANSACTION=wanted),
        warnings.catch_warnings(),
        transaction.atomic(),
    ):
        warnings.simplefilter("error")
        send.dispatch(1)


def test_outside_a_transaction_and_on_commit_nothing_is_warned_of(send, caplog):
    """Both are right."""
    with warnings.catch_warnings(), caplog.at_level(logging.WARNING):
        warnings.simplefilter("error")
        send.dispatch(1)
        with transaction.atomic():
            send.options(dispatcher=OnCommit()).dispatch(1)

    assert caplog.records == []


def test_what_the_held_work_dispatches_by_itself_is_looked_at(send):
    """A task that opens a transaction and dispatches in it, run inline on commit."""
    from dispatchers import task

    @task(name="shop.outer")
    def outer() -> None:
        with transaction.atomic():
            send.dispatch(1)

    with pytest.warns(DispatchInTransactionWarning, match=r"shop\.send"):
        with transaction.atomic():
            outer.options(dispatcher=OnCommit()).dispatch()


def test_a_filter_that_makes_it_an_error_raises_nothing(send, caplog):
    """C1: it is logged with both stacks, and the work goes on."""
    with warnings.catch_warnings(), caplog.at_level(logging.WARNING, "dispatchers"):
        warnings.simplefilter("error")
        with transaction.atomic():
            response = send.dispatch(1)

    assert response.ok
    assert "the transaction was begun here" in caplog.text
