"""`[endpoint]`: where it is read from, what is refused, and what the checks say."""

from __future__ import annotations

import importlib.util
import json
import sys

import pytest
from pydantic import ValidationError

import dispatchers
from dispatchers import ConfigurationError, configure
from dispatchers._config.lifecycle import reload
from dispatchers.http import Endpoint, EndpointSettings, OidcSettings, SignatureSettings

SECRET = "a-secret-that-is-long-enough"
KEY = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OIDC = {"audience": "https://worker", "emails": "tasks@shop.example"}


def messages(deploy: bool, **settings) -> dict[str, str]:
    """The problems of an endpoint: their severity by message."""
    endpoint = Endpoint(EndpointSettings(worker=True, **settings))
    return {each.message: each.severity for each in endpoint.check(deploy=deploy)}


def test_nothing_configured_is_no_worker():
    """Every process that nobody has said it of is none: it answers 404, and trusts nobody."""
    endpoint = Endpoint()

    assert not endpoint.settings.worker
    assert endpoint.handle("POST", endpoint.path, {}, b"{}").status == 404
    assert endpoint.check(deploy=True) == []


def test_a_worker_that_trusts_nobody_does_not_start():
    """It fails closed, with the cure."""
    with pytest.raises(ConfigurationError, match=r"endpoint\.oidc, endpoint\.secrets or"):
        Endpoint(EndpointSettings(worker=True))


def test_insecure_and_a_verifier_contradict_each_other():
    """Whoever reads the one would think the other in force."""
    with pytest.raises(ConfigurationError, match="drop one"):
        Endpoint(EndpointSettings(worker=True, insecure=True, secrets=(SECRET,)))


def test_all_problems_are_told_at_once():
    """Not just the first."""
    with pytest.raises(ConfigurationError) as caught:
        Endpoint(EndpointSettings(worker=True, idempotency="nowhere", dead_letters="nope"))

    assert "3 problems" in str(caught.value)
    assert "idempotency = 'nowhere'" in str(caught.value)
    assert "dead_letters = 'nope'" in str(caught.value)


def test_it_is_read_from_the_configuration():
    """A table like any other."""
    table = {"worker": True, "secrets": [SECRET], "oidc": OIDC, "max_attempts": 7}
    configure({"endpoint": table, "skew_grace": 60})

    settings = Endpoint().settings

    assert (settings.worker, settings.max_attempts, settings.skew_grace) == (True, 7, 60)
    assert settings.oidc == OidcSettings(**OIDC)
    assert [each.get_secret_value() for each in settings.secrets] == [SECRET]


def test_variables_set_it(monkeypatch):
    """`DISPATCHERS_ENDPOINT__...`, lists with commas."""
    for name, value in {
        "WORKER": "true",
        "SECRETS": f"{SECRET},{SECRET}-2",
        "OIDC__AUDIENCE": "https://worker",
        "OIDC__EMAILS": "a@shop.example,b@shop.example",
        "SIGNATURES__KEYS__NEW": KEY,
        "MAX_BODY": "2048",
    }.items():
        monkeypatch.setenv(f"DISPATCHERS_ENDPOINT__{name}", value)
    reload()

    settings = Endpoint().settings

    assert settings.worker
    assert len(settings.secrets) == 2
    assert settings.oidc is not None
    assert settings.oidc.emails == ("a@shop.example", "b@shop.example")
    assert settings.signatures is not None
    assert list(settings.signatures.keys) == ["new"]
    assert settings.max_body == 2048


def test_one_variable_may_hold_the_table(monkeypatch):
    """As JSON."""
    monkeypatch.setenv("DISPATCHERS_ENDPOINT", json.dumps({"worker": True, "insecure": True}))
    reload()

    assert Endpoint().settings.insecure


def test_what_is_wrong_names_its_place(monkeypatch):
    """The variable, the nearest name, and every problem."""
    monkeypatch.setenv("DISPATCHERS_ENDPOINT__OIDC__EMAIL", "a@shop.example")
    monkeypatch.setenv("DISPATCHERS_ENDPOINT__MAX_BODY", "large")
    reload()

    with pytest.raises(ConfigurationError) as caught:
        Endpoint()

    said = str(caught.value)
    assert "variable DISPATCHERS_ENDPOINT__OIDC__EMAIL): unknown option; did you mean" in said
    assert "endpoint.max_body (variable DISPATCHERS_ENDPOINT__MAX_BODY)" in said


