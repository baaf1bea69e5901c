"""The reference page of the API, generated from its OpenAPI document, with forms to try it.

It needs nothing from elsewhere: its one script and its style come from this server.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Response

from redline.api.headers import html_answer, inline_source, page_policy

SCRIPT_FILE = Path(__file__).with_name("reference.js")
SCRIPT_PATH = "/docs/reference.js"
BODY_EXAMPLES = {  # what stands in the form of a route at first
    "/api/submit": {"source": "oven", "time": "2026-01-05T00:00:00Z", "value": 180.4},
    "/api/configure": {"source": "oven", "threshold": 4},
    "/api/labels": {"source": "oven", "kind": "expected", "start": "2026-01-05T00:00:00Z"},
    "/api/maintenance": {
        "source": "oven",
        "start": "2026-01-05T22:00:00Z",
        "end": "2026-01-06T04:00:00Z",
    },
}


def connect_docs(server: FastAPI) -> None:
    """Add `/docs`, the reference with forms that send requests, and its script."""
    server.router.routes[:] = [
        route
        for route in server.router.routes
        if not str(getattr(route, "path", "")).startswith(("/docs", "/redoc"))
    ]
    policy = page_policy(styles=[inline_source(REFERENCE_STYLE)])
    script = SCRIPT_FILE.read_text(encoding="utf-8")

    @server.get("/docs", include_in_schema=False)
    def docs() -> Response:
        return html_answer(reference_page(server.openapi()), policy)

    @server.get(SCRIPT_PATH, include_in_schema=False)
    def docs_script() -> Response:
        return Response(script, media_type="text/javascript; charset=utf-8")


def reference_page(openapi: Mapping[str, Any]) -> str:
    """Return an HTML page of every route with its parameters and a form that sends it."""
    parts = [
        _operation_section(path, method, operation)
        for path, operations in openapi["paths"].items()
        for method, operation in operations.items()
    ]
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><title>Redline API</title>"
        "<link rel=icon href='data:,'>"
        '<meta name=viewport content="width=device-width, initial-scale=1">'
        f"<style>{REFERENCE_STYLE}</style><h1>Redline API</h1>"
        "<p><a href='/openapi.json'>openapi.json</a> · <i>Send</i> sends a request from this page "
        f"with the token that your browser has.{''.join(parts)}"
        f"<script src='{SCRIPT_PATH}'></script>"
    )


def _operation_section(path: str, method: str, operation: Mapping[str, Any]) -> str:
    """Return the HTML of one operation of the OpenAPI document."""
    rows = "".join(_parameter_row(parameter) for parameter in operation.get("parameters", []))
    body = ""
    if "requestBody" in operation:
        example = json.dumps(BODY_EXAMPLES.get(path, {}))
        body = (
            "<label>Body: JSON, see <a href='/openapi.json'>the schema</a>"
            f"<textarea rows=3 spellcheck=false>{escape(example)}</textarea></label>"
        )
    return (
        f"<h2><code>{method.upper()} {escape(path)}</code></h2>"
        f'<p>{escape(operation["summary"])}.<form data-method={method.upper()} data-path="'
        f'{escape(path)}"><table>{rows}</table>{body}'
        "<button>Send</button><output></output></form>"
    )


def _parameter_row(parameter: Mapping[str, Any]) -> str:
    """Return the row of one parameter with its input."""
    name = escape(parameter["name"])
    needed = " required" if parameter.get("required") else ""
    cells = (
        name,
        escape(parameter["in"]),
        f'<input name="{name}" data-in={escape(parameter["in"])} aria-label="{name}"{needed}>',
        escape(parameter.get("description", "")),
    )
    return "<tr>" + "".join(f"<td>{cell}" for cell in cells)


REFERENCE_STYLE = """:root { color-scheme: light dark; --line: #8884; --soft: #788596 }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 50rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.3rem } h1::before { content: ""; display: inline-block; width: 18px; height: 3px;
margin-right: 9px; vertical-align: middle; border-radius: 2px; background: #d6001c }
h2 { font-size: 1rem; margin: 1.6rem 0 0; padding-top: 1.2rem; border-top: 1px solid var(--line) }
p { margin: .3rem 0 .6rem } td { padding: .1rem 1rem .1rem 0; vertical-align: top }
td + td { color: var(--soft) } input, textarea, button { font: inherit; color: inherit;
background: none; border: 1px solid var(--line); border-radius: 8px; padding: .2rem .6rem }
button { margin-top: .5rem; padding: .2rem .9rem; cursor: pointer }
button:hover { background: var(--line) } textarea { display: block; width: 100%;
box-sizing: border-box } textarea, output { font: 13px/1.4 monospace } output { display: block;
margin-top: .5rem; white-space: pre-wrap; overflow-wrap: anywhere; max-height: 20rem;
overflow-y: auto }"""
