"""The suite for HTTP endpoints, an issuer of tokens, and attacks; importing it needs pytest.

The issuer needs `pip install "dispatchers[oidc]"`.
"""

import pkgutil

import pytest

# Before the modules are imported, so that a failed assertion shows its values.
pytest.register_assert_rewrite(
    *(f"{__name__}.{found.name}" for found in pkgutil.iter_modules(__path__))
)

from ._attacks import ATTACKS, Attack  # noqa: E402
from ._issuer import Issuer  # noqa: E402
from ._scene import Scene, Send  # noqa: E402
from ._suite import EndpointConformance  # noqa: E402
from ._wire import wire  # noqa: E402

__all__ = ["ATTACKS", "Attack", "EndpointConformance", "Issuer", "Scene", "Send", "wire"]
