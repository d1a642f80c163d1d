"""Placing orders and looking at them."""

import os

from dispatchers_django import OnCommit
from django.db import transaction
from django.http import HttpRequest, JsonResponse
from django.shortcuts import get_object_or_404
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_GET, require_POST

from .models import Order
from .tasks import book


@csrf_exempt  # for curl
@require_POST
def orders(request: HttpRequest) -> JsonResponse:
    """Place an order; it is booked once it is committed, and not at all if it is not."""
    final = []
    with transaction.atomic():
        placed = Order.objects.create(customer=request.POST.get("customer", ""))
        later = book.options(dispatcher=OnCommit(on_result=final.append))
        answer = later.dispatch(placed.pk)
        if "rollback" in request.POST:
            transaction.set_rollback(True)
    said = {"number": placed.pk, "process": os.getpid(), "held": answer.status.value}
    return JsonResponse({**said, "status": final[0].status.value if final else None})


@require_GET
def order(_: HttpRequest, number: int) -> JsonResponse:
    """How an order is."""
    found = get_object_or_404(Order, pk=number)
    keys = ("booked", "attempt", "process")
    return JsonResponse({key: getattr(found, key) for key in keys})
