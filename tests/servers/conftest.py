"""The servers that the tests of this folder talk to."""

from tests.servers.kafka_broker import kafka_broker
from tests.servers.mqtt_broker import mqtt_broker
from tests.servers.redis_server import redis_server

__all__ = ["kafka_broker", "mqtt_broker", "redis_server"]
