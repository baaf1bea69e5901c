"""Channels and actions with a real HTTP server and real commands, and the redaction of secrets."""

import json
import logging
import math
import os
import select
import socket
import sys
import threading
import time
from contextvars import copy_context
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import parse_qs, urlsplit

import pytest

from redline.engine.feed import MonitoredStream
from redline.engine.monitor import BEAT_SECONDS, Monitor
from redline.incidents import actions
from redline.incidents.actions import run_command
from redline.incidents.channels_file import (
    TABLES,
    Action,
    Channel,
    ChannelError,
    NotificationPlan,
    read_channels_file,
)
from redline.incidents.incident import (
    Change,
    HistoryEntry,
    Incident,
    Peak,
    Policy,
)
from redline.incidents.notify import (
    MAX_QUEUED_CHANGES,
    Notifier,
    NotifierContext,
    build_message,
    incident_link,
    is_wanted,
    merge_messages,
)
from redline.incidents.registry import Incidents
from redline.incidents.secrets import LogCapture, SecretRedactor, secret_pieces
from redline.settings import Settings
from streams import STREAMS
from tests.incidents.receiver import PATIENCE, Receiver

pytestmark = pytest.mark.filterwarnings(
    "ignore:'imghdr' is deprecated:DeprecationWarning"
)  # one of Apprise's, up to Python 3.12

CPU = SimpleNamespace(title="CPU", names=("user", "idle"), units=("%", "%"), period=1.0)
START = 1_767_571_200.0


def change(what="opened", severity="critical", stream="cpu", id="abc", **more):
    peak = Peak(1234, START + 5, 1, 97.04, 20.0, 45.5, 7.0, 3.5)
    state = "resolved" if what == "resolved" else "open"
    entry = HistoryEntry("opened", "redline", START)
    text = more.pop("text", "CPU is unusual since 00:00:00.")
    made = Incident(
        id,
        stream,
        (1,),
        1230,
        1236,
        START,
        START + 6,
        2,
        3,
        peak,
        severity,
        state,
        text=text,
        history=(entry,),
    )
    return Change(made._replace(**more), what, True)


@pytest.fixture
def dispatch(receiver):
    """Return a function that makes notifiers, which record their pauses instead of waiting."""
    made = []

    def make(plan, secrets=(), **world):
        paused = []
        one = Notifier(
            plan,
            secrets,
            NotifierContext(
                **{
                    "stream_info": lambda name: CPU,
                    "pause": paused.append,
                    "wall": lambda: 5_000.0,
                    **world,
                }
            ),
        )
        one.paused = paused
        made.append(one)
        return one

    yield make
    receiver.gate.set()
    for one in made:
        one.stop(PATIENCE)


def on(receiver, path="/hook", **more):
    return Channel("team", f"json://127.0.0.1:{receiver.port}{path}", **more)


# --- channels


def test_a_message_arrives_and_names_what_where_since_when(receiver, dispatch):
    told, records = [], []
    one = dispatch(
        NotificationPlan("https://red.example.org", channels=(on(receiver),)),
        mark_notified=told.append,
        record=records.append,
    )
    one.notify([change()])
    assert one.wait_idle(PATIENCE)
    ((path, body, _),) = receiver.got
    assert (path, body["title"], body["type"]) == ("/hook", "critical: CPU is unusual", "failure")
    assert body["message"].splitlines() == [
        "CPU is unusual since 00:00:00.",
        "stream: cpu",
        "feature: idle",
        "value: 97.04 %",
        "expected: 20 to 45.5 %",
        "score: 7.0 σ, threshold 3.5",
        "since: 2026-01-05 00:00:00 UTC",
        "https://red.example.org/?domain=cpu&at=1234",
    ]
    assert told == [{"abc": "critical"}]
    assert records == list(one.records)
    assert records[0]._replace(seconds=0.0) == (
        5_000.0,
        "channel",
        "team",
        ("abc",),
        True,
        "critical: CPU is unusual",
        1,
        0.0,
    )


def test_the_end_is_told_too_unless_nobody_wants_to_hear_it(receiver, dispatch):
    one = dispatch(NotificationPlan(channels=(on(receiver),)))
    one.notify([change("resolved")])
    assert one.wait_idle(PATIENCE)
    ((_, body, _),) = receiver.got
    assert (body["title"], body["type"]) == ("resolved: CPU is normal again", "success")
    assert "since: 2026-01-05 00:00:00 UTC until 2026-01-05 00:00:06 UTC" in body["message"]
    assert not is_wanted(on(receiver, resolved=False), change("resolved"))


