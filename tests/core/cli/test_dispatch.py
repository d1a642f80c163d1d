"""`dispatch`: a task by name, for cron and for hands."""

from __future__ import annotations

import json
import sys

import pytest

from dispatchers import BaseDispatcher, Capabilities, Sent, override

from .conftest import SHOP, Shop


class Silent(BaseDispatcher):
    """Never says whether it has the work."""

    name = "silent"
    contract = 1
    capabilities = Capabilities(delay=True, priority=True, deduplicate=True, queues=True)

    def _send(self, request, body, *, timeout):
        self.seen = request
        raise TimeoutError

    def _category(self, exc):
        return None

    def _maybe_sent(self, exc):
        return True


class Keeping(Silent):
    """Takes everything."""

    name = "keeping"

    def _send(self, request, body, *, timeout):
        self.seen = request
        return Sent("backend-7")


def test_a_task_runs_with_the_arguments_of_the_command_line(shop: Shop) -> None:
    """What was handed over is printed, and the exit code is 0."""
    said = shop("dispatch", "shop.welcome", "user_id=42", "locale=de")

    assert said.code == 0
    assert "executed" in said.out
    assert sys.modules["cli_shop"].ran == [(42, "de")]


def test_a_value_is_text_where_the_task_says_text(shop: Shop) -> None:
    """The task's types decide whether 7 is a number or a text."""
    shop("dispatch", "shop.welcome", "user_id=1", "locale=7")

    assert sys.modules["cli_shop"].ran == [(1, "7")]


def test_arguments_may_be_json(shop: Shop) -> None:
    """Arguments can be given as one JSON object, and single ones beside it."""
    shop("dispatch", "shop.welcome", "--args", '{"user_id": 1, "locale": "fr"}', "user_id=2")

    assert sys.modules["cli_shop"].ran == [(2, "fr")]


def test_a_task_that_fails_here_ends_with_1(shop: Shop) -> None:
    """C3: FAILED is not ok."""
    said = shop("dispatch", "shop.boom")

    assert said.code == 1
    assert "failed" in said.out
    assert "secret of the handler" not in said.out + said.err


def test_what_may_or_may_not_have_been_handed_over_ends_with_3(shop: Shop) -> None:
    """C3: UNKNOWN has an exit code of its own, so that a script does not repeat blindly."""
    with override(default=Silent()):
        said = shop("dispatch", "shop.boom")

    assert said.code == 3
    assert "unknown" in said.out


@pytest.mark.parametrize(
    ("argv", "fault"),
    [
        (["user_id=x"], "user_id"),
        ([], "user_id"),
        (["user_id=1", "usr=2"], "usr"),
        (["userid=1"], "argument 'userid' is not one of the task's; did you mean 'user_id'?"),
        (["user_id=1", "user_id=2"], "argument 'user_id' is given twice: drop one"),
        (["--args", "[1]"], "--args must be a JSON object"),
        (["--args", "{"], "--args is not JSON"),
        (["user_id"], "write key=value"),
        (["user_id=1", "--delay", "soon"], "not a duration"),
        (["user_id=1", "--eta", "2030-01-01T00:00:00"], "offset"),
        (["user_id=1", "--eta", "tomorrow"], "not an instant"),
        (["user_id=1", "--context", "[1]"], "JSON object"),
        (["user_id=1", "--delay", "1s", "--eta", "2030-01-01T00:00:00Z"], "not allowed with"),
    ],
)
def test_arguments_that_do_not_fit_end_with_2(shop: Shop, argv: list[str], fault: str) -> None:
    """What cannot be meant is refused before anything is handed over."""
    said = shop("dispatch", "shop.welcome", *argv)

    assert said.code == 2
    assert fault in said.err
    assert sys.modules.get("cli_shop") is None or sys.modules["cli_shop"].ran == []


def test_options_reach_the_request(shop: Shop) -> None:
    """Every option of a dispatch can be given."""
    keeping = Keeping()
    argv = "--delay 5m --expires 1h --queue low --priority -3 --key k1 --deduplicate --deadline 1s "
    argv += '--time-limit 90s --max-attempts 4 --header a=b --header c=d=e --context {"x":1}'

    with override(default=keeping):
        said = shop("dispatch", "shop.welcome", "user_id=1", *argv.split())

    request = keeping.seen
    assert said.code == 0
    assert "backend-7" in said.out
    assert (request.delay.total_seconds(), request.expires.total_seconds()) == (300, 3600)
    assert (request.queue, request.priority, request.idempotency_key) == ("low", -3, "k1")
    assert (request.deduplicate, request.deadline, request.time_limit) == (True, 1, 90)
    assert (request.max_attempts, dict(request.headers)) == (4, {"a": "b", "c": "d=e"})
    assert dict(request.context) == {"x": 1}


def test_an_option_that_the_backend_cannot_do_is_rejected_not_dropped(shop: Shop) -> None:
    """C6: an option that the backend cannot do is rejected, with exit code 1."""
    said = shop("dispatch", "shop.welcome", "user_id=1", "--delay", "5m", "--json")

    found = json.loads(said.out)
    assert said.code == 1
    assert (found["status"], found["error"]["category"]) == ("rejected", "unsupported")


