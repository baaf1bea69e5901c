"""A View as plotly dicts, nothing else: lanes of values on top, the truth strip, the score strip
with its threshold.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from redline.page.view import View

COLOURS = {
    "light": {
        "ink": "#1b2430", "soft": "#5b6675", "line": "#e3e7ec", "card": "#ffffff", "series": "#3B6FB6", "band": "rgba(157,183,217,0.28)",  # noqa: E501
        "red": "#D6001C", "shade": "rgba(214,0,28,0.10)", "truth": "#0B7A75", "cold": "rgba(91,102,117,0.45)",  # noqa: E501
    },
    "dark": {
        "ink": "#e8ecf1", "soft": "#94a0b0", "line": "#252c36", "card": "#14181F", "series": "#7FB2F0", "band": "rgba(127,178,240,0.18)",  # noqa: E501
        "red": "#FF5A5F", "shade": "rgba(255,90,95,0.14)", "truth": "#3FC7BD", "cold": "rgba(148,160,176,0.45)",  # noqa: E501
    },
}  # fmt: skip
SYMBOLS = {"info": "circle", "warning": "circle", "critical": "diamond"}
SIZES = {"info": 8, "warning": 9, "critical": 11}
# where on the plot's height each part stands
LANES = (0.27, 1.0)
TRUTH_STRIP = (0.175, 0.205)
SCORE_STRIP = (0.0, 0.15)
TICKS = (
    (1_000, "%H:%M:%S.%1f\n%-d %b"),
    (60_000, "%H:%M:%S\n%-d %b"),
    (86_400_000, "%H:%M\n%-d %b"),
    (2_600_000_000, "%-d %b\n%Y"),
    (None, "%b\n%Y"),
)
GAP = 0.035  # of the height, between two lanes
BAND_REACH = 0.5  # of the values' range that a wide band may add to the axis
# times e that the pull of a value on the axis falls while it goes one sight's length out of sight
FADE = 12
FigureDict = dict[str, Any]
LINE_STYLE = {"type": "scatter", "mode": "lines", "connectgaps": False}
BARE = {"paper_bgcolor": "rgba(0,0,0,0)", "plot_bgcolor": "rgba(0,0,0,0)"}
EMPTY_FIGURE: FigureDict = {
    "data": [],
    "layout": {**BARE, "xaxis": {"visible": False}, "yaxis": {"visible": False}},
}


def build_figure(view: View, theme: str, span: int, revision: str) -> FigureDict:
    """The whole chart; `span` are the steps in sight, the view's last ones; `revision` changes when
    zoom shall be forgotten.
    """
    return {
        "data": line_traces(view, theme, 0) + overlay_traces(view, theme),
        "layout": {**base_layout(theme, revision), **moving_layout(view, theme, span)},
    }


def line_traces(view: View, theme: str, row: int) -> list[dict[str, Any]]:
    """The traces that grow at their end, from a row of the view on: band and values of each
    feature, then the score.
    """
    colours = COLOURS[theme]
    time = time_values(view, row)
    traces = [
        {**trace, "x": time}
        for f in range(len(view.names))
        for trace in (*_band(view, f, colours, row), _values(view, f, colours, row))
    ]
    score = {
        "y": values_with_breaks(view, view.score, row),
        "line": {"width": 1, "color": colours["cold"]},
        "fill": "tozeroy",
        "fillcolor": colours["cold"],
    }
    hover = {"showlegend": False, "hovertemplate": "%{y:.3~g} σ<extra>score</extra>"}
    return [
        *traces,
        {
            **LINE_STYLE,
            "name": "score",
            "x": time,
            "yaxis": _axis(len(view.names) + 1),
            **score,
            **hover,
        },
    ]


def _band(view: View, feature: int, colours: dict[str, str], row: int) -> list[dict[str, Any]]:
    """The lower and the upper edge of the expected range; empty lines where the detector has
    none.
    """
    unit = f" {view.units[feature]}".rstrip()
    edges = []
    for bound, values, fill in (
        ("from", view.low, {}),
        ("to", view.high, {"fill": "tonexty", "fillcolor": colours["band"]}),
    ):
        y = values_with_breaks(
            view, np.full(len(view.time), np.nan) if values is None else values[:, feature], row
        )
        legend = {
            "legendgroup": "expected",
            "showlegend": bound == "to" and feature == 0 and values is not None,
        }
        hover = f"{bound} %{{y:.4~g}}{unit}<extra>expected</extra>"
        edges.append(
            {
                **LINE_STYLE,
                "name": "expected",
                "yaxis": _axis(feature),
                "y": y,
                "line": {"width": 0},
                **legend,
                **fill,
                "hovertemplate": hover,
            }
        )
    return edges


def _values(view: View, feature: int, colours: dict[str, str], row: int) -> dict[str, Any]:
    name = view.names[feature]
    unit = f" {view.units[feature]}".rstrip()
    style = {
        "line": {"width": 1.5, "color": colours["series"]},
        "showlegend": len(view.names) < 4,
        "hovertemplate": f"<b>%{{y:.5~g}}{unit}</b><extra>{name}</extra>",
    }
    return {
        **LINE_STYLE,
        "name": name,
        "yaxis": _axis(feature),
        "y": values_with_breaks(view, view.x[:, feature], row),
        **style,
    }


def overlay_traces(view: View, theme: str) -> list[dict[str, Any]]:
    """The traces that are short and sent whole: the anomalies of each value axis, scores above the
    threshold, the truth.
    """
    colours = COLOURS[theme]
    n = len(view.names)
    marks = [_anomalies(view, f, colours) for f in range(n)]
    hot = np.flatnonzero(view.score > view.threshold)
    bars = {
        "x": _ms(view.time[hot]),
        "y": _rounded(view.score[hot]).tolist(),
        "width": [view.period * 1000] * len(hot),
    }
    style = {
        "marker": {"color": colours["red"], "line": {"width": 1, "color": colours["red"]}},
        "showlegend": False,
        "hoverinfo": "skip",
    }
    over = {"type": "bar", "name": "above threshold", "yaxis": _axis(n + 1), **bars, **style}
    return [*marks, over, _truth(view, colours)]


def _anomalies(view: View, feature: int, colours: dict[str, str]) -> dict[str, Any]:
    marks = [mark for mark in view.marks if mark.feature == feature]
    rows = [mark.row for mark in marks]
    false = [mark.outcome == "false alarm" for mark in marks]
    symbols = [
        SYMBOLS[m.severity] + ("-x-open" if wrong else "-open" if m.severity == "info" else "")
        for m, wrong in zip(marks, false)
    ]
    look = {
        "color": colours["red"],
        "size": [SIZES[m.severity] for m in marks],
        "symbol": symbols,
        "opacity": 1,
    }
    look["line"] = {
        "width": 1.5,
        "color": [colours["card"] if s == "diamond" else colours["red"] for s in symbols],
    }
    text = [f"{m.severity}{', ' + m.outcome if m.outcome else ''}: {m.reason}" for m in marks]
    trace = {
        "type": "scatter",
        "mode": "markers",
        "name": "anomaly",
        "legendgroup": "anomaly",
        "yaxis": _axis(feature),
        "marker": look,
    }
    named = feature == min(
        (mark.feature for mark in view.marks), default=0
    )  # plotly names no trace without a point
    values = {
        "x": _ms(view.time[rows]),
        "y": _rounded(view.x[rows, feature]).tolist(),
        "text": text,
        "showlegend": named,
    }
    return {**trace, **values, "hovertemplate": "%{text}<extra></extra>", "cliponaxis": False}


def _truth(view: View, colours: dict[str, str]) -> dict[str, Any]:
    events = view.truth or []
    pad = view.period * 500  # ms, so that a single step is seen
    starts = _ms(view.time[[max(e.first, 0) for e in events]])
    ends = _ms(view.time[[min(e.last, len(view.time) - 1) for e in events]])
    missed = [event.outcome == "missed" for event in events]
    fill = {
        "color": ["rgba(0,0,0,0)" if m else colours["truth"] for m in missed],
        "line": {"width": 1.5, "color": colours["truth"]},
    }
    hatch = {
        "pattern": {
            "shape": ["" if m else "/" for m in missed],
            "fgcolor": colours["card"],
            "size": 5,
            "solidity": 0.25,
        }
    }
    place = {
        "orientation": "h",
        "base": [a - pad for a in starts],
        "x": [b - a + 2 * pad for a, b in zip(starts, ends)],
        "y": [0] * len(events),
    }
    words = {
        "text": [f"{e.kind}, {e.outcome}" for e in events],
        "textposition": "none",
        "hovertemplate": "%{text}<extra>truth</extra>",
    }
    kind = {
        "type": "bar",
        "name": "truth",
        "yaxis": _axis(len(view.names)),
        "width": [1] * len(events),
        "showlegend": False,
    }
    return {**kind, **place, **words, "marker": {**fill, **hatch}}


def base_layout(theme: str, revision: str) -> dict[str, Any]:
    """The part of the layout that stays as it is while a stream is watched."""
    colours = COLOURS[theme]
    font = {
        "family": 'system-ui, "Segoe UI", Roboto, sans-serif',
        "size": 12,
        "color": colours["soft"],
    }
    place = {"orientation": "h", "x": 0, "y": 1.04, "yanchor": "bottom", "traceorder": "normal"}
    legend = {**place, "font": {"size": 12}, "itemclick": False, "itemdoubleclick": False}
    label = {
        "bgcolor": colours["card"],
        "bordercolor": colours["line"],
        "font": {"color": colours["ink"], "size": 12},
    }
    sides = {"margin": {"l": 58, "r": 14, "t": 36, "b": 40}, **BARE}
    bar = {"bgcolor": "rgba(0,0,0,0)", "color": colours["soft"], "activecolor": colours["ink"]}
    manners = {
        "modebar": bar,
        "hovermode": "x unified",
        "hoverlabel": label,
        "dragmode": "zoom",
        "uirevision": revision,
        "barmode": "overlay",
        "bargap": 0,
    }
    return {
        "font": font,
        "legend": legend,
        "showlegend": True,
        "autosize": True,
        **sides,
        **manners,
    }


def moving_layout(view: View, theme: str, span: int) -> dict[str, Any]:
    """The part of the layout that follows the data: axes, the threshold's line, shaded spans, the
    names of the lanes.
    """
    colours = COLOURS[theme]
    n = len(view.names)
    axis = {"gridcolor": colours["line"], "zeroline": False, "ticks": "", "automargin": False}
    across = {
        "type": "date",
        "range": time_window(view.time[-span:], view.period),
        "anchor": _axis(n + 1),
        "tickformatstops": colour_stops(),
        "hoverformat": "%a %d %b %Y %H:%M:%S.%L UTC",
    }
    parts = {"xaxis": {**axis, **across, "showgrid": False}}
    axis |= {"fixedrange": True, "anchor": "x"}
    for f, (low, high) in enumerate(lane_domains(n)):
        parts[_layout_axis(f)] = {
            **axis,
            "domain": [low, high],
            "range": axis_range(view, f, span),
            "nticks": 6 if n < 3 else 3,
        }
    parts[_layout_axis(n)] = {
        **axis,
        **_strip(TRUTH_STRIP, -0.5, 0.5, "truth" if view.truth is not None else ""),
    }
    parts[_layout_axis(n + 1)] = {
        **axis,
        **_strip(SCORE_STRIP, 0, max(2.2 * view.threshold, 6.0), "score"),
    }
    return {
        **parts,
        "shapes": layout_shapes(view, theme),
        "annotations": layout_annotations(view, theme),
    }


def colour_stops() -> list[dict[str, Any]]:
    """How the times under the plot are written: as short as the ms between two of them allow."""
    edges = [None, *(up for up, _ in TICKS)]
    return [{"dtickrange": [low, high], "value": value} for low, (high, value) in zip(edges, TICKS)]


def _strip(domain: tuple[float, float], low: float, high: float, word: str) -> dict[str, Any]:
    """An axis with one word in its middle instead of numbers."""
    return {
        "domain": list(domain),
        "range": [low, high],
        "showgrid": False,
        "tickvals": [(low + high) / 2],
        "ticktext": [word],
    }


def layout_shapes(view: View, theme: str) -> list[dict[str, Any]]:
    """The threshold's line, and one shaded span for each long anomaly."""
    colours = COLOURS[theme]
    n = len(view.names)
    line = {
        "type": "line",
        "xref": "paper",
        "x0": 0,
        "x1": 1,
        "yref": _axis(n + 1),
        "y0": view.threshold,
        "y1": view.threshold,
    }
    look = {"line": {"color": colours["ink"], "width": 1, "dash": "dash"}, "opacity": 0.6}
    shade = {
        "type": "rect",
        "xref": "x",
        "yref": "paper",
        "y0": LANES[0],
        "y1": 1,
        "fillcolor": colours["shade"],
        "line": {"width": 0},
        "layer": "below",
    }
    times = [(_ms(view.time[[a]])[0], _ms(view.time[[b]])[0]) for a, b in view.spans]
    return [{**line, **look}, *({**shade, "x0": a, "x1": b} for a, b in times)]


