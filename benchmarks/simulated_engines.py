"""Many engines without ssh, each a process of its own: the consumer whole as it is, with simulated hosts behind it.

    python -m benchmarks.simulated_engines --config FILE --engines 100 [--seconds 1] [--profile DIRECTORY]

All are forked from this process, so that what they have imported is in memory once. SIGTERM ends all of them.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from benchmarks.profiles import profiled
from benchmarks.simulated_hosts import SimulatedHosts, SimulatedLauncher
from contract import config as configuration
from contract import logs, processes
from contract.config import Config
from contract.supervised import Lifeline
from execute_engine import consumer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--engines", type=int, required=True)
    parser.add_argument("--seconds", type=float, default=1.0, help="of a host, on average")
    parser.add_argument("--profile", type=Path, help="where the first engine leaves its profile at its end")
    options = parser.parse_args()
    config = configuration.load(options.config, configuration.ENGINE)
    logs.configure("execute-engine", "simulated", config.secrets(), "warning")
    SimulatedLauncher.path = config.engine.state_dir / "hosts"
    config.engine.state_dir.mkdir(parents=True, exist_ok=True)
    starter = os.getpid()
    hosts = SimulatedHosts(SimulatedLauncher.path, options.seconds)  # listens from here on
    children = [_fork(starter, lambda: _hosts(hosts))]
    for number in range(1, options.engines + 1):
        profile = options.profile if number == 1 else None
        children.append(_fork(starter, lambda: _engine(config, number, profile)))  # noqa: B023 - called at once

    def stop(*_: object) -> None:
        for child in children[1:]:
            os.kill(child, signal.SIGTERM)

    signal.signal(signal.SIGTERM, stop)
    for child in children[1:]:
        os.waitpid(child, 0)
    os.kill(children[0], signal.SIGKILL)


def _fork(parent: int, work: Callable[[], int]) -> int:
    """The child does the work and ends; returns its pid."""
    if pid := os.fork():
        return pid
    code = 1
    try:
        processes.die_with_parent(parent)
        code = work()
    except BaseException:  # noqa: BLE001 - the process ends with it
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _hosts(hosts: SimulatedHosts) -> int:
    processes.set_title("simulated hosts")
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it is the last to end
    hosts.serve()
    return 0


def _engine(config: Config, number: int, profile: Path | None) -> int:
    own = replace(config.engine, engine_id=f"engine-{number}", state_dir=config.engine.state_dir / str(number))
    with profiled(profile, "engine"):
        return consumer.main(replace(config, engine=own), Lifeline(None), launcher_class=SimulatedLauncher)


if __name__ == "__main__":
    main()