def test_what_fails_is_sent_again_with_growing_pauses(receiver, dispatch):
    receiver.answers = [500, 503, 200]
    one = dispatch(NotificationPlan(channels=(on(receiver),)))
    one.notify([change()])
    assert one.wait_idle(PATIENCE)
    assert one.paused == [1.0, 4.0]
    assert dict(one.channels["team"].counts) == {"retried": 2, "delivered": 1}
    assert (one.records[0].ok, one.records[0].tries) == (True, 3)


def test_what_never_arrives_is_recorded_with_its_reason_and_told_to_nobody(receiver, dispatch):
    receiver.answers = [500] * 9
    told = []
    one = dispatch(NotificationPlan(channels=(on(receiver),)), mark_notified=told.append)
    one.notify([change()])
    assert one.wait_idle(PATIENCE)
    assert (len(receiver.got), told) == (5, [])
    assert dict(one.channels["team"].counts) == {"retried": 4, "failed": 1}
    assert one.records[0].text.startswith(
        "not delivered after 5 tries: critical: CPU is unusual. Failed to send JSON "
        "POST notification"
    )
    assert "500" in one.records[0].text


def test_a_reason_is_never_that_of_another_channel():
    library = logging.getLogger("apprise")
    with LogCapture("apprise") as capture:
        other = threading.Thread(target=library.warning, args=("the other's",))
        other.start()
        other.join(PATIENCE)
        assert capture.message == ""
        mine = threading.Thread(target=copy_context().run, args=(library.warning, "mine"))
        mine.start()
        mine.join(PATIENCE)
    assert capture.message == "mine" and capture not in library.handlers


def test_what_waits_together_goes_out_as_one_message_and_what_does_not_fit_is_counted(
    receiver, dispatch
):
    receiver.gate.clear()
    one = dispatch(NotificationPlan(channels=(on(receiver),)))
    one.notify([change(id="first")])
    receiver.wait(1)  # the worker waits for the answer to the first message
    one.notify(
        [
            change(id=f"n{n}", stream=f"s{n}", severity="info" if n else "warning")
            for n in range(MAX_QUEUED_CHANGES + 7)
        ]
    )
    assert one.channels["team"].counts["dropped"] == 7
    receiver.gate.set()
    assert one.wait_idle(PATIENCE)
    body = receiver.got[1][1]
    assert (body["title"], body["type"]) == (
        f"{MAX_QUEUED_CHANGES} changes of incidents",
        "warning",
    )
    assert body["message"].count("?domain=s") == 20 and body["message"].endswith(
        f"and {MAX_QUEUED_CHANGES - 20} more"
    )
    assert one.records[1].incidents == tuple(f"n{n}" for n in range(MAX_QUEUED_CHANGES))


def test_whoever_reports_never_waits(receiver, dispatch):
    """The channel hangs and its queue is full: every call still returns."""
    receiver.gate.clear()
    one = dispatch(NotificationPlan(channels=(on(receiver),)))
    reporter = threading.Thread(
        target=lambda: [one.notify([change(id=str(n))]) for n in range(3 * MAX_QUEUED_CHANGES)]
    )
    reporter.start()
    reporter.join(PATIENCE)
    assert not reporter.is_alive() and one.channels["team"].counts["dropped"] > 0
    assert not one.wait_idle(0.0)


def test_a_channel_that_hangs_holds_up_no_other(receiver, dispatch):
    other = Receiver()
    try:
        receiver.gate.clear()
        one = dispatch(
            NotificationPlan(
                channels=(on(receiver), Channel("second", f"json://127.0.0.1:{other.port}/"))
            )
        )
        one.notify([change()])
        other.wait(1)
    finally:
        other.close()


def test_a_break_in_the_bookkeeping_ends_no_channel(receiver, dispatch, caplog):
    def full(record):
        raise OSError("the disk is full")

    one = dispatch(NotificationPlan(channels=(on(receiver),)), record=full)
    one.notify([change()])
    assert one.wait_idle(PATIENCE)
    one.notify([change()])
    assert one.wait_idle(PATIENCE)
    assert (
        len(receiver.got) == 2
        and "an outcome could not be written: the disk is full" in caplog.text
    )
    assert one.channels["team"].counts == {"delivered": 2}


