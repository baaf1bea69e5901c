"""`run` and `replay`: streams without a page."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import time
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple, TextIO
from urllib.parse import quote

from detectors import DETECTORS
from redline.access.authorizer import exposure_problem
from redline.access.hosts import Hosts
from redline.access.tokens import load_tokens
from redline.api.documents import anomaly_document
from redline.api.server import build_server, listen, serve
from redline.api.service import ServerOptions, Service, assemble_service
from redline.cli.command import UsageError, anomaly_line, print_status, usage_errors
from redline.cli.requests import client_arguments, fetch_json
from redline.engine.feed import Feed
from redline.engine.monitor import Limits, Monitor
from redline.engine.results import Anomaly, Batch
from redline.settings import SETTINGS_BY_NAME, Settings, import_settings, validate_settings
from redline.sources.csv import read_csv
from redline.sources.machine import ThisMachine
from redline.sources.recording import Columns, Recording
from redline.storage import sqlite
from streams import STREAMS, Stream

MACHINE_STREAM = "this-machine"
PIECE_STEPS = 2_000  # steps taken and scored at once
STREAM_SETTINGS = tuple(
    asdict(Settings())
)  # the settings a stream runs under; the others are the program's
ADDRESS = ("host", "allow-host", "port")
KEEPING = ("db", "retention-days", "retention-rows", "create", "streams")
SERVER_SETTINGS = (*ADDRESS, *KEEPING, "alerts", "tokens", "cors", "body-limit", "rate-limit")


class RunPlan(NamedTuple):
    """What a settings file asks for."""

    stream: Stream
    name: str
    first: int  # the step it begins at
    settings: Settings
    real: bool  # keeps its own clock
    pushed: tuple[str, ...] = ()  # features, of a stream that programs push into


def run_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config", required=True, metavar="FILE", help="what Export on the page wrote, or `init`"
    )
    parser.add_argument(
        "--csv",
        metavar="PATH",
        help="where the CSV file is (default: where the settings file says)",
    )
    parser.add_argument(
        "--steps",
        type=int,
        metavar="N",
        help="of a simulated stream: so many at full speed, then end (default: live, without end)",
    )
    parser.add_argument(
        "--json", action="store_true", help="an anomaly a line as JSON (default: as text)"
    )
    parser.add_argument(
        "--alarms", action="store_true", help="only those on which somebody is called"
    )
    for name in SERVER_SETTINGS:
        row = SETTINGS_BY_NAME[name]
        action = "append" if isinstance(row.default, tuple) else "store"
        words = f"{row.help} (default: {None if row.default == () else row.default})"
        parser.add_argument(f"--{name}", metavar=name.upper(), action=action, help=words)


def run_run(args: argparse.Namespace) -> None:
    text = Path(args.config).read_text(encoding="utf-8")
    with usage_errors():
        source, settings = import_settings(text)
        plan = plan_run(source, validate_settings(settings, tuple(DETECTORS)), args)
    show = make_printer(args, sys.stdout)
    if isinstance(plan.stream, Recording) or (args.steps and not plan.real):
        steps = args.steps or SETTINGS_BY_NAME["window"].high * 10**9
        print_status(tally_sentence(score_plan(plan, int(steps), show), time.perf_counter()))
    else:
        run_live(plan, args, show)


def plan_run(source: Mapping[str, Any], settings: Settings, args: argparse.Namespace) -> RunPlan:
    """The stream that a settings file names, where it names it; ValueError says what is missing."""
    name = source.get("stream")
    first = source.get("first", 0)
    if not isinstance(name, str) or not name or not isinstance(first, int) or first < 0:
        raise ValueError(
            f"[source]: wanted a stream by name and first, its first step; came {dict(source)!r}"
        )
    if "csv" in source or args.csv:
        recording = open_recording(source, args)
        recording.take(first)
        return RunPlan(recording, name, first, settings, False)
    if name in STREAMS:
        injections = [(i["step"], i["kind"], i["size"]) for i in source.get("injections", [])]
        stream = STREAMS[name](source.get("seed", 0), source.get("rate", 0.01), injections)
        stream.skip(first)
        return RunPlan(stream, name, first, settings, False)
    if name == MACHINE_STREAM:
        return RunPlan(ThisMachine(), name, 0, settings, True)
    return RunPlan(
        ThisMachine(), name, 0, settings, True, tuple(source.get("features", ("value",)))
    )


def open_recording(source: Mapping[str, Any], args: argparse.Namespace) -> Recording:
    """The file as it was read on the page: where --csv says, else by its name here or beside the
    settings.
    """
    path = Path(args.csv or source["csv"])
    if not args.csv and not path.exists():
        path = Path(args.config).parent / path
    if not path.exists():
        raise ValueError(
            f"[source] csv: there is no file {source.get('csv')!r} here or beside "
            f"{args.config}; say where it is with --csv"
        )
    if "features" not in source:
        return read_csv(path)
    parts = {name: source.get(name) or None for name in ("time", "label", "clock")}
    return read_csv(
        path,
        Columns(
            parts["time"],
            tuple(source["features"]),
            parts["label"],
            parts["clock"],
            source.get("stamps", ""),
        ),
    )


class Tally:
    """What a run has seen so far."""

    def __init__(self) -> None:
        self.rows = self.anomalies = self.alarms = 0

    def add(self, rows: int, anomalies: Iterable[Anomaly]) -> None:
        self.rows += rows
        for a in anomalies:
            self.anomalies = self.anomalies + 1
            self.alarms = self.alarms + int(a.alarm)


Show = Callable[[Feed, Anomaly], None]


def score_plan(plan: RunPlan, steps: int, show: Show) -> Iterator[Tally]:
    """Takes and scores steps at full speed, exactly as the loop would; yields after each piece."""
    feed = Feed(plan.name, plan.stream, plan.real, applied=plan.settings)
    tally = Tally()
    left = steps
    feed.tape = feed.empty_tape(plan.first)
    while left and len((chunk := plan.stream.take(min(PIECE_STEPS, left))).time):
        feed.append(chunk, time.time())
        feed.catch_up(feed.applied_track, len(chunk.time))
        anomalies = [a for batch in feed.outbox.flush(0.0, force=True)[0] for a in batch.anomalies]
        for a in anomalies:
            show(feed, a)
        tally.add(len(chunk.time), anomalies)
        left -= len(chunk.time)
        yield tally


def tally_sentence(tallies: Iterable[Tally], began: float) -> str:
    """Runs to the end; what came of it, in a sentence."""
    tally = Tally()
    for each in tallies:
        tally = each
    pace = tally.rows / max(time.perf_counter() - began, 1e-9)
    return (
        f"{tally.rows:,} steps, {tally.anomalies:,} anomalies, {tally.alarms:,} alarms "
        f"({pace:,.0f} steps a second)"
    )


def make_printer(args: argparse.Namespace, file: TextIO) -> Show:
    """Prints an anomaly as the API tells it."""

    def show(feed: Feed, a: Anomaly) -> None:
        if args.alarms and not a.alarm:
            return
        told = anomaly_document(feed.stream.names, feed.stream.units, feed.name, a)
        print(
            anomaly_line(told)
            if not args.json
            else json.dumps(without_nan(told), ensure_ascii=False),
            file=file,
            flush=True,
        )

    return show


def without_nan(told: Mapping[str, Any]) -> dict[str, Any]:
    """JSON knows no NaN."""
    return {name: None if value != value else value for name, value in told.items()}


def run_live(plan: RunPlan, args: argparse.Namespace, show: Show) -> None:
    """Runs until Ctrl-C, with the API on; what is found is printed as it is committed."""
    with usage_errors():
        value = serving_options(args)
        options = run_options(value)
    with contextlib.ExitStack() as held:
        sock = held.enter_context(contextlib.closing(listen(value["host"], value["port"])))
        kept = (
            sqlite.SqliteStore(
                value["db"],
                sqlite.Retention(value["retention-days"], value["retention-rows"]),
            )
            if value["db"]
            else None
        )
        held.callback(kept.close if kept else lambda: None)
        streams = {} if plan.pushed else {plan.name: (plan.stream, plan.real)}
        limits = Limits(bool(value["create"]), value["streams"])
        with usage_errors():
            service = assemble_service(
                lambda store: Monitor(streams, store=store, limits=limits),
                kept,
                options,
                value["alerts"] or None,
            )
        prepare_feed(service, plan)
        service.monitor.listeners.append(
            lambda batches, committed: print_batches(service, batches, show)
        )
        print_status(
            f"Redline runs {plan.name}; the API is at "
            f"http://{value['host']}:{value['port']}/docs (Ctrl-C ends it)"
        )
        serve(build_server(service), sock)


def prepare_feed(service: Service, plan: RunPlan) -> None:
    """The stream under the file's settings, whatever the store remembers."""
    monitor = service.monitor
    if plan.pushed and plan.name not in monitor.feeds:
        monitor.add_source(plan.name, plan.pushed)
    feed = monitor.feeds[plan.name]
    if not plan.real:
        feed.tape = feed.empty_tape(plan.first)
    feed.applied = plan.settings
    if feed.ready:
        return

    waiting = [
        plan.settings
    ]  # until the store has said what it remembers; who tunes the stream later is not overruled
    monitor.listeners.append(
        lambda batches, committed: (
            monitor.apply(plan.name, waiting.pop()) if waiting and feed.ready else None
        )
    )


