"""The door and the page: `python app.py`, its layout and its callbacks.

The way of the data is straight: stream -> monitor -> detector -> threshold -> page. The monitor's thread is the only writer; every callback here
reads what it keeps, and a tick sends only what is new.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import binascii
import contextlib
import logging
import multiprocessing
import os
import sys
import threading
import time
import webbrowser
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import dash
import uvicorn
from dash import ClientsideFunction, Input, Output, Patch, State, ctx, dcc, html, no_update
from fastapi import Request
from fastapi.responses import JSONResponse
from plotly.io.json import to_json_plotly

from detectors import DETECTORS
from redline import chart, evaluate, learned, panels
from redline.alerts import OPEN, RESOLVED, STATES, Wanted
from redline.api import Options, Service
from redline.auth import AuthError, HostError, Hosts, exposed, gathered
from redline.cells import CsvError
from redline.channels import ChannelError
from redline.monitor import OPEN as UNLIMITED
from redline.monitor import SPEEDS, Feed, Limits, Monitor, failed
from redline.panels import aria, data
from redline.payload import ready
from redline.people import acted_on, heeded, noted, proposed, say, span_said
from redline.service import described, headless, joined, listening
from redline.settings import BY_NAME, DIRECTIONS, TABLE, Settings, SettingsError, checked, exported
from redline.sight import Sight, cards, destination, news, once, picked_threshold, pulse, source, spark, totals
from redline.sources import Columns, Recording, ThisMachine, read_csv
from redline.stamps import STAMPS
from redline.store import Keep, Shut, Store, StoreError
from redline.view import View
from streams import KINDS, STREAMS

MACHINE, YOURS, OVERVIEW = "this-machine", "your-data", "overview"
TITLES = {OVERVIEW: "Overview", **{name: stream.title for name, stream in STREAMS.items()}, MACHINE: "This machine", YOURS: "Your data"}
SPANS = {300: "300 steps", 600: "600 steps", 2_000: "2,000 steps", 10_000: "10,000 steps"}
BOXES = ("time", "stamps", "values", "label")  # in which a visitor corrects how a file was read
PICKS = {"best": "best F1", "one-percent": "about 1 % of steps"}  # ways to pick a threshold
BUTTONS = {"point": "spike"}  # what an inject button reads where it is not the kind's own name
SERVED = ("host", "allow-host", "port")  # where, and under which names, the page is served
STORED = ("db", "retention-days", "retention-rows", "create", "streams")  # settings of what is kept and taken in

PANELS = {"compared": "compare", "table": "rows", **{name: name for name in ("incidents", "days", "settings", "log")}}  # tab -> its element
LIVE = tuple(state for state in STATES if state != RESOLVED)
RECENT = 240  # steps, those of the little line on a tab
SLOW = 2_000  # ms between two renewals of the little lines and of the open lower panel

PATIENCE = 0.12  # seconds a moved slider waits for its track, before the page says "scoring 40 %"
PUSHED = 24  # tabs for streams that programs push
AT_ONCE = 600  # rows of an uploaded file that are there before it plays on


log = logging.getLogger("redline")


# --- what a visitor asks for, answered from what the monitor keeps


def drawn(sight: Sight, look: dict[str, Any], held: dict[str, Any] | None) -> Any:
    """The chart for a browser, whole, or only what it lacks beside what it holds."""
    since = held["end"] if held and grows(held, sight, look) else None
    if held and held["whole"] and held["look"] == look and (held["sheet"], held["end"]) == (sight.sheet, sight.end):
        return no_update
    if not sight.ready:
        return figure(sight, look, since)
    return once(("chart", *map(str, look.values()), sight.sheet, sight.end, since), lambda: written(figure(sight, look, since)))


def grows(held: dict[str, Any], sight: Sight, look: dict[str, Any]) -> bool:
    """Whether the browser holds this very plot but for its newest steps, so that only those need to travel."""
    same = held["look"] == look and held["sheet"] == sight.sheet and sight.at is None and sight.ready
    return bool(same and sight.first <= held["end"] <= sight.end <= held["end"] + sight.span // 2)


def figure(sight: Sight, look: dict[str, Any], since: int | None) -> Any:
    """The whole chart, or a Patch with what came since a step."""
    seen, theme = sight.seen, look["theme"]
    title = f"{look['stream']} {look['revision']}"
    made: Any = chart.figure(seen, theme, sight.span, title) if since is None else growth(seen, theme, sight.span, since)
    if look["zoom"]:
        made["layout"]["xaxis"]["range"] = look["zoom"]  # plotly keeps a zoom only until the page names another range
    return made


def growth(seen: View, theme: str, span: int, since: int) -> Patch:
    """What a browser that holds the steps up to `since` lacks."""
    patch = Patch()
    traces, layout, new = patch["data"], patch["layout"], chart.lines(seen, theme, since - seen.first)
    for i, trace in enumerate(new):
        line = traces[i]
        for way in ("x", "y"):
            line[way].extend(trace[way].tolist())
    for i, trace in enumerate(chart.overlays(seen, theme), len(new)):
        traces[i] = trace
    for name, value in chart.moving(seen, theme, span).items():
        layout[name] = value
    return patch


def written(made: Any) -> Any:
    """A figure as Dash would write it, once for all who get it."""
    return ready(to_json_plotly(made, engine="orjson"))


# --- the layout


def page(monitor: Monitor, interval: int, seed: int) -> html.Div:
    """Everything at its final height from the start, so that nothing jumps."""
    return html.Div(
        [*hidden(interval, seed), header(), bar(), card_row(), tabs(monitor), overview(monitor), watching(), lower(), floating()], id="page"
    )


def hidden(interval: int, seed: int) -> list[Any]:
    stores = ["seen", "at", "pulse", "news", "sparks", "zoom", "goto", "shown", "act", "done", "names"]
    served = {"seed": seed, "interval": interval, "simulated": list(STREAMS)}
    return [
        dcc.Location(id="url", refresh=False),
        dcc.Interval(id="tick", interval=interval),
        dcc.Interval(id="slow", interval=SLOW),
        dcc.Store(id="served", data=served),
        dcc.Store(id="look", data="light"),
        *(dcc.Store(id=name) for name in stores),
        dcc.Download(id="download"),
    ]


def header() -> html.Header:
    return html.Header(
        [
            html.H1([html.I(), "Redline"]),
            html.Span("connecting", id="age", className="live"),
            html.Span(id="clock", className="soft wide"),
            html.Span(className="grow"),
            html.Button("Pause", id="pause", title="freeze this view; data keeps arriving (space)"),
            choice("speed", {speed: f"{speed}x" for speed in SPEEDS}, 1),
            html.Button("Bell off", id="bell", title="sound when an alarm comes"),
            html.Button("Dark", id="theme", title="light or dark"),
            html.Button("Share", id="share", title="copy a link to this view"),
            html.Button("?", id="help", title="keys (?)", className="wide"),
        ]
    )


def bar() -> html.Div:
    return html.Div(id="trouble", role="status")


def card_row() -> html.Div:
    words = {"status": "Status", "points": "Points", "anomalies": "Anomalies", "rate": "Rate"}
    return html.Div([html.Div([html.Small(label), html.B("–", id=name)], className="card") for name, label in words.items()], className="cards")


def titles(monitor: Monitor) -> dict[str, str]:
    """What each tab is called: the fixed ones, and the streams that programs push, as they appear; the newest of very many."""
    pushed = [name for name in list(monitor.feeds) if name not in TITLES][-PUSHED:]
    return {**{name: title for name, title in TITLES.items() if name != YOURS}, **{name: name for name in pushed}, YOURS: TITLES[YOURS]}


def tabs(monitor: Monitor) -> dcc.Tabs:
    return dcc.Tabs(tab_row(titles(monitor)), id="domain", value="wave", className="tabs", mobile_breakpoint=0)


def tab_row(names: dict[str, str]) -> list[dcc.Tab]:
    return [dcc.Tab(label=tab_label(name, title), value=name, className="tab", selected_className="tab on") for name, title in names.items()]


def tab_label(name: str, title: str) -> html.Span:
    little = [] if name == OVERVIEW else [html.Span(className="spark", **data("spark", name)), html.Em(className="open", **data("open", name))]
    return html.Span([html.Span(title), *little], className="tab-label")


def overview(monitor: Monitor) -> html.Div:
    return html.Div(tiles(titles(monitor)), id="overview", className="tiles", hidden=True)


def tiles(names: dict[str, str]) -> list[html.Button]:
    return [
        html.Button(
            [
                html.Div([html.B(title), html.Em(className="open", **data("open", name))]),
                html.Span(className="spark wide-spark", **data("spark", name)),
            ],
            className="tile",
            **data("domain", name),
        )
        for name, title in names.items()
        if name != OVERVIEW
    ]


def watching() -> html.Main:
    plot = dcc.Graph(id="chart", style={"height": "100%"}, figure=chart.EMPTY, config=TOOLS)
    left = [
        html.P("Loading the stream …", id="explain", className="say"),
        yours(),
        html.Div([plot, html.Button("Go live", id="golive", hidden=True)], className="plot", role="img", **aria("describedby", "explain")),
        travel(),
        injecting(),
    ]
    return html.Main([html.Section(left, className="panel stage"), controls()], id="stage")


TOOLS: Any = {
    "displaylogo": False,
    "responsive": True,
    "modeBarButtonsToRemove": ["sendChartToCloud", "lasso2d", "select2d", "zoomIn2d", "zoomOut2d", "autoScale2d"],
}


def yours() -> html.Div:
    """Where a file is dropped, and where what was guessed of it can be corrected."""
    drop = dcc.Upload(
        [html.B("Drop a CSV here"), html.Span(" or click to choose one. Time stamps and columns are recognised; 50 MB at most.")],
        id="upload",
        className="drop",
        max_size=-1,
    )
    pick = [("Time", "col-time", False), ("read as", "col-stamps", False), ("Values", "col-values", True), ("Label", "col-label", False)]
    boxes = [html.Label([name, dcc.Dropdown([], id=element, multi=several, clearable=not several)]) for name, element, several in pick]
    buttons = [
        html.Button("Read it like this", id="col-apply"),
        html.Button("Play from the start", id="replay"),
        html.Button("Show all at once", id="show-all"),
    ]
    guess = html.Div(
        [html.P(id="guess", className="soft"), html.Div([*boxes, html.Div(buttons, className="row")], className="columns")], id="guessed", hidden=True
    )
    return html.Div([drop, html.P(id="upload-said", role="status", className="said"), guess], id="yours", hidden=True)


def travel() -> html.Div:
    spans = choice("range", SPANS, 600)
    steps = [("earlier", "‹ earlier"), ("previous", "‹ anomaly"), ("next", "anomaly ›"), ("later", "later ›")]
    return html.Div(
        [
            *(html.Button(words, id=name) for name, words in steps),
            *labelling(),
            html.Span(className="grow"),
            html.Span("showing", className="soft"),
            spans,
        ],
        className="row travel",
    )


def labelling() -> list[Any]:
    """A person's word on the point that was clicked, or on the span that was zoomed to."""
    words = {"expected": "this is expected", "missed": "this was missed"}
    return [html.Span([html.Button(text, id=f"label-{kind}") for kind, text in words.items()], id="labels", className="row", hidden=True)]


