"""Alarms of series that began together leave as one message, once, over a restart too."""

from __future__ import annotations

import json
import time as clocks
from collections import Counter
from itertools import count

import numpy as np
import pytest

from redline.api.server import build_server
from redline.api.service import ServerOptions, assemble_service
from redline.engine.monitor import Monitor
from redline.engine.results import Batch
from redline.incidents import group_hold
from redline.incidents.correlation import CorrelationPolicy, Correlator
from redline.incidents.group_hold import GroupHold
from redline.incidents.group_notice import GroupNotice
from redline.incidents.incident import Change, Policy
from redline.incidents.joint import GroupPersistence, JointIncidents
from redline.incidents.notify import build_group_message
from redline.incidents.registry import Incidents, StoredIncidents
from redline.storage.sqlite import SqliteStore
from tests.incidents.test_incidents import START, batch

HOLD = 30.0  # seconds
POLICY = Policy(minimum=1, quiet=5, cooldown=10)
AT_ONCE = CorrelationPolicy(warm_up=0.0)
HOSTS, METRICS = 30, 12
NAMES = [
    f'm{metric:02d}{{host="h{host}",job="node"}}'
    for host in range(HOSTS)
    for metric in range(METRICS)
]
WARNING, CRITICAL = 5.0, 9.0  # scores over a threshold of 3
CALM = [0.0] * POLICY.quiet


class Outlet:
    """Takes the place of the notifier: keeps what it is given."""

    def __init__(self) -> None:
        self.sent: list[Change | GroupNotice] = []
        self.ran: list[Change] = []

    def resend(self, changes):
        self.sent += [change for change in changes if change.notify]

    def run_actions(self, changes):
        self.ran += changes

    def send_group(self, notice):
        self.sent.append(notice)

    def take(self):
        """Return what was sent since the last call: (what, streams) of each message."""
        found = [
            (each.what, [i.stream for i in each.incidents])
            if isinstance(each, GroupNotice)
            else (each.what, each.incident.stream)
            for each in self.sent
        ]
        self.sent = []
        return found


class Bench:
    """Incidents, groups and a hold, as a service connects them; rows instead of a store."""

    def __init__(self, seconds: float = HOLD) -> None:
        self.seconds = seconds
        self.incident_rows: dict[str, dict] = {}
        self.watch_rows: dict[str, dict] = {}
        self.group_rows: dict[str, dict] = {}
        self.steps: Counter[str] = Counter()  # of each series
        self.now = 1_000.0
        self.start()

    def start(self) -> None:
        """Begin anew with what is stored, as after a kill."""
        if hasattr(self, "hold"):
            self.hold.stopped = True
        held = {}
        self.incidents = Incidents(POLICY, self.save, held=held)
        stored = StoredIncidents(list(self.incident_rows.values()), list(self.watch_rows.values()))
        self.incidents.restore(stored)
        self.joint = JointIncidents(
            lambda: NAMES,
            correlator=Correlator(AT_ONCE),
            persistence=GroupPersistence(self.save_groups),
        )
        self.joint.restore(list(self.group_rows.values()), list(self.incidents.items.values()))
        self.outlet = Outlet()
        self.hold = GroupHold(
            self.seconds,
            self.outlet,  # type: ignore[arg-type]
            self.joint,
            self.incidents,
            held,
            lambda name: "{" in name,
            clock=lambda: self.now,
        )
        self.hold._wake = lambda: None  # no thread: `send_due` is called here
        self.hold.restore()

    def save(self, rows: StoredIncidents) -> None:
        rows = json.loads(json.dumps([rows.incidents, rows.watches]))
        self.incident_rows |= {row["id"]: row for row in rows[0]}
        self.watch_rows |= {row["stream"]: row for row in rows[1]}

    def save_groups(self, rows, gone) -> None:
        self.group_rows |= {row["id"]: json.loads(json.dumps(row)) for row in rows}
        for id in gone:
            del self.group_rows[id]

    def feed(self, seconds: float, scores: dict[str, list[float]]) -> None:
        """Let series take steps so many seconds later, in one commit."""
        self.now += seconds
        batches: list[Batch] = []
        for name, score in scores.items():
            step = self.steps[name]
            time = START + self.now - 1_000.0 + np.arange(len(score))
            one = batch(score, name=name, first=step)
            anomalies = [a._replace(time=time[a.step - step]) for a in one.anomalies]
            batches.append(one._replace(time=time, anomalies=anomalies))
            self.steps[name] += len(score)
        changes = self.incidents.commit(batches, 0.0, self.save)
        self.joint.on_changes(changes)
        self.hold.on_changes(changes)

    def wait(self, seconds: float) -> list:
        """Let time pass and return what is sent then."""
        self.now += seconds
        self.hold.send_due()
        return self.outlet.take()

    def deliver(self, sent: list[Change | GroupNotice]) -> None:
        """Note that messages reached a channel, as the notifier does."""
        for each in sent:
            members = each.incidents if isinstance(each, GroupNotice) else [each.incident]
            self.incidents.mark_notified({i.id: i.severity for i in members})
            if isinstance(each, GroupNotice):
                self.joint.mark_notified(each.group.id, each.mark)


