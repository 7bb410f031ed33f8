"""Every statement of both services finds its rows by an index: MariaDB explains each, with history in the tables."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from types import FrameType
from typing import Any

import pytest
import sqlalchemy as sa

from contract import tables, units
from contract.config import DatabaseSettings
from contract.database import Database, now
from contract.states import CloneState, EngineState, HostStatus, TaskState, UnitState
from contract.tables import task, unit
from distribute.store import audit, cancelling, clone_jobs, dispatch, figures, holding, projects, queries, retention
from distribute.store.dispatch import Leader
from distribute.store.submission import NewTask, submit
from execute_engine import engine_row
from execute_engine import store as engine_store
from execute_engine.slots import Room
from execute_engine.unit import HostRow, NewHostKey
from tests.integration.dispatching import add_engine, add_task, change, config_of
from tests.integration.published import OPTIONS

ENDED_TASKS, UNITS, HOSTS = 300, 10, 10  # of each ended task: units; of each unit: hosts
LARGE = ("task", "unit", "host_result", "host_key", "audit")  # the others have a row for each engine or project
STORES = (audit, cancelling, clone_jobs, dispatch, figures, holding, projects, queries, retention, units)
HISTORY = f"""
INSERT INTO task (id, name, type, module, timeout_seconds, options, warnings, request_hash, submitted_by, state,
                  host_count, unit_count, created_at, finished_at)
  SELECT CONCAT('old-', seq), 'old', 'adhoc', 'shell', 60, '{{}}', '[]', '', 'somebody', 'finished',
         {UNITS * HOSTS}, {UNITS}, NOW(6), NOW(6) FROM seq_1_to_{ENDED_TASKS};
INSERT INTO unit (task_key, number, state, incarnation, host_count, success)
  SELECT `key`, seq, 'finished', MD5(`key` MOD 50), {HOSTS}, {HOSTS} FROM task JOIN seq_1_to_{UNITS};
INSERT INTO host_result (task_key, unit_id, host, status)
  SELECT task_key, id, CONCAT('10.', number, '.0.', seq), 'success' FROM unit JOIN seq_1_to_{HOSTS};
INSERT INTO host_key (host, port, key_type, `key`, first_seen_at, engine)
  SELECT CONCAT('10.1.0.', seq), 22, 'ssh-ed25519', 'AAAA', NOW(6), 'engine-1' FROM seq_1_to_5000;
INSERT INTO audit (at, who, address, action, target, code, msg)
  SELECT NOW(6), CONCAT('token-', seq MOD 20), '127.0.0.1', 'submit', CONCAT('old-', seq), 200, '' FROM seq_1_to_5000;
"""
INSERTS = {"add", "add_leader_row", "hold"}  # nothing is looked for
ANALYZE = ", ".join(table.name for table in tables.metadata.sorted_tables)


class Plans:
    """What MariaDB would do for each statement while listening; functions: the store's, of which one was seen."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._busy = False
        self.explained: dict[str, list[sa.RowMapping]] = {}
        self.functions: set[tuple[str, str]] = set()

    @contextmanager
    def listening(self) -> Iterator[None]:
        sa.event.listen(self.database.engine, "before_cursor_execute", self._explain)
        try:
            yield
        finally:
            sa.event.remove(self.database.engine, "before_cursor_execute", self._explain)

    def scans(self) -> list[str]:
        """Statements that read a large table from one end to the other."""
        return [
            f"{plan['type']} {plan['table']}, {plan['rows']} rows: {statement}"
            for statement, plans in self.explained.items()
            for plan in plans
            if _table(plan["table"], statement) in LARGE and _is_scan(plan, statement)
        ]

    def _explain(self, connection: sa.Connection, _: object, statement: str, parameters: Any, *more: object) -> None:
        if self._busy or not re.match("SELECT|UPDATE|DELETE|INSERT.*SELECT", statement, re.DOTALL):
            return
        frame: FrameType | None = sys._getframe()
        while frame is not None:
            self.functions.add((str(frame.f_globals.get("__name__")), frame.f_code.co_name))
            frame = frame.f_back
        if isinstance(parameters, (list, tuple)) and parameters and isinstance(parameters[0], (tuple, dict)):
            parameters = parameters[0]  # of an executemany
        self._busy = True
        try:
            found = connection.exec_driver_sql(f"EXPLAIN {statement}", parameters).mappings().all()
        finally:
            self._busy = False
        self.explained.setdefault(statement, []).extend(found)


