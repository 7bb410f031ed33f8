"""The ssh connections of one runner: the only package that imports asyncssh.

The runner makes one Hosts after its fork, calls use(hosts), and every connection plugin finds it by current().

    hosts       the door: one event loop in a thread, calls from any thread
    host        one host: its connection, what runs on it now, how it is ended
    login       from the TCP connection to the logged-in one, with a deadline a stage
    command     one command on a connection: output, become prompt, signals
    transfer    one file by sftp
    host_keys   which host key is accepted
    failures    every failure as a sentence with a reason code
"""

from __future__ import annotations

from execute_engine.ssh.command import BecomePrompt
from execute_engine.ssh.failures import LoginRefused, Unreachable
from execute_engine.ssh.hosts import Hosts, current, use
from execute_engine.ssh.progress import Where

__all__ = ["BecomePrompt", "Hosts", "LoginRefused", "Unreachable", "Where", "current", "use"]
