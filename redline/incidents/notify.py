"""The notifier: sends incidents to channels through Apprise and runs the operator's actions.

It never blocks its caller: each channel and each action has a thread and a bounded queue of its
own. Changes that do not fit are dropped and counted; those that wait together are one message.
No secret of the operator's file gets into a log line, an error, a record or an answer.
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
from redline.incidents.group_notice import GroupNotice
from redline.incidents.incident import RESOLVED, Change, Incident, incident_row
from redline.incidents.secrets import MASK, LogCapture, SecretRedactor, secret_pieces

MAX_QUEUED_CHANGES = 100  # changes that wait for one channel or action
RETRY_PAUSES = (1.0, 4.0, 15.0, 60.0)  # seconds before a message is sent again
MAX_MERGED = 20  # incidents named in one message
MAX_RECORDS = 1_000  # outcomes kept in memory
SECONDS_PER_HOUR = 3_600
MISSING_APPRISE = "channels need Apprise, which is not installed: pip install 'redline[alerts]'"
_log = logging.getLogger("redline")
Notice = Change | GroupNotice  # what a channel is sent


class Message(NamedTuple):
    """The text of a notification."""

    title: str
    body: str
    severity: str  # of SEVERITIES, or RESOLVED


class DeliveryRecord(NamedTuple):
    """The outcome of one delivery to a channel or one run of an action."""

    at: float  # wall seconds since the epoch
    kind: str  # "channel" or "action"
    name: str
    incidents: tuple[str, ...]  # ids
    ok: bool
    text: str
    tries: int
    seconds: float  # that it took


def incident_link(base: str, incident: Incident) -> str:
    """Return the link to the page at the peak of an incident."""
    return f"{base}/?{urlencode({'domain': incident.stream, 'at': incident.peak.step})}"


def build_message(change: Change, source: StreamInfo | None, base: str) -> Message:
    """Return the message of a change: stream, feature, value, expected range, times and a link.

    source: the stream, None if unknown. base: the page's address.
    """
    incident = change.incident
    peak = incident.peak
    title = incident.stream
    feature = f"feature {peak.feature + 1}"
    unit = ""
    if source is not None:
        title = source.title
        if peak.feature < len(source.names):
            feature = source.names[peak.feature]
            unit = source.units[peak.feature]
    expected = "this detector names no range"
    if peak.low == peak.low:  # not NaN
        expected = f"{peak.low:.6g} to {peak.high:.6g} {unit}".strip()
    since = _format_utc(incident.start)
    if incident.state == RESOLVED:
        since += f" until {_format_utc(incident.end)}"
        severity = RESOLVED
        head = f"{RESOLVED}: {title} is normal again"
    else:
        severity = incident.severity
        head = f"{severity}: {title} is unusual"
    facts = {
        "stream": incident.stream,
        "feature": feature,
        "value": f"{peak.value:.6g} {unit}".strip(),
        "expected": expected,
        "score": f"{peak.score:.1f} σ, threshold {peak.threshold:g}",
        "since": since,
    }
    lines = [incident.text, *(f"{name}: {value}" for name, value in facts.items())]
    body = plain_text("\n".join(lines)) + f"\n{incident_link(base, incident)}"
    return Message(plain_text(head), body, severity)


def build_group_message(notice: GroupNotice, base: str) -> Message:
    """Return the message of a group: its sentence, its members, what they share and a link."""
    group = notice.group
    incidents = notice.incidents
    start = _format_utc(min(incident.start for incident in incidents))
    if notice.what == RESOLVED:
        severity = RESOLVED
        head = f"{RESOLVED}: {group.subject} are normal again"
        end = _format_utc(max(incident.end for incident in incidents))
        lines = [group.sentence, f"since: {start} until {end}"]
    else:
        severity = notice.severity
        head = f"{severity}: {group.subject} are unusual"
        shared = ", ".join(f"{name}={value}" for name, value in group.shared)
        lines = [
            group.sentence,
            f"since: {start}",
            f"shared: {shared}",
            *(
                f"{incident.severity}: {incident.stream} since {_format_utc(incident.start)}"
                for incident in notice.named
            ),
        ]
        beyond = len(incidents) - len(notice.named)
        lines += [f"and {beyond:,} more"] if beyond else []
    body = plain_text("\n".join(lines)) + f"\n{incident_link(base, incidents[0])}"
    return Message(plain_text(head), body, severity)


def merge_messages(messages: list[Message], links: list[str]) -> Message:
    """Return several messages as one: the title, first line and link of each."""
    if len(messages) == 1:
        return messages[0]
    lines = [
        f"{each.title}\n{each.body.splitlines()[0]}\n{link}"
        for each, link in zip(messages[:MAX_MERGED], links)
    ]
    more = [f"and {len(messages) - MAX_MERGED} more"] if len(messages) > MAX_MERGED else []
    live = [each.severity for each in messages if each.severity != RESOLVED]
    return Message(
        f"{len(messages)} changes of incidents",
        "\n\n".join(lines + more),
        max(live, key=SEVERITIES.index) if live else RESOLVED,
    )


def plain_text(text: str) -> str:
    """Return a text in which a pushed name cannot mention a team ("@everyone", "<!channel>")."""
    return text.replace("@", "@\u200b").replace("<", "‹").replace(">", "›")


def _format_utc(seconds: float) -> str:
    """Return a time in seconds since the epoch as text, also one that no calendar can hold."""
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"
    except (OverflowError, ValueError, OSError):
        return f"{seconds:.0f} s since 1970"


def is_group_wanted(channel: Channel, notice: GroupNotice) -> bool:
    """Return whether the notice of a group is to be sent to a channel: one member is enough."""
    changes = (Change(incident, notice.what, True) for incident in notice.incidents)
    return any(is_wanted(channel, change) for change in changes)


def notice_incidents(notice: Notice) -> tuple[Incident, ...]:
    """Return the incidents that a notice is about; one at least."""
    return notice.incidents if isinstance(notice, GroupNotice) else (notice.incident,)


def is_wanted(one: Channel | Action, change: Change) -> bool:
    """Return whether a change is to be sent to a channel or to start an action."""
    incident = change.incident
    resolved = incident.state == RESOLVED
    if isinstance(one, Channel):
        timely = one.resolved or not resolved
    else:
        timely = (one.on == INCIDENT_END) == resolved
    severe = SEVERITIES.index(incident.severity) >= SEVERITIES.index(one.severity)
    return (
        change.notify
        and timely
        and severe
        and any(fnmatchcase(incident.stream, pattern) for pattern in one.streams)
    )


class DeliveryQueue:
    """A bounded queue of notices for one channel or action, with the thread that handles them."""

    def __init__(self, name: str, handle: Callable[[list[Any]], None]) -> None:
        self.name = name
        self.handle = handle
        self.waiting: deque[Notice] = deque()
        self.counts: Counter[str] = Counter()  # delivered, failed, retried, dropped, left out
        self.condition = threading.Condition()  # guards all fields
        self.busy = False
        self.stopped = False
        self.thread: threading.Thread | None = None

    def put(self, notice: Notice) -> None:
        """Add a notice without waiting; a full queue drops and counts it."""
        with self.condition:
            if len(self.waiting) >= MAX_QUEUED_CHANGES:
                self.counts["dropped"] += 1
                if self.counts["dropped"] in (1, 10, 100, 1_000):
                    _log.warning(
                        "%s: its queue of %d is full; %d changes dropped so far",
                        self.name,
                        MAX_QUEUED_CHANGES,
                        self.counts["dropped"],
                    )
                return
            self.waiting.append(notice)
            if self.thread is None:
                self.thread = threading.Thread(target=self._run, name=self.name, daemon=True)
                self.thread.start()
            self.condition.notify_all()

    def _run(self) -> None:
        """Handle what waits, all of it together, until the queue is stopped."""
        while True:
            with self.condition:
                self.busy = False
                self.condition.notify_all()
                self.condition.wait_for(lambda: self.waiting or self.stopped)
                if self.stopped:
                    self.counts["dropped"] += len(self.waiting)
                    return
                changes = list(self.waiting)
                self.busy = True
                self.waiting.clear()
            try:
                self.handle(changes)
            except Exception as error:  # noqa: BLE001  one failure must not end the thread
                self.counts["failed"] += len(changes)
                _log.error("%s failed", self.name, exc_info=error)

    def wait_idle(self, timeout: float) -> bool:
        """Wait until all changes are handled, `timeout` seconds at most; return whether so."""
        with self.condition:
            return self.condition.wait_for(lambda: not self.waiting and not self.busy, timeout)

    def stop(self) -> None:
        """End the thread after what it handles now; what waits is counted as dropped."""
        with self.condition:
            self.stopped = True
            self.condition.notify_all()


class NotifierContext(NamedTuple):
    """The functions through which a notifier reaches the rest of the program."""

    # the title, names and units of a stream, None if it is unknown
    stream_info: Callable[[str], StreamInfo | None] = lambda name: None
    # called with the severities, by id, of incidents of which a message reached a channel
    mark_notified: Callable[[dict[str, str]], None] = lambda severities: None
    # called with the id and the mark of a group of which a message reached a channel
    mark_group: Callable[[str, str], None] = lambda id, mark: None
    record: Callable[[DeliveryRecord], None] = lambda record: None  # writes the audit
    wall: Callable[[], float] = time.time  # seconds since the epoch
    # waits for so many seconds; None: or until the notifier is stopped
    pause: Callable[[float], Any] | None = None


class Notifier:
    """Queues changes of incidents for the channels and actions they concern; it never waits."""

    def __init__(
        self,
        plan: NotificationPlan,
        secrets: Iterable[str] = (),
        context: NotifierContext = NotifierContext(),  # noqa: B008
    ) -> None:
        self.plan = plan
        self.context = context
        self.records: deque[DeliveryRecord] = deque(maxlen=MAX_RECORDS)
        self.stopping = threading.Event()
        self.secrets = frozenset(secrets)
        self.redactor = SecretRedactor(self.secrets)
        self.redactor.install()
        try:
            self.senders = {channel.name: self._sender(channel) for channel in plan.channels}
        except Exception:
            self.redactor.uninstall()
            raise
        for action in plan.actions:
            self.redactor.add(secret_pieces(action.url, action.url) if action.url else ())
        # action -> ids of the incidents it was queued for
        self.queued_ids: dict[str, deque[str]] = {
            action.name: deque(maxlen=MAX_RECORDS) for action in plan.actions
        }
        # action -> wall seconds of its newest runs
        self.run_times: dict[str, deque[float]] = {
            action.name: deque(maxlen=action.hourly) for action in plan.actions
        }
        self.channels = {
            each.name: DeliveryQueue(f"channel {each.name}", partial(self._deliver, each))
            for each in plan.channels
        }
        self.actions = {
            each.name: DeliveryQueue(f"action {each.name}", partial(self._run_action, each))
            for each in plan.actions
        }

    def notify(self, changes: Iterable[Change]) -> None:
        """Queue changes for the channels and actions they concern."""
        changes = list(changes)
        self.resend(changes)
        self.run_actions(changes)

    def run_actions(self, changes: Iterable[Change]) -> None:
        """Queue changes for actions only; one is run once for an incident."""
        for change in changes:
            for action in self.plan.actions:
                queued = self.queued_ids[action.name]
                if is_wanted(action, change) and change.incident.id not in queued:
                    queued.append(change.incident.id)
                    self.actions[action.name].put(change)

    def resend(self, changes: Iterable[Change]) -> None:
        """Queue changes for channels only: after a restart an action is not run a second time."""
        for change in changes:
            for channel in self.plan.channels:
                if is_wanted(channel, change):
                    self.channels[channel.name].put(change)

    def send_group(self, notice: GroupNotice) -> None:
        """Queue the notice of a group for the channels that it concerns."""
        for channel in self.plan.channels:
            if is_group_wanted(channel, notice):
                self.channels[channel.name].put(notice)

    def _message_of(self, notice: Notice) -> Message:
        """Return the message of a change of an incident, or of a group."""
        if isinstance(notice, GroupNotice):
            return build_group_message(notice, self.plan.base)
        stream = self.context.stream_info(notice.incident.stream)
        return build_message(notice, stream, self.plan.base)

    def _deliver(self, channel: Channel, notices: list[Notice]) -> None:
        """Send notices to a channel as one message; a failure is retried with growing pauses."""
        began = time.perf_counter()
        counts = self.channels[channel.name].counts
        send = self.senders[channel.name]
        incidents = [incident for notice in notices for incident in notice_incidents(notice)]
        firsts = (notice_incidents(notice)[0] for notice in notices)
        links = [incident_link(self.plan.base, incident) for incident in firsts]
        message = merge_messages([self._message_of(notice) for notice in notices], links)
        ok, reason = send(message)
        tries = 1
        for pause in RETRY_PAUSES:
            if ok or self.stopping.is_set():
                break
            counts["retried"] += 1
            (self.context.pause or self.stopping.wait)(pause)
            ok, reason = send(message)
            tries += 1
        counts["delivered" if ok else "failed"] += len(notices)
        text = message.title
        if not ok:
            text = f"not delivered after {tries} tries: {message.title}. {reason}".rstrip(". ")
        record = DeliveryRecord(
            at=self.context.wall(),
            kind="channel",
            name=channel.name,
            incidents=tuple(incident.id for incident in incidents),
            ok=ok,
            text=text,
            tries=tries,
            seconds=time.perf_counter() - began,
        )
        self._record(record)
        if not ok:
            return
        severities = {incident.id: incident.severity for incident in incidents}
        self._write(self.context.mark_notified, severities)
        for notice in notices:
            if isinstance(notice, GroupNotice):
                self._write(self.context.mark_group, notice.group.id, notice.mark)

    def _run_action(self, action: Action, changes: list[Change]) -> None:
        """Run an action for each of the incidents that wait for it."""
        for change in changes:
            began = time.perf_counter()
            now = self.context.wall()
            outcome, text = self._run_for(action, change.incident, now)
            self.actions[action.name].counts[outcome] += 1
            record = DeliveryRecord(
                at=now,
                kind="action",
                name=action.name,
                incidents=(change.incident.id,),
                ok=outcome == "delivered" or action.dry_run,
                text=text,
                tries=1,
                seconds=time.perf_counter() - began,
            )
            self._record(record)

    def _run_for(self, action: Action, incident: Incident, now: float) -> tuple[str, str]:
        """Run an action for one incident unless a dry run or its hourly limit forbids it.

        Returns the name of the count it belongs to, and the outcome as text.
        """
        if action.dry_run:
            what = f"run {action.command[0]}" if action.command else "call the webhook"
            return "left out", f"dry run: would {what}"
        run_times = self.run_times[action.name]
        if len(run_times) == action.hourly and now - run_times[0] < SECONDS_PER_HOUR:
            return "left out", f"not run: {action.hourly} runs within an hour already"
        run_times.append(now)
        link = incident_link(self.plan.base, incident)
        incident_json = json.dumps(incident_row(incident) | {"link": link})
        if action.command:
            ok, text = run_command(action, incident_json, self.secrets)
        else:
            ok, text = call_webhook(action, incident_json)
        return "delivered" if ok else "failed", text

    def _record(self, record: DeliveryRecord) -> None:
        """Keep an outcome, without secrets, for the page, the audit and the log."""
        record = record._replace(text=self.redactor.redact(record.text))
        self.records.append(record)
        _log.log(
            logging.INFO if record.ok else logging.WARNING,
            "%s %s, incident %s: %s",
            record.kind,
            record.name,
            " ".join(record.incidents),
            record.text,
        )
        self._write(self.context.record, record)

    def _write(self, write: Callable[..., None], *values: Any) -> None:
        """Write an outcome to the store; a full disk must not keep messages from being sent."""
        try:
            write(*values)
        except OSError as error:
            _log.error("an outcome could not be written: %s", error)

    def status(self) -> list[dict[str, Any]]:
        """Return every channel and action with its counts and its last outcome.

        The page and the API show it, so it holds no address and no arguments.
        """
        newest = {(record.kind, record.name): record for record in self.records}
        targets: list[tuple[str, Channel | Action, DeliveryQueue]] = [
            *(("channel", each, self.channels[each.name]) for each in self.plan.channels),
            *(("action", each, self.actions[each.name]) for each in self.plan.actions),
        ]
        rows = []
        for kind, target, queue in targets:
            last = newest.get((kind, target.name))
            rows.append(
                {
                    "kind": kind,
                    "name": target.name,
                    "how": target.url.split("://", 1)[0] if target.url else "command",
                    "severity": target.severity,
                    "streams": list(target.streams),
                    "dry_run": isinstance(target, Action) and target.dry_run,
                    "waiting": len(queue.waiting),
                    "counts": dict(queue.counts),
                    "last": last and last._asdict(),
                }
            )
        return rows

    def wait_idle(self, timeout: float) -> bool:
        """Wait until all queues are idle, `timeout` seconds at most for each; return whether so."""
        return all(queue.wait_idle(timeout) for queue in self._queues())

    def stop(self, timeout: float = 1.0) -> None:
        """Stop all queues without further retries, waiting `timeout` seconds at most for each."""
        self.stopping.set()
        for queue in self._queues():
            queue.stop()
        for queue in self._queues():
            if queue.thread is not None:
                queue.thread.join(timeout)
        self.redactor.uninstall()

    def _queues(self) -> list[DeliveryQueue]:
        """Return the queues of all channels and actions."""
        return [*self.channels.values(), *self.actions.values()]

    def _sender(self, channel: Channel) -> Callable[[Message], tuple[bool, str]]:
        """Return the function that sends a message to a channel through Apprise.

        It returns whether the message was sent, and the reason if not. Raises ChannelError if
        Apprise is missing or does not know the address.
        """
        try:
            import apprise
        except ImportError:
            raise ChannelError(MISSING_APPRISE) from None
        # Apprise logs a wrong address while it parses it, when it is not yet known which parts
        # of it are secret: all are masked until then
        provisional = secret_pieces(channel.url) - self.redactor.secrets
        self.redactor.add(provisional)
        # an address with `redirect=yes` still follows redirects
        asset = apprise.AppriseAsset(http_redirects=False)
        schema = channel.url.split("://", 1)[0] if "://" in channel.url else ""
        service: Any = None
        # Apprise logs a scheme in small letters, in which a secret is not found
        if self.redactor.redact(schema) == schema:
            service = apprise.Apprise.instantiate(channel.url, asset=asset)
        else:
            schema = MASK
        if service is None:
            raise ChannelError(
                f"alerts file: [channels.{channel.name}] url: wanted an address as "
                f"Apprise writes them; came {schema}://{MASK}"
            )
        known = secret_pieces(channel.url, service.url(privacy=True))
        self.redactor.add(known, replacing=provisional)
        kinds = dict(zip(SEVERITIES, ("info", "warning", "failure"))) | {RESOLVED: "success"}
        post = apprise.Apprise()
        post.add(service)

        def send(message: Message) -> tuple[bool, str]:
            with LogCapture("apprise") as capture:
                ok = post.notify(
                    body=message.body,
                    title=message.title,
                    notify_type=apprise.NotifyType(kinds[message.severity]),
                    body_format=apprise.NotifyFormat.TEXT,
                )
            return bool(ok), capture.message

        return send