def injecting() -> html.Div:
    buttons = [html.Button(BUTTONS.get(kind, kind), id=f"inject-{kind}") for kind in KINDS if kind != "none"]
    size = dcc.Slider(1, 20, 0.5, value=12, id="size", marks=None, allow_direct_input=False)
    return html.Div(
        [
            html.Span("Inject"),
            *buttons,
            html.Label(["size", html.Div(size, className="size"), html.B(id="size-said")]),
            html.Span(id="injected", role="status"),
        ],
        id="inject",
        className="row",
    )


def controls() -> html.Aside:
    words = {"both": "both sides", "high": "only high", "low": "only low"}
    rows = [("alarms", "alarms"), ("precision", "precision"), ("recall", "recall"), ("caught", "events caught")]
    shown = [
        html.Label(["Detector", choice("detector", {name: name for name in DETECTORS}, BY_NAME["detector"].default)]),
        slider("window", "Window", 5),
        slider("threshold", "Threshold", 0.1),
        html.Label(["Strange when", choice("direction", {name: words[name] for name in DIRECTIONS}, "both")], className="inline"),
        html.Dl([part for name, label in rows for part in (html.Dt(label), html.Dd("–", id=name))], className="delta"),
        dcc.RadioItems({"row": "by step", "event": "by event"}, "row", id="by", inline=True, className="by"),
        dcc.Graph(id="curve", style={"height": "140px"}, figure=chart.EMPTY, config={"displayModeBar": False, "responsive": True}),
        html.Div([html.Button(label, id=name, className="link") for name, label in PICKS.items()], className="row small"),
        html.Div(
            [html.Button(name.title(), id=name, className="solid" if name == "apply" else "") for name in ("apply", "undo", "export")],
            className="acts",
        ),
        html.P(id="acted", role="status", className="soft small"),
        html.Div(
            [html.P(id="proposal"), html.Div([html.Button(w, id=f"proposal-{w}") for w in ("preview", "dismiss")], className="acts")],
            id="proposed",
            hidden=True,
        ),
    ]
    return html.Aside(shown, className="panel")


