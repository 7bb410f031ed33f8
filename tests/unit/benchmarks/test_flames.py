"""Flame graphs: from the threads of a process to stacks, and from these to a picture."""

from __future__ import annotations

import json
import re
import threading
from pathlib import Path

from benchmarks.flames import draw_stacks
from benchmarks.sampled_runner import Sampler
from tests.servers.process import wait_for

PLACE = "unit/benchmarks/test_flames.py"


def test_a_box_is_as_wide_as_its_share(tmp_path: Path) -> None:
    stacks = {"main;run;parse": 30.0, "main;run": 45.0, "serve;poll": 25.0, "main;seldom": 0.1}
    draw_stacks(stacks, "A title", picture := tmp_path / "flames.svg")

    words = re.findall(r"<text [^>]*>([^<]+)</text>", picture.read_text())
    assert set(words) == {"main 75%", "run 75%", "parse 30%", "serve 25%", "poll 25%", "A title"}


def test_a_threads_time_is_counted_where_it_works(tmp_path: Path) -> None:
    over = threading.Event()

    def work() -> None:
        while not over.is_set():
            sum(range(1000))

    def rest() -> None:
        over.wait(60)

    sampler = Sampler()

    def milliseconds(function: str) -> float:
        sampler.look()
        sampler.write(tmp_path)
        (file,) = tmp_path.glob("*.json")
        stacks = json.loads(file.read_text()).items()
        return sum(value for stack, value in stacks if stack.split(";")[0].endswith(f".{function} (tests/{PLACE})"))

    threads = [threading.Thread(target=work), threading.Thread(target=rest)]
    for thread in threads:
        thread.start()
    try:
        wait_for("work to be counted", lambda: milliseconds("work") > 100)
        assert milliseconds("rest") < 10
    finally:
        over.set()
        for thread in threads:
            thread.join()
