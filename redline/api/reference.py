"""The reference page of the API, generated from its OpenAPI document."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from fastapi import FastAPI, Response
from fastapi.openapi.docs import get_swagger_ui_html


def connect_docs(server: FastAPI) -> None:
    """Add `/docs`, which needs no network, and `/docs/try`, Swagger UI from another server."""
    server.router.routes[:] = [
        route
        for route in server.router.routes
        if not str(getattr(route, "path", "")).startswith(("/docs", "/redoc"))
    ]

    @server.get("/docs", include_in_schema=False)
    def docs() -> Response:
        return Response(reference_page(server.openapi()), media_type="text/html; charset=utf-8")

    @server.get("/docs/try", include_in_schema=False)
    def attempt() -> Response:
        return get_swagger_ui_html(openapi_url="/openapi.json", title="Redline")


def reference_page(openapi: Mapping[str, Any]) -> str:
    """Return an HTML page of every route with its parameters."""
    parts = [
        _operation_section(path, method, operation)
        for path, operations in openapi["paths"].items()
        for method, operation in operations.items()
    ]
    links = (
        "<a href='/openapi.json'>openapi.json</a> · <a href='/docs/try'>try it (Swagger "
        "UI, fetched from jsdelivr.net)</a>"
    )
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><title>Redline "
        f"API</title>{REFERENCE_STYLE}<h1>Redline API</h1><p>{links}{''.join(parts)}"
    )


def _operation_section(path: str, method: str, operation: Mapping[str, Any]) -> str:
    """Return the HTML of one operation of the OpenAPI document."""
    rows = ""
    for p in operation.get("parameters", []):
        needed = "needed" if p.get("required") else ""
        cells = (p["name"], p["in"], p.get("description", ""), needed)
        rows += "<tr>" + "".join(f"<td>{escape(cell)}" for cell in cells)
    body = ""
    if "requestBody" in operation:
        body = "<p>Body: JSON, see <a href='/openapi.json'>the schema</a>."
    return (
        f"<h2><code>{method.upper()} {escape(path)}</code></h2>"
        f"<p>{escape(operation['summary'])}.{body}<table>{rows}</table>"
    )


REFERENCE_STYLE = """<style>:root { color-scheme: light dark } body { font: 15px/1.5 system-ui, sans-serif; max-width: 50rem;
margin: 2rem auto; padding: 0 1rem }
h2 { font-size: 1rem; margin: 2rem 0 0 } td { padding: .1rem 1rem .1rem 0; vertical-align: top }</style>"""  # noqa: E501
