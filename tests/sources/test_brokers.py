"""The settings and the records of Redis and MQTT, without a server: what is refused and why."""

from __future__ import annotations

import time
from typing import Any

import pytest

from redline.settings import ServerSettings
from redline.sources import mqtt, redis_streams
from redline.sources.broker_address import BrokerSettingsError, parse_broker_address
from redline.sources.directory import SeriesDirectory
from redline.sources.mqtt import MqttConsumer, MqttOptions, mqtt_options, read_payload
from redline.sources.records import RecordReader
from redline.sources.redis_streams import read_entry, stream_options

SECRET = "s3cret-word"
VARIABLES = {"WORD": SECRET}
REDIS = {"redis": "redis://localhost", "redis_stream": "metrics"}
MQTT = {"mqtt": "mqtt://localhost", "mqtt_topic": "plant/+/heat"}


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"redis": "redis://localhost"}, "--redis needs --redis-stream"),
        ({"redis_stream": "m"}, "--redis-stream needs --redis"),
        ({**REDIS, "redis": "localhost:6379"}, "wanted redis://host:6379 or rediss://host:6379"),
        ({**REDIS, "redis": "redis://localhost:99999"}, "wanted redis://host:6379"),
        ({**REDIS, "redis": f"redis://:{SECRET}@a"}, "a password is not taken from an address"),
        ({**REDIS, "redis": "redis://:${NOT_THERE}@a"}, "the variable NOT_THERE is not set"),
        ({**REDIS, "redis": "redis://a/metrics"}, "the number of a database"),
        ({**REDIS, "redis_stream": "a,,b"}, "--redis-stream: wanted names"),
        ({**REDIS, "redis_group": ""}, "--redis-group: wanted"),
        ({**REDIS, "redis_dead_letter": "metrics"}, "another stream than --redis-stream"),
        ({"mqtt": "mqtt://localhost"}, "--mqtt needs --mqtt-topic"),
        ({"mqtt_topic": "a"}, "--mqtt-topic needs --mqtt"),
        ({**MQTT, "mqtt": "tcp://a"}, "wanted mqtt://host:1883 or mqtts://host:8883"),
        ({**MQTT, "mqtt": f"mqtt://ann:{SECRET}@a"}, "a password is not taken from an address"),
        ({**MQTT, "mqtt": "mqtt://a/plant"}, "nothing after host and port"),
        ({**MQTT, "mqtt_topic": "plant/#/heat"}, "# only at the end"),
        ({**MQTT, "mqtt_client": ""}, "--mqtt-client: wanted"),
    ],
)
def test_wrong_settings_of_brokers_are_refused_with_a_sentence(
    given: dict[str, Any], sentence: str
) -> None:
    settings = ServerSettings(**given)
    with pytest.raises(BrokerSettingsError, match=sentence) as refused:
        stream_options(settings, VARIABLES)
        mqtt_options(settings, VARIABLES)
    assert SECRET not in str(refused.value)


def test_a_missing_library_of_a_broker_is_answered_by_the_line_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in (redis_streams, mqtt):
        monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(BrokerSettingsError, match=r"pip install 'redline\[redis\]'"):
        stream_options(ServerSettings(**REDIS))
    with pytest.raises(BrokerSettingsError, match=r"pip install 'redline\[mqtt\]'"):
        mqtt_options(ServerSettings(**MQTT))
    assert stream_options(ServerSettings()) is None and mqtt_options(ServerSettings()) is None


def test_a_password_comes_from_a_variable_and_is_not_shown() -> None:
    text = "rediss://${WORD}:${WORD}@[::1]:7000/2"
    address = parse_broker_address("redis", text, {"rediss": 6379}, VARIABLES)
    assert (address.user, address.password, address.port) == (SECRET, SECRET, 7_000)
    assert address.shown == "rediss://[::1]:7000/2"
    assert address.redact(f"ERR {SECRET}\nagain") == "ERR *** again"


def read_alone(content: bytes) -> tuple[Any, ...]:
    """Return the source, the time and the values that a record is read to, or why it is not."""
    reader = RecordReader(SeriesDirectory())
    found = reader.read([content])
    if found.refused:
        return (found.refused[0].reason,)
    if found.sources:
        ((points, _),) = found.sources
        return points.source, points.time[0], dict(zip(points.names, points.x[0], strict=True))
    return reader.directory.texts[found.series[0]], found.time[0], found.value[0]


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({"source": "oven", "time": "60", "value": "2e1"}, ("oven", 60, 20)),
        ({"source": "oven", "time": "2026-01-05", "value": "1"}, ("oven", 1_767_571_200, 1)),
        ({"value": " -.5"}, ("stream", 7.000003, -0.5)),
        ({"heat": "1", "load": "2", "unit": "C"}, ("stream", 7.000003, {"heat": 1, "load": 2})),
        ({"heat": "1", "value": "2"}, ("stream", 7.000003, {"heat": 1, "value": 2})),
        ({"data": '{"source": "a", "time": 1, "value": 2}', "x": "3"}, ("a", 1, 2)),
    ],
)
def test_an_entry_is_read_by_its_fields(fields: dict[str, str], wanted: tuple[Any, ...]) -> None:
    raw = {name.encode(): value.encode() for name, value in fields.items()}
    assert read_alone(read_entry("stream", b"7000-3", raw).value()) == wanted


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"value": "hot"}, "wanted a number"),
        ({"unit": "C"}, "wanted one feature or more"),
        ({"value": "1_000"}, "wanted a number"),
        ({"time": "now", "value": "1"}, "Unix seconds"),
        ({"data": "hello"}, "wanted JSON"),
        ({"data": ""}, "a record with a value"),
        ({"source": "overview", "value": "1"}, "overview"),
        ({"value": "1e400"}, "wanted a number"),
    ],
)
def test_an_entry_that_cannot_be_read_says_why(fields: dict[str, str], reason: str) -> None:
    raw = {name.encode(): value.encode() for name, value in fields.items()}
    (said,) = read_alone(read_entry("stream", b"7000-3", raw).value())
    assert reason in said


