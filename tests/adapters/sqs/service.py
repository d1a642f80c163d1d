"""Moto's server in a process of its own, with queues that it has after each start."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import boto3

from dispatchers.testing.servers import PrivateServer

__all__ = ["REGION", "Service"]

REGION = "eu-west-1"
PROGRAM = Path(__file__).with_name("standin.py")
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "somebody", "AWS_SECRET_ACCESS_KEY": "the-secret-key"}


class Service(PrivateServer):
    """A stand-in for SQS; it keeps nothing over a restart but its queues.

    Args:
        queues: The names of queues that are made at each start.
    """

    kind = "sqs"

    def __init__(self, *queues: str) -> None:
        super().__init__()
        self.queues = queues

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    def _program(self) -> str:
        return sys.executable

    def _command(self) -> Sequence[str]:
        return [self.program, str(PROGRAM), str(self.port), *self.queues]

    def _environment(self) -> Mapping[str, str]:
        return {**os.environ, **CREDENTIALS}

    def start(self) -> None:
        """Start it, and have it load what its first answer needs, which takes a while."""
        super().start()
        self.client.list_queues()

    def answers(self) -> bool:
        try:
            self.held("none")
        except OSError:
            return False
        return True

    def held(self, queue: str) -> list[bytes]:
        """The bodies that a queue holds, hidden and delayed ones too."""
        try:
            with urlopen(f"{self.url}/held/{queue}", timeout=5.0) as answer:
                return [body.encode() for body in json.load(answer)]
        except HTTPError:
            return []

    @cached_property
    def client(self) -> Any:
        """The official client, as a user makes one."""
        session = boto3.session.Session(
            aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
            region_name=REGION,
        )
        return session.client("sqs", endpoint_url=self.url)
