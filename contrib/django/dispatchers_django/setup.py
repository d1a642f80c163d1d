"""Imported by a worker's processes: sets Django up, so that the tasks are registered.

`dispatchers worker` without Django's management command needs it too: `tasks =
["dispatchers_django.setup"]` in `dispatchers.toml`, with `DJANGO_SETTINGS_MODULE` in the environment.
"""

import django
from django.apps import apps
from django.db import connections

__all__: list[str] = []

if not apps.models_ready:
    django.setup()
    connections.close_all()  # what applications opened at their start would go stale, unwatched
