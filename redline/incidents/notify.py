"""Who is called for an incident, and what is done about it: channels through Apprise, and actions
that only the operator's file can name.

Nothing here holds up whoever reports an incident: each channel and each action has a thread and a
bounded queue of its own. What does not fit is counted; what waits together goes out as one message.
No secret of the operator's file comes into a log line, an error, a record or an answer.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from functools import partial
from typing import Any, NamedTuple
from urllib.parse import urlencode

from redline.engine.results import StreamInfo
from redline.engine.wording import SEVERITIES
from redline.incidents.actions import call_webhook, run_command
from redline.incidents.channels_file import (
    INCIDENT_END,
    Action,
    Channel,
    ChannelError,
    NotificationPlan,
)
from redline.incidents.incident import (
    RESOLVED,
    Change,
    Incident,
    incident_row,
)
from redline.incidents.secrets import MASK, LogCapture, SecretRedactor, secret_pieces

MAX_QUEUED_CALLS = 100  # calls that wait for one channel or action
RETRY_PAUSES = (1.0, 4.0, 15.0, 60.0)  # seconds before a message is sent again
MAX_MERGED = 20  # incidents named in one message
MAX_RECORDS = 1_000  # outcomes remembered
MISSING_APPRISE = "channels need Apprise, which is not installed: pip install 'redline[alerts]'"
_log = logging.getLogger("redline")


class Message(NamedTuple):
    """What a person reads."""

    title: str
    body: str
    severity: str  # of SEVERITIES, or RESOLVED


class DeliveryRecord(NamedTuple):
    """What became of a call."""

    at: float  # wall seconds since the epoch
    kind: str  # "channel" or "action"
    name: str
    incidents: tuple[str, ...]  # ids
    ok: bool
    text: str
    tries: int
    seconds: float


def incident_link(base: str, incident: Incident) -> str:
    """Return the link to the page at the peak of an incident."""
    return f"{base}/?{urlencode({'domain': incident.stream, 'at': incident.peak.step})}"


def build_message(change: Change, source: StreamInfo | None, base: str) -> Message:
    """What a person is told of a change: stream, feature, value, expected, since when, and where to
    look.
    """
    incident = change.incident
    peak = change.incident.peak
    known = source is not None and peak.feature < len(source.names)
    title = source.title if source is not None else incident.stream
    feature = (
        source.names[peak.feature]
        if source is not None and known
        else f"feature {peak.feature + 1}"
    )
    unit = source.units[peak.feature] if source is not None and known else ""
    over = incident.state == RESOLVED
    facts = {
        "stream": incident.stream,
        "feature": feature,
        "value": f"{peak.value:.6g} {unit}".strip(),
        "expected": f"{peak.low:.6g} to {peak.high:.6g} {unit}".strip()
        if peak.low == peak.low
        else "this detector names no range",
        "score": f"{peak.score:.1f} σ, threshold {peak.threshold:g}",
        "since": _moment(incident.start) + (f" until {_moment(incident.end)}" if over else ""),
    }
    lines = [incident.text, *(f"{name}: {value}" for name, value in facts.items())]
    head = (
        f"{RESOLVED}: {title} is normal again"
        if over
        else f"{incident.severity}: {title} is unusual"
    )
    return Message(
        plain_text(head),
        plain_text("\n".join(lines)) + f"\n{incident_link(base, incident)}",
        RESOLVED if over else incident.severity,
    )


def merge_messages(messages: list[Message], links: list[str]) -> Message:
    """Several messages as one: the first line of each, and where to look."""
    if len(messages) == 1:
        return messages[0]
    lines = [
        f"{each.title}\n{each.body.splitlines()[0]}\n{where}"
        for each, where in zip(messages[:MAX_MERGED], links)
    ]
    more = [f"and {len(messages) - MAX_MERGED} more"] if len(messages) > MAX_MERGED else []
    live = [each.severity for each in messages if each.severity != RESOLVED]
    return Message(
        f"{len(messages)} changes of incidents",
        "\n\n".join(lines + more),
        max(live, key=SEVERITIES.index) if live else RESOLVED,
    )


def plain_text(text: str) -> str:
    """Return a text in which a pushed name cannot mention a whole team: "@everyone",
    "<!channel>".
    """
    return text.replace("@", "@\u200b").replace("<", "‹").replace(">", "›")


def _moment(seconds: float) -> str:
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"
    except (OverflowError, ValueError, OSError):
        return f"{seconds:.0f} s since 1970"


def is_wanted(one: Channel | Action, change: Change) -> bool:
    """Whether a channel or an action is meant by a change."""
    incident = change.incident
    over = change.incident.state == RESOLVED
    timely = (
        (one.resolved or not over) if isinstance(one, Channel) else (one.on == INCIDENT_END) == over
    )
    severe = SEVERITIES.index(incident.severity) >= SEVERITIES.index(one.severity)
    return (
        change.call
        and timely
        and severe
        and any(fnmatchcase(incident.stream, pattern) for pattern in one.streams)
    )


class DeliveryQueue:
    """One channel or action with the thread that works for it and the calls that wait for it."""

    def __init__(self, name: str, work: Callable[[list[Change]], None]) -> None:
        self.name = name
        self.work = work
        self.waiting: deque[Change] = deque()
        self.counts: Counter[str] = Counter()  # delivered, failed, retried, dropped, left out
        self.turn = threading.Condition()
        self.busy = self.stopped = False
        self.thread: threading.Thread | None = None

    def put(self, change: Change) -> None:
        """Leaves a call; never waits. A full queue drops it, counted."""
        with self.turn:
            if len(self.waiting) >= MAX_QUEUED_CALLS:
                self.counts["dropped"] += 1
                if self.counts["dropped"] in (1, 10, 100, 1_000):
                    _log.warning(
                        "%s: its queue of %d is full; %d calls dropped so far",
                        self.name,
                        MAX_QUEUED_CALLS,
                        self.counts["dropped"],
                    )
                return
            self.waiting.append(change)
            if self.thread is None:
                self.thread = threading.Thread(target=self.run, name=self.name, daemon=True)
                self.thread.start()
            self.turn.notify_all()

    def run(self) -> None:
        while True:
            with self.turn:
                self.busy = False
                self.turn.notify_all()
                self.turn.wait_for(lambda: self.waiting or self.stopped)
                if self.stopped:
                    self.counts["dropped"] += len(self.waiting)
                    return
                changes = list(self.waiting)
                self.busy = True
                self.waiting.clear()
            try:
                self.work(changes)
            except (
                Exception  # noqa: BLE001
            ) as error:  # the boundary between channels: one that breaks must not end for good
                self.counts["failed"] += len(changes)
                _log.error("%s failed", self.name, exc_info=error)

    def rest(self, timeout: float) -> bool:
        """Waits until nothing waits; whether that was so in time."""
        with self.turn:
            return self.turn.wait_for(lambda: not self.waiting and not self.busy, timeout)

    def stop(self) -> None:
        with self.turn:
            self.stopped = True
            self.turn.notify_all()


class NotifierContext(NamedTuple):
    """What a dispatch needs of its surroundings."""

    source: Callable[[str], StreamInfo | None] = lambda name: (
        None
    )  # a stream's title, names and units
    told: Callable[[str, str], None] = lambda id, severity: None  # an incident reached a channel
    record: Callable[[DeliveryRecord], None] = lambda record: (
        None
    )  # kept by whoever keeps the audit
    wall: Callable[[], float] = time.time  # seconds since the epoch
    pause: Callable[[float], Any] | None = (
        None  # seconds; None: as long, or until the end of the program
    )


class Notifier:
    """Hands changes of incidents to the channels and actions they are meant for; it never waits."""

    def __init__(
        self,
        plan: NotificationPlan,
        secrets: Iterable[str] = (),
        world: NotifierContext = NotifierContext(),  # noqa: B008
    ) -> None:
        self.plan = plan
        self.world = world
        self.records: deque[DeliveryRecord] = deque(maxlen=MAX_RECORDS)
        self.stopping = threading.Event()
        self.veil = SecretRedactor(secrets)
        self.veil.on()
        try:
            self.senders = {channel.name: self._sender(channel) for channel in plan.channels}
        except Exception:
            self.veil.off()
            raise
        for action in plan.actions:
            self.veil.cover(secret_pieces(action.url, action.url) if action.url else ())
        self.done: dict[str, deque[str]] = {
            action.name: deque(maxlen=MAX_RECORDS) for action in plan.actions
        }  # ids
        self.runs: dict[str, deque[float]] = {
            action.name: deque(maxlen=action.hourly) for action in plan.actions
        }  # wall seconds
        self.channels = {
            each.name: DeliveryQueue(f"channel {each.name}", partial(self.send, each))
            for each in plan.channels
        }
        self.actions = {
            each.name: DeliveryQueue(f"action {each.name}", partial(self.act, each))
            for each in plan.actions
        }

    def tell(self, changes: Iterable[Change]) -> None:
        """Calls whom the changes are meant for."""
        for change in changes:
            self.repeat([change])
            for action in self.plan.actions:
                if is_wanted(action, change) and change.incident.id not in self.done[action.name]:
                    self.done[action.name].append(change.incident.id)
                    self.actions[action.name].put(change)

    def repeat(self, changes: Iterable[Change]) -> None:
        """Send again what reached no channel before the program ended: channels only, an action is
        never run again.
        """
        for change in changes:
            for channel in self.plan.channels:
                if is_wanted(channel, change):
                    self.channels[channel.name].put(change)

    def send(self, channel: Channel, changes: list[Change]) -> None:
        """Sends what waits for a channel as one message, again and again with growing pauses."""
        began = time.perf_counter()
        counts = self.channels[channel.name].counts
        messages = [
            build_message(change, self.world.source(change.incident.stream), self.plan.base)
            for change in changes
        ]
        whole = merge_messages(
            messages, [incident_link(self.plan.base, change.incident) for change in changes]
        )
        tries, (ok, heard) = 1, self.senders[channel.name](whole)
        for pause in RETRY_PAUSES:
            if ok or self.stopping.is_set():
                break
            counts["retried"] += 1
            (self.world.pause or self.stopping.wait)(pause)
            tries, (ok, heard) = tries + 1, self.senders[channel.name](whole)
        counts["delivered" if ok else "failed"] += len(changes)
        text = (
            whole.title
            if ok
            else f"not delivered after {tries} tries: {whole.title}. {heard}".rstrip(". ")
        )
        ids = tuple(change.incident.id for change in changes)
        self.keep(
            DeliveryRecord(
                self.world.wall(),
                "channel",
                channel.name,
                ids,
                ok,
                text,
                tries,
                time.perf_counter() - began,
            )
        )
        for change in changes if ok else []:
            self.write(self.world.told, change.incident.id, change.incident.severity)

    def act(self, action: Action, changes: list[Change]) -> None:
        """Runs an action for each of the incidents that wait for it."""
        for change in changes:
            began = time.perf_counter()
            runs = self.runs[action.name]
            now = self.world.wall()
            if action.dry_run:
                ok = True
                text = (
                    "dry run: would "
                    f"{'run ' + action.command[0] if action.command else 'call the webhook'}"
                )
                what = "left out"
            elif len(runs) == action.hourly and now - runs[0] < 3_600:
                ok = False
                text = f"not run: {action.hourly} runs within an hour already"
                what = "left out"
            else:
                runs.append(now)
                given = json.dumps(
                    incident_row(change.incident)
                    | {"link": incident_link(self.plan.base, change.incident)}
                )
                ok, text = (
                    run_command(action, given) if action.command else call_webhook(action, given)
                )
                what = "delivered" if ok else "failed"
            self.actions[action.name].counts[what] += 1
            self.keep(
                DeliveryRecord(
                    now,
                    "action",
                    action.name,
                    (change.incident.id,),
                    ok,
                    text,
                    1,
                    time.perf_counter() - began,
                )
            )

    def keep(self, record: DeliveryRecord) -> None:
        """Remembers an outcome, without secrets, for the page, the audit and the log."""
        record = record._replace(text=self.veil(record.text))
        self.records.append(record)
        _log.log(
            logging.INFO if record.ok else logging.WARNING,
            "%s %s, incident %s: %s",
            record.kind,
            record.name,
            " ".join(record.incidents),
            record.text,
        )
        self.write(self.world.record, record)

    def write(self, write: Callable[..., None], *what: Any) -> None:
        """Keeps an outcome beyond the end of the program; a full disk keeps no message from being
        called.
        """
        try:
            write(*what)
        except OSError as error:
            _log.error("an outcome could not be written: %s", error)

    def status(self) -> list[dict[str, Any]]:
        """Every channel and action with its counts and its last outcome, for a page or an answer:
        no address, no arguments.
        """
        ends = {(record.kind, record.name): record for record in self.records}
        rows = []
        for kind, each, outlets in (
            ("channel", self.plan.channels, self.channels),
            ("action", self.plan.actions, self.actions),
        ):
            for one in each:
                last = ends.get((kind, one.name))
                outlet = outlets[one.name]
                how = one.url.split("://", 1)[0] if one.url else "command"
                rule = {
                    "severity": one.severity,
                    "streams": list(one.streams),
                    "dry_run": isinstance(one, Action) and one.dry_run,
                }
                rows.append(
                    {
                        "kind": kind,
                        "name": one.name,
                        "how": how,
                        **rule,
                        "waiting": len(outlet.waiting),
                        "counts": dict(outlet.counts),
                        "last": last and last._asdict(),
                    }
                )
        return rows

    def rest(self, timeout: float) -> bool:
        """Waits until everything is said and done, at most so many seconds for each; whether it
        is.
        """
        return all(
            outlet.rest(timeout) for outlet in (*self.channels.values(), *self.actions.values())
        )

    def stop(self, timeout: float = 1.0) -> None:
        """Lets go: what is still being tried is not tried again."""
        self.stopping.set()
        for outlet in (*self.channels.values(), *self.actions.values()):
            outlet.stop()
        for outlet in (*self.channels.values(), *self.actions.values()):
            if outlet.thread is not None:
                outlet.thread.join(timeout)
        self.veil.off()

    def _sender(self, channel: Channel) -> Callable[[Message], tuple[bool, str]]:
        """What sends a message to a channel, as Apprise does it; ChannelError when its address is
        none.
        """
        try:
            import apprise
        except ImportError:
            raise ChannelError(MISSING_APPRISE) from None
        at_first = secret_pieces(channel.url) - self.veil.secrets
        self.veil.cover(
            at_first
        )  # a wrong address is logged by who reads it, before anybody knows what in it is secret
        service: Any = apprise.Apprise.instantiate(channel.url)
        if service is None:
            schema = channel.url.split("://", 1)[0] if "://" in channel.url else ""
            raise ChannelError(
                f"alerts file: [channels.{channel.name}] url: wanted an address as "
                f"Apprise writes them; came {schema}://{MASK}"
            )
        self.veil.cover(secret_pieces(channel.url, service.url(privacy=True)), instead_of=at_first)
        kinds = dict(zip(SEVERITIES, ("info", "warning", "failure"))) | {RESOLVED: "success"}
        post = apprise.Apprise()
        post.add(service)

        def send(said: Message) -> tuple[bool, str]:
            with LogCapture("apprise") as ear:
                ok = post.notify(
                    body=said.body,
                    title=said.title,
                    notify_type=apprise.NotifyType(kinds[said.severity]),
                    body_format=apprise.NotifyFormat.TEXT,
                )
            return bool(ok), ear.heard

        return send
