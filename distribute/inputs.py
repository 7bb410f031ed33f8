"""How requests are read: JSON bodies and query strings into models, with every problem in one answer."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from typing import Any, NoReturn

from apiflask import APIBlueprint
from apiflask.schema_adapters import registry
from apiflask.schema_adapters.pydantic import PydanticAdapter
from flask import Request
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from werkzeug.exceptions import RequestEntityTooLarge

from distribute.errors import BadRequest, Problems, UnsupportedMediaType
from distribute.schemas import Request as RequestModel

BASE_PATH = "/api/v1/distribute"
MAX_BODY_BYTES = 16 << 20
MAX_DEPTH = 100  # of objects and lists in each other

_NOT_JSON = "The body is not JSON; nothing was done."
_BODY = "body"


class ModelAdapter(PydanticAdapter):  # type: ignore[misc]  # apiflask has no types
    """Reads what `@input` declares: strictly from a JSON body, leniently from a query string, where all is text."""

    def validate_input(self, request: Request, location: str, **_: Any) -> BaseModel:
        """Raises BadRequest, UnsupportedMediaType and werkzeug's RequestEntityTooLarge."""
        is_body = location == "json"
        model: type[RequestModel] = self.model_class
        fields = _body(request, model.empty_body) if is_body else _query(request)
        problems: list[tuple[str, str]] = []
        if isinstance(fields, dict):
            known = _names(model)  # of these null means not given; another one is wrong, whatever it holds
            fields = {name: value for name, value in fields.items() if value is not None or name not in known}
            problems += model.problems_between(fields)
        try:
            valid = model.model_validate(fields, strict=is_body)
        except ValidationError as exc:
            problems += [problem for error in exc.errors() for problem in _problems(error, model)]
        if problems:
            raise BadRequest(problems)
        return valid


registry.register("pydantic", ModelAdapter)


class Resource(APIBlueprint):  # type: ignore[misc]
    """The blueprint of one resource below the base path."""

    def __init__(self, name: str, import_name: str) -> None:
        super().__init__(name, import_name, url_prefix=f"{BASE_PATH}/{name}", tag=name)


def _body(request: Request, may_be_empty: bool) -> Any:
    if may_be_empty and request.content_length in (None, 0) and not request.headers.get("Transfer-Encoding"):
        return {}
    if not request.is_json:
        raise UnsupportedMediaType(
            f"Expected Content-Type: application/json, found {request.mimetype or 'none'}; nothing was done."
        )
    raw = request.get_data(cache=False)
    if len(raw) > MAX_BODY_BYTES:  # a chunked one, of which Werkzeug gives what fits
        raise RequestEntityTooLarge
    try:
        fields = json.loads(raw, parse_constant=_refuse_constant, parse_float=_finite)
    except RecursionError as exc:
        raise BadRequest([(_BODY, f"expected at most {MAX_DEPTH} levels")], _NOT_JSON) from exc
    except json.JSONDecodeError as exc:
        raise BadRequest([(_BODY, f"line {exc.lineno}, column {exc.colno}: {exc.msg}")], _NOT_JSON) from exc
    except ValueError as exc:
        raise BadRequest([(_BODY, str(exc)[:200])], _NOT_JSON) from exc
    if _is_deep(fields):
        raise BadRequest([(_BODY, f"expected at most {MAX_DEPTH} levels")])
    return fields


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"expected a JSON value, found {name}")


def _finite(text: str) -> float:
    """1e999 would be answered as Infinity, which is not JSON."""
    if not math.isfinite(number := float(text)):
        raise ValueError(f"expected a number of double precision, found {text[:40]}")
    return number


def _is_deep(value: Any) -> bool:
    """Whether it is too deep to be safe in recursive code, here or in an engine."""
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [item for container in level for item in _items(container)]
        if not level:
            return False
    return True


def _items(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _query(request: Request) -> dict[str, Any]:
    """A parameter that is given more than once is the list of its values."""
    return {name: values[0] if len(values) == 1 else values for name, values in request.args.lists()}


def _problems(error: ErrorDetails, model: type[BaseModel]) -> Iterator[tuple[str, str]]:
    place = ""
    for part in error["loc"]:
        place += f"[{part}]" if isinstance(part, int) else f".{part}" if place else part
    cause = error.get("ctx", {}).get("error")
    if isinstance(cause, Problems):
        for suffix, problem in cause.problems:
            yield place + suffix, problem
    else:
        yield place or _BODY, _sentence(error, model)


def _sentence(error: ErrorDetails, model: type[BaseModel]) -> str:
    """What was expected and what was found; no value is repeated that could be a secret."""
    context = error.get("ctx", {})
    found = f", found {_kind(error['input'])}"
    match error["type"]:
        case "missing":
            return "is required"
        case "extra_forbidden":
            return f"is not a field of this request; its fields are {', '.join(_names(model))}"
        case "greater_than_equal":
            return f"expected at least {context['ge']}, found {str(error['input'])[:40]}"
        case "less_than_equal":
            return f"expected at most {context['le']}, found {str(error['input'])[:40]}"
        case "string_too_short":
            return f"expected at least {context['min_length']} character, found none"
        case "string_too_long":
            return f"expected at most {context['max_length']} characters, found {len(error['input'])}"
        case "literal_error" | "enum":
            return f"expected {context['expected']}{found}"
        case "int_type" | "int_parsing" | "int_from_float" | "int_parsing_size":
            return f"expected a whole number{found}"
        case "bool_type":
            return f"expected true or false{found}"
        case "string_type":
            return f"expected a string{found}"
        case "string_unicode":
            return "expected Unicode text, found half a surrogate pair"
        case "model_type" | "model_attributes_type" | "dict_type":
            return f"expected an object{found}"
        case _:
            return error["msg"]


def _names(model: type[BaseModel]) -> list[str]:
    """Of its fields, as requests write them."""
    return [field.alias or name for name, field in model.model_fields.items()]


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    kinds = {str: "a string", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return kinds.get(type(value), "something else")