def choice(name: str, options: dict[Any, str], value: Any) -> dcc.Dropdown:
    """One of a few, without a search box."""
    return dcc.Dropdown([{"label": label, "value": option} for option, label in options.items()], value, id=name, clearable=False, searchable=False)


def slider(name: str, label: str, step: float) -> html.Div:
    row = BY_NAME[name]
    control = dcc.Slider(row.low, row.high, step, value=row.default, id=name, marks=None, allow_direct_input=False, updatemode="drag")
    return html.Div([html.Div([html.Label(label, htmlFor=name), html.Output(id=f"{name}-said")], className="between"), control], className="slide")


def lower() -> html.Div:
    heads = ("detector", "alarms", "precision", "recall", "F1", "delay", "µs/point", "last fault")
    compare = html.Table([html.Thead(html.Tr([html.Th(words) for words in heads])), html.Tbody(id="compare")])
    panels = [
        ("history", "Last anomalies", html.Div(id="history")),
        ("incidents", "Incidents", html.Div(id="incidents")),
        ("compared", "Compare detectors", html.Div(compare, className="scroll")),
        ("table", "Table", html.Div(html.Table(id="rows"), className="scroll")),
        ("days", "Days", html.Div(id="days")),
        ("settings", "Settings", html.Div(id="settings", className="scroll")),
        ("log", "Log", html.Div(id="log", className="scroll")),
    ]
    shown = [dcc.Tab(body, label=title, value=name, className="tab", selected_className="tab on") for name, title, body in panels]
    return html.Div(dcc.Tabs(shown, id="lower", value="history", className="tabs", mobile_breakpoint=0), className="panel lower")


def floating() -> html.Div:
    keys = [("1 … 9", "streams"), ("space", "pause, go on"), ("g", "go live"), ("n p", "next, previous anomaly"), ("?", "this help")]
    rows = [part for key, words in keys for part in (html.Dt(html.Kbd(key)), html.Dd(words))]
    return html.Div([html.Div(id="popups", role="status", **aria("live", "polite")), html.Dialog([html.B("Keys"), html.Dl(rows)], id="keys")])


# --- the callbacks: a few lines each over the functions above


def build(monitor: Monitor, interval: int = BY_NAME["interval"].default, seed: int = 0, service: Service | None = None) -> dash.Dash:
    """The page and the API on one server; the monitor starts and stops with it."""
    alone()
    service = service or Service(monitor)
    server = headless(service)
    where = Path(__file__).parent / "assets"
    app = dash.Dash(
        "redline",
        server=server,  # type: ignore[arg-type]
        assets_folder=str(where),
        title="Redline",
        update_title="",
        on_error=visible,
        index_string=INDEX,
    )
    app.layout = lambda: page(monitor, interval, seed)
    heeded(service)
    for wire in (connect_settings, connect_chart, connect_travel, connect_panels, connect_people, connect_upload):
        wire(app, service)
    connect_actions(app, service, seed)
    connect_browser(app)
    app.setup_startup_routes()
    close_unknown_paths(app)
    return app


