"""The route of submitted points."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Request, Response

from redline.api.doors import WANTED, refusals_of
from redline.api.problems import Problem, field_error, json_answer
from redline.api.service import COMMIT_TIMEOUT, Service
from redline.sources import payload
from redline.sources.arrow import is_arrow
from redline.sources.payload import SubmittedPoints
from redline.sources.point_bodies import is_wide, parse_arrow, parse_points, parse_wide
from redline.sources.pushed import (
    MAX_NAME_LENGTH,
    QueueFull,
    Receipt,
    SourceQuotaReached,
    SubmissionCounts,
    SubmissionRefused,
)
from redline.sources.samples import SampleBatch, TimeRange

# a bigger body, or one with more sources, is handled in a thread, so that it delays no others
Refused = tuple[str, SubmissionRefused]  # (source, error)
BIG_BODY_BYTES = 65_536
MANY_BODY_SOURCES = 20
SERIES_IN_BODY = (
    100  # sources in one body: if there are more, and each point is one value, they are series
)
WIDE_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["time", "values"],
    "additionalProperties": False,
    "properties": {
        "time": {"anyOf": [{"type": "number"}, {"type": "string"}]},
        "values": {"type": "object", "additionalProperties": {"type": ["number", "null"]}},
    },
    "description": "one number for each of many sources",
}
POINT_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["source", "time"],
    "additionalProperties": False,
    "properties": {
        "source": {
            "type": "string",
            "minLength": 1,
            "maxLength": MAX_NAME_LENGTH,
            "example": "oven",
        },
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
ANY_POINT = {"anyOf": [POINT_SCHEMA, WIDE_SCHEMA]}
ARROW_TYPE = "application/vnd.apache.arrow.stream"
SUBMIT_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "anyOf": [POINT_SCHEMA, WIDE_SCHEMA, {"type": "array", "items": ANY_POINT}]
                },
                "example": {"source": "oven", "time": 1767571200, "value": 20.5},
            },
            "application/x-ndjson": {"schema": {"type": "string"}},
            ARROW_TYPE: {
                "schema": {
                    "type": "string",
                    "format": "binary",
                    "description": "record batches with the columns source (utf8, or a dictionary "
                    "of it), time (timestamp, without a zone UTC; or seconds) and value (a number,"
                    " null where it is missing); or time, and a column of numbers for each source",
                }
            },
        },
    }
}


def connect_submit(router: APIRouter, service: Service) -> None:
    """Add the route that takes points in."""

    @router.post(
        "/api/submit",
        tags=["points"],
        summary="Points in: one, a list, columns, a line each, or a stream of Arrow",
        openapi_extra=SUBMIT_BODY,
    )
    async def submit(request: Request) -> Response:
        body = await request.body()
        kind = request.headers.get("content-type", "")
        if len(body) > BIG_BODY_BYTES:
            async with service.big_bodies:
                found = await asyncio.to_thread(read_body, service, body, kind)
        else:
            found = read_body(service, body, kind)
        return await submit_points(service, found, request.state.client)


def read_body(service: Service, body: bytes, kind: str) -> Sequence[SubmittedPoints] | SampleBatch:
    """Return the points of a body with a content type, by source or of series."""
    allowed = TimeRange(last=service.monitor.latest_time())
    if kind.startswith(ARROW_TYPE) or is_arrow(body):
        try:
            return parse_arrow(body, service.doors.directory, allowed)
        except ImportError as error:  # the extra that decompresses such bodies is not installed
            raise Problem(415, str(error)) from None
    document = payload.parse_document(body, lines="ndjson" in kind)
    batch = None
    if is_wide(document):
        batch = parse_wide(document, service.doors.directory, allowed)
    elif has_many_sources(document):
        batch = parse_points(document, service.doors.directory, allowed)
    if batch is None:
        return payload.parse_submission(document)
    return batch


def has_many_sources(document: Any) -> bool:
    """Return whether a body is a list of points of so many sources that they are series."""
    if not isinstance(document, list) or len(document) <= SERIES_IN_BODY:
        return False
    sources = (item.get("source") for item in document if isinstance(item, dict))
    return len({source for source in sources if isinstance(source, str)}) > SERIES_IN_BODY


# (source, receipt) of each part in a queue, (source, error) of each part refused
Submitted = tuple[list[tuple[str, Receipt]], list[Refused]]


async def submit_points(
    service: Service, found: Sequence[SubmittedPoints] | SampleBatch, client: str
) -> Response:
    """Submit points of a client, wait until they are committed and return the answer.

    The points of a source that is full or wrong are refused, those of the others are taken.
    """
    many = len(found) > MANY_BODY_SOURCES or isinstance(found, SampleBatch)
    if many:
        receipts, refused = await asyncio.to_thread(enqueue, service, found, client)
    else:
        receipts, refused = enqueue(service, found, client)
    if len(refused) == 1 and not receipts:
        raise refused[0][1]
    if receipts:
        await wait_committed([receipt for _, receipt in receipts])
    refuse_uncommitted(receipts)
    committed = [(source, receipt.result()) for source, receipt in receipts]
    if many:
        return await asyncio.to_thread(acknowledge_points, committed, refused)
    return acknowledge_points(committed, refused)


def enqueue(
    service: Service, found: Sequence[SubmittedPoints] | SampleBatch, client: str
) -> Submitted:
    """Put points into the queues of their sources or series."""
    if not isinstance(found, SampleBatch):
        return enqueue_points(service, found, client)
    receipts, refused = service.doors.submit(service.monitor, found, client, rates=False)
    left_out = refusals_of(found, service.doors.directory, tuple(WANTED))
    return receipts, [*(("", refusal) for refusal in (*found.refusals, *left_out)), *refused]


def enqueue_points(service: Service, parts: Sequence[SubmittedPoints], client: str) -> Submitted:
    """Put the points of each source into its queue; new sources count as created by the client."""
    receipts = []
    refused = []
    for part in parts:
        try:
            receipt = service.monitor.submit(part.source, part.time, part.x, part.names, client)
            receipts.append((part.source, receipt))
        except SubmissionRefused as error:
            refused.append((part.source, error))
    return receipts, refused


def refuse_uncommitted(receipts: Sequence[tuple[str, Receipt]]) -> None:
    """Raise a problem that names the sources whose points are not committed."""
    uncommitted = sorted(
        {source or "the series" for source, receipt in receipts if not_committed(receipt)}
    )
    if uncommitted:
        some = ", ".join(uncommitted[:10])
        raise Problem(
            503,
            f"not committed yet: {some}; send the same again, repeats are ignored",
            headers={"Retry-After": "5"},
        )


def not_committed(receipt: Receipt) -> bool:
    """Return whether the points of a receipt are not stored, or not yet."""
    return not receipt.done() or receipt.exception() is not None


async def wait_committed(receipts: Sequence[Receipt]) -> None:
    """Wait until all receipts are resolved, COMMIT_TIMEOUT at most.

    The event loop is called once, however many receipts there are.
    """
    loop = asyncio.get_running_loop()
    done = asyncio.Event()
    left = len(receipts)
    lock = threading.Lock()

    def count_down(_: Any) -> None:
        nonlocal left
        with lock:
            left -= 1
            if left:
                return
        with contextlib.suppress(RuntimeError):  # the loop is closed: no request waits any more
            loop.call_soon_threadsafe(done.set)

    for receipt in receipts:
        receipt.add_done_callback(count_down)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(done.wait(), COMMIT_TIMEOUT)


def acknowledge_points(
    taken: Sequence[tuple[str, SubmissionCounts]], refused: Sequence[tuple[str, SubmissionRefused]]
) -> Response:
    """Return the counts of the points taken, in total and by source; of series in total alone.

    Raises a problem with the errors, and the counts if there are any, if a source was refused.
    """
    sources: dict[str, SubmissionCounts] = {}
    for source, counts in taken:
        before = sources.get(source, (0, 0, 0))
        sources[source] = SubmissionCounts(*(a + b for a, b in zip(before, counts)))
    total = SubmissionCounts(*map(sum, zip((0, 0, 0), *sources.values())))
    report = {
        **total._asdict(),
        "sources": {source: counts._asdict() for source, counts in sources.items() if source},
    }
    if not refused:
        return json_answer(report)
    kinds = {type(error) for _, error in refused}
    status = 429 if QueueFull in kinds else 403 if kinds == {SourceQuotaReached} else 422
    problem = Problem(
        status,
        f"{len(refused)} of {len(taken) + len(refused)} sources refused",
        [
            {"source": source, **field_error(error.field, error.wanted, error.came)}
            for source, error in refused
        ],
    )
    problem.more = report if taken else {}
    raise problem
