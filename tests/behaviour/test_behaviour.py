"""What the program does, written down: a change of structure must leave all of it alone.

A change that is meant is written down by `REDLINE_SNAPSHOTS=write .venv/bin/python -m pytest
tests/behaviour`; the diff of `snapshots/` then shows a reviewer what changed. The tests speak to
what stays: the modules app, detectors and streams, the command line, HTTP and the page's element
ids. Whatever else they need stands in surface.py.
"""

from __future__ import annotations

import base64
import json
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from detectors import DETECTORS, Alarm, Detector
from streams import KINDS
from tests.behaviour.page import Browser, walk
from tests.behaviour.snapshots import masked, same_json, same_numbers, same_text
from tests.behaviour.surface import import_settings, make_store, served_page

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
WINDOWS = (30, 96)  # steps
SPARSE = 5  # of the band and the parts every fifth row is kept: each score is made from them anyway
BUILT_IN = """rolling z-score,median and MAD,interquartile range,percentile,moving average,EWMA,CUSUM,seasonal,autoregressive,
spectral residual,subspace,nearest neighbours,novelty,Mahalanobis,half-space trees,local outlier factor,ensemble"""  # noqa: E501
NAMES = [name.strip() for name in BUILT_IN.split(",")]  # without those that an extra brings


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    yield served_page()


@pytest.fixture(scope="module")
def browser(client: TestClient) -> Browser:
    return Browser(client)


# --- HTTP


def test_the_openapi_document(client: TestClient) -> None:
    same_json("openapi.json", client.get("/openapi.json").json())


PROBLEMS: dict[str, tuple[str, str, Any]] = {  # what is wrong: method, path, body
    "no such route": ("GET", "/api/typo", None),
    "no such page": ("GET", "/typo", None),
    "no such stream": ("GET", "/api/data/moon", None),
    "no such incident": ("GET", "/api/alerts/00000000", None),
    "a wrong method": ("DELETE", "/api/submit", None),
    "a wrong limit": ("GET", "/api/anomalies?limit=many", None),
    "submit nothing": ("POST", "/api/submit", b""),
    "submit no JSON": ("POST", "/api/submit", b"{"),
    "submit no time": ("POST", "/api/submit", b'{"source": "oven", "value": 1}'),
    "submit a text": ("POST", "/api/submit", b'{"source": "oven", "time": 0, "value": "warm"}'),
    "submit an unknown field": ("POST", "/api/submit", b'{"source": "oven", "time": 0, "vale": 1}'),
    "submit to a simulated stream": (
        "POST",
        "/api/submit",
        b'{"source": "wave", "time": 0, "value": 1}',
    ),
    "submit a feature too many": (
        "POST",
        "/api/submit",
        b'[{"source": "oven", "time": [0, 1], "value": [1]}]',
    ),
    "configure nothing": ("POST", "/api/configure", b'{"source": "wave"}'),
    "configure a threshold too high": (
        "POST",
        "/api/configure",
        b'{"source": "wave", "threshold": 99}',
    ),
    "configure an unknown detector": (
        "POST",
        "/api/configure",
        b'{"source": "wave", "detector": "oracle"}',
    ),
    "configure without a stream": ("POST", "/api/configure", b"{}"),
    "label an unknown feature": (
        "POST",
        "/api/labels",
        b'{"source": "wave", "kind": "missed", "start": 0, "feature": "x"}',
    ),
    "take back no label": ("DELETE", "/api/labels/77", None),
}


def answered(client: TestClient, method: str, path: str, body: bytes | None) -> dict[str, Any]:
    headers = {"content-type": "application/json"} if body is not None else {}
    answer = client.request(method, path, content=body, headers=headers)
    told = {
        name: answer.headers[name]
        for name in ("content-type", "allow", "retry-after")
        if name in answer.headers
    }
    text = masked(answer.text).replace(
        ", ".join(DETECTORS), "<detectors>"
    )  # an extra may have brought more of them
    return {"status": answer.status_code, "headers": told, "body": json.loads(text)}


def test_what_the_api_refuses(client: TestClient) -> None:
    answers = {what: answered(client, *asked) for what, asked in PROBLEMS.items()}
    small = served_page(body_limit=64)
    answers["too large a body"] = answered(small, "POST", "/api/submit", b"[" + b" " * 100 + b"]")
    same_json("problems.json", answers)


# --- the store


