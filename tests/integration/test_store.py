"""What the engine writes into the database, on SQLite and on MariaDB."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa

from contract import database as handle
from contract import units
from contract.config import (
    AnsibleSettings,
    Config,
    DatabaseSettings,
    DistributeSettings,
    EngineSettings,
    GitlabSettings,
    IntervalSettings,
    KafkaSettings,
    ZabbixSettings,
)
from contract.database import Database, now
from contract.errors import DatabaseAway, DatabaseConflict
from contract.states import EngineState, TaskState, UnitState
from contract.tables import engine, host_key, host_result, task, unit
from distribute.store import cancelling, queries
from execute_engine import results
from execute_engine.engine_row import EngineRow
from execute_engine.slots import Room
from execute_engine.store import TASKS_KEPT, Claimed, Left, NoRoom, Store
from execute_engine.unit import HostRow, NewHostKey
from tests.integration.published import OPTIONS, host_rows, publish, unit_row

ROOM = Room(200, alone=False, runner_free=True)
MINE, OTHER = "a" * 32, "b" * 32
TEXT = "größe 😀 \\ \" ' % :x \n\t\r"


@pytest.fixture
def config(database_settings: DatabaseSettings) -> Config:
    return Config(
        KafkaSettings(),
        database_settings,
        ZabbixSettings(),
        AnsibleSettings(ssh_user="ops", ssh_password="secret-1", ssh_port=2222),
        IntervalSettings(),
        DistributeSettings(),
        EngineSettings(engine_id="engine-1"),
        GitlabSettings(),
    )


@pytest.fixture
def store(database: Database, config: Config) -> Store:
    return Store(database, MINE, config)


@pytest.fixture
def row(database: Database) -> EngineRow:
    row = EngineRow(database, MINE, "engine-1")
    row.register(slots=100)
    return row


def claimed(store: Store, unit_id: int) -> Claimed:
    found = store.claim(unit_id, ROOM)
    assert isinstance(found, Claimed)
    return found


def value(database: Database, query: sa.Select[Any]) -> Any:
    return database.read(lambda connection: connection.execute(query).scalar_one())


def result(claim: Claimed, host: str, **values: Any) -> HostRow:
    fields = {"status": "success", "engine": "engine-1", **values}
    return HostRow(id=claim.row_ids[host], unit_id=claim.unit_id, attempt=1, **fields)


def change(database: Database, unit_id: int, **values: Any) -> None:
    database.write(lambda connection: connection.execute(sa.update(unit).where(unit.c.id == unit_id).values(values)))


# --- claims


def test_a_claim_takes_the_unit_and_starts_its_task(database: Database, store: Store, row: EngineRow) -> None:
    (unit_id,) = publish(database, [30])
    claim = claimed(store, unit_id)
    stored = unit_row(database, unit_id)
    assert (stored.state, stored.incarnation, stored.begun_at) == (UnitState.RUNNING, MINE, None)
    assert value(database, sa.select(task.c.state)) == TaskState.RUNNING
    assert value(database, sa.select(task.c.started_at)) is not None
    assert value(database, sa.select(engine.c.free_slots)) == 170
    assert claim.job is not None
    assert list(claim.job.hosts) == list(claim.row_ids) == [f"10.1.0.{n}" for n in range(1, 31)]


def test_the_job_has_what_the_task_says_and_the_keys_of_its_own_hosts(database: Database, store: Store) -> None:
    (first,) = publish(
        database,
        [2],
        args='{"src": "a"}',
        module="copy",
        timeout_seconds=17,
        options={**OPTIONS, "args_are_json": True, "become": True, "check": True, "strategies": ["free"]},
        playbook_content="- hosts: all",
    )
    seen = [("10.1.0.1", "ssh-rsa", "AAAA"), ("10.1.0.1", "ssh-ed25519", "CCCC"), ("10.9.9.9", "ssh-rsa", "BBBB")]
    store.add_host_keys([NewHostKey(*key) for key in seen])
    elsewhere = {"host": "10.1.0.2", "port": 22, "key_type": "ssh-rsa", "key": "DDDD", "engine": "e"}
    database.write(lambda connection: connection.execute(sa.insert(host_key).values(**elsewhere, first_seen_at=now())))
    claim = claimed(store, first)
    job = claim.job
    assert job is not None
    assert job.hosts == tuple(claim.row_ids) == ("10.1.0.1", "10.1.0.2")
    assert (job.args, job.module, job.timeout_seconds, job.attempt) == ({"src": "a"}, "copy", 17.0, 1)
    assert (job.become, job.check, job.template, job.strategies) == (True, True, False, ("free",))
    assert (job.ssh.user, job.ssh.port, job.ssh.password) == ("ops", 2222, "secret-1")
    assert job.host_keys == {"10.1.0.1": ("ssh-ed25519 CCCC", "ssh-rsa AAAA")}, "of its port alone"
    assert job.playbook_content == "- hosts: all"


@pytest.mark.parametrize("state", [s for s in UnitState if s != UnitState.PUBLISHED])
def test_only_a_published_unit_can_be_claimed(database: Database, store: Store, state: UnitState) -> None:
    (unit_id,) = publish(database, [3])
    change(database, unit_id, state=state, incarnation=OTHER if state == UnitState.RUNNING else None)
    assert store.claim(unit_id, ROOM) is None
    assert store.claim_oldest(ROOM) is None
    assert unit_row(database, unit_id).state == state


def test_a_unit_whose_task_is_to_end_is_not_claimed(database: Database, store: Store) -> None:
    (unit_id,) = publish(database, [1], cancelled_at=now(), state=TaskState.RUNNING)
    assert store.claim(unit_id, ROOM) is None


def test_an_unknown_unit_and_one_of_a_cancelled_task_are_not_claimed(database: Database, store: Store) -> None:
    (unit_id,) = publish(database, [3], state=TaskState.CANCELLED)
    assert store.claim(unit_id, ROOM) is None
    assert store.claim(unit_id + 1000, ROOM) is None
    assert unit_row(database, unit_id).state == UnitState.PUBLISHED


def test_a_unit_whose_end_is_still_on_its_way_is_not_claimed_again(database: Database, store: Store) -> None:
    """It may have been given back for us; then the end of the former attempt would be the end of the new one."""
    first, second = publish(database, [1, 1])
    found = store.claim_oldest(ROOM, frozenset([first]))
    assert isinstance(found, Claimed)
    assert found.unit_id == second
    assert store.claim(first, ROOM, frozenset([first])) is None
    assert not store.give_back(second, 2, list(found.row_ids.values()), 100), "of another attempt"
    assert unit_row(database, second).state == UnitState.RUNNING


def test_a_unit_without_room_is_left_to_others(database: Database, store: Store, row: EngineRow) -> None:
    (unit_id,) = publish(database, [3])
    assert store.claim(unit_id, Room(2, alone=False, runner_free=True)) == NoRoom(unit_id, 3)
    assert store.claim_oldest(Room(2, alone=False, runner_free=True)) == NoRoom(unit_id, 3)
    assert unit_row(database, unit_id).state == UnitState.PUBLISHED
    assert value(database, sa.select(engine.c.free_slots)) == 100
    assert isinstance(store.claim(unit_id, Room(2, alone=True, runner_free=True)), Claimed)


def test_the_oldest_unit_that_can_be_had_is_claimed(database: Database, store: Store) -> None:
    first, second, third = publish(database, [1, 1, 1])
    change(database, first, state=UnitState.RUNNING, incarnation=OTHER)
    for expected in (second, third):
        found = store.claim_oldest(ROOM)
        assert isinstance(found, Claimed)
        assert found.unit_id == expected
    assert store.claim_oldest(ROOM) is None


def test_a_patient_engine_takes_what_others_have_left_since_its_last_look(database: Database, store: Store) -> None:
    assert store.claim_oldest(ROOM, patient=True) is None
    first, second = publish(database, [1, 1])
    assert store.claim_oldest(ROOM, patient=True) == Left()
    change(database, first, state=UnitState.RUNNING, incarnation=OTHER)
    (third,) = publish(database, [1])
    found = store.claim_oldest(ROOM, patient=True)
    assert isinstance(found, Claimed)
    assert found.unit_id == second
    assert store.claim_oldest(ROOM, patient=True) == Left(), "the third is new"
    assert unit_row(database, third).state == UnitState.PUBLISHED


def test_a_claim_whose_answer_was_lost_is_ours_when_it_is_made_again(database: Database, store: Store) -> None:
    (unit_id,) = publish(database, [3])
    assert claimed(store, unit_id) == claimed(store, unit_id)
    store.begin(unit_id)
    assert store.claim(unit_id, ROOM) is None


def test_the_units_of_a_task_are_claimed_with_one_reading_of_it(database: Database, store: Store) -> None:
    first, second = publish(database, [2, 3], playbook_content="- hosts: all")
    statements: list[str] = []
    sa.event.listen(
        database.engine, "before_cursor_execute", lambda _c, _cursor, statement, *_: statements.append(statement)
    )
    jobs = [claimed(store, unit_id).job for unit_id in (first, second)]
    assert [job and (job.unit_id, len(job.hosts), job.playbook_content) for job in jobs] == [
        (first, 2, "- hosts: all"),
        (second, 3, "- hosts: all"),
    ]
    assert sum("playbook_content" in statement for statement in statements) == 1
    other_tasks = [publish(database, [1], playbook_content=f"# {number}")[0] for number in range(TASKS_KEPT + 1)]
    for number, unit_id in enumerate(other_tasks):
        job = claimed(store, unit_id).job
        assert job is not None
        assert job.playbook_content == f"# {number}"


def test_a_task_that_takes_the_key_of_a_deleted_one_is_read_anew(database: Database, store: Store) -> None:
    """SQLite gives the highest key again when its row is gone."""
    (unit_id,) = publish(database, [1], playbook_content="# the first")
    claimed(store, unit_id)
    for table in (host_result, unit, task):
        database.write(lambda connection, table=table: connection.execute(sa.delete(table)))  # type: ignore[misc]
    (unit_id,) = publish(database, [1], playbook_content="# the second")
    job = claimed(store, unit_id).job
    assert job is not None
    assert job.playbook_content == "# the second"


def test_a_unit_that_comes_back_between_look_and_claim_is_left_or_cannot(
    database_settings: DatabaseSettings, database: Database, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite has the write lock from the look on: nobody can give the unit another attempt in between."""
    monkeypatch.setattr(handle, "CONFLICT_SECONDS", 0)
    (unit_id,) = publish(database, [1])
    other = Database(database_settings, answer_timeout_seconds=0.1 if database.is_sqlite else 15)

    class SlowRoom(Room):
        def fits(self, hosts: int) -> bool:
            if database.is_sqlite:
                with pytest.raises(DatabaseConflict):
                    change(other, unit_id, attempt=2)
            else:
                change(other, unit_id, attempt=2)
            return super().fits(hosts)

    with contextlib.closing(other):
        claim = store.claim(unit_id, SlowRoom(200, alone=False, runner_free=True))
    if not database.is_sqlite:
        assert claim is None
        assert unit_row(database, unit_id).state == UnitState.PUBLISHED
        claim = claimed(store, unit_id)
    assert isinstance(claim, Claimed)
    assert claim.job is not None
    assert claim.job.attempt == unit_row(database, unit_id).attempt == (1 if database.is_sqlite else 2)


