"""What was unusual in a period: the worst series, and the labels that explain them."""

import numpy as np

from redline.engine.fleet.ranking import NameIndex
from redline.engine.fleet.swim_lanes import SwimLanes
from redline.incidents.unusual import unusual_between
from tests.engine.fleet.test_series_monitor import START, Rig

HOSTS, METRICS = 20, 10
FLEET_NAMES = [
    f'm{metric}{{host="h{host:02d}",job="node"}}'
    for host in range(HOSTS)
    for metric in range(METRICS)
]


def lanes_with_levels(ratios):
    """Return lanes over a fleet in which each series has a score / threshold, by (minute, name)."""
    rig = Rig()
    rig.counts(*((name, 0, 1.0) for name in FLEET_NAMES))
    for (minute, name), ratio in ratios.items():
        time = np.array([START + 60.0 * minute])
        rig.monitor.worst.record(
            np.array([rig.number(name)]), time, np.array([ratio]), START + 36_000
        )
    return SwimLanes(rig.monitor, NameIndex(rig.directory))


def test_a_host_whose_series_rose_is_the_first_label_and_its_series_are_ranked():
    rose = {(14, f'm{metric}{{host="h07",job="node"}}'): 2.0 + metric for metric in range(6)}
    alone = {(15, 'm1{host="h03",job="node"}'): 1.5, (40, 'm1{host="h04",job="node"}'): 30.0}
    calm = {(14, name): 0.5 for name in FLEET_NAMES if "h01" in name}
    found = unusual_between(
        lanes_with_levels(rose | alone | calm), START + 14 * 60, START + 20 * 60
    )
    assert [each.name for each in found.series[:2]] == [
        'm5{host="h07",job="node"}',
        'm4{host="h07",job="node"}',
    ]
    assert found.series[0].threshold == 3.0
    assert abs(found.series[0].score - 21.0) < 0.05
    assert found.series[-1].name == 'm1{host="h03",job="node"}'
    assert (found.anomalous, found.watched) == (7, 200)
    assert [(v.label, v.value, v.anomalous, v.series) for v in found.values] == [
        ("host", "h07", 6, 10)
    ], "the job has as many as chance brings, and no metric is worse than the others"


def test_the_filter_and_the_number_of_rows_bound_the_answer():
    rose = {(5, name): 2.0 for name in FLEET_NAMES if "h02" in name or "h05" in name}
    lanes = lanes_with_levels(rose)
    whole = unusual_between(lanes, START, START + 600)
    assert len(whole.series) == 12 and whole.anomalous == 20
    assert {each.value for each in whole.values} == {"h02", "h05"}
    of_host = unusual_between(lanes, START, START + 600, '{host="h02"}', rows=4)
    assert len(of_host.series) == 4 and (of_host.anomalous, of_host.watched) == (10, 10)
    assert of_host.values == [], "within one host its label explains nothing"


def test_a_calm_period_has_no_rows():
    calm = unusual_between(lanes_with_levels({(5, FLEET_NAMES[0]): 0.9}), START, START + 600)
    assert (calm.series, calm.values, calm.anomalous) == ([], [], 0)
    nothing = unusual_between(lanes_with_levels({}), START, START + 600)
    assert (nothing.series, nothing.values) == ([], [])
