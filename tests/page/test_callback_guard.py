"""Calls of the page's callbacks with crafted values: refused, counted, logged, never an error.

Whatever is sent, the streams go on.
"""

from __future__ import annotations

import base64
import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

import app
from redline.access.tokens import Token, Tokens, hash_secret
from redline.api.service import Service, assemble_service
from redline.engine.feed import MonitoredStream
from redline.engine.monitor import Monitor
from redline.page import dash_app
from redline.page.callback_guard import page_calls, rule_of
from redline.sources.csv import read_csv
from redline.sources.machine import ThisMachine
from redline.storage.sqlite import SqliteStore
from streams import STREAMS
from tests.behaviour.page import Browser

URL = "/_dash-update-component"
SERVER_CALLBACKS = (
    "detector.value",
    "chart.figure",
    "at.data",
    "sparks.data",
    "compare.children",
    "done.data",
    "proposal.children",
    "upload-said.children",
    "injected.children",
    "download.data",
    "finding.data",
    "wall.data",
    "streams-rows.data",
    "fleet-rows.data",
    "fleet-moment.data",
    "streams-found.children",
)
LOADS = b"time,load,heat\n" + b"".join(
    b"2026-01-05 00:%02d,%d,%d\n" % (i, i, -i) for i in range(60)
)
HOSTILE: list[Any] = [
    None,
    True,
    0,
    -1,
    1,
    7,
    2**53,
    2**63,
    -(2**63),
    1e6,
    1e308,
    -1e308,
    0.5,
    "",
    "nan",
    "inf",
    "-inf",
    "1e6",
    "NaN",
    "wave",
    "iot",
    "overview",
    "your-data",
    "this-machine",
    "oven",
    "nowhere",
    "snooze",
    "__proto__",
    "a" * 5_000,
    "\u202e",
    "<b>",
    "2026-01-05",
    "2026-99-99",
    "NaT",
    "data:,",
    "data:;base64,é",
    [],
    [None],
    [[]],
    ["wave"] * 2_000,
    {},
    {"id": "x"},
    {"id": "x", "end": 1e300},
    {"points": []},
    {"points": [{}]},
    {"points": [{"x": "never"}]},
    {"points": [{"x": "2026-01-05"}]},
    {"step": None, "asked": 0},
    {"range": ["NaT", "today"]},
    {"incident": "x", "act": "resolve", "asked": 0},
    {"act": "expected"},
    {"look": {}},
    [[[[[[[[[[]]]]]]]]]],
    {"a": {"b": {"c": {"d": {}}}}},
]
STEP = {"step": 2_000, "asked": 0}
VALID: dict[str, list[Any]] = {  # element.property -> odd values that are allowed
    "url.search": [
        None,
        "",
        "?domain=iot&window=60",
        "?domain=%00&window=nan",
        "?range=1e9&speed=nan",
    ],
    "domain.value": [
        "wave",
        "iot",
        "this-machine",
        "your-data",
        "oven",
        "overview",
        "streams",
        "fleet",
        "nowhere",
        "",
        "\u202e",
    ],
    "detector.value": ["rolling z-score", "ensemble", "spectral residual", "Mahalanobis"],
    "window.value": [10, 500],
    "threshold.value": [1.5, 12, 3],
    "direction.value": ["both", "high", "low"],
    "lanes.value": [None, [], ["CPU"], ["no such column"]],
    "by.value": ["row", "event"],
    "finding.data": [None, {"id": 0, "taken": False}, {"id": 2**40, "taken": True}],
    "read.data": [None, "nowhere"],
    "compare-at.value": ["shared", "best"],
    "shown.data": [None, "wave", "nowhere"],
    "names.data": [None, [], ["wave"], ["nowhere"]],
    "speed.value": [1, 100],
    "size.value": [1, 20, 1.5],
    "range.value": [300, 10_000],
    "look.data": ["light", "dark"],
    "lower.value": ["history", "incidents", "compared", "table", "days", "settings", "log"],
    "done.data": [None, 0, -1e9, 1e300],
    "at.data": [
        None,
        {"id": "x", "end": 0},
        {"id": "wave", "end": 2**53},
        {"id": "wave", "end": -(2**53)},
    ],
    "zoom.data": [
        None,
        {},
        {"revision": 3},
        {"revision": 1, "stream": "x", "range": [0, 1.5]},
        {"revision": 1, "range": ["2026-01-05", "2026-01-05 12:00:00.1234"]},
        {"range": [5, -5]},
    ],
    "goto.data": [
        None,
        {"step": -(2**53), "asked": 1},
        {"step": 2**53, "asked": 1e9},
        STEP,
        STEP | {"stream": "iot"},
        STEP | {"stream": "no"},
    ],
    "act.data": [
        None,
        *(
            {"incident": "x", "act": act, "asked": 0}
            for act in ("resolve", "expected", "snooze 1 h")
        ),
        {"incident": "x", "act": "note", "asked": 0, "note": "<b>"},
    ],
    "seen.data": [None],
    "picked.data": [
        None,
        {"stream": "x", "range": ["2026-01-05 00:00", "2026-01-05 00:00"]},
        {"stream": "", "range": [5, -5]},
    ],
    "heard.data": [None, 0, 2**53],
    "opened.data": [None, [], ["oven"], ["nowhere", "wave"]],
    "search.value": [None, "", "wa", "<b>"],
    "streams-part.value": [None, "", "wa", '{job=~".*"}', "{", "<b>"],
    "streams-order.data": [
        None,
        {"by": "unusual", "descending": None, "page": 0, "part": ""},
        {"by": "name", "descending": True, "page": 2**53, "part": "<b>"},
    ],
    "fleet-view.data": [
        None,
        {},
        {"by": "", "part": "<b>", "span": 21_600, "all": True, "period": [5.0, 0.0], "group": "x"},
        {"by": "host", "part": '{job=~".*"}', "period": [0.0, 2e11], "group": None},
    ],
    "fleet-cell.data": [
        None,
        {"by": "", "value": "wave", "part": "", "start": 0.0, "end": 2e11, "asked": 1e9},
        {"by": "host", "value": "<b>", "part": "{", "start": 9.0, "end": 1.0, "asked": -1.0},
    ],
    "incident-scope.value": ["stream", "all"],
    "incident-severity.value": ["info", "critical"],
    "incident-state.value": ["any", "live", "resolved"],
    "incident-stream.value": [None, "", "wave", "\u202e"],
    "curve.clickData": [
        None,
        {"points": [{"x": 1e300}]},
        {"points": [{"x": -5, "bbox": {"x0": 1}}]},
    ],
    "upload.contents": [
        None,
        "",
        "data:,",
        "data:text/csv;base64,!!",
        "data:text/csv;base64,é",
        "nothing",
    ],
    "upload.filename": [None, "", "<b>.csv", "\u202e.csv"],
    "col-time.value": [None, "time", "nothing"],
    "col-label.value": [None, "heat", "nothing"],
    "col-values.value": [None, [], ["load"], ["load", "load"], ["nothing"]],
    "col-stamps.value": [None, "", "ISO", "hours"],
}
COUNTS = [None, 0, 1, 2**53]


