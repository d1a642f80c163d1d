"""The shop, and the endpoint to which a cloud queue pushes (404 on a web process)."""

from django.urls import include, path
from shop import views

urlpatterns = [
    path("orders", views.orders),
    path("orders/<int:number>", views.order),
    path("", include("dispatchers_django.urls")),
]
