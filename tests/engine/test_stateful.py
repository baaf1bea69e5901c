"""A service on a store, driven step by step against a model: submit, configure, label, restart.

Hypothesis makes up runs of these steps. Whatever their order, no acknowledged point is lost or
doubled, settings, labels and incidents are as they were left, no id is given twice, and the scores
are those of a run without a restart, to the bit. The loop's own functions run in the test's thread,
so nothing sleeps and every run can be repeated.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from redline.api.service import Service, assemble_service
from redline.engine import monitor
from redline.engine.feed import MAX_UNDO, Feed
from redline.engine.monitor import Monitor
from redline.feedback.labels import Label
from redline.incidents.incident import SNOOZES, incident_row
from redline.settings import Settings
from redline.sources.pushed import SubmissionRefused
from redline.storage.retention import Retention
from redline.storage.sqlite import SqliteStore

START = 1_700_000_000.0  # seconds since the epoch, before the first point
WALL = 1_900_000_000.0  # the monitor's clock, after every point
SOURCES = {"pump": ("flow", "heat"), "pipe": ("value",)}
BUFFER = 400  # steps, so that a run is soon longer
KEPT_ROWS = 600  # points that the retention leaves
DAY = 86_400.0
TIMES = int(os.environ.get("FUZZ_TIMES", "0"))  # set by `make fuzz`: so many times as many runs

sources = st.sampled_from(sorted(SOURCES))
values = st.sampled_from([0.0, 1.0, -1.5, 2.25, 9.0, 40.0, 1e70, float("nan")])
choices = st.integers(0, 10**6)  # picks one of what there is at that moment
tunings = st.builds(
    Settings,
    detector=st.sampled_from(["rolling z-score", "EWMA", "CUSUM", "Mahalanobis"]),
    window=st.sampled_from([10, 20]),
    threshold=st.sampled_from([1.5, 3.5]),
    direction=st.sampled_from(["both", "high"]),
    refractory=st.sampled_from([0, 5]),
)


@dataclass
class SourceModel:
    """What a source must hold."""

    time: list[float] = field(default_factory=list)  # of fresh points, all that ever were
    x: list[list[float]] = field(default_factory=list)  # their values
    late: dict[float, list[float]] = field(default_factory=dict)  # by time
    gone: set[float] = field(default_factory=set)  # late times that the retention deleted
    kept: int = 0  # fresh points that the retention deleted
    applied: Settings = field(default_factory=Settings)
    undone: list[Settings] = field(default_factory=list)
    # (fresh points before, settings)
    changes: list[tuple[int, Settings]] = field(default_factory=list)
    exact: bool = True  # whether an unbroken run has the same past when settings are applied

    @property
    def newest(self) -> float:
        return self.time[-1] if self.time else START

    def take(self, time: list[float], x: list[list[float]]) -> tuple[int, int, int]:
        """Take points in; return how many are fresh, repeated and late."""
        counts = [0, 0, 0]
        for at, row in zip(time, x):
            kind = 0
            if at > self.newest:
                self.time.append(at)
                self.x.append(row)
            elif at in self.late or at in self.time:
                kind = 1
            else:
                kind = 2
                self.late[at] = row
            counts[kind] += 1
        return counts[0], counts[1], counts[2]

    def rows(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the points that are stored by time: time (n,), x (n, features), late (n,) bool."""
        fresh = zip(self.time[self.kept :], self.x[self.kept :], [False] * len(self.time))
        late = ((at, row, True) for at, row in self.late.items())
        points = sorted([*fresh, *late], key=lambda point: point[0])
        time, x, is_late = zip(*points) if points else ((), (), ())
        return np.array(time), np.array(x), np.array(is_late, bool)