def test_the_tables_of_a_fresh_store(tmp_path: Path) -> None:
    path = tmp_path / "fresh.db"
    make_store(path)
    database = sqlite3.connect(path)
    rows = database.execute(
        "select type, name, sql from sqlite_master order by type, name"
    ).fetchall()
    version = database.execute("select name, value from meta order by name").fetchall()
    database.close()
    tables = [
        f"{kind} {name}: {' '.join((sql or '(automatic)').split())}" for kind, name, sql in rows
    ]
    same_text(
        "tables.txt",
        "\n".join([*tables, *(masked(f"meta {name} = {value}") for name, value in version)]),
    )


# --- settings out and in

CSV = "time,load (%),heat (K),label\n" + "".join(
    f"2026-01-05 00:{i // 60:02d}:{i % 60:02d},{40 + i * 7 % 5},{290 + i % 3},{int(i == 300)}\n"
    for i in range(400)
)
SETUPS: dict[str, dict[str, Any]] = {  # file: what the controls show
    "wave.toml": {"domain": "wave"},
    "wave-injected.toml": {
        "domain": "wave",
        "detector": "EWMA",
        "window": 120,
        "threshold": 4.2,
        "direction": "high",
    },
    "iot.toml": {
        "domain": "iot",
        "detector": "Mahalanobis",
        "window": 240,
        "threshold": 6,
        "direction": "both",
    },
    "this-machine.toml": {
        "domain": "this-machine",
        "detector": "median and MAD",
        "window": 90,
        "direction": "low",
    },
    "csv.toml": {
        "domain": "your-data",
        "detector": "ensemble",
        "window": 60,
        "threshold": 3.0,
        "direction": "low",
    },
}


def prepared(browser: Browser, file: str) -> None:
    """Inject, apply or upload what that setup needs."""
    if file == "csv.toml":
        contents = "data:text/csv;base64," + base64.b64encode(CSV.encode()).decode()
        browser.held["upload"] |= {"contents": contents, "filename": 'oven "2".csv'}
        browser.press("upload.contents", "guess.children")
    if file == "wave-injected.toml":
        for kind, size in zip(KINDS[1:], (3, 4.5, 6, 8, 10, 12, 20)):
            browser.press(f"inject-{kind}.n_clicks", "injected.children", domain="wave", size=size)
    if file == "iot.toml":
        said = {
            "source": "iot",
            "refractory": 10,
            "habituation": 250,
            "threshold": 5,
            "direction": "high",
        }
        assert browser.client.post("/api/configure", json=said).status_code == 200


def test_exported_settings_and_the_way_back() -> None:
    browser = Browser(served_page())
    for file, controls in SETUPS.items():
        prepared(browser, file)
        shown = {
            "detector": "rolling z-score",
            "window": 60,
            "threshold": 3.5,
            "direction": "both",
        } | controls
        told = browser.press("export.n_clicks", "download.data", **shown)["download"]["data"]
        same_text(f"settings/{file}", f"# {told['filename']}\n{told['content']}")
        source, settings = import_settings(told["content"])
        same_json(f"settings/{file}.json", {"source": source, "settings": settings})
        assert {name: settings[name] for name in shown if name != "domain"} == {
            n: v for n, v in shown.items() if n != "domain"
        }


# --- the command line

ASKED = """
import contextlib, io, json, runpy, sys, warnings
warnings.simplefilter("ignore")

def helped(run, *words):
    sys.argv, out = [*words], io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        run()
    return out.getvalue()

def redline():
    runpy.run_module("redline", run_name="__main__", alter_sys=True)

told = {"app": helped(lambda: runpy.run_path("app.py", run_name="__main__"), "app.py", "--help")}
told["redline"] = helped(redline, "redline", "--help")
for name in sys.stdin.read().split():
    told[name] = helped(redline, "redline", name, "--help")
print(json.dumps(told))
"""
COMMANDS = (
    "evaluate train generate produce detectors domains run replay status streams anomalies init "
    "token "
    "backup restore doctor payments"
)


