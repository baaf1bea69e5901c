"""Bodies with points of many sources: the wide form and single points."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redline.sources.directory import SeriesDirectory
from redline.sources.payload import BodyError, parse_document, parse_submission, to_json
from redline.sources.point_bodies import is_wide, parse_points, parse_wide
from redline.sources.samples import TimeRange

NOW = 1_767_571_200


def listed(batch, directory):
    texts = [directory.texts[number] for number in batch.series]
    return list(zip(texts, batch.time.tolist(), batch.value.tolist(), strict=True))


def test_the_wide_form_alone_in_a_list_and_in_lines():
    first = {"time": NOW, "values": {"oven": 20.5, "pump": 3}}
    second = {"time": "2026-01-05T00:01:00Z", "values": {"oven": 21}}
    expected = [("oven", NOW, 20.5), ("pump", NOW, 3.0), ("oven", NOW + 60, 21.0)]
    directory = SeriesDirectory()
    assert listed(parse_wide(first, directory), directory) == expected[:2]
    body = to_json(first) + b"\n" + to_json(second)
    for both in ([first, second], parse_document(body, lines=True), parse_document(body)):
        assert is_wide(both)
        assert listed(parse_wide(both, directory), directory) == expected


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"time": NOW, "values": {"a": "1"}}, "values"),
        ({"time": NOW, "values": {"a": True}}, "values"),
        ({"time": NOW, "values": {"a": [1]}}, "values"),
        ({"time": NOW, "values": {"a": {"b": 1}}}, "values"),
        ({"time": NOW, "values": {"a": 1e76}}, "values"),
        ({"time": NOW, "values": [1]}, "values"),
        ({"time": "soon", "values": {"a": 1}}, "time"),
        ({"time": None, "values": {"a": 1}}, "time"),
        ({"time": NOW, "values": {"a": 1}, "more": 2}, "body"),
        ({"values": {"a": 1}}, "body"),
        ([{"time": NOW, "values": {"a": 1}}, 5], "[1]"),
        ([{"time": NOW, "values": {"a": 1}}, {"time": "x", "values": {}}], "[1].time"),
    ],
)
def test_a_wrong_wide_body_names_the_part(body, field):
    directory = SeriesDirectory()
    with pytest.raises(BodyError) as caught:
        parse_wide(body, directory)
    assert caught.value.field.startswith(field)
    assert not directory.texts


def test_which_bodies_are_wide():
    assert is_wide({"time": 1, "values": {}})
    assert not is_wide({"source": "a", "time": 1, "values": {"x": 1}})
    assert not any(map(is_wide, ([], 5, None, [5], {"time": 1}, "values")))


def test_a_name_that_is_not_allowed_is_left_out_and_counted():
    values = {"ok": 1, "": 2, "a\u200bb": 3, "wave": 4, "x" * 501: 5, " ok ": 6}
    directory = SeriesDirectory()
    for _ in range(2):  # the second time too
        batch = parse_wide({"time": NOW, "values": values}, directory)
        assert listed(batch, directory) == [("ok", NOW, 1.0), ("ok", NOW, 6.0)]
        assert batch.left_out == {"invalid series": 4} and len(batch.refusals) == 4
    full = SeriesDirectory(max_series=1)
    for _ in range(2):
        batch = parse_wide({"time": NOW, "values": {"a": 1, "b": 2}}, full)
        assert listed(batch, full) == [("a", NOW, 1.0)]
        assert "at most 1 names" in str(batch.refusals[0])


def test_a_time_out_of_range_is_counted():
    directory = SeriesDirectory()
    body = [{"time": NOW + i, "values": {"a": i}} for i in range(3)]
    batch = parse_wide(body, directory, TimeRange(0, NOW + 1))
    assert batch.left_out == {"time out of range": 1} and batch.value.tolist() == [0, 1]


points = st.lists(
    st.fixed_dictionaries(
        {
            "source": st.sampled_from(["a", "b", "Ofen 3", 'up{x="1"}']),
            "time": st.integers(0, 2**33) | st.just("2026-01-05T00:00:00Z"),
            "value": st.none() | st.integers(-(2**60), 2**60) | st.floats(-1e75, 1e75),
        }
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(points)
def test_single_points_are_read_as_the_slow_way_reads_them(body):
    directory = SeriesDirectory()
    batch = parse_points(parse_document(to_json(body)), directory)
    found = listed(batch, directory)
    for part in parse_submission(body):
        mine = [(time, value) for name, time, value in found if name == part.source]
        np.testing.assert_array_equal(np.array(mine), np.column_stack((part.time, part.x)))
    assert len(found) == len(body)


@pytest.mark.parametrize(
    "item",
    [
        {"source": "a", "time": NOW, "values": {"x": 1}},
        {"source": "a", "time": [NOW], "value": [1]},
        {"source": "a", "time": NOW, "value": 1, "values": {"x": 1}},
        {"source": 5, "time": NOW, "value": 1},
        {"source": "a", "value": 1},
        [],
        None,
    ],
)
def test_another_form_is_left_to_the_other_reader(item):
    good = {"source": "a", "time": NOW, "value": 1}
    directory = SeriesDirectory()
    assert parse_points([good, item], directory) is None
    assert parse_points(item, directory) is None and not directory.texts


@pytest.mark.parametrize(
    ("change", "field"),
    [({"value": "x"}, "value"), ({"time": "x"}, "time"), ({"value": 1e76}, "v")],
)
def test_a_wrong_point_is_named(change, field):
    good = {"source": "a", "time": NOW, "value": 1}
    with pytest.raises(BodyError) as caught:
        parse_points([good, good | change], SeriesDirectory())
    assert caught.value.field.startswith(field)


def test_a_missing_value_is_nan():
    batch = parse_points([{"source": "a", "time": NOW, "value": None}], SeriesDirectory())
    assert math.isnan(batch.value[0])