class Page:
    """A page whose loop runs by hand, its callbacks, and what failed in them."""

    def __init__(self, client: TestClient, service: Service, tick: Callable[[float], None]) -> None:
        self.client = client
        self.service = service
        self.tick = tick
        self.browser = Browser(client)
        self.failures: list[Exception] = []
        for key, value in {"at.data": None, "zoom.data": None, "seen.data": None}.items():
            element, _, prop = key.partition(".")
            self.browser.held[element][prop] = value
        self.browser.press("tick.n_intervals", "chart.figure", domain="wave")
        self.seen = self.browser.held["seen"]["data"]

    def call(self, wanted: str) -> dict[str, Any]:
        """Return the body of a call of the callback with an output."""
        (found,) = [c for c in self.browser.callbacks if calls_server(c, wanted)]
        outputs = [Browser.place(name) for name in found["output"].strip(".").split("...")]
        return {
            "output": found["output"],
            "outputs": outputs if found["output"].startswith("..") else outputs[0],
            "inputs": [self.browser.filled(each) for each in found["inputs"]],
            "state": [self.browser.filled(each) for each in found["state"]],
            "changedPropIds": [place_name(found["inputs"][0])],
        }

    def post(self, body: Any) -> int:
        """Send a call; fail where the answer is an error or the streams stand still after it."""
        before = self.service.monitor.feeds["wave"].end
        answer = self.client.post(URL, json=body)
        self.tick(0.5)
        assert answer.status_code in (200, 204, 400), (
            f"{answer.status_code} {answer.text} to {body}"
        )
        if answer.status_code == 400:
            assert answer.headers["content-type"] == "application/problem+json"
        assert not self.failures, f"{self.failures.pop()!r} for {body}"
        grown = self.service.monitor.feeds["wave"].end - before
        assert 5 <= grown <= 1_001, f"{grown} steps in half a second"
        return answer.status_code


