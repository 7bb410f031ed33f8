"""What requests and answers look like: one declaration validates, documents and makes the OpenAPI document."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Generic, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    PlainValidator,
    WithJsonSchema,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from contract.states import FINAL_STATUSES, CloneState, EngineState, HostStatus, TaskState, UnitState
from distribute import hosts, modules, playbooks
from distribute.errors import Problems

MAX_TEXT_CHARACTERS = 1 << 20  # of args and of a playbook
MAX_TIMEOUT_SECONDS = 86_400
MAX_PAGE = 1000
MAX_PROJECT_NAME = 200  # characters: a file name of it has room for a suffix
DEFAULT_PAGE = 100
TASK_ID = re.compile(r"[A-Za-z0-9._:-]{1,160}")
EXAMPLE_TIME = "2026-01-31T12:00:00.000000Z"


def _storable(text: str) -> str:
    """Text that every database and every engine takes."""
    if "\0" in text:
        raise Problems.of("expected text without NUL characters")
    try:
        text.encode()
    except UnicodeEncodeError as exc:
        raise Problems.of(f"expected Unicode text, found half a surrogate pair at character {exc.start + 1}") from exc
    return text


def _args(args: object) -> str | dict[str, Any]:
    if not isinstance(args, str | dict):
        raise Problems.of("expected a string or an object")
    left: list[Any] = [args]
    while left:
        value = left.pop()
        if isinstance(value, str):
            _storable(value)
        elif isinstance(value, dict):
            left += [*value.keys(), *value.values()]
        elif isinstance(value, list):
            left += value
    if len(args if isinstance(args, str) else json.dumps(args)) > MAX_TEXT_CHARACTERS:
        raise Problems.of(f"expected at most {MAX_TEXT_CHARACTERS} characters")
    return args


def _module(name: str) -> str:
    if (problem := modules.problem_of(name)) is not None:
        raise Problems.of(problem)
    return name


def _task_id(text: str) -> str:
    if not TASK_ID.fullmatch(text):
        raise Problems.of("expected 1 to 160 letters, digits and . _ : -")
    return text


def _final(statuses: list[str]) -> list[str]:
    if wrong := [f"[{number}]" for number, status in enumerate(statuses) if status not in FINAL_STATUSES]:
        raise Problems((place, f"expected one of {', '.join(FINAL_STATUSES)}") for place in wrong)
    return sorted(set(statuses))


def _playbook(text: object) -> playbooks.Playbook:
    if not isinstance(text, str):
        raise Problems.of("expected a string")
    if len(text) > MAX_TEXT_CHARACTERS:
        raise Problems.of(f"expected at most {MAX_TEXT_CHARACTERS} characters, found {len(text)}")
    return playbooks.parse(_storable(text))


def _one_host(ip: object) -> str:
    if not isinstance(ip, str):
        raise Problems.of("expected a string")
    try:
        return hosts.spelled(ip.strip())
    except ValueError as exc:
        raise Problems.of(str(exc)) from exc


_HOSTS = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}], "examples": ["10.0.0.1,db-1"]}
Label = Annotated[
    str,
    Field(min_length=1, max_length=255, json_schema_extra={"pattern": r"^[^\u0000]*$"}),
    AfterValidator(_storable),
]
TaskId = Annotated[str, AfterValidator(_task_id), WithJsonSchema({"type": "string", "pattern": f"^{TASK_ID.pattern}$"})]
HostList = Annotated[
    hosts.Hosts,
    PlainValidator(hosts.parse),
    WithJsonSchema({**_HOSTS, "description": "comma-separated or a list; IPv4, IPv6 or DNS names, 1 to 200,000"}),
]
OneHost = Annotated[str, PlainValidator(_one_host), WithJsonSchema({"type": "string", "examples": ["10.0.0.1"]})]
_PART = r"[A-Za-z0-9_][A-Za-z0-9._-]*"
_NAME = re.compile(f"{_PART}(/{_PART})*")
_REF = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+@#=/-]*")


def project_problem(name: str) -> str | None:
    """Why this is no name of a project."""
    if len(name) > MAX_PROJECT_NAME or not _NAME.fullmatch(name) or ".." in name:
        return "expected letters, digits and . _ - in parts between /, none beginning with . or -, and no .."
    if name.endswith((".git", ".lock")):
        return f"expected the name without {name[name.rindex('.') :]}"
    if name.startswith("jobs/"):
        return "expected a name that does not begin with jobs/: GET /file/jobs/ is something else"
    return None


def _project(name: str) -> str:
    if (problem := project_problem(name)) is not None:
        raise Problems.of(problem)
    return name


def _ref(ref: str) -> str:
    parts = ref.split("/")
    if not _REF.fullmatch(ref) or ".." in ref or any(part[:1] in ("", ".") or part.endswith(".lock") for part in parts):
        raise Problems.of("expected a branch, a tag or a commit: letters, digits and . _ - / + @ # =, and no ..")
    return ref


def _refs(refs: object) -> dict[str, str]:
    """Of projects; each problem names its project."""
    if not isinstance(refs, dict):
        raise Problems.of("expected an object of projects and refs")
    problems = []
    for name, ref in refs.items():
        for check, value in ((_project, name), (_ref, ref)):
            try:
                check(value if isinstance(value, str) else "")
            except Problems as exc:
                problems += [(f".{name[:200]}", problem) for _, problem in exc.problems]
    if problems:
        raise Problems(problems)
    return refs


ProjectName = Annotated[
    str,
    AfterValidator(_project),
    WithJsonSchema(
        {"type": "string", "pattern": f"^{_NAME.pattern}$", "maxLength": MAX_PROJECT_NAME, "examples": ["app"]}
    ),
]
Ref = Annotated[
    str,
    Field(min_length=1, max_length=255),
    AfterValidator(_ref),
    WithJsonSchema({"type": "string", "pattern": f"^{_REF.pattern}$", "maxLength": 255, "examples": ["v1.0"]}),
]
Limit = Annotated[int, Field(ge=1, le=MAX_PAGE, description="the most items in one answer")]
Moment = Annotated[str, Field(description="ISO 8601, UTC", examples=[EXAMPLE_TIME])]


class Request(BaseModel):
    """What a request may hold, and nothing else."""

    model_config = ConfigDict(extra="forbid")
    empty_body: ClassVar[bool] = False  # no body at all means {}

    @classmethod
    def problems_between(cls, fields: dict[str, Any]) -> Iterator[tuple[str, str]]:
        """Fields and problems that no field has alone; fields are as they came, without nulls, valid or not."""
        yield from ()


class Body(Request):
    """A request in a JSON body, where null means not given."""

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        schema = handler.resolve_ref_schema(handler(core))
        properties = schema.get("properties", {})
        for name in properties.keys() - schema.get("required", ()):
            properties[name] = _or_null(properties[name])
        return schema


def _or_null(schema: JsonSchemaValue) -> JsonSchemaValue:
    if any(each.get("type") == "null" for each in schema.get("anyOf", ())):
        return schema
    about: JsonSchemaValue = {
        key: schema.pop(key) for key in ("default", "description", "examples", "title") if key in schema
    }
    return {"anyOf": [*schema.get("anyOf", [schema]), {"type": "null"}], **about}


class Submission(Body):
    """What ad hoc tasks and playbooks have in common."""

    task_id: TaskId | None = Field(None, description="made here when missing; the same request with it runs once")
    task_name: Label
    ips: HostList
    check: bool = Field(False, description="only say what would change")
    parallel: int | None = Field(None, ge=0, le=hosts.MAX_HOSTS, description="hosts at once, 0 = no limit")
    unit_hosts: int | None = Field(None, ge=1, le=1000, description="hosts that are run together by one engine")
    host_timeout: int | None = Field(
        None,
        ge=1,
        le=MAX_TIMEOUT_SECONDS,
        description="seconds of work for one host alone, counted from its first connection attempt",
    )
    on_timeout: Literal["stop", "leave"] = Field(
        "stop", description="what becomes of the command on the host at a timeout: TERM and KILL, or nothing"
    )
    secret_args: bool = Field(
        False,
        description="args, or playbook_content, are kept encrypted and never answered; output is hidden as by no_log, "
        "but of a playbook's tasks with no_log: false; its plays and tasks are called by their lines",
    )
    project_ref: Annotated[
        dict[str, str],
        PlainValidator(_refs),
        WithJsonSchema({"type": "object", "additionalProperties": {"type": "string"}, "examples": [{"app": "v1.0"}]}),
    ] = Field(
        {},
        description="versions of projects that this task sees instead of those that are shown: a commit or cloned ref",
    )
    on_engine_loss: Literal["report", "rerun"] = Field(
        "report",
        description="hosts without a result when their engine is gone: report as lost, or rerun, twice at most",
    )


class AdhocSubmission(Submission):
    type: Literal["adhoc"] = "adhoc"
    module: Annotated[str, AfterValidator(_module), Field(examples=["shell"], description="short or fully qualified")]
    args: Annotated[
        str | dict[str, Any],
        PlainValidator(_args),
        WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "object"}], "examples": ["uptime"]}),
    ] = Field("", description="as the ansible command takes them, or an object")
    timeout: int = Field(100, ge=1, le=MAX_TIMEOUT_SECONDS, description="seconds for a unit and for each host")
    become: bool = Field(True, description="run as root by sudo")
    template: bool = Field(False, description="args are a Jinja template")


class PlaybookSubmission(Submission):
    type: Literal["playbook"] = "playbook"
    playbook_name: Label
    playbook_content: Annotated[
        playbooks.Playbook,
        PlainValidator(_playbook),
        WithJsonSchema({"type": "string", "examples": ["- hosts: all\n  tasks:\n    - ping:\n"]}),
    ] = Field(description="YAML, a list of plays; what they call hosts is all or target_hosts")
    timeout: int = Field(600, ge=1, le=MAX_TIMEOUT_SECONDS, description="seconds for a unit and for each host")
    task_timeout: int | None = Field(
        None, ge=1, le=MAX_TIMEOUT_SECONDS, description="seconds for one task on one host, which is ended by it"
    )
    become: bool = Field(False, description="true: --become; false: what the plays say")


class Clone(Body):
    project_name: ProjectName = Field(description="at Gitlab, and below FILES_DIR")
    group: ProjectName | None = Field(None, description="the configured one when missing")
    ref: Ref | None = Field(
        None, description="branch, tag, or commit of 7 characters or more; missing: the default branch"
    )
    depth: int | None = Field(None, ge=1, le=1_000_000, description="commits to fetch of a branch or tag; missing: all")
    submodules: bool = Field(False, description="with the files of submodules")
    async_: bool = Field(False, alias="async", description="answer 202 at once; GET /file/jobs/ shows how far it is")


class NoFields(Body):
    """A request that says all by its path."""

    empty_body = True


class Rerun(Body):
    empty_body = True
    task_id: TaskId | None = Field(None, description="of the new task; made here when missing")
    statuses: Annotated[
        list[str],
        AfterValidator(_final),
        WithJsonSchema({"type": "array", "minItems": 1, "items": {"enum": [*FINAL_STATUSES]}}),
    ] = Field(
        [str(status) for status in FINAL_STATUSES if status != HostStatus.SUCCESS],
        description="hosts with one of these run again",
        min_length=1,
    )


class ResultQuery(Request):
    """Exactly one of task_id, ip and ips."""

    task_id: TaskId | None = None
    ip: OneHost | None = Field(None, description="all results of one host, newest first")
    ips: HostList | None = Field(None, description="the newest result of each host")
    limit: Limit | None = Field(None, description="without it all items are answered")
    cursor: str | None = Field(None, description="the cursor of the answer before")

    @classmethod
    def problems_between(cls, fields: dict[str, Any]) -> Iterator[tuple[str, str]]:
        given = [name for name in ("task_id", "ip", "ips") if name in fields]
        if len(given) != 1:
            yield "task_id", f"expected exactly one of task_id, ip and ips, found {' and '.join(given) or 'none'}"


class TaskQuery(Request):
    state: TaskState | None = None
    type: Literal["adhoc", "playbook"] | None = None
    limit: Limit = DEFAULT_PAGE
    cursor: str | None = None


class HostQuery(Request):
    status: HostStatus | None = Field(None, description="only these, the longest unchanged first")
    limit: Limit = DEFAULT_PAGE
    cursor: str | None = None


class AuditQuery(Request):
    who: Label | None = Field(None, description="the name of a token")
    action: Label | None = Field(None, description="submit, rerun, cancel, hold, release, clone, forget, refused")
    target: Label | None = Field(None, description="the id of a task, the name of a project")
    limit: Limit = DEFAULT_PAGE
    cursor: str | None = None


Data = TypeVar("Data")


class Answer(BaseModel, Generic[Data]):
    """The envelope around every answer below the base path; the HTTP status equals code."""

    code: int = Field(examples=[200])
    data: Data
    msg: str
    length: int = Field(description="the number of items of a list, 1 for an object")


class Page(Answer[list[Data]], Generic[Data]):
    cursor: str | None = Field(None, description="for the next page; null at the end")


class ProblemOut(BaseModel):
    field: str = Field(examples=["ips[3]"])
    problem: str


class Failure(BaseModel):
    """The envelope of an error; data lists every problem of a request that was refused with 400."""

    code: int = Field(400, examples=[400])
    data: list[ProblemOut] | None = None
    msg: str = ""
    length: int = 0


class SubmissionOut(BaseModel):
    task_id: str
    task_name: str
    type: Literal["adhoc", "playbook"]
    state: TaskState = Field(description="queued; GET /tasks/ shows what it is now")
    hosts: int
    units: int
    duplicates: int = Field(description="hosts that were named more than once and were dropped")
    timeout: int
    warnings: list[str]
    created_date: Moment


class AdhocSubmissionOut(SubmissionOut):
    module: str


class PlaybookSubmissionOut(SubmissionOut):
    playbook_name: str


class ResultOut(BaseModel):
    ip: str
    result: Literal["success", "fail"] | None = Field(description="null until the status is final")
    status: HostStatus
    task_id: str


class AdhocOut(ResultOut):
    task_name: str
    module: str | None
    args: str | dict[str, Any] | None = Field(description="null where they are secret_args")
    stdout: str | None
    stderr: str | None
    msg: str | None
    rc: int | None
    cmd: Any = Field(description="where the module gives it")
    dest: Any = Field(description="where the module gives it")
    changed: bool | None
    created_date: Moment
    finished_date: Moment | None
    blame: str | None = Field(description="why this host and no other")


class PlaybookOut(ResultOut):
    success_rate: str | None = Field(description="tasks_ok / tasks_total, rounded down", examples=["75%"])
    datetime: Moment | None
    tasks_ok: int | None
    tasks_total: int | None
    stuck_task: str | None
    blame: str | None


class TaskHostOut(AdhocOut):
    unit: int = Field(description="number of the unit within the task")
    attempt: int
    engine: str | None
    stage: str | None
    since: Moment | None
    stuck_task: str | None
    tasks_ok: int | None
    tasks_total: int | None
    stopped_on_host: Literal["yes", "no", "unknown"] | None
    late: bool = Field(description="the result came when the host counted as lost already")
    started_date: Moment | None
    tasks: list[dict[str, Any]] | None = Field(description="of a playbook: each task with its status and seconds")


class TaskBaseOut(BaseModel):
    task_id: str
    task_name: str
    type: Literal["adhoc", "playbook"]
    submitted_by: str | None = Field(description="the name of the token")
    module: str | None
    state: TaskState
    hosts: int
    units: int
    timeout: int
    created_date: Moment
    started_date: Moment | None
    finished_date: Moment | None


class TaskRowOut(TaskBaseOut):
    playbook_name: str | None
    rerun_of: str | None = Field(description="the task whose hosts these are")


class TaskOut(TaskBaseOut):
    counts: dict[HostStatus, int]
    units_by_state: dict[UnitState, int]
    finished: int = Field(description="hosts with a final status")
    percent: int = Field(description="of the hosts, rounded down")
    hosts_per_second: float = Field(description="since the first unit began")
    seconds_left: float | None = Field(description="at this rate; null while there is none")
    waits_for: str | None = Field(description="why none of its units goes out now")
    rerun_of: str | None = Field(description="the task whose hosts these are")
    cancelled_date: Moment | None = Field(description="when its end was asked for")
    projects: dict[str, str] = Field(description="the commits of the projects that all its hosts see")
    warnings: list[str]


class EngineOut(BaseModel):
    engine_id: str
    incarnation: str
    host_name: str
    version: str
    state: EngineState
    slots: int
    free_slots: int
    missing: str | None
    started_date: Moment
    beat_date: Moment


class HoldOut(BaseModel):
    held: bool
    held_by: str | None = Field(description="who asked for it, and from which address")
    since: Moment | None


class AuditOut(BaseModel):
    date: Moment
    who: str = Field(description="the name of the token")
    address: str
    action: str = Field(description="refused: many refusals in one row", examples=["cancel"])
    target: str | None = Field(description="the id of the task, the name of the project")
    code: int
    msg: str = Field(description="done, nothing changed, was there already; or why it was refused")


class CloneOut(BaseModel):
    project: str
    group: str
    ref: str = Field(description="as it was asked for; the default branch by its name")
    commit: str
    files: int
    bytes: int
    seconds: float


class CloneBegunOut(BaseModel):
    job: str = Field(description="for GET /file/jobs/")
    project: str


class CloneStepOut(BaseModel):
    stage: str = Field(examples=["receiving objects"])
    received: int = Field(description="objects")
    total: int = Field(description="objects; 0 while it is not known")
    percent: int


class CloneJobOut(BaseModel):
    job: str
    project: str
    state: CloneState
    progress: CloneStepOut | None = Field(description="null before git has said something")
    result: CloneOut | None = Field(description="as POST /file/ answers; null until it is ready")
    error: str | None = Field(description="why it failed")
    error_code: int | None = Field(description="as POST /file/ would have answered", examples=[504])
    submitted_by: str
    started_date: Moment
    finished_date: Moment | None


class ProjectOut(BaseModel):
    project: str
    group: str
    ref: str
    commit: str
    submodules: bool
    files: int
    bytes: int
    updated_date: Moment
    age_seconds: float = Field(description="since it shows this commit, or was asked for it again")


class RemovedProjectOut(BaseModel):
    project: str
    removed: bool


class CloneAnswer(Answer[CloneOut | CloneBegunOut]):
    pass


class CloneJobAnswer(Answer[CloneJobOut]):
    pass


class ProjectsAnswer(Answer[list[ProjectOut]]):
    pass


class RemovedProjectAnswer(Answer[RemovedProjectOut]):
    pass


class HoldAnswer(Answer[HoldOut]):
    pass


class AdhocSubmissionAnswer(Answer[AdhocSubmissionOut]):
    pass


class PlaybookSubmissionAnswer(Answer[PlaybookSubmissionOut]):
    pass


class RerunAnswer(Answer[AdhocSubmissionOut | PlaybookSubmissionOut]):
    pass


class AdhocPage(Page[AdhocOut]):
    pass


class PlaybookPage(Page[PlaybookOut]):
    pass


class TaskAnswer(Answer[TaskOut]):
    pass


class TaskPage(Page[TaskRowOut]):
    pass


class TaskHostPage(Page[TaskHostOut]):
    pass


class EngineAnswer(Answer[list[EngineOut]]):
    pass


class AuditPage(Page[AuditOut]):
    pass


class HealthOut(BaseModel):
    status: Literal["ok"]


class ReadinessOut(BaseModel):
    status: Literal["ready", "not ready"]
    missing: list[str]
