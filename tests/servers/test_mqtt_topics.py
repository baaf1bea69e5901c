"""A real MQTT broker: a message is acknowledged once its points are kept, whatever is killed."""

from __future__ import annotations

import json
import logging
import signal
import time
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from redline.api import topic_feeder
from redline.cli.program import run_program
from redline.sources.broker_address import BrokerAddress
from redline.sources.mqtt import MqttOptions
from tests.servers.fed import START, Fed, Watching
from tests.servers.mqtt_broker import PASSWORD, MqttBroker
from tests.servers.reading import Reading

pytestmark = pytest.mark.service
numbers = count(1)


def options(broker: MqttBroker, **given: Any) -> MqttOptions:
    number = next(numbers)
    place = {"host": "127.0.0.1", "port": broker.port, **given.pop("address", {})}
    made = MqttOptions(BrokerAddress("mqtt", **place), (f"plant{number}/+/heat",), f"c{number}")
    return made._replace(**given)


def topic(made: MqttOptions, name: str = "7") -> str:
    return made.filters[0].replace("+", name)


def events(made: MqttOptions, first: int, steps: int) -> list[tuple[str, bytes]]:
    return [
        (topic(made), json.dumps({"time": START + at, "value": at}).encode())
        for at in range(first, first + steps)
    ]


def connected(made: MqttOptions, watching: Watching) -> Fed:
    fed = Fed(made, watching)
    fed.turn_until(lambda found: found["connected"])
    fed.turn_until(lambda found: not found["trouble"])
    return fed


def drop(fed: Fed) -> None:
    """End a connection as a kill does."""
    fed.consumer.client.socket().close()


def test_messages_are_acknowledged_when_their_points_are_kept(mqtt_broker: MqttBroker) -> None:
    made = options(mqtt_broker)
    watching = Watching()
    killed = connected(made, watching)
    mqtt_broker.write(events(made, 0, 300))
    killed.turn_until(lambda found: found["records"] == 300)
    watching.commit()
    drop(killed)  # kept, and not acknowledged any more
    mqtt_broker.write(events(made, 300, 100))  # while no process reads
    fed = connected(made, watching)
    fed.turn_until(lambda found: found["records"] == 400)
    watching.commit()
    report = fed.turn_until(lambda found: not found["unacknowledged"])
    assert (report["points"], report["repeated"], watching.points) == (100, 300, 400)
    fed.consumer.close()
    again = connected(made, watching)
    mqtt_broker.write(events(made, 400, 1))
    report = again.turn_until(lambda found: found["records"])
    assert report["records"] == 1, "what was acknowledged does not come again"


@pytest.mark.parametrize("version", [4, 5])
def test_a_broker_that_ends_is_waited_for_and_times_of_arrival_stay(
    mqtt_broker: MqttBroker, version: int
) -> None:
    made = options(mqtt_broker)
    watching = Watching()
    fed = Fed(made, watching)
    fed.consumer.version = version
    fed.turn_until(lambda found: found["connected"] and not found["trouble"])
    mqtt_broker.write([(topic(made), str(at).encode()) for at in range(10)])
    fed.turn_until(lambda found: found["records"] == 10)
    mqtt_broker.end()
    try:
        watching.commit()
        away = f"no MQTT broker answers at {mqtt_broker.address}"
        fed.turn_until(lambda found: found["trouble"] == away)
    finally:
        mqtt_broker.start()
    fed.turn_until(lambda found: found["records"] == 20)
    mqtt_broker.write([(topic(made), b"10")])
    fed.turn_until(lambda found: found["records"] == 21)
    watching.commit()
    report = fed.turn_until(lambda found: not found["unacknowledged"])
    assert (report["points"], report["repeated"], report["trouble"]) == (11, 10, None)
    assert watching.points == 11


