"""Addresses of servers: one rule for parts that a client would read as others than were meant."""

from __future__ import annotations

from urllib.parse import urlsplit

__all__ = ["misread"]


def misread(url: str) -> str | None:
    """Return why clients would read an address as another than was meant, or None.

    A `#`, `?`, `/` or `@` in a password ends it: what stands before would pass for the host, and
    the work would go to a server of that name, or to one on this machine. No part of the address
    is repeated: where it cannot be read, any may be the password.
    """
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - raises where it is not a number
    except ValueError:
        return "host and port cannot be told apart"
    host = parts.netloc.rpartition("@")[2]
    path = "" if parts.scheme == "unix" else parts.path  # that of a socket may hold anything
    if parts.fragment or "@" in f"{path}{parts.query}":
        return "a #, ?, / or @ in a password ends it: write it as %23, %3F, %2F or %40"
    if "," in host:
        return "it names several servers: give one"
    return "a port is missing behind the colon" if host.endswith(":") else None
