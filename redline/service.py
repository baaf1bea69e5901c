"""The service put together: the loop with its store, incidents, labels and the API, for the page and for a headless run."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI

from redline import view
from redline.alerts import Change, Incident, Incidents, Rules, sentence
from redline.alerts import Rows as Kept
from redline.api import Options, Service, connect
from redline.channels import Dispatch, Plan, Record, World, read
from redline.labels import Keep, Labels
from redline.ledger import Anomaly, Batch, log
from redline.monitor import Monitor
from redline.store import Shut, Store

SENDING = 128 * 1024  # bytes the kernel holds for a client that does not read

ANEW = 1_000  # steps back in a stream from which another source has taken its place, more than a commit that is tried again repeats


def joined(monitor: Monitor, store: Store | Shut | None, options: Options, alerts: str | None = None) -> Service:
    """The loop with incidents, labels and the API around it; the store, if there is one, is the loop's ledger.

    `alerts` is the operator's file of channels and actions; ChannelError says what is wrong with it.
    """
    kept = store if isinstance(store, Store) else None
    plan, secrets = read(Path(alerts).read_text(encoding="utf-8")) if alerts else (Plan(), frozenset())
    incidents = Incidents(Rules(plan.policy, view.severity, explainer(monitor)), kept.save_incidents if kept else None, kept.lock if kept else None)
    service = Service(monitor, kept, incidents, options=options)
    if kept:
        remember(service, kept, incidents)
    else:
        monitor.listeners.append(lambda batches: service.changed(folded(incidents, batches, lambda rows: None)))
    if plan.channels or plan.actions:
        service.calls = Dispatch(plan, secrets, world(service))
        service.changed = service.calls.tell
        service.calls.repeat(incidents.untold())
    return service


def world(service: Service) -> World:
    """What those who call people need: names of streams, whom to tell that a call got through, and a place for the outcome."""

    def source(name: str) -> Any:
        feed = service.monitor.feeds.get(name)
        return None if feed is None else feed.stream

    def record(outcome: Record) -> None:
        if service.store:
            service.store.record("redline", f"{outcome.kind} {outcome.name}", None, outcome._asdict())

    return World(source, service.incidents.told, record)


def described(anomaly: Anomaly, unit: str) -> tuple[str, str]:
    """Severity and reason, as the store keeps them."""
    reason = view.reason(anomaly.value, (anomaly.low, anomaly.high), anomaly.score, unit, anomaly.run)
    return view.severity(anomaly.score, anomaly.threshold), reason


def explainer(monitor: Monitor) -> Callable[[Incident], str]:
    def explain(incident: Incident) -> str:
        feed = monitor.feeds.get(incident.stream)
        return incident.text if feed is None else sentence(incident, feed.stream, view.reason, view.moment)

    return explain


def folded(incidents: Incidents, batches: Sequence[Batch], save: Callable[[Any], None]) -> list[Change]:
    """What batches change about the incidents; nobody is called for the past of a stream that has just been opened."""
    return incidents.commit([batch for batch in batches if batch.live and len(batch.time)], time.time(), save)


def replaced(incidents: Incidents, batches: Sequence[Batch]) -> list[Change]:
    """Streams that count their steps anew, because another source has taken their place: what was live of the former one ends."""
    now, watches = time.time(), incidents.watches
    anew = [batch.name for batch in batches if batch.live and batch.name in watches and batch.end + ANEW < watches[batch.name].step]
    return [change for name in anew for change in incidents.forget(name, now)]


def remember(service: Service, store: Store, incidents: Incidents) -> None:
    """Incidents are written in the transaction of the batches they come from, and told once it is safe; labels come back."""
    waiting: list[Change] = []

    def beside(batches: Sequence[Batch], save: Callable[[Any], None]) -> None:
        waiting.extend(folded(incidents, batches, save))

    def tell(batches: Sequence[Batch]) -> None:
        if service.monitor.trouble:  # these are told without a commit, so nobody has folded them yet
            waiting.extend(folded(incidents, batches, lambda rows: None))
        try:
            waiting.extend(replaced(incidents, batches))
            waiting.extend(incidents.wake(time.time()))
        except OSError as error:  # comes again with the next batches; a full disk keeps nobody from being called
            log.warning("what is over or awake again could not be written and waits: %s", error)
        changes, waiting[:] = [*waiting], []
        if changes:
            service.changed(changes)

    incidents.restore(Kept(*store.incidents()))
    store.beside = beside
    service.monitor.listeners.append(tell)
    service.labels = Labels(Keep(lambda row: keep_label(store, row), lambda id: drop_label(store, id), store.dismiss))
    bodies = (row["body"] for row in store.labels())
    service.labels.restore(bodies, store.dismissed(), store.newest_label())


def keep_label(store: Store, row: dict[str, Any]) -> None:
    store.put_label(row["stream"], (row["start"], row["end"]), row["kind"], row)


def drop_label(store: Store, id: int) -> None:
    for row in store.labels():
        if row["body"]["id"] == id:
            store.drop_label(row["id"])


# --- without a page


def headless(service: Service) -> FastAPI:
    """A server of the API alone; the loop starts and stops with it."""

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.monitor.start()
        yield
        service.end()
        service.monitor.stop()
        if service.store:
            service.store.close()  # refuses a loop that still runs

    server = FastAPI(lifespan=lifespan)
    connect(server, service)
    return server


def listening(host: str, port: int) -> socket.socket:
    """A socket on that address; OSError says why there is none."""
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # one who does not read for a minute is gone: frees what the kernel holds for it
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 60_000)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SENDING)
    try:
        sock.bind((host, port))
        sock.listen(1024)
    except OSError as error:
        sock.close()
        raise OSError(f"port {port} on {host} cannot be used ({error.strerror}); stop what uses it, or choose another with --port") from error
    return sock


def serve(server: FastAPI, sock: socket.socket) -> None:
    """Serves until Ctrl-C."""
    config = uvicorn.Config(server, log_level="warning", timeout_graceful_shutdown=1, access_log=False)
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[sock])
