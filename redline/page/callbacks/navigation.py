"""Callbacks that look back, pause and go live."""

from __future__ import annotations

import asyncio
from typing import Any

import dash
from dash import Input, Output, State, ctx, no_update

from redline.api.service import Service
from redline.page.preview import PREVIEW_STATE, previewed_settings
from redline.page.query import ViewQuery, view_end

FILL_PATIENCE = 3.0  # seconds in which the past of a series that is opened is read
FILL_POLL = 0.01  # seconds between two looks whether it is


def connect_navigation(app: dash.Dash, service: Service) -> None:
    """Connect the buttons, keys and list entries that move the view in time."""
    monitor = service.monitor
    buttons = ("pause", "golive", "earlier", "later", "previous", "next")
    moves = {name: Input(name, "n_clicks") for name in buttons}
    moves["goto"] = Input("goto", "data")
    states = {"domain": State("domain", "value"), "span": State("range", "value"), **PREVIEW_STATE}
    states |= {name: State(name, "data") for name in ("at", "seen", "zoom")}

    @app.callback(
        Output("at", "data"),
        Output("zoom", "data"),
        inputs=moves,
        state=states,
        prevent_initial_call=True,
    )
    async def move_view(
        at: Any, seen: Any, span: int, domain: str, zoom: Any, goto: Any, **rest: Any
    ) -> tuple[Any, Any]:
        """Return the step the view ends at, None = live, and a reset zoom."""
        moved = str(ctx.triggered_id)
        if moved == "goto" and goto:
            domain = goto.get("stream") or domain  # the tab may not be open yet
        feed = monitor.find_feed(domain)
        if feed is None or (moved == "goto" and not goto) or (moved != "goto" and not seen):
            return no_update, no_update
        no_zoom = {"revision": (zoom or {}).get("revision", 0) + 1}
        shown = seen and seen["look"]["stream"] == feed.id
        settings = previewed_settings(feed.applied, rest) if shown else feed.applied
        present_end = at["end"] if at and at["id"] == feed.id else None
        query = ViewQuery(service, domain, settings, span, present_end)
        until = monitor.clock() + FILL_PATIENCE
        while moved == "goto" and not feed.ready and monitor.clock() < until:
            await asyncio.sleep(FILL_POLL)
            query = ViewQuery(service, domain, settings, span, present_end)
        end = view_end(moved, query, goto)
        return (None if end is None else {"id": feed.id, "end": end}), no_zoom
