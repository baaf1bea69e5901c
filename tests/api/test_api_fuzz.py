"""The API fuzzed from its OpenAPI document, as every role: an answer is what the document says.

Never a server error, never a status or a content that the document does not name, and never a
success on a route that is above the role.
"""

import json
import os

import pytest
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable

from redline.access.tokens import ROLES, Token, Tokens, hash_secret
from redline.api.routes.submit import ARROW_TYPE
from redline.api.server import connect_api, routes_table
from redline.api.service import ServerOptions, assemble_service
from redline.engine.feed import MonitoredStream
from redline.engine.monitor import Monitor
from redline.storage.sqlite import SqliteStore
from streams import STREAMS

pytestmark = pytest.mark.service
TIMES = int(os.environ.get("FUZZ_TIMES", "0"))  # set by `make fuzz`: so many times as many
EXAMPLES = 25  # requests of a route and role that may, of each mode
REFUSED_EXAMPLES = 5  # of a role that may not
HOME = {"Host": "localhost"}  # the client's own, testserver, is none of this server's hosts
ENDLESS = "/api/stream/anomalies"  # its answer has no end
ROUTES = [way.strip("`") for way, _ in routes_table().rows]
WAYS = [route for route in ROUTES if route != f"GET {ENDLESS}"]
NOBODY = "nobody"
PUSHED = ("POST /api/submit", "POST /api/v1/write", "POST /api/v2/write", "POST /api/labels")


def may(role: str, route: str) -> bool:
    """Return whether a role may use a route; the table of SECURITY.md in code of its own."""
    if route == "GET /health":
        return True
    least = "read" if route.startswith("GET ") else "push" if route in PUSHED else "operate"
    return role != NOBODY and ROLES.index(role) >= ROLES.index(least)


def secret(role: str) -> str:
    return f"the secret of those who {role}"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Return a server with tokens, a store, a simulated stream and a pushed one."""
    store = SqliteStore(tmp_path_factory.mktemp("fuzz") / "redline.db")
    streams = {"wave": MonitoredStream(STREAMS["wave"](seed=3))}
    tokens = Tokens([Token(role, hash_secret(secret(role)), role) for role in ROLES])
    service = assemble_service(
        lambda store: Monitor(streams, store=store), store, ServerOptions(tokens=tokens, rate=0)
    )
    monitor = service.monitor
    server = FastAPI()
    connect_api(server, service)
    monitor.start()
    yield server
    monitor.stop()
    store.close()


def profile(examples: int) -> settings:
    """Return the settings of a run: the same requests each time, others with FUZZ_TIMES."""
    return settings(
        max_examples=examples * (TIMES or 1),
        deadline=None,
        derandomize=not TIMES,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


@pytest.mark.parametrize("mode", ["positive", "negative"])
@pytest.mark.parametrize("role", [NOBODY, *ROLES])
@pytest.mark.parametrize("route", WAYS)
def test_whatever_comes_is_answered_as_documented_and_never_above_the_role(
    server, route, role, mode
):
    schemathesis = pytest.importorskip(
        "schemathesis", reason="the extra `test` brings schemathesis"
    )
    register_binary(schemathesis)
    headers = HOME | ({"Authorization": f"Bearer {secret(role)}"} if role != NOBODY else {})
    method, path = route.split()
    # the document itself needs a token that may read
    reader = HOME | {"Authorization": f"Bearer {secret('read')}"}
    document = schemathesis.openapi.from_asgi("/openapi.json", server, headers=reader)
    allowed = may(role, route)

    @profile(EXAMPLES if allowed else REFUSED_EXAMPLES)
    @given(
        document[path][method].as_strategy(generation_mode=schemathesis.GenerationMode(mode)),
        st.sampled_from([None, "wave", "oven"]),
    )
    def ask(case, source):
        if source is not None:
            name_source(case, source)
        response = case.call(headers=headers)
        check_answer(response)
        case.validate_response(response, checks=documented_checks())
        if not allowed:
            assert response.status_code == (401 if role == NOBODY else 403)

    try:
        ask()
    except Unsatisfiable:  # a route without parameters has nothing that does not fit
        assert mode == "negative"


def register_binary(schemathesis):
    """Have the bodies of remote write and of Arrow sent as the bytes that they are."""
    from schemathesis.transport.serialization import serialize_binary

    @schemathesis.serializer("application/x-protobuf", ARROW_TYPE)
    def send_bytes(context, value):
        return serialize_binary(value)


def name_source(case, source):
    """Put the name of a stream that is there, or was, where a request names one."""
    for part in (case.path_parameters, case.query, case.body):
        if isinstance(part, dict) and "source" in part:
            part["source"] = source


def documented_checks():
    """Return the checks of an answer against the document."""
    from schemathesis.specs.openapi import checks

    return [
        checks.status_code_conformance,
        checks.content_type_conformance,
        checks.response_schema_conformance,
    ]


def check_answer(response):
    """Check that an answer is no server error, and a problem if it is a refusal."""
    assert response.status_code < 500, response.text
    assert response.status_code != 421, "nothing was fuzzed: the host kept it out"
    if response.status_code >= 400:
        problem = json.loads(response.content)
        assert problem["status"] == response.status_code and problem["title"] and problem["detail"]
