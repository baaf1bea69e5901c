"""Prints what each limit and checksum costs: the same requests to two servers, one without it.

`python -m bench.hardening` (about twelve minutes), `--only checksums` for one row. Cost is the
share of processor time a server spends more on a request; the goal is 10 % at most for each.
"""

from __future__ import annotations

import argparse
import itertools
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench.browser import ROOT, free_port
from bench.pushers import START
from redline.api import connections, guard, headers, server
from redline.sources import payload
from redline.storage import checksums
from redline.storage.sqlite import SqliteStore

GOAL = 0.10  # of the processor time
WARM_UP = 20  # requests to each server before those that count
SECONDS = 15.0  # that two servers are compared
AT_REST = 0.1  # of a core, at most, that a server at rest spends
TICK_STEPS = 5  # new in a redraw, as the page's timer finds them
WHOLE = "nothing"  # is left out
CONFIG = '[source]\nstream = "oven"\n[settings]\n'


# --- what can be left out


async def pass_on(self: Any, scope: Any, receive: Any, send: Any) -> None:
    """Take the place of a guard: let every request through."""
    scope.setdefault("state", {}).update(who="local", client="address 127.0.0.1")
    await self.app(scope, receive, send)


def replace(owner: Any, name: str, value: Any) -> None:
    """Put something else in the place of an attribute."""
    assert hasattr(owner, name), f"{owner} has no {name} any more: this bench measures nothing"
    setattr(owner, name, value)


def leave_out_connection_limits() -> None:
    replace(server, "limited_protocol", lambda registry: connections.HttpToolsProtocol)


def leave_out_httptools() -> None:
    """Parse with h11 instead, without limits."""
    from uvicorn.protocols.http.h11_impl import H11Protocol

    replace(server, "limited_protocol", lambda registry: H11Protocol)


def leave_out_guards() -> None:
    replace(guard.HostGuard, "__call__", pass_on)
    replace(guard.RequestGuard, "__call__", pass_on)


def leave_out_security_headers() -> None:
    replace(headers.SecurityHeaders, "__call__", pass_on)


def leave_out_part_counts() -> None:
    replace(payload, "refuse_many_items", lambda body: None)


def leave_out_checksums() -> None:
    replace(checksums, "row_checksum", lambda table, row: 0)


def leave_out_file_comparison() -> None:
    replace(SqliteStore, "refuse_replaced", lambda self: None)


def leave_out_callback_guard() -> None:
    from redline.page.callback_guard import CallbackGuard

    replace(CallbackGuard, "__call__", pass_on)


def leave_out_all() -> None:
    for name, measure in MEASURES.items():
        if name not in (CONTROL, PARSER, TOGETHER):
            measure.leave_out()


SUBMIT = "submit, 10,000 points"
POINT = "submit, 1 point"
READ = "read, 10,000 points"
REDRAW = "redraw of the page"
API = (SUBMIT, POINT, READ)
WORKLOADS = (*API, REDRAW)


class Measure(NamedTuple):
    """A limit or checksum."""

    title: str
    leave_out: Callable[[], None]
    workloads: tuple[str, ...] = WORKLOADS  # that it is part of


CONTROL = "control"
PARSER = "parser"
TOGETHER = "together"
MEASURES = {
    CONTROL: Measure("nothing, twice: how exact this table is", lambda: None),
    PARSER: Measure("httptools with its limits, instead of h11", leave_out_httptools),
    "connections": Measure("limits of connections, headers, bodies", leave_out_connection_limits),
    "guards": Measure("host, token, rate and size of a request", leave_out_guards),
    "headers": Measure("security headers", leave_out_security_headers),
    "parts": Measure("counting the parts of a body", leave_out_part_counts, (SUBMIT, POINT)),
    "checksums": Measure("checksums of rows", leave_out_checksums, API),
    "file": Measure(
        "comparing the file at each commit", leave_out_file_comparison, (SUBMIT, POINT)
    ),
    "callbacks": Measure("guard of the page's callbacks", leave_out_callback_guard, (REDRAW,)),
    TOGETHER: Measure("all of these, but the parser", leave_out_all),
}


# --- the servers


class Variant(NamedTuple):
    """A running server."""

    port: int
    tasks: Path  # a folder for each of its threads

    @property
    def seconds(self) -> float:
        """Return the processor time that its threads have spent, exact while they wait."""
        total = 0
        for task in self.tasks.iterdir():
            with suppress(OSError):  # a thread that ended
                total += int((task / "schedstat").read_text().split()[0])
        return total / 1e9


