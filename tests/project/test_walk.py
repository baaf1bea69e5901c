"""What docs/api.md tells a stranger to type, typed: real curl against a real server."""

import json
import re
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
WALK = TEXT.partition("## With curl alone")[2].partition("\n## ")[0]
LINES = [
    line
    for block in re.findall(r"```sh\n(.*?)```", WALK, flags=re.S)
    for line in block.splitlines()
]
PORT = 8797


@contextmanager
def started(folder):
    """`python app.py` as the document starts it, but on a port and a store of its own."""
    words = [
        sys.executable,
        str(ROOT / "app.py"),
        "--no-browser",
        "--port",
        str(PORT),
        "--db",
        str(folder / "redline.db"),
    ]
    with subprocess.Popen(words, cwd=folder, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and str(PORT) in process.stdout.readline()
        try:
            yield
        finally:
            process.terminate()


def typed(line, folder):
    """A line of the document, in a shell."""
    return [
        "sh",
        "-c",
        line.replace("localhost:8050", f"127.0.0.1:{PORT}").replace("curl ", "curl -sS ", 1),
    ], {"cwd": folder, "text": True}


def said(line, folder):
    words, how = typed(line, folder)
    done = subprocess.run(words, capture_output=True, timeout=30, **how)
    assert done.returncode == 0 and not done.stderr, done.stderr
    return done.stdout


@pytest.mark.service
@pytest.mark.skipif(
    shutil.which("curl") is None or shutil.which("awk") is None, reason="curl and awk are not here"
)
def test_a_stranger_pushes_points_sees_the_anomaly_and_follows_the_events(tmp_path):
    follow, make, calm, hot, anomaly, incident, data, tune, label, health = LINES
    with started(tmp_path):
        words, how = typed(follow, tmp_path)
        with subprocess.Popen(words, stdout=subprocess.PIPE, **how) as follower:
            assert follower.stdout is not None and follower.stdout.readline().startswith("retry:")
            assert said(make, tmp_path) == ""
            assert json.loads(said(calm, tmp_path)) == {
                "accepted": 300,
                "repeated": 0,
                "late": 0,
                "sources": {"oven": {"accepted": 300, "repeated": 0, "late": 0}},
            }
            assert json.loads(said(hot, tmp_path))["accepted"] == 1
            events = (json.loads(line[6:]) for line in follower.stdout if line.startswith("data: "))
            event = next(event for event in events if event["value"] == 240)
            follower.terminate()
        (found,) = json.loads(said(anomaly, tmp_path))["anomalies"]
        assert found == event and found["severity"] == "critical" and found["time"] == 1_767_589_200
        assert json.loads(said(incident, tmp_path))["incidents"][0]["state"] == "open"
        rows = said(data, tmp_path).splitlines()
        assert (
            rows[0] == "step,time,value,score,anomaly"
            and len(rows) == 4
            and rows[-1].startswith("300,1767589200.0,240.0,")
            and rows[-1].endswith(",1")
        )
        assert json.loads(said(tune, tmp_path))["applied"]["detector"] == "EWMA"
        assert json.loads(said(label, tmp_path))["kind"] == "expected"
        ready = json.loads(said(health, tmp_path))
        assert ready["live"] and ready["ready"]
        assert json.loads(said(calm, tmp_path))["repeated"] == 300
        gone(tmp_path)


def gone(folder):
    """An unknown path is a problem to curl too."""
    answer = said(f"curl http://localhost:8050/api/typo?{time.monotonic():.0f}", folder)
    assert json.loads(answer)["status"] == 404