def print_batches(service: Service, batches: Iterable[Batch], show: Show) -> None:
    for batch in batches:
        for a in batch.anomalies if batch.live else ():
            show(service.monitor.feeds[batch.name], a)


def serving_options(args: argparse.Namespace) -> dict[str, Any]:
    """Where and for whom to serve: the command line, else the table [server] of the settings file,
    else the default.
    """
    said = read_server_table(Path(args.config).read_text(encoding="utf-8"))
    given = {name: getattr(args, name.replace("-", "_")) for name in SERVER_SETTINGS}
    value = {
        name: given[name]
        if given[name] is not None
        else said.get(name, SETTINGS_BY_NAME[name].default)
        for name in SERVER_SETTINGS
    }
    return {
        name: whole_number(name, each) if isinstance(SETTINGS_BY_NAME[name].default, int) else each
        for name, each in value.items()
    }


def run_options(value: Mapping[str, Any]) -> ServerOptions:
    """What the API's guard goes by."""
    tokens = load_tokens(value["tokens"] or None, os.environ.get("REDLINE_TOKEN"))
    if refused := exposure_problem(value["host"], tokens):
        raise UsageError(refused)
    hosts = Hosts.given(value["host"], value["allow-host"])
    origins = tuple((value["cors"] or "").split())
    return ServerOptions(tokens, origins, value["body-limit"] * 2**20, value["rate-limit"], hosts)