def layout_annotations(view: View, theme: str) -> list[dict[str, Any]]:
    """The words on the plot: what each lane shows, and the threshold."""
    colours = COLOURS[theme]
    n = len(view.names)
    text = {"showarrow": False, "font": {"size": 11, "color": colours["soft"]}, "xref": "paper"}
    line = {
        **text,
        "x": 1,
        "xanchor": "right",
        "yref": _axis(n + 1),
        "y": view.threshold,
        "yanchor": "bottom",
        "text": f"threshold {view.threshold:.1f} σ",
    }
    named = [f"{name}, {unit}" if unit else name for name, unit in zip(view.names, view.units)]
    named = [f"{words}, no band" if view.low is None else words for words in named]
    tops = [high for _, high in lane_domains(n)]
    above = {**text, "x": 1, "xanchor": "right", "yref": "paper", "yanchor": "bottom"}
    return [line, *({**above, "y": top, "text": words} for top, words in zip(tops, named))]


def axis_range(view: View, feature: int, span: int) -> list[float]:
    """A value axis' (low, high): it grows at once and gives back slowly when a spike leaves the
    sight, lest the plot jump twice.
    """
    values = view.x[:, feature]
    if not np.isfinite(values[-span:]).any():
        return [0.0, 1.0]
    low = float(np.nanmin(values[-span:]))
    high = float(np.nanmax(values[-span:]))
    beyond = BAND_REACH * (high - low)
    bottom = values
    top = values
    if view.low is not None and view.high is not None:
        bottom = np.fmin(values, np.fmax(view.low[:, feature], low - beyond))
        top = np.fmax(values, np.fmin(view.high[:, feature], high + beyond))
    low = axis_edge(bottom, np.fmin, span)
    high = axis_edge(top, np.fmax, span)
    pad = 0.06 * (high - low) or max(abs(high) * 0.05, 1.0)
    return [low - pad, high + pad]


