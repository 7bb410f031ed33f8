from __future__ import annotations

import socket
from pathlib import Path


class ServiceManager:
    """What systemd hears of a service."""

    def __init__(self, directory: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(directory / "notify"))
        self._socket.setblocking(False)
        self.environment = {"NOTIFY_SOCKET": str(directory / "notify")}
        self.heard: list[str] = []

    def count(self, line: str) -> int:
        """How often this line was said."""
        self.has_heard()
        return self.heard.count(line)

    def has_heard(self, *texts: str) -> bool:
        """All of them in one line."""
        while True:
            try:
                self.heard += self._socket.recv(65536).decode().splitlines()
            except BlockingIOError:
                return any(all(text in line for text in texts) for line in self.heard)

    def close(self) -> None:
        self._socket.close()
