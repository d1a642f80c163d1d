"""The name under which `dispatchers dev` finds the stand-in."""

from .standin._dev import CloudTasksDev

__all__ = ["CloudTasksDev"]
