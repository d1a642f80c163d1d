"""django-tasks' immediate backend, set up without a project."""

from __future__ import annotations

import django
from django.conf import settings

if not settings.configured:
    settings.configure(
        INSTALLED_APPS=["django_tasks"],
        LOGGING_CONFIG=None,
        TASKS={"default": {"BACKEND": "django_tasks.backends.immediate.ImmediateBackend"}},
        USE_TZ=True,
    )
    django.setup()

from django_tasks import task  # it wants the settings first


@task()
def small(number, text):
    pass