def test_of_many_engines_that_claim_at_once_one_gets_each_unit(
    database_settings: DatabaseSettings, database: Database, config: Config
) -> None:
    units = publish(database, [1] * 20)
    won: dict[str, list[int]] = {}

    def claim_all(incarnation: str) -> None:
        own = Database(database_settings)
        store = Store(own, incarnation, config)
        won[incarnation] = []
        while isinstance(found := store.claim_oldest(ROOM), Claimed):
            won[incarnation].append(found.unit_id)
        own.close()

    _at_once([lambda name=name: claim_all(name * 32) for name in "abcd"])  # type: ignore[misc]
    assert sorted(unit_id for ids in won.values() for unit_id in ids) == units
    for incarnation, ids in won.items():
        assert all(unit_row(database, unit_id).incarnation == incarnation for unit_id in ids)


@pytest.mark.parametrize("options", ["{}", "no json", "[]"])
def test_a_task_that_cannot_be_read_ends_with_a_reason(database: Database, store: Store, options: str) -> None:
    (unit_id,) = publish(database, [2])
    database.write(lambda connection: connection.execute(sa.text("UPDATE task SET options = :o"), {"o": options}))
    claim = claimed(store, unit_id)
    assert claim.job is None
    store.settle(unit_id, True, claim.unreadable)
    assert unit_row(database, unit_id).state == UnitState.FINISHED
    assert {(r.status, "cannot be read" in r.msg) for r in host_rows(database, unit_id)} == {("lost", True)}


