"""The log of refused requests: expected and received, bounded, without credentials."""

from __future__ import annotations

import logging

import pytest

from dispatchers.http import PATH, Endpoint


def refused(scene, caplog, token: str) -> str:
    with caplog.at_level(logging.WARNING, "dispatchers"):
        answer = Endpoint(scene.settings()).handle("POST", PATH, scene.headers(token), scene.body)
    assert answer.status == 401
    assert token not in caplog.text
    return caplog.text


@pytest.mark.parametrize(
    ("claim", "value", "option"),
    [
        ("aud", "https://worker.shop.example/", "audience"),
        ("iss", "https://elsewhere.example", "issuer"),
        ("email", "other@shop.example", "emails"),
    ],
)
def test_it_says_expected_and_received(scene, caplog, claim, value, option):
    """A slash at the end of an audience is seen at once."""
    text = refused(scene, caplog, scene.issuer.token(**{claim: value}))

    expected = getattr(scene.settings().oidc, option)[0]
    assert f"endpoint.oidc.{option} expects {expected!r}" in text
    assert f"received {value!r}" in text


def test_a_received_value_is_shortened(scene, caplog):
    """Tokens of strangers may have an audience of any length."""
    text = refused(scene, caplog, scene.issuer.token(aud="x" * 5000))

    assert len(text) < 1000


def test_claims_of_a_forged_token_are_not_repeated(scene, caplog):
    """They are compared only after the signature."""
    head, claims, _ = scene.issuer.token(aud="https://forged.example").split(".")

    text = refused(scene, caplog, f"{head}.{claims}.AAAA")

    assert "InvalidSignatureError" in text
    assert "forged" not in text


def test_a_flood_of_refusals_is_few_records(scene, caplog):
    """A stranger cannot fill a disk; the next record has the count."""
    endpoint = Endpoint(scene.settings())
    with caplog.at_level(logging.WARNING, "dispatchers"):
        for _ in range(50):
            endpoint.handle("POST", PATH, scene.headers("wrong"), scene.body)

    assert 1 <= len(caplog.records) <= 10
