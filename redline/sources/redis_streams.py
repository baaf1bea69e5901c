"""The client of a Redis server: reads streams as a consumer of a group, and acknowledges entries.

An entry that was read stays pending in its group until it is acknowledged. What a killed process
left pending is claimed by another one, or by itself after its start, once it was idle for a while.
"""

from __future__ import annotations

import os
import re
import socket
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from importlib.util import find_spec
from typing import Any, NamedTuple

from redline.settings import ServerSettings
from redline.sources.broker_address import (
    BROKER_ANSWER_SECONDS,
    BROKER_CONNECT_SECONDS,
    BROKER_RETRY_SECONDS,
    BrokerAddress,
    BrokerSettingsError,
    broker_names,
    parse_broker_address,
)
from redline.sources.consumer import read_number, write_event

MISSING_REDIS = "--redis needs redis, which is not installed: pip install 'redline[redis]'"
REDIS_PORTS = {"redis": 6379, "rediss": 6379}
CLAIMS = 3  # looks for such entries within that time
FEW_ENTRIES = 100  # that are asked for at first: it is not known how large they are
LARGE_REPLY = 8 * 2**20  # bytes of entries in a reply, above which fewer are asked for
ENTRIES_A_MS = 1_000  # entries of one ms that have a time of their own
IDS_AT_ONCE = 1_000  # entries in one command
DEAD_LETTERS = 100_000  # entries that the dead-letter stream keeps, about
OWN_FIELDS = ("source", "time")  # of an entry; the others are numbers, or left out
RECORD_FIELD = b"data"  # an entry with it is a record as of a topic: JSON or Arrow
MISSING_NUMBERS = (b"nan", b"NaN", b"null")


class StreamOptions(NamedTuple):
    """Which streams are read, and how."""

    address: BrokerAddress
    streams: tuple[str, ...]
    group: str
    dead_letter: str = ""  # the stream for entries that cannot be read, "" = none
    consumer: str = "redline"  # the name within the group, another for each process
    idle: float = 30.0  # seconds after which the pending entries of another consumer are claimed

    @property
    def kind(self) -> str:
        """Return the name of such brokers."""
        return "Redis"

    @property
    def database(self) -> int:
        """Return the number of the database."""
        return int(self.address.path.strip("/") or 0)

    def connect(self, wall: Callable[[], float] = time.time) -> StreamConsumer:
        """Return a consumer of the streams."""
        return StreamConsumer(self)

    def describe(self) -> dict[str, Any]:
        """Return what is read, without secrets, and the state before any is known."""
        named = {"server": self.address.shown, "streams": list(self.streams), "group": self.group}
        return {**named, "consumer": self.consumer, "pending": None, "lag": None}


class StreamEntry(NamedTuple):
    """An entry of a stream."""

    stream: str
    id: str
    fields: Mapping[bytes, bytes]
    content: bytes

    def value(self) -> bytes:
        """Return the record that it holds."""
        return self.content


def has_redis() -> bool:
    """Return whether the library is installed."""
    return find_spec("redis") is not None


def stream_options(
    settings: ServerSettings, environment: Mapping[str, str] = os.environ
) -> StreamOptions | None:
    """Return the streams of Redis that the settings name; None = none.

    Raises:
        BrokerSettingsError: they cannot be used, or the library is missing.
    """
    if not settings.redis:
        if settings.redis_stream or settings.redis_dead_letter:
            raise BrokerSettingsError(
                "--redis-stream needs --redis, the server, such as redis://localhost:6379"
            )
        return None
    if not settings.redis_stream:
        raise BrokerSettingsError("--redis needs --redis-stream, the stream that is read")
    options = StreamOptions(
        parse_broker_address("redis", settings.redis, REDIS_PORTS, environment),
        broker_names("redis-stream", settings.redis_stream),
        settings.redis_group,
        settings.redis_dead_letter or "",
        f"{socket.gethostname()}-{os.getpid()}",
        settings.redis_idle,
    )
    if not re.fullmatch(r"(/\d{1,5})?", options.address.path):
        raise BrokerSettingsError("--redis: wanted the number of a database after the host, as /0")
    if options.dead_letter in options.streams:
        raise BrokerSettingsError("--redis-dead-letter: wanted another stream than --redis-stream")
    if not options.group:
        raise BrokerSettingsError("--redis-group: wanted the name of a consumer group")
    if not has_redis():
        raise BrokerSettingsError(MISSING_REDIS)
    return options


