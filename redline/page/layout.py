"""The layout of the page around the chart."""

from __future__ import annotations

from typing import Any

from dash import dcc, html

from redline.engine.monitor import SPEEDS, Monitor
from redline.page.compare import COMPARE_AT, COMPARE_HEADS
from redline.page.panels import aria_attribute, data_attribute
from redline.settings import SETTINGS_BY_NAME
from redline.sources.pushed import OVERVIEW, THIS_MACHINE, YOUR_DATA
from streams import KINDS, STREAMS

TAB_TITLES = {
    OVERVIEW: "Overview",
    **{name: stream.title for name, stream in STREAMS.items()},
    THIS_MACHINE: "This machine",
    YOUR_DATA: "Your data",
}
VIEW_SPANS = {300: "300 steps", 600: "600 steps", 2_000: "2,000 steps", 10_000: "10,000 steps"}
# ways to pick a threshold
THRESHOLD_PICKS = {"best": "best F1", "one-percent": "about 1 % of steps"}
FAULT_SIZES = (1.0, 20.0)  # least and largest size of an injected fault, standard deviations
INJECT_NAMES = {"point": "spike"}  # label of an inject button where it is not the kind's name
# lower tab -> the element that shows its content
PANEL_ELEMENTS = {
    "compared": "compare",
    "table": "rows",
    **{name: name for name in ("incidents", "days", "settings", "log")},
}
PANEL_NAMES = ("history", *PANEL_ELEMENTS)  # the lower tabs
SLOW_INTERVAL_MS = 2_000  # between two renewals of the sparklines and of the open lower panel
MAX_PUSHED_TABS = 24  # tabs for streams that programs push

# what the stores of the page hold
STORES = (
    "seen",  # what the browser holds of the chart
    "at",  # {"id": stream, "end": step} the view ends at, null = live
    "pulse",  # the last heartbeat
    "news",  # pop-ups of new incidents
    "sparks",  # the sparklines
    "zoom",  # the time range zoomed to
    "goto",  # the step to show
    "shown",  # the stream whose settings the controls show
    "act",  # the act on an incident that was clicked
    "done",  # changes after each act
    "names",  # the tabs
    "wall",  # what the overview shows
)


def hidden_elements(interval: int, seed: int) -> list[Any]:
    """Return the elements that are not shown: timers, stores, the address, the download.

    `interval` is ms between two ticks, `seed` that of the simulated streams.
    """
    served = {"seed": seed, "interval": interval, "simulated": list(STREAMS)}
    return [
        dcc.Location(id="url", refresh=False),
        dcc.Interval(id="tick", interval=interval),
        dcc.Interval(id="slow", interval=SLOW_INTERVAL_MS),
        dcc.Store(id="served", data=served),
        dcc.Store(id="look", data="light"),
        *(dcc.Store(id=name) for name in STORES),
        dcc.Download(id="download"),
    ]


def header() -> html.Header:
    """Return the header: the age of the data, the clock and the buttons of the page."""
    return html.Header(
        [
            html.H1([html.I(), "Redline"]),
            html.Span("connecting", id="age", className="live"),
            html.Span(id="clock", className="soft wide"),
            html.Span(className="grow"),
            html.Button("Pause", id="pause", title="freeze this view; data keeps arriving (space)"),
            dropdown("speed", {speed: f"{speed}x" for speed in SPEEDS}, 1),
            html.Button("Bell off", id="bell", title="sound when an alarm comes"),
            html.Button("Dark", id="theme", title="light or dark"),
            html.Button("Share", id="share", title="copy a link to this view"),
            html.Button("?", id="help", title="keys (?)", className="wide"),
        ]
    )


def trouble_bar() -> html.Div:
    """Return the bar that says what went wrong."""
    return html.Div(id="trouble", role="status")


def card_row() -> html.Div:
    """Return the cards: status and counts."""
    titles = {"status": "Status", "points": "Points", "anomalies": "Anomalies", "rate": "Rate"}
    return html.Div(
        [
            html.Div([html.Small(title), html.B("–", id=name)], className="card")
            for name, title in titles.items()
        ],
        className="cards",
    )


