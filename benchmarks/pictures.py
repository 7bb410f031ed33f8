"""The pictures of docs/performance.md."""

from __future__ import annotations


def draw() -> None:
    """Each docs/performance/NAME.json becomes NAME.svg beside it."""
    raise NotImplementedError
