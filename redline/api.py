"""The routes that programs ask, on the page's own server: what runs, what was found, points in, events out.

This room stands on the others, as the page does. A route is a few lines over what the monitor, the store and the alerts keep; whatever goes wrong is
answered as a problem (RFC 9457) that names the field, what was wanted and what came. `/docs` shows all of it, `docs/api.md` explains it.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from html import escape
from http import HTTPStatus
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from fastapi import APIRouter, FastAPI, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import StreamingResponse
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from detectors import DETECTORS
from redline import payload, view
from redline.alerts import SEVERITIES, STATES, Change, Incident, Incidents, Policy, Rules, Settled, UnknownIncident, Wanted, row, sentence
from redline.auth import Allowance, Door, Refusal, Token, Tokens
from redline.channels import Dispatch
from redline.events import CLIENTS, Event, Hub, Wish
from redline.excerpt import TYPES, Format, Range, formatted, rows
from redline.intake import Full, Pushed, Receipt, Refused, Taken
from redline.labels import Label, LabelError, Labels
from redline.ledger import Anomaly, Batch
from redline.monitor import BUFFER, Feed, Monitor
from redline.payload import Misfit, Points, moment
from redline.settings import DIRECTIONS, SettingsError, checked
from redline.sight import ended
from redline.sources import Recording
from redline.store import Query as Search
from redline.store import Store, StoreError
from redline.table import Table

VERSION = "0.1.0"
PROBLEM = "application/problem+json"
WAKING = 2.0  # seconds somebody may wait for the past of streams
LATE = 5.0  # seconds without a beat of the loop after which the server is called dead
BIG = 65_536  # bytes of a body from which it is read in a thread, so that nobody else waits
MANY = 20  # sources of a body from which they are handed over in a thread
PATIENCE = 30.0  # seconds a submission waits for its commit before it is told to come again
MOST = 100_000  # points of one answer
PAGE_BODY = 100 * 2**20  # bytes the page may send, an uploaded file as text

Severity = Literal["info", "warning", "critical"]
State = Literal["open", "acknowledged", "snoozed", "resolved"]
Length = Literal["10 min", "1 h", "until normal"]


class Options(NamedTuple):
    """What the operator decides."""

    tokens: Tokens = Tokens()
    cors: tuple[str, ...] = ()  # origins whose pages may ask
    body: int = 32 * 2**20  # bytes of one request
    rate: float = 1_000.0  # requests a second and client, 0 = no limit


class Problem(Exception):
    """An answer that says what went wrong."""

    def __init__(self, status: int, detail: str, errors: Sequence[Mapping[str, Any]] = (), headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status, self.detail, self.errors, self.headers = status, detail, list(errors), dict(headers or {})
        self.more: Mapping[str, Any] = {}  # what went right all the same

    def response(self, path: str) -> Response:
        body: dict[str, Any] = {"type": "about:blank", "title": HTTPStatus(self.status).phrase, "status": self.status}
        body |= {"detail": self.detail, "instance": path} | ({"errors": self.errors} if self.errors else {}) | dict(self.more)
        return Response(payload.written(body), self.status, self.headers, PROBLEM)


@dataclass
class Service:
    """What the routes answer from."""

    monitor: Monitor
    store: Store | None = None  # None = nothing outlives the program
    alerts: Incidents | None = None  # None = joined here and forgotten at the end
    changed: Callable[[Sequence[Change]], None] = field(default=lambda changes: None)  # told what a person did to an incident
    options: Options = field(default_factory=Options)
    labels: Labels = field(default_factory=Labels)
    calls: Dispatch | None = None  # who calls people and runs the operator's actions

    def __post_init__(self) -> None:
        self.began = time.time()
        self.allowance = Allowance(self.options.rate)
        self.door = Door(self.options.tokens, self.allowance, self.options.cors)
        self.hub = Hub(self.older if self.store else None, self.store.newest() if self.store else 0)
        self.oversized = 0  # requests refused for their size
        self.joins = self.alerts is None
        self.incidents = self.alerts or Incidents(Rules(Policy(), view.severity, self.explained))

    def explained(self, incident: Incident) -> str:
        return sentence(incident, self.monitor.feeds[incident.stream].stream, view.reason, view.moment)

    def end(self) -> None:
        """Lets go of those who follow, and of calls that are still tried."""
        self.hub.close()
        if self.calls:
            self.calls.stop()

    def older(self, after: int, most: int) -> list[Event]:
        """Events out of the store, for one who comes back."""
        assert self.store is not None
        return [event(stored(self, each)) for each in self.store.anomalies(Search(after=after, limit=most))]

    def noted(self, request: Request, what: str, source: str, **detail: Any) -> None:
        """A line of the audit log: who changed what."""
        if self.store:
            self.store.record(request.state.who, what, source, detail)

    def heard(self, batches: Sequence[Batch]) -> None:
        """The monitor's listener: every committed anomaly becomes an event, and where nobody else does it, alarms become incidents."""
        if self.joins:
            self.incidents.commit([batch for batch in batches if batch.live], time.time(), lambda rows: None)
        events = [event(found(batch.names, batch.units, batch.name, a)) for batch in batches if batch.live for a in batch.anomalies]
        if events:
            self.hub.publish(events)

    def feed(self, name: str) -> Feed:
        feed = self.monitor.feeds.get(name)
        if feed is None:
            raise Problem(404, f"no stream is called {name!r}; /api/streams lists them", [wrong("source", "the name of a stream", name)])
        self.awake([feed])
        return feed

    def awake(self, feeds: Sequence[Feed]) -> None:
        """Waits a moment for streams whose past has not been fetched from the store since the start."""
        asleep = [feed for feed in feeds if not feed.ready and self.monitor.thread]
        for feed in asleep:
            self.monitor.want(feed.name, feed.applied)
        until = time.monotonic() + WAKING
        while any(not feed.ready for feed in asleep) and time.monotonic() < until:
            time.sleep(0.005)


