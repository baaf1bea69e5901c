"""`run`, `replay` and the administration and client commands, here and against a real server."""

import io
import json
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

import pytest
import uvicorn

from redline import settings
from redline.access import tokens
from redline.api.server import build_server, listen
from redline.api.service import ServerOptions, assemble_service, server_options
from redline.cli import program as shell
from redline.cli import run, settings_file
from redline.engine.feed import MonitoredStream
from redline.engine.monitor import Monitor
from redline.page.query import export_source
from redline.settings import Settings, export_settings, import_settings
from redline.sources.csv import read_csv
from redline.sources.machine import ThisMachine
from redline.sources.recording import Columns, write_csv
from redline.storage.sqlite import SqliteStore
from streams import STREAMS

ROOT = Path(__file__).parents[2]
TUNED = Settings("EWMA", window=90, threshold=4.2, refractory=50)


def ran(*words):
    """Run a command in this process; return its exit code and standard output."""
    with redirect_stdout(io.StringIO()) as out:
        code = shell.run_program(list(words))
    return code, out.getvalue()


def flags(text):
    return [json.loads(line)["time"] for line in text.splitlines()]


def marked(feed, settings):
    """Return the times that the page marks: the steps of the buffer above the threshold."""
    track = feed.track(settings)
    feed.catch_up(track, 100_000)
    first, end = track.tape.first, feed.end
    return feed.tape.read("time", first, end)[
        track.read("score", first, end)[:, 0] > settings.threshold, 0
    ].tolist()


# --- run


@pytest.mark.parametrize("name", ["wave", "iot", "fraud"])
def test_what_was_exported_flags_the_very_same_time_stamps(tmp_path, name):
    monitor = Monitor({name: MonitoredStream(STREAMS[name](seed=11, rate=0.02))})
    feed = monitor.feeds[name]
    monitor.backfill(feed, 8_000)
    monitor.inject(name, "point", 9.0)
    monitor.backfill(feed, 3_000)
    monitor.inject(name, "shift", 6.0)
    monitor.backfill(
        feed, 1_500
    )  # the oldest steps have left the buffer; a new track begins at what is left
    want = marked(feed, TUNED)
    text = export_settings(export_source(feed, name, TUNED, 11), TUNED)
    assert import_settings(text)[0]["first"] == feed.tape.first > 0 and len(want) > 20
    (tmp_path / "tuned.toml").write_text(text)
    code, out = ran(
        "run",
        "--config",
        str(tmp_path / "tuned.toml"),
        "--steps",
        str(feed.end - feed.tape.first),
        "--json",
    )
    assert code == 0 and flags(out) == want


def test_what_is_exported_after_a_change_and_a_restart_begins_where_it_says(tmp_path):
    for life in range(2):
        kept = SqliteStore(tmp_path / "r.db")
        monitor = Monitor(
            {"wave": MonitoredStream(STREAMS["wave"](seed=11, rate=0.02))}, store=kept
        )
        feed = monitor.feeds["wave"]
        monitor.restore_feed(feed)
        if not life:
            take(monitor, feed, 3_000)
            monitor.apply("wave", TUNED)
        take(monitor, feed, 2_000)
        monitor.process_pushed()
        kept.close()
    about = export_source(feed, "wave", TUNED, 11)
    assert (
        feed.applied == TUNED and about["first"] == feed.applied_track.learned_since > 3_000
    )  # the buffer's oldest step when it was first scored
    (tmp_path / "tuned.toml").write_text(export_settings(about, TUNED))
    code, out = ran(
        "run",
        "--config",
        str(tmp_path / "tuned.toml"),
        "--steps",
        str(feed.end - about["first"]),
        "--json",
    )
    want = marked(feed, TUNED)
    assert code == 0 and want and [at for at in flags(out) if at >= want[0]] == want


def take(monitor, feed, steps):
    """Run the loop for so many steps of one stream."""
    for _ in range(0, steps, 500):
        feed.due = 500.0
        monitor._take_due(feed, 0.0)
        monitor.process_pushed()


