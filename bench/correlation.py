"""Joint failures of the demo fleet found as groups; `python -m bench.correlation`.

Each seed is 5,000 series of 125 hosts at 15 s. They go through the series monitor with the settings
that every new series has (SERIES_SETTINGS) and through incidents, without
a store, as in the server. Onsets are staggered over 0 to 60 s, a quarter to four fifths of a host's
metrics stay calm, every other time a second host fails within 20 s, always three single series of
other hosts do, and the detector raises false alarms. Parameters were chosen on seeds 100 and above.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from redline.engine.fleet.series_monitor import SERIES_SETTINGS, SeriesMonitor
from redline.engine.outbox import Outbox
from redline.incidents.correlation import Correlator, IncidentGroup
from redline.incidents.incident import Change
from redline.incidents.joint import beginnings_of
from redline.incidents.recorder import IncidentRecorder
from redline.incidents.registry import Incidents
from redline.settings import Settings
from redline.sources.demo_fleet import DEMO_BLOCK, FIRST_FAILURE_BLOCK, DemoFailure, DemoFleet
from redline.sources.directory import SeriesDirectory

SERIES = 5_000
BLOCKS = 12  # of which the first ones are calm
SEEDS = 20
SLACK = 60.0  # seconds after the last onset in which a group of a failure may begin


class FailureResult(NamedTuple):
    """What was found of one joint failure."""

    groups: int  # that have members of it, most of their own
    members: int  # true ones
    alarmed: int  # true members that raised an alarm at all
    found: int  # members of the group that are true
    listed: int  # members of the group
    first_right: bool  # whether the first of the group began within a period of the true first


class SeedResult(NamedTuple):
    """One seed."""

    failures: list[FailureResult]
    false_groups: int  # that are of no joint failure
    alarms: int  # beginnings of incidents
    false_alarms: float  # share of calm steps that are anomalies
    seconds: float  # spent in the correlator


def replay(fleet: DemoFleet, settings: Settings) -> Iterator[tuple[list[Change], float]]:
    """Run a fleet through the series monitor; yield the changes of each step, and the share of
    samples that are anomalies.
    """
    directory = SeriesDirectory()
    numbers = np.array([directory.number(name) for name in fleet.names])
    outbox = Outbox(None)
    monitor = SeriesMonitor(directory, outbox, settings=settings)
    changes: list[Change] = []
    incidents = Incidents()
    recorder = IncidentRecorder(incidents, None, [changes.extend])
    monitor.reports.followers.append(incidents.live_streams)
    for step in range(BLOCKS * DEMO_BLOCK):
        monitor.submit(numbers, fleet.times(step), fleet.values(step))
        before = monitor.totals.anomalies
        monitor.process()
        batches, _ = outbox.flush(float(step), force=True)
        monitor.settle()
        changes.clear()
        recorder.on_batches(batches, True)
        yield list(changes), (monitor.totals.anomalies - before) / len(numbers)


def judge(
    fleet: DemoFleet, groups: list[IncidentGroup], alarms: dict[str, list[float]]
) -> tuple[list[FailureResult], int]:
    """Return the results of all joint failures, and the number of groups of none."""
    last = fleet.start + (BLOCKS * DEMO_BLOCK - 12) * fleet.period
    failures = [
        failure
        for block in range(FIRST_FAILURE_BLOCK, BLOCKS)
        for failure in fleet.failures(block)
        if failure.joint and failure.onsets.max() < last
    ]
    owned: dict[int, list[IncidentGroup]] = {i: [] for i in range(len(failures))}
    false_groups = 0
    for group in groups:
        names = {member.stream for member in group.members}
        shares = [
            len(names & {fleet.names[m] for m in failure.members})
            if failure.start - 5 <= group.members[-1].time and group.first.time < failure.end
            else 0
            for failure in failures
        ]
        best = int(np.argmax(shares)) if shares else 0
        if shares and shares[best] * 2 >= len(names):
            owned[best].append(group)
        elif group.first.time < last:
            false_groups += 1
    return [judge_failure(fleet, failures[i], owned[i], alarms) for i in owned], false_groups


def judge_failure(
    fleet: DemoFleet,
    failure: DemoFailure,
    groups: list[IncidentGroup],
    alarms: dict[str, list[float]],
) -> FailureResult:
    """Return the result of one joint failure; of several groups the largest is its own."""
    true = {fleet.names[member] for member in failure.members}
    alarmed = sum(
        any(failure.start <= at < failure.end for at in alarms.get(name, ())) for name in true
    )
    if not groups:
        return FailureResult(0, len(true), alarmed, 0, 0, False)
    group = max(groups, key=lambda g: len(g.members))
    names = {member.stream for member in group.members}
    onsets = {fleet.names[m]: at for m, at in zip(failure.members, failure.onsets)}
    right = onsets.get(group.first.stream, np.inf) < failure.start + fleet.period
    return FailureResult(len(groups), len(true), alarmed, len(names & true), len(names), right)


def run_seed(seed: int, settings: Settings, period: float) -> SeedResult:
    """Return the results of one seed."""
    fleet = DemoFleet(SERIES, seed, period)
    correlator = Correlator()
    correlator.set_streams(fleet.names)
    alarms: dict[str, list[float]] = {}
    groups: dict[str, IncidentGroup] = {}
    calm = []
    spent = 0.0
    for step, (changes, anomalous) in enumerate(replay(fleet, settings)):
        found = beginnings_of(changes)
        for beginning in found:
            alarms.setdefault(beginning.stream, []).append(beginning.time)
        began = time.perf_counter()
        for group in correlator.feed(found):
            groups[group.id] = group
        spent += time.perf_counter() - began
        if settings.window < step < FIRST_FAILURE_BLOCK * DEMO_BLOCK:
            calm.append(anomalous)
    kept = [group for group in groups.values() if not group.merged]
    results, false_groups = judge(fleet, kept, alarms)
    begun = sum(len(times) for times in alarms.values())
    return SeedResult(results, false_groups, begun, float(np.mean(calm)), spent)


def show(results: list[SeedResult], name: str) -> None:
    """Print the figures of all seeds together."""
    every = [failure for result in results for failure in result.failures]
    one = np.mean([failure.groups == 1 for failure in every])
    caught = [failure for failure in every if failure.groups]
    found = sum(failure.found for failure in caught)
    precision = found / sum(failure.listed for failure in caught)
    recall = found / sum(failure.members for failure in every)
    of_alarmed = found / sum(failure.alarmed for failure in every)
    worst = min(np.mean([f.groups == 1 for f in result.failures]) for result in results)
    alarms = sum(result.alarms for result in results)
    print(
        f"{name}: {len(every)} joint failures of {len(results)} seeds, exactly one group"
        f" {one:.1%} (worst seed {worst:.1%}; none {np.mean([not f.groups for f in every]):.1%},"
        f" several {np.mean([f.groups > 1 for f in every]):.1%}); members' precision"
        f" {precision:.3f}, recall {recall:.3f} ({of_alarmed:.3f} of those with an alarm); first"
        f" member right {np.mean([f.first_right for f in caught]):.1%}; false groups"
        f" {sum(r.false_groups for r in results)}; false alarms"
        f" {np.mean([r.false_alarms for r in results]):.2%} of calm samples;"
        f" {1e6 * sum(r.seconds for r in results) / alarms:.0f} us a beginning, {alarms:,} in all",
        flush=True,
    )


def main() -> None:
    """Print the figures of some seeds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--detector", default=SERIES_SETTINGS.detector)
    parser.add_argument("--window", type=int, default=SERIES_SETTINGS.window, help="steps")
    parser.add_argument("--threshold", type=float, default=SERIES_SETTINGS.threshold)
    parser.add_argument("--period", type=float, default=15.0, help="seconds per step")
    choices = parser.parse_args()
    settings = Settings(choices.detector, choices.window, choices.threshold)
    seeds = range(choices.first, choices.first + choices.seeds)
    results = [run_seed(seed, settings, choices.period) for seed in seeds]
    words = f"{settings.detector}, window {settings.window}, threshold {settings.threshold:g}"
    show(results, f"{words}, {choices.period:g} s")


if __name__ == "__main__":
    main()
