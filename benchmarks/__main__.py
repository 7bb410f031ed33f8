"""Measure what the project promises, against others where there are any.

    python -m benchmarks                            the scenarios with their goals
    python -m benchmarks NAME [--rounds 5] [--hosts N] [--smallest] [--json DIRECTORY]
    python -m benchmarks flames [--rounds 5]        flame graphs of the runner, in docs/performance
    python -m benchmarks plot                       docs/performance.md and its pictures, of docs/performance/*.json

Each scenario starts what it needs: an sshd fleet, MariaDB, Kafka, distribute, engines; as root.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks import page
from benchmarks.harness import Options, say, write
from benchmarks.scenarios import SCENARIOS
from tests.servers.process import ServerMissing


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", nargs="?", choices=[*SCENARIOS, "flames", "plot"], metavar="NAME")
    parser.add_argument("--rounds", type=_positive, default=5, help="how often each contestant runs, 5 unless told")
    parser.add_argument("--hosts", type=_positive, help="how many, in place of the scenario's own number")
    parser.add_argument("--smallest", action="store_true", help="a size that only shows that the scenario works")
    parser.add_argument(
        "--json", type=Path, metavar="DIRECTORY", help="also write DIRECTORY/NAME.json; flames: its pictures"
    )
    given = parser.parse_args()
    options = Options(1 if given.smallest else given.rounds, given.hosts, given.smallest)
    if given.name is None:
        print("\n\n".join(f"{each.name}: {each.summary}\n    goal: {each.goal}" for each in SCENARIOS.values()))
    elif given.name == "plot":
        from benchmarks import pictures  # matplotlib is not needed for anything else

        pictures.draw(page.FIGURES, SCENARIOS)
        page.write(page.PAGE, SCENARIOS.values(), page.FIGURES)
    else:
        try:
            _measure(given.name, options, given.json)
        except ServerMissing as exc:
            parser.exit(1, f"{exc}\n")
    return 0


def _measure(name: str, options: Options, directory: Path | None) -> None:
    if name == "flames":
        from benchmarks import flames

        flames.draw(directory or page.FIGURES, options)
        return
    figures, report = SCENARIOS[name].report(options)
    print(f"{report['summary']}\n{figures}")
    if options.smallest:
        print("The smallest size says nothing about the goals.")
    if directory:
        say(f"written: {write(directory, report)}")


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"expected 1 or more, found {text}")
    return number


if __name__ == "__main__":
    sys.exit(main())
