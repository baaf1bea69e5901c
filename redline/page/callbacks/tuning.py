"""The search for settings on the page: its button, its progress, and its proposal as a preview."""

from __future__ import annotations

import asyncio
from typing import Any

import dash
from dash import ClientsideFunction, Input, Output, State, ctx, dcc, html

from redline.api.service import Service
from redline.page.finding import (
    SettingsFinder,
    SettingsSearch,
    SettingsSearches,
    needs_search,
    searched_subject,
)
from redline.page.preview import PREVIEW_STATE, preview_fields
from redline.sources.pushed import YOUR_DATA

POLL_MS = 500  # between two looks at a search that a visitor waits for


def find_settings_box() -> html.Div:
    """Return the button of the search, its progress with a button to cancel, and its result."""
    progress = [
        html.Progress(id="find-share", max="1", value="0"),
        html.Span(id="find-said"),
        html.Button("Cancel", id="find-cancel", className="link"),
    ]
    return html.Div(
        [
            html.Button(
                "Find settings",
                id="find-settings",
                title="search for the detector, window and threshold that suit this stream",
            ),
            html.Div(progress, id="find-progress", hidden=True),
            html.P(id="found-said", role="status"),
            dcc.Store(id="finding"),
            dcc.Store(id="found"),
            dcc.Interval(id="searching", interval=POLL_MS, disabled=True),
        ],
        className="finding small",
    )


def connect_tuning(app: dash.Dash, service: Service, finder: SettingsFinder) -> SettingsSearches:
    """Connect the search for settings; return the searches of all visitors."""
    monitor = service.monitor
    searches = SettingsSearches(service, finder)
    searches.begin_with(monitor.feeds.get(YOUR_DATA))  # the file of --csv
    outputs = {
        "finding": Output("finding", "data"),
        "found": Output("found", "data"),
        "idle": Output("searching", "disabled"),
        "hidden": Output("find-progress", "hidden"),
        "share": Output("find-share", "value"),
        "said": Output("find-said", "children"),
        "result": Output("found-said", "children"),
    }
    inputs = {
        "find": Input("find-settings", "n_clicks"),
        "cancel": Input("find-cancel", "n_clicks"),
        "poll": Input("searching", "n_intervals"),
        "domain": Input("domain", "value"),
        "read": Input("read", "data"),
    }

    @app.callback(
        output=outputs,
        inputs=inputs,
        state={"finding": State("finding", "data"), "controls": PREVIEW_STATE},
        prevent_initial_call=True,
    )
    async def follow_search(
        domain: str, read: Any, finding: Any, controls: dict[str, Any], **_: Any
    ) -> dict[str, Any]:
        """Ask for a search or leave it, and show how far it is.

        A file that was read is searched by itself, and starts with what is found; no control that
        was moved meanwhile is moved.
        """
        held = list(controls.values())
        feed = monitor.find_feed(domain)
        if feed is None:
            return {**nothing_found(), "finding": finding}
        if ctx.triggered_id == "find-cancel":
            if finding:
                searches.leave(finding["id"])
            return {**nothing_found(), "result": "The search was cancelled."}
        by_itself = ctx.triggered_id == "read" and read == feed.id and needs_search(feed)
        if ctx.triggered_id == "find-settings" or by_itself:
            try:
                search = await asyncio.to_thread(searches.request, feed)
            except RuntimeError as error:
                return {**nothing_found(), "result": f"Not searched: {error}."}
            if finding and finding["id"] != search.id:
                searches.leave(finding["id"])
            unmoved = list(preview_fields(feed.applied).values())
            finding = {"id": search.id, "taken": False, "held": unmoved if by_itself else None}
        known = searches.searches.get(finding["id"]) if finding else None
        if known is None:
            return nothing_found()
        if known.subject != searched_subject(feed):  # of another tab: it is shown there
            return {**nothing_found(), "finding": finding}
        return search_outputs(searches, known, finding, held)

    app.clientside_callback(  # type: ignore[no-untyped-call]
        ClientsideFunction("redline", "found"),
        Output("found-said", "title"),
        Input("found", "data"),
        prevent_initial_call=True,
    )
    return searches


def nothing_found() -> dict[str, Any]:
    """Return the outputs where no search is shown."""
    return {
        "finding": None,
        "found": None,
        "idle": True,
        "hidden": True,
        "share": "0",
        "said": "",
        "result": "",
    }


def search_outputs(
    searches: SettingsSearches, search: SettingsSearch, finding: dict[str, Any], controls: list[Any]
) -> dict[str, Any]:
    """Return the outputs for a search; its proposal moves the controls once, when it is found.

    Args:
        searches: those of all visitors.
        search: one of them.
        finding: what this browser holds of it: "taken" is whether it has moved the controls, "held"
            the values they must still have for that, None = any.
        controls: their values now.
    """
    text = searches.progress_text(search)
    if search.live:
        return {
            "finding": finding,
            "found": None,
            "idle": False,
            "hidden": False,
            "share": f"{search.done:.3f}",
            "said": text,
            "result": "",
        }
    held = finding.get("held")
    moved = held is not None and controls != held and not finding["taken"]
    if search.found is not None and moved:
        text += (
            " The controls were moved meanwhile: they preview other settings."
            if search.started
            else " It is not previewed, since a control was moved; Find settings previews it."
        )
    moves = search.found is not None and not finding["taken"] and not moved
    found = preview_fields(search.found) if moves and search.found else None
    return {
        **nothing_found(),
        "finding": {**finding, "taken": True},
        "found": found,
        "result": text,
    }
