"""Submissions whose args are secret: encrypted in the database, and in no answer."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import sqlalchemy as sa

from contract import secret
from contract.database import Database
from contract.states import TaskState
from contract.tables import audit as deeds
from contract.tables import task
from tests.integration.rest import Rest, adhoc, counts, rows, set_task, task_row

WORD = "hunter2-in-the-arguments"


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "secret.key"
    secret.new_key(path)
    return path


@pytest.fixture
def rest(database: Database, key_file: Path) -> Rest:
    return Rest(database, secret_key_file=key_file)


def test_what_is_secret_stands_encrypted_in_the_database_and_in_no_answer(rest: Rest, key_file: Path) -> None:
    answers = [
        rest.submit("a", task_id="t", args=f"echo {WORD}", secret_args=True),
        rest.submit("a", task_id="o", module="copy", args={"content": WORD, "dest": "/x"}, secret_args=True),
        rest.submit_playbook(
            "a", task_id="p", playbook_content=f"- hosts: all\n  tasks:\n    - shell: {WORD}\n", secret_args=True
        ),
    ]
    answers += [rest.get("/adhoc/", task_id="t"), rest.get("/adhoc/", ip="a"), rest.get("/playbook/", task_id="p")]
    answers += [rest.get(path) for path in ("/tasks/", "/tasks/t/", "/tasks/t/hosts/")]
    assert WORD not in json.dumps(answers)
    assert answers[3]["data"][0]["args"] is None
    assert WORD not in str(rows(rest.database, sa.select(task)))
    assert secret.decrypt(task_row(rest.database, "t").args, key_file) == f"echo {WORD}"
    assert json.loads(secret.decrypt(task_row(rest.database, "o").args, key_file))["content"] == WORD
    assert WORD in secret.decrypt(task_row(rest.database, "p").playbook_content, key_file)


def test_warnings_about_a_secret_playbook_name_lines_and_nothing_of_its_text(rest: Rest) -> None:
    text = f"""\
- name: {WORD}
  hosts: all
  serial: 1
  tasks: [{{name: {WORD}, shell: 'echo {{{{ hostvars.{WORD} }}}}'}}]
- hosts: {WORD}
  strategy: {WORD}
  max_fail_percentage: 1
  tasks: [{{meta: {WORD}}}, {{action: {WORD}}}, {{{WORD}: x}}]
"""
    hang = "without host_timeout a host that hangs in one"
    given = rest.submit_playbook(["a", "b"], playbook_content=text, secret_args=True, unit_hosts=1, task_id="t")
    assert rest.get("/tasks/t/")["data"]["warnings"] == given["warnings"]
    assert given["warnings"] == [
        "line 1: this play runs with strategy linear, because of serial in line 3",
        "line 3: serial means each of the 2 units, not the whole task",
        "line 4: hostvars knows the hosts of its own unit, one of 2, not all",
        "line 5: this play runs with the strategy that it names",
        "line 5: this play names other hosts: only the task's own hosts, all and target_hosts are known",
        "line 7: max_fail_percentage means each of the 2 units, not the whole task",
        f"line 1: this play is linear: {hang} task keeps the others from the next",
        f"line 5: this play is linear: {hang} task keeps the others from the next",
        f"between its 2 plays all hosts of a unit wait for each other: {hang} keeps the others from the next",
    ]


@pytest.mark.parametrize(
    "text", [f"- hosts: [{WORD}\n", f"- {WORD}: x\n", f"{WORD}\n", f"- hosts: !{WORD} x\n", f"- hosts: *{WORD}\n"]
)
def test_why_a_secret_playbook_is_refused_is_answered_to_its_sender_alone(
    rest: Rest, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    fields = {"playbook_name": "p.yml", "playbook_content": text, "secret_args": True}
    rest.post("/playbook/", {"task_name": "n", "type": "playbook", "ips": "a", **fields}, 400)
    assert [row.code for row in rows(rest.database, sa.select(deeds))] == [400]
    assert WORD not in json.dumps(rest.get("/audit/")) + str([vars(record) for record in caplog.records])


def test_the_same_request_is_the_same_task_and_another_one_is_refused(rest: Rest) -> None:
    first = rest.submit("a", task_id="t", args=WORD, secret_args=True)
    assert rest.submit("a", task_id="t", args=WORD, secret_args=True) == first
    for fields in ({"args": "another", "secret_args": True}, {"args": WORD}):
        rest.post("/adhoc/", adhoc("a", task_id="t", **fields), 409)


def test_the_sum_of_a_secret_request_cannot_be_made_without_the_key(rest: Rest, tmp_path: Path) -> None:
    other_key = tmp_path / "other.key"
    secret.new_key(other_key)
    other = Rest(rest.database, secret_key_file=other_key)
    rest.submit("a", task_id="t", args=WORD, secret_args=True)
    other.submit("a", task_id="u", args=WORD, secret_args=True)
    assert len({task_row(rest.database, id_).request_hash for id_ in "tu"}) == 2


def test_a_rerun_keeps_the_secret(rest: Rest, key_file: Path) -> None:
    rest.submit("a", task_id="t", args=WORD, secret_args=True)
    set_task(rest.database, "t", state=TaskState.FINISHED)
    rest.database.write(lambda connection: connection.execute(sa.text("UPDATE host_result SET status = 'failed'")))
    rest.post("/tasks/t/rerun/", {"task_id": "again"})
    assert secret.decrypt(task_row(rest.database, "again").args, key_file) == WORD


def test_without_a_key_the_request_is_refused(database: Database) -> None:
    rest = Rest(database)
    problems = rest.problems("/adhoc/", adhoc("a", args=WORD, secret_args=True))
    assert problems.keys() == {"secret_args"}
    assert "distribute has no key for it" in problems["secret_args"]
    assert counts(database) == (0, 0, 0)
