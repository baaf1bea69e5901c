"""The HTTP server: routes, guard and problems on one application."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import threading
from collections.abc import AsyncIterator

import uvicorn
from fastapi import APIRouter, FastAPI
from fastapi.middleware.cors import CORSMiddleware
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from redline.api.connections import limited_protocol
from redline.api.guard import HostGuard, RequestGuard
from redline.api.headers import SecurityHeaders
from redline.api.problems import connect_problems, connect_unknown, document_problems
from redline.api.reference import connect_docs
from redline.api.routes.alerts import connect_alerts
from redline.api.routes.anomalies import connect_anomalies
from redline.api.routes.configure import connect_configure
from redline.api.routes.data import connect_data
from redline.api.routes.events import connect_events
from redline.api.routes.groups import connect_groups
from redline.api.routes.labels import connect_labels
from redline.api.routes.maintenance import connect_maintenance
from redline.api.routes.metrics import connect_metrics
from redline.api.routes.rules import connect_rules
from redline.api.routes.state import connect_health
from redline.api.routes.streams import connect_streams
from redline.api.routes.submit import connect_submit
from redline.api.routes.unusual import connect_unusual
from redline.api.routes.write import connect_write
from redline.api.service import API_VERSION, Service, assemble_service
from redline.engine.monitor import Monitor
from redline.reports.table import Table

SPARE_FILES = 200  # open files besides connections: the store, the code, the log
SEND_BUFFER_BYTES = 128 * 1024  # bytes the kernel holds for a client that does not read


def build_server(service: Service) -> FastAPI:
    """Return a server of the API alone; the monitor's loop starts and stops with it."""

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.monitor.start()
        service.scraper.start()
        for feeder in service.feeders:
            feeder.start()
        service.score_writer.start()
        yield
        service.close()
        await asyncio.to_thread(service.monitor.stop)
        for feeder in service.feeders:  # they commit what is stored now
            await asyncio.to_thread(feeder.join)
        if service.store:
            service.store.close()  # a loop that still runs can commit nothing any more

    server = FastAPI(lifespan=lifespan)
    connect_api(server, service)
    return server


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket on an address; OSError says why it cannot be used."""
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        # a client that reads nothing for a minute is closed: the kernel frees its send buffer
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 60_000)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
    try:
        sock.bind((host, port))
        sock.listen(1024)
    except OSError as error:
        sock.close()
        raise OSError(
            f"port {port} on {host} cannot be used ({error.strerror}); stop what uses "
            "it, or choose another with --port"
        ) from error
    return sock


class EndingServer(uvicorn.Server):
    """A server that ends event streams and waiting submissions when it is told to stop.

    Otherwise it would wait for them, then cancel them without an answer.
    """

    def __init__(
        self, config: uvicorn.Config, service: Service, stop: threading.Event | None = None
    ) -> None:
        super().__init__(config)
        self.service = service
        self.stop = stop  # ends it too

    async def on_tick(self, counter: int) -> bool:
        ended = await super().on_tick(counter)
        return ended or (self.stop is not None and self.stop.is_set())

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.service.hub.close()
        stopping = asyncio.to_thread(self.service.monitor.stop)
        await asyncio.gather(super().shutdown(sockets), stopping)


def serve(
    server: FastAPI, sock: socket.socket, service: Service, stop: threading.Event | None = None
) -> None:
    """Serve until Ctrl-C or `stop`, within the limits of the service's connections.

    After `stop` the socket is still open, so that another server can go on with it.
    """
    registry = service.connections
    raise_file_limit(registry.limits.connections + SPARE_FILES)
    config = uvicorn.Config(
        server,
        http=limited_protocol(registry),
        log_level="warning",
        timeout_graceful_shutdown=1,
        access_log=False,
        proxy_headers=False,  # by default it trusts every program on this machine
        server_header=False,
    )
    with contextlib.suppress(KeyboardInterrupt):
        EndingServer(config, service, stop).run(sockets=[sock.dup() if stop else sock])


def raise_file_limit(wanted: int) -> None:
    """Raise the number of files this process may open, as far as it is allowed to."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def connect_api(server: FastAPI, service: Service) -> Service:
    """Add the routes, the guard and the problems to a server and return the service.

    Call it before a route that answers every path is added.
    """
    server.title = "Redline"
    server.version = API_VERSION
    server.description = (__doc__ or "").partition("\n")[0]
    router = APIRouter()
    for add in (
        connect_health,
        connect_metrics,
        connect_streams,
        connect_data,
        connect_anomalies,
        connect_events,
        connect_alerts,
        connect_groups,
        connect_unusual,
        connect_labels,
        connect_maintenance,
        connect_submit,
        connect_write,
        connect_configure,
        connect_rules,
    ):
        add(router, service)
    connect_unknown(router)
    server.include_router(router)
    document_problems(server)
    connect_docs(server)
    connect_problems(server)
    server.add_middleware(RequestGuard, service=service)
    if service.options.cors:
        server.add_middleware(
            CORSMiddleware,
            allow_origins=list(service.options.cors),
            allow_methods=["*"],
            allow_headers=["*"],
        )
    server.add_middleware(HostGuard, service=service)
    server.add_middleware(SecurityHeaders)
    if service.options.proxies:
        server.add_middleware(ProxyHeadersMiddleware, trusted_hosts=list(service.options.proxies))
    # added last = runs first
    service.monitor.listeners.append(service.publish_anomalies)
    return service


def routes_table() -> Table:
    """Return the table of all routes with their summaries."""
    server = FastAPI()
    connect_api(server, assemble_service(lambda store: Monitor({}, store=store)))
    rows = [
        (f"`{method.upper()} {path}`", operation["summary"])
        for path, operations in server.openapi()["paths"].items()
        for method, operation in operations.items()
    ]
    return Table(("route", "what it answers"), rows)