def test_a_file_of_ones_own_flags_the_very_same_time_stamps(tmp_path):
    path = tmp_path / "mine.csv"
    write_csv(STREAMS["iot"](seed=4, rate=0.02), 3_000, path)
    monitor = Monitor({})
    recording = read_csv(path, Columns("time", ("temperature (°C)", "pressure (hPa)")))
    feed = monitor.open("your-data", recording, steps=3_000)
    (tmp_path / "tuned.toml").write_text(
        export_settings(export_source(feed, "your-data", TUNED, 0), TUNED)
    )
    want = marked(feed, TUNED)
    code, out = ran(
        "run", "--config", str(tmp_path / "tuned.toml"), "--json"
    )  # the file is found beside the settings
    assert code == 0 and flags(out) == want and len(want) >= 5
    (tmp_path / "elsewhere").mkdir()
    path.rename(tmp_path / "elsewhere" / "mine.csv")
    assert ran("run", "--config", str(tmp_path / "tuned.toml"))[0] == 2
    assert (
        flags(
            ran(
                "run",
                "--config",
                str(tmp_path / "tuned.toml"),
                "--csv",
                str(tmp_path / "elsewhere" / "mine.csv"),
                "--json",
            )[1]
        )
        == want
    )


def test_a_long_file_begins_where_the_tuned_track_began(tmp_path, monkeypatch):
    monkeypatch.setattr("redline.engine.monitor.MAX_RECORDING_VALUES", 0)  # no room for all rows
    path = tmp_path / "long.csv"
    write_csv(STREAMS["wave"](seed=4, rate=0.02), 12_000, path)
    feed = Monitor({}).open("your-data", read_csv(path), steps=12_000)
    want = marked(feed, TUNED)
    (tmp_path / "tuned.toml").write_text(
        export_settings(export_source(feed, "your-data", TUNED, 0), TUNED)
    )
    assert (
        feed.tape.first == 2_000
        and flags(ran("run", "--config", str(tmp_path / "tuned.toml"), "--json")[1]) == want != []
    )


def test_a_replay_runs_a_file_under_the_settings_of_another(tmp_path):
    path = tmp_path / "mine.csv"
    write_csv(STREAMS["wave"](seed=4, rate=0.02), 2_000, path)
    (tmp_path / "tuned.toml").write_text(export_settings({"stream": "wave", "first": 0}, TUNED))
    code, out = ran("replay", str(path), "--config", str(tmp_path / "tuned.toml"), "--json")
    want = marked(Monitor({}).open("x", read_csv(path), steps=2_000), TUNED)
    assert code == 0 and flags(out) == want and len(want) >= 5
    alarms = ran("replay", str(path), "--config", str(tmp_path / "tuned.toml"), "--alarms")[
        1
    ].splitlines()
    assert (
        0 < len(alarms) < len(want)
        and alarms[0].startswith("2026-01-05T")
        and " wave" not in alarms[0]
    )
    assert ran("replay", str(path))[0] == 2


