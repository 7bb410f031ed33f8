"""`python -m tests.runners.consumer CONFIG`: the engine's consumer, with the answering runner."""

from __future__ import annotations

import sys
from pathlib import Path

from contract import config, logs
from contract.supervised import Lifeline
from execute_engine import consumer


def main(file: str) -> int:
    logs.configure("execute-engine", "consumer")
    settings = config.load(Path(file), "execute_engine")
    return consumer.main(settings, Lifeline.from_environment(), runner="tests.runners.answering")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
