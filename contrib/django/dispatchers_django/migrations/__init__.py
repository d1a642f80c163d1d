"""Of the idempotency store."""
