"""Who is called for an incident, and what is done about it: channels through Apprise, and actions that only the operator's file can name.

Nothing here holds up whoever reports an incident: each channel and each action has a thread and a bounded queue of its own. What does not fit is
counted; what waits together goes out as one message. No secret of the operator's file comes into a log line, an error, a record or an answer.
"""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import math
import os
import re
import signal
import subprocess
import tempfile
import threading
import time
import tomllib
import traceback
import urllib.error
import urllib.request
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from redline.alerts import RESOLVED, SEVERITIES, Change, Incident, Policy, Source, row

QUEUE = 100  # calls that wait for one channel or action
PAUSES = (1.0, 4.0, 15.0, 60.0)  # seconds before a message is sent again
TOGETHER = 20  # incidents named in one message
RECORDS = 1_000  # outcomes remembered
TAIL = 2_000  # characters kept of what a command or a webhook answers
SHORT = 4  # characters a secret must have to be masked by itself
HIDDEN = "****"
START, END = "start", "end"  # of an incident: when an action runs
MISSING = "channels need Apprise, which is not installed: pip install 'redline[alerts]'"

log = logging.getLogger("redline")


class ChannelError(ValueError):
    """The operator's file cannot be followed: says where, what was wanted and what to do, without any secret."""


class Channel(NamedTuple):
    """Somebody who is told of incidents."""

    name: str
    url: str  # Apprise's
    severity: str = SEVERITIES[0]  # at least
    streams: tuple[str, ...] = ("*",)  # patterns
    resolved: bool = True  # whether it hears of the end


class Action(NamedTuple):
    """Something that is done about an incident, once for each."""

    name: str
    command: tuple[str, ...] = ()  # program and arguments, never through a shell
    url: str = ""  # or a webhook
    severity: str = SEVERITIES[-1]  # at least
    streams: tuple[str, ...] = ("*",)
    on: str = START
    timeout: float = 30.0  # seconds
    hourly: int = 6  # runs within an hour, more are left out
    dry_run: bool = False  # only recorded


class Plan(NamedTuple):
    """What the operator's file says."""

    base: str = "http://localhost:8050"  # where people reach the page
    policy: Policy = Policy()
    channels: tuple[Channel, ...] = ()
    actions: tuple[Action, ...] = ()


class Message(NamedTuple):
    """What a person reads."""

    title: str
    body: str
    severity: str  # of SEVERITIES, or RESOLVED


class Record(NamedTuple):
    """What became of a call."""

    at: float  # wall seconds since the epoch
    kind: str  # "channel" or "action"
    name: str
    incidents: tuple[str, ...]  # ids
    ok: bool
    text: str
    tries: int
    seconds: float


# --- the operator's file


class Number(NamedTuple):
    """What a number in the file must be."""

    kind: type  # int, or float, which a whole number is too
    least: float = 0.0  # a float lies above it
    most: float = math.inf

    def fits(self, value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, int if self.kind is int else int | float):
            return False
        above = value >= self.least if self.kind is int else value > self.least
        return above and value <= self.most


TEXT = (str, "a text")
SHARED: dict[str, tuple[Any, str]] = {"severity": (SEVERITIES, f"one of {', '.join(SEVERITIES)}"), "streams": (list, "a list of names or patterns")}
KEYS: dict[str, dict[str, tuple[Any, str]]] = {
    "channels": {"url": TEXT, **SHARED, "resolved": (bool, "true or false")},
    "actions": {
        "command": (list, "a list: the program and its arguments"),
        "url": TEXT,
        **SHARED,
        "on": ((START, END), f"{START} or {END}"),
        "timeout": (Number(float, most=86_400), "seconds, above 0"),
        "hourly": (Number(int, least=1), "a number of runs, at least 1"),
        "dry-run": (bool, "true or false"),
    },
    "policy": {
        "minimum": (Number(int, least=1), "a number of steps, at least 1"),
        "quiet": (Number(int, least=1), "a number of steps, at least 1"),
        "release": (Number(float, most=1), "a share of the threshold, above 0 to 1"),
        "cooldown": (Number(int), "a number of steps, at least 0"),
    },
}