def wrong(field: str, wanted: str, came: Any) -> dict[str, Any]:
    return {"field": field, "wanted": wanted, "came": came if isinstance(came, str | int | float | None) else payload.shown(came)}


def connect(server: FastAPI, service: Service) -> Service:
    """Puts the routes, the guard and the problems on a server; before any route that answers every path."""
    server.title, server.version, server.description = "Redline", VERSION, (__doc__ or "").partition("\n")[0]
    router = APIRouter()
    for add in (
        connect_health,
        connect_streams,
        connect_data,
        connect_anomalies,
        connect_events,
        connect_alerts,
        connect_labels,
        connect_submit,
        connect_configure,
    ):
        add(router, service)
    connect_unknown(router)
    server.include_router(router)
    connect_docs(server)
    connect_problems(server)
    server.add_middleware(Guard, service=service)
    if service.options.cors:
        server.add_middleware(CORSMiddleware, allow_origins=list(service.options.cors), allow_methods=["*"], allow_headers=["*"])
    service.monitor.listeners.append(service.heard)
    return service


def answer(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(payload.written(value), status, dict(headers or {}), "application/json")


# --- before and around every route


class Guard:
    """Turns away who may not ask, asks too often or sends too much; whoever passes is known as `request.state.who`."""

    def __init__(self, app: Any, service: Service) -> None:
        self.app, self.service = app, service

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        found = self.judged(scope, headers)
        if not isinstance(found, Refusal):
            scope.setdefault("state", {})["who"] = found.name if found else "local"
            await self.app(scope, self.counted(scope["path"], receive) if scope["type"] == "http" else receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 4_401, "reason": found.detail})
        else:
            await Problem(found.status, found.detail, headers=dict(found.headers)).response(scope["path"])(scope, receive, send)

    def judged(self, scope: Any, headers: Mapping[str, str]) -> Refusal | Token | None:
        path, service = scope["path"], self.service
        found = service.door.judged(scope.get("method", "GET"), path, headers)
        if isinstance(found, Refusal) or not path.startswith("/api/"):
            return found
        client = scope.get("client") or ("", 0)
        if wait := service.allowance.wait(client[0], time.monotonic()):
            return Refusal(429, f"wanted at most {service.options.rate:g} requests a second, came more", (("Retry-After", f"{math.ceil(wait)}"),))
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length) > service.options.body:
            service.oversized += 1
            return Refusal(413, f"wanted a body of at most {service.options.body:,} bytes, came {int(length):,}; send it in parts")
        return found

    def counted(self, path: str, receive: Any) -> Any:
        """A receive that stops at the limit, for bodies that do not say how long they are."""
        api = path.startswith("/api/")
        limit = self.service.options.body if api else PAGE_BODY
        advice = "send it in parts" if api else "choose a smaller file"
        left = limit

        async def counting() -> Any:
            nonlocal left
            message = await receive()
            left -= len(message.get("body", b""))
            if left < 0:
                self.service.oversized += 1
                raise Problem(413, f"wanted a body of at most {limit:,} bytes, came more; {advice}")
            return message

        return counting


