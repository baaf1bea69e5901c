"""A real Prometheus that scrapes a real node exporter writes to Redline.

Both come from packages of Debian, which `make test` unpacks; without them this is skipped.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pytest

from bench.browser import ROOT, free_port
from bench.followers import Server, serving

pytestmark = pytest.mark.service
PROGRAMS = f"{ROOT / 'build' / 'servers' / 'usr' / 'bin'}:{os.environ.get('PATH', '')}"
PROMETHEUS = shutil.which("prometheus", path=PROGRAMS)
EXPORTER = shutil.which("prometheus-node-exporter", path=PROGRAMS)
PATIENCE = 60.0  # seconds
COLLECTORS = ("disable-defaults", "cpu", "meminfo", "loadavg")
CONFIG = """
global: {{scrape_interval: 1s}}
scrape_configs:
- job_name: node
  static_configs: [{{targets: ["127.0.0.1:{exporter}"]}}]
remote_write:
- url: http://127.0.0.1:{redline}/api/v1/write
  queue_config: {{batch_send_deadline: 500ms}}
"""
_T = TypeVar("_T")


@contextmanager
def running(*words: str) -> Iterator[None]:
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait(20)


def wait_for(look: Callable[[], _T]) -> _T:
    """Return what a look finds, once it finds something."""
    until = time.monotonic() + PATIENCE
    while True:
        try:
            found = look()
        except urllib.error.URLError:
            found = None
        if found:
            return found
        assert time.monotonic() < until, "waited for a minute"
        time.sleep(0.2)


def ask(port: int, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
        return answer.read().decode()


def points_of(server: Server, name: str) -> int:
    """Return how many points a source has, 0 = there is no such source."""
    streams = server.ask("/api/streams?limit=1000")["streams"]
    return next((each["points"] for each in streams if each["source"] == name), 0)


@pytest.mark.skipif(
    not (PROMETHEUS and EXPORTER), reason="prometheus and prometheus-node-exporter are not there"
)
def test_prometheus_writes_a_node_exporter_to_redline(tmp_path: Path) -> None:
    exporter = free_port()
    prometheus = free_port()
    instance = f'instance="127.0.0.1:{exporter}",job="node"'
    collectors = [f"--collector.{name}" for name in COLLECTORS]
    with serving("--select", '{job="node",__name__=~"node_.*"}') as server:
        config = tmp_path / "prometheus.yml"
        config.write_text(CONFIG.format(exporter=exporter, redline=server.port))
        with (
            running(str(EXPORTER), f"--web.listen-address=127.0.0.1:{exporter}", *collectors),
            running(
                str(PROMETHEUS),
                f"--config.file={config}",
                f"--storage.tsdb.path={tmp_path / 'data'}",
                f"--web.listen-address=127.0.0.1:{prometheus}",
            ),
        ):
            wait_for(lambda: points_of(server, f"node_load1{{{instance}}}") >= 5)
            idle = f'node_cpu_seconds_total{{cpu="0",{instance},mode="idle"}}'
            wait_for(lambda: points_of(server, idle) >= 3)
            path = f"/api/data/{urllib.parse.quote(idle, safe='')}?limit=100"
            rates = [row["value"] for row in server.ask(path)["points"]]
            metrics = ask(prometheus, "/metrics")
        assert all(0 <= rate <= 1.5 for rate in rates), "seconds of one core in a second"
        left_out = server.ask("/api/status")["doors"]["left_out"]
        assert set(left_out) <= {"not selected", "stale marker"}, left_out
        failed = [
            line
            for line in metrics.splitlines()
            if line.startswith("prometheus_remote_storage_samples_failed_total")
        ]
        assert failed and all(line.endswith(" 0") for line in failed), failed


@pytest.mark.skipif(not EXPORTER, reason="prometheus-node-exporter is not there")
def test_redline_reads_a_node_exporter_without_any_prometheus() -> None:
    exporter = free_port()
    instance = f'instance="127.0.0.1:{exporter}",job="scrape"'
    collectors = [f"--collector.{name}" for name in COLLECTORS]
    address = f"http://127.0.0.1:{exporter}"
    with (
        running(str(EXPORTER), f"--web.listen-address=127.0.0.1:{exporter}", *collectors),
        serving("--scrape", address, "--scrape-interval", "1", "--select", "up") as server,
    ):
        wait_for(lambda: points_of(server, f"up{{{instance}}}") >= 2)
    selected = '{__name__=~"node_load1|node_cpu_seconds_total"}'
    words = ("--scrape", address, "--scrape-interval", "1", "--select", selected)
    with (
        running(str(EXPORTER), f"--web.listen-address=127.0.0.1:{exporter}", *collectors),
        serving(*words) as server,
    ):
        wait_for(lambda: points_of(server, f"node_load1{{{instance}}}") >= 3)
        idle = f'node_cpu_seconds_total{{cpu="0",{instance},mode="idle"}}'
        wait_for(lambda: points_of(server, idle) >= 3)
        (target,) = server.ask("/api/status")["scrape"]
        assert target["scraped"] >= 3 and target["samples"] >= 3


def series_of(prometheus: int, query: str) -> list[tuple[dict[str, str], list[str]]]:
    """Return the labels of each series that a query finds, with its values of the last hour."""
    path = f"/api/v1/query?query={urllib.parse.quote(f'{query}[1h]')}"
    found = json.loads(ask(prometheus, path))["data"]["result"]
    return [(each["metric"], [value for _, value in each["values"]]) for each in found]


@pytest.mark.skipif(not PROMETHEUS, reason="prometheus is not there")
def test_scores_of_a_series_in_alarm_are_written_to_a_prometheus(tmp_path: Path) -> None:
    prometheus = free_port()
    config = tmp_path / "prometheus.yml"
    config.write_text("global: {scrape_interval: 1s}\n")
    selected = ("--remote-write-select", '{host="c"}')
    with (
        running(
            str(PROMETHEUS),
            f"--config.file={config}",
            f"--storage.tsdb.path={tmp_path / 'data'}",
            f"--web.listen-address=127.0.0.1:{prometheus}",
            "--web.enable-remote-write-receiver",
        ),
        serving("--remote-write", f"http://127.0.0.1:{prometheus}", *selected) as server,
    ):
        wait_for(lambda: ask(prometheus, "/-/ready"))
        now = time.time() - 180
        names = [f'load{{host="{host}"}}' for host in "abc"]
        rows = [{"time": now + at, "values": dict.fromkeys(names, at % 3)} for at in range(151)]
        rows[150]["values"] = dict.fromkeys(names, 1) | {names[0]: 90}
        assert server.ask("/api/submit", json.dumps(rows).encode())["accepted"] == 453
        found = wait_for(lambda: series_of(prometheus, 'redline_anomaly{host="a"}'))
        wait_for(lambda: series_of(prometheus, 'redline_score{host="c"}'))
        ((labels, flags),) = found
        assert labels == {"__name__": "redline_anomaly", "host": "a", "metric": "load"}
        assert flags[-1] == "1"
        ((_, scores),) = series_of(prometheus, 'redline_score{host="a"}')
        assert float(scores[-1]) > 7
        assert not series_of(prometheus, 'redline_score{host="b"}'), "it is not in alarm"
        status = server.ask("/api/status")["remote_write"]
        assert status["trouble"] is None and status["counts"]["sent"] > 0
        assert {status["counts"][name] for name in ("rejected", "failed", "dropped")} == {0}
