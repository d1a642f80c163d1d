"""The worker's endpoint under ASGI: `path("", include("dispatchers_django.urls_async"))`."""

from django.urls import path

from .views import arelay, arun, asweep, endpoint

__all__ = ["urlpatterns"]

app_name = "dispatchers"
urlpatterns = [
    path(endpoint().path.lstrip("/"), arun, name="run"),
    path(endpoint().sweep_path.lstrip("/"), asweep, name="sweep"),
    path(endpoint().relay_path.lstrip("/"), arelay, name="relay"),
]
