"""What a service tells systemd, by the protocol of sd_notify(3): datagrams of KEY=value to a socket."""

from __future__ import annotations

import logging
import os
import socket

VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
_SEND_SECONDS = 1.0

log = logging.getLogger(__name__)


class Notifier:
    """Without NOTIFY_SOCKET every call does nothing. A call blocks for at most a second."""

    def __init__(self, address: str, watchdog_seconds: float | None) -> None:
        # A leading @ stands for the zero byte of an abstract address.
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self.watchdog_seconds = watchdog_seconds  # between two WATCHDOG=1; None: nobody waits for them

    @classmethod
    def from_environment(cls) -> Notifier:
        address = os.environ.get("NOTIFY_SOCKET", "")
        microseconds = os.environ.get("WATCHDOG_USEC", "")
        is_for_us = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        watched = address and is_for_us and microseconds.isdecimal() and int(microseconds) > 0
        # Half of what is allowed, as sd_watchdog_enabled(3) recommends.
        return cls(address, int(microseconds) / 2_000_000 if watched else None)

    def send(self, state: str) -> None:
        """READY=1, RELOADING=1, WATCHDOG=1, STOPPING=1, EXTEND_TIMEOUT_USEC=N, STATUS=text; line ends separate them."""
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as connection:
                connection.settimeout(_SEND_SECONDS)
                connection.sendto(state.encode(), self._address)
        except OSError as exc:
            log.warning("the service manager cannot be told", extra={"state": state, "error": str(exc)})
