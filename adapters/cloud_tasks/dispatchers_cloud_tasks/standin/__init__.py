"""A stand-in for Google Cloud Tasks on one machine, for development and tests.

The unmodified official client talks to it over gRPC; it pushes tasks to their HTTP targets, signs
OIDC tokens with a key that it serves, keeps its queues in an SQLite file, and misbehaves when told::

    with StandIn(folder) as standin:
        standin.create_queue("default")
        dispatcher = CloudTasksDispatcher(endpoint=standin.address, project=standin.project, ...)

`dispatchers dev` starts it from the command line. It listens on the loopback; anywhere else it wants
a token from its callers.
"""

from ._misbehaviour import Misbehaviour
from ._server import StandIn

__all__ = ["Misbehaviour", "StandIn"]
