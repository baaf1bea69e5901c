"""Real processes and real trouble: kill -9 under load, a full disk, a locked and a damaged file, a
jumping clock.

Run as a program, this file is the load: a monitor on a store, one client per source that sends what
is not acknowledged yet and prints what is, and on request people who label, acknowledge and tune.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from redline.api.service import Service, assemble_service
from redline.engine.monitor import Monitor
from redline.feedback.labels import Label
from redline.incidents.incident import (
    ACKNOWLEDGED,
    OPEN,
    IncidentSettled,
    UnknownIncident,
    incident_from_row,
)
from redline.incidents.registry import IncidentQuery
from redline.settings import Settings
from redline.sources.pushed import QueueFull, SubmissionRefused
from redline.storage import retention
from redline.storage.opening import open_database
from redline.storage.reading import AnomalyQuery
from redline.storage.sql_store import SqlStore
from redline.storage.sqlite import SqliteStore

pytestmark = pytest.mark.service
ROOT = Path(__file__).parents[2]
START = 1_700_000_000.0  # seconds since the epoch
SOURCES = {"pump": ("flow", "heat"), "pipe": ("value",), "wheel": ("value",)}
SETTINGS = {"wheel": Settings("EWMA", 40, 3.0)}
TUNED = 500  # steps sent before they are applied
KILLS = int(os.environ.get("KILLS", "25"))
BACK = 6.0  # seconds until a restarted service acknowledges, half of the time; it takes under one
LENGTH = 40_000 * max(25, KILLS)  # points of a source, more than a test sends
KEPT_POINTS = 200_000  # that retention leaves while people work too
FASTEST = 40_000  # points a second of a source, so that retention takes none that is not read yet


@cache
def points(name: str) -> tuple[np.ndarray, np.ndarray]:
    """All points of a source: time (n,), x (n, features)."""
    draw = np.random.default_rng(list(name.encode()))
    x = draw.normal(size=(LENGTH, len(SOURCES[name])))
    x[draw.random(x.shape) < 0.005] += 9.0
    return START + np.arange(LENGTH, dtype=float), x


# --- the load


def client(monitor: Monitor, name: str, done: int, seed: int) -> None:
    """Sends the points from `done` on, up to three submissions ahead of their acknowledgement, and
    prints each that comes.
    """
    began = time.monotonic()
    (time_, x), draw, sent, open_, tuned = (
        points(name),
        random.Random(seed),
        done,
        [],
        name not in SETTINGS,
    )
    while sent < LENGTH or open_:
        if (
            sent >= TUNED and not tuned
        ):  # while the buffer still holds the first step, from which the new track begins
            monitor.apply(name, SETTINGS[name])
            tuned = monitor.wait_until_stored()
        while len(open_) < 3 and sent < LENGTH:
            size = draw.choice((1, 3, 20, 120, 700))
            try:
                receipt = monitor.submit(
                    name, time_[sent : sent + size], x[sent : sent + size], SOURCES[name]
                )
            except QueueFull:
                time.sleep(0.01)
                continue
            sent = min(sent + size, LENGTH)
            open_.append((sent, receipt))
        upto, receipt = open_.pop(0)
        receipt.result()
        os.write(1, f"ack {name} {upto}\n".encode())
        time.sleep(max(0.0, (upto - done) / FASTEST - (time.monotonic() - began)))


def label(service: Service, seed: int) -> None:
    """Labels points, and prints each label that is stored."""
    for number in range(LENGTH):
        at = START + number
        new = Label("pump", at, at + 1, "expected", "me", at, note=f"{seed}-{number}")
        kept = service.labels.add(new, len(SOURCES["pump"]))
        os.write(1, f"label {kept.id} {kept.note}\n".encode())
        time.sleep(0.01)


def acknowledge(service: Service) -> None:
    """Acknowledges incidents, and prints each that is stored as acknowledged."""
    while True:
        for incident in service.incidents.find(IncidentQuery(states=(OPEN,))).incidents:
            try:
                service.incidents.acknowledge(incident.id, "me", START)
            except (IncidentSettled, UnknownIncident):  # it ended meanwhile
                continue
            os.write(1, f"seen {incident.id}\n".encode())
        time.sleep(0.005)


def tune(monitor: Monitor, seed: int) -> None:
    """Applies one threshold after another, and prints each that is stored."""
    for number in range(LENGTH):
        threshold = 4 + (seed * 1_000 + number) / 1e6
        monitor.apply("pump", Settings(threshold=threshold))
        if monitor.wait_until_stored():
            os.write(1, f"tuned {threshold}\n".encode())
        time.sleep(0.01)


def load(path: str, seed: int, done: dict[str, int], people: bool) -> None:
    """Runs until it is killed; says when the store is in trouble and when it is well again.

    With people, they label, acknowledge and tune, and retention deletes what is old.
    """
    keep = retention.Retention()
    if people:
        keep = retention.Retention(rows=KEPT_POINTS)
        retention.SWEEP_EVERY = 0.05
    store = open_database(path, keep)
    service = assemble_service(lambda store: Monitor({}, store=store), store)
    monitor = service.monitor
    monitor.start()
    for turn, name in enumerate(SOURCES):
        threading.Thread(
            target=client, args=(monitor, name, done.get(name, 0), seed + turn), daemon=True
        ).start()
    if people:
        while "pump" not in monitor.feeds or not monitor.feeds["pump"].ready:
            time.sleep(0.005)
        work = ((label, service, seed), (acknowledge, service), (tune, monitor, seed))
        for what, *given in work:
            threading.Thread(target=what, args=given, daemon=True).start()
    troubled = False
    while True:
        if troubled != (monitor.trouble is not None):
            troubled = not troubled
            os.write(
                1, f"trouble {monitor.trouble.text}\n".encode() if monitor.trouble else b"well\n"
            )
        time.sleep(0.005)


class Process:
    """The load in a process of its own, its words read as they come."""

    def __init__(
        self,
        path: Path | str,
        seed: int,
        acked: dict[str, int],
        limit: int = 0,
        people: bool = False,
    ):
        self.acked, self.words, self.began, self.first = acked, [], time.monotonic(), None

        def bound() -> None:
            if limit:
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))

        env = {**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}
        given = [str(path), str(seed), json.dumps(acked), json.dumps(people)]
        command = [sys.executable, __file__, *given]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, env=env, preexec_fn=bound)
        self.reader = threading.Thread(target=self.read)
        self.reader.start()

    def read(self) -> None:
        for line in self.process.stdout:
            word, _, rest = line.decode().strip().partition(" ")
            if word == "ack" and line.endswith(b"\n"):
                self.first = self.first or time.monotonic() - self.began
                name, upto = rest.split()
                self.acked[name] = max(self.acked.get(name, 0), int(upto))
            self.words.append((word, rest))

    def until(self, true, seconds: float = 20.0) -> None:
        """Waits for something to become true."""
        end = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < end and self.process.poll() is None, self.words[-5:]
            time.sleep(0.002)

    def said(self, word: str) -> list[str]:
        return [rest for each, rest in list(self.words) if each == word]

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.reader.join()
        self.process.stdout.close()


def checked(path: Path | str, acked: dict[str, int]) -> dict[str, int]:
    """Every acknowledged point is there, none twice, each as it was sent; how many of each
    source.
    """
    store, found = open_database(path, write=False), {}
    for name in SOURCES:
        stored, (time_, x) = store.points(name, limit=LENGTH), points(name)
        n = 0 if stored is None else len(stored.time)
        assert n >= acked.get(name, 0), f"{name}: {acked[name] - n} acknowledged points lost"
        if stored is not None:
            assert np.array_equal(stored.time, time_[:n]) and np.array_equal(stored.x, x[:n])
        found[name] = n
    store.close()
    return found


def same_bits(scores: dict[str, np.ndarray]) -> None:
    """The scores of each source (n,) are those of a run that nothing interrupted."""
    for name, stored in scores.items():
        n = len(stored)
        time_, x = points(name)
        change = n
        if name in SETTINGS:
            change = switched(stored, whole_scores(Monitor({}), name, time_[:n], x[:n], ()))
        score = whole_scores(Monitor({}), name, time_[:n], x[:n], (change,))
        assert np.array_equal(stored, score, equal_nan=True), (
            f"{name}: other bits from step {np.flatnonzero(stored != score)[:3]}"
        )


def stored_scores(path: Path | str) -> dict[str, np.ndarray]:
    """The scores in the store, by source."""
    store = open_database(path, write=False)
    found = {name: store.points(name, limit=LENGTH) for name in SOURCES}
    store.close()
    return {name: stored.score for name, stored in found.items() if stored is not None}


def switched(stored: np.ndarray, first: np.ndarray) -> int:
    """The step from which other settings decided."""
    different = ~((stored == first) | (np.isnan(stored) & np.isnan(first)))
    return int(different.argmax()) if different.any() else len(stored)


def whole_scores(
    monitor: Monitor, name: str, time_: np.ndarray, x: np.ndarray, changes: tuple[int, ...]
) -> np.ndarray:
    """(n,) scores of a run without interruption, other settings applied before a step."""
    heard: list[np.ndarray] = []
    monitor.listeners.append(
        lambda batches, committed: heard.extend(batch.score for batch in batches)
    )
    for first, end in zip((0, *changes), (*changes, len(time_))):
        if first and first < len(time_):
            monitor.apply(name, SETTINGS[name])
        for at in range(first, end, 5_000):
            monitor.submit(
                name, time_[at : min(at + 5_000, end)], x[at : min(at + 5_000, end)], SOURCES[name]
            )
            monitor.process_pushed()
    return np.concatenate(
        [np.zeros(0), *heard]
    )  # a source may have been killed before its first point


class Reader:
    """Reads the store after each kill: what was acknowledged is there once, the rest is as it was.

    It remembers the scores, as retention deletes the oldest points.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = path
        self.acked: dict[str, int] = {}  # points of each source
        self.scores = {name: np.zeros(0) for name in SOURCES}
        self.labels: dict[int, str] = {}  # id -> note
        self.seen: set[str] = set()  # ids of incidents
        self.tuned: list[float] = []  # thresholds
        self.deleted = 0  # points

    def read(self, process: Process) -> None:
        """Read what a process that was killed left."""
        self.labels |= {int(id): note for id, note in map(str.split, process.said("label"))}
        self.seen |= set(process.said("seen"))
        self.tuned += map(float, process.said("tuned"))
        store = open_database(self.path, write=False)
        kept = sum(self.read_points(store, name) for name in SOURCES)
        sent = sum(map(len, self.scores.values()))
        self.deleted = sent - kept
        assert kept >= min(sent, KEPT_POINTS) - 10_000, "retention took more than it may"
        labels = [(row["body"]["id"], row["body"]["note"]) for row in store.labels()]
        assert len(labels) == len(dict(labels)) == len({note for _, note in labels}), "doubled"
        assert self.labels.items() <= set(labels), "a label was lost"
        thresholds = [
            row["settings"]["threshold"] for row in reversed(store.history("pump", limit=LENGTH))
        ]
        assert [each for each in thresholds if each in self.tuned] == self.tuned, "settings"
        incidents = [incident_from_row(row) for row in store.incidents(LENGTH)[0]]
        assert len(incidents) == len({incident.id for incident in incidents}), "doubled"
        acknowledged = {
            incident.id
            for incident in incidents
            if [entry.who for entry in incident.history if entry.what == ACKNOWLEDGED] == ["me"]
        }
        assert self.seen <= acknowledged, "an acknowledgement was lost or doubled"
        anomalies = [
            (row["stream"], row["step"], row["feature"])
            for row in store.anomalies(AnomalyQuery(limit=LENGTH))
        ]
        assert len(anomalies) == len(set(anomalies)), "an anomaly was doubled"
        store.close()

    def read_points(self, store: SqlStore, name: str) -> int:
        """Read a source; return how many points of it are left."""
        stored, before = store.points(name, limit=LENGTH), self.scores[name]
        if stored is None:
            assert name not in self.acked
            return 0
        time_, x = points(name)
        first = int(np.searchsorted(time_, stored.time[0])) if len(stored.time) else 0
        end = first + len(stored.time)
        assert end >= self.acked.get(name, 0), f"{name}: acknowledged points lost"
        assert first <= len(before), f"{name}: retention took points that were not read yet"
        assert np.array_equal(stored.time, time_[first:end])
        assert np.array_equal(stored.x, x[first:end])
        again = stored.score[: len(before) - first]
        assert np.array_equal(again, before[first:], equal_nan=True), f"{name}: other scores"
        self.scores[name] = np.concatenate([before, stored.score[len(again) :]])
        return len(stored.time)


