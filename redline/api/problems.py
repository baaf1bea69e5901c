"""Problem answers (RFC 9457) for everything that goes wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from redline.api import payload
from redline.api.payload import BodyError
from redline.feedback.labels import LabelError
from redline.incidents.incident import IncidentSettled, UnknownIncident
from redline.settings import SettingsError
from redline.sources.pushed import QueueFull, SubmissionRefused
from redline.storage.errors import StoreError

PROBLEM_TYPE = "application/problem+json"


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
        self.more: Mapping[str, Any] = {}  # what went right all the same

    def response(self, path: str) -> Response:
        body: dict[str, Any] = {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
        }
        body |= (
            {"detail": self.detail, "instance": path}
            | ({"errors": self.errors} if self.errors else {})
            | dict(self.more)
        )
        return Response(payload.to_json(body), self.status, self.headers, PROBLEM_TYPE)


def field_error(field: str, wanted: str, came: Any) -> dict[str, Any]:
    return {
        "field": field,
        "wanted": wanted,
        "came": came if isinstance(came, str | int | float | None) else payload.shorten(came),
    }


def json_answer(
    value: Any, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    return Response(payload.to_json(value), status, dict(headers or {}), "application/json")


def connect_unknown(router: APIRouter) -> None:
    """Whatever is asked of the API and is not there: a wrong method says which are right, a wrong
    path that there is none.
    """
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


def connect_problems(server: FastAPI) -> None:
    def told(translate: Callable[[Any], Problem]) -> Any:
        async def respond(request: Request, error: Exception) -> Response:
            return translate(error).response(request.url.path)

        return respond

    server.add_exception_handler(Problem, told(lambda error: error))
    server.add_exception_handler(BodyError, told(body_problem))
    server.add_exception_handler(SubmissionRefused, told(body_problem))
    server.add_exception_handler(LabelError, told(body_problem))
    server.add_exception_handler(
        QueueFull,
        told(
            lambda e: Problem(
                429, str(e), [field_error(e.field, e.wanted, e.came)], {"Retry-After": "1"}
            )
        ),
    )
    server.add_exception_handler(SettingsError, told(settings_problem))
    server.add_exception_handler(
        StoreError, told(lambda error: Problem(503, str(error), headers={"Retry-After": "5"}))
    )
    server.add_exception_handler(
        UnknownIncident, told(lambda error: Problem(404, str(error.args[0])))
    )
    server.add_exception_handler(IncidentSettled, told(lambda error: Problem(409, str(error))))
    server.add_exception_handler(RequestValidationError, told(validation_problem))
    server.add_exception_handler(
        ClientDisconnect,
        told(lambda error: Problem(400, "wanted a whole body, came a part of it; send it again")),
    )
    server.add_exception_handler(HTTPException, told(http_problem))


def body_problem(error: Any) -> Problem:
    return Problem(422, str(error), [field_error(error.field, error.wanted, error.came)])


def settings_problem(error: SettingsError) -> Problem:
    """A settings error is one sentence, `field: wanted ...; came ...`."""
    field, _, rest = str(error).partition(": wanted ")
    wanted, _, came = rest.rpartition("; came ")
    return Problem(422, str(error), [field_error(field, wanted, came)] if wanted else [])


def validation_problem(error: RequestValidationError) -> Problem:
    errors = [
        field_error(".".join(map(str, e["loc"][1:])) or str(e["loc"][0]), e["msg"], e.get("input"))
        for e in error.errors()
    ]
    return Problem(422, "; ".join(f"{e['field']}: {e['wanted']}" for e in errors), errors)


def http_problem(error: Any) -> Problem:
    status = getattr(error, "status_code", 500)
    return Problem(
        status, str(getattr(error, "detail", error)), headers=getattr(error, "headers", None)
    )
