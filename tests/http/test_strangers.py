"""What a caller without credentials can cost is bounded; good requests never wait for it."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

from dispatchers.http import PATH, Endpoint, EndpointSettings

STRANGERS = 200


def test_a_known_key_never_waits_for_made_up_ones(scene):
    """While the key server hangs, hundreds of made-up key ids hold up no good request."""
    oidc = scene.oidc(fetch_timeout=30.0)
    endpoint = Endpoint(scene.settings(oidc=oidc, secrets=(), signatures=None))
    good = scene.headers(scene.issuer.token())
    assert endpoint.handle("POST", PATH, good, scene.body).status == 204
    forged = [
        scene.headers(scene.issuer.token(headers={"kid": f"made-up-{n}"})) for n in range(STRANGERS)
    ]
    scene.issuer.mood = "slow"

    async def pushed():
        strangers = [
            asyncio.create_task(endpoint.ahandle("POST", PATH, each, scene.body)) for each in forged
        ]
        for _ in range(10):
            await asyncio.sleep(0)
        # A sync handler needs one of the loop's threads, none of which may be taken.
        answers = [await endpoint.ahandle("POST", PATH, good, scene.body) for _ in range(20)]
        pending = sum(not each.done() for each in strangers)
        scene.issuer.close()
        return answers, pending, await asyncio.gather(*strangers)

    answers, pending, told = asyncio.run(pushed())

    assert {answer.status for answer in answers} == {204}
    assert pending >= 1, "the fetch must not have ended before the good requests"
    assert {answer.status for answer in told} <= {401, 503}


def test_threads_of_a_server_do_not_queue_for_the_keys(scene):
    """With good keys one thread waits for an unknown id; the others answer 503 at once."""
    oidc = scene.oidc(fetch_timeout=30.0)
    endpoint = Endpoint(scene.settings(oidc=oidc, secrets=(), signatures=None))
    good = scene.headers(scene.issuer.token())
    assert endpoint.handle("POST", PATH, good, scene.body).status == 204
    forged = scene.headers(scene.issuer.token(headers={"kid": "made-up"}))
    scene.issuer.mood = "slow"
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(endpoint.handle, "POST", PATH, forged, scene.body)
        while not endpoint._parts.oidc._keys._lock.locked():
            threading.Event().wait(0.001)

        others = [endpoint.handle("POST", PATH, forged, scene.body).status for _ in range(20)]
        answer = endpoint.handle("POST", PATH, good, scene.body).status
        waiting = not first.done()
        scene.issuer.close()

    assert (set(others), answer, waiting) == ({503}, 204, True)


def test_keys_are_fetched_again_before_they_run_out(scene):
    """In the background: no good request waits for it."""
    oidc = scene.oidc(keys_lifetime=3600.0)
    endpoint = Endpoint(scene.settings(oidc=oidc))
    good = scene.headers(scene.issuer.token())
    endpoint.handle("POST", PATH, good, scene.body)
    keys = endpoint._parts.oidc._keys
    keys._good_until -= 3000.0

    status = endpoint.handle("POST", PATH, good, scene.body).status
    with keys._lock:  # held by the fetch
        left = keys._good_until

    assert status == 204
    assert scene.issuer.fetches == 2
    assert left > keys._tried_at + 3000.0


def test_a_stranger_s_body_is_not_read(scene):
    """Without credentials, and where none of them sign the body, the answer is 401 at once."""
    secrets = EndpointSettings(worker=True, secrets=("s" * 16,), dead_letters="memory")
    signed = scene.settings(secrets=(), oidc=None)

    assert Endpoint(secrets).refuse("POST", PATH, {}).status == 401
    assert Endpoint(secrets).refuse("POST", PATH, {"Authorization": "Bearer x"}) is None
    assert Endpoint(signed).refuse("POST", PATH, {}) is None
