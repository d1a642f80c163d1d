"""Addresses of a Redis: used as they are, or refused with words."""

from __future__ import annotations

import re
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from dispatchers._errors import ConfigurationError, nearest
from dispatchers._runtime.address import misread

SCHEMES = ("redis://", "rediss://", "unix://")
PARAMETERS = re.compile(
    r"db|username|password|client_name|max_connections|protocol|health_check_interval"
    r"|socket_(timeout|connect_timeout|keepalive|read_size)|retry_on_timeout|decode_responses"
    r"|encoding|encoding_errors|ssl_\w+|timeout|host|port|path|lib_name|lib_version"
)
"""Settings of redis-py's connections that make sense in an address."""


def refuse_misread(url: str) -> None:
    """Refuse an address that redis-py would take for another one than was meant.

    No part of it is repeated in the message: where it cannot be read, any may be a password.

    Raises:
        ConfigurationError: redis-py would ignore a part of it, or cannot read it.
    """
    if not url.startswith(SCHEMES):
        raise _unreadable("it begins with none of redis://, rediss:// and unix://")
    if (why := misread(url)) is not None:
        raise _unreadable(why)
    parts = urlsplit(url)
    if parts.scheme != "unix" and not re.fullmatch(r"/?\d*/?", unquote(parts.path)):
        raise _unreadable("the database behind the last / is a number, as in redis://host:6379/0")
    _refuse_unknown_parameters(parts)


def _refuse_unknown_parameters(parts: SplitResult) -> None:
    known = ["db", "username", "password", "client_name", "ssl_cert_reqs", "ssl_ca_certs"]
    for name, _ in parse_qsl(parts.query, keep_blank_values=True):
        if not PARAMETERS.fullmatch(name):
            raise _unreadable(f"redis-py has no setting {name!r}{nearest(name, known)}")


def _unreadable(why: str) -> ConfigurationError:
    return ConfigurationError(
        f"no address of a Redis: {why}; write redis://[[user]:password@]host:6379/0, with "
        "reserved characters of the password as %XX"
    )
