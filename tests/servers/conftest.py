"""The servers that the tests of this folder talk to."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bench.kafka_broker import KafkaBroker, missing, shared_broker
from tests.servers.mqtt_broker import mqtt_broker
from tests.servers.redis_server import redis_server

__all__ = ["kafka_broker", "mqtt_broker", "redis_server"]


@pytest.fixture(scope="session")
def kafka_broker() -> Iterator[KafkaBroker]:
    """Give a running broker; without one, skip and say why."""
    if reason := missing():
        pytest.skip(reason)
    yield shared_broker()
