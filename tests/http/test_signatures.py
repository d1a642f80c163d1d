"""Signatures are those of Standard Webhooks."""

from __future__ import annotations

import pytest

from dispatchers.http import sign

# From the specification's own examples (standard-webhooks, svix; read 2026-11).
KEY = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
ID = "msg_p5jXN8AQM9LWM0D4loKWxJek"
BODY = b'{"test": 2432232314}'
SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_the_published_example_is_signed_as_published():
    """Any library of Standard Webhooks reads ours, and ours reads theirs."""
    headers = sign(BODY, id=ID, key=KEY, timestamp=1614265330)

    assert headers == {
        "webhook-id": ID,
        "webhook-timestamp": "1614265330",
        "webhook-signature": SIGNATURE,
    }


@pytest.mark.parametrize("wrong", ["", "a.b", "a b", "ä", "x" * 129])
def test_an_id_that_could_be_read_differently_is_refused(wrong):
    """A stop would let id and time be parted elsewhere."""
    with pytest.raises(ValueError, match="an id has"):
        sign(BODY, id=wrong, key=KEY)


@pytest.mark.parametrize("wrong", ["", "whsec_", "whsec_%", "whsec_c2hvcnQ="])
def test_a_weak_key_is_refused(wrong):
    """Less than 24 bytes, or no base64."""
    with pytest.raises(ValueError, match="a key"):
        sign(BODY, id=ID, key=wrong)
