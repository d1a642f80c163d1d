"""Hands work over to Google Cloud Tasks, which pushes it to the HTTP endpoint of a worker.

`pip install "dispatchers[cloud_tasks]"`; `adapters/cloud_tasks/README.md` says the rest. The worker
serves `dispatchers.http`; `dispatchers_cloud_tasks.standin` is a stand-in for the service on one
machine, which `dispatchers dev` starts.
"""

from ._dispatcher import CloudTasksDispatcher
from ._options import CloudTasksOptions

__all__ = ["CloudTasksDispatcher", "CloudTasksOptions"]
