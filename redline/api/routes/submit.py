"""The route that takes points in."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Request, Response

from redline.api import payload
from redline.api.payload import SubmittedPoints
from redline.api.problems import Problem, field_error, json_answer
from redline.api.service import COMMIT_PATIENCE, Service
from redline.sources.pushed import QueueFull, Receipt, SubmissionCounts, SubmissionRefused

BIG_BODY_BYTES = (
    65_536  # bytes of a body from which it is read in a thread, so that others do not wait
)
MANY_BODY_SOURCES = 20  # sources of a body from which they are handed over in a thread
POINT_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["source", "time"],
    "additionalProperties": False,
    "properties": {
        "source": {"type": "string", "minLength": 1, "maxLength": 200, "example": "oven"},
        "time": {
            "anyOf": [
                {"type": "number"},
                {"type": "string"},
                {"type": "array", "items": {"anyOf": [{"type": "number"}, {"type": "string"}]}},
            ],
            "description": "Unix seconds or ISO 8601; a list of them with a list of values",
        },
        "value": {
            "anyOf": [
                {"type": "number"},
                {"type": "null"},
                {"type": "array", "items": {"type": ["number", "null"]}},
            ]
        },
        "values": {
            "type": "object",
            "additionalProperties": True,
            "description": "a number, or a list of them, for each feature",
        },
    },
}
SUBMIT_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {"anyOf": [POINT_SCHEMA, {"type": "array", "items": POINT_SCHEMA}]},
                "example": {"source": "oven", "time": 1767571200, "value": 20.5},
            },
            "application/x-ndjson": {"schema": {"type": "string"}},
        },
    }
}


def connect_submit(router: APIRouter, service: Service) -> None:
    @router.post(
        "/api/submit",
        tags=["points"],
        summary="Points in: one, a list, columns, or a line each",
        openapi_extra=SUBMIT_BODY,
    )
    async def submit(request: Request) -> Response:
        body = await request.body()
        lines = "ndjson" in request.headers.get("content-type", "")
        parts = (
            await asyncio.to_thread(read_body, body, lines)
            if len(body) > BIG_BODY_BYTES
            else read_body(body, lines)
        )
        return await submit_points(service, parts)


def read_body(body: bytes, lines: bool) -> list[SubmittedPoints]:
    return payload.parse_submission(payload.parse_document(body, lines))


Submitted = tuple[
    list[tuple[str, Receipt]], list[tuple[str, SubmissionRefused]]
]  # by source: what will be safe, what was not taken


async def submit_points(service: Service, parts: Sequence[SubmittedPoints]) -> Response:
    """Hands the points over and waits until they are committed; a source that is full or wrong
    leaves the others in.
    """
    many = len(parts) > MANY_BODY_SOURCES
    receipts, refused = (
        await asyncio.to_thread(hand_over, service, parts) if many else hand_over(service, parts)
    )
    if len(refused) == 1 == len(parts):
        raise refused[0][1]
    if receipts:
        await wait_committed([receipt for _, receipt in receipts])
    late = sorted(
        {source for source, receipt in receipts if not receipt.done() or receipt.exception()}
    )
    if late:
        raise Problem(
            503,
            f"not committed yet: {', '.join(late[:10])}; send the same again, repeats are ignored",
            headers={"Retry-After": "5"},
        )
    told = [(source, receipt.result()) for source, receipt in receipts]
    return (
        await asyncio.to_thread(acknowledge_points, told, refused)
        if many
        else acknowledge_points(told, refused)
    )


def hand_over(service: Service, parts: Sequence[SubmittedPoints]) -> Submitted:
    receipts = []
    refused = []
    for part in parts:
        try:
            receipts.append(
                (part.source, service.monitor.submit(part.source, part.time, part.x, part.names))
            )
        except SubmissionRefused as error:
            refused.append((part.source, error))
    return receipts, refused


async def wait_committed(receipts: Sequence[Receipt]) -> None:
    """Waits until all are resolved, or PATIENCE is over: one call into the event loop, however many
    there are.
    """
    loop = asyncio.get_running_loop()
    done = asyncio.Event()
    left = len(receipts)
    lock = threading.Lock()

    def one_less(_: Any) -> None:
        nonlocal left
        with lock:
            left -= 1
            if left:
                return
        with contextlib.suppress(RuntimeError):  # the loop has closed: no request waits any more
            loop.call_soon_threadsafe(done.set)

    for receipt in receipts:
        receipt.add_done_callback(one_less)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(done.wait(), COMMIT_PATIENCE)


def acknowledge_points(
    taken: Sequence[tuple[str, SubmissionCounts]], refused: Sequence[tuple[str, SubmissionRefused]]
) -> Response:
    """What became of the points, together and source by source."""
    sources: dict[str, SubmissionCounts] = {}
    for source, each in taken:
        sources[source] = SubmissionCounts(
            *(a + b for a, b in zip(sources.get(source, (0, 0, 0)), each))
        )
    whole = {
        **SubmissionCounts(*map(sum, zip((0, 0, 0), *sources.values())))._asdict(),
        "sources": {source: each._asdict() for source, each in sources.items()},
    }
    if not refused:
        return json_answer(whole)
    problem = Problem(
        429 if any(isinstance(e, QueueFull) for _, e in refused) else 422,
        f"{len(refused)} of {len(taken) + len(refused)} sources refused",
    )
    problem.errors = [
        {"source": source, **field_error(error.field, error.wanted, error.came)}
        for source, error in refused
    ]
    problem.more = whole if taken else {}
    raise problem