def redis_client(options: StreamOptions) -> Any:
    """Return a client, which connects at its first command and tries each one once."""
    from redis import Redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    address = options.address
    return Redis(
        host=address.host,
        port=address.port,
        db=options.database,
        username=address.user,
        password=address.password,
        ssl=address.scheme == "rediss",
        protocol=2,
        socket_timeout=BROKER_ANSWER_SECONDS,
        socket_connect_timeout=BROKER_CONNECT_SECONDS,
        retry=Retry(NoBackoff(), 0),
        client_name="redline",
    )


def read_entry(stream: str, number: bytes, fields: Mapping[bytes, bytes]) -> StreamEntry:
    """Return an entry with its record: the field `data`, or an event made of its fields.

    >>> read_entry("oven", b"60000-2", {b"value": b"20.5", b"unit": b"C"}).value()
    b'{"source":"oven","time":60.000002,"value":20.5}'
    """
    content = fields.get(RECORD_FIELD)
    if content is None:
        texts = {name.decode(errors="replace"): value for name, value in fields.items()}
        source, moment = (texts.get(name, b"").decode(errors="replace") for name in OWN_FIELDS)
        values = {
            name: None if value in MISSING_NUMBERS else read_number(value)
            for name, value in texts.items()
            if name not in OWN_FIELDS
        }
        content = write_event(source or stream, moment or entry_time(number), values)
    return StreamEntry(stream, number.decode(), fields, content)


def entry_time(number: bytes) -> float | str:
    """Return the time of an entry's id in seconds; those of one ms are a microsecond apart.

    Beyond 1,000 in one ms there is no time left for an entry: a text, as which it is refused.
    """
    milliseconds, _, sequence = number.partition(b"-")
    if int(sequence or 0) >= ENTRIES_A_MS:
        return f"none: more than {ENTRIES_A_MS:,} entries in one ms, which need a field time"
    return round(int(milliseconds) / 1e3 + int(sequence or 0) / 1e6, 6)


