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
from redline.engine.demo_feeder import DemoFeeder
from redline.engine.feed import Feed, MonitoredStream
from redline.engine.monitor import Limits, Monitor
from redline.engine.results import ResultStore
from redline.evaluation.finder import find_settings
from redline.page import figure, layout
from redline.page.actions import find_proposal, page_actor
from redline.page.brush import brush_data, brush_strip
from redline.page.callbacks.actions import connect_actions
from redline.page.callbacks.browser import connect_browser
from redline.page.callbacks.feedback import connect_feedback
from redline.page.callbacks.fleet import connect_fleet
from redline.page.callbacks.navigation import connect_navigation
from redline.page.callbacks.panels import connect_panels
from redline.page.callbacks.streams import connect_streams_list
from redline.page.callbacks.tuning import connect_tuning, find_settings_box
from redline.page.callbacks.wall import connect_wall
from redline.page.dash_app import create_dash, register_routes
from redline.page.fleet import fleet_area
from redline.page.lanes import lane_picker
from redline.page.link import settings_from_link
from redline.page.panels import aria_attribute, dropdown, empty_state
from redline.page.preview import (
    PREVIEW_INPUTS,
    PREVIEW_STATE,
    preview_fields,
    preview_state,
    previewed_settings,
)
from redline.page.query import heartbeat, overview_cards, pick_threshold
from redline.page.race import Races, race_update
from redline.page.redraw import announce_incidents, curve_update, ready_query, redraw
from redline.page.streams_list import streams_area
from redline.page.upload import connect_upload, show_recording, upload_area
from redline.page.wall import overview_wall
from redline.page.zones import times_of
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
from redline.sources.directory import SeriesDirectory
from redline.sources.machine import ThisMachine
from redline.sources.pushed import ALL_STREAMS, FLEET, OVERVIEW, THIS_MACHINE, YOUR_DATA
from redline.storage.errors import StoreError, TemporaryStoreError
from redline.storage.opening import open_database
from redline.storage.retention import Retention
from redline.storage.sql_store import SqlStore
from redline.storage.unavailable import UnavailableStore
from redline.storage.waiting import RoomWatch
from streams import STREAMS, UNKNOWN_PRESET, Stream

NUMBERS = {  # element id -> what stands beside it
    "alarms": "alarms",
    "precision": "precision",
    "recall": "recall",
    "caught": "caught",
}
NO_FILE = "Nothing here yet: drop a file."  # the sentence of *Your data* without one
PICK_PATIENCE = 10.0  # seconds that a threshold is picked in, which needs all scores
CURVE_EVERY = 4  # ticks between two updates of the precision and recall curve


