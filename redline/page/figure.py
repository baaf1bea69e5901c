"""The figure of a View, as plotly dicts.

From the top: a lane of values for each feature, the truth strip, the score with its threshold.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from redline.engine.wording import SI_UNITS, VIEWER_ZONE, format_quantity
from redline.evaluation.metrics import ThresholdCurve
from redline.page.view import LEARNING, NO_DATA, Mark, View
from redline.page.zones import time_ticks, zone_name, zone_words

COLOURS = {
    "light": {
        "ink": "#1b2430",  # texts in the foreground, the threshold
        "soft": "#5b6675",  # texts in the background
        "line": "#e3e7ec",  # grid
        "card": "#ffffff",  # background
        "series": "#3B6FB6",
        "band": "rgba(157,183,217,0.28)",
        "red": "#D6001C",  # anomalies
        "shade": "rgba(214,0,28,0.10)",  # long anomalies
        "truth": "#0B7A75",
        "hush": "rgba(91,102,117,0.08)",  # no data, learning
        "cold": "rgba(91,102,117,0.45)",  # scores below the threshold
    },
    "dark": {
        "ink": "#e8ecf1",
        "soft": "#94a0b0",
        "line": "#252c36",
        "card": "#14181F",
        "series": "#7FB2F0",
        "band": "rgba(127,178,240,0.18)",
        "red": "#FF5A5F",
        "shade": "rgba(255,90,95,0.14)",
        "truth": "#3FC7BD",
        "hush": "rgba(148,160,176,0.10)",
        "cold": "rgba(148,160,176,0.45)",
    },
}
SYMBOLS = {"info": "circle", "warning": "circle", "critical": "diamond"}
SIZES = {"info": 8, "warning": 9, "critical": 11}
SMALL = 3  # of a mark that only continues a run: the line itself is red there
POINTS_PER_STEP = 3  # of a growing trace, at most: a step after a break has two more
MAX_LABELLED = 8  # lanes up to which each has its last value at the edge
SCORE_TOP = 9.0  # standard deviations shown in the score strip; what is higher is cut
NO_SCORE = -1.0  # standard deviations, below the axis
FONT_FAMILY = 'system-ui, "Segoe UI", Roboto, sans-serif'
# (bottom, top) of each part, as shares of the plot's height
LANES = (0.27, 1.0)
TRUTH_STRIP = (0.175, 0.205)
SCORE_STRIP = (0.0, 0.15)
# (a tick interval in ms, the format of the times up to it)
GAP = 0.035  # between two lanes, as a share of the height, at most
GAPS = 0.16  # between all lanes together, at most
BAND_REACH = 0.15  # of the values' range that a wide band may add to the axis
# The weight of a value on its axis falls to exp(-FADE) when it left the view one span ago.
FADE = 12
BREAK_INSET = 0.001  # of the length of a break in time, from its ends to the two x inside it
HALF_TIME = 26  # px, half of a time under the plot at most
TEXT_SPACING = 0.09  # least distance of two texts over gaps, of the width of the plot
MARKUP = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
FigureDict = dict[str, Any]
LINE_STYLE = {"type": "scatter", "mode": "lines", "connectgaps": False}
TRANSPARENT = {"paper_bgcolor": "rgba(0,0,0,0)", "plot_bgcolor": "rgba(0,0,0,0)"}
EMPTY_FIGURE: FigureDict = {
    "data": [],
    "layout": {**TRANSPARENT, "xaxis": {"visible": False}, "yaxis": {"visible": False}},
}


def plot_text(text: str) -> str:
    """Return text from outside so that plotly shows it as it is: no markup, link or template.

    >>> plot_text('<a href="x">%{y}</a> & 5 %')
    '&lt;a href="x"&gt;&#37;{y}&lt;/a&gt; &amp; 5 %'
    """
    return " ".join(text.translate(MARKUP).replace("%{", "&#37;{").split())


def build_figure(view: View, theme: str, span: int, revision: str) -> FigureDict:
    """Return the whole chart.

    Args:
        view: what to draw.
        theme: "light" or "dark".
        span: the number of visible steps, the last ones of the view.
        revision: plotly forgets the zoom when it changes.
    """
    span = visible_rows(view, span)
    return {
        "data": line_traces(view, theme, 0) + overlay_traces(view, theme, span),
        "layout": {
            **base_layout(theme, revision),
            "meta": hover_words(view),
            **moving_layout(view, theme, span),
        },
    }


def visible_rows(view: View, span: int) -> int:
    """Return how many of the last rows of a view show its last `span` steps."""
    if view.steps is None:
        return span
    return max(len(view.steps) - int(np.searchsorted(view.steps, view.end - span)), 1)


def line_traces(view: View, theme: str, row: int) -> list[dict[str, Any]]:
    """Return the traces that grow at their end, from a row of the view on.

    They are the band and the values of each feature, then the score.
    """
    colours = COLOURS[theme]
    time = time_values(view, row)
    traces = []
    for feature in range(len(view.names)):
        traces += _band_traces(view, feature, colours, row)
        traces.append(_value_trace(view, feature, colours, row))
    traces.append(_score_trace(view, colours, row))
    return [{**trace, "x": time} for trace in traces]


def _band_traces(
    view: View, feature: int, colours: dict[str, str], row: int
) -> list[dict[str, Any]]:
    """Return the lower and the upper edge of the expected range; NaN before the first opinion.

    Plotly would fill a band with holes across them. Where no range is known later, both edges lie
    on the middle of the last one: a band without height.
    """
    if view.low is None or view.high is None:
        low = high = middle = np.full(len(view.time), np.nan)
    else:
        low = view.low[:, feature]
        high = view.high[:, feature]
        middle = carried((low + high) / 2)
    edges = []
    for edge, fill in ((low, {}), (high, {"fill": "tonexty", "fillcolor": colours["band"]})):
        y = values_with_breaks(view, np.where(np.isnan(edge), middle, edge), row, middle)
        edges.append(
            {
                **LINE_STYLE,
                "name": "expected",
                "yaxis": _axis(feature),
                "y": y,
                "line": {"width": 0},
                "legendgroup": "expected",
                "showlegend": bool(fill) and feature == 0 and view.high is not None,
                **fill,
                "hoverinfo": "skip",
            }
        )
    return edges


def _value_trace(view: View, feature: int, colours: dict[str, str], row: int) -> dict[str, Any]:
    return {
        **LINE_STYLE,
        "name": plot_text(view.names[feature]),
        "yaxis": _axis(feature),
        "y": values_with_breaks(view, view.x[:, feature], row),
        "line": {"width": 1.5, "color": colours["series"]},
        "showlegend": len(view.names) < 4,
        "hoverinfo": "none",
    }


def _score_trace(view: View, colours: dict[str, str], row: int) -> dict[str, Any]:
    """Return the score; NO_SCORE where there is none, since Plotly would fill across a hole."""
    known = np.isfinite(carried(view.score))
    none = np.where(known, NO_SCORE, np.nan)
    return {
        **LINE_STYLE,
        "name": "score",
        "yaxis": _axis(len(view.names) + 1),
        "y": values_with_breaks(view, np.where(np.isnan(view.score), none, view.score), row, none),
        "line": {"width": 1, "color": colours["cold"]},
        "fill": "tozeroy",
        "fillcolor": colours["cold"],
        "showlegend": False,
        "hoverinfo": "none",
    }


def overlay_traces(view: View, theme: str, span: int) -> list[dict[str, Any]]:
    """Return the traces that are short and sent whole each time.

    They are the gaps, the anomalous stretches, the marks of the applied settings alone and the
    anomalies of each feature, the scores above the threshold, the truth, and the legend.
    """
    colours = COLOURS[theme]
    lanes = range(len(view.names))
    gaps = [_gap_trace(view, feature, colours, span) for feature in lanes]
    stretches = [_stretch_trace(view, feature, colours) for feature in lanes]
    faint = [_faint_trace(view, feature, colours) for feature in lanes]
    anomalies = [_anomaly_trace(view, feature, colours) for feature in lanes]
    last = [_above_threshold_trace(view, colours), _truth_trace(view, colours)]
    legend = [_legend_trace(view, severity, colours, span) for severity in SYMBOLS]
    return [*gaps, *stretches, *faint, *anomalies, *last, *legend]


def _faint_trace(view: View, feature: int, colours: dict[str, str]) -> dict[str, Any]:
    """Return the marks that only the applied settings have, behind those of a preview."""
    rows = [row for row, each in view.faint if each == feature]
    first = min((each for _, each in view.faint), default=-1)
    return {
        "type": "scatter",
        "mode": "markers",
        "name": "only under the applied settings",
        "legendgroup": "faint",
        "yaxis": _axis(feature),
        "x": _milliseconds(view.time[rows]),
        "y": _rounded(view.x[rows, feature]).tolist(),
        "marker": {
            "symbol": "circle",
            "size": 9,
            "color": "rgba(0,0,0,0)",
            "line": {"width": 1.2, "color": colours["soft"], "dash": "dot"},
        },
        "showlegend": feature == first,
        "hoverinfo": "skip",
    }


def _gap_trace(view: View, feature: int, colours: dict[str, str], span: int) -> dict[str, Any]:
    """Return the hatched spans in which a feature has no value."""
    gaps = [gap for gap in view.gaps if gap.text == NO_DATA and gap.feature in (None, feature)]
    x: list[float | None] = []
    y: list[float | None] = []
    low, high = axis_range(view, feature, span) if gaps else (0.0, 0.0)
    for gap in gaps:
        first, last = _milliseconds(np.array([gap.first, gap.last]))
        x += [first, first, last, last, None]
        y += [low, high, high, low, None]
    return {
        "type": "scatter",
        "mode": "none",
        "name": NO_DATA,
        "yaxis": _axis(feature),
        "x": x,
        "y": y,
        "fill": "toself",
        "fillpattern": {
            "shape": "/",
            "size": 6,
            "solidity": 0.15,
            "fgcolor": colours["soft"],
            "bgcolor": colours["hush"],
        },
        "showlegend": False,
        "hoverinfo": "skip",
    }


def _stretch_trace(view: View, feature: int, colours: dict[str, str]) -> dict[str, Any]:
    """Return the anomalous stretches of a line, of two steps and more; one step alone is a dot."""
    red = np.zeros(len(view.time), bool) if view.red is None else view.red[:, feature]
    beside = np.concatenate([[False], red[:-1]]) | np.concatenate([red[1:], [False]])
    rows = np.flatnonzero(red & beside)
    holes = np.flatnonzero(np.diff(rows) > 1) + 1
    return {
        **LINE_STYLE,
        "name": "anomalous",
        "yaxis": _axis(feature),
        "x": np.insert(np.round(view.time[rows] * 1000, 3), holes, np.nan).tolist(),
        "y": np.insert(_rounded(view.x[rows, feature]), holes, np.nan).tolist(),
        "line": {"width": 2, "color": colours["red"]},
        "showlegend": False,
        "hoverinfo": "skip",
    }


def _above_threshold_trace(view: View, colours: dict[str, str]) -> dict[str, Any]:
    above = np.flatnonzero(view.score > view.threshold)
    return {
        "type": "bar",
        "name": "above threshold",
        "yaxis": _axis(len(view.names) + 1),
        "x": _milliseconds(view.time[above]),
        "y": _rounded(view.score[above]).tolist(),
        "width": [view.period * 1000] * len(above),
        "marker": {"color": colours["red"], "line": {"width": 1, "color": colours["red"]}},
        "showlegend": False,
        "hoverinfo": "skip",
    }


def _anomaly_trace(view: View, feature: int, colours: dict[str, str]) -> dict[str, Any]:
    """Return the marks of a feature; their shape tells severity and false alarms."""
    marks = [mark for mark in view.marks if mark.feature == feature]
    rows = [mark.row for mark in marks]
    symbols = [_symbol(mark) if mark.leads else "circle" for mark in marks]
    edges = [colours["card"] if symbol == "diamond" else colours["red"] for symbol in symbols]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": "anomaly",
        "legendgroup": "anomaly",
        "yaxis": _axis(feature),
        "marker": {
            "color": colours["red"],
            "size": [SIZES[mark.severity] if mark.leads else SMALL for mark in marks],
            "symbol": symbols,
            "opacity": 1,
            "line": {"width": 1.5, "color": edges},
        },
        "x": _milliseconds(view.time[rows]),
        "y": _rounded(view.x[rows, feature]).tolist(),
        "text": [_mark_text(mark) for mark in marks],
        "showlegend": False,  # the legend would show the shape of its first mark alone
        "hoverinfo": "none",
        "cliponaxis": False,
    }


def _legend_trace(view: View, severity: str, colours: dict[str, str], span: int) -> dict[str, Any]:
    """Return the entry of the legend for the marks of a severity, where there are any in sight.

    It draws nothing: it has the shape of these marks, those of several severities in one plot.
    """
    first = len(view.time) - span
    marks = [mark for mark in view.marks if mark.leads and mark.row >= first]
    symbol = f"{SYMBOLS[severity]}-open" if severity == "info" else SYMBOLS[severity]
    edge = colours["card"] if symbol == "diamond" else colours["red"]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": f"anomaly, {severity}",
        "legendgroup": "anomaly",
        "yaxis": _axis(0),
        "x": [None],
        "y": [None],
        "marker": {
            "color": colours["red"],
            "size": SIZES[severity],
            "symbol": symbol,
            "line": {"width": 1.5, "color": edge},
        },
        "showlegend": any(mark.severity == severity for mark in marks),
        "hoverinfo": "skip",
    }


def _symbol(mark: Mark) -> str:
    symbol = SYMBOLS[mark.severity]
    if mark.outcome == "false alarm":
        return f"{symbol}-x-open"
    return f"{symbol}-open" if mark.severity == "info" else symbol


def _mark_text(mark: Mark) -> str:
    outcome = f", {mark.outcome}" if mark.outcome else ""
    return plot_text(f"{mark.severity}{outcome}: {mark.reason}")


def _truth_trace(view: View, colours: dict[str, str]) -> dict[str, Any]:
    """Return the events as bars: a caught one filled, one without an alarm hatched (seen, or still
    open), a missed one as an outline.
    """
    events = view.truth or []
    pad = view.period * 500  # ms on each side, so that a single step is visible
    starts = _milliseconds(view.time[[max(event.first, 0) for event in events]])
    ends = _milliseconds(view.time[[min(event.last, len(view.time) - 1) for event in events]])
    missed = [event.outcome == "missed" for event in events]
    caught = [event.outcome == "caught" for event in events]
    return {
        "type": "bar",
        "name": "truth",
        "yaxis": _axis(len(view.names)),
        "width": [1] * len(events),
        "showlegend": False,
        "orientation": "h",
        "base": [start - pad for start in starts],
        "x": [end - start + 2 * pad for start, end in zip(starts, ends)],
        "y": [0] * len(events),
        "text": [f"{event.kind}, {event.outcome}" for event in events],
        "textposition": "none",
        "hoverinfo": "none",
        "marker": {
            "color": ["rgba(0,0,0,0)" if m else colours["truth"] for m in missed],
            "line": {"width": 1.5, "color": colours["truth"]},
            "pattern": {
                "shape": ["" if m or c else "/" for m, c in zip(missed, caught)],
                "fgcolor": colours["card"],
                "size": 5,
                "solidity": 0.5,
            },
        },
    }


def hover_words(view: View) -> dict[str, Any]:
    """Return the words that assets/page_plot.js writes beside the pointer, as they are: no HTML."""
    lanes = [
        {"name": name, "unit": unit, "si": unit in SI_UNITS}
        for name, unit in zip(view.names, view.units)
    ]
    strip = _layout_axis(len(view.names) + 1)
    zone = zone_name(VIEWER_ZONE.get())
    about = {"clock": view.clock, "period": view.period, "zone": zone}
    return {"lanes": lanes, **about, "strip": strip, "threshold": view.threshold}


def base_layout(theme: str, revision: str) -> dict[str, Any]:
    """Return the part of the layout that stays the same while a stream is shown."""
    colours = COLOURS[theme]
    return {
        "font": {"family": FONT_FAMILY, "size": 12, "color": colours["soft"]},
        "showlegend": True,
        "legend": {
            "orientation": "h",
            "x": 0,
            "y": 1.04,
            "yanchor": "bottom",
            "traceorder": "normal",
            "font": {"size": 12},
            "itemclick": False,
            "itemdoubleclick": False,
        },
        "autosize": True,
        "margin": {"l": 58, "r": 84, "t": 36, "b": 40},  # right: last values, threshold's handle
        **TRANSPARENT,
        "modebar": {
            "bgcolor": "rgba(0,0,0,0)",
            "color": colours["soft"],
            "activecolor": colours["ink"],
        },
        "hovermode": "x",  # assets/page_plot.js writes what is under the pointer
        "hoverlabel": {
            "bgcolor": colours["card"],
            "bordercolor": colours["line"],
            "font": {"color": colours["ink"], "size": 12},
        },
        "dragmode": "zoom",
        "uirevision": revision,
        "barmode": "overlay",
        "bargap": 0,
    }


def moving_layout(view: View, theme: str, span: int) -> dict[str, Any]:
    """Return the part of the layout that follows the data: axes, shapes and annotations."""
    return {
        **_axes(view, theme, span),
        "shapes": layout_shapes(view, theme),
        "annotations": layout_annotations(view, theme, span),
    }


def _axes(view: View, theme: str, span: int) -> dict[str, Any]:
    """Return the time axis, and the y axes of the features, of the truth and of the score."""
    n = len(view.names)
    common = {
        "gridcolor": COLOURS[theme]["line"],
        "zeroline": False,
        "ticks": "",
        "automargin": False,
    }
    upright = {**common, "fixedrange": True, "anchor": "x"}
    window = time_window(view.time[-span:], view.period)
    axes: dict[str, Any] = {
        "xaxis": {
            **common,
            # no date: plotly would move the times by the zone of the browser
            "type": "linear",
            "range": window,
            "anchor": _axis(n + 1),
            "tickangle": 0,
            **time_ticks(window[0] / 1_000, window[1] / 1_000),
            "showgrid": False,
            "showspikes": True,
            "spikemode": "across",
            "spikesnap": "hovered data",
            "spikethickness": 1,
            "spikedash": "solid",
            "spikecolor": COLOURS[theme]["soft"],
        }
    }
    for feature, (low, high) in enumerate(lane_domains(n)):
        axes[_layout_axis(feature)] = {
            **upright,
            "domain": [low, high],
            "range": axis_range(view, feature, span),
            "nticks": 6 if n < 3 else 3,
            "exponentformat": "SI",
            "ticksuffix": unit if (unit := view.units[feature]) in SI_UNITS else "",
        }
    truth = "truth" if view.truth is not None else ""
    axes[_layout_axis(n)] = {**upright, **_strip_axis(TRUTH_STRIP, -0.5, 0.5, truth)}
    # not following the threshold, which is dragged there
    top = max(SCORE_TOP, 1.15 * view.threshold)
    score = _strip_axis(SCORE_STRIP, 0, top, "score")
    ends = {"tickvals": [0, top / 2, top], "ticktext": ["0", "score", f"{top:.0f}+"]}
    axes[_layout_axis(n + 1)] = {**upright, **score, **ends}
    return axes


def _strip_axis(domain: tuple[float, float], low: float, high: float, word: str) -> dict[str, Any]:
    """Return an axis with one word in its middle instead of numbers."""
    return {
        "domain": list(domain),
        "range": [low, high],
        "showgrid": False,
        "tickvals": [(low + high) / 2],
        "ticktext": [word],
    }


def layout_shapes(view: View, theme: str) -> list[dict[str, Any]]:
    """Return the line of the threshold, and the shaded spans: anomalies, learning, maintenance."""
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
        "line": {"color": colours["ink"], "width": 1, "dash": "dash"},
        "opacity": 0.6,
    }
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
    times = [_milliseconds(view.time[list(rows)]) for rows in view.spans]
    learning = [gap for gap in view.gaps if gap.text == LEARNING]
    grey_spans = [*learning, *view.maintenance]
    grey = {**shade, "fillcolor": colours["hush"]}
    return [
        line,
        *({**shade, "x0": start, "x1": end} for start, end in times),
        *({**grey, "x0": gap.first * 1000, "x1": gap.last * 1000} for gap in grey_spans),
    ]


def layout_annotations(view: View, theme: str, span: int) -> list[dict[str, Any]]:
    """Return the texts on the plot: names of lanes, last values, gaps and the kind of time."""
    colours = COLOURS[theme]
    n = len(view.names)
    text = {"showarrow": False, "font": {"size": 11, "color": colours["soft"]}, "xref": "paper"}
    names = [f"{name}, {unit}" if unit else name for name, unit in zip(view.names, view.units)]
    if view.low is None:
        names = [f"{name}, no band" for name in names]
    names = list(map(plot_text, names))
    tops = [high for _, high in lane_domains(n)]
    above = {**text, "x": 1, "xanchor": "right", "yref": "paper", "yanchor": "bottom"}
    over_lanes = [{**above, "y": top, "text": name} for top, name in zip(tops, names)]
    # right of the times under the plot, beyond the half of one at the edge: "simulated" or "UTC"
    beside = {**text, "x": 1, "xanchor": "left", "yref": "paper", "y": 0, "yanchor": "top"}
    clock = {**beside, "xshift": HALF_TIME, "yshift": -4, "text": clock_word(view)}
    last = _last_values(view, colours) if n <= MAX_LABELLED else []
    return [*over_lanes, clock, *last, *_gap_texts(view, text, span)]


def clock_word(view: View) -> str:
    """Return what the times under the plot are: "simulated", or the short name of their zone."""
    word = view.clock.split()[0]
    return zone_words(float(view.time[-1])) if word == "UTC" and len(view.time) else word


def _last_values(view: View, colours: dict[str, str]) -> list[dict[str, Any]]:
    """Return the last value of each lane at the right edge, red where it is anomalous."""
    labels = []
    for feature, unit in enumerate(view.units if len(view.time) else ()):
        value = float(view.x[-1, feature])
        red = view.red is not None and bool(view.red[-1, feature])
        if np.isfinite(value):
            labels.append(
                {
                    "xref": "paper",
                    "x": 1,
                    "xanchor": "left",
                    "xshift": 4,
                    "yref": _axis(feature),
                    "y": value,
                    "showarrow": False,
                    "text": f"<b>{plot_text(format_quantity(value, unit))}</b>",
                    "font": {"size": 13, "color": colours["red" if red else "ink"]},
                }
            )
    return labels


def _gap_texts(view: View, style: dict[str, Any], span: int) -> list[dict[str, Any]]:
    """Return a text at the top of each gap in sight, as far as they do not lie on each other."""
    if not len(view.time):
        return []
    oldest, newest = float(view.time[-span:][0]), float(view.time[-1])
    tops = [high for _, high in lane_domains(len(view.names))]
    least = TEXT_SPACING * (newest - oldest)
    texts = []
    for lane, top in enumerate(tops):
        last = -np.inf
        for gap in sorted((*view.gaps, *view.maintenance), key=lambda gap: gap.first):
            middle = (max(gap.first, oldest) + min(gap.last, newest)) / 2
            of_lane = gap.feature == lane or (gap.feature is None and lane == 0)
            if of_lane and gap.last > oldest and middle - last >= least:
                last = middle
                place = {"xref": "x", "x": middle * 1000, "yref": "paper", "y": top}
                texts.append({**style, **place, "yanchor": "top", "text": plot_text(gap.text)})
    return texts


def axis_range(view: View, feature: int, span: int) -> list[float]:
    """Return (low, high) of a value axis over the last `span` steps.

    It grows at once, and shrinks slowly after a spike leaves the view, so that the plot does not
    jump twice.
    """
    values = view.x[:, feature]
    visible = values[-span:]
    if not np.isfinite(visible).any():
        return [0.0, 1.0]
    low = float(np.nanmin(visible))
    high = float(np.nanmax(visible))
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
    """Return the furthest of the last `span` values (n,), extended by those before them.

    A value counts less the longer ago it left the view.

    >>> spikes = [np.array([9.0] + [0.0] * steps) for steps in (11, 12, 13, 24)]
    >>> [round(axis_edge(spike, np.fmax, 12), 2) for spike in spikes]
    [9.0, 3.31, 1.22, 0.0]
    """
    inside = float(furthest.reduce(edge[-span:]))
    past = edge[:-span]
    steps = np.arange(len(past), 0, -1)  # since each one left the view
    faded = inside + (past - inside) * np.exp(-steps * FADE / span)
    return float(furthest.reduce(faded, initial=inside))


def time_window(time: np.ndarray, period: float) -> list[float]:
    """Return the x axis' range in ms for times (n,), with a margin to show the last mark whole."""
    if not len(time):
        return [0.0, 1.0]
    first = float(np.min(time))
    last = float(np.max(time))
    return [first * 1000, (last + max(0.012 * (last - first), period)) * 1000]


