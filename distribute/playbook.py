"""/playbook/: a playbook on many hosts."""

from __future__ import annotations

from typing import Any

from flask import Response

from distribute import access, context, results, submissions
from distribute.inputs import Resource
from distribute.schemas import PlaybookPage, PlaybookSubmission, PlaybookSubmissionAnswer, ResultQuery
from distribute.tokens import Role

playbook = Resource("playbook", __name__)


@playbook.post("/")
@playbook.input(PlaybookSubmission, arg_name="request")
@playbook.output(PlaybookSubmissionAnswer)
@playbook.doc(responses=[400, 409, 413, 415, 503])
@access.needs(Role.SUBMIT, "submit")
def submit(request: PlaybookSubmission) -> dict[str, Any]:
    """Run a playbook on hosts

    The warnings say which strategy each play runs with, and what means a unit of hosts instead of the whole task.
    """
    return submissions.answer(submissions.playbook_task(request, context.current().config), request)


@playbook.get("/")
@playbook.input(ResultQuery, location="query", arg_name="query")
@playbook.output(PlaybookPage)
@playbook.doc(responses=[400, 404, 503])
@access.needs(Role.READ)
def read(query: ResultQuery) -> Response | dict[str, Any]:
    """Results of playbooks

    By task_id every host; by ip that host's results, newest first; by ips the newest result of each.
    """
    return results.answer(query, "playbook", results.playbook_item)


@playbook.post("/query/")
@playbook.input(ResultQuery, arg_name="query")
@playbook.output(PlaybookPage)
@playbook.doc(responses=[400, 404, 413, 415, 503])
@access.needs(Role.READ)
def query(query: ResultQuery) -> Response | dict[str, Any]:
    """Results of playbooks, asked for in a body

    The same as GET /playbook/, for more addresses than a URL can hold.
    """
    return results.answer(query, "playbook", results.playbook_item)