def test_a_full_disk_keeps_no_action_from_running(tmp_path, dispatch):
    def full(record):
        raise OSError("the disk is full")

    one = dispatch(NotificationPlan(actions=(script(tmp_path, "", hourly=100),)), record=full)
    one.notify([change(id=str(n)) for n in range(4)])
    assert one.wait_idle(PATIENCE)
    assert one.actions["act"].counts == {"delivered": 4}


@pytest.mark.parametrize(
    ("rule", "changed", "wanted"),
    [
        ({}, change(severity="info"), True),
        ({"severity": "warning"}, change(severity="info"), False),
        ({"severity": "warning"}, change("worse", severity="warning"), True),
        ({"streams": ("cpu", "web-*")}, change(stream="web-3"), True),
        ({"streams": ("cpu", "web-*")}, change(stream="WEB-3"), False),
        ({}, change()._replace(notify=False), False),
        ({"resolved": False}, change("resolved"), False),
    ],
)
def test_who_is_meant(rule, changed, wanted):
    assert is_wanted(Channel("a", "json://x", **rule), changed) is wanted


# --- actions


def script(tmp_path, code, name="act", **more):
    file = tmp_path / f"{name}.py"
    file.write_text(code)
    return Action(name, (sys.executable, str(file)), **more)


def test_a_command_gets_the_incident_as_json_and_its_last_words_are_kept(tmp_path, dispatch):
    out = tmp_path / "out.json"
    act = script(
        tmp_path,
        (
            "import sys, json; got = json.load(sys.stdin); json.dump(got, "
            f"open({str(out)!r}, 'w')); print('restarted', got['stream'])"
        ),
    )
    one = dispatch(NotificationPlan("http://here", actions=(act,)))
    one.notify([change(stream="cpu; rm -rf ~")])
    assert one.wait_idle(PATIENCE)
    got = json.loads(out.read_text())
    assert (got["id"], got["severity"], got["stream"], got["peak"]["value"]) == (
        "abc",
        "critical",
        "cpu; rm -rf ~",
        97.04,
    )
    assert parse_qs(urlsplit(got["link"]).query) == {"domain": ["cpu; rm -rf ~"], "at": ["1234"]}
    assert one.records[0]._replace(seconds=0) == (
        5_000.0,
        "action",
        "act",
        ("abc",),
        True,
        "exit code 0: restarted cpu; rm -rf ~",
        1,
        0,
    )


def test_a_command_gets_no_secret_of_ours(tmp_path, dispatch, monkeypatch):
    monkeypatch.setenv("REDLINE_TOKEN", "the operator's token")
    monkeypatch.setenv("MAIL_PASSWORD", "hunter2x")
    monkeypatch.setenv("SAME_AGAIN", "hunter2x")
    monkeypatch.setenv("UNIT", "orders")
    monkeypatch.setenv("REDLINE_DB", "postgresql+psycopg://me:hunter3x@db/redline")
    monkeypatch.setenv("PGPASSWORD", "hunter3x")
    file = tmp_path / "environment.json"
    act = script(
        tmp_path, f"import json, os; json.dump(dict(os.environ), open({str(file)!r}, 'w'))"
    )
    text = "[channels.a]\nurl = 'json://me:${MAIL_PASSWORD}@127.0.0.1/'\nstreams = ['none']\n"
    plan, secrets = read_channels_file(text)
    one = dispatch(plan._replace(actions=(act,)), secrets)
    one.notify([change()])
    assert one.wait_idle(PATIENCE)
    got = json.loads(file.read_text())
    assert got["UNIT"] == "orders" and got["PATH"] == os.environ["PATH"]
    assert not {"REDLINE_TOKEN", "MAIL_PASSWORD", "SAME_AGAIN", "REDLINE_DB"} & set(got)
    assert not [name for name, value in got.items() if "hunter" in value]


