"""The files of projects on the share: versions, the links to them, mirrors and locks. Neither git nor a database.

contract/project_files.py says where the engines find a version. Besides those there are, for distribute alone:

    FILES_DIR/.mirrors/PROJECT.git     what git has fetched
    FILES_DIR/.locks/NAME              held by flock(2) by who works on a project, or on a clone in the background
    FILES_DIR/.versions/.new/NAME/     a version that is being made; NAME is the project's with + for /

A lock is free when its process is gone, however it went. flock(2) holds between machines where FILES_DIR is NFS.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from contract import project_files
from distribute.errors import Conflict, DistributeError, GatewayTimeout, StorageFull

_LOOK_SECONDS = 0.1  # between two tries for a lock


@dataclass(frozen=True)
class Size:
    files: int
    bytes: int


class Busy(DistributeError):
    """Somebody else holds the lock."""


class Tree:
    """FILES_DIR as distribute sees it. Every call blocks as long as the share does."""

    def __init__(self, files_dir: Path) -> None:
        self.files_dir = files_dir
        self._versions = files_dir / project_files.VERSIONS
        self._new = self._versions / ".new"
        self._locks = files_dir / ".locks"

    def mirror(self, project: str) -> Path:
        """In a folder that is there, and that nobody else reads: a mirror knows more than its project shows."""
        mirrors = self.files_dir / ".mirrors"
        if not mirrors.exists():
            _make_folder(mirrors)
            mirrors.chmod(0o700)
        return mirrors / f"{project}.git"

    def new_version(self, project: str) -> Path:
        """Where the next version is made: an empty place, in a folder that is there."""
        folder = self._new / _flat(project)
        remove(folder)
        _make_folder(self._new)
        return folder

    def has(self, project: str, version: str) -> bool:
        return project_files.version(self.files_dir, project, version).is_dir()

    def adopt(self, made: Path, project: str, version: str, deadline: float) -> None:
        """Make what was made a version, in one step and for good: it is on disk before it has its name.

        Raises GatewayTimeout and StorageFull.
        """
        _sync(made, deadline)
        place = project_files.version(self.files_dir, project, version)
        _make_folder(place.parent)
        made.rename(place)
        self.mark(project, version)

    def mark(self, project: str, version: str) -> None:
        """Say that all of the version is there; what was written by somebody who died before may lack it."""
        mark = project_files.version_mark(self.files_dir, project, version)
        if not mark.exists():
            draft = self._new / f"{_flat(project)}.mark"
            _make_folder(self._new)
            _write(draft, version)
            draft.rename(mark)

    def size(self, project: str, version: str) -> Size:
        return measured(project_files.version(self.files_dir, project, version))

    def show(self, project: str, version: str) -> None:
        """Point FILES_DIR/PROJECT to the version, in one step. Raises Conflict where something else has the name."""
        if self.shows(project, version):
            return
        self.require_free(project)
        link = self.files_dir / project
        _make_folder(link.parent)
        draft = self._new / f"{_flat(project)}.link"
        _make_folder(self._new)
        draft.unlink(missing_ok=True)
        draft.symlink_to(self._target(project, version))
        draft.rename(link)

    def shows(self, project: str, version: str) -> bool:
        link = self.files_dir / project
        return link.is_symlink() and os.readlink(link) == self._target(project, version)

    def require_free(self, project: str) -> None:
        """Raises Conflict where the project's name in FILES_DIR is something that no clone has made."""
        link = self.files_dir / project
        above = [folder for folder in link.parents if self.files_dir in folder.parents]
        if any(folder.is_symlink() for folder in above) or (link.exists() and not link.is_symlink()):
            raise Conflict(
                f"FILES_DIR has {project} already, and not by a clone; nothing was done. Move it away first."
            )

    def hide(self, project: str) -> None:
        """Take the link and the mirror away; versions stay until they are removed."""
        link = self.files_dir / project
        if link.is_symlink():
            link.unlink()
        remove(self.mirror(project))
        for root, name in ((self.files_dir, project), (self.files_dir / ".mirrors", f"{project}.git")):
            self._drop_empty(root, (root / name).parent)

    def remove_version(self, project: str, version: str) -> None:
        """The mark goes first, so that what is half removed is no version any more."""
        project_files.version_mark(self.files_dir, project, version).unlink(missing_ok=True)
        place = project_files.version(self.files_dir, project, version)
        remove(place)
        self._drop_empty(self._versions, place.parent)

    def versions(self) -> Iterator[tuple[str, str]]:
        """Project and version of every folder that is one by its place."""
        for path, folders, _ in os.walk(self._versions):
            project = os.path.relpath(path, self._versions)
            for folder in [folder for folder in folders if os.path.isdir(f"{path}/{folder}")]:
                if folder.startswith("."):
                    folders.remove(folder)
                elif project != "." and is_version(folder):
                    folders.remove(folder)
                    yield project, folder

    def unfinished(self) -> Iterator[str]:
        """Projects of which a new version is being made, or was when somebody died."""
        if self._new.is_dir():
            for entry in sorted(
                {path.name.partition(".mark")[0].partition(".link")[0] for path in self._new.iterdir()}
            ):
                yield entry.replace("+", "/")

    def forget_unfinished(self, project: str) -> None:
        for suffix in ("", ".mark", ".link"):
            remove(self._new / f"{_flat(project)}{suffix}")

    def share(self) -> None:
        """Say that this folder is the share."""
        mark = self.files_dir / project_files.SHARE_MARK
        if not mark.exists():
            _make_folder(self.files_dir)
            draft = mark.with_name(f"{mark.name}.{os.getpid()}")
            _write(draft, "distribute's FILES_DIR\n")
            draft.rename(mark)

    @contextlib.contextmanager
    def locked(self, project: str, deadline: float = 0.0) -> Iterator[None]:
        """Hold the project. Waits until the deadline, a moment of time.monotonic(); raises Busy."""
        with self._held(_flat(project), deadline):
            yield

    @contextlib.contextmanager
    def naming(self, deadline: float) -> Iterator[None]:
        """Hold the names of all projects, for as long as one is checked and taken. Raises Busy."""
        with self._held(".names", deadline):
            yield

    @contextlib.contextmanager
    def working(self, job: str) -> Iterator[None]:
        """Show that somebody works on this clone in the background."""
        name = f".job-{job}"
        with self._held(name, 0.0):
            try:
                yield
            finally:
                (self._locks / name).unlink(missing_ok=True)

    def is_orphaned(self, job: str) -> bool:
        """Whether who worked on this clone is gone."""
        name = f".job-{job}"
        if not (self._locks / name).exists():
            return False  # just ended, or another machine's folder
        try:
            with self._held(name, 0.0):
                return True
        except Busy:
            return False

    @contextlib.contextmanager
    def sweeping(self) -> Iterator[None]:
        """Of all replicas one sweeps. Raises Busy."""
        with self._held(".sweep", 0.0):
            yield

    def _target(self, project: str, version: str) -> str:
        """Relative: the share has another place on every engine."""
        folder = (self.files_dir / project).parent
        return os.path.relpath(project_files.version(self.files_dir, project, version), folder)

    @contextlib.contextmanager
    def _held(self, name: str, deadline: float) -> Iterator[None]:
        _make_folder(self._locks)
        with open(self._locks / name, "a") as file:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() >= deadline:
                        raise Busy(name) from None
                time.sleep(_LOOK_SECONDS)
            yield

    def _drop_empty(self, root: Path, folder: Path) -> None:
        """The folders of a name with slashes, as far as nothing else needs them."""
        while folder != root and root in folder.parents:
            try:
                folder.rmdir()
            except OSError:
                return
            folder = folder.parent


