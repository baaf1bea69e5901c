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
from redline.page import panels
from redline.page.layout import OVERVIEW, PANEL_ELEMENTS, stream_tiles, tab_row, tab_titles
from redline.page.preview import PREVIEW_INPUTS, previewed_settings
from redline.page.query import ViewQuery, sparkline
from redline.settings import Settings

RECENT_STEPS = 240  # steps, those of the little line on a tab


def connect_panels(app: dash.Dash, service: Service) -> None:
    monitor = service.monitor
    rows = {
        "domain": Output("domain", "children"),
        "overview": Output("overview", "children"),
        "names": Output("names", "data"),
    }
    asked = {
        "n": Input("slow", "n_intervals"),
        "domain": Input("domain", "value"),
        "speed": Input("speed", "value"),
    }

    @app.callback(
        output={"sparks": Output("sparks", "data"), "speed": Output("speed", "value"), **rows},
        inputs=asked,
        state={"names": State("names", "data")},
    )
    async def little(n: Any, domain: str, speed: float, names: Any) -> dict[str, Any]:
        """The little lines of the tabs and of the overview, the tabs themselves, and the speed that
        everybody shares.
        """
        if "speed.value" in ctx.triggered_prop_ids:  # perhaps together with others
            monitor.speed = float(speed)
        shown = tab_titles(monitor)
        same = {"domain": no_update, "overview": no_update, "names": list(shown)}
        if names and names != list(shown):
            same |= {"domain": tab_row(shown), "overview": stream_tiles(shown)}
        feeds = {name: monitor.feeds[name] for name in shown if name in monitor.feeds}
        lines = {
            name: sparkline(feed, domain == OVERVIEW, open_incidents(service, feed))
            for name, feed in feeds.items()
            if feed.end
        }
        return {
            **same,
            "sparks": lines,
            "speed": no_update if speed == monitor.speed else int(monitor.speed),
        }

    outputs = {name: Output(element, "children") for name, element in PANEL_ELEMENTS.items()}
    asked = {
        "n": Input("slow", "n_intervals"),
        "panel": Input("lower", "value"),
        "by": Input("by", "value"),
        "done": Input("done", "data"),
    }

    @app.callback(
        output=outputs, inputs={**asked, "domain": Input("domain", "value"), **PREVIEW_INPUTS}
    )
    async def panel(
        n: Any, panel: str, domain: str, by: str, done: Any, **preview: Any
    ) -> dict[str, Any]:
        """The lower panel that is open."""
        feed = monitor.feeds.get(domain)
        same = dict.fromkeys(outputs, no_update)
        if feed is None or not feed.end or panel not in outputs:
            return same
        return {
            **same,
            panel: await asyncio.to_thread(
                lower_panel, service, panel, (feed, previewed_settings(feed.applied, preview), by)
            ),
        }


def lower_panel(service: Service, panel: str, about: tuple[Feed, Settings, str]) -> list[Any]:
    """What one lower panel shows of a stream."""
    feed, settings, by = about
    store = service.store
    if panel == "compared":
        return panels.comparison_rows(service, feed, settings, by)
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
    """Return how many incidents of the last steps are not acknowledged: the number on a tab
    says.
    """
    found = service.incidents.find(IncidentQuery(feed.name, limit=10)).incidents
    return sum(
        i.state == OPEN
        or (i.state == RESOLVED and i.last >= feed.end - RECENT_STEPS and not i.acknowledged)
        for i in found
    )
