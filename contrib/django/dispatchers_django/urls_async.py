"""The worker's endpoint under ASGI: `path("", include("dispatchers_django.urls_async"))`."""

from django.urls import path

from .views import arun, asweep, endpoint

__all__ = ["urlpatterns"]

app_name = "dispatchers"
urlpatterns = [
    path(endpoint().path.lstrip("/"), arun, name="run"),
    path(endpoint().sweep_path.lstrip("/"), asweep, name="sweep"),
]
