"""The layout of the page around the chart."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Any

from dash import dcc, html

from redline.engine.monitor import SPEEDS, Monitor
from redline.feedback.labels import EXPECTED_LABEL, MISSED_LABEL
from redline.page.compare import COMPARE_AT, COMPARE_HEADS
from redline.page.incident_list import incident_area, note_dialog
from redline.page.panels import aria_attribute, data_attribute, dropdown
from redline.settings import SETTINGS_BY_NAME
from redline.sources.pushed import ALL_STREAMS, FLEET, OVERVIEW, THIS_MACHINE, YOUR_DATA
from streams import KINDS, STREAMS

TAB_TITLES = {
    OVERVIEW: "Overview",
    **{name: stream.title for name, stream in STREAMS.items()},
    THIS_MACHINE: "This machine",
    YOUR_DATA: "Your data",
}
VIEW_SPANS = {300: "300 steps", 600: "600 steps", 2_000: "2,000 steps", 10_000: "10,000 steps"}
MIN_SPAN = 10  # steps that the brush leaves in sight
WHOLE_SPAN = 1_000_000  # steps, more than any buffer holds
DEFAULT_SPAN = 600  # steps
VIEW_SPANS |= {100_000: "100,000 steps", WHOLE_SPAN: "everything"}
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
MAX_FOUND = 12  # streams that a search lists
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
    "heard",  # the number of the last incident that was announced
    "picked",  # the point or span picked on the plot, with the id of its stream
    "opened",  # streams beyond the tabs that the visitor opened
    "wall",  # what the overview shows
    "streams-rows",  # what the list of all streams shows
    "streams-order",  # the order and page of that list
    "fleet-view",  # which lanes of the fleet are looked at
    "fleet-rows",  # what the fleet shows
    "fleet-cell",  # the cell of it that was clicked
    "fleet-moment",  # where that click leads
    "overview-line",  # what the brush shows
    "read",  # the id of the feed of a file that was read and has no settings yet
)


def hidden_elements(interval: int, seed: int, tabs: Sequence[str]) -> list[Any]:
    """Return the elements that are not shown: timers, stores, the address, the download.

    `interval` is ms between two ticks, `seed` that of the simulated streams, `tabs` their titles.
    """
    spans = [{"label": text, "value": span} for span, text in VIEW_SPANS.items()]
    served = {"seed": seed, "interval": interval, "simulated": list(STREAMS), "spans": spans}
    return [
        dcc.Location(id="url", refresh=False),
        dcc.Interval(id="tick", interval=interval),
        dcc.Interval(id="slow", interval=SLOW_INTERVAL_MS),
        dcc.Store(id="served", data=served),
        dcc.Store(id="look", data="light"),
        *(dcc.Store(id=name) for name in STORES),
        dcc.Store(id="names", data=list(tabs)),  # the titles of the tabs
        dcc.Download(id="download"),
    ]


def header() -> html.Header:
    """Return the header: the age of the data, the cards and the buttons of the page.

    The buttons are drawn as icons by assets/style.css; their words stay for screen readers.
    """
    return html.Header(
        [
            html.H1([html.I(), "Redline"]),
            html.Span("connecting", id="age", className="live"),
            html.Span(id="clock", className="soft wide"),
            card_row(),
            html.Span(className="grow"),
            stream_search(),
            icon_button("pause", "Pause", "freeze this view; data keeps arriving (space)"),
            dropdown("speed", {speed: f"{speed}x" for speed in SPEEDS}, 1),
            icon_button("bell", "Bell off", "sound when an alarm comes"),
            icon_button("theme", "Dark", "light or dark"),
            icon_button("share", "Share", "copy a link to this view"),
            html.Button("?", id="help", title="keys (?)", className="plain wide"),
        ]
    )


def stream_search() -> html.Div:
    """Return the field that finds any stream by a part of its name, with what it found."""
    field = dcc.Input(
        id="search",
        type="search",
        debounce=False,
        placeholder="Stream ( / )",
        autoComplete="off",
    )
    found = html.Div(id="streams-found", role="group", **aria_attribute("label", "Streams found"))
    return html.Div([field, found], className="search")


def icon_button(name: str, words: str, title: str) -> html.Button:
    """Return a button of the header that shows an icon instead of its words."""
    return html.Button(words, id=name, title=title, className="plain icon")


def trouble_bar() -> html.Div:
    """Return the bar that says what went wrong."""
    return html.Div(id="trouble", role="status")


def card_row() -> html.Div:
    """Return the cards: status and counts, which are those of the applied settings."""
    counted = "since the start, each step under the settings applied at the time"
    cards = [
        html.Div(
            [html.Small(name), html.B("–", id=name)],
            className="card",
            title=counted if name in ("anomalies", "rate") else "",
        )
        for name in ("status", "points", "anomalies", "rate")
    ]
    return html.Div(
        [*cards, html.Small("as applied", className="soft while-preview")], className="cards"
    )


def tab_titles(
    monitor: Monitor, alarming: Container[str] = (), opened: Sequence[str] = ()
) -> dict[str, str]:
    """Return the title of each tab, by stream.

    The fixed ones; MAX_PUSHED_TABS streams that programs push, those that are `alarming` first,
    then the newest; those that a visitor `opened` besides; the list of all where there are
    more, and the fleet.
    """
    pushed = [name for name in list(monitor.feeds) if name not in TAB_TITLES]
    first = [name for name in pushed if name in alarming][-MAX_PUSHED_TABS:]
    calm = [name for name in pushed if name not in alarming]
    rest = calm[max(0, len(calm) - MAX_PUSHED_TABS + len(first)) :]
    return {
        **{name: title for name, title in TAB_TITLES.items() if name != YOUR_DATA},
        **{name: name for name in (*first, *rest)},
        **{name: name for name in opened if monitor.knows(name)},
        YOUR_DATA: TAB_TITLES[YOUR_DATA],
        **streams_title(monitor, len(pushed)),
    }


def streams_title(monitor: Monitor, pushed: int) -> dict[str, str]:
    """Return the titles of the list of all streams, where there are more than the tabs show.

    With series there is the fleet too.

    pushed: the streams that programs push, without series.
    """
    series = len(monitor.series.roster)
    if not series and pushed <= MAX_PUSHED_TABS:
        return {}
    title = {ALL_STREAMS: f"Streams {len(monitor.feeds) + series:,}"}
    return {**title, FLEET: "Fleet"} if series else title


def search_streams(monitor: Monitor, text: str) -> list[str]:
    """Return the streams with a text in their name or title, those that begin with it first."""
    part = text.strip().casefold()
    if not part:
        return []
    titles = {name: f"{name}\n{feed.stream.title}" for name, feed in list(monitor.feeds.items())}
    titles |= {name: name for name in monitor.series.names()}
    found = [name for name, words in titles.items() if part in words.casefold()]
    found.sort(key=lambda name: not titles[name].casefold().startswith(part))
    return found


def found_streams(monitor: Monitor, text: str) -> list[Any]:
    """Return the streams that a search found, as buttons that open them."""
    found = search_streams(monitor, text)
    titles = {name: feed.stream.title for name, feed in list(monitor.feeds.items())}
    buttons: list[Any] = [
        html.Button(titles.get(name, name), **data_attribute("domain", name))
        for name in found[:MAX_FOUND]
    ]
    if found[MAX_FOUND:]:
        buttons.append(html.P(f"and {len(found) - MAX_FOUND:,} more", className="quiet"))
    if not found and text.strip():
        buttons = [html.P("No stream has this in its name.", className="quiet")]
    return buttons


def domain_tabs(titles: dict[str, str]) -> dcc.Tabs:
    """Return the tabs of the streams with these titles."""
    return dcc.Tabs(
        tab_row(titles),
        id="domain",
        value="wave",
        className="tabs",
        mobile_breakpoint=0,
    )


def tab_row(titles: dict[str, str], closable: Container[str] = ()) -> list[dcc.Tab]:
    """Return a tab for each stream; those a visitor opened can be closed."""
    return [
        dcc.Tab(
            label=tab_label(name, title, name in closable),
            value=name,
            className=tab_class(name),
            selected_className=f"{tab_class(name)} on",
        )
        for name, title in titles.items()
    ]


def tab_class(name: str) -> str:
    """Return the class of a tab; those that belong to no stream of the server stay in sight."""
    kept = {YOUR_DATA: "yours", ALL_STREAMS: "all", FLEET: "lanes"}
    return f"tab last {kept[name]}" if name in kept else "tab"


def tab_label(name: str, title: str, closable: bool = False) -> html.Span:
    """Return the label of a tab: title, sparkline and number of open incidents."""
    # no button: a tab holds no other control; the Delete key does the same
    cross = html.Span("×", title="close (Delete)", **data_attribute("close", name))
    parts: list[Any] = [html.Span(title)]
    if name not in (OVERVIEW, ALL_STREAMS, FLEET):
        parts += [
            html.Span(className="spark", **data_attribute("spark", name)),
            html.Em(className="open", **data_attribute("open", name)),
        ]
    if closable:
        parts.append(cross)
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
    """Return the row over the chart that moves the view in time and sets its span."""
    moves = {
        "earlier": "‹ earlier",
        "previous": "‹ anomaly",
        "next": "anomaly ›",
        "later": "later ›",
    }
    buttons = [html.Button(text, id=name, className="plain") for name, text in moves.items()]
    return html.Div([*buttons, dropdown("range", VIEW_SPANS, DEFAULT_SPAN)], className="row travel")


def label_buttons() -> html.Span:
    """Return the buttons for the point that was clicked or the span that was zoomed to."""
    buttons = [html.Button(kind, id=f"label-{kind}") for kind in (EXPECTED_LABEL, MISSED_LABEL)]
    mute = "a maintenance window: anomalies are found and drawn, but nothing is alerted"
    buttons.append(html.Button("no alerts here", id="mute", title=mute))
    silence = "of this stream nothing is sent and nothing pops up; anomalies are found and drawn"
    attributes = data_attribute("act", "snooze 1 h")
    buttons.append(html.Button("silence for 1 h", id="silence", title=silence, **attributes))
    return html.Span(
        [
            html.Span(buttons, id="labels", className="row", hidden=True),
            html.Span(id="labelled", role="status", className="soft small"),
        ],
        className="row",
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
            html.Label(label, htmlFor=name),
            control,
            html.Output(id=f"{name}-said"),
        ],
        className="slide",
    )


def lower_panels() -> html.Section:
    """Return the tabs under the chart; all but the list of anomalies are filled when opened."""
    head = html.Thead(html.Tr([html.Th(text) for text in COMPARE_HEADS]))
    compare = html.Table([head, html.Tbody(id="compare")])
    found = preview_note("Found under the applied settings, not under those of the preview.")
    previewed = preview_note("Under the settings of the preview, not those applied.")
    judged = dcc.RadioItems(COMPARE_AT, "shared", id="compare-at", inline=True, className="by")
    panels = [
        ("history", "Anomalies", html.Div([found, html.Div(id="history")])),
        ("incidents", "Incidents", incident_area()),
        ("compared", "Compare", html.Div([previewed, judged, compare], className="scroll")),
        ("table", "Table", html.Div([previewed, html.Table(id="rows")], className="scroll")),
        ("days", "Days", html.Div(id="days")),
        ("settings", "Settings", html.Div(id="settings", className="scroll")),
        ("log", "Log", html.Div(id="log", className="scroll")),
    ]
    shown = [
        dcc.Tab(body, label=title, value=name, className="tab", selected_className="tab on")
        for name, title, body in panels
    ]
    tabs = dcc.Tabs(shown, id="lower", value="history", className="tabs", mobile_breakpoint=0)
    zone = html.P(className="zone soft small")
    return html.Section([html.H2("Lists", className="unseen"), zone, tabs], className="lower")


def preview_note(said: str) -> html.P:
    """Return what a list says of its numbers while other settings are previewed."""
    return html.P(said, className="quiet while-preview")


def first_visit_hint() -> html.Div:
    """Return the bubble of a first visit, which assets/page_hints.js fills and places.

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
        ("/", "find a stream"),
        ("?", "this help"),
    ]
    rows = [part for key, text in keys for part in (html.Dt(html.Kbd(key)), html.Dd(text))]
    hints = html.Button("Show the first steps again", id="hint-again", className="link")
    return html.Div(
        [
            html.Div(id="popups", role="status", **aria_attribute("live", "polite")),
            html.Div(id="spoken", role="status", className="unseen"),
            note_dialog(),
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
