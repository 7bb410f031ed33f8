"""The databases say of a host and a token's patterns what Python says of them."""

from __future__ import annotations

from contract.database import Database
from distribute import patterns
from distribute.store import queries
from tests.integration.rest import Rest, task_row
from tests.unit.distribute.test_patterns import FITS, HOSTS, random_hosts, random_patterns


class Stored:
    """Hosts of one task, asked for by patterns."""

    def __init__(self, database: Database, names: tuple[str, ...]) -> None:
        self._database = database
        self._key = task_row(database, Rest(database).submit(names)["task_id"]).key

    def fitting(self, *given: str) -> set[str]:
        rows = self._database.read(
            lambda connection: queries.results_of_task(connection, self._key, patterns=given, after_id=0, limit=9999)
        )
        return {row.host for row in rows}

    def has_others(self, *given: str) -> bool:
        return self._database.read(lambda connection: queries.has_other_hosts(connection, self._key, given))


def test_the_table_of_patterns_and_hosts_is_true_in_the_database_too(database: Database) -> None:
    stored = Stored(database, HOSTS)
    for pattern, fitting in FITS.items():
        assert stored.fitting(pattern) == fitting, pattern
        assert stored.has_others(pattern) == (fitting != set(HOSTS)), pattern
    assert stored.fitting("10.1.*", "web-?") == FITS["10.1.*"] | FITS["web-?"]
    assert stored.fitting() == set(HOSTS)
    assert not stored.has_others()


def test_a_token_may_have_thousands_of_patterns(database: Database) -> None:
    stored = Stored(database, HOSTS)
    others = tuple(f"web-{number}-*.some-where.example.org" for number in range(3000))
    assert stored.fitting(*others) == set()
    assert stored.fitting(*others, "10.1.*") == FITS["10.1.*"]
    assert stored.has_others(*others, "10.1.*")


def test_of_random_patterns_and_hosts_both_say_the_same(database: Database) -> None:
    names = random_hosts()
    stored = Stored(database, names)
    hits = 0
    for pattern in random_patterns():
        fitting = {name for name in names if patterns.fits((pattern,), name)}
        assert stored.fitting(pattern) == fitting, pattern
        hits += bool(fitting)
    assert hits > 50, f"only {hits} patterns fit one of {len(names)} hosts"
