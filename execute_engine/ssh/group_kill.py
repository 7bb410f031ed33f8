"""Ends all that a command has started, where the signals of its channel would leave something behind.

sshd delivers a signal to the command's process group, as the login user, and only as long as the group's leader lives:
what traps TERM outlives the leader, and no KILL reaches it then; what sudo started is out of reach. So a second command
on the same connection does the kill. It looks for its own siblings, the other children of this connection's sshd, and
ends their process groups, as root where sudo was used; what detached itself on purpose (a daemon, an async job) is none
of them. Linux only; elsewhere the channel's signals are all there is.

Where the connection's sshd has died meanwhile, its children are children of init, as every service of the host is, or
of another process that takes in orphans: then there is nobody to look for, and nothing may be ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import shlex

import asyncssh

_KILL = r"""
sshd=$(sed 's/.*) //' "/proc/$1/stat" | cut -d' ' -f2)
test "$sshd" -gt 1 && grep -qE '^(sshd|dropbear)' "/proc/$sshd/comm" || exit 0
set -- $(sed -n "s/^\([0-9]*\) (.*) . $sshd .*/-\1/p" /proc/[0-9]*/stat | grep -vx -e "-$1")
test $# -gt 0 || exit 0
kill -s TERM -- "$@"
for tenth in 1 2 3 4 5; do
  sleep 0.1
  kill -s 0 -- "$@" || exit 0
done
kill -s KILL -- "$@"
"""


def _command(prefix: str) -> str:
    """The script, told the leader of this command's own session: the connection's child that it runs in."""
    leader = "$(sed 's/.*) //' /proc/$$/stat | cut -d' ' -f4)"
    script = f'exec {prefix}/bin/sh -c {shlex.quote(_KILL)} sh "{leader}"'
    return f"exec /bin/sh -c {shlex.quote(script)} 2>/dev/null"


AS_USER, AS_ROOT = _command(""), _command("sudo -S -p '' ")


async def kill_groups(
    connection: asyncssh.SSHClientConnection, as_root: bool, sudo_password: str | None, seconds: float
) -> None:
    """TERM, after half a second KILL; blocks `seconds` at most. Whether it worked shows at the command's channel."""
    answer = sudo_password.encode("utf-8", "surrogateescape") + b"\n" if as_root and sudo_password else b""
    with contextlib.suppress(TimeoutError, OSError, asyncssh.Error):
        async with asyncio.timeout(seconds):
            await connection.run(AS_ROOT if as_root else AS_USER, input=answer, encoding=None)
