"""Who asks, and what they may: the token of a request, its role, and its hosts."""

from __future__ import annotations

import ipaddress
import logging
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from flask import current_app, g, request

from contract.config import DistributeSettings
from distribute import exposure, patterns, tokens
from distribute.errors import Forbidden, NotReady, TokensError, TooManyRequests, Unauthorized
from distribute.throttle import Throttle
from distribute.tokens import LiveTokens, Role

ANONYMOUS = "anonymous"  # everybody, where no tokens are asked for
MOST_HOSTS_TOLD = 1000
_NEEDED = "needed_role"
_ACTION = "action"

View = TypeVar("View", bound=Callable[..., Any])
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Client:
    """Who asks. hosts are the patterns of the hosts that it may use and see; none: all."""

    name: str
    role: Role
    hosts: tuple[str, ...]
    address: str

    def may_use(self, host: str) -> bool:
        return not self.hosts or patterns.fits(self.hosts, host)


def needs(role: Role, action: str = "") -> Callable[[View], View]:
    """What a view asks of its client; the innermost decorator. An action is what the audit calls a change."""

    def mark(view: View) -> View:
        setattr(view, _NEEDED, role)
        setattr(view, _ACTION, action)
        return view

    return mark


def needed_role(view: Callable[..., Any]) -> Role | None:
    """What the view asks of its client; None: nothing, everybody is answered."""
    found: Role | None = getattr(view, _NEEDED, None)
    return found


class Door:
    """One for each process that answers requests."""

    def __init__(self, settings: DistributeSettings) -> None:
        self._proxies = settings.trusted_proxies
        self._tokens = None if settings.tokens_file is None else LiveTokens(settings.tokens_file)
        self._is_open = settings.no_auth
        self._throttle = Throttle()

    def let_in(self) -> None:
        """Make this request's client known. Raises Unauthorized, Forbidden, TooManyRequests and NotReady."""
        address = self._address()
        if self._tokens is None:
            if not self._is_open and (sign := exposure.sign_of_others(request.headers)):
                raise Forbidden(
                    f"Without [Distribute] TOKENS_FILE only programs on this machine are answered, and this request has"
                    f" {sign}; nothing was done."
                )
            g.client = Client(ANONYMOUS, Role.ADMIN, (), address)
            return
        g.client = self._client(self._tokens, address)
        view = _view()
        if view is not None and client().role < (needed := getattr(view, _NEEDED)):
            raise Forbidden(
                f"This needs a token with the role {needed}; the role of {client().name} is {client().role}."
            )

    def _client(self, known: LiveTokens, address: str) -> Client:
        kind, _, presented = request.headers.get("Authorization", "").partition(" ")
        if kind.lower() != "bearer" or not presented.strip():
            raise Unauthorized("This needs a token: Authorization: Bearer TOKEN; nothing was done.")
        sha256 = tokens.sum_of(presented.strip())
        if (seconds := self._throttle.wait_seconds(address, sha256)) > 0:
            raise TooManyRequests("Too many wrong tokens from this address; nothing was done.", math.ceil(seconds))
        try:
            token = known.find(sha256)
        except TokensError as exc:
            log.error("nobody is let in", extra={"error": str(exc)})
            raise NotReady("The tokens cannot be read; nothing was done. The log of distribute says why.") from exc
        if token is None or token.has_expired():
            self._throttle.failed(address, sha256)
            log.warning(
                "a wrong token", extra={"address": address, "path": request.path, "token": token and token.name}
            )
            if token is None:
                raise Unauthorized("The token is not known here; nothing was done.")
            raise Unauthorized(f"The token {token.name} has expired; nothing was done.")
        self._throttle.passed(address, sha256)
        return Client(token.name, token.role, token.hosts, address)

    def _address(self) -> str:
        """Of the client, as a trusted proxy before us says it: the last one that it has added."""
        peer = request.remote_addr or "unknown"
        if peer in self._proxies:
            forwarded = request.headers.get("X-Forwarded-For", "").rpartition(",")[2].strip()
            try:
                return str(ipaddress.ip_address(forwarded))
            except ValueError:
                pass
        return peer


def client() -> Client:
    """Who asks for what is being answered."""
    return cast(Client, g.client)


def action() -> str:
    """What the audit calls the change that is asked for; empty: it is none."""
    return str(getattr(_view(), _ACTION, ""))


def _view() -> Callable[..., Any] | None:
    """What answers this request; None for a path that nothing answers."""
    return current_app.view_functions.get(request.endpoint or "")


def require_hosts(hosts: Iterable[str]) -> None:
    """Raises Forbidden, which names the hosts that are outside the token's patterns."""
    if outside := [host for host in hosts if not client().may_use(host)]:
        patterns = ", ".join(client().hosts)
        raise Forbidden(
            f"{len(outside)} of the hosts are outside those of {client().name} ({patterns}); nothing was done.",
            [("ips", f"{host} is outside {patterns}") for host in outside[:MOST_HOSTS_TOLD]],
        )


def require_owner(submitted_by: str | None) -> None:
    """Of a task that is to be changed. Raises Forbidden."""
    if client().role < Role.OPERATE and submitted_by != client().name:
        whose = f"a task of {submitted_by}" if submitted_by else "a task of nobody that is known"
        raise Forbidden(f"This is {whose}: changing it needs a token with the role {Role.OPERATE}; nothing was done.")
