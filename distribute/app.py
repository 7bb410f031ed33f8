"""The Flask application: routes, limits, and what each failure is answered with."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from apiflask import APIFlask, HTTPError
from flask import request
from flask.typing import ResponseReturnValue

from contract import __version__
from contract.config import Config
from contract.database import Database
from contract.errors import DatabaseRetry
from distribute import audit, context, metrics
from distribute.adhoc import adhoc
from distribute.answers import envelope
from distribute.context import Context
from distribute.engines import engines
from distribute.errors import NotReady, RequestError
from distribute.files import ProjectConverter, files
from distribute.health import health
from distribute.holding import hold, release
from distribute.inputs import BASE_PATH, MAX_BODY_BYTES
from distribute.playbook import playbook
from distribute.schemas import Failure
from distribute.tasks import tasks

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_SENTENCES = {
    400: "The request could not be read; nothing was done.",
    404: "There is no such path; see /docs.",
    405: "This path does not know the method {method}; see /docs.",
    413: f"The body is larger than {MAX_BODY_BYTES >> 20} MiB; nothing was done.",
    500: "Something went wrong here; the log of distribute says what.",
}

log = logging.getLogger(__name__)


def create_app(config: Config, database: Database) -> APIFlask:
    """An application that answers from this database. Reads nothing and does not connect before the first request."""
    app = APIFlask(__name__, title="distribute", version=__version__, docs_path=None)
    app.description = "Runs Ansible modules and playbooks on many hosts."
    app.config.update(
        MAX_CONTENT_LENGTH=MAX_BODY_BYTES + 1,  # the one more shows that a chunked body is too large
        PROVIDE_AUTOMATIC_OPTIONS=False,
        HTTP_ERROR_SCHEMA=Failure,
        AUTO_VALIDATION_ERROR_RESPONSE=False,
        AUTO_404_RESPONSE=False,
    )
    app.json.sort_keys = False
    app.url_map.converters["project"] = ProjectConverter
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False
    app.wsgi_app = _with_last_slash(app.wsgi_app)
    app.extensions |= context.bind(Context(config, database))
    for blueprint in (adhoc, playbook, tasks, engines, hold, release, files, audit.audit, health, metrics.metrics):
        app.register_blueprint(blueprint)
    metrics.bind(app, database)
    app.before_request(_let_in)
    app.spec_processor(_document_tokens)
    app.error_processor(_answer_http_error)
    app.register_error_handler(RequestError, _answer_request_error)
    app.register_error_handler(DatabaseRetry, _answer_database_away)
    app.register_error_handler(Exception, _answer_unexpected)
    return app


def _with_last_slash(application: WSGIApplication) -> WSGIApplication:
    """Below the base path: without it Werkzeug would answer a wrong method with 404."""

    def call(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path.startswith(f"{BASE_PATH}/") and not path.endswith("/"):
            environ["PATH_INFO"] = f"{path}/"
        return application(environ, start_response)

    return call


def _let_in() -> None:
    if request.path.startswith(BASE_PATH):
        context.current().let_in()
        if request.url_rule is not None:
            context.current().require_schema()


def _document_tokens(spec: dict[str, Any]) -> dict[str, Any]:
    """What is true of every path below the base path."""
    spec["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    failure = {"application/json": {"schema": {"$ref": "#/components/schemas/Failure"}}}
    words = {"401": "No token, or none that is known", "403": "The token does not go so far", "429": "Slow down"}
    for path, operations in spec["paths"].items():
        for operation in operations.values() if path.startswith(BASE_PATH) else ():
            operation["security"] = [{"token": []}]
            operation["responses"] |= {code: {"description": text, "content": failure} for code, text in words.items()}
    return spec


def _answer_http_error(error: HTTPError) -> ResponseReturnValue:
    """What Flask refuses by itself."""
    text = _SENTENCES.get(error.status_code, error.message).format(method=request.method)
    audit.refused(error.status_code, text)
    return envelope(None, text, error.status_code), error.status_code, error.headers


def _answer_request_error(error: RequestError) -> ResponseReturnValue:
    audit.refused(error.STATUS, error.message)
    return _answer(error)


def _answer_database_away(error: DatabaseRetry) -> ResponseReturnValue:
    log.warning("the database does not answer", extra={"path": request.path, "error": str(error)})
    return _answer(NotReady("The database does not answer; nothing was done. Try again."))  # nor takes it the audit


def _answer(error: RequestError) -> ResponseReturnValue:
    return envelope(error.data, error.message, error.STATUS), error.STATUS, error.headers


def _answer_unexpected(error: Exception) -> ResponseReturnValue:
    log.error("a request failed", extra={"path": request.path, "method": request.method}, exc_info=error)
    audit.refused(500, _SENTENCES[500])
    return envelope(None, _SENTENCES[500], 500), 500
