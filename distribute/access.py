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
from distribute.tokens import LiveTokens, Role, Token

ANONYMOUS = "anonymous"  # everybody, where no tokens are asked for
MOST_HOSTS_TOLD = 1000
_NEEDED = "needed_role"
_ACTION = "action"

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
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
        try:
            token = known.find(tokens.sum_of(presented.strip()))
        except TokensError as exc:
            log.error("nobody is let in", extra={"error": str(exc)})
            raise NotReady("The tokens cannot be read; nothing was done. The log of distribute says why.") from exc
        if token is None or token.has_expired():
            raise self._refusal(token, address)
        return Client(token.name, token.role, token.hosts, address)

    def _refusal(self, token: Token | None, address: str) -> Unauthorized | TooManyRequests:
        """Of a token that is none, or has expired."""
        if (seconds := self._throttle.wrong(address)) > 0:
            return TooManyRequests("Too many wrong tokens from this address; nothing was done.", math.ceil(seconds))
        log.warning("a wrong token", extra={"address": address, "path": request.path, "token": token and token.name})
        if token is None:
            return Unauthorized("The token is not known here; nothing was done.")
        return Unauthorized(f"The token {token.name} has expired; nothing was done.")

    def _address(self) -> str:
        """Of the client: from who is connected with us back through X-Forwarded-For, while a trusted proxy says so.

        Each proxy adds on the right who is connected with it. What stands left of the first address that is no trusted
        proxy's may be anybody's invention.
        """
        address = _address_of(request.remote_addr or "")
        if address is None:
            return "unknown"
        for said in reversed(request.headers.get("X-Forwarded-For", "").split(",")):
            before = _address_of(said.strip())
            if before is None or not any(address in network for network in self._proxies):
                break
            address = before
        return str(address)


def _address_of(text: str) -> Address | None:
    """In one spelling: of one that is mapped into IPv6 its IPv4, and no zone. None for what is no address."""
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(found, ipaddress.IPv6Address):
        return found.ipv4_mapped or ipaddress.IPv6Address(found.packed)
    return found


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
    """Of a submission. Raises Forbidden, which names those of the hosts that are outside the token's patterns."""
    if outside := [host for host in hosts if not client().may_use(host)]:
        allowed = ", ".join(client().hosts)
        raise Forbidden(
            f"{len(outside)} of the hosts are outside those of {client().name} ({allowed}); nothing was done.",
            [("ips", f"{host} is outside {allowed}") for host in outside[:MOST_HOSTS_TOLD]],
        )


def beyond_hosts(task_id: str) -> Forbidden:
    """The refusal of a change to a task with hosts outside the token's patterns: which, the client is not to know."""
    allowed = ", ".join(client().hosts)
    return Forbidden(f"The task {task_id} has hosts outside those of {client().name} ({allowed}); nothing was done.")


def require_owner(submitted_by: str | None) -> None:
    """Of a task that is to be changed. Raises Forbidden."""
    if client().role < Role.OPERATE and submitted_by != client().name:
        whose = f"a task of {submitted_by}" if submitted_by else "a task of nobody that is known"
        raise Forbidden(f"This is {whose}: changing it needs a token with the role {Role.OPERATE}; nothing was done.")
