"""The address of one RabbitMQ, and how to log in there."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from typing import Any, Self

__all__ = ["Server"]


@dataclass(frozen=True, slots=True)
class Server:
    """One RabbitMQ; several of them are tried in turn."""

    host: str
    """A name, or an IPv4 or IPv6 address."""
    port: int = 5672
    """1 to 65535; TLS has 5671 by convention."""
    user: str = "guest"
    """The user's name."""
    password: str = field(default="guest", repr=False)
    """The user's password; never shown."""
    virtual_host: str = "/"
    """The virtual host; `/` is RabbitMQ's default."""
    tls: ssl.SSLContext | None = field(default=None, repr=False)
    """Encrypt the connection; the context decides about certificates."""
    tls_name: str | None = None
    """The name that the certificate must have; by default `host`."""
    mechanism: str = "PLAIN"
    """The SASL mechanism."""
    response: bytes | None = field(default=None, repr=False)
    """The mechanism's response; by default the one of `PLAIN`."""

    @classmethod
    def of_pika(cls, parameters: Any) -> Self:
        """Return the server that pika's connection parameters name."""
        from pika import spec

        credentials, tls = parameters.credentials, parameters.ssl_options
        offered = spec.Connection.Start(mechanisms=credentials.TYPE)
        mechanism, response = credentials.response_for(offered)
        return cls(
            parameters.host,
            parameters.port,
            user=getattr(credentials, "username", "") or "",
            virtual_host=parameters.virtual_host,
            tls=tls.context if tls else None,
            tls_name=tls.server_hostname if tls else None,
            mechanism=mechanism,
            response=response,
        )

    @property
    def address(self) -> str:
        """Host and port, for messages."""
        return f"{self.host}:{self.port}"

    @property
    def sasl_response(self) -> bytes:
        """The bytes that prove who logs in."""
        if self.response is not None:
            return self.response
        return f"\0{self.user}\0{self.password}".encode()