@pytest.mark.parametrize(
    ("payload", "wanted"),
    [
        (b"20.5", ("a/b", 90, 20.5)),
        (b" +7 ", ("a/b", 90, 7)),
        (b'{"value": 1}', ("a/b", 90, 1)),
        (b'{"time": 60, "heat": 1, "on": true}', ("a/b", 60, {"heat": 1})),
        (b'{"time": 60, "values": {"heat": 1, "load": 2}}', ("a/b", 60, {"heat": 1, "load": 2})),
        (b'{"source": "c", "value": 1}', ("c", 90, 1)),
        (b'[{"source": "c", "time": 60, "value": 1}]', ("c", 60, 1)),
    ],
)
def test_a_payload_is_of_its_topic(payload: bytes, wanted: tuple[Any, ...]) -> None:
    assert read_alone(read_payload("a/b", payload, 90.0)) == wanted


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "a record with a value"),
        (b"hot", "wanted JSON"),
        (b"1e999", "wanted a number"),
        (b'"hot"', "wanted a number"),
        (b"true", "wanted an object"),
        (b"\xff\x00", "wanted JSON"),
        (b'{"unit": "C"}', "wanted one feature or more"),
        (b'{"source": 3, "value": 1}', "source: wanted a text"),
    ],
)
def test_a_payload_that_cannot_be_read_says_why(payload: bytes, reason: str) -> None:
    (said,) = read_alone(read_payload("a/b", payload, 90.0))
    assert reason in said


class PlayedClient:
    """Notes what is acknowledged."""

    def __init__(self) -> None:
        self.acknowledged: list[int] = []

    def ack(self, number: int, quality: int) -> None:
        self.acknowledged.append(number)


def test_a_number_of_an_earlier_connection_is_not_acknowledged_for_another_message() -> None:
    pytest.importorskip("paho")
    address = parse_broker_address("mqtt", "mqtt://a", mqtt.MQTT_PORTS, {})
    consumer = MqttConsumer(MqttOptions(address, ("a",)))
    consumer.client = client = PlayedClient()
    consumer.connection = 2
    consumer.open[1] = mqtt.Unacknowledged("a", hash(b"20.5"), 90.0)
    record = mqtt.MqttMessage("a", b"", 1, connection=1)
    consumer.mark([record])
    assert not client.acknowledged and consumer.open, "the broker may have given it again"
    consumer.mark([record._replace(connection=2), record._replace(connection=2, number=0)])
    assert client.acknowledged == [1] and not consumer.open


def test_a_broker_without_mqtt_5_is_asked_with_the_version_before_it() -> None:
    pytest.importorskip("paho")
    from paho.mqtt.packettypes import PacketTypes
    from paho.mqtt.reasoncodes import ReasonCode

    address = parse_broker_address("mqtt", "mqtt://a", mqtt.MQTT_PORTS, {})
    consumer = MqttConsumer(MqttOptions(address, ("a",)))
    assert consumer.version == 5
    reason = ReasonCode(PacketTypes.CONNACK, "Unsupported protocol version")
    consumer._note_answer(None, None, None, reason)
    assert (consumer.version, consumer.trouble) == (4, "")


DEEP = b"[" * 1_000 + b"]" * 1_000


@pytest.mark.parametrize(
    "payload", [b'{"source":"x","a":%b}' % DEEP, b'{"value":%b}' % DEEP, b"1" * 200_000 + b"x"]
)
def test_a_hostile_payload_is_a_record_at_once(payload: bytes) -> None:
    began = time.thread_time()
    content = read_payload("plant", payload, 60.0)
    found = RecordReader(SeriesDirectory()).read([content])
    assert time.thread_time() - began < 1.0
    assert len(found.refused) == 1


def test_of_the_entries_of_one_ms_the_first_thousand_have_a_time() -> None:
    fields = {b"value": b"20.5"}
    times, reasons = [], []
    for sequence in (b"0", b"999", b"1000", b"5000"):
        content = read_entry("oven", b"60000-" + sequence, fields).value()
        found = RecordReader(SeriesDirectory()).read([content])
        times += found.time.tolist()
        reasons += [each.reason for each in found.refused]
    assert times == [60.0, 60.000999] and len(reasons) == 2
    assert "more than 1,000 entries in one ms" in reasons[0]


def test_a_claimed_entry_that_an_old_server_has_deleted_is_read_among_our_own() -> None:
    pytest.importorskip("redis")
    made = redis_streams.StreamOptions(
        parse_broker_address("redis", "redis://a", redis_streams.REDIS_PORTS, {}), ("s",), "g"
    )
    consumer = redis_streams.StreamConsumer(made)
    assert list(consumer._take("s", [(None, None), (b"1-0", {b"value": b"1"})]))
    assert consumer.own == {"s": "0"}


def test_a_filter_that_is_refused_is_said_though_the_next_is_granted() -> None:
    pytest.importorskip("paho")
    made = MqttOptions(
        parse_broker_address("mqtt", "mqtt://a", mqtt.MQTT_PORTS, {}), ("secret/#", "plant/#"), "me"
    )
    consumer = MqttConsumer(made)
    reasons = [type("Reason", (), {"is_failure": failed}) for failed in (True, False)]
    consumer._note_subscription(None, None, 1, reasons)
    assert consumer.trouble == "this user may not read secret/#"
