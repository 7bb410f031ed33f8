"""From a valid request to a stored task and its answer."""

from __future__ import annotations

import hashlib
import json
import logging
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from contract import secret
from contract.config import Config
from contract.errors import SecretError
from contract.states import ENDED_TASKS
from distribute import access, audit, file_use
from distribute.answers import Item, envelope, moment
from distribute.errors import BadRequest, Conflict
from distribute.schemas import AdhocSubmission, PlaybookSubmission, Rerun, Submission
from distribute.store import projects, queries
from distribute.store.queries import Row
from distribute.store.submission import NewTask, Stored, submit

log = logging.getLogger(__name__)


def answer(new: NewTask, request: Submission) -> dict[str, Any]:
    """Store it and answer; again the same answer when it is there already, of the same client.

    Raises Forbidden, Conflict, BadRequest and DatabaseError.
    """
    audit.about(new.id)
    access.require_hosts(new.hosts)

    def store(connection: sa.Connection) -> tuple[Row, str]:
        is_there = queries.find_task(connection, new.id) is not None  # with the versions of its first submission
        pins = {} if is_there else _pinned(connection, request.project_ref)
        stored = submit(connection, replace(new, projects=pins))
        return stored.row, outcome(stored)

    return summary(audit.change(new.id, store), request.ips.duplicates)


def outcome(stored: Stored) -> str:
    """What the audit says of a submission that was answered."""
    return audit.DONE if stored.is_new else "was there already"


def summary(stored: Row, duplicates: int) -> dict[str, Any]:
    """The answer to the submission of this task."""
    of_type = {"module": stored.module} if stored.type == "adhoc" else {"playbook_name": stored.playbook_name}
    item: Item = {
        "task_id": stored.id,
        "task_name": stored.name,
        "type": stored.type,
        **of_type,
        "state": "queued",  # as it was answered first, whatever has become of it
        "hosts": stored.host_count,
        "units": stored.unit_count,
        "duplicates": duplicates,
        "timeout": stored.timeout_seconds,
        "warnings": stored.warnings,
        "created_date": moment(stored.created_at),
    }
    return envelope(item, "accepted")


def adhoc_task(request: AdhocSubmission, config: Config) -> NewTask:
    are_json = not isinstance(request.args, str)
    return NewTask(
        **_common(request, config),
        options=_options(
            request,
            config,
            become=request.become,
            template=request.template,
            args_are_json=are_json,
            task_timeout=None,
        ),
        warnings=[],
        module=request.module,
        needs_files=file_use.of_module(request.module, request.args),
        args=_kept(json.dumps(request.args) if are_json else str(request.args), request, config),
    )


