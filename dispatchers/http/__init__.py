"""The worker's HTTP endpoint, without a framework: a queue that pushes delivers to it.

`Endpoint` carries all behaviour; `asgi_app` and `wsgi_app` are complete applications, and a
framework's glue hands method, path, headers and body to `Endpoint.handle` or `ahandle`.
OIDC needs `pip install "dispatchers[oidc]"`. The page is `docs/http.md`.
"""

from dispatchers._models.problem import Problem
from dispatchers.http._request import aread_limited, environ_headers, read_limited, scope_headers
from dispatchers.http._responses import Answer

from ._asgi import asgi_app
from ._assembly import configured_endpoint
from ._delivery import Push
from ._endpoint import Endpoint, handle
from ._settings import (
    PATH,
    EndpointPath,
    EndpointSettings,
    OidcSettings,
    SignatureSettings,
    WebAddress,
)
from ._signatures import sign
from ._wsgi import wsgi_app

__all__ = [  # noqa: RUF022 - sorted as Python sorts
    "Answer",
    "Endpoint",
    "EndpointPath",
    "EndpointSettings",
    "OidcSettings",
    "PATH",
    "Problem",
    "Push",
    "SignatureSettings",
    "WebAddress",
    "aread_limited",
    "asgi_app",
    "configured_endpoint",
    "environ_headers",
    "handle",
    "read_limited",
    "scope_headers",
    "sign",
    "wsgi_app",
]
