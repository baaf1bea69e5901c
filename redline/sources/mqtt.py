"""The client of an MQTT broker: reads topics, with a session that outlives the connection.

A message of quality of service 1 is acknowledged when its points are stored. Until then the broker
holds it, and sends it again to the next connection under the same client id. A message of quality 0
comes once or not at all.
"""

from __future__ import annotations

import os
import re
import socket
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from importlib.util import find_spec
from typing import Any, NamedTuple

import orjson

from redline.settings import ServerSettings
from redline.sources.arrow import is_arrow
from redline.sources.broker_address import (
    BROKER_ANSWER_SECONDS,
    BROKER_CONNECT_SECONDS,
    BROKER_RETRY_SECONDS,
    BrokerAddress,
    BrokerSettingsError,
    broker_names,
    parse_broker_address,
)
from redline.sources.consumer import NUMBER_BYTES, read_number, write_event

MISSING_MQTT = "--mqtt needs paho-mqtt, which is not installed: pip install 'redline[mqtt]'"
MQTT_PORTS = {"mqtt": 1883, "mqtts": 8883}
KEEP_ALIVE = 30  # seconds of silence after which each asks whether the other is there
UNACKNOWLEDGED = 20_000  # messages that the broker sends without an acknowledgement
HELD_MESSAGES = 20_000  # that are kept here while no more are wanted; then none is received
LARGEST_PACKET = 9 * 2**20  # bytes, a little above a record; the broker drops a larger one
HELD_BYTES = 64 * 2**20  # the same, of their contents
KEPT_SECONDS = 0xFFFFFFFF  # that the broker keeps the session: until it is removed there
BRIEF_SECONDS = 10.0  # a connection that ends sooner is tried again after twice the pause
PAUSE_SECONDS = 30.0  # such a pause, at most
LEAVE_SECONDS = 1.0  # that sending the last acknowledgements may take at the end
TICK = 1e-6  # seconds, at least, between the times of arrival of two messages
CLIENT_ID = re.compile(r"[ -~]{1,200}")
# reason codes of MQTT 5, with what they mean; the library gives them for 3.1.1 too
WRONG_PROTOCOL = 132
TAKEN_OVER = 142
MQTT_REFUSALS = {
    133: "the broker at {broker} refuses the client id {client!r}; choose another --mqtt-client",
    134: "the broker at {broker} refuses the name or the password of --mqtt",
    135: "the broker at {broker} refuses the name or the password of --mqtt, or this user may not "
    "read there",
    TAKEN_OVER: "another program has connected to {broker} as the client {client!r}; give each "
    "a --mqtt-client of its own",
}


class MqttOptions(NamedTuple):
    """Which topics are read, and how."""

    address: BrokerAddress
    filters: tuple[str, ...]
    client: str = "redline"  # the id under which the broker keeps the session

    @property
    def kind(self) -> str:
        """Return the name of such brokers."""
        return "MQTT"

    def connect(self, wall: Callable[[], float] = time.time) -> MqttConsumer:
        """Return a consumer of the topics."""
        return MqttConsumer(self, wall)

    def describe(self) -> dict[str, Any]:
        """Return what is read, without secrets, and the state before any is known."""
        named = {"broker": self.address.shown, "topics": list(self.filters), "client": self.client}
        return {**named, "connected": False, "unacknowledged": 0}


class MqttMessage(NamedTuple):
    """A message that came."""

    topic: str
    content: bytes
    number: int  # that the broker gave it within a session, 0 = of quality 0
    connection: int  # on which it came

    def value(self) -> bytes:
        """Return the record that it holds."""
        return self.content


class Unacknowledged(NamedTuple):
    """What is known of a message until the broker has its acknowledgement."""

    topic: str
    digest: int  # of its payload
    arrival: float  # seconds since the Unix epoch


def mqtt_options(
    settings: ServerSettings, environment: Mapping[str, str] = os.environ
) -> MqttOptions | None:
    """Return the topics of MQTT that the settings name; None = none.

    Raises:
        BrokerSettingsError: they cannot be used, or the library is missing.
    """
    if not settings.mqtt:
        if settings.mqtt_topic:
            raise BrokerSettingsError(
                "--mqtt-topic needs --mqtt, the broker, such as mqtt://localhost:1883"
            )
        return None
    if not settings.mqtt_topic:
        raise BrokerSettingsError("--mqtt needs --mqtt-topic, such as plant/+/temperature")
    options = MqttOptions(
        parse_broker_address("mqtt", settings.mqtt, MQTT_PORTS, environment),
        broker_names("mqtt-topic", settings.mqtt_topic),
        settings.mqtt_client,
    )
    if options.address.path:
        raise BrokerSettingsError("--mqtt: wanted nothing after host and port; see --mqtt-topic")
    if not CLIENT_ID.fullmatch(options.client):
        raise BrokerSettingsError("--mqtt-client: wanted 1 to 200 plain characters")
    for each in options.filters:
        if not is_filter(each):
            raise BrokerSettingsError(
                "--mqtt-topic: wanted levels between slashes, each a name or +, and # only at the "
                f"end; came {each[:80]!r}"
            )
    if find_spec("paho") is None:
        raise BrokerSettingsError(MISSING_MQTT)
    return options


