from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

CODE = "from contract.failpoint import fail_point; fail_point('first'); fail_point('second'); print('lived')"


def run(wanted: str | None) -> subprocess.CompletedProcess[str]:
    variables = {} if wanted is None else {"EXECUTE_ENGINE_FAIL_POINT": wanted}
    environment = {name: value for name, value in os.environ.items() if name != "EXECUTE_ENGINE_FAIL_POINT"}
    return subprocess.run(
        [sys.executable, "-c", CODE], env={**environment, **variables}, capture_output=True, text=True, timeout=120
    )


@pytest.mark.parametrize("wanted", [None, "", "third", "firs"])
def test_a_point_that_nobody_named_does_nothing(wanted: str | None) -> None:
    assert run(wanted).stdout == "lived\n"


@pytest.mark.parametrize("wanted", ["first", "second"])
def test_the_named_point_kills_the_process(wanted: str) -> None:
    ended = run(wanted)
    assert ended.returncode == -signal.SIGKILL
    assert ended.stdout == ""


def test_a_process_can_be_stopped_and_goes_on() -> None:
    environment = {**os.environ, "EXECUTE_ENGINE_FAIL_POINT": "stop:second"}
    with subprocess.Popen([sys.executable, "-c", CODE], env=environment, stdout=subprocess.PIPE, text=True) as process:
        _, status = os.waitpid(process.pid, os.WUNTRACED)
        assert os.WSTOPSIG(status) == signal.SIGSTOP
        process.send_signal(signal.SIGCONT)
        assert process.stdout is not None
        assert process.stdout.read() == "lived\n"


def test_with_a_file_only_the_first_process_is_killed(tmp_path: Path) -> None:
    wanted = f"second@{tmp_path / 'fired'}"
    assert run(wanted).returncode == -signal.SIGKILL
    assert run(wanted).stdout == "lived\n"