def lane_domains(n: int) -> list[tuple[float, float]]:
    """Return (bottom, top) of each of n value axes, as shares of the height, top one first.

    >>> [tuple(round(edge, 3) for edge in lane) for lane in lane_domains(2)]
    [(0.653, 1.0), (0.27, 0.618)]
    """
    gap = min(GAP, GAPS / max(n - 1, 1))
    height = (LANES[1] - LANES[0] - gap * (n - 1)) / n
    return [
        (LANES[1] - (lane + 1) * height - lane * gap, LANES[1] - lane * (height + gap))
        for lane in range(n)
    ]


def build_curve(
    points: ThresholdCurve, by: str, threshold: float, best: float | None, theme: str
) -> FigureDict:
    """Return the figure of precision and recall over the threshold, with a dot on the best F1.

    Where the truth is unknown it shows the number of anomalies, as a share of the most.

    Args:
        points: the metrics at each threshold.
        by: "event" or "row", which precision, recall and F1.
        threshold: the present one, standard deviations.
        best: the one with the best F1; None = unknown.
        theme: "light" or "dark".
    """
    colours = COLOURS[theme]
    x = points.thresholds.tolist()
    if points.row_f1 is None:
        share = points.anomalies / max(points.anomalies.max(initial=0), 1)
        data = [_curve_line(x, "anomalies", share, colours["series"])]
    else:
        data = [
            _curve_line(x, name, getattr(points, f"{by}_{name}"), colours[colour])
            for name, colour in (("precision", "series"), ("recall", "truth"))
        ]
    if best is not None:
        nearest = int(np.argmin(np.abs(points.thresholds - best)))
        data.append(_best_f1_trace(best, float(getattr(points, f"{by}_f1")[nearest]), colours))
    line = {
        "type": "line",
        "x0": threshold,
        "x1": threshold,
        "y0": 0,
        "y1": 1,
        "yref": "paper",
        "opacity": 0.6,
        "line": {"color": colours["ink"], "width": 1, "dash": "dash"},
    }
    return {"data": data, "layout": _curve_layout(colours, x, [line])}


