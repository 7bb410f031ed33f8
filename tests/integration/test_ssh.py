"""The runner's ssh connections to hosts of every kind: host keys, logins, old algorithms, and each failure's words."""

from __future__ import annotations

import contextlib
import hashlib
import re
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.runner_process import Preloaded, Runner, make_job, preloaded
from tests.servers.fleet import Fleet
from tests.servers.private_sshd import PrivateSshd
from tests.servers.process import wait_for

Start = Callable[..., Runner]
CONNECTIONS = ("asyncssh", "openssh")


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Preloaded]:
    """Its runners ask a silent host every second whether it is still there, not every 15 s."""
    with preloaded(tmp_path_factory.mktemp("runners") / "log", {"SSH_KEEPALIVE_SECONDS": "1"}) as process:
        yield process


@pytest.fixture
def start(parent: Preloaded, fleet: Fleet, tmp_path: Path) -> Start:
    """Starts a job on these hosts; without further fields it runs `echo fine`."""

    def start(hosts: list[str], **fields: Any) -> Runner:
        if not {"module", "playbook_content"} & fields.keys():
            fields |= {"module": "raw", "args": "echo fine"}
        key = fields.pop("key", fleet.key)
        port = fields.pop("port", fleet.port)
        return parent.start(make_job(hosts, port, key, tmp_path, **{"become": False, **fields}))

    return start


