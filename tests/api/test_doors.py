"""The doors: which series are counters, and their rates when a request is sent again."""

from __future__ import annotations

import numpy as np

from redline.api.doors import Doors
from redline.sources.directory import SeriesDirectory
from redline.sources.samples import make_batch

NAME = "ticks_total"


def batch(doors: Doors, times: list[float], values: list[float], types: dict[str, str]):
    numbers = np.full(len(times), doors.directory.number(NAME))
    return make_batch(numbers, np.array(times), np.array(values), types=types)


def test_a_sender_may_say_later_that_a_metric_is_no_counter() -> None:
    doors = Doors(SeriesDirectory())
    rates, _ = doors.to_rates(batch(doors, [0.0], [5.0], {}))
    assert not len(rates.value), "by its name, a counter"
    values, _ = doors.to_rates(batch(doors, [10.0], [7.0], {NAME: "gauge"}))
    assert values.value.tolist() == [7.0]


def test_a_counter_that_was_not_taken_is_as_it_was_before() -> None:
    doors = Doors(SeriesDirectory())
    doors.to_rates(batch(doors, [0.0], [5.0], {}))
    for taken in (False, True):
        rates, before = doors.to_rates(batch(doors, [10.0], [25.0], {}))
        assert rates.value.tolist() == [2.0]
        if not taken:
            doors.put_back(before)
    again, _ = doors.to_rates(batch(doors, [10.0], [25.0], {}))
    assert not len(again.value), "it was taken"
    assert doors.report()["counters_out_of_order"] == 1
