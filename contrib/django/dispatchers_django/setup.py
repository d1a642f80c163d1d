"""Imported by a worker's processes: sets Django up, so that the tasks are registered.

`dispatchers worker` without Django's management command needs it too: with
`tasks = ["dispatchers_django.setup"]` in `dispatchers.toml`, and `DJANGO_SETTINGS_MODULE` set.
"""

import django
from django.apps import apps
from django.db import connections

__all__: list[str] = []

if not apps.models_ready:
    django.setup()
    connections.close_all()  # what applications opened at their start would go stale, unwatched