def axis_edge(edge: np.ndarray, furthest: np.ufunc, span: int) -> float:
    """The furthest of the last `span` values (n,), drawn on by those before them, less and less the
    longer they are out of sight.

    >>> [round(axis_edge(np.array([9.0] + [0.0] * steps), np.fmax, 12), 2) for steps in (11, 12, 13, 24)]
    [9.0, 3.31, 1.22, 0.0]
    """  # noqa: E501
    inside = float(furthest.reduce(edge[-span:]))
    gone = edge[:-span]
    out = np.arange(len(gone), 0, -1)  # steps since it left
    return float(
        furthest.reduce(inside + (gone - inside) * np.exp(-out * FADE / span), initial=inside)
    )


def time_window(time: np.ndarray, period: float) -> list[float]:
    """The x axis' range in ms around some times (n,); a little room on the right, so that the
    newest mark is whole.
    """
    if not len(time):
        return [0.0, 1.0]
    first = float(np.min(time))
    last = float(np.max(time))
    return [first * 1000, (last + max(0.012 * (last - first), period)) * 1000]


def lane_domains(n: int) -> list[tuple[float, float]]:
    """Where each of n value axes stands, top one first.

    >>> [tuple(round(edge, 3) for edge in lane) for lane in lane_domains(2)]
    [(0.653, 1.0), (0.27, 0.618)]
    """
    height = (LANES[1] - LANES[0] - GAP * (n - 1)) / n
    return [
        (LANES[1] - (f + 1) * height - f * GAP, LANES[1] - f * (height + GAP)) for f in range(n)
    ]