def tab_titles(monitor: Monitor) -> dict[str, str]:
    """Return the title of each tab, by stream.

    The fixed ones, and the last MAX_PUSHED_TABS streams that programs push, as they appear.
    """
    pushed = [name for name in list(monitor.feeds) if name not in TAB_TITLES][-MAX_PUSHED_TABS:]
    return {
        **{name: title for name, title in TAB_TITLES.items() if name != YOUR_DATA},
        **{name: name for name in pushed},
        YOUR_DATA: TAB_TITLES[YOUR_DATA],
    }


def domain_tabs(monitor: Monitor) -> dcc.Tabs:
    """Return the tabs of the streams."""
    return dcc.Tabs(
        tab_row(tab_titles(monitor)),
        id="domain",
        value="wave",
        className="tabs",
        mobile_breakpoint=0,
    )


def tab_row(titles: dict[str, str]) -> list[dcc.Tab]:
    """Return a tab for each stream."""
    return [
        dcc.Tab(
            label=tab_label(name, title), value=name, className="tab", selected_className="tab on"
        )
        for name, title in titles.items()
    ]


def tab_label(name: str, title: str) -> html.Span:
    """Return the label of a tab: title, sparkline and number of open incidents."""
    parts: list[Any] = [html.Span(title)]
    if name != OVERVIEW:
        parts += [
            html.Span(className="spark", **data_attribute("spark", name)),
            html.Em(className="open", **data_attribute("open", name)),
        ]
    return html.Span(parts, className="tab-label")


PLOT_CONFIG: Any = {
    "displaylogo": False,
    "responsive": True,
    "modeBarButtonsToRemove": [
        "sendChartToCloud",
        "lasso2d",
        "select2d",
        "zoomIn2d",
        "zoomOut2d",
        "autoScale2d",
    ],
}


def navigation_row() -> html.Div:
    """Return the row under the chart that moves the view in time and sets its span."""
    moves = {
        "earlier": "‹ earlier",
        "previous": "‹ anomaly",
        "next": "anomaly ›",
        "later": "later ›",
    }
    return html.Div(
        [
            *(html.Button(text, id=name) for name, text in moves.items()),
            label_buttons(),
            html.Span(className="grow"),
            html.Span("showing", className="soft"),
            dropdown("range", VIEW_SPANS, 600),
        ],
        className="row travel",
    )


def label_buttons() -> html.Span:
    """Return the buttons that label the point that was clicked or the span that was zoomed to."""
    texts = {"expected": "this is expected", "missed": "this was missed"}
    return html.Span(
        [html.Button(text, id=f"label-{kind}") for kind, text in texts.items()],
        id="labels",
        className="row",
        hidden=True,
    )


def inject_row() -> html.Div:
    """Return the row that injects faults; the size is in standard deviations."""
    buttons = [
        html.Button(INJECT_NAMES.get(kind, kind), id=f"inject-{kind}")
        for kind in KINDS
        if kind != "none"
    ]
    size = dcc.Slider(*FAULT_SIZES, 0.5, value=12, id="size", marks=None, allow_direct_input=False)
    return html.Div(
        [
            html.Span("Inject"),
            *buttons,
            html.Label(["size", html.Div(size, className="size"), html.B(id="size-said")]),
            html.Span(id="injected", role="status"),
            html.Span(id="race", className="race"),
        ],
        id="inject",
        className="row",
    )


def dropdown(name: str, options: dict[Any, str], value: Any) -> dcc.Dropdown:
    """Return a dropdown without a search box; `options` are value -> label."""
    return dcc.Dropdown(
        [{"label": label, "value": option} for option, label in options.items()],
        value,
        id=name,
        clearable=False,
        searchable=False,
    )


