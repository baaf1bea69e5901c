"""The doors: which series are counters, and their rates when a request is sent again."""

from __future__ import annotations

import numpy as np

from redline.api.doors import Doors
from redline.sources.pushed import QueueFull
from redline.sources.samples import make_batch

NAME = "ticks_total"
NO_ROOM = QueueFull("points", "room", "none")


def batch(doors: Doors, times: list[float], values: list[float], types: dict[str, str]):
    numbers = np.full(len(times), doors.directory.number(NAME))
    return make_batch(numbers, np.array(times), np.array(values), types=types)


def test_a_sender_may_say_later_that_a_metric_is_no_counter() -> None:
    doors = Doors()
    assert doors.split_rates(batch(doors, [0.0], [5.0], {}))[0] == [], "by its name, a counter"
    (part,), _ = doors.split_rates(batch(doors, [10.0], [7.0], {NAME: "gauge"}))
    assert part.source == NAME and part.x.tolist() == [[7.0]]


def test_a_counter_of_a_full_source_is_as_it_was_before() -> None:
    doors = Doors()
    doors.split_rates(batch(doors, [0.0], [5.0], {}))
    for refused in ([(NAME, NO_ROOM)], []):
        (part,), before = doors.split_rates(batch(doors, [10.0], [25.0], {}))
        assert part.x.tolist() == [[2.0]]
        doors.put_back(before, refused)
    assert doors.split_rates(batch(doors, [10.0], [25.0], {}))[0] == [], "it was taken"
    assert doors.report()["counters_out_of_order"] == 1
