"""Values to Zabbix by its trapper protocol: the only module that knows zabbix-utils."""

from __future__ import annotations

import logging
import socket
import time
from collections import deque
from collections.abc import Mapping

from zabbix_utils import ItemValue, Sender
from zabbix_utils.types import Cluster, Node

from contract.config import ZabbixSettings
from contract.errors import ZabbixError

CONNECT_SECONDS = 3.0
ADDRESS_SECONDS = 10.0  # for one address, from the look-up of its name to the last byte of its answer
MOST_REDIRECTS = 3  # a proxy of a group names the one that has this host
MOST_ANSWER_BYTES = 1 << 16

# Its own log has a line for each failed connection; we say what failed, and not as often.
logging.getLogger("zabbix_utils").addHandler(logging.NullHandler())
logging.getLogger("zabbix_utils").propagate = False


class Trapper:
    """Sends to the first of several addresses that answers, which is the first one to be asked the next time."""

    def __init__(self, settings: ZabbixSettings) -> None:
        self._addresses = deque(_parted(address, settings.zabbix_port) for address in settings.ip)
        self._host = settings.host

    def send(self, values: Mapping[str, object], deadline: float) -> int:
        """Send items of this host in one request; returns how many of them the server refused.

        Blocks until the deadline, a moment of the monotonic clock, at most; only the look-up of a name may take longer.
        Raises ZabbixError when no server has answered: then one that was too slow may have taken the values.
        """
        items = [ItemValue(self._host, key, str(value)) for key, value in values.items()]
        problems = []
        for _ in range(len(self._addresses)):
            name, port = self._addresses[0]
            begun = time.monotonic()
            if begun >= deadline:
                break
            try:
                return _send(name, port, items, min(deadline, begun + ADDRESS_SECONDS))
            except ZabbixError as exc:
                problems.append(f"{name} port {port}: {exc}")
                self._addresses.rotate(-1)
        raise ZabbixError("; ".join(problems) or "there was no time left to ask it")


def _parted(address: str, port: int) -> tuple[str, int]:
    """Name and port of name, name:port, [IPv6] or [IPv6]:port."""
    name, colon, given = address.rpartition(":")
    if not colon or address.endswith("]"):
        name, given = address, str(port)
    return name.strip("[]"), int(given)


def _send(name: str, port: int, items: list[ItemValue], deadline: float) -> int:
    try:
        found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
    except (OSError, ValueError) as exc:
        raise ZabbixError(f"its address is not known: {exc}") from exc
    problem = "it has no address"
    for family, _, _, _, place in dict.fromkeys(found):
        try:
            return _ask(family, str(place[0]), port, items, deadline)
        except ZabbixError as exc:
            problem = str(exc)
    raise ZabbixError(problem)


def _ask(family: int, ip: str, port: int, items: list[ItemValue], deadline: float) -> int:
    """One request, and where it is sent on, some more. Raises ZabbixError."""
    connections: list[socket.socket] = []

    def bound(connection: socket.socket, _tls: object) -> _Bounded:
        connections.append(connection)
        if len(connections) > MOST_REDIRECTS:
            raise ZabbixError(f"it sent the values on {MOST_REDIRECTS} times")
        return _Bounded(connection, deadline)

    cluster = Cluster([])
    cluster.nodes.append(Node(ip, port))  # its own reading of an address ends at IPv6
    seconds = max(0.01, min(CONNECT_SECONDS, deadline - time.monotonic()))
    sender = Sender(clusters=[], timeout=seconds, use_ipv6=family == socket.AF_INET6, socket_wrapper=bound)
    sender.clusters.append(cluster)
    try:
        return int(sender.send(items).failed)
    except ZabbixError:
        raise
    except Exception as exc:  # what a strange answer makes of the library: a dozen kinds
        said = f"expected the answer of a Zabbix server within {ADDRESS_SECONDS:g} s, found {type(exc).__name__}: {exc}"
        raise ZabbixError(said[:500]) from exc
    finally:
        for connection in connections:  # the library leaves them open when the answer is a bad one
            connection.close()


class _Bounded:
    """A connection as the library uses one, with an end: the library bounds each step, and not how many there are."""

    def __init__(self, connection: socket.socket, deadline: float) -> None:
        self._connection = connection
        self._deadline = deadline
        self._bytes_left = MOST_ANSWER_BYTES

    def sendall(self, data: bytes) -> None:
        self._set_limit()
        self._connection.sendall(data)

    def recv(self, size: int) -> bytes:
        if size > self._bytes_left:
            raise ZabbixError(f"expected an answer of at most {MOST_ANSWER_BYTES} bytes, found a longer one")
        self._set_limit()
        piece = self._connection.recv(size)
        self._bytes_left -= len(piece)
        return piece

    def close(self) -> None:
        self._connection.close()

    def _set_limit(self) -> None:
        seconds = self._deadline - time.monotonic()
        if seconds <= 0:
            raise TimeoutError("timed out")
        self._connection.settimeout(seconds)
