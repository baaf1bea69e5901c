"""The route that applies settings to a stream."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from fastapi import APIRouter, Request, Response

from redline.api.problems import Problem, json_answer
from redline.api.service import COMMIT_TIMEOUT, Service
from redline.settings import DIRECTIONS, Settings, validate_settings
from redline.sources.payload import BodyError


@dataclass
class SettingsChange:
    """Settings to apply to a stream; those left out stay as they are."""

    source: str
    detector: str | None = None
    window: int | None = None  # steps
    threshold: float | None = None  # standard deviations
    direction: str | None = None
    refractory: int | None = None  # steps
    habituation: int | None = None  # steps
    undo: bool = False  # take the last change back instead


def connect_configure(router: APIRouter, service: Service) -> None:
    """Add the route that applies settings to a stream."""

    @router.post(
        "/api/configure",
        tags=["streams"],
        summary="Apply settings to a stream, or take the last change back",
    )
    def configure(request: Request, change: SettingsChange) -> Response:
        feed = service.feed(change.source)
        given = given_settings(change)
        if change.undo and given:
            raise BodyError("undo", "either undo or settings to change", f"undo and {given}")
        if change.undo and not feed.undone:
            raise Problem(409, f"{feed.name} has no change of its settings to take back")
        before = feed.applied
        if change.undo:
            service.monitor.undo(feed.name)
        else:
            service.monitor.apply(feed.name, changed_settings(before, change))
        if service.monitor.thread and not service.monitor.wait_until_stored(
            feed.name, COMMIT_TIMEOUT
        ):
            late = "they will be on the disk once it can be written; do not send them again"
            raise Problem(
                503, f"{feed.name} runs under these settings; {late}", headers={"Retry-After": "5"}
            )
        settings = {"before": asdict(before), "applied": asdict(feed.applied)}
        if feed.applied != before:
            what = "undo" if change.undo else "apply"
            service.audit(request.state.who, what, feed.name, **settings)
        return json_answer({"source": feed.name, **settings})


def given_settings(change: Any) -> dict[str, Any]:
    """Return the settings that a body names, by name."""
    names = {field.name for field in fields(Settings)}
    return {
        name: value for name, value in asdict(change).items() if value is not None and name in names
    }


def refuse_no_settings(given: Mapping[str, Any]) -> None:
    """Refuse a body that names no setting."""
    if not given:
        directions = ", ".join(DIRECTIONS)
        wanted = f"a setting to change: detector, window, threshold, direction ({directions}), ..."
        raise BodyError("body", wanted, "none")


def changed_settings(before: Settings, change: SettingsChange) -> Settings:
    """Return the settings after a change; BodyError if it changes none."""
    given = given_settings(change)
    refuse_no_settings(given)
    return validate_settings(replace(before, **given))
