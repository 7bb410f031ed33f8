"""What sick hosts cost the others: a task of many hosts of which 1% hang, against the same task with none hanging.

    .venv/bin/python -m benchmarks.hung_hosts [--hosts 3000] [--rounds 1] [--slots 200] [--timeout 60] [--module raw]

Both take turns in one run on one engine of so many SLOTS. Printed is, for each, the time until the last healthy host's
result was stored and until the task had ended; the first pair's ratio should be near 1, and the second may exceed it by
one timeout. At the end: what a runner costs that waits for one hung host, of a unit of 30.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil

from benchmarks.services import Services, call, running_fleet, wait_for
from tests.servers.fleet import Fleet

HUNG_SHARE = 0.01
WAITING_SECONDS = 20


def hosts_of(count: int, hung: int) -> list[str]:
    """Healthy hosts with the hung ones spread evenly among them."""
    hosts = Fleet.hosts("healthy", count - hung)
    every = count // hung if hung else 0
    for number, host in enumerate(Fleet.hosts("hang", hung)):
        hosts.insert(number * every, host)
    return hosts


def seconds(services: Services, task: dict[str, Any]) -> tuple[float, float]:
    """From the submission to the last healthy result, and to the end of the task."""
    last, cursor = "", ""
    while cursor is not None:
        answer = call_page(services, task["task_id"], cursor)
        last = max([last, *(item["finished_date"] for item in answer["data"] if item["result"] == "success")])
        cursor = answer["cursor"]
    began = datetime.fromisoformat(task["created_date"])
    return tuple((datetime.fromisoformat(end) - began).total_seconds() for end in (last, task["finished_date"]))  # type: ignore[return-value]


def waiting_runner(services: Services) -> float:
    """Share of a core that a runner takes whose other 29 hosts have finished, over WAITING_SECONDS."""
    body = {"task_name": "benchmark", "type": "adhoc", "ips": hosts_of(30, 1), "module": "raw", "args": "echo hi"}
    task_id = call(f"{services.base}/adhoc/", {**body, "timeout": 3 * WAITING_SECONDS, "become": False})["task_id"]
    url = f"{services.base}/tasks/{task_id}/"
    wait_for("the healthy hosts", lambda: call(url)["counts"]["success"] == 29)
    time.sleep(1)
    (runner,) = [
        process
        for process in psutil.Process(services.engine_pid).children(recursive=True)
        if "runner" in " ".join(process.cmdline())
    ]
    before = sum(runner.cpu_times()[:2])
    time.sleep(WAITING_SECONDS)
    share = (sum(runner.cpu_times()[:2]) - before) / WAITING_SECONDS
    wait_for("the task", lambda: call(url)["state"] == "finished")
    return float(share)


def call_page(services: Services, task_id: str, cursor: str) -> dict[str, Any]:
    query = f"limit=1000{cursor and '&cursor='}{cursor}"
    page: dict[str, Any] = call(f"{services.base}/tasks/{task_id}/hosts/?{query}", whole=True)
    return page


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--slots", type=int, default=200)
    parser.add_argument("--timeout", type=int, default=60)
    parser.add_argument("--module", default="raw")
    parser.add_argument("--port", type=int, default=18007)
    options = parser.parse_args()
    hung = round(options.hosts * HUNG_SHARE)
    found: dict[str, list[tuple[float, float]]] = {"none hang": [], f"{hung} hang": []}
    with tempfile.TemporaryDirectory(prefix="ee-bench-") as name, running_fleet(Path(name) / "fleet") as fleet:
        services = Services(Path(name), fleet, options.port, options.slots)
        try:
            services.run(hosts_of(3, 0), options.module, "echo hi")
            for _ in range(options.rounds):
                for what, number in zip(found, (0, hung), strict=True):
                    task = services.run(hosts_of(options.hosts, number), options.module, "echo hi", options.timeout)
                    assert task["counts"]["success"] == options.hosts - number, task["counts"]
                    assert task["counts"]["timeout"] == number, task["counts"]
                    found[what].append(seconds(services, task))
            waiting = waiting_runner(services)
        finally:
            services.stop()
    print(
        f"{options.hosts} hosts, module {options.module}, SLOTS {options.slots}, timeout {options.timeout} s; seconds:"
    )
    medians = []
    for what, values in found.items():
        healthy, whole = (statistics.median(value[part] for value in values) for part in (0, 1))
        medians.append(healthy)
        print(f"  {what:10}  last healthy result {healthy:7.1f}   end of the task {whole:7.1f}")
    print(f"  last healthy result with / without hung hosts: {medians[1] / medians[0]:.2f}")
    print(f"  a runner that waits for one hung host: {100 * waiting:.2f}% of a core")


if __name__ == "__main__":
    main()
