"""What options show of themselves."""

from __future__ import annotations

from pydantic import SecretStr

from dispatchers import BackendOptions


class Broker(BackendOptions):
    """Options with secrets in them."""

    url: str
    token: SecretStr


def test_passwords_and_secrets_are_not_shown() -> None:
    """C4: neither `repr` nor `str` of options shows a URL's password or a secret."""
    options = Broker(url="redis://me:hunter2@example.org", token=SecretStr("s3cr3t"))

    shown = repr(options) + str(options) + f"{options}"

    assert "hunter2" not in shown
    assert "s3cr3t" not in shown
    assert "example.org" in shown