def _table(name: str | None, statement: str) -> str | None:
    """EXPLAIN names a table by its alias."""
    found = name and re.search(rf"\b(\w+) AS {re.escape(name)}\b", statement)
    return found[1] if found else name


def _is_scan(plan: sa.RowMapping, statement: str) -> bool:
    """A walk along an index is one too, where no LIMIT ends it."""
    return plan["type"] == "ALL" or (plan["type"] == "index" and "LIMIT" not in statement)


@pytest.fixture
def plans(mariadb_settings: DatabaseSettings) -> Iterator[Plans]:
    database = Database(mariadb_settings)
    database.write(lambda connection: [connection.exec_driver_sql(text) for text in HISTORY.split(";\n") if text])
    yield Plans(database)
    database.close()


def test_no_statement_reads_a_whole_table(mariadb_settings: DatabaseSettings, plans: Plans) -> None:
    database = plans.database
    first = add_task(database, 40, unit_hosts=2)
    second = add_task(database, 40, unit_hosts=2)
    mine, dead = add_engine(database, 100), add_engine(database, 100, engine_id="engine-2")
    database.write(lambda connection: dispatch.publish(connection, [*first, *second[:10]]))
    database.write(lambda connection: connection.exec_driver_sql(f"ANALYZE TABLE {ANALYZE}").close())
    with plans.listening():
        engine_side(database, mariadb_settings, first, mine)
        distribute_side(database, second, dead)
    missing = {
        (module.__name__, name)
        for module in STORES
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if function.__module__ == module.__name__
        and "connection" in inspect.signature(function).parameters
        and not name.startswith("_")
    } - plans.functions
    assert {name for _, name in missing} == INSERTS, "functions of the store that were not called here"
    assert len(plans.explained) > 60
    assert not plans.scans(), "\n".join(plans.scans())


def engine_side(database: Database, settings: DatabaseSettings, unit_ids: list[int], incarnation: str) -> None:
    """Everything of execute_engine/store.py, and the units' other ends."""
    store = engine_store.Store(database, incarnation, config_of(settings))
    row = engine_row.EngineRow(database, incarnation, "engine-1")
    room = Room(100, alone=True, runner_free=True)
    claimed = [store.claim(unit_id, room) for unit_id in unit_ids[:8]]
    row_ids = []
    for each in claimed:
        assert isinstance(each, engine_store.Claimed)
        row_ids.append(list(each.row_ids.values()))
        assert store.begin(each.unit_id)
    assert store.claim_oldest(room)
    assert store.claim_oldest(room, with_files=False)
    row.beat(EngineState.LIVE, 3, None)
    row.twins([])
    row.resize(200)
    store.add_host_keys([NewHostKey("10.0.0.1", "ssh-ed25519", "AAAA")])
    assert store.stop_requests() == []
    store.others_unreachable()
    finals = [host_row(id_, unit_ids[0]) for id_ in row_ids[0]]
    assert store.save(finals) == 0
    assert store.save(finals) == 0  # explained: the answer was lost
    assert store.end(unit_ids[0], 100)
    assert store.end(unit_ids[1], 100)  # settles what has no result
    assert store.save([host_row(id_, unit_ids[1]) for id_ in row_ids[1]]) == 0  # late
    assert store.settled_as_lost([unit_ids[1]]) == {unit_ids[1]}
    assert store.give_back(unit_ids[2], 1, row_ids[2], 100)
    store.settle(unit_ids[3], True, "why")
    store.hand_back(unit_ids[4], 100)
    database.write(lambda c: units.give_back(c, unit_ids[5], incarnation, 1))


def host_row(id_: int, unit_id: int) -> HostRow:
    return HostRow(id_, unit_id, 1, HostStatus.SUCCESS, "engine-1", stdout="hello", detail="{}")


