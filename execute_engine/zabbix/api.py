"""Zabbix's API: the only module that knows pyzabbix. Whatever goes wrong is a ProvisionError of one line."""

from __future__ import annotations

from typing import Any

from pyzabbix import ZabbixAPI, ZabbixAPIException

from execute_engine.errors import ProvisionError

TIMEOUT_SECONDS = (10, 120)  # to connect, and for an answer: an import takes seconds
EXAMPLE = "http://zabbix.example.org/zabbix/"
RIGHTS = ("permission", "not allowed", "cannot call")  # in what Zabbix says to users who may not


class Api:
    """One user's session. Each call blocks at most TIMEOUT_SECONDS. Raises ProvisionError."""

    def __init__(self, url: str, user: str, password: str | None = None, token: str | None = None) -> None:
        """With a token (Zabbix 5.4 and newer) user and password are not used."""
        self._url = url
        self._client = ZabbixAPI(url, timeout=TIMEOUT_SECONDS)
        self._who = "the owner of the token" if token else f"user {user}"
        version = str(self.call("apiinfo.version"))
        self.version: tuple[int, ...] = tuple(map(int, version.split(".")[:2]))
        try:
            self._client.login(user, password, api_token=token)
        except ZabbixAPIException as exc:
            said = _said(exc)
            raise ProvisionError(f"Zabbix does not let {self._who} in: name or password is wrong ({said})") from exc
        except OSError as exc:
            raise self._unreachable(exc) from exc

    def call(self, method: str, **parameters: Any) -> Any:
        """The result of a method such as host.get."""
        return self._request(method, parameters)

    def delete(self, method: str, identifier: str) -> None:
        """By a method that takes identifiers alone, such as host.delete."""
        self._request(method, [identifier])

    def _request(self, method: str, parameters: dict[str, Any] | list[str]) -> Any:
        try:
            return self._client.do_request(method, parameters)["result"]
        except ZabbixAPIException as exc:
            raise self._refused(method, exc) from exc
        except OSError as exc:  # all of the HTTP library's own are
            raise self._unreachable(exc) from exc
        except (KeyError, TypeError, ValueError, AttributeError) as exc:
            raise self._no_zabbix() from exc

    def _refused(self, method: str, exc: ZabbixAPIException) -> ProvisionError:
        said = _said(exc)
        if not isinstance(exc.error, dict):  # an answer that is no JSON
            return self._no_zabbix()
        if "authori" in said or "re-login" in said:
            return ProvisionError(f"Zabbix does not let {self._who} in: the token is wrong or has expired ({said})")
        if any(word in said.lower() for word in RIGHTS):
            return ProvisionError(f"{self._who} may not call {method}: a user of the type Super admin may ({said})")
        return ProvisionError(f"Zabbix refuses {method}: {said}")

    def _unreachable(self, exc: OSError) -> ProvisionError:
        answer = getattr(exc, "response", None)
        if answer is not None:
            return ProvisionError(f"{self._url} answers {answer.status_code}: {_expected()}")
        return ProvisionError(f"{self._url} cannot be reached: {_expected()} ({_short(exc)})")

    def _no_zabbix(self) -> ProvisionError:
        return ProvisionError(f"{self._url} answers, but not as Zabbix does: {_expected()}")


def _expected() -> str:
    return f"expected the address of Zabbix's web pages, such as {EXAMPLE}"


def _said(exc: ZabbixAPIException) -> str:
    error = exc.error if isinstance(exc.error, dict) else {}
    return " ".join(str(error.get("data") or error.get("message") or exc).split())


def _short(exc: BaseException) -> str:
    """The innermost reason: the outer ones repeat the address and their own names."""
    while (inner := exc.__cause__ or exc.__context__) is not None:
        exc = inner
    return " ".join(str(exc).split()) or type(exc).__name__
