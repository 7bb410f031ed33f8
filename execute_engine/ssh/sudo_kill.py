"""Ends what a command has started as root, where sshd's signals do not reach.

sshd delivers a signal as the login user. Of `sh -c 'sudo sh -c "...; python3"'` that ends the outer shell, and sudo
hands it on to the inner one only: what that one has started goes on, without a parent. So a second command on the same
connection asks sudo for the kill. It looks for its own siblings, the other children of this connection's sshd, and ends
their process groups; what detached itself on purpose (a daemon, an async job) is none of them. Linux only.
"""

from __future__ import annotations

import asyncio
import contextlib
import shlex

import asyncssh

_AS_ROOT = """
kill -s TERM -- "$@"
for tenth in 1 2 3 4 5; do
  sleep 0.1
  kill -s 0 -- "$@" || exit 0
done
kill -s KILL -- "$@"
"""

_AS_USER = f"""
leader=$(sed 's/.*) //' /proc/$$/stat | cut -d' ' -f4)
sshd=$(sed 's/.*) //' "/proc/$leader/stat" | cut -d' ' -f2)
groups=$(sed -n "s/^\\([0-9]*\\) (.*) . $sshd .*/-\\1/p" /proc/[0-9]*/stat | grep -vx -e "-$leader")
test -n "$groups" && exec sudo -S -p '' /bin/sh -c {shlex.quote(_AS_ROOT)} sh $groups
"""

COMMAND = f"exec /bin/sh -c {shlex.quote(_AS_USER)} 2>/dev/null"


async def sudo_kill(connection: asyncssh.SSHClientConnection, password: str | None, seconds: float) -> None:
    """TERM, after half a second KILL. Whether it worked shows at the command's own channel."""
    answer = password.encode("utf-8", "surrogateescape") + b"\n" if password else b""
    with contextlib.suppress(TimeoutError, OSError, asyncssh.Error):
        async with asyncio.timeout(seconds):
            await connection.run(COMMAND, input=answer, encoding=None)
