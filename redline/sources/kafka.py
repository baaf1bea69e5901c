"""The client of a Kafka broker: reads a topic, writes to one, and says in a sentence what is wrong.

The library's own words may hold an address with a user's name and are many a second; what is shown
is one sentence, with the secrets of the client's settings taken out.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from redline.settings import ServerSettings

MISSING_KAFKA = (
    "--kafka needs confluent-kafka, which is not installed: pip install 'redline[kafka]'"
)
CHECK_SECONDS = 1.0  # seconds between two questions for the topic while something is wrong
BROKER_SECONDS = 2.0  # that a broker has to answer such a question
CAUSE_SECONDS = 60.0  # that a cause, once named by the library, explains why no broker answers
# of a consumer; those that a file of settings may change come first
DEFAULTS = {
    "auto.offset.reset": "earliest",  # a first start loses nothing that is there
    "session.timeout.ms": "6000",  # after a kill the partitions are given out again so much later
    "heartbeat.interval.ms": "1500",
    "auto.commit.interval.ms": "200",
    "topic.metadata.refresh.interval.ms": "10000",
    "queued.max.messages.kbytes": "16384",
    "fetch.wait.max.ms": "100",
    "reconnect.backoff.max.ms": "2000",
    "log_level": "0",
}
FIXED = {"enable.auto.commit": True, "enable.auto.offset.store": False}
# keys that a file of settings may not hold, with what to do instead
REFUSED_KEYS = {
    "bootstrap.servers": "it is the setting kafka",
    "metadata.broker.list": "it is the setting kafka",
    "group.id": "it is the setting kafka-group",
    "enable.auto.commit": "Redline commits what its store holds",
    "enable.auto.offset.store": "Redline commits what its store holds",
    "plugin.library.paths": "no code is loaded by a file of settings",
}
SECRET_KEY = re.compile(r"password|secret|\.pem$|oauthbearer\.config|token")
BROKER = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[\w.-]+)(:\d{1,5})?")
TOPIC_NAME = re.compile(r"[A-Za-z0-9._-]{1,249}")
REFERENCE = re.compile(r"\$\{(\w+)\}")


class KafkaSettingsError(ValueError):
    """Settings of the Kafka client that cannot be used; its text says what to do."""


class TopicOptions(NamedTuple):
    """Which topic is read, and how."""

    brokers: str  # host:port, with commas between several
    topic: str
    group: str
    dead_letter: str = ""  # the topic for records that cannot be read, "" = none
    config: Mapping[str, str] = {}  # further settings of the client, as librdkafka names them

    @property
    def kind(self) -> str:
        """Return the name of such brokers."""
        return "Kafka"

    def connect(self, wall: Callable[[], float] = time.time) -> TopicConsumer:
        """Return a consumer of the topic."""
        return TopicConsumer(self)

    def describe(self) -> dict[str, Any]:
        """Return what is read, without secrets, and the state of a group without partitions."""
        named = {"brokers": self.brokers, "topic": self.topic, "group": self.group}
        return {**named, **NOT_ASSIGNED}

    @property
    def secrets(self) -> list[str]:
        """Return what must not be shown."""
        return [value for key, value in self.config.items() if SECRET_KEY.search(key) and value]

    def redact(self, text: str) -> str:
        """Return a text without the secrets."""
        for secret in sorted(self.secrets, key=len, reverse=True):
            text = text.replace(secret, "***")
        return text


def has_kafka() -> bool:
    """Return whether the library is installed."""
    return find_spec("confluent_kafka") is not None


def topic_options(
    settings: ServerSettings, environment: Mapping[str, str] = os.environ
) -> TopicOptions | None:
    """Return the topic that the settings name; None = none.

    Raises:
        KafkaSettingsError: they cannot be used, or the library is missing.
    """
    if not settings.kafka:
        if settings.topic or settings.kafka_dead_letter or settings.kafka_config:
            raise KafkaSettingsError("--topic needs --kafka, the broker, such as localhost:9092")
        return None
    if not settings.topic:
        raise KafkaSettingsError("--kafka needs --topic, the topic that is read")
    options = TopicOptions(
        check_brokers(settings.kafka),
        check_topic_name("topic", settings.topic),
        settings.kafka_group,
        check_topic_name("kafka-dead-letter", settings.kafka_dead_letter or "", optional=True),
        read_client_config(settings.kafka_config, environment),
    )
    if options.dead_letter == options.topic:
        raise KafkaSettingsError("--kafka-dead-letter: wanted another topic than --topic")
    check_client(options)
    return options


def check_brokers(text: str) -> str:
    """Return the addresses of brokers, or raise KafkaSettingsError.

    >>> check_brokers("localhost:9092, [::1]:9093")
    'localhost:9092,[::1]:9093'
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(BROKER.fullmatch(part) for part in parts):
        raise KafkaSettingsError(
            "--kafka: wanted host:port, with commas between several; a password belongs into "
            f"--kafka-config; came {len(text)} characters of another form"
        )
    return ",".join(parts)


