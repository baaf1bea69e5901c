"""The servers that the tests of this folder talk to."""

from tests.servers.kafka_broker import kafka_broker

__all__ = ["kafka_broker"]