def test_a_name_that_nobody_registered_is_refused_where_there_are_tasks(shop: Shop) -> None:
    """C11: a misspelt name is not handed over: it would end as a dead letter."""
    said = shop("dispatch", "shop.welcom", "user_id=1")

    assert said.code == 2
    assert "did you mean 'shop.welcome'?" in said.err
    assert "--by-name" in said.err


def test_a_name_that_lives_elsewhere_can_be_handed_over(shop: Shop) -> None:
    """A task that is not registered here is handed over by its name, its arguments as JSON."""
    keeping = Keeping()

    with override(default=keeping):
        said = shop("dispatch", "far.away", "--by-name", "n=1", "who=me", "tags=[1,2]")

    assert said.code == 0
    assert dict(keeping.seen.payload) == {"n": 1, "who": "me", "tags": [1, 2]}


def test_without_modules_any_name_is_handed_over(shop: Shop, monkeypatch) -> None:
    """Where no module is configured there is nothing to compare a name with."""
    from dispatchers.cli import _dispatch

    keeping = Keeping()
    monkeypatch.setattr(_dispatch.catalogue, "all", list)
    shop.configure("")

    with override(default=keeping):
        said = shop("dispatch", "far.away", "n=1")

    assert said.code == 0


def test_by_name_the_hosts_word_counts_too(shop: Shop) -> None:
    """What the host says about a task by its name holds for tasks that are not registered."""
    shop.configure(
        'target = "test"\n[targets.test]\ndefault = "null"\n[tasks."far.away"]\nqueue = "low"\n'
    )
    keeping = Keeping()

    with override(default=keeping):
        shop("dispatch", "far.away", "--by-name")

    assert keeping.seen.queue == "low"


def test_a_dispatcher_that_is_misconfigured_rejects(shop: Shop) -> None:
    """C1: a dispatcher that cannot be built answers REJECTED with `configuration`."""
    shop.configure(f'{SHOP}default = {{ backend = "inline", x = 1 }}\n')

    registered = shop("dispatch", "shop.boom", "--json")
    by_name = shop("dispatch", "far.away", "--by-name", "--json")

    for said in (registered, by_name):
        assert said.code == 1
        assert json.loads(said.out)["error"]["category"] == "configuration"


def test_another_dispatcher_can_be_named(shop: Shop) -> None:
    """`--dispatcher` beats the task's own."""
    shop.configure(f'{SHOP}default = "inline"\nother = "null"\n')

    found = json.loads(shop("dispatch", "shop.boom", "--dispatcher", "other", "--json").out)

    assert (found["dispatcher"], found["status"]) == ("other", "accepted")


def test_work_of_this_process_is_finished_before_it_ends(shop: Shop) -> None:
    """C8: what an in-process backend accepted is run before the program ends."""
    shop.configure(f'{SHOP}default = "thread"\n')

    done = shop.process("dispatch", "shop.welcome", "user_id=5")

    assert done.returncode == 0, done.stderr
    assert b"hello 5" in done.stdout


def test_work_that_is_left_undone_ends_with_1(shop: Shop) -> None:
    """C8: accepted work that this process takes with it is said, and ends with 1."""
    shop.configure(f'exit_timeout = 0.1\n{SHOP}default = "thread"\n')

    done = shop.process("dispatch", "shop.welcome", "user_id=5", "--delay", "1h")

    assert done.returncode == 1
    assert b"1 pieces of accepted work" in done.stderr


def test_a_run_that_fails_after_the_dispatch_is_seen(shop: Shop) -> None:
    """C4: what fails in this process after it was accepted reaches standard error."""
    shop.configure(f'{SHOP}default = "thread"\n')

    done = shop.process("dispatch", "shop.boom")

    assert b"accepted" in done.stdout
    assert b"RuntimeError" in done.stderr


@pytest.mark.parametrize("argv", [["shop.boom"], ["far.away", "--by-name"]])
def test_a_dispatcher_that_is_not_configured_is_refused(shop: Shop, argv: list[str]) -> None:
    """A misspelt `--dispatcher` does not fall back to another one."""
    said = shop("dispatch", *argv, "--dispatcher", "trakcing", "--json")

    assert said.code == 1
    assert json.loads(said.out)["error"]["category"] == "configuration"


class Down(Silent):
    """Takes nothing."""

    name = "down"

    def _send(self, request, body, *, timeout):
        raise ConnectionRefusedError("nobody listens")

    def _maybe_sent(self, exc):
        return False


def test_who_passed_the_work_on_is_told(shop: Shop) -> None:
    """Beside the dispatcher that has it: those that rejected it before, and why."""
    shop.configure(f'{SHOP}default = {{ backend = "failover", to = ["first", "second"] }}\n')
    with override(first=Down(alias="first"), second=Keeping(alias="second")):
        said = shop("dispatch", "shop.boom")

    assert said.code == 0
    assert "second (keeping)" in said.out
    assert "passed over:" in said.out
    assert "first: " in said.out
    assert "nobody listens" in said.out
