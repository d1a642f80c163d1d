"""What the shop keeps."""

from django.db import models


class Order(models.Model):
    """An order, and how often and where it was booked."""

    customer = models.CharField(max_length=100)
    booked = models.IntegerField(default=0)
    attempt = models.IntegerField(default=0)
    process = models.IntegerField(default=0)

    def __str__(self) -> str:
        return f"order {self.pk} of {self.customer}"
