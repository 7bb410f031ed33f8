"""Lets the stock commands record every task result."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ansible.plugins.callback import CallbackBase

from tests.differential import record

DOCUMENTATION = """
name: recorder
type: aggregate
short_description: records results
description: records results
"""


class CallbackModule(CallbackBase):  # type: ignore[misc]
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "recorder"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self._path = Path(os.environ["RECORD_FILE"])

    def v2_runner_on_ok(self, result: Any) -> None:
        record.write(self._path, "ok", result)

    def v2_runner_on_skipped(self, result: Any) -> None:
        record.write(self._path, "skipped", result)

    def v2_runner_on_unreachable(self, result: Any) -> None:
        record.write(self._path, "unreachable", result)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        record.write(self._path, "failed", result)
