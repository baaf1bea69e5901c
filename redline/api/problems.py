"""The answers to requests, and the problems (RFC 9457) that errors become."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from redline.engine.maintenance import MaintenanceError
from redline.feedback.labels import LabelError
from redline.incidents.incident import IncidentSettled, UnknownIncident
from redline.settings import SettingsError
from redline.sources import payload
from redline.sources.payload import BodyError
from redline.sources.pushed import QueueFull, SourceQuotaReached, SubmissionRefused
from redline.storage.errors import StoreError

PROBLEM_TYPE = "application/problem+json"

PROBLEM_SCHEMA = {
    "type": "object",
    "required": ["type", "title", "status", "detail", "instance"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "instance": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["field", "wanted", "came"],
                "properties": {"field": {"type": "string"}, "wanted": {"type": "string"}},
            },
        },
    },
}
# what any request may be refused with, and what those to some routes
REFUSALS = {
    401: "no token, or one that is not known",
    403: "a token of a lower role, or a page of another origin",
    421: "a host that is none of this server's",
    429: "too many requests, or no room in a queue; Retry-After says when to try again",
    503: "not stored, or not now; Retry-After says when to try again",
}
MISSING = {404: "no such stream, incident or label"}
WRONG_VALUE = {422: "a value that is not allowed"}
WRONG_BODY = {400: "a body that ended too early, or is no JSON", 413: "a body that is too big"}
# of the routes that other programs know
NOT_TAKEN = {
    400: "some samples can never be taken, the others are written; or a body that ended too early",
    415: "a body that needs a library which is not installed",
}
SETTLED = {409: "an incident that is resolved already"}
NOTHING_TO_UNDO = {409: "no change of the settings to take back"}


class Problem(Exception):
    """An answer that says what went wrong."""

    def __init__(
        self,
        status: int,
        detail: str,
        errors: Sequence[Mapping[str, Any]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.errors = list(errors)
        self.headers = dict(headers or {})
        self.more: Mapping[str, Any] = {}  # further fields: the part that succeeded

    def response(self, path: str) -> Response:
        """Return the problem as the answer to a request for a path."""
        body: dict[str, Any] = {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            "instance": path,
        }
        if self.errors:
            body["errors"] = self.errors
        body |= self.more
        return Response(payload.to_json(body), self.status, self.headers, PROBLEM_TYPE)


def field_error(field: str, wanted: str, came: Any) -> dict[str, Any]:
    """Return an entry of a problem's `errors`."""
    if isinstance(came, str):
        came = payload.cut_text(came)
    elif not isinstance(came, int | float | None):
        came = payload.shorten(came)
    return {"field": field, "wanted": wanted, "came": came}