@pytest.mark.hardship
def test_a_kill_at_any_moment_loses_nothing_doubles_nothing_changes_no_bit(db):
    """Pushes, labels, acknowledgements, settings and retention go on meanwhile; KILLS times."""
    kills = KILLS if isinstance(db, Path) else max(2, KILLS // 5)
    reader, back, draw = Reader(db), [], random.Random(11)
    for turn in range(kills):
        process = Process(reader.path, 10 * turn, reader.acked, people=True)
        process.until(lambda process=process: process.first is not None)
        time.sleep(draw.uniform(0.0, 0.5))
        process.kill()
        back.append(process.first)
        reader.read(process)
    same_bits(reader.scores)
    acked, sent = sum(reader.acked.values()), sum(map(len, reader.scores.values()))
    print(
        f"\nkill test: {kills} kills, {acked:,} points acknowledged, {sent:,} stored, of which "
        f"retention took {reader.deleted:,}; {len(reader.labels):,} labels, "
        f"{len(reader.seen):,} acknowledgements, {len(reader.tuned):,} settings; "
        f"0 lost, 0 doubled, scores bit-equal, "
        f"back within {max(back):.2f} s (median {np.median(back):.2f})"
    )
    assert reader.labels and reader.seen and reader.tuned
    assert reader.deleted > 0 or sent < 2 * KEPT_POINTS
    assert (
        np.median(back) <= BACK
    )  # the slowest is for bench/service.py to judge, on a machine that does nothing else


def small_disk(folder: Path, size: int) -> bool:
    """A file system of its own, where that is allowed."""
    folder.mkdir()
    return (
        os.geteuid() == 0
        and subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=False
        ).returncode
        == 0
    )