def read(text: str, environment: Mapping[str, str] = os.environ) -> tuple[Plan, frozenset[str]]:
    """The operator's file (TOML) as a plan, and the secrets that came from the environment as ${NAME}; ChannelError says what is wrong."""
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ChannelError(f"alerts file: wanted TOML; {error}") from None
    unknown = sorted(set(tables) - {"base", *KEYS})
    if unknown:
        raise ChannelError(f"alerts file: unknown {unknown[0]!r}; known are base, [policy], [channels.NAME] and [actions.NAME]")
    secrets: set[str] = set()
    base = _value("alerts file: base", tables.get("base", Plan().base), TEXT)
    policy = Policy(**_keys("policy", tables.get("policy", {}), environment, secrets))
    channels, actions = (
        {name: _keys(f"{kind}.{name}", each, environment, secrets) for name, each in _named(tables, kind)} for kind in ("channels", "actions")
    )
    plan = Plan(
        base.rstrip("/"),
        policy,
        tuple(Channel(name, **each) for name, each in channels.items()),
        tuple(Action(name, **each) for name, each in actions.items()),
    )
    for action in plan.actions:
        if bool(action.command) == bool(action.url) or not (action.url or "https://").startswith(("http://", "https://")):
            raise ChannelError(f"alerts file: [actions.{action.name}] wants a command or an http(s) url, one of the two")
    return plan, frozenset(secrets)


def _named(tables: dict[str, Any], kind: str) -> Iterable[tuple[str, Any]]:
    found = tables.get(kind, {})
    if not isinstance(found, dict) or not all(isinstance(each, dict) for each in found.values()):
        raise ChannelError(f"alerts file: [{kind}] wants a table for each of them: [{kind}.NAME]")
    missing = [name for name, each in found.items() if kind == "channels" and "url" not in each]
    if missing:
        raise ChannelError(f"alerts file: [channels.{missing[0]}] wants an url, as Apprise writes them")
    return found.items()


def _keys(where: str, raw: Any, environment: Mapping[str, str], secrets: set[str]) -> dict[str, Any]:
    """One table, checked, its ${NAME}s filled in."""
    known = KEYS[where.split(".")[0]]
    if not isinstance(raw, dict):
        raise ChannelError(f"alerts file: {where} is no table; write [{where}]")
    for key in sorted(set(raw) - set(known)):
        raise ChannelError(f"alerts file: [{where}] does not know {key!r}; it knows {', '.join(known)}")
    values = {key: _value(f"alerts file: [{where}] {key}", value, known[key]) for key, value in raw.items()}

    def fill(value: Any) -> Any:
        return (
            tuple(map(fill, value)) if isinstance(value, tuple) else _filled(where, value, environment, secrets) if isinstance(value, str) else value
        )

    return {key.replace("-", "_"): fill(value) for key, value in values.items()}


def _value(where: str, value: Any, wanted: tuple[Any, str]) -> Any:
    """A value of the kind that is wanted; an error does not repeat it, it may be a secret."""
    kind, words = wanted
    if isinstance(kind, Number):
        fits = kind.fits(value)
    elif isinstance(kind, tuple):
        fits = value in kind
    elif kind is list:
        fits = isinstance(value, list) and bool(value) and all(isinstance(each, str) and each for each in value)
    else:
        fits = isinstance(value, kind) and value != ""
    if not fits:
        raise ChannelError(f"{where}: wanted {words}; came {type(value).__name__ if not isinstance(value, int | float) else value}")
    return tuple(value) if kind is list else value


def _filled(where: str, text: str, environment: Mapping[str, str], secrets: set[str]) -> str:
    """The text with each ${NAME} replaced from the environment."""

    def one(found: re.Match[str]) -> str:
        value = environment.get(found[1])
        if not value:
            raise ChannelError(f"alerts file: [{where}] wants the environment variable {found[1]}, which is not set")
        secrets.add(value)
        return value

    return re.sub(r"\$\{(\w+)\}", one, text)


# --- secrets


