"""Callbacks of the tabs and the lower panels."""

from __future__ import annotations

import asyncio
from typing import Any

import dash
from dash import Input, Output, State, ctx, no_update

from redline.api.service import Service
from redline.engine.feed import Feed
from redline.incidents.incident import OPEN, RESOLVED
from redline.incidents.registry import IncidentQuery
from redline.page import compare, panels
from redline.page.actions import page_actor
from redline.page.layout import PANEL_ELEMENTS, stream_tiles, tab_row, tab_titles
from redline.page.preview import PREVIEW_INPUTS, previewed_settings
from redline.page.query import ViewQuery, sparkline
from redline.settings import Settings
from redline.sources.pushed import OVERVIEW

RECENT_STEPS = 240  # those of the sparkline on a tab


def connect_panels(app: dash.Dash, service: Service) -> None:
    """Connect the tabs and the lower panels."""
    _connect_tabs(app, service)
    _connect_lower_panels(app, service)


def _connect_tabs(app: dash.Dash, service: Service) -> None:
    monitor = service.monitor

    @app.callback(
        output={
            "sparks": Output("sparks", "data"),
            "speed": Output("speed", "value"),
            "domain": Output("domain", "children"),
            "overview": Output("overview", "children"),
            "names": Output("names", "data"),
        },
        inputs={
            "n": Input("slow", "n_intervals"),
            "domain": Input("domain", "value"),
            "speed": Input("speed", "value"),
        },
        state={"names": State("names", "data")},
    )
    async def refresh_tabs(n: Any, domain: str, speed: float, names: Any) -> dict[str, Any]:
        """Return the sparklines, the tabs where they changed, and the speed, shared by all."""
        chosen = "speed.value" in ctx.triggered_prop_ids  # perhaps together with others
        if chosen and speed != monitor.speed:
            detail = {"from": monitor.speed, "to": float(speed)}
            monitor.speed = float(speed)
            what = "changed the speed of the simulation"
            await asyncio.to_thread(service.audit, page_actor(), what, None, **detail)
        titles = tab_titles(monitor)
        changed = bool(names) and names != list(titles)
        feeds = {name: monitor.feeds[name] for name in titles if name in monitor.feeds}
        return {
            "domain": tab_row(titles) if changed else no_update,
            "overview": stream_tiles(titles) if changed else no_update,
            "names": list(titles),
            "sparks": {
                name: sparkline(feed, domain == OVERVIEW, open_incidents(service, feed))
                for name, feed in feeds.items()
                if feed.end
            },
            "speed": no_update if speed == monitor.speed else int(monitor.speed),
        }


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

    @app.callback(output=outputs, inputs=inputs)
    async def refresh_panel(
        n: Any, panel: str, domain: str, by: str, compare_at: str, done: Any, **preview: Any
    ) -> dict[str, Any]:
        """Return the lower panel that is open; the others stay as they are."""
        same = dict.fromkeys(outputs, no_update)
        feed = monitor.feeds.get(domain)
        if feed is None or not feed.end or panel not in outputs:
            return same
        settings = previewed_settings(feed.applied, preview)
        if panel == "compared":
            judged = (feed, settings, by, compare_at)
            shown = await asyncio.to_thread(compare.comparison_rows, service, *judged)
        else:
            shown = await asyncio.to_thread(lower_panel, service, panel, feed, settings)
        return {**same, panel: shown}


def lower_panel(service: Service, panel: str, feed: Feed, settings: Settings) -> list[Any]:
    """Return the content of a lower panel, all but the comparison, for a stream."""
    store = service.store
    if panel == "table":
        return panels.value_table(ViewQuery(service, feed.name, settings, 100))
    if panel == "incidents":
        return panels.incident_list(feed, service.incidents.find(IncidentQuery(feed.name)))
    if panel == "days":
        return panels.day_bars(store.daily(feed.name) if store else [])
    if panel == "settings":
        return panels.settings_panel(feed, store.history(feed.name, 20) if store else [])
    return panels.audit_log_table(store.audit(200) if store else [])


def open_incidents(service: Service, feed: Feed) -> int:
    """Return the number on a tab: its incidents that are open, or recent and not acknowledged."""
    found = service.incidents.find(IncidentQuery(feed.name, limit=10)).incidents
    return sum(
        i.state == OPEN
        or (i.state == RESOLVED and i.last >= feed.end - RECENT_STEPS and not i.acknowledged)
        for i in found
    )
