"""The routes of settings rules: settings of many series at once."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Path, Request, Response

from redline.api.problems import Problem, json_answer
from redline.api.routes.configure import given_settings, refuse_no_settings
from redline.api.service import Service
from redline.engine.fleet.settings_rules import EVERY_SERIES, SettingsRule


@dataclass
class RuleBody:
    """Settings to apply to all series that a selector takes; those left out stay as they are."""

    select: str  # a selector such as {job="web"}; {} = all series
    detector: str | None = None
    window: int | None = None  # steps
    threshold: float | None = None  # standard deviations
    direction: str | None = None
    refractory: int | None = None  # steps
    habituation: int | None = None  # steps


def connect_rules(router: APIRouter, service: Service) -> None:
    """Add the routes that list, add and remove rules."""
    series = service.monitor.series

    def document(rule: SettingsRule) -> dict[str, Any]:
        return {
            **rule._asdict(),
            "left": series.rule_work.left(rule.id),
        }

    @router.get(
        "/api/rules",
        tags=["streams"],
        summary="The rules of settings, in the order in which they apply",
    )
    def listed() -> Response:
        return json_answer({"rules": [document(rule) for rule in series.rules.rules.values()]})

    @router.post(
        "/api/rules",
        tags=["streams"],
        summary="Apply settings to all series that a selector takes, and to those that come later",
        status_code=201,
    )
    def add(request: Request, body: RuleBody) -> Response:
        given = given_settings(body)
        refuse_no_settings(given)
        rule = series.rules.add(body.select, given, request.state.who, time.time())
        series.apply_rule(rule)
        service.monitor.wake.set()
        detail = {"id": rule.id, "select": rule.select, "settings": rule.settings}
        service.audit(request.state.who, "set a rule of settings", None, **detail)
        return json_answer({**document(rule), "matched": count_matched(service, rule)}, 201)

    @router.delete(
        "/api/rules/{id}",
        tags=["streams"],
        summary="Remove a rule of settings; series keep the settings they have",
    )
    def remove(request: Request, id: Annotated[int, Path(ge=1, le=2**62)]) -> Response:
        try:
            rule = series.rules.remove(id)
        except KeyError:
            raise Problem(404, f"there is no rule {id}") from None
        service.audit(request.state.who, "removed a rule of settings", None, id=id)
        return json_answer(rule._asdict())


def count_matched(service: Service, rule: SettingsRule) -> int:
    """Return how many of the series that are there a rule takes."""
    roster = service.monitor.series.roster
    if rule.select == EVERY_SERIES:
        return len(roster)
    numbers = np.flatnonzero(roster["fleet"][: roster.size] >= 0)
    return int(np.count_nonzero(service.lanes.index.matching(numbers, rule.select)))