def pieces(url: str, shown: str = "") -> set[str]:
    """What of an address nobody else may read: all that `shown` leaves out, and the long words of its path and query.

    shown: the same address, masked by who knows its parts.
    """
    rest = url.split("://", 1)[-1]
    words = {word for part in (rest, unquote(rest)) for word in re.split(r"[/:@?&=,]+", part) if len(word) >= SHORT}
    open_words = {word for part in (shown, unquote(shown)) for word in re.split(r"[/:@?&=,]+", part)}
    parts = urlsplit(url)
    tail = {word for word in unquote(parts.path).split("/") if len(word) >= 2 * SHORT} | {
        value for _, value in parse_qsl(parts.query) if len(value) >= SHORT
    }
    found = {url, rest, *(words - open_words), *tail}
    if "@" in parts.netloc:
        user = parts.netloc.rpartition("@")[0]
        found |= {user + "@", base64.b64encode(unquote(user).encode()).decode()}
    return {each for each in found | {quote(each, safe="") for each in found} if len(each) >= SHORT}


class Veil:
    """Covers secrets in texts, and in every record that any library logs while it is on."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self.secrets: set[str] = set()
        self.pattern: re.Pattern[str] | None = None
        self.factory: Callable[..., logging.LogRecord] | None = None
        self.cover(secrets)

    def cover(self, secrets: Iterable[str], instead_of: Iterable[str] = ()) -> None:
        """From now on covers these as well, and no longer those it is told them instead of."""
        self.secrets = (self.secrets - set(instead_of)) | {secret for secret in secrets if len(secret) >= SHORT}
        longest = sorted(self.secrets, key=len, reverse=True)
        self.pattern = re.compile("|".join(map(re.escape, longest))) if longest else None

    def __call__(self, text: str) -> str:
        return self.pattern.sub(HIDDEN, text) if self.pattern else text

    def on(self) -> None:
        """Covers what is logged, whoever logs it: the libraries that send write addresses into their own logs."""
        if self.factory is None:
            self.factory = logging.getLogRecordFactory()
            logging.setLogRecordFactory(self._record)

    def off(self) -> None:
        if self.factory is not None and logging.getLogRecordFactory() == self._record:
            logging.setLogRecordFactory(self.factory)
            self.factory = None

    def _record(self, *args: Any, **more: Any) -> logging.LogRecord:
        assert self.factory is not None
        record = self.factory(*args, **more)
        with contextlib.suppress(TypeError, ValueError, KeyError):  # a record whose arguments do not fit is its handler's to report
            said = record.getMessage()
            if (covered := self(said)) != said:
                record.msg, record.args = covered, ()
        if record.exc_info and record.exc_info[1] is not None:
            trace = "".join(traceback.format_exception(record.exc_info[1])).rstrip("\n")
            if (covered := self(trace)) != trace:
                record.exc_info, record.exc_text = None, covered
        return record


# --- what is said


def link(base: str, incident: Incident) -> str:
    """The page at the strangest moment of an incident."""
    return f"{base}/?{urlencode({'domain': incident.stream, 'at': incident.peak.step})}"


def message(change: Change, source: Source | None, base: str) -> Message:
    """What a person is told of a change: stream, feature, value, expected, since when, and where to look."""
    incident, peak = change.incident, change.incident.peak
    known = source is not None and peak.feature < len(source.names)
    title = source.title if source is not None else incident.stream
    feature = source.names[peak.feature] if source is not None and known else f"feature {peak.feature + 1}"
    unit = source.units[peak.feature] if source is not None and known else ""
    over = incident.state == RESOLVED
    facts = {
        "stream": incident.stream,
        "feature": feature,
        "value": f"{peak.value:.6g} {unit}".strip(),
        "expected": f"{peak.low:.6g} to {peak.high:.6g} {unit}".strip() if peak.low == peak.low else "this detector names no range",
        "score": f"{peak.score:.1f} σ, threshold {peak.threshold:g}",
        "since": _moment(incident.start) + (f" until {_moment(incident.end)}" if over else ""),
    }
    lines = [incident.text, *(f"{name}: {value}" for name, value in facts.items())]
    head = f"{RESOLVED}: {title} is normal again" if over else f"{incident.severity}: {title} is unusual"
    return Message(tame(head), tame("\n".join(lines)) + f"\n{link(base, incident)}", RESOLVED if over else incident.severity)


def together(messages: list[Message], links: list[str]) -> Message:
    """Several messages as one: the first line of each, and where to look."""
    if len(messages) == 1:
        return messages[0]
    lines = [f"{each.title}\n{each.body.splitlines()[0]}\n{where}" for each, where in zip(messages[:TOGETHER], links)]
    more = [f"and {len(messages) - TOGETHER} more"] if len(messages) > TOGETHER else []
    live = [each.severity for each in messages if each.severity != RESOLVED]
    return Message(f"{len(messages)} changes of incidents", "\n\n".join(lines + more), max(live, key=SEVERITIES.index) if live else RESOLVED)


def tame(text: str) -> str:
    """A text in which no name that somebody pushed in can call a whole team: "@everyone", "<!channel>"."""
    return text.replace("@", "@\u200b").replace("<", "‹").replace(">", "›")


def _moment(seconds: float) -> str:
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"
    except (OverflowError, ValueError, OSError):
        return f"{seconds:.0f} s since 1970"


def wants(one: Channel | Action, change: Change) -> bool:
    """Whether a channel or an action is meant by a change."""
    incident, over = change.incident, change.incident.state == RESOLVED
    timely = (one.resolved or not over) if isinstance(one, Channel) else (one.on == END) == over
    severe = SEVERITIES.index(incident.severity) >= SEVERITIES.index(one.severity)
    return change.call and timely and severe and any(fnmatchcase(incident.stream, pattern) for pattern in one.streams)


# --- what is done


def run_command(action: Action, given: str) -> tuple[bool, str]:
    """Runs the command with the incident as JSON on its standard input, never longer than its limit; whether it ended well, and its last words."""
    with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as asked:
        asked.write(given.encode())
        asked.seek(0)
        try:
            process = subprocess.Popen(action.command, stdin=asked, stdout=said, stderr=subprocess.STDOUT, start_new_session=True)
        except OSError as error:
            return False, f"it could not be started: {error.strerror or error}"
        try:
            code = process.wait(action.timeout)
            words = f"exit code {code}"
        except subprocess.TimeoutExpired:
            _kill(process)
            code, words = -1, f"killed after its limit of {action.timeout:g} s"
        end = said.seek(0, os.SEEK_END)
        said.seek(max(0, end - TAIL))
        tail = said.read().decode(errors="replace").strip()
    return code == 0, f"{words}: {tail}" if tail else words


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Ends a command with all that it has started."""
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.wait()


