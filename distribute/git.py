"""git and its ssh, as clones need them: the one module that runs them, by GitPython.

No shell is involved, nothing of a request becomes an option, and no hook, filter or alias of anybody's configuration
is used. Each call blocks until git has ended, at most until the deadline: then git's whole process group is killed.
A git whose caller dies is killed by the kernel, and its ssh with it.
"""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from git import Git, RemoteProgress

from contract.config import GitlabSettings
from distribute.errors import BadGateway, GatewayTimeout, GitError, NotFound, StorageFull

FULL_HISTORY = ("+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")
_COMMIT = re.compile("[0-9a-f]{7,64}")
_DIE_WITH_PARENT = ("setpriv", "--pdeathsig", "KILL", "--")
_LONGEST_REF = 255  # characters, ascii: as a request may have it; a default branch of another name goes by its commit
_STALLED_SECONDS = 30  # an https transfer without a byte
_TEXT_BYTES = 4096  # of what git said, kept for the answer

# What git, ssh and Gitlab say, and what it means; the first that fits. https://git-scm.com and Gitlab's own words.
_AUTHENTICATION = re.compile(
    "permission denied|authentication failed|access denied|could not read (username|password)|"
    "host key verification failed|certificate|returned error: 403",
    re.IGNORECASE,
)
_UNREACHABLE = re.compile(
    "could not resolve|connection (refused|timed out|reset|closed)|timed out|no route to host|unreachable|"
    "failed to connect|kex_exchange_identification|early eof|too slow|returned error: 5|hung up unexpectedly",
    re.IGNORECASE,
)
_UNKNOWN = re.compile(
    "does not appear to be a git repository|could not be found|repository .* not found|repository not found",
    re.IGNORECASE,
)
_FULL = re.compile("no space left|out of diskspace|disk quota exceeded", re.IGNORECASE)
_NOISE = re.compile("^(warning: permanently added|hint:|cloning into|from )", re.IGNORECASE)


@dataclass(frozen=True)
class Step:
    """How far git is: in what, objects so far, in all (0: not known)."""

    stage: str
    done: int
    total: int


Progress = Callable[[Step], None]


@dataclass(frozen=True)
class Found:
    """A ref as it is to be shown, and the commit that it stands for."""

    ref: str
    commit: str


