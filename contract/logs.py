"""One line a record on standard error, key=value or JSON, with secrets masked."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import threading
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

from contract.errors import ConfigError
from contract.masking import Mask

FORMAT_VARIABLE = "EXECUTE_ENGINE_LOG_FORMAT"
LEVEL_VARIABLE = "EXECUTE_ENGINE_LOG_LEVEL"
FORMATS = ("keyvalue", "json")
LEVELS = ("debug", "info", "warning", "error")
JOURNAL_VARIABLE = "JOURNAL_STREAM"  # systemd.exec(5)
_PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6), (0, 7))

_OWN_ATTRIBUTES = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_TALKATIVE = ("alembic", "asyncio", "asyncssh", "kafka", "sqlalchemy")  # their info is our debug
_BARE = re.compile(r"[A-Za-z0-9_./:@+,%*-]+")
_LINE_BREAKERS = re.compile("[\x7f-\x9f\u2028\u2029]")  # what JSON leaves alone and a terminal or a pager does not

log = logging.getLogger(__name__)


def configure(service: str, process: str, secrets: Iterable[str] = (), level: str = "info") -> None:
    """Send every record of this process to standard error; uncaught exceptions and warnings become records too.

    service and process say who writes ("execute-engine", "consumer"). The secrets are replaced by ***, as Mask finds
    them. May be called again: the last call counts. The level is one of LEVELS; the environment's overrules it.

    Where standard error is the journal, each line begins with its priority (sd-daemon(3)), and has no time: the journal
    knows both.
    Raises ConfigError for a format or level in the environment that does not exist.
    """
    if problems := environment_problems():
        raise ConfigError("; ".join(f"{variable}: {text}" for variable, text in problems.items()))
    render = _json if os.environ.get(FORMAT_VARIABLE) == "json" else _keyvalue
    handler = logging.StreamHandler(sys.stderr)
    who = {"service": service, "process": process}
    handler.setFormatter(_LineFormatter(who, Mask(secrets).text, render, to_journal=_is_journal()))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    set_level(os.environ.get(LEVEL_VARIABLE) or level)
    logging.captureWarnings(True)
    sys.excepthook = _log_uncaught
    threading.excepthook = _log_uncaught_in_thread


def set_level(level: str) -> None:
    """One of LEVELS, from the next record on."""
    logging.getLogger().setLevel(level.upper())
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.NOTSET if level == "debug" else logging.WARNING)


def say(level: int, line: str) -> None:
    """One line on standard error as it is, where no record can be made yet. level is one of logging's."""
    print((_priority(level) if _is_journal() else "") + line, file=sys.stderr)


def environment_problems() -> dict[str, str]:
    """What is wrong with the variables that choose the format and the level, by variable."""
    return {
        variable: f"expected one of {', '.join(choices)}, found {value!r}"
        for variable, choices in ((FORMAT_VARIABLE, FORMATS), (LEVEL_VARIABLE, LEVELS))
        if (value := os.environ.get(variable)) and value not in choices
    }


class _LineFormatter(logging.Formatter):
    def __init__(
        self,
        who: dict[str, str],
        mask: Callable[[str], str],
        render: Callable[[dict[str, Any]], str],
        to_journal: bool,
    ) -> None:
        super().__init__()
        self._to_journal = to_journal
        self._who = who
        self._mask = mask
        self._render = render

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        fields: dict[str, Any] = {
            **({} if self._to_journal else {"time": time.replace("+00:00", "Z")}),
            "level": record.levelname.lower(),
            **self._who,
            "logger": record.name,
            "msg": self._mask(_message(record)),
        }
        for name, value in vars(record).items():
            if name not in _OWN_ATTRIBUTES:
                fields[name] = self._masked(value)
        if record.exc_info and record.exc_info[0]:
            fields["traceback"] = self._mask(self.formatException(record.exc_info))
        return (_priority(record.levelno) if self._to_journal else "") + self._render(fields)

    def _masked(self, value: Any) -> Any:
        return value if value is None or isinstance(value, bool | int | float) else self._mask(str(value))


def _is_journal() -> bool:
    """systemd says which stream it connected to the journal; standard error may be another one by now."""
    try:
        found = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError, AttributeError):  # closed, or no file at all
        return False
    return os.environ.get(JOURNAL_VARIABLE) == f"{found.st_dev}:{found.st_ino}"


def _priority(level: int) -> str:
    """The prefix of sd-daemon(3), of syslog's numbers."""
    return f"<{next(number for least, number in _PRIORITIES if level >= least)}>"


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except (TypeError, ValueError, KeyError):  # arguments that do not fit must not cost the record
        return f"{record.msg} {record.args!r}"


def _keyvalue(fields: dict[str, Any]) -> str:
    return " ".join(f"{name}={_quoted(value)}" for name, value in fields.items())


def _quoted(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if _BARE.fullmatch(text) else _escaped(json.dumps(text, ensure_ascii=False))


def _json(fields: dict[str, Any]) -> str:
    return _escaped(json.dumps(fields, ensure_ascii=False))


def _escaped(text: str) -> str:
    return _LINE_BREAKERS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _log_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
    else:
        log.critical("uncaught exception", exc_info=(kind, error, trace))


def _log_uncaught_in_thread(thrown: threading.ExceptHookArgs) -> None:
    if thrown.exc_value is not None and not issubclass(thrown.exc_type, SystemExit):
        name = thrown.thread.name if thrown.thread else "?"
        log.critical(
            "uncaught exception in a thread",
            exc_info=(thrown.exc_type, thrown.exc_value, thrown.exc_traceback),
            extra={"thread_name": name},
        )
