"""Who could reach distribute without a token: whether it may start as it is configured, and whom it answers then."""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING

from contract.config import DistributeSettings
from contract.errors import ConfigError
from distribute import tokens
from distribute.errors import TokensError

if TYPE_CHECKING:
    from werkzeug.datastructures import Headers  # 3 MB in the supervisor, which only checks

# Proxies add the first four, a browser the last one to what a page sends; to what it only loads, Sec-Fetch-Site.
_SIGNS = ("Forwarded", "X-Forwarded-For", "X-Real-IP", "Via", "Origin")
_PORT = re.compile(":[0-9]+$")


def check(settings: DistributeSettings) -> str | None:
    """Before the service starts: what it should say about its door. Raises ConfigError."""
    if settings.tokens_file is not None:
        try:
            tokens.read(settings.tokens_file)
        except TokensError as exc:
            words = "python -m distribute token add NAME --role admin makes the first one"
            raise ConfigError(f"[Distribute] TOKENS_FILE: {exc}; {words}") from exc
        return None
    check_address(settings)
    if settings.no_auth:
        return "NO_AUTH = yes: whoever reaches this address may run anything on all hosts"
    return (
        "TOKENS_FILE is empty: no token is asked for, and only this machine is answered, neither proxies nor web pages"
    )


def check_address(settings: DistributeSettings) -> None:
    """Before anything listens. Raises ConfigError where others than this machine could come in without a token."""
    if settings.tokens_file is None and not settings.no_auth and not _is_loopback(settings.host):
        raise ConfigError(
            f"[Distribute] HOST = {settings.host} can be reached from elsewhere, and TOKENS_FILE is empty: whoever"
            " reaches it could run anything on all hosts. Set TOKENS_FILE, or HOST = 127.0.0.1, or NO_AUTH = yes"
        )


def sign_of_others(headers: Headers) -> str | None:
    """What shows that a request came to loopback for somebody else: the client of a proxy, or a page in a browser.

    None: nothing does. The Host tells of a page whose name was made to lead to this machine.
    """
    if found := next((name for name in _SIGNS if name in headers), None):
        return f"the header {found}"
    if headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
        return "the header Sec-Fetch-Site"
    if not _is_loopback(_PORT.sub("", headers.get("Host", "")).lower()):
        return "a Host that is not this machine's loopback"
    return None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