class Repository:
    """One project at Gitlab, and the mirror of it here. Used by one thread, which holds the project's lock.

    Every call raises NotFound, BadGateway, GatewayTimeout, StorageFull, and GitError for what is none of these.
    """

    def __init__(
        self, settings: GitlabSettings, files_dir: Path, mirror: Path, url: str, deadline: float, progress: Progress
    ) -> None:
        """deadline is a moment of time.monotonic(). url may hold a name and a token: git's arguments never do."""
        self._settings = settings
        self._known_hosts = files_dir / ".known_hosts"
        self._mirror = mirror
        self._url, self._credentials = _without_credentials(url)
        self._deadline = deadline
        self._progress = progress

    def find(self, ref: str | None, depth: int | None) -> Found:
        """The commit of a branch, tag, commit (7 characters or more) or, without one, of the default branch.

        Afterwards the mirror has all of it. Where a ref is a branch and a tag, it is the branch.
        """
        with self._private() as private:
            self._init()
            for is_last in (False, True):
                name, full_name, commit = self._advertised(private, ref)
                if commit is None:
                    return Found(name, self._commit(private, name))
                if not self._has(commit):
                    self._fetch(private, [f"+{full_name}:{full_name}"] if depth else FULL_HISTORY, depth)
                if self._has(commit):
                    return Found(name, commit)
                if is_last:
                    break  # it moved between the two looks, twice
        raise GatewayTimeout(f"{ref or 'The default branch'} moved while it was fetched; nothing was done. Try again.")

    def check_out(self, commit: str, folder: Path, with_submodules: bool) -> None:
        """Write the commit's files into this new folder; nothing of git stays in it."""
        self._git(["init", "--quiet", "--template=", "--", str(folder)])
        (folder / ".git/objects/info").mkdir(parents=True, exist_ok=True)
        (folder / ".git/objects/info/alternates").write_text(f"{self._mirror}/objects\n")
        self._git(["checkout", "--quiet", "--detach", commit], folder)
        if missing := self._git(["status", "--porcelain", "--untracked-files=no", "--ignore-submodules"], folder):
            raise GitError(f"the mirror lacks files of {commit}: {missing[:200]}")  # git says so and ends well
        if with_submodules and (folder / ".gitmodules").exists():
            with self._private() as private:
                self._git(["remote", "add", "origin", self._url], folder)
                update = ["submodule", "update", "--init", "--recursive", "--checkout", "--progress"]
                self._git(update, folder, private)
        for path, folders, files in os.walk(folder):
            if ".git" in folders:
                folders.remove(".git")
                shutil.rmtree(f"{path}/.git")
            elif ".git" in files:
                os.unlink(f"{path}/.git")

    def _init(self) -> None:
        """The mirror, cleared of what a killed git has left: we hold the lock, so that no other works on it."""
        for pattern in ("**/*.lock", "objects/pack/tmp_*", "objects/*/tmp_obj_*"):
            for left in self._mirror.glob(pattern):
                left.unlink(missing_ok=True)
        self._git(["init", "--quiet", "--bare", "--template=", "--", str(self._mirror)])

    def _advertised(self, private: Path, ref: str | None) -> tuple[str, str, str | None]:
        """What Gitlab says this ref is now: as it is shown, as git calls it, its commit; None: no branch and no tag."""
        refs: dict[str, str] = {}
        head = ""
        for line in self._git(["ls-remote", "--symref", "--", self._url], private=private).splitlines():
            value, _, name = line.partition("\t")
            if name == "HEAD" and value.startswith("ref: "):
                head = value.removeprefix("ref: ")
            else:
                refs[name] = value
        if ref is None:
            if head not in refs:
                raise NotFound("The project has no commit on its default branch; nothing was done.")
            name = head.removeprefix("refs/heads/")
            return name if name.isascii() and len(name) <= _LONGEST_REF else refs[head], head, refs[head]
        for full_name in (f"refs/heads/{ref}", f"refs/tags/{ref}"):
            if full_name in refs:
                return ref, full_name, refs.get(f"{full_name}^{{}}", refs[full_name])
        if not _COMMIT.fullmatch(ref):
            raise NotFound(f"The project has no branch and no tag {ref}; nothing was done.")
        return ref, "", None

    def _commit(self, private: Path, ref: str) -> str:
        """The full name of a commit, of which it may be the beginning."""
        found = self._parsed(ref)
        if found is None:
            self._fetch(private, FULL_HISTORY, None)
            found = self._parsed(ref)
        if found is None:
            raise NotFound(f"The project has no commit {ref}, or more than one that begins so; nothing was done.")
        return found

    def _parsed(self, ref: str) -> str | None:
        parse = ["rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}"]
        try:
            return self._git(parse, self._mirror).strip()
        except GitError:
            return None

    def _has(self, commit: str) -> bool:
        try:
            self._git(["cat-file", "-e", f"{commit}^{{tree}}"], self._mirror)
        except GitError:
            return False
        return True

    def _fetch(self, private: Path, refspecs: Sequence[str], depth: int | None) -> None:
        how = ["--depth", str(depth)] if depth else ["--prune"]
        if not depth and (self._mirror / "shallow").exists():
            how.append("--unshallow")
        fetch = ["fetch", "--force", "--no-tags", "--progress", *how, "--", self._url, *refspecs]
        self._git(fetch, self._mirror, private)

    @contextlib.contextmanager
    def _private(self) -> Iterator[Path]:
        """A folder that only this user can read, with what git has to know of the credentials."""
        with tempfile.TemporaryDirectory(prefix="distribute-git-") as folder:
            if self._credentials:
                store = Path(folder, "credentials")
                store.touch(0o600)
                store.write_text(f"{self._credentials}\n")
            yield Path(folder)

    def _git(self, words: Sequence[str], folder: Path | None = None, private: Path | None = None) -> str:
        """What git wrote on standard output."""
        settings = [f"{name}={value}" for name, value in _OPTIONS.items()]
        if private and self._credentials:
            settings.append(f"credential.helper=store --file={shlex.quote(str(private / 'credentials'))}")
        options = [word for setting in settings for word in ("-c", setting)]
        return self._run([*_DIE_WITH_PARENT, "git", *options, *words], folder, private or Path("/nonexistent"))

    def _run(self, command: list[str], folder: Path | None, home: Path) -> str:
        if self._deadline - time.monotonic() <= 0:
            raise self._too_late("")
        process: Any = Git(str(folder) if folder else None).execute(
            command,
            as_process=True,
            env=self._environment(home),
            process_group=0,
            umask=0o022,  # the engines read as other users
        )
        progress = _Parser(self._progress)
        try:
            output, errors, in_time = _communicate(process.proc, self._deadline, progress.line)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.proc.pid, signal.SIGKILL)
            process.proc.wait()
        text = _readable(errors)
        if not in_time:
            raise self._too_late(text)
        if process.proc.returncode != 0:
            raise _error(text)
        return output.decode(errors="replace")

    def _environment(self, home: Path) -> dict[str, str]:
        found = {**_ENVIRONMENT, "HOME": str(home), "GIT_SSH_COMMAND": self._ssh()}
        if self._settings.ssl_ca:  # as an option it would be overruled by this variable of the service's own
            found["GIT_SSL_CAINFO"] = str(self._settings.ssl_ca)
        return found

    def _too_late(self, text: str) -> GatewayTimeout:
        seconds = self._settings.clone_timeout
        said = f" git said: {text}" if text else ""
        return GatewayTimeout(f"Gitlab has not given the project within {seconds} s; nothing was done.{said}")

    def _ssh(self) -> str:
        options = {
            "BatchMode": "yes",
            "ConnectTimeout": "15",
            "ServerAliveInterval": "15",
            "ServerAliveCountMax": "2",
            "StrictHostKeyChecking": self._settings.host_key_checking,
            "UserKnownHostsFile": str(self._known_hosts),
            "GlobalKnownHostsFile": "/dev/null",
            "IdentitiesOnly": "yes" if self._settings.ssh_key_file else "no",
        }
        words = [*_DIE_WITH_PARENT, "ssh", "-F", "/dev/null"]
        for name, value in options.items():
            words += ["-o", f"{name}={value}"]
        if self._settings.ssh_key_file:
            words += ["-i", str(self._settings.ssh_key_file)]
        return shlex.join(words)


