"""Launching units of the misbehaving runner and watching their processes; also a consumer of its own to be killed.

`python -m tests.runners.units STATE_DIR INCARNATION BEHAVIOUR...` launches a unit for each behaviour, prints
{"launcher": pid, "guards": [pid, ...]} when all are up, and then only sleeps.
"""

from __future__ import annotations

import json
import os
import select
import sys
import time
from pathlib import Path

from contract import processes
from execute_engine import former, sweep
from execute_engine.events import Decoder, encode
from execute_engine.job import Job, SshSettings
from execute_engine.launcher_client import LauncherClient, UnitEnd, UnitProcess

RUNNER = "tests.runners.misbehaving"
PATIENCE_SECONDS = 120.0

Process = tuple[int, int]  # pid and start time


def job(behaviour: str, unit_id: int = 1, timeout_seconds: float = 600.0, memory_bytes: int = 2 * 10**9) -> Job:
    ssh = SshSettings("nobody", 22, "", "", "", "no")
    return Job(
        unit_id=unit_id,
        task_id="t",
        type="adhoc",
        attempt=1,
        hosts=("192.0.2.1",),
        timeout_seconds=timeout_seconds,
        engine_id="e",
        ssh=ssh,
        host_keys={},
        connection="asyncssh",
        workers="threads",
        python_interpreter="/usr/bin/python3",
        files_dir="/mnt",
        vault_password_file="",
        become=None,
        check=False,
        module=behaviour,
        memory_bytes=memory_bytes,
    )


def begin(client: LauncherClient, what: Job) -> UnitProcess:
    """Launch, hand over the Job, wait for the runner's first event."""
    unit = client.launch(what)
    unit.events.sendall(encode(what.to_json()))
    assert texts(unit, 1) == ["up"]
    return unit


def texts(unit: UnitProcess, count: int | None = None) -> list[str]:
    """The texts of the runner's next events: count of them, or all until EOF."""
    decoder = Decoder()
    found: list[str] = []
    deadline = time.monotonic() + PATIENCE_SECONDS
    while count is None or len(found) < count:
        assert select.select([unit.events], [], [], deadline - time.monotonic())[0], f"{found} and then nothing"
        data = unit.events.recv(65536)
        if not data:
            break
        found += [str(event["text"]) for event in decoder.feed(data)]
    return found[:count]


def wait_for_ends(client: LauncherClient, count: int) -> dict[int, UnitEnd]:
    """Call collect() as a consumer does until so many units have ended."""
    ends: dict[int, UnitEnd] = {}
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        ends |= {end.unit_id: end for end in client.collect()}
        if len(ends) >= count:
            return ends
        assert time.monotonic() < deadline, f"only {ends} ended"
        select.select(client.sockets(), [], [], 0.2)


def below(*roots: int) -> set[int]:
    return sweep.strike_descendants(roots, kill=lambda pid: None)


def family(incarnation: str, *roots: int) -> set[Process]:
    """Every living process of a launcher: by the mark, and by descent from the roots."""
    pids = former.of_incarnation(incarnation) | set(roots)
    pids |= below(*pids)
    starts = {pid: processes.start_time(pid) for pid in pids}
    return {(pid, start) for pid, start in starts.items() if start is not None}


def wait_until_gone(former_family: set[Process]) -> float:
    """Until none of them lives; returns how many seconds it took."""
    begun = time.monotonic()
    while living := {(pid, start) for pid, start in former_family if processes.start_time(pid) == start}:
        assert time.monotonic() - begun < PATIENCE_SECONDS, f"still there: {sorted(living)}"
        time.sleep(0.01)
    return time.monotonic() - begun


def main(state_dir: str, incarnation: str, *behaviours: str) -> None:
    client = LauncherClient(state_dir=Path(state_dir), incarnation=incarnation, runner=RUNNER)
    client.start()
    units = [begin(client, job(behaviour, number)) for number, behaviour in enumerate(behaviours)]
    launcher = processes.marked(former.INCARNATION, lambda value: value == incarnation)
    print(json.dumps({"launcher": min(launcher), "guards": [unit.guard_pid for unit in units]}), flush=True)
    while os.getppid() > 1:
        time.sleep(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