def is_filter(text: str) -> bool:
    """Return whether a text is a filter of topics.

    >>> [is_filter(text) for text in ("plant/+/heat", "#", "plant/#", "plant/#/heat", "a+/b")]
    [True, True, True, False, False]
    """
    *levels, last = text.split("/")
    named = all(level == "+" or not set("+#") & set(level) for level in levels)
    return named and (last in ("+", "#") or not set("+#") & set(last)) and "\0" not in text


def read_payload(topic: str, payload: bytes, arrival: float) -> bytes:
    """Return the record of a message: what names a source stays, a number or an object is of its.

    >>> read_payload("plant/7/heat", b"20.5", 60.0)
    b'{"source":"plant/7/heat","time":60.0,"value":20.5}'
    >>> read_payload("plant/7", b'{"time": 60, "heat": 20.5, "load": 3, "unit": "C"}', 90.0)
    b'{"source":"plant/7","time":60,"values":{"heat":20.5,"load":3}}'
    """
    if NUMBER_BYTES.fullmatch(payload):
        return write_event(topic, arrival, {"value": read_number(payload)})
    try:
        return read_json_payload(topic, payload, arrival)
    except (TypeError, RecursionError):  # nested too deeply to be written again
        return payload  # it is said that it is no point


def read_json_payload(topic: str, payload: bytes, arrival: float) -> bytes:
    """Return the record of a message that is no plain number."""
    try:
        document = orjson.loads(payload) if not is_arrow(payload) else None
    except orjson.JSONDecodeError:
        return payload  # lines, or it is said what is wrong
    if isinstance(document, str):
        return write_event(topic, arrival, {"value": document})
    if not isinstance(document, dict):
        return payload
    if "source" in document:
        return payload if "time" in document else orjson.dumps({**document, "time": arrival})
    moment = document.pop("time", arrival)
    values = document.get("values")
    return write_event(topic, moment, values if isinstance(values, dict) else document)


def paho_client(options: MqttOptions, version: int, client: str, lasting: bool) -> Any:
    """Return a client of a version of MQTT, not connected yet."""
    from paho.mqtt.client import Client, MQTTv5
    from paho.mqtt.enums import CallbackAPIVersion

    made = Client(
        CallbackAPIVersion.VERSION2,
        client_id=client,
        clean_session=None if version == MQTTv5 else not lasting,
        protocol=version,  # type: ignore[arg-type]
        manual_ack=lasting,
    )
    made.connect_timeout = BROKER_CONNECT_SECONDS
    if options.address.user:
        made.username_pw_set(options.address.user, options.address.password)
    if options.address.scheme == "mqtts":
        made.tls_set_context(ssl.create_default_context())
    return made


def open_connection(options: MqttOptions, client: Any, lasting: bool) -> None:
    """Connect a client; the broker's answer comes later. May raise OSError."""
    from paho.mqtt.client import MQTTv5
    from paho.mqtt.packettypes import PacketTypes
    from paho.mqtt.properties import Properties

    given: dict[str, Any] = {}
    if client.protocol == MQTTv5:
        properties: Any = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.ReceiveMaximum = UNACKNOWLEDGED
        properties.MaximumPacketSize = LARGEST_PACKET
        if lasting:
            properties.SessionExpiryInterval = KEPT_SECONDS
        given = {"clean_start": not lasting, "properties": properties}
    client.connect(options.address.host, options.address.port, KEEP_ALIVE, **given)


