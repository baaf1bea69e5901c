"""The callback of the wall display."""

from __future__ import annotations

import asyncio
from typing import Any

import dash
from dash import ClientsideFunction, Input, Output, no_update

from redline.api.service import Service
from redline.page.wall import Wall
from redline.sources.pushed import OVERVIEW


def connect_wall(app: dash.Dash, service: Service) -> None:
    """Connect the wall, which is sent only to who looks at it."""
    wall = Wall(service)

    @app.callback(Output("wall", "data"), Input("slow", "n_intervals"), Input("domain", "value"))
    async def renew_wall(n: Any, domain: str) -> Any:
        if domain != OVERVIEW:
            return no_update
        return await asyncio.to_thread(wall.renewed)

    app.clientside_callback(  # type: ignore[no-untyped-call]
        ClientsideFunction("redline", "wall"), Output("wall-tiles", "title"), Input("wall", "data")
    )
