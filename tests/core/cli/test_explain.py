"""`explain`: what will happen to a task, without asking any backend."""

from __future__ import annotations

import json
from typing import Any

import pytest

from .conftest import Shop

REST = 'modules = ["cli_shop"]\ntarget = "test"\n[targets.test]\n'


def explained(shop: Shop, task: str) -> dict[str, Any]:
    found: list[dict[str, Any]] = json.loads(shop("explain", task, "--json").out)
    assert len(found) == 1
    return found[0]


def test_explain_says_where_a_task_goes_and_what_a_failure_leads_to(shop: Shop) -> None:
    """`explain` says the way, the answer, the attempts and their waits."""
    shop.configure(f'{REST}default = "memory"\n')

    said = shop("explain", "shop.welcome")

    assert said.code == 0
    assert "dispatcher 'default', backend 'memory', queue 'mail'" in said.out
    assert "tried 5 times in all (after 10 s, 20 s, 40 s, 1 min 20 s)" in said.out
    assert "kept as a dead letter in the queue of backend 'memory'" in said.out


def test_the_longest_wait_is_the_deadline_and_its_grace(shop: Shop) -> None:
    """C2: a caller waits for its deadline and 0.25 s at most."""
    shop.configure(f'{REST}default = {{ backend = "null", deadline = 1.5 }}\n')

    assert explained(shop, "shop.welcome")["longest_wait"] == 1.75


def test_inline_waits_until_the_task_has_run(shop: Shop) -> None:
    """C2: a deadline never cuts a run."""
    assert explained(shop, "shop.welcome")["longest_wait"] is None


def test_options_are_refused_or_waived(shop: Shop) -> None:
    """C6: what the backend cannot do is refused, unless it is waived."""
    shop.configure(f'{REST}default = {{ backend = "inline", waive = ["delay"] }}\n')

    found = explained(shop, "shop.welcome")

    assert found["waives"] == ["delay"]
    assert "priority" in found["refuses"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ('"memory"', "backend"),
        ('{ backend = "inline", idempotency = "memory" }', "store"),
        ('"inline"', "carried"),
    ],
)
def test_what_becomes_of_a_key_is_said(shop: Shop, options: str, expected: str) -> None:
    """C10: a key is deduplicated by the backend, by the worker's store, or only carried."""
    shop.configure(f"{REST}default = {options}\n")

    assert explained(shop, "shop.welcome")["key"] == expected


def test_the_hosts_word_on_a_task_counts(shop: Shop) -> None:
    """A host overrides a task by its exact name, and `explain` knows it."""
    shop.configure(
        f'{REST}default = "memory"\n[tasks."shop.welcome"]\nqueue = "low"\nmax_attempts = 2\n'
    )

    found = explained(shop, "shop.welcome")

    assert (found["queue"], found["attempts"], found["waits"]) == ("low", 2, [10.0])


def test_an_alias_that_is_not_configured_falls_back_and_is_said(shop: Shop) -> None:
    """A library's own alias that the host has not configured goes through `default`."""
    said = shop("explain", "shop.track")

    assert "dispatcher 'default'" in said.out
    assert "'tracking' is not configured" in said.out


def test_a_dispatcher_that_cannot_be_built_rejects_everything(shop: Shop) -> None:
    """C1: where the dispatcher is misconfigured every dispatch is rejected, and explained so."""
    shop.configure(f'{REST}default = {{ backend = "inline", nonsense = 1 }}\n')

    said = shop("explain", "shop.boom")

    assert said.code == 0
    assert "every dispatch is rejected" in said.out
    assert "nonsense" in said.out


def test_all_tasks_are_explained_where_none_is_named(shop: Shop) -> None:
    """Without names every task is explained."""
    found = json.loads(shop("explain", "--json").out)

    assert {"shop.boom", "shop.track", "shop.welcome"} <= {each["task"] for each in found}


def test_an_unknown_task_is_an_error_with_the_nearest_name(shop: Shop) -> None:
    """A name that nobody registered is an error with the nearest one."""
    said = shop("explain", "shop.welcom")

    assert said.code == 2
    assert "did you mean 'shop.welcome'?" in said.err


def test_many_waits_are_cut_short(shop: Shop) -> None:
    """Of many attempts only the first waits are written out, and the last."""
    shop.configure(f'{REST}default = "memory"\n[tasks."shop.welcome"]\nmax_attempts = 50\n')

    said = shop("explain", "shop.welcome")

    assert "5 min 20 s ... 10 min)" in said.out


def test_a_failover_says_where_work_may_lie(shop: Shop) -> None:
    """F2, F3: the members in order, and one deadline for all of them."""
    shop.configure(
        f'{REST}default = {{ backend = "failover", to = ["main", "backup"], deadline = 1.5 }}\n'
        'main = "memory"\nbackup = "null"\n'
    )

    found, said = explained(shop, "shop.welcome"), shop("explain", "shop.welcome").out

    assert found["may_lie"] == ["main", "backup"]
    assert found["longest_wait"] == 1.75
    assert "'main', 'backup': the first of them that certainly takes it" in said


def test_a_spill_says_where_work_may_lie(shop: Shop) -> None:
    """F5: with the broker, or in the file."""
    shop.configure(
        f'{REST}default = {{ backend = "spill", to = "main", path = "spill.db" }}\n'
        'main = "memory"\n'
    )

    said = shop("explain", "shop.welcome").out

    assert "'main', or the file" in said
    assert "deferred, while it waits in the file" in said
    assert str(shop.folder / "spill.db") in said


def test_the_way_through_several_is_drawn(shop: Shop) -> None:
    """F2, F3, F5: a failover over two brokers and a spill, one deadline for all of them."""
    shop.configure(
        f'{REST}default = {{ backend = "failover", to = ["main", "backup", "kept"] }}\n'
        'main = { backend = "memory", deadline = 3.0 }\n'
        'backup = "memory"\n'
        'kept = { backend = "spill", to = "main", path = "spill.db" }\n'
    )

    found, said = explained(shop, "shop.welcome"), shop("explain", "shop.welcome").out

    assert found["longest_wait"] == 3.25
    assert found["may_lie"] == ["main", "backup", "kept"]
    kept = found["way"]["then"][2]
    assert (kept["dispatcher"], kept["file"]) == ("kept", str(shop.folder / "spill.db"))
    assert [each["dispatcher"] for each in kept["then"]] == ["main"]
    flat = " ".join(said.split())
    assert "default (failover): main (memory), else backup (memory), else [kept (spill)" in flat
    assert "until that takes it]" in flat


def test_the_way_of_an_outbox_is_drawn(shop: Shop) -> None:
    """F5: beside the data first, then with the brokers behind it."""
    shop.configure(
        f'{REST}default = {{ backend = "outbox", to = "both", store = "sqlite:shop.db" }}\n'
        'both = { backend = "failover", to = ["main", "backup"] }\n'
        'main = "memory"\nbackup = "memory"\n'
    )

    found, said = explained(shop, "shop.welcome"), shop("explain", "shop.welcome").out

    assert (found["answer"], found["may_lie"]) == ("deferred", ["both", "main", "backup"])
    assert "dispatch says:" in said
    assert "deferred, as a row of the transaction" in said
    flat = " ".join(said.split())
    assert "default (outbox): a row beside the data, then [both (failover): main (memory)" in flat
    assert "or the database until the first of them takes it" in flat
