"""The demo fleet: simulated hosts with many metrics each, in which machines fail together.

Every number is a pure function of (seed, block, step), as in `streams.py`, and a step of all series
is one row of arrays. The failures of a block are dealt at random times; what fails, when and for
how long is the known truth.

>>> fleet = DemoFleet(series=200, seed=7)
>>> fleet.names[0]
'cpu_seconds{host="web0",job="web",rack="r0"}'
>>> fleet.values(100).shape
(200,)
>>> sorted({failure.host for failure in fleet.failures(2) if failure.joint})
['db0', 'web0']
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from redline.sources.series import SeriesKey, format_series
from streams import SIMULATION_START, FloatArray

DEMO_BLOCK = 64  # steps whose noise is made, and whose failures are dealt, at once
DEMO_JOBS = ("web", "api", "cache", "db", "queue")
DEMO_METRICS = (
    *("cpu_seconds", "cpu_iowait", "cpu_steal", "load1", "load5", "procs_running", "procs_blocked"),
    *("context_switches", "interrupts", "forks", "memory_free", "memory_cached", "memory_dirty"),
    *("page_faults", "swap_in", "swap_out", "disk_io_time", "disk_reads", "disk_writes"),
    *("disk_queue", "disk_read_time", "disk_write_time", "fs_free", "fs_inodes", "net_rx_bytes"),
    *("net_tx_bytes", "net_rx_packets", "net_tx_packets", "net_drops", "net_errors"),
    *("tcp_connections", "tcp_retransmits", "udp_datagrams", "sockets", "open_files", "requests"),
    *("request_seconds", "errors", "queue_length", "temperature"),
)
STAGGER = 60.0  # seconds over which the members of a failure begin, at most
SAME_TIME = 20.0  # seconds within which other hosts fail too
MEMBER_SHARES = (0.2, 0.75)  # of the metrics of a host that fail with it
FAILURE_SIZES = (5.0, 12.0)  # standard deviations of a series' noise
FAILURE_STEPS = (12, 36)  # how long a failure lasts
SECOND_FAILURE = 0.5  # chance that another host fails in the same seconds
LONE_FAULTS = 3  # single series of other hosts that fail in the same seconds
FIRST_FAILURE_BLOCK = 2  # the blocks before are calm: detectors learn in them
KEPT_BLOCKS = 4


class DemoFailure(NamedTuple):
    """Series of one host that fail together; with one member it is no joint failure."""

    start: float  # seconds since the Unix epoch, of the first onset
    end: float  # seconds since the Unix epoch
    host: str
    members: np.ndarray  # (members,) places of the series, ascending
    onsets: FloatArray  # (members,) seconds since the Unix epoch
    sizes: FloatArray  # (members,) standard deviations, signed

    @property
    def joint(self) -> bool:
        """Return whether several series fail."""
        return len(self.members) > 1


class DemoFleet:
    """Series of hosts, each with the same metrics: daily season, noise, and failures of hosts."""

    def __init__(
        self, series: int, seed: int = 0, period: float = 15.0, start: float = SIMULATION_START
    ) -> None:
        """Make a fleet.

        Args:
            series: how many, more than 0; the last host may have fewer metrics than the others.
            seed: of everything random.
            period: seconds per step.
            start: seconds since the Unix epoch, of step 0.
        """
        self.seed = seed
        self.period = period
        self.start = start
        place = np.arange(series)
        self.host = place // len(DEMO_METRICS)  # (series,) number of its host
        self.hosts = [_host_name(number) for number in range(int(self.host[-1]) + 1)]
        self.names = [
            _series_name(host, metric)
            for host, metric in zip(self.host.tolist(), (place % len(DEMO_METRICS)).tolist())
        ]
        draw = self._draw("series", 0)
        self.spread = draw.uniform(0.5, 2.0, series)  # of the noise
        self.level = 100 + 20 * draw.standard_normal(series)
        self.swing = self.spread * draw.uniform(0, 6, series)  # half the height of the season
        self.phase = draw.uniform(0, 2 * np.pi, len(self.hosts))[self.host]
        # hosts are sampled one after the other within a period
        self.offset = draw.uniform(0, period, len(self.hosts))[self.host]
        # bound to this fleet, so that they go with it
        self._noise = lru_cache(KEPT_BLOCKS)(self._make_noise)
        self.failures = lru_cache(KEPT_BLOCKS)(self._deal)

    def times(self, step: int) -> FloatArray:
        """Return when each series takes a step, (series,), seconds since the Unix epoch."""
        time: FloatArray = self.start + step * self.period + self.offset
        return time

    def values(self, step: int) -> FloatArray:
        """Return a step of all series, (series,)."""
        time = self.times(step)
        block, row = divmod(step, DEMO_BLOCK)
        season = self.swing * np.sin(2 * np.pi / 86_400 * time + self.phase)
        value: FloatArray = self.level + season + self.spread * self._noise(block)[row]
        for failure in (*self.failures(block - 1), *self.failures(block)):
            if failure.start <= time[-1] + self.period and failure.end > time[0] - self.period:
                at = time[failure.members]
                active = (failure.onsets <= at) & (at < failure.end)
                shift = failure.sizes * self.spread[failure.members]
                value[failure.members] += np.where(active, shift, 0.0)
        return value

    def _draw(self, purpose: str, block: int) -> np.random.Generator:
        """Return the random generator of one purpose and one block."""
        words = [self.seed, block, *purpose.encode()]
        return np.random.Generator(np.random.SFC64(np.random.SeedSequence(words)))

    def _make_noise(self, block: int) -> np.ndarray:
        """Return the unit noise of a block, (DEMO_BLOCK, series)."""
        shape = (DEMO_BLOCK, len(self.names))
        return self._draw("noise", block).standard_normal(shape, dtype=np.float32)

    def _deal(self, block: int) -> tuple[DemoFailure, ...]:
        """Return the failures that begin in a block: of a host, and of others at the same time."""
        if block < FIRST_FAILURE_BLOCK:
            return ()
        draw = self._draw("failures", block)
        length = DEMO_BLOCK * self.period
        begin = self.start + block * length + draw.uniform(0, length)
        joint = 2 if draw.random() < SECOND_FAILURE else 1
        hosts = draw.permutation(len(self.hosts))[: joint + LONE_FAULTS].tolist()
        found = []
        for i, host in enumerate(hosts):
            own = np.flatnonzero(self.host == host)
            share = draw.uniform(*MEMBER_SHARES)
            count = max(2, round(share * len(own))) if i < joint else 1
            members = np.sort(draw.permutation(own)[:count])
            start = begin + (draw.uniform(0, SAME_TIME) if i else 0.0)
            onsets = start + draw.uniform(0, draw.uniform(0, STAGGER), len(members))
            onsets += start - onsets.min()
            end = float(onsets.max()) + self.period * draw.integers(*FAILURE_STEPS)
            sizes = draw.uniform(*FAILURE_SIZES, len(members)) * draw.choice((-1, 1), len(members))
            found.append(DemoFailure(start, end, self.hosts[host], members, onsets, sizes))
        return tuple(found)


def _host_name(number: int) -> str:
    """Return the name of a host: the hosts of a job are counted."""
    count, job = divmod(number, len(DEMO_JOBS))
    return f"{DEMO_JOBS[job]}{count}"


def _series_name(host: int, metric: int) -> str:
    """Return the canonical text of a series; ten hosts stand in a rack."""
    labels = (
        ("host", _host_name(host)),
        ("job", DEMO_JOBS[host % len(DEMO_JOBS)]),
        ("rack", f"r{host // 10}"),
    )
    return format_series(SeriesKey(DEMO_METRICS[metric], labels))
