"""A real Redis server: an entry is acknowledged once its points are kept, whatever is killed."""

from __future__ import annotations

import json
import logging
import signal
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from redline.api import topic_feeder
from redline.cli.program import run_program
from redline.sources.arrow_writer import write_arrow
from redline.sources.broker_address import BrokerAddress
from redline.sources.redis_streams import StreamOptions, entry_time
from tests.servers.fed import START, Fed, Watching
from tests.servers.reading import Reading
from tests.servers.redis_server import PASSWORD, RedisServer

pytestmark = pytest.mark.service
numbers = count(1)


def options(server: RedisServer, **given: Any) -> StreamOptions:
    address = BrokerAddress("redis", "127.0.0.1", server.port, **given.pop("address", {}))
    return StreamOptions(address, (f"stream-{next(numbers)}",), "g")._replace(**given)


def write(server: RedisServer, stream: str, first: int, steps: int, source: str = "oven") -> None:
    pipeline = server.client().pipeline()
    for at in range(first, first + steps):
        pipeline.xadd(stream, {"source": source, "time": START + at, "value": at})
    pipeline.execute()


def pending(server: RedisServer, made: StreamOptions) -> int:
    return int(server.client().xpending(made.streams[0], made.group)["pending"])


def test_entries_are_acknowledged_when_their_points_are_kept(redis_server: RedisServer) -> None:
    made = options(redis_server)
    watching = Watching()
    write(redis_server, *made.streams, 0, 300)
    fed = Fed(made, watching)
    fed.turn_until(lambda found: found["records"] == 300)
    assert pending(redis_server, made) == 300
    watching.commit()
    report = fed.turn_until(lambda found: not found["pending"])
    assert (report["points"], report["repeated"], report["lag"]) == (300, 0, 0)
    assert pending(redis_server, made) == 0
    fed.consumer.close()
    assert redis_server.client().xinfo_consumers(made.streams[0], made.group) == []


def test_what_a_killed_consumer_left_is_claimed_and_nothing_is_doubled(
    redis_server: RedisServer,
) -> None:
    made = options(redis_server, idle=0.05)
    watching = Watching()
    write(redis_server, *made.streams, 0, 500)
    killed = Fed(made._replace(consumer="killed"), watching)
    killed.turn_until(lambda found: found["records"] >= 100)
    watching.commit()  # kept, and not acknowledged any more
    read = killed.feeder.report()["records"]
    assert 0 < read < 500
    (first,) = redis_server.client().xpending_range(*made.streams, made.group, "-", "+", 1)
    assert redis_server.client().xdel(*made.streams, first["message_id"]) == 1
    fed = Fed(made._replace(consumer="other"), watching)
    fed.turn_until(lambda found: found["records"] == 499)
    watching.commit()
    report = fed.turn_until(lambda found: found["pending"] == 0)
    assert report["repeated"] == read - 1 and report["points"] == 500 - read
    assert watching.points == 500


def test_a_consumer_of_the_same_name_goes_on_at_once(redis_server: RedisServer) -> None:
    made = options(redis_server, idle=3_600.0)
    watching = Watching()
    write(redis_server, *made.streams, 0, 150)
    Fed(made, Watching()).turn_until(lambda found: found["records"] == 150)
    redis_server.client().xtrim(made.streams[0], maxlen=140, approximate=False)
    fed = Fed(made, watching)
    fed.turn_until(lambda found: found["records"] == 140)
    watching.commit()
    report = fed.turn_until(lambda found: found["pending"] == 0)
    assert report["points"] == 140 and report["refused"] == 0, "deleted ones are done"


