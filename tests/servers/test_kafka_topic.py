"""A real Kafka broker: what is written to a topic is on the page, once, whatever is killed."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import numpy as np
import pytest

from bench.kafka_broker import KafkaBroker
from detectors import DETECTORS
from redline.cli.program import run_program
from redline.sources.arrow_writer import write_arrow
from redline.sources.csv import read_csv
from tests.servers.reading import Reading

pytestmark = pytest.mark.service
START = 1_767_571_200  # seconds since the epoch
KILLS = 5
numbers = count(1)


class KafkaReading(Reading):
    """A server that reads a topic."""

    def __init__(self, broker: KafkaBroker, folder: Path, topic: str, *options: str) -> None:
        self.client = folder / "client.properties"
        self.client.write_text("session.timeout.ms=800\nheartbeat.interval.ms=200\n")
        where = ("--kafka", broker.address, "--topic", topic, "--kafka-group", topic)
        super().__init__(folder, "kafka", *where, "--kafka-config", str(self.client), *options)


@contextmanager
def reading(broker: KafkaBroker, folder: Path, topic: str, *options: str) -> Iterator[KafkaReading]:
    made = KafkaReading(broker, folder, topic, *options)
    try:
        made.start()
        yield made
    finally:
        made.end()


def new_topic(broker: KafkaBroker, partitions: int = 1) -> str:
    return broker.make_topic(f"metrics-{next(numbers)}", partitions)


def events(source: str, values: list[float], first: int = 0) -> list[bytes]:
    """Return a JSON event for each value, a second apart."""
    return [
        json.dumps({"source": source, "time": START + first + at, "value": value}).encode()
        for at, value in enumerate(values)
    ]


def test_records_of_every_form_are_watched_and_a_poisoned_one_goes_aside(
    kafka_broker: KafkaBroker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    topic = new_topic(kafka_broker, 2)
    dead = new_topic(kafka_broker)
    hot = {"source": "mill", "time": START, "values": {"heat": 20.5, "load": 3}}
    listed = b"[" + b",".join(events("pump", [1.0, 2.0, 3.0])) + b"]"
    lines = b"\n".join(events("wheel", [4.0, 5.0]))
    block = write_arrow(["a", "b"], START + np.arange(3.0), np.arange(6.0).reshape(3, 2))
    poisoned = [b"hello", b'{"source": "oven", "time": 1}', events("overview", [1.0])[0]]
    written = [*events("oven", [7.0, 8.0]), json.dumps(hot).encode(), listed, lines, block]
    kafka_broker.write(topic, {"k": [*written, poisoned[0]], "": poisoned[1:]})
    with reading(kafka_broker, tmp_path, topic, "--kafka-dead-letter", dead) as server:
        status = server.wait_for(lambda found: found["records"] == 9 and not found["waiting"])
        values = {name: server.values(name) for name in ("oven", "pump", "wheel", "b")}
        assert values == {"oven": [7, 8], "pump": [1, 2, 3], "wheel": [4, 5], "b": [1, 3, 5]}
        (point,) = server.server.ask("/api/data/mill?limit=10")["points"]
        assert point["values"] == {"heat": 20.5, "load": 3}
        status = server.wait_for(lambda found: found["lag"] == 0)
        assert status["partitions"] == [0, 1] and status["trouble"] is None
        assert (status["points"], status["refused"], status["dead_letters"]) == (14, 3, 3)
        letters = kafka_broker.read(dead, 3)
        assert sorted(letter.value() for letter in letters) == sorted(poisoned)
        headers = [dict(letter.headers()) for letter in letters]
        where = ("--kafka", kafka_broker.address, "--topic", topic, "--kafka-group", topic)
        run_program(["doctor", "--db", "", *where])
        assert f"{topic} has 2 partitions, 0 records are not read" in capsys.readouterr().out
        assert all(set(each) == {"reason", "topic", "partition", "offset"} for each in headers)
        assert {each["topic"] for each in headers} == {topic.encode()}
        assert any(b"wanted JSON" in each["reason"] for each in headers)


def stored_counts(server: Reading) -> tuple[int, int]:
    """Return the points of all sources, and those that came again."""
    found = server.server.ask("/api/status")
    return found["points"], found["queue"]["repeated"]


def test_nothing_is_lost_and_nothing_doubled_when_the_server_is_killed(
    kafka_broker: KafkaBroker, tmp_path: Path
) -> None:
    topic = new_topic(kafka_broker, 2)
    draw = np.random.default_rng(5)
    steps = 4_000
    sources = {f"s{at}": draw.normal(size=steps).round(3).tolist() for at in range(4)}
    server = KafkaReading(kafka_broker, tmp_path, topic)
    done = 0
    repeated = 0
    try:
        for kill in range(KILLS + 1):
            part = slice(done, done + steps // (KILLS + 1) if kill < KILLS else steps)
            server.start()
            server.wait_for(lambda found: found["partitions"])
            written = {n: events(n, v[part], part.start) for n, v in sources.items()}
            kafka_broker.write(topic, written)
            done = part.start + len(next(iter(written.values())))
            if kill < KILLS:
                read = server.status["records"]
                server.wait_for(lambda found, read=read: found["records"] > read)
                repeated += server.status["repeated"]
                server.end(signal.SIGKILL)
        last = [f"s{at}" for at in range(4)]
        server.wait_for(
            lambda found: (
                not found["waiting"] and all(len(server.values(name)) == steps for name in last)
            )
        )
        repeated += server.status["repeated"]
        found = {name: server.values(name) for name in sources}
        server.end()
        assert found == sources, "each point is there once, in its order"
        assert repeated, "no kill came between the store's commit and that to Kafka"
        print(f"\n{KILLS} kills, {4 * steps:,} records: 0 lost, 0 doubled, {repeated:,} read again")
        server.start()  # after an orderly end nothing is read again
        again = server.wait_for(lambda found: found["lag"] == 0)
        assert again["records"] == 0 and again["repeated"] == 0
        server.end(signal.SIGKILL)
    finally:
        server.end(signal.SIGKILL)


def test_a_broker_that_is_killed_and_a_topic_that_is_missing_are_said_and_waited_for(
    kafka_broker: KafkaBroker, tmp_path: Path
) -> None:
    topic = f"metrics-{next(numbers)}"
    with reading(kafka_broker, tmp_path, topic) as server:
        status = server.wait_for(lambda found: found["trouble"])
        assert "has no topic" in status["trouble"] and topic in status["trouble"]
        kafka_broker.make_topic(topic)
        kafka_broker.write(topic, events("oven", [1.0]))
        server.wait_for(lambda found: found["points"] == 1)
        assert server.status["trouble"] is None
        kafka_broker.kill()
        try:
            status = server.wait_for(lambda found: found["trouble"])
            assert status["trouble"] == f"no Kafka broker answers at {kafka_broker.address}"
        finally:
            kafka_broker.start()
        kafka_broker.write(topic, events("oven", [2.0], first=1))
        server.wait_for(lambda found: found["points"] == 2 and not found["trouble"])
        assert server.values("oven") == [1, 2]
        assert 2 <= server.said.count("it is tried again") <= 4, "a sentence each, not a stream"


def test_a_wrong_password_is_said_and_never_shown(
    kafka_broker: KafkaBroker, tmp_path: Path
) -> None:
    topic = new_topic(kafka_broker)
    kafka_broker.write(topic, events("oven", [1.0]))
    address = f"127.0.0.1:{kafka_broker.secured_port}"
    secured = "security.protocol=SASL_PLAINTEXT\nsasl.mechanism=PLAIN\nsasl.username=ann\n"
    server = KafkaReading(kafka_broker, tmp_path, topic, "--kafka", address)
    server.client.chmod(0o600)
    try:
        server.client.write_text(f"{secured}sasl.password=wrong-password\n")
        server.start()
        status = server.wait_for(lambda found: found["trouble"] and "refuses" in found["trouble"])
        assert "name or the password" in status["trouble"]
        server.end()
        assert "wrong-password" not in server.said + json.dumps(status)
        server.client.write_text(f"{secured}sasl.password=right-password\n")
        server.start()
        server.wait_for(lambda found: found["points"] == 1)
        assert "right-password" not in server.said + json.dumps(server.status)
    finally:
        server.end()


def test_produce_writes_a_csv_whose_anomaly_is_found(
    kafka_broker: KafkaBroker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    topic = new_topic(kafka_broker)
    draw = np.random.default_rng(3)
    value = draw.normal(20, 1, 400)
    value[300] = 60
    file = tmp_path / "boiler.csv"
    rows = "".join(f"{START + 60 * at},{each:.3f}\n" for at, each in enumerate(value))
    file.write_text(f"time,heat\n{rows}")
    to = ("--kafka", kafka_broker.address, "--topic", topic)
    with reading(kafka_broker, tmp_path, topic) as server:
        assert run_program(["produce", *to, "--csv", str(file)]) == 0
        assert "wrote 400 records with 400 points of boiler" in capsys.readouterr().err
        server.wait_for(lambda found: found["points"] == 400)
        assert server.values("boiler") == [round(each, 3) for each in value.tolist()]
        (worst,) = [
            each
            for each in server.server.ask("/api/anomalies?source=boiler")["anomalies"]
            if each["severity"] == "critical"
        ]
        assert worst["time"] == START + 60 * 300
        many = ("--stream", "iot", "--steps", "500", "--block", "1000")
        assert run_program(["produce", *to, *many]) == 0
        server.wait_for(lambda found: found["points"] > 400 and not found["waiting"])
        names = {each["source"] for each in server.server.ask("/api/streams?limit=1000")["streams"]}
        assert any(name.startswith("iot-1.") for name in names)
    assert read_csv(file).total == 400
    assert run_program(["produce", *to[:3], "nowhere", "--stream", "wave"]) == 1
    assert "has no topic 'nowhere'" in capsys.readouterr().err
    assert os.environ.get("REDLINE_KAFKA") is None


@pytest.mark.parametrize("features", [("heat",), ("heat", "load")])
def test_a_model_scores_what_comes_into_a_topic_as_it_scores_a_file(
    kafka_broker: KafkaBroker,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    features: tuple[str, ...],
) -> None:
    monkeypatch.setattr(DETECTORS, "_entries", {**DETECTORS._entries})  # the model joins it
    draw = np.random.default_rng(4)
    value = draw.normal(20, 1, (600, len(features)))
    value[450] += 30
    file = tmp_path / "boiler.csv"
    rows = "".join(
        f"{START + 60 * at},{','.join(f'{each:.3f}' for each in row)}\n"
        for at, row in enumerate(value)
    )
    file.write_text(f"time,{','.join(features)}\n{rows}")
    model = tmp_path / "boiler.npz"
    words = ["train", "--data", str(file), "--detector", "rolling z-score", "--output", str(model)]
    assert run_program(words) == 0
    capsys.readouterr()
    assert run_program(["run", "--model", str(model), "--csv", str(file), "--json"]) == 0
    lines = capsys.readouterr().out.splitlines()
    from_file = {each["time"]: each["score"] for each in map(json.loads, lines)}
    assert START + 60 * 450 in from_file
    topic = new_topic(kafka_broker)
    with reading(kafka_broker, tmp_path, topic) as server:
        server.end()
        at = server.words.index("--config")
        server.words = (*server.words[:at], "--model", str(model), *server.words[at + 2 :])
        server.start()
        to = ("--kafka", kafka_broker.address, "--topic", topic)
        assert run_program(["produce", *to, "--csv", str(file)]) == 0
        server.wait_for(lambda found: found["points"] == 600 and not found["waiting"])
        found = server.server.ask("/api/anomalies?source=boiler&limit=1000")["anomalies"]
        assert {each["time"]: each["score"] for each in found} == from_file