@contextmanager
def variant(without: str, page: bool) -> Iterator[Variant]:
    """Run the service, or the page, without one of the measures."""
    with tempfile.TemporaryDirectory(prefix="redline-") as name:
        folder = Path(name)
        port = free_port()
        (folder / "push.toml").write_text(CONFIG)
        words = ["--no-browser"] if page else ["run", "--config", f"{folder}/push.toml"]
        words += ["--db", f"{folder}/redline.db", "--port", f"{port}", "--rate-limit", "0"]
        program = [sys.executable, "-m", "bench.hardening", "--serve", without, "--", *words]
        child = subprocess.Popen(
            program, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            wait_for(port, child)
            yield Variant(port, Path(f"/proc/{child.pid}/task"))
        finally:
            child.terminate()
            child.wait(20)


def wait_for(port: int, child: subprocess.Popen[bytes]) -> None:
    """Wait until a server answers."""
    from bench.probe import PageClient

    until = time.monotonic() + 30
    while True:
        try:
            PageClient(port).get("/health")
            return
        except OSError:
            assert child.poll() is None and time.monotonic() < until, "the server does not start"
            time.sleep(0.05)


def wait_for_rest(server: Variant) -> None:
    """Wait until a server has done the work of its start: it spends little by itself."""
    spent = 1.0
    while spent > AT_REST:
        before = server.seconds
        time.sleep(1.0)
        spent = server.seconds - before


def serve_without(name: str, words: Sequence[str]) -> None:
    """Run the service or the page in this process, without one of the measures."""
    if name != WHOLE:
        MEASURES[name].leave_out()
    if words[0] == "run":
        from redline.cli.program import run_program

        sys.exit(run_program(words))
    import app
    from redline.engine.monitor import Monitor

    # the simulated streams stand still after their past: each redraw is the same
    replace(Monitor, "_take_due", lambda self, feed, elapsed: None)
    app.main(list(words))


# --- the requests


def requests_of(workload: str, port: int) -> Callable[[], None]:
    """Return a function that sends the next request of a workload and reads its answer."""
    from bench.probe import PageClient, Redraws

    if workload == REDRAW:
        redraws = Redraws(port)

        def redraw() -> None:
            redraws.browser.held["seen"]["data"]["end"] -= TICK_STEPS
            redraws.tick()

        return redraw
    client = PageClient(port)
    size = 1 if workload == POINT else 10_000
    values = np.random.default_rng(1).normal(size=size).round(4).tolist()
    numbers = itertools.count()

    def push() -> None:
        first = START + size * next(numbers)
        body = {"source": "oven", "time": [first + i for i in range(size)], "value": values}
        assert client.post("/api/submit", body).status_code == 200

    def read() -> None:
        assert client.get("/api/data/oven?limit=10000").status_code == 200

    if workload == READ:
        push()
        push()
        return read
    return push


def costs(measure: str, workload: str) -> float:
    """Return by what share a request takes more processor time with a measure than without.

    The two servers answer in turns, so that what else the machine does touches both.
    """
    with ExitStack() as stack:
        servers = [
            stack.enter_context(variant(name, workload == REDRAW)) for name in (WHOLE, measure)
        ]
        sends = [requests_of(workload, server.port) for server in servers]
        for send in sends * WARM_UP:
            send()
        for server in servers:
            wait_for_rest(server)
        spent: tuple[list[float], list[float]] = ([], [])  # seconds of processor time of requests
        until = time.monotonic() + SECONDS
        while time.monotonic() < until:
            for server, send, taken in zip(servers, sends, spent):
                before = server.seconds
                send()
                taken.append(server.seconds - before)
    return float(np.median(spent[0]) / np.median(spent[1])) - 1


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.hardening", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--only", choices=MEASURES, help="one row of the table")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("words", nargs="*", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.serve:
        serve_without(asked.serve, asked.words)
    print(f"| share of the processor time | {' | '.join(WORKLOADS)} | goal | |")
    print("|---" * (len(WORKLOADS) + 3) + "|", flush=True)
    missed = 0
    for name, measure in MEASURES.items():
        if asked.only not in (None, name):
            continue
        found = {each: costs(name, each) for each in WORKLOADS if each in measure.workloads}
        cells = [f"{100 * found[each]:+.0f} %" if each in found else "" for each in WORKLOADS]
        met = max(found.values()) <= GOAL
        judged = name not in (CONTROL, TOGETHER)
        missed += judged and not met
        verdict = f"<= {100 * GOAL:.0f} % | {'met' if met else 'missed'}" if judged else " | "
        print(f"| {measure.title} | {' | '.join(cells)} | {verdict} |", flush=True)
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
