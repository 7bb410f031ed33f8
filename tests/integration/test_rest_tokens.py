"""Who is let in, what each role may, which hosts a token sees, and what the audit says of it."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from werkzeug.test import TestResponse

from contract.database import Database
from contract.states import HostStatus, TaskState
from contract.tables import audit, host_result
from distribute import tokens
from distribute.inputs import BASE_PATH
from distribute.throttle import BURST
from distribute.tokens import Role
from tests.integration.rest import (
    Envelope,
    Rest,
    adhoc,
    away,
    counts,
    opened,
    playbook,
    rows,
    set_host,
    set_task,
    task_row,
)

HOSTS = ["10.1.0.1", "10.1.0.2", "10.2.0.1"]


class Guarded(Rest):
    """The application with tokens; made holds them by name."""

    def __init__(self, database: Database, file: Path, **settings: Any) -> None:
        self.file = file
        self.made: dict[str, str] = {}
        for role in Role:
            self.add(str(role), role)
        super().__init__(database, tokens_file=file, **settings)

    def add(self, name: str, role: Role, hosts: tuple[str, ...] = (), expires: datetime | None = None) -> None:
        self.made[name] = tokens.add(self.file, name, role, hosts, expires)

    def by(self, who: str, method: str, path: str, status: int = 200, **arguments: Any) -> Envelope:
        headers = {"Authorization": f"Bearer {self.made[who]}"}
        return opened(self.call(method, path, headers=headers, **arguments), status)

    def submits(self, who: str, ips: list[str], status: int = 200, **fields: Any) -> Envelope:
        return self.by(who, "POST", "/adhoc/", status, json=adhoc(ips, **fields))


@pytest.fixture
def guarded(database: Database, tmp_path: Path) -> Guarded:
    return Guarded(database, tmp_path / "tokens")


def _operations(rest: Rest) -> Iterator[tuple[str, str]]:
    for rule in rest.app.url_map.iter_rules():
        for method in rule.methods - {"HEAD", "OPTIONS"}:
            if rule.rule.startswith(BASE_PATH):
                path = rule.rule.removeprefix(BASE_PATH).replace("<task_id>", "t")
                yield method, path.replace("<job>", "j").replace("<project:project>", "p")


def _audit(database: Database) -> list[tuple[Any, ...]]:
    columns = (audit.c.who, audit.c.action, audit.c.target, audit.c.code)
    return [tuple(row) for row in rows(database, sa.select(*columns).order_by(audit.c.id))]


# --- who is let in


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer "},
        {"Authorization": "Basic eDp5"},
    ],
)
def test_without_a_token_every_operation_is_shut(guarded: Guarded, headers: dict[str, str]) -> None:
    operations = list(_operations(guarded))
    assert len(operations) > 12
    for method, path in [*operations, ("GET", "/nothing/here/"), ("DELETE", "/adhoc/")]:
        response = guarded.call(method, path, headers=headers, json=adhoc("a") if method == "POST" else None)
        assert "This needs a token" in opened(response, 401)["msg"], (method, path)
        assert response.headers["WWW-Authenticate"] == "Bearer"
    assert counts(guarded.database) == (0, 0, 0)
    for path in ("healthz", "readyz", "openapi.json", "docs"):
        assert guarded.call("GET", path).status_code == 200


def test_a_token_that_is_wrong_expired_or_revoked_lets_nobody_in(guarded: Guarded) -> None:
    guarded.made["wrong"] = "ee_" + "x" * 43
    assert guarded.by("wrong", "GET", "/tasks/", 401)["msg"] == "The token is not known here; nothing was done."
    guarded.add("late", Role.ADMIN, expires=datetime.now(UTC) - timedelta(seconds=1))
    assert "late has expired" in guarded.by("late", "GET", "/tasks/", 401)["msg"]
    guarded.add("soon", Role.READ, expires=datetime.now(UTC) + timedelta(hours=1))
    guarded.by("soon", "GET", "/tasks/")
    tokens.revoke(guarded.file, "soon")
    guarded.by("soon", "GET", "/tasks/", 401)


def test_the_scheme_is_written_in_any_case(guarded: Guarded) -> None:
    for scheme in ("bearer", "BEARER"):
        headers = {"Authorization": f"{scheme} {guarded.made['read']}"}
        opened(guarded.call("GET", "/tasks/", headers=headers))


def test_while_the_file_cannot_be_read_nobody_is_let_in_and_everybody_told_to_come_again(guarded: Guarded) -> None:
    guarded.by("read", "GET", "/tasks/")
    kept = guarded.file.rename(guarded.file.with_name("elsewhere"))
    response = guarded.call("GET", "/tasks/", headers={"Authorization": f"Bearer {guarded.made['admin']}"})
    assert "The tokens cannot be read" in opened(response, 503)["msg"]
    assert int(response.headers["Retry-After"]) > 0
    kept.rename(guarded.file)
    guarded.by("read", "GET", "/tasks/")


def _from(guarded: Guarded, token: str, address: str, **headers: str) -> TestResponse:
    headers = {"Authorization": f"Bearer {token}", **headers}
    return guarded.call("GET", "/tasks/", headers=headers, environ_base={"REMOTE_ADDR": address})


def test_wrong_tokens_are_slowed_down_by_address_and_right_ones_never(
    guarded: Guarded, caplog: pytest.LogCaptureFixture
) -> None:
    answers = [_from(guarded, f"guess {number}", "10.0.0.9") for number in range(BURST + 20)]
    assert [answer.status_code for answer in answers[:BURST]] == [401] * BURST
    assert answers[-1].status_code == 429
    assert int(answers[-1].headers["Retry-After"]) >= 1
    answered = [answer.status_code for answer in answers].count(401)
    assert [record.msg for record in caplog.records].count("a wrong token") == answered
    opened(_from(guarded, guarded.made["submit"], "10.0.0.9"))  # never seen there
    opened(_from(guarded, "a guess", "10.0.0.8"), 401)


def test_an_expired_token_is_slowed_down_as_a_wrong_one(guarded: Guarded) -> None:
    guarded.add("late", Role.ADMIN, expires=datetime.now(UTC) - timedelta(seconds=1))
    assert {_from(guarded, guarded.made["late"], "10.0.0.9").status_code for _ in range(BURST + 20)} == {401, 429}


def test_an_ipv4_address_is_the_same_when_it_is_mapped_into_ipv6(guarded: Guarded) -> None:
    for number in range(BURST + 20):
        answer = _from(guarded, f"guess {number}", "::ffff:10.0.0.9")
    assert answer.status_code == 429
    opened(_from(guarded, "a guess", "10.0.0.9"), 429)
    opened(_from(guarded, "a guess", "::ffff:127.0.0.1", **{"X-Forwarded-For": "::ffff:10.0.0.9"}), 429)
    body, headers = adhoc("a"), {"Authorization": f"Bearer {guarded.made['submit']}"}
    guarded.call("POST", "/adhoc/", json=body, headers=headers, environ_base={"REMOTE_ADDR": "::ffff:10.0.0.9"})
    assert guarded.by("admin", "GET", "/audit/")["data"][0]["address"] == "10.0.0.9"


def test_the_address_is_the_one_that_a_trusted_proxy_says_and_no_other(guarded: Guarded) -> None:
    for number in range(BURST + 20):
        answer = _from(guarded, f"guess {number}", "127.0.0.1", **{"X-Forwarded-For": "10.9.9.9, 10.0.0.7"})
    assert answer.status_code == 429
    opened(_from(guarded, "a guess", "10.0.0.7"), 429)
    opened(_from(guarded, "a guess", "10.9.9.9"), 401)
    opened(_from(guarded, "a guess", "10.0.0.6", **{"X-Forwarded-For": "10.0.0.7"}), 401)
    opened(_from(guarded, "a guess", "127.0.0.1", **{"X-Forwarded-For": "10.0.0.7, fe80::1%" + "x" * 200}), 401)


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("10.1.0.9", "", "10.1.0.9"),
        ("10.1.0.9", "192.0.2.1", "192.0.2.1"),
        ("::ffff:10.1.0.9", "::ffff:192.0.2.1", "192.0.2.1"),
        ("fd00::5", "2001:db8::1%eth0", "2001:db8::1"),
        ("10.1.0.9", "192.0.2.1, 10.1.0.8,fd00::7", "192.0.2.1"),  # three proxies, one behind the other
        ("10.1.0.9", "203.0.113.1, 192.0.2.1", "192.0.2.1"),  # the client has sent a header of its own
        ("10.1.0.9", "10.1.0.7, 203.0.113.1, 192.0.2.1, 10.1.0.8", "192.0.2.1"),
        ("10.1.0.9", "10.1.0.8", "10.1.0.8"),  # a client in the proxies' network
        ("10.1.0.9", "203.0.113.1, unknown", "10.1.0.9"),
        ("10.1.0.9", "203.0.113.1, nonsense, 10.1.0.8", "10.1.0.8"),
        ("10.1.0.9", "192.0.2.1,", "10.1.0.9"),
        ("10.1.1.0", "203.0.113.1", "10.1.1.0"),  # just outside
        ("192.0.2.1", "10.1.0.9", "192.0.2.1"),
        ("192.0.2.1", "203.0.113.1, 10.1.0.9", "192.0.2.1"),
        ("", "203.0.113.1", "unknown"),
    ],
)
def test_forwarded_addresses_are_believed_back_to_the_first_that_is_no_proxy(
    database: Database, tmp_path: Path, peer: str, forwarded: str, address: str
) -> None:
    proxies = (ipaddress.ip_network("10.1.0.0/24"), ipaddress.ip_network("fd00::/64"))
    guarded = Guarded(database, tmp_path / "tokens", trusted_proxies=proxies)
    headers = {
        "Authorization": f"Bearer {guarded.made['submit']}",
        **({"X-Forwarded-For": forwarded} if forwarded else {}),
    }
    opened(guarded.call("POST", "/adhoc/", json=adhoc("a"), headers=headers, environ_base={"REMOTE_ADDR": peer}))
    assert guarded.by("admin", "GET", "/audit/")["data"][0]["address"] == address


def test_without_a_tokens_file_everybody_is_let_in(database: Database) -> None:
    rest = Rest(database)
    task_id = rest.submit("a")["task_id"]
    assert task_row(rest.database, task_id).submitted_by == "anonymous"
    assert rest.get("/audit/")["data"][0]["who"] == "anonymous"


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Origin", "Host"])
def test_without_a_tokens_file_what_comes_through_a_proxy_or_a_browser_is_refused(
    database: Database, header: str
) -> None:
    rest, headers = Rest(database), {header: "evil.example.org"}
    for method, path, body in (("GET", "/tasks/", None), ("POST", "/adhoc/", adhoc("a")), ("OPTIONS", "/adhoc/", None)):
        told = opened(rest.call(method, path, headers=headers, json=body), 403)["msg"]
        assert told.startswith("Without [Distribute] TOKENS_FILE only programs on this machine are answered, and this")
        assert header in told
    assert rest.call("GET", "metrics", headers=headers).status_code == 403
    assert counts(database) == (0, 0, 0)
    assert rest.get("/audit/")["data"] == []
    for path in ("healthz", "readyz"):
        assert rest.call("GET", path, headers=headers).status_code == 200
    opened(Rest(database, no_auth=True).call("GET", "/tasks/", headers=headers))


# --- what a role may

MAY = {
    Role.READ: {
        ("GET", "/adhoc/?ip=a"), ("POST", "/adhoc/query/"), ("GET", "/playbook/?ip=a"), ("POST", "/playbook/query/"),
        ("GET", "/tasks/"), ("GET", "/tasks/t/"), ("GET", "/tasks/t/hosts/"), ("GET", "/engines/"),
        ("GET", "/file/"), ("GET", "/file/jobs/j/"),
    },
    Role.SUBMIT: {
        ("POST", "/adhoc/"), ("POST", "/playbook/"), ("POST", "/tasks/t/cancel/"), ("POST", "/tasks/t/rerun/"),
    },
    Role.OPERATE: {("POST", "/hold/"), ("POST", "/release/"), ("POST", "/file/"), ("DELETE", "/file/p/")},
    Role.ADMIN: {("GET", "/audit/")},
}  # fmt: skip
BODIES = {"/adhoc/": adhoc("a"), "/playbook/": playbook("a"), "/file/": {"project_name": "p"}}
CODES = {("POST", "/file/"): 400, ("DELETE", "/file/p/"): 404, ("GET", "/file/jobs/j/"): 404}  # no Gitlab, no project


def test_every_operation_asks_for_a_role_that_is_known_here(guarded: Guarded) -> None:
    known = {(method, path.partition("?")[0]) for operations in MAY.values() for method, path in operations}
    assert set(_operations(guarded)) == known


@pytest.mark.parametrize("who", Role)
def test_each_role_may_what_those_before_it_may_and_no_more(guarded: Guarded, who: Role) -> None:
    guarded.submits("admin", ["a"], task_id="t")
    set_task(guarded.database, "t", state=TaskState.FINISHED, submitted_by=str(who))
    set_host(guarded.database, "t", "a", status=HostStatus.FAILED)
    for needed, operations in MAY.items():
        for method, path in sorted(operations):
            body = BODIES.get(path, {"ip": "a"} if path.endswith("query/") else {})
            arguments = {"json": body} if method == "POST" else {}
            if who >= needed:
                guarded.by(str(who), method, path, CODES.get((method, path), 200), **arguments)
            else:
                told = guarded.by(str(who), method, path, 403, **arguments)["msg"]
                assert told == f"This needs a token with the role {needed}; the role of {who} is {who}."


def test_a_submitter_changes_its_own_tasks_and_an_operator_all(guarded: Guarded) -> None:
    guarded.add("another", Role.SUBMIT)
    guarded.submits("submit", ["a"], task_id="t")
    for deed in ("cancel", "rerun"):
        answer = guarded.by("another", "POST", f"/tasks/t/{deed}/", 403)
        assert answer["msg"].startswith("This is a task of submit: changing it needs a token with the role operate")
    assert task_row(guarded.database, "t").cancelled_at is None
    guarded.by("operate", "POST", "/tasks/t/cancel/")
    assert task_row(guarded.database, "t").cancelled_at is not None
    set_task(guarded.database, "t", state=TaskState.CANCELLED)
    guarded.by("submit", "POST", "/tasks/t/rerun/", json={"task_id": "again"})
    assert task_row(guarded.database, "again").submitted_by == "submit"


def test_the_name_stands_in_the_task_and_in_the_hold(guarded: Guarded) -> None:
    guarded.submits("submit", ["a"], task_id="t")
    assert guarded.by("read", "GET", "/tasks/t/")["data"]["submitted_by"] == "submit"
    assert guarded.by("read", "GET", "/tasks/")["data"][0]["submitted_by"] == "submit"
    assert guarded.by("operate", "POST", "/hold/")["data"]["held_by"] == "operate at 127.0.0.1"


# --- hosts


@pytest.fixture
def narrow(guarded: Guarded) -> Guarded:
    """A task of three hosts with results, and a token, narrow, for two of them."""
    guarded.add("narrow", Role.OPERATE, hosts=("10.1.*",))
    guarded.submits("submit", HOSTS, task_id="t")
    for host in HOSTS:
        set_host(guarded.database, "t", host, status=HostStatus.FAILED)
    return guarded


def test_a_submission_with_a_host_outside_the_patterns_is_refused_and_the_hosts_are_listed(narrow: Guarded) -> None:
    before = counts(narrow.database)
    answer = narrow.submits("narrow", [*HOSTS, "web"], 403, task_id="wide")
    assert answer["data"] == [{"field": "ips", "problem": f"{host} is outside 10.1.*"} for host in ("10.2.0.1", "web")]
    assert answer["msg"] == "2 of the hosts are outside those of narrow (10.1.*); nothing was done."
    assert counts(narrow.database) == before
    narrow.submits("narrow", HOSTS[:2])


def test_a_task_with_other_hosts_is_neither_cancelled_nor_run_again(narrow: Guarded) -> None:
    assert "has hosts outside those of narrow" in narrow.by("narrow", "POST", "/tasks/t/cancel/", 403)["msg"]
    assert task_row(narrow.database, "t").cancelled_at is None
    set_task(narrow.database, "t", state=TaskState.FINISHED)
    refused = narrow.by("narrow", "POST", "/tasks/t/rerun/", 403)
    assert refused["msg"] == "The task t has hosts outside those of narrow (10.1.*); nothing was done."
    assert refused["data"] is None
    set_host(narrow.database, "t", "10.2.0.1", status=HostStatus.SUCCESS)
    narrow.by("narrow", "POST", "/tasks/t/rerun/")  # of the two that it may use


def test_rows_of_other_hosts_are_left_out_of_every_answer(narrow: Guarded) -> None:
    def seen(path: str, who: str, **body: Any) -> list[str]:
        arguments: dict[str, Any] = {"json": body} if body else {}
        data = narrow.by(who, "POST" if body else "GET", path, **arguments)["data"]
        return sorted(item["ip"] for item in data)

    for path in (
        "/adhoc/?task_id=t", f"/adhoc/?ips={','.join(HOSTS)}", f"/adhoc/?ips={','.join(HOSTS)}&limit=3",
        "/tasks/t/hosts/", "/tasks/t/hosts/?status=failed",
    ):  # fmt: skip
        assert seen(path, "narrow") == HOSTS[:2], path
        assert seen(path, "read") == HOSTS, path
    assert seen("/adhoc/query/", "narrow", task_id="t") == HOSTS[:2]
    assert seen("/adhoc/?ip=10.2.0.1", "narrow") == []
    assert seen("/adhoc/?ip=10.1.0.1", "narrow") == HOSTS[:1]


def test_pages_hold_as_many_rows_as_they_can(narrow: Guarded) -> None:
    first = narrow.by("narrow", "GET", "/tasks/t/hosts/?limit=1")
    second = narrow.by("narrow", "GET", f"/tasks/t/hosts/?limit=1&cursor={first['cursor']}")
    assert [item["ip"] for item in (*first["data"], *second["data"])] == HOSTS[:2]
    assert second["cursor"] is None


# --- the audit


def test_each_change_is_noted_with_who_what_and_the_answer(guarded: Guarded) -> None:
    guarded.submits("submit", ["a"], task_id="t")
    guarded.by("submit", "POST", "/tasks/t/cancel/")
    guarded.by("operate", "POST", "/hold/")
    guarded.by("operate", "POST", "/release/")
    guarded.by("read", "GET", "/tasks/")
    assert _audit(guarded.database) == [
        ("submit", "submit", "t", 200),
        ("submit", "cancel", "t", 200),
        ("operate", "hold", None, 200),
        ("operate", "release", None, 200),
    ]


def test_each_refused_change_is_noted_too(guarded: Guarded) -> None:
    guarded.submits("submit", ["a"], task_id="t")
    guarded.submits("submit", ["b"], 409, task_id="t")
    guarded.submits("read", ["a"], 403, task_id="t")
    guarded.by("submit", "POST", "/adhoc/", 400, json={"password": "not to be noted"})
    guarded.by("operate", "POST", "/tasks/unknown/cancel/", 404)
    assert _audit(guarded.database)[1:] == [
        ("submit", "submit", "t", 409),
        ("read", "submit", None, 403),
        ("submit", "submit", None, 400),
        ("operate", "cancel", "unknown", 404),
    ]
    messages = rows(guarded.database, sa.select(audit.c.msg))
    assert "not to be noted" not in str(messages)
    assert messages[1].msg.startswith("The task_id t belongs to another request")


def test_a_change_that_cannot_be_noted_is_not_made(guarded: Guarded) -> None:
    guarded.database.write(lambda connection: connection.exec_driver_sql("DROP TABLE audit"))
    guarded.submits("submit", ["a"], 500, task_id="t")
    assert counts(guarded.database) == (0, 0, 0)


def test_a_refusal_is_answered_also_while_the_database_is_away(guarded: Guarded, tmp_path: Path) -> None:
    guarded.by("read", "GET", "/tasks/")
    with away(guarded.database, tmp_path):
        guarded.submits("read", ["a"], 403)
        guarded.submits("submit", ["a"], 503)


def test_the_audit_is_read_by_admins_in_pages_and_by_filters(guarded: Guarded) -> None:
    for number in range(3):
        guarded.submits("submit", ["a"], task_id=f"t{number}")
    guarded.by("operate", "POST", "/hold/")
    newest = guarded.by("admin", "GET", "/audit/?limit=2")
    assert [(item["who"], item["action"], item["target"]) for item in newest["data"]] == [
        ("operate", "hold", None),
        ("submit", "submit", "t2"),
    ]
    older = guarded.by("admin", "GET", f"/audit/?limit=2&cursor={newest['cursor']}")
    assert [item["target"] for item in older["data"]] == ["t1", "t0"]
    assert older["cursor"] is None
    item = guarded.by("admin", "GET", "/audit/?target=t1")["data"][0]
    assert item.keys() == {"date", "who", "address", "action", "target", "code", "msg"}
    assert (item["address"], item["code"], item["msg"]) == ("127.0.0.1", 200, "done")
    assert guarded.by("admin", "GET", "/audit/?who=operate&action=hold")["length"] == 1
    assert guarded.by("admin", "GET", "/audit/?who=nobody")["length"] == 0


def test_rows_of_the_audit_are_only_ever_added(guarded: Guarded) -> None:
    """What distribute sends to the audit's table are INSERTs and SELECTs."""
    sent: list[str] = []
    sa.event.listen(guarded.database.engine, "before_cursor_execute", lambda *given: sent.append(given[2]))
    guarded.submits("submit", ["a"], task_id="t")
    guarded.by("submit", "POST", "/tasks/t/cancel/")
    guarded.by("admin", "GET", "/audit/")
    verbs = {statement.split()[0] for statement in sent if "audit" in statement}
    assert verbs == {"INSERT", "SELECT"}
    assert rows(guarded.database, sa.select(sa.func.count()).select_from(host_result))[0][0] == 1
