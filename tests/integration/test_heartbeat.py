"""The engine's heartbeat process, as its supervisor starts it, against well and sick Zabbix servers."""

from __future__ import annotations

import selectors
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from contract import __version__
from contract.child import Child, KeptChild
from execute_engine.progress import Report
from tests.daemons import ROOT
from tests.servers.process import free_ports, wait_for
from tests.servers.trapper import (
    SICK,
    Serve,
    Values,
    drips,
    hangs,
    refuses,
    replies,
    takes,
)

FIGURES = {"slots": 60, "slots_used": 20, "units": 2, "database": 1, "kafka": 1, "spooled": 5}
SHOWN = {f"exec.engine.{name}": str(number) for name, number in FIGURES.items()}
HEARD_SECONDS = 10.0  # the supervisor has 30


class Engine:
    """A STATE_DIR in which progress is made as the test wants it, and the heartbeat as its supervisor's child."""

    def __init__(self, directory: Path, *ports: int) -> None:
        self.state_dir = directory / "state"
        self.state_dir.mkdir(parents=True, exist_ok=True)
        self.report = Report(self.state_dir, "i")
        self.finished = 0
        self.silent = {"database": 0.0, "kafka": 0.0}
        self._config = config = directory / "conf" / "server.conf"
        config.parent.mkdir(exist_ok=True)
        self.configure(self.state_dir, *ports)
        self.log_file = directory / "log"
        argv = ("sh", "-c", 'exec "$@" 2> "$0"', str(self.log_file), sys.executable, "-m", "execute_engine")
        child = Child("heartbeat", (*argv, "heartbeat", "--config", str(config)), 10)
        self.child = KeptChild(child, HEARD_SECONDS)
        self._selector = selectors.DefaultSelector()
        self.start()

    def start(self) -> None:
        self.lifeline = self.child.start()
        assert self.lifeline is not None
        self._selector.register(self.lifeline, selectors.EVENT_READ)

    def configure(self, state_dir: Path, *ports: int) -> None:
        addresses = ", ".join(f"127.0.0.1:{port}" for port in ports)
        self._config.write_text(
            f"[Zabbix]\nIP = {addresses}\nITEM = exec.ping\nHOST = engine-host\n"
            f"[Data_Send]\nZABBIX = 1\n[Exec_Engine]\nSTATE_DIR = {state_dir}\n"
        )

    def move(self) -> None:
        self.report.write(FIGURES, {"hosts_finished": self.finished}, self.silent)

    def hear(self) -> None:
        """What its supervisor does: it must have said something within HEARD_SECONDS."""
        assert self.lifeline is not None
        if self._selector.select(0):
            assert self.child.hear(self.lifeline), self.log
        assert self.child.is_heard, f"the heartbeat is silent: {self.log}"

    @property
    def log(self) -> str:
        return self.log_file.read_text()

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.child.send(number)
        code = wait_for("the end of the heartbeat", lambda: [code] if (code := self.child.reap()) is not None else [])
        if self.lifeline is not None:
            self._selector.unregister(self.lifeline)
            self.lifeline.close()
            self.lifeline = None
        return code[0]


Start = Callable[..., Engine]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    made: list[Engine] = []

    def start(*ports: int) -> Engine:
        made.append(Engine(tmp_path / str(len(made)), *ports))
        return made[-1]

    yield start
    for one in made:
        if one.child.is_running:
            one.end(signal.SIGKILL)


def moving(condition: Callable[[], object], *engines: Engine) -> Callable[[], bool]:
    """The condition, while the consumers of these engines move and their heartbeats are listened to."""

    def look() -> bool:
        for engine in engines:
            engine.move()
            engine.hear()
        return bool(condition())

    return look


def pings(received: list[Values]) -> list[str | None]:
    return [values.get("exec.ping") for values in received]


def test_it_beats_while_the_consumer_moves_and_says_so_when_it_does_not(serve: Serve, start: Start) -> None:
    server = serve(takes())
    engine = start(server.port)
    wait_for("a first beat that proves nothing", lambda: server.received)  # there is no consumer at all
    assert server.received[0] == {"exec.engine.consumer": "0", "exec.engine.version": __version__}
    engine.finished = 3
    wait_for("pings", moving(lambda: pings(server.received)[-3:] == ["1"] * 3, engine))
    working = {"exec.ping": "1", "exec.engine.consumer": "1", "exec.engine.version": __version__, **SHOWN}
    assert server.received[-1] == {**working, "exec.engine.hosts_finished": "0"}
    assert server.hosts == {"engine-host"}
    told = [values["exec.engine.hosts_finished"] for values in server.received if values.get("exec.ping")]
    assert sum(map(int, told)) == 3

    wait_for("the truth", lambda: server.received[-1].get("exec.engine.consumer") == "0")  # it stands still
    stuck = {"exec.engine.consumer": "0", "exec.engine.version": __version__, "exec.engine.hosts_finished": "0"}
    assert server.received[-1] == stuck  # no figure of long ago
    wait_for("pings again", moving(lambda: pings(server.received)[-1] == "1", engine))
    assert engine.end() == 0


