"""`list`, `tasks`, `schema`: what there is."""

from __future__ import annotations

import json

from .conftest import Shop


def test_list_shows_each_backend_with_its_owner_state_and_abilities(shop: Shop) -> None:
    """`list` shows each backend: whose it is, its state, what it can do."""
    said = shop("list")

    inline = next(line for line in said.out.splitlines() if line.startswith("inline "))
    assert said.code == 0
    assert inline.split()[1:3] == ["installed", "dispatchers"]
    assert "runs in the call" in inline


def test_list_says_the_command_that_installs_a_missing_library(shop: Shop) -> None:
    """A backend whose library is missing is shown with the command that cures it."""
    found = {each["name"]: each for each in json.loads(shop("list", "--json").out)}
    celery = found["celery"]

    assert celery["state"] == "installed" or "pip install" in celery["reason"]


def test_list_json_has_the_capabilities(shop: Shop) -> None:
    """`list --json` has every capability by name."""
    found = {each["name"]: each for each in json.loads(shop("list", "--json").out)}

    assert found["inline"]["capabilities"]["runs_here"] is True
    assert found["null"]["capabilities"]["durable"] is False


def test_tasks_shows_name_dispatcher_and_parameters(shop: Shop) -> None:
    """`tasks` shows the tasks of the configured modules."""
    said = shop("tasks", "--json")

    facts = {each["task"]: each for each in json.loads(said.out)}
    assert facts["shop.track"]["dispatcher"] == "tracking"
    assert facts["shop.welcome"]["parameters"] == "user_id, locale"
    assert facts["shop.welcome"]["defined_in"] == "cli_shop.welcome"


def test_without_modules_tasks_says_how_to_name_them(shop: Shop) -> None:
    """Where no module is configured, `tasks` says how to name one."""
    shop.configure("")

    said = shop("tasks")

    assert said.code == 0
    assert "modules = [" in said.err


def test_a_module_that_cannot_be_imported_is_one_line_with_its_place(shop: Shop) -> None:
    """An error in a task module is one line: the module, the cause, file and line."""
    shop.module("cli_shop_broken", "x = 1\nraise RuntimeError('half-way')\n")
    shop.configure('modules = ["cli_shop_broken"]\n')

    said = shop("tasks")

    assert said.code == 2
    assert "'cli_shop_broken' raised RuntimeError: half-way" in said.err
    assert "cli_shop_broken.py:2" in said.err


def test_modules_beside_the_configuration_file_are_found_from_anywhere(shop: Shop) -> None:
    """Task modules are found beside the configuration file, wherever the program is started."""
    (shop.folder / "deep" / "down").mkdir(parents=True)
    done = shop.process("tasks")
    import subprocess
    import sys

    below = subprocess.run(
        [sys.executable, "-P", "-m", "dispatchers", "tasks"],
        cwd=shop.folder / "deep" / "down", capture_output=True, timeout=60, check=False,
    )  # fmt: skip

    assert done.returncode == below.returncode == 0
    assert b"shop.welcome" in below.stdout


def test_schema_is_json_and_knows_the_options_of_backends(shop: Shop) -> None:
    """`schema` is JSON Schema with the options of the installed backends."""
    said = shop("schema")

    assert said.code == 0
    assert '"waive"' in said.out
    assert json.loads(said.out)["$schema"].startswith("https://json-schema.org/")