INDEX = """<!doctype html>
<html lang="en"><head>{%metas%}<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark">
<title>{%title%}</title>{%favicon%}<link rel="preload" as="script" href="/_dash-component-suites/plotly/package_data/plotly.min.js">
<script>
document.documentElement.dataset.theme = localStorage.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")
</script>
{%css%}</head><body>{%app_entry%}<footer>{%config%}{%scripts%}{%renderer%}</footer></body></html>"""


def visible(error: Exception) -> None:
    """A callback that raised: logged under an id, and said on the page; the other callbacks go on."""
    failure = failed("a callback", error)
    dash.set_props("trouble", {"children": f"Something failed on the server: {error}. The rest goes on; look for {failure.id} in the log."})


def alone() -> None:
    """One process owns the feeds: a second worker would simulate a second world."""
    if multiprocessing.parent_process() is not None or int(os.environ.get("WEB_CONCURRENCY", "1")) > 1:
        raise RuntimeError("Redline keeps its streams in one process: wanted one worker, came several; start it with `python app.py`")


def close_unknown_paths(app: dash.Dash) -> None:
    """An unknown path is a 404 with a problem description, never the page."""

    async def unknown(request: Request) -> JSONResponse:
        problem = {"type": "about:blank", "title": "Not Found", "status": 404, "detail": f"nothing is served at {request.url.path}; the page is at /"}
        return JSONResponse(problem, 404, media_type="application/problem+json")

    app.server.add_api_route("/{path:path}", unknown, methods=["GET"], include_in_schema=False)
    app.backend._setup_catchall = lambda: None  # type: ignore[attr-defined]  # Dash's own answers every path with the page


def chosen(base: Settings, controls: dict[str, Any]) -> Settings:
    """A stream's settings with what a visitor's controls say instead."""
    said = {name: controls[name] for name in PREVIEW}
    return checked(replace(base, **said), tuple(DETECTORS))


PREVIEW = {name: Input(name, "value") for name in ("detector", "window", "threshold", "direction")}
PREVIEW_STATE = {name: State(name, "value") for name in PREVIEW}


