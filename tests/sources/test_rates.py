"""Counters as rates: against one counter after another, read slowly."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redline.sources.rates import CounterRates, MetricTypes

samples = st.lists(
    st.tuples(
        st.integers(0, 3),
        st.integers(0, 12).map(float),
        st.sampled_from([math.nan, 0.0, 1.0, 5.0, 7.5, 100.0]),
    ),
    max_size=20,
)


def slow_rates(batches):
    """Return the rates of one sample after the other."""
    last = {}
    found = []
    for batch in batches:
        for column, time, value in batch:
            rate = math.nan
            before = last.get(column)
            if not math.isnan(value) and (before is None or time > before[0]):
                if before is not None:
                    increase = value if value < before[1] else value - before[1]
                    rate = increase / (time - before[0])
                last[column] = (time, value)
            found.append(rate)
    return found


@settings(max_examples=400, deadline=None, derandomize=True, database=None)
@given(st.lists(samples, max_size=4))
def test_many_counters_at_once_are_as_each_by_itself(batches):
    rates = CounterRates()
    found = []
    for batch in batches:
        columns = np.array([column for column, *_ in batch], dtype=np.int64)
        time = np.array([time for _, time, _ in batch])
        value = np.array([value for *_, value in batch])
        found += rates.update(columns, time, value).tolist()
    np.testing.assert_array_equal(found, slow_rates(batches))


def test_samples_that_are_not_newer_are_counted():
    rates = CounterRates()
    columns = np.zeros(3, np.int64)
    rates.update(columns, np.array([5.0, 5.0, 4.0]), np.ones(3))
    assert rates.out_of_order == 2
    rates.update(columns, np.array([5.0, 6.0, 5.5]), np.ones(3))
    assert rates.out_of_order == 4


def test_a_forgotten_column_begins_anew():
    rates = CounterRates()
    column = np.array([2])
    rates.update(column, np.array([10.0]), np.array([100.0]))
    rates.forget(np.array([2, 50]))
    assert np.isnan(rates.update(column, np.array([5.0]), np.array([40.0])))
    assert rates.update(column, np.array([7.0]), np.array([50.0])).tolist() == [5.0]


def test_a_reset_of_the_counter_is_increase_from_zero():
    rates = CounterRates()
    found = rates.update(np.zeros(3, np.int64), np.array([0.0, 10, 20]), np.array([90.0, 100, 30]))
    assert found.tolist()[1:] == [1.0, 3.0]


@pytest.mark.parametrize(
    ("name", "types", "is_counter"),
    [
        ("x_total", {}, True),
        ("x_bucket", {}, True),
        ("x", {}, False),
        ("x_total", {"x_total": "gauge"}, False),
        ("x_total", {"x": "counter"}, True),  # OpenMetrics names the family
        ("x", {"x": "counter"}, True),
        ("x_count", {"x": "summary"}, True),
        ("x", {"x": "summary"}, False),  # a quantile
        ("x_sum", {"x": "gaugehistogram"}, False),
        ("x_sum", {"x": "unknown"}, True),
        ("x_info", {"x": "info"}, False),
    ],
)
def test_which_metrics_are_counters(name, types, is_counter):
    known = MetricTypes()
    known.update(types)
    assert known.is_counter(name) == is_counter


def test_types_without_end_are_bounded_and_counted():
    known = MetricTypes(max_families=3)
    known.update({f"m{i}": "gauge" for i in range(10)})
    known.update({"m0": "counter"})
    assert len(known.types) == 3 and known.refused == 7 and known.is_counter("m0")
