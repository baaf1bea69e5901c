"""The door and the page: `python app.py`, its layout and its callbacks.

The way of the data is straight: stream -> monitor -> detector -> threshold -> page. The monitor's
thread is the only writer; every callback here reads what it keeps, and a tick sends only what is
new.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import multiprocessing
import os
import sys
import threading
import webbrowser
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import dash
from dash import Input, Output, State, ctx, dcc, html, no_update
from fastapi import Request
from fastapi.responses import JSONResponse

from detectors import DETECTORS
from redline.access.authorizer import exposure_problem
from redline.access.hosts import HostError, Hosts
from redline.access.tokens import AuthError, load_tokens
from redline.api.server import build_server, listen, serve
from redline.api.service import ServerOptions, Service, assemble_service
from redline.detection import third_party
from redline.engine.feed import Feed
from redline.engine.monitor import Limits, Monitor
from redline.engine.results import ResultStore, log_failure
from redline.incidents.channels_file import ChannelError
from redline.page import figure
from redline.page.actions import PAGE_ACTOR, find_proposal
from redline.page.callbacks.actions import connect_actions
from redline.page.callbacks.browser import connect_browser
from redline.page.callbacks.panels import connect_panels
from redline.page.callbacks.people import connect_people
from redline.page.callbacks.travel import connect_travel
from redline.page.layout import (
    INDEX_HTML,
    OVERVIEW,
    PLOT_CONFIG,
    THIS_MACHINE,
    THRESHOLD_PICKS,
    VIEW_SPANS,
    card_row,
    domain_tabs,
    dropdown,
    header,
    hidden_elements,
    inject_row,
    labelled_slider,
    lower_panels,
    overlays,
    overview_tiles,
    tab_titles,
    travel_row,
    trouble_bar,
)
from redline.page.panels import aria_attribute
from redline.page.preview import PREVIEW_INPUTS, PREVIEW_STATE, preview_fields, previewed_settings
from redline.page.query import ViewQuery, heartbeat, overview_cards, pick_threshold
from redline.page.redraw import announce_incidents, curve_update, ready_query, redraw
from redline.page.upload import connect_upload, show_recording, upload_area
from redline.settings import DIRECTIONS, SETTINGS_BY_NAME, SETTINGS_TABLE, Settings, SettingsError
from redline.sources.csv import read_csv
from redline.sources.csv_cells import CsvError
from redline.sources.machine import ThisMachine
from redline.storage.errors import StoreError
from redline.storage.retention import Retention
from redline.storage.sqlite import SqliteStore, UnavailableStore
from streams import STREAMS, Stream

SERVED = ("host", "allow-host", "port")  # where, and under which names, the page is served
STORAGE_OPTIONS = (
    "db",
    "retention-days",
    "retention-rows",
    "create",
    "streams",
)  # settings of what is kept and taken in


def page_layout(monitor: Monitor, interval: int, seed: int) -> html.Div:
    """Everything at its final height from the start, so that nothing jumps."""
    return html.Div(
        [
            *hidden_elements(interval, seed),
            header(),
            trouble_bar(),
            card_row(),
            domain_tabs(monitor),
            overview_tiles(monitor),
            live_view(),
            lower_panels(),
            overlays(),
        ],
        id="page",
    )


def live_view() -> html.Main:
    plot = dcc.Graph(
        id="chart", style={"height": "100%"}, figure=figure.EMPTY_FIGURE, config=PLOT_CONFIG
    )
    left = [
        html.P("Loading the stream …", id="explain", className="say"),
        upload_area(),
        html.Div(
            [plot, html.Button("Go live", id="golive", hidden=True)],
            className="plot",
            role="img",
            **aria_attribute("describedby", "explain"),
        ),
        travel_row(),
        inject_row(),
    ]
    return html.Main([html.Section(left, className="panel stage"), controls()], id="stage")


def controls() -> html.Aside:
    words = {"both": "both sides", "high": "only high", "low": "only low"}
    rows = [
        ("alarms", "alarms"),
        ("precision", "precision"),
        ("recall", "recall"),
        ("caught", "events caught"),
    ]
    shown = [
        html.Label(
            [
                "Detector",
                dropdown(
                    "detector",
                    {name: name for name in DETECTORS},
                    SETTINGS_BY_NAME["detector"].default,
                ),
            ]
        ),
        labelled_slider("window", "Window", 5),
        labelled_slider("threshold", "Threshold", 0.1),
        html.Label(
            [
                "Anomalous when",
                dropdown("direction", {name: words[name] for name in DIRECTIONS}, "both"),
            ],
            className="inline",
        ),
        html.Dl(
            [part for name, label in rows for part in (html.Dt(label), html.Dd("–", id=name))],
            className="delta",
        ),
        dcc.RadioItems(
            {"row": "by step", "event": "by event"}, "row", id="by", inline=True, className="by"
        ),
        dcc.Graph(
            id="curve",
            style={"height": "140px"},
            figure=figure.EMPTY_FIGURE,
            config={"displayModeBar": False, "responsive": True},
        ),
        html.Div(
            [
                html.Button(label, id=name, className="link")
                for name, label in THRESHOLD_PICKS.items()
            ],
            className="row small",
        ),
        html.Div(
            [
                html.Button(name.title(), id=name, className="solid" if name == "apply" else "")
                for name in ("apply", "undo", "export")
            ],
            className="acts",
        ),
        html.P(id="acted", role="status", className="soft small"),
        html.Div(
            [
                html.P(id="proposal"),
                html.Div(
                    [html.Button(w, id=f"proposal-{w}") for w in ("preview", "dismiss")],
                    className="acts",
                ),
            ],
            id="proposed",
            hidden=True,
        ),
    ]
    return html.Aside(shown, className="panel")


def build_app(
    service: Service, interval: int = SETTINGS_BY_NAME["interval"].default, seed: int = 0
) -> dash.Dash:
    """Return the page and the API on one server; the loop starts and stops with it."""
    require_one_process()
    server = build_server(service)
    where = Path(__file__).parent / "assets"
    app = dash.Dash(
        "redline",
        server=server,  # type: ignore[arg-type]
        assets_folder=str(where),
        title="Redline",
        update_title="",
        on_error=show_failure,
        index_string=INDEX_HTML,
    )
    app.layout = lambda: page_layout(service.monitor, interval, seed)
    for wire in (
        connect_settings,
        connect_chart,
        connect_travel,
        connect_panels,
        connect_people,
        connect_upload,
    ):
        wire(app, service)
    connect_actions(app, service, seed)
    connect_browser(app)
    app.setup_startup_routes()
    close_unknown_paths(app)
    return app


def show_failure(error: Exception) -> None:
    """A callback that raised: logged under an id, and said on the page; the other callbacks go
    on.
    """
    failure = log_failure("a callback", error)
    dash.set_props(
        "trouble",
        {
            "children": (
                f"Something failed on the server: {error}. The rest goes on; look for "
                f"{failure.id} in the log."
            )
        },
    )


def require_one_process() -> None:
    """One process owns the feeds: a second worker would simulate a second world."""
    if (
        multiprocessing.parent_process() is not None
        or int(os.environ.get("WEB_CONCURRENCY", "1")) > 1
    ):
        raise RuntimeError(
            "Redline keeps its streams in one process: wanted one worker, came "
            "several; start it with `python app.py`"
        )


def close_unknown_paths(app: dash.Dash) -> None:
    """An unknown path is a 404 with a problem description, never the page."""

    async def unknown(request: Request) -> JSONResponse:
        problem = {
            "type": "about:blank",
            "title": "Not Found",
            "status": 404,
            "detail": f"nothing is served at {request.url.path}; the page is at /",
        }
        return JSONResponse(problem, 404, media_type="application/problem+json")

    app.server.add_api_route("/{path:path}", unknown, methods=["GET"], include_in_schema=False)
    app.backend._setup_catchall = lambda: None  # type: ignore[attr-defined]  # Dash's own answers every path with the page


def connect_settings(app: dash.Dash, service: Service) -> None:
    monitor = service.monitor
    outputs = {
        "domain": Output("domain", "value"),
        **{name: Output(name, "value") for name in PREVIEW_INPUTS},
        "range": Output("range", "value"),
        "acted": Output("acted", "children"),
    }
    outputs["shown"] = Output("shown", "data")
    asked = {
        "search": Input("url", "search"),
        "domain": Input("domain", "value"),
        "apply": Input("apply", "n_clicks"),
        "undo": Input("undo", "n_clicks"),
    }
    asked["proposal"] = Input("proposal-preview", "n_clicks")
    picked = {
        "best": Input("best", "n_clicks"),
        "percent": Input("one-percent", "n_clicks"),
        "click": Input("curve", "clickData"),
    }

    @app.callback(
        output=outputs,
        inputs={**asked, **picked},
        state={**PREVIEW_STATE, "by": State("by", "value"), "shown": State("shown", "data")},
    )
    async def settle(
        search: str, domain: str, click: Any, by: str, shown: Any, **asked: Any
    ) -> dict[str, Any]:
        """What the controls show: a link's settings, the stream's own, or a threshold picked from
        the curve.
        """
        same = {**dict.fromkeys(outputs, no_update), "shown": domain}
        why = ctx.triggered_id
        if shown is None and search:
            return {**same, **settings_from_link(monitor, search)}
        feed = monitor.feeds.get(domain)
        if feed is None or (why in (None, "url", "domain") and shown == domain):
            return {**same, "acted": ""}
        now = previewed_settings(feed.applied, asked)
        if why in ("apply", "undo"):
            return {
                **same,
                **await asyncio.to_thread(
                    apply_settings, service, feed, now if why == "apply" else None
                ),
            }
        if why == "proposal-preview":
            found = await asyncio.to_thread(find_proposal, service, feed)
            return {**same, **(preview_fields(found.settings) if found else {})}
        if why in ("best", "one-percent", "curve"):
            asked_threshold = (ViewQuery(service, domain, now, 1), why, click, by)
            picked = await asyncio.to_thread(pick_threshold, *asked_threshold)
            return {**same, "threshold": picked if picked is not None else no_update}
        return {**same, **preview_fields(feed.applied), "acted": ""}


def apply_settings(service: Service, feed: Feed, settings: Settings | None) -> dict[str, Any]:
    """Makes settings a stream's own for everybody; None takes the last ones back."""
    if settings is None:
        back = service.monitor.undo(feed.name)
        service.audit(PAGE_ACTOR, "took settings back", feed.name)
        return {**preview_fields(back), "acted": "Back to the settings before."}
    service.monitor.apply(feed.name, settings)
    service.audit(PAGE_ACTOR, "applied settings", feed.name, **preview_fields(settings))
    return {"acted": f"{feed.stream.title} now runs under these settings, for everybody."}


