"""Incidents that begin together: what becomes a group, what does not, and what it costs."""

import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redline.incidents import correlation
from redline.incidents.correlation import (
    Beginning,
    BeginningRates,
    CorrelationPolicy,
    Correlator,
    poisson_gain,
)
from redline.incidents.incident import Change
from redline.incidents.joint import JointIncidents, beginnings_of
from redline.sources.series import METRIC_LABEL, SeriesKey, format_series

START = 1_767_571_200.0
METRICS = 20
HOSTS = 60


def name_of(host, metric, rack=True):
    """Return a series of a host; five hosts stand in a rack, and all are of one job."""
    labels = [("host", f"h{host}"), ("job", "node")] + [("rack", f"r{host // 5}")] * rack
    return format_series(SeriesKey(f"metric{metric}", tuple(labels)))


ALL_NAMES = [name_of(host, metric) for host in range(HOSTS) for metric in range(METRICS)]


def beginning(host, metric, after):
    return Beginning(name_of(host, metric), START + after, "warning", f"{host}-{metric}-{after}")


def failure(host, members, seconds=40.0, after=0.0):
    """Return beginnings of so many series of one host, spread over some seconds."""
    return [beginning(host, m, after + seconds * m / members) for m in range(members)]


def noise(count, seed=0, seconds=60.0, hosts=range(HOSTS)):
    """Return beginnings of series chosen at random."""
    draw = random.Random(seed)
    pairs = draw.sample([(host, m) for host in hosts for m in range(METRICS)], count)
    return [beginning(host, metric, draw.uniform(0, seconds)) for host, metric in pairs]


AT_ONCE = CorrelationPolicy(warm_up=0.0)


def new_correlator(policy=AT_ONCE):
    correlator = Correlator(policy)
    correlator.set_streams(ALL_NAMES)
    return correlator


def open_groups(correlator):
    """Return the members of each group that was not merged, by what they share."""
    return {g.cause: {m.stream for m in g.members} for g in correlator.groups() if not g.merged}


def streams(beginnings):
    return {each.stream for each in beginnings}


def test_series_of_one_host_that_begin_together_are_one_group():
    correlator = new_correlator()
    changed = correlator.feed(failure(7, 14, 20.0))
    (group,) = correlator.groups()
    assert changed[-1] == group
    assert group.cause == ("host", "h7") and group.carriers == METRICS
    assert group.first.stream == name_of(7, 0)
    assert {("host", "h7"), ("job", "node"), ("rack", "r1")} == set(group.shared)
    assert group.sentence == "14 series of host=h7 within 19 s, first metric0"


def test_false_alarms_of_other_hosts_stay_out():
    correlator = new_correlator()
    joint = failure(7, 10)
    others = noise(12, hosts=[h for h in range(HOSTS) if h != 7])
    correlator.feed(joint + others)
    assert open_groups(correlator) == {("host", "h7"): streams(joint)}


def test_two_hosts_of_a_rack_that_fail_in_the_same_seconds_stay_apart():
    correlator = new_correlator()
    one, two = failure(5, 12), failure(6, 9, after=15.0)
    correlator.feed(one + two)
    assert open_groups(correlator) == {("host", "h5"): streams(one), ("host", "h6"): streams(two)}


def test_a_rack_that_fails_is_one_group_and_not_one_of_each_host():
    correlator = new_correlator()
    rack = [b for host in range(5, 10) for b in failure(host, 12)]
    correlator.feed(rack)
    assert open_groups(correlator) == {("rack", "r1"): streams(rack)}


def test_a_rack_whose_hosts_follow_each_other_takes_over_the_group_of_the_first():
    correlator = new_correlator()
    hosts = [failure(host, 12, 10.0, after=12.0 * (host - 5)) for host in range(5, 10)]
    for part in hosts:
        correlator.feed(part)
    rack = {stream for part in hosts for stream in streams(part)}
    assert open_groups(correlator) == {("rack", "r1"): rack}


def test_one_metric_of_all_hosts_is_a_group_of_that_metric():
    correlator = new_correlator()
    everywhere = [beginning(host, 3, host / 3) for host in range(0, HOSTS, 2)]
    correlator.feed(everywhere)
    assert open_groups(correlator) == {(METRIC_LABEL, "metric3"): streams(everywhere)}
    assert correlator.groups()[0].sentence.startswith("30 series of metric3 within 19 s")


