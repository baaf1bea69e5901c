"""The stream of this machine: processor, memory, disk and network, each second."""

import time as wall
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import psutil

from streams import Chunk, Stream


class MachineReading(NamedTuple):
    """What the operating system says at one moment."""

    cpu: float  # % of all cores since the reading before
    memory: float  # %
    disk: float | None  # bytes read and written since the start; None: not known here
    network: float | None  # bytes received and sent since the start; None: not known here


def read_machine() -> MachineReading:
    """Asks the operating system."""
    return MachineReading(
        psutil.cpu_percent(),
        psutil.virtual_memory().percent,
        read_counter("disk"),
        read_counter("network"),
    )


def read_counter(what: str) -> float | None:
    """Bytes through all disks or network cards; None where the system does not say, as in some
    containers.
    """
    try:
        if what == "disk":
            disk = psutil.disk_io_counters()
            return None if disk is None else float(disk.read_bytes + disk.write_bytes)
        network = psutil.net_io_counters()
        return None if network is None else float(network.bytes_recv + network.bytes_sent)
    except (OSError, RuntimeError, NotImplementedError, psutil.Error):
        return None


class ThisMachine(Stream):
    """The load of the machine this runs on, a row for each second of the wall clock in which
    they are taken.

    After more than ASLEEP seconds without a row there is one gap and no burst: the first row back
    has memory only, because an average over a sleep says nothing about now. Shorter pauses are
    averaged over their true length.
    """

    title = "This machine"
    about = "CPU, memory, disk and network of the machine this runs on, live."
    names = ("CPU", "memory", "disk", "network")
    units = ("%", "%", "B/s", "B/s")
    floors = (2.0, 0.2, 50_000.0, 10_000.0)
    period = 1.0
    ASLEEP = 5.0  # seconds

    def __init__(
        self,
        clock: Callable[[], float] = wall.time,
        read: Callable[[], MachineReading] = read_machine,
    ) -> None:
        self.clock = clock
        self.read = read
        self.at = clock()  # seconds since the Unix epoch of the reading before
        self.second = np.floor(self.at)  # of the row before
        self.before = read()
        self.notes: dict[str, int] = {}

    def take(self, steps: int) -> Chunk:
        """One row when a second has begun since the last one; else none. A clock set back starts
        anew from there.
        """
        now = self.clock()
        second = np.floor(now)
        early = 0 <= now - self.at < self.period / 2  # too soon after the reading before for a rate
        if steps < 1 or early or self.second - self.period <= second <= self.second:
            return Chunk(np.empty(0), np.empty((0, 4)), None)
        reading = self.read()
        row = self.row(reading, now - self.at)
        self.at = now
        self.second = second
        self.before = reading
        return Chunk(np.array([second]), np.array([row]), None)

    def row(self, new: MachineReading, elapsed: float) -> list[float]:
        """CPU, memory, disk and network (features,), NaN = missing, after so many seconds."""
        if not 0 < elapsed <= self.ASLEEP:
            self.note("pauses" if elapsed > 0 else "clock set back")
            return [np.nan, new.memory, np.nan, np.nan]
        old = self.before
        return [
            new.cpu,
            new.memory,
            self.rate("disk", old.disk, new.disk, elapsed),
            self.rate("network", old.network, new.network, elapsed),
        ]

    def rate(self, what: str, old: float | None, new: float | None, elapsed: float) -> float:
        """Bytes per second between two readings; NaN, counted, where there is none."""
        if new is None or old is None:
            self.note(f"{what} not known")
        elif new < old:
            self.note(f"{what} counter went back")
        else:
            return (new - old) / elapsed
        return np.nan

    def note(self, fact: str) -> None:
        """Counts a fact."""
        self.notes[fact] = self.notes.get(fact, 0) + 1
