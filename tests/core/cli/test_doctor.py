"""`doctor`: what is wrong is known before somebody's work is lost."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from dispatchers import BaseDispatcher, Capabilities, override

from .conftest import SHOP, Shop

REST = 'modules = ["cli_shop"]\ntarget = "test"\n'


def findings(shop: Shop, *argv: str) -> list[tuple[str, str, str]]:
    found = json.loads(shop("doctor", "--json", *argv).out)["findings"]
    return [(each["subject"], each["severity"], each["message"]) for each in found]


def test_a_target_that_is_in_order_ends_with_0(shop: Shop) -> None:
    """C12: a target without errors ends with 0; warnings are shown."""
    said = shop("doctor")

    assert said.code == 0
    assert "no errors" in said.out
    assert "its dispatcher 'tracking' is not configured" in said.out


def test_strict_counts_warnings(shop: Shop) -> None:
    """With `--strict` warnings count as errors."""
    assert shop("doctor", "--strict").code == 1


def test_a_dispatcher_that_cannot_be_built_ends_with_1(shop: Shop) -> None:
    """C12: a dispatcher that would reject everything ends with 1, with the file and the key."""
    shop.configure(f'{REST}[targets.test]\ndefault = {{ backend = "inline", quue = "a" }}\n')

    said = shop("doctor")

    assert said.code == 1
    assert "targets.test.default.quue" in said.out
    assert "did you mean 'queue'?" in said.out


def test_every_problem_is_said_at_once(shop: Shop) -> None:
    """C12: every dispatcher is checked, not only the first that is wrong."""
    shop.configure(f'{REST}[targets.test]\ndefault = "celry"\ntracking = "nul"\n')

    wrong = [each for each in findings(shop) if each[1] == "error"]

    assert [each[0] for each in wrong] == ["default", "tracking"]


def test_an_unknown_target_is_a_problem_with_the_nearest_name(shop: Shop) -> None:
    """An unknown target is a problem of the configuration."""
    said = shop("doctor", "--target", "tset")

    assert said.code == 1
    assert "did you mean 'test'?" in said.out


def test_a_task_that_every_dispatch_would_reject_is_an_error(shop: Shop) -> None:
    """C6: a task whose own options its backend cannot do is found before it is dispatched."""
    shop.configure(
        f'{REST}[targets.test]\ndefault = "inline"\n[tasks."shop.welcome"]\npriority = 5\n'
    )

    found = findings(shop)

    assert ("shop.welcome", "error") in [each[:2] for each in found]
    assert any("cannot do priority" in message for _, _, message in found)


def test_what_is_waived_is_no_error(shop: Shop) -> None:
    """C6: an option that the configuration waives is not an error."""
    options = '{ backend = "inline", waive = ["priority"] }'
    shop.configure(
        f'{REST}[targets.test]\ndefault = {options}\n[tasks."shop.welcome"]\npriority = 5\n'
    )

    assert shop("doctor").code == 0


def test_a_queue_that_is_not_declared_is_an_error(shop: Shop) -> None:
    """C6: a queue that the dispatcher does not know is found before it is dispatched to."""
    shop.configure(f'{REST}[targets.test]\ndefault = {{ backend = "memory", queues = ["mial"] }}\n')

    wrong = [each for each in findings(shop) if each[1] == "error"]

    assert [each[0] for each in wrong] == ["shop.welcome"]
    assert "did you mean 'mial'?" in wrong[0][2]


@pytest.mark.parametrize(
    ("named", "meant"),
    [
        (("shop.welcom",), "shop.welcome"),
        (("taxes.tasks.sedn",), "taxes.tasks.send"),
        (("shop.welcom", "shop.welcome"), None),
        (("far.away",), None),
        (("cli_shop_late.send",), None),
    ],
    ids=["shortened", "swapped", "both", "elsewhere", "not imported"],
)
def test_an_override_of_a_misspelt_task_is_a_warning(
    shop: Shop, named: tuple[str, ...], meant: str | None
) -> None:
    """It would change nothing, in silence; tasks of other programs may be overridden, too."""
    names = ("taxes.tasks.send", "cli_shop_lately.send")
    lines = [f"@task(name={name!r})\ndef task_{n}(): ...\n" for n, name in enumerate(names)]
    shop.module("cli_shop_near", "\n".join(["from dispatchers import task", *lines]))
    shop.module("cli_shop_late", "")
    tables = "".join(f'[tasks."{each}"]\nqueue = "low"\n' for each in named)
    head = 'modules = ["cli_shop", "cli_shop_near"]\ntarget = "test"\n'
    shop.configure(f'{head}[targets.test]\ndefault = "memory"\n{tables}')

    found = [each for each in findings(shop) if "no task of that name" in each[2]]

    assert [each[:2] for each in found] == [("", "warning")] * (meant is not None)
    assert all(each[2].endswith(f"; did you mean {meant!r}?") for each in found)


def test_a_declared_task_without_a_body_is_a_warning(shop: Shop) -> None:
    """C11: a task that no configured module implements would be handed back by this worker."""
    shop.module(
        "cli_shop_far",
        'import dispatchers\n@dispatchers.declare(name="far.away")\ndef far(x: int) -> None: ...\n',
    )
    shop.configure(
        'modules = ["cli_shop_far"]\ntarget = "test"\n[targets.test]\ndefault = "inline"\n'
    )

    assert ("far.away", "warning") in [each[:2] for each in findings(shop)]


def test_a_signature_that_cannot_travel_is_an_error(shop: Shop) -> None:
    """C5: a task whose arguments could not travel exactly is found by the start-up check."""
    shop.module(
        "cli_shop_odd",
        "import dispatchers\n@dispatchers.task(name='odd')\ndef odd(x: 'Nowhere') -> None: ...\n",
    )
    shop.configure(
        'modules = ["cli_shop_odd"]\ntarget = "test"\n[targets.test]\ndefault = "inline"\n'
    )

    assert ("odd", "error") in [each[:2] for each in findings(shop)]


def test_a_module_that_is_not_there_is_an_error_among_the_others(shop: Shop) -> None:
    """A module that cannot be imported does not hide what is wrong with the dispatchers."""
    shop.configure(
        'modules = ["cli_nowhere"]\ntarget = "test"\n[targets.test]\ndefault = "celry"\n'
    )

    wrong = [each for each in findings(shop) if each[1] == "error"]

    assert any("cli_nowhere" in each[2] for each in wrong)
    assert any(each[0] == "default" for each in wrong)


def test_no_configuration_at_all_is_inline_and_said(shop: Shop) -> None:
    """Without any configuration tasks run inline, and the doctor says so."""
    shop.configure("")

    said = shop("doctor")

    assert said.code == 0
    assert "nothing is configured" in said.out


@pytest.mark.parametrize("option", ["dead_letters", "idempotency"])
def test_a_store_that_cannot_be_loaded_is_an_error(shop: Shop, option: str) -> None:
    """A store that cannot be opened is found before a worker needs it."""
    options = f'{{ backend = "null", {option} = "cli_shop:nothing" }}'
    shop.configure(f"{REST}[targets.test]\ndefault = {options}\n")

    wrong = [each for each in findings(shop) if each[1] == "error"]

    assert len(wrong) == 1
    assert option in wrong[0][2]


def test_with_contact_the_stores_are_asked(shop: Shop) -> None:
    """With `--contact` a store that answers with an error is one."""
    shop.module(
        "cli_shop_store",
        "class Letters:\n    def list(self, **kw):\n        raise OSError('disk on fire')\n",
    )
    options = '{ backend = "null", dead_letters = "cli_shop_store:Letters" }'
    shop.configure(f"{REST}[targets.test]\ndefault = {options}\n")

    assert shop("doctor").code == 0
    reached = shop("doctor", "--contact")

    assert reached.code == 1
    assert "OSError: disk on fire" in reached.out


class Away(BaseDispatcher):
    """Cannot be reached."""

    name = "away"
    contract = 1
    capabilities = Capabilities()

    def _send(self, request, body, *, timeout):
        raise ConnectionRefusedError

    def _category(self, exc):
        return None

    def _maybe_sent(self, exc):
        return False

    def _probe(self, *, timeout):
        raise ConnectionRefusedError("nobody listens")


def test_a_message_names_its_dispatcher_once(shop: Shop) -> None:
    """Not a second time where the dispatcher itself said which it is."""
    with override(default=Away(alias="default")):
        reached = shop("doctor", "--contact")

    assert reached.code == 1
    assert "nobody listens" in reached.out
    assert reached.out.count("dispatcher 'default'") == 1


class Short(BaseDispatcher):
    """Keeps work back for a minute at most."""

    name = "short"
    contract = 1
    capabilities = Capabilities(retries=True, delay=True, max_delay=timedelta(minutes=1))

    def _send(self, request, body, *, timeout):
        raise NotImplementedError

    def _category(self, exc):
        return None

    def _maybe_sent(self, exc):
        return False


def test_a_back_off_beyond_what_the_backend_keeps_is_an_error(shop: Shop) -> None:
    """C10: waits between attempts must fit what the backend can keep back."""
    with override(default=Short()):
        wrong = [each for each in findings(shop) if each[1] == "error"]

    assert [each[0] for each in wrong] == ["shop.welcome"]
    assert "waits up to 1 min 20 s" in wrong[0][2]


def test_attempts_that_are_never_made_are_a_warning(shop: Shop) -> None:
    """A backend that tries once, where the task asks for more, is a warning."""
    found = findings(shop)

    assert any("makes one attempt, the task asks for 5" in message for _, _, message in found)


def test_doctor_shows_absolute_paths(shop: Shop) -> None:
    """`doctor` shows each file that a dispatcher or the endpoint uses, by its absolute path."""
    shop.configure(
        f'{SHOP}default = {{ backend = "sqlite", path = "q.db", dead_letters = "sqlite:d.db" }}\n'
        '[endpoint]\nworker = true\ninsecure = true\ndead_letters = "sqlite:pushed.db"\n'
    )

    said = shop("doctor").out

    assert f"path {shop.folder / 'q.db'}" in said
    assert f"dead_letters sqlite:{shop.folder / 'd.db'}" in said
    assert f"[endpoint] dead_letters sqlite:{shop.folder / 'pushed.db'}" in said


def test_doctor_names_variables_that_are_ignored(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`doctor` names variables with our prefix that are not settings; a service's do no harm."""
    monkeypatch.setenv("DISPATCHERS_WEB_PORT", "tcp://10.0.0.1:80")
    monkeypatch.setenv("DISPATCHERS_IMAGE", "registry/shop")
    shop.configure(f'{SHOP}default = "inline"\n')

    found = json.loads(shop("doctor", "--json").out)["findings"]

    assert found[0]["severity"] == "warning"
    assert "variable DISPATCHERS_IMAGE is not a setting" in found[0]["message"]
    assert any("DISPATCHERS_WEB_PORT is ignored: Kubernetes" in each["message"] for each in found)


def test_doctor_warns_of_a_named_file_that_others_can_write(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is named on purpose is used, with a warning where everyone can write it."""
    shop.configure(f'{SHOP}default = "inline"\n')
    (shop.folder / "dispatchers.toml").chmod(0o666)

    said = shop("--config", "dispatchers.toml", "doctor")

    assert said.code == 0
    assert "can be written by every user (mode 0666)" in said.out