def _best_f1_trace(threshold: float, f1: float, colours: dict[str, str]) -> dict[str, Any]:
    edge = {"width": 2, "color": colours["ink"]}
    return {
        "type": "scatter",
        "mode": "markers",
        "x": [threshold],
        "y": [round(f1, 3)],
        "name": "best F1",
        "marker": {"size": 9, "color": colours["card"], "line": edge},
        "showlegend": False,
        "hovertemplate": "best F1 %{y:.2f} at %{x:.1f} σ<extra></extra>",
    }


def _curve_line(x: list[float], name: str, values: np.ndarray, colour: str) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines",
        "x": x,
        "y": [None if np.isnan(value) else round(float(value), 3) for value in values],
        "name": name,
        "line": {"width": 1.6, "color": colour},
        "hovertemplate": f"{name} %{{y:.2f}} at %{{x:.1f}} σ<extra></extra>",
    }


def _curve_layout(
    colours: dict[str, str], x: list[float], lines: list[dict[str, Any]]
) -> dict[str, Any]:
    axis = {"showgrid": False, "zeroline": False, "fixedrange": True}
    return {
        "font": {"family": FONT_FAMILY, "size": 11, "color": colours["soft"]},
        "xaxis": {**axis, "range": [x[0], x[-1]], "ticksuffix": " σ", "nticks": 5},
        "yaxis": {**axis, "range": [0, 1.08], "tickvals": [0, 0.5, 1]},
        "shapes": lines,
        "legend": {
            "orientation": "h",
            "xref": "container",
            "x": 0,
            "yref": "container",
            "y": 1,
            "yanchor": "top",
            "font": {"size": 11},
            "itemclick": False,
        },
        "hovermode": "closest",
        "dragmode": False,
        "margin": {"l": 26, "r": 8, "t": 24, "b": 22},
        **TRANSPARENT,
    }


