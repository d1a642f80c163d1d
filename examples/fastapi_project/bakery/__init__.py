"""A bakery takes orders over HTTP; what must happen then happens wherever the target says."""
