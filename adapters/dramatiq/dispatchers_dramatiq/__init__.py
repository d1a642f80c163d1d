"""Hands work over to Dramatiq."""