def labelled_slider(name: str, label: str, step: float) -> html.Div:
    """Return a slider for a setting, with its label and value, over the range of the setting."""
    row = SETTINGS_BY_NAME[name]
    control = dcc.Slider(
        row.low,
        row.high,
        step,
        value=row.default,
        id=name,
        marks=None,
        allow_direct_input=False,
        updatemode="drag",
    )
    return html.Div(
        [
            html.Div(
                [html.Label(label, htmlFor=name), html.Output(id=f"{name}-said")],
                className="between",
            ),
            control,
        ],
        className="slide",
    )


def lower_panels() -> html.Div:
    """Return the tabs under the chart; all but the list of anomalies are filled when opened."""
    head = html.Thead(html.Tr([html.Th(text) for text in COMPARE_HEADS]))
    compare = html.Table([head, html.Tbody(id="compare")])
    judged = dcc.RadioItems(COMPARE_AT, "shared", id="compare-at", inline=True, className="by")
    panels = [
        ("history", "Last anomalies", html.Div(id="history")),
        ("incidents", "Incidents", html.Div(id="incidents")),
        ("compared", "Compare detectors", html.Div([judged, compare], className="scroll")),
        ("table", "Table", html.Div(html.Table(id="rows"), className="scroll")),
        ("days", "Days", html.Div(id="days")),
        ("settings", "Settings", html.Div(id="settings", className="scroll")),
        ("log", "Log", html.Div(id="log", className="scroll")),
    ]
    shown = [
        dcc.Tab(body, label=title, value=name, className="tab", selected_className="tab on")
        for name, title, body in panels
    ]
    return html.Div(
        dcc.Tabs(shown, id="lower", value="history", className="tabs", mobile_breakpoint=0),
        className="panel lower",
    )


def first_visit_hint() -> html.Div:
    """Return the bubble of a first visit, which assets/page.js fills and places.

    It comes first on the page, so that the Tab key reaches it first.
    """
    buttons = [
        html.Small(id="hint-count", className="soft"),
        html.Button("Close", id="hint-close", className="link"),
        html.Button("Next", id="hint-next", className="solid"),
    ]
    return html.Div(
        [
            html.P(id="hint-text", role="status"),
            html.Div(buttons, className="row"),
        ],
        id="hint",
        role="region",
        hidden=True,
        **aria_attribute("label", "first steps"),
    )


def overlays() -> html.Div:
    """Return what lies over the page: the pop-ups and the list of keys."""
    keys = [
        ("1 … 9", "streams"),
        ("space", "pause, go on"),
        ("g", "go live"),
        ("n p", "next, previous anomaly"),
        ("?", "this help"),
    ]
    rows = [part for key, text in keys for part in (html.Dt(html.Kbd(key)), html.Dd(text))]
    hints = html.Button("Show the first steps again", id="hint-again", className="link")
    return html.Div(
        [
            html.Div(id="popups", role="status", **aria_attribute("live", "polite")),
            html.Dialog([html.B("Keys"), html.Dl(rows), hints], id="keys"),
        ]
    )


# runs before the first paint, so that a dark page does not flash white
THEME_SCRIPT = """
const dark = matchMedia("(prefers-color-scheme: dark)").matches;
document.documentElement.dataset.theme = localStorage.theme || (dark ? "dark" : "light");
"""
_HEAD = """<!doctype html>
<html lang="en"><head>{%metas%}<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><title>{%title%}</title>{%favicon%}
<link rel="preload" as="script" href="/_dash-component-suites/plotly/package_data/plotly.min.js">
<script>"""
_BODY = """</script>
{%css%}</head><body>{%app_entry%}<footer>{%config%}{%scripts%}{%renderer%}</footer></body></html>"""
INDEX_HTML = _HEAD + THEME_SCRIPT + _BODY


def proposal_box() -> html.Div:
    """Return where settings are proposed that fit the labels better; hidden until there are any."""
    buttons = [html.Button(word, id=f"proposal-{word}") for word in ("preview", "dismiss")]
    return html.Div(
        [html.P(id="proposal"), html.Div(buttons, className="acts")], id="proposed", hidden=True
    )
