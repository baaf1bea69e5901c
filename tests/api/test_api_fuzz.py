"""The API fuzzed from its OpenAPI document: every answer is valid or a problem, never a crash."""

import json

import pytest
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable

from redline.api.server import connect_api, routes_table
from redline.api.service import ServerOptions, assemble_service
from redline.engine.feed import MonitoredStream
from redline.engine.monitor import Monitor
from redline.storage.sqlite import SqliteStore
from streams import STREAMS

pytestmark = pytest.mark.service
EXAMPLES = 60  # requests a route
HOME = {"Host": "localhost"}  # the client's own, testserver, is none of this server's hosts
ENDLESS = "/api/stream/anomalies"  # its answer has no end


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Return a server with a store, a simulated stream and a pushed one."""
    store = SqliteStore(tmp_path_factory.mktemp("fuzz") / "redline.db")
    streams = {"wave": MonitoredStream(STREAMS["wave"](seed=3))}
    service = assemble_service(
        lambda store: Monitor(streams, store=store), store, ServerOptions(rate=0)
    )
    monitor = service.monitor
    server = FastAPI()
    connect_api(server, service)
    monitor.start()
    yield server
    monitor.stop()
    store.close()


QUIET = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
ROUTES = [way.strip("`") for way, _ in routes_table().rows]


@pytest.mark.parametrize("mode", ["positive", "negative"])
@pytest.mark.parametrize("route", [route for route in ROUTES if route != f"GET {ENDLESS}"])
def test_whatever_comes_is_answered_or_refused_in_a_problem(server, route, mode):
    schemathesis = pytest.importorskip(
        "schemathesis", reason="the extra `test` brings schemathesis"
    )
    method, path = route.split()
    operation = schemathesis.openapi.from_asgi("/openapi.json", server, headers=HOME)[path][method]

    @QUIET
    @given(operation.as_strategy(generation_mode=schemathesis.GenerationMode(mode)))
    def ask(case):
        check_answer(case.call(headers=HOME))

    try:
        ask()
    except Unsatisfiable:  # a route without parameters has nothing that does not fit
        assert mode == "negative"


def check_answer(response):
    """Check that an answer is no server error, and a problem if it is a refusal."""
    assert response.status_code < 500, response.text
    assert response.status_code != 421, "nothing was fuzzed: the host kept it out"
    if response.status_code >= 400:
        problem = json.loads(response.content)
        assert problem["status"] == response.status_code and problem["title"] and problem["detail"]
