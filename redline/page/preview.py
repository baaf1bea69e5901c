"""The preview: a stream's applied settings with a visitor's controls in place of some."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from dash import Input, State

from redline.engine.feed import Feed
from redline.settings import Settings, validate_settings

PREVIEW_INPUTS = {
    name: Input(name, "value") for name in ("detector", "window", "threshold", "direction")
}
PREVIEW_STATE = {name: State(name, "value") for name in PREVIEW_INPUTS}


def previewed_settings(base: Settings, controls: dict[str, Any]) -> Settings:
    """Return some settings with the values of a visitor's controls.

    Raises:
        SettingsError: a control has a value that its setting cannot take.
    """
    values = {name: controls[name] for name in PREVIEW_INPUTS}
    return validate_settings(replace(base, **values))


def preview_fields(settings: Settings) -> dict[str, Any]:
    """Return the values of the controls for some settings."""
    return {name: getattr(settings, name) for name in PREVIEW_INPUTS}


def preview_state(feed: Feed, events: int | None = None) -> dict[str, Any]:
    """Return what tells a browser whether its controls differ from the applied settings.

    "events" is the number of labelled anomalies in the buffer, None = there are no labels;
    "undoable" says whether there is a change to take back.
    """
    return {
        "stream": feed.name,
        "applied": preview_fields(feed.applied),
        "undoable": bool(feed.undone),
        "events": events,
    }
