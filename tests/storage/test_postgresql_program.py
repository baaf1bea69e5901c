"""The whole program on a PostgreSQL server that is away, comes back, and crashes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from store_rig import numbers

from bench.browser import ROOT, free_port
from bench.postgres_server import PostgresServer
from redline.cli import admin, doctor
from redline.cli.errors import UsageError
from redline.storage.opening import open_database

pytestmark = pytest.mark.service
PATIENCE = 30.0  # seconds
CONFIG = '[source]\nstream = "pump"\n[settings]\n'


class Program:
    """A process of `python -m redline run` or `python app.py` on a database."""

    def __init__(self, folder: Path, *words: str) -> None:
        self.port = free_port()
        self.log = folder / "log"
        env = {**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, *words, "--port", str(self.port)],
                cwd=folder,
                env=env,
                stdout=log,
                stderr=log,
            )

    @property
    def said(self) -> str:
        return self.log.read_text(encoding="utf-8")

    def ask(self, path: str, body: Any = None) -> tuple[int, Any]:
        """Return the status and the document of an answer; 0 = there was none."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}", data, {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)
        except OSError:
            return 0, None

    def wait(self, true: Callable[[], bool]) -> None:
        until = time.monotonic() + PATIENCE
        while not true():
            assert self.process.poll() is None and time.monotonic() < until, self.said[-2_000:]
            time.sleep(0.05)

    def submit(self, first: int, end: int) -> tuple[int, Any]:
        times, x = numbers(1_000)
        some = slice(first, end)
        body = {"source": "pump", "time": times[some].tolist(), "value": x[some, 0].tolist()}
        return self.ask("/api/submit", body)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def stored(database: str) -> tuple[list[float], list[float]]:
    with closing(open_database(database, write=False)) as store:
        points = store.points("pump", limit=10**6)
        assert points is not None
        return points.time.tolist(), points.x[:, 0].tolist()


def test_run_waits_for_its_server_outlives_its_crash_and_a_kill(
    postgres: PostgresServer, database: str, tmp_path: Path
) -> None:
    config = tmp_path / "settings.toml"
    config.write_text(CONFIG, encoding="utf-8")
    words = ("-m", "redline", "run", "--config", str(config), "--db", database)
    postgres.stop()
    program = Program(tmp_path, *words)
    try:
        program.wait(lambda: "Redline waits until it answers" in program.said)
        postgres.start()
        program.wait(lambda: program.ask("/health")[0] == 200)
        assert program.submit(0, 100)[0] == 200
        postgres.stop(crash=True)
        with ThreadPoolExecutor() as pool:
            waiting = pool.submit(program.submit, 100, 200)
            program.wait(lambda: program.ask("/health")[0] == 503)
            state = json.dumps(program.ask("/api/status"))
            assert "does not answer" in state and not waiting.done()
            postgres.start()
            assert waiting.result(PATIENCE)[0] == 200
        assert program.submit(100, 300)[1]["repeated"] == 100
        program.kill()
        times, x = numbers(1_000)
        assert stored(database) == (times[:300].tolist(), x[:300, 0].tolist())
        program = Program(tmp_path, *words)
        program.wait(lambda: program.ask("/health")[0] == 200)
        assert program.submit(0, 400)[1]["repeated"] == 300
        everything = [program.said, state, json.dumps(program.ask("/api/status"))]
        assert not any("horse" in text for text in everything), "a password was shown"
    finally:
        if postgres.process is None:
            postgres.start()
        program.kill()


def test_the_page_goes_on_without_its_server_and_begins_anew_with_it(
    postgres: PostgresServer, database: str, tmp_path: Path
) -> None:
    postgres.stop()
    words = (str(ROOT / "app.py"), "--no-browser", "--db", database)
    program = Program(tmp_path, *words)
    try:
        program.wait(lambda: program.ask("/health")[0] == 503)
        assert "acknowledges nothing until it answers" in program.said
        postgres.start()
        program.wait(lambda: "can be used again" in program.said)
        program.wait(lambda: program.ask("/health")[0] == 200)
        assert program.submit(0, 100)[0] == 200
        assert len(stored(database)[0]) == 100
        assert "horse" not in program.said
    finally:
        if postgres.process is None:
            postgres.start()
        program.kill()


# --- the commands


def findings(database: str) -> list[doctor.Finding]:
    subject = doctor.Subject({"db": database}, environment={})
    checks = (doctor.check_permissions, doctor.check_disk, doctor.check_store, doctor.check_clock)
    return [finding for check in checks for finding in check(subject)]


def test_doctor_says_what_a_database_is_like(postgres: PostgresServer, database: str) -> None:
    new = findings(database)
    assert {finding.level for finding in new} == {"problem", "ok"}, "the tests' server has no fsync"
    assert any("fsync is off" in finding.what for finding in new)
    assert any("PostgreSQL 1" in each.what and "tables will be made" in each.what for each in new)
    with closing(open_database(database)) as store:
        store.record("ann", "apply")
        used = findings(database)
        assert any("in use by a running Redline" in finding.what for finding in used)
        with store.writing() as c:
            c.exec_driver_sql("UPDATE meta SET value = '99', crc = NULL WHERE name = 'version'")
    assert any("newer Redline (tables 99)" in finding.what for finding in findings(database))
    wrong = sa.make_url(database).set(password="wrong horse", database="nothing")
    away = findings(wrong.render_as_string(hide_password=False))
    assert any("refuses this user" in finding.what for finding in away)
    assert "horse" not in " ".join(map(str, (*new, *used, *away)))


@pytest.mark.parametrize(
    ("command", "program"),
    [(admin.back_up_store, "pg_dump --format=custom"), (admin.restore_store, "pg_restore")],
)
def test_backups_of_a_server_are_its_own(
    command: Callable[[Path, str], None], program: str, tmp_path: Path
) -> None:
    address = "postgresql+psycopg://ann:horse@db1/metrics"
    with pytest.raises(UsageError, match=program) as caught:
        command(tmp_path / "copy", address)
    assert "--dbname=postgresql://ann@db1/metrics" in str(caught.value)
    assert "horse" not in str(caught.value)


def test_a_dump_holds_the_store_and_is_taken_while_it_is_used(
    postgres: PostgresServer, database: str, tmp_path: Path
) -> None:
    copy = postgres.folder / "copy"
    name = sa.make_url(database).database
    where = (f"--host={postgres.folder}", f"--port={postgres.port}", "--username=redline")
    with closing(open_database(database)) as store:
        store.record("ann", "before")
        postgres.run("pg_dump", *where, "--format=custom", f"--file={copy}", f"--dbname={name}")
        store.record("ann", "after")
    postgres.run("pg_restore", *where, "--clean", "--if-exists", f"--dbname={name}", str(copy))
    with closing(open_database(database)) as store:
        assert [line["what"] for line in store.audit()] == ["before"]
        store.record("ann", "again")
        assert np.array_equal([line["id"] for line in store.audit()], [2, 1])