def test_a_command_that_takes_too_long_is_killed_with_its_children(tmp_path):
    """The child holds a pipe of this test; the end of the pipe shows that the child is dead."""
    mine, theirs = os.pipe()
    child = "import signal; print('child', flush=True); signal.pause()"
    code = (
        "import subprocess, sys, signal; subprocess.Popen([sys.executable, '-c', "
        f"{child!r}], pass_fds=[{theirs}]); signal.pause()"
    )
    act = script(tmp_path, f"import os; os.set_inheritable({theirs}, True)\n{code}", timeout=0.5)
    os.set_inheritable(theirs, True)
    original = actions.subprocess.Popen
    try:
        actions.subprocess.Popen = lambda *args, **more: original(*args, **more, pass_fds=[theirs])
        began = time.monotonic()
        ok, text = run_command(act, "{}")
        assert time.monotonic() - began < 3
    finally:
        actions.subprocess.Popen = original
        os.close(theirs)
    assert not ok and text.startswith("killed after its limit of 0.5 s")
    assert select.select([mine], [], [], PATIENCE)[0] and os.read(mine, 1) == b"", (
        "nobody holds the other end any more"
    )
    os.close(mine)


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("import sys; print('no such unit'); sys.exit(4)", "exit code 4: no such unit"),
        ("import sys; sys.stdout.write('x' * 100_000 + 'end')", "x" * 50 + "end"),
        ("import sys; sys.stdout.buffer.write(b'\\xff\\xfe')", "exit code 0: \ufffd\ufffd"),
    ],
)
def test_what_a_command_says_is_kept_short(tmp_path, code, text):
    ok, said = run_command(script(tmp_path, code), "{}" * 100_000)
    assert said.endswith(text) and len(said) < 2_100 and ok == ("4" not in text)


def test_a_command_that_is_not_there_is_recorded(dispatch):
    one = dispatch(NotificationPlan(actions=(Action("gone", ("/no/such/program",)),)))
    one.notify([change()])
    assert one.wait_idle(PATIENCE)
    assert (one.records[0].ok, one.records[0].text) == (
        False,
        "it could not be started: No such file or directory",
    )
    assert one.actions["gone"].counts["failed"] == 1


def test_a_webhook_is_called_with_the_incident(receiver, dispatch):
    receiver.answers = [200, 404]
    one = dispatch(
        NotificationPlan(
            actions=(Action("hook", url=f"http://127.0.0.1:{receiver.port}/run?key=value"),)
        )
    )
    one.notify([change(), change(id="second")])
    assert one.wait_idle(PATIENCE)
    assert [(path, body["id"]) for path, body, _ in receiver.got] == [
        ("/run?key=value", "abc"),
        ("/run?key=value", "second"),
    ]
    assert [(record.ok, record.text) for record in one.records] == [
        (True, "status 200"),
        (False, "status 404"),
    ]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_webhook_follows_no_redirect(receiver, dispatch, status):
    receiver.answers = [status]
    receiver.headers = {"Location": f"http://127.0.0.1:{receiver.port}/inside"}
    address = f"http://127.0.0.1:{receiver.port}/hook"
    one = dispatch(NotificationPlan(actions=(Action("hook", url=address),)))
    one.notify([change()])
    assert one.wait_idle(PATIENCE)
    assert [path for path, *_ in receiver.got] == ["/hook"]
    assert one.records[0].text == f"status {status}; redirects are not followed"


def test_a_channel_follows_no_redirect_unless_its_address_says_so(receiver, dispatch):
    receiver.headers = {"Location": f"http://127.0.0.1:{receiver.port}/inside"}
    for path, paths in (("/hook", {"/hook"}), ("/hook?redirect=yes", {"/hook", "/inside"})):
        receiver.answers = [302] * 5
        receiver.got.clear()
        one = dispatch(NotificationPlan(channels=(on(receiver, path),)))
        one.notify([change()])
        assert one.wait_idle(PATIENCE)
        one.stop(PATIENCE)
        assert {asked for asked, *_ in receiver.got} == paths


def test_what_a_webhook_answers_is_shown_to_no_reader(dispatch):
    """Neither a body nor a status line that is none, as of a service that speaks no HTTP."""
    for answer in (
        b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nhunter2",
        b"hunter2 ready\r\n",
        b"HTTP/1.1 500 hunter2\r\nContent-Length: 7\r\n\r\nhunter2",
    ):
        with socket.create_server(("127.0.0.1", 0)) as listener:

            def reply(listener=listener, answer=answer):
                connection, _ = listener.accept()
                with connection:
                    connection.recv(65_536)
                    connection.sendall(answer)

            thread = threading.Thread(target=reply)
            thread.start()
            address = f"http://127.0.0.1:{listener.getsockname()[1]}/"
            one = dispatch(NotificationPlan(actions=(Action("hook", url=address),)))
            one.notify([change()])
            assert one.wait_idle(PATIENCE)
            thread.join()
        one.stop(PATIENCE)
        assert len(one.records) == 1 and one.records[0].text.startswith(("status", "no valid"))
        assert "hunter2" not in repr(one.records) + json.dumps(one.status())


