"""Units that may read project files go to engines that see them, and hinder nobody else: on SQLite and on MariaDB."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from contract.config import Config, DatabaseSettings
from contract.database import Database
from contract.states import EngineState, UnitState
from contract.tables import engine, task, unit
from distribute import holding
from execute_engine.engine_row import EngineRow
from execute_engine.slots import Room
from execute_engine.store import CANDIDATES, Claimed, Store
from tests.integration.dispatching import (
    RememberingPublisher,
    add_engine,
    add_task,
    change,
    config_of,
    dispatch_rounds,
    nothing,
    units_in,
)
from tests.integration.published import publish, unit_row

MINE = "a" * 32
ROOM = Room(200, alone=False, runner_free=True)
PUBLISHED, WAITING, RUNNING = UnitState.PUBLISHED, UnitState.WAITING, UnitState.RUNNING


@pytest.fixture
def config(database_settings: DatabaseSettings) -> Config:
    return config_of(database_settings)


@pytest.fixture
def store(database: Database, config: Config) -> Store:
    return Store(database, MINE, config)


@pytest.fixture
def publisher() -> RememberingPublisher:
    return RememberingPublisher()


def need_files(database: Database, unit_ids: list[int]) -> list[int]:
    """The task of these units may read project files."""
    keys = sa.select(unit.c.task_key).where(unit.c.id.in_(unit_ids)).distinct()
    found = database.read(lambda connection: list(connection.scalars(keys)))
    wanted = sa.update(task).where(task.c.key.in_(found)).values(needs_files=True)
    database.write(lambda connection: connection.execute(wanted))
    return unit_ids


def see_files(database: Database, incarnation: str, sees: bool) -> None:
    mine = sa.update(engine).where(engine.c.incarnation == incarnation)
    database.write(lambda connection: connection.execute(mine.values(sees_files=sees)))


def test_an_engine_without_the_share_claims_what_needs_no_files(database: Database, store: Store) -> None:
    """However many that need them stand before it; those stay published."""
    needing = publish(database, [1] * (CANDIDATES + 2), needs_files=True)
    (plain,) = publish(database, [3])
    assert store.claim(needing[0], ROOM, with_files=False) is None
    assert store.claim(needing[0], Room(0, alone=False, runner_free=True), with_files=False) is None  # nor waited for
    found = store.claim_oldest(ROOM, with_files=False)
    assert isinstance(found, Claimed)
    assert found.unit_id == plain
    assert store.claim_oldest(ROOM, with_files=False) is None
    assert {unit_row(database, unit_id).state for unit_id in needing} == {PUBLISHED}
    found = store.claim_oldest(ROOM)
    assert isinstance(found, Claimed)
    assert found.unit_id == needing[0]


def test_an_engine_without_the_share_still_learns_of_a_claim_whose_answer_was_lost(
    database: Database, store: Store
) -> None:
    (unit_id,) = publish(database, [3], needs_files=True)
    assert isinstance(store.claim(unit_id, ROOM), Claimed)
    assert isinstance(store.claim(unit_id, ROOM, with_files=False), Claimed)


def test_a_row_says_with_each_beat_whether_the_engine_sees_files(database: Database) -> None:
    def sees() -> bool:
        return database.read(lambda connection: bool(connection.execute(sa.select(engine.c.sees_files)).scalar_one()))

    row = EngineRow(database, MINE, "engine-1")
    row.register(100)
    assert not sees()  # nothing is known yet
    row.beat(EngineState.LIVE, 100, None, sees_files=True)
    assert sees()
    row.beat(EngineState.LIVE, 100, None, sees_files=False)
    assert not sees()


def test_while_no_engine_sees_files_only_units_that_need_them_wait(
    database: Database, config: Config, publisher: RememberingPublisher
) -> None:
    see_files(database, add_engine(database, slots=60), False)
    see_files(database, add_engine(database, 60, EngineState.DRAINING, "engine-2"), True)
    needing = need_files(database, add_task(database, hosts=500, unit_hosts=30))
    plain = add_task(database, hosts=60, unit_hosts=30)
    dispatch_rounds(config, nothing, nothing, nothing, publisher=publisher)
    assert units_in(database, PUBLISHED) == plain
    assert units_in(database, WAITING) == needing
    assert publisher.sent_ids == plain


def test_what_was_published_is_taken_back_when_the_last_engine_loses_the_share(
    database: Database, config: Config, publisher: RememberingPublisher
) -> None:
    incarnation = add_engine(database, slots=90)
    plain = add_task(database, hosts=30, unit_hosts=30)
    needing = need_files(database, add_task(database, hosts=60, unit_hosts=30))
    dispatch_rounds(config, nothing, nothing, publisher=publisher)
    assert units_in(database, PUBLISHED) == [*plain, *needing]
    published_at = unit_row(database, plain[0]).published_at
    see_files(database, incarnation, False)
    plain += add_task(database, hosts=60, unit_hosts=30)
    dispatch_rounds(config, nothing, nothing, publisher=publisher)
    assert units_in(database, PUBLISHED) == plain
    assert units_in(database, WAITING) == needing
    assert unit_row(database, plain[0]).published_at == published_at  # nobody has touched it
    see_files(database, incarnation, True)
    change(database, plain, state=RUNNING, incarnation=incarnation)
    dispatch_rounds(config, nothing, nothing, publisher=publisher)
    assert units_in(database, PUBLISHED) == needing
    assert publisher.sent_ids[-2:] == needing


def test_units_that_need_files_are_counted_against_the_slots_of_those_who_see_them(
    database: Database, config: Config
) -> None:
    add_engine(database, slots=60)
    see_files(database, add_engine(database, 90, engine_id="engine-2"), False)
    needing = need_files(database, add_task(database, hosts=300, unit_hosts=30))
    plain = add_task(database, hosts=300, unit_hosts=30)
    dispatch_rounds(config, nothing, nothing)
    assert units_in(database, PUBLISHED) == [*needing[:2], *plain[:3]]


def test_a_task_that_waits_for_an_engine_with_the_share_says_so(database: Database) -> None:
    def sentence(needs_files: bool = True) -> str | None:
        return database.read(lambda connection: holding.sentence(connection, needs_files))

    assert "no live engine sees the project files" in str(sentence())
    incarnation = add_engine(database, slots=60)
    assert sentence() is None
    see_files(database, incarnation, False)
    assert "GET /engines/ says" in str(sentence())
    assert sentence(needs_files=False) is None
