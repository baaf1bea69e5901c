"""The commands `run` and `replay`: score a stream or a file without the page."""

from __future__ import annotations

import contextlib
import json
import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from redline.api.documents import anomaly_document
from redline.api.server import build_server, listen, serve
from redline.api.service import Service, assemble_service, server_options
from redline.cli.client import fetch_json
from redline.cli.errors import usage_errors
from redline.cli.output import anomaly_line, print_status, progress_bar
from redline.detection.model_file import Model, read_model
from redline.detection.trained import register_model
from redline.engine.feed import Feed, MonitoredStream
from redline.engine.monitor import Limits, Monitor
from redline.engine.results import Anomaly, Batch
from redline.settings import (
    ServerSettings,
    Settings,
    import_settings,
    load_server_settings,
    read_settings_tables,
    validate_settings,
)
from redline.sources.csv import read_csv
from redline.sources.directory import SeriesDirectory
from redline.sources.machine import ThisMachine
from redline.sources.pushed import THIS_MACHINE, validate_source_name
from redline.sources.recording import Columns, Recording
from redline.storage.opening import open_database
from redline.storage.retention import Retention
from redline.storage.waiting import open_when_room
from streams import STREAMS, UNKNOWN_PRESET, Stream

CHUNK_STEPS = 2_000  # steps taken and scored at once

PrintAnomaly = Callable[[Feed, Anomaly], None]


class RunPlan(NamedTuple):
    """The stream of a settings file, and the settings it runs under."""

    stream: Stream | None  # None: programs push its points
    name: str
    first: int  # the step it begins at
    settings: Settings
    own_clock: bool = False  # its steps come in real time
    features: tuple[str, ...] = ()  # of a pushed stream


class Tally:
    """The counts of a run so far."""

    def __init__(self) -> None:
        self.rows = 0
        self.anomalies = 0
        self.alarms = 0

    def add(self, rows: int, anomalies: Iterable[Anomaly]) -> None:
        """Count one chunk of rows and its anomalies."""
        self.rows += rows
        for anomaly in anomalies:
            self.anomalies += 1
            self.alarms += int(anomaly.alarm)


def run_settings_file(
    config: Path,
    csv: Path | None,
    steps: int | None,
    show: PrintAnomaly,
    options: Mapping[str, str | None],
) -> None:
    """Run the stream of a settings file.

    A recording runs to its end and a simulated stream for `steps`, both at full speed; everything
    else runs live, with the API, until Ctrl-C.

    Args:
        csv: path of the recording, instead of the one in the settings file.
        options: server settings of the command line, None where absent.
    """
    text = config.read_bytes()
    with usage_errors():
        source, settings = import_settings(text)
        plan = plan_run(source, settings, config, csv)
    if isinstance(plan.stream, Recording) or (steps and not plan.own_clock):
        started = time.perf_counter()
        *_, tally = score_plan(plan, steps or None, show)
        print_status(tally_sentence(tally, time.perf_counter() - started))
        return
    with usage_errors():
        server = load_server_settings(options, read_settings_tables(text).get("server"))
    run_live(plan, server, show)


def run_model(
    path: Path,
    learns: bool,
    csv: Path | None,
    show: PrintAnomaly,
    options: Mapping[str, str | None],
) -> None:
    """Score with a trained model: a file at full speed, else what programs push, with the API.

    Args:
        learns: whether it goes on learning.
        options: server settings of the command line, None where absent.
    """
    with usage_errors():
        plan = plan_model(read_model(path), learns, csv)
    if plan.stream is not None:
        started = time.perf_counter()
        *_, tally = score_plan(plan, None, show)
        print_status(tally_sentence(tally, time.perf_counter() - started))
        return
    with usage_errors():
        server = load_server_settings(options)
    run_live(plan, server, show)


def plan_model(model: Model, learns: bool, csv: Path | None) -> RunPlan:
    """Return what a model scores: the columns of a file by its features' names, or a source.

    Raises:
        ValueError: the file lacks a feature of the model, or the model cannot be frozen.
    """
    settings = replace(model.settings, detector=register_model(model, learns))
    if csv is None:
        validate_source_name(model.source, model.names)
        return RunPlan(None, model.source, 0, settings, own_clock=True, features=model.names)
    recording = read_csv(csv)
    columns = recording.columns
    by_name = dict(zip(recording.names, columns.features))
    missing = [name for name in model.names if name not in by_name]
    if missing:
        raise ValueError(
            f"{csv}: wanted the columns {', '.join(model.names)}, which the model was trained on; "
            f"missing {', '.join(missing)}"
        )
    wanted = tuple(by_name[name] for name in model.names)
    if wanted != columns.features:
        recording = read_csv(csv, replace(columns, features=wanted, names=(), guess=""))
    return RunPlan(recording, recording.title, 0, settings)