def test_a_webhook_that_does_not_answer_in_time_is_given_up(receiver, dispatch):
    receiver.gate.clear()
    one = dispatch(
        NotificationPlan(
            actions=(Action("hook", url=f"http://127.0.0.1:{receiver.port}/", timeout=0.2),)
        )
    )
    one.notify([change()])
    assert one.wait_idle(PATIENCE)
    assert not one.records[0].ok and "timed out" in one.records[0].text
    assert one.records[0].seconds < 3


def test_an_action_runs_once_for_an_incident_when_it_gets_severe_enough(tmp_path, dispatch):
    act = script(tmp_path, "", severity="warning")
    one = dispatch(NotificationPlan(actions=(act,)))
    one.notify(
        [
            change(severity="info"),
            change("worse", severity="warning"),
            change("worse"),
            change("resolved"),
            change(id="other", stream="x"),
        ]
    )
    assert one.wait_idle(PATIENCE)
    assert [record.incidents for record in one.records] == [("abc",), ("other",)]
    one.resend([change(id="third")])
    assert one.wait_idle(PATIENCE) and len(one.records) == 2, (
        "a restart calls people again, and never runs anything again"
    )


def test_an_action_may_run_at_the_end(dispatch):
    act = Action("act", ("true",), on="end")
    assert is_wanted(act, change("resolved")) and not is_wanted(act, change())
    assert not is_wanted(replace(act, on="start"), change("resolved"))


def test_a_dry_run_only_records(tmp_path, dispatch):
    out = tmp_path / "out"
    one = dispatch(
        NotificationPlan(actions=(script(tmp_path, f"open({str(out)!r}, 'w')", dry_run=True),))
    )
    one.notify([change()])
    assert one.wait_idle(PATIENCE)
    assert not out.exists()
    assert (one.records[0].ok, one.records[0].text) == (
        True,
        f"dry run: would run {sys.executable}",
    )
    assert one.actions["act"].counts == {"left out": 1}


def test_a_remedy_that_does_not_help_is_not_tried_for_ever(tmp_path, dispatch):
    now = [1_000.0]
    one = dispatch(NotificationPlan(actions=(script(tmp_path, "", hourly=2),)), wall=lambda: now[0])
    for n, at in enumerate((1_000.0, 1_001.0, 1_002.0, 4_599.0, 4_600.0)):
        now[0] = at
        one.notify([change(id=str(n))])
        assert one.wait_idle(PATIENCE)
    assert [record.ok for record in one.records] == [True, True, False, False, True]
    assert one.records[2].text == "not run: 2 runs within an hour already"
    assert one.actions["act"].counts == {"delivered": 3, "left out": 2}


# --- secrets

SECRETS = ("hunter2x", "T00secretpath", "qs-secret-8", "env-s3cret", "H00kpathsecret", "hook-key")


def test_no_secret_is_in_any_log_line_record_error_or_answer(receiver, dispatch, tmp_path, caplog):
    """All loggers at DEBUG: success, failure, an exception and a command that prints a secret."""
    caplog.set_level(logging.DEBUG)
    for name in ("apprise", "urllib3", "urllib3.connectionpool", "redline"):
        caplog.set_level(logging.DEBUG, logger=name)
    receiver.answers = [200, 500, 500, 500, 500, 500]
    url = f"json://ops:hunter2x@127.0.0.1:{receiver.port}/hook/T00secretpath?+X-Key=qs-secret-8"
    act = script(tmp_path, f"print('token', {SECRETS[3]!r})")
    hook = Action("hook", url=f"http://127.0.0.1:{receiver.port}/H00kpathsecret/x?key=hook-key")

    def audit(record):
        raise RuntimeError(f"cannot write {url}")

    one = dispatch(
        NotificationPlan(channels=(Channel("team", url),), actions=(act, hook)),
        secrets=[SECRETS[3]],
        record=audit,
    )
    one.notify([change()])
    assert one.wait_idle(PATIENCE)
    one.resend([change(id="second")])
    assert one.wait_idle(PATIENCE)
    for address in (url, hook.url):
        logging.getLogger("somebody.else").warning("sent to %s", urlsplit(address)[2:4])
    assert all(secret in repr(receiver.got) for secret in (*SECRETS[1:3], *SECRETS[4:])), (
        "the receiver got them"
    )
    logged = (
        caplog.text
        + repr([(r.getMessage(), r.exc_text, r.args) for r in caplog.records])
        + repr(one.records)
        + json.dumps(one.status())
    )
    assert (
        "Failed to send JSON" in logged
        and "Traceback" in logged
        and "connectionpool" in logged
        and "RuntimeError: cannot write ****" in logged
    )
    assert [secret for secret in SECRETS if secret in logged] == []
    assert "b3BzOmh1bnRlcjJ4" not in logged, "user and password as the header sends them"


