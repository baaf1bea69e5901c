"""The trial of several machines on one: a file that is put into the topic is on the page."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import numpy as np
import psutil
import pytest

from bench.browser import ROOT, free_port
from bench.stack import why_not
from redline.cli.program import run_program

pytestmark = pytest.mark.service
START = 1_767_571_200  # seconds since the epoch
PATIENCE = 60.0  # seconds


def ask(port: int, path: str) -> dict:
    with urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
        return json.load(answer)


def test_a_broker_ends_with_the_program_that_started_it() -> None:
    if reason := why_not():
        pytest.skip(reason)
    code = (
        "import time; from bench.kafka_broker import KafkaBroker; broker = KafkaBroker(); "
        "broker.start(); print(broker.process.pid, flush=True); time.sleep(60)"
    )
    words = [sys.executable, "-c", code]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE) as started:
        assert started.stdout is not None
        java = psutil.Process(int(started.stdout.readline()))
        started.kill()
    psutil.wait_procs([java], 10.0)
    assert not java.is_running() or java.status() == psutil.STATUS_ZOMBIE


def wait_for_the_anomaly(port: int) -> list[float]:
    """Return the times of the critical anomalies of the source, once it has some."""
    until = time.monotonic() + PATIENCE
    while True:
        assert time.monotonic() < until
        time.sleep(0.2)
        try:
            anomalies = ask(port, "/api/anomalies?source=boiler")["anomalies"]
        except URLError:  # the page starts, or does not know the source yet
            continue
        if worst := [each["time"] for each in anomalies if each["severity"] == "critical"]:
            return worst


def wait_for_the_broker(process: subprocess.Popen[bytes], log: Path) -> str:
    """Return the address that the log names."""
    until = time.monotonic() + PATIENCE
    while not (found := re.search(r"Kafka at (\S+);", log.read_text())):
        assert process.poll() is None and time.monotonic() < until, log.read_text()
        time.sleep(0.1)
    return found[1]


def test_one_command_starts_page_broker_and_database_and_ends_them(tmp_path: Path) -> None:
    if reason := why_not():
        pytest.skip(reason)
    value = np.random.default_rng(5).normal(20, 1, 400)
    value[300] = 60
    file = tmp_path / "boiler.csv"
    rows = "".join(f"{START + 60 * at},{each:.3f}\n" for at, each in enumerate(value))
    file.write_text(f"time,heat\n{rows}")
    port = free_port()
    log = tmp_path / "log"
    with log.open("wb") as out:
        words = [sys.executable, "-m", "bench.stack", "--port", str(port)]
        process = subprocess.Popen(words, cwd=ROOT, stdout=out, stderr=out)
    try:
        to = ("--kafka", wait_for_the_broker(process, log), "--topic", "metrics")
        assert run_program(["produce", *to, "--csv", str(file)]) == 0
        assert wait_for_the_anomaly(port) == [START + 60 * 300]
        children = psutil.Process(process.pid).children(recursive=True)
        assert len(children) >= 3
    finally:
        process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE) == 0, log.read_text()
    assert not [child for child in children if child.is_running()]
