"""The feeder with a played consumer: no offset is marked before its points are kept."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple

import pytest

from redline.api import topic_feeder
from redline.api.doors import Doors
from redline.api.topic_feeder import TopicEnded, TopicFeeder
from redline.engine.monitor import Limits, Monitor
from redline.sources.directory import SeriesDirectory
from redline.sources.kafka import TopicConsumer, TopicOptions
from redline.sources.pushed import SubmissionRefused

START = 1_767_571_200.0  # seconds since the epoch
OPTIONS = TopicOptions("a:1", "metrics", "g", "dead")


class Message(NamedTuple):
    """A record as the library gives it."""

    content: bytes | None
    place: int
    where: int = 0

    def value(self) -> bytes | None:
        return self.content

    def key(self) -> bytes | None:
        return b"key"

    def partition(self) -> int:
        return self.where

    def offset(self) -> int:
        return self.place


class PlayedProducer:
    """Notes the dead letters; the test says when they are written."""

    def __init__(self) -> None:
        self.letters: list[tuple[Any, ...]] = []
        self.written: list[Future[None]] = []

    def write(self, *letter: Any) -> Future[None]:
        self.letters.append(letter)
        self.written.append(Future())
        return self.written[-1]

    def poll(self) -> None:
        pass


class PlayedConsumer:
    """Gives what the test says, and notes what is marked."""

    set_aside = TopicConsumer.set_aside
    poll = TopicConsumer.poll
    where = TopicConsumer.where

    def __init__(self) -> None:
        self.options = OPTIONS
        self.letters = PlayedProducer()
        self.coming: list[Message] = []
        self.marked: dict[int, int] = {}
        self.held = False
        self.trouble = ""

    def read(self, most: int, seconds: float) -> list[Message]:
        if self.held:
            return []
        found, self.coming = self.coming[:most], self.coming[most:]
        return found

    def hold(self, held: bool) -> None:
        self.held = held

    def mark(self, records: Sequence[Message]) -> None:
        self.marked.update({each.where: each.place + 1 for each in records})

    def state(self) -> Mapping[str, Any]:
        return {}

    def close(self) -> None:
        pass


class Played:
    """A feeder whose threads the test plays."""

    def __init__(self, **limits: int) -> None:
        directory = SeriesDirectory()
        self.monitor = Monitor(
            {}, wall=lambda: START + 10_000, directory=directory, limits=Limits(**limits)
        )
        self.feeder: Any = TopicFeeder(OPTIONS, self.monitor, Doors(directory))
        self.consumer: Any = PlayedConsumer()
        self.letters = self.consumer.letters
        self.sent = 0

    def send(self, *records: bytes, partition: int = 0) -> None:
        for record in records:
            self.consumer.coming.append(Message(record, self.sent, partition))
            self.sent += 1

    def turn(self) -> dict[str, Any]:
        self.feeder.turn(self.consumer)
        found: dict[str, Any] = self.feeder.report()
        return found

    def commit(self) -> None:
        self.monitor.process_pushed()
        while self.monitor.series.has_work:
            self.monitor.process_pushed()


def event(at: int, source: str = "oven", **values: Any) -> bytes:
    found = {"source": source, "time": START + at, **(values or {"value": at})}
    return json.dumps(found).encode()


def test_an_offset_is_marked_when_its_points_and_all_before_them_are_kept() -> None:
    played = Played()
    played.send(event(0), event(0, "mill", values={"x": 1, "y": 2}))
    assert played.turn()["waiting"] == 2 and not played.consumer.marked
    played.send(event(1), partition=1)
    played.turn()
    played.commit()
    report = played.turn()
    assert played.consumer.marked == {0: 2, 1: 3}
    assert (report["records"], report["points"], report["waiting"]) == (3, 3, 0)
    played.send(event(0), event(1), event(2))
    played.turn()
    played.commit()
    report = played.turn()
    assert (report["points"], report["repeated"], report["late"]) == (4, 2, 0)


def test_a_refused_record_is_marked_when_its_dead_letter_is_written() -> None:
    played = Played()
    played.send(event(0), b"hello", event(1, "overview"), event(2))
    report = played.turn()
    played.commit()
    played.turn()
    assert not played.consumer.marked and report["refused"] == 2
    topic, value, key, headers = played.letters.letters[0]
    assert (topic, value, key) == ("dead", b"hello", b"key")
    assert dict(headers)["offset"] == b"1" and b"wanted JSON" in dict(headers)["reason"]
    played.letters.written[0].set_result(None)
    played.letters.written[1].set_exception(OSError("there is no such topic"))
    report = played.turn()
    assert played.consumer.marked == {0: 4}, "a letter that is lost does not stop the partition"
    assert (report["dead_letters"], report["dead_letters_lost"]) == (1, 1)


def test_a_source_of_a_topic_that_is_refused_takes_only_its_own_records_with_it() -> None:
    played = Played(streams=1)
    played.send(*(event(at, "mill", values={"x": at, "y": 2}) for at in range(3)))
    played.send(event(3, "mill", values={"z": 1, "x": 2}))
    played.turn()
    played.commit()
    played.send(event(4, "mill", values={"x": 1, "y": 2}), event(5, "saw", values={"x": 1, "y": 2}))
    report = played.turn()
    assert report["refused"] == 1 and "at most 1 pushed sources" in report["last_refusal"]


def test_points_whose_turn_failed_are_submitted_again(monkeypatch: pytest.MonkeyPatch) -> None:
    played = Played()
    played.send(event(0), event(1, "mill", values={"x": 1, "y": 2}))
    played.turn()
    played.monitor.series.abandon(RuntimeError("a turn failed"))
    played.monitor.feeds["mill"].stream.abandon(ConnectionAbortedError("forgotten"))
    played.turn()
    assert not played.consumer.marked
    played.turn()
    played.commit()
    report = played.turn()
    assert played.consumer.marked == {0: 2} and report["refused"] == 0 and report["waiting"] == 0
    assert played.monitor.totals.points == 2


def test_what_does_not_fit_waits_and_is_not_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    played = Played()
    monkeypatch.setattr(topic_feeder, "PIECE_POINTS", 10)
    monkeypatch.setattr(played.monitor.budget, "limit", 25)
    played.send(*(event(at) for at in range(100)))
    waits = []

    def read_while_full(most: int, seconds: float) -> list[Message]:
        waits.append(seconds)
        played.commit()
        return []

    read = played.consumer.read
    monkeypatch.setattr(
        played.consumer,
        "read",
        lambda most, seconds: (
            read_while_full(most, seconds) if played.consumer.held else read(most, seconds)
        ),
    )
    played.turn()
    played.commit()
    report = played.turn()
    assert waits and report["points"] == 100 and played.consumer.marked == {0: 100}
    assert played.monitor.series.unscored("refused") == 0


def test_nothing_is_marked_or_refused_when_the_monitor_ends_first() -> None:
    played = Played()
    played.send(event(0), event(1, "mill", values={"x": 1, "y": 2}))
    played.monitor.stopping.set()
    with pytest.raises(TopicEnded):
        played.turn()
    assert not played.consumer.marked and not played.letters.letters
    assert played.feeder.report()["refused"] == 0


def test_a_removed_source_is_refused_once_it_waits_no_more() -> None:
    played = Played()
    played.send(event(0, "mill", values={"x": 1, "y": 2}))
    played.turn()
    refusal = SubmissionRefused("source", "a source that is there", "'mill', removed")
    played.monitor.feeds["mill"].stream.abandon(refusal)
    report = played.turn()
    assert report["refused"] == 1 and len(played.letters.letters) == 1
    played.letters.written[0].set_result(None)
    played.turn()
    assert played.consumer.marked == {0: 1}
