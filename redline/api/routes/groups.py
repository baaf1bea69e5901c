"""The routes of groups: incidents of many series that began together."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from redline.api.problems import json_answer
from redline.api.service import Service
from redline.engine.wording import SEVERITIES
from redline.incidents.correlation import IncidentGroup
from redline.sources.payload import BodyError

MAX_SHOWN_MEMBERS = 200  # of one group in an answer


def connect_groups(router: APIRouter, service: Service) -> None:
    """Add the route that lists groups of incidents."""

    @router.get(
        "/api/groups",
        tags=["incidents"],
        summary="Incidents of many series that began together, the newest first",
    )
    def groups(
        limit: Annotated[int, Query(ge=1, le=1_000)] = 50,
        after: Annotated[str, Query(description="`next` of the page before")] = "",
    ) -> Response:
        found = service.joint.groups()
        places = {group.id: place for place, group in enumerate(found)}
        if after and after not in places:
            wanted = "the id of a group that is there, or none to begin again"
            raise BodyError("after", wanted, after)
        first = places[after] + 1 if after else 0
        page = found[first : first + limit]
        more = len(found) > first + limit
        return json_answer(
            {
                "groups": [group_document(group) for group in page],
                "total": len(found),
                "next": page[-1].id if more else None,
            }
        )


def group_document(group: IncidentGroup) -> dict[str, Any]:
    """Return the document of a group; of very many members the first ones are listed."""
    members = [
        {
            "source": member.stream,
            "incident": member.incident,
            "time": member.time,
            "severity": member.severity,
        }
        for member in group.members[:MAX_SHOWN_MEMBERS]
    ]
    label, value = group.cause
    return {
        "id": group.id,
        "sentence": group.sentence,
        "label": label,
        "value": value,
        "carriers": group.carriers,
        "count": len(group.members),
        "start": group.first.time,
        "end": group.members[-1].time,
        "first": group.first.stream,
        "severity": max((m.severity for m in group.members), key=SEVERITIES.index),
        "shared": dict(group.shared),
        "over": group.over,
        "members": members,
    }