def plan_run(
    source: Mapping[str, Any], settings: Settings, config: Path, csv: Path | None
) -> RunPlan:
    """Return the stream of the table [source], at its first step, with its settings.

    A name that is neither a file's, a simulated stream's nor this machine's is a pushed stream.

    Raises:
        ValueError: the table is incomplete, its name is reserved, or its file does not exist.
    """
    name = source.get("stream")
    first = source.get("first", 0)
    if not isinstance(name, str) or not name or not isinstance(first, int) or first < 0:
        raise ValueError(
            f"[source]: wanted a stream by name and first, its first step; came {dict(source)!r}"
        )
    if "csv" in source or csv:
        recording = open_recording(source, config, csv)
        recording.take(first)
        return RunPlan(recording, name, first, settings)
    if name in STREAMS:
        injections = [(i["step"], i["kind"], i["size"]) for i in source.get("injections", [])]
        stream = STREAMS[name](source.get("seed", 0), source.get("rate", 0.01), injections)
        stream.skip(first)
        return RunPlan(stream, name, first, settings)
    if name == THIS_MACHINE:
        return RunPlan(ThisMachine(), name, 0, settings, own_clock=True)
    features = tuple(source.get("features", ())) or ("value",)
    validate_source_name(name, features)
    return RunPlan(None, name, 0, settings, own_clock=True, features=features)


def open_recording(source: Mapping[str, Any], config: Path, csv: Path | None) -> Recording:
    """Read a file with the columns that the table [source] names.

    Without `csv`, the path in the table is tried relative to the working directory, then to the
    settings file.
    """
    path = csv or Path(source["csv"])
    if not csv and not path.exists():
        path = config.parent / path
    if not path.exists():
        raise ValueError(
            f"[source] csv: there is no file {source.get('csv')!r} here or beside {config}; "
            "say where it is with --csv"
        )
    if "features" not in source:
        return read_csv(path)
    columns = Columns(
        source.get("time") or None,
        tuple(source["features"]),
        source.get("label") or None,
        source.get("clock") or None,
        source.get("stamps", ""),
    )
    return read_csv(path, columns)


def score_plan(plan: RunPlan, steps: int | None, show: PrintAnomaly) -> Iterator[Tally]:
    """Score steps at full speed, with the same scores as live; yield the counts after each chunk.

    Without `steps`, to the end of the stream. The counts are also yielded before the first chunk.
    """
    stream = plan.stream
    assert stream is not None, "a pushed stream is scored live only"
    feed = Feed(plan.name, stream, plan.own_clock, applied=plan.settings)
    feed.tape = feed.empty_tape(plan.first)
    tally = Tally()
    yield tally
    while steps is None or tally.rows < steps:
        wanted = CHUNK_STEPS if steps is None else min(CHUNK_STEPS, steps - tally.rows)
        chunk = stream.take(wanted)
        rows = len(chunk.time)
        if not rows:
            return
        feed.append(chunk, time.time())
        feed.catch_up(feed.applied_track, rows)
        batches, _ = feed.outbox.flush(0.0, force=True)
        anomalies = [anomaly for batch in batches for anomaly in batch.anomalies]
        for anomaly in anomalies:
            show(feed, anomaly)
        tally.add(rows, anomalies)
        yield tally


def tally_sentence(tally: Tally, seconds: float) -> str:
    """Return the counts and the speed of a run in one sentence."""
    pace = tally.rows / max(seconds, 1e-9)
    return (
        f"{tally.rows:,} steps, {tally.anomalies:,} anomalies, {tally.alarms:,} alarms "
        f"({pace:,.0f} steps a second)"
    )