def json_answer(
    value: Any, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Return a value as a JSON answer."""
    return Response(payload.to_json(value), status, dict(headers or {}), "application/json")


def connect_unknown(router: APIRouter) -> None:
    """Add the route for all other requests: 405 with the right methods, or 404."""
    known = [route for route in router.routes if isinstance(route, APIRoute)]

    @router.api_route(
        "/api/{path:path}",
        methods=["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "TRACE"],
        include_in_schema=False,
    )
    async def unknown(request: Request, path: str) -> Response:
        methods = sorted(
            {
                method
                for route in known
                if route.path_regex.match(f"/api/{path}")
                for method in route.methods or ()
            }
        )
        if methods:
            raise Problem(
                405,
                f"wanted {' or '.join(methods)}, came {request.method}",
                headers={"Allow": ", ".join(methods)},
            )
        raise Problem(404, f"nothing is served at /api/{path}; /docs lists what is")


def connect_unknown_paths(server: FastAPI) -> None:
    """Answer every path that no route before it has with a 404 problem."""

    async def unknown(request: Request) -> Response:
        detail = f"nothing is served at {request.url.path}; the page is at /"
        return Problem(404, detail).response(request.url.path)

    server.add_api_route("/{path:path}", unknown, methods=["GET"], include_in_schema=False)


def document_problems(server: FastAPI) -> None:
    """Add the problems that each route answers with to a server's OpenAPI document."""
    make_document = server.openapi

    def documented() -> dict[str, Any]:
        if server.openapi_schema:
            return server.openapi_schema
        document = make_document()
        for path, operations in document["paths"].items():
            for method, operation in operations.items():
                answers = _problem_answers(_refusals(f"{method} {path}", operation))
                operation["responses"] = dict(sorted((operation["responses"] | answers).items()))
        schemas = document["components"]["schemas"]
        schemas["Problem"] = PROBLEM_SCHEMA
        for unused in ("HTTPValidationError", "ValidationError"):
            schemas.pop(unused, None)
        return document

    server.openapi = documented  # type: ignore[method-assign]  # as FastAPI says to extend it


def _refusals(route: str, operation: Mapping[str, Any]) -> dict[int, str]:
    """Return status -> meaning of the problems of a route, such as "post /api/submit"."""
    if route == "get /health":  # which needs no token and has no rate; its 503 is no problem
        return {421: REFUSALS[421]}
    names = {parameter["name"] for parameter in operation.get("parameters", [])}
    has_body = "requestBody" in operation
    refusals = dict(REFUSALS)
    refusals |= WRONG_VALUE if names or has_body else {}
    refusals |= WRONG_BODY if has_body else {}
    refusals |= MISSING if names & {"source", "id"} or has_body else {}
    refusals |= NOT_TAKEN if route.endswith("/write") else {}
    refusals |= SETTLED if route.startswith("post /api/alerts/") else {}
    refusals |= NOTHING_TO_UNDO if route == "post /api/configure" else {}
    return refusals


def _problem_answers(refusals: Mapping[int, str]) -> dict[str, Any]:
    """Return the OpenAPI responses of some problems."""
    schema = {"schema": {"$ref": "#/components/schemas/Problem"}}
    return {
        str(status): {"description": meaning, "content": {PROBLEM_TYPE: schema}}
        for status, meaning in refusals.items()
    }


def connect_problems(server: FastAPI) -> None:
    """Make a server answer every known kind of error with a problem."""
    problem_of: dict[type[Exception], Callable[[Any], Problem]] = {
        Problem: lambda error: error,
        BodyError: body_problem,
        SubmissionRefused: body_problem,
        LabelError: body_problem,
        MaintenanceError: body_problem,
        QueueFull: queue_problem,
        SourceQuotaReached: lambda error: body_problem(error, 403),
        SettingsError: settings_problem,
        StoreError: lambda error: Problem(503, str(error), headers={"Retry-After": "5"}),
        UnknownIncident: lambda error: Problem(404, str(error.args[0])),
        IncidentSettled: lambda error: Problem(409, str(error)),
        RequestValidationError: validation_problem,
        ClientDisconnect: lambda error: Problem(
            400, "wanted a whole body, came a part of it; send it again"
        ),
        HTTPException: http_problem,
    }
    for kind, make_problem in problem_of.items():
        server.add_exception_handler(kind, _error_handler(make_problem))


def _error_handler(make_problem: Callable[[Any], Problem]) -> Any:
    """Return an exception handler that answers with the problem of the error."""

    async def respond(request: Request, error: Exception) -> Response:
        return make_problem(error).response(request.url.path)

    return respond


def body_problem(error: Any, status: int = 422) -> Problem:
    """Return the problem of an error that has a field, what was wanted and what came."""
    return Problem(status, str(error), [field_error(error.field, error.wanted, error.came)])


def queue_problem(error: QueueFull) -> Problem:
    """Return the problem of points that a full queue did not take."""
    errors = [field_error(error.field, error.wanted, error.came)]
    return Problem(429, str(error), errors, {"Retry-After": "1"})


def settings_problem(error: SettingsError) -> Problem:
    """Return the problem of a settings error, whose text is `field: wanted ...; came ...`."""
    field, _, rest = str(error).partition(": wanted ")
    wanted, _, came = rest.rpartition("; came ")
    return Problem(422, str(error), [field_error(field, wanted, came)] if wanted else [])


def validation_problem(error: RequestValidationError) -> Problem:
    """Return the problem of a request that does not match a route's parameters."""
    errors = [
        field_error(".".join(map(str, e["loc"][1:])) or str(e["loc"][0]), e["msg"], e.get("input"))
        for e in error.errors()
    ]
    return Problem(422, "; ".join(f"{e['field']}: {e['wanted']}" for e in errors), errors)


def http_problem(error: Any) -> Problem:
    """Return the problem of an error of the web framework."""
    status = getattr(error, "status_code", 500)
    return Problem(
        status, str(getattr(error, "detail", error)), headers=getattr(error, "headers", None)
    )
