"""Wrong tokens by address: after some of them their answer is to come later, and the log hears no more of them.

This is against noise and load, a client that was misconfigured or floods the log. Guessing is nothing to be slowed
down: a token has 256 random bits. So right tokens always pass, and nobody's guesses keep out somebody else behind the
same address.
"""

from __future__ import annotations

import ipaddress
import threading
import time
from collections import OrderedDict

BURST = 10  # wrong tokens of an address at once
PER_SECOND = 1.0  # and then
MOST_ADDRESSES = 10_000  # that are remembered


class Throttle:
    """For all threads of a process; each worker process counts for itself."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._all_free_at: OrderedDict[str, float] = OrderedDict()  # monotonic; the one that was wrong last is last

    def wrong(self, address: str) -> float:
        """Count a wrong token. 0: there is room for it; else it is not counted, and the seconds until there is room.

        The addresses of an IPv6 network of 64 bits count as one: a single machine may have all of them.
        """
        source, now = _source(address), time.monotonic()
        with self._lock:
            all_free_at = max(now, self._all_free_at.get(source, now)) + 1 / PER_SECOND
            if (seconds := all_free_at - now - BURST / PER_SECOND) > 0:
                return seconds
            self._all_free_at[source] = all_free_at
            self._all_free_at.move_to_end(source)
            if len(self._all_free_at) > MOST_ADDRESSES:
                self._all_free_at.popitem(last=False)
            return 0.0


def _source(address: str) -> str:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    return address if found.version == 4 else found.packed[:8].hex()
