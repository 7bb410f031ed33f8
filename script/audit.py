"""Looks for known vulnerabilities in what is locked, by pip-audit: .venv/bin/python script/audit.py

Ends with 1 where there is one that is no exception. Where the service that knows them is out of reach nothing is looked
at: that is said in one line, and is no failure, because tests are also run on machines without the internet.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import requests
from pip_audit._service.osv import OsvService

EXCEPTIONS: dict[str, str] = {}  # id of a vulnerability -> why it does not concern us
LOCK = "requirements-dev.lock"  # all of requirements.lock is in it
ANSWER_SECONDS = 10
DEADLINE_SECONDS = 300
ROOT = Path(__file__).parents[1]


def why_out_of_reach(url: str) -> str | None:
    """None where the service answers a question as it should."""
    question = {"package": {"name": "requests", "ecosystem": "PyPI"}, "version": "2.0.0"}
    try:
        answer = requests.post(url, json=question, timeout=ANSWER_SECONDS)
        answer.raise_for_status()
        return None if isinstance(answer.json(), dict) else "it answers something else than expected"
    except requests.RequestException as exc:
        return f"{type(exc).__name__} {'' if exc.response is None else exc.response.status_code}".strip()


def main() -> int:
    url = os.environ.get("PIP_AUDIT_OSV_URL", OsvService.DEFAULT_OSV_URL)
    if why := why_out_of_reach(url):
        print(f"script/audit.py: NOT LOOKED FOR: known vulnerabilities; {url} is out of reach: {why}")
        return 0
    command = [
        *(sys.executable, "-m", "pip_audit", "--requirement", LOCK, "--disable-pip", "--strict"),
        *("--vulnerability-service", "osv", "--osv-url", url, "--timeout", str(ANSWER_SECONDS)),
        *("--progress-spinner", "off"),
        *(word for each in EXCEPTIONS for word in ("--ignore-vuln", each)),
    ]
    return subprocess.run(command, cwd=ROOT, timeout=DEADLINE_SECONDS).returncode


if __name__ == "__main__":
    sys.exit(main())
