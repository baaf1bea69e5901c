"""What was unusual in a period, over HTTP: the same answer as the tab Fleet gives."""

import numpy as np
import pytest
from starlette.testclient import TestClient

from redline.access.tokens import Token, Tokens, hash_secret
from redline.api.server import build_server
from redline.api.service import ServerOptions, assemble_service
from redline.engine.monitor import Monitor
from redline.incidents.unusual import unusual_between

START = 1_767_571_200.0
SERIES = [f'm{metric}{{host="h{host}",job="node"}}' for host in range(8) for metric in range(5)]
STEPS = 150  # 20 s apart
FAULT = 140  # at which host h3 fails


@pytest.fixture(scope="module")
def service():
    """Return a service whose loop does not run, with a host that fails."""
    tokens = Tokens([Token("read", hash_secret("r" * 24), "reader")])
    service = assemble_service(
        lambda store: Monitor({}, store=store), options=ServerOptions(tokens, rate=0)
    )
    monitor = service.monitor
    numbers = np.array([monitor.series.directory.number(name) for name in SERIES])
    values = np.random.default_rng(4).normal(size=(STEPS, len(SERIES)))
    values[FAULT, 15:20] += np.array([40.0, 50.0, 60.0, 70.0, 80.0])
    for step, row in enumerate(values):
        monitor.submit_series(numbers, np.full(len(numbers), START + 20.0 * step), row)
        monitor.process_pushed()
    return service


@pytest.fixture(scope="module")
def ask(service):
    client = TestClient(build_server(service), base_url="http://localhost")

    def get(status=200, **query):
        headers = {"Authorization": f"Bearer {'r' * 24}"}
        answer = client.get("/api/unusual", params=query, headers=headers)
        assert answer.status_code == status, answer.text
        return answer.json()

    get.client = client
    return get


MOMENT = {"start": START + 20.0 * FAULT - 60, "end": START + 20.0 * FAULT + 60}


def test_the_worst_series_and_the_label_that_explains_them_come_first(ask, service):
    found = ask(**MOMENT)
    assert (found["start"], found["end"]) == (MOMENT["start"], MOMENT["end"])
    assert (found["watched"], found["anomalous"]) == (40, 5)
    assert {each["source"] for each in found["series"]} == set(SERIES[15:20])
    scores = [each["score"] for each in found["series"]]
    assert scores == sorted(scores, reverse=True) and scores[4] > 5.0
    (label,) = found["labels"]
    assert label["gain"] > 3
    assert {k: label[k] for k in ("label", "value", "anomalous", "series")} == {
        "label": "host",
        "value": "h3",
        "anomalous": 5,
        "series": 5,
    }
    own = unusual_between(service.lanes, MOMENT["start"], MOMENT["end"])
    assert [each.name for each in own.series] == [each["source"] for each in found["series"]]
    assert found["known"] < START


def test_a_filter_a_label_and_a_limit_bound_the_answer(ask):
    one = ask(**MOMENT, select='{host="h3"}', limit=2)
    assert (one["watched"], one["anomalous"], len(one["series"])) == (5, 5, 2)
    assert ask(**MOMENT, select="m4{", status=422)["errors"][0]["field"] == "selector"
    assert ask(**MOMENT, select="M4")["anomalous"] == 1
    assert [each["label"] for each in ask(**MOMENT, by="host")["labels"]] == ["host"]
    assert ask(**MOMENT, by="job")["labels"] == ask(**MOMENT, by="none")["labels"] == []


def test_a_time_may_be_a_date_and_a_calm_period_is_empty(ask):
    calm = ask(start="2026-01-05T00:10:00Z", end="2026-01-05T00:20:00Z")
    assert (calm["start"], calm["anomalous"], calm["series"], calm["labels"]) == (
        START + 600,
        0,
        [],
        [],
    )
    now = ask()
    assert now["end"] - now["start"] == 3_600.0 and now["series"] == []


def test_wrong_values_are_refused(ask):
    assert ask(422, start=START, end=START)["errors"][0]["field"] == "end"
    assert ask(422, start="soon", end=START)["errors"][0]["field"] == "start"
    assert ask(422, limit=0)["errors"][0]["field"] == "limit"


def test_a_token_that_may_read_is_enough_and_none_is_not(ask):
    assert ask.client.get("/api/unusual").status_code == 401
