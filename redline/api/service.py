"""The service: the monitor with its store, incidents and labels, behind the routes and the page."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from redline.access.authorizer import Authorizer, RateLimiter, exposure_problem
from redline.access.hosts import Hosts, parse_proxies
from redline.access.tokens import AuthError, Tokens, load_tokens
from redline.api.connections import (
    MAX_PAGE_BODY,
    BodyBudget,
    ConnectionLimits,
    ConnectionRegistry,
)
from redline.api.documents import anomaly_document, anomaly_event, stored_anomaly
from redline.api.doors import Doors
from redline.api.problems import Problem, field_error
from redline.api.score_writer import ScoreWriter, parse_selection, parse_write_address
from redline.api.scraper import Scraper, parse_targets
from redline.api.sse import EventFilter, EventHub, ServerEvent
from redline.api.topic_feeder import TopicFeeder
from redline.engine.feed import Feed
from redline.engine.fleet.ranking import NameIndex
from redline.engine.fleet.settings_rules import RulePersistence
from redline.engine.fleet.swim_lanes import SwimLanes
from redline.engine.maintenance import MaintenanceWindow, WindowPersistence
from redline.engine.monitor import Monitor
from redline.engine.results import Batch, ResultStore
from redline.engine.wording import SEVERITIES
from redline.feedback.labels import LabelPersistence, LabelRegistry, merge_labels
from redline.incidents.channels_file import NotificationPlan, read_channels_file
from redline.incidents.group_hold import GroupHold, HeldAlarms
from redline.incidents.incident import Change
from redline.incidents.joint import GroupPersistence, JointIncidents
from redline.incidents.notify import DeliveryRecord, Notifier, NotifierContext
from redline.incidents.recorder import IncidentRecorder
from redline.incidents.registry import Incidents, StoredIncidents
from redline.settings import ServerSettings
from redline.sources.compression import MISSING_SNAPPY, has_snappy
from redline.sources.consumer import ConsumerOptions
from redline.sources.kafka import topic_options
from redline.sources.mqtt import mqtt_options
from redline.sources.payload import cut_text
from redline.sources.redis_streams import stream_options
from redline.sources.selectors import parse_selectors
from redline.storage.reading import AnomalyQuery, StoredPoints
from redline.storage.sql_store import SqlStore

API_VERSION = "0.1.0"
MAX_BIG_BODIES = 2  # parsed at the same time; each takes several times its size while it is
RESTORE_TIMEOUT = 2.0  # seconds a request waits for the past of streams
MAX_STREAM_NAME = 8_000  # characters of a stream in an address: of a series, escaped
COMMIT_TIMEOUT = 30.0  # seconds a request waits for its commit before it is refused


class ServerOptions(NamedTuple):
    """The operator's options of the HTTP server."""

    tokens: Tokens = Tokens()
    cors: tuple[str, ...] = ()  # origins whose pages may send requests
    body: int = 32 * 2**20  # bytes of one request, at most
    rate: float = 1_000.0  # requests a second and client, 0 = no limit
    hosts: Hosts = Hosts()  # names that a Host header may carry
    connections: ConnectionLimits = ConnectionLimits()
    bodies: int = 128 * 2**20  # bytes of all bodies that are held at a time
    followers: int = 2_000  # streams of events open at once
    proxies: tuple[str, ...] = ()  # addresses whose X-Forwarded-For and -Proto are believed
    scrape: tuple[str, ...] = ()  # addresses of pages of metrics that are read
    scrape_interval: float = 15.0  # seconds
    remote_write: str = ""  # the address that scores are written to, "" = none
    remote_write_select: tuple[str, ...] = ()  # series whose scores are written always
    group_hold: float = 30.0  # seconds that alarms of series wait for others of their group
    brokers: tuple[ConsumerOptions, ...] = ()  # whose records are read


