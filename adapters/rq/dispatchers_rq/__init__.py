"""Hands work over to RQ."""
