"""Callbacks for labels, maintenance windows, incidents and proposals."""

from __future__ import annotations

import asyncio
from typing import Any

import dash
from dash import Input, Output, State, ctx, no_update

from redline.api.service import Service
from redline.page.actions import (
    act_on_incident,
    find_proposal,
    label_picked,
    mute_picked,
    remove_window,
)


def connect_feedback(app: dash.Dash, service: Service) -> None:
    """Connect what people say of incidents, of points and of proposed settings."""
    monitor = service.monitor
    label_buttons = {
        "expected": Input("label-expected", "n_clicks"),
        "missed": Input("label-missed", "n_clicks"),
        "mute": Input("mute", "n_clicks"),
    }

    @app.callback(
        output={
            "done": Output("done", "data"),
            "labelled": Output("labelled", "children"),
            "said": Output("incident-said", "children"),
        },
        inputs={"act": Input("act", "data"), **label_buttons},
        state={"domain": State("domain", "value"), "picked": State("picked", "data")},
        prevent_initial_call=True,
    )
    async def act(act: Any, domain: str, picked: Any, **_: Any) -> dict[str, Any]:
        """Act on an incident, a label or a maintenance window; say what was done, by whom."""
        # a new value each time, so that the open panel is renewed
        answer = {"done": monitor.clock(), "labelled": no_update, "said": no_update}
        if ctx.triggered_id == "act" and act and "window" in act:
            await asyncio.to_thread(remove_window, service, int(act["window"]))
            return answer
        if ctx.triggered_id == "act" and act:
            words = (act["incident"], act["act"], act.get("note", ""))
            said = await asyncio.to_thread(act_on_incident, service, *words)
            return {**answer, "labelled" if act.get("picked") else "said": said}
        if ctx.triggered_id == "mute":
            feed = monitor.find_feed(domain)
            said = await asyncio.to_thread(mute_picked, service, feed, picked)
            return {**answer, "labelled": said}
        if ctx.triggered_id != "act":
            kind = str(ctx.triggered_id).removeprefix("label-")
            feed = monitor.find_feed(domain)
            said = await asyncio.to_thread(label_picked, service, feed, picked, kind)
            return {**answer, "labelled": said}
        return answer

    @app.callback(
        Output("proposal", "children"),
        Output("proposed", "hidden"),
        inputs={
            "n": Input("slow", "n_intervals"),
            "domain": Input("domain", "value"),
            "done": Input("done", "data"),
            "dismiss": Input("proposal-dismiss", "n_clicks"),
        },
    )
    async def propose(domain: str, **_: Any) -> tuple[Any, bool]:
        """Return the text of the proposal and whether it is hidden; dismiss it on a click."""
        feed = monitor.find_feed(domain)
        if feed is None:
            return no_update, True
        if ctx.triggered_id == "proposal-dismiss":
            await asyncio.to_thread(service.labels.dismiss, domain)
        due = await asyncio.to_thread(service.labels.is_proposal_due, domain)
        if not due:
            return no_update, True
        found = await asyncio.to_thread(find_proposal, service, feed)
        return (f"{found.text}." if found else no_update), found is None
