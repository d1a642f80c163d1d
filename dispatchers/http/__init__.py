"""The worker's HTTP endpoint, without a framework: a queue that pushes delivers to it.

`Endpoint` carries all behaviour; `asgi_app` and `wsgi_app` are complete applications, and a
framework's glue hands method, path, headers and body to `Endpoint.handle` or `ahandle`.
OIDC needs `pip install "dispatchers[oidc]"`. The page is `docs/http.md`.
"""

from dispatchers._check import Problem

from ._answers import Answer
from ._asgi import asgi_app
from ._call import aread_limited, environ_headers, read_limited, scope_headers
from ._endpoint import Endpoint, handle
from ._settings import PATH, EndpointSettings, OidcSettings, SignatureSettings
from ._signatures import sign
from ._wsgi import wsgi_app

__all__ = [  # noqa: RUF022 - sorted as Python sorts
    "Answer",
    "Endpoint",
    "EndpointSettings",
    "OidcSettings",
    "PATH",
    "Problem",
    "SignatureSettings",
    "aread_limited",
    "asgi_app",
    "environ_headers",
    "handle",
    "read_limited",
    "scope_headers",
    "sign",
    "wsgi_app",
]
