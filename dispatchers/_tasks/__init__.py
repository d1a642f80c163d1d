"""Declaring, registering and dispatching tasks."""
