"""Records of a topic: every form is read, and what is wrong with one is said of that one alone."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from redline.sources.arrow_writer import write_arrow
from redline.sources.directory import SeriesDirectory
from redline.sources.records import MAX_RECORD, ReaderTurn, RecordPoints, RecordReader
from redline.sources.samples import TimeRange

START = 1_767_571_200  # seconds since the epoch


def event(source: Any = "oven", time: Any = START, **values: Any) -> bytes:
    return json.dumps({"source": source, "time": time, **(values or {"value": 1})}).encode()


class Read:
    """What was read, with the names of the series."""

    def __init__(self, *records: bytes | None, series: int = 100) -> None:
        self.directory = SeriesDirectory(max_series=series)
        allowed = TimeRange(last=START + 1_000.0)
        self.found: RecordPoints = RecordReader(self.directory).read(records, allowed)

    @property
    def rows(self) -> list[tuple[str | None, float, float, int]]:
        found = self.found
        names = [self.directory.texts[number] for number in found.series.tolist()]
        columns = (found.time - START, found.value, found.owner)
        return list(zip(names, *(column.tolist() for column in columns)))

    @property
    def reasons(self) -> dict[int, str]:
        assert len({each.place for each in self.found.refused}) == len(self.found.refused)
        return {each.place: each.reason for each in self.found.refused}


def test_single_numbers_of_every_form_are_samples_in_the_order_in_which_they_came() -> None:
    listed = b"[" + event("a", START + 1) + b"," + event("b") + b"]"
    lines = event("a", START + 2) + b"\n\n" + event("b", START + 1)
    columns = event("a", [START + 3, START + 4], value=[5, None])
    wide = json.dumps({"time": START + 5, "values": {"a": 6, "b": 7}}).encode()
    block = write_arrow(["a", "b"], START + np.array([6.0]), np.array([[8.0, np.nan]]))
    read = Read(event("a"), listed, lines, columns, wide, block, event("a", START + 7))
    assert not read.reasons and not read.found.sources
    of_a = [(time, owner) for name, time, _, owner in read.rows if name == "a"]
    assert of_a == [(0, 0), (1, 1), (2, 2), (3, 3), (4, 3), (5, 4), (6, 5), (7, 6)]
    assert [(time, owner) for name, time, _, owner in read.rows if name == "b"] == [
        (0, 1),
        (1, 2),
        (5, 4),
        (6, 5),
    ]
    assert np.isnan([row[2] for row in read.rows]).sum() == 2


def test_several_features_are_points_of_a_source_with_the_place_of_their_record() -> None:
    records = [event(name, START + at, values={"x": at, "y": 2}) for at, name in enumerate("aba")]
    read = Read(*records, event("c", [START, START + 1], values={"p": [1, 2], "q": [3, 4]}))
    found = {each.points.source: each for each in read.found.sources}
    assert found["a"].owner.tolist() == [0, 2] and found["a"].points.x.tolist() == [[0, 2], [2, 2]]
    assert found["b"].owner.tolist() == [1]
    assert found["c"].owner.tolist() == [3, 3] and found["c"].points.names == ("p", "q")
    assert not read.reasons and not read.rows


POISON = {
    b"hello": "wanted JSON",
    b"": "a record with a value",
    b"[]": "one point or more",
    b"7": "an object such as",
    event(3): "source: wanted a text",
    event("oven", "soon"): "time: wanted Unix seconds",
    event("oven", value="hot"): "value: wanted a number",
    event("oven", value=1e80): "numbers up to",
    event("oven", values={}): "one feature or more",
    event("oven", value=1, more=2): "no other field than",
    event("oven", START + 5_000): "time out of range",
    event("overview"): "a name that Redline does not use itself",
    event(" "): "printable characters",
    b"{" + b'"a":{' * 2_000 + b"}" * 2_001: "wanted",
    b"\xff\xff\xff\xff\x00\x00\x01\x00": "a whole stream",
}


@pytest.mark.parametrize("poison", POISON, ids=lambda poison: poison[:40].decode("latin-1"))
def test_one_poisoned_record_among_many_is_refused_by_itself(poison: bytes) -> None:
    records = [event("oven", START + at) for at in range(40)]
    many = [event("mill", START + at, values={"x": 1, "y": 2}) for at in range(10)]
    records[17] = poison
    read = Read(*records, *many, None)
    assert set(read.reasons) == {17, 50} and POISON[poison] in read.reasons[17]
    assert [owner for *_, owner in read.rows] == [at for at in range(40) if at != 17]
    assert sum(len(each.owner) for each in read.found.sources) == 10


def test_of_a_record_of_many_points_those_that_are_right_are_taken_and_the_rest_is_said() -> None:
    wide = json.dumps({"time": START, "values": {"a": 1, "overview": 2, "b": 3}}).encode()
    read = Read(wide, event("c"), series=2)
    assert [(name, owner) for name, *_, owner in read.rows] == [("a", 0), ("b", 0)]
    assert read.reasons[0].startswith("1 of its 3 points are left out: source: ")
    assert "wanted at most 2 names of sources" in read.reasons[1]


def test_a_record_that_is_too_large_is_refused_before_it_is_parsed() -> None:
    read = Read(b" " * (MAX_RECORD + 1), event())
    assert "at most" in read.reasons[0] and len(read.rows) == 1


def test_halves_of_json_do_not_become_whole_by_standing_side_by_side() -> None:
    halves = event() + b"," + event(), b"[" + event(), event() + b"]"
    read = Read(*halves)
    assert set(read.reasons) == {0, 1, 2} and not read.rows


DEEP = b"[" * 1_000 + b"]" * 1_000


@pytest.mark.parametrize(
    "poison",
    [
        b'{"source":"x","time":1,"a":%b}' % DEEP,
        b'{"source":"x","time":1,"value":%b}' % DEEP,
        b'{"source":%b,"time":1,"value":1}' % DEEP,
        b'{"time":1,"values":{"x":%b}}' % DEEP,
        DEEP,
        b"[" * 100_000,
    ],
)
def test_a_record_that_is_nested_deeply_is_refused_by_itself(poison: bytes) -> None:
    read = Read(event("a"), poison, event("a", START + 1))
    assert [row[3] for row in read.rows] == [0, 2]
    assert len(read.reasons[1].split()) > 3 and len(read.reasons[1]) < 500


def test_a_record_on_which_reading_fails_is_refused_and_the_others_count_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    add_batch = ReaderTurn.add_batch

    def fails(turn: ReaderTurn, place: int, batch: Any) -> None:
        add_batch(turn, place, batch)
        if place == 1:
            raise IndexError("a fault of the reader")

    monkeypatch.setattr(ReaderTurn, "add_batch", fails)
    listed = [b"[" + event("a", START + at) + b"]" for at in range(3)]
    read = Read(*listed)
    assert [(time, owner) for _, time, _, owner in read.rows] == [(0, 0), (2, 2)]
    assert "one on which reading fails (IndexError)" in read.reasons[1]
