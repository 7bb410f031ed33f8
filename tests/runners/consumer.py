"""`python -m tests.runners.consumer --config CONFIG`: the engine's consumer with the runner that RUNNER names."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from contract import config, logs
from contract.supervised import Lifeline
from execute_engine import consumer

RUNNER = "RUNNER_UNDER_TEST"


def main(file: str) -> int:
    logs.configure("execute-engine", "consumer")
    settings = config.load(Path(file), "execute_engine")
    return consumer.main(settings, Lifeline.from_environment(), runner=os.environ[RUNNER])


if __name__ == "__main__":
    sys.exit(main(sys.argv[2]))
