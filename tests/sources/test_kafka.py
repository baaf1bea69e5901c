"""The settings of the Kafka client: what is refused, with what to do, and what is never shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from redline.settings import ServerSettings
from redline.sources import kafka
from redline.sources.kafka import (
    KafkaSettingsError,
    TopicOptions,
    consumer_config,
    parse_client_config,
    producer_config,
    read_client_config,
    topic_options,
)

SECRET = "s3cret-word"


def options(**given: str) -> TopicOptions | None:
    return topic_options(ServerSettings(**given))


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"kafka": "localhost:9092"}, "--kafka needs --topic"),
        ({"topic": "metrics"}, "--topic needs --kafka"),
        ({"kafka": "http://a:1", "topic": "metrics"}, "wanted host:port"),
        ({"kafka": f"ann:{SECRET}@a:1", "topic": "metrics"}, "a password belongs into"),
        ({"kafka": "a:1", "topic": "two words"}, "--topic: wanted 1 to 249 letters"),
        ({"kafka": "a:1", "topic": "m", "kafka_dead_letter": "m"}, "another topic"),
        ({"kafka": "a:1", "topic": "m", "kafka_config": "/nowhere"}, "/nowhere: No such file"),
    ],
)
def test_wrong_settings_are_refused_with_a_sentence(given: dict[str, str], sentence: str) -> None:
    with pytest.raises(KafkaSettingsError, match=sentence) as refused:
        options(**given)
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("sasl.password", "line 2: wanted key=value"),
        (f"{SECRET}=1", "line 2: wanted key=value"),
        ("group.id=x", "line 2: group.id is not taken; it is the setting kafka-group"),
        ("enable.auto.commit=true", "what its store holds"),
        ("plugin.library.paths=/tmp/x.so", "no code is loaded"),
        ("sasl.password=${NOT_THERE}", "the variable NOT_THERE is not set"),
    ],
)
def test_a_wrong_line_of_the_file_is_named_without_its_value(line: str, sentence: str) -> None:
    with pytest.raises(KafkaSettingsError, match=sentence) as refused:
        parse_client_config(f"# mine\n{line}", {})
    assert SECRET not in str(refused.value)


def test_a_file_with_a_secret_must_be_private(tmp_path: Path) -> None:
    file = tmp_path / "client.properties"
    file.write_text(f"sasl.username=ann\nsasl.password={SECRET}\n")
    file.chmod(0o640)
    with pytest.raises(KafkaSettingsError, match=f"chmod 600 {file}") as refused:
        read_client_config(str(file))
    assert SECRET not in str(refused.value)
    file.chmod(0o600)
    assert read_client_config(str(file))["sasl.password"] == SECRET
    file.write_text("client.id=page\n")
    file.chmod(0o644)
    assert read_client_config(str(file)) == {"client.id": "page"}


def test_secrets_are_taken_out_of_every_text() -> None:
    config = {"sasl.password": SECRET, "ssl.key.password": f"{SECRET}-too", "sasl.username": "ann"}
    made = TopicOptions("a:1", "m", "g", config=config)
    assert made.redact(f"ann, {SECRET}, {SECRET}-too") == "ann, ***, ***"


def test_what_the_guarantee_needs_cannot_be_changed_by_a_file() -> None:
    config = {"auto.offset.reset": "latest", "security.protocol": "SSL"}
    made = TopicOptions("a:1", "m", "g", config=config)
    reader = consumer_config(made)
    assert reader["enable.auto.commit"] is True and reader["enable.auto.offset.store"] is False
    assert reader["auto.offset.reset"] == "latest" and reader["group.id"] == "g"
    writer = producer_config(made)
    assert writer["security.protocol"] == "SSL" and "auto.offset.reset" not in writer


def test_a_missing_library_is_answered_by_the_line_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kafka, "find_spec", lambda name: None)
    with pytest.raises(KafkaSettingsError, match=r"pip install 'redline\[kafka\]'"):
        options(kafka="a:1", topic="m")


def test_a_setting_that_the_client_does_not_know_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("confluent_kafka")
    file = tmp_path / "client.properties"
    file.write_text("session.timeout.msec=3\n")
    with pytest.raises(KafkaSettingsError, match=r'No such configuration.*"session.timeout.msec"'):
        options(kafka="a:1", topic="m", kafka_config=str(file))
