"""How deep a JSON text is, without parsing it."""

from __future__ import annotations

import re

__all__ = ["is_deeper"]

# A text that never ends is taken to the end, so that each byte is looked at once.
MARKS = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]', re.DOTALL)


def is_deeper(text: bytes, limit: int) -> bool:
    """Whether arrays and objects stand within each other more than `limit` deep."""
    if text.count(b"{") + text.count(b"[") <= limit:
        return False
    depth = 0
    for found in MARKS.finditer(text):
        mark = text[found.start()]
        if mark in b"{[":
            depth += 1
            if depth > limit:
                return True
        elif mark in b"}]":
            depth -= 1
    return False