def page_layout(monitor: Monitor, interval: int, seed: int) -> html.Div:
    """Everything at its final height from the start, so that nothing jumps."""
    titles = layout.tab_titles(monitor)
    return html.Div(
        [
            *layout.hidden_elements(interval, seed, list(titles.values())),
            layout.first_visit_hint(),
            layout.header(),
            layout.trouble_bar(),
            layout.domain_tabs(titles),
            overview_wall(),
            streams_area(),
            fleet_area(),
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
    sentence = html.P("Loading the stream …", id="explain", className="say")
    chart = [
        html.Div(
            plot,
            className="graph",
            role="figure",
            **aria_attribute("label", "Chart of the stream"),
            **aria_attribute("describedby", "explain"),
        ),
        html.Button("Go live", id="golive", hidden=True),
    ]
    left = [
        html.H2("The stream", className="unseen"),
        html.Div([sentence, layout.label_buttons()], className="top"),
        upload_area(),
        html.Div([layout.navigation_row(), html.Div(chart, className="plot")], className="sight"),
        lane_picker(),
        brush_strip(),
        layout.inject_row(),
    ]
    return html.Main([html.Section(left, className="stage"), controls()], id="stage")


def controls() -> html.Aside:
    detector = dropdown(
        "detector", {name: name for name in DETECTORS}, SETTINGS_BY_NAME["detector"].default
    )
    sides = {"both": "above and below", "high": "only above", "low": "only below"}
    direction = dropdown("direction", {name: sides[name] for name in DIRECTIONS}, "both")
    numbers = [
        part for name, words in NUMBERS.items() for part in (html.Dt(words), html.Dd("–", id=name))
    ]
    unit_of_count = dcc.RadioItems(
        {"event": "by event", "row": "by step"}, "event", id="by", inline=True, className="by"
    )
    curve = dcc.Graph(
        id="curve",
        style={"height": "220px"},
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
            html.H2("Detector and threshold", className="unseen"),
            html.Div(
                [
                    html.Div(html.Span(id="chip", className="chip"), role="status"),
                    unit_of_count,
                ],
                className="chip-row",
            ),
            html.Dl(numbers, className="delta"),
            html.P(id="covers", className="soft small"),
            curve,
            html.Label(["Detector", detector], className="inline"),
            layout.labelled_slider("window", "Window", 5),
            layout.labelled_slider("threshold", "Threshold", 0.1),
            html.Label(["Direction", direction], className="inline"),
            html.Div(picks, className="row small"),
            find_settings_box(),
            html.Div(buttons, className="acts"),
            html.P(id="acted", role="status", className="soft small"),
            layout.proposal_box(),
        ]
    )


def build_app(
    service: Service, interval: int = SETTINGS_BY_NAME["interval"].default, seed: int = 0
) -> dash.Dash:
    """Return the page and the API on one server; the loop starts and stops with it."""
    assets = Path(__file__).parent / "assets"
    app = create_dash(service, assets, lambda: page_layout(service.monitor, interval, seed))
    connect_settings(app, service)
    races = Races(service.monitor)
    connect_chart(app, service, races)
    connect_navigation(app, service)
    connect_panels(app, service)
    connect_wall(app, service)
    streams = connect_streams_list(app, service)
    connect_fleet(app, service, streams.ranking.index)
    connect_feedback(app, service)
    connect_upload(app, service)
    connect_tuning(app, service, find_settings)
    connect_actions(app, service, seed, races)
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
    state["span"] = State("range", "value")

    @app.callback(output=outputs, inputs=inputs, state=state)
    async def settle(
        search: str, domain: str, click: Any, by: str, shown: Any, span: int, **values: Any
    ) -> dict[str, Any]:
        same = {**dict.fromkeys(outputs, no_update), "shown": domain}
        why = ctx.triggered_id
        if shown is None and search:
            return {**same, **settings_from_link(monitor, search)}
        feed = monitor.find_feed(domain)
        if shown != domain:
            same["range"] = opened_span(domain, shown, span)
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
            query = await ready_query(service, domain, settings, 1, None, PICK_PATIENCE)
            threshold = await asyncio.to_thread(pick_threshold, query, why, click, by)
            return {**same, "threshold": no_update if threshold is None else threshold}
        return {**same, **preview_fields(feed.applied), "acted": ""}


def opened_span(domain: str, before: str | None, span: int) -> Any:
    """Return the number of steps that a tab shows first: of a file all, which no other tab keeps.

    no_update = as many as the tab before.

    Args:
        domain: the tab that is opened.
        before: the tab that was open.
        span: the steps that it showed.
    """
    if domain == YOUR_DATA:
        return layout.WHOLE_SPAN
    whole_file = before == YOUR_DATA and span == layout.WHOLE_SPAN
    return layout.DEFAULT_SPAN if whole_file else no_update


def apply_settings(service: Service, feed: Feed, settings: Settings | None) -> dict[str, Any]:
    """Apply settings to a stream, for every visitor; None undoes the last change."""
    service.wait_until_restored([feed])
    if settings is None and not feed.undone:
        return {"acted": "There is no change of the settings to take back."}
    if settings is None:
        back = service.monitor.undo(feed.name)
        service.audit(page_actor(), "took settings back", feed.name)
        return {**preview_fields(back), "acted": "Back to the settings before."}
    if settings == feed.applied:
        return {"acted": f"{feed.stream.title} runs under these settings already."}
    service.monitor.apply(feed.name, settings)
    service.audit(page_actor(), "applied settings", feed.name, **preview_fields(settings))
    return {"acted": f"{feed.stream.title} now runs under these settings, for everybody."}


def connect_chart(app: dash.Dash, service: Service, races: Races) -> None:
    """Connect the redraw: each tick reads what the monitor keeps and sends what is new."""
    monitor = service.monitor
    cards = ("points", "anomalies", "rate", "status")
    texts = (*cards, "explain", "history", "race", "covers", *NUMBERS)
    outputs = {
        "chart": Output("chart", "figure"),
        "curve": Output("curve", "figure"),
        "brush": Output("overview-line", "data"),
        "lanes": Output("lanes", "options"),
        "no_lanes": Output("lane-row", "hidden"),
        "lanes_said": Output("lanes-said", "children"),
        "seen": Output("seen", "data"),
        "pulse": Output("pulse", "data"),
        "news": Output("news", "data"),
        "heard": Output("heard", "data"),
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
        "lanes": Input("lanes", "value"),
    }

    held = {name: State(name, "data") for name in ("seen", "heard")}

    @app.callback(output=outputs, inputs=inputs, state=held)
    async def draw(
        n: int,
        domain: str,
        span: int,
        by: str,
        at: Any,
        theme: str,
        zoom: Any,
        lanes: Any,
        seen: Any,
        heard: int | None,
        **values: Any,
    ) -> dict[str, Any]:
        same = dict.fromkeys(outputs, no_update) | announce_incidents(service, heard)
        feed = monitor.find_feed(domain)
        if feed is None:
            return {**same, **nothing_to_draw(monitor, domain)}
        past = at if at and at["id"] == feed.id else None
        with times_of(feed.stream):
            try:
                settings = previewed_settings(feed.applied, values)
                query = await ready_query(service, domain, settings, span, past)
            except SettingsError as error:  # a window that this detector cannot take
                refused = {"explain": f"{error}.", "status": "cannot run"}
                pulse = heartbeat(monitor, feed, None) | preview_state(feed)
                return {**same, **refused, "pulse": pulse}
            view = (theme, zoom or {}, by, seen, lanes)
            if query.is_slow:
                answer = await asyncio.to_thread(redraw, query, *view)
            else:
                answer = redraw(query, *view)
            answer |= race_update(races, feed, seen, answer["seen"])
            if ctx.triggered_id != "tick" or not n or n % CURVE_EVERY == 0:
                zoomed = answer["seen"]["look"]["zoom"]
                if query.is_slow:
                    answer["curve"] = await asyncio.to_thread(curve_update, query, by, theme)
                    answer["brush"] = await asyncio.to_thread(brush_data, query, zoomed)
                else:
                    answer["curve"] = curve_update(query, by, theme)
                    answer["brush"] = brush_data(query, zoomed)
        return {**same, **answer}


def nothing_to_draw(monitor: Monitor, domain: str) -> dict[str, Any]:
    """Return what is shown where no stream is: overview, list, or a tab that waits for a file."""
    pulse = heartbeat(monitor, None, None)
    if domain in (OVERVIEW, ALL_STREAMS, FLEET):
        return {**overview_cards(monitor), "pulse": pulse}
    said = NO_FILE if domain == YOUR_DATA else f"No stream is called {domain!r} any more."
    return {
        **dict.fromkeys(NUMBERS, "–"),
        "points": "0",
        "anomalies": "0",
        "rate": "–",
        "status": "no file yet" if domain == YOUR_DATA else "no such stream",
        "explain": said,
        "history": empty_state(said),
        "chart": figure.EMPTY_FIGURE,
        "curve": figure.EMPTY_FIGURE,
        "brush": None,
        "covers": "",
        "race": "",
        "lanes": [],
        "no_lanes": True,
        "lanes_said": "",
        "seen": None,
        "pulse": {**pulse, "age": None},
    }


def build_monitor(settings: ServerSettings, store: ResultStore | None) -> Monitor:
    """Return the monitor with the simulated domains, this machine and the file of --csv.

    Each stream starts with its preset.
    """
    streams = {name: preset_stream(kind(seed=settings.seed)) for name, kind in STREAMS.items()}
    streams[THIS_MACHINE] = preset_stream(ThisMachine(), own_clock=True)
    monitor = Monitor(
        streams,
        store=store,
        limits=Limits.from_settings(settings),
        directory=SeriesDirectory.from_settings(settings),
        source_preset=UNKNOWN_PRESET,
    )
    if settings.csv:
        raw = Path(settings.csv).read_bytes()
        show_recording(monitor, read_csv(raw, title=Path(settings.csv).name), raw)
    return monitor


def preset_stream(stream: Stream, own_clock: bool = False) -> MonitoredStream:
    """Return a stream for the monitor that starts with its preset."""
    return MonitoredStream(stream, own_clock, initial_settings(stream))


def new_store(settings: ServerSettings) -> SqlStore:
    """Return the opened store; StoreError = it cannot be opened."""
    return open_database(settings.db, Retention.from_settings(settings))


def open_store(settings: ServerSettings) -> SqlStore | UnavailableStore | None:
    """Return the store; where it cannot be opened, one that accepts nothing and says why.

    None = nothing is to be stored.
    """
    if not settings.db:
        return None
    try:
        return new_store(settings)
    except StoreError as error:
        until = f" until {error.until}" if isinstance(error, TemporaryStoreError) else ""
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
    settings: ServerSettings, options: ServerOptions, store: ResultStore | None
) -> Service:
    """Return the service around the streams, the store and the file of channels."""
    make_monitor = partial(build_monitor, settings)
    service = assemble_service(make_monitor, store, options, settings.alerts or None)
    if settings.demo:
        DemoFeeder(service.monitor, settings.demo, settings.seed).start()
    return service


def serve_until_room(
    settings: ServerSettings, service: Service, sock: socket.socket
) -> SqlStore | None:
    """Serve without a store until it can be opened; return the store, None = Ctrl-C came first."""
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
    streams = len(service.monitor.feeds) + len(service.monitor.series.stored)
    print(f"Redline watches {streams} streams at {address} (Ctrl-C ends it)", flush=True)
    if open_browser:
        threading.Timer(1.0, webbrowser.open, [address]).start()
    if isinstance(store, UnavailableStore) and isinstance(store.reason, TemporaryStoreError):
        opened = serve_until_room(settings, service, sock)
        if opened is None:
            return
        print(f"{opened.name} can be used again; Redline keeps and acknowledges points", flush=True)
        try:
            service = start_service(settings, options, opened)
        except (OSError, ValueError) as error:
            raise SystemExit(str(error)) from None
    serve(build_app(service, settings.interval, settings.seed).server, sock, service)


if __name__ == "__main__":
    third_party.register_available()
    main()
