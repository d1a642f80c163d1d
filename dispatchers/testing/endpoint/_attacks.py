"""Requests that are not to be trusted, and the status that each gets."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives import serialization
from jwt.algorithms import RSAAlgorithm

from dispatchers.http import SignatureSettings, sign

from ._issuer import rsa_key
from ._scene import FETCH_TIMEOUT, KEYS, SECRETS, Scene

__all__ = ["ATTACKS", "Attack"]

Request = tuple[list[tuple[str, str]], bytes]


def _as_they_are(_: Scene) -> dict[str, Any]:
    return {}


@dataclass(frozen=True)
class Attack:
    """One request that must not run anything."""

    name: str
    status: int
    make: Callable[[Scene], Request]
    """Headers and body; it may change what the issuer does."""
    settings: Callable[[Scene], dict[str, Any]] = _as_they_are
    """Settings that differ."""
    warm: bool = False
    """A request with a good token came before, so that the keys are cached."""


def _token(name: str, make: Callable[[Scene], str], status: int = 401, **more: Any) -> Attack:
    return Attack(name, status, lambda scene: (scene.headers(make(scene)), scene.body), **more)


def _claims(name: str, **changes: Any) -> Attack:
    return _token(name, lambda scene: scene.issuer.token(**changes))


def _at(name: str, seconds: int, field: str) -> Attack:
    """A claim that names another instant."""

    def make(scene: Scene) -> str:
        changed: dict[str, Any] = {field: int(time.time()) + seconds}
        return scene.issuer.token(**changed)

    return _token(name, make)


def _segment(value: object) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _by_hand(scene: Scene, header: dict[str, Any], signature: Callable[[bytes], bytes]) -> str:
    """A token that no library would make."""
    start = f"{_segment(header)}.{_segment(scene.issuer.claims())}"
    return f"{start}.{_segment(signature(start.encode()))}"


def _unsigned(algorithm: str) -> Callable[[Scene], str]:
    return lambda scene: _by_hand(scene, {"alg": algorithm, "kid": "one"}, lambda _: b"")


def _confused(scene: Scene) -> str:
    """Signed with the public key, which is public, as if it were a shared secret."""
    public = (
        scene.issuer.keys["one"]
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    # By hand: PyJWT refuses a public key in the place of a secret.
    return _by_hand(
        scene,
        {"alg": "HS256", "kid": "one", "typ": "JWT"},
        lambda text: hmac.digest(public, text, "sha256"),
    )


def _own_key(scene: Scene) -> str:
    """The token brings the key that it is signed with."""
    # A verifier that trusts `jwk` or `jku` takes the attacker's word for the key.
    key = rsa_key("attacker")
    jwk = RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
    return scene.issuer.token(key=key, headers={"jwk": jwk, "jku": "http://127.0.0.1:1/keys"})


def _changed_claims(scene: Scene) -> str:
    head, _, signature = scene.issuer.token(email="eve@shop.example").split(".")
    return f"{head}.{_segment(scene.issuer.claims())}.{signature}"


def _huge_number(scene: Scene) -> str:
    # Put into the text afterwards: Python's JSON would write Infinity.
    claims = json.dumps(scene.issuer.claims(exp="EXP")).replace('"EXP"', "1e999")
    start = f"{_segment({'alg': 'RS256', 'kid': 'one'})}.{_segment(claims.encode())}"
    signer = RSAAlgorithm(hash_alg=RSAAlgorithm.SHA256)
    return f"{start}.{_segment(signer.sign(start.encode(), scene.issuer.keys['one']))}"


def _withdrawn(scene: Scene) -> Request:
    token = scene.issuer.token()
    scene.issuer.rotate("two")
    time.sleep(0.2)  # longer than keys_lifetime, which is what the case is about
    return scene.headers(token), scene.body


def _in_mood(mood: Any) -> Callable[[Scene], str]:
    def make(scene: Scene) -> str:
        token = scene.issuer.token()
        # After the token is made, which needs no key server.
        scene.issuer.mood = mood
        return token

    return make


def _bounded(scene: Scene) -> dict[str, Any]:
    return {"oidc": scene.oidc(fetch_timeout=FETCH_TIMEOUT)}


def _key_server(name: str, mood: str) -> Attack:
    return _token(f"key server {name}", _in_mood(mood), 503, settings=_bounded)


def _unknown_while_down(scene: Scene) -> str:
    # The keys are cached by now: only the unknown id makes the endpoint ask again.
    scene.issuer.mood = "down"
    return scene.issuer.token(headers={"kid": "other"})


def _twice(scene: Scene) -> Request:
    whole = scene.headers(scene.issuer.token())
    # Servers join repeated headers or take either one: proxy and worker could each read another.
    return [*whole, ("Authorization", "Bearer forged.forged.forged")], scene.body


def _signed(name: str, make: Callable[[Scene], Request], status: int = 401, **more: Any) -> Attack:
    return Attack(name, status, make, **more)


def _signature(name: str, **options: Any) -> Attack:
    return _signed(name, lambda scene: (scene.signed(scene.body, **options), scene.body))


def _signed_at(name: str, seconds: int) -> Attack:
    def make(scene: Scene) -> Request:
        return scene.signed(scene.body, timestamp=int(time.time()) + seconds), scene.body

    return _signed(name, make)


def _replaced(name: str, header: str, value: str) -> Attack:
    def make(scene: Scene) -> Request:
        headers = scene.signed(scene.body)
        return [(n, value if n == header else v) for n, v in headers], scene.body

    return _signed(name, make)


def _stranger(scene: Scene) -> Request:
    key = base64.b64encode(hashlib.sha256(b"stranger").digest()).decode()
    more = sign(scene.body, id="msg_1", key=key)
    return [*scene.headers(None), *more.items()], scene.body


def _first_is_gone(_: Scene) -> dict[str, Any]:
    return {"secrets": SECRETS[1:]}


def _only_second(_: Scene) -> dict[str, Any]:
    return {"signatures": SignatureSettings.model_validate({"keys": {"second": KEYS["second"]}})}


def _split_elsewhere(scene: Scene) -> Request:
    """The signature of one id, time and body is that of others, if an id may have a stop in it."""
    body = b"1700000000." + scene.body
    now = str(int(time.time()))
    signature = sign(body, id="msg_1", key=KEYS["first"], timestamp=int(now))
    # The signed text stays the same, and is read as another id, time and body.
    moved = {**signature, "webhook-id": f"msg_1.{now}", "webhook-timestamp": "1700000000"}
    return [*scene.headers(None), *moved.items()], scene.body


def _of_tokens() -> Iterator[Attack]:
    yield Attack("no token", 401, lambda scene: (scene.headers(None), scene.body))
    yield Attack(
        "another scheme",
        401,
        lambda scene: ([*scene.headers(None), ("Authorization", "Basic dTpw")], scene.body),
    )
    yield _token("garbage", lambda _: "a.b.c")
    yield _token("very long", lambda _: f"{'a' * 3000}.{'b' * 3000}.{'c' * 3000}")
    yield Attack("two tokens, one of them good", 401, _twice)
    yield _token("algorithm `none`", _unsigned("none"))
    yield _token("algorithm `nOnE`", _unsigned("nOnE"))
    yield _token("another algorithm (RS512)", lambda s: s.issuer.token(algorithm="RS512"))
    yield _token("key confusion (HS256 with the public key)", _confused)
    yield _token("signed by another key", lambda s: s.issuer.token(key=rsa_key("attacker")))
    yield _token("brings its own key (`jwk`, `jku`)", _own_key)
    yield _token("unknown key id", lambda s: s.issuer.token(headers={"kid": "other"}))
    yield _token("no key id", lambda s: _by_hand(s, {"alg": "RS256"}, lambda _: b"x" * 256))
    yield _token("unknown critical header", lambda s: s.issuer.token(headers={"crit": ["x"]}))
    yield _token("changed claims", _changed_claims)


def _of_claims() -> Iterator[Attack]:
    yield _at("expired", -60, "exp")
    yield _at("from the future", 60, "iat")
    yield _at("not valid yet", 60, "nbf")
    yield _claims("no expiry", exp=None)
    yield _claims("an expiry that is not a number", exp="tomorrow")
    yield _token("an expiry beyond all numbers", _huge_number)
    yield _claims("other audience", aud="https://other.example")
    yield _claims("no audience", aud=None)
    yield _claims("other issuer", iss="https://evil.example")
    yield _claims("unverified e-mail", email_verified=False)
    yield _claims("unverified e-mail, said as a text", email_verified="true")
    yield _claims("no e-mail", email=None)
    yield _claims("not on the list", email="eve@shop.iam.gserviceaccount.com")
    yield _claims(
        "look-alike (the sign for kelvin)", email="tas\u212as@shop.iam.gserviceaccount.com"
    )


def _of_keys() -> Iterator[Attack]:
    yield Attack(
        "withdrawn key, after its lifetime",
        401,
        _withdrawn,
        lambda scene: {"oidc": scene.oidc(keys_lifetime=0.1)},
        warm=True,
    )
    yield _key_server("down", "down")
    yield _key_server("answers 500", "error")
    yield _key_server("slow", "slow")
    yield _key_server("slow, a byte now and then", "drip")
    yield _key_server("answers a huge document", "huge")
    yield _key_server("answers garbage", "garbage")
    yield _key_server("has no keys", "empty")
    yield _key_server("redirects", "redirect")
    yield _token("unknown key id while the key server is down", _unknown_while_down, 503, warm=True)


def _of_secrets_and_signatures() -> Iterator[Attack]:
    yield _token("wrong secret", lambda _: "the-third-secret-of-two")
    yield _token("beginning of a secret", lambda _: SECRETS[0][:-1])
    yield _token("secret rotated out", lambda _: SECRETS[0], settings=_first_is_gone)
    yield _signed("changed body", lambda s: (s.signed(s.body), s.body.replace(b"ran", b"run")))
    yield _signed("signed by a stranger", _stranger)
    yield _signed("rotated-out key", lambda s: (s.signed(s.body), s.body), settings=_only_second)
    yield _signature("key id of another key", key_id="second")
    yield _signature("unknown key id of a signature", key_id="third")
    yield _signed_at("signed too long ago", -600)
    yield _signed_at("signed in the future", 600)
    yield _replaced("signature under another id", "webhook-id", "msg_2")
    yield _replaced("no time", "webhook-timestamp", "")
    yield _replaced("empty signature", "webhook-signature", "")
    yield _replaced("another version of signature", "webhook-signature", "v9,abc")
    yield _signed("id, time and body parted elsewhere", _split_elsewhere)
    yield Attack(
        "not a worker, whatever the token",
        404,
        lambda scene: (scene.headers(scene.issuer.token()), scene.body),
        lambda _: {"worker": False},
    )


ATTACKS = (*_of_tokens(), *_of_claims(), *_of_keys(), *_of_secrets_and_signatures())
"""Each must get its status, and run nothing."""