def test_every_help_text() -> None:
    around = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1", "PYTHONPATH": str(ROOT)}
    words, told_how = (
        [sys.executable, "-c", ASKED],
        {"capture_output": True, "text": True, "timeout": 60},
    )
    done = subprocess.run(words, cwd=ROOT, env=around, input=COMMANDS, **told_how)
    assert done.returncode == 0, done.stderr
    told: dict[str, str] = json.loads(done.stdout)
    _, _, commands = told["redline"].partition("Commands:")
    listed = re.findall(r"^  ([a-z-]+)(?:  |$)", commands, re.M)
    assert sorted(listed) == sorted(COMMANDS.split()), (
        "a command came or went: put it into COMMANDS and write the snapshots anew"
    )
    for name, text in told.items():
        same_text(f"help/{name}.txt", text)
    # the names alone, for the day another library lays the text out
    options = {
        name: sorted(set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", text)))
        for name, text in told.items()
    }
    same_json("help/options.json", options)


# --- the page


def test_the_ids_of_the_page(browser: Browser) -> None:
    same_text(
        "page-ids.txt",
        "\n".join(
            sorted(node["props"]["id"] + "  " + node["type"] for node in walk(browser.layout))
        ),
    )


def test_what_calls_what_on_the_page(browser: Browser) -> None:
    told = []
    for callback in browser.callbacks:
        places = {
            part: [f"{each['id']}.{each['property']}" for each in callback[part]]
            for part in ("inputs", "state")
        }
        outputs = [
            re.sub(r"@[0-9a-f]+$", "@again", name)
            for name in callback["output"].strip(".").split("...")
        ]
        client = callback["clientside_function"]
        where = {
            "browser": None if client is None else client["function_name"],
            "later": bool(callback["prevent_initial_call"]),
        }
        told.append(
            {
                "outputs": sorted(outputs),
                **{part: sorted(names) for part, names in places.items()},
                **where,
            }
        )
    same_json(
        "page-callbacks.json", sorted(told, key=lambda each: (each["outputs"], each["inputs"]))
    )


@pytest.mark.parametrize("domain", ["wave", "iot"])
def test_the_traces_of_the_chart(domain: str, browser: Browser) -> None:
    browser.held["seen"].pop("data", None)
    drawn = browser.press("domain.value", "chart.figure", domain=domain)["chart"]["figure"]
    traces = [
        f"{t['type']} {t['name']} {t.get('yaxis', 'y')} legend={t.get('showlegend')}"
        for t in drawn["data"]
    ]
    assert len(traces) > 3, drawn
    same_text(
        f"traces-{domain}.txt",
        "\n".join([*traces, "layout: " + ", ".join(sorted(drawn["layout"]))]),
    )


# --- the detectors


@cache
def series() -> np.ndarray:
    """(1200, 3): seasons, level shifts, spikes, a drift, missing runs and flat parts; two decimals,
    so alike everywhere.
    """
    return np.genfromtxt(HERE / "series.csv", delimiter=",", skip_header=1)


def laid_out(detector: Detector) -> np.ndarray:
    """The series as a detector reads it: three streams, or one stream of three features."""
    return series()[:, None] if detector.joint else series()


def test_the_detectors_are_these() -> None:
    assert [name for name in DETECTORS if name in NAMES] == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_scores_and_band(name: str) -> None:
    arrays = {}
    for window in WINDOWS:
        detector = DETECTORS[name](window=window)
        score, centre, spread, parts, _ = detector.advance(laid_out(detector))
        found = {"centre": centre, "spread": spread, "parts": parts}
        kept = {what: array[::SPARSE] for what, array in found.items() if array is not None}
        arrays |= {f"{what} {window}": array for what, array in ({"score": score} | kept).items()}
    same_numbers(f"scores/{name.replace(' ', '-')}.npz", arrays)


@pytest.mark.parametrize("direction", ["high", "low"])
def test_one_sided_scores_with_a_floor(direction: str) -> None:
    arrays = {}
    for name in NAMES:
        detector = DETECTORS[name](window=WINDOWS[0], direction=direction, floor=0.7)
        arrays[name] = detector.update(laid_out(detector)[:700])[::SPARSE]
    same_numbers(f"scores/{direction}.npz", arrays)


def test_alarms() -> None:
    score = DETECTORS["EWMA"](window=WINDOWS[0]).update(series())
    same_numbers(
        "scores/alarm.npz",
        {"alarm": Alarm().update(score), "quick": Alarm(refractory=5, memory=100).update(score)},
    )


def test_what_a_saved_state_holds(tmp_path: Path) -> None:
    told = {}
    for name, thing in {
        **{name: DETECTORS[name](window=WINDOWS[0]) for name in NAMES},
        "Alarm": Alarm(),
    }.items():
        thing.update(laid_out(thing)[:400])  # type: ignore[arg-type]
        thing.save(tmp_path / "state.npz")
        with np.load(tmp_path / "state.npz", allow_pickle=False) as held:
            header = json.loads(str(held["_header"]))
            arrays = [
                f"{key} {held[key].dtype} {list(held[key].shape)}"
                for key in sorted(held)
                if key != "_header"
            ]
        told[name] = {"header": header, "arrays": arrays}
    same_json("states.json", told)