class MqttConsumer:
    """Reads topics of one broker; for one thread, in which the library runs too."""

    def __init__(
        self,
        options: MqttOptions,
        wall: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make a consumer; the broker is asked by the first `read`."""
        from paho.mqtt.client import MQTTv5

        self.options = options
        self.wall = wall
        self.clock = clock
        self.trouble = ""  # why nothing comes, "" = nothing is wrong
        self.version = int(MQTTv5)
        self.client: Any = None  # None = not connected
        self.connected = False  # whether the broker has accepted us
        self.connection = 0  # counts them
        self.began = 0.0  # monotonic seconds at which the connection began
        self.pause = BROKER_RETRY_SECONDS / 2  # after a connection that the broker ended
        self.deadline = 0.0  # monotonic seconds until which the broker is to accept us
        self.next_try = float("-inf")  # monotonic seconds
        self.held = False  # whether nothing is to be given for now
        self.come: list[MqttMessage] = []  # and not given yet
        self.answers = 0  # of the broker to subscriptions
        self.waiting = 0  # bytes of these
        self.open: dict[int, Unacknowledged] = {}  # by the number of the message
        self.last = 0.0  # time of the last arrival

    def read(self, most: int, seconds: float) -> list[MqttMessage]:
        """Return what has come, at most so many; wait for the first for so many seconds.

        While it is held the connection goes on, until too much has come.
        """
        until = self.clock() + seconds
        if self.client is None and not self._connect():
            time.sleep(seconds)
            return []
        while self.client is not None:
            before = len(self.come)
            left = until - self.clock()
            if self.held and (before >= HELD_MESSAGES or self.waiting >= HELD_BYTES):
                self.client.loop_misc()  # it asks whether the broker is there
                time.sleep(max(0.0, left))
                break
            self._loop(max(0.0, left) if self.held or not before else 0.0)
            quiet = len(self.come) == before
            if left <= 0 and (self.held or quiet):
                break
            if not self.held and (len(self.come) >= most or (before and quiet)):
                break
        if self.held:
            return []
        found, self.come = self.come[:most], self.come[most:]
        self.waiting -= sum(len(each.content) for each in found)
        return found

    def hold(self, held: bool) -> None:
        """Give nothing, or give again."""
        self.held = held

    def mark(self, records: Sequence[MqttMessage]) -> None:
        """Acknowledge messages; one of an earlier connection comes again, under its own number."""
        for each in records:
            if each.number and each.connection == self.connection and self.client is not None:
                self.client.ack(each.number, 1)
                self.open.pop(each.number, None)

    def set_aside(self, record: MqttMessage, reason: str) -> Future[None] | None:
        """Return None: MQTT has no place for what was refused."""
        return None

    def poll(self) -> None:
        """Do nothing: what is acknowledged was sent."""

    def where(self, record: MqttMessage) -> str:
        """Return where a message was read."""
        return f"the topic {record.topic}"

    def state(self) -> Mapping[str, Any]:
        """Return whether it is connected, and the messages that are not acknowledged."""
        return {"connected": self.connected, "unacknowledged": len(self.open)}

    def close(self) -> None:
        """Leave the broker, which keeps the session.

        It forgets the acknowledgements before the end of a connection that it has not read yet, so
        an answer to something after them is waited for.
        """
        if self.client is not None and self.connected:
            answers = self.answers
            self._subscribe()
            until = self.clock() + LEAVE_SECONDS
            while self.answers == answers and self.clock() < until:
                if self.client.loop(0.02):  # it is gone
                    break
            self.client.disconnect()
        self.client = None

    # --- the conversation with the broker

    def _connect(self) -> bool:
        """Begin a connection; False = it is too early, or cannot be."""
        if self.clock() < self.next_try:
            return False
        self.next_try = self.clock() + BROKER_RETRY_SECONDS
        client = paho_client(self.options, self.version, self.options.client, lasting=True)
        client.on_connect = self._note_answer
        client.on_subscribe = self._note_subscription
        client.on_message = self._take
        client.on_disconnect = self._note_end
        try:
            open_connection(self.options, client, lasting=True)
        except (OSError, ValueError) as error:
            self.trouble = connection_trouble(self.options, error)
            return False
        self.client = client
        self.connection += 1
        self.come = [each for each in self.come if not each.number]  # the others come again
        self.waiting = sum(len(each.content) for each in self.come)
        self.began = self.clock()
        self.deadline = self.began + BROKER_ANSWER_SECONDS
        return True

    def _loop(self, seconds: float) -> None:
        """Let the library receive and send for a moment."""
        wrong = self.client.loop(seconds)
        now = self.clock()
        if not wrong and (self.connected or now < self.deadline):
            return
        ended = ended_text if self.connected else no_answer
        self.trouble = self.trouble or ended(self.options)
        if self.connected:  # two clients of one id would end each other's connection for ever
            brief = now - self.began < BRIEF_SECONDS
            self.pause = min(2 * self.pause, PAUSE_SECONDS) if brief else BROKER_RETRY_SECONDS
            self.next_try = now + self.pause
        self.client = None
        self.connected = False

    def _note_answer(self, client: Any, _: Any, flags: Any, reason: Any, *rest: Any) -> None:
        """Subscribe once the broker has accepted us; say why where it has not."""
        from paho.mqtt.client import MQTTv5, MQTTv311

        if reason.is_failure:
            self.trouble = refusal_text(self.options, reason)
            if reason.value == WRONG_PROTOCOL and self.version == MQTTv5:
                self.version = int(MQTTv311)
                self.trouble = ""
            return
        if not flags.session_present:
            self.open.clear()
        self.connected = True
        self._subscribe()

    def _subscribe(self) -> None:
        """Ask for all filters in one message, which has one answer."""
        from paho.mqtt.client import MQTTv5
        from paho.mqtt.subscribeoptions import SubscribeOptions

        how: Any = 1
        if self.version == MQTTv5:
            how = SubscribeOptions(qos=1, retainHandling=SubscribeOptions.RETAIN_DO_NOT_SEND)
        self.client.subscribe([(each, how) for each in self.options.filters])

    def _note_subscription(self, _: Any, __: Any, ___: int, reasons: Any, *rest: Any) -> None:
        """Say that the broker lets us read, or that it does not."""
        self.answers += 1
        failed = [name for name, each in zip(self.options.filters, reasons) if each.is_failure]
        self.trouble = f"this user may not read {', '.join(failed)}" if failed else ""

    def _note_end(self, _: Any, __: Any, ___: Any, reason: Any, *rest: Any) -> None:
        """Note why the broker ended the connection, where it said so."""
        if getattr(reason, "value", 0) in MQTT_REFUSALS:
            self.trouble = refusal_text(self.options, reason)

    def _take(self, client: Any, _: Any, message: Any) -> None:
        """Keep a message that came, with its time of arrival, or the one of its first copy."""
        if message.retain:  # what was there before us is no new value
            if message.qos:
                client.ack(message.mid, message.qos)
            return
        number = message.mid if message.qos else 0
        before = self.open.get(number) if message.dup else None
        if before and (before.topic, before.digest) == (message.topic, hash(message.payload)):
            arrival = before.arrival
        else:
            arrival = self.last = max(self.wall(), self.last + TICK)
        if number:
            self.open[number] = Unacknowledged(message.topic, hash(message.payload), arrival)
        content = read_payload(message.topic, message.payload, arrival)
        self.waiting += len(content)
        self.come.append(MqttMessage(message.topic, content, number, self.connection))


def no_answer(options: MqttOptions) -> str:
    """Return the sentence of a broker that is away."""
    return f"no MQTT broker answers at {options.address.shown}"


def ended_text(options: MqttOptions) -> str:
    """Return the sentence of a broker that ended a connection and did not say why."""
    return (
        f"the MQTT broker at {options.address.shown} ended the connection: it stops, or another "
        f"program connected as the client {options.client!r}; give each a --mqtt-client of its own"
    )


def connection_trouble(options: MqttOptions, error: Exception) -> str:
    """Return in a sentence why no connection can be made."""
    shown = options.address.shown
    if isinstance(error, socket.gaierror):
        return f"the name of the broker {shown} is not known; correct --mqtt"
    if isinstance(error, ssl.SSLError):
        return f"TLS with the MQTT broker at {shown} fails: {options.address.redact(str(error))}"
    return no_answer(options)


def refusal_text(options: MqttOptions, reason: Any) -> str:
    """Return in a sentence why a broker ended or refused a connection."""
    shown = options.address.shown
    other = "the broker at {broker} refuses the connection: {reason}"
    text = MQTT_REFUSALS.get(reason.value, other)
    return text.format(broker=shown, client=options.client, reason=str(reason))


def examine_broker(options: MqttOptions) -> str:
    """Return why a broker cannot be read, "" = it lets us in; the running session is left alone."""
    from paho.mqtt.client import MQTTv5, MQTTv311

    for version in (int(MQTTv5), int(MQTTv311)):
        answers: list[Any] = []
        client = paho_client(options, version, "", lasting=False)
        client.on_connect = lambda *given, found=answers: found.append(given[3])
        try:
            open_connection(options, client, lasting=False)
        except (OSError, ValueError) as error:
            return connection_trouble(options, error)
        until = time.monotonic() + BROKER_ANSWER_SECONDS
        while not answers and time.monotonic() < until and not client.loop(0.1):
            pass
        client.disconnect()
        if not answers:
            return no_answer(options)
        if answers[0].value != WRONG_PROTOCOL:
            break
    return refusal_text(options, answers[0]) if answers[0].is_failure else ""