def check_topic_name(option: str, name: str, optional: bool = False) -> str:
    """Return the name of a topic, or raise KafkaSettingsError."""
    if not TOPIC_NAME.fullmatch(name) and not (optional and not name):
        wanted = "1 to 249 letters, digits, dots, underscores and hyphens"
        raise KafkaSettingsError(f"--{option}: wanted {wanted}; came {name[:80]!r}")
    return name


def read_client_config(
    path: str | None, environment: Mapping[str, str] = os.environ
) -> dict[str, str]:
    """Return the settings of a file of key=value lines; ${NAME} stands for a variable.

    Raises:
        KafkaSettingsError: it cannot be read, has a secret that others can read, or a line that is
            no setting of ours to give.
    """
    if not path:
        return {}
    try:
        text = Path(path).read_text(encoding="utf-8")
        mode = Path(path).stat().st_mode
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text in UTF-8"
        raise KafkaSettingsError(f"--kafka-config {path}: {reason}") from None
    try:
        found = parse_client_config(text, environment)
    except KafkaSettingsError as error:
        raise KafkaSettingsError(f"--kafka-config {path}, {error}") from None
    secret = any(SECRET_KEY.search(key) for key in found)
    if secret and os.name == "posix" and mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise KafkaSettingsError(
            f"--kafka-config {path} holds a secret that other users can read; chmod 600 {path}"
        )
    return found


