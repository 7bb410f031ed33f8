"""The SQL of projects: what each shows, which versions there are, and which of them somebody still needs.

Whoever adds or changes a project holds its lock on the share (project_tree.Tree.locked); tasks are pinned without it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import sqlalchemy as sa

from contract.database import now
from contract.tables import project, project_version, task
from distribute.store.cancelling import OPEN_TASKS
from distribute.store.queries import Row

_LIKE_ESCAPE = "!"
_COMMIT = re.compile("[0-9a-f]{7,64}")


def find(connection: sa.Connection, name: str) -> Row | None:
    return connection.execute(sa.select(project).where(project.c.name == name)).first()


def shown(connection: sa.Connection) -> Sequence[Row]:
    """Every project with the size of the version that it shows, by name."""
    of_it = (project_version.c.project == project.c.name, project_version.c.commit_id == project.c.commit_id)
    statement = sa.select(project, project_version.c.files, project_version.c.bytes)
    return connection.execute(statement.join(project_version, sa.and_(*of_it)).order_by(project.c.name)).all()


def neighbours(connection: sa.Connection, name: str) -> list[str]:
    """Projects inside this one or above it: they would share a folder."""
    parts = name.split("/")
    above = ["/".join(parts[:count]) for count in range(1, len(parts))]
    inside = project.c.name.startswith(f"{name}/", autoescape=True, escape=_LIKE_ESCAPE)
    found = connection.scalars(sa.select(project.c.name).where(inside | project.c.name.in_(above)))
    return sorted(found)


def put(connection: sa.Connection, name: str, group: str, ref: str, version: str, files: int, bytes_: int) -> None:
    """The project shows this version from now on."""
    values = {"group_path": group, "ref": ref, "commit_id": version, "updated_at": now()}
    _put(connection, project, {"name": name}, values)
    key = {"project": name, "commit_id": version}
    _put(connection, project_version, key, {"ref": ref, "files": files, "bytes": bytes_, "ready_at": now()})


def remove(connection: sa.Connection, name: str) -> bool:
    """Tasks see it no more, unless they were pinned before. False where there is none."""
    return connection.execute(sa.delete(project).where(project.c.name == name)).rowcount == 1


def current(connection: sa.Connection) -> dict[str, str]:
    """The version that each project shows."""
    return {row.name: row.commit_id for row in connection.execute(sa.select(project.c.name, project.c.commit_id))}


def version_of(connection: sa.Connection, name: str, ref: str) -> str | None:
    """The newest version of this project by its name, by the ref it was cloned by, or the beginning of its commit.

    Its row is locked: it is not removed before the transaction ends.
    """
    is_it = (project_version.c.ref == ref) | (project_version.c.commit_id == ref)
    if _COMMIT.fullmatch(ref):
        is_it |= project_version.c.commit_id.startswith(ref)
    statement = sa.select(project_version.c.commit_id).where(project_version.c.project == name, is_it)
    newest = statement.order_by(project_version.c.ready_at.desc()).limit(1)
    found: str | None = connection.scalar(newest.with_for_update())
    return found


def versions(connection: sa.Connection) -> set[tuple[str, str]]:
    """Project and version of every row."""
    rows = connection.execute(sa.select(project_version.c.project, project_version.c.commit_id))
    return {(row.project, row.commit_id) for row in rows}


def needed(connection: sa.Connection) -> set[tuple[str, str]]:
    """What projects show, and what open tasks are pinned to."""
    pinned = connection.scalars(
        sa.select(task.c.projects).where(task.c.state.in_(OPEN_TASKS), task.c.projects.is_not(None)).distinct()
    )
    return set(current(connection).items()).union(*(projects.items() for projects in pinned))


def forget_version(connection: sa.Connection, name: str, version: str) -> bool:
    """Delete the row of a version that nobody needs; False where somebody does, or somebody else was faster."""
    mine = (project_version.c.project == name, project_version.c.commit_id == version)
    locked = sa.select(project_version.c.commit_id).where(*mine).with_for_update()
    if connection.execute(locked).first() is None or (name, version) in needed(connection):
        return False
    return connection.execute(sa.delete(project_version).where(*mine)).rowcount == 1


def _put(connection: sa.Connection, table: sa.Table, key: Mapping[str, str], values: Mapping[str, object]) -> None:
    where = [table.c[name] == value for name, value in key.items()]
    if connection.execute(sa.select(sa.literal(1)).select_from(table).where(*where)).first() is None:
        connection.execute(sa.insert(table).values({**key, **values}))
    else:
        connection.execute(sa.update(table).where(*where).values(values))
