"""The Dash application: mounted on the API's server, for one process, with its errors shown."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dash
from dash import dcc
from dash.exceptions import DependencyException

from redline.api.headers import connect_index, inline_source, page_policy
from redline.api.problems import Problem, connect_unknown_paths
from redline.api.server import build_server
from redline.api.service import Service
from redline.engine.results import log_failure
from redline.page.callback_guard import CallbackGuard
from redline.page.layout import INDEX_HTML, THEME_SCRIPT


def create_dash(service: Service, assets: Path, layout: Callable[[], Any]) -> dash.Dash:
    """Return a Dash application on the server of the API, still without callbacks.

    Args:
        assets: the folder of style sheets and scripts.
        layout: called for each visit of the page.
    """
    require_one_process()
    server = build_server(service)
    connect_index(
        server,
        lambda: app.index(),  # type: ignore[no-untyped-call]
        lambda: content_policy(app),
    )
    app = dash.Dash(
        "redline",
        server=server,  # type: ignore[arg-type]
        assets_folder=str(assets),
        title="Redline",
        update_title="",
        on_error=show_failure,
        index_string=INDEX_HTML,
    )
    leave_out_whole_plotly()
    app.layout = layout
    guard_callbacks(app, service)
    return app


def leave_out_whole_plotly() -> None:
    """Have Dash not send its plotly.js: the page brings a quarter of it, with all it draws.

    A graph takes the one that is there. It is assets/plotly-basic.min.js, made by Plotly.
    """
    dcc._js_dist[:] = [each for each in dcc._js_dist if each["namespace"] != "plotly"]


def content_policy(app: dash.Dash) -> str:
    """Return the Content-Security-Policy of the page.

    Its scripts are files of this server, and inline ones known by their hash. Inline styles are
    allowed, because Plotly writes them.
    """
    scripts = [inline_source(THEME_SCRIPT), *app.csp_hashes()]
    return page_policy(scripts, ["'unsafe-inline'"])


def guard_callbacks(app: dash.Dash, service: Service) -> None:
    """Put the guard of the callbacks before Dash, and both behind the guards of the API.

    Dash puts itself before them: it would read the body of a request whose host, token and size
    were not checked yet.
    """
    server = app.server
    server.add_middleware(CallbackGuard, dash_app=app, service=service)
    ours, dashs, *guards = server.user_middleware
    server.user_middleware[:] = [*guards, ours, dashs]


def register_routes(app: dash.Dash) -> None:
    """Register Dash's own routes, and answer every unknown path with a 404 problem."""
    app.setup_startup_routes()
    # a file of a package that the page does not use
    app.server.add_exception_handler(DependencyException, unknown_file)
    connect_unknown_paths(app.server)
    # Dash's own route for the rest would answer every path with the page
    app.backend._setup_catchall = lambda: None  # type: ignore[attr-defined]


async def unknown_file(request: Any, error: Exception) -> Any:
    """Answer a request for a file that Dash does not serve with a 404 problem."""
    return Problem(404, "no such file belongs to the page").response(request.url.path)


def show_failure(error: Exception) -> None:
    """Log the error of a callback under an id and show it on the page; the others go on."""
    failure = log_failure("a callback", error)
    shown = (
        f"Something failed on the server: {error}. The rest goes on; look for "
        f"{failure.id} in the log."
    )
    dash.set_props("trouble", {"children": shown})


def require_one_process() -> None:
    """Refuse a second worker process: it would run the loop a second time.

    Raises:
        RuntimeError: this is a child process, or several workers are configured.
    """
    child = multiprocessing.parent_process() is not None
    if child or int(os.environ.get("WEB_CONCURRENCY", "1")) > 1:
        raise RuntimeError(
            "Redline keeps its streams in one process: wanted one worker, came "
            "several; start it with `python app.py`"
        )
