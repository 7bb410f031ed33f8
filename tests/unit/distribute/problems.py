"""What a value that is refused is told."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from distribute.errors import Problems


def problems_of(call: Callable[[], object]) -> list[tuple[str, str]]:
    """The places and problems that the call raises."""
    with pytest.raises(Problems) as caught:
        call()
    return list(caught.value.problems)


def problem_of(call: Callable[[], object]) -> str:
    """The only problem, of the whole value."""
    ((place, problem),) = problems_of(call)
    assert place == ""
    return problem