def parse_client_config(text: str, environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the settings of some key=value lines; # begins a remark.

    >>> parse_client_config("# mine\\nsasl.username = ann\\nsasl.password=${P}", {"P": "x"})
    {'sasl.username': 'ann', 'sasl.password': 'x'}

    Raises:
        KafkaSettingsError: names the first line that is wrong, without its value.
    """
    found: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        key, equals, value = (part.strip() for part in line.partition("="))
        if not equals or not re.fullmatch(r"[a-z][a-z0-9._]{0,99}", key):
            raise KafkaSettingsError(f"line {number}: wanted key=value, as librdkafka names them")
        if key in REFUSED_KEYS:
            raise KafkaSettingsError(f"line {number}: {key} is not taken; {REFUSED_KEYS[key]}")
        for name in REFERENCE.findall(value):
            if name not in environment:
                raise KafkaSettingsError(f"line {number}: the variable {name} is not set")
        found[key] = REFERENCE.sub(lambda match: environment[match[1]], value)
    return found


def check_client(options: TopicOptions) -> None:
    """Make a client and close it, without asking a broker; raise KafkaSettingsError."""
    if not has_kafka():
        raise KafkaSettingsError(MISSING_KAFKA)
    from confluent_kafka import Consumer, KafkaException

    try:
        Consumer(consumer_config(options)).close()
    except (KafkaException, TypeError, ValueError) as error:
        raise KafkaSettingsError(f"--kafka-config: {error_text(options, error)}") from None


def consumer_config(options: TopicOptions) -> dict[str, Any]:
    """Return what the library's consumer is made from."""
    own = {"bootstrap.servers": options.brokers, "group.id": options.group}
    return {**DEFAULTS, **options.config, **FIXED, **own}


def producer_config(options: TopicOptions) -> dict[str, Any]:
    """Return what the library's producer is made from: acknowledged, in order, written once."""
    own = {"bootstrap.servers": options.brokers, "enable.idempotence": True, "log_level": "0"}
    only_reading = re.compile(r"auto\.|session\.|heartbeat\.|fetch\.|queued\.m|group\.|max\.poll")
    shared = {key: value for key, value in options.config.items() if not only_reading.match(key)}
    return {**shared, **own}


def error_text(options: TopicOptions, error: Exception) -> str:
    """Return what the library says about an error, on one line, without secrets."""
    inner = error.args[0] if error.args else error
    text = inner.str() if hasattr(inner, "str") else str(inner)
    return " ".join(options.redact(text).split())[:300]


class TopicMessage(Protocol):
    """A record as the library gives it."""

    def value(self) -> bytes | None: ...
    def key(self) -> bytes | None: ...
    def partition(self) -> int: ...
    def offset(self) -> int: ...


# the state of a consumer: the partitions assigned, and the records of these that are not read yet,
# None = not known
NOT_ASSIGNED: Mapping[str, Any] = {"partitions": [], "lag": None}


class TopicConsumer:
    """Reads one topic as a member of a group; for one thread."""

    def __init__(self, options: TopicOptions, clock: Callable[[], float] = time.monotonic) -> None:
        """Make a consumer; a broker is asked by the first `read`.

        Raises:
            KafkaSettingsError: the client's settings are wrong.
        """
        from confluent_kafka import Consumer

        self.options = options
        self.clock = clock
        self.trouble = ""  # why nothing comes, "" = nothing is wrong
        self.cause = ""  # what the library said last about it
        self.caused = float("-inf")  # monotonic seconds
        self.next_check = float("-inf")  # monotonic seconds; checked while something is wrong
        self.wrong = True  # until the topic was found
        self.subscribed = False
        self.held = False  # whether nothing is to come for now
        self.early: list[TopicMessage] = []  # came while it was held
        self.consumer = Consumer({**consumer_config(options), "error_cb": self._note_error})
        self.letters = TopicProducer(options) if options.dead_letter else None

    def read(self, most: int, seconds: float) -> list[TopicMessage]:
        """Return what has come, at most so many; wait for the first one for so many seconds."""
        if self.wrong and self.clock() >= self.next_check:
            self._check_topic()
        if not self.subscribed:
            self.consumer.poll(seconds)  # it calls back what is wrong
            return []
        if self.held:
            seconds = min(seconds, 0.05)
        first = self.consumer.poll(seconds)
        found = [] if first is None else [first, *self.consumer.consume(most - 1, 0)]
        if self.held:
            self.early += self._valid(found)
            return []
        early = self.early
        self.early = []
        return early + self._valid(found)

    def hold(self, held: bool) -> None:
        """Let nothing come, or let it come again; the group still knows that we are here."""
        if held == self.held or not self.subscribed:
            return
        self.held = held
        with contextlib.suppress(*self._errors()):  # the partitions were taken away meanwhile
            assigned = self.consumer.assignment()
            (self.consumer.pause if held else self.consumer.resume)(assigned)

    def mark(self, records: Sequence[TopicMessage]) -> None:
        """Have the offsets after some records, in their order, committed: soon, or when closed."""
        from confluent_kafka import TopicPartition

        offsets = {each.partition(): each.offset() + 1 for each in records}
        for partition, offset in offsets.items():
            place = TopicPartition(self.options.topic, partition, offset)
            with contextlib.suppress(*self._errors()):  # it belongs to another member now
                self.consumer.store_offsets(offsets=[place])

    def set_aside(self, record: TopicMessage, reason: str) -> Future[None] | None:
        """Write a record to the dead-letter topic, with why and from where; None = there is none.

        The future fails with OSError where it cannot be written.
        """
        if self.letters is None:
            return None
        headers = [
            ("reason", reason.encode(errors="replace")),
            ("topic", self.options.topic.encode()),
            ("partition", str(record.partition()).encode()),
            ("offset", str(record.offset()).encode()),
        ]
        topic = self.options.dead_letter
        return self.letters.write(topic, record.value(), record.key(), headers)

    def poll(self) -> None:
        """Resolve the futures of the dead letters that are written."""
        if self.letters is not None:
            self.letters.poll()

    def where(self, record: TopicMessage) -> str:
        """Return where a record was read."""
        return f"{self.options.topic}, partition {record.partition()}, offset {record.offset()}"

    def state(self) -> Mapping[str, Any]:
        """Return what is assigned and how far behind it is.

        A broker is asked only for partitions of which nothing was read yet.
        """
        if not self.subscribed:
            return NOT_ASSIGNED
        try:
            assigned = self.consumer.assignment()
            behind = [self._lag(place) for place in self.consumer.position(assigned)]
        except self._errors():
            return NOT_ASSIGNED
        known = [lag for lag in behind if lag is not None]
        lag = sum(known) if known and len(known) == len(behind) else None
        return {"partitions": sorted(place.partition for place in assigned), "lag": lag}

    def _lag(self, place: Any) -> int | None:
        """Return the records after a position, None = not known."""
        low, high = self.consumer.get_watermark_offsets(place, cached=True)
        if high < 0:
            return None
        if place.offset < 0:
            (place,) = self.consumer.committed([place], timeout=BROKER_SECONDS)
        return int(high - (place.offset if place.offset >= 0 else max(low, 0)))

    def close(self) -> None:
        """Commit what is marked and leave the group."""
        with contextlib.suppress(*self._errors()):
            self.consumer.close()

    def _errors(self) -> tuple[type[Exception], ...]:
        from confluent_kafka import KafkaException

        return (KafkaException, RuntimeError)

    def _valid(self, messages: Iterable[Any]) -> list[TopicMessage]:
        """Return the messages that are records; the others say what is wrong."""
        found = []
        for message in messages:
            error = message.error()
            if error is None:
                found.append(message)
            else:
                self._note_error(error)
        return found

    def _note_error(self, error: Any) -> None:
        """Note what the library says; the next `read` asks whether the topic is there."""
        from confluent_kafka import KafkaError

        if error.code() == KafkaError._PARTITION_EOF:
            return
        self.wrong = True
        cause = cause_of(self.options, error)
        if cause:
            self.cause = cause
            self.caused = self.clock()

    def _check_topic(self) -> None:
        """Ask a broker for the topic, and say what is wrong, or that nothing is any more."""
        self.trouble = find_trouble(self.consumer, self.options)
        if self.trouble and self.cause and self.clock() - self.caused < CAUSE_SECONDS:
            self.trouble = self.cause
        self.next_check = self.clock() + CHECK_SECONDS
        self.wrong = bool(self.trouble)
        if not self.wrong:
            self.cause = ""
        if not self.wrong and not self.subscribed:
            self.consumer.subscribe([self.options.topic])
            self.subscribed = True


def find_trouble(client: Any, options: TopicOptions) -> str:
    """Return why a client cannot read its topic, "" = it can."""
    from confluent_kafka import KafkaException

    try:
        found = client.list_topics(options.topic, timeout=BROKER_SECONDS)
    except KafkaException as error:
        return cause_of(options, error.args[0]) or f"no Kafka broker answers at {options.brokers}"
    topic = found.topics.get(options.topic)
    if topic is None or topic.error is not None:
        cause = cause_of(options, topic.error) if topic is not None else ""
        return cause or missing_topic(options)
    return ""


class TopicExamination(NamedTuple):
    """What a broker says of a topic and of a group that reads it."""

    trouble: str  # why it cannot be read, "" = it can
    partitions: int = 0
    lag: int | None = None  # records that the group has not committed; None = not known


def examine_topic(options: TopicOptions) -> TopicExamination:
    """Ask a broker about a topic and a group, without joining it."""
    from confluent_kafka import Consumer, KafkaException, TopicPartition

    causes: list[str] = []

    def note(error: Any) -> None:
        causes.append(cause_of(options, error))

    client = Consumer({**consumer_config(options), "error_cb": note})
    try:
        trouble = find_trouble(client, options)
        if trouble:
            client.poll(0.1)  # it calls back what is wrong
            return TopicExamination(next(filter(None, causes), trouble))
        found = client.list_topics(options.topic, timeout=BROKER_SECONDS).topics[options.topic]
        places = [TopicPartition(options.topic, number) for number in found.partitions]
        lag = 0
        for place in client.committed(places, timeout=BROKER_SECONDS):
            low, high = client.get_watermark_offsets(place, timeout=BROKER_SECONDS)
            lag += high - max(low, place.offset)
        return TopicExamination("", len(places), lag)
    except KafkaException as error:
        return TopicExamination(cause_of(options, error.args[0]) or error_text(options, error))
    finally:
        client.close()


def missing_topic(options: TopicOptions) -> str:
    """Return the sentence of a topic that is not there."""
    return (
        f"the broker at {options.brokers} has no topic {options.topic!r}; create it, or correct "
        "--topic"
    )


def cause_of(options: TopicOptions, error: Any) -> str:
    """Return in a sentence what an error of the library means; "" = only that none answers."""
    from confluent_kafka import KafkaError as E

    sentences = {
        E.UNKNOWN_TOPIC_OR_PART: missing_topic(options),
        E._UNKNOWN_TOPIC: missing_topic(options),
        E._AUTHENTICATION: f"the broker at {options.brokers} refuses the name or the password; "
        "correct the file of --kafka-config",
        E.SASL_AUTHENTICATION_FAILED: f"the broker at {options.brokers} refuses the name or the "
        "password; correct the file of --kafka-config",
        E.TOPIC_AUTHORIZATION_FAILED: f"this user may not read the topic {options.topic!r}",
        E.GROUP_AUTHORIZATION_FAILED: f"this user may not read as the group {options.group!r}; "
        "choose another --kafka-group",
        E._RESOLVE: f"the name of the broker {options.brokers} is not known; correct --kafka",
        E._SSL: f"TLS with the broker at {options.brokers} fails: "
        f"{options.redact(error.str())[:200]}",
    }
    return sentences.get(error.code(), "")


class TopicProducer:
    """Writes records; for one thread."""

    def __init__(self, options: TopicOptions) -> None:
        """Make a producer for the brokers of some options."""
        from confluent_kafka import Producer

        self.options = options
        self.producer = Producer(producer_config(options))

    def write(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None = None,
        headers: Sequence[tuple[str, bytes]] = (),
    ) -> Future[None]:
        """Queue a record; the future resolves when a broker has it, or fails with OSError."""
        written: Future[None] = Future()

        def delivered(error: Any, _: Any) -> None:
            if error is None:
                written.set_result(None)
            else:
                text = cause_of(self.options, error) or self.options.redact(error.str())
                written.set_exception(OSError(text))

        while True:
            try:
                self.producer.produce(
                    topic, value, key, headers=list(headers) or None, on_delivery=delivered
                )
            except BufferError:  # its queue is full
                self.producer.poll(0.1)
            else:
                self.producer.poll(0)
                return written

    def flush(self, seconds: float) -> int:
        """Wait until all is written, at most so long; return how many records are not."""
        return int(self.producer.flush(seconds))

    def poll(self) -> None:
        """Resolve the futures of what is written."""
        self.producer.poll(0)