def server_options(
    settings: ServerSettings, environment: Mapping[str, str] = os.environ
) -> ServerOptions:
    """Return the access rules and limits of the API.

    Raises:
        ValueError: the tokens cannot be used, other machines could reach the server without a
            token, or a host name, the address of a proxy or what names a broker is not valid.
    """
    try:
        tokens = load_tokens(settings.tokens or None, environment.get("REDLINE_TOKEN"))
    except OSError as error:
        raise AuthError(f"--tokens {settings.tokens}: {error}") from None
    # a wrong one is refused before anything is opened
    parse_selectors(settings.select)
    parse_targets(settings.scrape)
    parse_selection(settings.remote_write_select)
    write_address = ""
    if settings.remote_write:
        write_address = parse_write_address(settings.remote_write)
        if not has_snappy():
            raise ValueError(MISSING_SNAPPY)
    if problem := exposure_problem(settings.host, tokens):
        raise AuthError(problem)
    return ServerOptions(
        tokens=tokens,
        cors=tuple((settings.cors or "").split()),
        body=settings.body_limit * 2**20,
        rate=settings.rate_limit,
        hosts=Hosts.from_options(settings.host, settings.allow_host),
        connections=ConnectionLimits(
            connections=settings.connections,
            per_client=settings.client_connections,
            header_seconds=settings.header_timeout,
            body_seconds=settings.body_timeout,
        ),
        bodies=settings.bodies * 2**20,
        followers=settings.followers,
        proxies=parse_proxies(settings.trust_proxy),
        scrape=settings.scrape,
        scrape_interval=settings.scrape_interval,
        remote_write=write_address,
        remote_write_select=settings.remote_write_select,
        group_hold=settings.group_hold,
        brokers=broker_options(settings, environment),
    )


def broker_options(
    settings: ServerSettings, environment: Mapping[str, str]
) -> tuple[ConsumerOptions, ...]:
    """Return the brokers that are read, as their settings name them, or raise ValueError."""
    readers = (topic_options, stream_options, mqtt_options)
    found = [read(settings, environment) for read in readers]
    return tuple(options for options in found if options is not None)