def calls_server(callback: dict[str, Any], wanted: str) -> bool:
    outputs = callback["output"].strip(".").split("...")
    return wanted in outputs and not callback["clientside_function"]


def place_name(place: dict[str, Any]) -> str:
    return f"{place['id']}.{place['property']}"


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    ahead = [0.0]
    simulated = {name: MonitoredStream(STREAMS[name](seed=3)) for name in ("wave", "iot")}
    monitor = Monitor(
        {**simulated, "this-machine": MonitoredStream(ThisMachine(), own_clock=True)},
        clock=lambda: time.monotonic() + ahead[0],
    )
    for name in simulated:
        monitor.backfill(monitor.feeds[name], 3_000)
    service = assemble_service(lambda store: monitor)
    app.show_recording(monitor, read_csv(LOADS, title="loads.csv"), LOADS)
    monitor.start = lambda: None  # type: ignore[method-assign]

    def tick(seconds: float) -> None:
        ahead[0] += seconds
        monitor.beat()

    page = app.build_app(service)
    with (
        pytest.MonkeyPatch.context() as patch,
        TestClient(
            page.server, base_url="http://localhost", raise_server_exceptions=False
        ) as client,
    ):
        made = Page(client, service, tick)
        failed = dash_app.log_failure

        def noted(what: str, error: Exception) -> Any:
            made.failures.append(error)
            return failed(what, error)

        patch.setattr(dash_app, "log_failure", noted)
        patch.setattr("redline.page.redraw.TRACK_PATIENCE", 0.0)  # the loop runs by hand
        yield made


def test_every_value_of_every_callback_has_a_rule(page: Page) -> None:
    server = [c for c in page.browser.callbacks if not c["clientside_function"]]
    assert len(server) == len(SERVER_CALLBACKS)
    for callback in server:
        for place in [*callback["inputs"], *callback["state"]]:
            assert rule_of(place_name(place)).wanted
            assert place["property"] in ("n_clicks", "n_intervals") or place_name(place) in VALID


@pytest.mark.parametrize("wanted", SERVER_CALLBACKS)
def test_no_crafted_value_stops_a_stream_or_is_an_error(page: Page, wanted: str) -> None:
    body = page.call(wanted)
    places = [(part, i) for part in ("inputs", "state") for i in range(len(body[part]))]

    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.sampled_from(places), st.sampled_from(HOSTILE) | json_values(), st.booleans())
    def crafted(place: tuple[str, int], value: Any, alone: bool) -> None:
        part, i = place
        sent = json.loads(json.dumps(body))
        sent[part][i]["value"] = value
        if part == "inputs" and alone:
            sent["changedPropIds"] = [place_name(sent[part][i])]
        page.post(sent)

    crafted()


def json_values() -> st.SearchStrategy[Any]:
    plain = st.none() | st.booleans() | st.integers() | st.text(max_size=20)
    plain |= st.floats(allow_nan=False, allow_infinity=False)
    return st.recursive(
        plain, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=5
    )


@pytest.mark.parametrize("wanted", SERVER_CALLBACKS)
def test_every_combination_of_allowed_values_is_answered(page: Page, wanted: str) -> None:
    body = page.call(wanted)

    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def allowed(data: st.DataObject) -> None:
        sent = json.loads(json.dumps(body))
        for each in [*sent["inputs"], *sent["state"]]:
            name = place_name(each)
            known = [*VALID.get(name, COUNTS), *([page.seen] if name == "seen.data" else [])]
            each["value"] = data.draw(st.sampled_from(known), label=name)
        names = [place_name(each) for each in sent["inputs"]]
        sent["changedPropIds"] = [data.draw(st.sampled_from(names), label="changed")]
        assert page.post(sent) != 400, sent

    allowed()


