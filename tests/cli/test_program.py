"""`python app.py` as a program: help, messages, shutdown; each test starts a real process."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from bench.browser import ROOT, Server

pytestmark = pytest.mark.service

SOON = 8.0  # seconds; it takes one, but the machine may be busy with something else


def said(*flags: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run `app.py` with flags that end it; return its output and exit code."""
    words = [sys.executable, str(ROOT / "app.py"), "--no-browser", *flags]
    return subprocess.run(
        words, cwd=folder, capture_output=True, text=True, timeout=30, stdin=subprocess.DEVNULL
    )


def test_help_names_every_flag(tmp_path: Path) -> None:
    done = said("--help", folder=tmp_path)
    assert done.returncode == 0
    for flag in (
        "--host",
        "--allow-host",
        "--port",
        "--csv",
        "--interval",
        "--seed",
        "--no-browser",
    ):
        assert flag in done.stdout


def test_it_prints_one_line_with_the_address_and_answers(tmp_path: Path) -> None:
    with Server() as server:
        assert f"http://localhost:{server.port}" in server.said
        with urllib.request.urlopen(server.url, timeout=10) as answer:
            assert answer.status == 200 and b"Redline" in answer.read()
    assert server.log.exists() is False


def asked(server: Server, start: str, *lines: str, body: bytes = b"") -> tuple[int, bytes]:
    """Return the status and the whole answer to a request given as bytes."""
    head = [start, *lines, f"Content-Length: {len(body)}", "Connection: close"]
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as line:
        line.sendall("\r\n".join([*head, "", ""]).encode() + body)
        answer = b"".join(iter(lambda: line.recv(65_536), b""))
    return int(answer.split()[1]), answer


def test_a_rebound_name_reaches_nothing_and_changes_nothing() -> None:
    change = json.dumps({"source": "wave", "threshold": 9.0}).encode()
    configure = ("POST /api/configure HTTP/1.1", "Content-Type: application/json")
    upgrade = (
        "Upgrade: websocket",
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
        "Sec-WebSocket-Version: 13",
    )
    with Server("--allow-host", "redline.example", "--cors", "*") as server:
        evil, home = f"evil.example:{server.port}", f"localhost:{server.port}"
        status, answer = asked(
            server, *configure, f"Host: {evil}", f"Origin: http://{evil}", body=change
        )
        assert status == 421 and b"application/problem+json" in answer and b"--allow-host" in answer
        preflight = ("Origin: http://evil.example", "Access-Control-Request-Method: POST")
        assert (
            asked(server, "OPTIONS /api/configure HTTP/1.1", f"Host: {evil}", *preflight)[0] == 421
        )
        for path in ("/", "/health", "/assets/page.js", "/api/stream/anomalies", "/_dash-layout"):
            assert asked(server, f"GET {path} HTTP/1.1", f"Host: {evil}")[0] == 421, path
        socket_path = "GET /_dash-ws-callback HTTP/1.1"
        status, _ = asked(
            server,
            socket_path,
            f"Host: {evil}",
            f"Origin: http://{evil}",
            "Connection: Upgrade",
            *upgrade,
        )
        assert status in (403, 421), "refused before it is opened"
        assert asked(server, "GET /health HTTP/1.0")[0] == 400
        assert asked(server, "GET /health HTTP/1.1", f"Host: {home}", f"Host: {evil}")[0] == 400
        for host in (home, "redline.example", "REDLINE.example.:443"):
            assert (
                asked(server, *configure, f"Host: {host}", f"Origin: http://{host}", body=change)[0]
                == 200
            ), host


def test_a_taken_port_gets_a_sentence(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = said("--port", str(port), folder=tmp_path)
    assert (
        done.returncode != 0
        and f"port {port}" in done.stderr.lower()
        and "Traceback" not in done.stderr
    )
    assert "--port" in done.stderr, "it says what to do"


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--csv", "missing.csv"], ["missing.csv"]),
        (["--port", "99999"], ["--port", "65,535", "99999"]),
        (["--interval", "1"], ["--interval", "100"]),
        (["--seed", "x"], ["--seed"]),
        (
            ["--allow-host", "https://a.example"],
            ["--allow-host", "without scheme", "https://a.example"],
        ),
    ],
    ids=["no file", "no such port", "too fast", "no number", "no host name"],
)
def test_a_wrong_flag_gets_a_sentence(tmp_path: Path, flags: list[str], words: list[str]) -> None:
    done = said(*flags, folder=tmp_path)
    assert done.returncode != 0 and "Traceback" not in done.stderr
    assert all(word in done.stderr for word in words), done.stderr


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "Ctrl-C"])
def test_it_ends_soon_without_complaint(how: signal.Signals) -> None:
    server = Server().start()
    with urllib.request.urlopen(server.url, timeout=10) as answer:
        answer.read()
    process = server.process
    assert process is not None
    seconds = server.stop(how)
    log = server.log.read_text()
    server.folder.cleanup()
    assert process.returncode in (0, -how, 128 + how) and "Traceback" not in log, log
    assert seconds < SOON


@pytest.mark.parametrize("path", ["/", "/api/stream/anomalies"])
def test_it_ends_soon_while_a_visitor_is_connected(path: str) -> None:
    server = Server().start()
    with socket.create_connection(("127.0.0.1", server.port)) as visitor:
        visitor.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        assert visitor.recv(4096).startswith(b"HTTP/1.1 200")
        seconds = server.stop()
    log = server.log.read_text()
    server.folder.cleanup()
    assert "Traceback" not in log and seconds < SOON, log


def test_an_unknown_path_is_a_problem_and_never_the_page() -> None:
    with Server() as server, pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(f"{server.url}/api/typo", timeout=10)
    with error.value:
        assert error.value.code == 404
        assert json.loads(error.value.read())["status"] == 404