def test_a_worker_s_modules_are_imported(tmp_path, monkeypatch):
    """The tasks that it is to run are registered by then."""
    (tmp_path / "pushed_tasks.py").write_text(
        "from dispatchers import task\n@task(name='pushed.one')\ndef one() -> None: ...\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    configure({"endpoint": {"worker": True, "insecure": True}, "tasks": ["pushed_tasks"]})

    Endpoint()

    assert dispatchers.catalogue.find("pushed.one") is not None
    del sys.modules["pushed_tasks"]


def test_a_module_that_cannot_be_imported_is_told():
    """It would know no task."""
    configure({"endpoint": {"worker": True, "insecure": True}, "tasks": ["no_such_module_x"]})

    with pytest.raises(ConfigurationError, match="no_such_module_x"):
        Endpoint()


def test_the_start_up_check_covers_it():
    """C12: `dispatchers.check` and `dispatchers doctor` raise what the endpoint would."""
    configure({"endpoint": {"worker": True}, "targets": {"t": {"default": "null"}}}, target="t")

    with pytest.raises(ConfigurationError, match="trusts no caller"):
        dispatchers.check()


def test_the_schema_describes_it():
    """For editors."""
    from dispatchers._config.api import settings_schema

    schema = settings_schema()["properties"]["endpoint"]

    assert set(schema["properties"]) == set(EndpointSettings.model_fields)
    assert schema["additionalProperties"] is False


@pytest.mark.parametrize("missing", ["jwt", "cryptography"])
def test_a_missing_library_is_named_with_its_cure(monkeypatch, missing):
    """At the start, not with the first token."""
    monkeypatch.setitem(sys.modules, missing, None)

    with pytest.raises(ConfigurationError, match=r"dispatchers\[oidc\]"):
        Endpoint(EndpointSettings(worker=True, oidc=OidcSettings(**OIDC)))


def test_without_oidc_no_library_is_needed(monkeypatch):
    """Secrets and signatures are the standard library's."""
    monkeypatch.setitem(sys.modules, "jwt", None)

    assert Endpoint(EndpointSettings(worker=True, secrets=(SECRET,))).settings.worker
    assert importlib.util.find_spec("dispatchers.http") is not None


@pytest.mark.parametrize(
    "wrong",
    [
        {"secrets": ("short",)},
        {"secrets": ("ein geheimnis mit leerzeichen",)},
        {"secrets": ("ß" * 30,)},
        {"signatures": {"keys": {}}},
        {"signatures": {"keys": {"a": "whsec_!"}}},
        {"signatures": {"keys": {"a": "c2hvcnQ="}}},
        {"oidc": {"audience": "x"}},
        {"oidc": {**OIDC, "emails": ()}},
        {"oidc": {**OIDC, "audience": ()}},
        {"oidc": {**OIDC, "emails": "tasKs\u212a@shop.example"}},
        {"oidc": {**OIDC, "keys_url": "http://keys.example"}},
        {"oidc": {**OIDC, "keys_url": "file:///etc/passwd"}},
        {"oidc": {**OIDC, "keys_url": "https://"}},
        {"path": "run"},
        {"path": "/run?x"},
        {"max_depth": 1000},
        {"transport": "pigeon"},
    ],
    ids=str,
)
def test_what_cannot_be_safe_is_refused(wrong):
    """By the settings, before anything is served; the message does not quote a secret."""
    with pytest.raises(ValidationError) as caught:
        EndpointSettings.model_validate({"worker": True, **wrong})

    assert "geheimnis" not in str(caught.value)


def test_secrets_are_not_shown():
    """In no repr, log or traceback."""
    settings = EndpointSettings(
        secrets=(SECRET,),
        signatures=SignatureSettings.model_validate({"keys": {"a": KEY}}),
        idempotency="redis://:hidden-password@localhost/0",
    )

    shown = f"{settings!r} {settings}"

    assert SECRET not in shown
    assert KEY not in shown
    assert "hidden-password" not in shown


def test_the_deployment_check_refuses_insecure():
    """A flag for development."""
    found = messages(True, insecure=True, dead_letters="sqlite:/tmp/x.sqlite3")

    assert found["endpoint: insecure = true trusts every caller that can reach it"] == "error"


def test_a_deployment_needs_a_dead_letter_store():
    """C11: what fails for good would be lost; elsewhere it is a warning."""
    deployed = messages(True, secrets=(SECRET,))
    elsewhere = messages(False, secrets=(SECRET,))

    (message,) = elsewhere
    assert "dead_letters" in message
    assert (deployed[message], elsewhere[message]) == ("error", "warning")


def test_a_deployment_needs_stores_that_outlive_the_process():
    """`memory` is for tests."""
    found = messages(
        True,
        dead_letters="memory",
        idempotency="memory",
        signatures=SignatureSettings.model_validate({"keys": {"a": KEY}}),
        oidc=OidcSettings(**OIDC, keys_url="http://127.0.0.1:1/keys"),
    )

    assert sorted(found.values()) == ["error", "error", "warning", "warning"]


def test_a_deployment_in_order_has_no_problems(tmp_path):
    """Nothing to say."""
    file = f"sqlite:{tmp_path}/stores.sqlite3"

    assert messages(True, secrets=(SECRET,), dead_letters=file, idempotency=file) == {}
