"""A trial of several machines on one: a Kafka broker, a PostgreSQL server and the page on both.

The page reads the topic `metrics` and keeps its store in the database. Both servers are real, come
from build/servers, and forget everything at the end: python -m bench.stack
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial

from bench import kafka_broker, postgres_server
from bench.browser import ROOT
from bench.kafka_broker import KafkaBroker
from bench.postgres_server import PostgresServer, end_with_parent

TOPIC = "metrics"
PARTITIONS = 3
END_SECONDS = 30.0  # that the page may take to end


def why_not() -> str:
    """Return why the servers cannot be started here, "" = they can."""
    return kafka_broker.missing() or postgres_server.missing()


@contextmanager
def started_servers() -> Iterator[tuple[KafkaBroker, str]]:
    """Give a broker with the topic and the address of an empty database; end both at the end."""
    with ExitStack() as ends:
        broker = KafkaBroker()
        ends.callback(broker.close)
        broker.start()
        broker.make_topic(TOPIC, PARTITIONS)
        server = PostgresServer()
        ends.callback(server.close)
        yield broker, server.address(server.new_database())


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.stack",
        description="A Kafka broker, a PostgreSQL server, and the page between them.",
        epilog="Other options are those of app.py, such as --port 8060.",
    )
    _, options = parser.parse_known_args(words)
    if reason := why_not():
        print(reason, file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with started_servers() as (broker, database):
        print(f"A topic {TOPIC} of Kafka at {broker.address}; put a file or a stream into it:")
        to = f"  .venv/bin/python -m redline produce --kafka {broker.address} --topic {TOPIC}"
        print(f"{to} --csv FILE\n{to} --stream cpu --rate 5", flush=True)
        # a command line can be seen by every user of the machine, a variable not
        environment = {**os.environ, "REDLINE_DB": database}
        words = ("--kafka", broker.address, "--topic", TOPIC, *options)
        page = subprocess.Popen(
            [sys.executable, str(ROOT / "app.py"), *words],
            env=environment,
            preexec_fn=partial(end_with_parent, signal.SIGTERM),
        )
        try:
            return page.wait()
        except (KeyboardInterrupt, SystemExit):
            page.send_signal(signal.SIGTERM)
            page.wait(END_SECONDS)
            return 0


if __name__ == "__main__":
    sys.exit(main())
