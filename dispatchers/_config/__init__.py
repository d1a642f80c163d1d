"""Settings from every source, and the dispatchers built from them."""