def make_printer(as_json: bool, alarms_only: bool) -> PrintAnomaly:
    """Return a function that prints an anomaly as the API describes it."""

    def show(feed: Feed, anomaly: Anomaly) -> None:
        if alarms_only and not anomaly.alarm:
            return
        document = anomaly_document(feed.stream.names, feed.stream.units, feed.name, anomaly)
        text = json.dumps(without_nan(document), ensure_ascii=False)
        print(text if as_json else anomaly_line(document), flush=True)

    return show


def without_nan(document: Mapping[str, Any]) -> dict[str, Any]:
    """Replace NaN, which JSON lacks, by None."""
    return {
        name: None if isinstance(value, float) and math.isnan(value) else value
        for name, value in document.items()
    }


def run_live(plan: RunPlan, server: ServerSettings, show: PrintAnomaly) -> None:
    """Run until Ctrl-C with the API; print the anomalies as they are committed."""
    with usage_errors():
        options = server_options(server)
    with contextlib.ExitStack() as stack:
        sock = stack.enter_context(contextlib.closing(listen(server.host, server.port)))
        store = None
        if server.db:
            keep = Retention.from_settings(server)
            store = open_when_room(lambda: open_database(server.db, keep), print_status)
            stack.callback(store.close)
        streams = {}
        if plan.stream is not None:
            streams[plan.name] = MonitoredStream(plan.stream, plan.own_clock)
        limits = Limits.from_settings(server)
        with usage_errors():
            directory = SeriesDirectory.from_settings(server)
            service = assemble_service(
                lambda store: Monitor(
                    streams,
                    store=store,
                    limits=limits,
                    directory=directory,
                    source_preset=UNKNOWN_PRESET,
                ),
                store,
                options,
                server.alerts or None,
            )
        prepare_feed(service.monitor, plan)
        service.monitor.listeners.append(
            lambda batches, committed: print_batches(service, batches, show)
        )
        print_status(live_sentence(plan, f"http://{server.host}:{server.port}"))
        serve(build_server(service), sock, service)


def live_sentence(plan: RunPlan, url: str) -> str:
    """Say what runs, where its points come from if programs push them, and where the API is."""
    end = f"the API is at {url}/docs (Ctrl-C ends it)"
    if plan.stream is not None:
        return f"Redline runs {plan.name}; {end}"
    return (
        f"Redline waits for points of {plan.name} ({', '.join(plan.features)}), which is not a "
        f"simulated stream: push them to {url}/api/submit; {end}"
    )


def prepare_feed(monitor: Monitor, plan: RunPlan) -> None:
    """Apply the settings of the file to the stream, whatever the store holds."""
    if plan.stream is None and plan.name not in monitor.feeds:
        monitor.add_source(plan.name, plan.features)
    feed = monitor.feeds[plan.name]
    if not plan.own_clock:
        feed.tape = feed.empty_tape(plan.first)
    feed.applied = plan.settings
    if feed.ready:
        return

    # The store is read later and brings its own settings: apply those of the file once, right
    # after that, so that settings changed through the API later are kept.
    pending = [plan.settings]

    def apply_once(_: Iterable[Batch], committed: bool) -> None:
        if pending and feed.ready:
            monitor.apply(plan.name, pending.pop())

    monitor.listeners.append(apply_once)


def print_batches(service: Service, batches: Iterable[Batch], show: PrintAnomaly) -> None:
    """Print the anomalies of the live batches."""
    for batch in batches:
        for anomaly in batch.anomalies if batch.live else ():
            show(service.monitor.feeds[batch.name], anomaly)


def replay_recording(
    csv: Path, config: Path | None, stream: str | None, url: str, show: PrintAnomaly
) -> None:
    """Score a CSV file at full speed under the settings of a file or of a server's stream."""
    with usage_errors():
        if config and not stream:
            _, settings = import_settings(config.read_bytes())
        elif stream and not config:
            applied = fetch_json(url, f"/api/streams/{quote(stream)}")["applied"]
            settings = validate_settings(Settings(**applied))
        else:
            raise ValueError(
                "say under which settings: either --config FILE or --stream NAME of a "
                "running server"
            )
        recording = read_csv(csv)
    plan = RunPlan(recording, recording.title, 0, settings)
    started = time.perf_counter()
    steps = (
        (tally.rows, f"{tally.anomalies:,} anomalies", tally)
        for tally in score_plan(plan, recording.total, show)
    )
    *_, tally = progress_bar(steps, recording.total, sys.stderr)
    print_status(tally_sentence(tally, time.perf_counter() - started))
