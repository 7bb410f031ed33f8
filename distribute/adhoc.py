"""/adhoc/: one module on many hosts."""

from __future__ import annotations

from typing import Any

from flask import Response

from distribute import access, context, results, submissions
from distribute.inputs import Resource
from distribute.schemas import AdhocPage, AdhocSubmission, AdhocSubmissionAnswer, ResultQuery
from distribute.tokens import Role

adhoc = Resource("adhoc", __name__)


@adhoc.post("/")
@adhoc.input(AdhocSubmission, arg_name="request")
@adhoc.output(AdhocSubmissionAnswer)
@adhoc.doc(responses=[400, 409, 413, 415, 503])
@access.needs(Role.SUBMIT, "submit")
def submit(request: AdhocSubmission) -> dict[str, Any]:
    """Run a module on hosts

    Answered when the task is stored; the same task_id with the same request is answered alike and runs once.
    """
    return submissions.answer(submissions.adhoc_task(request, context.current().config), request)


@adhoc.get("/")
@adhoc.input(ResultQuery, location="query", arg_name="query")
@adhoc.output(AdhocPage)
@adhoc.doc(responses=[400, 404, 503])
@access.needs(Role.READ)
def read(query: ResultQuery) -> Response | dict[str, Any]:
    """Results of ad hoc tasks

    By task_id every host; by ip that host's results, newest first; by ips the newest result of each.
    """
    return results.answer(query, "adhoc", results.adhoc_item)


@adhoc.post("/query/")
@adhoc.input(ResultQuery, arg_name="query")
@adhoc.output(AdhocPage)
@adhoc.doc(responses=[400, 404, 413, 415, 503])
@access.needs(Role.READ)
def query(query: ResultQuery) -> Response | dict[str, Any]:
    """Results of ad hoc tasks, asked for in a body

    The same as GET /adhoc/, for more addresses than a URL can hold.
    """
    return results.answer(query, "adhoc", results.adhoc_item)