def test_what_came_from_the_environment_is_covered_even_where_the_library_would_show_it(dispatch):
    plan, secrets = read_channels_file(
        "[channels.a]\nurl = 'json://${NAME}:word@${HOST}/'",
        {"NAME": "annabel", "HOST": "inside.example.org"},
    )
    one = dispatch(plan, secrets)
    assert one.redactor.redact("annabel at inside.example.org") == "**** at ****"


@pytest.mark.parametrize(
    "url",
    [
        "slak://T0secretA/B0secretB/C0secretC",
        "slack://T0secretA/B0",
        "T0secretA",
        "json://",
        "json://ann:T0secretA@[::1",
        "secretHOOK://T0secretA",
    ],
)
def test_a_wrong_address_is_refused_without_being_repeated(url, caplog):
    caplog.set_level(logging.DEBUG)
    with pytest.raises(
        ChannelError,
        match=r"\[channels.team\] url: wanted an address as Apprise writes them; came [\w*]*://\*\*\*\*",
    ) as refused:
        Notifier(NotificationPlan(channels=(Channel("team", url),)), {"secretHOOK"})
    assert "secret" not in str(refused.value) + caplog.text
    logging.getLogger("redline").warning("T0secretA")
    assert "T0secretA" in caplog.text, "the redactor is uninstalled"


@pytest.mark.parametrize(
    ("url", "shown", "secret", "open"),
    [
        (
            "slack://T0aaaa/B0bbbb/C0cccc/#ops",
            "slack://T...a/B...b/C...c/%23ops",
            ["T0aaaa", "B0bbbb", "C0cccc"],
            ["slack", "ops"],
        ),
        (
            "mailto://ann:pass%40word@mail.example.org",
            "mailto://ann:****@mail.example.org",
            ["pass%40word", "pass@word"],
            ["mail.example.org"],
        ),
        (
            "json://localhost:8080/hook",
            "json://localhost:8080/hook",
            [],
            ["localhost", "hook", "8080"],
        ),
        (
            "json://localhost/?token=abcdef1",
            "json://localhost/",
            ["abcdef1"],
            ["token", "localhost"],
        ),
        ("json://a:xy@localhost/", "json://a:****@localhost/", ["a:xy@"], ["localhost"]),
    ],
)
def test_what_of_an_address_is_secret(url, shown, secret, open):
    redactor = SecretRedactor(secret_pieces(url, shown))
    for word in secret:
        assert word not in redactor.redact(f"see {word} there")
    for word in open:
        assert word in redactor.redact(f"see {word} there")
    assert url not in redactor.redact(f"see {url} there")


def test_the_redactor_leaves_other_records_as_they_are(caplog):
    redactor = SecretRedactor(["topsecret"])
    redactor.install()
    try:
        logger = logging.getLogger("redline.test")
        try:
            raise ValueError("plain")
        except ValueError as error:
            logger.warning("%s of %s", "one", "two", exc_info=error)
            logger.warning("no topsecret here", exc_info=error)
        first, second = caplog.records
        assert (first.args, first.msg, first.exc_text) == (
            ("one", "two"),
            "%s of %s",
            first.exc_text,
        ) and first.exc_info
        assert (second.getMessage(), bool(second.exc_info)) == ("no **** here", True)
    finally:
        redactor.uninstall()
    assert logging.getLogRecordFactory() is logging.LogRecord


# --- end to end