def host(number: int, count: int = METRICS) -> list[str]:
    return NAMES[number * METRICS :][:count]


def test_what_begins_together_is_one_message_and_its_end_another():
    bench = Bench()
    members = host(3)
    for i, name in enumerate(members):
        bench.feed(2.0, {name: [WARNING]})
        if i == 0:
            first = bench.now
    assert bench.outlet.take() == [] and len(bench.outlet.ran) == 12, "actions do not wait"
    assert bench.hold.send_due() == pytest.approx(HOLD - (bench.now - first))
    assert bench.wait(first + HOLD - bench.now) == [("opened", members)]
    assert bench.wait(100.0) == []
    for name in members[:-1]:
        bench.feed(1.0, {name: CALM})
    assert bench.wait(50.0) == [], "one of them goes on"
    bench.feed(1.0, {members[-1]: CALM})
    assert bench.wait(0.0) == [("resolved", members)]
    assert bench.wait(100.0) == []


def test_an_alarm_that_joins_nothing_goes_out_alone_after_the_hold():
    bench = Bench()
    name = NAMES[0]
    bench.feed(0.0, {name: [WARNING]})
    assert bench.wait(HOLD - 1) == []
    assert bench.wait(1.0) == [("opened", name)]
    bench.feed(1.0, {name: CALM})
    assert bench.outlet.take() == [("resolved", name)]


@pytest.mark.parametrize("seconds", [0.0, HOLD])
def test_a_source_that_is_no_series_never_waits(seconds):
    bench = Bench(seconds)
    bench.feed(0.0, {"oven": [WARNING]})
    assert bench.outlet.take() == [("opened", "oven")]


def test_without_a_hold_each_alarm_is_sent_at_once():
    bench = Bench(0.0)
    bench.feed(0.0, {name: [WARNING] for name in host(3)})
    assert bench.outlet.take() == [("opened", name) for name in host(3)]
    bench.feed(1.0, dict.fromkeys(host(3), CALM))
    assert len(bench.outlet.take()) == 12 and bench.wait(100.0) == []


def test_a_member_that_joins_later_is_silent_and_one_that_is_worse_is_not():
    bench = Bench()
    bench.feed(0.0, {name: [WARNING] for name in host(5, 8)})
    assert bench.wait(HOLD) == [("opened", host(5, 8))]
    late = host(5)[8]
    bench.feed(5.0, {late: [WARNING]})
    assert bench.wait(HOLD) == []
    assert [c.incident.stream for c in bench.incidents.undelivered()] == host(5, 8), (
        "the late one is noted as notified; that of the others is up to the channel"
    )
    bench.feed(5.0, {host(5)[9]: [CRITICAL]})
    (message,) = bench.wait(HOLD)
    assert message == ("worse", host(5, 10))
    for name in host(5, 10):
        bench.feed(1.0, {name: CALM})
    assert bench.wait(0.0) == [("resolved", host(5, 10))]


def test_one_that_ends_while_it_waits_is_still_sent():
    bench = Bench()
    bench.feed(0.0, {NAMES[0]: [WARNING, *CALM]})
    assert bench.wait(HOLD - 1) == []
    assert bench.wait(1.0) == [("opened", NAMES[0]), ("resolved", NAMES[0])]
    members = host(7)
    bench.feed(300.0, {name: [WARNING, *CALM] for name in members})
    assert bench.wait(HOLD) == [("opened", members), ("resolved", members)]


