"""`train`, and `run --model`: a file at full speed, and a server that is killed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.browser import free_port
from detectors import DETECTORS
from redline.cli import program
from redline.cli.client import fetch_json
from redline.detection.model_file import fingerprint, read_model
from redline.detection.third_party import register_available
from redline.detection.trained import trained_class
from redline.sources.csv import read_csv

ROOT = Path(__file__).parents[2]
ROWS = 2_000


@pytest.fixture(autouse=True)
def borrowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """List the detectors of other libraries too, and the models, for one test."""
    monkeypatch.setattr(DETECTORS, "_entries", {**DETECTORS._entries})
    register_available()


@pytest.fixture(scope="module")
def oven(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of two features; 18 labelled spikes, farther apart than alarms can be."""
    rng = np.random.default_rng(5)
    x = rng.normal(size=(ROWS, 2)) + 3 * np.sin(np.arange(ROWS) / 40)[:, None]
    bad = np.zeros(ROWS, bool)
    bad[[*range(300, ROWS, 97)]] = True
    x[bad] += [12, -12]
    path = tmp_path_factory.mktemp("train") / "oven.csv"
    lines = (
        f"{1_767_571_200 + 10 * at},{row[0]:.6f},{row[1]:.6f},{int(is_bad)}"
        for at, (row, is_bad) in enumerate(zip(x.tolist(), bad))
    )
    path.write_text("time,heat (°C),flow,is_bad\n" + "\n".join(lines) + "\n")
    return path


def train(oven: Path, output: Path, detector: str, *words: str) -> int:
    return program.run_program(
        ["train", "--data", str(oven), "--detector", detector, "--output", str(output), *words]
    )


@pytest.mark.parametrize("detector", ["Mahalanobis", "isolation forest", "rolling z-score"])
def test_a_model_is_trained_and_finds_in_a_file_what_its_report_says(
    detector: str, oven: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "model.npz"
    assert train(oven, path, detector, "--label", "is_bad") == 0
    said = capsys.readouterr()
    assert re.search("[34] of 4 labelled anomalies found, 0 false alarms", said.out)
    assert f"run --model {path} --csv FILE" in said.err
    model = read_model(path)
    recording = read_csv(oven)
    x = recording.take(ROWS).x
    learned = model.trained["rows"]
    first = round(0.6 * ROWS) - learned
    assert model.names == ("heat", "flow") and model.source == "oven"
    assert model.trained["fingerprint"] == fingerprint(x[first : first + learned])
    assert model.report["event_f1"] > 0.8 and model.report["steps"] == 400
    # a file of the rows that were judged alone
    rest = tmp_path / "rest.csv"
    lines = oven.read_text().splitlines()
    rest.write_text("\n".join([lines[0], *lines[-400:]]) + "\n")
    assert program.run_program(["run", "--model", str(path), "--csv", str(rest), "--json"]) == 0
    found = {json.loads(line)["time"] for line in capsys.readouterr().out.splitlines()}
    bad = {float(line.split(",")[0]) for line in lines[-400:] if line.endswith(",1")}
    assert bad <= found and len(found - bad) <= 4
    score = trained_class(model)(floor=model.floors).update(
        x[-400:, None] if DETECTORS[detector].joint else x[-400:]
    )
    above = np.fmax.reduce(score, axis=1) > model.settings.threshold
    assert len(found) == above.sum()


def test_what_is_labelled_anomalous_is_not_learned(oven: Path, tmp_path: Path) -> None:
    spreads = []
    for name, words in (("with", ("--label", "is_bad")), ("without", ("--features", "heat,flow"))):
        text = oven.read_text().replace("heat (°C)", "heat")
        text = text if name == "with" else text.replace("is_bad", "other")
        file = tmp_path / f"{name}.csv"
        file.write_text(text)
        assert train(file, tmp_path / name, "Mahalanobis", *words, "--window", "200") == 0
        spreads.append(read_model(tmp_path / name).state["spread"])
    assert (spreads[1] > spreads[0]).all()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--detector", "magic"), "--detector: there is no 'magic'; there are rolling z-score"),
        (("--window", "501"), "--window: wanted 10 to 500 steps; came 501"),
        (("--threshold", "20"), "--threshold: wanted 1.5 to 12 σ; came 20"),
        (("--held-out", "0.7"), "--held-out: wanted a share between 0 and 0.5; came 0.7"),
        (("--held-out", "0.48"), "wanted 6,001 rows at least, to learn from 240 of them"),
        (("--features", "flow,pressure"), "there is no column `pressure`"),
    ],
)
def test_wrong_training_is_refused_in_a_sentence(
    words: tuple[str, ...], sentence: str, oven: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    given = ["train", "--data", str(oven), "--output", str(tmp_path / "m"), "--detector", "EWMA"]
    assert program.run_program([*given, *words]) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "m").exists()