def test_from_a_stream_to_a_persons_screen(receiver, dispatch, tmp_path):
    """A spike injected into a simulated stream passes through monitor, incidents and notifier."""
    now = [1_000.0]
    watch = Monitor(
        {"cpu": MonitoredStream(STREAMS["cpu"](seed=3, rate=0.0))},
        clock=lambda: now[0],
        wall=lambda: 5_000.0,
    )
    feed = watch.feeds["cpu"]
    incidents = Incidents()
    one = dispatch(
        NotificationPlan(
            "http://red", channels=(on(receiver),), actions=(script(tmp_path, "print('done')"),)
        ),
        mark_notified=incidents.mark_notified,
        stream_info=lambda name: feed.stream,
    )
    watch.listeners.append(
        lambda batches, committed: one.notify(incidents.commit(batches, 5_000.0, incidents.save))
    )
    watch.apply("cpu", Settings(threshold=6.0))
    watch.backfill(feed, 2_000)
    step = watch.inject("cpu", "point", 40.0)
    for _ in range(80):
        now[0] += BEAT_SECONDS
        watch.beat()
    assert one.wait_idle(PATIENCE)
    receiver.wait(1)
    (incident,) = [i for i in incidents.find().incidents if i.announced or i.notified_severity]
    said = receiver.got[0][1]
    assert (incident.first, incident.peak.step, incident.severity, incident.notified_severity) == (
        step,
        step,
        "critical",
        "critical",
    )
    assert (
        said["title"] == "critical: CPU is unusual"
        and f"http://red/?domain=cpu&at={step}" in said["message"]
    )
    assert [record.text for record in one.records if record.kind == "action"] == [
        "exit code 0: done"
    ]
    assert incidents.undelivered() == []


# --- texts


def test_a_name_that_was_pushed_in_cannot_call_the_whole_team():
    said = build_message(
        change(stream="@everyone", text="<!channel> @here"),
        SimpleNamespace(title="<!channel>", names=("a", "@here"), units=("", "")),
        "http://x",
    )
    words = said.title + said.body.rpartition("\n")[0]
    assert "@everyone" not in words and "@here" not in words and "<!" not in words
    assert parse_qs(urlsplit(said.body.splitlines()[-1]).query)["domain"] == ["@everyone"]


def test_a_stream_that_is_gone_or_a_detector_without_a_band_still_makes_a_message():
    odd = change(peak=change().incident.peak._replace(low=math.nan, high=math.nan), start=1e300)
    said = build_message(odd, None, "http://x").body
    assert (
        "feature: feature 2" in said
        and "expected: this detector names no range" in said
        and "since: 1" in said
    )


def test_one_message_alone_is_itself():
    one = build_message(change(), CPU, "http://x")
    assert merge_messages([one], ["http://x"]) is one
    over = build_message(change("resolved"), CPU, "http://x")
    assert merge_messages([over, over], ["http://x"] * 2).severity == "resolved"


def test_the_link_leads_to_the_peak_whatever_the_stream_is_called():
    asked = parse_qs(urlsplit(incident_link("http://x", change(stream="a&b=c/?#").incident)).query)
    assert asked == {"domain": ["a&b=c/?#"], "at": ["1234"]}


# --- the operator's file

GOOD = """
base = "https://red.example.org/"
[policy]
minimum = 2
quiet = 30
release = 0.8
cooldown = 0
[channels.team]
url = "slack://${TOKEN}/#ops"
severity = "warning"
streams = ["orders", "web-*"]
resolved = false
[actions.restart]
command = ["systemctl", "restart", "${UNIT}"]
on = "end"
timeout = 2.5
hourly = 1
dry-run = true
[actions.hook]
url = "https://hooks.example.org/${TOKEN}"
"""


