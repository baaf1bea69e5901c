"""The consumer of a broker's records, as the feeder asks for it: Kafka, Redis or MQTT.

A consumer gives records, keeps in mind which of them are not committed yet, and commits those that
it is asked to. It never raises for what goes wrong at the broker: it says so in `trouble`, tries
again by itself, and gives no records meanwhile.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Protocol

from redline.sources.payload import SINGLE_FEATURE, to_json

NUMBER_BYTES = re.compile(rb"\s*[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?\s*")


class Record(Protocol):
    """What came, until it is committed."""

    def value(self) -> bytes | None: ...


class Consumer(Protocol):
    """Reads records; for one thread."""

    trouble: str  # why nothing comes, "" = nothing is wrong

    def read(self, most: int, seconds: float) -> Sequence[Any]:
        """Return what has come, about so many at most; wait for the first for so many seconds."""

    def hold(self, held: bool) -> None:
        """Let nothing come, or let it come again; the broker still knows that we are here."""

    def mark(self, records: Sequence[Any]) -> None:
        """Commit records; if the broker is away, later or never: then they are read again."""

    def set_aside(self, record: Any, reason: str) -> Future[None] | None:
        """Write a record that was refused to where such records go; None = there is no such place.

        The future fails with OSError where it cannot be written.
        """

    def poll(self) -> None:
        """Resolve the futures of what is written, and send what waits."""

    def where(self, record: Any) -> str:
        """Return where a record was read, for a sentence."""

    def state(self) -> Mapping[str, Any]:
        """Return how it goes, as JSON."""

    def close(self) -> None:
        """Commit what is marked and leave the broker."""


class ConsumerOptions(Protocol):
    """What is read, and how."""

    @property
    def kind(self) -> str:
        """Return the name of such brokers, as sentences have it."""

    def connect(self, wall: Callable[[], float]) -> Consumer:
        """Return a consumer; `wall` gives the time of arrival, in seconds since the Unix epoch."""

    def describe(self) -> dict[str, Any]:
        """Return what is read, as JSON and without secrets; then the state before any is known."""


def read_number(text: bytes) -> float | str:
    """Return a number; the text itself where it is none, or too large to be held.

    >>> [read_number(text) for text in (b" 20.5", b"-1e3", b"hot", b"1e999")]
    [20.5, -1000.0, 'hot', '1e999']
    """
    number = float(text) if NUMBER_BYTES.fullmatch(text) else math.inf
    return text.decode(errors="replace") if math.isinf(number) else number


def write_event(source: str, moment: float | str, fields: Mapping[str, Any]) -> bytes:
    """Return the JSON event of a point whose numbers are among some fields; None = missing.

    Fields that are no numbers are left out. If none is one, the event says so when it is read.

    >>> write_event("oven", 60, {"value": 20.5, "unit": "C"})
    b'{"source":"oven","time":60,"value":20.5}'
    >>> write_event("mill", 60, {"heat": 20.5, "load": 3})
    b'{"source":"mill","time":60,"values":{"heat":20.5,"load":3}}'
    """
    numbers = {
        name: value
        for name, value in fields.items()
        if value is None or type(value) in (int, float)
    }
    (single,) = SINGLE_FEATURE
    event: dict[str, Any] = {"source": source, "time": moment}
    if numbers.keys() == {single} or (not numbers and single in fields):
        event[single] = fields[single]
    else:
        event["values"] = numbers
    return to_json(event)
