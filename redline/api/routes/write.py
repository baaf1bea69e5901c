"""The routes that other programs already know: Prometheus remote write, Influx line protocol."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response

from redline.api.doors import refusals_of, unpack_gzip
from redline.api.problems import Problem, field_error
from redline.api.routes.submit import refuse_uncommitted, wait_committed
from redline.api.service import Service
from redline.sources.influx import read_line_protocol
from redline.sources.prometheus import WRITE_V1, read_remote_write
from redline.sources.pushed import QueueFull, SubmissionRefused
from redline.sources.samples import NO_ROOM, REASONS, SampleBatch, TimeRange

MAX_ERRORS = 10  # refusals that an answer lists; all are counted in /api/status
WRITTEN = "X-Prometheus-Remote-Write-Samples-Written"  # as version 2.0 of remote write asks for
PROTOBUF_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/x-protobuf": {"schema": {"type": "string", "format": "binary"}}},
    }
}
LINES_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "text/plain": {
                "schema": {"type": "string"},
                "example": "room,host=a temperature=20.5 1767571200000000000",
            }
        },
    }
}
Precision = Annotated[Literal["ns", "us", "ms", "s"], Query(description="unit of the times")]


def connect_write(router: APIRouter, service: Service) -> None:
    """Add the routes; each series is a stream, named as Prometheus writes it."""

    @router.post(
        "/api/v1/write",
        tags=["points"],
        summary="Prometheus remote write 1.0 and 2.0; counters become rates a second",
        status_code=204,
        openapi_extra=PROTOBUF_BODY,
    )
    async def remote_write(request: Request) -> Response:
        body = await request.body()
        version = message_version(request.headers.get("content-type", ""))

        def read() -> SampleBatch:
            return read_remote_write(body, service.doors.directory, version, times_now(service))

        return await take_batch(service, read, request.state.client, rates=True)

    @router.post(
        "/api/v2/write",
        tags=["points"],
        summary="Influx line protocol, as Telegraf and Home Assistant send it",
        status_code=204,
        openapi_extra=LINES_BODY,
    )
    async def write_lines(request: Request, precision: Precision = "ns") -> Response:
        body = await request.body()
        packed = request.headers.get("content-encoding", "") == "gzip"

        def read() -> SampleBatch:
            lines = unpack_gzip(body) if packed else body
            now = service.monitor.wall()
            directory = service.doors.directory
            return read_line_protocol(lines, directory, now, precision, times_now(service))

        return await take_batch(service, read, request.state.client, rates=False)


def message_version(content_type: str) -> str:
    """Return the message that a content type names.

    >>> message_version("application/x-protobuf;proto=io.prometheus.write.v2.Request")
    'io.prometheus.write.v2.Request'
    >>> message_version("application/x-protobuf")
    'prometheus.WriteRequest'
    """
    for part in content_type.split(";")[1:]:
        name, _, value = part.strip().partition("=")
        if name.lower() == "proto":
            return value.strip('" ')
    return WRITE_V1


def times_now(service: Service) -> TimeRange:
    """Return the times that are taken now."""
    return TimeRange(last=service.monitor.latest_time())


async def take_batch(
    service: Service, read: Callable[[], SampleBatch], client: str, rates: bool
) -> Response:
    """Read a batch, wait until its points are committed, and answer.

    What cannot be taken now is a 429 or 503: the same can be sent again, repeats are ignored. What
    can never be taken is a 400 once the rest is committed, since the sender must not repeat it.
    """
    async with service.big_bodies:
        try:
            receipts, refused, batch = await asyncio.to_thread(
                submit_batch, service, read, client, rates
            )
        except ImportError as error:  # the extra that reads such bodies is not installed
            raise Problem(415, str(error)) from None
    if receipts:
        await wait_committed([receipt for _, receipt in receipts])
    refuse_uncommitted(receipts)
    written = sum(sum(receipt.result()) for _, receipt in receipts)
    headers = {WRITTEN: str(written)}
    full = [error for _, error in refused if isinstance(error, QueueFull)]
    if full:
        raise Problem(429, f"not all is taken; {full[0]}", headers={"Retry-After": "1"})
    no_room = refusals_of(batch, service.doors.directory, (REASONS[NO_ROOM],))
    errors = [("", error) for error in (*batch.refusals, *no_room)] + refused
    if errors:
        raise refused_problem(errors, written)
    return Response(status_code=204, headers=headers)


def submit_batch(
    service: Service, read: Callable[[], SampleBatch], client: str, rates: bool
) -> tuple[list[Any], list[tuple[str, SubmissionRefused]], SampleBatch]:
    """Read a batch and put its points into the queues of their sources."""
    batch = read()
    found = service.doors.submit(service.monitor, batch, client, rates)
    return found.taken, found.refused, batch


def refused_problem(errors: Sequence[tuple[str, SubmissionRefused]], written: int) -> Problem:
    """Return the problem of samples that can never be taken."""
    shown = [
        {"source": source, **field_error(error.field, error.wanted, error.came)}
        for source, error in errors[:MAX_ERRORS]
    ]
    problem = Problem(
        400,
        f"{written:,} samples are written, some are refused for good: {errors[0][1]}",
        shown,
        {WRITTEN: str(written)},
    )
    problem.more = {"written": written}
    return problem
