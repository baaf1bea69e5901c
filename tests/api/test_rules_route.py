"""Rules of settings over HTTP: who may, what is refused, what is written down."""

import numpy as np
import pytest
from starlette.testclient import TestClient

from redline.access.tokens import ROLES, Token, Tokens, hash_secret
from redline.api.server import build_server
from redline.api.service import ServerOptions, assemble_service
from redline.engine.monitor import Monitor
from redline.storage.sqlite import SqliteStore

START = 1_767_571_200.0
SERIES = [f'load{{host="h{host}",job="{"web" if host % 2 else "db"}"}}' for host in range(6)]
TOKENS = Tokens([Token(role, hash_secret(role * 8), role) for role in ROLES])


@pytest.fixture
def service(tmp_path):
    """Return a service with a store, whose loop does not run, and with some series."""
    store = SqliteStore(tmp_path / "redline.db")
    service = assemble_service(
        lambda kept: Monitor({}, store=kept), store, ServerOptions(TOKENS, rate=0)
    )
    service.monitor.process_pushed()
    monitor = service.monitor
    numbers = np.array([monitor.series.directory.number(name) for name in SERIES])
    for step in range(3):
        monitor.submit_series(numbers, np.full(len(numbers), START + step), np.ones(len(numbers)))
        monitor.process_pushed()
    yield service
    store.close()


@pytest.fixture
def send(service):
    client = TestClient(build_server(service), base_url="http://localhost")

    def request(method, path="/api/rules", body=None, role="operate"):
        headers = {"Authorization": f"Bearer {role * 8}"}
        return client.request(method, path, json=body, headers=headers)

    return request


def thresholds(send):
    streams = send("GET", "/api/streams").json()["streams"]
    return {each["source"]: each["applied"]["threshold"] for each in streams}


def test_settings_reach_a_selection_and_what_comes_later(service, send):
    answer = send("POST", body={"select": '{job="web"}', "threshold": 7.5})
    assert answer.status_code == 201
    rule = answer.json()
    assert {k: rule[k] for k in ("id", "select", "settings", "who", "done", "left", "matched")} == {
        "id": 1,
        "select": '{job="web"}',
        "settings": {"threshold": 7.5},
        "who": "operate",
        "done": False,
        "left": 6,
        "matched": 3,
    }
    service.monitor.process_pushed()
    assert thresholds(send) == {name: 7.5 if "web" in name else 5.0 for name in SERIES}
    (listed,) = send("GET", role="read").json()["rules"]
    assert (listed["done"], listed["left"]) == (True, 0)
    new = 'load{host="h9",job="web"}'
    number = np.array([service.monitor.series.directory.number(new)])
    service.monitor.submit_series(number, np.array([START]), np.ones(1))
    service.monitor.process_pushed()
    assert thresholds(send)[new] == 7.5
    assert send("DELETE", "/api/rules/1").json()["select"] == '{job="web"}'
    assert send("GET").json() == {"rules": []} and thresholds(send)[new] == 7.5
    lines = [(line["who"], line["what"]) for line in service.store.audit()]
    assert lines == [
        ("operate", "removed a rule of settings"),
        ("operate", "set a rule of settings"),
    ]


def test_braces_alone_take_every_series(service, send):
    assert send("POST", body={"select": "{}", "window": 60}).json()["matched"] == 6
    assert send("POST", body={"select": "load", "window": 60}).json()["matched"] == 6
    assert send("POST", body={"select": "loa", "window": 60}).json()["matched"] == 0


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"select": "{job=", "threshold": 5}, "selector"),
        ({"select": '{job=~"(a+)+b"}', "threshold": 5}, "selector"),
        ({"select": "{}", "threshold": 500}, "threshold"),
        ({"select": "{}", "detector": "none"}, "detector"),
        ({"select": "{}"}, "body"),
        ({"threshold": 5}, "select"),
    ],
)
def test_what_is_wrong_is_refused_with_its_field(send, body, field):
    answer = send("POST", body=body)
    assert answer.status_code == 422 and answer.json()["errors"][0]["field"] == field
    assert send("GET").json() == {"rules": []}


def test_only_who_may_operate_changes_rules_and_an_unknown_one_is_not_there(send):
    body = {"select": "{}", "threshold": 5}
    for role in ("read", "push"):
        assert send("POST", body=body, role=role).status_code == 403
        assert send("DELETE", "/api/rules/1", role=role).status_code == 403
    assert send("DELETE", "/api/rules/1").status_code == 404


def test_rules_are_there_after_a_restart(service, send, tmp_path):
    send("POST", body={"select": '{job="db"}', "threshold": 8.0})
    service.store.close()  # before the loop took a turn
    store = SqliteStore(tmp_path / "redline.db")
    again = assemble_service(lambda kept: Monitor({}, store=kept), store)
    again.monitor.process_pushed()
    again.monitor.process_pushed()
    series = again.monitor.series
    found = {name: series.summary(series.find(name)).settings.threshold for name in SERIES}
    assert found == {name: 8.0 if "db" in name else 5.0 for name in SERIES}
    (rule,) = series.rules.rules.values()
    assert rule.done and rule.select == '{job="db"}'
    store.close()
