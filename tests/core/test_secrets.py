"""No part of an address that may be a password is shown: errors, logs, repr, doctor, explain."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dispatchers import BackendOptions, ConfigurationError, configure, get_dispatcher, register
from dispatchers._config.api import problems, reload
from dispatchers._config.container import close
from dispatchers._config.registry import table
from dispatchers._models.redaction import shown
from dispatchers.backends.null import NullDispatcher
from dispatchers.cli import main
from dispatchers.stores import dead_letters, idempotency

ADDRESSES = [
    "redis://:supersecret@host/0",
    "redis://user:supersecret#x@host",
    "redis://user:x#supersecret@host",
    "redis://:supersecret/x@host/0",
    "redis://:supersecret?x@host/0",
    "redis://:[supersecret@host",
    "redis://:super:supersecret:9x@host:1/0",
    "redis://:supersecret",
    "redis:/:supersecret@host/0",
    "redis//:supersecret@host/0",
    "user:supersecret@host:5672/v",
    "amqp://a:supersecret@one;amqp://b:supersecret@two",
    "host=one password=supersecret user=b",
    "host=one password='supersecret' user=b",
    "redis://host/0?password=supersecret",
    "redis://u:supersecret%2Fx@host",
]


class AddressOptions(BackendOptions):
    """Options with an address."""

    url: str = ""


class Talkative(NullDispatcher):
    """Puts its address, and the parts of it that a parser may see, into everything it raises."""

    name = "talkative"
    Options = AddressOptions
    options: AddressOptions
    raises: type[Exception] | None = None

    def __init__(self, *args: object, **settings: object) -> None:
        super().__init__(*args, **settings)  # type: ignore[arg-type]
        if self.raises is not None:
            raise self.raises(self._words())

    def _words(self) -> str:
        url = self.options.url
        parts = [part for mark in "/#?@:" for part in url.split(mark)]
        return f"bad address {url!r}: {parts}"

    def _check(self) -> None:
        raise ValueError(self._words())

    def _close(self, timeout: float) -> int:
        raise ValueError(self._words())


@pytest.fixture
def talkative() -> Iterator[type[Talkative]]:
    yield register(Talkative, replace=True)
    Talkative.raises = None
    table.code.pop("talkative", None)
    reload()


@pytest.mark.parametrize("address", ADDRESSES)
def test_an_address_is_shown_without_its_password(address: str) -> None:
    """An address, well written or not, is shown without what may be its password."""
    assert "supersecret" not in shown(address)
    assert "supersecret" not in repr(AddressOptions(url=address))
    assert "supersecret" not in str(AddressOptions(dead_letters=address))


@pytest.mark.parametrize(
    "address",
    [
        "https://worker.example:443/path@latest",
        "tasks@shop.iam.gserviceaccount.com",
        "sqlite:/srv/a:b@c/dead.db",
        "redis://host:6379/0",
        "shop.celery:app",
    ],
)
def test_an_address_without_a_password_is_shown_whole(address: str) -> None:
    """What has no password in it stays readable."""
    assert shown(address) == address


@pytest.mark.parametrize("raises", [ValueError, ConfigurationError])
@pytest.mark.parametrize("address", ADDRESSES)
def test_what_an_adapter_says_of_its_address_is_struck_out(
    talkative: type[Talkative], address: str, raises: type[Exception] | None
) -> None:
    """The errors of constructors show neither the address nor a part of it, nor do their causes."""
    talkative.raises = raises
    settings = {"target": "t", "targets": {"t": {"default": {"backend": "talkative"}}}}
    settings["targets"]["t"]["default"]["url"] = address  # type: ignore[index]
    configure(settings)

    with pytest.raises(ConfigurationError) as caught:
        get_dispatcher()

    assert "supersecret" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert "supersecret" not in str(problems())


@pytest.mark.parametrize("address", ADDRESSES)
def test_checks_and_closing_show_no_address(
    talkative: type[Talkative], address: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What a check or a close raises is told without the address."""
    configure(
        {"target": "t", "targets": {"t": {"default": {"backend": "talkative", "url": address}}}}
    )
    dispatcher = get_dispatcher()

    assert "supersecret" not in str(problems())
    with caplog.at_level(logging.DEBUG):
        close([dispatcher], 0.0)
    assert caplog.records
    assert "supersecret" not in caplog.text


@pytest.mark.parametrize("address", [each for each in ADDRESSES if "one" not in each])
def test_a_store_that_cannot_be_used_shows_no_address(address: str) -> None:
    """An address of a store that is not understood is refused without showing it."""
    for opens in (dead_letters, idempotency):
        words = _refusal(opens, address)
        assert "supersecret" not in words


def _refusal(opens: Callable[[str], object], address: str) -> str:
    """Return the words of the error, if there is one: Redis takes some that others refuse."""
    try:
        opens(address)
    except ConfigurationError as exc:
        return f"{exc} {exc.__cause__}"
    return ""


def test_doctor_and_explain_show_no_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`doctor` and `explain` show addresses of stores without passwords, in JSON too."""
    pytest.importorskip("redis")
    (tmp_path / "dispatchers.toml").write_text(
        'target = "t"\n[targets.t.default]\nbackend = "inline"\n'
        'dead_letters = "redis://:supersecret/x@127.0.0.1:1/0"\n'
        'idempotency = "redis://:supersecret@127.0.0.1:1/0"\n'
    )
    monkeypatch.chdir(tmp_path)
    reload()

    for command in (["doctor"], ["doctor", "--contact", "--json"], ["explain"], ["dead", "list"]):
        main(command)
    said = capsys.readouterr()

    assert "supersecret" not in said.out + said.err
    assert json.dumps("***")[1:-1] in said.out