class StreamConsumer:
    """Reads the streams of one server as a consumer of a group; for one thread."""

    def __init__(self, options: StreamOptions, clock: Callable[[], float] = time.monotonic) -> None:
        """Make a consumer; the server is asked by the first `read`."""
        self.options = options
        self.clock = clock
        self.trouble = ""  # why nothing comes, "" = nothing is wrong
        self.client = redis_client(options)
        self.ready = False  # whether the groups are there
        self.next_try = float("-inf")  # monotonic seconds
        self.held = False  # whether nothing is to come for now
        self.count = FEW_ENTRIES  # that are asked for
        self.own: dict[str, str] = {}  # stream -> after which of our pending entries to read on
        self.claimed: dict[str, str] = {}  # the same of those of other consumers
        self.next_claim = float("-inf")  # monotonic seconds
        self.pending: set[tuple[str, str]] = set()  # stream and id of what was given
        self.committed: dict[str, list[str]] = defaultdict(list)  # ids to be acknowledged
        self.letters: list[tuple[StreamEntry, str, Future[None]]] = []  # to be written

    def read(self, most: int, seconds: float) -> list[StreamEntry]:
        """Return what has come, about so many at most; wait for the first for so many seconds."""
        if self.held or self.clock() < self.next_try:
            time.sleep(seconds)
            return []
        return self._try(lambda: self._read(most, seconds)) or []

    def hold(self, held: bool) -> None:
        """Ask for nothing, or ask again."""
        self.held = held

    def mark(self, records: Sequence[StreamEntry]) -> None:
        """Acknowledge entries, now or as soon as the server is there again."""
        for each in records:
            self.committed[each.stream].append(each.id)
        self.poll()

    def set_aside(self, record: StreamEntry, reason: str) -> Future[None] | None:
        """Write an entry to the dead-letter stream, with why and from where; None = no such stream.

        The future fails with OSError where it cannot be written.
        """
        if not self.options.dead_letter:
            return None
        self.letters.append((record, reason, Future()))
        return self.letters[-1][2]

    def poll(self) -> None:
        """Acknowledge what is committed and write the dead letters."""
        if (self.committed or self.letters) and self.clock() >= self.next_try:
            self._try(self._send)

    def where(self, record: StreamEntry) -> str:
        """Return where an entry was read."""
        return f"{record.stream}, entry {record.id}"

    def state(self) -> Mapping[str, Any]:
        """Return the pending entries of the group and how many it did not read yet."""
        if not self.ready or self.clock() < self.next_try:
            return {}
        return self._try(lambda: group_state(self.client, self.options)) or {}

    def close(self) -> None:
        """Acknowledge what is committed, and leave the groups where nothing is pending."""
        self.poll()
        if self.ready and not self.trouble:
            self._try(self._leave)
        self.client.close()

    # --- the conversation with the server

    def _try(self, ask: Callable[[], Any]) -> Any:
        """Return what a question gives; None = something is wrong, which is tried again later."""
        from redis.exceptions import RedisError

        try:
            found = ask()
        except (RedisError, OSError) as error:
            self.trouble = redis_trouble(self.options, error)
            self.next_try = self.clock() + BROKER_RETRY_SECONDS
            self.ready = False
            return None
        if self.ready:
            self.trouble = ""
        return found

    def _prepare(self) -> None:
        """Make the groups that are missing, and begin with what is pending."""
        from redis.exceptions import ResponseError

        for stream in self.options.streams:
            try:
                self.client.xgroup_create(stream, self.options.group, id="0", mkstream=True)
            except ResponseError as error:
                if "BUSYGROUP" not in str(error):
                    raise
        self.own = dict.fromkeys(self.options.streams, "0")
        self.claimed = {}
        self.next_claim = float("-inf")
        self.ready = True

    def _read(self, most: int, seconds: float) -> list[StreamEntry]:
        if not self.ready:
            self._prepare()
        if self.committed or self.letters:
            self._send()
        each = max(1, min(self.count, most) // len(self.options.streams))
        found = self._read_own(each) or self._claim(each)
        if not found:
            places: Any = dict.fromkeys(self.options.streams, ">")
            found = self._ask(places, each, max(1, round(1_000 * seconds)))
        size = sum(len(each) for entry in found for each in entry.fields.values())
        if size > LARGE_REPLY:
            self.count = max(1, self.count // 2)
        elif len(found) >= each and size < LARGE_REPLY // 4:
            self.count = min(most, 2 * self.count)
        return found

    def _read_own(self, count: int) -> list[StreamEntry]:
        """Return our pending entries that were not given: those before a start, or a lost reply."""
        while self.own:
            before = dict(self.own)
            found = self._ask(before, count, None)
            for stream in before:
                if self.own.get(stream) == before[stream]:
                    self.own.pop(stream, None)  # no entry is left
            if found:
                return found
        return []

    def _claim(self, count: int) -> list[StreamEntry]:
        """Return the entries that other consumers left pending for long, from time to time."""
        if self.clock() >= self.next_claim and not self.claimed:
            self.claimed = dict.fromkeys(self.options.streams, "0-0")
            self.next_claim = self.clock() + self.options.idle / CLAIMS
        while self.claimed:
            stream, start = next(iter(self.claimed.items()))
            idle = round(1_000 * self.options.idle)
            group, name = self.options.group, self.options.consumer
            reply = self.client.xautoclaim(stream, group, name, idle, start, count=count)
            after = reply[0].decode()
            if after == "0-0":
                del self.claimed[stream]
            else:
                self.claimed[stream] = after
            found = list(self._take(stream, reply[1]))
            if found:
                return found
        return []

    def _ask(self, places: Mapping[str, str], count: int, block: int | None) -> list[StreamEntry]:
        """Return the entries of some streams after a place, > = those that are new."""
        group, name = self.options.group, self.options.consumer
        reply = self.client.xreadgroup(group, name, dict(places), count=count, block=block)
        found: list[StreamEntry] = []
        for stream, entries in reply or ():
            text = stream.decode()
            if text in self.own and entries:
                self.own[text] = entries[-1][0].decode()
            found += self._take(text, entries)
        return found

    def _take(self, stream: str, entries: Sequence[Any]) -> Iterator[StreamEntry]:
        """Yield the entries that are not being worked on; those deleted meanwhile are done."""
        for number, fields in entries:
            if number is None:  # before Redis 7 a claimed entry that was deleted meanwhile
                self.own.setdefault(stream, "0")  # among our own it comes with its id
                continue
            place = (stream, number.decode())
            if place in self.pending:
                continue
            if not fields:
                self.committed[stream].append(place[1])
                continue
            self.pending.add(place)
            yield read_entry(stream, number, fields)

    def _send(self) -> None:
        while self.letters:
            entry, reason, written = self.letters[0]
            self._write_letter(entry, reason, written)
            del self.letters[0]
        for stream in list(self.committed):
            while ids := self.committed[stream][:IDS_AT_ONCE]:
                self.client.xack(stream, self.options.group, *ids)
                del self.committed[stream][:IDS_AT_ONCE]
                self.pending.difference_update((stream, each) for each in ids)
            del self.committed[stream]

    def _write_letter(self, entry: StreamEntry, reason: str, written: Future[None]) -> None:
        from redis.exceptions import ResponseError

        where = {"refused-reason": reason, "refused-stream": entry.stream, "refused-id": entry.id}
        fields: dict[Any, Any] = {**entry.fields}
        fields.update({each: text.encode(errors="replace") for each, text in where.items()})
        name = self.options.dead_letter
        try:
            self.client.xadd(name, fields, maxlen=DEAD_LETTERS, approximate=True)
        except ResponseError as error:
            text = f"--redis-dead-letter {name}: {self.options.address.redact(str(error))}"
            written.set_exception(OSError(text))
        else:
            written.set_result(None)

    def _leave(self) -> None:
        from redis.exceptions import NoPermissionError

        for stream in self.options.streams:
            try:
                consumers = self.client.xinfo_consumers(stream, self.options.group)
            except NoPermissionError:
                return  # it cannot be known whether something is pending: the name stays
            for each in consumers:
                if each["name"].decode() == self.options.consumer and not each["pending"]:
                    self.client.xgroup_delconsumer(
                        stream, self.options.group, self.options.consumer
                    )


def group_state(client: Any, options: StreamOptions) -> dict[str, Any]:
    """Return the entries of a group that are pending, and those not read yet; None = not known.

    Neither is known to a user who may not ask for it.
    """
    from redis.exceptions import NoPermissionError

    pending = 0
    lag: int | None = 0
    for stream in options.streams:
        try:
            groups = client.xinfo_groups(stream)
        except NoPermissionError:
            return {"pending": None, "lag": None}
        for each in groups:
            if each["name"].decode(errors="replace") == options.group:
                pending += each["pending"]
                behind = each.get("lag")
                lag = None if lag is None or behind is None else lag + behind
    return {"pending": pending, "lag": lag}


class StreamExamination(NamedTuple):
    """What a server says of some streams and of a group that reads them."""

    trouble: str  # why they cannot be read, "" = they can
    entries: int = 0


def examine_streams(options: StreamOptions) -> StreamExamination:
    """Ask a server about streams, without making or joining a group."""
    from redis.exceptions import RedisError

    client = redis_client(options)
    try:
        entries = sum(client.xlen(stream) for stream in options.streams)
    except (RedisError, OSError) as error:
        return StreamExamination(redis_trouble(options, error))
    finally:
        client.close()
    return StreamExamination("", entries)


def redis_trouble(options: StreamOptions, error: Exception) -> str:
    """Return in a sentence what an error means, without secrets."""
    from redis import exceptions

    shown = options.address.shown
    said = options.address.redact(str(error))
    if isinstance(error, exceptions.AuthenticationError) or said.startswith(
        ("NOAUTH", "WRONGPASS")
    ):
        return f"the Redis server at {shown} refuses the name or the password of --redis"
    if isinstance(error, exceptions.NoPermissionError):
        return f"this user may not read the streams at {shown}: {said}"
    if isinstance(error, exceptions.BusyLoadingError):
        return f"the Redis server at {shown} still loads its data"
    if "WRONGTYPE" in said:
        names = ", ".join(options.streams)
        return f"a key among {names} at {shown} is no stream; correct --redis-stream"
    if "unknown command" in said.lower():
        return f"the server at {shown} is older than Redis 6.2: {said}"
    if "certificate" in said.lower() or "ssl" in said.lower():
        return f"TLS with the Redis server at {shown} fails: {said}"
    if isinstance(error, exceptions.ConnectionError | exceptions.TimeoutError | OSError):
        return f"no Redis server answers at {shown}"
    return f"the Redis server at {shown} says: {said}"