def count_points(view: View, row: int) -> int:
    """Return how many points each growing trace has from a row on."""
    breaks = int(view.breaks[row:].sum())
    return len(view.time) - row + (POINTS_PER_STEP - 1) * breaks


def time_values(view: View, row: int) -> np.ndarray:
    """Return the x of the growing traces from a row on, in ms since the epoch.

    Each break in time gets two more, just inside its ends.
    """
    time = view.time[row:]
    cut = np.flatnonzero(view.breaks[row:])
    if not len(cut):
        return np.round(time * 1000, 3)
    before = view.time[np.maximum(cut + row - 1, 0)]
    inset = (time[cut] - before) * BREAK_INSET
    ends = np.stack([before + inset, time[cut] - inset], axis=1).ravel()
    return np.round(np.insert(time, np.repeat(cut, 2), ends) * 1000, 3)


def values_with_breaks(
    view: View, values: np.ndarray, row: int, inside: np.ndarray | None = None
) -> np.ndarray:
    """Return values (n,) from a row on, with two more for each break in time.

    They are NaN, a gap in the line, or what `inside` (n,) says for the row before the break.
    """
    cut = np.flatnonzero(view.breaks[row:])
    if not len(cut):
        return _rounded(values[row:])
    added = np.full(len(cut), np.nan) if inside is None else inside[cut + row - 1]
    return _rounded(np.insert(values[row:], np.repeat(cut, 2), np.repeat(added, 2)))