def test_a_model_of_another_shape_is_refused_in_a_sentence(
    oven: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "model.npz"
    assert train(oven, path, "EWMA") == 0
    other = tmp_path / "other.csv"
    other.write_text("time,heat\n1767571200,1\n1767571210,2\n")
    capsys.readouterr()
    assert program.run_program(["run", "--model", str(path), "--csv", str(other)]) == 2
    assert "wanted the columns heat, flow, which the model was trained on; missing flow" in (
        capsys.readouterr().err
    )
    assert program.run_program(["run", "--model", str(path), "--config", "x.toml"]) == 2
    assert "say what to run: --config FILE" in capsys.readouterr().err
    assert program.run_program(["run", "--model", str(oven)]) == 2
    assert "cannot be read as a model" in capsys.readouterr().err
    assert train(oven, path, "ensemble", "--window", "100") == 0
    assert "--learn" in capsys.readouterr().err
    assert program.run_program(["run", "--model", str(path), "--csv", str(oven)]) == 2
    assert "run the model with --learn" in capsys.readouterr().err
    assert program.run_program(["run", "--model", str(path), "--learn", "--csv", str(oven)]) == 0


class Server:
    """`python -m redline run --model` in a process of its own."""

    def __init__(self, model: Path, store: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        words = ("run", "--model", str(model), "--port", str(self.port), "--db", str(store))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "redline", *words],
            cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        until = time.monotonic() + 30
        while True:
            try:
                assert fetch_json(self.url, "/health")
                return
            except (OSError, ValueError):
                assert time.monotonic() < until and self.process.poll() is None
                time.sleep(0.1)

    def push(self, time: np.ndarray, x: np.ndarray) -> dict[str, Any]:
        import urllib.request

        body = {
            "source": "oven",
            "time": time.tolist(),
            "values": {"heat": x[:, 0].tolist(), "flow": x[:, 1].tolist()},
        }
        request = urllib.request.Request(
            f"{self.url}/api/submit", json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )  # fmt: skip
        with urllib.request.urlopen(request, timeout=30) as answer:
            return dict(json.load(answer))

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.mark.service
def test_a_served_model_gives_the_same_scores_after_a_kill(oven: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.npz"
    assert train(oven, path, "Mahalanobis", "--label", "is_bad") == 0
    recording = read_csv(oven)
    rows = recording.take(ROWS)
    begin = round(0.6 * ROWS)
    store = tmp_path / "redline.db"
    for part in (slice(begin, begin + 333), slice(begin + 333, ROWS)):
        server = Server(path, store)
        try:
            server.push(rows.time[part], rows.x[part])
            stored = fetch_json(server.url, "/api/data/oven", {"limit": 1_000})
            applied = fetch_json(server.url, "/api/streams/oven")["applied"]
        finally:
            server.kill()
    assert applied["detector"].startswith("Mahalanobis of model ")
    model = read_model(path)
    wanted = trained_class(model)(floor=model.floors).update(rows.x[begin:, None])[:, 0]
    came = [point["score"] for point in stored["points"]]
    assert np.array_equal(np.array(came, float), wanted)
