"""Callbacks that inject faults and export settings."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import dash
from dash import Input, Output, State, ctx, no_update

from redline.api.service import Service
from redline.page.actions import page_actor
from redline.page.layout import INJECT_NAMES
from redline.page.preview import PREVIEW_STATE, previewed_settings
from redline.page.query import export_source
from redline.page.race import Races
from redline.settings import export_settings
from streams import KINDS, STREAMS


def safe_file_name(text: str) -> str:
    """Return a name as a part of a file's name: anything that a path or a shell reads is a hyphen.

    >>> safe_file_name("this-machine"), safe_file_name("../<b>öl 2</b>")
    ('this-machine', '----b-öl-2--b-')
    """
    return re.sub(r"[^\w-]", "-", text)


def connect_actions(app: dash.Dash, service: Service, seed: int, races: Races) -> None:
    """Connect the inject buttons and the export; `seed` is that of the simulated streams."""
    monitor = service.monitor
    buttons = {kind: Input(f"inject-{kind}", "n_clicks") for kind in KINDS if kind != "none"}
    states = {"size": State("size", "value"), "domain": State("domain", "value")}

    @app.callback(
        Output("injected", "children"), inputs=buttons, state=states, prevent_initial_call=True
    )
    async def inject(size: float, domain: str, **_: Any) -> str:
        kind = str(ctx.triggered_id).removeprefix("inject-")
        if domain not in STREAMS or domain not in monitor.feeds:
            return "only simulated streams can be injected into"
        monitor.inject(domain, kind, float(size))
        detail = {"kind": kind, "size": float(size)}
        await asyncio.to_thread(races.start, monitor.feeds[domain])
        await asyncio.to_thread(service.audit, page_actor(), "injected a fault", domain, **detail)
        return f"{INJECT_NAMES.get(kind, kind)} injected"

    @app.callback(
        Output("download", "data"),
        Input("export", "n_clicks"),
        State("domain", "value"),
        PREVIEW_STATE,
        prevent_initial_call=True,
    )
    async def export(_: Any, domain: str, preview: dict[str, Any]) -> Any:
        feed = monitor.find_feed(domain)
        if feed is None:
            return no_update
        settings = previewed_settings(feed.applied, preview)
        source = export_source(feed, domain, settings, seed)
        return {
            "content": export_settings(source, settings),
            "filename": f"redline-{safe_file_name(domain)}.toml",
        }
