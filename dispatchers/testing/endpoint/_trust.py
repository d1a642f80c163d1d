"""Cases on authentication."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import timedelta

import pytest

from dispatchers.http import PATH, EndpointSettings, SignatureSettings
from dispatchers.testing import tasks

from ._attacks import ATTACKS, Attack
from ._issuer import EMAIL
from ._scene import KEYS, SECRETS, Scene, Send

__all__ = ["TrustsFew"]

Serving = Callable[[EndpointSettings], AbstractContextManager[Send]]


class TrustsFew:
    """Authentication fails closed."""

    @pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
    def test_an_attack_is_refused(self, serve: Serving, scene: Scene, attack: Attack) -> None:
        """Every attack gets its status, a generic body, and runs nothing."""
        with serve(scene.settings(**attack.settings(scene))) as send:
            if attack.warm:
                # The body is none: it fills the cache of keys, and runs nothing.
                send("POST", PATH, scene.headers(scene.issuer.token()), b"{}")
            headers, body = attack.make(scene)
            answer = send("POST", PATH, headers, body)

        assert answer.status == attack.status
        assert set(json.loads(answer.body)) <= {"error", "detail"}
        assert scene.journal.texts == []

    @pytest.mark.parametrize("secret", SECRETS)
    def test_each_secret_is_good(self, serve: Serving, scene: Scene, secret: str) -> None:
        """Several secrets at once, so that they can be rotated."""
        with serve(scene.settings()) as send:
            answer = send("POST", PATH, scene.headers(secret), scene.body)

        assert answer.status == 204
        assert scene.journal.texts == ["ran"]

    @pytest.mark.parametrize("email", [EMAIL, EMAIL.upper()])
    def test_a_token_of_a_listed_account_is_good(
        self, serve: Serving, scene: Scene, email: str
    ) -> None:
        """The allow-list looks away from case; the keys are fetched once."""
        with serve(scene.settings()) as send:
            token = scene.issuer.token(email=email)
            answers = [send("POST", PATH, scene.headers(token), scene.body) for _ in range(3)]

        assert [answer.status for answer in answers] == [204, 204, 204]
        # Three requests, one fetch: an issuer must not be asked for each token.
        assert scene.issuer.fetches == 1

    def test_a_new_key_is_good_at_once(self, serve: Serving, scene: Scene) -> None:
        """An unknown key id has the keys fetched again."""
        with serve(scene.settings()) as send:
            before = send("POST", PATH, scene.headers(scene.issuer.token()), scene.body)
            scene.issuer.rotate("two")
            after = send("POST", PATH, scene.headers(scene.issuer.token()), scene.body)

        assert (before.status, after.status) == (204, 204)

    def test_made_up_key_ids_cause_no_storm_of_fetches(self, serve: Serving, scene: Scene) -> None:
        """The keys are fetched again no sooner than `refresh_floor` after the last time."""
        with serve(scene.settings(oidc=scene.oidc(refresh_floor=300.0))) as send:
            send("POST", PATH, scene.headers(scene.issuer.token()), scene.body)
            # Different ids: a cache of unknown ones would not help.
            forged = [scene.issuer.token(headers={"kid": f"made-up-{n}"}) for n in range(5)]
            answers = [send("POST", PATH, scene.headers(token), scene.body) for token in forged]

        assert {answer.status for answer in answers} == {401}
        assert scene.issuer.fetches == 1

    def test_the_keys_come_back(self, serve: Serving, scene: Scene) -> None:
        """503 while the keys cannot be fetched, then all is well again."""
        scene.issuer.mood = "down"
        with serve(scene.settings()) as send:
            token = scene.issuer.token()
            down = send("POST", PATH, scene.headers(token), scene.body)
            scene.issuer.mood = "well"
            well = send("POST", PATH, scene.headers(token), scene.body)

        assert (down.status, well.status) == (503, 204)

    @pytest.mark.parametrize("name", KEYS)
    def test_each_key_signs(self, serve: Serving, scene: Scene, name: str) -> None:
        """Several keys at once, with and without their id."""
        with serve(scene.settings()) as send:
            plain = scene.signed(scene.body, name=name, id=f"plain_{name}_{time.time_ns()}")
            named = scene.signed(
                scene.body, name=name, key_id=name, id=f"named_{name}_{time.time_ns()}"
            )
            answers = [send("POST", PATH, headers, scene.body) for headers in (plain, named)]

        assert [answer.status for answer in answers] == [204, 204]

    def test_a_replay_runs_once(self, serve: Serving, scene: Scene) -> None:
        """Settled work is acknowledged again and not run, since its answer may have been lost."""
        headers = scene.signed(scene.body, id=f"msg_{time.time_ns()}")
        with serve(scene.settings()) as send:
            first = send("POST", PATH, headers, scene.body)
            second = send("POST", PATH, headers, scene.body)

        assert (first.status, second.status) == (204, 200)
        assert json.loads(second.body) == {"outcome": "duplicate"}
        assert scene.journal.texts == ["ran"]

    def test_two_senders_may_use_the_same_ids(self, serve: Serving, scene: Scene) -> None:
        """A message of one is not a replay of the other's."""
        # Unlike in any other run: the replay store may outlive the test.
        same = f"msg_{time.time_ns()}"
        with serve(scene.settings()) as send:
            answers = [
                send("POST", PATH, scene.signed(scene.body, name=name, id=same), scene.body)
                for name in KEYS
            ]

        assert [answer.status for answer in answers] == [204, 204]

    def test_what_was_not_settled_may_come_again(self, serve: Serving, scene: Scene) -> None:
        """A queue repeats the same signed request until it is done."""
        body = scene.envelope(tasks.fail, journal=scene.journal.path, times=1)
        headers = scene.signed(body, id=f"msg_{time.time_ns()}")
        again = [*headers, ("X-CloudTasks-TaskRetryCount", "1")]
        with serve(scene.settings()) as send:
            # Not settled, so that its signature must not be remembered as used.
            first = send("POST", PATH, headers, body)
            second = send("POST", PATH, again, body)

        assert (first.status, second.status) == (500, 204)
        assert scene.journal.texts == ["failed", "succeeded"]

    def test_a_signature_made_at_dispatch_is_good_when_the_work_is_due(
        self, serve: Serving, scene: Scene
    ) -> None:
        """The maximum age of delayed work counts from when it is due."""
        day = timedelta(days=1)
        request = tasks.note.options(delay=day).request(journal=scene.journal.path)
        body = scene.foreign(
            request.task,
            payload=dict(request.payload),
            created_at=request.created_at - day,
            delay=day,
        )
        yesterday = int(time.time() - day.total_seconds())
        headers = scene.signed(body, timestamp=yesterday, id=f"msg_{time.time_ns()}")

        with serve(scene.settings()) as send:
            answer = send("POST", PATH, headers, body)

        assert answer.status == 204

    def test_a_replay_store_that_is_down_runs_nothing(self, serve: Serving, scene: Scene) -> None:
        """It is unknown whether it was there before: it is handed back."""
        signatures = SignatureSettings.model_validate(
            {"keys": KEYS, "replay": "dispatchers.testing.endpoint._stores:Down"}
        )
        with serve(scene.settings(signatures=signatures)) as send:
            answer = send("POST", PATH, scene.signed(scene.body), scene.body)

        assert answer.status == 503
        assert scene.journal.texts == []

    def test_insecure_trusts_everybody(self, serve: Serving, scene: Scene) -> None:
        """Only by explicit setting."""
        settings = EndpointSettings(worker=True, insecure=True)
        with serve(settings) as send:
            answer = send("POST", PATH, scene.headers(None), scene.body)

        assert answer.status == 204
