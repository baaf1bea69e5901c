"""Callbacks that look back, pause and go live."""

from __future__ import annotations

from typing import Any

import dash
from dash import Input, Output, State, ctx, no_update

from redline.api.service import Service
from redline.page.preview import PREVIEW_STATE, previewed_settings
from redline.page.query import ViewQuery, view_end


def connect_travel(app: dash.Dash, service: Service) -> None:
    monitor = service.monitor
    moves = {
        name: Input(name, "n_clicks")
        for name in ("pause", "golive", "earlier", "later", "previous", "next")
    }
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
    async def travel(
        at: Any, seen: Any, span: int, domain: str, zoom: Any, goto: Any, **rest: Any
    ) -> tuple[Any, Any]:
        """Looks back, freezes the view, or goes live again."""
        feed = monitor.feeds.get(domain)
        if feed is None or not seen:
            return no_update, no_update
        fresh = {"revision": (zoom or {}).get("revision", 0) + 1}
        settings = previewed_settings(feed.applied, rest)
        sight = ViewQuery(
            service, domain, settings, span, at["end"] if at and at["id"] == feed.id else None
        )
        end = view_end(str(ctx.triggered_id), sight, goto)
        return (None if end is None else {"id": feed.id, "end": end}), fresh