def test_a_reload_changes_where_it_sends_and_not_whom_it_watches(serve: Serve, start: Start, tmp_path: Path) -> None:
    """STATE_DIR waits for a restart, of the consumer as well."""
    former, present = serve(hangs), serve(takes())
    engine = start(former.port)
    engine.finished = 3
    wait_for("a beat", moving(lambda: former.received, engine))
    engine.configure(tmp_path / "elsewhere", present.port)
    engine.child.have_read_again()
    wait_for("beats at the other one", moving(lambda: len(present.received) >= 3, engine))
    assert set(pings(present.received)) == {"1"}
    assert sum(int(values["exec.engine.hosts_finished"]) for values in present.received) == 3
    assert engine.end() == 0


@pytest.mark.parametrize("thread", ["database", "kafka"])
def test_a_thread_that_does_not_come_back_ends_the_pings_though_the_loop_turns(
    serve: Serve, start: Start, thread: str
) -> None:
    server = serve(takes())
    engine = start(server.port)
    engine.silent[thread] = 19.0
    wait_for("a ping", moving(lambda: "1" in pings(server.received), engine))
    engine.silent[thread] = 21.0
    wait_for("the truth", moving(lambda: server.received[-1]["exec.engine.consumer"] == "0", engine))
    last = server.received[-1]
    assert "exec.ping" not in last
    assert f"exec.engine.{thread}" not in last  # nobody knows
    assert last["exec.engine.slots"] == "60"  # and this is true
    assert engine.end() == 0


def test_what_is_counted_while_zabbix_is_away_and_the_heartbeat_dies_is_told_once(serve: Serve, start: Start) -> None:
    server = serve(takes())
    engine = start(server.port)

    def told() -> int:
        return sum(int(values.get("exec.engine.hosts_finished", 0)) for values in taken)

    taken: list[Values] = []

    def takes_them(connection: object, values: Values) -> None:
        taken.append(values)
        takes()(connection, values)  # type: ignore[arg-type]

    server.answer = replies(b"")
    engine.finished = 5
    wait_for("beats that fail", moving(lambda: len(server.received) >= 3, engine))
    server.answer = takes_them
    engine.finished = 8
    wait_for("all of them", moving(lambda: told() == 8, engine))
    beats = len(taken)
    wait_for("more beats", moving(lambda: len(taken) >= beats + 2, engine))
    engine.end(signal.SIGKILL)
    engine.finished = 10
    engine.move()
    engine.report = Report(engine.state_dir, "next")  # meanwhile a new consumer began
    engine.start()
    wait_for("what the former one left", lambda: engine.hear() or told() == 10)
    engine.finished = 4
    wait_for("all of them", moving(lambda: told() >= 14, engine))
    beats = len(taken)
    wait_for("more beats", moving(lambda: len(taken) >= beats + 2, engine))
    assert told() == 14
    assert engine.end() == 0


def test_restarts_are_told_once_whatever_beats_are_lost_and_whoever_is_restarted(serve: Serve, start: Start) -> None:
    server = serve(hangs)
    engine = start(server.port)
    taken: list[Values] = []

    def takes_them(connection: object, values: Values) -> None:
        taken.append(values)
        takes()(connection, values)  # type: ignore[arg-type]

    def told() -> int:
        return sum(int(values.get("exec.engine.restarts", 0)) for values in taken)

    def is_told(number: int) -> bool:
        return told() == number and taken[-1]["exec.engine.restarts"] == "0"

    engine.child.tell_restarts("run", 0)
    engine.child.tell_restarts("run", 2)
    wait_for("a beat that fails", moving(lambda: server.received, engine))
    assert server.received[-1]["exec.engine.restarts"] == "2"
    engine.end()  # and the service with it, before Zabbix has heard of any
    engine.start()
    engine.child.tell_restarts("later", 0)
    server.answer = takes_them
    wait_for("those of the run before", moving(lambda: is_told(2), engine))
    engine.end(signal.SIGKILL)
    engine.start()
    engine.child.tell_restarts("later", 1)  # this process
    wait_for("one more", moving(lambda: is_told(3), engine))
    assert engine.end() == 0


def test_whatever_ails_zabbix_the_supervisor_hears_the_heartbeat_and_the_log_says_it_once(
    serve: Serve, start: Start
) -> None:
    """All at once, because each of them takes as long as it is waited for."""
    (absent,) = free_ports(1)
    answers = {"silent": hangs, "byte by byte": drips, "garbage": SICK["no Zabbix"], "torn": SICK["half an answer"]}
    servers = {kind: serve(answer) for kind, answer in answers.items()}
    tested = {kind: start(server.port) for kind, server in servers.items()}
    tested["absent"] = start(absent)
    tested["three that hang"] = start(*(serve(hangs).port for _ in range(3)))
    tested["one that hangs, one that is well"] = start(serve(hangs).port, (well := serve(takes())).port)
    tested["refuses"] = start(serve(refuses).port)
    late = serve(takes(after_seconds=5))
    tested["late"] = start(late.port)
    complaint = "the heartbeat was not taken"
    ill = [engine for kind, engine in tested.items() if kind not in ("late", "one that hangs, one that is well")]

    def done() -> bool:
        return all(complaint in engine.log for engine in ill) and len(late.received) >= 2 and len(well.received) >= 3

    wait_for("what ails each", moving(done, *tested.values()), 60)
    assert "1" in pings(well.received)
    for kind, engine in tested.items():
        assert engine.log.count(complaint) == (engine in ill), (kind, engine.log)
    for kind, engine in tested.items():
        begun = time.monotonic()
        assert engine.end() == 0, kind
        assert time.monotonic() - begun < HEARD_SECONDS, kind  # a beat on its way does not hold up the end
