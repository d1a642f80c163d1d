"""C10: the idempotency store in PostgreSQL, claimed by processes.

`DISPATCHERS_TEST_POSTGRES_URL` names the server; by default the one on this machine's usual port.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import pytest

psycopg = pytest.importorskip("psycopg", reason="needs pip install 'psycopg[binary]'")

# Read here: during a test the variables of this prefix are taken away.
URL = os.environ.get("DISPATCHERS_TEST_POSTGRES_URL", "postgresql://postgres@127.0.0.1:5432/test")
ROUNDS = 50
PROCESS = """
import sys
import django
from django.conf import settings
from django.core.management import call_command
from django.db import transaction

schema, name, user, password, host, port, owner = sys.argv[1:]
database = dict(ENGINE="django.db.backends.postgresql", NAME=name, USER=user, PASSWORD=password)
database |= dict(HOST=host, PORT=port, OPTIONS={"options": f"-c search_path={schema}"})
settings.configure(
    INSTALLED_APPS=["dispatchers_django"], DATABASES={"default": database}, USE_TZ=True,
    SECRET_KEY="of this test", DISPATCHERS_CHECK_AT_START=False,
)
django.setup()
from dispatchers_django.stores import IdempotencyStore
store = IdempotencyStore()

def answer(word, key):
    if word == "migrate":
        return call_command("migrate", verbosity=0)
    if word == "claim":
        return store.claim(f"shop.send {key}", owner, 3600.0).state
    if word == "release":
        return store.release(f"shop.send {key}", owner)
    if word == "begin":
        return begin()
    return getattr(store, word)(f"shop.send {key}", owner, 3600.0)

def begin():
    with transaction.atomic():
        print("begun", flush=True)
        serve()
    return "committed"

def serve():
    for line in sys.stdin:
        word, key = line.split()
        if word == "commit":
            return
        print(answer(word, key), flush=True)

serve()
"""


class Process:
    """One that does as it is told, a line at a time."""

    def __init__(self, schema: str, owner: str) -> None:
        to = urlsplit(URL)
        place = [to.path[1:], to.username or "", to.password or "", to.hostname or ""]
        self._process = subprocess.Popen(
            [sys.executable, "-c", PROCESS, schema, *place, str(to.port or 5432), owner],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def tell(self, word: str, key: str = "-") -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{word} {key}\n")
        self._process.stdin.flush()

    def heard(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def ask(self, word: str, key: str = "-") -> str:
        self.tell(word, key)
        return self.heard()

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture(scope="module")
def schema() -> Iterator[str]:
    """One of its own, so that nobody's tables are touched."""
    try:
        connection: Any = psycopg.connect(URL, autocommit=True, connect_timeout=5)
    except psycopg.OperationalError:
        pytest.skip("no PostgreSQL at DISPATCHERS_TEST_POSTGRES_URL, or on 127.0.0.1:5432")
    name = f"dispatchers_{uuid4().hex}"
    with connection:
        connection.execute(f"CREATE SCHEMA {name}")
        yield name
        connection.execute(f"DROP SCHEMA {name} CASCADE")


@pytest.fixture(scope="module")
def pair(schema: str) -> Iterator[tuple[Process, Process]]:
    """Two processes, and the table."""
    processes = Process(schema, "a"), Process(schema, "b")
    assert processes[0].ask("migrate") == "None"
    yield processes
    for each in processes:
        each.end()


def test_of_two_processes_one_claims_a_key(pair):
    """Whoever comes first; the other one changes nothing of it, and finds it done afterwards."""
    for number in range(ROUNDS):
        for each in pair:
            each.tell("claim", f"k{number}")
        states = [each.heard() for each in pair]
        assert sorted(states) == ["busy", "claimed"]
        owner, other = pair if states[0] == "claimed" else pair[::-1]
        words = ("renew", "complete", "release")
        assert [other.ask(word, f"k{number}") for word in words] == ["False"] * 3
        assert [owner.ask(word, f"k{number}") for word in words] == ["True", "True", "False"]
        assert other.ask("claim", f"k{number}") == "done"


def test_a_key_that_is_released_is_the_other_s(pair):
    """At once."""
    first, second = pair
    assert first.ask("claim", "released") == "claimed"
    assert first.ask("release", "released") == "True"
    assert second.ask("claim", "released") == "claimed"


def test_a_claim_in_a_transaction_has_others_wait_for_its_end(pair):
    """And then it is theirs to find: the key is never claimed twice."""
    first, second = pair
    assert first.ask("begin") == "begun"
    assert first.ask("claim", "within") == "claimed"
    second.tell("claim", "within")
    assert first.ask("complete", "within") == "True"
    first.tell("commit")

    assert first.heard() == "committed"
    assert second.heard() == "done"