def build_curve(
    points: Any, by: str, threshold: float, best: float | None, theme: str
) -> FigureDict:
    """Precision and recall, or the share of flagged steps where no truth is known, against the
    threshold; a dot on the best F1.
    """
    colours = COLOURS[theme]
    x = points.thresholds.tolist()
    shown = [
        (name, getattr(points, f"{by}_{name}"), colour)
        for name, colour in (("precision", "series"), ("recall", "truth"))
    ]
    if points.row_f1 is None:
        shown = [
            ("anomalies", points.anomalies / max(points.anomalies.max(initial=0), 1), "series")
        ]
    data = [_curve_line(x, name, values, colours[colour]) for name, values, colour in shown]
    if best is not None:
        data.append(
            _best(
                best,
                float(
                    getattr(points, f"{by}_f1")[int(np.argmin(np.abs(points.thresholds - best)))]
                ),
                colours,
            )
        )
    line = {
        "type": "line",
        "x0": threshold,
        "x1": threshold,
        "y0": 0,
        "y1": 1,
        "yref": "paper",
        "opacity": 0.6,
    }
    return {
        "data": data,
        "layout": _curve_layout(
            colours, x, [{**line, "line": {"color": colours["ink"], "width": 1, "dash": "dash"}}]
        ),
    }


