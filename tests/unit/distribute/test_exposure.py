"""What shows that a request without a token was not made by a program on this machine."""

from __future__ import annotations

import pytest
from werkzeug.datastructures import Headers

from distribute import exposure

HERE = {"Host": "127.0.0.1:8007"}


@pytest.mark.parametrize(
    "host", ["localhost", "LocalHost:8007", "127.0.0.1", "127.0.0.1:8007", "127.1.2.3", "[::1]", "[::1]:8007"]
)
def test_this_machine_is_known_by_every_name_that_it_has(host: str) -> None:
    assert exposure.sign_of_others(Headers({"Host": host})) is None


@pytest.mark.parametrize(
    "host",
    [
        "", "evil.example.org", "evil.example.org:8007", "127.0.0.1.evil.example.org", "localhost.evil.example.org",
        "127.evil", "10.0.0.1:127", "0.0.0.0", "[::2]:8007", "127.0.0.1, evil.example.org", "evil:8007@localhost",
    ],
)  # fmt: skip
def test_a_name_that_was_made_to_lead_here_is_not(host: str) -> None:
    assert exposure.sign_of_others(Headers({"Host": host})) == "a Host that is not this machine's loopback"


def test_a_request_without_a_host_is_not_known() -> None:
    assert exposure.sign_of_others(Headers()) is not None


@pytest.mark.parametrize(
    ("value", "sign"),
    [
        ("none", None),  # an address that somebody has typed
        ("same-origin", None),  # /docs; the Host says whose page it is
        ("same-site", "the header Sec-Fetch-Site"),
        ("cross-site", "the header Sec-Fetch-Site"),
    ],
)
def test_what_a_page_of_another_site_loads_is_not_answered(value: str, sign: str | None) -> None:
    assert exposure.sign_of_others(Headers({**HERE, "Sec-Fetch-Site": value})) == sign


@pytest.mark.parametrize("value", ["10.0.0.7", "127.0.0.1", "null", ""])
@pytest.mark.parametrize("name", ["X-Forwarded-For", "forwarded", "X-REAL-IP", "Via", "Origin"])
def test_proxies_and_browsers_show_themselves_whatever_they_say(name: str, value: str) -> None:
    sign = exposure.sign_of_others(Headers({**HERE, name: value}))
    assert sign is not None
    assert sign.lower() == f"the header {name.lower()}"
