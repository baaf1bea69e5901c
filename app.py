"""The page: `python app.py`, its layout and its callbacks.

The way of the data is straight: stream -> monitor -> detector -> threshold -> page. The monitor's
thread is the only writer; every callback here reads what it keeps, and a tick sends only what is
new.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import socket
import sys
import threading
import webbrowser
from functools import partial
from pathlib import Path
from typing import Any

import dash
from dash import Input, Output, State, ctx, dcc, html, no_update

from detectors import DETECTORS
from redline.api.server import listen, serve
from redline.api.service import ServerOptions, Service, assemble_service, server_options
from redline.detection import third_party
from redline.engine.feed import Feed, MonitoredStream
from redline.engine.monitor import Limits, Monitor
from redline.engine.results import ResultStore
from redline.page import figure, layout
from redline.page.actions import find_proposal, page_actor
from redline.page.callbacks.actions import connect_actions
from redline.page.callbacks.browser import connect_browser
from redline.page.callbacks.feedback import connect_feedback
from redline.page.callbacks.navigation import connect_navigation
from redline.page.callbacks.panels import connect_panels
from redline.page.dash_app import create_dash, register_routes
from redline.page.link import settings_from_link
from redline.page.panels import aria_attribute
from redline.page.preview import PREVIEW_INPUTS, PREVIEW_STATE, preview_fields, previewed_settings
from redline.page.query import ViewQuery, heartbeat, overview_cards, pick_threshold
from redline.page.redraw import announce_incidents, curve_update, ready_query, redraw
from redline.page.upload import connect_upload, show_recording, upload_area
from redline.settings import (
    DIRECTIONS,
    SERVER_SETTINGS,
    SETTINGS_BY_NAME,
    ServerSettings,
    Settings,
    SettingsError,
    initial_settings,
    load_server_settings,
)
from redline.sources.csv import read_csv
from redline.sources.machine import ThisMachine
from redline.sources.pushed import OVERVIEW, THIS_MACHINE
from redline.storage.errors import StoreError, StoreFull
from redline.storage.retention import Retention
from redline.storage.sqlite import SqliteStore, UnavailableStore
from redline.storage.waiting import RoomWatch
from streams import STREAMS, Stream

NUMBERS = {  # element id -> what stands beside it
    "alarms": "alarms",
    "precision": "precision",
    "recall": "recall",
    "caught": "events caught",
}
CURVE_EVERY = 4  # ticks between two updates of the precision and recall curve


def page_layout(monitor: Monitor, interval: int, seed: int) -> html.Div:
    """Everything at its final height from the start, so that nothing jumps."""
    return html.Div(
        [
            *layout.hidden_elements(interval, seed),
            layout.header(),
            layout.trouble_bar(),
            layout.card_row(),
            layout.domain_tabs(monitor),
            layout.overview_tiles(monitor),
            live_view(),
            layout.lower_panels(),
            layout.overlays(),
        ],
        id="page",
    )


def live_view() -> html.Main:
    plot = dcc.Graph(
        id="chart", style={"height": "100%"}, figure=figure.EMPTY_FIGURE, config=layout.PLOT_CONFIG
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
        layout.navigation_row(),
        layout.inject_row(),
    ]
    return html.Main([html.Section(left, className="panel stage"), controls()], id="stage")


def controls() -> html.Aside:
    detector = layout.dropdown(
        "detector", {name: name for name in DETECTORS}, SETTINGS_BY_NAME["detector"].default
    )
    sides = {"both": "both sides", "high": "only high", "low": "only low"}
    direction = layout.dropdown("direction", {name: sides[name] for name in DIRECTIONS}, "both")
    numbers = [
        part for name, words in NUMBERS.items() for part in (html.Dt(words), html.Dd("–", id=name))
    ]
    unit_of_count = dcc.RadioItems(
        {"row": "by step", "event": "by event"}, "row", id="by", inline=True, className="by"
    )
    curve = dcc.Graph(
        id="curve",
        style={"height": "140px"},
        figure=figure.EMPTY_FIGURE,
        config={"displayModeBar": False, "responsive": True},
    )
    picks = [
        html.Button(words, id=name, className="link")
        for name, words in layout.THRESHOLD_PICKS.items()
    ]
    buttons = [
        html.Button(name.title(), id=name, className="solid" if name == "apply" else "")
        for name in ("apply", "undo", "export")
    ]
    return html.Aside(
        [
            html.Label(["Detector", detector]),
            layout.labelled_slider("window", "Window", 5),
            layout.labelled_slider("threshold", "Threshold", 0.1),
            html.Label(["Anomalous when", direction], className="inline"),
            html.Dl(numbers, className="delta"),
            unit_of_count,
            curve,
            html.Div(picks, className="row small"),
            html.Div(buttons, className="acts"),
            html.P(id="acted", role="status", className="soft small"),
            layout.proposal_box(),
        ],
        className="panel",
    )


def build_app(
    service: Service, interval: int = SETTINGS_BY_NAME["interval"].default, seed: int = 0
) -> dash.Dash:
    """Return the page and the API on one server; the loop starts and stops with it."""
    assets = Path(__file__).parent / "assets"
    app = create_dash(service, assets, lambda: page_layout(service.monitor, interval, seed))
    connect_settings(app, service)
    connect_chart(app, service)
    connect_navigation(app, service)
    connect_panels(app, service)
    connect_feedback(app, service)
    connect_upload(app, service)
    connect_actions(app, service, seed)
    connect_browser(app)
    register_routes(app)
    return app


def connect_settings(app: dash.Dash, service: Service) -> None:
    """Connect the controls: a link's settings, the stream's own, or a threshold that was picked."""
    monitor = service.monitor
    shown = ("domain", *PREVIEW_INPUTS, "range")
    outputs = {
        **{name: Output(name, "value") for name in shown},
        "acted": Output("acted", "children"),
        "shown": Output("shown", "data"),
    }
    inputs = {
        "search": Input("url", "search"),
        "domain": Input("domain", "value"),
        "apply": Input("apply", "n_clicks"),
        "undo": Input("undo", "n_clicks"),
        "proposal": Input("proposal-preview", "n_clicks"),
        "best": Input("best", "n_clicks"),
        "percent": Input("one-percent", "n_clicks"),
        "click": Input("curve", "clickData"),
    }
    state = {**PREVIEW_STATE, "by": State("by", "value"), "shown": State("shown", "data")}

    @app.callback(output=outputs, inputs=inputs, state=state)
    async def settle(
        search: str, domain: str, click: Any, by: str, shown: Any, **values: Any
    ) -> dict[str, Any]:
        same = {**dict.fromkeys(outputs, no_update), "shown": domain}
        why = ctx.triggered_id
        if shown is None and search:
            return {**same, **settings_from_link(monitor, search)}
        feed = monitor.feeds.get(domain)
        if feed is None or (why in (None, "url", "domain") and shown == domain):
            return {**same, "acted": ""}
        settings = previewed_settings(feed.applied, values)
        if why in ("apply", "undo"):
            new = settings if why == "apply" else None
            return {**same, **await asyncio.to_thread(apply_settings, service, feed, new)}
        if why == "proposal-preview":
            found = await asyncio.to_thread(find_proposal, service, feed)
            return {**same, **(preview_fields(found.settings) if found else {})}
        if why in ("best", "one-percent", "curve"):
            query = ViewQuery(service, domain, settings, 1)
            threshold = await asyncio.to_thread(pick_threshold, query, why, click, by)
            return {**same, "threshold": no_update if threshold is None else threshold}
        return {**same, **preview_fields(feed.applied), "acted": ""}


def apply_settings(service: Service, feed: Feed, settings: Settings | None) -> dict[str, Any]:
    """Apply settings to a stream, for every visitor; None undoes the last change."""
    if settings is None:
        back = service.monitor.undo(feed.name)
        service.audit(page_actor(), "took settings back", feed.name)
        return {**preview_fields(back), "acted": "Back to the settings before."}
    service.monitor.apply(feed.name, settings)
    service.audit(page_actor(), "applied settings", feed.name, **preview_fields(settings))
    return {"acted": f"{feed.stream.title} now runs under these settings, for everybody."}


def connect_chart(app: dash.Dash, service: Service) -> None:
    """Connect the redraw: each tick reads what the monitor keeps and sends what is new."""
    monitor = service.monitor
    texts = ("points", "anomalies", "rate", "status", "explain", "history", *NUMBERS)
    outputs = {
        "chart": Output("chart", "figure"),
        "curve": Output("curve", "figure"),
        "seen": Output("seen", "data"),
        "pulse": Output("pulse", "data"),
        "news": Output("news", "data"),
        **{name: Output(name, "children") for name in texts},
    }
    inputs = {
        "n": Input("tick", "n_intervals"),
        "domain": Input("domain", "value"),
        **PREVIEW_INPUTS,
        "span": Input("range", "value"),
        "by": Input("by", "value"),
        "at": Input("at", "data"),
        "theme": Input("look", "data"),
        "zoom": Input("zoom", "data"),
    }

    @app.callback(output=outputs, inputs=inputs, state={"seen": State("seen", "data")})
    async def draw(
        n: int,
        domain: str,
        span: int,
        by: str,
        at: Any,
        theme: str,
        zoom: Any,
        seen: Any,
        **values: Any,
    ) -> dict[str, Any]:
        same = dict.fromkeys(outputs, no_update)
        feed = monitor.feeds.get(domain)
        if feed is None:
            return {**same, **nothing_to_draw(monitor, domain)}
        past = at if at and at["id"] == feed.id else None
        try:
            settings = previewed_settings(feed.applied, values)
            query = await ready_query(service, domain, settings, span, past)
        except SettingsError as error:  # a window that this detector cannot take
            refused = {"explain": f"{error}.", "status": "cannot run"}
            return {**same, **refused, "pulse": heartbeat(monitor, feed, None)}
        view = (theme, zoom or {}, by, seen)
        if query.reads_store:
            answer = await asyncio.to_thread(redraw, query, *view)
        else:
            answer = redraw(query, *view)
        answer |= announce_incidents(service, feed, seen, answer["seen"])
        if ctx.triggered_id != "tick" or not n or n % CURVE_EVERY == 0:
            answer["curve"] = curve_update(query, by, theme)
        return {**same, **answer}


def nothing_to_draw(monitor: Monitor, domain: str) -> dict[str, Any]:
    """Return what is shown where no stream is: the overview, or a tab that waits for a file."""
    pulse = heartbeat(monitor, None, None)
    if domain == OVERVIEW:
        return {**overview_cards(monitor), "pulse": pulse}
    explain = "Nothing here yet: drop a file."
    return {"explain": explain, "status": "no file yet", "pulse": pulse}


def build_monitor(settings: ServerSettings, store: ResultStore | None) -> Monitor:
    """Return the monitor with the simulated domains, this machine and the file of --csv.

    Each stream starts with its preset.
    """
    streams = {name: preset_stream(kind(seed=settings.seed)) for name, kind in STREAMS.items()}
    streams[THIS_MACHINE] = preset_stream(ThisMachine(), own_clock=True)
    monitor = Monitor(streams, store=store, limits=Limits.from_settings(settings))
    if settings.csv:
        raw = Path(settings.csv).read_bytes()
        show_recording(monitor, read_csv(raw, title=Path(settings.csv).name), raw)
    return monitor


def preset_stream(stream: Stream, own_clock: bool = False) -> MonitoredStream:
    """Return a stream for the monitor that starts with its preset."""
    return MonitoredStream(stream, own_clock, initial_settings(stream))


def new_store(settings: ServerSettings) -> SqliteStore:
    """Return the opened store; StoreError = it cannot be opened."""
    return SqliteStore(settings.db, Retention(settings.retention_days, settings.retention_rows))


def open_store(settings: ServerSettings) -> SqliteStore | UnavailableStore:
    """Return the store; where it cannot be opened, one that accepts nothing and says why."""
    try:
        return new_store(settings)
    except StoreError as error:
        until = " until there is room" if isinstance(error, StoreFull) else ""
        said = f"{error}. Redline goes on, but keeps nothing and acknowledges nothing{until}."
        print(said, file=sys.stderr, flush=True)
        return UnavailableStore(error)


def parse_arguments(words: list[str] | None = None) -> tuple[ServerSettings, bool]:
    """Return the settings of the command line, and whether to open a browser.

    The options are those of the table of settings.
    """
    parser = argparse.ArgumentParser(
        prog="app.py",
        description="Watch streams of numbers on a page, live, with their anomalies in red.",
        epilog="Each option may also be an environment variable: REDLINE_PORT for --port.",
    )
    for row in SERVER_SETTINGS.values():
        unit = f", {row.unit}" if row.unit else ""
        parser.add_argument(
            f"--{row.name}",
            action="append" if isinstance(row.default, tuple) else "store",
            help=f"{row.help}{unit} (default: {row.default or None})".replace("%", "%%"),
        )
    parser.add_argument("--no-browser", action="store_true", help="do not open a browser")
    given = vars(parser.parse_args(words))
    open_browser = not given.pop("no_browser")
    try:
        return load_server_settings(given), open_browser
    except SettingsError as error:
        parser.error(f"--{error}")


def start_service(
    settings: ServerSettings, options: ServerOptions, store: SqliteStore | UnavailableStore
) -> Service:
    """Return the service around the streams, the store and the file of channels."""
    make_monitor = partial(build_monitor, settings)
    return assemble_service(make_monitor, store, options, settings.alerts or None)


def serve_until_room(
    settings: ServerSettings, service: Service, sock: socket.socket
) -> SqliteStore | None:
    """Serve without a store until its disk has room; return the store, None = Ctrl-C came first."""
    watch = RoomWatch(partial(new_store, settings))
    page = build_app(service, settings.interval, settings.seed)
    serve(page.server, sock, service, watch.opened)
    has_room = watch.opened.is_set()
    store = watch.end()
    if store is not None and not has_room:
        store.close()
    return store if has_room else None


def main(words: list[str] | None = None) -> None:
    """Serve the page until Ctrl-C."""
    settings, open_browser = parse_arguments(words)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s")
    sys.setswitchinterval(0.001)  # seconds: an answer never waits long for the loop's thread
    try:
        options = server_options(settings)
        sock = listen(settings.host, settings.port)
        store = open_store(settings)
        service = start_service(settings, options, store)
    except (OSError, ValueError) as error:
        raise SystemExit(str(error)) from None
    host = "localhost" if settings.host in ("127.0.0.1", "0.0.0.0") else settings.host
    address = f"http://{host}:{settings.port}"
    streams = len(service.monitor.feeds)
    print(f"Redline watches {streams} streams at {address} (Ctrl-C ends it)", flush=True)
    if open_browser:
        threading.Timer(1.0, webbrowser.open, [address]).start()
    if isinstance(store, UnavailableStore) and isinstance(store.reason, StoreFull):
        opened = serve_until_room(settings, service, sock)
        if opened is None:
            return
        print(f"{settings.db} has room again; Redline keeps and acknowledges points", flush=True)
        try:
            service = start_service(settings, options, opened)
        except (OSError, ValueError) as error:
            raise SystemExit(str(error)) from None
    serve(build_app(service, settings.interval, settings.seed).server, sock, service)


if __name__ == "__main__":
    third_party.register_available()
    main()
