"""Callbacks that run in the browser."""

from __future__ import annotations

from typing import Any

import dash
from dash import ClientsideFunction, Input, Output, State


def connect_browser(app: dash.Dash) -> None:
    """Connect the functions of assets/page*.js to what they show and what they depend on."""

    def connect(function: str, output: Any, *inputs: Any, later: bool = False) -> None:
        app.clientside_callback(  # type: ignore[no-untyped-call]
            ClientsideFunction("redline", function), output, *inputs, prevent_initial_call=later
        )

    connect("heard", Output("pause", "children"), Input("pulse", "data"))
    connect("sparks", Output("overview", "title"), Input("sparks", "data"))
    brush = [Input("overview-line", "data"), State("zoom", "data"), State("served", "data")]
    connect("brush", Output("brush", "title"), *brush)
    connect("tell", Output("popups", "title"), Input("news", "data"))
    shown = [
        Output("overview", "hidden"),
        Output("stage", "className"),
        Output("yours", "hidden"),
        Output("inject", "hidden"),
        Output("streams", "hidden"),
        Output("fleet", "hidden"),
    ]
    connect("stage", shown, Input("domain", "value"), State("served", "data"))
    zoom_and_end = [
        Output("zoom", "data", allow_duplicate=True),
        Output("at", "data", allow_duplicate=True),
    ]
    zoom_inputs = [Input("chart", "relayoutData"), State("zoom", "data"), State("seen", "data")]
    connect("zoomed", zoom_and_end, *zoom_inputs, later=True)
    sliders = ("window", "threshold", "size")
    connect(
        "said",
        [Output(f"{name}-said", "children") for name in sliders],
        *[Input(name, "value") for name in sliders],
    )
    selection = (("chart", "clickData"), ("zoom", "data"), ("domain", "value"), ("done", "data"))
    picked = [
        Output("labels", "hidden"),
        Output("label-expected", "children"),
        Output("label-missed", "children"),
        Output("mute", "hidden"),
        Output("picked", "data"),
    ]
    connect("picked", picked, *[Input(*each) for each in selection], State("seen", "data"))
    connect("folded", Output("change", "title"), Input("guess", "children"))
    connect("opened", Output("streams-found", "title"), Input("opened", "data"))
    previewed = ("domain", "detector", "window", "threshold", "direction")
    connect(
        "previewed",
        Output("chip", "children"),
        Input("pulse", "data"),
        *[Input(name, "value") for name in previewed],
    )
    controls = ("domain", "detector", "window", "threshold", "direction", "range")
    address = [*(Input(name, "value") for name in controls), Input("at", "data")]
    connect("address", Output("share", "title"), *address, State("served", "data"))
