"""script/audit.py, against a service of vulnerabilities that is made here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

ROOT = Path(__file__).parents[2]


@contextmanager
def service(vulnerable: str, status: int = 200) -> Iterator[str]:
    """The URL of one that answers as the real one does and knows of one vulnerable package; "" is none."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            package = question["package"]
            affected = [{"package": package, "ranges": [{"type": "ECOSYSTEM", "events": [{"fixed": "99"}]}]}]
            known = [{"id": "TEST-1", "summary": "It is a test", "affected": affected}]
            answer = json.dumps({"vulns": known} if package["name"] == vulnerable else {}).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1/query"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def audit(url: str) -> tuple[int, str]:
    """The exit code, and what was printed."""
    run = subprocess.run(
        [sys.executable, ROOT / "script" / "audit.py"],
        env={**os.environ, "PIP_AUDIT_OSV_URL": url},
        capture_output=True,
        text=True,
        timeout=120,
    )
    return run.returncode, run.stdout + run.stderr


def test_a_vulnerable_package_fails_and_is_named() -> None:
    with service("flask") as url:
        code, printed = audit(url)
    assert code == 1
    assert "TEST-1" in printed
    assert "flask" in printed


def test_without_one_all_is_well() -> None:
    with service("") as url:
        assert audit(url) == (0, "No known vulnerabilities found\n")


def test_a_service_out_of_reach_is_said_in_one_line_and_is_no_failure() -> None:
    with service("flask", status=503) as url:
        refused = audit(url)
    nobody = audit(url)
    for code, printed in (refused, nobody):
        assert code == 0
        assert printed.startswith("script/audit.py: NOT LOOKED FOR: ")
        assert printed.count("\n") == 1