def test_a_server_that_is_killed_is_waited_for(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    made = options(redis_server)
    watching = Watching()
    write(redis_server, *made.streams, 0, 50)
    fed = Fed(made, watching)
    fed.turn_until(lambda found: found["records"] == 50)
    redis_server.end(signal.SIGKILL)
    try:
        watching.commit()
        report = fed.turn_until(lambda found: found["trouble"])
        assert report["trouble"] == f"no Redis server answers at {redis_server.address}"
    finally:
        redis_server.start()
    write(redis_server, *made.streams, 50, 50)
    fed.turn_until(lambda found: found["records"] == 100)
    watching.commit()
    report = fed.turn_until(lambda found: found["pending"] == 0)
    assert (report["points"], report["repeated"], report["trouble"]) == (100, 0, None)
    redis_server.client().delete(*made.streams)
    write(redis_server, *made.streams, 100, 1)
    fed.turn_until(lambda found: found["records"] == 101)
    assert sum("it is tried again" in text for text in caplog.messages) <= 3


def test_a_wrong_password_and_a_wrong_key_are_said_and_never_shown(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    made = options(redis_server, address={"user": "ann", "password": "wrong-secret"})
    fed = Fed(made, Watching())
    report = fed.turn_until(lambda found: found["trouble"])
    assert "refuses the name or the password" in report["trouble"]
    assert "wrong-secret" not in json.dumps(report) + caplog.text
    made = options(redis_server, address={"user": "ann", "password": PASSWORD})
    redis_server.client().set(made.streams[0], "no stream")
    watching = Watching()
    fed = Fed(made, watching)
    report = fed.turn_until(lambda found: found["trouble"])
    assert "is no stream; correct --redis-stream" in report["trouble"]
    redis_server.client().delete(made.streams[0])
    write(redis_server, *made.streams, 0, 1)
    report = fed.turn_until(lambda found: found["records"] == 1)
    assert PASSWORD not in json.dumps(report) + caplog.text


def test_more_than_the_queues_hold_stays_at_the_server(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = options(redis_server)
    watching = Watching()
    monkeypatch.setattr(topic_feeder, "PIECE_POINTS", 10)
    monkeypatch.setattr(topic_feeder, "MAX_UNCOMMITTED", 120)
    monkeypatch.setattr(watching.monitor.budget, "limit", 25)
    write(redis_server, *made.streams, 0, 1_000)
    fed = Fed(made, watching)
    read = fed.consumer.read
    most = []

    def commit_while_held(*given: Any) -> Any:
        if fed.consumer.held:
            most.append(pending(redis_server, made))
            watching.commit()
        return read(*given)

    monkeypatch.setattr(fed.consumer, "read", commit_while_held)
    monkeypatch.setattr(fed.consumer, "count", 50)
    monkeypatch.setattr(topic_feeder, "READ_RECORDS", 50)
    monkeypatch.setattr(topic_feeder, "FULL_SECONDS", (0.001, 0.001))
    report = fed.turn_until(lambda found: found["records"] == 1_000)
    watching.commit()
    report = fed.turn_until(lambda found: found["pending"] == 0)
    assert report["points"] == 1_000 and watching.points == 1_000
    assert most and max(most) <= 120 + 50


def write_every_form(server: RedisServer, first: str, second: str) -> tuple[str, str]:
    """Write entries of every form; return the ids of one without a time and of a wrong one."""
    client = server.client()
    event = json.dumps([{"source": "pump", "time": START + at, "value": at} for at in range(3)])
    block = write_arrow(["a", "b"], START + np.arange(2.0), np.array([[1.0, 2.0], [3.0, 4.0]]))
    client.xadd(first, {"source": "mill", "time": START, "heat": 20.5, "load": 3, "unit": "C"})
    client.xadd(second, {"data": event})
    client.xadd(second, {"data": block})
    now = client.xadd(second, {"value": "7.5"}).decode()
    poisoned = client.xadd(first, {"source": "oven", "value": "hot"}).decode()
    client.xadd(first, {"data": "hello"})
    return now, poisoned


def test_entries_of_every_form_are_on_the_page_after_a_kill(
    redis_server: RedisServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = options(redis_server).streams[0], options(redis_server).streams[0]
    dead = f"dead-{next(numbers)}"
    now, poisoned = write_every_form(redis_server, first, second)
    write(redis_server, first, 0, 1_000)
    streams = ("--redis-stream", f"{first},{second}", "--redis-group", first)
    server = ("--redis", f"redis://ann:${{WORD}}@127.0.0.1:{redis_server.port}")
    more = ("--redis-dead-letter", dead, "--redis-idle", "0.5")
    reading = Reading(tmp_path, "redis", *server, *streams, *more, WORD=PASSWORD)
    try:
        reading.start()
        reading.wait_for(lambda found: found["records"] > 0)
        reading.end(signal.SIGKILL)
        reading.start()
        write(redis_server, first, 1_000, 1_000)
        reading.wait_for(lambda found: found["pending"] == 0 and found["lag"] == 0)
        names = {each["source"] for each in reading.server.ask("/api/streams")["streams"]}
        assert {"mill", "oven", "pump", "a", "b", second} <= names
        assert reading.values("oven") == list(range(2_000))
        assert (reading.values("pump"), reading.values("b")) == ([0, 1, 2], [2, 4])
        (point,) = reading.server.ask("/api/data/mill?limit=10")["points"]
        assert point["values"] == {"heat": 20.5, "load": 3}
        (point,) = reading.server.ask(f"/api/data/{second}")["points"]
        assert point["value"] == 7.5 and point["time"] == entry_time(now.encode())
        assert PASSWORD not in reading.said + json.dumps(reading.status)
        assert reading.status["server"] == redis_server.address
    finally:
        reading.end(signal.SIGKILL)
    letters = {each[b"refused-id"].decode(): each for _, each in redis_server.client().xrange(dead)}
    assert letters[poisoned][b"value"] == b"hot" and len(letters) == 2
    assert b"wanted a number" in letters[poisoned][b"refused-reason"]
    run_program(["doctor", "--db", "", "--redis", redis_server.address, *streams])
    assert f"redis: {first}, {second} with 2,006 entries" in capsys.readouterr().out