@pytest.mark.hardship
def test_a_full_disk_acknowledges_nothing_it_cannot_keep_and_goes_on_when_there_is_room(tmp_path):
    folder, acked = tmp_path / "disk", {}
    mounted = small_disk(folder, 12 << 20)
    path, filler = folder / "redline.db", folder / "filler"
    try:
        if mounted:
            filler.write_bytes(bytes(5 << 20))
        process = Process(path, 1, acked, 0 if mounted else 2 << 20)
        process.until(lambda: process.said("trouble"))
        assert (
            "its disk is full or its size is limited" in process.said("trouble")[0]
            and "make room" in process.said("trouble")[0]
        )
        time.sleep(0.3)  # for words that are under way
        stood = dict(acked)
        time.sleep(0.3)
        assert acked == stood  # nothing is acknowledged while nothing can be written
        if mounted:
            filler.unlink()
        else:
            resource.prlimit(
                process.process.pid,
                resource.RLIMIT_FSIZE,
                (resource.RLIM_INFINITY, resource.RLIM_INFINITY),
            )
        process.until(lambda: process.said("well") and sum(acked.values()) > sum(stood.values()))
        process.kill()
        checked(path, acked)
        same_bits(stored_scores(path))
    finally:
        if mounted:
            subprocess.run(["umount", "-l", folder], check=True)


