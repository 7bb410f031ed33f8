from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from contract import processes

PATIENCE_SECONDS = 120.0
MARK = "EXECUTE_ENGINE_TEST_MARK"
SLEEP = (sys.executable, "-c", "import time; print('x', flush=True); time.sleep(600)")


def wait_for(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"still waiting for {what}"
        time.sleep(0.01)


@pytest.fixture
def sleeper() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts processes that sleep, with a mark; returns when they have begun."""
    started: list[subprocess.Popen[bytes]] = []

    def start(mark: str = "", argv: tuple[str, ...] = SLEEP) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(argv, env={**os.environ, MARK: mark}, stdout=subprocess.PIPE)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline()
        return process

    yield start
    for process in started:
        process.kill()
        with process:
            pass


def output_of(code: str, **variables: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=PATIENCE_SECONDS,
    ).stdout


def test_the_title_is_shown_and_leaves_the_environment_readable() -> None:
    code = (
        "import os; from contract import processes; processes.set_title('execute-engine: guard 7');"
        "print(open('/proc/self/cmdline').read().rstrip(chr(0)));"
        f"print('{MARK}=here' in open('/proc/self/environ').read().split(chr(0)), 'SPT_NOENV' in os.environ)"
    )
    assert output_of(code, **{MARK: "here"}) == "execute-engine: guard 7\nTrue False\n"


def test_the_title_can_be_set_again_after_a_fork() -> None:
    code = f"""
import os
from contract import processes
processes.set_title("first")
if os.fork() == 0:
    processes.set_title("second")
    print(open("/proc/self/cmdline").read().rstrip(chr(0)))
    print("{MARK}=here" in open("/proc/self/environ").read().split(chr(0)), flush=True)
    os._exit(0)
os.wait()
"""
    assert output_of(code, **{MARK: "here"}) == "second\nTrue\n"


def test_a_child_dies_with_its_parent(tmp_path: Path) -> None:
    child = (
        "import os, sys, time; from contract import processes; processes.die_with_parent(int(sys.argv[1]));"
        f"open('{tmp_path}/pid', 'w').write(str(os.getpid())); time.sleep(600)"
    )
    parent = f"import os, subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}, str(os.getpid())])"
    process = subprocess.Popen([sys.executable, "-c", parent])
    try:
        wait_for(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text(), "the child")
    finally:
        process.kill()
        process.wait()
    pid = int((tmp_path / "pid").read_text())
    wait_for(lambda: processes.start_time(pid) is None, "the child to die")


def test_a_child_whose_parent_is_gone_already_dies_at_once() -> None:
    code = "from contract import processes; processes.die_with_parent(1 << 22); print('lived')"
    ended = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, timeout=PATIENCE_SECONDS)
    assert ended.returncode == -signal.SIGKILL
    assert ended.stdout == b""


def test_a_subreaper_gets_the_orphans_of_its_descendants() -> None:
    code = """
import os, time
from contract import processes
processes.become_subreaper()
reader, writer = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        first = os.getppid()
        os.write(writer, b"x")
        while os.getppid() == first:
            time.sleep(0.01)
        os._exit(7)
    os.read(reader, 1)
    os._exit(0)
print(sorted(os.waitstatus_to_exitcode(os.wait()[1]) for _ in range(2)))
"""
    assert output_of(code) == "[0, 7]\n"


def test_the_start_time_names_a_living_process(sleeper: Callable[..., subprocess.Popen[bytes]]) -> None:
    first, second = sleeper(), sleeper()
    one, other = processes.start_time(first.pid), processes.start_time(second.pid)
    assert one is not None
    assert other is not None
    assert one <= other
    assert processes.start_time(first.pid) == one
    first.kill()
    wait_for(lambda: processes.start_time(first.pid) is None, "the zombie")
    assert Path(f"/proc/{first.pid}").exists(), "it was reaped: this test did not see a zombie"
    first.wait()
    assert processes.start_time(first.pid) is None


def test_a_process_may_have_any_name() -> None:
    code = (
        "import ctypes; ctypes.CDLL(None).prctl(15, b'a) R (b', 0, 0, 0);"
        "from contract import processes; import os; print(processes.start_time(os.getpid()) > 100)"
    )
    assert output_of(code) == "True\n"


def test_marked_processes_are_found_by_their_value(sleeper: Callable[..., subprocess.Popen[bytes]]) -> None:
    own = f"{os.getpid()}-"
    one, two, _ = sleeper(own + "1"), sleeper(own + "2"), sleeper("another")
    assert set(processes.marked(MARK, lambda value: value.startswith(own))) == {one.pid, two.pid}
    assert processes.marked(MARK, (own + "1").__eq__) == [one.pid]
    assert processes.marked(MARK[:-1], lambda value: True) == []
    two.kill()
    two.wait()
    assert processes.marked(MARK, (own + "2").__eq__) == []


def test_this_process_is_never_among_the_marked() -> None:
    code = f"from contract import processes; print(processes.marked('{MARK}', 'only me'.__eq__))"
    assert output_of(code, **{MARK: "only me"}) == "[]\n"


def test_all_are_killed_and_none_is_left(sleeper: Callable[..., subprocess.Popen[bytes]]) -> None:
    own = f"{os.getpid()}-all"
    started = [sleeper(own) for _ in range(3)]
    started[0].send_signal(signal.SIGSTOP)
    assert processes.kill_all(lambda: processes.marked(MARK, own.__eq__), PATIENCE_SECONDS) == []
    assert [process.wait(PATIENCE_SECONDS) for process in started] == [-signal.SIGKILL] * 3


def test_processes_that_fork_all_the_time_are_killed_in_the_end(
    sleeper: Callable[..., subprocess.Popen[bytes]],
) -> None:
    own = f"{os.getpid()}-forking"
    # Each generation forks the next one and ends: no pid lives for longer than some milliseconds.
    code = (
        "import os, sys, time\n"
        "sys.stdout.write('x\\n'); sys.stdout.flush()\n"
        "for _ in range(2000):\n"
        "    if os.fork(): time.sleep(0.02); os._exit(0)\n"
    )
    sleeper(own, (sys.executable, "-c", code))
    assert processes.kill_all(lambda: processes.marked(MARK, own.__eq__), PATIENCE_SECONDS) == []
    time.sleep(0.2)
    assert processes.marked(MARK, own.__eq__) == []


def test_what_cannot_be_killed_is_returned_at_the_deadline(
    sleeper: Callable[..., subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    process = sleeper()
    monkeypatch.setattr(signal, "pidfd_send_signal", lambda *_: None)  # a process in state D takes no signal
    assert processes.kill_all(lambda: [process.pid], 0.3) == [process.pid]
    assert process.poll() is None


def test_a_process_that_is_not_found_again_is_not_signalled(
    sleeper: Callable[..., subprocess.Popen[bytes]],
) -> None:
    """So it goes with a recycled pid: found at first, somebody else's by the time of the signal."""
    process = sleeper()
    answers = iter([[process.pid], []])
    assert processes.kill_all(lambda: next(answers, []), PATIENCE_SECONDS) == []
    assert process.poll() is None


def test_pids_that_do_not_exist_and_zombies_count_as_gone(sleeper: Callable[..., subprocess.Popen[bytes]]) -> None:
    process = sleeper()
    process.kill()
    wait_for(lambda: processes.start_time(process.pid) is None, "the zombie")
    assert processes.kill_all(lambda: [process.pid, 1 << 22], 0) == []