_OPTIONS = {
    "core.hooksPath": os.devnull,
    "core.symlinks": "true",
    "credential.helper": "",  # none but the one that may follow
    "fetch.unpackLimit": "1",  # a pack is there whole or not at all; loose objects of a fetch that failed would stay
    "gc.autoDetach": "false",
    "maintenance.autoDetach": "false",
    "http.lowSpeedLimit": "1",
    "http.lowSpeedTime": str(_STALLED_SECONDS),
    "safe.directory": "*",
}
_ENVIRONMENT = {
    "GIT_ALLOW_PROTOCOL": "ssh:https",
    "GIT_ASKPASS": "/bin/false",
    "GIT_CONFIG_COUNT": "0",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_PARAMETERS": "",
    "GIT_SSH_VARIANT": "ssh",
    "GIT_TERMINAL_PROMPT": "0",
}


class _Parser(RemoteProgress):
    """Lines of git's standard error as steps."""

    _STAGES: ClassVar = {
        RemoteProgress.COUNTING: "counting objects",
        RemoteProgress.COMPRESSING: "compressing objects",
        RemoteProgress.RECEIVING: "receiving objects",
        RemoteProgress.RESOLVING: "resolving deltas",
        RemoteProgress.CHECKING_OUT: "checking out files",
    }

    def __init__(self, progress: Progress) -> None:
        super().__init__()
        self._tell = progress
        self.line = self.new_message_handler()

    def update(self, op_code: int, cur_count: Any, max_count: Any = None, message: str = "") -> None:
        stage = self._STAGES.get(op_code & self.OP_MASK)
        if stage:
            self._tell(Step(stage, int(float(cur_count)), int(float(max_count or 0))))


def _communicate(
    process: subprocess.Popen[bytes], deadline: float, line: Callable[[str], None]
) -> tuple[bytes, bytes, bool]:
    """Standard output, the end of standard error, and whether git ended in time; line hears each line of the latter."""
    assert process.stdout is not None
    assert process.stderr is not None
    output, errors, rest = bytearray(), bytearray(), b""
    with selectors.DefaultSelector() as selector:
        for stream in (process.stdout, process.stderr):
            selector.register(stream, selectors.EVENT_READ)
        while selector.get_map():
            if (seconds := deadline - time.monotonic()) <= 0:
                return bytes(output), bytes(errors), False
            for key, _ in selector.select(seconds):
                chunk = os.read(key.fd, 65536)
                if not chunk:
                    selector.unregister(key.fileobj)
                elif key.fileobj is process.stdout:
                    output += chunk
                else:
                    *lines, rest = re.split(rb"[\r\n]", rest + chunk)
                    for each in lines:
                        line(each.decode(errors="replace"))
                    errors = (errors + chunk)[-_TEXT_BYTES:]
    try:
        process.wait(max(deadline - time.monotonic(), 0))
    except subprocess.TimeoutExpired:
        return bytes(output), bytes(errors), False
    return bytes(output), bytes(errors), True


def _readable(errors: bytes) -> str:
    """The lines that say why, without progress and advice, as one."""
    lines = [line.strip() for line in errors.decode(errors="replace").splitlines()]
    telling = [line for line in lines if line and not _NOISE.match(line) and not re.search(r"\d+% \(", line)]
    return " ".join(telling[-6:])[-600:]


def _error(text: str) -> Exception:
    if _FULL.search(text):
        return StorageFull("There is no room left in FILES_DIR; nothing was done.")
    if _UNKNOWN.search(text):
        return NotFound(f"Gitlab has no such project, or does not show it to us; nothing was done. git said: {text}")
    if _AUTHENTICATION.search(text):
        return BadGateway(
            "Gitlab and distribute do not accept each other; nothing was done. Look at [Gitlab] in the configuration. "
            f"git said: {text}"
        )
    if _UNREACHABLE.search(text):
        return GatewayTimeout(f"Gitlab does not answer; nothing was done. git said: {text}")
    return GitError(f"git failed: {text}")


def _without_credentials(url: str) -> tuple[str, str]:
    """https://name:token@host/path as the URL without them, and the line for git's credential store."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme != "https" or parts.username is None:
        return url, ""
    bare = parts._replace(netloc=parts.netloc.rpartition("@")[2])
    return bare.geturl(), parts._replace(path="", query="", fragment="").geturl()
