"""Idempotency and dead-letter stores, by name."""
