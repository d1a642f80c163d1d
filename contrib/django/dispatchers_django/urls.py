"""The worker's endpoint under WSGI: `path("", include("dispatchers_django.urls"))`."""

from django.urls import path

from .views import endpoint, relay, run, sweep

__all__ = ["urlpatterns"]

app_name = "dispatchers"
urlpatterns = [
    path(endpoint().path.lstrip("/"), run, name="run"),
    path(endpoint().sweep_path.lstrip("/"), sweep, name="sweep"),
    path(endpoint().relay_path.lstrip("/"), relay, name="relay"),
]