def connect_settings(app: dash.Dash, service: Service) -> None:
    monitor = service.monitor
    outputs = {
        "domain": Output("domain", "value"),
        **{name: Output(name, "value") for name in PREVIEW},
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
    picked = {"best": Input("best", "n_clicks"), "percent": Input("one-percent", "n_clicks"), "click": Input("curve", "clickData")}

    @app.callback(output=outputs, inputs={**asked, **picked}, state={**PREVIEW_STATE, "by": State("by", "value"), "shown": State("shown", "data")})
    async def settle(search: str, domain: str, click: Any, by: str, shown: Any, **asked: Any) -> dict[str, Any]:
        """What the controls show: a link's settings, the stream's own, or a threshold picked from the curve."""
        same = {**dict.fromkeys(outputs, no_update), "shown": domain}
        why = ctx.triggered_id
        if shown is None and search:
            return {**same, **linked(monitor, search)}
        feed = monitor.feeds.get(domain)
        if feed is None or (why in (None, "url", "domain") and shown == domain):
            return {**same, "acted": ""}
        now = chosen(feed.applied, asked)
        if why in ("apply", "undo"):
            return {**same, **await asyncio.to_thread(applied, service, feed, now if why == "apply" else None)}
        if why == "proposal-preview":
            found = await asyncio.to_thread(proposed, service, feed)
            return {**same, **(fields_of(found.settings) if found else {})}
        if why in ("best", "one-percent", "curve"):
            picked = picked_threshold(Sight(monitor, domain, now, 1), why, click, by)
            return {**same, "threshold": picked if picked is not None else no_update}
        return {**same, **fields_of(feed.applied), "acted": ""}


def applied(service: Service, feed: Feed, settings: Settings | None) -> dict[str, Any]:
    """Makes settings a stream's own for everybody; None takes the last ones back."""
    if settings is None:
        back = service.monitor.undo(feed.name)
        noted(service, "took settings back", feed.name)
        return {**fields_of(back), "acted": "Back to the settings before."}
    service.monitor.apply(feed.name, settings)
    noted(service, "applied settings", feed.name, **fields_of(settings))
    return {"acted": f"{feed.stream.title} now runs under these settings, for everybody."}


def fields_of(settings: Settings) -> dict[str, Any]:
    return {name: getattr(settings, name) for name in PREVIEW}


def linked(monitor: Monitor, search: str) -> dict[str, Any]:
    """The controls as a link names them; what a link gets wrong is left as it is and said."""
    asked = {key: values[0] for key, values in parse_qs(search.lstrip("?")).items()}
    domain = asked.get("domain", "wave")
    if domain not in titles(monitor):
        return {"acted": f"the link names a stream {domain!r} that is not here"}
    base = monitor.feeds[domain].applied if domain in monitor.feeds else Settings()
    try:
        said = {**fields_of(base), **asked}
        settings = chosen(base, {**said, "window": int(said["window"]), "threshold": float(said["threshold"])})
        span = int(asked.get("range", 600))
    except (ValueError, SettingsError) as error:
        return {"domain": domain, "shown": domain, **fields_of(base), "acted": f"the link could not be followed whole: {error}"}
    return {"domain": domain, "shown": domain, **fields_of(settings), "range": span if span in SPANS else 600}


def connect_chart(app: dash.Dash, service: Service) -> None:
    monitor = service.monitor
    numbers_out = {
        name: Output(name, "children") for name in ("points", "anomalies", "rate", "status", "explain", "alarms", "precision", "recall", "caught")
    }
    outputs = {"chart": Output("chart", "figure"), "curve": Output("curve", "figure"), "history": Output("history", "children")}
    outputs |= {"seen": Output("seen", "data"), "pulse": Output("pulse", "data"), "news": Output("news", "data"), **numbers_out}
    asked = {"n": Input("tick", "n_intervals"), "domain": Input("domain", "value"), **PREVIEW, "span": Input("range", "value")}
    asked |= {"by": Input("by", "value"), "at": Input("at", "data"), "theme": Input("look", "data"), "zoom": Input("zoom", "data")}

    @app.callback(output=outputs, inputs=asked, state={"seen": State("seen", "data")})
    async def draw(domain: str, span: int, at: Any, seen: Any, **asked: Any) -> dict[str, Any]:
        """The redraw: reads what the monitor keeps, sends what the browser lacks."""
        same = dict.fromkeys(outputs, no_update)
        feed = monitor.feeds.get(domain)
        if feed is None:
            there = totals(monitor) if domain == OVERVIEW else {"explain": "Nothing here yet: drop a file.", "status": "no file yet"}
            return {**same, **there, "pulse": pulse(monitor, None, None)}
        try:
            sight = await patient(monitor, domain, chosen(feed.applied, asked), span, at if at and at["id"] == feed.id else None)
        except SettingsError as error:  # a window that this detector cannot take
            return {**same, "explain": f"{error}.", "status": "cannot run", "pulse": pulse(monitor, feed, None)}
        answer = redrawn(sight, asked["theme"], asked["zoom"] or {}, asked["by"], seen)
        answer |= announced(service, feed, seen, answer["seen"])
        if ctx.triggered_id != "tick" or not asked["n"] or asked["n"] % 4 == 0:
            answer["curve"] = curve_figure(sight, asked["by"], asked["theme"])
        return {**same, **answer}


def redrawn(sight: Sight, theme: str, zoom: dict[str, Any], by: str, seen: Any) -> dict[str, Any]:
    """Everything a tick may change, for a browser that holds what `seen` says."""
    feed, settings = sight.feed, sight.settings
    look = {"stream": feed.id, "key": list(settings.key), "threshold": settings.threshold, "span": sight.span, "at": sight.at, "theme": theme}
    look |= {"revision": zoom.get("revision", 0), "zoom": zoom["range"] if zoom.get("stream") == feed.id else None, "era": sight.era}
    number = feed.journal[-1].number if feed.journal else 0
    held = {"look": look, "sheet": sight.sheet, "end": sight.end, "number": number, "whole": sight.ready}
    answer = {"chart": drawn(sight, look, seen), "seen": held, "explain": sight.sentence(), "status": sight.status()}
    fresh = not seen or seen["look"]["stream"] != feed.id
    if fresh or held["number"] != seen["number"]:
        answer["history"] = panels.latest(feed)
    return {**answer, "pulse": pulse(sight.monitor, feed, sight.at), **cards(feed), **panels.numbers(sight, by)}


async def patient(monitor: Monitor, name: str, settings: Settings, span: int, at: dict[str, Any] | None) -> Sight:
    """A sight whose track is ready, if that is a matter of a moment: so a moved slider answers with its own numbers."""
    until = monitor.clock() + PATIENCE
    sight = Sight(monitor, name, settings, span, at["end"] if at else None)
    while not sight.ready and monitor.clock() < until:
        await asyncio.sleep(0.005)
        sight = Sight(monitor, name, settings, span, at["end"] if at else None)
    return sight


def announced(service: Service, feed: Feed, seen: Any, held: dict[str, Any]) -> dict[str, Any]:
    """The incidents that are new to this browser; what it holds remembers the newest of them."""
    found = service.incidents.find(Wanted(feed.name, LIVE, limit=20)).incidents
    before = seen["since"] if seen and seen["look"]["stream"] == feed.id else None
    held["since"] = max((i.start for i in found), default=before or 0.0)
    return {} if before is None else {"news": news(feed.stream.title, found, before)} if held["since"] > before else {}


def curve_figure(sight: Sight, by: str, theme: str) -> Any:
    def make() -> Any:
        points, _ = sight.curve()
        return written(chart.curve(points, by, sight.settings.threshold, evaluate.best_threshold(points, by), theme))

    return once(("curve", *sight.asked, sight.track.end, by, theme), make)


def connect_panels(app: dash.Dash, service: Service) -> None:
    monitor = service.monitor
    rows = {"domain": Output("domain", "children"), "overview": Output("overview", "children"), "names": Output("names", "data")}
    asked = {"n": Input("slow", "n_intervals"), "domain": Input("domain", "value"), "speed": Input("speed", "value")}

    @app.callback(
        output={"sparks": Output("sparks", "data"), "speed": Output("speed", "value"), **rows}, inputs=asked, state={"names": State("names", "data")}
    )
    async def little(n: Any, domain: str, speed: float, names: Any) -> dict[str, Any]:
        """The little lines of the tabs and of the overview, the tabs themselves, and the speed that everybody shares."""
        if "speed.value" in ctx.triggered_prop_ids:  # perhaps together with others
            monitor.speed = float(speed)
        shown = titles(monitor)
        same = {"domain": no_update, "overview": no_update, "names": list(shown)}
        if names and names != list(shown):
            same |= {"domain": tab_row(shown), "overview": tiles(shown)}
        feeds = {name: monitor.feeds[name] for name in shown if name in monitor.feeds}
        lines = {name: spark(feed, domain == OVERVIEW, open_incidents(service, feed)) for name, feed in feeds.items() if feed.end}
        return {**same, "sparks": lines, "speed": no_update if speed == monitor.speed else int(monitor.speed)}

    outputs = {name: Output(element, "children") for name, element in PANELS.items()}
    asked = {"n": Input("slow", "n_intervals"), "panel": Input("lower", "value"), "by": Input("by", "value"), "done": Input("done", "data")}

    @app.callback(output=outputs, inputs={**asked, "domain": Input("domain", "value"), **PREVIEW})
    async def panel(n: Any, panel: str, domain: str, by: str, done: Any, **preview: Any) -> dict[str, Any]:
        """The lower panel that is open."""
        feed, same = monitor.feeds.get(domain), dict.fromkeys(outputs, no_update)
        if feed is None or not feed.end or panel not in outputs:
            return same
        return {**same, panel: await asyncio.to_thread(lower_panel, service, panel, (feed, chosen(feed.applied, preview), by))}


def lower_panel(service: Service, panel: str, about: tuple[Feed, Settings, str]) -> list[Any]:
    """What one lower panel shows of a stream."""
    feed, settings, by = about
    store = service.store
    if panel == "compared":
        return panels.compared(service.monitor, feed, settings, by)
    if panel == "table":
        return panels.tabled(Sight(service.monitor, feed.name, settings, 100))
    if panel == "incidents":
        return panels.incidents(feed, service.incidents.find(Wanted(feed.name)))
    if panel == "days":
        return panels.days(store.daily(feed.name) if store else [])
    if panel == "settings":
        return panels.settings(feed, store.history(feed.name, 20) if store else [])
    return panels.logged(store.audit(200) if store else [])


def open_incidents(service: Service, feed: Feed) -> int:
    """How many incidents of the last steps nobody has taken care of: what the number on a tab says."""
    found = service.incidents.find(Wanted(feed.name, limit=10)).incidents
    return sum(i.state == OPEN or (i.state == RESOLVED and i.last >= feed.end - RECENT and not i.acknowledged) for i in found)


def connect_people(app: dash.Dash, service: Service) -> None:
    """What people say: of incidents, of points, and of settings that were proposed to them."""
    monitor = service.monitor
    states = {"domain": State("domain", "value"), "zoom": State("zoom", "data"), "click": State("chart", "clickData")}
    words = {"expected": Input("label-expected", "n_clicks"), "missed": Input("label-missed", "n_clicks")}

    @app.callback(Output("done", "data"), inputs={"act": Input("act", "data"), **words}, state=states, prevent_initial_call=True)
    async def act(act: Any, domain: str, zoom: Any, click: Any, **_: Any) -> Any:
        if ctx.triggered_id == "act":
            await asyncio.to_thread(acted_on, service, act["incident"], act["act"])
        else:
            kind = str(ctx.triggered_id).removeprefix("label-")
            await asyncio.to_thread(say, service, monitor.feeds[domain], span_said(zoom, click), kind)
        return monitor.clock()  # something new for the panel that is open

    asked = {
        "n": Input("slow", "n_intervals"),
        "domain": Input("domain", "value"),
        "done": Input("done", "data"),
        "no": Input("proposal-dismiss", "n_clicks"),
    }

    @app.callback(Output("proposal", "children"), Output("proposed", "hidden"), inputs=asked)
    async def propose(domain: str, no: Any, **_: Any) -> tuple[Any, bool]:
        if ctx.triggered_id == "proposal-dismiss":
            await asyncio.to_thread(service.labels.dismiss, domain)
        if domain not in monitor.feeds or not service.labels.due(domain):
            return no_update, True
        found = await asyncio.to_thread(proposed, service, monitor.feeds[domain])
        return (f"{found.text}." if found else no_update), found is None


def connect_actions(app: dash.Dash, service: Service, seed: int) -> None:
    monitor = service.monitor
    buttons = {kind: Input(f"inject-{kind}", "n_clicks") for kind in KINDS if kind != "none"}
    states = {"size": State("size", "value"), "domain": State("domain", "value")}

    @app.callback(Output("injected", "children"), inputs=buttons, state=states, prevent_initial_call=True)
    async def inject(size: float, domain: str, **_: Any) -> str:
        kind = str(ctx.triggered_id).removeprefix("inject-")
        monitor.inject(domain, kind, float(size))
        return f"{BUTTONS.get(kind, kind)} injected"

    @app.callback(Output("download", "data"), Input("export", "n_clicks"), State("domain", "value"), PREVIEW_STATE, prevent_initial_call=True)
    async def export(_: Any, domain: str, preview: dict[str, Any]) -> Any:
        feed = monitor.feeds.get(domain)
        if feed is None:
            return no_update
        settings = chosen(feed.applied, preview)
        return {"content": exported(source(feed, domain, settings, seed), settings), "filename": f"redline-{domain}.toml"}


def connect_travel(app: dash.Dash, service: Service) -> None:
    monitor = service.monitor
    moves = {name: Input(name, "n_clicks") for name in ("pause", "golive", "earlier", "later", "previous", "next")}
    moves["goto"] = Input("goto", "data")
    states = {"domain": State("domain", "value"), "span": State("range", "value"), **PREVIEW_STATE}
    states |= {name: State(name, "data") for name in ("at", "seen", "zoom")}

    @app.callback(Output("at", "data"), Output("zoom", "data"), inputs=moves, state=states, prevent_initial_call=True)
    async def travel(at: Any, seen: Any, span: int, domain: str, zoom: Any, goto: Any, **rest: Any) -> tuple[Any, Any]:
        """Looks back, freezes the view, or goes live again."""
        feed = monitor.feeds.get(domain)
        if feed is None or not seen:
            return no_update, no_update
        fresh = {"revision": (zoom or {}).get("revision", 0) + 1}
        settings = chosen(feed.applied, rest)
        sight = Sight(monitor, domain, settings, span, at["end"] if at and at["id"] == feed.id else None)
        end = destination(str(ctx.triggered_id), sight, goto)
        return (None if end is None else {"id": feed.id, "end": end}), fresh


def connect_upload(app: dash.Dash, service: Service) -> None:
    monitor = service.monitor
    said = {"said": Output("upload-said", "children"), "guess": Output("guess", "children"), "hidden": Output("guessed", "hidden")}
    boxes = {f"{box}_{part}": Output(f"col-{box}", part) for box in BOXES for part in ("options", "value")}
    asked = {
        "contents": Input("upload", "contents"),
        "again": Input("col-apply", "n_clicks"),
        "replay": Input("replay", "n_clicks"),
        "whole": Input("show-all", "n_clicks"),
    }
    states = {"name": State("upload", "filename"), **{box: State(f"col-{box}", "value") for box in BOXES}}

    @app.callback(output={**said, **boxes}, inputs={**asked, "domain": Input("domain", "value")}, state=states)
    async def upload(contents: Any, name: Any, **rest: Any) -> dict[str, Any]:
        """Reads a dropped file, or the same one again as the visitor corrected it; a bad one leaves everything as it was."""
        same, why = dict.fromkeys({**said, **boxes}, no_update), ctx.triggered_id
        try:
            if why == "upload" and contents:
                await asyncio.to_thread(received, monitor, contents, name)
            elif why == "col-apply":
                await asyncio.to_thread(reread, monitor, corrected(rest))
            elif why in ("replay", "show-all"):
                await asyncio.to_thread(replayed, monitor, why == "show-all")
        except CsvError as error:
            return {**same, "said": str(error)}
        feed = monitor.feeds.get(YOURS)
        if why in ("upload", "col-apply", "replay", "show-all"):  # another source: its steps are counted anew
            service.changed(await asyncio.to_thread(service.incidents.forget, YOURS, time.time()))
        return {**same, "said": "", **(guessed(feed) if feed else {"hidden": True})}


def received(monitor: Monitor, contents: str, name: str) -> None:
    """A dropped file becomes *Your data*; the newest wins."""
    try:
        raw = base64.b64decode(contents.partition(",")[2], validate=True)
    except binascii.Error as error:
        raise CsvError(f"{name}: the browser sent something that is no file ({error}); drop it again") from error
    show(monitor, read_csv(raw, title=name), raw)


def show(monitor: Monitor, recording: Recording, raw: bytes, steps: int = AT_ONCE) -> None:
    monitor.open(YOURS, recording, about=raw, steps=steps)


def corrected(said: dict[str, Any]) -> Columns:
    """The columns as the boxes say; an empty box is none, or a guess."""
    return Columns(said["time"] or None, tuple(said["values"] or ()), said["label"] or None, stamps=said["stamps"] or "")


def reread(monitor: Monitor, columns: Columns) -> None:
    feed = monitor.feeds[YOURS]
    show(monitor, read_csv(feed.about, columns, title=feed.stream.title), feed.about)


def replayed(monitor: Monitor, whole: bool) -> None:
    """The same file again: from its first row, or all of it at once."""
    feed = monitor.feeds[YOURS]
    recording = read_csv(feed.about, feed.stream.columns, title=feed.stream.title)  # type: ignore[attr-defined]
    show(monitor, recording, feed.about, recording.total if whole else 0)


def guessed(feed: Feed) -> dict[str, Any]:
    """How the file was understood, in words and in boxes that correct it."""
    recording = feed.stream
    assert isinstance(recording, Recording)
    columns, names = recording.columns, list(recording.columns.names)
    counted = ", ".join(f"{what}: {count:,}" for what, count in recording.notes.items())
    words = f"{recording.title}, {recording.total:,} rows. {columns.guess}." + (f" Counted: {counted}." if counted else "")
    values = {
        "time_value": columns.time,
        "values_value": list(columns.features),
        "label_value": columns.label,
        "stamps_value": columns.stamps or None,
    }
    return {"guess": words, "hidden": False, **{f"{box}_options": list(STAMPS) if box == "stamps" else names for box in BOXES}, **values}


def connect_browser(app: dash.Dash) -> None:
    """What only a browser knows lives in assets/page.js; here it is told when to look."""

    def browser(function: str, output: Any, *inputs: Any, later: bool = False) -> None:
        app.clientside_callback(  # type: ignore[no-untyped-call]
            ClientsideFunction("redline", function), output, *inputs, prevent_initial_call=later
        )

    browser("heard", Output("pause", "children"), Input("pulse", "data"))
    browser("sparks", Output("overview", "title"), Input("sparks", "data"))
    browser("tell", Output("popups", "title"), Input("news", "data"))
    shown = [Output("overview", "hidden"), Output("stage", "className"), Output("yours", "hidden"), Output("inject", "hidden")]
    browser("stage", shown, Input("domain", "value"), State("served", "data"))
    moved = [Output("zoom", "data", allow_duplicate=True), Output("at", "data", allow_duplicate=True)]
    browser("zoomed", moved, Input("chart", "relayoutData"), State("zoom", "data"), State("seen", "data"), later=True)
    sliders = ("window", "threshold", "size")
    browser("said", [Output(f"{name}-said", "children") for name in sliders], *[Input(name, "value") for name in sliders])
    told = (("chart", "clickData"), ("zoom", "data"), ("domain", "value"), ("done", "data"))
    browser("labels", Output("labels", "hidden"), *[Input(*each) for each in told])
    address = [Input(name, "value") for name in ("domain", "detector", "window", "threshold", "direction", "range")]
    address.append(Input("at", "data"))
    browser("address", Output("share", "title"), *address, State("served", "data"))


# --- python app.py


def streams(seed: int, csv: str | None, ledger: Store | Shut | None = None, limits: Limits = UNLIMITED) -> Monitor:
    """The monitor with every simulated domain, this machine, and a file if one is given; with a ledger it goes on where it was."""
    feeds: dict[str, Any] = {name: (stream(seed=seed), False) for name, stream in STREAMS.items()}
    monitor = Monitor({**feeds, MACHINE: (ThisMachine(), True)}, ledger=ledger, limits=limits)
    if csv:
        raw = Path(csv).read_bytes()
        show(monitor, read_csv(raw, title=Path(csv).name), raw)
    return monitor


def history(asked: argparse.Namespace) -> Store | Shut:
    """The store; where it cannot be opened the page goes on without one and says why."""
    try:
        return Store(asked.db, Keep(asked.retention_days, asked.retention_rows), described)
    except StoreError as error:
        print(f"{error}. Redline goes on, but keeps nothing and acknowledges nothing.", file=sys.stderr, flush=True)
        return Shut(error)


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    """The command line, read off the table of settings."""
    parser = argparse.ArgumentParser(
        prog="app.py", description=(__doc__ or "").splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    for row in TABLE:
        if row.name in (*SERVED, "csv", "interval", "seed", "alerts", "tokens", "cors", "body-limit", "rate-limit", *STORED):
            kind, said = int if isinstance(row.default, int) else str, f"{row.help}{', ' + row.unit if row.unit else ''}"
            several: Any = {"action": "append"} if isinstance(row.default, tuple) else {"default": row.default}
            parser.add_argument(f"--{row.name}", type=kind, help=said, **several)
    parser.add_argument("--no-browser", action="store_true", help="do not open a browser")
    asked = parser.parse_args(words)
    for row in TABLE:
        value = getattr(asked, row.name.replace("-", "_"), None)
        if isinstance(value, int) and not isinstance(value, bool) and not row.low <= value <= row.high:
            parser.error(f"--{row.name}: wanted {row.low:,.0f} to {row.high:,.0f}, came {value}")
    return asked


def guarded(asked: argparse.Namespace) -> Options:
    """What the API's guard goes by, or an exit with a sentence."""
    try:
        tokens = gathered(asked.tokens, os.environ.get("REDLINE_TOKEN"))
    except (AuthError, OSError) as error:
        raise SystemExit(f"--tokens {asked.tokens}: {error}") from None
    if refused := exposed(asked.host, tokens):
        raise SystemExit(refused)
    try:
        hosts = Hosts.given(asked.host, asked.allow_host or ())
    except HostError as error:
        raise SystemExit(str(error)) from None
    return Options(tokens, tuple((asked.cors or "").split()), asked.body_limit * 2**20, asked.rate_limit, hosts)


def calling(monitor: Monitor, store: Store | Shut, options: Options, alerts: str | None) -> Service:
    """The service with the operator's channels, or an exit with a sentence."""
    try:
        return joined(monitor, store, options, alerts)
    except (ChannelError, OSError) as error:
        raise SystemExit(f"--alerts {alerts}: {error}") from None


def main(words: list[str] | None = None) -> None:
    asked = arguments(words)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s")
    sys.setswitchinterval(0.001)  # seconds: a visitor's answer never waits long for the monitor's thread
    options = guarded(asked)
    try:
        sock = listening(asked.host, asked.port)
    except OSError as error:
        raise SystemExit(str(error)) from None
    store = history(asked)
    try:
        monitor = streams(asked.seed, asked.csv, store, Limits(bool(asked.create), asked.streams))
    except (CsvError, OSError) as error:
        raise SystemExit(f"--csv {asked.csv}: {error}") from None
    service = calling(monitor, store, options, asked.alerts)
    app = build(monitor, asked.interval, asked.seed, service)
    address = f"http://{'localhost' if asked.host in ('127.0.0.1', '0.0.0.0') else asked.host}:{asked.port}"
    print(f"Redline watches {len(monitor.feeds)} streams at {address} (Ctrl-C ends it)", flush=True)
    if not asked.no_browser:
        threading.Timer(1.0, webbrowser.open, [address]).start()
    server = uvicorn.Server(uvicorn.Config(app.server, log_level="warning", timeout_graceful_shutdown=1, access_log=False))
    with contextlib.suppress(KeyboardInterrupt):
        server.run(sockets=[sock])


if __name__ == "__main__":
    learned.listed()
    main()