def is_version(name: str) -> bool:
    return len(name.partition("+")[0]) in (40, 64) and set(name.partition("+")[0]) <= set("0123456789abcdef")


def measured(folder: Path) -> Size:
    """Files and links below it. Raises Conflict where a link leads out of it."""
    root = os.path.realpath(folder)
    files = size = 0
    for path, folders, names in os.walk(folder):
        for name in (*folders, *names):
            entry = os.path.join(path, name)
            if os.path.islink(entry):
                real = os.path.realpath(entry)
                if real != root and not real.startswith(f"{root}/"):
                    shown = os.path.relpath(entry, folder)
                    raise Conflict(
                        f"The link {shown} leads out of the project, to {os.readlink(entry)}; nothing was done."
                    )
            elif name in folders:
                continue
            files += 1
            size += os.lstat(entry).st_size
    return Size(files, size)


def remove(path: Path) -> None:
    """A file, a link, or a folder with all that is in it; nothing where there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """A full disk as StorageFull; other errors of the file system stay what they are."""
    try:
        yield
    except OSError as exc:
        if exc.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull("There is no room left in FILES_DIR; nothing was done.") from exc
        raise


def _sync(folder: Path, deadline: float) -> None:
    try:
        subprocess.run(["sync", "--file-system", folder], check=True, timeout=max(deadline - time.monotonic(), 1.0))
    except subprocess.TimeoutExpired as exc:
        raise GatewayTimeout("The files could not be written to FILES_DIR in time; nothing was done.") from exc
    except subprocess.CalledProcessError as exc:
        raise StorageFull("The files could not be written to FILES_DIR; nothing was done. Is it full?") from exc


def _make_folder(path: Path) -> None:
    """With those above it; whatever the umask is, the engines can look into it."""
    if not path.is_dir():
        _make_folder(path.parent)
        path.mkdir(exist_ok=True)
        path.chmod(0o755)


def _write(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o644)


def _flat(project: str) -> str:
    return project.replace("/", "+")
