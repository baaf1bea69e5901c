"""Callbacks that run in the browser."""

from __future__ import annotations

from typing import Any

import dash
from dash import ClientsideFunction, Input, Output, State


def connect_browser(app: dash.Dash) -> None:
    """What only a browser knows lives in assets/page.js; here it is told when to look."""

    def browser(function: str, output: Any, *inputs: Any, later: bool = False) -> None:
        app.clientside_callback(  # type: ignore[no-untyped-call]
            ClientsideFunction("redline", function), output, *inputs, prevent_initial_call=later
        )

    browser("heard", Output("pause", "children"), Input("pulse", "data"))
    browser("sparks", Output("overview", "title"), Input("sparks", "data"))
    browser("tell", Output("popups", "title"), Input("news", "data"))
    shown = [
        Output("overview", "hidden"),
        Output("stage", "className"),
        Output("yours", "hidden"),
        Output("inject", "hidden"),
    ]
    browser("stage", shown, Input("domain", "value"), State("served", "data"))
    moved = [
        Output("zoom", "data", allow_duplicate=True),
        Output("at", "data", allow_duplicate=True),
    ]
    browser(
        "zoomed",
        moved,
        Input("chart", "relayoutData"),
        State("zoom", "data"),
        State("seen", "data"),
        later=True,
    )
    sliders = ("window", "threshold", "size")
    browser(
        "said",
        [Output(f"{name}-said", "children") for name in sliders],
        *[Input(name, "value") for name in sliders],
    )
    told = (("chart", "clickData"), ("zoom", "data"), ("domain", "value"), ("done", "data"))
    browser("labels", Output("labels", "hidden"), *[Input(*each) for each in told])
    address = [
        Input(name, "value")
        for name in ("domain", "detector", "window", "threshold", "direction", "range")
    ]
    address.append(Input("at", "data"))
    browser("address", Output("share", "title"), *address, State("served", "data"))
