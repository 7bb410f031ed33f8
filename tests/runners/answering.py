"""A runner without Ansible: it reads the Job and does with each host what the task's args say, one word each.

ok            success at once
after:N       success after N seconds, told as a slow host is
hang          starts and never ends
die           the first host succeeds, then the runner kills itself
exit          the first host succeeds, then the runner ends with exit code 3
failed        the unit cannot run at all
garbage       bytes that are no event
key           success, and a host key that nobody knew
"""

from __future__ import annotations

import os
import signal
import socket
import time
from datetime import UTC, datetime
from typing import Any

from execute_engine.events import Decoder, HostDone, encode
from execute_engine.job import Job

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHR1cm5lZCBpbnRvIGEga2V5IGZvciBhIHRlc3Qu"


def preload() -> list[str]:
    return ["answering"]


def main(events: socket.socket, _orders: int) -> None:
    job = _job(events)
    word, _, argument = str(job.args).partition(":")
    if word == "garbage":
        events.sendall(b"\xff" * 64)
        time.sleep(3600)
    if word == "failed":
        _tell(events, event="unit_failed", reason="the playbook is none")
        return
    for host in job.hosts:
        _tell(events, event="host_started", host=host, at=_now())
    for host in job.hosts:
        _run(events, host, word, argument)


def _run(events: socket.socket, host: str, word: str, argument: str) -> None:
    if word == "hang":
        _tell(events, event="stage", host=host, stage="running", since=_now())
        time.sleep(3600)
    if word == "after":
        _tell(events, event="task_started", host=host, task="a slow task", at=_now())
        time.sleep(float(argument))
    if word == "key":
        _tell(events, event="host_key", host=host, key=KEY)
    done = HostDone(
        host,
        "success",
        rc=0,
        changed=True,
        stdout=f"{host} says größe 😀 \udcff \x00 'quoted' \"\\",
        started_at=_now(),
        finished_at=_now(),
        detail={"tasks": [{"name": "t", "status": "ok", "seconds": 0.1}]},
    )
    _tell(events, **done.to_event())
    if word == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if word == "exit":
        os._exit(3)


def _job(events: socket.socket) -> Job:
    decoder = Decoder()
    while True:
        for frame in decoder.feed(events.recv(65536)):
            return Job.from_json(frame)


def _tell(events: socket.socket, **event: Any) -> None:
    events.sendall(encode(event))


def _now() -> str:
    return datetime.now(UTC).replace(tzinfo=None).isoformat()