@pytest.mark.parametrize("points", [0, 1, 30_000, 2**53])
def test_a_number_of_points_that_no_browser_holds_takes_no_memory(page: Page, points: int) -> None:
    seen: dict[str, Any] = {"whole": False}
    while not seen["whole"]:
        page.tick(0.1)
        page.browser.press("tick.n_intervals", "chart.figure", domain="wave")
        seen = page.browser.held["seen"]["data"]
    moved = seen["look"] | {"threshold": seen["look"]["threshold"] + 1}  # the scores are sent anew
    body = page.call("chart.figure")
    for each in [*body["inputs"], *body["state"]]:
        if place_name(each) == "seen.data":
            each["value"] = {**seen, "points": points, "look": moved}
    answer = page.client.post(URL, json=body)
    assert not page.failures and answer.status_code == 200
    assert len(answer.content) < 400_000
    shown = answer.json()["response"]["seen"]["data"]["points"]
    assert seen["points"] <= shown <= seen["points"] + 200, "the plot is sent whole"


@pytest.mark.parametrize("speed", ["nan", "inf", "1e6", 1e6, 0, -1, None, True, [1], 3, "1"])
def test_a_crafted_speed_is_refused_and_the_streams_go_on(page: Page, speed: Any) -> None:
    body = page.call("sparks.data")
    (place,) = [each for each in body["inputs"] if each["id"] == "speed"]
    place["value"] = speed
    body["changedPropIds"] = ["speed.value"]
    before = page.service.monitor.speed
    assert page.post(body) == 400
    assert page.service.monitor.speed == before


