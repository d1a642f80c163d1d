"""A part of the core."""
