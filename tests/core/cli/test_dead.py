"""`dead`: what failed for good is seen, mended, replayed and deleted."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest

from dispatchers import (
    BaseDispatcher,
    Capabilities,
    DeadLetter,
    DispatchRequest,
    DispatchStatus,
    RunFailure,
    Sent,
    get_dispatcher,
    override,
)
from dispatchers._models.envelope import decode, encode
from dispatchers._stores.memory import MemoryDeadLetters
from dispatchers.backends.spill import SpillDispatcher
from dispatchers.cli import _dead_letters
from dispatchers.sqlite import SQLiteDeadLetters
from dispatchers.testing import RecordingDispatcher, processes

from .conftest import SHOP, Shop


class Burying(BaseDispatcher):
    """Takes what it is told to take, and keeps dead letters."""

    name = "burying"
    contract = 1
    capabilities = Capabilities(queues=True)

    def __init__(self, alias: str = "default", **options: object) -> None:
        super().__init__(alias=alias, breaker=False, **options)
        self.letters = MemoryDeadLetters()
        self.taken: list[DispatchRequest] = []
        self.answer: Callable[[], Sent] = Sent

    def _dead_letters(self):
        return self.letters

    def _send(self, request, body, *, timeout):
        sent = self.answer()
        self.taken.append(request)
        return sent

    def _category(self, exc):
        return None

    def _maybe_sent(self, exc):
        return False

    def bury(self, number: int, task: str = "shop.welcome", **fields: object) -> DispatchRequest:
        payload = {"user_id": number} if task == "shop.welcome" else {}
        values = {"task": task, "id": f"id-{number}", "payload": payload, **fields}
        request = DispatchRequest.model_validate(values)
        error = RunFailure(exception_type="builtins.OSError", message="no disk", where="shop.py:1")
        self.letters.add(
            DeadLetter(
                id=request.id,
                task=task,
                queue=request.queue or "",
                reason="exhausted",
                error=error,
                body=encode(request),
            )
        )
        return request


@pytest.fixture
def burying(shop: Shop) -> Iterator[Burying]:
    found = Burying()
    with override(default=found):
        yield found


def test_without_a_store_it_says_how_to_get_one(shop: Shop) -> None:
    """Where nothing keeps dead letters, the option that changes it is named."""
    said = shop("dead", "list")

    assert said.code == 2
    assert "dead_letters = " in said.err


def test_list_shows_the_newest_first_and_no_arguments(shop: Shop, burying: Burying) -> None:
    """C4: the list names the work, never its content."""
    burying.bury(1)
    burying.bury(2)

    said = shop("dead", "list")

    assert said.code == 0
    assert said.out.index("id-2") < said.out.index("id-1")
    assert "exhausted: builtins.OSError" in said.out
    assert "user_id" not in said.out


def test_list_shows_why_a_broker_never_took_it(shop: Shop) -> None:
    """Work that was not run has no exception: the words of the answer say why it is dead."""
    broker = RecordingDispatcher(alias="broker")
    path = str(shop.folder / "spill.db")
    with override(default={"backend": "spill", "to": "broker", "path": path}, broker=broker):
        spill = get_dispatcher()
        assert isinstance(spill, SpillDispatcher)
        with broker.down():
            spill.dispatch(DispatchRequest(task="shop.welcome", payload={"user_id": 1}))
            broker.fail_when(lambda given: True, category="too_large")
        processes.wait_until(spill._dead_letters().list, "it is no dead letter")
        said = shop("dead", "list")

    assert "permanent: rejected (too_large): " in " ".join(said.out.split())
    assert "user_id" not in said.out


def test_list_filters_and_limits(shop: Shop, burying: Burying) -> None:
    """The list can be of one task, of one queue, and short."""
    for number in range(5):
        burying.bury(number, queue="low" if number % 2 else "high")
    burying.bury(9, task="shop.boom")

    by_task = json.loads(shop("dead", "list", "--task", "shop.boom", "--json").out)
    by_queue = json.loads(shop("dead", "list", "--queue", "low", "--json").out)
    short = shop("dead", "list", "--limit", "2")

    assert [each["id"] for each in by_task] == ["id-9"]
    assert [each["id"] for each in by_queue] == ["id-3", "id-1"]
    assert short.out.count("id-") == 2
    assert "there are more than these 2, the newest: --limit N shows more" in short.err


def test_an_empty_list_is_said_and_ends_with_0(shop: Shop, burying: Burying) -> None:
    """No dead letters is good news."""
    said = shop("dead", "list")

    assert (said.code, said.err) == (0, "no dead letters\n")
    assert shop("dead", "list", "--json").out == "[]\n"


def test_show_prints_the_arguments_and_the_error(shop: Shop, burying: Burying) -> None:
    """Who asks for one letter sees its arguments and what went wrong."""
    burying.bury(1)

    people = shop("dead", "show", "id-1")
    program = json.loads(shop("dead", "show", "id-1", "--json").out)

    assert '"user_id": 1' in people.out
    assert "no disk" in people.out
    assert program["envelope"]["payload"] == {"user_id": 1}


def test_an_id_that_is_not_there_is_an_error(shop: Shop, burying: Burying) -> None:
    """An id that no store has ends with 2."""
    for action in ("show", "replay", "delete", "edit"):
        said = shop("dead", action, "nope")

        assert said.code == 2
        assert "no dead letter 'nope'" in said.err


def test_replay_dispatches_under_the_same_id_and_then_removes(shop: Shop, burying: Burying) -> None:
    """C9: a letter is removed once the backend has the work, which keeps its id."""
    burying.bury(1, expires=timedelta(seconds=1), delay=timedelta(seconds=1))

    said = shop("dead", "replay", "id-1")

    assert said.code == 0
    assert "1 replayed, 0 kept" in said.out
    assert [each.id for each in burying.taken] == ["id-1"]
    assert (burying.taken[0].expires, burying.taken[0].delay) == (None, None)
    assert burying.letters.list() == []


def refuse() -> Sent:
    raise ConnectionRefusedError


@pytest.mark.parametrize(
    ("answer", "word"),
    [(refuse, "rejected"), (lambda: Sent(status=DispatchStatus.DUPLICATE), "knows its key")],
)
def test_a_letter_that_was_not_taken_is_kept(
    shop: Shop, burying: Burying, answer: Callable[[], Sent], word: str
) -> None:
    """C9: a letter whose work the backend has not taken over stays, and the exit code is 1."""
    burying.bury(1)
    burying.answer = answer

    said = shop("dead", "replay", "id-1")

    assert said.code == 1
    assert word in said.out
    assert [each.id for each in burying.letters.list()] == ["id-1"]


def test_a_message_that_is_no_envelope_is_kept_and_can_be_deleted(
    shop: Shop, burying: Burying
) -> None:
    """C11: what is no envelope cannot be replayed, is shown, and can be deleted."""
    burying.letters.add(DeadLetter(id="x", task="", reason="no_envelope", body=b"\xff not json"))

    replayed, shown = shop("dead", "replay", "x"), shop("dead", "show", "x")
    deleted = shop("dead", "delete", "x")

    assert replayed.code == 1
    assert "no envelope" in replayed.out
    assert "not json" in shown.out
    assert deleted.code == 0
    assert burying.letters.list() == []


def test_all_of_a_task_are_replayed_in_pages(
    shop: Shop, burying: Burying, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--all` takes every letter that fits, however many there are."""
    monkeypatch.setattr(_dead_letters, "PAGE", 3)
    for number in range(10):
        burying.bury(number)
    burying.bury(99, task="shop.boom")

    said = shop("dead", "replay", "--all", "--task", "shop.welcome")

    assert said.code == 0
    assert "10 replayed, 0 kept" in said.out
    assert [each.id for each in burying.letters.list()] == ["id-99"]


