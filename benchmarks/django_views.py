"""The bare views, and the URLs with which the endpoint stands beside them."""

from __future__ import annotations

import json

from dispatchers_django import views
from django.http import HttpRequest, HttpResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

from dispatchers.http import PATH

__all__ = ["AsyncUrls", "Urls"]


@csrf_exempt
def bare(request: HttpRequest) -> HttpResponse:
    json.loads(request.body)
    return HttpResponse(status=204)


@csrf_exempt
async def abare(request: HttpRequest) -> HttpResponse:
    json.loads(request.body)
    return HttpResponse(status=204)


class Urls:
    urlpatterns = (path(PATH[1:], views.run), path("bare", bare))


class AsyncUrls:
    urlpatterns = (path(PATH[1:], views.arun), path("bare", abare))
