"""`python -m redline doctor`: every check is made to fail by a fault, and finds none where there is
none.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import sqlite3
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from bench.browser import ROOT, Server, free_port
from redline.access.tokens import append_token, mint_token
from redline.cli import doctor
from redline.cli.doctor import CHECKS, Finding, Subject, examine
from redline.cli.program import run_program
from redline.cli.settings_file import commented_settings
from redline.storage import inspection
from redline.storage.sqlite import SqliteStore

NOW = 1_800_000_000.0  # seconds since the epoch
posix = pytest.mark.skipif(os.name != "posix", reason="modes of files are those of POSIX")


class Case(NamedTuple):
    """A place with one fault in it, which a test makes."""

    folder: Path
    patch: pytest.MonkeyPatch

    def subject(self, **options: Any) -> Subject:
        """Return what is examined: a store and a port of its own, and these options."""
        config = options.pop("config", None)
        environment = options.pop("environment", {})
        given = {"db": str(self.folder / "redline.db"), "port": str(free_port())}
        return Subject({**given, **options}, config, environment)

    def file(self, name: str, text: str, mode: int = 0o600) -> Path:
        """Write a file of this mode."""
        path = self.folder / name
        path.write_text(text, encoding="utf-8")
        path.chmod(mode)
        return path

    def store(self, *statements: str) -> Path:
        """Write a store with one stream and one point, then change it by SQL."""
        path = self.folder / "redline.db"
        SqliteStore(path).close()
        add = (
            "INSERT INTO streams VALUES (1, 'oven', '[]', '[]', '{}', '{}', '[]', '{}', 1, 1, "
            f"{NOW}, NULL)",
            f"INSERT INTO points VALUES (1, 1, 0, 1, {NOW}, {NOW}, {NOW}, x'00', NULL)",
        )
        with closing(sqlite3.connect(path)) as database, database:
            for statement in (*add, *statements):
                database.execute(statement)
        path.chmod(0o600)
        return path


@pytest.fixture
def case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Case:
    tmp_path.chmod(0o700)
    return Case(tmp_path, monkeypatch)


def found(check: Callable[..., Iterator[Finding]], subject: Subject, **more: Any) -> list[Finding]:
    return list(check(subject, **more))


def only(check: Callable[..., Iterator[Finding]], subject: Subject, **more: Any) -> Finding:
    (finding,) = found(check, subject, **more)
    return finding


def expect(finding: Finding, level: str, *words: str) -> None:
    assert finding.level == level, finding
    for word in words:
        assert word in str(finding), finding
    assert finding.level == "ok" or ";" in str(finding), f"it does not say what to do: {finding}"


# --- the program


def test_an_old_python_is_a_problem(case: Case) -> None:
    case.patch.setattr("platform.python_version", lambda: "3.10.9")
    expect(only(doctor.check_python, case.subject()), "problem", "3.10.9", ">=3.11")


def test_an_old_library_is_a_problem(case: Case) -> None:
    (case.folder / "numpy-1.26.4.dist-info").mkdir()
    case.file(
        "numpy-1.26.4.dist-info/METADATA", "Metadata-Version: 2.1\nName: numpy\nVersion: 1.26.4\n"
    )
    case.patch.syspath_prepend(case.folder)
    expect(only(doctor.check_libraries, case.subject()), "problem", "numpy 1.26.4", "<3,>=2.0")


def test_a_missing_library_is_a_problem(case: Case) -> None:
    shutil.copy(ROOT / "pyproject.toml", case.folder)
    case.file("requirements.txt", "# a comment\nno-such-library[x]>=2  # another\n")
    finding = only(doctor.check_libraries, case.subject(), root=case.folder)
    expect(finding, "problem", "no-such-library is missing", "pip install")


def test_an_optional_library_may_be_missing_but_not_old(case: Case) -> None:
    (case.folder / "pyod-1.0.dist-info").mkdir()
    case.file("pyod-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: pyod\nVersion: 1.0\n")
    case.patch.syspath_prepend(case.folder)
    first, last = found(doctor.check_libraries, case.subject())
    expect(first, "warning", "pyod 1.0, wanted >=2")
    expect(last, "ok", "libraries")


def test_what_a_clone_and_an_installed_package_declare_is_the_same() -> None:
    clone, installed = doctor.declared_requirements(), doctor.installed_requirements()
    assert clone.python == installed.python
    assert {need.name for need in clone.optional} == {need.name for need in installed.optional}
    assert {"numpy", "dash"} <= {need.name for need in installed.libraries}


# --- the machine


def test_few_open_files_are_a_warning(case: Case) -> None:
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
    try:
        expect(only(doctor.check_open_files, case.subject()), "warning", "256", "ulimit -n 1024")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_little_memory_is_a_problem(case: Case) -> None:
    limits = [case.file("none", "max\n"), case.file("limit", f"{256 * 2**20}\n"), Path("no file")]
    finding = only(doctor.check_memory, case.subject(), limits=limits)
    expect(finding, "problem", "256 MiB allowed", "600 MiB")
    finding = only(doctor.check_memory, case.subject(), limits=limits[:1])
    expect(finding, "ok", "available")
    finding = only(doctor.check_memory, case.subject(), limits=limits[:1], needed=2**60)
    expect(finding, "warning", "available, wanted")


def test_a_clock_behind_the_store_is_a_problem(case: Case) -> None:
    case.store()
    ahead = found(doctor.check_clock, case.subject(), wall=lambda: NOW - 100_000)
    words = ("just jumped", "behind the newest commit", "behind the newest stored point")
    for finding, word in zip(ahead, words, strict=True):
        expect(finding, "warning" if word == words[0] else "problem", word, "NTP")


def test_a_clock_before_the_program_was_written_is_a_problem(case: Case) -> None:
    last = found(doctor.check_clock, case.subject(), wall=lambda: 1_000.0)[-1]
    expect(last, "problem", "behind the files of Redline")


def test_a_clock_that_jumps_is_a_warning(case: Case) -> None:
    subject = Subject(case.subject().options, started=(50.0, NOW - 10))
    still = only(doctor.check_clock, subject, wall=lambda: NOW, steady=lambda: 60.2)
    expect(still, "ok", "2027-01-15")
    jumped = only(doctor.check_clock, subject, wall=lambda: NOW + 3, steady=lambda: 60.0)
    expect(jumped, "warning", "jumped by +3.0 s")


# --- what it would be started with


def test_every_wrong_setting_is_said_at_once(case: Case) -> None:
    text = commented_settings("wave").replace("port = 8050", "prot = 8050")
    text = text.replace("body-limit = 32", "body_limit = 0")
    config = case.file("redline.toml", text + "[severs]\n")
    environment = {
        "REDLINE_PROT": "1",
        "REDLINE_RATE_LIMIT": "many",
        "REDLINE_TOKEN": "x",
        "REDLINE_MAIL_PASSWORD": "x",
        "HOME": "x",
    }
    alerts = case.file("alerts.toml", '[channels.mail]\nurl = "mailto://${REDLINE_MAIL_PASSWORD}"')
    subject = case.subject(config=config, environment=environment, alerts=str(alerts))
    lines = [str(finding) for finding in found(doctor.check_settings, subject)]
    starts = (
        "problem: body-limit: wanted 1 to 1,024 MiB",
        "problem: rate-limit: wanted 0 to 1,000,000 requests/s; came 'many'",
        "problem: unknown setting 'prot'",
        f"warning: {config}: [severs] is ignored",
        "warning: REDLINE_PROT names no setting and is ignored; was REDLINE_PORT meant?",
    )
    assert len(lines) == len(starts), lines
    assert all(line.startswith(start) for line, start in zip(lines, starts)), lines
    assert subject.settings.alerts == str(alerts), "the valid ones are used by the other checks"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "No such file"),
        ("= 3", "wanted TOML"),
        ("[source]\n", r"[settings] is missing"),
        ('[source]\nstream = "wave"\n[settings]\nwindow = 1\n', "window: wanted 10 to 500"),
        ('[source]\nstream = "a"\ncsv = "no.csv"\n[settings]\n', "there is no file 'no.csv'"),
        ('server = 3\n[source]\nstream = "wave"\n[settings]\n', "[server] wants to be a table"),
    ],
)
def test_a_settings_file_that_run_refuses_is_a_problem(
    case: Case, text: str | None, words: str
) -> None:
    config = case.folder / "redline.toml" if text is None else case.file("redline.toml", text)
    expect(only(doctor.check_settings, case.subject(config=config)), "problem", words)


def test_the_settings_file_of_init_is_fine(case: Case) -> None:
    config = case.file("redline.toml", commented_settings("wave"))
    expect(only(doctor.check_settings, case.subject(config=config)), "ok", "redline.toml")


def test_an_address_without_a_token_is_a_problem(case: Case) -> None:
    expect(only(doctor.check_access, case.subject(host="0.0.0.0")), "problem", "no token is set")
    given = {"REDLINE_TOKEN": "a secret of enough characters, and a few more of them"}
    subject = case.subject(host="0.0.0.0", environment=given)
    expect(only(doctor.check_access, subject), "ok", "1 tokens")


def test_what_the_server_refuses_of_tokens_and_hosts_is_a_problem(case: Case) -> None:
    tokens = str(case.file("tokens", "operate me secret\n"))
    expect(only(doctor.check_access, case.subject(tokens=tokens)), "problem", "tokens, line 1")
    subject = case.subject(tokens=str(case.folder / "none"))
    expect(only(doctor.check_access, subject), "problem", "--tokens")
    expect(only(doctor.check_access, case.subject(allow_host="a")), "ok")
    expect(only(doctor.check_access, case.subject(**{"allow-host": ["a/b"]})), "problem", "a/b")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "No such file"),
        ("[chanels]", "unknown 'chanels'"),
        ('[channels.a]\nurl = "json://${NOT_SET}"', "NOT_SET"),
    ],
)
def test_a_wrong_file_of_channels_is_a_problem(case: Case, text: str | None, words: str) -> None:
    path = case.folder / "alerts.toml" if text is None else case.file("alerts.toml", text)
    expect(only(doctor.check_channels, case.subject(alerts=str(path))), "problem", words)


def test_channels_without_apprise_are_a_problem(case: Case) -> None:
    path = case.file("alerts.toml", '[channels.a]\nurl = "json://localhost"')
    expect(only(doctor.check_channels, case.subject(alerts=str(path))), "ok", "channels: 1")
    case.patch.setitem(sys.modules, "apprise", None)
    expect(only(doctor.check_channels, case.subject(alerts=str(path))), "problem", "apprise")


def test_a_csv_file_that_is_not_there_is_a_problem(case: Case) -> None:
    expect(only(doctor.check_csv, case.subject(csv="no.csv")), "problem", "no.csv")


def test_a_port_in_use_is_a_problem(case: Case) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        case.patch.setattr(doctor, "ANSWER_TIMEOUT", 0.1)
        expect(only(doctor.check_port, case.subject(port=port)), "problem", port, "--port")


@contextmanager
def answering(body: bytes) -> Iterator[int]:
    """Yield the port of a server that answers everything with 503 and these bytes."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(503)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Print nothing."""

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("body", "level"),
    [
        (b'{"live": true, "ready": false}', "warning"),
        (b"[]", "problem"),
        (b"3", "problem"),
        (b"<html>", "problem"),
    ],
)
def test_a_port_in_use_by_a_redline_is_a_warning(case: Case, body: bytes, level: str) -> None:
    with answering(body) as port:
        expect(only(doctor.check_port, case.subject(port=str(port))), level, str(port))


