"""Orders that are paid, packed, approved, and shipped or undone."""
