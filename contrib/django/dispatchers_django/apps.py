"""The application: settings, tasks, checks, and no start with a configuration that cannot work."""

from __future__ import annotations

from django.apps import AppConfig
from django.conf import settings
from django.core.signals import setting_changed
from django.utils.module_loading import autodiscover_modules

from dispatchers import check

from . import _connections, _settings, _transactions

__all__ = ["DispatchersConfig"]

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
        _connections.install()
        _transactions.watch()
        checks.register()
        autodiscover_modules("tasks")
        if getattr(settings, AT_START, True):
            check()