def test_a_locked_file_is_waited_for(tmp_path):
    path, acked = tmp_path / "redline.db", {}
    process = Process(path, 2, acked)
    process.until(lambda: sum(acked.values()) > 1_000)
    other = sqlite3.connect(path, isolation_level=None, timeout=5)
    other.execute("BEGIN IMMEDIATE")
    process.until(lambda: process.said("trouble"))
    assert "is locked by another program" in process.said("trouble")[0]
    stood = dict(acked)
    other.execute("ROLLBACK")
    other.close()
    process.until(lambda: process.said("well") and sum(acked.values()) > sum(stood.values()))
    process.kill()
    checked(path, acked)
    same_bits(stored_scores(path))


def test_a_damaged_file_is_refused_at_the_start_and_acknowledges_nothing_more(tmp_path):
    path, acked = tmp_path / "redline.db", {}
    process = Process(path, 3, acked)
    process.until(lambda: sum(acked.values()) > 20_000)
    process.kill()
    with sqlite3.connect(path) as other:
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        root, page = other.execute(
            "SELECT rootpage, (SELECT page_size FROM pragma_page_size) FROM "
            "sqlite_master WHERE name = 'points_step'"
        ).fetchone()
    other.close()
    with open(path, "r+b") as file:
        file.seek((root - 1) * page)
        file.write(b"\xff" * page)
    stood = dict(acked)
    process = Process(path, 4, acked)
    assert process.process.wait(20) == 1 and acked == stood
    process.kill()


