"""Whether distribute may start as it is configured: who could reach it, and whether they need a token."""

from __future__ import annotations

import ipaddress

from contract.config import DistributeSettings
from contract.errors import ConfigError
from distribute import tokens
from distribute.errors import TokensError


def check(settings: DistributeSettings) -> str | None:
    """Before the service starts: what it should say about its door. Raises ConfigError."""
    if settings.tokens_file is not None:
        try:
            tokens.read(settings.tokens_file)
        except TokensError as exc:
            words = "python -m distribute token add NAME --role admin makes the first one"
            raise ConfigError(f"[Distribute] TOKENS_FILE: {exc}; {words}") from exc
        return None
    if settings.no_auth:
        return "NO_AUTH = yes: whoever reaches this address may run anything on all hosts"
    if not _is_loopback(settings.host):
        raise ConfigError(
            f"[Distribute] HOST = {settings.host} can be reached from elsewhere, and TOKENS_FILE is empty: whoever"
            " reaches it could run anything on all hosts. Set TOKENS_FILE, or HOST = 127.0.0.1, or NO_AUTH = yes"
        )
    return "TOKENS_FILE is empty: no token is asked for, and only this machine is answered"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
