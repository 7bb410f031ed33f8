"""/metrics: what Prometheus reads, from real rows, and without the database."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from prometheus_client.parser import text_string_to_metric_families

from contract.database import Database, now
from contract.states import EngineState, HostStatus, TaskState, UnitState
from contract.tables import engine, leader, unit
from distribute import metrics, tokens
from distribute.tokens import Role
from tests.integration.rest import Rest, add, away, rows, set_host, set_task, set_unit

HOSTS = [f"10.0.0.{number}" for number in range(1, 7)]

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture
def rest(database: Database, monkeypatch: pytest.MonkeyPatch) -> Rest:
    monkeypatch.setattr(metrics, "CACHE_SECONDS", 0.0)
    return Rest(database)


def scrape(rest: Rest, **headers: str) -> Samples:
    response = rest.call("GET", "metrics", headers=headers)
    assert response.status_code == 200, response.get_data()
    families = text_string_to_metric_families(response.get_data(as_text=True))
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value for each in families for sample in each.samples
    }


def of(samples: Samples, name: str, **labels: str) -> float | None:
    return samples.get((f"distribute_{name}", frozenset(labels.items())))


def by(samples: Samples, name: str, label: str) -> dict[str, float]:
    """Those that are not 0."""
    return {
        dict(labels)[label]: value
        for (found, labels), value in samples.items()
        if found == f"distribute_{name}" and value
    }


def test_requests_are_counted_by_rule_method_and_code_and_no_word_of_a_client_is_a_label(rest: Rest) -> None:
    for path in ("/tasks/one/", "/tasks/two/", "/nothing/here/"):
        rest.get(path, 404)
    rest.call("SECRETWORD", "/tasks/")
    rest.submit("a")
    samples = scrape(rest)
    base = "/api/v1/distribute"
    counted = {
        tuple(sorted(dict(labels).values())): v for (n, labels), v in samples.items() if n.endswith("requests_total")
    }
    assert counted == {
        tuple(sorted((f"{base}/tasks/<task_id>/", "GET", "404"))): 2,
        tuple(sorted(("none", "GET", "404"))): 1,
        tuple(sorted(("none", "other", "405"))): 1,
        tuple(sorted((f"{base}/adhoc/", "POST", "200"))): 1,
    }


def test_open_tasks_units_and_hosts_are_counted_and_ended_ones_are_not(rest: Rest) -> None:
    rest.submit(HOSTS, task_id="open", unit_hosts=2)
    rest.submit(HOSTS, task_id="over")
    set_task(rest.database, "over", state=TaskState.FINISHED)
    set_unit(rest.database, "over", 1, state=UnitState.FINISHED, success=6)
    set_task(rest.database, "open", state=TaskState.RUNNING, created_at=now() - timedelta(seconds=100))
    set_unit(rest.database, "open", 1, state=UnitState.FINISHED, success=1, failed=1)
    set_unit(rest.database, "open", 2, state=UnitState.RUNNING)
    set_host(rest.database, "open", HOSTS[2], status=HostStatus.TIMEOUT)
    set_host(rest.database, "open", HOSTS[3], status=HostStatus.RUNNING)

    samples = scrape(rest)
    assert by(samples, "tasks", "state") == {"running": 1}
    assert by(samples, "units", "state") == {"finished": 1, "running": 1, "waiting": 1}
    assert by(samples, "hosts", "status") == {"success": 1, "failed": 1, "timeout": 1, "running": 1, "queued": 2}
    assert 100 <= (of(samples, "oldest_unit_age_seconds", state="waiting") or 0) < 300
    assert of(samples, "oldest_unit_age_seconds", state="published") == 0

    set_unit(rest.database, "open", 3, state=UnitState.PUBLISHED, published_at=now() - timedelta(seconds=50))
    samples = scrape(rest)
    assert of(samples, "oldest_unit_age_seconds", state="waiting") == 0
    assert 50 <= (of(samples, "oldest_unit_age_seconds", state="published") or 0) < 250


def test_no_statement_goes_through_all_host_results(rest: Rest) -> None:
    """Of 20,000, most of them of ended units, it reads those of units that run, by an index."""
    database = rest.database
    for task_id in ("over", "open"):
        hosts = [f"10.0.{number // 250}.{number % 250}" for number in range(10_000)]
        rest.submit(hosts, task_id=task_id, unit_hosts=100)
    set_task(database, "over", state=TaskState.FINISHED)
    ended = sa.update(unit).values(state=UnitState.FINISHED, success=100)
    database.write(lambda connection: connection.execute(ended))
    for number in range(1, 6):
        set_unit(database, "open", number, state=UnitState.RUNNING)
    database.write(
        lambda c: c.exec_driver_sql("ANALYZE" if database.is_sqlite else "ANALYZE TABLE host_result").close()
    )
    plans: list[str] = []

    def explain(connection: sa.Connection, _: object, statement: str, parameters: Any, *__: object) -> None:
        if statement.startswith("SELECT"):
            how = "EXPLAIN QUERY PLAN" if database.is_sqlite else "EXPLAIN"
            rows_of_plan = connection.exec_driver_sql(f"{how} {statement}", parameters).mappings()
            plans.extend(
                row["detail"] if database.is_sqlite else f"{row['type']} {row['table']}" for row in rows_of_plan
            )

    sa.event.listen(database.engine, "before_cursor_execute", explain)
    samples = scrape(rest)
    sa.event.remove(database.engine, "before_cursor_execute", explain)
    assert by(samples, "hosts", "status") == {"success": 9500, "queued": 500}
    expected = "SEARCH host_result USING COVERING INDEX" if database.is_sqlite else "ref host_result"
    found = [plan for plan in plans if "host_result" in plan]
    assert len(found) == 1, plans
    assert found[0].startswith(expected), plans


def test_the_leader_and_the_engines_in_their_newest_incarnation(rest: Rest) -> None:
    assert of(scrape(rest), "dispatcher_leads") == 0
    where = leader.c.name == "dispatcher"
    if not rows(rest.database, sa.select(leader).where(where)):
        add(rest.database, leader, {"name": "dispatcher", "holder": ""})
    rest.database.write(lambda c: c.execute(sa.update(leader).where(where).values(holder="h", beat=7)))
    for number, state in enumerate((EngineState.DEAD, EngineState.LIVE)):
        started = now() + timedelta(seconds=number)
        add(rest.database, engine, {
            "incarnation": f"{number}", "id": "e", "host_name": "e", "version": "1", "slots": 100 + number,
            "free_slots": 40 + number, "state": state, "started_at": started, "beat_at": started,
        })  # fmt: skip
    samples = scrape(rest)
    assert (of(samples, "dispatcher_leads"), of(samples, "dispatcher_beats_total")) == (1, 7)
    assert (of(samples, "engine_slots", engine="e"), of(samples, "engine_free_slots", engine="e")) == (101, 41)
    assert by(samples, "engine_state", "state") == {"live": 1}


def test_without_the_database_it_answers_and_says_so(rest: Rest, tmp_path: Path) -> None:
    rest.submit("a")
    with away(rest.database, tmp_path):
        samples = scrape(rest)
    assert of(samples, "database_up") == 0
    assert of(samples, "requests_total", endpoint="/api/v1/distribute/adhoc/", method="POST", code="200") == 1
    assert {name for name, _ in samples} <= {
        "distribute_database_up", "distribute_requests_total", "distribute_requests_created",
    }  # fmt: skip
    assert of(scrape(rest), "database_up") == 1


def test_many_scrapes_ask_the_database_once(rest: Rest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "CACHE_SECONDS", 3600.0)
    asked: list[str] = []
    scrape(rest)

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        asked.append(statement)

    sa.event.listen(rest.database.engine, "before_cursor_execute", note)
    for _ in range(5):
        scrape(rest)
    sa.event.remove(rest.database.engine, "before_cursor_execute", note)
    assert asked == []


def test_it_needs_a_token_where_tokens_are_asked_for(database: Database, tmp_path: Path) -> None:
    token = tokens.add(tmp_path / "tokens", "prometheus", Role.READ, (), None)
    guarded = Rest(database, tokens_file=tmp_path / "tokens")
    assert guarded.call("GET", "metrics").status_code == 401
    assert of(scrape(guarded, Authorization=f"Bearer {token}"), "database_up") == 1