def distribute_side(database: Database, unit_ids: list[int], dead: str) -> None:
    """Everything of distribute/store."""
    read, write = database.read, database.write
    key = read(lambda c: c.scalar(sa.select(unit.c.task_key).where(unit.c.id == unit_ids[0])))
    old_key = read(lambda c: c.scalar(sa.select(task.c.key).where(task.c.id == "old-7")))
    task_id = read(lambda c: c.scalar(sa.select(task.c.id).where(task.c.key == key)))
    assert key is not None
    assert old_key is not None
    assert task_id is not None
    write(dispatch.add_leader_row)
    assert write(lambda c: dispatch.take_over(c, Leader("", 0), "me"))
    assert write(lambda c: dispatch.beat(c, "me"))
    read(dispatch.leader_row)
    for look in (dispatch.glance, dispatch.backlog, dispatch.waiting_task_keys, dispatch.published_messages):
        read(look)
    read(lambda c: dispatch.waiting_task_keys(c, False))
    read(lambda c: dispatch.waiting_tasks(c, [key]))
    read(lambda c: dispatch.waiting_units(c, [key, old_key], 5))
    write(lambda c: dispatch.publish(c, unit_ids[10:12]))
    write(lambda c: dispatch.retract(c, True))
    write(dispatch.retract)
    write(
        lambda c: c.execute(sa.update(unit).where(unit.c.id == unit_ids[0]).values(state="running", incarnation=dead))
    )
    read(dispatch.free_slots)
    read(dispatch.live_engines)
    assert write(lambda c: dispatch.declare_dead(c, dead, 0))
    write(lambda c: dispatch.is_gone(c, dead))
    assert read(dispatch.units_of_gone_engines)
    write(dispatch.finish_tasks)
    write(lambda c: dispatch.resign(c, "me"))
    moment = now()
    read(lambda c: figures.figures(c, moment))
    queried(database, task_id, key, old_key)
    for which in ({"who": "token-3"}, {"target": "old-3"}, {"before_id": 100}):
        given: dict[str, Any] = {"who": None, "action": None, "target": None, "before_id": None, **which}
        read(lambda c: audit.deeds(c, limit=10, **given))  # noqa: B023
    kept(database)
    assert write(lambda c: cancelling.cancel(c, key))
    change(database, unit_ids[3:4], state=UnitState.WAITING)
    write(dispatch.end_cancelled)
    later = moment + timedelta(days=1)
    expired = read(lambda c: retention.oldest_expired(c, later, later))
    assert expired is not None
    while not write(lambda c: retention.delete_some(c, expired.key, later, 60)):
        pass


def queried(database: Database, task_id: str, key: int, old_key: int) -> None:
    read = database.read
    new = NewTask("new", "n", "adhoc", 60, OPTIONS, [], "", ("10.9.9.9", "10.9.9.8"), 1, "somebody")
    database.write(lambda c: submit(c, new))
    assert read(lambda c: queries.find_task(c, task_id))
    for state in (None, str(TaskState.QUEUED)):
        read(lambda c: queries.tasks(c, state=state, type_="adhoc", before_key=10_000, limit=20))  # noqa: B023
    found = read(lambda c: queries.results_of_task(c, old_key, patterns=[], after_id=5, limit=50))
    read(lambda c: queries.results_of_task(c, old_key, patterns=["10.*"], after_id=5, limit=50))
    assert read(lambda c: queries.tasks_of(c, found))
    read(lambda c: queries.results_of_host(c, "10.1.0.1", "adhoc", before_id=10_000, limit=20))
    assert read(lambda c: queries.newest_results(c, ["10.1.0.1", "10.2.0.2"], "adhoc"))
    for status in (None, str(HostStatus.SUCCESS)):
        for after in (None, (now(), 5), (None, 5)):
            read(lambda c: queries.hosts_of_task(c, old_key, status=status, patterns=[], after=after, limit=100))  # noqa: B023
    read(lambda c: queries.has_other_hosts(c, old_key, ["10.1.*"]))
    read(lambda c: queries.progress(c, key))
    read(queries.open_progress)
    read(queries.hold)
    read(queries.sees_files)
    read(lambda c: queries.hosts_with_status(c, old_key, ["failed"]))
    read(lambda c: queries.playbook_content(c, key))
    read(queries.engines)


def kept(database: Database) -> None:
    """Holds, projects and clones."""
    read, write = database.read, database.write
    write(lambda c: holding.hold(c, "me"))
    write(holding.release)
    for version in ("a" * 40, "b" * 40):
        write(lambda c: projects.put(c, "web", "ops", "main", version, 3, 100))  # noqa: B023
    for look in (projects.shown, projects.current, projects.versions, projects.needed):
        read(look)
    read(lambda c: projects.find(c, "web"))
    read(lambda c: projects.neighbours(c, "web/a"))
    write(lambda c: projects.version_of(c, "web", "main"))
    write(lambda c: projects.forget_version(c, "web", "a" * 40))
    write(lambda c: projects.remove(c, "web"))
    write(lambda c: clone_jobs.add(c, "j" * 32, "web", "me"))
    write(lambda c: clone_jobs.progress(c, "j" * 32, {"percent": 1}))
    write(lambda c: clone_jobs.end(c, "j" * 32, CloneState.READY, {}))
    read(lambda c: clone_jobs.find(c, "j" * 32))