def test_what_a_person_knows_of_is_not_sent():
    bench = Bench()
    bench.feed(0.0, {name: [WARNING] for name in NAMES[:2]})
    ids = {i.stream: i.id for i in bench.incidents.find().incidents}
    for change in (
        bench.incidents.acknowledge(ids[NAMES[0]], "ann", 0.0),
        bench.incidents.snooze(ids[NAMES[1]], "ann", 0.0, "10 min"),
    ):
        bench.hold.on_changes([change])
    assert bench.wait(HOLD) == []
    bench.hold.on_changes(bench.incidents.end_snoozes(700.0))
    assert bench.outlet.take() == [("woke", NAMES[1])]


def test_two_hosts_and_one_false_alarm_are_three_messages():
    bench = Bench()
    alone = NAMES[20 * METRICS]
    together = [*host(1), *host(2), alone]
    bench.feed(0.0, {name: [WARNING] for name in together})
    found = bench.wait(HOLD)
    assert sorted(map(str, found)) == sorted(
        map(str, [("opened", host(1)), ("opened", host(2)), ("opened", alone)])
    )


@pytest.mark.parametrize("ended", [False, True])
@pytest.mark.parametrize("members", [host(3), NAMES[:1]])
def test_what_is_held_outlives_a_kill_and_is_sent_once(members, ended):
    bench = Bench()
    bench.feed(0.0, {name: [WARNING] for name in members})
    if ended:
        bench.feed(1.0, dict.fromkeys(members, CALM))
    assert bench.wait(10.0) == []
    before = bench.joint.groups()
    bench.start()
    assert bench.joint.groups() == before and len(before) == (len(members) > 1)
    assert bench.outlet.ran == [], "no action is run a second time"
    assert bench.wait(HOLD - 1) == []
    bench.now += 1.0
    bench.hold.send_due()
    sent = list(bench.outlet.sent)
    what = members if len(members) > 1 else members[0]
    assert bench.outlet.take() == [("opened", what), *([("resolved", what)] if ended else [])]
    bench.deliver(sent)
    bench.start()
    assert bench.wait(10 * HOLD) == []
    if not ended:
        bench.feed(1.0, dict.fromkeys(members, CALM))
        bench.hold.send_due()
        sent = list(bench.outlet.sent)
        assert bench.outlet.take() == [("resolved", what)]
        bench.deliver(sent)
        bench.start()
        assert bench.wait(10 * HOLD) == []


def test_the_end_of_a_group_that_a_kill_kept_back_is_sent_after_it():
    bench = Bench()
    bench.feed(0.0, {name: [WARNING] for name in host(3)})
    bench.now += HOLD
    bench.hold.send_due()
    bench.deliver(bench.outlet.sent)
    bench.outlet.take()
    bench.feed(1.0, dict.fromkeys(host(3), CALM))
    bench.start()
    assert bench.wait(0.0) == [("resolved", host(3))]


def test_a_group_takes_members_over_a_restart():
    bench = Bench()
    bench.feed(0.0, {name: [WARNING] for name in host(3, 6)})
    bench.start()
    bench.feed(5.0, {name: [WARNING] for name in host(3)[6:]})
    (group,) = bench.joint.groups()
    assert [member.stream for member in group.members] == host(3)
    assert bench.wait(HOLD) == [("opened", host(3))]


def test_beginnings_before_a_restart_join_a_group_after_it():
    bench = Bench()
    bench.feed(0.0, {name: [WARNING] for name in host(3, 2)})
    assert bench.joint.groups() == []
    bench.start()
    bench.feed(5.0, {name: [WARNING] for name in host(3)[2:]})
    (group,) = bench.joint.groups()
    assert [member.stream for member in group.members] == host(3)


def test_a_member_that_opens_again_after_the_end_is_a_message_of_its_own():
    bench = Bench()
    bench.feed(0.0, {name: [WARNING] for name in host(3)})
    bench.wait(HOLD)
    bench.feed(1.0, dict.fromkeys(host(3), CALM))
    assert bench.wait(0.0) == [("resolved", host(3))]
    bench.feed(1.0, {host(3)[0]: [CRITICAL]})
    assert bench.wait(HOLD) == [("worse", host(3)[0])]
    bench.feed(1.0, {host(3)[0]: CALM})
    assert bench.wait(0.0) == [("resolved", host(3)[0])]


