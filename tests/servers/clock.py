"""A wall clock that a test sets, for processes started with its environment; their monotonic time goes on as ever."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

from tests.servers.process import program

SOURCE = Path(__file__).with_name("clock.c")


class Clock:
    def __init__(self, directory: Path) -> None:
        library, self._file = directory / "clock.so", directory / "offset"
        self.step(0)
        command = [program("gcc", "gcc"), "-shared", "-fPIC", "-O1", "-o", str(library), str(SOURCE), "-ldl"]
        subprocess.run(command, check=True)
        self.environment = {"LD_PRELOAD": str(library), "CLOCK_OFFSET": str(self._file)}

    def step(self, seconds: int) -> None:
        """From now on the clock is so many seconds ahead of the true one."""
        with self._file.open("r+b" if self._file.exists() else "wb") as file:  # mapped: it must stay the same file
            file.write(struct.pack("q", seconds))