def only(found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    (done,) = found.values()
    return done


def public(fleet: Fleet, name: str = "host_key") -> str:
    """A host key of the fleet as "type base64"."""
    return " ".join((fleet.directory / f"{name}.pub").read_text().split()[:2])


@pytest.mark.parametrize("connection", CONNECTIONS)
def test_the_first_key_of_a_host_is_accepted_and_reported(fleet: Fleet, start: Start, connection: str) -> None:
    first, second = fleet.hosts(count=2)
    runner = start([first, second], host_keys={second: (public(fleet),)}, connection=connection)
    assert {done["status"] for done in runner.ended().values()} == {"success"}
    assert runner.named("host_key") == [{"event": "host_key", "host": first, "key": public(fleet)}]


@pytest.mark.parametrize("connection", CONNECTIONS)
@pytest.mark.parametrize("checking", ["accept-new", "yes"])
def test_a_changed_key_is_refused(fleet: Fleet, start: Start, connection: str, checking: str) -> None:
    (host,) = fleet.hosts("new_key")
    known = {host: (public(fleet),)}
    runner = start([host], host_keys=known, connection=connection, host_key_checking=checking)
    done = only(runner.ended())
    assert done["status"] == "unreachable"
    assert runner.named("host_key") == []
    if connection == "asyncssh":
        assert f"the host key of {host} has changed: expected ssh-ed25519 SHA256:" in done["msg"]
        assert "delete its rows from host_key" in done["msg"]
    else:
        assert "Host key verification failed" in done["msg"]


@pytest.mark.parametrize("connection", CONNECTIONS)
def test_yes_takes_known_keys_only(fleet: Fleet, start: Start, connection: str) -> None:
    known, unknown = fleet.hosts(count=2)
    keys = {known: ("ssh-rsa AAAAB3NzaC1yc2E=", public(fleet))}
    found = start([known, unknown], host_keys=keys, connection=connection, host_key_checking="yes").ended()
    assert (found[known]["status"], found[unknown]["status"]) == ("success", "unreachable")
    if connection == "asyncssh":
        assert f"the host key of {unknown} is not known" in found[unknown]["msg"]


@pytest.mark.parametrize("connection", CONNECTIONS)
def test_no_takes_every_key_and_reports_none(fleet: Fleet, start: Start, connection: str) -> None:
    hosts = [*fleet.hosts("new_key"), *fleet.hosts()]
    keys = {host: (public(fleet),) for host in hosts}
    runner = start(hosts, host_keys=keys, connection=connection, host_key_checking="no")
    assert {done["status"] for done in runner.ended().values()} == {"success"}
    assert runner.named("host_key") == []


@pytest.mark.parametrize("connection", CONNECTIONS)
@pytest.mark.parametrize("with_key", [False, True])
def test_the_password_opens_where_the_key_does_not(fleet: Fleet, start: Start, connection: str, with_key: bool) -> None:
    key = fleet.key if with_key else ""
    fields = {"user": fleet.password_user, "password": fleet.password, "connection": connection, "args": "id -un"}
    done = only(start(fleet.hosts(), key=key, module="raw", **fields).ended())
    assert (done["status"], done["stdout"].strip()) == ("success", fleet.password_user)


def test_a_wrong_password_is_tried_once_and_not_shown(fleet: Fleet, start: Start) -> None:
    host = fleet.hosts(count=99)[-1]
    tries = f"Failed password for {fleet.password_user}"
    before = fleet.process.log(10**8).count(tries)
    done = only(start([host], user=fleet.password_user, password="wrong-password").ended())
    assert done["status"] == "unreachable"
    assert f"refuses the key {fleet.key} and the password for user {fleet.password_user}" in done["msg"]
    assert "wrong-password" not in done["msg"]
    assert fleet.process.log(10**8).count(tries) == before + 1


class OldSshd(PrivateSshd):
    """An sshd that speaks what these lines of its configuration say and nothing newer; its host key is RSA."""

    def __init__(self, directory: Path, *lines: str) -> None:
        super().__init__(directory)
        self._lines = lines

    def start(self) -> None:
        key = str(self.directory / "host_key")
        subprocess.run(["ssh-keygen", "-q", "-t", "rsa", "-b", "2048", "-N", "", "-f", key], check=True)
        super().start()

    def _options(self) -> list[str]:
        return [*self._lines, *super()._options()]  # sshd takes the first line of a name


OLD = {
    "KexAlgorithms": "diffie-hellman-group14-sha1",
    "HostKeyAlgorithms": "ssh-rsa",
    "Ciphers": "aes128-cbc,aes128-ctr",
    "MACs": "hmac-sha1",
}


@contextlib.contextmanager
def old_sshd(directory: Path, **options: str) -> Iterator[OldSshd]:
    server = OldSshd(directory, *(f"{name} {value}" for name, value in options.items()))
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.mark.parametrize("each", [*OLD, "all"])
def test_a_host_of_old_algorithms_is_reached(start: Start, server_directory: Path, each: str) -> None:
    options = OLD if each == "all" else {each: OLD[each]}
    with old_sshd(server_directory, **options) as server:
        runner = start(server.hosts(), port=server.port, key=server.key, user=server.user)
        assert only(runner.ended())["status"] == "success"
        assert runner.named("host_key")[0]["key"].startswith("ssh-rsa ")


def asked(server: OldSshd) -> list[str]:
    return re.findall(r"userauth-request .* method (\S+)", server.process.log(10**6))


@pytest.mark.parametrize(("password", "methods"), [("", ["publickey"]), ("a-password", ["none", "publickey"])])
def test_a_host_is_asked_once_where_the_key_is_right_and_there_is_no_other_way(
    start: Start, server_directory: Path, password: str, methods: list[str]
) -> None:
    with old_sshd(server_directory, LogLevel="DEBUG") as server:
        fields = {"port": server.port, "key": server.key, "user": server.user, "password": password}
        assert only(start(server.hosts(), **fields).ended())["rc"] == 0
        assert asked(server) == methods


def test_where_the_key_is_refused_the_host_may_still_let_anybody_in(
    fleet: Fleet, start: Start, server_directory: Path
) -> None:
    with old_sshd(server_directory, LogLevel="DEBUG") as server:
        done = only(start(server.hosts(), port=server.port, key=fleet.key, user=server.user).ended())
        assert f"refuses the key {fleet.key} for user {server.user}" in done["msg"]
        assert asked(server) == ["publickey", "none"]


def test_a_host_of_no_common_algorithm_says_so(start: Start, server_directory: Path) -> None:
    """CBC alone is what OpenSSH's own client does not speak either."""
    with old_sshd(server_directory, Ciphers="aes128-cbc") as server:
        done = only(start(server.hosts(), port=server.port, key=server.key, user=server.user).ended())
    assert done["status"] == "unreachable"
    assert f"{server.hosts()[0]}:{server.port} and this engine have no algorithm in common" in done["msg"]


def test_every_host_that_cannot_be_reached_says_why_and_none_waits_for_another(fleet: Fleet, start: Start) -> None:
    sentences = {
        "blackhole": "no TCP answer from {} within 2 s",
        "no_banner": "{} accepts TCP connections, but sent no SSH greeting within 2 s",
        "refused": "{} refuses the connection: nothing listens there, or a firewall rejects",
        "unreachable": "no route to {}: ",
        "no_auth": "{} refuses the key",
    }
    hosts = {kind: fleet.hosts(kind)[0] for kind in sentences}
    hosts["name"], sentences["name"] = "no-such-host.invalid", "the name of {} was not found: "
    (fine,) = fleet.hosts()
    began = time.monotonic()
    found = start([*hosts.values(), fine], connect_timeout_seconds=2).ended()
    assert found.pop(fine)["status"] == "success"
    assert {done["status"] for done in found.values()} == {"unreachable"}
    for kind, host in hosts.items():
        assert sentences[kind].format(f"{host}:{fleet.port}") in found[host]["msg"]
    assert time.monotonic() - began < 30
    assert all(done["started_at"] <= done["finished_at"] for done in found.values())


@contextlib.contextmanager
def answering(greeting: bytes, stays: bool) -> Iterator[int]:
    """The port of a server that says this to whoever comes, and then is silent or gone."""
    with socket.create_server(("127.0.0.1", 0)) as server, contextlib.ExitStack() as open_ones:

        def serve() -> None:
            with contextlib.suppress(OSError):  # closed at the end
                while True:
                    client, _ = server.accept()
                    client.sendall(greeting)
                    if stays:
                        open_ones.callback(client.close)
                    else:
                        client.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join(30)


@pytest.mark.parametrize(
    ("greeting", "stays", "sentence"),
    [
        (b"SSH-2.0-OpenSSH_9.0\r\n", True, "the login at 127.0.0.1:{} was not done within 1 s"),
        (b"HTTP/1.1 400 Bad Request\r\n" * 2000, True, "what answers at 127.0.0.1:{} is no SSH 2 server"),
        (b"SSH-1.5-old\r\n", True, "what answers at 127.0.0.1:{} is no SSH 2 server"),
        (b"", False, "127.0.0.1:{} closed the connection before its SSH greeting"),
        (b"SSH-2.0-OpenSSH_9.0\r\n", False, "127.0.0.1:{} closed the connection during the login"),
    ],
)
def test_what_is_no_ssh_server_or_stops_being_one_is_told_apart(
    start: Start, greeting: bytes, stays: bool, sentence: str
) -> None:
    with answering(greeting, stays) as port:
        done = only(start(["127.0.0.1"], port=port, login_timeout_seconds=1, connect_timeout_seconds=5).ended())
    assert done["status"] == "unreachable"
    assert sentence.format(port) in done["msg"]


def test_a_connection_that_is_lost_under_a_command_leaves_its_outcome_unknown(fleet: Fleet, start: Start) -> None:
    (host,) = fleet.hosts("drop")
    done = only(start([host], module="raw", args="sleep 600").ended())
    assert (done["status"], done["rc"]) == ("unreachable", None)
    assert f"the connection to {host}:{fleet.port} was lost during a command" in done["msg"]
    assert "outcome unknown" in done["msg"]


def test_a_host_whose_plug_is_pulled_is_noticed(fleet: Fleet, start: Start) -> None:
    cut, fine = fleet.hosts(count=42)[-2:]
    sleeping = f"600.{time.time_ns() % 10**9:09d}"
    runner = start(
        [cut, fine], module="raw", args=f"test $(echo $SSH_CONNECTION | cut -d' ' -f3) = {fine} || sleep {sleeping}"
    )
    # The other host's shell has the same words in its command line.
    wait_for("the command", lambda: any(line.startswith(f"sleep {sleeping}") for line in fleet.processes().values()))
    fleet.cut(cut)
    try:
        found = runner.ended()
    finally:
        fleet.mend(cut)
    assert (found[fine]["status"], found[cut]["status"]) == ("success", "unreachable")
    assert f"the connection to {cut}:{fleet.port} was lost during a command" in found[cut]["msg"]


def test_a_host_whose_plug_is_pulled_does_not_confirm_its_end(fleet: Fleet, start: Start) -> None:
    (cut,) = fleet.hosts(count=43)[-1:]
    sleeping = f"600.{time.time_ns() % 10**9:09d}"
    runner = start([cut], module="raw", args=f"sleep {sleeping}")
    wait_for("the command", lambda: any(sleeping in line for line in fleet.processes().values()))
    fleet.cut(cut)
    try:
        began = time.monotonic()
        runner.order_end()
        done = only(runner.ended())
        assert time.monotonic() - began < 5
    finally:
        fleet.mend(cut)
    assert (done["status"], done["stopped_on_host"]) == ("timeout", "unknown")


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("kill -9 $$", "was ended by signal KILL"),
        ("echo no more >&2; exit 255", "ended with status 255, which Ansible takes for a lost connection: no more"),
    ],
)
def test_a_command_without_a_status_of_its_own_says_why(
    fleet: Fleet, start: Start, command: str, sentence: str
) -> None:
    done = only(start(fleet.hosts(), module="raw", args=command).ended())
    assert done["status"] == "unreachable"
    assert sentence in done["msg"]