@pytest.mark.parametrize(
    "text",
    [
        "rubbish",
        "[source]\n[settings]\n",
        '[source]\nstream = "wave"\nfirst = -1\n[settings]\n',
        '[source]\nstream = "wave"\nrate = 7\n[settings]\n',
        '[source]\nstream = "wave"\n[settings]\nthreshold = 99\n',
        '[source]\nstream = "wave"\n[settings]\nthreshhold = 3\n',
        '[source]\nstream = "x"\ncsv = "nowhere.csv"\n[settings]\n',
        '[source]\nstream = "overview"\n[settings]\n',
        '[source]\nstream = "your-data"\nfeatures = ["load"]\n[settings]\n',
    ],
)
def test_a_settings_file_that_cannot_be_run_is_refused_in_a_sentence(tmp_path, capsys, text):
    (tmp_path / "s.toml").write_text(text)
    assert shell.run_program(["run", "--config", str(tmp_path / "s.toml"), "--steps", "5"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("redline run: ") and "Traceback" not in error
    assert shell.run_program(["run", "--config", str(tmp_path / "none.toml")]) == 1


def test_init_writes_a_file_that_runs_with_every_setting_explained(tmp_path):
    path = tmp_path / "redline.toml"
    assert ran("init", str(path))[0] == 0
    text = path.read_text()
    assert import_settings(text) == (
        {"stream": "wave", "first": 0, "seed": 0, "rate": 0.01, "injections": []},
        Settings(),
    )
    for name in (
        *settings.STREAM_SETTINGS,
        *(row.name for row in settings_file.headless_settings()),
    ):
        assert f"{name} = " in text and settings.SETTINGS_BY_NAME[name].help in text
    assert ran("init", str(path))[0] == 2 and ran("init", str(path), "--force")[0] == 0
    code, out = ran("run", "--config", str(path), "--steps", "3000", "--json")
    assert code == 0 and len(flags(out)) > 5


# --- serving


def test_further_hosts_come_from_the_command_line_or_the_file(tmp_path, capsys):
    for given, names in ((["a.example", "B"], ("a.example", "b")), ("a.example", ("a.example",))):
        found = settings.load_server_settings({"allow-host": None}, {"allow-host": given})
        assert server_options(found, {}).hosts.allowed == names
        found = settings.load_server_settings({"allow-host": ["c"]}, {"allow-host": given})
        assert server_options(found, {}).hosts.allowed == ("c",)
    path = tmp_path / "s.toml"
    for text in ("7", '["a:80"]', "[7]"):
        path.write_text(f'[source]\nstream = "oven"\n[settings]\n[server]\nallow-host = {text}\n')
        assert ran("run", "--config", str(path))[0] == 2
        assert "allow-host: wanted" in capsys.readouterr().err


def test_an_open_address_without_a_token_is_refused(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("REDLINE_TOKEN", raising=False)
    (tmp_path / "s.toml").write_text('[source]\nstream = "oven"\n[settings]\n')
    assert (
        shell.run_program(["run", "--config", str(tmp_path / "s.toml"), "--host", "0.0.0.0"]) == 2
    )
    assert "no token is set" in capsys.readouterr().err


def test_a_token_is_shown_once_and_kept_as_a_hash(tmp_path):
    code, out = ran("token", "push", "the oven", "--file", str(tmp_path / "t"))
    assert code == 0 and out.strip() not in (tmp_path / "t").read_text()
    assert tokens.load_tokens(str(tmp_path / "t"), None).find(out.strip()) == tokens.Token(
        "push", tokens.hash_secret(out.strip()), "the oven"
    )


def test_a_token_may_expire_and_is_not_added_to_a_file_for_all(tmp_path, capsys):
    path = tmp_path / "t"
    assert ran("token", "push", "the oven", "--file", str(path), "--days", "7")[0] == 0
    (token,) = tokens.parse_token_file(path)
    assert token.name == "the oven" and 6.99 < (token.until - time.time()) / 86_400 < 7.01
    assert "valid until 20" in capsys.readouterr().err
    assert ran("token", "push", "the oven", "--file", str(path), "--days", "0")[0] == 2
    path.chmod(0o644)
    assert ran("token", "push", "the oven", "--file", str(path))[0] == 2
    assert f"chmod 600 {path}" in capsys.readouterr().err


def test_a_backup_is_restored(tmp_path):
    db, copy = tmp_path / "redline.db", tmp_path / "copy.db"
    store = SqliteStore(db)
    store.record("me", "before")
    assert (
        ran("backup", str(copy), "--db", str(db))[0] == 0
        and ran("backup", str(copy), "--db", str(db))[0] == 1
    )
    store.record("me", "after")
    assert ran("restore", str(copy), "--db", str(db))[0] == 1  # it is still open
    store.close()
    assert ran("restore", str(copy), "--db", str(db))[0] == 0
    again = SqliteStore(db, write=False)
    assert [line["what"] for line in again.audit()] == ["before"]
    again.close()
    assert ran("restore", str(tmp_path / "none"), "--db", str(db))[0] == 1


# --- a running server


@contextmanager
def running(monitor, options=ServerOptions(), store=None):  # noqa: B008
    """Run a real server on a free port in a thread; yield the service and its URL."""
    service = assemble_service(lambda _: monitor, store, options)
    sock = listen("127.0.0.1", 0)
    server = uvicorn.Server(
        uvicorn.Config(build_server(service), log_level="warning", timeout_graceful_shutdown=1)
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]})
    thread.start()
    while not server.started:
        time.sleep(0.005)
    try:
        yield service, f"http://127.0.0.1:{sock.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        sock.close()


@pytest.fixture(scope="module")
def served():
    monitor = Monitor({"wave": MonitoredStream(STREAMS["wave"](seed=3))})
    with running(monitor) as (service, url):
        while monitor.feeds["wave"].finalized < 10_000:
            time.sleep(0.005)
        yield service, url


def test_status_streams_and_anomalies_ask_a_running_server(served):
    _, url = served
    code, out = ran("status", "--url", url)
    assert (
        code == 0
        and "events clients" in out
        and json.loads(ran("status", "--json", "--url", url)[1])["streams"] == 1
    )
    code, out = ran("streams", "--url", url)
    assert (
        code == 0
        and out.splitlines()[1].split()[:3] == ["wave", "simulated", "signal"]
        and "rolling z-score" in out
    )
    assert json.loads(ran("streams", "--json", "--url", url)[1])[0]["source"] == "wave"
    code, out = ran(
        "anomalies", "--url", url, "--limit", "3", "--severity", "warning", "--stream", "wave"
    )
    assert (
        code == 0
        and len(out.splitlines()) == 3
        and all(
            word in ("warning", "critical") for word in (r.split()[1] for r in out.splitlines())
        )
    )
    assert (
        len(
            [
                json.loads(line)
                for line in ran("anomalies", "--url", url, "--json", "--limit", "7")[1].splitlines()
            ]
        )
        == 7
    )


def test_a_replay_can_use_the_settings_of_a_running_server(served, tmp_path):
    service, url = served
    service.monitor.apply("wave", TUNED)
    path = tmp_path / "mine.csv"
    write_csv(STREAMS["wave"](seed=4, rate=0.02), 2_000, path)
    want = marked(Monitor({}).open("x", read_csv(path), steps=2_000), TUNED)
    assert flags(ran("replay", str(path), "--stream", "wave", "--url", url, "--json")[1]) == want


def test_a_server_that_refuses_or_is_not_there_is_said(served, capsys):
    _, url = served
    assert shell.run_program(["anomalies", "--url", url, "--stream", "typo"]) == 2
    assert "no stream is called 'typo'" in capsys.readouterr().err
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        assert (
            shell.run_program(["status", "--url", f"http://127.0.0.1:{free.getsockname()[1]}"]) == 1
        )
    assert "no server answers" in capsys.readouterr().err
    assert shell.run_program(["status", "--url", "file:///etc/passwd"]) == 2


def test_a_token_is_taken_from_the_environment(monkeypatch):
    with running(
        Monitor({}),
        ServerOptions(tokens.Tokens([tokens.Token("read", tokens.hash_secret("abc" * 9), "me")])),
    ) as (_, url):
        monkeypatch.delenv("REDLINE_TOKEN", raising=False)
        assert ran("status", "--url", url)[0] == 2
        monkeypatch.setenv("REDLINE_TOKEN", "abc" * 9)
        assert ran("status", "--url", url)[0] == 0


@pytest.mark.parametrize(
    ("source", "features"),
    [
        ({"stream": "oven", "features": ["temp", "door"]}, ("temp", "door")),
        ({"stream": "oven", "features": []}, ("value",)),
        ({"stream": "wvae", "seed": 3, "rate": 0.01}, ("value",)),  # a misspelt simulated stream
    ],
)
def test_a_name_that_is_neither_simulated_nor_this_machine_is_a_pushed_stream(source, features):
    plan = run.plan_run(source, TUNED, Path("tuned.toml"), None)
    assert plan == run.RunPlan(None, source["stream"], 0, TUNED, True, features)
    monitor = Monitor({})
    run.prepare_feed(monitor, plan)
    feed = monitor.feeds[plan.name]
    assert feed.pushed and feed.stream.names == features and feed.applied == TUNED
    said = run.live_sentence(plan, "http://127.0.0.1:8060")
    assert said == (
        f"Redline waits for points of {plan.name} ({', '.join(features)}), which is not a "
        "simulated stream: push them to http://127.0.0.1:8060/api/submit; the API is at "
        "http://127.0.0.1:8060/docs (Ctrl-C ends it)"
    )


def test_this_machine_runs_live():
    plan = run.plan_run({"stream": "this-machine"}, TUNED, Path("tuned.toml"), None)
    assert isinstance(plan.stream, ThisMachine) and plan.own_clock and not plan.features
    assert run.live_sentence(plan, "http://h:1") == (
        "Redline runs this-machine; the API is at http://h:1/docs (Ctrl-C ends it)"
    )


@pytest.mark.service
def test_a_pushed_stream_runs_headless_and_is_found_again_after_a_restart(tmp_path):
    """An exported pushed stream runs in its own process, is fed by HTTP, stopped and restarted."""
    import urllib.request

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (tmp_path / "oven.toml").write_text(
        export_settings({"stream": "oven", "first": 0, "features": ["temp"]}, TUNED)
    )
    words = [
        sys.executable,
        "-m",
        "redline",
        "run",
        "--config",
        str(tmp_path / "oven.toml"),
        "--db",
        str(tmp_path / "r.db"),
        "--port",
        str(port),
    ]
    for start in (0, 500):
        with subprocess.Popen(words, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None and "oven" in process.stderr.readline()
            times = list(range(start, start + 500))
            values = [20 + (i * 7919 % 100) / 100 for i in times[:-1]] + [90.0]
            body = json.dumps(
                {"source": "oven", "time": times, "values": {"temp": values}}
            ).encode()
            with urllib.request.urlopen(
                f"http://127.0.0.1:{port}/api/submit", body, timeout=10
            ) as answer:
                assert json.load(answer)["accepted"] == 500
            code, out = ran("anomalies", "--url", f"http://127.0.0.1:{port}", "--json")
            assert (
                code == 0
                and [json.loads(line)["step"] for line in out.splitlines()][-1] == start + 499
            )
            stream = json.loads(ran("streams", "--url", f"http://127.0.0.1:{port}", "--json")[1])[0]
            assert stream["points"] == start + 500 and stream["applied"]["detector"] == "EWMA"
            process.terminate()


def test_an_incident_runs_what_the_operator_named_and_status_tells_no_secret(tmp_path, monkeypatch):
    monkeypatch.setenv("HOOK", "s3cret-word")
    said = tmp_path / "said.json"
    (tmp_path / "alerts.toml").write_text(
        f'[actions.note]\ncommand = ["sh", "-c", "cat > {said}", '
        f'"${{HOOK}}"]\nseverity = "critical"\n'
    )
    store = SqliteStore(tmp_path / "r.db")
    service = assemble_service(
        lambda store: Monitor({}, store=store), store, alerts=str(tmp_path / "alerts.toml")
    )
    monitor = service.monitor
    monitor.start()
    values = [20 + (i * 7919 % 100) / 100 for i in range(300)] + [90.0]
    monitor.submit("oven", list(range(301)), [[value] for value in values]).result(5)
    assert service.notifier is not None
    until = time.monotonic() + 10
    while (not said.exists() or not service.notifier.records) and time.monotonic() < until:
        time.sleep(0.005)
    assert json.loads(said.read_text())["stream"] == "oven" and service.notifier.wait_idle(5)
    audit, status = json.dumps(store.audit()), json.dumps(service.notifier.status())
    assert "action note" in audit and "s3cret" not in audit + status
    service.close()
    monitor.stop()
    store.close()


@pytest.mark.parametrize(
    "text",
    ["rubbish", "[channel.x]\nurl = 'json://localhost'\n", "[actions.x]\nseverity = 'info'\n"],
)
def test_a_file_of_channels_that_is_wrong_is_refused(tmp_path, capsys, text):
    (tmp_path / "alerts.toml").write_text(text)
    (tmp_path / "s.toml").write_text(
        '[source]\nstream = "oven"\n[settings]\n[server]\nport = 8796\ndb = ""\n'
    )
    assert (
        shell.run_program(
            ["run", "--config", str(tmp_path / "s.toml"), "--alerts", str(tmp_path / "alerts.toml")]
        )
        == 2
    )
    assert "alerts file" in capsys.readouterr().err