@dataclass
class Service:
    """The parts of a running Redline, put together by `assemble_service`."""

    monitor: Monitor
    recorder: IncidentRecorder
    store: SqlStore | None  # None = nothing outlives the program
    labels: LabelRegistry
    notifier: Notifier | None  # None = no channels and actions are set up
    options: ServerOptions
    joint: JointIncidents  # incidents of many series that began together
    hold: GroupHold | None = None  # alarms that wait for others of their group

    def __post_init__(self) -> None:
        self.began = time.time()
        self.rate_limiter = RateLimiter(self.options.rate)
        self.authorizer = Authorizer(self.options.tokens, self.options.cors)
        last_id = self.store.last_anomaly_id() if self.store else 0
        self.hub = EventHub(self._stored_events if self.store else None, last_id)
        self.connections = ConnectionRegistry(self.options.connections)
        one_client = max(MAX_PAGE_BODY, self.options.body)  # its largest body fits
        self.bodies = BodyBudget(max(self.options.bodies, one_client), one_client)
        series = self.monitor.series
        self.lanes = SwimLanes(series, NameIndex(series.directory))
        self.doors = Doors(self.monitor.series.directory)
        targets = parse_targets(self.options.scrape)
        self.scraper = Scraper(targets, self.options.scrape_interval, self.monitor, self.doors)
        self.feeders = [
            TopicFeeder(each, self.monitor, self.doors) for each in self.options.brokers
        ]
        self.score_writer = ScoreWriter(
            self.options.remote_write,
            self.incidents,
            self.monitor.series.directory,
            parse_selection(self.options.remote_write_select),
        )
        self.big_bodies = asyncio.Semaphore(MAX_BIG_BODIES)
        self.oversized = 0  # requests refused for their size
        self.wrong_hosts = 0  # requests refused for their Host header
        self.malformed = 0  # calls of the page's callbacks refused for a value

    @property
    def incidents(self) -> Incidents:
        """Return the incidents of all streams."""
        return self.recorder.incidents

    def close(self) -> None:
        """End the event streams, the notifications, the reading and the writing of scores."""
        self.hub.close()
        self.scraper.stop()
        for feeder in self.feeders:
            feeder.stop()
        self.score_writer.stop()
        if self.hold:
            self.hold.stop()
        if self.notifier:
            self.notifier.stop()

    def publish(self, changes: Sequence[Change]) -> None:
        """Pass a person's changes of incidents to the listeners."""
        self.recorder.publish(changes)

    def audit(self, who: str, what: str, stream: str | None, **detail: Any) -> None:
        """Write a line of the audit log: who changed what on which stream."""
        if self.store:
            self.store.record(who, what, stream, detail)

    def add_window(self, window: MaintenanceWindow) -> MaintenanceWindow:
        """Add a maintenance window, with a line in the audit log; return it with its id."""
        window = self.monitor.maintenance.add(window)
        span = {"start": window.start, "end": window.end}
        self.audit(window.who, "set a maintenance window", window.stream, id=window.id, **span)
        return window

    def remove_window(self, id: int, who: str) -> MaintenanceWindow:
        """Remove a maintenance window, with a line in the audit log; KeyError = there is none."""
        window = self.monitor.maintenance.remove(id)
        self.audit(who, "took a maintenance window back", window.stream, id=id)
        return window

    def record_forgotten(self, name: str) -> None:
        """End the live incident of a source that was forgotten, and write it to the audit log."""
        self.publish(self.incidents.reset_stream(name, time.time()))
        self.audit("redline", "forget", name)

    def publish_anomalies(self, batches: Sequence[Batch], committed: bool) -> None:
        """Publish every new anomaly as an event; the monitor calls it after each commit."""
        events = [
            anomaly_event(anomaly_document(batch.names, batch.units, batch.name, anomaly))
            for batch in batches
            if batch.live
            for anomaly in batch.anomalies
        ]
        if events:
            self.hub.publish(events)

    def _stored_events(self, wanted: EventFilter, after: int, most: int) -> list[ServerEvent]:
        """Return the wanted ones of the stored events after an id, `most` at most."""
        assert self.store is not None
        query = AnomalyQuery(
            streams=tuple(wanted.streams),
            after=after,
            severities=SEVERITIES[wanted.rank :] if wanted.rank else (),
            limit=most,
        )
        rows = self.store.anomalies(query)
        return [anomaly_event(stored_anomaly(self.monitor.describe, row)) for row in rows]

    def feed(self, name: str) -> Feed:
        """Return a stream's feed with its past restored; raise a 404 problem if there is none."""
        feed = self.monitor.find_feed(name)
        if feed is None:
            raise unknown_stream(name)
        self.wait_until_restored([feed])
        return feed

    def wait_until_restored(self, feeds: Sequence[Feed]) -> None:
        """Wait until the past of streams is restored from the store, RESTORE_TIMEOUT at most."""
        waiting = [feed for feed in feeds if not feed.ready and self.monitor.thread]
        for feed in waiting:
            self.monitor.request_track(feed.name, feed.applied)
        until = time.monotonic() + RESTORE_TIMEOUT
        while any(not feed.ready for feed in waiting) and time.monotonic() < until:
            time.sleep(0.005)

    def truth(self, feed: Feed, label: np.ndarray | None, time: np.ndarray) -> np.ndarray | None:
        """Return a stream's own labels merged with those that people gave.

        Args:
            feed: the stream.
            label: (n, features) its own, None = unknown.
            time: (n,) seconds since the epoch.
        """
        given = self.labels.of_stream(feed.name)
        return merge_labels(label, time, given, len(feed.stream.names)) if given else label

    def stored_points(self, name: str, until: float, limit: int) -> StoredPoints | None:
        """Return a stream's last stored points up to a time; None = none are stored."""
        return self.store.points(name, None, until, limit) if self.store else None


def unknown_stream(name: str) -> Problem:
    """Return the problem of a name that no stream has."""
    error = field_error("source", "the name of a stream", name)
    called = cut_text(repr(name))
    return Problem(404, f"no stream is called {called}; /api/streams lists them", [error])