def connect_unknown(router: APIRouter) -> None:
    """Whatever is asked of the API and is not there: a wrong method says which are right, a wrong path that there is none."""
    known = [route for route in router.routes if isinstance(route, APIRoute)]

    @router.api_route("/api/{path:path}", methods=["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "TRACE"], include_in_schema=False)
    async def unknown(request: Request, path: str) -> Response:
        methods = sorted({method for route in known if route.path_regex.match(f"/api/{path}") for method in route.methods or ()})
        if methods:
            raise Problem(405, f"wanted {' or '.join(methods)}, came {request.method}", headers={"Allow": ", ".join(methods)})
        raise Problem(404, f"nothing is served at /api/{path}; /docs lists what is")


def connect_problems(server: FastAPI) -> None:
    def told(translate: Callable[[Any], Problem]) -> Any:
        async def respond(request: Request, error: Exception) -> Response:
            return translate(error).response(request.url.path)

        return respond

    server.add_exception_handler(Problem, told(lambda error: error))
    server.add_exception_handler(Misfit, told(misfit))
    server.add_exception_handler(Refused, told(misfit))
    server.add_exception_handler(LabelError, told(misfit))
    server.add_exception_handler(Full, told(lambda e: Problem(429, str(e), [wrong(e.field, e.wanted, e.came)], {"Retry-After": "1"})))
    server.add_exception_handler(SettingsError, told(unset))
    server.add_exception_handler(StoreError, told(lambda error: Problem(503, str(error), headers={"Retry-After": "5"})))
    server.add_exception_handler(UnknownIncident, told(lambda error: Problem(404, str(error.args[0]))))
    server.add_exception_handler(Settled, told(lambda error: Problem(409, str(error))))
    server.add_exception_handler(RequestValidationError, told(invalid))
    server.add_exception_handler(ClientDisconnect, told(lambda error: Problem(400, "wanted a whole body, came a part of it; send it again")))
    server.add_exception_handler(HTTPException, told(plain))


def misfit(error: Any) -> Problem:
    return Problem(422, str(error), [wrong(error.field, error.wanted, error.came)])


def unset(error: SettingsError) -> Problem:
    """A settings error is one sentence, `field: wanted ...; came ...`."""
    field, _, rest = str(error).partition(": wanted ")
    wanted, _, came = rest.rpartition("; came ")
    return Problem(422, str(error), [wrong(field, wanted, came)] if wanted else [])


def invalid(error: RequestValidationError) -> Problem:
    errors = [wrong(".".join(map(str, e["loc"][1:])) or str(e["loc"][0]), e["msg"], e.get("input")) for e in error.errors()]
    return Problem(422, "; ".join(f"{e['field']}: {e['wanted']}" for e in errors), errors)


def plain(error: Any) -> Problem:
    status = getattr(error, "status_code", 500)
    return Problem(status, str(getattr(error, "detail", error)), headers=getattr(error, "headers", None))


def routes_table() -> Table:
    """Every route and what it is for."""
    server = FastAPI()
    connect(server, Service(Monitor({})))
    ways = [(f"`{method.upper()} {path}`", way["summary"]) for path, ways in server.openapi()["paths"].items() for method, way in ways.items()]
    return Table(("route", "what it answers"), ways)


def connect_docs(server: FastAPI) -> None:
    """`/docs` of its own, which needs no network; `/docs/try` is Swagger UI, which a browser fetches from elsewhere."""
    server.router.routes[:] = [route for route in server.router.routes if not str(getattr(route, "path", "")).startswith(("/docs", "/redoc"))]

    @server.get("/docs", include_in_schema=False)
    def docs() -> Response:
        return Response(documented(server.openapi()), media_type="text/html; charset=utf-8")

    @server.get("/docs/try", include_in_schema=False)
    def attempt() -> Response:
        return get_swagger_ui_html(openapi_url="/openapi.json", title="Redline")


def documented(openapi: Mapping[str, Any]) -> str:
    """Every route with its parameters, as a page."""
    parts = []
    for path, ways in openapi["paths"].items():
        for method, way in ways.items():
            rows = [(p["name"], p["in"], p.get("description", ""), "needed" if p.get("required") else "") for p in way.get("parameters", [])]
            cells = "".join("<tr>" + "".join(f"<td>{escape(cell)}" for cell in row) for row in rows)
            body = "<p>Body: JSON, see <a href='/openapi.json'>the schema</a>." if "requestBody" in way else ""
            parts.append(f"<h2><code>{method.upper()} {escape(path)}</code></h2><p>{escape(way['summary'])}.{body}<table>{cells}</table>")
    links = "<a href='/openapi.json'>openapi.json</a> · <a href='/docs/try'>try it (Swagger UI, fetched from jsdelivr.net)</a>"
    return f"<!doctype html><html lang=en><meta charset=utf-8><title>Redline API</title>{LOOKS}<h1>Redline API</h1><p>{links}{''.join(parts)}"


LOOKS = """<style>:root { color-scheme: light dark } body { font: 15px/1.5 system-ui, sans-serif; max-width: 50rem;
margin: 2rem auto; padding: 0 1rem }
h2 { font-size: 1rem; margin: 2rem 0 0 } td { padding: .1rem 1rem .1rem 0; vertical-align: top }</style>"""


# --- how it is


def connect_health(router: APIRouter, service: Service) -> None:
    @router.get("/health", tags=["state"], summary="Live and ready, with reasons", responses={503: {"description": "not live, or not ready"}})
    async def health() -> Response:
        state = health_of(service)
        return answer(state, 200 if state["live"] and state["ready"] else 503)

    @router.get("/api/status", tags=["state"], summary="What the server does, in numbers")
    def status() -> Response:
        return answer(status_of(service))

    @router.get("/api/stats", tags=["state"], summary="What was counted, stream by stream")
    def stats(source: str | None = None) -> Response:
        feeds = [service.feed(source)] if source is not None else list(service.monitor.feeds.values())
        return answer({"streams": [counted(feed) for feed in feeds]})


def health_of(service: Service) -> dict[str, Any]:
    """Live: the loop beats. Ready: it also keeps what it finds."""
    monitor, reasons = service.monitor, []
    silent = monitor.clock() - monitor.beaten
    started = monitor.thread is not None
    live = not started or (monitor.thread.is_alive() and silent < LATE)  # type: ignore[union-attr]
    if not started:
        reasons.append("the loop has not started")
    elif not live:
        reasons.append(f"the loop has not beaten for {silent:.0f} s")
    trouble = monitor.outbox.trouble
    if trouble:
        reasons.append(f"the store: {trouble.text}")
    failing = sorted(feed.name for feed in list(monitor.feeds.values()) if feed.failure)
    notes = [f"{name} failed, the other streams go on" for name in failing[:10]]
    return {"live": live, "ready": live and started and not trouble, "reasons": reasons, "notes": notes}


def status_of(service: Service) -> dict[str, Any]:
    feeds = list(service.monitor.feeds.values())
    points, anomalies = sum(feed.points for feed in feeds), sum(feed.anomalies for feed in feeds)
    counts: dict[str, Any] = {"streams": len(feeds), "points": points, "anomalies": anomalies, "alarms": sum(feed.alarms for feed in feeds)}
    counts |= {"rate": anomalies / points if points else 0.0, "failing": sorted(feed.name for feed in feeds if feed.failure)}
    hub = service.hub
    rooms: dict[str, Any] = {"queue": queued(feeds), "store": kept(service)}
    rooms["events"] = {"clients": len(hub.clients), "newest": hub.newest, "sent": hub.sent, "slow": hub.slow}
    rooms["calls"] = service.calls.status() if service.calls else []
    rooms["requests"] = {"too_often": service.allowance.refused, "too_big": service.oversized}
    return {"version": VERSION, "up_seconds": time.time() - service.began, **counts, **rooms}


def queued(feeds: Sequence[Feed]) -> dict[str, int]:
    """What waits in the queues of pushed streams, and what was not simply taken."""
    pushed = [feed.stream for feed in feeds if isinstance(feed.stream, Pushed)]
    counts = {fact: sum(stream.notes.get(fact, 0) for stream in pushed) for fact in ("repeated", "late", "refused")}
    return {"waiting": sum(stream.waiting for stream in pushed), **counts}


def kept(service: Service) -> dict[str, Any]:
    """How the store does: batches that wait for it, batches given up, and what is wrong with it."""
    outbox = service.monitor.outbox
    trouble = outbox.trouble.text if outbox.trouble else None
    return {"kept": outbox.ledger is not None, "waiting": len(outbox.waiting), "lost": outbox.lost, "trouble": trouble}


def counted(feed: Feed) -> dict[str, Any]:
    """The counters of one stream since it was opened."""
    track = feed.watched
    counts: dict[str, Any] = {"source": feed.name, "points": feed.points, "anomalies": feed.anomalies, "alarms": feed.alarms}
    counts |= {"rate": feed.anomalies / feed.points if feed.points else 0.0, "notes": dict(feed.stream.notes)}
    counts |= {"microseconds_per_point": 1e6 * track.pace, "scored_to": track.end, "end": feed.end}
    return counts | {"waiting": feed.stream.waiting if isinstance(feed.stream, Pushed) else 0}


def connect_streams(router: APIRouter, service: Service) -> None:
    @router.get("/api/streams", tags=["streams"], summary="Every stream with its features and applied settings")
    def streams(limit: Annotated[int, Query(ge=1, le=10_000)] = 1_000, after: str = "") -> Response:
        names = list(service.monitor.feeds)
        start = names.index(after) + 1 if after in names else 0
        feeds = [service.monitor.feeds[name] for name in names[start : start + limit]]
        service.awake(feeds)
        shown = [described(feed) for feed in feeds]
        return answer({"streams": shown, "total": len(names), "next": names[start + limit - 1] if start + limit < len(names) else None})

    @router.get("/api/streams/{source:path}", tags=["streams"], summary="One stream")
    def stream(source: Annotated[str, Path(max_length=1_000)]) -> Response:
        return answer(described(service.feed(source)))


def kind(feed: Feed) -> str:
    if isinstance(feed.stream, Pushed):
        return "pushed"
    return "recording" if isinstance(feed.stream, Recording) else "live" if feed.real else "simulated"


def described(feed: Feed) -> dict[str, Any]:
    stream, first = feed.stream, feed.tape.first
    with feed.lock:
        span = feed.tape.read("time", first, feed.end)[[0, -1], 0].tolist() if feed.end > first else [None, None]
    features = [{"name": name, "unit": unit} for name, unit in zip(stream.names, stream.units)]
    about: dict[str, Any] = {"source": feed.name, "title": stream.title, "about": stream.about, "kind": kind(feed), "features": features}
    about |= {"period": stream.period, "points": feed.points, "first": first, "end": feed.end, "from": span[0], "to": span[1]}
    about |= {"anomalies": feed.anomalies, "alarms": feed.alarms, "applied": asdict(feed.applied)}
    return about | {"status": status_word(feed), "arrived": feed.arrived}


def status_word(feed: Feed) -> str:
    """The state of a stream under its applied settings, in a few words."""
    if feed.failure or feed.watched.failure:
        return f"failed, id {(feed.failure or feed.watched.failure).id}"  # type: ignore[union-attr]
    if not feed.ready:
        return "being fetched from the store"
    return "end of file" if ended(feed) else "live" if feed.end else "no points yet"


# --- points out


def bounds(start: str | None, end: str | None) -> tuple[float, float]:
    """The two ends of a range as a query names them."""
    return (-np.inf if start is None else moment(start, "start")), (np.inf if end is None else moment(end, "end"))


def connect_data(router: APIRouter, service: Service) -> None:
    @router.get("/api/data/{source:path}", tags=["streams"], summary="Points, scores and anomalies of a stream, oldest first")
    def data(
        request: Request,
        source: Annotated[str, Path(max_length=1_000)],
        start: Annotated[str | None, Query(description="first time, Unix seconds or ISO 8601; then the oldest `limit` points from there on")] = None,
        end: Annotated[str | None, Query(description="first time not wanted any more")] = None,
        limit: Annotated[int, Query(ge=1, le=MOST)] = 1_000,
        thin: Annotated[int, Query(ge=0, le=MOST, description="leave about so many, every anomaly among them; 0 = all")] = 0,
        format: Format = "json",
    ) -> Response:
        feed = service.feed(source)
        asked = Range(*bounds(start, end), limit, start is not None, thin)
        found = rows(feed, service.store, asked)
        return Response(formatted(feed, found, format), media_type=TYPES[format])


# --- what was found


def found(names: Sequence[str], units: Sequence[str], source: str, a: Anomaly) -> dict[str, Any]:
    """One anomaly as an answer shows it."""
    unit = units[a.feature]
    shown: dict[str, Any] = {"id": a.id, "source": source, "step": a.step, "time": a.time, "feature": names[a.feature], "unit": unit}
    shown |= {"value": a.value, "expected": None if a.low != a.low else [a.low, a.high], "score": a.score, "threshold": a.threshold}
    shown |= {"severity": view.severity(a.score, a.threshold), "run": a.run, "alarm": a.alarm}
    return shown | {"reason": view.reason(a.value, (a.low, a.high), a.score, unit, a.run)}


def event(shown: dict[str, Any]) -> Event:
    return Event(shown["id"], shown["source"], SEVERITIES.index(shown["severity"]), payload.written(shown))


class Hunt(NamedTuple):
    """Which anomalies are asked for."""

    sources: tuple[str, ...] = ()  # () = all
    start: float = -np.inf  # seconds since the Unix epoch, included
    end: float = np.inf
    rank: int = 0  # the least severity
    alarms: bool = False  # only those on which somebody is called
    after: int = 0  # id, not included
    limit: int = 100
    forward: bool = False  # from `after` on, rather than the newest

    def fits(self, shown: Mapping[str, Any]) -> bool:
        rank = SEVERITIES.index(shown["severity"])
        return self.start <= shown["time"] < self.end and rank >= self.rank and shown["id"] > self.after and (shown["alarm"] or not self.alarms)


def connect_anomalies(router: APIRouter, service: Service) -> None:
    @router.get("/api/anomalies", tags=["anomalies"], summary="Anomalies, oldest first: the newest `limit`, or the first after an id")
    def anomalies(
        source: Annotated[list[str] | None, Query(description="only of these streams")] = None,
        start: str | None = None,
        end: str | None = None,
        severity: Severity = "info",
        alarms: Annotated[bool, Query(description="only those on which somebody is called")] = False,
        after: Annotated[int | None, Query(ge=0, le=2**62, description="only those with a higher id, from there on")] = None,
        limit: Annotated[int, Query(ge=1, le=BUFFER)] = 100,
    ) -> Response:
        for name in source or ():
            service.feed(name)
        hunt = Hunt(tuple(source or ()), *bounds(start, end), SEVERITIES.index(severity), alarms, after or 0, limit, after is not None)
        shown = hunted(service, hunt)
        chosen = shown[:limit] if after is not None else shown[-limit:]
        return answer({"anomalies": chosen, "next": chosen[-1]["id"] if chosen else after})


def hunted(service: Service, hunt: Hunt) -> list[dict[str, Any]]:
    """Those that fit, by id: from the store, or out of the journals where nothing is stored."""
    if service.store:
        return sorted(
            (stored(service, each) for source in hunt.sources or (None,) for each in service.store.anomalies(search(hunt, source))), key=by_id
        )
    feeds = [service.feed(name) for name in hunt.sources] or list(service.monitor.feeds.values())
    shown = [found(feed.stream.names, feed.stream.units, feed.name, a) for feed in feeds for a in list(feed.journal) if a.id > hunt.after]
    return sorted((each for each in shown if hunt.fits(each)), key=by_id)


def by_id(shown: Mapping[str, Any]) -> int:
    return int(shown["id"])


def search(hunt: Hunt, source: str | None) -> Search:
    since, until = None if hunt.start == -np.inf else hunt.start, None if hunt.end == np.inf else float(np.nextafter(hunt.end, -np.inf))
    severities = SEVERITIES[hunt.rank :] if hunt.rank else ()
    return Search(source, since, until, hunt.after if hunt.forward else None, None, severities, hunt.alarms, limit=hunt.limit)


def stored(service: Service, each: Mapping[str, Any]) -> dict[str, Any]:
    """One anomaly out of the store, in the words of `found`."""
    feed = service.monitor.feeds.get(each["stream"])
    units = dict(zip(feed.stream.names, feed.stream.units)) if feed else {}
    shown = {"id": each["id"], "source": each["stream"], "step": each["step"], "time": each["time"], "feature": each["feature"]}
    shown |= {
        "unit": units.get(each["feature"], ""),
        "value": each["value"],
        "expected": None if each["low"] is None else [each["low"], each["high"]],
    }
    return shown | {name: each[name] for name in ("score", "threshold", "severity", "run", "alarm", "reason")}


def connect_events(router: APIRouter, service: Service) -> None:
    sse: dict[int | str, dict[str, Any]] = {}
    sse[200] = {"description": "server-sent events: `id`, `event: anomaly`, `data`: an anomaly as JSON", "content": {"text/event-stream": {}}}

    @router.get("/api/stream/anomalies", tags=["anomalies"], summary="Anomalies as they are found", response_class=Response, responses=sse)
    async def follow(
        request: Request,
        source: Annotated[list[str] | None, Query(description="only of these streams")] = None,
        severity: Severity = "info",
        last_event_id: Annotated[int | None, Query(ge=0, le=2**62, description="as the header Last-Event-ID, for who cannot set one")] = None,
    ) -> Response:
        if len(service.hub.clients) >= CLIENTS:
            raise Problem(503, f"{CLIENTS:,} streams of events are open already; come again later", headers={"Retry-After": "10"})
        header = request.headers.get("last-event-id", "")
        after = int(header) if header.isdecimal() and len(header) < 19 else last_event_id
        wish = Wish(frozenset(source or ()), SEVERITIES.index(severity))
        return StreamingResponse(service.hub.follow(wish, after), media_type="text/event-stream", headers=NO_CACHE)


NO_CACHE = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


# --- incidents


def connect_alerts(router: APIRouter, service: Service) -> None:
    @router.get("/api/alerts", tags=["incidents"], summary="Incidents: live ones first, then the newest")
    def alerts(
        source: str | None = None,
        state: Annotated[list[State] | None, Query(description="only in these states; default: all")] = None,
        severity: Severity = "info",
        limit: Annotated[int, Query(ge=1, le=1_000)] = 50,
        after: Annotated[str, Query(description="`next` of the page before")] = "",
    ) -> Response:
        page = service.incidents.find(Wanted(source, tuple(state or STATES), severity, limit, after))
        return answer({"incidents": [incident(service, each) for each in page.incidents], "total": page.total, "next": page.after or None})

    @router.get("/api/alerts/{id}", tags=["incidents"], summary="One incident with its history")
    def alert(id: str) -> Response:
        return answer(incident(service, service.incidents.one(id)))

    @router.post("/api/alerts/{id}/acknowledge", tags=["incidents"], summary="Somebody knows: nobody is called again unless it gets worse")
    def acknowledge(request: Request, id: str) -> Response:
        return acted(service, request, service.incidents.acknowledge(id, request.state.who, time.time()))

    @router.post("/api/alerts/{id}/snooze", tags=["incidents"], summary="Nobody is called for this stream for a while")
    def snooze(request: Request, id: str, length: Annotated[Length, Query(alias="for")] = "10 min") -> Response:
        return acted(service, request, service.incidents.snooze(id, request.state.who, time.time(), length))

    @router.post("/api/alerts/{id}/resolve", tags=["incidents"], summary="Somebody says it is over")
    def resolve(request: Request, id: str, note: Annotated[str, Query(max_length=1_000)] = "") -> Response:
        return acted(service, request, service.incidents.resolve(id, request.state.who, time.time(), note))


def acted(service: Service, request: Request, change: Change) -> Response:
    service.changed([change])
    service.noted(request, change.what, change.incident.stream, incident=change.incident.id)
    return answer(incident(service, change.incident))


def incident(service: Service, each: Incident) -> dict[str, Any]:
    """An incident as an answer shows it: features by name, `source` as everywhere."""
    shown = row(each)
    feed = service.monitor.feeds.get(each.stream)
    names, units = (feed.stream.names, feed.stream.units) if feed else ((), ())
    shown["features"] = [names[f] if f < len(names) else str(f) for f in each.features]
    worst, f = dict(shown["peak"]), each.peak.feature
    worst |= {"feature": names[f] if f < len(names) else str(f), "unit": units[f] if f < len(units) else ""}
    return {"id": shown.pop("id"), "source": shown.pop("stream"), **shown, "peak": worst}


# --- what people say


@dataclass
class Word:
    """Somebody's word on a point or span of a stream."""

    source: str
    kind: Literal["expected", "missed"]
    start: float | str  # Unix seconds or ISO 8601
    end: float | str | None = None  # the same as start for a point
    feature: str | None = None  # all of them
    note: str = ""


def connect_labels(router: APIRouter, service: Service) -> None:
    @router.get("/api/labels", tags=["labels"], summary="What people said of a stream")
    def labels(source: str) -> Response:
        return answer({"labels": [labelled(service, label) for label in service.labels.of(service.feed(source).name)]})

    @router.post("/api/labels", tags=["labels"], summary="Say that a point or span was expected, or missed", status_code=201)
    def say(request: Request, word: Word) -> Response:
        feed = service.feed(word.source)
        names = feed.stream.names
        if word.feature is not None and word.feature not in names:
            raise Misfit("feature", f"one of {', '.join(names)}, or none for all", word.feature)
        span = moment(word.start, "start"), moment(word.start if word.end is None else word.end, "end")
        feature = None if word.feature is None else names.index(word.feature)
        label = Label(feed.name, *span, word.kind, request.state.who, time.time(), feature, word.note)
        label = service.labels.add(label, len(names))
        service.noted(request, f"labelled {word.kind}", feed.name, id=label.id)
        return answer(labelled(service, label), 201)

    @router.delete("/api/labels/{id}", tags=["labels"], summary="Take a label back")
    def remove(request: Request, id: Annotated[int, Path(ge=1, le=2**62)]) -> Response:
        try:
            label = service.labels.remove(id)
        except KeyError:
            raise Problem(404, f"there is no label {id}") from None
        service.noted(request, "took a label back", label.stream, id=id)
        return answer(labelled(service, label))


def labelled(service: Service, label: Label) -> dict[str, Any]:
    feed = service.monitor.feeds.get(label.stream)
    feature = None if label.feature is None or feed is None else feed.stream.names[label.feature]
    shown = {"id": label.id, "source": label.stream, "kind": label.kind, "start": label.start, "end": label.end}
    return shown | {"feature": feature, "note": label.note, "who": label.who, "at": label.at}


# --- points in

POINT: dict[str, Any] = {
    "type": "object",
    "required": ["source", "time"],
    "additionalProperties": False,
    "properties": {
        "source": {"type": "string", "minLength": 1, "maxLength": 200, "example": "oven"},
        "time": {
            "anyOf": [{"type": "number"}, {"type": "string"}, {"type": "array", "items": {"anyOf": [{"type": "number"}, {"type": "string"}]}}],
            "description": "Unix seconds or ISO 8601; a list of them with a list of values",
        },
        "value": {"anyOf": [{"type": "number"}, {"type": "null"}, {"type": "array", "items": {"type": ["number", "null"]}}]},
        "values": {"type": "object", "additionalProperties": True, "description": "a number, or a list of them, for each feature"},
    },
}
BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {"anyOf": [POINT, {"type": "array", "items": POINT}]},
                "example": {"source": "oven", "time": 1767571200, "value": 20.5},
            },
            "application/x-ndjson": {"schema": {"type": "string"}},
        },
    }
}