def settings_from_link(monitor: Monitor, search: str) -> dict[str, Any]:
    """The controls as a link names them; what a link gets wrong is left as it is and said."""
    asked = {key: values[0] for key, values in parse_qs(search.lstrip("?")).items()}
    domain = asked.get("domain", "wave")
    if domain not in tab_titles(monitor):
        return {"acted": f"the link names a stream {domain!r} that is not here"}
    base = monitor.feeds[domain].applied if domain in monitor.feeds else Settings()
    try:
        said = {**preview_fields(base), **asked}
        settings = previewed_settings(
            base, {**said, "window": int(said["window"]), "threshold": float(said["threshold"])}
        )
        span = int(asked.get("range", 600))
    except (ValueError, SettingsError) as error:
        return {
            "domain": domain,
            "shown": domain,
            **preview_fields(base),
            "acted": f"the link could not be followed whole: {error}",
        }
    return {
        "domain": domain,
        "shown": domain,
        **preview_fields(settings),
        "range": span if span in VIEW_SPANS else 600,
    }


def connect_chart(app: dash.Dash, service: Service) -> None:
    monitor = service.monitor
    numbers_out = {
        name: Output(name, "children")
        for name in (
            "points",
            "anomalies",
            "rate",
            "status",
            "explain",
            "alarms",
            "precision",
            "recall",
            "caught",
        )
    }
    outputs = {
        "chart": Output("chart", "figure"),
        "curve": Output("curve", "figure"),
        "history": Output("history", "children"),
    }
    outputs |= {
        "seen": Output("seen", "data"),
        "pulse": Output("pulse", "data"),
        "news": Output("news", "data"),
        **numbers_out,
    }
    asked = {
        "n": Input("tick", "n_intervals"),
        "domain": Input("domain", "value"),
        **PREVIEW_INPUTS,
        "span": Input("range", "value"),
    }
    asked |= {
        "by": Input("by", "value"),
        "at": Input("at", "data"),
        "theme": Input("look", "data"),
        "zoom": Input("zoom", "data"),
    }

    @app.callback(output=outputs, inputs=asked, state={"seen": State("seen", "data")})
    async def draw(domain: str, span: int, at: Any, seen: Any, **asked: Any) -> dict[str, Any]:
        """The redraw: reads what the monitor keeps, sends what the browser lacks."""
        same = dict.fromkeys(outputs, no_update)
        feed = monitor.feeds.get(domain)
        if feed is None:
            there = (
                overview_cards(monitor)
                if domain == OVERVIEW
                else {"explain": "Nothing here yet: drop a file.", "status": "no file yet"}
            )
            return {**same, **there, "pulse": heartbeat(monitor, None, None)}
        try:
            sight = await ready_query(
                service,
                domain,
                previewed_settings(feed.applied, asked),
                span,
                at if at and at["id"] == feed.id else None,
            )
        except SettingsError as error:  # a window that this detector cannot take
            return {
                **same,
                "explain": f"{error}.",
                "status": "cannot run",
                "pulse": heartbeat(monitor, feed, None),
            }
        rest = (asked["theme"], asked["zoom"] or {}, asked["by"], seen)
        if sight.reads_store:
            answer = await asyncio.to_thread(redraw, sight, *rest)
        else:
            answer = redraw(sight, *rest)
        answer |= announce_incidents(service, feed, seen, answer["seen"])
        if ctx.triggered_id != "tick" or not asked["n"] or asked["n"] % 4 == 0:
            answer["curve"] = curve_update(sight, asked["by"], asked["theme"])
        return {**same, **answer}