def whole_number(name: str, value: Any) -> int:
    row = SETTINGS_BY_NAME[name]
    if not str(value).isdecimal() or not row.low <= int(value) <= row.high:
        raise UsageError(
            f"--{name}: wanted {row.low:,.0f} to {row.high:,.0f} {row.unit}; came {value!r}"
        )
    return int(value)


def read_server_table(text: str) -> dict[str, Any]:
    table = tomllib.loads(text).get("server", {})
    strange = set(table) - set(SERVER_SETTINGS)
    if strange:
        raise UsageError(
            f"settings file, [server]: unknown setting {min(strange)!r}; known are "
            f"{', '.join(SERVER_SETTINGS)}"
        )
    return dict(table)


def replay_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "csv",
        metavar="FILE",
        help="a CSV file: one row a step, a column of time stamps, columns of numbers",
    )
    parser.add_argument("--config", metavar="FILE", help="under the settings of this file")
    parser.add_argument(
        "--stream",
        metavar="NAME",
        help="under the settings that this stream of a running server has",
    )
    parser.add_argument(
        "--json", action="store_true", help="an anomaly a line as JSON (default: as text)"
    )
    parser.add_argument(
        "--alarms", action="store_true", help="only those on which somebody is called"
    )
    client_arguments(parser)


def run_replay(args: argparse.Namespace) -> None:
    with usage_errors():
        if (args.config is None) == (args.stream is None):
            raise ValueError(
                "say under which settings: either --config FILE or --stream NAME of a "
                "running server"
            )
        settings = (
            import_settings(Path(args.config).read_text(encoding="utf-8"))[1]
            if args.config
            else None
        )
        if settings is None:
            settings = Settings(**fetch_json(args, f"/api/streams/{quote(args.stream)}")["applied"])
        recording = read_csv(Path(args.csv))
    plan = RunPlan(
        recording, recording.title, 0, validate_settings(settings, tuple(DETECTORS)), False
    )
    began = time.perf_counter()
    print_status(
        tally_sentence(
            progress_bar(
                score_plan(plan, recording.total, make_printer(args, sys.stdout)),
                recording.total,
                sys.stderr,
            ),
            began,
        )
    )


def progress_bar(tallies: Iterable[Tally], total: int, file: TextIO) -> Iterator[Tally]:
    """The same, with a bar on a terminal."""
    for tally in tallies:
        if file.isatty():
            filled = 30 * tally.rows // max(total, 1)
            file.write(
                f"\r\033[K[{'█' * filled}{'·' * (30 - filled)}] {tally.rows:,} of "
                f"{total:,}, {tally.anomalies:,} anomalies"
            )
            file.flush()
        yield tally
    if file.isatty():
        file.write("\r\033[K")
