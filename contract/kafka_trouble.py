"""Why no broker can be used: kafka-python tells its log alone, its exceptions say only that time ran out."""

from __future__ import annotations

import logging
import time

FRESH_SECONDS = 60.0  # the client tries again more often than that: what is older has passed
VAGUE = ("socket disconnected", "not ready", "Unable to bootstrap")  # often of what came of another complaint


class KafkaTrouble(logging.Handler):
    """The first complaint of the client's network since forget() that is not vague, else the first vague one.

    Nothing else of the client's lines is logged: they repeat ten times a second while a broker or the topic is
    missing, and whoever owns the client says it once.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._first = ("", 0.0)

    def listen(self) -> None:
        logging.getLogger("kafka").setLevel(logging.CRITICAL)
        network = logging.getLogger("kafka.net.manager")
        network.setLevel(logging.WARNING)
        network.propagate = False
        network.addHandler(self)

    def forget(self) -> None:
        self._first = ("", 0.0)

    def emit(self, record: logging.LogRecord) -> None:
        text, complaint = record.getMessage(), self._complaint()
        if not complaint or (_is_vague(complaint) and not _is_vague(text)):
            self._first = (text, time.monotonic())

    def after(self, words: str) -> str:
        """words with the complaint behind them, if there is one."""
        complaint = self._complaint()
        return f"{words}: {complaint}" if complaint else words

    def _complaint(self) -> str:
        text, heard_at = self._first
        return text if time.monotonic() < heard_at + FRESH_SECONDS else ""


def _is_vague(text: str) -> bool:
    return any(words in text for words in VAGUE)
