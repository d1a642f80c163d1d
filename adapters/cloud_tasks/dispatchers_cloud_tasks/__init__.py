"""Hands work over to Google Cloud Tasks, which pushes it to the HTTP endpoint of a worker.

`pip install "dispatchers[cloud-tasks]"`; `adapters/cloud_tasks/README.md` says the rest. The worker
serves `dispatchers.http`; `dispatchers_cloud_tasks.standin` is a stand-in for the service on one
machine, which `dispatchers dev` starts.
"""

import os
import sys

# gRPC reads it when it is imported: https://github.com/grpc/grpc/blob/master/doc/fork_support.md
if "grpc" not in sys.modules:
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "1")

from ._dispatcher import CloudTasksDispatcher
from ._options import CloudTasksOptions

__all__ = ["CloudTasksDispatcher", "CloudTasksOptions"]
