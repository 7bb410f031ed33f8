"""The heartbeat process: it tells Zabbix how this distribute is, and that it works only while that is proven."""

from __future__ import annotations

import http.client
import select
import signal
import time
from contextlib import suppress
from pathlib import Path

import sqlalchemy as sa

from contract import __version__, heartbeat, signals
from contract import config as configuration
from contract.config import Config, DistributeSettings
from contract.database import Database, now
from contract.errors import DatabaseError
from contract.heartbeat import Courier, Debt, Watch
from contract.signals import Caught
from contract.states import TaskState, UnitState
from contract.supervised import Lifeline
from distribute import leadership, metrics, run_folder
from distribute.store import dispatch, figures
from distribute.store.dispatch import Leader
from distribute.store.figures import Figures

KEY = "exec.distribute.{}"
LOOK_SECONDS = 0.5
ANSWER_SECONDS = 5.0  # the web's, and the database's to one statement
LEAST_PATIENCE_SECONDS = leadership.TAKEOVER_SECONDS[1] + 2 * leadership.BEAT_SECONDS  # a new leader may have to come
NOT_TAKEN = (UnitState.WAITING, UnitState.PUBLISHED)  # by an engine
_LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # nosec B104 - who listens everywhere is asked here


def run(config: Config, lifeline: Lifeline) -> int:
    """Send until SIGTERM or SIGINT; returns the exit code."""
    folder, wanted = run_folder.take(), config
    with signals.caught(signal.SIGTERM, signal.SIGINT) as caught:
        lifeline.ready()
        while (changed := _beat(wanted, lifeline, caught, folder)) is not None:
            wanted = changed
    run_folder.leave(folder)
    return 0


def _beat(config: Config, lifeline: Lifeline, caught: Caught, folder: Path) -> Config | None:
    """Until a stop signal comes: None; or until a reload changes what is sent, where to or when: with that one then."""
    courier, debt, sight = Courier(config.zabbix), Debt(folder / "heartbeat"), Sight(config, folder)
    due_at = time.monotonic()

    def gather() -> dict[str, object]:
        values = sight.values()
        if (errors := metrics.server_errors(folder)) is not None:
            debt.look(folder.name, {KEY.format("errors"): errors})
        return {**values, **debt.values()}

    while not caught.take():
        lifeline.alive()
        if (fresh := heartbeat.changed(lifeline, config, configuration.DISTRIBUTE)) is not None:
            sight.close()
            return fresh
        if (delivery := courier.delivery()) is not None:
            debt.paid(delivery.taken)
            lifeline.status("; ".join(filter(None, (sight.problem, courier.problem))) or "sends to Zabbix")
        if courier.idle and time.monotonic() >= due_at:
            due_at = time.monotonic() + config.intervals.zabbix
            courier.send(gather)
        select.select([caught], [], [], LOOK_SECONDS)
    return None


class Sight:
    """What one look at the web and at the database shows; for one thread, which it makes wait."""

    def __init__(self, config: Config, folder: Path) -> None:
        """folder: of the run; the leading dispatcher's name begins with its name."""
        self._settings = config.distribute
        self._database = Database(config.database, answer_timeout_seconds=ANSWER_SECONDS, pool_size=1)
        self._watch = Watch(max(2.0 * config.intervals.zabbix, LEAST_PATIENCE_SECONDS))
        self._run = folder.name
        self.problem = ""  # why it is not proven that this distribute works

    def values(self) -> dict[str, object]:
        """By key. Blocks while the database and the web answer, and the first time until it is known whether the
        leader's beat moves: the patience at most."""
        leader, found = self._read()
        while (moves := self._watch.moves(time.monotonic())) is None:
            time.sleep(LOOK_SECONDS)
            leader, found = self._read()
        values: dict[str, object] = {KEY.format("version"): __version__}
        if found is not None:
            ours = leader is not None and leader.holder.startswith(f"{self._run}/")
            values[KEY.format("leader")] = int(moves and ours)
            values |= {KEY.format(name): number for name, number in _figures(found).items()}
        self.problem = _problem(_web_answers(self._settings), found is not None, moves)
        return values if self.problem else {KEY.format("ping"): 1, **values}

    def close(self) -> None:
        """What a look that is under way still holds is closed with its end."""
        self._database.close()

    def _read(self) -> tuple[Leader | None, Figures | None]:
        def read(connection: sa.Connection) -> tuple[Leader | None, Figures]:
            return dispatch.leader_row(connection), figures.figures(connection, now())

        leader, found = None, None
        with suppress(DatabaseError):  # the web and the dispatcher log it
            leader, found = self._database.read(read)
        self._watch.look(leader and leader.holder and leader, time.monotonic())
        return leader, found


def _figures(found: Figures) -> dict[str, int]:
    return {
        "tasks_queued": found.tasks[TaskState.QUEUED],
        "tasks_running": found.tasks[TaskState.RUNNING],
        "units_waiting": sum(found.units.get(state, 0) for state in NOT_TAKEN),
        "oldest_unit_seconds": int(max(found.ages[state] for state in NOT_TAKEN)),
    }


def _problem(web_answers: bool, database_answers: bool, leader_moves: bool) -> str:
    problems = (
        "" if web_answers else f"the web does not answer /healthz within {ANSWER_SECONDS:g} s",
        "" if database_answers else "the database does not answer",
        "" if leader_moves or not database_answers else "no dispatcher leads",
    )
    return "; ".join(filter(None, problems))


def _web_answers(settings: DistributeSettings) -> bool:
    host = _LOOPBACK.get(settings.host, settings.host)
    connection = http.client.HTTPConnection(host, settings.port, timeout=ANSWER_SECONDS)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
