"""The callbacks of the fleet."""

from __future__ import annotations

import asyncio
from typing import Any

import dash
from dash import ClientsideFunction, Input, Output, no_update

from redline.api.service import Service
from redline.engine.fleet.ranking import NameIndex
from redline.page.fleet import FleetPage, FleetView, moment_document
from redline.sources.pushed import FLEET


def connect_fleet(app: dash.Dash, service: Service, index: NameIndex) -> None:
    """Connect the lanes, which are sent only to who looks at them, and the clicks on their cells.

    index: the names of all series.
    """
    fleet = FleetPage.over(service, index)

    @app.callback(
        Output("fleet-rows", "data"),
        Input("slow", "n_intervals"),
        Input("domain", "value"),
        Input("fleet-view", "data"),
    )
    async def renew_fleet(n: Any, domain: str, view: Any) -> Any:
        if domain != FLEET:
            return no_update
        return await asyncio.to_thread(fleet.fragment, FleetView.of(view))

    @app.callback(
        Output("fleet-moment", "data"), Input("fleet-cell", "data"), prevent_initial_call=True
    )
    async def open_cell(cell: Any) -> Any:
        """Return the series and the step of a cell."""
        if not cell:
            return no_update
        where = (cell["by"], cell["value"], cell["part"], cell["start"], cell["end"])
        moment = await asyncio.to_thread(fleet.lanes.find_moment, *where)
        return moment_document(moment, cell["asked"])

    def connect(function: str, output: Any, *inputs: Any, later: bool = False) -> None:
        app.clientside_callback(  # type: ignore[no-untyped-call]
            ClientsideFunction("redline", function), output, *inputs, prevent_initial_call=later
        )

    connect("fleet", Output("fleet-lanes", "title"), Input("fleet-rows", "data"))
    moved = Input("fleet-moment", "data")
    connect("fleetMoment", Output("fleet-found", "children"), moved, later=True)
    part = Input("fleet-part", "value")
    connect("fleetPart", Output("fleet-part", "title"), part, later=True)