def playbook_task(request: PlaybookSubmission, config: Config) -> NewTask:
    playbook = request.playbook_content.as_secret() if request.secret_args else request.playbook_content
    options = _options(
        request,
        config,
        become=request.become or None,
        template=False,
        args_are_json=False,
        task_timeout=request.task_timeout,
    )
    common = _common(request, config)
    units = -(-len(request.ips.names) // common["unit_hosts"])
    return NewTask(
        **common,
        options={**options, "strategies": list(playbook.strategies)},
        warnings=playbook.warnings(units) + ([] if request.host_timeout else playbook.hang_warnings()),
        playbook_name=request.playbook_name,
        needs_files=file_use.of_playbook(playbook.text),
        playbook_content=_kept(playbook.text, request, config),
    )


def rerun(connection: sa.Connection, before: Row, request: Rerun) -> NewTask:
    """A new task like the one before, for its hosts with these statuses.

    Raises Conflict where there is none, and Forbidden.
    """
    if before.state not in ENDED_TASKS:
        raise Conflict(f"The task {before.id} has not ended; nothing was done. Wait for it, or cancel it first.")
    hosts = queries.hosts_with_status(connection, before.key, request.statuses)
    if not hosts:
        wanted = ", ".join(request.statuses)
        raise Conflict(f"The task {before.id} has no host with status {wanted}; nothing was done.")
    if not all(map(access.client().may_use, hosts)):
        raise access.beyond_hosts(before.id)
    pins, moved = _pinned_again(connection, before.projects or {})
    same = {"rerun_of": before.id, "statuses": request.statuses}
    return NewTask(
        id=request.task_id or uuid.uuid4().hex,
        name=before.name,
        type=before.type,
        timeout_seconds=before.timeout_seconds,
        options=before.options,
        warnings=before.warnings + moved,
        request_hash=hashlib.sha256(json.dumps(same, sort_keys=True).encode()).hexdigest(),
        hosts=hosts,
        submitted_by=access.client().name,
        unit_hosts=before.options["unit_hosts"],
        module=before.module,
        args=before.args,
        playbook_name=before.playbook_name,
        playbook_content=queries.playbook_content(connection, before.key),
        rerun_of=before.id,
        projects=pins,
        needs_files=before.needs_files,
    )


def _pinned(connection: sa.Connection, wanted: Mapping[str, str]) -> dict[str, str]:
    """The version of every project: the one that was asked for, else the one that is shown. Raises BadRequest."""
    pins = projects.current(connection)
    problems = []
    for name, ref in wanted.items():
        version = projects.version_of(connection, name, ref)
        if name not in pins:
            problems.append((f"project_ref.{name}", "is no project; GET /file/ lists them"))
        elif version is None:
            words = f"has no version {ref} here: clone it with this ref first, or name the commit of one that is here"
            problems.append((f"project_ref.{name}", words))
        else:
            pins[name] = version
    if problems:
        raise BadRequest(problems)
    return pins


def _pinned_again(connection: sa.Connection, before: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """The versions of a task before, as far as they are kept, and what is to be said of the others."""
    pins, said = projects.current(connection), []
    for name, version in before.items():
        if projects.version_of(connection, name, version) is not None:
            pins[name] = version
        elif name in pins:
            said.append(f"project {name}: {version[:12]} is kept no more, this task sees {pins[name][:12]}")
        else:
            said.append(f"project {name} is there no more")
    return pins, said


def _common(request: AdhocSubmission | PlaybookSubmission, config: Config) -> dict[str, Any]:
    return {
        "id": request.task_id or uuid.uuid4().hex,
        "name": request.task_name,
        "type": request.type,
        "timeout_seconds": request.timeout,
        "request_hash": _hash(request, config),
        "submitted_by": access.client().name,
        "hosts": request.ips.names,
        "unit_hosts": request.unit_hosts or config.engine.number,
    }


def _options(request: Submission, config: Config, **own: bool | int | None) -> dict[str, Any]:
    return {
        "check": request.check,
        "parallel": config.distribute.parallel if request.parallel is None else request.parallel,
        "unit_hosts": request.unit_hosts or config.engine.number,
        "host_timeout": request.host_timeout,
        "on_timeout": request.on_timeout,
        "on_engine_loss": request.on_engine_loss,
        "strategies": [],
        "secret_args": request.secret_args,
        **own,
    }


def _kept(text: str, request: Submission, config: Config) -> str:
    """As the database holds it."""
    return _with_key(secret.encrypt, text, config) if request.secret_args else text


def _with_key(use: Callable[[str, Path], str], text: str, config: Config) -> str:
    try:
        return use(text, config.secret_key_file)
    except SecretError as exc:
        log.error("secret_args cannot be used", extra={"error": str(exc)})
        words = "cannot be used here: distribute has no key for it, python -m contract.secret new-key makes one"
        raise BadRequest([("secret_args", words)]) from exc


def _hash(request: Submission, config: Config) -> str:
    """Of the request as it was understood: the spelling and order of hosts, and given defaults, make no other one."""
    # Without defaults, so that a field of a later release changes no older request.
    fields = request.model_dump(exclude={"task_id", "ips", "playbook_content"}, exclude_defaults=True)
    fields["ips"] = sorted(request.ips.names)
    if isinstance(request, PlaybookSubmission):
        fields["playbook_content"] = request.playbook_content.text
    understood = json.dumps(fields, sort_keys=True)
    if request.secret_args:  # from a plain sum a password could be guessed
        return _with_key(secret.fingerprint, understood, config)
    return hashlib.sha256(understood.encode()).hexdigest()