def test_everything_at_once_is_one_group():
    correlator = new_correlator()
    everything = [b for host in range(HOSTS) for b in failure(host, METRICS)]
    correlator.feed(everything)
    assert open_groups(correlator) == {("job", "node"): streams(everything)}


def test_many_hosts_that_fail_by_themselves_are_a_group_each():
    correlator = new_correlator()
    hosts = [failure(host, 9, 50.0, after=host % 7) for host in range(0, HOSTS, 3)]
    for part in sorted((b for own in hosts for b in own), key=lambda b: b.time):
        correlator.feed([part])
    assert open_groups(correlator) == {
        ("host", f"h{3 * i}"): streams(own) for i, own in enumerate(hosts)
    }


def test_no_group_is_made_before_the_rate_is_known():
    correlator = new_correlator(CorrelationPolicy(warm_up=100.0))
    correlator.feed(failure(7, 10))
    assert not correlator.groups()
    correlator.feed([beginning(30, 0, 200.0), *failure(8, 10, after=200.0)])
    assert list(open_groups(correlator)) == [("host", "h8")]


@pytest.mark.parametrize("count", [1, 2])
def test_a_single_series_or_a_pair_is_no_group(count):
    correlator = new_correlator()
    assert correlator.feed(failure(3, count)) == []


@given(st.integers(0, 10_000), st.integers(0, 30))
@settings(max_examples=60)
def test_series_that_share_only_the_job_are_no_group(seed, count):
    correlator = new_correlator()
    one_of_each = {b.stream.partition("host=")[2]: b for b in noise(count, seed)}
    different = {b.stream.partition("{")[0]: b for b in one_of_each.values()}
    few = list(different.values())[:4]
    correlator.feed(few)
    assert open_groups(correlator) == {}


def test_a_group_needs_more_where_beginnings_are_frequent():
    few = failure(7, 6)
    calm = new_correlator()
    calm.feed(few)
    assert open_groups(calm) == {("host", "h7"): streams(few)}
    busy = new_correlator()
    for minute in range(-60, 0):  # 40 of 1,200 series every minute, each host 0.7 of them
        rows = [b._replace(time=b.time + 60 * minute) for b in noise(40, minute)]
        busy.feed([b._replace(incident=f"{b.incident} {minute}") for b in rows])
    before = {g.id for g in busy.groups()}
    busy.feed(few)
    assert {g.id for g in busy.groups()} == before


def test_a_rate_that_has_risen_for_good_soon_makes_no_group():
    correlator = new_correlator()
    for minute in range(60):
        rows = [b._replace(time=b.time + 60 * minute) for b in noise(100, minute)]
        correlator.feed([b._replace(incident=f"{b.incident} {minute}") for b in rows])
    assert correlator.groups()[0].first.time < START + 20 * 60


