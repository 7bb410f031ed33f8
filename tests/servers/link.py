"""A TCP relay before a server, which a test slows down or cuts: a network, or a server, that is sick."""

from __future__ import annotations

import contextlib
import socket
import threading
import time


class Link:
    """port leads to the server's. What the server says is held back for delay_seconds, which may change at any time."""

    def __init__(self, to_port: int) -> None:
        self.delay_seconds = 0.0
        self._whole = threading.Event()
        self._whole.set()
        self._to_port = to_port
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """From now on nothing passes, and nobody is told: no connection ends, and none gets an answer."""
        self._whole.clear()

    def mend(self) -> None:
        """What was sent since the cut arrives, as it does where TCP has tried again all the time."""
        self._whole.set()

    def close(self) -> None:
        """No more connections; those that are open end with their client."""
        self.delay_seconds = 0.0
        self.mend()
        self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept()
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        self._whole.wait()
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
                self._whole.wait()
                target.sendall(data)
        self._whole.wait()
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
