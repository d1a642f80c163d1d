"""Hands work over to django-rq's queues, by `RQ_QUEUES` of Django's settings.

`pip install "dispatchers[django-rq]"`; `adapters/django_rq/README.md` says the rest.
"""

from ._dispatcher import DjangoRQDispatcher
from ._options import DjangoRQOptions
from ._worker import LeasedWorker

__all__ = ["DjangoRQDispatcher", "DjangoRQOptions", "LeasedWorker"]