def connect_submit(router: APIRouter, service: Service) -> None:
    @router.post("/api/submit", tags=["points"], summary="Points in: one, a list, columns, or a line each", openapi_extra=BODY)
    async def submit(request: Request) -> Response:
        body = await request.body()
        lines = "ndjson" in request.headers.get("content-type", "")
        parts = await asyncio.to_thread(read, body, lines) if len(body) > BIG else read(body, lines)
        return await taken(service, parts)


def read(body: bytes, lines: bool) -> list[Points]:
    return payload.parcels(payload.document(body, lines))


Handed = tuple[list[tuple[str, Receipt]], list[tuple[str, Refused]]]  # by source: what will be safe, what was not taken


async def taken(service: Service, parts: Sequence[Points]) -> Response:
    """Hands the points over and waits until they are committed; a source that is full or wrong leaves the others in."""
    many = len(parts) > MANY
    receipts, refused = await asyncio.to_thread(handed, service, parts) if many else handed(service, parts)
    if len(refused) == 1 == len(parts):
        raise refused[0][1]
    if receipts:
        await safe([receipt for _, receipt in receipts])
    late = sorted({source for source, receipt in receipts if not receipt.done() or receipt.exception()})
    if late:
        raise Problem(503, f"not committed yet: {', '.join(late[:10])}; send the same again, repeats are ignored", headers={"Retry-After": "5"})
    told = [(source, receipt.result()) for source, receipt in receipts]
    return await asyncio.to_thread(acknowledged, told, refused) if many else acknowledged(told, refused)