def assemble_service(
    make_monitor: Callable[[ResultStore | None], Monitor],
    store: ResultStore | None = None,
    options: ServerOptions | None = None,
    alerts: str | None = None,
) -> Service:
    """Return a service around a monitor.

    Args:
        make_monitor: returns the monitor that commits to the given store.
        store: where results are stored; None = nowhere.
        options: the operator's options of the server.
        alerts: the path of the file of channels and actions.

    Raises:
        ChannelError: that file is wrong.
    """
    durable = store if isinstance(store, SqlStore) else None
    plan = NotificationPlan()
    secrets: frozenset[str] = frozenset()
    if alerts:
        plan, secrets = read_channels_file(Path(alerts).read_bytes())
    held: HeldAlarms = {}
    incidents = _restored_incidents(plan, durable, held)
    recorder = IncidentRecorder(incidents, durable)
    monitor = make_monitor(recorder if durable else store)
    monitor.listeners.append(recorder.on_batches)
    monitor.series.reports.followers.append(incidents.live_streams)
    if durable is not None:
        _restore_monitor(monitor, durable)
    labels = _restored_labels(durable)
    joint = _restored_groups(monitor, incidents, durable)
    recorder.listeners.append(joint.on_changes)
    limits = options or ServerOptions()
    notifier = None
    hold = None
    if plan.channels or plan.actions:
        context = NotifierContext(
            stream_info=incidents.stream_info,
            mark_notified=incidents.mark_notified,
            mark_group=joint.mark_notified,
            record=_audit_delivery(durable),
        )
        notifier = Notifier(plan, secrets, context)
        numbers = monitor.series.directory.numbers  # the series themselves are restored later
        hold = GroupHold(limits.group_hold, notifier, joint, incidents, held, numbers.__contains__)
        recorder.listeners.append(hold.on_changes)
    service = Service(monitor, recorder, durable, labels, notifier, limits, joint, hold)
    monitor.forgetting_listeners.append(service.record_forgotten)
    if limits.remote_write:
        monitor.listeners.append(service.score_writer.on_batches)
        monitor.series.step_listeners.append(service.score_writer.on_steps)
    if hold:
        hold.restore()
    return service


def _restore_monitor(monitor: Monitor, store: SqlStore) -> None:
    """Give a monitor the maintenance windows and the rules of settings of the store."""
    windows = WindowPersistence(store.save_window, store.drop_window)
    monitor.maintenance.restore(*store.windows(), windows)
    rules = RulePersistence(store.save_rule, store.drop_rule)
    monitor.series.rules.restore(*store.rules(), rules)


def _restored_incidents(
    plan: NotificationPlan, store: SqlStore | None, held: HeldAlarms
) -> Incidents:
    """Return the incidents of the store, none without one."""
    if store is None:
        return Incidents(plan.policy, held=held)
    incidents = Incidents(plan.policy, store.save_incidents, store.lock, held)
    incidents.restore(StoredIncidents(*store.incidents()))
    return incidents


def _restored_groups(
    monitor: Monitor, incidents: Incidents, store: SqlStore | None
) -> JointIncidents:
    """Return the groups of incidents of the store, none without one."""
    persistence = GroupPersistence(store.save_groups) if store else GroupPersistence()
    series = monitor.series
    joint = JointIncidents(series.names, lambda: series.totals.mean_points, persistence=persistence)
    if store is not None:
        joint.restore(store.groups(), list(incidents.items.values()))
    return joint


def _restored_labels(store: SqlStore | None) -> LabelRegistry:
    """Return the labels of the store, none without one."""
    if store is None:
        return LabelRegistry()
    persistence = LabelPersistence(store.save_label, store.delete_label, store.dismiss)
    labels = LabelRegistry(persistence)
    labels.restore((row["body"] for row in store.labels()), store.dismissed(), store.newest_label())
    return labels


def _audit_delivery(store: SqlStore | None) -> Callable[[DeliveryRecord], None]:
    """Return the function that writes the outcome of a delivery to the audit log."""

    def record(outcome: DeliveryRecord) -> None:
        if store:
            store.record("redline", f"{outcome.kind} {outcome.name}", None, outcome._asdict())

    return record