# --- its files


@posix
@pytest.mark.parametrize(
    ("kind", "mode", "level", "words"),
    [
        ("tokens", 0o644, "problem", "read by everybody (mode 644)"),
        ("tokens", 0o660, "problem", "changed by other users (mode 660)"),
        ("tokens", 0o640, "ok", "permissions"),
        ("alerts", 0o604, "warning", "read by everybody (mode 604)"),
        ("alerts", 0o602, "problem", "changed by other users"),
        ("config", 0o644, "ok", "permissions"),
        ("config", 0o646, "problem", "changed by other users (mode 646)"),
        ("db", 0o644, "warning", "read by everybody (mode 644)"),
        ("db", 0o666, "problem", "changed by other users (mode 666)"),
        ("db", 0o600, "ok", "permissions"),
    ],
)
def test_a_file_that_others_may_read_or_change(
    case: Case, kind: str, mode: int, level: str, words: str
) -> None:
    path = case.file("file", "", mode)
    subject = case.subject(**{kind: path if kind == "config" else str(path)})
    first, *_ = found(doctor.check_permissions, subject)
    expect(first, level, words)


@posix
def test_a_folder_in_which_others_may_replace_files_is_a_problem(case: Case) -> None:
    case.folder.chmod(0o777)
    first = only(doctor.check_permissions, case.subject())
    expect(first, "problem", "replace the files", "mode 777", "chmod o-w")
    case.folder.chmod(0o777 | stat.S_ISVTX)
    expect(only(doctor.check_permissions, case.subject()), "ok")


