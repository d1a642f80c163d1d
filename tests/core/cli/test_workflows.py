"""`doctor` and `explain` of workflows."""

from __future__ import annotations

import json

import pytest

from .conftest import SHOP, Shop

SQLITE = 'default = { backend = "sqlite", path = "work.sqlite3" }\n'
START = SHOP.replace("cli_shop", "cli_shop_flows") + SQLITE

FLOWS = """
import time

from dispatchers import task
from dispatchers.workflows import workflow

@task(name="flows.charge")
def charge(order: int) -> int: ...

@workflow(name="flows.checkout", version=2)
async def checkout(order: int) -> float:
    await charge.step(order)
    return time.time()

@checkout.version(1)
async def checkout_1(order: int) -> float:
    return time.monotonic()
"""


@pytest.fixture
def flows(shop: Shop) -> Shop:
    """The shop with workflows, on a file."""
    shop.module("cli_shop_flows", FLOWS)
    start = SHOP.replace("cli_shop", "cli_shop_flows")
    shop.configure(f'{start}default = {{ backend = "sqlite", path = "work.sqlite3" }}\n')
    return shop


def test_doctor_lints_every_version(flows: Shop) -> None:
    """D8: what a replay would not repeat is a warning with its line, in each version."""
    found = flows("doctor", "--json")

    warnings = [each for each in json.loads(found.out)["findings"] if each["severity"] == "warning"]
    assert found.code == 0
    assert {each["subject"] for each in warnings} == {"flows.checkout"}
    assert sorted(each["message"].partition(" ")[0] for each in warnings) == [
        "cli_shop_flows.py:13:",
        "cli_shop_flows.py:17:",
    ]
    assert flows("doctor", "--strict").code == 1


def test_doctor_names_the_journal(flows: Shop) -> None:
    """Where workflows are, `doctor` says where they are recorded."""
    assert f"workflows are recorded in sqlite:{flows.folder}/work.sqlite3" in flows("doctor").out
    assert "work.sqlite3, reached" in flows("doctor", "--contact").out


def test_doctor_refuses_workflows_without_a_journal(flows: Shop) -> None:
    """Workflows on a backend that has no journal are an error, which says the cure."""
    pytest.importorskip("rq")
    start = SHOP.replace("cli_shop", "cli_shop_flows")
    flows.configure(f'{start}default = {{ backend = "rq", url = "redis://localhost:1" }}\n')

    found = flows("doctor")

    assert found.code == 1
    assert 'write workflows = "sqlite:/path/to/file"' in found.out


def test_explain_has_what_is_particular_to_a_workflow(flows: Shop) -> None:
    """A workflow is explained by its journal, turns, timers, costs and versions."""
    words = flows("explain", "flows.checkout").out
    facts = json.loads(flows("explain", "flows.checkout", "--json").out)[0]["workflow"]

    assert "executions begin on version 2; executions that began on 1 stay there" in words
    assert "work.sqlite3, the file of the queue" in words
    assert (facts["shares"], facts["versions"], facts["begins_on"]) == (True, [1, 2], 2)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ('default = "memory"', "in this process: executions are lost with it"),
        ('default = { backend = "rq", url = "redis://localhost:1" }', "none, so that no execution"),
    ],
)
def test_explain_says_where_executions_are_recorded(flows: Shop, settings: str, words: str) -> None:
    """A journal in memory, or none, is said in words."""
    if "rq" in settings:
        pytest.importorskip("rq")
    flows.configure(f"{SHOP.replace('cli_shop', 'cli_shop_flows')}{settings}\n")

    assert words in flows("explain", "flows.checkout").out


def test_explain_of_a_step_says_nothing_of_workflows(flows: Shop) -> None:
    """The task of a step is explained as any other."""
    assert "workflow" not in flows("explain", "flows.charge").out


def test_doctor_says_of_a_journal_that_cannot_be_reached_only_that(flows: Shop) -> None:
    """One that is named is a problem of the configuration, and not reached beside that."""
    flows.configure(f'workflows = "sqlite:{flows.folder}/dispatchers.toml/x"\n{START}')

    found = flows("doctor", "--contact")

    assert found.code == 1
    assert "cannot be opened" in found.out
    assert "reached" not in found.out.replace("work.sqlite3, reached", "")


def test_doctor_refuses_a_journal_in_memory_for_workers(flows: Shop) -> None:
    """The worker would refuse it: its processes have no journal in common."""
    flows.configure(f'workflows = "memory"\n{START}')

    found = flows("doctor")

    assert found.code == 1
    assert 'workflows = "memory" is a journal within one process' in found.out


def test_a_journal_in_memory_is_not_read_by_a_command(flows: Shop) -> None:
    """It would be an empty one: that of the command's own process."""
    flows.configure(f'{SHOP.replace("cli_shop", "cli_shop_flows")}default = "inline"\n')

    found = flows("executions", "list")

    assert found.code == 2
    assert "recorded in the memory of the process that runs them" in found.err


def test_a_number_that_is_none_of_its_commands_is_named(flows: Shop) -> None:
    """The journal was asked, and has answered."""
    assert flows("dispatch", "flows.checkout", "order=1", "--key", "one").code == 0
    assert flows("worker", "--drain", "--concurrency", "1").code == 0

    found = flows("executions", "resume", "one", "--from", "99")

    assert found.code == 2
    assert found.err.startswith("dispatchers: execution 'flows.checkout/one' has no command 99")


def test_a_task_of_no_module_is_told_where_tasks_come_from(shop: Shop) -> None:
    """A stranger has named no module yet."""
    shop.configure('target = "p"\n[targets.p]\ndefault = "inline"\n')

    assert "name the module in `tasks`" in shop("explain", "shop.checkout").err
