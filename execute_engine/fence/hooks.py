"""How the fence stands in Ansible's way: its methods are replaced, at run time, by ones that look first."""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import ModuleType
from typing import Any

from ansible.errors import AnsibleError


class Refused(AnsibleError):  # type: ignore[misc]
    """What a client asked for would run, read or write on the engine. The task fails on its host with this sentence."""


def hook(owner: type | ModuleType, name: str, hooked: Callable[..., Any]) -> None:
    """Call hooked(the method as it was, the arguments...) in place of the class's own method, or a module's function.

    Raises KeyError where this ansible-core has no such method: without its hooks nothing may run.
    """
    setattr(owner, name, in_place_of(vars(owner)[name], hooked))


def in_place_of(plain: Callable[..., Any], hooked: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(plain)
    def method(*args: Any, **kwargs: Any) -> Any:
        return hooked(plain, *args, **kwargs)

    return method