def test_a_store_that_has_no_place_is_a_problem(case: Case) -> None:
    subject = case.subject(db=str(case.folder / "none" / "redline.db"))
    expect(only(doctor.check_permissions, subject), "problem", "there is no folder")
    expect(only(doctor.check_permissions, case.subject(db=str(case.folder))), "problem", "no file")


def test_a_file_that_may_not_be_read_is_a_problem(case: Case) -> None:
    tokens = case.file("tokens", "")
    case.patch.setattr(os, "access", lambda path, mode: path != tokens)  # root may read everything
    first = only(doctor.check_permissions, case.subject(tokens=str(tokens)))
    expect(first, "problem", "cannot be read by this user")


def test_a_disk_smaller_than_the_retention_is_a_warning(case: Case) -> None:
    subject = case.subject(**{"retention-rows": str(10**12)})
    warned = only(doctor.check_disk, subject)
    expect(warned, "warning", "may grow by 33,378,601 MiB", "--retention-rows ")
    fits = warned.todo.split()[-1]
    expect(only(doctor.check_disk, case.subject(**{"retention-rows": fits})), "ok")


def test_a_full_disk_is_a_problem(case: Case) -> None:
    case.patch.setattr(doctor, "SPARE_BYTES", shutil.disk_usage(case.folder).free * 2)
    expect(only(doctor.check_disk, case.subject()), "problem", "make room")
    expect(only(doctor.check_disk, case.subject(db="")), "ok", "nothing is stored")


