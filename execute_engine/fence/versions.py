"""Which files a path of a project means: those of the version that this task sees, whatever was cloned since.

A task carries {project: commit}. Below FILES_DIR a project is a link to the version that was cloned last; here a path
through it, or into any other version, leads into the task's own. A project that the task does not name is as it is on
disk, and so is a folder above projects.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from ansible.errors import AnsibleParserError

from contract import project_files

LOOK_SECONDS = 5.0  # for a version that the share does not show
LOOK_AGAIN_SECONDS = 0.2


class NotShown(AnsibleParserError):  # type: ignore[misc]
    """The share of this engine does not show a version that the task was submitted with."""


class Versions:
    """For all threads of a runner."""

    def __init__(self, files_dir: str, projects: Mapping[str, str], is_touched: bool = True) -> None:
        """is_touched: the share may be looked at before a path asks for it, to find another name that it has."""
        names = {files_dir, os.path.realpath(files_dir) if is_touched else files_dir}
        self._tops = tuple(f"{name.rstrip('/')}/" for name in names)
        self._files_dir = Path(files_dir)
        self._projects = projects
        self._looking = threading.Lock()
        self._looked: dict[str, str] = {}  # project -> why its version cannot be read, "" where it can

    def seen(self, path: str | bytes) -> str:
        """Where the file lies that this path means; any other path as it is.

        The first path into a project makes sure that its version is there: that blocks, LOOK_SECONDS where it is not,
        and raises NotShown.
        """
        path = os.fsdecode(path)
        below = self._below(path)
        is_version = below[:1] == [project_files.VERSIONS]
        names = below[1:] if is_version else below
        length = self._project_length(names)
        if not length or (is_version and len(names) == length):
            return path
        project = "/".join(names[:length])
        self._insist(project)
        return str(self._version(project).joinpath(*names[length + is_version :]))

    def shown(self, path: str | bytes) -> str:
        """What people call the file that lies there."""
        path = os.fsdecode(path)
        below = self._below(path)
        if below[:1] != [project_files.VERSIONS] or not (length := self._project_length(below[1:])):
            return path
        if below[length + 1 : length + 2] != [self._projects["/".join(below[1 : length + 1])]]:
            return path
        return str(self._files_dir.joinpath(*below[1 : length + 1], *below[length + 2 :]))

    def _below(self, path: str) -> list[str]:
        """The names of the path from FILES_DIR on; none where it leads elsewhere."""
        if not path.startswith("/"):
            return []
        path = "/" + os.path.normpath(path).lstrip("/")
        return next((path.removeprefix(top).split("/") for top in self._tops if path.startswith(top)), [])

    def _project_length(self, names: list[str]) -> int:
        """Of how many of these names the project's consists; 0: they lead into none of the task's projects."""
        lengths = range(len(names), 0, -1)
        return next((length for length in lengths if "/".join(names[:length]) in self._projects), 0)

    def _version(self, project: str) -> Path:
        return project_files.version(self._files_dir, project, self._projects[project])

    def _insist(self, project: str) -> None:
        reason = self._looked.get(project)
        if reason is None:
            with self._looking:
                if (reason := self._looked.get(project)) is None:
                    reason = self._looked[project] = self._look(project)
        if reason:
            raise NotShown(reason)

    def _look(self, project: str) -> str:
        commit = self._projects[project]
        mark = project_files.version_mark(self._files_dir, project, commit)
        deadline = time.monotonic() + LOOK_SECONDS
        while not _holds(mark, commit):
            if time.monotonic() >= deadline:
                return (
                    f"the share at {self._files_dir} does not show commit {commit} of project {project}: "
                    "is it mounted, and with lookupcache=positive?"
                )
            time.sleep(LOOK_AGAIN_SECONDS)
            _refresh(self._files_dir / project_files.VERSIONS, mark.parent)
        return ""


def _holds(mark: Path, commit: str) -> bool:
    try:
        return mark.read_text().strip() == commit
    except (OSError, ValueError):
        return False


def _refresh(top: Path, folder: Path) -> None:
    """A name that NFS has found missing stays so until the folder that holds it is opened, which asks the server."""
    for parent in (*reversed([parent for parent in folder.parents if parent.is_relative_to(top)]), folder):
        with contextlib.suppress(OSError):
            os.listdir(parent)
