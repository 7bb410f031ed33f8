"""Values to Zabbix by its trapper protocol: the only module that knows zabbix-utils."""

from __future__ import annotations

import logging
import socket
from collections.abc import Mapping

from zabbix_utils import ItemValue, ProcessingError, Sender

from contract.config import ZabbixSettings
from execute_engine.errors import ZabbixError

TIMEOUT_SECONDS = 3  # for each connect, write and read


class Trapper:
    """Sends to the first server that takes a connection."""

    def __init__(self, settings: ZabbixSettings) -> None:
        # Its own log has a line for each failed connection; we say what failed, and not as often.
        logging.getLogger("zabbix_utils").setLevel(logging.CRITICAL)
        nodes = [f"{address}:{settings.zabbix_port}" for address in settings.ip]
        self._sender = Sender(clusters=[nodes], timeout=TIMEOUT_SECONDS, socket_wrapper=self._keep)
        self._host = settings.host
        self._connections: list[socket.socket] = []

    def send(self, values: Mapping[str, object]) -> int:
        """Send the items of this host; returns how many values the server refused.

        Blocks about TIMEOUT_SECONDS a server when it hangs. Raises ZabbixError.
        """
        items = [ItemValue(self._host, key, str(value)) for key, value in values.items()]
        try:
            return int(self._sender.send(items).failed)
        except (ProcessingError, OSError, ValueError, AttributeError) as exc:
            # AttributeError: an answer whose text is not what a Zabbix server says
            raise ZabbixError(f"Zabbix does not answer as it should: {type(exc).__name__}: {exc}") from exc
        finally:
            while self._connections:  # the library leaves them open when the answer is a bad one
                self._connections.pop().close()

    def _keep(self, connection: socket.socket, _tls: object) -> socket.socket:
        self._connections.append(connection)
        return connection