@pytest.mark.parametrize(
    ("statement", "level", "words"),
    [
        ("SELECT 1", "ok", "last commit 2027-01-15T08:00:00Z"),
        ("UPDATE meta SET value = '99' WHERE name = 'version'", "problem", "newer Redline"),
        ("UPDATE meta SET value = '0' WHERE name = 'version'", "warning", "will be upgraded"),
        ("UPDATE meta SET value = 'one' WHERE name = 'version'", "problem", "another program"),
        ("DELETE FROM meta", "problem", "another program"),
        ("DROP TABLE meta", "problem", "another program"),
    ],
)
def test_a_store_of_another_version_or_program(
    case: Case, statement: str, level: str, words: str
) -> None:
    case.store(statement)
    expect(only(doctor.check_store, case.subject()), level, words)


def test_a_damaged_store_is_a_problem(case: Case) -> None:
    path = case.store()
    whole = path.read_bytes()
    damaged = {
        "an index that lacks a row": _without_index_row(path),
        "a page of noise": whole[:8192] + bytes(range(256)) * 16 + whole[12288:],
        "half of it": whole[: len(whole) // 2],
        "another file": b"no database, but as long as one\n" * 500,
    }
    for what, content in damaged.items():
        path.write_bytes(content)
        finding = only(doctor.check_store, case.subject())
        expect(finding, "problem", "is damaged", "redline restore")
        assert "Traceback" not in str(finding), what
    path.write_bytes(b"")
    expect(only(doctor.check_store, case.subject()), "problem", "is empty")


def _without_index_row(path: Path) -> bytes:
    """Return the store with an index that its table does not agree with."""
    copy = path.with_name("copy.db")
    shutil.copy(path, copy)
    with closing(sqlite3.connect(copy)) as database, database:
        database.execute("PRAGMA writable_schema=ON")
        (sql,) = database.execute(
            "SELECT sql FROM sqlite_master WHERE name = 'points_time'"
        ).fetchone()
        database.execute("DELETE FROM sqlite_master WHERE name = 'points_time'")
        database.execute("PRAGMA writable_schema=RESET")
        database.execute("UPDATE points SET newest = newest + 1")
        again = sql.replace("points_time", "points_again")
        database.execute(again)
        database.execute("PRAGMA writable_schema=ON")
        database.execute(
            "UPDATE sqlite_master SET sql = replace(sql, 'newest', 'oldest') "
            "WHERE name = 'points_again'"
        )
    content = copy.read_bytes()
    copy.unlink()
    return content


def test_a_store_in_use_is_read_and_nothing_is_left_beside_it(case: Case) -> None:
    path = case.store()
    before = (sorted(os.listdir(case.folder)), path.read_bytes())
    assert only(doctor.check_store, case.subject()).level == "ok"
    assert (sorted(os.listdir(case.folder)), path.read_bytes()) == before
    opened = SqliteStore(path)
    with opened.writing() as c:
        c.exec_driver_sql(f"UPDATE streams SET seen = {NOW + 60}")
    first, last = found(doctor.check_store, case.subject())
    opened.close()
    expect(first, "warning", "in use by a running Redline")
    expect(last, "ok", "last commit 2027-01-15T08:01:00Z")
    assert not inspection.is_owned(path)


def test_a_store_that_is_not_there_yet_is_fine(case: Case) -> None:
    expect(only(doctor.check_store, case.subject()), "ok", "will be made")
    expect(only(doctor.check_store, case.subject(db="")), "ok", "none")
    assert os.listdir(case.folder) == []


# --- the command


def said(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    code = run_program(["doctor", *words])
    return code, capsys.readouterr().out


def test_the_exit_code_says_whether_there_is_a_problem(
    case: Case, capsys: pytest.CaptureFixture[str]
) -> None:
    path, port = (
        case.store("UPDATE streams SET seen = 1", "UPDATE points SET newest = 1"),
        free_port(),
    )
    words = ("--db", str(path), "--port", str(port))
    code, text = said(capsys, *words)
    assert code == 0, text
    assert all(line.startswith(("ok: ", "warning: ")) for line in text.splitlines())
    code, text = said(capsys, *words, "--host", "0.0.0.0", "--streams", "0")
    problems = [line for line in text.splitlines() if line.startswith("problem: ")]
    assert code == 1 and len(problems) == 2, text
    code, text = said(capsys, *words, "--streams", "0", "--json")
    document = json.loads(text)
    assert code == 1 and document["level"] == "problem"
    (problem,) = [each for each in document["findings"] if each["level"] == "problem"]
    assert problem == {
        "check": "settings",
        "level": "problem",
        "what": "streams: wanted 1 to 1,000,000; came '0'",
        "todo": "correct or remove it",
    }


def test_a_check_that_fails_is_a_problem_of_its_own(case: Case) -> None:
    def check_something(subject: Subject) -> Iterator[Finding]:
        raise PermissionError("no")
        yield

    case.patch.setattr(doctor, "CHECKS", (check_something,))
    assert list(examine(case.subject())) == [
        ("something", Finding("problem", "something: cannot be examined (no)"))
    ]


def test_a_topic_without_its_broker_or_with_wrong_settings(case: Case) -> None:
    pytest.importorskip("confluent_kafka")
    assert not list(doctor.check_topic(case.subject()))
    subject = case.subject(kafka="127.0.0.1:1", topic="metrics")
    expect(only(doctor.check_topic, subject), "warning", "no Kafka broker answers at 127.0.0.1:1")
    expect(only(doctor.check_access, subject), "ok", "no tokens")
    subject = case.subject(kafka="127.0.0.1:1")
    expect(only(doctor.check_topic, subject), "problem", "--kafka needs --topic")


def test_a_server_of_redis_that_is_away_or_without_a_stream(case: Case) -> None:
    pytest.importorskip("redis")
    assert not list(doctor.check_redis(case.subject()))
    subject = case.subject(**{"redis": "redis://127.0.0.1:1", "redis-stream": "metrics"})
    away = "no Redis server answers at redis://127.0.0.1:1"
    expect(only(doctor.check_redis, subject), "warning", away)
    expect(only(doctor.check_access, subject), "ok", "no tokens")
    subject = case.subject(redis="redis://127.0.0.1:1")
    expect(only(doctor.check_redis, subject), "problem", "--redis needs --redis-stream")


def test_a_broker_of_mqtt_that_is_away_or_without_a_topic(case: Case) -> None:
    pytest.importorskip("paho")
    assert not list(doctor.check_mqtt(case.subject()))
    subject = case.subject(**{"mqtt": "mqtt://127.0.0.1:1", "mqtt-topic": "plant/+/heat"})
    away = "no MQTT broker answers at mqtt://127.0.0.1:1"
    expect(only(doctor.check_mqtt, subject), "warning", away)
    expect(only(doctor.check_access, subject), "ok", "no tokens")
    subject = case.subject(mqtt="mqtt://127.0.0.1:1")
    expect(only(doctor.check_mqtt, subject), "problem", "--mqtt needs --mqtt-topic")


def test_every_check_has_a_test_that_makes_it_fail() -> None:
    text = Path(__file__).read_text(encoding="utf-8")
    for check in CHECKS:
        assert f"doctor.{check.__name__}, " in text, f"no test makes {check.__name__} fail"


def test_a_token_file_that_token_writes_is_fine(case: Case) -> None:
    path = case.folder / "redline.tokens"
    append_token(path, mint_token("operate", "me")[1])
    subject = case.subject(tokens=str(path), host="0.0.0.0")
    expect(only(doctor.check_access, subject), "ok", "0.0.0.0, 1 tokens")
    expect(only(doctor.check_permissions, subject), "ok")


@pytest.mark.service
def test_it_examines_a_running_server(capsys: pytest.CaptureFixture[str]) -> None:
    with Server() as server:
        db = str(Path(server.folder.name) / "redline.db")
        code, text = said(capsys, "--db", db, "--port", str(server.port))
    assert code == 0, text
    assert f"warning: port {server.port} on 127.0.0.1 is in use by a Redline" in text
    assert "is in use by a running Redline" in text and "ok: store: whole, tables" in text
