"""The error tree of distribute, and how each failure is answered."""

from __future__ import annotations

from collections.abc import Iterable


class DistributeError(Exception):
    """Anything that distribute raises on purpose."""


class NotLeading(DistributeError):
    """Another dispatcher leads: nothing was changed, and this one must stop dispatching at once."""


class TokensError(DistributeError):
    """The tokens file cannot be read, written, or used as it is asked for."""


class GitError(DistributeError):
    """git ended with an error that is none of those that can be answered by a name of its own."""


class Problems(DistributeError, ValueError):
    """One value of a request has one or more problems; each names its place within the value ("" = all of it)."""

    def __init__(self, problems: Iterable[tuple[str, str]]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(f"{place} {problem}".strip() for place, problem in self.problems))

    @classmethod
    def of(cls, problem: str) -> Problems:
        """One problem of the whole value."""
        return cls([("", problem)])


class RequestError(DistributeError):
    """A request that is answered with an error: its text is the answer's msg."""

    STATUS = 500

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message
        self.data: object = None
        self.headers: dict[str, str] = {}


class BadRequest(RequestError):
    """400: every problem of the request, each with its field."""

    STATUS = 400

    def __init__(self, problems: Iterable[tuple[str, str]], message: str = "") -> None:
        self.problems = tuple(problems)
        count = len(self.problems)
        super().__init__(message or f"The request has {count} problem{'s' if count > 1 else ''}; nothing was done.")
        self.data = [{"field": field, "problem": problem} for field, problem in self.problems]


class Unauthorized(RequestError):
    """401: no token, or none that is known."""

    STATUS = 401

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.headers = {"WWW-Authenticate": "Bearer"}


class Forbidden(RequestError):
    """403: the token does not go so far; problems say for which fields."""

    STATUS = 403

    def __init__(self, message: str, problems: Iterable[tuple[str, str]] = ()) -> None:
        super().__init__(message)
        self.data = [{"field": field, "problem": problem} for field, problem in problems] or None


class TooManyRequests(RequestError):
    """429: too many requests of this client, or wrong tokens from this address."""

    STATUS = 429

    def __init__(self, message: str, retry_after_seconds: int) -> None:
        super().__init__(message)
        self.headers = {"Retry-After": str(retry_after_seconds)}


class NotFound(RequestError):
    """404: there is no such thing."""

    STATUS = 404


class Conflict(RequestError):
    """409: the task_id is another request's or client's, or the task is not in a state for this."""

    STATUS = 409


class UnsupportedMediaType(RequestError):
    """415: the body is something else than JSON."""

    STATUS = 415


class BadGateway(RequestError):
    """502: Gitlab and we do not accept each other, or git failed."""

    STATUS = 502


class GatewayTimeout(RequestError):
    """504: Gitlab does not answer, or not in time."""

    STATUS = 504


class StorageFull(RequestError):
    """507: there is no room for the files."""

    STATUS = 507


class NotReady(RequestError):
    """503: something that every request needs is missing; trying again helps."""

    STATUS = 503

    def __init__(self, message: str, retry_after_seconds: int = 5) -> None:
        super().__init__(message)
        self.headers = {"Retry-After": str(retry_after_seconds)}
