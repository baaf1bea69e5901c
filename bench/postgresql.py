"""The commits of both databases, measured in the same run: `python -m bench.postgresql`.

Three ways to store points: a step of 5,000 series of a fleet, a block of 5,000 points of a single
stream, and a point of each of 5,000 streams that are no fleet. Each commit waits for the disk. The
server is one of its own, in a temporary folder, with the defaults of PostgreSQL.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np

from bench.fleet_store import START, one_step
from bench.postgres_server import PostgresServer, missing
from redline.engine.fleet.stored import FleetCommit, SeriesRecord, SeriesSteps
from redline.engine.results import Batch
from redline.settings import Settings
from redline.storage import dialects
from redline.storage.opening import open_database
from redline.storage.sql_store import SqlStore

SIZE = 5_000  # points of a commit
REPEATS = 40
DURABLE = ("fsync=on", "synchronous_commit=on", "shared_buffers=128MB")


def block(name: str, first: int, n: int) -> Batch:
    """Return a batch of a stream of one feature."""
    draw = np.random.default_rng(first + n)
    return Batch(
        name=name,
        first=first,
        time=START + np.arange(first, first + n, dtype=float),
        x=draw.normal(size=(n, 1)),
        score=np.abs(draw.normal(size=n)),
        alarm=np.zeros(n),
        anomalies=[],
        applied=Settings(),
        snapshot=None,
        stores_points=True,
        live=True,
        names=("value",),
        units=("",),
        origin="{}",
        counts={"points": first + n},
    )


Commit = Callable[[SqlStore, int], None]


def commit_fleet(store: SqlStore, turn: int) -> None:
    """Commit a step of each series."""
    steps = one_step(np.random.default_rng(turn), SIZE, turn, shared=True)
    store.commit([], fleets=[FleetCommit(steps)])


def commit_block(store: SqlStore, turn: int) -> None:
    """Commit a block of one stream."""
    store.commit([block("pump", SIZE * turn, SIZE)])


def commit_streams(store: SqlStore, turn: int) -> None:
    """Commit a point of each stream."""
    store.commit([block(f"stream {i}", turn, 1) for i in range(SIZE)])


COMMITS: dict[str, tuple[Commit, int]] = {  # with the commits of a round
    "a step of 5,000 series": (commit_fleet, REPEATS),
    "a block of one stream": (commit_block, REPEATS),
    "a point of 5,000 streams": (commit_streams, REPEATS // 8),
}


def measure(db: str | Path, words: str) -> None:
    """Print the time of the commits of one database."""
    records = [SeriesRecord(i, f"series {i}", Settings()) for i in range(1, SIZE + 1)]
    with closing(open_database(db, merge=False)) as store:
        store.commit([], fleets=[FleetCommit(SeriesSteps.empty(), records)])
        for what, (commit, repeats) in COMMITS.items():
            taken = list(timed(commit, store, repeats))
            print(
                f"{words:26} {what:25}: best {1e3 * min(taken):7.1f} ms, median "
                f"{1e3 * np.median(taken):7.1f} ms, {SIZE / np.median(taken):9,.0f} points/s",
                flush=True,
            )


def timed(commit: Commit, store: SqlStore, repeats: int) -> Iterator[float]:
    """Yield the seconds of each commit; the first one, which makes the streams, is left out."""
    commit(store, 0)
    for turn in range(1, repeats + 1):
        began = time.perf_counter()
        commit(store, turn)
        yield time.perf_counter() - began


def main() -> None:
    """Measure both databases, in turns."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=2)
    rounds = parser.parse_args().rounds
    why = missing()
    if why:
        raise SystemExit(why)
    with closing(PostgresServer(*DURABLE)) as server, tempfile.TemporaryDirectory() as folder:
        for turn in range(rounds):
            measure(Path(folder) / f"{turn}.db", "SQLite")
            measure(server.address(server.new_database()), "PostgreSQL")
            copied = dialects.COPIED_ROWS
            dialects.COPIED_ROWS = 10**9
            measure(server.address(server.new_database()), "PostgreSQL without COPY")
            dialects.COPIED_ROWS = copied


if __name__ == "__main__":
    main()
