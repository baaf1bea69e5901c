"""The commits of both databases, measured in the same run: `python -m bench.postgresql`.

Both prepare the same rows, and on a busy machine the best of many commits says most. Three ways to
store points: a step of 5,000 series of a fleet, a block of 5,000 points of a single
stream, and a point of each of 5,000 streams that are no fleet. Each commit waits for the disk. The
server is one of its own, in a temporary folder, with the defaults of PostgreSQL.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa

from bench.fleet_store import START, one_step
from bench.postgres_server import PostgresServer, missing
from redline.engine.fleet.stored import FleetCommit, SeriesRecord, SeriesSteps
from redline.engine.results import Batch
from redline.settings import Settings
from redline.storage import dialects
from redline.storage.checksums import seal_row
from redline.storage.encoding import encode_chunks
from redline.storage.opening import open_database
from redline.storage.schema import points_table
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
            taken = 1e3 * np.array(list(timed(commit, store, repeats)))  # (commits, 2) ms
            best, own = taken.min(axis=0)
            print(
                f"{words:24} {what:25}: best {best:7.1f} ms, {1e3 * SIZE / best:9,.0f} points/s, "
                f"median {np.median(taken[:, 0]):7.1f} ms; of Redline's processor {own:7.1f} ms",
                flush=True,
            )


def timed(commit: Commit, store: SqlStore, repeats: int) -> Iterator[tuple[float, float]]:
    """Yield the seconds of each commit, by the clock and of this process's processor time.

    The first commit, which makes the streams, is left out.
    """
    commit(store, 0)
    for turn in range(1, repeats + 1):
        began = time.perf_counter(), time.process_time()
        commit(store, turn)
        yield time.perf_counter() - began[0], time.process_time() - began[1]


def measure_copy(db: str) -> None:
    """Print the time of some rows of points by COPY and by INSERT, in turns."""
    ways = {"COPY": dialects.copy_rows, "INSERT": insert_rows}
    with closing(open_database(db, merge=False)) as store:
        for count in (1, dialects.COPIED_ROWS, 100, SIZE):
            best = dict.fromkeys(ways, np.inf)  # ms
            for turn in range(REPEATS if count < SIZE else REPEATS // 4):
                for way, write in ways.items():
                    rows = point_rows(count, first=count * turn)
                    with store.writing() as c:
                        c.execute(points_table.delete())
                        began = time.perf_counter()
                        write(c, points_table, rows)
                        best[way] = min(best[way], 1e3 * (time.perf_counter() - began))
            found = ", ".join(f"{way} {taken:7.2f} ms" for way, taken in best.items())
            print(f"{count:5,} rows of points: best of {found}", flush=True)


def insert_rows(c: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows by INSERT, as other databases do."""
    c.execute(table.insert(), rows)


def point_rows(count: int, first: int) -> list[dict[str, Any]]:
    """Return rows of the table points, of one step each."""
    return [
        seal_row(points_table, {**chunk, "stream": stream, "arrived": START})
        for stream in range(count)
        for chunk in encode_chunks([block("", first, 1)])
    ]


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
        measure_copy(server.address(server.new_database()))


if __name__ == "__main__":
    main()
