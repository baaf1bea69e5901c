"""Callbacks for labels, incidents and proposals."""

from __future__ import annotations

import asyncio
from typing import Any

import dash
from dash import Input, Output, State, ctx, no_update

from redline.api.service import Service
from redline.page.actions import act_on_incident, add_label, find_proposal, selected_span


def connect_people(app: dash.Dash, service: Service) -> None:
    """What people say: of incidents, of points, and of settings that were proposed to them."""
    monitor = service.monitor
    states = {
        "domain": State("domain", "value"),
        "zoom": State("zoom", "data"),
        "click": State("chart", "clickData"),
    }
    words = {
        "expected": Input("label-expected", "n_clicks"),
        "missed": Input("label-missed", "n_clicks"),
    }

    @app.callback(
        Output("done", "data"),
        inputs={"act": Input("act", "data"), **words},
        state=states,
        prevent_initial_call=True,
    )
    async def act(act: Any, domain: str, zoom: Any, click: Any, **_: Any) -> Any:
        if ctx.triggered_id == "act":
            await asyncio.to_thread(act_on_incident, service, act["incident"], act["act"])
        else:
            kind = str(ctx.triggered_id).removeprefix("label-")
            await asyncio.to_thread(
                add_label, service, monitor.feeds[domain], selected_span(zoom, click), kind
            )
        return monitor.clock()  # something new for the panel that is open

    asked = {
        "n": Input("slow", "n_intervals"),
        "domain": Input("domain", "value"),
        "done": Input("done", "data"),
        "no": Input("proposal-dismiss", "n_clicks"),
    }

    @app.callback(Output("proposal", "children"), Output("proposed", "hidden"), inputs=asked)
    async def propose(domain: str, no: Any, **_: Any) -> tuple[Any, bool]:
        if ctx.triggered_id == "proposal-dismiss":
            await asyncio.to_thread(service.labels.dismiss, domain)
        due = await asyncio.to_thread(service.labels.is_proposal_due, domain)
        if domain not in monitor.feeds or not due:
            return no_update, True
        found = await asyncio.to_thread(find_proposal, service, monitor.feeds[domain])
        return (f"{found.text}." if found else no_update), found is None