def call_webhook(action: Action, given: str) -> tuple[bool, str]:
    """Posts the incident as JSON; whether it was taken, and the answer."""
    request = urllib.request.Request(action.url, given.encode(), {"Content-Type": "application/json", "User-Agent": "redline"})
    try:
        with urllib.request.urlopen(request, timeout=action.timeout) as answer:
            return True, f"status {answer.status}: {answer.read(TAIL).decode(errors='replace').strip()}".removesuffix(": ")
    except urllib.error.HTTPError as error:
        with error:
            return False, f"status {error.code}"
    except (OSError, ValueError) as error:
        return False, f"no answer: {error}"


LISTENING: ContextVar[logging.Handler | None] = ContextVar("listening", default=None)


class Ear(logging.Handler):
    """The last complaint that a library logs on behalf of this thread: its way of saying why it could not send."""

    def __init__(self, library: str) -> None:
        super().__init__(logging.WARNING)
        self.library, self.heard = logging.getLogger(library), ""

    def emit(self, record: logging.LogRecord) -> None:
        if LISTENING.get() is self:  # the library takes the context along when it sends in a thread of its own
            self.heard = record.getMessage()

    def __enter__(self) -> Ear:
        self.before = LISTENING.set(self)
        self.library.addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        self.library.removeHandler(self)
        LISTENING.reset(self.before)


