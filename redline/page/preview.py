"""The preview: the applied settings with a visitor's controls instead."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from dash import Input, State

from redline.settings import Settings, validate_settings


def previewed_settings(base: Settings, controls: dict[str, Any]) -> Settings:
    """A stream's settings with what a visitor's controls say instead."""
    said = {name: controls[name] for name in PREVIEW_INPUTS}
    return validate_settings(replace(base, **said))


PREVIEW_INPUTS = {
    name: Input(name, "value") for name in ("detector", "window", "threshold", "direction")
}
PREVIEW_STATE = {name: State(name, "value") for name in PREVIEW_INPUTS}


def preview_fields(settings: Settings) -> dict[str, Any]:
    return {name: getattr(settings, name) for name in PREVIEW_INPUTS}
