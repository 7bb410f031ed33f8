"""Flame graphs of the runner: what its processor time goes into, function by function.

    python -m benchmarks flames [--rounds 5]     docs/performance/flames-*.svg; as root

How it is found, and how exact that is, says benchmarks/sampled_runner.py.
"""

from __future__ import annotations

import itertools
import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from benchmarks import pictures, sampled_runner
from benchmarks.engines import WARM_HOSTS, Engine
from benchmarks.harness import Options
from benchmarks.scenarios.cpu import GREETING, MODULES, PLAYBOOK
from benchmarks.services import bench
from tests.runners import consumer
from tests.servers.fleet import Fleet
from tests.servers.process import wait_for

LEAST_SHARE = 0.005  # of the whole: what is narrower is not drawn
CHARACTERS = 210  # as many fit across the picture
COLOURS = {"execute_engine/": "#7fc4a8", "asyncssh/": "#8fb8de", "asyncio/": "#b9d3ec", "ansible/": "#f2b36b"}
OTHERS = "#d9d4cc"

Stacks = Mapping[str, float]  # "outermost;...;innermost": milliseconds
Place = tuple[str, float, float, int]  # of a box: name, left end and width as shares of the whole, level


def draw(directory: Path, options: Options) -> None:
    """Have an engine do each kind of work `rounds` times, and draw DIRECTORY/flames-KIND.svg. Blocks for minutes."""
    with (
        bench(embedded=options.smallest) as servers,
        servers.git_project("bench", "greetings", {"greeting.j2": GREETING}) as gitlab,
        servers.services(engines=0, Exec_Engine={"SLOTS": 120}, Gitlab=gitlab) as services,
    ):
        services.start_engine(
            services.distribute.config, {consumer.RUNNER: sampled_runner.__name__}, module=consumer.__name__
        )
        by = Engine(services)
        by.clone("greetings")
        by.finish(by.adhoc(Fleet.hosts("healthy", WARM_HOSTS), "ping"), success=WARM_HOSTS)
        _taken(by)
        hosts = Fleet.hosts("healthy", options.hosts_or(120, 2))
        for name, do in _works(by, hosts).items():
            for _ in range(options.rounds):
                do()
            found = _taken(by)
            each = sum(found.values()) / options.rounds / len(hosts)
            picture = directory / f"flames-{name}.svg"
            draw_stacks(found, f"{name} on {len(hosts)} hosts: the runners' CPU, {each:.1f} ms a host", picture)


def _works(by: Engine, hosts: list[str]) -> dict[str, Callable[[], None]]:
    runs = itertools.count(1)  # a new file each time: nothing is copied that is there already

    def do(submit: Callable[..., str], *args: object, **fields: object) -> None:
        by.finish(submit(hosts, *args, **fields), success=len(hosts))

    def copy() -> None:
        target = f"/home/ee-ops/flames-{next(runs)}-{{{{ inventory_hostname }}}}"
        do(by.adhoc, "copy", f"src=greetings/greeting.j2 dest={target}", template=True)

    return {
        "shell": partial(do, by.adhoc, "shell", MODULES["shell"]),
        "playbook": partial(do, by.playbook, PLAYBOOK.read_text()),
        "copy": copy,
    }


def _taken(by: Engine) -> Stacks:
    """What the runners since the last call have written; they all have to end first."""
    wait_for("the runners to end", lambda: not by.daemon.processes("execute-engine: guard"))
    found: dict[str, float] = defaultdict(float)
    for file in (by.services.backend.directory / "engine-1/state" / sampled_runner.FOLDER).glob("*.json"):
        for stack, milliseconds in json.loads(file.read_text()).items():
            found[stack] += milliseconds
        file.unlink()
    return found


@dataclass
class _Box:
    """A function below its callers; `inner` by name."""

    milliseconds: float = 0.0
    inner: dict[str, _Box] = field(default_factory=dict)


def draw_stacks(stacks: Stacks, title: str, picture: Path) -> None:
    """A box a function, as wide as its share of the time with all that it calls; a thread's own function is lowest."""
    root = _Box()
    for stack, milliseconds in stacks.items():
        box = root
        box.milliseconds += milliseconds
        for name in stack.split(";"):
            box = box.inner.setdefault(name, _Box())
            box.milliseconds += milliseconds
    boxes = list(_laid_out(root, 0.0, 0, root.milliseconds))
    pictures.save(picture, lambda: _figure(boxes, title))


def _figure(boxes: Sequence[Place], title: str) -> Figure:
    depth = 1 + max((level for *_, level in boxes), default=0)
    figure = Figure(figsize=(12, 0.6 + 0.19 * depth), layout="constrained")
    axes = figure.subplots()
    for name, left, width, level in boxes:
        colour = next((colour for start, colour in COLOURS.items() if f"({start}" in name), OTHERS)
        axes.add_patch(Rectangle((left, level), width, 1, facecolor=colour, edgecolor="white", linewidth=0.4))
        label = f"{name} {width:.0%}"
        if len(label) > CHARACTERS * width:
            label = name[: int(CHARACTERS * width) - 1]
        axes.text(left + 0.001, level + 0.5, label, va="center", fontsize=5.5, clip_on=True)
    axes.set(xlim=(0, 1), ylim=(0, depth))
    axes.set_axis_off()
    axes.set_title(title, loc="left", fontsize=10)
    return figure


def _laid_out(box: _Box, left: float, level: int, whole: float) -> Iterator[Place]:
    """The widest first."""
    for name, inner in sorted(box.inner.items(), key=lambda item: -item[1].milliseconds):
        if (width := inner.milliseconds / whole) < LEAST_SHARE:
            break
        yield name, left, width, level
        yield from _laid_out(inner, left, level + 1, whole)
        left += width