class Outlet:
    """One channel or action with the thread that works for it and the calls that wait for it."""

    def __init__(self, name: str, work: Callable[[list[Change]], None]) -> None:
        self.name, self.work = name, work
        self.waiting: deque[Change] = deque()
        self.counts: Counter[str] = Counter()  # delivered, failed, retried, dropped, left out
        self.turn = threading.Condition()
        self.busy = self.stopped = False
        self.thread: threading.Thread | None = None

    def put(self, change: Change) -> None:
        """Leaves a call; never waits. A full queue drops it, counted."""
        with self.turn:
            if len(self.waiting) >= QUEUE:
                self.counts["dropped"] += 1
                if self.counts["dropped"] in (1, 10, 100, 1_000):
                    log.warning("%s: its queue of %d is full; %d calls dropped so far", self.name, QUEUE, self.counts["dropped"])
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
                changes, self.busy = list(self.waiting), True
                self.waiting.clear()
            try:
                self.work(changes)
            except Exception as error:  # the boundary between channels: one that breaks must not end for good
                self.counts["failed"] += len(changes)
                log.error("%s failed", self.name, exc_info=error)

    def rest(self, timeout: float) -> bool:
        """Waits until nothing waits; whether that was so in time."""
        with self.turn:
            return self.turn.wait_for(lambda: not self.waiting and not self.busy, timeout)

    def stop(self) -> None:
        with self.turn:
            self.stopped = True
            self.turn.notify_all()


class World(NamedTuple):
    """What a dispatch needs of its surroundings."""

    source: Callable[[str], Source | None] = lambda name: None  # a stream's title, names and units
    told: Callable[[str, str], None] = lambda id, severity: None  # an incident reached a channel
    record: Callable[[Record], None] = lambda record: None  # kept by whoever keeps the audit
    wall: Callable[[], float] = time.time  # seconds since the epoch
    pause: Callable[[float], Any] | None = None  # seconds; None: as long, or until the end of the program


