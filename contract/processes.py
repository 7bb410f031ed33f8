"""What the kernel offers for processes: dying with the parent, adopting orphans, finding and killing for certain."""

from __future__ import annotations

import contextlib
import ctypes
import os
import pwd
import select
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

_PR_SET_PDEATHSIG = 1  # prctl(2)
_PR_SET_CHILD_SUBREAPER = 36
_ROUND_SECONDS = 0.05
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_MOST_LOOKS = 100  # at a machine on which something forks all the time


def die_with_parent(parent_pid: int | None = None) -> None:
    """Have the kernel send SIGKILL to this process when its parent (the thread that forked it) ends.

    parent_pid is who the parent must be; a parent that is gone already ends this process here. Without it a parent
    that died before this call goes unnoticed. Children do not inherit it; exec keeps it; changing the user ends it.
    """
    expected = os.getppid() if parent_pid is None else parent_pid
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != expected:  # it died before the call above: nobody would tell us any more
        os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True)
class User:
    """Whom a process can become."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str


def user(name: str) -> User:
    """Raises KeyError when there is no such user."""
    found = pwd.getpwnam(name)
    return User(name, found.pw_uid, found.pw_gid, tuple(os.getgrouplist(name, found.pw_gid)), found.pw_dir)


def become(user: User) -> None:
    """For good, from root: no way leads back. It ends what die_with_parent() asked for. Raises PermissionError."""
    os.setgroups(user.groups)
    os.setgid(user.gid)
    os.setuid(user.uid)
    os.environ |= {"HOME": user.home, "USER": user.name, "LOGNAME": user.name}


def unreadable_for(user: User, paths: Iterable[Path]) -> list[Path]:
    """Those that this user cannot read. For root, in a process with one thread: it asks in a fork."""
    found = []
    for path in paths:
        pid = os.fork()
        if pid == 0:
            try:
                become(user)
                os._exit(not os.access(path, os.R_OK))
            finally:
                os._exit(1)
        if os.waitpid(pid, 0)[1]:
            found.append(path)
    return found


def become_subreaper() -> None:
    """Orphans among the descendants of this process become its children, whatever session they moved to."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def set_title(text: str) -> None:
    """What ps and /proc/PID/cmdline show. Cut to the length of the original command line."""
    # setproctitle takes the environment's memory too unless this is set when it is loaded, and then /proc/PID/environ,
    # by which we find the processes of a unit, is overwritten.
    os.environ["SPT_NOENV"] = "1"
    import setproctitle

    setproctitle.setproctitle(text)
    del os.environ["SPT_NOENV"]


def start_time(pid: int) -> int | None:
    """Clock ticks from boot to the start of the process (proc(5), field 22): pid and this name it for ever.

    None when there is no such process, or only its zombie.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def resident_bytes(pid: int) -> int:
    """The most memory that this process or one of its descendants holds now; 0 when there is no such process.

    Of each process only the children of its main thread are looked at: that is the one that forks workers.
    """
    most, unseen = 0, [pid]
    while unseen:
        process = unseen.pop()
        most = max(most, _resident_bytes(process))
        with contextlib.suppress(OSError):  # gone, or a kernel that does not tell
            unseen += _children(process)
    return most


def tells_children() -> bool:
    """Whether this kernel says whose children are whose (CONFIG_PROC_CHILDREN)."""
    try:
        _children(os.getpid())
    except OSError:
        return False
    return True


def _children(pid: int) -> list[int]:
    """Of its main thread. Raises OSError."""
    with open(f"/proc/{pid}/task/{pid}/children", "rb", buffering=0) as children:
        return [int(child) for child in children.readall().split()]  # one read gives a page of them at most


def _resident_bytes(pid: int) -> int:
    try:
        # A Path makes a text file of it, which takes four times as long, twice a second for each process.
        descriptor = os.open(f"/proc/{pid}/statm", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return int(os.read(descriptor, 200).split()[1]) * _PAGE_BYTES
        finally:
            os.close(descriptor)
    except (OSError, IndexError):  # gone
        return 0


def marked(variable: str, value_matches: Callable[[str], bool]) -> list[int]:
    """The pids of all processes, but this one, that were started with the variable set to a value that matches.

    What is read is the environment at exec: a process that forks shows its parent's, one whose memory of it was
    overwritten shows nothing. Processes of other users are left out unless this one is root's.
    """
    found: list[int] = []
    seen = {os.getpid()}
    for _ in range(_MOST_LOOKS):
        new = sorted({int(entry) for entry in os.listdir("/proc") if entry.isdecimal()} - seen)
        if not new:  # else one that was listed may have forked and ended before it was read
            break
        seen.update(new)
        found += [pid for pid in new if any(map(value_matches, _values_in_environment(pid, variable)))]
    return found


def _values_in_environment(pid: int, variable: str) -> list[str]:
    prefix = f"{variable}=".encode()
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:  # ended meanwhile, or another user's
        return []
    return [os.fsdecode(item[len(prefix) :]) for item in environment.split(b"\0") if item.startswith(prefix)]


def kill_all(find: Callable[[], Iterable[int]], deadline_seconds: float) -> list[int]:
    """SIGKILL what find() finds, again and again until it finds nothing or the deadline passes; returns what is left.

    Blocks at most about deadline_seconds. Zombies count as gone (reaping is the caller's, in find() if need be). A pid
    that was recycled meanwhile is never signalled.
    """
    deadline = time.monotonic() + deadline_seconds
    dead: set[int] = set()
    while True:
        found = set(find())
        left = _living(found)
        # One that was found and ended before we looked may have forked: nothing new may be found.
        if (not left and found <= dead) or time.monotonic() >= deadline:
            break
        dead |= found.difference(left)
        handles = _open_handles(left)
        try:
            # Found again while we hold handles: the handle is of the process that was found, or of a dead one.
            again = set(find())
            for pid, handle in handles.items():
                if pid in again:
                    _kill(handle)
            _wait_for_end(list(handles.values()), min(deadline - time.monotonic(), _ROUND_SECONDS))
        finally:
            for handle in handles.values():
                os.close(handle)
    return left


def _living(pids: Iterable[int]) -> list[int]:
    return [pid for pid in pids if start_time(pid) is not None]


def _open_handles(pids: Iterable[int]) -> dict[int, int]:
    handles = {}
    for pid in pids:
        try:
            handles[pid] = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
    return handles


def _kill(handle: int) -> None:
    try:
        signal.pidfd_send_signal(handle, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


def _wait_for_end(handles: list[int], seconds: float) -> None:
    """Return when all have ended or the time is over."""
    deadline = time.monotonic() + seconds
    poll = select.poll()
    for handle in handles:
        poll.register(handle, select.POLLIN)
    waiting = set(handles)
    while waiting and (left := deadline - time.monotonic()) > 0:
        for handle, _ in poll.poll(left * 1000):
            poll.unregister(handle)
            waiting.discard(handle)


def _prctl(option: int, argument: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, ctypes.c_ulong(argument), 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({option}): {os.strerror(number)}")