@pytest.mark.hardship
@pytest.mark.parametrize("jump", [-10 * 365 * 86_400.0, 10 * 365 * 86_400.0, -90.0, 90.0])
def test_a_clock_that_jumps_loses_nothing(tmp_path, jump):
    wall = [START + 1e6]
    store = SqliteStore(tmp_path / "redline.db")
    monitor = Monitor({}, wall=lambda: wall[0], store=store)
    time_, x = points("pipe")
    for at in range(0, 3_000, 100):
        wall[0] += jump if at == 1_000 else -jump if at == 2_000 else 0.0
        part = slice(at, at + 100)
        if time_[at] > monitor.latest_time(1.0):
            with pytest.raises(SubmissionRefused, match="a little ahead of the clock here"):
                monitor.submit("pipe", time_[part], x[part])
            continue
        receipt = monitor.submit("pipe", time_[part], x[part])
        monitor.process_pushed()
        assert receipt.result(timeout=0).accepted == 100
    kept = store.points("pipe")
    assert (
        len(kept.time) == (2_000 if jump < -86_400 else 3_000)
        and not monitor.feeds["pipe"].stream.notes["late"]
    )
    store.close()


# --- the whole program, through its API


def asked(port: int, path: str, body: object = None, timeout: float = 10.0) -> dict:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}", data, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=timeout) as answer:
        return json.loads(answer.read())


def program(port: int, folder: Path, *flags: str, file_bytes: int = -1) -> subprocess.Popen:
    """`python app.py`, answering; `file_bytes` = the size its files may have, -1 = any."""

    def bound() -> None:
        if file_bytes >= 0:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, resource.RLIM_INFINITY))

    env = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / "app.py"), "--no-browser", "--port", str(port), *flags]
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        preexec_fn=bound,
    )
    end = time.monotonic() + 20
    while time.monotonic() < end:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
            return process
        except (OSError, urllib.error.HTTPError) as error:
            if isinstance(error, urllib.error.HTTPError):
                return process
            time.sleep(0.02)
    raise AssertionError("python app.py does not answer")


@pytest.fixture
def port(unused=[8_700]):  # noqa: B006  counts
    unused[0] += 1
    return unused[0] + os.getpid() % 200


def test_the_program_killed_over_its_api_keeps_points_settings_and_simulated_streams(
    tmp_path, port, db
):
    time_, x = points("pipe")
    done, ends = 0, [0]
    for turn in range(4):
        process = program(port, tmp_path, "--db", str(db))
        try:
            for _ in range(6):
                batch = {
                    "source": "pipe",
                    "time": time_[done : done + 500].tolist(),
                    "value": x[done : done + 500, 0].tolist(),
                }
                asked(port, "/api/submit", batch)
                done += 500
            if turn == 1:
                asked(port, "/api/configure", {"source": "pipe", "detector": "EWMA", "window": 44})
            time.sleep(0.3)
            listed = {
                each["source"]: each for each in asked(port, "/api/streams?limit=100")["streams"]
            }
            assert listed["pipe"]["end"] == done and listed["wave"]["end"] >= max(10_000, ends[-1])
            assert (listed["pipe"]["applied"]["window"] == 44) == (turn >= 1)
            ends.append(
                listed["wave"]["end"] - 10
            )  # what the last second found may still be on its way to the disk
        finally:
            process.kill()
            process.stderr.close()
            process.wait()
    store = open_database(db, write=False)
    assert np.array_equal(store.points("pipe", limit=LENGTH).time, time_[:done])
    found = [a["step"] for a in store.anomalies(AnomalyQuery(("wave",), limit=100_000))]
    assert len(found) == len(set(found)) > 0
    store.close()


