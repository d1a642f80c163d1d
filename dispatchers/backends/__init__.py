"""The backends that need nothing installed."""
