"""distribute behind a real nginx that runs the shipped configuration: TLS, long queries, large bodies, long answers."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
import requests
import sqlalchemy as sa

from contract.tables import host_result
from distribute import tokens, web
from distribute.tokens import Role
from tests.daemons import BASE_PATH, Services
from tests.servers.certificates import Authority
from tests.servers.nginx import Nginx
from tests.servers.process import wait_for

HOSTS = [f"10.{100 + number // 2500}.{100 + number // 100 % 100}.{100 + number % 100}" for number in range(5000)]
THREADS_OF_DISTRIBUTE = 2 * web.THREADS
MANY = [f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}" for number in range(200_000)]
pytestmark = pytest.mark.parametrize("backend", ["embedded"], indirect=True)


class Client(requests.Session):
    """Of the API behind nginx."""

    def __init__(self, nginx: Nginx, token: str) -> None:
        super().__init__()
        self.trust_env = False  # REQUESTS_CA_BUNDLE would take the place of verify
        self.verify = str(nginx.authority.certificate)
        self.headers["Authorization"] = f"Bearer {token}"
        self.base = f"https://127.0.0.1:{nginx.port}{BASE_PATH}"


@pytest.fixture
def token(tmp_path: Path) -> str:
    return tokens.add(tmp_path / "tokens", "client", Role.ADMIN, (), None)


@pytest.fixture
def nginx(services: Services, server_directory: Path, tmp_path: Path, token: str) -> Iterator[Nginx]:
    with before(services, server_directory, TOKENS_FILE=tmp_path / "tokens") as nginx:
        yield nginx


@contextlib.contextmanager
def before(services: Services, server_directory: Path, **distribute: object) -> Iterator[Nginx]:
    """An nginx before a new distribute with these keys of [Distribute]."""
    services.start_distribute(services.backend.config_file(Distribute=distribute))
    nginx = Nginx(server_directory, Authority(server_directory))
    port = urlsplit(services.url("")).port
    assert port is not None
    try:
        nginx.start(port)
        yield nginx
    finally:
        nginx.stop()


@pytest.fixture
def client(nginx: Nginx, token: str) -> Iterator[Client]:
    with Client(nginx, token) as client:
        yield client


def adhoc(hosts: list[str], **fields: object) -> dict[str, object]:
    return {"task_name": "t", "type": "adhoc", "module": "shell", "args": "echo hi", "ips": hosts, **fields}


def test_5_000_addresses_pass_by_a_query_string_and_by_a_body(client: Client) -> None:
    task = client.post(f"{client.base}/adhoc/", json=adhoc(HOSTS), timeout=60)
    assert task.status_code == 200, task.text
    by_url = client.get(f"{client.base}/adhoc/?ips={','.join(HOSTS)}", timeout=60).json()
    by_body = client.post(f"{client.base}/adhoc/query/", json={"ips": HOSTS}, timeout=60).json()
    assert (by_url["code"], by_url["length"]) == (200, 5000)
    assert [item["ip"] for item in by_url["data"]] == HOSTS
    assert by_body == by_url


def test_200_000_hosts_are_submitted_in_one_body_and_streamed_back_in_one_answer(client: Client) -> None:
    task = client.post(f"{client.base}/adhoc/", json=adhoc(MANY, task_id="many"), timeout=60)
    assert task.status_code == 200, task.text
    with client.get(f"{client.base}/adhoc/?task_id=many", stream=True, timeout=60) as answer:
        assert answer.headers["Transfer-Encoding"] == "chunked"
        found = answer.json()
    assert found["length"] == len(MANY)
    assert [item["ip"] for item in found["data"]] == MANY


def test_a_body_of_16_mib_passes_and_a_larger_one_is_refused(client: Client) -> None:
    body, headers = json.dumps(adhoc(HOSTS[:1])).encode(), {"Content-Type": "application/json"}
    for mib, code in ((16, 200), (17, 413)):
        answer = client.post(f"{client.base}/adhoc/", data=body.ljust(mib << 20), headers=headers, timeout=60)
        assert answer.status_code == code, answer.text[:1000]


def test_the_first_part_of_a_long_answer_arrives_before_the_last_one_is_made(
    client: Client, services: Services
) -> None:
    """It is 60 MB, more than all buffers between; the last row changes while the first ones have been read alone."""
    hosts = HOSTS[:3000]
    assert client.post(f"{client.base}/adhoc/", json=adhoc(hosts, task_id="long"), timeout=60).status_code == 200

    def change(rows: sa.ColumnElement[bool], **values: str) -> None:
        services.database.write(
            lambda connection: connection.execute(sa.update(host_result).where(rows).values(values))
        )

    def stands_still() -> bool:
        before = _cpu_seconds(services)
        time.sleep(1)
        return _cpu_seconds(services) - before < 0.1

    change(sa.true(), stdout="x" * 20_000)
    with client.get(f"{client.base}/adhoc/?task_id=long", stream=True, timeout=60) as answer:
        chunks = answer.iter_content(64 << 10)
        text = next(chunks)
        wait_for("distribute to make no more of it", stands_still)
        change(host_result.c.host == hosts[-1], stderr="made at the end")
        text += b"".join(chunks)
    items = json.loads(text)["data"]
    assert [item["ip"] for item in items] == hosts
    assert [item["stderr"] for item in (items[0], items[-1])] == [None, "made at the end"]


def _cpu_seconds(services: Services) -> float:
    """Of all that distribute has used."""
    times = [psutil.Process(pid).cpu_times() for pid in services.distribute.processes("distribute: web worker")]
    return sum(each.user + each.system for each in times)


def test_without_a_tokens_file_nobody_is_answered_through_nginx(services: Services, server_directory: Path) -> None:
    with before(services, server_directory) as nginx, Client(nginx, "") as client:
        answer = client.get(f"{client.base}/tasks/", timeout=60)
        assert (answer.status_code, "TOKENS_FILE" in answer.json()["msg"]) == (403, True)
        assert client.get(client.base.replace(BASE_PATH, "/readyz"), timeout=60).status_code == 200


def test_who_does_not_take_a_long_answer_is_cut_off_and_holds_no_transaction(
    nginx: Nginx, services: Services, client: Client, token: str
) -> None:
    """Clients that take nothing, directly and through nginx, and some that take a byte a second."""
    assert client.post(f"{client.base}/adhoc/", json=adhoc(MANY, task_id="many"), timeout=60).status_code == 200
    port = urlsplit(services.url("")).port
    assert port is not None
    head = f"Host: x\r\nAuthorization: Bearer {token}\r\n"
    request = f"GET {BASE_PATH}/adhoc/?task_id=many HTTP/1.1\r\n{head}\r\n".encode()
    context = ssl.create_default_context(cafile=str(nginx.authority.certificate))

    def being_answered() -> int:
        workers = map(psutil.Process, services.distribute.processes("distribute: web worker"))
        ours = [connection for worker in workers for connection in worker.net_connections("tcp")]
        return sum(each.laddr.port == port and each.status == psutil.CONN_ESTABLISHED for each in ours)

    def nobody_reads_the_database() -> bool:
        """Else SQLite could not begin its log anew."""
        with services.database.engine.connect() as connection:
            busy: int = connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").one()[0]
        return busy == 0

    with contextlib.ExitStack() as open_ones:
        readers = [open_ones.enter_context(socket.create_connection(("127.0.0.1", port), 60)) for _ in range(6)]
        for _ in range(2):
            plain = socket.create_connection(("127.0.0.1", nginx.port), 60)
            readers.append(open_ones.enter_context(context.wrap_socket(plain, server_hostname="127.0.0.1")))
        for reader in readers:
            reader.sendall(request)
        for reader in readers:
            assert reader.recv(1) == b"H"
        wait_for("a moment without a transaction", nobody_reads_the_database)
        assert being_answered() == len(readers)

        def all_are_cut_off() -> bool:
            for slow in readers[::3]:
                with contextlib.suppress(ConnectionResetError):
                    slow.recv(1)
            return being_answered() == 0

        wait_for("the end of their connections", all_are_cut_off, 120)
    assert services.distribute.log(100_000).count("a client does not take its answer") == len(readers)


def test_nginx_with_a_certificate_of_another_authority_is_refused_by_its_clients(
    nginx: Nginx, client: Client, tmp_path: Path
) -> None:
    client.verify = str(Authority(tmp_path, "other").certificate)
    with pytest.raises(requests.exceptions.SSLError, match="certificate verify failed"):
        client.get(client.base, timeout=60)


def test_clients_that_send_their_request_byte_by_byte_hold_up_nobody_else(nginx: Nginx, client: Client) -> None:
    """Each would hold a thread of distribute if nginx passed on what it has."""
    context = ssl.create_default_context(cafile=str(nginx.authority.certificate))
    head = f"POST {BASE_PATH}/adhoc/ HTTP/1.1\r\nHost: x\r\n"
    body = "Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
    with contextlib.ExitStack() as open_ones:
        for begun in [head, head + body] * THREADS_OF_DISTRIBUTE:
            plain = socket.create_connection(("127.0.0.1", nginx.port), timeout=60)
            slow = open_ones.enter_context(context.wrap_socket(plain, server_hostname="127.0.0.1"))
            slow.sendall(begun.encode())
        for _ in range(2 * THREADS_OF_DISTRIBUTE):
            assert client.get(f"{client.base}/tasks/", timeout=10).status_code == 200