class Dispatch:
    """Hands changes of incidents to the channels and actions they are meant for; it never waits."""

    def __init__(self, plan: Plan, secrets: Iterable[str] = (), world: World = World()) -> None:  # noqa: B008  a tuple of functions
        self.plan, self.world = plan, world
        self.records: deque[Record] = deque(maxlen=RECORDS)
        self.stopping = threading.Event()
        self.veil = Veil(secrets)
        self.veil.on()
        try:
            self.senders = {channel.name: self._sender(channel) for channel in plan.channels}
        except Exception:
            self.veil.off()
            raise
        for action in plan.actions:
            self.veil.cover(pieces(action.url, action.url) if action.url else ())
        self.done: dict[str, deque[str]] = {action.name: deque(maxlen=RECORDS) for action in plan.actions}  # ids
        self.runs: dict[str, deque[float]] = {action.name: deque(maxlen=action.hourly) for action in plan.actions}  # wall seconds
        self.channels = {c.name: Outlet(f"channel {c.name}", lambda changes, c=c: self.send(c, changes)) for c in plan.channels}  # type: ignore[misc]
        self.actions = {a.name: Outlet(f"action {a.name}", lambda changes, a=a: self.act(a, changes)) for a in plan.actions}  # type: ignore[misc]

    def tell(self, changes: Iterable[Change]) -> None:
        """Calls whom the changes are meant for."""
        for change in changes:
            self.repeat([change])
            for action in self.plan.actions:
                if wants(action, change) and change.incident.id not in self.done[action.name]:
                    self.done[action.name].append(change.incident.id)
                    self.actions[action.name].put(change)

    def repeat(self, changes: Iterable[Change]) -> None:
        """Calls that reached nobody before the program ended: channels only, an action is never run again."""
        for change in changes:
            for channel in self.plan.channels:
                if wants(channel, change):
                    self.channels[channel.name].put(change)

    def send(self, channel: Channel, changes: list[Change]) -> None:
        """Sends what waits for a channel as one message, again and again with growing pauses."""
        began, counts = time.perf_counter(), self.channels[channel.name].counts
        messages = [message(change, self.world.source(change.incident.stream), self.plan.base) for change in changes]
        whole = together(messages, [link(self.plan.base, change.incident) for change in changes])
        tries, (ok, heard) = 1, self.senders[channel.name](whole)
        for pause in PAUSES:
            if ok or self.stopping.is_set():
                break
            counts["retried"] += 1
            (self.world.pause or self.stopping.wait)(pause)
            tries, (ok, heard) = tries + 1, self.senders[channel.name](whole)
        counts["delivered" if ok else "failed"] += len(changes)
        text = whole.title if ok else f"not delivered after {tries} tries: {whole.title}. {heard}".rstrip(". ")
        ids = tuple(change.incident.id for change in changes)
        self.keep(Record(self.world.wall(), "channel", channel.name, ids, ok, text, tries, time.perf_counter() - began))
        for change in changes if ok else []:
            self.write(self.world.told, change.incident.id, change.incident.severity)

    def act(self, action: Action, changes: list[Change]) -> None:
        """Runs an action for each of the incidents that wait for it."""
        for change in changes:
            began, runs, now = time.perf_counter(), self.runs[action.name], self.world.wall()
            if action.dry_run:
                ok, text, what = True, f"dry run: would {'run ' + action.command[0] if action.command else 'call the webhook'}", "left out"
            elif len(runs) == action.hourly and now - runs[0] < 3_600:
                ok, text, what = False, f"not run: {action.hourly} runs within an hour already", "left out"
            else:
                runs.append(now)
                given = json.dumps(row(change.incident) | {"link": link(self.plan.base, change.incident)})
                ok, text = run_command(action, given) if action.command else call_webhook(action, given)
                what = "delivered" if ok else "failed"
            self.actions[action.name].counts[what] += 1
            self.keep(Record(now, "action", action.name, (change.incident.id,), ok, text, 1, time.perf_counter() - began))

    def keep(self, record: Record) -> None:
        """Remembers an outcome, without secrets, for the page, the audit and the log."""
        record = record._replace(text=self.veil(record.text))
        self.records.append(record)
        log.log(
            logging.INFO if record.ok else logging.WARNING,
            "%s %s, incident %s: %s",
            record.kind,
            record.name,
            " ".join(record.incidents),
            record.text,
        )
        self.write(self.world.record, record)

    def write(self, write: Callable[..., None], *what: Any) -> None:
        """Keeps an outcome beyond the end of the program; a full disk keeps nobody from being called."""
        try:
            write(*what)
        except OSError as error:
            log.error("an outcome could not be written: %s", error)

    def status(self) -> list[dict[str, Any]]:
        """Every channel and action with its counts and its last outcome, for a page or an answer: no address, no arguments."""
        ends = {(record.kind, record.name): record for record in self.records}
        rows = []
        for kind, each, outlets in (("channel", self.plan.channels, self.channels), ("action", self.plan.actions, self.actions)):
            for one in each:
                last, outlet = ends.get((kind, one.name)), outlets[one.name]
                how = one.url.split("://", 1)[0] if one.url else "command"
                rule = {"severity": one.severity, "streams": list(one.streams), "dry_run": isinstance(one, Action) and one.dry_run}
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
        """Waits until everything is said and done, at most so many seconds for each; whether it is."""
        return all(outlet.rest(timeout) for outlet in (*self.channels.values(), *self.actions.values()))

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
        """What sends a message to a channel, as Apprise does it; ChannelError when its address is none."""
        try:
            import apprise
        except ImportError:
            raise ChannelError(MISSING) from None
        at_first = pieces(channel.url) - self.veil.secrets
        self.veil.cover(at_first)  # a wrong address is logged by who reads it, before anybody knows what in it is secret
        service: Any = apprise.Apprise.instantiate(channel.url)
        if service is None:
            schema = channel.url.split("://", 1)[0] if "://" in channel.url else ""
            raise ChannelError(f"alerts file: [channels.{channel.name}] url: wanted an address as Apprise writes them; came {schema}://{HIDDEN}")
        self.veil.cover(pieces(channel.url, service.url(privacy=True)), instead_of=at_first)
        kinds = dict(zip(SEVERITIES, ("info", "warning", "failure"))) | {RESOLVED: "success"}
        post = apprise.Apprise()
        post.add(service)

        def send(said: Message) -> tuple[bool, str]:
            with Ear("apprise") as ear:
                ok = post.notify(
                    body=said.body, title=said.title, notify_type=apprise.NotifyType(kinds[said.severity]), body_format=apprise.NotifyFormat.TEXT
                )
            return bool(ok), ear.heard

        return send