def test_a_unit_begins_once_and_only_for_its_holder(database: Database, store: Store, config: Config) -> None:
    (unit_id,) = publish(database, [2])
    assert not store.begin(unit_id)
    claimed(store, unit_id)
    assert not Store(database, OTHER, config).begin(unit_id)
    assert store.begin(unit_id)
    begun_at = unit_row(database, unit_id).begun_at
    assert store.begin(unit_id)  # the answer to the first try was lost
    assert unit_row(database, unit_id).begun_at == begun_at


def test_what_was_not_begun_goes_back_and_what_was_does_not(database: Database, store: Store, row: EngineRow) -> None:
    first, second = publish(database, [2, 2])
    claimed(store, first)
    claimed(store, second)
    store.begin(second)
    assert store.hand_back(first, 98)
    assert not store.hand_back(second, 98)
    assert unit_row(database, first).state == UnitState.WAITING
    assert unit_row(database, second).state == UnitState.RUNNING
    assert value(database, sa.select(engine.c.free_slots)) == 98


# --- results


def test_every_value_comes_back_as_it_was_given(database: Database, store: Store) -> None:
    (unit_id,) = publish(database, [3])
    claim = claimed(store, unit_id)
    full = result(
        claim,
        "10.1.0.1",
        status="failed",
        rc=-9,
        changed=1,
        stdout=TEXT * 1000,
        stderr="",
        msg=TEXT,
        tasks_ok=3,
        tasks_total=4,
        stuck_task="ä" * 255,
        stage="connecting",
        since="2026-01-02 03:04:05.000006",
        blame=TEXT,
        stopped_on_host="unknown",
        started_at="2026-01-02 03:04:05.000000",
        finished_at="2026-01-02 03:04:06.999999",
        detail=json.dumps({"cmd": TEXT, "n": [1, None]}),
    )
    store.save([full, result(claim, "10.1.0.2")])
    first, second, third = host_rows(database, unit_id)
    for name in ("status", "rc", "stdout", "stderr", "msg", "tasks_ok", "tasks_total", "stuck_task", "stage", "blame"):
        assert getattr(first, name) == getattr(full, name), name
    assert (first.changed, first.stopped_on_host, first.engine) == (True, "unknown", "engine-1")
    assert first.since.isoformat(" ") == "2026-01-02 03:04:05.000006"
    assert first.finished_at.isoformat(" ") == "2026-01-02 03:04:06.999999"
    assert first.detail == {"cmd": TEXT, "n": [1, None]}
    assert (second.status, second.rc, second.changed, second.stdout, second.since) == (
        "success",
        None,
        None,
        None,
        None,
    )
    assert (third.status, third.engine) == ("queued", None)