def carried(values: np.ndarray) -> np.ndarray:
    """Return the last known of values (n,) at each row; NaN before the first.

    >>> carried(np.array([np.nan, 2.0, np.nan, 3.0]))
    array([nan,  2.,  2.,  3.])
    """
    missing = np.isnan(values)
    if not missing.any():
        return values
    last = np.maximum.accumulate(np.where(missing, -1, np.arange(len(values))))
    return np.where(last < 0, np.nan, values[last]) if len(values) else values


def _milliseconds(time: np.ndarray) -> list[float]:
    return [float(ms) for ms in np.round(np.asarray(time) * 1000, 3)]


def _rounded(values: np.ndarray) -> np.ndarray:
    """Return values with six significant digits of the largest: what a plot can show, in few bytes.

    It stays an array, which is serialized far faster than a list.
    """
    finite = np.abs(values[np.isfinite(values)])
    top = float(finite.max()) if len(finite) else 0.0
    decimals = 5 - int(np.floor(np.log10(top))) if top > 0 else 0
    return np.round(values, min(decimals, 15))


def _axis(lane: int) -> str:
    """Return how a trace names the y axis of a lane."""
    return "y" if lane == 0 else f"y{lane + 1}"


def _layout_axis(lane: int) -> str:
    """Return how the layout names the y axis of a lane."""
    return "yaxis" if lane == 0 else f"yaxis{lane + 1}"