def test_the_message_counts_the_members_and_names_ten():
    bench = Bench()
    bench.feed(0.0, {name: [CRITICAL if i == 4 else WARNING] for i, name in enumerate(host(3))})
    bench.now += HOLD
    bench.hold.send_due()
    (notice,) = bench.outlet.sent
    message = build_group_message(notice, "https://red.example.org")
    assert message.title == "critical: 12 series of host=h3 are unusual"
    assert message.severity == "critical"
    lines = message.body.splitlines()
    assert lines[0] == "12 series of host=h3 within 0 s, first m00"
    assert lines[2] == "shared: host=h3, job=node"
    named = [line for line in lines if 'host="h3"' in line]
    assert len(named) == 10 and named[4].startswith('critical: m04{host="h3",job="node"} since ')
    assert lines[-2] == "and 2 more" and lines[-1].startswith("https://red.example.org/?domain=m00")
    bench.feed(1.0, dict.fromkeys(host(3), CALM))
    bench.outlet.take()
    bench.hold.ending = {notice.group.id}
    bench.hold._send_ended()
    (over,) = bench.outlet.sent
    message = build_group_message(over, "")
    assert message.title == "resolved: 12 series of host=h3 are normal again"
    assert " until " in message.body.splitlines()[1]


# --- with the real store, notifier and thread


def alerts_file(tmp_path, port: int) -> str:
    file = tmp_path / "alerts.toml"
    file.write_text(f'[channels.team]\nurl = "json://127.0.0.1:{port}/hook"\n')
    return str(file)


def push(service, numbers, clock, value) -> None:
    """Send one value of some series and commit it."""
    monitor = service.monitor
    monitor.submit_series(numbers, np.full(len(numbers), clock), value)
    monitor.process_pushed()
    monitor.commit_results(force=True)


@pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")  # Apprise's
def test_a_service_that_is_killed_sends_one_message_for_a_host(tmp_path, receiver):
    """The first service ends without a word while it holds the alarms; the second one sends."""
    noise = np.random.default_rng(5)
    clock = count(1_767_571_200, 15)
    alerts = alerts_file(tmp_path, receiver.port)

    def open_service(seconds: float):
        store = SqliteStore(tmp_path / "redline.db")
        options = ServerOptions(group_hold=seconds)
        return assemble_service(
            lambda kept: Monitor({}, store=kept, wall=lambda: 2e9), store, options, alerts
        )

    service = open_service(3_600.0)
    service.monitor.process_pushed()
    numbers = np.array([service.monitor.series.directory.number(name) for name in NAMES])
    for _ in range(150):
        push(service, numbers, next(clock), noise.normal(size=len(numbers)))
    fault = noise.normal(size=len(numbers))
    fault[3 * METRICS : 4 * METRICS] += 40.0
    push(service, numbers, next(clock), fault)
    assert {i.stream for i in service.incidents.find().incidents} == set(host(3))
    (before,) = service.joint.groups()
    assert len(service.hold.held) == METRICS and receiver.got == []
    service.store.close()
    service.close()  # its threads end; what it holds is sent by none of them
    assert receiver.got == []

    service = open_service(0.2)
    receiver.wait(1)
    assert service.notifier.wait_idle(5.0)
    ((_, body, _),) = receiver.got
    assert body["title"] == "critical: 12 series of host=h3 are unusual"
    assert service.joint.groups() == [before] and service.joint.notified == {before.id: "critical"}
    assert service.hold.held == {}
    service.close()
    service.store.close()

    again = open_service(0.0)
    assert again.notifier.wait_idle(5.0) and len(receiver.got) == 1
    assert again.joint.groups() == [before]
    assert build_server(again) is not None
    again.close()
    again.store.close()


def test_a_failure_to_send_is_tried_again_after_a_pause(monkeypatch):
    """The end of a group that cannot be sent must not keep a processor busy."""
    monkeypatch.setattr(group_hold, "FAILURE_PAUSE", 0.05)
    bench = Bench()
    tries: list[None] = []

    def fail() -> float | None:
        tries.append(None)
        if len(tries) == 5:
            bench.hold.stopped = True
        raise OSError("no channel")

    bench.hold.send_due = fail
    bench.hold.ending.add("a group")
    began = clocks.monotonic()
    bench.hold._run()
    assert len(tries) == 5 and clocks.monotonic() - began > 4 * 0.04
