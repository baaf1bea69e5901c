"""The stream of this machine: the load of processor, memory, disk and network each second."""

import time as wall
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import psutil

from streams import UNKNOWN_PRESET, Chunk, Stream


class MachineReading(NamedTuple):
    """The load and the counters of the operating system at one moment."""

    cpu: float  # % of all cores since the previous reading
    memory: float  # %
    disk: float | None  # bytes read and written since the start; None = not available
    network: float | None  # bytes received and sent since the start; None = not available


def read_machine() -> MachineReading:
    """Read the load and the counters from the operating system."""
    return MachineReading(
        psutil.cpu_percent(),
        psutil.virtual_memory().percent,
        read_counter("disk"),
        read_counter("network"),
    )


def read_counter(what: str) -> float | None:
    """Return the bytes through all disks ("disk") or network cards ("network").

    None where the system does not say, as in some containers.
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
    """The load of the machine this runs on: one row for each second in which `take` is called.

    After more than MAX_PAUSE seconds without a row, as when the machine slept, there is one gap:
    the next row has memory only, because an average over the pause says nothing about now. The
    rates after a shorter pause are averages over its length.
    """

    title = "This machine"
    about = "CPU, memory, disk and network of the machine this runs on, live."
    names = ("CPU", "memory", "disk", "network")
    units = ("%", "%", "B/s", "B/s")
    floors = (2.0, 0.2, 50_000.0, 10_000.0)
    limits = ((0.0, 100.0), (0.0, 100.0), (0.0, np.inf), (0.0, np.inf))
    period = 1.0
    preset = UNKNOWN_PRESET
    MAX_PAUSE = 5.0  # seconds between two readings over which rates are averaged

    def __init__(
        self,
        clock: Callable[[], float] = wall.time,
        read: Callable[[], MachineReading] = read_machine,
    ) -> None:
        self.clock = clock
        self.read = read
        self.read_at = clock()  # seconds since the Unix epoch, of the previous reading
        self.second = np.floor(self.read_at)  # seconds since the Unix epoch, of the previous row
        self.previous = read()
        self.notes: dict[str, int] = {}

    def take(self, steps: int) -> Chunk:
        """Return one row if a new second has begun since the previous one, else none.

        After the clock is set back, rows continue from the new time.
        """
        now = self.clock()
        second = np.floor(now)
        too_soon = 0 <= now - self.read_at < self.period / 2  # for a rate
        if steps < 1 or too_soon or self.second - self.period <= second <= self.second:
            return Chunk(np.empty(0), np.empty((0, 4)), None)
        reading = self.read()
        row = self.row(reading, now - self.read_at)
        self.read_at = now
        self.second = second
        self.previous = reading
        return Chunk(np.array([second]), np.array([row]), None)

    def row(self, new: MachineReading, elapsed: float) -> list[float]:
        """Return the row (features,) of a reading, NaN = missing.

        elapsed: seconds since the previous reading.
        """
        if not 0 < elapsed <= self.MAX_PAUSE:
            self.note("pauses" if elapsed > 0 else "clock set back")
            return [np.nan, new.memory, np.nan, np.nan]
        old = self.previous
        return [
            new.cpu,
            new.memory,
            self.rate("disk", old.disk, new.disk, elapsed),
            self.rate("network", old.network, new.network, elapsed),
        ]

    def rate(self, what: str, old: float | None, new: float | None, elapsed: float) -> float:
        """Return the bytes per second between two counters; NaN, counted, if one is unusable."""
        if new is None or old is None:
            self.note(f"{what} not known")
        elif new < old:
            self.note(f"{what} counter went back")
        else:
            return (new - old) / elapsed
        return np.nan

    def note(self, event: str) -> None:
        """Count an event."""
        self.notes[event] = self.notes.get(event, 0) + 1
