"""The application: settings, tasks, checks, and no start with a configuration that cannot work."""

from __future__ import annotations

from django.apps import AppConfig
from django.conf import settings
from django.core.signals import setting_changed
from django.utils.module_loading import autodiscover_modules, import_string

from dispatchers import check

from . import _connections, _isolation, _settings, _transactions

__all__ = ["DispatchersConfig"]

BACKEND = "dispatchers_django.tasks.DispatcherBackend"
AT_START = "DISPATCHERS_CHECK_AT_START"


class DispatchersConfig(AppConfig):
    """`dispatchers_django` in `INSTALLED_APPS`."""

    name = "dispatchers_django"
    label = "dispatchers"
    verbose_name = "Dispatchers"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Take the settings, import each application's `tasks`, and check what is configured.

        Raises:
            ConfigurationError: With every problem there is. System checks do not run under a
                WSGI or ASGI server, so a process whose every dispatch would be rejected must not
                start. `DISPATCHERS_CHECK_AT_START = False` leaves it to the system checks.
        """
        from . import checks

        _settings.install()
        setting_changed.connect(_settings.follow)
        _isolation.install()
        _register_task_run()
        _connections.install()
        _transactions.watch()
        checks.register()
        # Before the check, which compares the tasks with the dispatchers they go through.
        autodiscover_modules("tasks")
        if getattr(settings, AT_START, True):
            check()


def _register_task_run() -> None:
    """Register what runs tasks of `django.tasks`, where a backend of ours is configured.

    A worker may be given such work before it imports a module that declares a task.
    """
    backends = getattr(settings, "TASKS", None) or {}
    if any(each.get("BACKEND") == BACKEND for each in backends.values()):
        import_string(BACKEND)
