"""What only a store in PostgreSQL has: a server that goes away, a lease, a password."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, suppress

import numpy as np
import pytest
import sqlalchemy as sa
from store_rig import START, numbers, push, rounds, watching

from bench.browser import ROOT
from bench.postgres_server import PostgresServer
from redline.engine.fleet.stored import FleetCommit, SeriesRecord, SeriesSteps
from redline.engine.monitor import Monitor
from redline.settings import Settings
from redline.sources.pushed import SubmissionCounts
from redline.storage import postgresql_session, series_merging
from redline.storage.errors import StoreDamaged, StoreError, StoreFull, StoreUnreachable
from redline.storage.opening import open_database
from redline.storage.postgresql import PostgresStore
from redline.storage.postgresql_address import CAUSES, DatabaseAddress
from redline.storage.reading import AnomalyQuery
from redline.storage.retention import Retention

LEASE_REFUSED = "is in use by another Redline; stop that one, or choose another database"


def name_of(address: str) -> str:
    """Return the name of the database of an address."""
    return sa.make_url(address).database or ""


def assert_holds(store: PostgresStore, steps: int) -> None:
    """Assert that all points of the pump are stored, once each."""
    time, x = numbers(steps)
    stored = store.points("pump", limit=10**6)
    assert stored is not None
    assert stored.time.tolist() == time.tolist() and np.array_equal(stored.x, x)


# --- the server goes away


@pytest.mark.parametrize("crash", [False, True])
def test_while_the_server_is_away_nothing_is_acknowledged_and_then_all_of_it_is(
    postgres: PostgresServer, database: str, crash: bool
) -> None:
    time, x = numbers(3_000)
    with closing(open_database(database)) as store:
        monitor = watching(store)
        push(monitor, "pump", time[:1_000], x[:1_000], [300])
        postgres.stop(crash)
        try:
            owed = monitor.submit("pump", time[1_000:2_000], x[1_000:2_000])
            rounds(monitor, 3)
            assert "does not answer" in monitor.trouble.text and not owed.done()
            with pytest.raises(StoreUnreachable, match="start the server"):
                store.record("ann", "apply")
            with pytest.raises(StoreUnreachable):
                store.points("pump")
        finally:
            postgres.start()
        more = monitor.submit("pump", time[2_000:], x[2_000:])
        rounds(monitor, 12)
        assert owed.result(timeout=0) == more.result(timeout=0) == SubmissionCounts(1_000, 0, 0)
        assert monitor.trouble is None
        assert_holds(store, 3_000)


def test_a_session_that_is_ended_between_two_commits_is_not_noticed(
    postgres: PostgresServer, database: str
) -> None:
    with closing(open_database(database)) as store:
        store.record("ann", "first")
        assert postgres.end_sessions(name_of(database)) >= 1
        store.record("ann", "second")
        assert [line["what"] for line in store.audit()] == ["second", "first"]


class Proxy:
    """A line to the server that is cut before or after a commit of the writer has reached it."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.cut = ""  # "before" or "after" the next COMMIT
        self.cuts = 0
        self.muted: socket.socket | None = None  # to the server; what comes from it is dropped
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.sockets: list[socket.socket] = []
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                server = socket.create_connection(("127.0.0.1", self.port))
                self.sockets += [client, server]
                for pair in ((client, server), (server, client)):
                    threading.Thread(target=self.forward, args=pair, daemon=True).start()

    def forward(self, source: socket.socket, target: socket.socket) -> None:
        writes = False
        with suppress(OSError):
            while data := source.recv(65_536):
                writes |= b"pg_try_advisory_lock" in data
                if source is self.muted:
                    break  # it is committed, and the client never learns of it
                if writes and self.cut and b"COMMIT" in data:
                    cut, self.cut = self.cut, ""
                    self.cuts += 1
                    if cut == "before":
                        break
                    self.muted = target
                target.sendall(data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        for each in (self.listener, *self.sockets):
            each.close()


@pytest.fixture
def proxy(postgres: PostgresServer) -> Iterator[Proxy]:
    line = Proxy(postgres.port)
    yield line
    line.close()


@pytest.mark.parametrize("cut", ["before", "after"])
def test_a_commit_whose_answer_is_lost_is_stored_once(
    proxy: Proxy, database: str, cut: str
) -> None:
    url = sa.make_url(database).set(port=proxy.listener.getsockname()[1])
    time, x = numbers(3_000)
    steps = SeriesSteps(
        *(np.array([1]), np.array([0]), np.array([START]), np.array([5.0])),
        *(np.array([1.0]), np.zeros(1, np.uint8)),
    )
    with closing(open_database(url.render_as_string(hide_password=False), merge=False)) as store:
        monitor = watching(store)
        push(monitor, "pump", time[:1_000], x[:1_000], [300])
        monitor.outbox.enqueue_fleet(FleetCommit(steps, [SeriesRecord(1, "up", Settings())]))
        owed = monitor.submit("pump", time[1_000:2_000], x[1_000:2_000])
        new = monitor.submit("pipe", time[:100], x[:100])
        proxy.cut = cut
        rounds(monitor, 2)
        assert proxy.cuts == 1 and not owed.done() and monitor.trouble is not None
        more = monitor.submit("pump", time[2_000:], x[2_000:])
        rounds(monitor, 12)
        assert owed.result(timeout=0) == more.result(timeout=0) == SubmissionCounts(1_000, 0, 0)
        assert_holds(store, 3_000)
        assert new.result(timeout=0) == SubmissionCounts(100, 0, 0)
        push(monitor, "pipe", time[100:200], x[100:200], [50])
        assert store.points("pipe").time.tolist() == time[:200].tolist()
        assert store.read_series(1, None, None, 9).value.tolist() == [5.0]
        found = [row["step"] for row in store.anomalies(AnomalyQuery(("pump",), limit=1_000))]
        assert len(found) == len(set(found)) == monitor.feeds["pump"].anomalies


@pytest.mark.parametrize("cut", ["before", "after"])
def test_what_a_person_did_is_not_doubled_when_it_is_done_again(
    proxy: Proxy, database: str, cut: str
) -> None:
    url = sa.make_url(database).set(port=proxy.listener.getsockname()[1])
    label = {"id": 1, "stream": "pump", "start": 0.0, "end": 1.0, "kind": "missed"}
    window = {"id": 1, "stream": "pump", "start": 0.0, "end": 1.0, "at": 5.0}
    with closing(open_database(url.render_as_string(hide_password=False))) as store:
        for save, row in ((store.save_label, label), (store.save_window, window)):
            proxy.cut = cut
            with pytest.raises(StoreUnreachable):
                save(row)
            save(row)
        assert [row["body"] for row in store.labels()] == [label]
        assert store.windows() == ([window], 1)


def test_a_merge_begins_again_after_the_connection_was_lost(
    postgres: PostgresServer, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(series_merging, "PACKED_PART", 50)
    monkeypatch.setattr(series_merging, "WRITTEN_PARTS", 1)
    series = np.arange(1, 31)
    records = [SeriesRecord(number, f"s{number}", Settings()) for number in series.tolist()]
    with closing(open_database(database, merge=False)) as store:
        store.commit([], fleets=[FleetCommit(SeriesSteps.empty(), records)])
        for step in range(8):
            columns = (np.full(30, step), np.full(30, START + step), np.zeros(30), np.zeros(30))
            steps = SeriesSteps(series, *columns, np.zeros(30, np.uint8))
            store.commit([], fleets=[FleetCommit(steps)])
        for _ in range(3):
            assert store.merger.run_turn()
        postgres.end_sessions(name_of(database))  # a crash may have undone the last turn
        with pytest.raises(StoreError, match="was lost meanwhile"):
            store.merger.run_turn()
        store.merger.merge = None  # as its thread does
        while store.merger.run_turn():
            pass
        assert sum(len(piece.series) for piece in store.steps_after(0)) == 240
        with store.reading() as c:
            assert c.exec_driver_sql("SELECT sum(n) FROM parts").scalar() == 240


def test_a_commit_waits_for_the_disk_and_merging_does_not(
    postgres: PostgresServer, database: str
) -> None:
    postgres.ask(f"ALTER DATABASE {name_of(database)} SET synchronous_commit = off")
    try:
        with closing(open_database(database)) as store:
            for transaction, durable in ((store.writing, "on"), (store.rewriting, "off")) * 2:
                with transaction() as c:
                    assert c.exec_driver_sql("SHOW synchronous_commit").scalar() == durable
    finally:
        postgres.ask(f"ALTER DATABASE {name_of(database)} RESET synchronous_commit")


# --- the lease


def test_who_lost_the_lease_writes_nothing_more(postgres: PostgresServer, database: str) -> None:
    with closing(open_database(database)) as first:
        monitor = watching(first)
        push(monitor, "pump", *numbers(100), [50])
        postgres.end_sessions(name_of(database))
        second = open_database(database)
        second.record("ann", "took over")
        time, x = numbers(200)
        owed = monitor.submit("pump", time[100:], x[100:])
        rounds(monitor, 2)
        assert LEASE_REFUSED in monitor.trouble.text and not owed.done()
        second.close()
        rounds(monitor, 12)
        assert "another one has written to it" in monitor.trouble.text and not owed.done()
        with pytest.raises(StoreError, match="start this one again"):
            first.record("ann", "anything")
        with pytest.raises(StoreError, match="start this one again"), first.rewriting():
            raise AssertionError("not reached")
        assert_holds(first, 100)
        assert [line["what"] for line in first.audit()] == ["took over"]


def test_a_lease_is_free_once_its_session_has_ended(
    postgres: PostgresServer, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgresql_session, "LEASE_PATIENCE", 0.0)
    with closing(open_database(database)) as store:
        for _ in range(2):
            with pytest.raises(StoreError, match=LEASE_REFUSED):
                open_database(database)
        with closing(open_database(database, write=False)) as reader:
            assert reader.last_anomaly_id() == 0
            with pytest.raises(StoreError, match="read only"):
                reader.record("ann", "apply")
        store.record("ann", "still here")
    open_database(database).close()


def test_a_socket_serves_too(postgres: PostgresServer, database: str) -> None:
    where = f"host={postgres.folder}&port={postgres.port}"
    with closing(open_database(f"postgresql://redline@/{name_of(database)}?{where}")) as store:
        store.record("ann", "apply")
        assert store.name == f"postgresql://redline@{postgres.folder}/{name_of(database)}"


# --- what is said


def test_a_database_that_cannot_be_used_is_named_with_what_to_do(
    postgres: PostgresServer, database: str
) -> None:
    url = sa.make_url(database)
    postgres.ask("CREATE ROLE stranger LOGIN PASSWORD 'correct horse'")
    postgres.ask("CREATE DATABASE latin ENCODING 'SQL_ASCII' TEMPLATE template0")
    postgres.ask("CREATE DATABASE foreign_tables")
    postgres.ask("CREATE TABLE customers (id integer)", "foreign_tables")
    said = {
        url.set(password="wrong horse"): (StoreError, "refuses this user .*; check user and"),
        url.set(username="nobody"): (StoreError, "refuses this user"),
        url.set(username="stranger"): (StoreError, "may not be changed by this user"),
        url.set(database="nothing"): (StoreError, "is no database of this server .*createdb"),
        url.set(port=1): (StoreUnreachable, "does not answer .*; start the server"),
        url.set(host="no-such-host.invalid"): (StoreUnreachable, "does not answer"),
        url.set(database="latin"): (StoreError, "stores text as SQL_ASCII, .*--encoding=UTF8"),
        url.set(database="foreign_tables"): (StoreError, "a database of another program"),
    }
    for address, (kind, words) in said.items():
        with pytest.raises(StoreError, match=words) as caught:
            open_database(address.render_as_string(hide_password=False))
        assert type(caught.value) is kind
        assert "horse" not in str(caught.value) and "horse" not in repr(caught.value.__cause__)
    with (
        closing(open_database(database, write=False)) as empty,
        pytest.raises(StoreError, match="holds no store of Redline"),
    ):
        empty.audit()


@pytest.mark.parametrize(
    "db",
    [
        "mysql://ann:horse@host/db",
        "postgresql://ann:horse@here@host/db",
        "postgresql+psycopg://ann@host:horse/db",
        "postgresql+psycopg://ann:ho/rse@host:5432horse/db",
    ],
)
def test_what_is_no_address_is_refused_without_its_password(db: str) -> None:
    with pytest.raises(StoreError, match="wanted ") as caught:
        open_database(db)
    assert "horse" not in str(caught.value) and caught.value.__cause__ is None


def test_an_address_is_named_without_passwords() -> None:
    whole = "postgresql://ann:pony@db1:5433/metrics?sslpassword=donkey&connect_timeout=9"
    address = DatabaseAddress.parse(whole)
    assert address.name == "postgresql://ann@db1:5433/metrics"
    assert address.redact("pony donkey mule") == "*** *** mule"
    assert "pony" not in repr(address) and "donkey" not in repr(address)
    by_socket = DatabaseAddress.parse("postgresql+psycopg:///metrics?host=/run/postgresql")
    assert by_socket.name == "postgresql:///run/postgresql/metrics"


def test_without_the_driver_the_line_that_installs_it_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(StoreError, match=r'`pip install "redline\[postgres\]"`'):
        open_database("postgresql+psycopg://ann@host/db")


def test_each_kind_of_error_has_its_sentence() -> None:
    address = DatabaseAddress.parse("postgresql://ann@host/db")

    def explained(state: str, text: str = "") -> StoreError:
        error = RuntimeError(text)
        error.sqlstate = state or None  # type: ignore[attr-defined]
        return address.explain(error)

    assert type(explained("53100")) is StoreFull and type(explained("XX001")) is StoreDamaged
    assert type(explained("57P03")) is type(explained("53300")) is StoreUnreachable
    assert "is locked" in str(explained("55P03")) and "only be read" in str(explained("25006"))
    starting = "FATAL: the database system is starting up"
    assert type(explained("", starting)) is StoreUnreachable
    assert type(explained("", 'FATAL: too many connections for role "ann"')) is not StoreFull
    assert "cannot be used (what?)" in str(explained("", "what?"))
    text = (ROOT / "docs" / "store.md").read_text(encoding="utf-8")
    assert all(f"| {cause.what} |" in text for cause in CAUSES), "docs/store.md quotes them"


# --- a full disk, and the size


@pytest.mark.parametrize("others", [0, 20], ids=["INSERT", "COPY"])
def test_a_full_disk_of_the_server_is_said_and_the_commit_goes_through_once_there_is_room(
    postgres: PostgresServer, database: str, others: int
) -> None:
    time, x = numbers(2_000)
    with closing(open_database(database)) as store:
        monitor = watching(store)
        push(monitor, "pump", time[:1_000], x[:1_000], [300])
        postgres.ask(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
            "$$BEGIN RAISE 'could not extend file' USING ERRCODE = '53100'; END$$; "
            "CREATE TRIGGER full_disk BEFORE INSERT ON points EXECUTE FUNCTION refuse()",
            name_of(database),
        )
        for number in range(others):
            monitor.submit(f"pipe {number}", time[:10], x[:10])
        owed = monitor.submit("pump", time[1_000:], x[1_000:])
        rounds(monitor, 3)
        assert "the server's disk is full" in monitor.trouble.text and not owed.done()
        postgres.ask("DROP TRIGGER full_disk ON points", name_of(database))
        rounds(monitor, 12)
        assert owed.result(timeout=0) == SubmissionCounts(1_000, 0, 0)
        assert_holds(store, 2_000)
        assert len(store.pushed_streams()) == 1 + others


def test_what_retention_deletes_makes_room_for_what_comes(
    postgres: PostgresServer, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """VACUUM stands for the server's autovacuum, which runs once a minute."""
    monkeypatch.setattr("redline.engine.monitor.BUFFER_STEPS", 1_000)
    monkeypatch.setattr("redline.engine.monitor.MANY_SOURCES", 0)  # buffers of 100 steps
    time, x = numbers(24_000)
    sizes = []
    with closing(open_database(database, Retention(rows=3_000))) as store:
        monitor = Monitor({}, wall=lambda: START + 1e6, store=store)
        for end in range(3_000, 24_001, 3_000):
            push(monitor, "pump", time[end - 3_000 : end], x[end - 3_000 : end], [500])
            store.sweeper.sweep(0.0)
            while store.sweeper.unfinished:
                store.sweeper.sweep(0.0)
            postgres.ask("VACUUM points", name_of(database))
            size = "SELECT pg_total_relation_size('points')"
            sizes.append(postgres.ask(size, name_of(database))[0][0])
    assert sizes[-1] <= 1.2 * max(sizes[:3]), sizes
