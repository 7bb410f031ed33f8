"""A TCP relay before a server whose answers a test delays: a network, or a server, that is slow."""

from __future__ import annotations

import contextlib
import socket
import threading
import time


class SlowLink:
    """port leads to the server's; what the server says is held back for delay_seconds, which may change at any time."""

    def __init__(self, to_port: int) -> None:
        self.delay_seconds = 0.0
        self._to_port = to_port
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """No more connections; those that are open end with their client."""
        self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept()
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", self._to_port)) as server:
            back = threading.Thread(target=self._relay, args=(server, client, True), daemon=True)
            back.start()
            self._relay(client, server, False)
            back.join()

    def _relay(self, source: socket.socket, target: socket.socket, delayed: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if delayed:
                    time.sleep(self.delay_seconds)
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
