"""The lanes of the chart: which features are drawn where there are too many to read."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from dash import dcc, html

from redline.page.panels import aria_attribute
from redline.page.view import View

MAX_LANES = 8  # features that are drawn


def lane_picker() -> html.Div:
    """Return the drop-down of the columns to draw; hidden where all of them are."""
    picker = dcc.Dropdown([], multi=True, id="lanes", placeholder="the worst columns")
    return html.Div(
        [html.Div(picker, **aria_attribute("label", "columns")), html.Small(id="lanes-said")],
        id="lane-row",
        hidden=True,
    )


def choose_lanes(view: View, chosen: Sequence[int], held: Sequence[int]) -> list[int]:
    """Return the features to draw, at most MAX_LANES, from the top.

    All of them where there is room; else those that a visitor chose; else the worst first. What is
    drawn stays, as long as it has every anomalous feature that there is room for.

    Args:
        view: with all features.
        chosen: by the visitor, empty = none.
        held: those that the browser draws now.
    """
    count = len(view.names)
    if chosen:
        return list(chosen)[:MAX_LANES]
    if count <= MAX_LANES or view.peaks is None or view.red is None:
        return list(range(min(count, MAX_LANES)))
    worst = np.argsort(-view.peaks, kind="stable")
    red: list[bool] = np.any(view.red, axis=0).tolist()
    order = [*(int(i) for i in worst if red[i]), *(int(i) for i in worst if not red[i])]
    wanted = set(order[: min(MAX_LANES, sum(red))])
    same = len(held) == MAX_LANES and wanted <= set(held) and max(held) < count
    return list(held) if same else order[:MAX_LANES]


def pick_lanes(view: View, lanes: Sequence[int]) -> View:
    """Return a view of some of the features, in this order."""
    features = list(lanes)
    if features == list(range(len(view.names))):
        return view
    lane = {feature: at for at, feature in enumerate(features)}
    anomalous = () if view.red is None else np.flatnonzero(view.red.any(axis=0)).tolist()
    return view._replace(
        names=tuple(view.names[i] for i in features),
        units=tuple(view.units[i] for i in features),
        x=view.x[:, features],
        low=None if view.low is None else view.low[:, features],
        high=None if view.high is None else view.high[:, features],
        red=None if view.red is None else view.red[:, features],
        peaks=None if view.peaks is None else view.peaks[features],
        marks=[m._replace(feature=lane[m.feature]) for m in view.marks if m.feature in lane],
        faint=tuple((row, lane[feature]) for row, feature in view.faint if feature in lane),
        gaps=tuple(
            gap if gap.feature is None else gap._replace(feature=lane[gap.feature])
            for gap in view.gaps
            if gap.feature is None or gap.feature in lane
        ),
        hidden=tuple(view.names[i] for i in anomalous if i not in lane),
    )


def lanes_sentence(view: View, lanes: list[int]) -> str:
    """Return which columns are drawn, "" where all are."""
    if len(lanes) == len(view.names):
        return ""
    hidden = pick_lanes(view, lanes).hidden
    said = f"{len(lanes)} of {len(view.names)} columns are drawn, the worst first"
    if not hidden:
        return said
    more = f" and {len(hidden) - 3} more" if len(hidden) > 3 else ""
    return f"{said}; also anomalous: {', '.join(hidden[:3])}{more}"