BROKEN: dict[str, Any] = {
    "nothing": b"",
    "no JSON": b"{",
    "not UTF-8": b'{"output": "\xff"}',
    "NaN": b'{"output": NaN}',
    "very deep": b"[" * 100_000,
    "a list": [],
    "null": None,
    "a number": 3,
    "empty": {},
    "an unknown output": {"output": "page.children", "outputs": {}, "inputs": []},
    "an output that is no text": {"output": ["injected.children"]},
    "a callback of the browser": {"output": "pause.children", "inputs": [], "outputs": {}},
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_malformed_body_is_a_400_problem(page: Page, what: str) -> None:
    sent = BROKEN[what]
    raw = sent if isinstance(sent, bytes) else json.dumps(sent).encode()
    before = page.service.malformed
    answer = page.client.post(URL, content=raw, headers={"content-type": "application/json"})
    assert answer.status_code == 400, answer.text
    assert answer.json()["status"] == 400 and "wanted" in answer.json()["detail"]
    assert page.service.malformed == before + 1
    assert page.client.get("/api/status").json()["requests"]["malformed"] == before + 1


@pytest.mark.parametrize(
    "change",
    [
        {"inputs": []},
        {"inputs": None},
        {"inputs": {"id": "tick"}},
        {"state": [None]},
        {"state": [{"id": "seen", "property": "data"}] * 2},
        {"outputs": []},
        {"outputs": {"id": "page", "property": "children"}},
        {"changedPropIds": ["page.children"]},
        {"changedPropIds": [["tick.n_intervals"]]},
        {"changedPropIds": "tick.n_intervals"},
    ],
)
def test_a_call_of_another_shape_is_refused(page: Page, change: dict[str, Any]) -> None:
    assert page.post({**page.call("chart.figure"), **change}) == 400


def test_a_button_that_nobody_pressed_does_nothing(page: Page) -> None:
    for wanted in ("injected.children", "done.data", "at.data", "download.data"):
        assert page.post({**page.call(wanted), "changedPropIds": []}) == 400


def test_a_call_without_json_and_one_behind_another_name_of_the_path_are_refused(
    page: Page,
) -> None:
    body = json.dumps(page.call("sparks.data")).encode()
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        answer = page.client.post(URL, content=body, headers={"content-type": kind})
        assert answer.status_code == 400 and "application/json" in answer.text
    crafted = json.dumps({**page.call("sparks.data"), "state": None}).encode()
    for path in (f"{URL}%0A", f"{URL}?a=1", f"{URL}/"):
        answer = page.client.post(
            path, content=crafted, headers={"content-type": "application/json"}
        )
        assert answer.status_code == 400, path


def test_refusals_are_logged_once_a_second_with_their_number(
    page: Page, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1e6]
    monkeypatch.setattr("redline.page.callback_guard.time.monotonic", lambda: now[0])
    with caplog.at_level(logging.WARNING):
        for _ in range(50):
            page.client.post(URL, json={"output": "\x1b[31m\n"})
        now[0] += 1.5
        page.client.post(URL, json={"output": "x"})
    lines = [r.getMessage() for r in caplog.records if "callback of the page" in r.getMessage()]
    assert len(lines) == 2 and "; 50 since the last such line" in lines[1]
    assert "\n" not in lines[0] and "\x1b" not in lines[0], "what came is not written raw"


@pytest.mark.parametrize("token", [False, True])
def test_faults_speed_and_uploads_are_in_the_audit_log(
    page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, token: bool
) -> None:
    secret = "a secret of enough characters"
    if token:
        tokens = Tokens([Token("operate", hash_secret(secret), "ann")])
        monkeypatch.setattr(page.service.authorizer, "tokens", tokens)
    headers = {"authorization": f"Bearer {secret}"} if token else {}
    monkeypatch.setattr(page.service.monitor, "speed", 1.0)

    def press(wanted: str, changed: str, values: dict[str, Any] | None = None) -> None:
        body = {**page.call(wanted), "changedPropIds": [changed]}
        for place in [*body["inputs"], *body["state"]]:
            place["value"] = (values or {}).get(place_name(place), place.get("value"))
        assert page.client.post(URL, json=body, headers=headers).status_code == 200

    with closing(SqliteStore(tmp_path / "redline.db")) as store:
        monkeypatch.setattr(page.service, "store", store)
        for domain in ("wave", "this-machine"):  # the second takes no faults
            inject = {"domain.value": domain, "size.value": 6}
            press("injected.children", "inject-shift.n_clicks", inject)
        for _ in range(2):  # the second changes nothing
            press("sparks.data", "speed.value", {"speed.value": 20})
        file = "data:text/csv;base64," + base64.b64encode(LOADS).decode()
        for contents in (file, "data:;base64,AAECAw=="):  # the second is no CSV
            dropped = {"upload.contents": contents, "upload.filename": "loads.csv"}
            press("upload-said.children", "upload.contents", dropped)
        press("upload-said.children", "replay.n_clicks")
        lines = store.audit()[::-1]
    assert {line["who"] for line in lines} == {"ann" if token else "page"}
    uploaded = {"file": "loads.csv", "rows": 60, "bytes": len(LOADS)}
    assert [(line["what"], line["stream"], line["detail"]) for line in lines] == [
        ("injected a fault", "wave", {"kind": "shift", "size": 6.0}),
        ("changed the speed of the simulation", None, {"from": 1.0, "to": 20.0}),
        ("uploaded a file", "your-data", uploaded),
        ("played the file from the start", "your-data", uploaded),
    ]


def test_the_page_opens_no_web_socket(page: Page) -> None:
    from starlette.websockets import WebSocketDisconnect

    headers = {"origin": "http://localhost", "host": "localhost"}
    with (
        pytest.raises(WebSocketDisconnect) as refused,
        page.client.websocket_connect("/_dash-ws-callback", headers=headers),
    ):
        pass
    assert refused.value.code == 4_403


@pytest.mark.parametrize("path", ["os/__init__.py", "dash/../../app.py", "dash_renderer/none.js"])
def test_a_file_that_is_none_of_the_page_is_not_found(page: Page, path: str) -> None:
    assert page.client.get(f"/_dash-component-suites/{path}").status_code == 404


def test_a_value_without_a_rule_is_found_when_the_page_is_made(page: Page) -> None:
    made = app.build_app(page.service)
    made.callback(app.Output("age", "children"), app.Input("clock", "children"))(lambda text: text)
    with pytest.raises(KeyError, match=r"clock\.children"):
        page_calls(made)