def test_a_connection_that_died_while_idle_is_made_anew(fleet: Fleet, start: Start) -> None:
    content = """\
- hosts: all
  gather_facts: false
  tasks:
    - {name: last words, raw: "(sleep 0.2; kill -9 $PPID) </dev/null >/dev/null 2>&1 &"}
    - {name: dies, pause: {seconds: 1}}
    - {name: goes on, raw: echo}
"""
    done = only(start(fleet.hosts(), playbook_content=content).ended())
    assert (done["status"], done["tasks_ok"]) == ("success", 3)


def test_too_much_output_ends_the_command(fleet: Fleet, start: Start) -> None:
    sleeping = f"600.{time.time_ns() % 10**9:09d}"
    done = only(start(fleet.hosts(), module="raw", args=f"head -c 70000000 /dev/zero; sleep {sleeping}").ended())
    assert done["status"] == "failed"
    assert "wrote more than 64 MiB and was ended" in done["msg"]
    assert not any(sleeping in line for line in fleet.processes().values())


def test_files_go_there_in_pieces(fleet: Fleet, start: Start, tmp_path: Path, server_directory: Path) -> None:
    server_directory.chmod(0o777)
    data = bytes(range(256)) * 40_000  # more than two pieces
    (tmp_path / "there").write_bytes(data)
    content = f"""\
- hosts: all
  gather_facts: false
  tasks:
    - {{name: there, copy: {{src: there, dest: "{server_directory}/{{{{ inventory_hostname }}}}"}}}}
"""
    hosts = fleet.hosts(count=2)
    found = start(hosts, playbook_content=content).ended()
    assert {done["status"] for done in found.values()} == {"success"}, [done["msg"] for done in found.values()]
    for host in hosts:
        assert hashlib.sha256((server_directory / host).read_bytes()).digest() == hashlib.sha256(data).digest()


def test_many_hosts_at_once_are_all_fine(fleet: Fleet, start: Start) -> None:
    hosts = fleet.hosts(count=60)
    runner = start(hosts, module="command", args="echo fine")
    found = runner.ended()
    assert sorted(found) == sorted(hosts)
    assert {(done["status"], done["stdout"]) for done in found.values()} == {("success", "fine")}
    assert {event["host"] for event in runner.named("host_key")} == set(hosts)
    assert len(runner.named("host_started")) == 60
