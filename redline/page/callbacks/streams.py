"""The callback of the list of all streams."""

from __future__ import annotations

import asyncio
from typing import Any

import dash
from dash import ClientsideFunction, Input, Output, no_update

from redline.api.service import Service
from redline.page.streams_list import StreamsList, wanted_rows
from redline.sources.pushed import ALL_STREAMS


def connect_streams_list(app: dash.Dash, service: Service) -> StreamsList:
    """Connect the list, which is sent only to who looks at it; return it."""
    streams = StreamsList(service)

    @app.callback(
        Output("streams-rows", "data"),
        Input("slow", "n_intervals"),
        Input("domain", "value"),
        Input("streams-part", "value"),
        Input("streams-order", "data"),
    )
    async def renew_streams(n: Any, domain: str, part: str | None, order: Any) -> Any:
        if domain != ALL_STREAMS:
            return no_update
        return await asyncio.to_thread(streams.fragment, wanted_rows(part, order))

    app.clientside_callback(  # type: ignore[no-untyped-call]
        ClientsideFunction("redline", "streams"),
        Output("streams-body", "title"),
        Input("streams-rows", "data"),
    )
    return streams