@contextlib.contextmanager
def filled_disk(folder: Path, program: Callable[[int], subprocess.Popen]) -> Iterator[Any]:
    """Start a program while nothing can be written to the folder; yields it and what makes room.

    `program` gets the size that its files may have, -1 = any: where no file system can be mounted,
    that limit stands for a full disk.
    """
    with contextlib.suppress(OSError), (folder / "filler").open("wb", buffering=0) as file:
        while os.path.ismount(folder):
            file.write(bytes(4_096))
    process = program(-1 if os.path.ismount(folder) else 0)

    def make_room() -> None:
        (folder / "filler").unlink()
        unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, unlimited)

    try:
        yield process, make_room
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def disk(tmp_path) -> Iterator[Path]:
    """A folder on a small file system of its own, where that is allowed."""
    folder = tmp_path / "disk"
    mounted = small_disk(folder, 4 << 20)
    yield folder
    if mounted:
        subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.hardship
@pytest.mark.parametrize("before", [0, 500])
def test_a_program_started_on_a_full_disk_goes_on_when_there_is_room(disk, tmp_path, port, before):
    path = disk / "redline.db"
    time_, x = points("pipe")
    if before:
        store = SqliteStore(path)
        older = Monitor({}, store=store)
        older.submit("pipe", time_[:before], x[:before])
        older.process_pushed()
        store.close()
    new = {"source": "pipe", "time": time_[before : before + 9].tolist()}
    new["value"] = x[before : before + 9, 0].tolist()

    def submit() -> object:
        """What became of the points: how many are accepted, or the status of the refusal."""
        try:
            return asked(port, "/api/submit", new, timeout=3.0)["accepted"]
        except OSError as error:
            return str(getattr(error, "code", "no answer"))

    def start(file_bytes: int) -> subprocess.Popen:
        return program(port, tmp_path, "--db", str(path), file_bytes=file_bytes)

    with filled_disk(disk, start) as (process, make_room):
        assert {submit(), submit()} <= {"503", "no answer"}
        make_room()
        end = time.monotonic() + 30
        while (accepted := submit()) != 9:
            assert accepted in ("503", "no answer") and time.monotonic() < end
        assert asked(port, "/api/streams/pipe")["end"] == before + 9
        assert asked(port, "/health")["ready"]
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=30)[1].decode()
        assert process.returncode == 0
    assert "acknowledges nothing until there is room" in said
    assert "Exception in ASGI" not in said and "restore a backup" not in said, said
    assert stored_times(path) == time_[: before + 9].tolist()


def stored_times(path: Path) -> list[float]:
    """The times of the points of the pipe in a store."""
    store = SqliteStore(path, write=False)
    found = store.points("pipe")
    store.close()
    return [] if found is None else found.time.tolist()


def test_a_damaged_file_is_said_at_the_start_and_the_page_goes_on(tmp_path, port):
    (tmp_path / "redline.db").write_bytes(b"SQLite format 3\0" + os.urandom(50_000))
    process = program(port, tmp_path)
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as page:
            assert page.status == 200
        with pytest.raises((urllib.error.HTTPError, TimeoutError)):
            asked(port, "/api/submit", {"source": "pipe", "time": START, "value": 1.0}, timeout=3)
    finally:
        process.kill()
        said = process.stderr.read().decode()
        process.stderr.close()
        process.wait()
    assert "is damaged" in said and "restore a backup" in said and "Redline goes on" in said


if __name__ == "__main__":
    load(sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3]), json.loads(sys.argv[4]))
