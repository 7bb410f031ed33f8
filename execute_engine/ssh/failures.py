"""Every failure of a connection as one sentence with a reason code, in the classes that Ansible knows."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Mapping

import asyncssh
from ansible.errors import AnsibleAuthenticationFailure, AnsibleConnectionFailure


class Unreachable(AnsibleConnectionFailure):  # type: ignore[misc]
    """The host could not be reached, or not any more. `reason` is one word for programs, also in the task's result."""

    _include_cause_message = False  # the sentence says it all; the cause is for tracebacks

    def __init__(self, reason: str, sentence: str) -> None:
        super().__init__(sentence)
        self.reason = reason

    @property
    def result_contribution(self) -> Mapping[str, object]:
        return {"unreachable": True, "reason": self.reason}


class LoginRefused(AnsibleAuthenticationFailure):  # type: ignore[misc]
    """The host answers and accepts neither our key nor our password."""

    _include_cause_message = False
    _default_message = ""
    reason = "auth"

    @property
    def result_contribution(self) -> Mapping[str, object]:
        return {"unreachable": True, "reason": self.reason}


class GreetingTimeout(Exception):
    """TCP stands, and no SSH version line came in time."""


_NO_ROUTE = {errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN}
_NO_FILES = {errno.EMFILE, errno.ENFILE}


def connect_failure(
    error: BaseException, address: str, stage: str, seconds: Mapping[str, float]
) -> AnsibleConnectionFailure:
    """Why no connection came to be. `seconds`: how long each stage was allowed to take."""
    match error:
        case socket.gaierror():
            return Unreachable("name", f"the name of {address} was not found: {error.strerror}")
        case GreetingTimeout():
            return Unreachable(
                "greeting",
                f"{address} accepts TCP connections, but sent no SSH greeting within {seconds['greeting']:g} s",
            )
        case TimeoutError() if stage == "connecting" and error.errno is None:
            return Unreachable("timeout", f"no TCP answer from {address} within {seconds['connecting']:g} s")
        case TimeoutError() if error.errno is None:
            return Unreachable("login", f"the login at {address} was not done within {seconds['login']:g} s")
        case asyncssh.ConnectionLost() | ConnectionResetError() | BrokenPipeError() if stage == "greeting":
            return Unreachable("greeting", f"{address} closed the connection before its SSH greeting")
        case asyncssh.ConnectionLost() | ConnectionResetError() | BrokenPipeError() if stage == "login":
            return Unreachable("lost", f"{address} closed the connection during the login")
        case OSError():
            return _socket_failure(error, address)
        case asyncssh.Error():
            return _protocol_failure(error, address, stage)
        case _:
            return Unreachable("internal", f"the login at {address} failed: {type(error).__name__}: {error}")


def _socket_failure(error: OSError, address: str) -> Unreachable:
    if error.errno == errno.ECONNREFUSED:
        return Unreachable("refused", f"{address} refuses the connection: nothing listens there, or a firewall rejects")
    if error.errno == errno.ETIMEDOUT:
        return Unreachable("timeout", f"no TCP answer from {address}")
    if error.errno in _NO_ROUTE:
        return Unreachable("no_route", f"no route to {address}: {os.strerror(error.errno)}")
    if error.errno in _NO_FILES:
        return Unreachable("files", f"no file descriptor is left for a connection to {address}: raise LimitNOFILE")
    return Unreachable("connect", f"no connection to {address}: {error.strerror or error}")


def _protocol_failure(error: asyncssh.Error, address: str, stage: str) -> Unreachable:
    text = getattr(error, "reason", None) or str(error)
    match error:
        case asyncssh.KeyExchangeFailed():
            return Unreachable("algorithms", f"{address} and this engine have no algorithm in common: {text}")
        case asyncssh.ProtocolError() | asyncssh.ProtocolNotSupported() if stage == "greeting":
            return Unreachable("greeting", f"what answers at {address} is no SSH 2 server: {text}")
        case _:
            return Unreachable("protocol", f"{address} ended the login: {text}")


def lost_during(what: str, address: str, error: BaseException | None) -> Unreachable:
    """The connection went away under a command: it may have run to its end, or still run."""
    why = f" ({getattr(error, 'reason', None) or error})" if error is not None else ""
    return Unreachable("lost", f"the connection to {address} was lost during {what}{why}: outcome unknown")