def test_all_ends_although_every_letter_is_kept(
    shop: Shop, burying: Burying, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--all` tries every letter once, also when none goes."""
    monkeypatch.setattr(_dead_letters, "PAGE", 3)
    for number in range(10):
        burying.bury(number)
    burying.answer = refuse

    said = shop("dead", "replay", "--all")

    assert said.code == 1
    assert "0 replayed, 10 kept" in said.out


@pytest.mark.parametrize("argv", [[], ["id-1", "--all"], ["id-1", "--task", "shop.boom"]])
def test_which_letters_must_be_said_clearly(shop: Shop, burying: Burying, argv: list[str]) -> None:
    """Nothing is replayed or deleted unless it is clear which."""
    burying.bury(1)

    for action in ("replay", "delete"):
        assert shop("dead", action, *argv).code == 2
    assert len(burying.letters.list()) == 1


def test_edit_changes_single_arguments(shop: Shop, burying: Burying) -> None:
    """Arguments can be mended one by one; the task's types decide what they are."""
    burying.bury(1)

    said = shop("dead", "edit", "id-1", "locale=7", "--queue", "low")

    letter = burying.letters.get("id-1")
    assert letter is not None
    request = decode(letter.body)
    assert said.code == 0
    assert dict(request.payload) == {"user_id": 1, "locale": "7"}
    assert (request.queue, request.id) == ("low", "id-1")


@pytest.mark.parametrize("argv", [["user_id=x"], ["--args", '{"nope": 1}'], [], ["--queue", ""]])
def test_edit_refuses_what_the_task_would_not_accept(
    shop: Shop, burying: Burying, argv: list[str]
) -> None:
    """A letter is not made worse: what does not fit the task is refused."""
    before = encode(burying.bury(1))

    said = shop("dead", "edit", "id-1", *argv)

    letter = burying.letters.get("id-1")
    assert said.code == 2
    assert letter is not None
    assert letter.body == before


def test_the_letters_of_all_dispatchers_are_found(shop: Shop, burying: Burying) -> None:
    """Without `--alias` every store of the target is looked into; with it, one."""
    other = Burying("other", max_deliveries=9)
    burying.bury(1)
    other.bury(2)

    with override(default=burying, other=other):
        both = json.loads(shop("dead", "list", "--json").out)
        one = json.loads(shop("dead", "list", "--alias", "other", "--json").out)
        shop("dead", "replay", "id-2")

    assert {each["dispatcher"] for each in both} == {"default", "other"}
    assert [each["id"] for each in one] == ["id-2"]
    assert [each.id for each in other.taken] == ["id-2"]


class Failing(MemoryDeadLetters):
    """A store that is out of order."""

    def list(self, **wanted: object) -> list[DeadLetter]:
        raise OSError("disk on fire")

    def replay(self, id: str) -> bool:  # noqa: A002
        raise OSError("disk on fire")


@pytest.mark.parametrize("action", ["list", "replay"])
def test_a_store_that_is_out_of_order_is_one_line(
    shop: Shop, burying: Burying, action: str
) -> None:
    """What a store raises is told in one line, and no letter is lost by it."""
    burying.letters = Failing()
    burying.bury(1)

    said = shop("dead", action, *(["id-1"] if action == "replay" else []))

    assert said.code != 0
    assert "OSError: disk on fire" in said.out + said.err
    assert burying.letters.get("id-1") is not None


class Replaying(MemoryDeadLetters):
    """A store that puts letters back by itself."""

    def replay(self, id: str) -> bool:  # noqa: A002
        return self.delete(id)


def test_a_store_that_replays_by_itself_does_so(shop: Shop, burying: Burying) -> None:
    """C9: a queue that keeps its own dead letters moves them back in one step."""
    burying.letters = Replaying()
    burying.bury(1)

    said = shop("dead", "replay", "id-1")

    assert said.code == 0
    assert burying.taken == []
    assert burying.letters.list() == []


# Nothing is left out in silence.


def test_json_is_complete(shop: Shop, burying: Burying) -> None:
    """`dead list --json` lists every dead letter unless a limit is asked for, and says so then."""
    for number in range(1250):
        burying.bury(number)

    whole = shop("dead", "list", "--json")
    short = shop("dead", "list", "--json", "--limit", "1200")

    assert len(json.loads(whole.out)) == 1250
    assert whole.err == ""
    assert len(json.loads(short.out)) == 1200
    assert "there are more than these 1200" in short.err


def test_an_exact_page_has_no_more(shop: Shop, burying: Burying) -> None:
    """A page that ends with the last letter does not claim that there are more."""
    for number in range(3):
        burying.bury(number)

    assert shop("dead", "list", "--limit", "3").err == ""
    assert shop("dead", "list", "--json").out.startswith("[\n")


def test_no_letters_are_an_empty_list(shop: Shop, burying: Burying) -> None:
    """`dead list --json` without letters is an empty list."""
    assert json.loads(shop("dead", "list", "--json").out) == []


def test_the_beginning_of_an_id_is_enough(shop: Shop, burying: Burying) -> None:
    """A unique beginning of an id names a letter, in every action; the whole id always does."""
    for number in (1, 12, 123, 2):
        burying.bury(number)

    assert json.loads(shop("dead", "show", "id-123", "--json").out)["id"] == "id-123"
    assert json.loads(shop("dead", "show", "id-1", "--json").out)["id"] == "id-1"
    assert shop("dead", "edit", "id-2", "user_id=7").code == 0
    assert "1 deleted" in shop("dead", "delete", "id-2").out


def test_an_ambiguous_beginning_is_refused(shop: Shop, burying: Burying) -> None:
    """A beginning that several ids share is refused with the ids."""
    for number in range(5):
        burying.bury(10 + number)

    said = shop("dead", "show", "id-1")

    assert said.code == 2
    assert "5 dead letters begin with 'id-1', id-14, id-13, id-12 and 2 more" in said.err


STORES = """
default = { backend = "inline", dead_letters = "sqlite:one.db" }
tracking = { backend = "inline", dead_letters = "sqlite:two.db" }
same = { backend = "inline", dead_letters = "sqlite:./one.db" }
[endpoint]
worker = true
insecure = true
dead_letters = "sqlite:pushed.db"
"""


def test_the_letters_of_every_store_are_listed(shop: Shop) -> None:
    """`dead` looks into the stores of default, of each alias and of the endpoint, each once."""
    shop.configure(f"{SHOP}{STORES}")
    for name in ("one", "two", "pushed"):
        store = SQLiteDeadLetters(shop.folder / f"{name}.db")
        request = DispatchRequest(task="shop.welcome", id=name, payload={"user_id": 1})
        letter = DeadLetter(id=name, task="shop.welcome", reason="permanent", body=encode(request))
        store.add(letter)
        store.close()

    found = {
        each["id"]: each["dispatcher"] for each in json.loads(shop("dead", "list", "--json").out)
    }
    pushed = json.loads(shop("dead", "list", "--alias", "[endpoint]", "--json").out)
    replayed = shop("dead", "replay", "pushed")
    left = json.loads(shop("dead", "list", "--json").out)

    assert found == {"one": "default", "two": "tracking", "pushed": "[endpoint]"}
    assert [each["id"] for each in pushed] == ["pushed"]
    assert "1 replayed, 0 kept" in replayed.out
    assert sorted(each["id"] for each in left) == ["one", "two"]


def test_a_long_replay_says_how_far_it_is(
    shop: Shop, burying: Burying, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What takes long is counted on standard error."""
    monkeypatch.setattr("dispatchers.cli._bar.BETWEEN_LINES", 0.0)
    for number in range(3):
        burying.bury(number)

    said = shop("dead", "replay", "--all")

    assert "3 replayed, 0 kept" in said.out
    assert said.err.splitlines() == ["replayed: 1", "replayed: 2", "replayed: 3"]