def handed(service: Service, parts: Sequence[Points]) -> Handed:
    receipts, refused = [], []
    for part in parts:
        try:
            receipts.append((part.source, service.monitor.submit(part.source, part.time, part.x, part.names)))
        except Refused as error:
            refused.append((part.source, error))
    return receipts, refused


async def safe(receipts: Sequence[Receipt]) -> None:
    """Waits until all are resolved, or PATIENCE is over: one call into the event loop, however many there are."""
    loop, done, left, lock = asyncio.get_running_loop(), asyncio.Event(), len(receipts), threading.Lock()

    def one_less(_: Any) -> None:
        nonlocal left
        with lock:
            left -= 1
            if left:
                return
        with contextlib.suppress(RuntimeError):  # the loop has closed: nobody waits any more
            loop.call_soon_threadsafe(done.set)

    for receipt in receipts:
        receipt.add_done_callback(one_less)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(done.wait(), PATIENCE)


def acknowledged(taken: Sequence[tuple[str, Taken]], refused: Sequence[tuple[str, Refused]]) -> Response:
    """What became of the points, together and source by source."""
    sources: dict[str, Taken] = {}
    for source, each in taken:
        sources[source] = Taken(*(a + b for a, b in zip(sources.get(source, (0, 0, 0)), each)))
    whole = {**Taken(*map(sum, zip((0, 0, 0), *sources.values())))._asdict(), "sources": {source: each._asdict() for source, each in sources.items()}}
    if not refused:
        return answer(whole)
    problem = Problem(429 if any(isinstance(e, Full) for _, e in refused) else 422, f"{len(refused)} of {len(taken) + len(refused)} sources refused")
    problem.errors = [{"source": source, **wrong(error.field, error.wanted, error.came)} for source, error in refused]
    problem.more = whole if taken else {}
    raise problem


