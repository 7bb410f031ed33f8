from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator

import pytest

from contract import logs
from contract.errors import ConfigError

SECRET = "pä$s \"w'rd/+%\\x"


@pytest.fixture(autouse=True)
def restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for variable in (logs.FORMAT_VARIABLE, logs.LEVEL_VARIABLE, logs.JOURNAL_VARIABLE):
        monkeypatch.delenv(variable, raising=False)
    root = logging.getLogger()
    handlers, level, hooks = root.handlers[:], root.level, (sys.excepthook, threading.excepthook)
    yield
    root.handlers[:], root.level = handlers, level
    sys.excepthook, threading.excepthook = hooks
    logging.captureWarnings(False)


@pytest.fixture
def lines(capsys: pytest.CaptureFixture[str]) -> Lines:
    return Lines(capsys)


class Lines:
    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def one(self) -> str:
        """The one line that was printed."""
        printed = self._capsys.readouterr().err
        assert printed.endswith("\n")
        assert len(printed.splitlines()) == 1, printed
        return printed.rstrip("\n")


log = logging.getLogger("some.module")


def test_a_record_is_one_line_of_key_and_value(lines: Lines) -> None:
    logs.configure("execute-engine", "consumer")
    log.info("unit claimed", extra={"unit": 5, "task": "Deploy-1", "free": None, "ok": True, "why": "a b", "none": ""})
    time, rest = lines.one().split(" ", 1)
    assert re.fullmatch(r"time=\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", time)
    assert rest == (
        "level=info service=execute-engine process=consumer logger=some.module "
        'msg="unit claimed" unit=5 task=Deploy-1 free=null ok=true why="a b" none=""'
    )


def test_a_record_is_one_json_object(lines: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(logs.FORMAT_VARIABLE, "json")
    logs.configure("distribute", "web")
    log.warning("a\nb", extra={"unit": 5, "path": os.sep})
    record = json.loads(lines.one())
    assert record.pop("time").endswith("Z")
    assert record == {
        "level": "warning", "service": "distribute", "process": "web", "logger": "some.module", "msg": "a\nb",
        "unit": 5, "path": "/",
    }  # fmt: skip


@pytest.mark.parametrize("form", logs.FORMATS)
def test_nothing_breaks_the_line(lines: Lines, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    monkeypatch.setenv(logs.FORMAT_VARIABLE, form)
    logs.configure("s", "p")
    log.info("a\nb\rc\x0bd\x0ce\x1bf\x85g\u2028h\u2029i\x00j", extra={"forged": 'x" level=error msg="y'})
    line = lines.one()
    assert line.isprintable()
    assert line.count(" level=error") <= 1  # inside the quotes


def test_a_traceback_stays_in_its_record(lines: Lines) -> None:
    logs.configure("s", "p", ["long secret"])
    try:
        raise ValueError("it was\nlong secret")
    except ValueError:
        log.exception("failed")
    line = lines.one()
    assert "ValueError: it was\\n***" in line
    assert "test_logs.py" in line
    assert "long secret" not in line


@pytest.mark.parametrize("form", logs.FORMATS)
def test_secrets_are_masked_however_they_are_written(lines: Lines, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    from urllib.parse import quote, quote_plus

    monkeypatch.setenv(logs.FORMAT_VARIABLE, form)
    logs.configure("s", "p", [SECRET, "another one", ""])
    shown = [SECRET, repr(SECRET), json.dumps(SECRET), quote(SECRET), quote_plus(SECRET), f"x{SECRET}y"]
    log.info("said %s and another one", SECRET, extra={"all": " | ".join(shown), "fields": {"a": SECRET}})
    line = lines.one()
    assert line.count("***") == 2 + len(shown) + 1
    for part in ("rd/", "rd%2F", "another"):
        assert part not in line


def test_a_secret_within_another_is_masked_whole(lines: Lines) -> None:
    logs.configure("s", "p", ["password", "password-and-more"])
    log.info("password-and-more")
    assert "msg=***" in lines.one()


def test_arguments_that_do_not_fit_do_not_cost_the_record(lines: Lines) -> None:
    logs.configure("s", "p", ["long secret"])
    log.info("%d of %s", "long secret")
    line = lines.one()
    assert "%d of %s" in line
    assert "long secret" not in line


def test_the_level_comes_from_the_environment(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    logs.configure("s", "p")
    log.debug("hidden")
    logging.getLogger("kafka.client").info("talk")
    assert capsys.readouterr().err == ""
    monkeypatch.setenv(logs.LEVEL_VARIABLE, "debug")
    logs.configure("s", "p")
    log.debug("shown")
    logging.getLogger("kafka.client").info("talk")
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_the_last_configuration_counts(lines: Lines) -> None:
    logs.configure("s", "first")
    logs.configure("s", "second")
    log.info("x")
    assert "process=second" in lines.one()


def test_a_format_or_level_that_does_not_exist_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(logs.FORMAT_VARIABLE, "xml")
    monkeypatch.setenv(logs.LEVEL_VARIABLE, "LOUD")
    with pytest.raises(ConfigError, match=r"FORMAT: expected one of keyvalue, json, found 'xml'; .*LEVEL: .*'LOUD'"):
        logs.configure("s", "p")


def test_warnings_become_records(lines: Lines) -> None:
    logs.configure("s", "p")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("look out", stacklevel=1)
    assert "level=warning" in (line := lines.one())
    assert "look out" in line


def test_uncaught_exceptions_of_process_and_threads_become_masked_records() -> None:
    code = """
import threading
from contract import logs
logs.configure("s", "p", ["long secret"])
def fail():
    raise RuntimeError("long secret")
thread = threading.Thread(target=fail, name="writer")
thread.start()
thread.join()
fail()
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 1
    in_thread, in_process = ended.stderr.splitlines()
    assert 'msg="uncaught exception in a thread" thread_name=writer traceback=' in in_thread
    assert 'msg="uncaught exception" traceback=' in in_process
    assert "long secret" not in ended.stderr


JOURNAL_PROGRAM = """\
import logging, os, sys
from contract import logs
if "journal" in sys.argv:
    found = os.fstat(2)
    os.environ["JOURNAL_STREAM"] = f"{found.st_dev}:{found.st_ino}"
else:
    os.environ["JOURNAL_STREAM"] = "1:1"
logs.say(logging.ERROR, "no record")
logs.configure("s", "p", level="debug")
log = logging.getLogger("l")
for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR):
    log.log(level, "two\\nlines")
raise RuntimeError("uncaught")
"""


def _printed(*arguments: str) -> list[str]:
    argv = [sys.executable, "-c", JOURNAL_PROGRAM, *arguments]
    return subprocess.run(argv, stderr=subprocess.PIPE, text=True, check=False).stderr.splitlines()


def test_in_the_journal_each_line_has_its_priority_and_no_time() -> None:
    lines = _printed("journal")
    assert [line[:3] for line in lines] == ["<3>", "<7>", "<6>", "<4>", "<3>", "<2>"]
    assert lines[0] == "<3>no record"
    assert lines[1] == r'<7>level=debug service=s process=p logger=l msg="two\nlines"'
    assert "RuntimeError: uncaught" in lines[-1]


def test_a_stream_that_is_not_the_journal_has_no_priorities() -> None:
    lines = _printed()
    assert lines[0] == "no record"
    assert [line[:5] for line in lines[1:]] == ["time="] * 5


def test_the_level_of_the_configuration_holds_and_can_be_changed(lines: Lines) -> None:
    logs.configure("s", "p", level="error")
    log.warning("not shown")
    logs.set_level("warning")
    log.warning("shown")
    assert "msg=shown" in lines.one()
