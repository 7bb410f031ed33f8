"""What nobody needs any more of the projects' files goes, and links that somebody left behind are put right.

A thread of each process that answers requests; of all of them one works, who holds a lock on the share. A share that
does not answer holds up this thread and nothing else.
"""

from __future__ import annotations

import logging
import threading
import time

from contract.database import Database
from contract.errors import DatabaseError
from distribute.errors import DistributeError
from distribute.project_tree import Busy, Tree
from distribute.store import projects

KEEP_SECONDS = 600.0  # a reader may hold open what was replaced
ROUND_SECONDS = 60.0

log = logging.getLogger(__name__)


class Sweep:
    """Times are monotonic: after a restart every version waits anew."""

    def __init__(self, tree: Tree, database: Database, keep_seconds: float = KEEP_SECONDS) -> None:
        self._tree = tree
        self._database = database
        self._keep_seconds = keep_seconds
        self._unneeded_since: dict[tuple[str, str], float] = {}

    def start(self) -> None:
        threading.Thread(target=self._run, name="sweep", daemon=True).start()

    def _run(self) -> None:
        told = ""
        while True:
            try:
                self._tree.share()
                with self._tree.sweeping():
                    while True:
                        self.round()
                        told = ""
                        time.sleep(ROUND_SECONDS)
            except Busy:
                pass  # another one does it
            except (OSError, DatabaseError, DistributeError) as exc:
                if str(exc) != told:
                    told = str(exc)
                    log.warning("the projects' files are not swept", extra={"error": told})
            time.sleep(ROUND_SECONDS)

    def round(self) -> None:
        """Look once at everything. Raises OSError, DatabaseError and DistributeError."""
        self._forget_unfinished()
        self._show()
        self._remove_unneeded()

    def _forget_unfinished(self) -> None:
        """What somebody who died was making."""
        for project in self._tree.unfinished():
            try:
                with self._tree.locked(project):
                    self._tree.forget_unfinished(project)
            except Busy:
                continue  # it is being made

    def _show(self) -> None:
        """Links as the database has them, and none that it has not."""
        for project, version in self._database.read(projects.current).items():
            if self._tree.shows(project, version) or not self._tree.has(project, version):
                continue
            try:
                with self._tree.locked(project):
                    if self._database.read(projects.current).get(project) == version:
                        self._tree.show(project, version)
            except Busy:
                continue

    def _remove_unneeded(self) -> None:
        rows = self._database.read(projects.versions)
        found = rows | set(self._tree.versions())
        unneeded = found - self._database.read(projects.needed)
        moment = time.monotonic()
        self._unneeded_since = {each: self._unneeded_since.get(each, moment) for each in unneeded}
        for (project, version), since in list(self._unneeded_since.items()):
            if moment - since >= self._keep_seconds:
                self._remove(project, version)

    def _remove(self, project: str, version: str) -> None:
        """The row goes first: from then on no task is pinned to it."""
        try:
            with self._tree.locked(project):
                forgotten = self._database.write(
                    lambda connection: projects.forget_version(connection, project, version)
                )
                if forgotten or (project, version) not in self._database.read(projects.versions):
                    self._tree.remove_version(project, version)
                    log.info("a version was removed", extra={"project": project, "version": version})
        except Busy:
            return
        del self._unneeded_since[project, version]
