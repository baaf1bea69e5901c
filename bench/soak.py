"""Runs a server for long, at a tenth of its capacity and under random faults, and checks that
nothing grows and nothing is lost.

`python -m bench.soak --minutes 30` prints a table and writes docs/soak.svg; the exit code is 1 if a
figure of the last third is not that of the second third, or a point is lost or doubled. kill -9
falls into the first third and the end: what leaks shows in a process that lives.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bench.browser import ROOT
from bench.faults import FAULTS, Trouble
from bench.pushers import Audit, Ledger, Pushers, Target
from bench.soak_chart import Curve, Mark, Panel, chart

SHARE = 0.1  # of the capacity
LONG_MINUTES = 5.0  # of a soak in which a third is calm enough to judge latencies and the log
OPEN_SECONDS = 3  # until a half-open request is ended


class Sample(NamedTuple):
    """What was measured over a few seconds."""

    at: float  # seconds since the soak began
    memory: float  # MiB of the server's process
    files: float  # descriptors
    store: float  # MiB, its log included
    submit_p50: float  # ms
    submit_p99: float
    health_p50: float
    health_p99: float


class Tolerance(NamedTuple):
    """How far the median of the last third may be above that of the second.

    What grows from nothing at a steady pace is 1.67 times as much there.
    """

    ratio: float
    more: float  # in the unit of the figure


TOLERANCES = {
    "memory": Tolerance(1.1, 5.0),
    "files": Tolerance(1.0, 10.0),
    "store": Tolerance(1.25, 1.0),
    "submit_p50": Tolerance(1.3, 1.0),
    "submit_p99": Tolerance(1.5, 10.0),
    "health_p50": Tolerance(1.3, 1.0),
    "health_p99": Tolerance(1.5, 5.0),
}
NAMES = {
    "memory": ("memory of the server", "MiB"),
    "files": ("file descriptors", ""),
    "store": ("database and log", "MiB"),
    "submit_p50": ("POST /api/submit, p50", "ms"),
    "submit_p99": ("POST /api/submit, p99", "ms"),
    "health_p50": ("/health, p50", "ms"),
    "health_p99": ("/health, p99", "ms"),
}


class Row(NamedTuple):
    """One line of the table."""

    figure: str
    second: str  # third
    last: str
    limit: str
    met: bool | None  # None = not judged


class FaultTime(NamedTuple):
    """When a fault was, in seconds since the soak began."""

    kind: str
    began: float
    ended: float


class Soak(NamedTuple):
    """What came of it."""

    seconds: float
    capacity: float  # points a second
    samples: list[Sample]
    faults: list[FaultTime]
    rows: list[Row]

    @property
    def passed(self) -> bool:
        """Return whether every judged figure is within its limit."""
        return all(row.met is not False for row in self.rows)


class Sampler:
    """Asks /health ten times a second, and samples the server every `pause` seconds."""

    def __init__(self, target: Target, ledger: Ledger, pause: float) -> None:
        self.target = target
        self.ledger = ledger
        self.pause = pause
        self.began = time.monotonic()
        self.health: list[tuple[float, float]] = []  # monotonic seconds of an answer, its seconds
        self.samples: list[Sample] = []

    def ask(self) -> None:
        began = time.monotonic()
        if self.target.ask("GET", "/health").status:
            now = time.monotonic()
            self.health.append((now, now - began))

    def sample(self) -> None:
        since = time.monotonic() - self.pause
        process = self.target.process
        if not process.is_running():  # killed a moment ago
            return
        self.samples.append(
            Sample(
                time.monotonic() - self.began,
                process.memory_info().rss / 2**20,
                process.num_fds(),
                self.target.size() / 2**20,
                *quantiles(self.ledger.took, since),
                *quantiles(self.health, since),
            )
        )


def quantiles(took: list[tuple[float, float]], since: float) -> tuple[float, float]:
    """Return p50 and p99 in ms of the answers since a moment, NaN without one."""
    recent = [seconds for at, seconds in took[-5_000:] if at >= since]
    if not recent:
        return np.nan, np.nan
    p50, p99 = 1_000 * np.quantile(recent, (0.5, 0.99))
    return float(p50), float(p99)


@contextmanager
def repeating(pause: float, work: Callable[[], None]) -> Iterator[None]:
    """Do something again and again in a thread; its error is raised at the end."""
    ending = threading.Event()
    errors: list[Exception] = []

    def repeat() -> None:
        while not ending.wait(pause):
            try:
                work()
            except Exception as error:  # noqa: BLE001  raised below
                errors.append(error)

    thread = threading.Thread(target=repeat)
    thread.start()
    try:
        yield
    finally:
        ending.set()
        thread.join()
    if errors:
        raise errors[0]


def make_trouble(trouble: Trouble, began: float, seconds: float, seed: int) -> list[FaultTime]:
    """Put faults upon the server until the time is over; return when each was.

    kill -9 comes first; then each kind comes once before any comes again, but kill -9 only in the
    first third.
    """
    draw = random.Random(seed)
    mean = max(0.5, min(10.0, seconds / 60))  # seconds between two faults
    kinds = ["kill -9"]
    faults: list[FaultTime] = []
    while True:
        kinds = kinds or draw.sample(list(FAULTS), len(FAULTS))
        kind = kinds.pop()
        at = time.monotonic() - began
        if kind == "kill -9" and at > seconds / 3:
            continue
        time.sleep(draw.uniform(0.5, 1.5) * mean)
        at = time.monotonic() - began
        if at > seconds - 2 * mean:
            return faults
        FAULTS[kind](trouble)
        faults.append(FaultTime(kind, at, time.monotonic() - began))


def thirds(samples: list[Sample], seconds: float, name: str) -> tuple[float, float]:
    """Return the medians of a figure over the second and the last third."""
    at = np.array([sample.at for sample in samples])
    values = np.array([getattr(sample, name) for sample in samples])
    second = values[(at > seconds / 3) & (at <= 2 * seconds / 3)]
    last = values[(at > 2 * seconds / 3) & (at <= seconds)]
    return float(np.nanmedian(second)), float(np.nanmedian(last))


def flat_rows(samples: list[Sample], seconds: float) -> Iterator[Row]:
    """Yield a row for each figure that must be flat."""
    for name, tolerance in TOLERANCES.items():
        second, last = thirds(samples, seconds, name)
        limit = tolerance.ratio * second + tolerance.more
        judged = seconds >= 60 * LONG_MINUTES or name in ("memory", "files")
        figure, unit = NAMES[name]
        texts = [f"{value:.1f} {unit}".rstrip() for value in (second, last, limit)]
        texts[2] = f"<= {texts[2]} ({tolerance.ratio:g} x + {tolerance.more:g})"
        yield Row(figure, *texts, last <= limit if judged else None)


def unexpected(line: str) -> bool:
    """Return whether a line of the log is an error that no fault explains."""
    failed = " failed, id " in line and not line.startswith("the store ")
    return failed or "Exception in" in line


def count_rows(
    target: Target, ledger: Ledger, audit: Audit, trouble: Trouble, rate: float
) -> Iterator[Row]:
    """Yield the rows of what must not have happened."""
    points = ledger.points
    yield Row("points acknowledged", "", f"{points:,}", f"at {rate:,.0f} points/s", None)
    for name in ("lost", "doubled", "changed"):
        count = getattr(audit, name)
        yield Row(f"acknowledged points {name}", "", f"{count}", "0", count == 0)
    errors = sum(map(unexpected, target.log.read_text(errors="replace").splitlines()))
    yield Row("errors in the log, but those of the store", "", f"{errors}", "0", errors == 0)
    wrong = "; ".join(trouble.wrong[:3]) or "none"
    yield Row("faults that were answered wrongly", "", wrong, "none", not trouble.wrong)
    back = max(trouble.back)
    yield Row("back after kill -9, slowest", "", f"{back:.2f} s", "", None)


def soak(seconds: float, seed: int = 1) -> Soak:
    """Run a server on a fresh store under a load and faults for so long."""
    with tempfile.TemporaryDirectory(prefix="redline-") as name:
        folder = Path(name)
        limits = ["--header-timeout", f"{OPEN_SECONDS}", "--body-timeout", f"{OPEN_SECONDS}"]
        ledger = Ledger()
        # the store stops to grow in the first third: what was pushed at full speed is as much
        target = Target(
            folder, max(0.5, min(60.0, seconds / 20)), "--retention-rows", "100000", *limits
        )
        try:
            return soaked(target, ledger, seconds, seed)
        finally:
            target.kill()


def soaked(target: Target, ledger: Ledger, seconds: float, seed: int) -> Soak:
    """Load a server that runs, put the faults upon it and judge."""
    pushers = Pushers(target, ledger)
    try:
        capacity = pushers.capacity(max(2.0, min(5.0, seconds / 20)))
        rate = SHARE * capacity
        pushers.slow_to(rate)
        audit = Audit(target.store, ledger)
        sampler = Sampler(target, ledger, max(0.5, min(5.0, seconds / 60)))
        trouble = Trouble(target, ledger, seed, max(1.0, min(3.0, seconds / 200)))
        with (
            repeating(1.0, audit.run),
            repeating(0.1, sampler.ask),
            repeating(sampler.pause, sampler.sample),
        ):
            faults = make_trouble(trouble, sampler.began, seconds, seed)
            time.sleep(max(0.0, seconds - (time.monotonic() - sampler.began)))
        samples = [sample for sample in sampler.samples if sample.at <= seconds]
        trouble.kill()  # while the programs push
        pushers.wait_for_each()
    finally:
        pushers.stop()
    audit.finish(target)
    target.kill(signal.SIGTERM)
    rows = [
        *flat_rows(samples, seconds),
        *count_rows(target, ledger, audit, trouble, rate),
    ]
    return Soak(seconds, capacity, samples, faults, rows)


def table(found: Soak) -> str:
    """Return the table as Markdown, and how often each fault came."""
    lines = ["| figure | second third | last third | limit | |", "|---|---|---|---|---|"]
    lines += [
        f"| {row.figure} | {row.second} | {row.last} | {row.limit} | "
        f"{'' if row.met is None else 'met' if row.met else 'missed'} |"
        for row in found.rows
    ]
    counts = Counter(fault.kind for fault in found.faults)
    faults = ", ".join(f"{count} x {kind}" for kind, count in counts.most_common())
    lines += ["", f"{found.seconds / 60:.1f} minutes, {len(found.faults)} faults: {faults}."]
    lines += [f"Capacity {found.capacity:,.0f} points/s."]
    return "\n".join(lines)


def picture(found: Soak) -> str:
    """Return the SVG of the figures over time."""
    at = [sample.at / 60 for sample in found.samples]

    def curves(*names: str) -> list[Curve]:
        return [Curve([getattr(s, name) for s in found.samples], name[-3:]) for name in names]

    panels = [
        Panel("memory of the server, MiB", curves("memory")),
        Panel("file descriptors", curves("files")),
        Panel("database and log, MiB", curves("store")),
        Panel("POST /api/submit, ms, p50 and p99", curves("submit_p50", "submit_p99"), True),
        Panel("/health, ms, p50 and p99", curves("health_p50", "health_p99"), True),
    ]
    marks = [Mark(fault.kind, fault.began / 60) for fault in found.faults]
    return chart(at, panels, marks, found.seconds / 60)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.soak", description=(__doc__ or "").partition("\n\n")[0]
    )
    parser.add_argument("--minutes", type=float, default=30.0, help="how long")
    parser.add_argument("--seed", type=int, default=1, help="of the faults")
    parser.add_argument("--picture", type=Path, default=ROOT / "docs" / "soak.svg")
    asked = parser.parse_args()
    found = soak(60 * asked.minutes, asked.seed)
    print(table(found))
    asked.picture.write_text(picture(found), encoding="utf-8")
    return int(not found.passed)


if __name__ == "__main__":
    sys.exit(main())
