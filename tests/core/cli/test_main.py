"""The program as a whole: help, versions, exit codes, pipes and terminals."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from dispatchers._config.api import current
from dispatchers.cli import _list, main

from .conftest import Shop

COMMANDS = ["demo", "list", "doctor", "tasks", "explain", "dispatch", "worker", "dead", "schema"]


def test_help_names_every_command_and_every_exit_code(shop: Shop) -> None:
    """The help names every command, and what each exit code means."""
    said = shop("--help")

    assert said.code == 0
    assert all(f"\n    {command} " in said.out for command in COMMANDS)
    assert all(f"\n  {code}  " in said.out for code in (0, 1, 2, 3, 130))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(shop: Shop, command: str) -> None:
    """Every command explains itself."""
    said = shop(command, "--help")

    assert said.code == 0
    assert f"dispatchers {command}" in said.out


def test_the_version_is_the_distributions(shop: Shop) -> None:
    """`--version` says the version that is installed."""
    from importlib import metadata

    said = shop("--version")

    assert said.code == 0
    assert said.out.startswith(f"dispatchers {metadata.version('dispatchers')} ")


@pytest.mark.parametrize("argv", [[], ["nonsense"], ["list", "--nonsense"], ["dispatch"]])
def test_a_wrong_command_line_ends_with_2(shop: Shop, argv: list[str]) -> None:
    """A command line that cannot work ends with 2."""
    assert shop(*argv).code == 2


def test_an_error_of_the_configuration_is_one_line_without_a_traceback(shop: Shop) -> None:
    """A configuration that cannot work ends with 2 and one line: what, where, the cure."""
    shop.configure('[targets.test]\ndefault = "inlin"\n')

    said = shop("--target", "test", "dead", "list")

    assert said.code == 2
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert "did you mean 'inline'?" in said.err
    assert "targets.test.default" in said.err


def test_config_and_target_are_understood_before_and_after_the_command(shop: Shop) -> None:
    """`--config` and `--target` are understood before the command and after it."""
    (shop.folder / "other.toml").write_text('[targets.far]\ndefault = "null"\n')

    before = shop("--config", "other.toml", "--target", "far", "doctor")
    after = shop("doctor", "--config", "other.toml", "--target", "far")

    assert before.code == after.code == 0
    assert before.out == after.out
    assert "target 'far'" in after.out


def test_the_process_is_as_before_once_the_program_has_run(shop: Shop) -> None:
    """The options of a command line hold for one run: the environment and path stay."""
    path = list(sys.path)

    shop("--target", "none-such", "doctor")

    assert current().target == "test"
    assert sys.path == path


def test_ctrl_c_ends_with_130(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C ends with 130 and without a traceback."""

    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(_list, "backends", interrupted)

    said = shop("list")

    assert said.code == 130
    assert said.err == "dispatchers: interrupted\n"


def test_a_reader_that_goes_away_ends_the_output_quietly(shop: Shop) -> None:
    """`dispatchers schema | head -1` neither raises nor complains."""
    program = f"{sys.executable} -m dispatchers schema"
    done = subprocess.run(
        ["/bin/sh", "-c", f"{program} | head -c 1"],
        cwd=shop.folder, capture_output=True, timeout=60, check=False,
    )  # fmt: skip

    assert done.stderr == b""
    assert done.stdout == b"{"


@pytest.mark.skipif(sys.platform == "win32", reason="no /bin/sh")
def test_a_dispatch_says_what_became_of_it_although_nobody_reads(shop: Shop) -> None:
    """The exit code is that of the dispatch, also when the output cannot be written."""
    command = f"{sys.executable} -m dispatchers dispatch shop.boom >&-"
    done = subprocess.run(
        ["/bin/sh", "-c", command], cwd=shop.folder, capture_output=True, timeout=60, check=False
    )

    assert done.returncode == 1
    assert b"Traceback" not in done.stderr


def test_a_terminal_that_knows_no_unicode_gets_escapes(shop: Shop) -> None:
    """What the output's encoding lacks is written as an escape, never an error."""
    shop.module(
        "cli_shop_unicode",
        'from dispatchers import task\n@task(name="größe")\ndef f() -> None: ...\n',
    )
    shop.configure('modules = ["cli_shop_unicode"]\n')

    done = shop.process("tasks", PYTHONIOENCODING="ascii", PYTHONUTF8="0")

    assert done.returncode == 0
    assert rb"gr\xf6\xdfe" in done.stdout


def test_json_is_all_that_is_printed_where_it_is_asked_for(shop: Shop) -> None:
    """With `--json` nothing else is on standard output: what a task prints goes to the other."""
    said = shop("dispatch", "shop.welcome", "user_id=1", "--json")

    assert json.loads(said.out)["status"] == "executed"
    assert said.err == "hello 1\n"


def test_nothing_of_the_command_line_is_loaded_by_the_library() -> None:
    """`import dispatchers` loads neither the command line nor rich."""
    heavy = "{'rich', 'argparse', 'dispatchers.cli', 'dispatchers.demo'}"
    code = f"import sys, dispatchers; print([m for m in sys.modules if m in {heavy}])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, check=True)

    assert done.stdout.strip() == b"[]"


def test_main_returns_the_exit_code(shop: Shop) -> None:
    """`main` returns the exit code, so that it can be called from code."""
    assert main(["list", "--plain"]) == 0
