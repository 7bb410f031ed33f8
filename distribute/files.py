"""/file/: projects from Gitlab onto the share."""

from __future__ import annotations

from typing import Any

from werkzeug.routing import PathConverter

from contract.database import now
from contract.states import CloneState
from distribute import access, answers, audit, context
from distribute.answers import moment
from distribute.cloning import WITH_SUBMODULES, Wanted, unknown
from distribute.errors import BadRequest, NotFound, NotReady
from distribute.inputs import Resource
from distribute.schemas import (
    Clone,
    CloneAnswer,
    CloneJobAnswer,
    ProjectsAnswer,
    RemovedProjectAnswer,
    project_problem,
)
from distribute.store import clone_jobs, projects
from distribute.store.queries import Row
from distribute.tokens import Role


class ProjectConverter(PathConverter):
    """A name of a project in a path: its slashes belong to it, and jobs/ is another path."""

    regex = r"(?!jobs/)[^/].*?"


files = Resource("file", __name__)
_SAME = {"$ref": "#/components/schemas/CloneAnswer"}


@files.post("/")
@files.input(Clone, arg_name="request")
@files.output(CloneAnswer)
@files.doc(
    responses={
        202: {"description": "Begun", "content": {"application/json": {"schema": _SAME}}},
        400: "Bad Request",
        404: "Gitlab has no such project, or it no such ref",
        409: "The name is another project's, or it is being cloned",
        413: "Request Entity Too Large",
        415: "Unsupported Media Type",
        502: "Gitlab and distribute do not accept each other",
        503: "Too many clones, or something is missing",
        504: "Gitlab does not answer, or not in time",
        507: "No room in FILES_DIR",
    }
)
@access.needs(Role.OPERATE, "clone")
def clone(request: Clone) -> dict[str, Any] | tuple[dict[str, Any], int]:
    """Clone a project from Gitlab, or bring it up to date

    Answered when every engine can read it. FILES_DIR/PROJECT shows the new version from then on; tasks that were
    submitted before keep theirs.
    """
    audit.about(request.project_name)
    config = context.current().config
    group = request.group or config.gitlab.group
    if not group:
        raise BadRequest([("group", "is required: the configuration names no [Gitlab] GROUP")])
    if not config.gitlab.ip and "{ip}" in config.gitlab.url_template:
        raise NotReady("No project can be cloned: the configuration of distribute has no [Gitlab] IP.")
    wanted = Wanted(request.project_name, group, request.ref, request.depth, request.submodules)
    cloner, deed = context.current().cloner, audit.deed_of_request(200, audit.DONE)
    if request.async_:
        begun = {"job": cloner.begin(wanted, deed), "project": wanted.project}
        return answers.envelope(begun, "begun", 202), 202
    return answers.envelope(cloner.clone(wanted, deed))


@files.get("/")
@files.output(ProjectsAnswer)
@files.doc(responses=[503])
@access.needs(Role.READ)
def list_projects() -> dict[str, Any]:
    """All projects, with what they show"""
    return answers.envelope([_item(row) for row in context.current().database.read(projects.shown)])


@files.get("/jobs/<job>/")
@files.output(CloneJobAnswer)
@files.doc(responses=[404, 503])
@access.needs(Role.READ)
def read_job(job: str) -> dict[str, Any]:
    """How far a clone in the background is"""
    row = _job(job)
    if row.state == CloneState.RUNNING:
        context.current().cloner.settle(job)
        row = _job(job)
    step, answer = row.progress, row.answer
    failure = answer if row.state == CloneState.FAILED else None
    return answers.envelope(
        {
            "job": row.id,
            "project": row.project,
            "state": row.state,
            "progress": step
            and {
                "stage": step["stage"],
                "received": step["done"],
                "total": step["total"],
                "percent": 100 * step["done"] // max(step["total"], 1),
            },
            "result": answer if row.state == CloneState.READY else None,
            "error": failure and failure["msg"],
            "error_code": failure and failure["code"],
            "submitted_by": row.submitted_by,
            "started_date": moment(row.started_at),
            "finished_date": moment(row.finished_at),
        }
    )


@files.delete("/<project:project>/")
@files.output(RemovedProjectAnswer)
@files.doc(responses=[404, 409, 503])
@access.needs(Role.OPERATE, "forget")
def forget(project: str) -> dict[str, Any]:
    """Remove a project

    Its files stay for as long as a task that was submitted before needs them.
    """
    audit.about(project)
    if project_problem(project) is not None:
        raise unknown(project)
    context.current().cloner.forget(project, audit.deed_of_request(200, audit.DONE))
    return answers.envelope({"project": project, "removed": True})


def _job(job: str) -> Row:
    row = context.current().database.read(lambda connection: clone_jobs.find(connection, job))
    if row is None:
        raise NotFound(f"There is no clone {job}.")
    return row


def _item(row: Row) -> dict[str, Any]:
    commit, _, _ = row.commit_id.partition("+")
    return {
        "project": row.name,
        "group": row.group_path,
        "ref": row.ref,
        "commit": commit,
        "submodules": row.commit_id.endswith(WITH_SUBMODULES),
        "files": row.files,
        "bytes": row.bytes,
        "updated_date": moment(row.updated_at),
        "age_seconds": max((now() - row.updated_at).total_seconds(), 0.0),
    }