# --- how streams run


@dataclass
class Tuning:
    """Settings to apply to a stream; those left out stay as they are."""

    source: str
    detector: str | None = None
    window: int | None = None  # steps
    threshold: float | None = None  # standard deviations
    direction: str | None = None
    refractory: int | None = None  # steps
    habituation: int | None = None  # steps
    undo: bool = False  # take the last change back instead


def connect_configure(router: APIRouter, service: Service) -> None:
    @router.post("/api/configure", tags=["streams"], summary="Apply settings to a stream, or take the last change back")
    def configure(request: Request, change: Tuning) -> Response:
        feed = service.feed(change.source)
        before = feed.applied
        if change.undo:
            service.monitor.undo(feed.name)
        else:
            said = {name: value for name, value in asdict(change).items() if value is not None and name not in ("source", "undo")}
            if not said:
                raise Misfit("body", f"a setting to change: detector, window, threshold, direction ({', '.join(DIRECTIONS)}), ...", "none")
            service.monitor.apply(feed.name, checked(replace(before, **said), tuple(DETECTORS)))
        if service.monitor.thread and not service.monitor.kept(PATIENCE):
            late = "they will be on the disk once it can be written; do not send them again"
            raise Problem(503, f"{feed.name} runs under these settings; {late}", headers={"Retry-After": "5"})
        service.noted(request, "undo" if change.undo else "apply", feed.name, before=asdict(before), applied=asdict(feed.applied))
        return answer({"source": feed.name, "before": asdict(before), "applied": asdict(feed.applied)})
