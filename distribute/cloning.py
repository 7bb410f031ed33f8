"""Cloning a project from Gitlab onto the share: one clone of a project at a time, all of it or nothing.

    the project's lock -> git into the mirror -> a new version -> its rows, with the audit's -> the link

Whoever dies between two of these leaves the version before in place; the next clone, or the sweep, does the rest.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

import sqlalchemy as sa

from contract.config import Config
from contract.database import Database
from contract.errors import DatabaseError
from contract.failpoint import fail_point
from contract.states import CloneState
from distribute.answers import envelope
from distribute.errors import BadGateway, Conflict, GitError, NotFound, NotReady, RequestError
from distribute.git import Found, Repository, Step
from distribute.project_tree import Busy, Size, Tree, measured, remove, translated
from distribute.store import audit, clone_jobs, projects
from distribute.store.audit import Deed

MOST_CLONES = 4  # at once in one process: half of its threads answer other requests meanwhile
FORGET_SECONDS = 5.0  # for the lock, which a sweep holds for a moment too
PROGRESS_SECONDS = 1.0  # between two rows of it
WITH_SUBMODULES = "+submodules"  # behind the commit: another version, with other files

T = TypeVar("T")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Wanted:
    """A valid request, with the group filled in."""

    project: str
    group: str
    ref: str | None
    depth: int | None
    submodules: bool


class Cloner:
    """One for each process that answers requests; used by all its threads."""

    def __init__(self, config: Config, database: Database) -> None:
        self._gitlab = config.gitlab
        self._database = database
        self.tree = Tree(config.distribute.files_dir)
        self._places = threading.BoundedSemaphore(MOST_CLONES)

    def clone(self, wanted: Wanted, deed: Deed) -> dict[str, Any]:
        """Clone and answer: blocks for CLONE_TIMEOUT at most. deed is the audit's row of it.

        Raises NotFound, Conflict, BadGateway, GatewayTimeout, StorageFull, NotReady and DatabaseError.
        """
        self._take_place()
        try:
            return self._clone(wanted, deed, lambda _: None)
        finally:
            self._places.release()

    def begin(self, wanted: Wanted, deed: Deed) -> str:
        """Clone in the background; returns the id under which GET /file/jobs/ shows it. Raises NotReady."""
        self._take_place()
        id_ = uuid.uuid4().hex
        begun: list[Exception | None] = []
        is_begun = threading.Event()

        def work() -> None:
            try:
                with self.tree.working(id_):
                    self._database.write(lambda connection: clone_jobs.add(connection, id_, wanted.project, deed.who))
                    begun.append(None)
                    is_begun.set()
                    self._work(id_, wanted, deed)
            except Exception as exc:
                if begun:
                    log.exception("a clone in the background broke off", extra={"project": wanted.project})
                begun.append(exc)
            finally:
                is_begun.set()
                self._places.release()

        threading.Thread(target=work, name=f"clone {wanted.project}", daemon=True).start()
        is_begun.wait()
        if begun[0] is not None:
            raise begun[0]
        return id_

    def settle(self, job: str) -> None:
        """End the row of a clone whose worker is gone."""
        if self.tree.is_orphaned(job):
            failure = BadGateway("The clone was interrupted: distribute was stopped. Ask for it again.")
            self._end(job, CloneState.FAILED, _failed(failure))

    def forget(self, name: str, deed: Deed) -> None:
        """Remove a project: tasks see it no more, but those that are pinned to a version. Raises NotFound, Conflict."""

        def forget(connection: sa.Connection) -> bool:
            found = projects.remove(connection, name)
            if found:
                audit.add(connection, deed)
            return found

        try:
            with self.tree.locked(name, time.monotonic() + FORGET_SECONDS), translated():
                if not self._database.write(forget):
                    raise unknown(name)
                self.tree.hide(name)
        except Busy:
            raise Conflict(f"The project {name} is being cloned; nothing was done. Try again when it is.") from None

    def _take_place(self) -> None:
        if not self._places.acquire(blocking=False):
            raise NotReady(f"{MOST_CLONES} projects are being cloned here already; nothing was done. Try again.")

    def _work(self, id_: str, wanted: Wanted, deed: Deed) -> None:
        told_at = 0.0

        def tell(step: Step) -> None:
            nonlocal told_at
            if time.monotonic() - told_at < PROGRESS_SECONDS:
                return
            told_at = time.monotonic()
            try:
                self._database.write(lambda connection: clone_jobs.progress(connection, id_, asdict(step)))
            except DatabaseError as exc:
                log.info("the progress of a clone was not stored", extra={"error": str(exc)})

        try:
            self._end(id_, CloneState.READY, self._clone(wanted, deed, tell))
        except RequestError as exc:
            refusal = replace(deed, code=exc.STATUS, msg=exc.message)
            log.warning("a clone in the background failed", extra={"project": wanted.project, "error": exc.message})
            self._database.write(lambda connection: audit.add(connection, refusal))
            self._end(id_, CloneState.FAILED, _failed(exc))

    def _end(self, id_: str, state: CloneState, answer: dict[str, Any]) -> None:
        self._database.write(lambda connection: clone_jobs.end(connection, id_, state, answer))

    def _clone(self, wanted: Wanted, deed: Deed, progress: Callable[[Step], None]) -> dict[str, Any]:
        begun = time.monotonic()
        deadline = begun + self._gitlab.clone_timeout
        self._database.read(lambda connection: _require_free(connection, wanted))
        try:
            with translated(), self.tree.locked(wanted.project, deadline):
                self.tree.require_free(wanted.project)
                self.tree.forget_unfinished(wanted.project)
                repository = self._repository(wanted, deadline, progress)
                found, version, size = self._with_sound_mirror(
                    wanted.project, lambda: self._version(wanted, repository, deadline)
                )
                fail_point("version-ready")
                with self.tree.naming(deadline):
                    self._database.write(lambda connection: _store(connection, wanted, found, version, size, deed))
                    fail_point("clone-stored")
                    self.tree.show(wanted.project, version)
        except Busy:
            words = "is being cloned by another request, and was for all the time of this one; nothing was done."
            raise Conflict(f"The project {wanted.project} {words}") from None
        seconds = round(time.monotonic() - begun, 3)
        log.info("a project was cloned", extra={"project": wanted.project, "commit": found.commit, "seconds": seconds})
        return {
            "project": wanted.project,
            "group": wanted.group,
            "ref": found.ref,
            "commit": found.commit,
            "files": size.files,
            "bytes": size.bytes,
            "seconds": seconds,
        }

    def _repository(self, wanted: Wanted, deadline: float, progress: Callable[[Step], None]) -> Repository:
        url = self._gitlab.url_template.format(ip=self._gitlab.ip, group=wanted.group, project=wanted.project)
        mirror = self.tree.mirror(wanted.project)
        return Repository(self._gitlab, self.tree.files_dir, mirror, url, deadline, progress)

    def _with_sound_mirror(self, project: str, work: Callable[[], T]) -> T:
        """Once more with a new mirror where git does not get on with the one that is there. Raises BadGateway."""
        mirror = self.tree.mirror(project)
        if mirror.exists():
            try:
                return work()
            except GitError as exc:
                log.warning("a mirror is made anew", extra={"project": project, "error": str(exc)})
            remove(mirror)
        try:
            return work()
        except GitError as exc:
            raise BadGateway(f"{exc}; nothing was done.") from exc

    def _version(self, wanted: Wanted, repository: Repository, deadline: float) -> tuple[Found, str, Size]:
        """What the ref is, the version's name, and its size; it is made where it is not there. Raises GitError."""
        found = repository.find(wanted.ref, wanted.depth)
        version = found.commit + (WITH_SUBMODULES if wanted.submodules else "")
        if self.tree.has(wanted.project, version):
            self.tree.mark(wanted.project, version)
            return found, version, self.tree.size(wanted.project, version)
        made = self.tree.new_version(wanted.project)
        try:
            repository.check_out(found.commit, made, wanted.submodules)
            size = measured(made)
            fail_point("version-made")
            self.tree.adopt(made, wanted.project, version, deadline)
        finally:
            remove(made)
        return found, version, size


def unknown(name: str) -> NotFound:
    return NotFound(f"There is no project {name}; nothing was done.")


def _require_free(connection: sa.Connection, wanted: Wanted) -> None:
    """Raises Conflict for a name that is another group's, inside another project, or around one."""
    known = projects.find(connection, wanted.project)
    if known is not None and known.group_path != wanted.group:
        raise Conflict(
            f"The project {wanted.project} is the one of the group {known.group_path}; nothing was done. "
            f"DELETE /file/{wanted.project}/ makes room for that of {wanted.group}."
        )
    if near := projects.neighbours(connection, wanted.project):
        raise Conflict(f"{wanted.project} lies inside or around {', '.join(near)}; nothing was done.")


def _store(connection: sa.Connection, wanted: Wanted, found: Found, version: str, size: Size, deed: Deed) -> None:
    _require_free(connection, wanted)  # others may have come while git worked
    projects.put(connection, wanted.project, wanted.group, found.ref, version, size.files, size.bytes)
    audit.add(connection, replace(deed, msg=f"{found.ref} is {found.commit}"))


def _failed(error: RequestError) -> dict[str, Any]:
    return envelope(error.data, error.message, error.STATUS)
