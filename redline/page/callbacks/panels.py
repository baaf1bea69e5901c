"""Callbacks of the tabs and the lower panels."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import dash
from dash import Input, Output, State, ctx, html, no_update

from redline.api.service import Service
from redline.engine.feed import Feed
from redline.incidents.incident import OPEN
from redline.page import compare, panels
from redline.page.actions import page_actor
from redline.page.incident_list import STATE_FILTERS, IncidentFilter, incident_list
from redline.page.layout import (
    PANEL_ELEMENTS,
    found_streams,
    tab_row,
    tab_titles,
)
from redline.page.preview import PREVIEW_INPUTS, previewed_settings
from redline.page.query import ViewQuery, sparkline
from redline.page.zones import times_of
from redline.settings import Settings


def connect_panels(app: dash.Dash, service: Service) -> None:
    """Connect the tabs and the lower panels."""
    _connect_tabs(app, service)
    _connect_search(app, service)
    _connect_lower_panels(app, service)


def _connect_tabs(app: dash.Dash, service: Service) -> None:
    monitor = service.monitor

    @app.callback(
        output={
            "sparks": Output("sparks", "data"),
            "speed": Output("speed", "value"),
            "domain": Output("domain", "children"),
            "names": Output("names", "data"),
            "opened": Output("opened", "data"),
        },
        inputs={
            "n": Input("slow", "n_intervals"),
            "domain": Input("domain", "value"),
            "speed": Input("speed", "value"),
            "opened": Input("opened", "data"),
        },
        state={"names": State("names", "data")},
    )
    async def refresh_tabs(
        n: Any, domain: str, speed: float, opened: list[str] | None, names: Any
    ) -> dict[str, Any]:
        """Return the sparklines, the tabs where they changed, and the speed, shared by all."""
        chosen = "speed.value" in ctx.triggered_prop_ids  # perhaps together with others
        if chosen and speed != monitor.speed:
            detail = {"from": monitor.speed, "to": float(speed)}
            monitor.speed = float(speed)
            what = "changed the speed of the simulation"
            await asyncio.to_thread(service.audit, page_actor(), what, None, **detail)
        counts = open_counts(service)
        mine = list(opened or ())
        if monitor.knows(domain) and domain not in tab_titles(monitor, counts, mine):
            mine.append(domain)
        titles = tab_titles(monitor, counts, mine)
        closable = set(titles) - set(tab_titles(monitor, counts))
        changed = names != list(titles.values())
        feeds = monitor.feeds | monitor.views.feeds
        shown = {name: feeds[name] for name in titles if name in feeds}
        return {
            "domain": tab_row(titles, closable) if changed else no_update,
            "names": list(titles.values()),
            "opened": no_update if mine == opened else mine,
            "sparks": {
                name: sparkline(feed, counts[name]) for name, feed in shown.items() if feed.end
            },
            "speed": no_update if speed == monitor.speed else int(monitor.speed),
        }


def _connect_search(app: dash.Dash, service: Service) -> None:
    @app.callback(
        Output("streams-found", "children"), Input("search", "value"), prevent_initial_call=True
    )
    async def search(text: str | None) -> list[Any]:
        """Return the streams with that text in their name."""
        return await asyncio.to_thread(found_streams, service.monitor, text or "")


def _connect_lower_panels(app: dash.Dash, service: Service) -> None:
    monitor = service.monitor
    outputs = {name: Output(element, "children") for name, element in PANEL_ELEMENTS.items()}
    inputs = {
        "n": Input("slow", "n_intervals"),
        "panel": Input("lower", "value"),
        "by": Input("by", "value"),
        "compare_at": Input("compare-at", "value"),
        "done": Input("done", "data"),
        "domain": Input("domain", "value"),
        **PREVIEW_INPUTS,
    }
    filters = {
        "scope": Input("incident-scope", "value"),
        "severity": Input("incident-severity", "value"),
        "state": Input("incident-state", "value"),
        "part": Input("incident-stream", "value"),
    }

    @app.callback(output=outputs, inputs={**inputs, "filters": filters})
    async def refresh_panel(
        n: Any,
        panel: str,
        domain: str,
        by: str,
        compare_at: str,
        done: Any,
        filters: dict[str, Any],
        **preview: Any,
    ) -> dict[str, Any]:
        """Return the lower panel that is open; the others stay as they are."""
        same = dict.fromkeys(outputs, no_update)
        if panel not in outputs:
            return same
        feed = monitor.find_feed(domain)
        if panel == "incidents":
            wanted = incident_filter(domain, **filters)
            where = (service.incidents, monitor.feeds, wanted, service.joint)
            shown = await asyncio.to_thread(incident_list, *where)
        elif panel == "log":
            shown = await asyncio.to_thread(log_panel, service)
        elif feed is None or not feed.end:
            shown = empty_panel(panel)
        else:
            settings = previewed_settings(feed.applied, preview)
            judged = (feed, settings, by, compare_at)
            with times_of(feed.stream):
                shown = await asyncio.to_thread(lower_panel, service, panel, *judged)
        return {**same, panel: shown}


def incident_filter(
    domain: str, scope: str, severity: str, state: str, part: str | None
) -> IncidentFilter:
    """Return the filter that the controls above the list of incidents stand for."""
    states = STATE_FILTERS[state]
    if scope == "all":
        return IncidentFilter(None, part or "", states, severity)
    return IncidentFilter(domain, "", states, severity)


def empty_panel(panel: str) -> list[Any]:
    """Return the content of a lower panel of a stream without points; two are tables."""
    said = panels.empty_state("No points here yet.")
    return [html.Tr(html.Td(said))] if panel in ("compared", "table") else said


def lower_panel(
    service: Service, panel: str, feed: Feed, settings: Settings, by: str, compare_at: str
) -> list[Any]:
    """Return the content of a lower panel for a stream under some settings."""
    store = service.store
    if panel == "compared":
        return compare.comparison_rows(service, feed, settings, by, compare_at)
    if panel == "table":
        return panels.value_table(ViewQuery(service, feed.name, settings, 100))
    if panel == "days":
        return panels.day_bars(store.daily(feed.name) if store else [])
    windows = service.monitor.maintenance.of_stream(feed.name)
    history = store.history(feed.name, 20) if store else []
    return [*panels.settings_panel(feed, history), *panels.maintenance_list(feed, windows)]


def log_panel(service: Service) -> list[Any]:
    """Return the audit log of all streams."""
    return panels.audit_log_table(service.store.audit(200) if service.store else [])


def open_counts(service: Service) -> Counter[str]:
    """Return the number on each tab: the incidents of its stream that are open now.

    One that has ended, or that a person has taken in hand, counts no more.
    """
    feeds = service.monitor.feeds | service.monitor.views.feeds
    return Counter(
        incident.stream
        for incident in list(service.incidents.items.values())
        if incident.stream in feeds and incident.state == OPEN
    )
