"""Cases on the form of a request."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest

from dispatchers.http import PATH, EndpointSettings

from ._scene import SECRETS, Scene, Send

__all__ = ["ReadsLittle"]

Serving = Callable[[EndpointSettings], AbstractContextManager[Send]]
AWAY = {"worker": False}


class ReadsLittle:
    """Method, path, size, media type and depth."""

    @pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "OPTIONS"])
    def test_a_process_that_is_no_worker_says_that_there_is_nothing(
        self, serve: Serving, scene: Scene, method: str
    ) -> None:
        """404 before anything else, authentication, method and size included."""
        with serve(scene.settings(**AWAY)) as send:
            answers = [
                send(method, PATH, scene.headers(token), body)
                for token, body in (
                    (None, b""),
                    (SECRETS[0], scene.body),
                    (None, b"x" * 2_000_000),
                )
            ]

        assert {answer.status for answer in answers} == {404}

    @pytest.mark.parametrize("path", ["/", f"{PATH}/x", f"{PATH}x", "/dispatchers"])
    def test_it_is_nowhere_else(self, serve: Serving, scene: Scene, path: str) -> None:
        """404 for every other path."""
        with serve(scene.settings()) as send:
            answer = send("POST", path, scene.headers(), scene.body)

        assert answer.status == 404
        assert scene.journal.texts == []

    @pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE"])
    def test_another_method_is_refused(self, serve: Serving, scene: Scene, method: str) -> None:
        """405, with the one that is allowed."""
        with serve(scene.settings()) as send:
            answer = send(method, PATH, scene.headers(), scene.body)

        assert answer.status == 405
        assert dict(answer.headers).get("Allow", dict(answer.headers).get("allow")) == "POST"
        assert scene.journal.texts == []

    def test_a_large_body_is_refused(self, serve: Serving, scene: Scene) -> None:
        """413 beyond `max_body`, and up to it all is well."""
        with serve(scene.settings(max_body=4096)) as send:
            # Exactly the limit: one byte more is refused.
            fits = scene.note("x" * (4096 - len(scene.note(""))))
            good = send("POST", PATH, scene.headers(), fits)
            large = send("POST", PATH, scene.headers(), scene.note("y" * 4096))

        assert (good.status, large.status) == (204, 413)
        assert json.loads(large.body)

    @pytest.mark.parametrize(
        "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""]
    )
    def test_another_media_type_is_refused(self, serve: Serving, scene: Scene, kind: str) -> None:
        """415: what a browser's form can send is not taken."""
        headers = [(n, v) for n, v in scene.headers() if n != "Content-Type"]
        with serve(scene.settings()) as send:
            answer = send("POST", PATH, [*headers, ("Content-Type", kind)], scene.body)

        assert answer.status == 415
        assert scene.journal.texts == []

    @pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "Application/JSON"])
    def test_json_may_be_said_differently(self, serve: Serving, scene: Scene, kind: str) -> None:
        """Parameters and case do not matter."""
        headers = [(n, v) for n, v in scene.headers() if n != "Content-Type"]
        with serve(scene.settings()) as send:
            answer = send("POST", PATH, [*headers, ("Content-Type", kind)], scene.body)

        assert answer.status == 204

    def test_a_compressed_body_is_refused(self, serve: Serving, scene: Scene) -> None:
        """415: nothing is unpacked, so no small body becomes a large one."""
        with serve(scene.settings()) as send:
            answer = scene.push(send, Content_Encoding="gzip")

        assert answer.status == 415

    def test_whoever_is_not_trusted_learns_nothing(self, serve: Serving, scene: Scene) -> None:
        """The answer is the same whatever the body is and whichever tasks there are."""
        bodies = [scene.body, b"{}", b"", scene.foreign("no.such.task"), b"[" * 500]
        with serve(scene.settings()) as send:
            # Nested too deep, empty, unknown: each would be told apart by a body that was read.
            answers = [send("POST", PATH, scene.headers(None), body) for body in bodies]

        assert {(answer.status, answer.body) for answer in answers} == {
            (401, b'{"error":"unauthorized"}')
        }