def test_the_file_becomes_a_plan():
    plan, secrets = read_channels_file(GOOD, {"TOKEN": "abc/def", "UNIT": "orders"})
    assert plan == NotificationPlan(
        "https://red.example.org",
        Policy(2, 30, 0.8, 0),
        (Channel("team", "slack://abc/def/#ops", "warning", ("orders", "web-*"), False),),
        (
            Action(
                "restart",
                ("systemctl", "restart", "orders"),
                on="end",
                timeout=2.5,
                hourly=1,
                dry_run=True,
            ),
            Action("hook", url="https://hooks.example.org/abc/def"),
        ),
    )
    assert secrets == {"abc/def", "orders"}
    assert read_channels_file("") == (NotificationPlan(), frozenset())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("base = ", "wanted TOML"),
        ("chanels = 1", "unknown 'chanels'; known are base"),
        ("base = 3", "base: wanted a text; came 3"),
        ("channels = 1", r"\[channels\] wants a table for each"),
        ("[channels]\nurl = 'x'", r"\[channels\] wants a table for each"),
        ("policy = 1", "policy is no table"),
        ("[channels.a]\nseverity = 'info'", r"\[channels.a\] wants an url"),
        (
            "[channels.a]\nurl = 'json://x'\nlevel = 'info'",
            r"\[channels.a\] does not know 'level'; it knows url, severity",
        ),
        (
            "[channels.a]\nurl = 'json://x'\nseverity = 'bad-secret'",
            "severity: wanted one of info, warning, critical; came str",
        ),
        ("[channels.a]\nurl = 'json://x'\nstreams = 'cpu'", "streams: wanted a list"),
        ("[channels.a]\nurl = 'json://x'\nresolved = 1", "resolved: wanted true or false; came 1"),
        (
            "[channels.a]\nurl = '${NOT_SET}'",
            "wants the environment variable NOT_SET, which is not set",
        ),
        (
            "[actions.a]\nseverity = 'info'",
            r"\[actions.a\] wants a command or an http\(s\) url, one of the two",
        ),
        ("[actions.a]\ncommand = ['x']\nurl = 'http://x'", "one of the two"),
        ("[actions.a]\nurl = 'file:///etc/passwd'", r"http\(s\) url"),
        ("[actions.a]\ncommand = 'rm -rf'", "command: wanted a list: the program"),
        ("[actions.a]\ncommand = []", "command: wanted a list"),
        ("[actions.a]\ncommand = ['x']\ntimeout = 0", "timeout: wanted seconds, above 0; came 0"),
        ("[actions.a]\ncommand = ['x']\nhourly = true", "hourly: wanted a number of runs"),
        ("[policy]\nrelease = 1.5", "release: wanted a share of the threshold"),
        ("[policy]\nquiet = 0", "quiet: wanted a number of steps, at least 1; came 0"),
    ],
)
def test_what_is_wrong_in_the_file_is_said_without_repeating_it(text, words):
    with pytest.raises(ChannelError, match=words) as refused:
        read_channels_file(text, {})
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("name", ["release-valve", "cooldown", "on", "url"])
def test_the_name_of_an_action_decides_nothing_about_its_values(name):
    text = f"[actions.{name}]\ncommand = ['x']\ntimeout = 30\nhourly = 2"
    assert read_channels_file(text, {})[0].actions == (Action(name, ("x",), timeout=30, hourly=2),)
    with pytest.raises(ChannelError, match="hourly: wanted a number of runs, at least 1; came 0"):
        read_channels_file(text.replace("hourly = 2", "hourly = 0"), {})


def test_without_apprise_the_line_that_installs_it_is_the_answer(monkeypatch):
    monkeypatch.setitem(sys.modules, "apprise", None)
    with pytest.raises(ChannelError, match=r"pip install 'redline\[alerts\]'"):
        Notifier(NotificationPlan(channels=(Channel("team", "json://localhost"),)))
    assert logging.getLogRecordFactory() is logging.LogRecord
    only_actions = Notifier(NotificationPlan(actions=(Action("a", ("true",)),)))
    only_actions.stop()


def test_an_answer_shows_what_there_is_and_no_address(receiver, dispatch):
    one = dispatch(
        NotificationPlan(
            channels=(on(receiver, "/hook/T00secretpath", severity="warning"),),
            actions=(Action("act", ("echo", "arg-secret"), dry_run=True),),
        )
    )
    one.notify([change()])
    assert one.wait_idle(PATIENCE)
    team, act = one.status()
    assert (team["kind"], team["name"], team["how"], team["severity"], team["counts"]) == (
        "channel",
        "team",
        "json",
        "warning",
        {"delivered": 1},
    )
    assert (act["how"], act["dry_run"], act["last"]["ok"]) == ("command", True, True)
    assert "secret" not in json.dumps([team, act]) and f":{receiver.port}" not in json.dumps(
        [team, act]
    )


def test_what_still_waits_at_the_end_is_counted(receiver, dispatch):
    receiver.gate.clear()
    one = dispatch(NotificationPlan(channels=(on(receiver),)))
    one.notify([change()])
    receiver.wait(1)
    one.notify([change(id="late")])
    one.stop(0.0)
    receiver.gate.set()
    one.channels["team"].thread.join(PATIENCE)
    assert one.channels["team"].counts["dropped"] == 1


def test_every_key_of_the_file_is_in_the_docs():
    text = (Path(__file__).parents[2] / "docs" / "alerts.md").read_text(encoding="utf-8")
    missing = [
        f"{table}.{key}"
        for table, kind in TABLES.items()
        for key in (field.name.replace("_", "-") for field in fields(kind))
        if key != "name" and f"`{key}`" not in text
    ]
    assert not missing, f"docs/alerts.md does not explain {', '.join(missing)}"