def build_monitor(asked: argparse.Namespace, store: ResultStore | None) -> Monitor:
    """Return the monitor with the simulated domains, this machine and the file of --csv."""
    streams: dict[str, tuple[Stream, bool]] = {
        name: (stream(seed=asked.seed), False) for name, stream in STREAMS.items()
    }
    streams[THIS_MACHINE] = (ThisMachine(), True)
    monitor = Monitor(streams, store=store, limits=Limits(bool(asked.create), asked.streams))
    if asked.csv:
        raw = Path(asked.csv).read_bytes()
        show_recording(monitor, read_csv(raw, title=Path(asked.csv).name), raw)
    return monitor


def open_store(asked: argparse.Namespace) -> SqliteStore | UnavailableStore:
    """The store; where it cannot be opened the page goes on without one and says why."""
    try:
        return SqliteStore(
            asked.db,
            Retention(asked.retention_days, asked.retention_rows),
        )
    except StoreError as error:
        print(
            f"{error}. Redline goes on, but keeps nothing and acknowledges nothing.",
            file=sys.stderr,
            flush=True,
        )
        return UnavailableStore(error)


def parse_arguments(words: list[str] | None = None) -> argparse.Namespace:
    """The command line, read off the table of settings."""
    parser = argparse.ArgumentParser(
        prog="app.py",
        description=(__doc__ or "").splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    for row in SETTINGS_TABLE:
        if row.name in (
            *SERVED,
            "csv",
            "interval",
            "seed",
            "alerts",
            "tokens",
            "cors",
            "body-limit",
            "rate-limit",
            *STORAGE_OPTIONS,
        ):
            kind = int if isinstance(row.default, int) else str
            said = f"{row.help}{', ' + row.unit if row.unit else ''}"
            several: Any = (
                {"action": "append"} if isinstance(row.default, tuple) else {"default": row.default}
            )
            parser.add_argument(f"--{row.name}", type=kind, help=said, **several)
    parser.add_argument("--no-browser", action="store_true", help="do not open a browser")
    asked = parser.parse_args(words)
    for row in SETTINGS_TABLE:
        value = getattr(asked, row.name.replace("-", "_"), None)
        if (
            isinstance(value, int)
            and not isinstance(value, bool)
            and not row.low <= value <= row.high
        ):
            parser.error(f"--{row.name}: wanted {row.low:,.0f} to {row.high:,.0f}, came {value}")
    return asked


def server_options(asked: argparse.Namespace) -> ServerOptions:
    """What the API's guard goes by, or an exit with a sentence."""
    try:
        tokens = load_tokens(asked.tokens, os.environ.get("REDLINE_TOKEN"))
    except (AuthError, OSError) as error:
        raise SystemExit(f"--tokens {asked.tokens}: {error}") from None
    if refused := exposure_problem(asked.host, tokens):
        raise SystemExit(refused)
    try:
        hosts = Hosts.given(asked.host, asked.allow_host or ())
    except HostError as error:
        raise SystemExit(str(error)) from None
    return ServerOptions(
        tokens, tuple((asked.cors or "").split()), asked.body_limit * 2**20, asked.rate_limit, hosts
    )


def start_service(asked: argparse.Namespace, options: ServerOptions) -> Service:
    """Return the service as the command line asks for it, or exit with a sentence."""
    try:
        make_monitor = partial(build_monitor, asked)
        return assemble_service(make_monitor, open_store(asked), options, asked.alerts)
    except ChannelError as error:
        raise SystemExit(f"--alerts {asked.alerts}: {error}") from None
    except CsvError as error:
        raise SystemExit(f"--csv {asked.csv}: {error}") from None
    except OSError as error:
        named = asked.csv if error.filename == asked.csv else asked.alerts
        option = "--csv" if named == asked.csv else "--alerts"
        raise SystemExit(f"{option} {named}: {error}") from None


def main(words: list[str] | None = None) -> None:
    """Serve the page until Ctrl-C."""
    asked = parse_arguments(words)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s")
    sys.setswitchinterval(0.001)  # seconds: an answer never waits long for the loop's thread
    options = server_options(asked)
    try:
        sock = listen(asked.host, asked.port)
    except OSError as error:
        raise SystemExit(str(error)) from None
    service = start_service(asked, options)
    app = build_app(service, asked.interval, asked.seed)
    host = "localhost" if asked.host in ("127.0.0.1", "0.0.0.0") else asked.host
    address = f"http://{host}:{asked.port}"
    streams = len(service.monitor.feeds)
    print(f"Redline watches {streams} streams at {address} (Ctrl-C ends it)", flush=True)
    if not asked.no_browser:
        threading.Timer(1.0, webbrowser.open, [address]).start()
    serve(app.server, sock)


if __name__ == "__main__":
    third_party.register_available()
    main()
