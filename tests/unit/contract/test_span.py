from __future__ import annotations

import pytest

from contract import span


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"), (9.9, "9 s"), (10, "10 s"), (47, "40 s"), (119, "110 s"), (120, "2 min"), (7199, "119 min"),
        (7200, "2 h"), (360_000, "100 h"),
    ],
)  # fmt: skip
def test_words(seconds: float, words: str) -> None:
    assert span.words(seconds) == words