def _best(threshold: float, f1: float, colours: dict[str, str]) -> dict[str, Any]:
    mark = {"size": 9, "color": colours["card"], "line": {"width": 2, "color": colours["ink"]}}
    place = {
        "type": "scatter",
        "mode": "markers",
        "x": [threshold],
        "y": [round(f1, 3)],
        "name": "best F1",
        "marker": mark,
        "showlegend": False,
    }
    return {**place, "hovertemplate": "best F1 %{y:.2f} at %{x:.1f} σ<extra></extra>"}


def _curve_line(x: list[float], name: str, values: np.ndarray, colour: str) -> dict[str, Any]:
    y = [None if np.isnan(v) else round(float(v), 3) for v in values]
    return {
        "type": "scatter",
        "mode": "lines",
        "x": x,
        "y": y,
        "name": name,
        "line": {"width": 1.6, "color": colour},
        "hovertemplate": f"{name} %{{y:.2f}} at %{{x:.1f}} σ<extra></extra>",
    }


def _curve_layout(
    colours: dict[str, str], x: list[float], lines: list[dict[str, Any]]
) -> dict[str, Any]:
    font = {
        "family": 'system-ui, "Segoe UI", Roboto, sans-serif',
        "size": 11,
        "color": colours["soft"],
    }
    axis = {"showgrid": False, "zeroline": False, "fixedrange": True}
    across = {**axis, "range": [x[0], x[-1]], "ticksuffix": " σ", "nticks": 5}
    up = {**axis, "range": [0, 1.08], "tickvals": [0, 0.5, 1]}
    legend = {
        "orientation": "h",
        "xref": "container",
        "x": 0,
        "yref": "container",
        "y": 1,
        "yanchor": "top",
        "font": {"size": 11},
        "itemclick": False,
    }
    sides = {"margin": {"l": 26, "r": 8, "t": 24, "b": 22}, **BARE}
    return {
        "font": font,
        "xaxis": across,
        "yaxis": up,
        "shapes": lines,
        "legend": legend,
        "hovermode": "closest",
        "dragmode": False,
        **sides,
    }


def time_values(view: View, row: int) -> np.ndarray:
    """The x of the growing traces from a row on, in ms since the epoch; a break in time is one
    stamp of its own.
    """
    time = view.time[row:]
    cut = np.flatnonzero(view.breaks[row:])
    before = view.time[np.maximum(cut + row - 1, 0)]
    return np.round(np.insert(time, cut, (before + time[cut]) / 2) * 1000, 3)


def values_with_breaks(view: View, values: np.ndarray, row: int) -> np.ndarray:
    """Values (n,) from a row on as they are drawn, NaN where the time breaks: a hole in the
    line.
    """
    return _rounded(np.insert(values[row:], np.flatnonzero(view.breaks[row:]), np.nan))


def _ms(time: np.ndarray) -> list[float]:
    return [float(ms) for ms in np.round(np.asarray(time) * 1000, 3)]


def _rounded(values: np.ndarray) -> np.ndarray:
    """Six significant digits of the largest value: what a plot can show, in few bytes. An array is
    written far faster than a list.
    """
    finite = np.abs(values[np.isfinite(values)])
    top = float(finite.max()) if len(finite) else 0.0
    decimals = 5 - int(np.floor(np.log10(top))) if top > 0 else 0
    return np.round(values, min(decimals, 15))


def _axis(lane: int) -> str:
    return "y" if lane == 0 else f"y{lane + 1}"


def _layout_axis(lane: int) -> str:
    return "yaxis" if lane == 0 else f"yaxis{lane + 1}"
