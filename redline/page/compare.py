"""The comparison of all detectors on one stream, as the rows of a table."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from dash import html

from detectors import DETECTORS
from redline.api.service import Service
from redline.engine.feed import Feed
from redline.engine.track import Track
from redline.evaluation import metrics
from redline.page.panels import data_attribute, format_share
from redline.page.query import ViewQuery, cached_answer
from redline.settings import Settings

COMPARE_HEADS = (
    "detector",
    "alarms",
    "precision",
    "recall",
    "F1",
    "delay",
    "µs/point",
    "best threshold",
    "last fault",
)
# where each detector is judged -> the words of the switch
GAP_KIND = "dropout"  # a fault without a value, which no detector judges
COMPARE_AT = {"shared": "at this threshold", "best": "each at its best"}
CAUGHT_MARK = "✓"


class Contender(NamedTuple):
    """One detector in the comparison."""

    query: ViewQuery
    own_best: float | None  # the threshold of its best F1, standard deviations; None = no labels
    found: metrics.Metrics


def comparison_rows(
    service: Service, feed: Feed, settings: Settings, by: str, at: str = "shared"
) -> list[html.Tr]:
    """Return the table rows of all detectors on the same buffer.

    Best F1 first where there are labels, then detectors that are still scoring, then those that
    cannot run.

    Args:
        service: whose monitor and labels.
        feed: the stream.
        settings: those of the visitor; each detector runs under them.
        by: "event" or "row", which precision, recall and F1 are counted.
        at: "shared" = all at the threshold of the settings, "best" = each at the threshold with its
            best F1, where the stream has labels.
    """
    scored: list[Contender] = []
    waiting = []
    refused = []
    for name in DETECTORS:
        try:
            query = ViewQuery(service, feed.name, replace(settings, detector=name), 1)
        except (ImportError, ValueError) as error:  # a missing library, a window it cannot take
            refused.append(html.Tr([compare_name(name), _said(str(error))]))
            continue
        if query.ready and query.track.scored:
            scored.append(contender(query, by, at))
        else:
            waiting.append(html.Tr([compare_name(name, query.track), _said(scoring_state(query))]))
    if feed.labelled:
        scored.sort(key=lambda each: -np.nan_to_num(getattr(each.found, f"{by}_f1") or 0.0))
    rows = [compare_row(each, by, at) for each in scored]
    if feed.labelled and rows:
        leader: Any = rows[0]
        leader.className = f"best {leader.className}".strip()
    return [*rows, *waiting, *refused]


def contender(query: ViewQuery, by: str, at: str) -> Contender:
    """Return a detector with its metrics at the shared threshold or at its own best one."""
    best = own_best_threshold(query, by)
    if at == "best" and best is not None:
        settings = replace(query.settings, threshold=best)
        query = ViewQuery(query.service, query.feed.name, settings, 1)
    return Contender(query, best, query.preview_metrics())


def own_best_threshold(query: ViewQuery, by: str) -> float | None:
    """Return the threshold with a detector's best F1 on the buffer; None without labels."""

    def search() -> float | None:
        return metrics.best_threshold(query.curve()[0], by)

    version = (query.track.end, query.labels_version)
    found: float | None = cached_answer(
        ("best", query.feed.id, query.settings.key, by, *version), search
    )
    return found


def _said(text: str) -> html.Td:
    """Return a cell over the rest of a row that says why there are no numbers."""
    return html.Td(text, colSpan=len(COMPARE_HEADS) - 1, className="quiet")


def scoring_state(query: ViewQuery) -> str:
    """Return how far a detector has scored the buffer, or that it failed."""
    failure = query.track.failure
    progress = query.monitor.progress(query.feed.name, query.track)
    return f"failed, id {failure.id}" if failure else f"scoring {100 * progress:.0f} %"


def compare_name(name: str, track: Track | None = None, threshold: float | None = None) -> html.Td:
    """Return a cell with a button that chooses a detector, with a threshold where one is given.

    Its tooltip says what the score means and, once the track has scored, whether it has a band.
    """
    tooltip = " ".join((DETECTORS[name].__doc__ or "").partition("\n\n")[0].split())
    if track is not None and track.tape is not None:
        has_band = "centre" in track.tape.columns
        tooltip += " With a band of what is expected." if has_band else " No band."
    chosen = data_attribute("detector", name)
    if threshold is not None:
        chosen |= data_attribute("threshold", f"{threshold:.1f}")
    return html.Td(html.Button(name, className="link", title=tooltip, **chosen))


def compare_row(each: Contender, by: str, at: str) -> html.Tr:
    """Return the row of one detector; it is lit where the last fault was caught."""
    query = each.query
    found = each.found
    taken = each.own_best if at == "best" else None
    name = compare_name(query.settings.detector, query.track, taken)
    alarms = html.Td(f"{found.alarms:,}")
    speed = html.Td(format_pace(query.track))
    if found.events is None:
        none = html.Td("no labels for this stream", colSpan=4, className="quiet")
        return html.Tr([name, alarms, none, speed, html.Td("–"), html.Td("–")], className="")
    shares = [
        html.Td(format_share(getattr(found, f"{by}_{figure}")))
        for figure in ("precision", "recall", "f1")
    ]
    delay = "–" if found.delay is None or np.isnan(found.delay) else f"{found.delay:.1f}"
    best = "–" if each.own_best is None else f"{each.own_best:.1f} σ"
    fault = last_fault(query)
    cells: list[Any] = [name, alarms, *shares, html.Td(delay), speed, html.Td(best)]
    lit = "lit" if fault.startswith(CAUGHT_MARK) else ""
    return html.Tr([*cells, html.Td(fault)], className=lit)


def format_pace(track: Track) -> str:
    """Return a track's µs per point, with a decimal below 10; a dash before it has scored."""
    if not track.scored:
        return "–"
    decimals = 1 if track.pace < 1e-5 else 0
    return f"{1e6 * track.pace:,.{decimals}f}"


def last_fault(query: ViewQuery) -> str:
    """Return whether and how soon the last injected fault, or else the newest event, was caught.

    A dropout is shown as a span without data; no detector has a score there.
    """
    injections = getattr(query.feed.stream, "injections", [])
    if injections and injections[-1].kind == GAP_KIND:
        return "gap, not scored"
    first, _, alarm, label = query.buffer_scores(query.track)
    step = injections[-1].step - first if injections else None
    event = metrics.last_event_outcome(alarm, label, query.settings.threshold, step)
    if event is None:
        return "–"
    if not np.isfinite(event.delay):
        return "…" if event.open else "missed"
    if event.delay < 1:
        return f"{CAUGHT_MARK} now"
    return f"{CAUGHT_MARK} {event.delay:.0f} step{'s' if event.delay > 1 else ''}"