def test_a_wrong_password_and_a_client_taken_over_are_said_and_never_shown(
    mqtt_broker: MqttBroker, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    place = {"port": mqtt_broker.secured_port, "user": "ann", "password": "wrong-secret"}
    made = options(mqtt_broker, address=place)
    report = Fed(made, Watching()).turn_until(lambda found: found["trouble"])
    assert "refuses the name or the password" in report["trouble"]
    assert "wrong-secret" not in json.dumps(report) + caplog.text
    place["password"] = PASSWORD
    made = options(mqtt_broker, address=place)
    first = connected(made, Watching())
    connected(made, Watching())
    report = first.turn_until(lambda found: found["trouble"])
    assert "another program connected as the client" in report["trouble"]
    assert PASSWORD not in json.dumps(report) + caplog.text


def test_what_cannot_be_read_is_acknowledged_and_what_was_retained_is_left_out(
    mqtt_broker: MqttBroker,
) -> None:
    made = options(mqtt_broker)
    watching = Watching()
    mqtt_broker.write([(topic(made), b"99")], retain=True)
    fed = Fed(made, watching)
    fed.consumer.version = 4  # 3.1.1 cannot ask for none
    fed.turn_until(lambda found: found["connected"] and not found["trouble"])
    mqtt_broker.write([(topic(made), b"hot"), (topic(made), b"20.5")])
    fed.turn_until(lambda found: found["records"] == 2)
    watching.commit()
    report = fed.turn_until(lambda found: not found["unacknowledged"])
    assert (report["points"], report["refused"]) == (1, 1)
    assert report["last_refusal"].startswith(f"the topic {topic(made)}: body: wanted JSON")


def test_while_the_queues_are_full_the_broker_keeps_the_messages(
    mqtt_broker: MqttBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(topic_feeder, "PIECE_POINTS", 10)
    monkeypatch.setattr(topic_feeder, "FULL_SECONDS", (0.001, 0.001))
    monkeypatch.setattr(topic_feeder, "READ_RECORDS", 50)
    monkeypatch.setattr("redline.sources.mqtt.HELD_MESSAGES", 100)
    made = options(mqtt_broker)
    watching = Watching()
    monkeypatch.setattr(watching.monitor.budget, "limit", 25)
    fed = connected(made, watching)
    mqtt_broker.write(events(made, 0, 1_000))
    read = fed.consumer.read
    fed.consumer.hold(True)
    for _ in range(10):
        assert read(1_000, 0.02) == []
    assert len(fed.consumer.come) == 100, "the others are not received"
    waits = []

    def commit_while_held(*given: Any) -> Any:
        if fed.consumer.held:
            waits.append(given)
            watching.commit()
        return read(*given)

    monkeypatch.setattr(fed.consumer, "read", commit_while_held)

    def kept(found: dict[str, Any]) -> bool:
        watching.commit()
        return bool(found["points"] == 1_000)

    fed.turn_until(kept)
    assert watching.points == 1_000 and waits


def test_payloads_of_every_form_are_on_the_page_after_a_kill(
    mqtt_broker: MqttBroker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = options(mqtt_broker)
    where = ("--mqtt", f"mqtt://ann:${{WORD}}@127.0.0.1:{mqtt_broker.secured_port}")
    where = (*where, "--mqtt-topic", f"{made.filters[0]},other/#", "--mqtt-client", made.client)
    reading = Reading(tmp_path, "mqtt", *where, WORD=PASSWORD)
    many = {"time": START, "heat": 20.5, "load": 3, "unit": "C"}
    named = [{"source": "pump", "time": START + at, "value": at} for at in range(3)]
    try:
        reading.start()
        reading.wait_for(lambda found: found["connected"])
        mqtt_broker.write(events(made, 0, 500))
        reading.wait_for(lambda found: found["records"])
        reading.end(signal.SIGKILL)
        before = time.time()
        mqtt_broker.write(events(made, 500, 500))
        mqtt_broker.write([("other/mill", json.dumps(many).encode())])
        mqtt_broker.write([("other/list", json.dumps(named).encode()), ("other/plain", b"1.5")])
        reading.start()
        reading.wait_for(lambda found: found["records"] >= 503 and not found["unacknowledged"])
        streams = {each["source"] for each in reading.server.ask("/api/streams")["streams"]}
        assert streams >= {topic(made), "other/mill", "pump", "other/plain"}
        assert reading.values(topic(made)) == list(range(1_000))
        (point,) = reading.server.ask("/api/data/other/mill")["points"]
        assert point["values"] == {"heat": 20.5, "load": 3}
        (point,) = reading.server.ask("/api/data/other/plain")["points"]
        assert point["value"] == 1.5 and before <= point["time"] <= time.time()
        assert PASSWORD not in reading.said + json.dumps(reading.status)
        run_program(["doctor", "--db", "", "--mqtt", mqtt_broker.address, *where[2:]])
        assert "lets a client in" in capsys.readouterr().out
    finally:
        reading.end(signal.SIGKILL)
