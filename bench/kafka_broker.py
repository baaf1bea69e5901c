"""A real Kafka broker of the tests' own: one node, in a temporary folder, on free ports.

Its jars are in build/servers/kafka, where `make servers` copies them; it runs on Java 17 or newer.
"""

from __future__ import annotations

import atexit
import contextlib
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

from bench.browser import ROOT, free_port
from bench.postgres_server import UNPACKED, end_with_parent

JARS = UNPACKED / "kafka"
PATIENCE = 60.0  # seconds that a broker may take to answer
FLAGS = ("-Xms128m", "-Xmx512m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")
PROPERTIES = """
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},SECURED://127.0.0.1:{secured},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port},SECURED://127.0.0.1:{secured}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SECURED:SASL_PLAINTEXT
sasl.enabled.mechanisms=PLAIN
listener.name.secured.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule \
required user_ann="right-password";
log.dirs={folder}/log
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=500
auto.create.topics.enable=false
"""  # noqa: E501


def missing() -> str:
    """Return why no broker can be started here, "" = one can."""
    try:
        import confluent_kafka  # noqa: F401
    except ImportError:
        return "confluent-kafka is not installed: pip install 'redline[kafka]'"
    if not shutil.which("java"):
        return "there is no Java, which a Kafka broker runs on"
    if not list(JARS.glob("kafka_2.13-*.jar")):
        return f"there is no Kafka in {JARS.relative_to(ROOT)}; `make servers` fetches it"
    return ""


class KafkaBroker:
    """One node of Kafka, in a process of its own."""

    def __init__(self) -> None:
        """Format its folder; `start` runs it."""
        self.folder = Path(tempfile.mkdtemp(prefix="kafka-"))
        self.port = free_port()
        self.secured_port = free_port()  # asks for the name ann and her password
        ports = {"port": self.port, "secured": self.secured_port, "controller": free_port()}
        self.properties = self.folder / "server.properties"
        self.properties.write_text(PROPERTIES.format(folder=self.folder, **ports))
        self.process: subprocess.Popen[bytes] | None = None
        words = ("kafka.tools.StorageTool", "format", "--standalone")
        made = ("--cluster-id", "c2luZ2xlLW5vZGUtdGVzdA", "--config", str(self.properties))
        self._java(*words, *made).wait(PATIENCE)

    @property
    def address(self) -> str:
        """Return where clients reach it."""
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Run it, and wait until it answers."""
        self.process = self._java("kafka.Kafka", str(self.properties))
        until = time.monotonic() + PATIENCE
        while not self.answers():
            log = (self.folder / "out").read_text(errors="replace")
            assert self.process.poll() is None, f"the broker ended: {log[-2_000:]}"
            assert time.monotonic() < until, f"the broker does not answer: {log[-2_000:]}"

    def answers(self) -> bool:
        """Return whether a client gets an answer."""
        from confluent_kafka import KafkaException

        with contextlib.suppress(KafkaException):
            return bool(self.admin().list_topics(timeout=0.5).brokers)
        return False

    def admin(self) -> Any:
        """Return a client that manages topics."""
        from confluent_kafka.admin import AdminClient

        return AdminClient({"bootstrap.servers": self.address, "log_level": "0"})

    def kill(self) -> None:
        """End it as a crash does: kill -9."""
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait(PATIENCE)
            self.process = None

    def close(self) -> None:
        """End it and remove its folder."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def make_topic(self, name: str, partitions: int = 1) -> str:
        """Make a topic; return its name."""
        from confluent_kafka.admin import NewTopic

        admin = self.admin()  # kept until it has answered
        (made,) = admin.create_topics([NewTopic(name, partitions, 1)]).values()
        made.result(PATIENCE)
        return name

    def write(self, topic: str, records: Mapping[str, list[bytes]] | list[bytes]) -> None:
        """Write records to a topic, by key or without."""
        from confluent_kafka import Producer

        producer = Producer({"bootstrap.servers": self.address, "log_level": "0"})
        keyed = records if isinstance(records, Mapping) else {"": records}
        for key, values in keyed.items():
            for value in values:
                while len(producer) > 50_000:  # its queue takes 100,000
                    producer.poll(0.05)
                producer.produce(topic, value, key.encode() or None)
        assert producer.flush(PATIENCE) == 0

    def read(self, topic: str, count: int) -> list[Any]:
        """Return the first so many messages of a topic."""
        from confluent_kafka import Consumer

        config = {"bootstrap.servers": self.address, "group.id": f"reader-of-{topic}"}
        consumer = Consumer({**config, "auto.offset.reset": "earliest", "log_level": "0"})
        consumer.subscribe([topic])
        found: list[Any] = []
        until = time.monotonic() + PATIENCE
        while len(found) < count and time.monotonic() < until:
            found += consumer.consume(count - len(found), 1.0)
        consumer.close()
        return found

    def _java(self, *words: str) -> subprocess.Popen[bytes]:
        with (self.folder / "out").open("ab") as log:
            command = ["java", *FLAGS, "-cp", f"{JARS}/*", *words]
            # at SIGQUIT Java shows its threads and goes on
            end = partial(end_with_parent, signal.SIGKILL)
            return subprocess.Popen(
                command, stdout=log, stderr=log, cwd=self.folder, preexec_fn=end
            )


@cache
def shared_broker() -> KafkaBroker:
    """Return the broker of this run, which ends with it."""
    broker = KafkaBroker()
    atexit.register(broker.close)
    broker.start()
    return broker