def test_a_host_that_often_raises_alarms_needs_more_than_the_others():
    correlator = new_correlator()
    for minute in range(-120, 0, 2):  # two series of host 7 each time
        rows = [beginning(7, (minute // 2 + k) % METRICS, 60.0 * minute) for k in range(2)]
        correlator.feed(rows)
    assert correlator.expected(("host", "h7"), 90) > 3 * correlator.expected(("host", "h8"), 90)
    correlator.feed(failure(7, 6, after=200.0) + failure(8, 6, after=200.0))
    assert list(open_groups(correlator)) == [("host", "h8")]


@given(st.randoms(use_true_random=False), st.integers(0, 1_000), st.integers(1, 6))
@settings(max_examples=60, deadline=None)
def test_the_order_of_arrival_within_the_window_does_not_matter(draw, seed, parts):
    rack = [b for host in range(20, 25) for b in failure(host, 11, 50.0)]
    events = [
        *failure(7, 12, 60.0),
        *failure(33, 9, 30.0, after=20.0),
        *(rack if seed % 2 else rack[:11]),
        *noise(8, seed, hosts=range(40, HOSTS)),
    ]
    expected = new_correlator()
    expected.feed(events)
    draw.shuffle(events)
    correlator = new_correlator()
    for part in range(parts):
        correlator.feed(events[part::parts])
    assert open_groups(correlator) == open_groups(expected)


def test_a_later_alarm_joins_until_the_window_has_passed():
    correlator = new_correlator()
    correlator.feed(failure(7, 8, 10.0))
    correlator.feed([beginning(7, 9, 80.0)])
    assert len(correlator.groups()[0].members) == 9
    correlator.feed([beginning(30, 0, 300.0)])
    assert correlator.groups()[0].over
    correlator.feed([beginning(7, 10, 310.0)])
    assert len(correlator.groups()[0].members) == 9


def test_a_group_takes_no_members_for_longer_than_its_span():
    correlator = new_correlator(CorrelationPolicy(window=60.0, span=100.0, warm_up=0.0))
    correlator.feed(failure(7, 8, 10.0))
    for metric in range(8, 16):
        correlator.feed([beginning(7, metric, 20.0 * (metric - 7))])
    first = correlator.groups()[-1]
    assert first.over and first.members[-1].time - first.first.time <= 120.0


def test_an_early_false_alarm_is_not_the_first_of_a_failure():
    correlator = new_correlator()
    joint = failure(7, 10, 10.0)
    correlator.feed([beginning(7, 15, -80.0), *joint])
    assert open_groups(correlator) == {("host", "h7"): streams(joint)}


def test_incidents_that_open_again_stay_in_their_group():
    correlator = new_correlator()
    joint = failure(7, 10)
    correlator.feed(joint)
    (group,) = correlator.groups()
    correlator.feed([b._replace(time=b.time + 600) for b in joint])
    assert [g.id for g in correlator.groups()] == [group.id]
    assert {correlator.group_of[b.incident] for b in joint} == {group.id}


def test_beginnings_older_than_the_window_are_counted_and_never_grouped():
    correlator = new_correlator()
    correlator.feed([beginning(30, 0, 1_000.0)])
    assert correlator.feed(failure(7, 10)) == []
    assert correlator.rates.total == 10


def test_streams_that_are_no_series_do_not_count():
    correlator = new_correlator()
    correlator.feed([Beginning("wave", START + 1e6, "info", "1"), *failure(7, 10)])
    correlator.feed([Beginning("wave", START - 1e6, "info", "2")])
    assert len(correlator.groups()) == 1 and not correlator.rates.total
    assert correlator.newest < START + 100


def test_a_clock_that_is_far_ahead_does_not_age_the_others():
    correlator = new_correlator()
    correlator.feed([beginning(30, 0, 1e9)], now=START)
    joint = failure(7, 10)
    correlator.feed(joint, now=START)
    assert open_groups(correlator) == {("host", "h7"): streams(joint)}
    assert correlator.skipped == 1


def test_a_time_that_is_no_number_is_left_out():
    correlator = new_correlator()
    correlator.feed([beginning(7, 0, float("nan")), *failure(7, 10)[1:]])
    assert len(correlator.groups()[0].members) == 9


def test_sources_without_labels_make_no_group():
    correlator = Correlator(AT_ONCE)
    names = [f"source {i}" for i in range(100)]
    correlator.set_streams(names)
    assert correlator.feed([Beginning(n, START, "info", n) for n in names]) == []


def test_memory_is_bounded_however_many_begin(monkeypatch):
    monkeypatch.setattr(correlation, "MAX_RECENT", 50)
    monkeypatch.setattr(correlation, "MAX_CLOSED", 5)
    monkeypatch.setattr(correlation, "MAX_RATES", 60)
    monkeypatch.setattr(correlation, "MAX_VALUES", 120)
    correlator = Correlator(AT_ONCE)
    correlator.set_streams(ALL_NAMES)
    assert len(correlator.carriers) == HOSTS + METRICS + HOSTS // 5 + 1
    correlator.set_streams([*ALL_NAMES, *(f'x{{id="{i}"}}' for i in range(1_000))])
    assert len(correlator.carriers) == 120
    for minute in range(300):
        rows = failure(minute % HOSTS, 10, 10.0, 200.0 * minute)
        rows += noise(100, minute, hosts=range(HOSTS))
        rows = [b._replace(incident=f"{b.incident} {minute}") for b in rows]
        correlator.feed(
            [b._replace(time=START + 200.0 * minute + i / 9) for i, b in enumerate(rows)]
        )
        assert len(correlator.recent) <= 50 and len(correlator.queue) <= 200
    assert len(correlator.closed) <= 5 and len(correlator.rates.values) <= 60
    assert len(correlator.group_of) <= 5 * 50 + 50
    assert correlator.skipped > 0
    kept = {stream for own in correlator.by_value.values() for stream in own}
    assert kept == set(correlator.recent)


def test_a_beginning_costs_the_same_however_many_came_before():
    def seconds(correlator, minutes):
        rows = [
            [b._replace(time=b.time + 60 * m, incident=f"{b.incident} {m}") for b in noise(20, m)]
            for m in minutes
        ]
        began = time.process_time()
        for part in rows:
            correlator.feed(part)
        return time.process_time() - began

    correlator = new_correlator()
    early = min(seconds(correlator, range(k, k + 50)) for k in (0, 50, 100))
    seconds(correlator, range(150, 450))
    late = min(seconds(correlator, range(k, k + 50)) for k in (450, 500, 550))
    assert late < 4 * early


def test_the_gain_bounds_the_chance_of_a_poisson_variable():
    from math import exp, factorial

    for expected in (0.05, 0.3, 2.0):
        for count in range(1, 12):
            chance = 1 - sum(exp(-expected) * expected**k / factorial(k) for k in range(count))
            assert chance <= exp(-poisson_gain(count, expected)) * (1 + 1e-9) + 1e-12


def test_rates_are_those_of_the_last_hour():
    rates = BeginningRates()
    for second in range(0, 7_200, 10):
        rates.count([("host", "a")], START + second)
    assert rates.of_value(("host", "a")) == pytest.approx(0.1, rel=0.25)
    rates.count([("host", "b")], START + 6 * 3_600)
    assert rates.of_value(("host", "a")) < 0.01


def test_the_labels_are_counted_again_when_series_come_or_go():
    correlator = new_correlator()
    before = dict(correlator.carriers)
    correlator.set_streams(ALL_NAMES[METRICS:])
    assert correlator.carriers[("job", "node")] == len(ALL_NAMES) - METRICS
    assert ("host", "h0") not in correlator.carriers
    correlator.set_streams(ALL_NAMES)
    assert correlator.carriers == before
    correlator.set_streams([])
    assert not correlator.carriers
    assert not correlator.set_streams(ALL_NAMES, 1_000) and len(correlator.streams) == 1_000
    assert correlator.set_streams(ALL_NAMES, 1_000) and correlator.carriers == before


def test_changes_of_incidents_become_groups():
    joint = JointIncidents(lambda: ALL_NAMES, correlator=Correlator(AT_ONCE))
    assert joint.follow([]) == [] and joint.group_of("x") is None
    changes = [
        Change(FakeIncident(b.stream, b.time, b.time + 5, b.severity, b.incident), "opened", True)
        for b in failure(7, 10)
    ]
    (group,) = joint.follow(changes)
    assert group.cause == ("host", "h7") and joint.groups() == [group]
    assert joint.group_of(changes[0].incident.id) == group.id


class FakeIncident:
    """What the correlation reads of an incident."""

    def __init__(self, stream, start, end, severity, id):
        self.stream = stream
        self.start = start
        self.end = end
        self.severity = severity
        self.id = id


def test_an_incident_begins_when_it_opens_or_gets_worse_and_not_when_it_ends():
    incident = FakeIncident("s", 10.0, 20.0, "info", "i")
    changes = [Change(incident, what, True) for what in ("opened", "worse", "resolved", "noted")]
    assert [b.time for b in beginnings_of(changes)] == [10.0, 20.0]


def test_a_fleet_that_was_calm_for_long_has_its_first_failure_grouped():
    changes = [
        Change(FakeIncident(b.stream, b.time, b.time + 5, b.severity, b.incident), "opened", True)
        for b in failure(7, 10)
    ]
    new = JointIncidents(lambda: ALL_NAMES, lambda: 60.0)
    assert new.follow(changes) == [], "how often streams begin by chance is not known yet"
    (group,) = JointIncidents(lambda: ALL_NAMES, lambda: 150.0).follow(changes)
    assert len(group.members) == 10
