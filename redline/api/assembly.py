"""The service put together: the loop with its store, incidents, labels and the API, for the page
and for a headless run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from redline.api.service import ServerOptions, Service
from redline.engine import wording
from redline.engine.monitor import Monitor
from redline.engine.results import Anomaly, Batch, log
from redline.feedback.labels import LabelPersistence, LabelRegistry
from redline.incidents.channels_file import NotificationPlan, read_channels_file
from redline.incidents.grouping import Rules
from redline.incidents.incident import Change, Incident, incident_sentence
from redline.incidents.notify import DeliveryRecord, Notifier, NotifierContext
from redline.incidents.registry import Incidents
from redline.incidents.registry import StoredIncidents as Kept
from redline.storage.sqlite import SqliteStore, UnavailableStore

# steps back in a stream from which another source has taken its place, more than a commit that is
# tried again repeats
REPLACED_STEPS = 1_000


def assemble_service(
    monitor: Monitor,
    store: SqliteStore | UnavailableStore | None,
    options: ServerOptions,
    alerts: str | None = None,
) -> Service:
    """The loop with incidents, labels and the API around it; the store, if there is one, is the
    loop's ledger.

    `alerts` is the operator's file of channels and actions; ChannelError says what is wrong with
    it.
    """
    kept = store if isinstance(store, SqliteStore) else None
    plan, secrets = (
        read_channels_file(Path(alerts).read_text(encoding="utf-8"))
        if alerts
        else (NotificationPlan(), frozenset())
    )
    incidents = Incidents(
        Rules(plan.policy, wording.severity, incident_explainer(monitor)),
        kept.save_incidents if kept else None,
        kept.lock if kept else None,
    )
    service = Service(monitor, kept, incidents, options=options)
    if kept:
        attach_store(service, kept, incidents)
    else:
        monitor.listeners.append(
            lambda batches: service.changed(
                fold_live_batches(incidents, batches, lambda rows: None)
            )
        )
    if plan.channels or plan.actions:
        service.calls = Notifier(plan, secrets, notifier_context(service))
        service.changed = service.calls.tell
        service.calls.repeat(incidents.untold())
    return service


def notifier_context(service: Service) -> NotifierContext:
    """What those who call people need: names of streams, whom to tell that a call got through, and
    a place for the outcome.
    """

    def source(name: str) -> Any:
        feed = service.monitor.feeds.get(name)
        return None if feed is None else feed.stream

    def record(outcome: DeliveryRecord) -> None:
        if service.store:
            service.store.record(
                "redline", f"{outcome.kind} {outcome.name}", None, outcome._asdict()
            )

    return NotifierContext(source, service.incidents.told, record)


def describe_anomaly_for_store(anomaly: Anomaly, unit: str) -> tuple[str, str]:
    """Severity and reason, as the store keeps them."""
    reason = wording.anomaly_reason(
        anomaly.value, (anomaly.low, anomaly.high), anomaly.score, unit, anomaly.run
    )
    return wording.severity(anomaly.score, anomaly.threshold), reason


def incident_explainer(monitor: Monitor) -> Callable[[Incident], str]:
    def explain(incident: Incident) -> str:
        feed = monitor.feeds.get(incident.stream)
        return (
            incident.text
            if feed is None
            else incident_sentence(
                incident, feed.stream, wording.anomaly_reason, wording.format_time
            )
        )

    return explain


def fold_live_batches(
    incidents: Incidents, batches: Sequence[Batch], save: Callable[[Any], None]
) -> list[Change]:
    """What batches change about the incidents; nobody is called for the past of a stream that has
    just been opened.
    """
    return incidents.commit(
        [batch for batch in batches if batch.live and len(batch.time)], time.time(), save
    )


def end_replaced_streams(incidents: Incidents, batches: Sequence[Batch]) -> list[Change]:
    """Streams that count their steps anew, because another source has taken their place: what was
    live of the former one ends.
    """
    now = time.time()
    watches = incidents.watches
    anew = [
        batch.name
        for batch in batches
        if batch.live
        and batch.name in watches
        and batch.end + REPLACED_STEPS < watches[batch.name].step
    ]
    return [change for name in anew for change in incidents.forget(name, now)]


def attach_store(service: Service, store: SqliteStore, incidents: Incidents) -> None:
    """Incidents are written in the transaction of the batches they come from, and told once it is
    safe; labels come back.
    """
    waiting: list[Change] = []

    def beside(batches: Sequence[Batch], save: Callable[[Any], None]) -> None:
        waiting.extend(fold_live_batches(incidents, batches, save))

    def tell(batches: Sequence[Batch]) -> None:
        if (
            service.monitor.trouble
        ):  # these are told without a commit, so nobody has folded them yet
            waiting.extend(fold_live_batches(incidents, batches, lambda rows: None))
        try:
            waiting.extend(end_replaced_streams(incidents, batches))
            waiting.extend(incidents.wake(time.time()))
        except (
            OSError
        ) as error:  # comes again with the next batches; a full disk keeps nobody from being called
            log.warning("what is over or awake again could not be written and waits: %s", error)
        changes, waiting[:] = [*waiting], []
        if changes:
            service.changed(changes)

    incidents.restore(Kept(*store.incidents()))
    store.beside = beside
    service.monitor.listeners.append(tell)
    service.labels = LabelRegistry(
        LabelPersistence(
            lambda row: save_label(store, row), lambda id: delete_label(store, id), store.dismiss
        )
    )
    bodies = (row["body"] for row in store.labels())
    service.labels.restore(bodies, store.dismissed(), store.newest_label())


def save_label(store: SqliteStore, row: dict[str, Any]) -> None:
    store.put_label(row["stream"], (row["start"], row["end"]), row["kind"], row)


def delete_label(store: SqliteStore, id: int) -> None:
    for row in store.labels():
        if row["body"]["id"] == id:
            store.drop_label(row["id"])