def test_a_running_row_is_followed_by_its_result_and_never_the_other_way(database: Database, store: Store) -> None:
    (unit_id,) = publish(database, [1])
    claim = claimed(store, unit_id)
    running = result(claim, "10.1.0.1", status="running", stuck_task="a", since="2026-01-02 03:04:05.000000")
    store.save([running])
    (stored,) = host_rows(database, unit_id)
    assert (stored.status, stored.stuck_task) == ("running", "a")
    store.save([result(claim, "10.1.0.1", rc=0)])
    store.save([running])
    store.save([result(claim, "10.1.0.1", status="failed")])
    (stored,) = host_rows(database, unit_id)
    assert (stored.status, stored.stuck_task, stored.rc) == ("success", None, 0)


def test_a_batch_that_is_stored_again_changes_nothing(
    database: Database, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    (unit_id,) = publish(database, [2])
    claim = claimed(store, unit_id)
    batch = [result(claim, host) for host in claim.row_ids]
    store.save(batch)
    before = host_rows(database, unit_id)
    store.save(batch)
    assert host_rows(database, unit_id) == before
    assert "not stored" not in caplog.text
    store.save([replace(row, status="failed") for row in batch])
    assert caplog.text.count("a result was not stored") == 2
    assert host_rows(database, unit_id) == before


def test_results_of_a_unit_that_is_held_no_more_are_dropped(
    database: Database, store: Store, config: Config, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = publish(database, [1, 1])
    mine, taken = claimed(store, first), claimed(store, second)
    change(database, second, incarnation=OTHER)
    store.save([result(mine, "10.1.0.1"), result(taken, "10.2.0.1")])
    assert [r.status for r in host_rows(database, first)] == ["success"]
    assert [r.status for r in host_rows(database, second)] == ["queued"]
    assert "held no more" in caplog.text


def test_a_result_of_another_attempt_is_not_stored(database: Database, store: Store) -> None:
    (unit_id,) = publish(database, [1])
    claim = claimed(store, unit_id)
    store.save([replace(result(claim, "10.1.0.1"), attempt=2)])
    assert [r.status for r in host_rows(database, unit_id)] == ["queued"]


def test_a_row_that_the_database_refuses_costs_its_own_output_only(
    database: Database, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    trigger = "CREATE TRIGGER picky BEFORE UPDATE ON host_result FOR EACH ROW " + (
        "WHEN NEW.stdout = 'poison' BEGIN SELECT RAISE(ABORT, 'refused by a trigger'); END"
        if database.is_sqlite
        else "IF NEW.stdout = 'poison' THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'refused by a trigger'; END IF"
    )
    database.write(lambda connection: connection.exec_driver_sql(trigger))
    (unit_id,) = publish(database, [3])
    claim = claimed(store, unit_id)
    texts = dict(zip(claim.row_ids, ("a", "poison", "c"), strict=True))
    store.save([result(claim, host, stdout=text) for host, text in texts.items()])
    rows = host_rows(database, unit_id)
    assert [(r.status, r.stdout) for r in rows] == [("success", "a"), ("success", None), ("success", "c")]
    assert "could not be stored: " in rows[1].msg


def test_engines_that_store_at_once_do_not_lose_a_row(
    database_settings: DatabaseSettings, database: Database, config: Config
) -> None:
    def run(incarnation: str, unit_id: int) -> None:
        own = Database(database_settings)
        store = Store(own, incarnation, config)
        claim = claimed(store, unit_id)
        rows = [result(claim, host, stdout=TEXT) for host in claim.row_ids]
        for start in range(0, len(rows), 50):
            store.save(rows[start : start + 50])
        assert store.end(unit_id, 100)
        own.close()

    units = publish(database, [200] * 4)
    _at_once([lambda n=n, u=u: run(n * 32, u) for n, u in zip("abcd", units, strict=True)])  # type: ignore[misc]
    for unit_id in units:
        assert unit_row(database, unit_id).success == 200


def test_the_batch_statement_names_every_column_of_a_row() -> None:
    """A column that the statement forgets would stay NULL for ever."""
    for statement in results._UPDATES.values():
        for name in HostRow.__dataclass_fields__:
            if name not in ("id", "unit_id", "attempt"):
                assert f"{name} = v.{name}" in str(statement)


# --- the end, host keys, beats


def test_the_end_counts_the_results_and_frees_the_slots(database: Database, store: Store, row: EngineRow) -> None:
    (unit_id,) = publish(database, [3])
    claim = claimed(store, unit_id)
    store.begin(unit_id)
    statuses = dict(zip(claim.row_ids, ("success", "success", "timeout"), strict=True))
    store.save([result(claim, host, status=status) for host, status in statuses.items()])
    assert store.end(unit_id, 100)
    stored = unit_row(database, unit_id)
    assert (stored.state, stored.success, stored.timeout, stored.lost) == (UnitState.FINISHED, 2, 1, 0)
    assert value(database, sa.select(engine.c.free_slots)) == 100
    assert store.end(unit_id, 100)  # the answer was lost


def test_a_unit_with_an_open_host_ends_with_that_host_lost(database: Database, store: Store) -> None:
    (unit_id,) = publish(database, [2])
    claim = claimed(store, unit_id)
    store.save([result(claim, "10.1.0.1")])
    assert store.end(unit_id, 100)
    assert [r.status for r in host_rows(database, unit_id)] == ["success", "lost"]
    assert unit_row(database, unit_id).lost == 1


def test_a_unit_of_another_holder_is_not_ended(database: Database, store: Store) -> None:
    (unit_id,) = publish(database, [1])
    claim = claimed(store, unit_id)
    store.save([result(claim, "10.1.0.1")])
    change(database, unit_id, incarnation=OTHER)
    assert not store.end(unit_id, 100)
    assert unit_row(database, unit_id).state == UnitState.RUNNING


def test_a_known_host_key_is_not_overwritten(database: Database, store: Store) -> None:
    store.add_host_keys([NewHostKey("h", "ssh-rsa", "AAAA")])
    store.add_host_keys([NewHostKey("h", "ssh-rsa", "BBBB"), NewHostKey("h", "ssh-ed25519", "CCCC")])
    rows = database.read(lambda connection: connection.execute(sa.select(host_key).order_by(host_key.c.key)).all())
    assert [(r.host, r.port, r.key_type, r.key, r.engine) for r in rows] == [
        ("h", 2222, "ssh-rsa", "AAAA", "engine-1"),
        ("h", 2222, "ssh-ed25519", "CCCC", "engine-1"),
    ]


def test_a_beat_moves_and_shows_what_is_held(database: Database, store: Store, row: EngineRow) -> None:
    first, second = publish(database, [1, 1])
    claimed(store, first)
    claimed(store, second)
    store.begin(second)
    beat = row.beat(EngineState.DRAINING, 98, "nothing but time")
    assert beat.lives
    assert beat.held == {first: False, second: True}
    stored = database.read(lambda connection: connection.execute(sa.select(engine)).one())
    assert (stored.beat, stored.state, stored.free_slots, stored.missing) == (1, "draining", 98, "nothing but time")


def die(database: Database) -> None:
    """As the dispatcher does it with an incarnation that does not beat."""
    dead = sa.update(engine).where(engine.c.incarnation == MINE).values(state=EngineState.DEAD)
    database.write(lambda connection: connection.execute(dead))


def settle(database: Database, unit_id: int) -> None:
    database.write(lambda connection: units.settle(connection, unit_id, MINE, True, "No sign of life."))


def test_an_incarnation_that_was_taken_for_dead_comes_back_by_its_beat(database: Database, row: EngineRow) -> None:
    assert not row.beat(EngineState.LIVE, 1, None).revived
    die(database)
    beat = row.beat(EngineState.LIVE, 1, None)
    assert (beat.lives, beat.revived) == (True, True)
    assert value(database, sa.select(engine.c.state)) == EngineState.LIVE


def test_an_incarnation_with_a_successor_stays_dead(database: Database, row: EngineRow) -> None:
    die(database)
    EngineRow(database, OTHER, "engine-1").register(slots=100)
    assert not row.beat(EngineState.LIVE, 1, None).lives
    assert value(database, sa.select(engine.c.state).where(engine.c.incarnation == MINE)) == EngineState.DEAD


def test_a_late_result_takes_the_place_of_lost_and_of_nothing_else(
    database: Database, store: Store, row: EngineRow
) -> None:
    (unit_id,) = publish(database, [3])
    claim = claimed(store, unit_id)
    store.begin(unit_id)
    store.save([result(claim, "10.1.0.1", status="failed")])
    settle(database, unit_id)
    assert [r.status for r in host_rows(database, unit_id)] == ["failed", "lost", "lost"]
    assert store.settled_as_lost([unit_id]) == {unit_id}

    store.save([result(claim, "10.1.0.1"), result(claim, "10.1.0.2", stdout="the truth", blame=None)])
    store.save([result(claim, "10.1.0.2", status="failed"), result(claim, "10.1.0.3", status="running")])
    rows = host_rows(database, unit_id)
    assert [(r.status, bool(r.late)) for r in rows] == [("failed", False), ("success", True), ("lost", False)]
    assert (rows[1].stdout, rows[1].blame) == ("the truth", None)
    ended = unit_row(database, unit_id)
    assert (ended.state, ended.success, ended.failed, ended.lost) == (UnitState.FINISHED, 1, 1, 1)
    assert store.end(unit_id, 100), "it is ended, and was ours"


def test_what_may_run_again_goes_to_another_attempt_and_late_results_of_the_former_are_dropped(
    database: Database, store: Store, row: EngineRow
) -> None:
    (unit_id,) = publish(database, [2], options={**OPTIONS, "on_engine_loss": "rerun"})
    claim = claimed(store, unit_id)
    assert claim.job is not None
    assert claim.job.on_engine_loss == "rerun"
    store.begin(unit_id)
    store.save([result(claim, "10.1.0.1"), result(claim, "10.1.0.2", status="running", stuck_task="x")])
    settle(database, unit_id)
    back = unit_row(database, unit_id)
    assert (back.state, back.attempt, back.incarnation, back.begun_at) == (UnitState.WAITING, 2, None, None)
    rows = host_rows(database, unit_id)
    assert [(r.status, r.attempt, r.stuck_task) for r in rows] == [("success", 1, None), ("queued", 2, None)]

    assert store.save([result(claim, "10.1.0.2")]) == 1, "dropped: it is another's now"
    change(database, unit_id, state=UnitState.PUBLISHED)
    again = claimed(store, unit_id)
    assert again.job is not None
    assert (again.job.hosts, again.job.attempt) == (("10.1.0.2",), 2)
    assert store.save([result(claim, "10.1.0.2")]) == 0, "ours again, and of a former attempt: logged"
    assert [r.status for r in host_rows(database, unit_id)] == ["success", "queued"]


def test_the_third_attempt_is_the_last(database: Database, store: Store, row: EngineRow) -> None:
    (unit_id,) = publish(database, [1], options={**OPTIONS, "on_engine_loss": "rerun"})
    for _ in range(3):
        change(database, unit_id, state=UnitState.PUBLISHED)
        claimed(store, unit_id)
        store.begin(unit_id)
        settle(database, unit_id)
    (lost,) = host_rows(database, unit_id)
    assert (lost.status, lost.attempt, lost.msg) == ("lost", 3, "No sign of life. This was attempt 3 of 3.")
    assert unit_row(database, unit_id).state == UnitState.FINISHED


def test_of_a_unit_of_which_some_hosts_go_back_the_others_keep_their_results(
    database: Database, store: Store, row: EngineRow
) -> None:
    (unit_id,) = publish(database, [3])
    claim = claimed(store, unit_id)
    store.begin(unit_id)
    store.save([result(claim, "10.1.0.1"), result(claim, "10.1.0.2", status="lost", msg="killed by SIGSEGV")])
    assert store.give_back(unit_id, 1, [claim.row_ids["10.1.0.3"]], 100)
    assert not store.give_back(unit_id, 1, [claim.row_ids["10.1.0.3"]], 100), "it is not ours any more"
    assert [(r.status, r.attempt) for r in host_rows(database, unit_id)] == [
        ("success", 1),
        ("lost", 1),
        ("queued", 2),
    ]
    counts, _ = database.read(lambda connection: queries.progress(connection, unit_row(database, unit_id).task_key))
    assert {status: count for status, count in counts.items() if count} == {"success": 1, "lost": 1, "queued": 1}
    task_key = unit_row(database, unit_id).task_key
    database.write(lambda connection: cancelling.cancel(connection, task_key))
    ended = unit_row(database, unit_id)
    assert (ended.state, ended.success, ended.lost, ended.cancelled) == (UnitState.CANCELLED, 1, 1, 1)


def test_a_former_incarnation_is_declared_dead_and_its_units_settled(
    database: Database, store: Store, row: EngineRow
) -> None:
    first, second = publish(database, [1, 2])
    claimed(store, first)
    claim = claimed(store, second)
    store.begin(second)
    store.save([result(claim, "10.2.0.1")])
    later = EngineRow(database, OTHER, "engine-1")
    assert later.retire([MINE], "started again") == 2
    assert value(database, sa.select(engine.c.state)) == EngineState.DEAD
    assert unit_row(database, first).state == UnitState.WAITING
    assert [r.status for r in host_rows(database, second)] == ["success", "lost"]
    assert unit_row(database, second).state == UnitState.FINISHED


def test_twins_are_the_living_of_the_same_id_but_the_former(database: Database, row: EngineRow) -> None:
    later = EngineRow(database, OTHER, "engine-1")
    assert list(later.twins([])) == [MINE]
    assert list(later.twins([MINE])) == []
    assert list(EngineRow(database, OTHER, "engine-2").twins([])) == []
    row.beat(EngineState.STOPPED, 0, None)
    assert list(later.twins([])) == []


def test_an_absent_database_is_an_error_that_can_be_tried_again(config: Config) -> None:
    away = Database(DatabaseSettings(ip="127.0.0.1", port=1, user="nobody"))
    with pytest.raises(DatabaseAway):
        Store(away, MINE, config).claim_oldest(ROOM)


def test_a_row_registered_twice_is_one_row(database: Database, row: EngineRow) -> None:
    row.register(100)
    assert value(database, sa.select(sa.func.count()).select_from(engine)) == 1
    assert value(database, sa.select(engine.c.started_at)) <= now()
    assert value(database, sa.select(sa.func.count()).select_from(host_result)) == 0


def _at_once(works: list[Callable[[], None]]) -> None:
    """Run them in threads that start together; the first error of any is raised."""
    barrier = threading.Barrier(len(works))
    errors: list[BaseException] = []

    def run(work: Callable[[], None]) -> None:
        barrier.wait(60)
        try:
            work()
        except BaseException as exc:  # noqa: BLE001 - raised again below
            errors.append(exc)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    if errors:
        raise errors[0]
