"""Hands work over to Celery."""
