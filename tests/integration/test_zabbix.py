"""Trapper and courier against real sockets: servers that take values, that refuse some, and sick ones."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable, Iterator, Mapping

import pytest

from contract import heartbeat, zabbix
from contract.config import ZabbixSettings
from contract.errors import ZabbixError
from contract.heartbeat import Courier, Delivery
from contract.zabbix import Trapper
from tests.servers.process import free_ports, wait_for
from tests.servers.trapper import SICK, Answer, TrapperServer, hangs, refuses, replies, sends_on, takes

Serve = Callable[..., TrapperServer]
BATCH: dict[str, object] = {"ping": 1, "slots": 60, "share": 0}


@pytest.fixture
def serve() -> Iterator[Serve]:
    made: list[TrapperServer] = []

    def serve(answer: Answer, address: str = "127.0.0.1") -> TrapperServer:
        made.append(TrapperServer(answer, address))
        return made[-1]

    yield serve
    for server in made:
        server.close()


def settings(*addresses: int | str) -> ZabbixSettings:
    named = tuple(each if isinstance(each, str) else f"127.0.0.1:{each}" for each in addresses)
    return ZabbixSettings(ip=named, zabbix_port=1, host="engine-host")


def send(trapper: Trapper, values: Mapping[str, object] = BATCH, seconds: float = 60) -> int:
    return trapper.send(values, time.monotonic() + seconds)


# --- the trapper


def test_values_arrive_for_this_host_and_refused_ones_are_counted(serve: Serve) -> None:
    server, strict = serve(takes()), serve(takes(["share"]))
    assert send(Trapper(settings(server.port))) == 0
    assert server.received == [{"ping": "1", "slots": "60", "share": "0"}]
    assert server.hosts == {"engine-host"}
    assert send(Trapper(settings(strict.port))) == 1


def test_every_form_of_an_address_is_understood(serve: Serve) -> None:
    if not _has_ipv6():
        pytest.skip("this machine has no IPv6 loopback address")
    four, six = serve(takes()), serve(takes(), "::1")
    for form, port, server in (
        ("127.0.0.1", four.port, four),
        ("localhost", four.port, four),  # its ::1 refuses, then 127.0.0.1 is asked
        (f"localhost:{four.port}", 1, four),
        ("[::1]", six.port, six),
        (f"[::1]:{six.port}", 1, six),
    ):
        before = len(server.received)
        assert send(Trapper(ZabbixSettings(ip=(form,), zabbix_port=port, host="engine-host"))) == 0, form
        assert len(server.received) == before + 1, form


def _has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize("kind", SICK)
def test_a_sick_server_is_one_kind_of_error_and_soon_given_up(
    serve: Serve, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zabbix, "ADDRESS_SECONDS", 1.0)
    trapper = Trapper(settings(serve(SICK[kind]).port))
    begun = time.monotonic()
    with pytest.raises(ZabbixError, match=r"127\.0\.0\.1 port"):
        send(trapper)
    assert time.monotonic() - begun < 30


def test_a_server_that_is_not_there_is_the_same_error() -> None:
    (port,) = free_ports(1)
    with pytest.raises(ZabbixError, match="expected the answer of a Zabbix server"):
        send(Trapper(settings(port)))
    with pytest.raises(ZabbixError, match="its address is not known"):
        send(Trapper(settings("no.such.host.invalid")))


def test_the_one_that_answered_is_asked_first_the_next_time(serve: Serve) -> None:
    sick, well, other = serve(replies(b"")), serve(takes()), serve(takes())
    (absent,) = free_ports(1)
    trapper = Trapper(settings(absent, sick.port, well.port, other.port))
    for _ in range(3):
        assert send(trapper) == 0
    assert (len(sick.received), len(well.received), len(other.received)) == (1, 3, 0)
    well.close()
    assert send(trapper) == 0
    assert len(other.received) == 1


def test_the_deadline_ends_it_with_any_number_of_addresses(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zabbix, "ADDRESS_SECONDS", 1.0)
    trapper = Trapper(settings(*(serve(hangs).port for _ in range(60))))
    begun = time.monotonic()
    with pytest.raises(ZabbixError):
        send(trapper, seconds=2)
    assert time.monotonic() - begun < 30


def test_a_proxy_that_names_another_one_is_followed_and_not_in_circles(serve: Serve) -> None:
    well = serve(takes())
    assert send(Trapper(settings(serve(sends_on(well.port)).port))) == 0
    assert len(well.received) == 1
    circle = serve(hangs)
    circle.answer = sends_on(circle.port)
    with pytest.raises(ZabbixError, match="sent the values on"):
        send(Trapper(settings(circle.port)))


# --- the courier


def deliver(courier: Courier, values: Mapping[str, object] = BATCH) -> Delivery:
    courier.send(lambda: values)
    return wait_for("the delivery", courier.delivery)


def test_refused_values_are_found_by_sending_the_next_beat_one_by_one(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    server = serve(takes(["share"]))
    courier = Courier(settings(server.port))
    first = deliver(courier)
    assert "refuses 1 of 3 values of host 'engine-host'" in first.problem
    second = deliver(courier)
    assert server.received[1:] == [{"ping": "1"}, {"slots": "60"}, {"share": "0"}]  # each value once
    assert second.taken == {"ping": 1, "slots": 60}
    assert "1 of 3 values of host 'engine-host': share: it has no trapper items" in second.problem
    assert heartbeat.PROVISION in second.problem
    third = deliver(courier)
    assert len(server.received) == 5  # together again: they are looked for once in a while
    assert third.taken == second.taken
    assert third.problem == second.problem
    assert [record.message for record in caplog.records] == ["the heartbeat was not taken"]  # once a minute
    server.answer = takes()
    assert deliver(courier) == Delivery(BATCH)
    assert caplog.records[-1].message == "Zabbix takes all values again"


def test_a_host_that_zabbix_does_not_know_is_named_with_the_command(serve: Serve) -> None:
    server = serve(refuses)
    courier = Courier(settings(server.port))
    for _ in range(2):
        found = deliver(courier)
        assert found.taken == {}
        assert "refuses every value of host 'engine-host'" in found.problem
        assert "python -m execute_engine.zabbix provision" in found.problem
    assert len(server.received) == 2


def test_no_call_waits_for_zabbix_and_one_beat_is_on_its_way_at_a_time(serve: Serve) -> None:
    server = serve(hangs)
    courier = Courier(settings(server.port))
    begun = time.monotonic()
    courier.send(lambda: BATCH)
    assert not courier.idle
    assert courier.delivery() is None
    assert time.monotonic() - begun < zabbix.ADDRESS_SECONDS / 2
    wait_for("the values", lambda: server.received)
    server.close()
    assert wait_for("the end of it", courier.delivery).taken == {}
    assert courier.idle


def test_a_beat_without_values_sends_nothing(serve: Serve) -> None:
    server = serve(takes())
    courier = Courier(settings(server.port))
    courier.send(lambda: None)
    wait_for("the end of it", lambda: courier.delivery() or courier.idle)
    assert server.received == []