class RedlineMachine(RuleBasedStateMachine):
    """The service, beside a model of what it must hold."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="stateful"))
        self.sources: dict[str, SourceModel] = {}
        self.labels: dict[int, Label] = {}
        self.label_ids = 0  # the highest that was ever given
        self.dismissed: dict[str, list[int]] = {}
        self.anomaly_ids = 0  # the highest that was ever given
        self.incidents: dict[str, tuple[str, float]] = {}  # id -> stream and start, all ever seen
        self.service: Service | None = None

    # --- the service

    @initialize(name=sources, tuned=tunings, n=st.sampled_from([900, 300, 60]), seed=choices)
    def begin(self, name: str, tuned: Settings, n: int, seed: int) -> None:
        """Begin with a source under other settings than the default ones, from its first point on,
        and with points for more than a buffer.

        Few runs would else come to a restart that needs the state of a detector.
        """
        self.start()
        self.push(name, [START + 1.0], [[0.0] * len(SOURCES[name])])
        self.tune(name, tuned)
        self.submit_many(name, n, seed)

    def start(self) -> None:
        """Open the store with a new monitor, as a start of the program does."""
        store = SqliteStore(self.folder / "redline.db", Retention(30.0, KEPT_ROWS))
        self.service = assemble_service(
            lambda recorder: Monitor({}, wall=lambda: WALL, store=recorder), store
        )
        self.monitor = self.service.monitor
        self.store = store
        self.monitor.listeners.append(self.note_anomalies)

    def note_anomalies(self, batches: Any, committed: bool) -> None:
        """Remember the ids of new anomalies; runs where the monitor logs what is raised."""
        assert committed
        self.new_ids = [a.id for batch in batches for a in batch.anomalies]
        self.given.extend(self.new_ids)

    given: list[int] = []  # noqa: RUF012  replaced in `beat`, before anything is added

    def beat(self) -> None:
        """Run a round of the loop, then check that nothing failed and no id came twice."""
        self.given = []
        self.monitor.beat()
        self.check_round()

    def check_round(self) -> None:
        assert self.monitor.trouble is None
        assert not [feed.failure for feed in self.monitor.feeds.values() if feed.failure]
        assert all(id > self.anomaly_ids for id in self.given), "the id of an anomaly came twice"
        assert len(set(self.given)) == len(self.given)
        self.anomaly_ids = max([self.anomaly_ids, *self.given])
        for incident in self.service.incidents.items.values():
            seen = self.incidents.setdefault(incident.id, (incident.stream, incident.start))
            assert seen == (incident.stream, incident.start), "the id of an incident came twice"

    def feed(self, name: str) -> Feed:
        """Return a source with its past, as a request of the API waits for it."""
        feed = self.monitor.feeds[name]
        self.monitor.request_track(name, feed.applied)
        self.beat()
        assert feed.ready
        return feed

    # --- points

    def push(self, name: str, time: list[float], x: list[list[float]]) -> None:
        """Submit points and compare the receipt with the model."""
        receipt = self.monitor.submit(name, np.array(time), np.array(x), SOURCES[name])
        self.beat()
        wanted = self.sources.setdefault(name, SourceModel()).take(time, x)
        assert tuple(receipt.result(timeout=0)) == wanted
        self.check(name)

    def new_rows(self, name: str, data: st.DataObject, most: int) -> list[list[float]]:
        width = len(SOURCES[name])
        row = st.lists(values, min_size=width, max_size=width)
        return data.draw(st.lists(row, min_size=1, max_size=most))

    @rule(name=sources, data=st.data(), gap=st.sampled_from([1.0, 2.0, 60.0]))
    def submit(self, name: str, data: st.DataObject, gap: float) -> None:
        """Points in order."""
        x = self.new_rows(name, data, 12)
        newest = self.sources.get(name, SourceModel()).newest
        self.push(name, [newest + gap * (i + 1) for i in range(len(x))], x)

    @rule(name=sources, n=st.sampled_from([60, 300, 900]), seed=choices)
    def submit_many(self, name: str, n: int, seed: int) -> None:
        """So many points that a restart begins at a later snapshot."""
        draw = np.random.default_rng(seed)
        x = draw.normal(size=(n, len(SOURCES[name])))
        x[draw.random(x.shape) < 0.01] += 12.0
        newest = self.sources.get(name, SourceModel()).newest
        self.push(name, [newest + 1.0 + i for i in range(n)], x.tolist())

    @precondition(lambda self: self.sources)
    @rule(data=st.data(), places=st.lists(choices, min_size=1, max_size=6))
    def submit_old(self, data: st.DataObject, places: list[int]) -> None:
        """Points out of order: new ones, some sent before, some between others, one twice."""
        name = data.draw(st.sampled_from(sorted(self.sources)))
        model = self.sources[name]
        known = [*model.time[model.kept :], *model.late]
        times = []
        for place in places:
            at = known[place % len(known)] if known else model.newest
            times.append((at, at - 0.5, model.newest + 1 + place % 5)[place % 3])
        times = [at for at in times if at not in model.gone] or [model.newest + 1]
        first = model.time[model.kept] if len(model.time) > model.kept else START
        times = [max(at, first) for at in times]  # what the retention deleted is not known any more
        row = self.new_rows(name, data, 1)[0]
        self.push(name, [*times, times[0]], [row] * (len(times) + 1))

    @rule(name=sources, wrong=st.sampled_from(["feature", "width", "NaN", "tomorrow", "name"]))
    def submit_refused(self, name: str, wrong: str) -> None:
        """What is refused changes nothing."""
        if name not in self.sources and wrong == "feature":
            return
        time_ = {"NaN": float("nan"), "tomorrow": WALL + 2 * DAY}.get(wrong, WALL)
        names = (*SOURCES[name][1:], "another") if wrong == "feature" else SOURCES[name]
        width = len(names) + 3 if wrong == "width" else len(names)
        target = "overview" if wrong == "name" else name
        with pytest.raises(SubmissionRefused):
            self.monitor.submit(target, np.array([time_]), np.zeros((1, width)), names)
        self.beat()
        assert set(self.monitor.feeds) == set(self.sources)
        if name in self.sources:
            self.check(name)

    # --- settings

    @precondition(lambda self: self.sources)
    @rule(data=st.data(), tuned=tunings)
    def configure(self, data: st.DataObject, tuned: Settings) -> None:
        self.tune(data.draw(st.sampled_from(sorted(self.sources))), tuned)

    def tune(self, name: str, tuned: Settings) -> None:
        """Apply settings, as POST /api/configure does."""
        model = self.sources[name]
        self.feed(name)
        self.monitor.apply(name, tuned)
        if tuned != model.applied:
            model.undone = [*model.undone[1 - MAX_UNDO :], model.applied]
        self.applied(name, tuned)

    @precondition(lambda self: self.sources)
    @rule(data=st.data())
    def undo(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.sources)))
        model = self.sources[name]
        self.feed(name)
        now = self.monitor.undo(name)
        assert now == (model.undone.pop() if model.undone else model.applied)
        self.applied(name, now)

    def applied(self, name: str, now: Settings) -> None:
        """Note settings that were applied, and check that they are stored.

        A new track begins at the oldest step of the buffer. Where that is not the first step, a run
        without a restart may begin it elsewhere.
        """
        model = self.sources[name]
        if now.key != model.applied.key and self.monitor.feeds[name].tape.first:
            model.exact = False
        if now != model.applied:
            model.changes.append((len(model.time), now))
        model.applied = now
        self.beat()
        assert self.monitor.wait_until_stored(patience=0.0)
        self.check(name)

    # --- what people say

    @precondition(lambda self: self.sources)
    @rule(
        data=st.data(),
        kind=st.sampled_from(["expected", "missed"]),
        start=st.integers(0, 300),
        length=st.integers(0, 20),
    )
    def label(self, data: st.DataObject, kind: str, start: int, length: int) -> None:
        name = data.draw(st.sampled_from(sorted(self.sources)))
        span = START + start, START + start + length
        given = self.service.labels.add(Label(name, *span, kind, "ann", WALL, note=str(start)))
        assert given.id > self.label_ids, "the id of a label came twice"
        self.label_ids = given.id
        self.labels[given.id] = given

    @precondition(lambda self: self.labels)
    @rule(choice=choices)
    def take_label_back(self, choice: int) -> None:
        id = sorted(self.labels)[choice % len(self.labels)]
        assert self.service.labels.remove(id) == self.labels.pop(id)

    @precondition(lambda self: self.sources)
    @rule(data=st.data())
    def dismiss_proposal(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.sources)))
        self.service.labels.dismiss(name)
        self.dismissed[name] = [label.id for label in self.labels.values() if label.stream == name]

    def held_back(self, dismissed: dict[str, list[int]]) -> dict[str, list[int]]:
        """Return the dismissals that hold a proposal back: those of the labels of now.

        The retention deletes others once their stream is gone, sooner or later.
        """
        now: dict[str, list[int]] = {}
        for label in self.labels.values():
            now.setdefault(label.stream, []).append(label.id)
        return {name: ids for name, ids in dismissed.items() if now.get(name) == ids}

    @precondition(lambda self: any(i.live for i in self.service.incidents.items.values()))
    @rule(choice=choices, act=st.sampled_from(["acknowledge", "snooze", "resolve"]))
    def act_on_incident(self, choice: int, act: str) -> None:
        live = [i.id for i in self.service.incidents.items.values() if i.live]
        id = live[choice % len(live)]
        length = sorted(SNOOZES)[choice % len(SNOOZES)]
        more = {"snooze": (length,)}.get(act, ())
        getattr(self.service.incidents, act)(id, "ann", time.time(), *more)
        incident = self.service.incidents.get(id)
        assert incident.history[-1].who == "ann" and incident.live == (act != "resolve")

    # --- what happens to the program and its file

    @rule(data=st.data(), name=sources, killed=st.booleans(), pending=st.booleans())
    def restart(self, data: st.DataObject, name: str, killed: bool, pending: bool) -> None:
        """End and start again. Points that wait at a kill were never acknowledged: they are lost;
        at an orderly end they are stored and acknowledged.
        """
        receipt = None
        if pending:
            x = self.new_rows(name, data, 3)
            newest = self.sources.get(name, SourceModel()).newest
            times = [newest + 1 + i for i in range(len(x))]
            receipt = self.monitor.submit(name, np.array(times), np.array(x), SOURCES[name])
        if not killed:
            self.given = []
            self.monitor.stopping.set()
            self.monitor.run()
            self.check_round()
            if receipt is not None:
                model = self.sources.setdefault(name, SourceModel())
                assert tuple(receipt.result(timeout=0)) == model.take(times, x)
        elif receipt is not None:
            assert not receipt.done()
        incidents = self.incident_rows()
        self.store.close()
        self.start()
        assert self.incident_rows() == incidents
        self.check_all()

    def incident_rows(self) -> list[dict[str, Any]]:
        """Return all incidents as rows, in which a missing number equals itself."""
        return sorted(map(incident_row, self.service.incidents.items.values()), key=str)

    @precondition(lambda self: self.sources)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.sources)))
        removed = self.monitor.remove_source(name)
        self.beat()
        removed.result(timeout=0)
        self.service.incidents.reset_stream(name, time.time())
        del self.sources[name]
        assert self.store.points(name) is None and name not in self.monitor.feeds

    @rule(days=st.sampled_from([0.0, 31.0]))
    def sweep(self, days: float) -> None:
        """Let the retention delete what is too much, or all that a restart does not need."""
        sweeper = self.store.sweeper
        while sweeper.sweep(time.time() + days * DAY) or sweeper.unfinished:
            pass
        for name, model in self.sources.items():
            if days:
                model.gone.update(model.late)
                model.late = {}
            stored = self.store.points(name, limit=10**7)
            left = int(np.count_nonzero(~np.isin(stored.time, [*model.late])))
            assert len(model.time) - left >= model.kept
            model.kept = len(model.time) - left
        self.check_all()

    # --- what must hold

    def check(self, name: str) -> None:
        """Check what is stored of a source, and its settings."""
        model = self.sources[name]
        stored = self.store.points(name, limit=10**7)
        time_, x, late = model.rows()
        assert np.array_equal(stored.time, time_), "points were lost or doubled"
        assert np.array_equal(stored.x, x.reshape(stored.x.shape), equal_nan=True)
        assert np.isnan(stored.score[late]).all()
        feed = self.monitor.feeds[name]
        assert feed.stream.names == SOURCES[name]
        if feed.ready:
            assert feed.applied == model.applied and feed.undone == model.undone
            assert feed.end == feed.committed == len(model.time)

    def check_all(self) -> None:
        """Check all sources, and all labels."""
        assert set(self.monitor.feeds) == set(self.sources)
        for name in self.sources:
            self.check(name)
        for name, model in self.sources.items():
            history = self.store.history(name, limit=1)
            if model.changes:
                assert Settings(**history[0]["settings"]) == model.applied
        labels = self.service.labels
        assert labels.items == self.labels
        assert self.held_back(labels.dismissed) == self.held_back(self.dismissed)

    def teardown(self) -> None:
        """Compare all scores with those of runs without a restart."""
        try:
            if self.service is not None:
                self.check_all()
                for name, model in self.sources.items():
                    if model.exact:
                        self.compare_scores(name, model)
        finally:
            if self.service is not None:
                self.store.close()
            shutil.rmtree(self.folder)

    def compare_scores(self, name: str, model: SourceModel) -> None:
        stored = self.store.points(name, limit=10**7)
        fresh = ~np.isin(stored.time, [*model.late])
        wanted = unbroken_scores(name, model)[model.kept :]
        assert np.array_equal(stored.score[fresh], wanted, equal_nan=True), "other scores"


def unbroken_scores(name: str, model: SourceModel) -> np.ndarray:
    """Return the scores (n,) of all fresh points in a run without a store and without a restart."""
    whole = Monitor({}, wall=lambda: WALL)
    scores: list[np.ndarray] = []
    whole.listeners.append(lambda batches, _: scores.extend(batch.score for batch in batches))
    marks = [step for step, _ in model.changes]
    tuned = [None, *(settings for _, settings in model.changes)]
    for applied, first, end in zip(tuned, [0, *marks], [*marks, len(model.time)]):
        if applied is not None:
            whole.apply(name, applied)
        if end > first:
            time_ = np.array(model.time[first:end])
            whole.submit(name, time_, np.array(model.x[first:end]), SOURCES[name])
        whole.process_pushed()
    return np.concatenate([np.zeros(0), *scores])


def run_machine(runs: int, steps: int) -> None:
    """Make up so many runs of so many steps; with FUZZ_TIMES others each time, and more."""
    profile = settings(
        max_examples=runs * (TIMES or 1),
        stateful_step_count=steps,
        deadline=None,
        derandomize=not TIMES,
        database=None,
        phases=[Phase.generate] + [Phase.shrink] * bool(TIMES),  # to shrink a run takes minutes
        suppress_health_check=list(HealthCheck),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(monitor, "BUFFER_STEPS", BUFFER)
        run_state_machine_as_test(RedlineMachine, settings=profile)


def test_a_service_holds_what_its_model_holds():
    run_machine(runs=6, steps=15)


@pytest.mark.slow
def test_a_service_holds_what_its_model_holds_in_long_runs():
    run_machine(runs=40, steps=40)
